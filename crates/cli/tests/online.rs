//! Training that goes on with new rows, and figures of rows before they are learned from.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Draws, Folder, assert_same_files};

const HEADER: &str = "label,user,item,price\n";

/// Rows of `users` and `items`; a user likes the items of their own parity.
fn day(users: std::ops::Range<u32>, items: std::ops::Range<u32>, rows: usize, seed: u64) -> String {
    let mut draws = Draws(seed);
    let mut text = HEADER.to_owned();
    let pick = |range: &std::ops::Range<u32>, draws: &mut Draws| {
        range.start + (draws.next() * f64::from(range.end - range.start)) as u32
    };
    for _ in 0..rows {
        let (user, item) = (pick(&users, &mut draws), pick(&items, &mut draws));
        let likes = user % 2 == item % 2;
        let label = u8::from(draws.next() < if likes { 0.8 } else { 0.2 });
        text += &format!("{label},u{user},i{item},{}\n", (draws.next() * 10.0) as u32);
    }
    text
}

fn run_file(executor: &str) -> String {
    format!(
        r#"
[data]
train = "day-1.csv"

[[field]]
name = "user"
[[field]]
name = "item"
[[field]]
name = "price"
kind = "numeric"

[model]
kind = "fm"

[optimizer]
rows = {{ kind = "adagrad", lr = 0.1 }}

[train]
executor = "{executor}"
epochs = 2
{}"#,
        if executor == "burn" {
            "batch_size = 128\ncheckpoint_every = 9\n"
        } else {
            "checkpoint_every = 700\n"
        }
    )
}

/// Day 1 of users 0 to 99 and items 0 to 49; day 2 of users 50 to 149 and items 25 to 74.
fn two_days(executor: &str) -> Folder {
    let folder = Folder::new();
    folder.write("day-1.csv", day(0..100, 0..50, 3000, 1));
    folder.write("day-2.csv", day(50..150, 25..75, 3000, 2));
    folder.write("run.toml", run_file(executor));
    folder.succeed("train run.toml --out first");
    folder
}

fn keys(folder: &Folder, run: &str, vocabulary: &str) -> Vec<(String, u64)> {
    let text = folder.read(&format!("{run}/vocabularies/{vocabulary}.csv"));
    let lines = text.lines().skip(1).map(|line| {
        let (key, count) = line.split_once(',').unwrap();
        (key.to_owned(), count.parse().unwrap())
    });
    lines.collect()
}

