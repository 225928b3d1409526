//! Matrix factorization from the command line: ratings and what people did, lists and new users.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Draws, Folder, assert_same_files};

/// Ratings of films of two genres by users of two tastes.
const RATINGS: &str = r#"
[data]
format = "ratings"
train = "train.tsv"
test = "test.tsv"

[label]
column = "rating"

[[field]]
name = "user"

[[field]]
name = "item"

[model]
kind = "mf"

[model.mf]
embedding_dim = 3

[train]
executor = "als"
loss = "squared"
epochs = 20
"#;

/// The same files as likes, each user's last one held out.
const LIKES: &str = r#"
[data]
format = "ratings"
train = "train.tsv"
split = { kind = "leave_last", user = "user", time = "timestamp", valid = false }

[[data.join]]
file = "films.csv"
on = "item"

[label]
column = "rating"
threshold = 4
only_positive = true

[[field]]
name = "user"

[[field]]
name = "item"

[model]
kind = "mf"
bias = false

[model.mf]
embedding_dim = 4
biases = "none"

[train]
executor = "als"
loss = "wrmf"
epochs = 12
"#;

const BPR: &str = "--set train.executor=fused --set train.loss=bpr --set train.epochs=40 \
                   --set optimizer.rows={kind='sgd',lr=0.05,l2=0.01} --set model.mf.init_std=0.01 \
                   --set model.mf.biases=item";

const USERS: usize = 60;
const ITEMS: usize = 40;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("r.toml", RATINGS);
    folder.write("l.toml", LIKES);
    let mut draws = Draws(3);
    let mut time = 0;
    for (name, each) in [("train.tsv", 20), ("test.tsv", 4)] {
        let mut text = String::new();
        for user in 0..USERS {
            for _ in 0..each {
                let item = (draws.next() * ITEMS as f64) as usize;
                let stars =
                    if user % 2 == item % 2 { 4 } else { 1 } + (draws.next() * 2.0) as usize;
                time += 1;
                text += &format!("u{user}\ti{item}\t{stars}\t{time}\n");
            }
        }
        folder.write(name, text);
    }
    let titles = (0..=ITEMS).map(|item| format!("i{item},Film {item}\n"));
    folder.write(
        "films.csv",
        "item,title\n".to_owned() + &titles.collect::<String>(),
    );
    folder
}

/// Keys and titles of what is printed.
fn keys(folder: &Folder, args: &str) -> Vec<(String, String)> {
    let printed = folder.succeed(args).stdout;
    let cells = printed
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    cells
        .map(|cells| (cells[1].to_owned(), cells[2].to_owned()))
        .collect()
}

fn genre(key: &str) -> usize {
    key[1..].parse::<usize>().unwrap() % 2
}

#[test]
fn ratings_are_learned_by_every_executor() {
    let folder = folder();
    for (executor, epochs) in [("als", 20), ("mcmc", 40), ("fused", 15), ("burn", 15)] {
        let run = format!(
            "train r.toml --out {executor} --set train.executor={executor} --set \
             train.epochs={epochs}"
        );
        folder.succeed(&run);
        let metrics = folder.metrics(executor);
        let rmse = |part: &str| metrics[part]["rmse"].as_f64().unwrap();
        // Half a star is left at the least, as it was drawn; the tastes are three apart.
        assert!(rmse("test") < 0.85, "{executor}: {metrics}");
        assert!(rmse("constant") > 1.4, "{metrics}");
        let known = keys(&folder, &format!("recommend {executor} --user u1 -k 5"));
        assert_eq!(known.len(), 5);
        assert!(
            known.iter().all(|(key, _)| genre(key) == 1),
            "{executor}: {known:?}"
        );
        let new = format!("recommend {executor} --history i2:5,i4:5,i3:1 -k 5");
        let new = keys(&folder, &new);
        assert!(
            new.iter().all(|(key, _)| genre(key) == 0),
            "{executor}: {new:?}"
        );
    }
    // One run directory, whoever reads it.
    let als = folder.succeed("predict als --data test.tsv").stdout;
    let burn = folder
        .succeed("predict als --data test.tsv --set train.executor=burn")
        .stdout;
    for (als, burn) in als.lines().zip(burn.lines()) {
        let [als, burn] = [als, burn].map(|line| line.parse::<f64>().unwrap());
        assert!((als - burn).abs() < 1e-5, "{als} {burn}");
    }
}

