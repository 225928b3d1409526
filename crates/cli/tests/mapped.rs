//! Tables in mapped files: a run ends as it does with the same tables in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, RICH_RUN, assert_same_files, fused_runs};

/// The same run with all of its tables in files.
fn mapped(run_file: &str) -> String {
    let mapped = run_file.replace(
        "[[optimizer.table]]\n",
        "[[optimizer.table]]\nstorage = 'mapped'\n",
    );
    let rest = "[[optimizer.table]]\nmatch = '*'\nstorage = 'mapped'\n\n[train]\nmemory = '4GB'\n";
    mapped.replace("[train]\n", rest)
}

fn runs() -> [(&'static str, String); 2] {
    let [.., (_, fm), _] = fused_runs();
    [("burn", RICH_RUN.to_owned()), ("fused", fm)]
}

/// A folder with a run file in both forms, and the finished run of the first.
fn trained(run_file: &str) -> (Folder, std::collections::BTreeMap<String, Vec<u8>>) {
    let folder = Folder::new();
    folder.write("held.toml", run_file);
    folder.write("mapped.toml", mapped(run_file));
    folder.succeed("train held.toml --out held");
    let expected = but_options(folder.files("held"));
    (folder, expected)
}

/// Without the one file that says how it was trained.
fn but_options(
    mut files: std::collections::BTreeMap<String, Vec<u8>>,
) -> std::collections::BTreeMap<String, Vec<u8>> {
    files.remove("run.toml").unwrap();
    files
}

#[test]
fn a_run_with_mapped_tables_ends_with_the_bytes_of_one_in_memory() {
    for (name, run_file) in runs() {
        let (folder, expected) = trained(&run_file);
        let output = folder.succeed("train mapped.toml --out mapped");
        assert!(output.stderr.contains("mapped: files of "), "{name}");
        // Training went back to an epoch before the last.
        assert!(
            output.stderr.contains("back to epoch "),
            "{}",
            output.stderr
        );
        assert_same_files(&but_options(folder.files("mapped")), &expected, name);
        // What it predicts is read through a file without a name.
        folder.succeed("data synth --out log.csv --rows 2000");
        let evaluated = ["held", "mapped"]
            .map(|run| folder.succeed(&format!("eval {run} --data log.csv")).stdout);
        assert_eq!(evaluated[0], evaluated[1], "{name}");
    }
}

#[test]
fn a_mapped_run_that_was_interrupted_goes_on_from_its_undo_logs() {
    for (name, run_file) in runs() {
        let (folder, expected) = trained(&run_file);
        folder.interrupt("mapped.toml", "mapped");
        let tables = folder.path("mapped/tables");
        let names: Vec<String> = (tables.read_dir().unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(
            names.iter().any(|name| name.ends_with(".rows")),
            "{names:?}"
        );
        folder.succeed("train --resume mapped");
        assert_same_files(&but_options(folder.files("mapped")), &expected, name);
    }
}

#[test]
fn rows_that_were_damaged_are_named_when_the_run_is_resumed() {
    let (_, fm) = &runs()[1];
    let folder = Folder::new();
    folder.write("mapped.toml", mapped(fm));
    folder.interrupt("mapped.toml", "a");
    let rows = folder.path("a/tables/v8.ad.rows");
    let mut bytes = std::fs::read(&rows).unwrap();
    let whole = bytes.clone();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&rows, &bytes).unwrap();
    let message = folder.fail("train --resume a");
    assert!(
        message.starts_with("a/tables/v8.ad.rows: damaged: the checksum of rows 0 to "),
        "{message}"
    );
    std::fs::write(&rows, &whole[..last]).unwrap();
    let message = folder.fail("train --resume a");
    assert!(
        message.ends_with(&format!("{last} bytes long, expected {}", whole.len())),
        "{message}"
    );
    std::fs::write(&rows, &whole).unwrap();
    folder.succeed("train --resume a");
}

#[test]
fn a_mapped_table_without_room_on_the_disk_is_refused_before_the_first_step() {
    let (_, fm) = &runs()[1];
    let folder = Folder::new();
    folder.write("mapped.toml", mapped(fm));
    let output = folder.run_with_little_disk(100, "train mapped.toml --out a");
    let message = output.message();
    assert!(
        message.contains("cannot write the rows of a mapped table"),
        "{message}"
    );
}

#[test]
fn tables_beyond_the_memory_that_is_allowed_are_refused_with_what_could_be_mapped() {
    let folder = Folder::new();
    folder.write("held.toml", RICH_RUN);
    let refused = |memory: &str| {
        let set = format!("--set train.memory={memory}");
        folder.fail(&format!("train held.toml --out a {set}"))
    };
    let message = refused("1MB");
    assert!(message.contains("0.0 kB is available"), "{message}");
    assert!(
        message.ends_with("[[optimizer.table]] match = \"v8.user\", storage = \"mapped\""),
        "{message}"
    );
    let message = refused("much");
    assert!(
        message.starts_with("train.memory: is `much`: expected a size, as in \"6GB\""),
        "{message}"
    );
}
