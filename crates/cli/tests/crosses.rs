//! Crosses of fields, from run file to prediction.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

/// The label is whether bank and topic are of the same kind, which neither says alone.
const CSV: &str =
    "label,bank,topic,tags\n1,a,x,p|q\n0,a,y,q\n0,b,x,p\n1,b,y,\n1,a,x,q|p\n0,b,x,p\n";

const RUN: &str = "\
[data]
train = 'a.csv'

[[field]]
name = 'bank'

[[field]]
name = 'topic'

[[field]]
name = 'tags'
kind = 'bag'

[[cross]]
fields = ['bank', 'topic']

[[cross]]
fields = ['topic', 'tags']
hash_rows = 50

[[cross]]
when = 'bank=b AND tags=p'

[model]
kind = 'wide'

[optimizer]
rows = { kind = 'adagrad', lr = 1.0 }

[train]
epochs = 20
";

#[test]
fn crosses_train_evaluate_predict_and_explain_under_both_executors() {
    let folder = Folder::new();
    folder.write("a.csv", CSV);
    folder.write("a.toml", RUN);
    // Rows that training has, and one of values that it has not.
    folder.write("b.csv", "bank,topic,tags\na,x,p|q\na,y,q\nnew,x,p\n");
    for executor in ["burn", "fused"] {
        folder.succeed(&format!(
            "train a.toml --out {executor} --set train.executor={executor}"
        ));
        let eval = folder
            .succeed(&format!("eval {executor} --data a.csv"))
            .stdout;
        assert!(eval.contains("1.00000"), "{eval}");
        let predict = |file: &str| -> Vec<f64> {
            let lines = folder.succeed(&format!("predict {executor} --data {file}"));
            lines
                .stdout
                .lines()
                .map(|line| line.parse().unwrap())
                .collect()
        };
        let (train, new) = (predict("a.csv"), predict("b.csv"));
        for (probability, label) in train.iter().zip([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]) {
            assert!((probability - label).abs() < 0.3, "{train:?}");
        }
        // The same rows have the same crosses, in whatever file they stand.
        assert_eq!(new[..2], train[..2]);
        let explain = |row: usize| {
            let text = folder.succeed(&format!("explain {executor} --data b.csv --row {row}"));
            text.stdout
        };
        assert!(
            explain(1).contains("  bank=a & topic=x\n"),
            "{}",
            explain(1)
        );
        assert!(
            explain(1).contains("  topic & tags=(hash "),
            "{}",
            explain(1)
        );
        assert!(
            explain(3).contains("+0.000000  bank & topic=(unseen)\n"),
            "{}",
            explain(3)
        );
        let rule = folder.succeed(&format!("explain {executor} --data a.csv --row 3"));
        assert!(
            rule.stdout.contains("  bank=b AND tags=p\n"),
            "{}",
            rule.stdout
        );
    }
}

#[test]
fn options_of_tables_and_resuming_know_crosses() {
    let folder = Folder::new();
    folder.write("a.csv", CSV);
    let ftrl = "\n[[optimizer.table]]\nmatch = 'wide.bank & *'\nkind = 'ftrl'\nl1 = 100.0\n";
    folder.write("a.toml", format!("{RUN}{ftrl}"));
    folder.succeed("train a.toml --out a --set train.epochs=3");
    let text = folder.succeed("explain a --data a.csv").stdout;
    assert!(text.contains("+0.000000  bank=a & topic=x\n"), "{text}");
    // `run.toml` is a run file of the same run.
    folder.succeed("train a/run.toml --out b");
    for file in [
        "schema.json",
        "model.safetensors",
        "run.toml",
        "metrics.json",
    ] {
        let [a, b] = ["a", "b"].map(|run| std::fs::read(folder.path(&format!("{run}/{file}"))));
        assert!(a.unwrap() == b.unwrap(), "{file}");
    }
}
