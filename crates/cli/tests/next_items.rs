//! Runs that find the next item of a sequence, from training to lists.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Draws, Folder, assert_same_files};

const ITEMS: usize = 12;

/// Walks on a circle of twelve items, now and then two steps at a time: what is next follows from
/// the item before.
fn walks(seed: u64, users: usize) -> Vec<Vec<usize>> {
    let mut draws = Draws(seed);
    let walk = |draws: &mut Draws| {
        let mut item = (draws.next() * ITEMS as f64) as usize;
        let length = 4 + (draws.next() * 4.0) as usize;
        let mut walk: Vec<usize> = Vec::new();
        while walk.len() < length {
            item = (item + 1 + usize::from(draws.next() > 0.9)) % ITEMS;
            // Nobody takes an item twice.
            if !walk.contains(&item) {
                walk.push(item);
            }
        }
        walk
    };
    (0..users).map(|_| walk(&mut draws)).collect()
}

/// Rows of a user each: what they had but for the last `left` items, and the one after that.
fn rows(walks: &[Vec<usize>], left: usize) -> String {
    let mut text = "label,user,item,history\n".to_owned();
    for (user, walk) in walks.iter().enumerate() {
        let (history, next) = (&walk[..walk.len() - left - 1], walk[walk.len() - left - 1]);
        let history: Vec<String> = history.iter().map(|item| format!("i{item}")).collect();
        text += &format!("1,u{user},i{next},{}\n", history.join("|"));
    }
    text
}

const RUN: &str = r#"
[data]
train = "train.csv"
valid = "valid.csv"

[[field]]
name = "user"
[[field]]
name = "item"
[[field]]
name = "history"
kind = "sequence"
vocabulary = "item"

[model]
kind = "sasrec"
bias = false

[model.sasrec]
embedding_dim = 16
blocks = 1
heads = 2
dropout = 0.1

[optimizer]
rows = { kind = "adam", lr = 0.01 }
dense = { kind = "adam", lr = 0.01 }

[train]
loss = "sampled_softmax"
negative_count = 0
epochs = 8
batch_size = 16
seed = 3
"#;

fn folder() -> Folder {
    let folder = Folder::new();
    let walks = walks(7, 200);
    folder.write("train.csv", rows(&walks, 1));
    folder.write("valid.csv", rows(&walks, 0));
    folder.write("run.toml", RUN);
    folder
}

fn figure(folder: &Folder, run: &str, part: &str, figure: &str) -> f64 {
    folder.metrics(run)[part]["ranking"][figure]
        .as_f64()
        .unwrap()
}

/// Keys and scores of a printed list.
fn list(text: &str) -> Vec<(String, f64)> {
    let cells = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    cells
        .map(|cells| (cells[1].to_owned(), cells[3].parse().unwrap()))
        .collect()
}

#[test]
fn the_next_item_is_found_by_every_loss_and_measured_as_by_a_naive_loop() {
    let folder = folder();
    for (name, set) in [
        ("full", "train.negative_count=0"),
        ("sampled", "train.negative_count=8"),
        (
            "bpr",
            "train.loss=bpr --set train.negative_count=2 --set train.negatives.kind=uniform",
        ),
    ] {
        folder.succeed(&format!("train run.toml --out {name} --set {set}"));
        // Of lists of at most ten of the eight or so items that a user has not had; popularity
        // knows nothing of the last item.
        let (ndcg, popular) = (
            figure(&folder, name, "valid", "ndcg"),
            figure(&folder, name, "constant", "ndcg"),
        );
        assert!(ndcg > 0.75 && popular < 0.55, "{name}: {ndcg} {popular}");
    }
    let valid = folder.read("valid.csv");
    let (mut hits, mut ndcg, mut users) = (0.0, 0.0, 0.0);
    for row in valid.lines().skip(1).take(25) {
        let cells: Vec<&str> = row.split(',').collect();
        let (next, history) = (cells[2], cells[3].replace('|', ","));
        let printed = folder.succeed(&format!("recommend full --history {history} -k 10"));
        let list = list(&printed.stdout);
        assert!(
            list.iter()
                .all(|(key, _)| !cells[3].split('|').any(|had| had == key))
        );
        users += 1.0;
        if let Some(place) = list.iter().position(|(key, _)| key == next) {
            hits += 1.0;
            ndcg += 1.0 / (place as f64 + 2.0).log2();
        }
    }
    let lines: Vec<&str> = valid.lines().take(26).collect();
    folder.write("some.csv", lines.join("\n") + "\n");
    let table = folder.succeed("eval full --data some.csv").stdout;
    let of = |name: &str| -> f64 {
        let mut lines = table.lines();
        let head = lines.next().unwrap().split_whitespace();
        let at = head.clone().position(|head| head == name).unwrap();
        let cells: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        // The row may have a name that the head has not.
        cells[cells.len() - head.count() + at].parse().unwrap()
    };
    assert!((of("HR@10") - hits / users).abs() < 1e-4, "{table}");
    assert!((of("NDCG@10") - ndcg / users).abs() < 1e-4, "{table}");
}

