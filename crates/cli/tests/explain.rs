//! `explain` takes the score of a row apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

const CSV: &str = "label,item,tags,age\n1,a,x|y,30\n0,b,,41\n1,a,y,38\n0,c,x,\n1,b,z,33\n";

/// A folder with two finished runs of one model, `burn` and `fused`.
fn trained(model: &str) -> Folder {
    let folder = Folder::new();
    folder.write("a.csv", CSV);
    folder.write(
        "a.toml",
        format!(
            "[data]\ntrain = 'a.csv'\n[[field]]\nname = 'item'\n[[field]]\nname = 'tags'\n\
             kind = 'bag'\n[[field]]\nname = 'age'\nkind = 'numeric'\n[model]\n{model}\n"
        ),
    );
    for executor in ["burn", "fused"] {
        folder.succeed(&format!(
            "train a.toml --out {executor} --set train.executor={executor}"
        ));
    }
    folder
}

fn number(line: &str) -> f64 {
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn contributions_add_up_to_the_score_whatever_trained_the_model() {
    for model in [
        "kind = 'ffm'",
        "sum = ['wide', 'fm']\n[model.fm]\nlinear = false",
    ] {
        let folder = trained(model);
        for run in ["burn", "fused"] {
            let predicted = folder
                .succeed(&format!("predict {run} --data a.csv"))
                .stdout;
            for (at, predicted) in predicted.lines().enumerate() {
                let args = format!("explain {run} --data a.csv --row {}", at + 1);
                let text = folder.succeed(&args).stdout;
                let lines: Vec<&str> = text.lines().collect();
                let score: f64 = lines[0]
                    .strip_prefix("score ")
                    .unwrap()
                    .trim()
                    .parse()
                    .unwrap();
                let prob: f64 = lines[1]
                    .strip_prefix("prediction ")
                    .unwrap()
                    .trim()
                    .parse()
                    .unwrap();
                assert!(
                    (prob - predicted.parse::<f64>().unwrap()).abs() < 1e-6,
                    "{text}"
                );
                assert!((prob - 1.0 / (1.0 + (-score).exp())).abs() < 1e-6, "{text}");
                let (parts, sum) = lines[3..].split_at(lines.len() - 4);
                assert!(sum[0].ends_with("  sum"), "{text}");
                // Each is rounded to six places.
                let added: f64 = parts.iter().map(|line| number(line)).sum();
                assert!((added - score).abs() < 1e-5, "{text}");
                assert!((number(sum[0]) - score).abs() < 1e-5, "{text}");
                let sizes: Vec<f64> = parts.iter().map(|line| number(line).abs()).collect();
                assert!(sizes.is_sorted_by(|a, b| a >= b), "{text}");
                assert!(
                    text.lines().all(|line| line.chars().count() <= 40),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn features_have_the_names_of_the_data() {
    let folder = trained("kind = 'ffm'");
    let names = |row: usize| -> Vec<String> {
        let text = folder
            .succeed(&format!("explain fused --data a.csv --row {row}"))
            .stdout;
        let parts = text.lines().skip(3);
        let mut names: Vec<String> = parts.map(|line| line[12..].to_owned()).collect();
        names.sort();
        names
    };
    // Four features: their linear terms, six pairs, the bias.
    let first = names(1);
    assert_eq!(first.len(), 4 + 6 + 1 + 1);
    for name in [
        "bias",
        "item=a",
        "tags=x",
        "age=30",
        "item=a & tags=y",
        "tags=x & tags=y",
    ] {
        assert!(first.iter().any(|found| found == name), "{name}: {first:?}");
    }
    assert!(names(4).contains(&"item=c & age=(missing)".to_owned()));

    // Values that the model never saw, in a file without labels.
    folder.write("b.csv", "item,tags,age\nnew,y,50\n");
    let text = folder.succeed("explain fused --data b.csv").stdout;
    assert!(
        text.contains(" +0.000000  item=(unseen) & age=50\n"),
        "{text}"
    );
}

#[test]
fn all_but_the_largest_are_one_line() {
    let folder = trained("kind = 'ffm'");
    let whole = folder.succeed("explain fused --data a.csv").stdout;
    let short = folder.succeed("explain fused --data a.csv --top 3").stdout;
    let (whole, short): (Vec<&str>, Vec<&str>) = (whole.lines().collect(), short.lines().collect());
    assert_eq!(short[..6], whole[..6]);
    let rest: f64 = whole[6..whole.len() - 1]
        .iter()
        .map(|line| number(line))
        .sum();
    let said = short[6].strip_prefix("and 8 smaller ones: ").unwrap();
    assert!((said.parse::<f64>().unwrap() - rest).abs() < 1e-5);
    assert_eq!(short[7], *whole.last().unwrap());
    assert_eq!(short.len(), 8);
}

/// The lines of rules, cut into weight, count and name.
fn rules(text: &str) -> Vec<(f64, &str, &str)> {
    let (_, rules) = text.split_once("rule\n").unwrap();
    let cut = |line| {
        let mut cells = str::split_whitespace(line);
        let weight = cells.next().unwrap().parse().unwrap();
        (weight, cells.next().unwrap(), cells.next().unwrap())
    };
    rules.lines().map(cut).collect()
}

#[test]
fn the_heaviest_weights_are_listed_with_how_often_they_were_seen() {
    let folder = trained("sum = ['wide', 'fm']\n[model.fm]\nlinear = false");
    for run in ["burn", "fused"] {
        let text = folder.succeed(&format!("explain {run}")).stdout;
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("wide: ") && first.contains(" weights are exactly 0 ("));
        let rules = rules(&text);
        assert!(rules.is_sorted_by(|a, b| a.0.abs() >= b.0.abs()), "{text}");
        let of = |name: &str| *rules.iter().find(|rule| rule.2 == name).unwrap();
        assert_eq!(of("item=a").1, "2");
        assert_eq!(of("tags=y").1, "2");
        // A weight for each standard deviation, without a value.
        assert_eq!(of("age").1, "-");
        assert_eq!(of("age=(missing)").1, "-");

        // A row's explanation has the same weights.
        let row = folder
            .succeed(&format!("explain {run} --data a.csv"))
            .stdout;
        let line = format!("{:>+10.6}  item=a", of("item=a").0);
        assert!(row.contains(&line), "{row}");
        let short = folder.succeed(&format!("explain {run} --top 2")).stdout;
        assert_eq!(
            text.split_inclusive('\n').take(5).collect::<String>(),
            short
        );
    }
}

#[test]
fn ftrl_leaves_zeros_and_says_how_many() {
    let folder = trained("sum = ['wide', 'fm']\n[model.fm]\nlinear = false");
    let table = "--set optimizer.table=[{match=\"wide.*\",kind=\"ftrl\",l1=1000.0}]";
    let trained = folder.succeed(&format!("train a.toml --out ftrl {table}"));
    let line = trained.stdout.lines().last().unwrap().to_owned();
    assert!(
        line.starts_with("wide: ") && line.ends_with(" weights are exactly 0 (100.0 %)"),
        "{line}"
    );
    let text = folder.succeed("explain ftrl").stdout;
    assert_eq!(text, format!("{line}\n\n    weight  seen  rule\n"));
    let without = folder.succeed("train a.toml --out plain").stdout;
    assert!(!without.contains("exactly 0"), "{without}");
}

#[test]
fn compressed_weights_are_listed_as_they_are_composed() {
    let folder = trained("kind = 'wide'");
    let table = "--set optimizer.table=[{match=\"wide.item\",compress={kind=\"hash\",rows=2}}]";
    folder.succeed(&format!("train a.toml --out small {table}"));
    let text = folder.succeed("explain small").stdout;
    let row = folder.succeed("explain small --data a.csv").stdout;
    let rules = rules(&text);
    let of = rules.iter().find(|rule| rule.2 == "item=a").unwrap();
    assert!(
        row.contains(&format!("{:>+10.6}  item=a", of.0)),
        "{text}{row}"
    );
}

#[test]
fn a_model_without_linear_terms_has_no_weights_to_list() {
    let folder = trained("kind = 'fm'\n[model.fm]\nlinear = false\nembedding_dim = 1");
    assert_eq!(
        folder.fail("explain burn"),
        "model: is fm, without linear terms that have weights to list: expected --data for the \
         score of a row"
    );
    let refused = folder.run("explain burn --row 3");
    assert_eq!(refused.code, Some(2));
}
