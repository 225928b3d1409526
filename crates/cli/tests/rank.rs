//! `rank` scores candidates for a context as `predict` scores whole rows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Draws, Folder};

const RUN: &str = "\
[data]
train = 'a.csv'

[[data.join]]
file = 'ads.csv'
on = 'ad'

[[field]]
name = 'user'

[[field]]
name = 'ad'

[[field]]
name = 'brand'

[[field]]
name = 'price'
kind = 'numeric'

[model]
sum = ['wide', 'fm']
[model.fm]
linear = false

[optimizer]
rows = { kind = 'adagrad', lr = 0.1 }
[train]
epochs = 3
";

const ADS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Finished runs `burn` and `fused`; two contexts and seven candidates, one of them twice.
fn trained() -> Folder {
    let folder = Folder::new();
    let mut draws = Draws(1);
    let mut text = "label,user,ad,price\n".to_owned();
    for _ in 0..300 {
        let mut pick = |below: usize| (draws.next() * below as f64) as usize;
        let (user, ad, price) = (pick(4), pick(6), pick(50));
        let label = u32::from((user + ad) % 3 == 0);
        text += &format!("{label},u{user},{},{price}\n", ADS[ad]);
    }
    folder.write("a.csv", text);
    let brands = ADS.map(|ad| format!("{ad},{}\n", if ad < "d" { "x" } else { "y" }));
    folder.write("ads.csv", format!("ad,brand\n{}", brands.concat()));
    folder.write("a.toml", RUN);
    for executor in ["burn", "fused"] {
        folder.succeed(&format!(
            "train a.toml --out {executor} --set train.executor={executor}"
        ));
    }
    folder.write("f.csv", "user\nu1\nu3\n");
    folder.write("one.csv", "user\nu1\n");
    folder.write(
        "g.csv",
        "price,ad,note\n3,a,\"so, so\"\n7,b,\n40,c,x\n1,d,\n3,a,again\n12,e,\n30,f,\n",
    );
    folder
}

#[test]
fn candidates_have_the_prediction_of_their_whole_row_and_stand_best_first() {
    let folder = trained();
    let g = folder.read("g.csv");
    let candidates: Vec<&str> = g.lines().skip(1).collect();
    for run in ["burn", "fused"] {
        let ranked = folder
            .succeed(&format!("rank {run} --context f.csv --candidates g.csv"))
            .stdout;
        let lines: Vec<Vec<&str>> = ranked
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(lines.len(), 2 * candidates.len());
        for (context, user) in [(0, "u1"), (1, "u3")] {
            let rows: Vec<String> = candidates
                .iter()
                .map(|row| format!("{user},{row}\n"))
                .collect();
            folder.write("rows.csv", format!("user,price,ad,note\n{}", rows.concat()));
            let predicted = folder
                .succeed(&format!("predict {run} --data rows.csv"))
                .stdout;
            let mut expected: Vec<(usize, &str)> = predicted.lines().enumerate().collect();
            // Stable: the candidate that is there twice keeps its order.
            let value = |text: &str| text.parse::<f64>().unwrap();
            expected.sort_by(|a, b| value(b.1).total_cmp(&value(a.1)));
            for (rank, (candidate, prediction)) in expected.into_iter().enumerate() {
                let line = &lines[context * candidates.len() + rank];
                let cells = candidates[candidate].replace("\"so, so\"", "so; so");
                let cells: Vec<String> = cells
                    .split(',')
                    .map(|cell| cell.replace(';', ","))
                    .collect();
                assert_eq!(
                    line[..3],
                    [
                        (context + 1).to_string(),
                        (rank + 1).to_string(),
                        prediction.into()
                    ]
                );
                assert_eq!(line[3..], cells, "{ranked}");
            }
        }
        // Without the number of the context where there is one, and only the best.
        let args = format!("rank {run} --context one.csv --candidates g.csv --top 2");
        let best = folder.succeed(&args).stdout;
        let expected: Vec<String> = lines[..2]
            .iter()
            .map(|line| line[1..].join("\t") + "\n")
            .collect();
        assert_eq!(best, expected.concat());
    }
}

