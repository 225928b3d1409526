//! Models of libffm, in and out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, assert_same_files};
use crossfield_ffm::libffm;

/// What `ffm-train -k 2 -t 8 -s 1 rows model` of libffm 1.14 (1d9c849) makes of
/// [`ROWS`].
const MODEL: &str = "\
n 7
m 3
k 2
normalization 1
w0,0 5.53375e-06 0.0930113 
w0,1 0.940465 0.316004 
w0,2 0.460966 0.16241 
w1,0 0.0332656 0.48003 
w1,1 0.152242 0.73768 
w1,2 -0.129359 0.017543 
w2,0 0.886073 0.0149501 
w2,1 0.0378031 0.374555 
w2,2 0.27746 -0.00478222 
w3,0 0.147256 -0.333383 
w3,1 0.295207 0.485622 
w3,2 0.313205 0.60487 
w4,0 0.718381 0.371789 
w4,1 0.09146 0.433422 
w4,2 0.212217 0.379385 
w5,0 0.536601 0.481232 
w5,1 0.0636912 -0.0269482 
w5,2 0.490116 0.180524 
w6,0 0.417635 0.452575 
w6,1 0.540475 0.172063 
w6,2 0.139184 0.633467 
";
const ROWS: &str = "\
1 0:0:1 1:2:1 2:4:0.5 2:5:-1
0 0:1:1 1:3:1 2:5:0.25
1 0:0:1 1:3:1 2:4:2
0 0:1:1 1:2:1 2:6:1
1 0:0:1 1:2:1
0 0:1:1 1:3:1 2:4:1 2:6:0.5
";
/// What `ffm-predict rows model predictions` of libffm 1.14 says then.
const PREDICTIONS: [f64; 6] = [0.547236, 0.471203, 0.557981, 0.520736, 0.603249, 0.517643];

/// A folder with the model, its rows and the run `a` made of it.
fn imported() -> Folder {
    let folder = Folder::new();
    folder.write("model", MODEL);
    folder.write("rows", ROWS);
    folder.succeed("import libffm model --out a");
    folder
}

fn predictions(folder: &Folder, args: &str) -> Vec<f64> {
    let lines = folder.succeed(&format!("predict {args}")).stdout;
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < tolerance, "{got} {expected}");
    }
}

#[test]
fn an_imported_model_predicts_as_libffm_does() {
    let folder = imported();
    for executor in ["", "--set train.executor=burn"] {
        // Both the file and the predictions have six digits.
        let got = predictions(&folder, &format!("a --data rows {executor}"));
        assert_close(&got, &PREDICTIONS, 2e-6);
    }
    let logloss: f64 = (PREDICTIONS.iter().enumerate())
        .map(|(row, p)| -(if row % 2 == 0 { *p } else { 1.0 - p }).ln())
        .sum();
    let figures = folder.succeed("eval a --data rows").stdout;
    let printed = format!("{:.5}", logloss / 6.0);
    assert!(figures.contains(&printed), "{printed}\n{figures}");
}

#[test]
fn features_that_the_model_lacks_count_in_the_norm_alone_as_in_libffm() {
    let folder = imported();
    // Index 77 is passed over but for its square.
    folder.write("more", "1 0:0:1 1:2:1 2:77:0.5 2:5:-1\n1 0:0:1\n1\n");
    let got = predictions(&folder, "a --data more");
    assert_close(&got, &[UNKNOWN, 0.5, 0.5], 2e-6);
}

/// What `ffm-predict` of libffm 1.14 says of the first of those lines.
const UNKNOWN: f64 = 0.537983;

#[test]
fn what_is_exported_and_imported_again_is_the_same_model() {
    let folder = imported();
    for (flag, format) in [
        ("", libffm::Format::Text),
        ("--binary", libffm::Format::Binary),
    ] {
        folder.succeed(&format!("export a --format libffm -o out {flag}"));
        let bytes = std::fs::read(folder.path("out")).unwrap();
        let reader = libffm::read("out", bytes.as_slice()).unwrap();
        assert_eq!(reader.format(), format);
        let again = format!("again{flag}");
        folder.succeed(&format!("import libffm out --out {again}"));
        assert_same_files(&folder.files(&again), &folder.files("a"), flag);
    }
    assert_eq!(
        folder.names(),
        ["a", "again", "again--binary", "model", "out", "rows"]
    );
}

#[test]
fn a_trained_model_predicts_the_same_after_a_trip_through_libffms_format() {
    let folder = Folder::new();
    // Fields 0 and 2, and indices 1 and 5 in no training row.
    folder.write(
        "t.ffm",
        "1 0:0:1 2:3:1\n0 0:2:1 2:4:0.5 2:6:1\n1 0:0:1 2:4:1\n",
    );
    folder.write(
        "v.ffm",
        "1 0:5:1 2:3:1\n0 0:2:1 2:1:2 2:4:1\n1 0:9:1 2:6:1 2:3:1\n",
    );
    for unseen in ["shared", "own"] {
        folder.write(
            "a.toml",
            format!(
                "[data]\nformat = 'libffm'\ntrain = 't.ffm'\nunseen = '{unseen}'\n[model]\n\
                 kind = 'ffm'\nbias = false\n[model.ffm]\nlinear = false\ninit_scale = 0.9\n\
                 [train]\nexecutor = 'fused'\n"
            ),
        );
        folder.succeed(&format!("train a.toml --out {unseen}"));
        folder.succeed(&format!("export {unseen} --format libffm -o model"));
        folder.succeed(&format!("import libffm model --out {unseen}-again"));
        let before = predictions(&folder, &format!("{unseen} --data v.ffm"));
        let after = predictions(&folder, &format!("{unseen}-again --data v.ffm"));
        assert_close(&before, &after, 1e-6);
        // Its pair is unknown to one of the two.
        assert_eq!(before[0] == 0.5, unseen == "shared", "{before:?}");
    }
}

#[test]
fn a_compressed_model_is_exported_row_by_row() {
    let folder = Folder::new();
    folder.write("rows", ROWS);
    let run = "\
[data]
format = 'libffm'
train = 'rows'

[model]
kind = 'ffm'
[model.ffm]
embedding_dim = 2

[[optimizer.table]]
match = 'ffm.v2.index'
compress = { kind = 'quotient_remainder', rows = 3 }

[train]
epochs = 2
";
    folder.write("run.toml", run);
    let bare = "--set model.bias=false --set model.ffm.linear=false";
    folder.succeed(&format!("train run.toml --out a {bare}"));
    folder.succeed("export a --format libffm -o model");
    folder.succeed("import libffm model --out b");
    let [a, b] = ["a", "b"].map(|run| predictions(&folder, &format!("{run} --data rows")));
    // The file has six digits.
    assert_close(&a, &b, 1e-5);
}