#[test]
fn predictions_are_the_scores_of_the_lists_and_candidates_are_ranked_alone() {
    let folder = folder();
    folder.succeed("train run.toml --out run");
    let rows = "label,user,item,history\n1,u0,i5,i3|i4\n1,u1,i9,i3|i4\n1,u2,i5,\n";
    folder.write("rows.csv", rows);
    let predicted = folder.succeed("predict run --data rows.csv").stdout;
    let predicted: Vec<f64> = predicted
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    let printed = folder.succeed("recommend run --history i3,i4 -k 12 --with-seen");
    let listed = list(&printed.stdout);
    assert_eq!(listed.len(), ITEMS);
    assert_eq!(listed[0].0, "i5");
    let score = |key: &str| listed.iter().find(|(of, _)| of == key).unwrap().1;
    assert!((score("i5") - predicted[0]).abs() < 1e-5);
    assert!((score("i9") - predicted[1]).abs() < 1e-5);
    // Nothing is known of who has no history.
    assert_eq!(predicted[2], 0.0);

    // Alone among worse candidates the target is first; unknown candidates are not listed.
    let worst = &listed[ITEMS - 1].0;
    folder.write("one.csv", "label,user,item,history\n1,u0,i5,i3|i4\n");
    folder.write("candidates.txt", format!("u0 {worst} nobody\n"));
    let table = folder
        .succeed("eval run --data one.csv --candidates candidates.txt")
        .stdout;
    let mrr = table
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .position(|head| head == "MRR@10");
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[mrr.unwrap()], "1.0000", "{table}");
    folder.write("candidates.txt", "u1 i1\n");
    assert_eq!(
        folder.fail("eval run --data one.csv --candidates candidates.txt"),
        "--candidates: line 1: user `u1` has no row in the data"
    );

    // What comes after all that a user of the training rows has.
    let train = folder.read("train.csv");
    let cells: Vec<&str> = train.lines().nth(1).unwrap().split(',').collect();
    let whole = format!("{},{}", cells[3].replace('|', ","), cells[2]);
    let by_history = folder
        .succeed(&format!("recommend run --history {whole}"))
        .stdout;
    assert_eq!(folder.succeed("recommend run --user u0").stdout, by_history);
    assert_eq!(
        folder.fail("recommend run --user nobody"),
        "--user nobody: is not in the vocabulary `user` of the run"
    );
}

#[test]
fn a_run_that_was_interrupted_ends_with_the_same_bytes_at_any_number_of_threads() {
    let folder = folder();
    for (name, set) in [
        ("softmax", "train.negative_count=6"),
        ("bpr", "train.loss=bpr"),
    ] {
        // The popularity of items is counted again where a run goes on.
        let run = RUN.replace("negative_count = 0\n", "checkpoint_every = 3\n");
        let run = run.replace(
            "epochs = 8",
            "epochs = 30\nnegatives = { kind = \"popularity\", power = 0.5 }",
        );
        let (key, value) = set.split_once('=').unwrap();
        let run = match key {
            "train.loss" => run.replace("\"sampled_softmax\"", &format!("\"{value}\"")),
            _ => run.replace("seed = 3", &format!("seed = 3\nnegative_count = {value}")),
        };
        folder.write("long.toml", &run);
        folder.succeed(&format!("train long.toml --out {name}"));
        let interrupted = format!("{name}-interrupted");
        folder.interrupt("long.toml", &interrupted);
        folder.succeed(&format!("train --resume {interrupted}"));
        let expected = folder.files(name);
        assert_same_files(&folder.files(&interrupted), &expected, &interrupted);
        let three = format!("{name}-three");
        folder.succeed(&format!(
            "train long.toml --out {three} --set train.threads=3"
        ));
        let mut files = folder.files(&three);
        // It names the number of threads.
        files.insert("run.toml".into(), expected["run.toml"].clone());
        assert_same_files(&files, &expected, &three);
    }
}