#[test]
fn the_second_day_adds_new_values_behind_those_of_the_first() {
    let folder = two_days("fused");
    folder.succeed("train --continue first --data day-2.csv --out second");
    let (first, second) = (
        keys(&folder, "first", "user"),
        keys(&folder, "second", "user"),
    );
    let mut occurrences = std::collections::BTreeMap::<String, u64>::new();
    for file in ["day-1.csv", "day-2.csv"] {
        for line in folder.read(file).lines().skip(1) {
            let user = line.split(',').nth(1).unwrap().to_owned();
            *occurrences.entry(user).or_default() += 1;
        }
    }
    let names =
        |keys: &[(String, u64)]| keys.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    assert_eq!(names(&second)[..first.len()], names(&first));
    assert_eq!(second.len(), 150);
    for (key, count) in second {
        assert_eq!(occurrences[&key], count, "{key}");
    }
    // What the day's numbers are measured by is what the weights were learned by.
    let transform = |run: &str| folder.json(&format!("{run}/schema.json"))["fields"][2].clone();
    assert_eq!(transform("second"), transform("first"));
    assert!(
        folder
            .read("second/run.toml")
            .contains("continue_from = \"first\"")
    );
    // Both days are known to the second run alone.
    let logloss = |run: &str, file: &str| -> f64 {
        let table = folder.succeed(&format!("eval {run} --data {file}")).stdout;
        let figures = table.lines().nth(1).unwrap();
        figures.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(logloss("first", "day-2.csv") > logloss("second", "day-2.csv") + 0.05);
    assert!(logloss("second", "day-1.csv") < 0.65);
}

/// With a rate that changes nothing, the rows of the second day are scored as the first run scores
/// them: weights, bias, and what numbers mean have come along.
#[test]
fn what_was_learned_on_the_first_day_is_what_the_second_begins_with() {
    for executor in ["fused", "burn"] {
        let folder = two_days(executor);
        folder.write("known.csv", day(0..100, 0..50, 1000, 3));
        folder.succeed(
            "train --continue first --data known.csv --evaluate-first --out second \
             --set optimizer.rows.lr=1e-12 --set optimizer.dense.lr=1e-12 --set train.epochs=1",
        );
        let table = folder.succeed("eval first --data known.csv").stdout;
        let figures: Vec<f64> = (table.lines().nth(1).unwrap().split_whitespace())
            .map(|figure| figure.parse().unwrap())
            .collect();
        let before = folder.metrics("second")["progressive"].clone();
        let figure = |name: &str| before[name].as_f64().unwrap();
        assert!((figure("logloss") - figures[0]).abs() < 1e-5, "{executor}");
        assert!((figure("auc") - figures[1]).abs() < 1e-4, "{executor}");
        assert_eq!(before["rows"], 1000, "{executor}");
    }
}

/// The state of the optimizers goes over as well: accumulators that are large already make steps
/// small.
#[test]
fn the_state_of_optimizers_goes_over() {
    let folder = two_days("fused");
    folder.write("known.csv", day(0..100, 0..50, 200, 3));
    folder.succeed("train --continue first --data known.csv --out second --set train.epochs=1");
    folder.write("fresh.toml", run_file("fused").replace("day-1", "known"));
    folder.succeed("train fresh.toml --out fresh --set train.epochs=1");
    let largest_step = |run: &str| {
        let bytes = std::fs::read(folder.path(&format!("{run}/optimizer.safetensors"))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let index: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        let at = &index["tables.fm.user.accumulator"]["data_offsets"];
        let at = |nth: usize| 8 + header + at[nth].as_u64().unwrap() as usize;
        let values = bytes[at(0)..at(1)].as_chunks::<4>().0;
        let sum: f32 = values.iter().map(|&value| f32::from_le_bytes(value)).sum();
        sum
    };
    assert!(largest_step("second") > largest_step("first"));
    assert!(largest_step("first") > 2.0 * largest_step("fresh"));
}

#[test]
fn rows_are_measured_before_they_are_learned_from() {
    for executor in ["fused", "burn"] {
        let folder = Folder::new();
        folder.write("day-1.csv", day(0..100, 0..50, 3000, 1));
        folder.write("run.toml", run_file(executor));
        folder.succeed("train run.toml --evaluate-first --out a");
        folder.succeed("train run.toml --out plain");
        let evaluations = folder.read("a/metrics.jsonl");
        let lines: Vec<serde_json::Value> = (evaluations.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        // The loss of training is measured before each update, too.
        let before = lines[0]["progressive"]["logloss"].as_f64().unwrap();
        let loss = lines[0]["train_loss"].as_f64().unwrap();
        assert!((before - loss).abs() < 1e-6, "{executor}: {before} {loss}");
        assert!(
            lines[1].get("progressive").is_none(),
            "the first epoch alone"
        );
        assert_eq!(folder.metrics("a")["progressive"], lines[0]["progressive"]);
        // Looking changes nothing.
        let model = |run: &str| std::fs::read(folder.path(&format!("{run}/model.safetensors")));
        assert!(model("a").unwrap() == model("plain").unwrap(), "{executor}");
    }
}

#[test]
fn a_second_day_that_is_killed_ends_with_the_same_bytes() {
    for executor in ["fused", "burn"] {
        let folder = two_days(executor);
        let day_2 = "train --continue first --data day-2.csv --evaluate-first --out";
        folder.succeed(&format!("{day_2} undisturbed"));
        let undisturbed = folder.files("undisturbed");
        let mut draws = Draws(7);
        for round in 0..4 {
            let out = format!("killed-{round}");
            let mut child = folder.start(&format!("{day_2} {out}"));
            std::thread::sleep(std::time::Duration::from_secs_f64(0.15 * draws.next()));
            child.kill().unwrap();
            child.wait().unwrap();
            if folder.path(&out).join("run.toml").exists() {
                folder.succeed(&format!("train --resume {out}"));
            } else {
                let _ = std::fs::remove_dir_all(folder.path(&out));
                folder.succeed(&format!("{day_2} {out}"));
            }
            assert_same_files(&folder.files(&out), &undisturbed, executor);
        }
    }
}

#[test]
fn a_day_whose_columns_are_others_is_refused() {
    let folder = two_days("fused");
    let go_on = |file: &str, sets: &str| {
        folder.fail(&format!(
            "train --continue first --data {file} --out x {sets}"
        ))
    };
    folder.write("lost.csv", "label,user,price\n1,u1,3\n");
    assert_eq!(
        go_on("lost.csv", ""),
        "field `item`: `lost.csv` has no column `item`; it has `label`, `user`, `price`"
    );
    folder.write(
        "type.csv",
        "label,user,item,price\n1,u1,i1,3\n0,u1,i1,cheap\n",
    );
    assert_eq!(
        go_on("type.csv", ""),
        "`type.csv` line 3, column `price`: `cheap`; expected a finite number (or declare it in \
         data.missing)"
    );
    // A column that nothing asks for is no matter, wherever it stands.
    folder.write("more.csv", "colour,label,user,item,price\nred,1,u1,i1,3\n");
    folder.succeed("train --continue first --data more.csv --out more");
    assert!(!folder.path("x").exists());
}

#[test]
fn what_cannot_go_on_is_refused() {
    let folder = two_days("fused");
    let go_on = |sets: &str| {
        folder.fail(&format!(
            "train --continue first --data day-2.csv --out x {sets}"
        ))
    };
    assert_eq!(
        go_on("--set field=[{name=\"user\"},{name=\"item\"}]"),
        "data.continue_from = first: expected a run with the fields of this run file: it has a \
         field `price` as well"
    );
    assert_eq!(
        go_on("--set field=[{name=\"user\"},{name=\"item\",kind=\"hashed\"},{name=\"price\"}]"),
        "data.continue_from = first: expected a run with the fields of this run file: its field \
         `item` is another one"
    );
    assert_eq!(
        go_on("--set model.fm.embedding_dim=4"),
        "first/model.safetensors: holds no tensor `tables.v4.item`"
    );
    folder.interrupt("run.toml", "unfinished");
    assert!(
        folder
            .fail("train --continue unfinished --data day-2.csv --out x")
            .starts_with("unfinished: not finished; go on with: crossfield train --resume")
    );
    assert!(!folder.path("x/metrics.json").exists());
}

/// Beside rows that are held, those of a stream are checked block by block.
#[test]
fn rows_that_a_model_cannot_read_are_refused_in_streams_too() {
    let folder = Folder::new();
    folder.write(
        "a.csv",
        "label,item,kind,past,past_kind\n1,a,x,b|c,x|y\n0,b,y,a,x\n1,c,x,a|b,y\n",
    );
    folder.write(
        "run.toml",
        r#"
[data]
train = "a.csv"

[[field]]
name = "item"
[[field]]
name = "kind"
[[field]]
name = "past"
kind = "sequence"
vocabulary = "item"
[[field]]
name = "past_kind"
kind = "sequence"
vocabulary = "kind"

[model]
kind = "din"

[[model.din.behaviour]]
target = ["item", "kind"]
history = ["past", "past_kind"]

[train]
epochs = 1
"#,
    );
    let held = folder.fail("train run.toml --out held");
    let streamed = folder.fail("train run.toml --out streamed --set data.stream=true");
    assert!(held.contains("past_kind"), "{held}");
    assert_eq!(streamed, held);
}

/// Where no order is drawn and there is no vocabulary to learn, two days are one log.
#[test]
fn two_days_in_order_are_one_run_over_both() {
    for executor in ["fused", "burn"] {
        let folder = Folder::new();
        let (monday, tuesday) = (day(0..100, 0..50, 1280, 1), day(50..150, 25..75, 1280, 2));
        folder.write("both.csv", monday.clone() + &tuesday[HEADER.len()..]);
        folder.write("monday.csv", monday);
        folder.write("tuesday.csv", tuesday);
        folder.write(
            "run.toml",
            format!(
                r#"
[data]
train = "monday.csv"
stream = true
in_order = true
block_rows = 512

[[field]]
name = "user"
kind = "hashed"
hash_rows = 300
[[field]]
name = "item"
kind = "hashed"
admit = {{ min_count = 1 }}

[model]
kind = "fm"

[optimizer]
rows = {{ kind = "adam", lr = 0.01 }}

[train]
executor = "{executor}"
epochs = 1
"#
            )
            .replace(
                "adam\"",
                if executor == "fused" {
                    "adagrad\""
                } else {
                    "adam\""
                },
            ),
        );
        let batch = if executor == "burn" {
            " --set train.batch_size=128"
        } else {
            ""
        };
        folder.succeed(&format!("train run.toml --out first{batch}"));
        folder.succeed("train --continue first --data tuesday.csv --out second");
        let both = "--set data.train=both.csv";
        folder.succeed(&format!("train run.toml --out both {both}{batch}"));
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let bytes = |run: &str| std::fs::read(folder.path(&format!("{run}/{file}"))).unwrap();
            assert!(bytes("second") == bytes("both"), "{executor}: {file}");
        }
    }
}
