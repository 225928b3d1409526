//! What attention looks at: `explain` in words, heat maps as files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

const CSV: &str = "label,user,item,history\n\
                   1,u,c,a|b\n0,u,d,a|b\n1,v,b,\n0,v,c,a\n1,w,a,d|c|b\n0,w,e,d|c|b\n";

/// A folder with a finished run of `kind`.
fn trained(kind: &str) -> Folder {
    let folder = Folder::new();
    folder.write("a.csv", CSV);
    folder.write(
        "a.toml",
        format!(
            "[data]\ntrain = 'a.csv'\n[[field]]\nname = 'user'\n[[field]]\nname = 'item'\n\
             [[field]]\nname = 'history'\nkind = 'sequence'\nvocabulary = 'item'\n\
             [model]\nkind = '{kind}'\n[train]\nepochs = 3\nbatch_size = 2\n"
        ),
    );
    folder.succeed("train a.toml --out run");
    folder
}

/// Lines of weights: weight, how long ago, item.
fn weights(text: &str) -> Vec<(f64, usize, String)> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.ends_with("back  item"));
    lines.next().unwrap();
    let line = |line: &str| {
        let mut cells = line.split_whitespace();
        let mut cell = || cells.next().unwrap();
        (
            cell().parse().unwrap(),
            cell().parse().unwrap(),
            cell().to_owned(),
        )
    };
    lines.map(line).collect()
}

#[test]
fn explain_lists_the_past_with_its_weights_and_who_asked() {
    for kind in ["din", "attention"] {
        let folder = trained(kind);
        let text = folder.succeed("explain run --data a.csv --row 5").stdout;
        assert!(text.contains("\nasked by item=a\n"), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        let mut found = weights(&text);
        assert!(found.is_sorted_by(|a, b| a.0.abs() >= b.0.abs()), "{text}");
        found.sort_by_key(|(_, back, _)| *back);
        let items: Vec<&str> = found.iter().map(|(_, _, item)| item.as_str()).collect();
        assert_eq!(items, ["history=b", "history=c", "history=d"], "{text}");

        let text = folder.succeed("explain run --data a.csv --row 3").stdout;
        assert!(text.ends_with("(no history)\n"), "{text}");
        // Of three, two are printed and one is added up.
        let text = folder.succeed("explain run --data a.csv --row 5 --top 2");
        assert!(
            text.stdout.contains("and 1 smaller ones: "),
            "{}",
            text.stdout
        );
    }
}

#[test]
fn the_weights_of_a_softmax_add_up_to_one() {
    let folder = trained("attention");
    let text = folder.succeed("explain run --data a.csv --row 5").stdout;
    let sum: f64 = weights(&text).iter().map(|(weight, ..)| weight).sum();
    // Each is rounded to six places.
    assert!((sum - 1.0).abs() < 3e-6, "{text}");
}

#[test]
fn a_heat_map_has_the_candidates_of_one_history_side_by_side() {
    let folder = trained("din");
    folder.succeed("explain run --data a.csv --row 6 --heat-map row.svg");
    let svg = folder.read("row.svg");
    // The row's own candidate first, then that of row 5, which has the same history.
    for name in ["1  item=e: 0.", "2  item=a: 0.", "history=d", "history=b"] {
        assert!(svg.contains(name), "{name}: {svg}");
    }
    assert!(!svg.contains("3  item="), "{svg}");

    folder.write("context.csv", "user,history\nu,a|b\n");
    folder.write("items.csv", "item\nc\nd\ne\n");
    let files = "--context context.csv --candidates items.csv";
    folder.succeed(&format!("rank run {files} --heat-map rank.svg"));
    assert!(folder.read("rank.svg").contains("3  item="));
    folder.succeed(&format!("rank run {files} --top 2 --heat-map two.svg"));
    assert!(!folder.read("two.svg").contains("3  item="));

    let error = folder.fail("explain run --data a.csv --row 3 --heat-map none.svg");
    assert!(
        error.contains("--heat-map: the row has no history that the model weighs"),
        "{error}"
    );
    assert!(!folder.path("none.svg").exists());
}

#[test]
fn titles_of_a_file_are_beside_the_keys() {
    let folder = trained("din");
    folder.write("titles.csv", "key,title\na,An apple\nb,A bear & more\n");
    let args = "explain run --data a.csv --row 5 --titles titles.csv";
    let text = folder.succeed(args).stdout;
    assert!(text.contains("asked by item=a An apple\n"), "{text}");
    // Too long for one line of forty characters.
    assert!(
        text.contains("history=b\n                  A bear & more\n"),
        "{text}"
    );
}
