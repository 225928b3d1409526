//! What the documentation links to is there, and the guide says the same in both languages.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .into()
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Files of Markdown in a folder and below.
fn markdown(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(markdown(&path));
        } else if path.extension().is_some_and(|end| end == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The text outside fenced blocks, and the blocks with what stands behind their fences.
fn parts(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut blocks) = (String::new(), Vec::new());
    let mut block: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some((kind.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some((_, inside)), None) => {
                inside.push_str(line);
                inside.push('\n');
            }
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert!(block.is_none(), "a fence is not closed");
    (prose, blocks)
}

/// Where the links and pictures of a text lead.
fn targets(prose: &str) -> Vec<&str> {
    let links = prose.split("](").skip(1);
    links.filter_map(|link| link.split(')').next()).collect()
}

/// Whether a link leads to a file or a heading, not to a page of the web or an item of the API.
fn is_relative(link: &str) -> bool {
    !link.contains("://") && !link.contains("::") && link.contains(['.', '/', '#'])
}

/// The anchors of a text's headings: small letters, blanks as hyphens, other punctuation dropped.
fn anchors(prose: &str) -> BTreeSet<String> {
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ => letter.is_alphanumeric().then_some(letter),
        });
        kept.collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_and_picture_of_the_documentation_leads_somewhere() {
    let root = root();
    let mut files = markdown(&root.join("docs"));
    files.push(root.join("README.md"));
    files.push(root.join("benches/RESULTS.md"));
    for entry in std::fs::read_dir(root.join("crates")).unwrap() {
        files.push(entry.unwrap().path().join("README.md"));
    }
    let mut seen = 0;
    for file in files {
        let (prose, _) = parts(&read(&file));
        for link in targets(&prose).into_iter().filter(|link| is_relative(link)) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let there = match path {
                "" => file.clone(),
                _ => file.parent().unwrap().join(path),
            };
            let from = file.display();
            assert!(there.exists(), "{from}: {link} leads nowhere");
            if !anchor.is_empty() {
                let known = anchors(&parts(&read(&there)).0);
                assert!(known.contains(anchor), "{from}: {link}: no such heading");
            }
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} links");
}

/// The chapters that a summary lists, in its order.
fn chapters(summary: &Path) -> Vec<String> {
    targets(&read(summary))
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Names of the chapters of the guide, the same in both languages, and the two texts of each.
fn guide() -> Vec<(String, [String; 2])> {
    let docs = root().join("docs");
    let english = chapters(&docs.join("SUMMARY.md"));
    let english: Vec<String> = english
        .iter()
        .filter_map(|file| file.strip_prefix("guide/"))
        .map(str::to_owned)
        .collect();
    let korean = chapters(&docs.join("guide/ko/SUMMARY.md"));
    assert_eq!(english, korean);
    let texts = |file: String| {
        let of = |folder: &str| read(&docs.join(folder).join(&file));
        let texts = [of("guide"), of("guide/ko")];
        (file, texts)
    };
    english.into_iter().map(texts).collect()
}

#[test]
fn every_chapter_is_in_the_summary_of_its_language() {
    let docs = root().join("docs");
    let english: BTreeSet<PathBuf> = chapters(&docs.join("SUMMARY.md"))
        .iter()
        .map(|file| docs.join(file))
        .collect();
    let ko = docs.join("guide/ko");
    let korean: BTreeSet<PathBuf> = chapters(&ko.join("SUMMARY.md"))
        .iter()
        .map(|file| ko.join(file))
        .collect();
    let is_chapter = |file: &PathBuf| !file.ends_with("SUMMARY.md");
    let (there, of_english): (Vec<PathBuf>, Vec<PathBuf>) = markdown(&docs)
        .into_iter()
        .filter(is_chapter)
        .partition(|file| file.starts_with(&ko));
    assert_eq!(korean, there.into_iter().collect());
    assert_eq!(english, of_english.into_iter().collect());
    assert_eq!(guide().len(), 6);
}

/// The numbers of a text, in order.
fn numbers(text: &str) -> Vec<&str> {
    let pieces = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let numbers = pieces.map(|piece| piece.trim_matches('.'));
    numbers.filter(|number| !number.is_empty()).collect()
}

/// The commands that the code between backticks names.
fn commands(prose: &str) -> BTreeSet<String> {
    let code = prose.split('`').skip(1).step_by(2);
    let named = code.filter(|code| code.starts_with("cargo ") || code.starts_with("crossfield "));
    named
        .map(|code| code.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn both_languages_have_the_same_commands_figures_and_numbers() {
    for (chapter, texts) in guide() {
        let [english, korean] = texts.each_ref().map(|text| parts(text));
        assert_eq!(commands(&english.0), commands(&korean.0), "{chapter}");
        let pictures = |prose: &str| -> Vec<String> {
            let pictures = targets(prose)
                .into_iter()
                .filter(|link| link.ends_with(".svg"));
            pictures
                .map(|link| link.trim_start_matches("../").to_owned())
                .collect()
        };
        assert_eq!(pictures(&english.0), pictures(&korean.0), "{chapter}");
        let headings = |prose: &str| -> Vec<usize> {
            let levels = prose
                .lines()
                .map(|line| line.len() - line.trim_start_matches('#').len());
            levels.filter(|&level| level > 0).collect()
        };
        assert_eq!(
            headings(&english.0),
            headings(&korean.0),
            "{chapter}: headings"
        );
        assert_eq!(english.1.len(), korean.1.len(), "{chapter}: blocks");
        for ((kind, ours), (korean_kind, theirs)) in english.1.iter().zip(&korean.1) {
            assert_eq!(kind, korean_kind, "{chapter}:\n{ours}");
            // What somebody typed and what was printed is never translated.
            if kind == "console" {
                assert_eq!(ours, theirs, "{chapter}");
            }
            assert_eq!(numbers(ours), numbers(theirs), "{chapter}:\n{ours}");
        }
        // Numbers with a point are results; the prose has the same ones.
        let results = |prose: &str| -> BTreeSet<String> {
            let all = numbers(prose).into_iter();
            all.filter(|number| number.contains('.'))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(
            results(&english.0),
            results(&korean.0),
            "{chapter}: results"
        );
    }
}

#[test]
fn every_experiment_has_its_command_and_its_figure_in_a_chapter() {
    let demo = read(&root().join("crates/crossfield/examples/demo/main.rs"));
    let figures = demo.split("drawn(\"").skip(1);
    let figures: Vec<&str> = figures.filter_map(|rest| rest.split('"').next()).collect();
    assert!(figures.len() >= 9, "{figures:?}");
    let texts: String = guide()
        .into_iter()
        .map(|(_, [english, _])| english)
        .collect();
    for figure in figures {
        let name = figure.trim_end_matches(".svg");
        assert!(root().join("docs/img").join(figure).exists(), "{figure}");
        assert!(texts.contains(&format!("img/{figure})")), "{figure}");
        assert!(
            texts.contains(&format!("$ cargo xtask demo {name}\n")),
            "{name}"
        );
    }
}
