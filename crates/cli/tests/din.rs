//! DIN and target attention from the command line.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

/// People click on an item of a kind that they had before: `r…` or `n…`, of four each. Histories have no,
/// one or three items.
fn rows() -> String {
    let mut text = String::from("label,item,kind,items,kinds\n");
    for at in 0..600usize {
        let (kind, liked) = (["r", "n"][at % 2], ["r", "n"][at / 2 % 2]);
        let count = [3, 1, 3, 0][at / 4 % 4];
        let items: Vec<String> = (0..count)
            .map(|nth| format!("{liked}{}", (at / 16 + nth) % 4))
            .collect();
        let clicked = u8::from(count > 0 && kind == liked);
        let kinds = vec![liked; count].join("|");
        text += &format!(
            "{clicked},{kind}{},{kind},{},{kinds}\n",
            at / 8 % 4,
            items.join("|")
        );
    }
    text
}

fn run_file(model: &str) -> String {
    format!(
        "[data]\ntrain = 'a.csv'\nsplit = {{ kind = 'random', valid = 0.1, test = 0.2 }}\n\
         [[field]]\nname = 'item'\n[[field]]\nname = 'kind'\n\
         [[field]]\nname = 'items'\nkind = 'sequence'\nvocabulary = 'item'\nrepeats = true\n\
         [[field]]\nname = 'kinds'\nkind = 'sequence'\nvocabulary = 'kind'\nbeside = 'items'\n\
         [train]\nepochs = 20\nbatch_size = 64\n[optimizer]\ndense = {{ lr = 0.01 }}\n{model}\n"
    )
}

const SIDE_BY_SIDE: &str =
    "behaviour = [{ target = ['item', 'kind'], history = ['items', 'kinds'] }]";

fn number(line: &str) -> f64 {
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn din_learns_what_only_the_history_tells_and_predicts_as_it_was_measured() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write(
        "a.toml",
        run_file(&format!(
            "[model]\nkind = 'din'\n[model.din]\n{SIDE_BY_SIDE}"
        )),
    );
    folder.succeed("train a.toml --out din");
    folder.succeed("train a.toml --out none --set model.din.attention=none");
    let auc = |run: &str| folder.metrics(run)["test"]["auc"].as_f64().unwrap();
    assert!(auc("din") > 0.9, "{}", auc("din"));
    assert!(auc("none") < 0.7, "{}", auc("none"));
    // Read back, with the statistics of its activations: the same figures, and the same lines.
    let predicted = folder.succeed("predict din --data a.csv").stdout;
    assert_eq!(predicted, folder.succeed("predict din --data a.csv").stdout);
    let explained = folder.succeed("explain din --data a.csv --row 3").stdout;
    let line = explained.lines().nth(1).unwrap();
    let prediction = number(line.strip_prefix("prediction").unwrap());
    let third: f64 = predicted.lines().nth(2).unwrap().parse().unwrap();
    assert!((prediction - third).abs() < 1e-6, "{explained}");
}

#[test]
fn din_gives_the_same_bytes_at_any_number_of_threads() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write("a.toml", run_file("[model]\nkind = 'din'"));
    for threads in [1, 2, 3] {
        folder.succeed(&format!(
            "train a.toml --out {threads} --set train.threads={threads} --set train.epochs=2"
        ));
    }
    let weights =
        |run: &str| std::fs::read(folder.path(&format!("{run}/model.safetensors"))).unwrap();
    assert_eq!(weights("1"), weights("2"));
    assert_eq!(weights("1"), weights("3"));
}

#[test]
fn past_items_explain_the_score_of_target_attention() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write(
        "a.toml",
        run_file("[model]\nkind = 'attention'\n[model.attention]\nprojections = true"),
    );
    folder.succeed("train a.toml --out a");
    let text = folder.succeed("explain a --data a.csv --row 1").stdout;
    let lines: Vec<&str> = text.lines().collect();
    let score = number(lines[0].strip_prefix("score").unwrap());
    // Below the sum stands what the target looked at.
    let parts = lines[3..]
        .iter()
        .take_while(|line| !line.ends_with("  sum"));
    let parts: Vec<&&str> = parts.collect();
    // Three items and three kinds of the history, and the bias.
    assert_eq!(parts.len(), 7, "{text}");
    let sum: f64 = parts.iter().map(|line| number(line)).sum();
    assert!((sum - score).abs() < 1e-5, "{text}");
    assert!(text.contains("items=r0 & item=r0"), "{text}");
}

#[test]
fn l2_by_occurrence_is_of_counted_values_on_burn() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write("a.toml", run_file("[model]\nkind = 'din'"));
    let penalty = "match=\"v8.item\",l2=0.5,l2_by=\"occurrence\"";
    let small = "--set train.epochs=1";
    folder.succeed(&format!(
        "train a.toml --out with {small} --set optimizer.table=[{{{penalty}}}]"
    ));
    folder.succeed(&format!("train a.toml --out without {small}"));
    let weights =
        |run: &str| std::fs::read(folder.path(&format!("{run}/model.safetensors"))).unwrap();
    assert_ne!(weights("with"), weights("without"));
    let rows_one_by_one = run_file("[model]\nkind = 'fm'").replace("batch_size = 64\n", "");
    folder.write("fused.toml", rows_one_by_one);
    let message = folder.fail(&format!(
        "train fused.toml --out fused --set train.executor=fused \
         --set optimizer.table=[{{{penalty}}}]"
    ));
    assert_eq!(
        message,
        "l2_by of table `v8.item`: is for executor = \"burn\"; the executor is fused"
    );
    folder.write(
        "hashed.toml",
        run_file("[model]\nkind = 'din'").replace(
            "name = 'item'\n",
            "name = 'item'\nkind = 'hashed'\nhash_rows = 50\nvocabulary = 'h'\n",
        ),
    );
    let message = folder.fail(
        "train hashed.toml --out h \
         --set optimizer.table=[{match=\"v8.h\",l2=0.5,l2_by=\"occurrence\"}]",
    );
    assert_eq!(
        message,
        "table `v8.h`: l2_by = \"occurrence\" needs values that were counted in training: those of \
         hashed fields and of files of indices are not"
    );
}

#[test]
fn histories_of_unequal_length_are_refused_before_there_is_a_run_and_when_rows_are_read() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    let model = format!("[model]\nkind = 'din'\n[model.din]\n{SIDE_BY_SIDE}");
    folder.write("a.toml", run_file(&model));
    folder.succeed("train a.toml --out a --set train.epochs=1");
    folder.write(
        "b.csv",
        "label,item,kind,items,kinds\n1,r0,r,r1,r\n0,n0,n,r1|r2,r\n",
    );
    // Where the data does not say that they are parallel, the model does.
    let undeclared = folder
        .read("a.toml")
        .replace("beside = 'items'", "repeats = true");
    folder.write("undeclared.toml", undeclared);
    let train = "--set data.train=b.csv --set data.split={kind=\"random\",valid=0.5}";
    let message = folder.fail(&format!("train undeclared.toml --out b {train}"));
    assert!(
        message.starts_with(
            "`din` reads `items` and `kinds` side by side, which have [2, 1] items in row "
        ),
        "{message}"
    );
    assert!(!folder.path("b").exists(), "{message}");
    let message = folder.fail("predict a --data b.csv");
    assert_eq!(
        message,
        "`b.csv` line 3, field `kinds`: 1 values beside 2 of `items`; expected one for each"
    );
}