#[test]
fn likes_are_ranked_and_measured_by_lists() {
    let folder = folder();
    for (run, sets) in [("wrmf", ""), ("bpr", BPR)] {
        folder.succeed(&format!("train l.toml --out {run} {sets}"));
        let metrics = folder.metrics(run);
        let figure = |part: &str, name: &str| metrics[part]["ranking"][name].as_f64().unwrap();
        assert_eq!(metrics["test"]["ranking"]["users"], USERS);
        assert!(
            figure("test", "recall") > 1.5 * figure("constant", "recall"),
            "{run}: {metrics}"
        );
        // A table of lists, and popularity beside it.
        let evaluated = folder
            .succeed(&format!("eval {run} --data test.tsv"))
            .stdout;
        assert!(
            evaluated.contains("Rec@10") && evaluated.contains("NDCG@10"),
            "{evaluated}"
        );

        // One liked film among four of the other genre, and one that training does not have.
        folder.write("one.tsv", "u1\ti3\t5\t9000\nu2\ti40\t5\t9001\n");
        folder.write("candidates.txt", "u1 i2 i4 i6 i8\nu2 i2 i4 i1\n");
        let asked = format!("eval {run} --data one.tsv --candidates candidates.txt");
        let figures = folder.succeed(&asked).stdout;
        let line = figures.lines().nth(1).unwrap();
        let figures: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(figures[..2], ["0.5000", "0.5000"], "{run}");

        let known = keys(&folder, &format!("recommend {run} --user u1 -k 3"));
        assert!(
            known.iter().all(|(key, _)| genre(key) == 1),
            "{run}: {known:?}"
        );
        assert!(
            known
                .iter()
                .all(|(key, title)| *title == format!("Film {}", &key[1..]))
        );
        let all = keys(
            &folder,
            &format!("recommend {run} --user u1 -k 100 --with-seen"),
        );
        assert_eq!(all.len(), ITEMS);
        let new = keys(&folder, &format!("recommend {run} --history i2,i4,i6 -k 3"));
        assert!(new.iter().all(|(key, _)| genre(key) == 0), "{run}: {new:?}");
        assert!(
            !new.iter()
                .any(|(key, _)| ["i2", "i4", "i6"].contains(&key.as_str()))
        );
    }
}

#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let folder = folder();
    // Long enough to be met on the way; all are measured and saved every tenth sweep.
    folder.write("wrmf.toml", LIKES.replace("epochs = 12", "epochs = 400"));
    folder.write("als.toml", RATINGS.replace("epochs = 20", "epochs = 400"));
    for name in ["wrmf", "als"] {
        folder.succeed(&format!("train {name}.toml --out whole-{name}"));
        let out = format!("cut-{name}");
        folder.interrupt(&format!("{name}.toml"), &out);
        folder.succeed(&format!("train --resume {out}"));
        assert_same_files(
            &folder.files(&format!("whole-{name}")),
            &folder.files(&out),
            name,
        );
    }
}

#[test]
fn what_does_not_fit_together_is_named_and_leaves_no_run_behind() {
    let folder = folder();
    let before = folder.names();
    for (args, expected) in [
        (
            "train l.toml --set model.bias=true",
            "model.bias: is true: wrmf compares items, which a bias adds nothing to; set \
             model.bias = false",
        ),
        (
            "train l.toml --set model.mf.biases=item",
            "model.mf.biases: wrmf needs biases = none",
        ),
        (
            "train l.toml --set train.executor=burn",
            "train.executor: is burn: wrmf needs executor = \"als\"",
        ),
        (
            "train r.toml --set train.loss=bpr",
            "train.executor: is als: bpr needs executor = \"fused\"",
        ),
        (
            "train r.toml --set train.loss=probit",
            "train.loss: is probit: the executor als fits a matrix factorization by \"squared\" \
             (ratings) or \"wrmf\" (what people did)",
        ),
        (
            "train l.toml --set train.solver.linear_l2=1.0",
            "train.solver.linear_l2: the loss wrmf has no use for it: leave it out",
        ),
        (
            "train r.toml --set train.solver.alpha=1.0",
            "train.solver.alpha: is for the loss wrmf: leave it out",
        ),
        (
            "train r.toml --set train.negatives={kind='uniform'}",
            "train.negatives: is for the losses bpr and sampled_softmax: leave it out",
        ),
        (
            "train l.toml --set model.mf.user=items",
            "`mf` reads field `items`, which the data does not have (fields: user, item)",
        ),
    ] {
        let message = folder.fail(args);
        assert!(message.contains(expected), "{message}");
        assert_eq!(folder.names(), before, "{args} left something behind");
    }
    folder.succeed("train r.toml --out run");
    folder.write("candidates.txt", "nobody i2\n");
    for (args, expected) in [
        (
            "eval run --data test.tsv --candidates candidates.txt",
            "the run is measured row by row: expected one of loss = \"wrmf\" or \"bpr\"",
        ),
        (
            "recommend run --user nobody",
            "--user nobody: is not in the vocabulary `user` of the run",
        ),
        (
            "recommend run --history i2",
            "--history i2: expected a rating, as in 50:4.5",
        ),
        (
            "recommend run --history i2:good",
            "--history i2:good: expected a finite number behind the colon",
        ),
    ] {
        let message = folder.fail(args);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_file_without_a_like_is_no_data() {
    let folder = folder();
    folder.write("train.tsv", "u1\ti1\t2\t1\n");
    assert_eq!(
        folder.fail("train l.toml"),
        "label.only_positive = true: expected at least one row whose label is not 0"
    );
}
