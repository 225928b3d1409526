//! From lists of what people did to a trained run, and histories that give the answer away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Draws, Folder};

const RUN: &str = "\
[data]
train = 's/train.csv'
valid = 's/valid.csv'
test = 's/test.csv'

[[field]]
name = 'user'

[[field]]
name = 'item'

[[field]]
name = 'category'

[[field]]
name = 'history'
kind = 'sequence'
vocabulary = 'item'
times = 'history_times'
time = 'time'

[[field]]
name = 'history_category'
kind = 'sequence'
vocabulary = 'category'
beside = 'history'

[model]
kind = 'fm'
[model.fm]
embedding_dim = 4
fields = ['user', 'item', 'category', 'history', 'history_category']

[train]
epochs = 2
batch_size = 64
";

/// Sixty users who each go through ten of thirty items, and never twice through one.
fn folder() -> Folder {
    let folder = Folder::new();
    let mut draws = Draws(1);
    let mut ratings = String::new();
    for user in 0..60 {
        for step in 0..10 {
            let item = (user + 3 * step) % 30;
            let rating = 1 + (draws.next() * 5.0) as u32;
            let time = 100 * step + (draws.next() * 90.0) as u32;
            ratings += &format!("u{user}\ti{item}\t{rating}\t{time}\n");
        }
    }
    folder.write("u.data", ratings);
    let kinds = (0..30).map(|item| format!("i{item},k{}\n", item % 4));
    folder.write(
        "kinds.csv",
        format!("item,category\n{}", kinds.collect::<String>()),
    );
    folder.write("run.toml", RUN);
    folder
}

const MAKE: &str = "data sequences u.data --out s --min-rating 3 --times --attributes kinds.csv \
                    --negatives 1 --test-negatives 4 --max-len 5";

#[test]
fn a_run_trains_on_samples_and_refuses_leaks_wherever_it_reads() {
    let folder = folder();
    let made = folder.succeed(MAKE);
    assert!(
        made.stdout.starts_with("600 events\n60 users, 30 items\n"),
        "{}",
        made.stdout
    );
    for line in made.stdout.lines() {
        assert!(line.len() <= 40, "{line}");
    }
    let files = folder.files("s");
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["candidates.txt", "test.csv", "train.csv", "valid.csv"]
    );
    folder.succeed("train run.toml --out a");
    let run: toml::Table = folder.read("a/run.toml").parse().unwrap();
    let history = &run["field"][3];
    assert_eq!(history["target"].as_str(), Some("item"));
    assert_eq!(history["repeats"].as_bool(), Some(false));
    assert_eq!(run["field"][4]["repeats"].as_bool(), Some(true));

    let header = "label,user,item,history,category,history_category,time,history_times,gaps";
    let leak = "the history holds the target `i6` itself";
    let late = "time 7 in column `history_times`, with 7 of the row in `time`";
    let longer = "1 values beside 2 of `history`";
    for (row, field, problem) in [
        ("1,u3,i6,i3|i6,k2,k3|k2,9,1|2,3|3", "history", leak),
        ("1,u3,i6,i3|i9,k2,k3|k1,7,1|7,3|3", "history", late),
        ("1,u3,i6,i3|i9,k2,k3,9,1|2,3|3", "history_category", longer),
    ] {
        folder.write(
            "bad.csv",
            format!("{header}\n1,u3,i6,i3,k2,k3,9,1,3\n{row}\n"),
        );
        let expected = format!("`bad.csv` line 3, field `{field}`: {problem}");
        for command in [
            "train run.toml --out b --set data.train=bad.csv",
            "eval a --data bad.csv",
            "predict a --data bad.csv",
        ] {
            let message = folder.fail(command);
            assert!(message.contains(&expected), "{command}: {message}");
        }
    }
    folder.write(
        "user.csv",
        "user,history,history_category,time,history_times\nu3,i3|i6,k3|k2,9,1|2\n",
    );
    folder.write("items.csv", "item,category\ni8,k0\ni6,k2\n");
    let message = folder.fail("rank a --context user.csv --candidates items.csv");
    assert!(
        message.contains(&format!("`user.csv` line 2, field `history`: {leak}")),
        "{message}"
    );
    folder.succeed("rank a --context user.csv --candidates items.csv --set field.3.repeats=true");
}

#[test]
fn samples_are_the_same_again_and_other_options_say_what_is_wrong() {
    let folder = folder();
    folder.succeed(MAKE);
    folder.succeed(&MAKE.replace("--out s", "--out t"));
    assert_eq!(folder.files("s"), folder.files("t"));
    folder.succeed(&(MAKE.replace("--out s", "--out other") + " --seed 2"));
    assert_ne!(folder.files("s"), folder.files("other"));
    let before = folder.names();
    for (args, expected) in [
        (MAKE, "--out = s: expected an empty folder, or a new one"),
        (
            "data sequences u.data --out n --valid 0.2",
            "--valid: expected --split share beside it",
        ),
        (
            "data sequences u.data --out n --negatives 25",
            "--negatives = 25: expected at most 20: user `u0` had all other items of the file",
        ),
        (
            "data sequences u.data --out n --format lists",
            "`u.data` line 2, column `user`: `u0`; expected each user on one line",
        ),
        (
            "data sequences none --out n",
            "cannot open `none`: No such file or directory (os error 2)",
        ),
    ] {
        assert_eq!(folder.fail(args), expected, "{args}");
    }
    assert_eq!(folder.names(), before, "nothing is left");
}
