//! `similar` finds the neighbours of a key, `export` writes vectors.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;

use common::Folder;
use crossfield_embedding::{SnapshotTensor, write_snapshot};

const CSV: &str = "label,item,user,age\n1,a,u1,30\n0,b,u1,31\n1,c,u2,32\n0,d,u2,33\n1,a,u2,34\n";
const FILMS: &str =
    "item,year,title\na,1977,Star Wars\nb,1980,\"Empire, The\"\nc,1985,Brazil\nd,1979,Alien\n";
/// Of an unseen item, and of a, b, c and d: c is 0.6 from a by cosine, d opposite.
const ITEMS: [f32; 10] = [9.0, 9.0, 1.0, 0.0, 2.0, 0.0, 3.0, 4.0, -1.0, 0.0];
/// Of an unseen user, u2 (which is the more frequent one) and u1.
const USERS: [f32; 6] = [0.0, 0.0, 0.0, -1.0, 1.0, 1.0];

/// A folder with the finished run `a`, whose vectors are those above.
fn planted() -> Folder {
    let folder = Folder::new();
    folder.write("a.csv", CSV);
    folder.write("films.csv", FILMS);
    folder.write(
        "a.toml",
        "[data]\ntrain = 'a.csv'\n[[data.join]]\nfile = 'films.csv'\non = 'item'\n\
         [[field]]\nname = 'film'\ncolumn = 'item'\nvocabulary = 'item'\n[[field]]\nname = 'user'\n\
         [[field]]\nname = 'age'\nkind = 'numeric'\n[model]\nsum = ['fm', 'other']\n[model.fm]\n\
         embedding_dim = 2\n[model.other]\nkind = 'fm'\nembedding_dim = 3\nfields = ['user']\n",
    );
    folder.succeed("train a.toml --out a");
    let tensors = [
        ("tables.v2.age", 2, &[0.5; 4][..]),
        ("tables.v2.item", 5, &ITEMS),
        ("tables.v2.user", 3, &USERS),
    ];
    let tensors = tensors.map(|(name, rows, values)| {
        (
            name.to_owned(),
            SnapshotTensor::from_slice(vec![rows, 2], values),
        )
    });
    let tensors = BTreeMap::from(tensors);
    write_snapshot(&folder.path("a/model.safetensors"), tensors).unwrap();
    folder.list_all("a");
    folder
}

fn lines(folder: &Folder, args: &str) -> Vec<Vec<String>> {
    let text = folder.succeed(&format!("similar a {args}")).stdout;
    text.lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

#[test]
fn neighbours_are_named_with_the_titles_of_the_joined_file() {
    let folder = planted();
    assert_eq!(
        lines(&folder, "--vocabulary item --key a"),
        [
            ["1", "b", "Empire, The", "1.00000000"],
            ["2", "c", "Brazil", "0.600000024"],
            ["3", "d", "Alien", "-1.00000000"],
        ]
    );
    // By length, too.
    let by_dot = lines(&folder, "--vocabulary item --key a --measure dot -k 1");
    assert_eq!(by_dot, [["1", "c", "Brazil", "3.00000000"]]);
}

#[test]
fn items_of_a_user_are_found_by_the_product_of_their_vectors() {
    let folder = planted();
    let found = lines(
        &folder,
        "--vocabulary user --table v2.user --key u1 --to item -k 2",
    );
    assert_eq!(
        found,
        [
            ["1", "c", "Brazil", "7.00000000"],
            ["2", "b", "Empire, The", "2.00000000"],
        ]
    );
    let users = lines(
        &folder,
        "--vocabulary item --key d --to user --measure cosine -k 1",
    );
    assert_eq!(users, [["1", "u2", "", "0.00000000"]]);
}

#[test]
fn few_rows_are_all_found_by_the_approximate_search_too() {
    let folder = planted();
    for args in [
        "--vocabulary item --key a -k 2",
        "--vocabulary user --table v2.user --key u1 --to item -k 3",
    ] {
        let exact = lines(&folder, args);
        assert_eq!(lines(&folder, &format!("{args} --approximate")), exact);
    }
}

#[test]
fn titles_come_from_the_file_that_is_named_and_a_lost_one_is_no_error() {
    let folder = planted();
    folder.write("names.csv", "id,name\nb,Empire\n");
    let args = "--vocabulary item --key a -k 1";
    let named = format!("{args} --titles names.csv --titles-columns id,name");
    assert_eq!(lines(&folder, &named)[0][2], "Empire");
    let error = folder.fail(&format!("similar a {args} --titles names.csv"));
    assert!(error.contains("`names.csv` has no column `key`"), "{error}");

    std::fs::remove_file(folder.path("films.csv")).unwrap();
    let output = folder.succeed(&format!("similar a {args}"));
    assert_eq!(output.stdout, "1\tb\t\t1.00000000\n");
    assert!(
        output.stderr.starts_with("no titles: "),
        "{}",
        output.stderr
    );
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let folder = planted();
    let fails = |args: &str, expected: &str| {
        let error = folder.fail(&format!("similar a {args}"));
        assert_eq!(error, expected);
    };
    fails(
        "--vocabulary item --key e",
        "--key e: is not in the vocabulary `item`; expected one of its 4 keys, such as `a`",
    );
    fails(
        "--vocabulary film --key a",
        "vocabulary `film`: the run has age, item, user",
    );
    fails(
        "--vocabulary user --key u1",
        "--table: the run has several tables of factors of `user`; name one of: v2.user, v3.user",
    );
    fails(
        "--vocabulary item --key a --table v2.user",
        "--table v2.user: the tables of `item` are: fm.item, v2.item",
    );
    fails(
        "--vocabulary age --key 30",
        "--key 30: is not in the vocabulary `age`; its rows are not of single keys: it is hashed, \
         or of numbers",
    );
}

#[test]
fn vectors_of_all_keys_are_exported_and_the_row_of_unseen_values_is_not() {
    let folder = planted();
    let output = folder.succeed("export a --format word2vec --vocabulary item -o v.txt");
    assert_eq!(output.stderr, "4 vectors of 2 from v2.item in v.txt\n");
    assert_eq!(folder.read("v.txt"), "4 2\na 1 0\nb 2 0\nc 3 4\nd -1 0\n");
    for format in ["npy", "safetensors"] {
        folder.succeed(&format!(
            "export a --format {format} --vocabulary user --table v2.user -o v.{format}"
        ));
        assert_eq!(folder.read(&format!("v.{format}.keys.txt")), "u2\nu1\n");
    }
    let npy = std::fs::read(folder.path("v.npy")).unwrap();
    let values: Vec<u8> = [0f32, -1.0, 1.0, 1.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert!(npy.starts_with(b"\x93NUMPY") && npy.ends_with(&values));
}

#[test]
fn options_of_another_format_are_refused() {
    let folder = planted();
    for (args, expected) in [
        (
            "npy",
            "--vocabulary: expected the one whose vectors are written, as in --vocabulary item",
        ),
        (
            "npy --vocabulary item --binary",
            "--binary: is an option of --format libffm: leave it out",
        ),
        (
            "libffm --vocabulary item",
            "--format libffm: writes a whole model: expected neither --vocabulary nor --table",
        ),
    ] {
        assert_eq!(
            folder.fail(&format!("export a -o v --format {args}")),
            expected
        );
    }
    assert!(!folder.path("v").exists());
}