#[test]
fn what_is_wrong_with_either_file_is_named() {
    let folder = trained();
    let refused = |context: &str, candidates: &str| {
        folder.write("c.csv", context);
        folder.write("k.csv", candidates);
        folder.fail("rank burn --context c.csv --candidates k.csv")
    };
    let (f, g) = ("user\nu1\n", "ad,price\na,3\nb,4\n");
    assert_eq!(
        refused("user,price\nu1,3\n", g),
        "`c.csv` with `k.csv`: two columns are called `price`; expected each name once"
    );
    assert_eq!(
        refused("usr\nu1\n", g),
        "field `user`: `c.csv` with `k.csv` has no column `user`; did you mean `usr`?"
    );
    assert_eq!(
        refused(f, "price\n3\n"),
        "data.join.on: `c.csv` with `k.csv` has no column `ad`; it has `user`, `price`"
    );
    assert_eq!(
        refused("user\n", g),
        "`c.csv` is empty; expected at least one record"
    );
    assert_eq!(
        refused("", g),
        "`c.csv` is empty; expected a header and at least one record"
    );
    assert_eq!(
        refused(f, "ad,price\n"),
        "`k.csv` is empty; expected at least one record"
    );
    assert_eq!(
        refused(f, "ad,price\na,3\nb\n"),
        "`k.csv` line 3: 1 columns; expected 2"
    );
    assert_eq!(
        refused(f, "ad,price\na,3\nb,much\n"),
        "`k.csv` line 3, column `price`: `much`; expected a finite number (or declare it in \
         data.missing)"
    );
    // What is wrong in the context is said of its own line.
    assert_eq!(
        refused("user,price\nu1,3\nu2,little\n", "ad\na\nb\n"),
        "`c.csv` line 3, column `price`: `little`; expected a finite number (or declare it in \
         data.missing)"
    );
    assert_eq!(
        refused("user,ad\nu1,nn\n", "price\n3\n"),
        "`c.csv` line 2, column `ad`: `nn` is not in `ads.csv`; expected one of its 6 keys"
    );
    folder.write("c.csv", f);
    assert_eq!(
        folder.fail("rank burn --context c.csv --candidates g.csv --top 0"),
        "--top 0: prints nothing: expected 1 or more"
    );
    assert!(
        folder
            .fail("rank burn --context c.csv --candidates none.csv")
            .starts_with("cannot open `none.csv`: ")
    );
}

#[test]
fn files_without_columns_cannot_be_put_together() {
    let folder = Folder::new();
    folder.write("a.ffm", "1 0:1:1 1:2:1\n0 0:0:1 1:3:1\n");
    folder.write(
        "a.toml",
        "[data]\nformat = 'libffm'\ntrain = 'a.ffm'\n[model]\nkind = 'fm'\n[train]\nepochs = 1\n",
    );
    folder.succeed("train a.toml --out a");
    assert_eq!(
        folder.fail("rank a --context a.ffm --candidates a.ffm"),
        "data.format = libffm: expected csv or ratings to put contexts and candidates together by \
         their columns; write whole rows for `predict`"
    );
}

#[test]
fn both_files_name_their_columns_where_those_of_the_run_do_not() {
    let folder = Folder::new();
    folder.write(
        "r.tsv",
        "u1\ta\t5\t1\nu2\tb\t1\t2\nu1\tb\t4\t3\nu2\ta\t2\t4\n",
    );
    folder.write(
        "r.toml",
        "[data]\nformat = 'ratings'\ntrain = 'r.tsv'\n[label]\ncolumn = 'rating'\n\
         [[field]]\nname = 'user'\n[[field]]\nname = 'item'\n[model]\nkind = 'fm'\n\
         [train]\nloss = 'squared'\n",
    );
    folder.succeed("train r.toml --out a");
    folder.write("f.tsv", "user\nu1\n");
    folder.write("g.tsv", "item\tname\na\tAlien\nb\tBrazil\n");
    let ranked = folder
        .succeed("rank a --context f.tsv --candidates g.tsv")
        .stdout;
    folder.write("rows.tsv", "u1\ta\t0\t0\nu1\tb\t0\t0\n");
    let predicted = folder.succeed("predict a --data rows.tsv").stdout;
    let predicted: Vec<&str> = predicted.lines().collect();
    assert_eq!(
        ranked,
        format!(
            "1\t{}\ta\tAlien\n2\t{}\tb\tBrazil\n",
            predicted[0], predicted[1]
        )
    );
}