#[test]
fn early_stopping_goes_by_the_lists() {
    let folder = folder();
    folder.succeed(
        "train run.toml --out run --set train.epochs=40 --set train.early_stop.patience=2",
    );
    let lines = folder.read("run/metrics.jsonl");
    let figures: Vec<f64> = lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["valid"]["ranking"]["ndcg"].as_f64().unwrap()
        })
        .collect();
    let best = figures.iter().copied().fold(0.0, f64::max);
    assert!(figures.len() < 40, "{figures:?}");
    assert_eq!(figure(&folder, "run", "valid", "ndcg"), best);
    assert_eq!(figures[figures.len() - 3], best);
}

#[test]
fn as_a_component_it_is_a_part_of_a_click_model() {
    let folder = folder();
    // Clicked is what comes next, and not what lies five items further.
    let mut text = "label,user,item,history\n".to_owned();
    for (user, walk) in walks(9, 300).iter().enumerate() {
        let (history, next) = (&walk[..walk.len() - 1], walk[walk.len() - 1]);
        let history: Vec<String> = history.iter().map(|item| format!("i{item}")).collect();
        let history = history.join("|");
        text += &format!("1,u{user},i{next},{history}\n");
        let other = (next + 5) % ITEMS;
        if !walk.contains(&other) {
            text += &format!("0,u{user},i{other},{history}\n");
        }
    }
    folder.write("train.csv", text);
    let run = RUN.replace(
        "kind = \"sasrec\"\nbias = false",
        "sum = [\"wide\", \"sasrec\"]",
    );
    let run = run.replace(
        "loss = \"sampled_softmax\"\nnegative_count = 0",
        "loss = \"logistic\"",
    );
    folder.write("clicks.toml", run.replace("valid = \"valid.csv\"\n", ""));
    folder.succeed("train clicks.toml --out clicks");
    let auc = folder.metrics("clicks")["train"]["auc"].as_f64().unwrap();
    assert!(auc > 0.9, "{auc}");
    folder.succeed("predict clicks --data train.csv");
}

#[test]
fn what_does_not_fit_is_named_before_there_is_a_run() {
    let folder = folder();
    for (sets, expected) in [
        (
            "--set model.sasrec.heads=3",
            "`sasrec.heads` is 3: expected a divisor of 16, the dim of its items",
        ),
        (
            "--set model.sasrec.target=user",
            "`sasrec.target` is user: expected a categorical field of the history's vocabulary",
        ),
        (
            "--set train.loss=wrmf",
            "train.loss: is wrmf: a self-attentive encoder learns the next item by \"sampled_softmax\" or \
             \"bpr\", and clicks by \"logistic\"",
        ),
        (
            "--set model.kind=dot",
            "unknown key `model.sasrec` (in the sum: dot)",
        ),
        (
            "--set model.bias=true",
            "model.bias: is true: sampled_softmax compares items, which a bias adds nothing to; set \
             model.bias = false",
        ),
        (
            "--set train.loss=logistic",
            "train.negative_count: is for the losses bpr and sampled_softmax of the executor burn: \
             leave it out",
        ),
        (
            "--set train.loss=bpr",
            "train.negative_count: is 0: expected 1 or more",
        ),
        (
            "--set train.negatives.kind=popularity --set train.negatives.power=-1",
            "train.negatives.power: is -1: expected a number of at least 0",
        ),
    ] {
        let message = folder.fail(&format!("train run.toml --out bad {sets}"));
        assert!(message.ends_with(expected), "{sets}: {message}");
        assert!(!folder.path("bad").exists(), "{sets}");
    }
    let other = RUN.replace("kind = \"sasrec\"", "kind = \"dot\"").replace(
        "[model.sasrec]\nembedding_dim = 16\nblocks = 1\nheads = 2\ndropout = 0.1\n",
        "",
    );
    folder.write("other.toml", other);
    assert_eq!(
        folder.fail("train other.toml --out bad"),
        "train.loss: sampled_softmax fits a self-attentive encoder alone (model.kind = \"sasrec\"); \
         the model is dot"
    );
}
