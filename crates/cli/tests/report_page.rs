//! `crossfield report`: what is on the page, and how a browser shows it.
//!
//! The browser is `$CROSSFIELD_CHROMIUM` or /usr/bin/chromium; without one its test says that it is
//! skipped, or fails if `$CROSSFIELD_CHROMIUM_REQUIRED` is set.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::Folder;
use serde_json::Value;

/// People click on an item of a kind that they had before: `r…` or `n…`, of four each; six users.
fn rows() -> String {
    let mut text = String::from("label,user,age,item,kind,items,kinds\n");
    let mut draws = common::Draws(3);
    for at in 0..720usize {
        let (kind, liked) = (["r", "n"][at % 2], ["r", "n"][at / 2 % 2]);
        let items: Vec<String> = (0..5)
            .map(|nth| format!("{liked}{}", (at / 16 + nth) % 4))
            .collect();
        let clicked = u8::from(draws.next() < if kind == liked { 0.8 } else { 0.2 });
        let kinds = [liked; 5].join("|");
        text += &format!(
            "{clicked},u{},{},{kind}{},{kind},{},{kinds}\n",
            at % 6,
            20 + at % 40,
            at / 8 % 4,
            items.join("|")
        );
    }
    text
}

fn run_file(data: &str, model: &str) -> String {
    format!(
        "[data]\ntrain = 'a.csv'\n{data}\n\
         [[field]]\nname = 'user'\n[[field]]\nname = 'item'\n[[field]]\nname = 'kind'\n\
         [[field]]\nname = 'age'\nkind = 'numeric'\n\
         [[field]]\nname = 'decade'\ncolumn = 'age'\nkind = 'numeric'\ntransform = 'buckets'\n\
         buckets = [30, 40, 50]\n\
         [[field]]\nname = 'items'\nkind = 'sequence'\nvocabulary = 'item'\nrepeats = true\n\
         [[field]]\nname = 'kinds'\nkind = 'sequence'\nvocabulary = 'kind'\nbeside = 'items'\n\
         [train]\nepochs = 6\nbatch_size = 64\n[optimizer]\ndense = {{ lr = 0.01 }}\n{model}\n"
    )
}

const PARTS: &str = "split = { kind = 'random', valid = 0.1, test = 0.3 }";
const DIN: &str = "[model]\nkind = 'din'\n[model.din]\n\
    behaviour = [{ target = ['item', 'kind'], history = ['items', 'kinds'] }]";

/// Two finished runs on the same rows: `fm` and `din`.
fn two_runs() -> Folder {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write(
        "fm.toml",
        run_file(PARTS, "[model]\nkind = 'fm'\n[label]\ngroup = 'user'"),
    );
    folder.write("din.toml", run_file(PARTS, DIN));
    folder.succeed("train fm.toml --out fm");
    folder.succeed("train din.toml --out din");
    folder
}

#[test]
fn two_runs_are_compared_on_one_page_and_in_forty_columns() {
    let folder = two_runs();
    let report = folder.succeed("report fm din --resamples 200 --importance-rows 100");
    assert!(
        report.stderr.contains("written to fm/report.html"),
        "{}",
        report.stderr
    );
    let text = report.stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 40),
        "{text}"
    );
    // Users are drawn whole, though only one of the runs was told of them.
    assert!(
        text.starts_with("216 test rows, 6 users drawn whole\n"),
        "{text}"
    );
    assert!(
        text.contains(" 2  din  best\n") && text.contains("1 − 2 +"),
        "{text}"
    );
    // The figures are those that the runs were finished with.
    let logloss = folder.metrics("din")["test"]["logloss"].as_f64().unwrap();
    assert!(text.contains(&format!(" 2  {logloss:.5}  ")), "{text}");

    let page = folder.read("fm/report.html");
    for expected in [
        "Report of 2 runs",
        "Loss by epoch",
        "Validation AUC by epoch",
        "Calibration: fm",
        "Calibration: din",
        "din, AUC 0.",
        "100 of the 216 test rows, drawn at random",
        "items + kinds",
        "Vectors of item: fm",
        "What each candidate looks at: din",
        "fm: no component that weighs a history",
        "Time of the runs",
        "GAUC",
        "&lt;0.001",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("decade"), "a field of the column `age`");
    // The same page again, but for nothing: it may be written over, and has no clock of its own.
    folder.succeed("report fm din --resamples 200 --importance-rows 100");
    assert_eq!(folder.read("fm/report.html"), page);
    assert!(!folder.names().iter().any(|name| name.ends_with(".part")));
}

#[test]
fn an_average_of_runs_is_compared_with_its_members() {
    let folder = two_runs();
    folder.write(
        "mix.toml",
        "[model]\naverage = ['fm', 'din']\nweights = [1, 3]\n",
    );
    folder.succeed("train mix.toml --out mix");
    let text = folder
        .succeed("report din mix --resamples 50 --importance-rows 20")
        .stdout;
    let logloss = folder.metrics("mix")["test"]["logloss"].as_f64().unwrap();
    assert!(text.contains(&format!(" 2  {logloss:.5}  ")), "{text}");
    let page = folder.read("din/report.html");
    assert!(page.contains("0.750 × din, burn, seed 1"), "{page}");
    assert!(
        page.contains(
            "mix: an average of runs; see the report of a member, such as mix/members/1."
        )
    );
}

#[test]
fn what_is_no_report_is_not_written_over() {
    let folder = two_runs();
    folder.write("mine.html", "<p>mine</p>");
    let message = folder.fail("report fm -o mine.html");
    assert_eq!(
        message,
        "--output mine.html: is there already, and is not a report: name another file"
    );
    assert_eq!(folder.read("mine.html"), "<p>mine</p>");
}

#[test]
fn runs_on_other_rows_are_refused_by_what_differs() {
    let folder = two_runs();
    folder.succeed("train din.toml --out seed --set train.seed=2");
    let message = folder.fail("report fm seed");
    assert!(message.contains("fm seed"), "{message}");
    assert!(
        message.contains("have other test rows: the label of row "),
        "{message}"
    );
    let shorter = "split = { kind = 'random', valid = 0.1, test = 0.2 }";
    folder.write("shorter.toml", run_file(shorter, "[model]\nkind = 'fm'"));
    folder.succeed("train shorter.toml --out shorter");
    let message = folder.fail("report fm shorter");
    assert!(message.contains("have 216 and 144 test rows"), "{message}");
    let message = folder.fail("report nowhere");
    assert!(message.contains("nowhere/run.toml"), "{message}");
}

#[test]
fn ratings_have_residuals_and_a_run_without_held_out_rows_says_so() {
    let folder = Folder::new();
    folder.write("a.csv", rows());
    folder.write("a.toml", run_file("", "[model]\nkind = 'fm'"));
    folder.succeed("train a.toml --out run --set train.loss=squared");
    let text = folder
        .succeed("report run -o page.html --importance-rows 50")
        .stdout;
    assert!(
        text.contains("RMSE") && text.contains("720 training rows"),
        "{text}"
    );
    let page = folder.read("page.html");
    for expected in [
        "Residuals",
        "mean true rating",
        "neither test nor validation rows",
        "run: no validation rows, hence no curve",
        "rise of the squared error",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("ROC curve"));
}

#[test]
fn runs_that_rank_say_what_does_not_apply() {
    let folder = Folder::new();
    let mut likes = String::from("user,item,label\n");
    for user in 0..30 {
        for item in (0..20).filter(|item| (user * 7 + item * 3) % 5 < 2) {
            likes += &format!("u{user},i{item},1\n");
        }
    }
    folder.write("a.csv", likes);
    let run = "[data]\ntrain = 'a.csv'\nsplit = { kind = 'random', test = 0.2 }\n[label]\n\
               only_positive = true\n[[field]]\nname = 'user'\n[[field]]\nname = 'item'\n[model]\n\
               kind = 'mf'\nbias = false\n[model.mf]\nbiases = 'none'\n[train]\nexecutor = 'als'\nloss = 'wrmf'\nepochs = 10\n";
    folder.write("a.toml", run);
    folder.succeed("train a.toml --out run");
    folder.succeed("report run");
    let page = folder.read("run/report.html");
    for expected in ["NDCG@10", "popularity", "rank items", "Vectors of"] {
        assert!(page.contains(expected), "{expected}");
    }

    // The same users, so that their figures are compared user by user.
    folder.succeed("train a.toml --set model.mf.embedding_dim=2 --out short");
    let text = folder.succeed("report run short").stdout;
    assert!(
        text.starts_with("25 users of the test rows\n"),
        "what is averaged: {text}"
    );
    assert!(
        text.lines().all(|line| line.chars().count() <= 40),
        "{text}"
    );
    let ndcg = |run: &str| {
        folder.metrics(run)["test"]["ranking"]["ndcg"]
            .as_f64()
            .unwrap()
    };
    let of = |nth: usize| {
        let mut lines = text.lines().skip_while(|line| !line.starts_with("NDCG@10"));
        let line = lines.nth(nth).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    assert!((of(1) - ndcg("run")).abs() < 1e-5, "{text}");
    assert!((of(2) - ndcg("short")).abs() < 1e-5, "{text}");
    let page = folder.read("run/report.html");
    assert!(page.contains("Paired differences"), "{page}");

    folder.succeed("train a.toml --set data.split.test=0.1 --out fewer");
    let message = folder.fail("report run fewer");
    assert!(message.contains("expected the same"), "{message}");
}

/// Measures the page in a frame of the given width, and writes what it found into the document.
const SCRIPT: &str = r#"
const frame = document.querySelector('iframe');
frame.addEventListener('load', () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const found = { plots: [], texts: 0, smallest: 1e9, smallestText: '' };
  for (const figure of page.querySelectorAll('figure')) {
    const svg = figure.querySelector('svg.plot, svg.fixed');
    const box = svg.getBoundingClientRect();
    const marks = svg.querySelectorAll('polyline, circle, rect, line, polygon').length;
    found.plots.push({ title: figure.querySelector('h3').textContent, label: svg.getAttribute('aria-label'),
      caption: figure.querySelector('figcaption').textContent, width: box.width, height: box.height, marks });
  }
  for (const element of page.body.querySelectorAll('*')) {
    const own = [...element.childNodes].filter(node => node.nodeType === 3 && node.textContent.trim());
    if (!own.length) continue;
    const svg = element.ownerSVGElement;
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    const size = parseFloat(view.getComputedStyle(element).fontSize) * scale;
    found.texts += 1;
    if (size < found.smallest) { found.smallest = size; found.smallestText = element.textContent.trim(); }
  }
  const root = page.documentElement;
  found.scrollWidth = root.scrollWidth;
  found.clientWidth = root.clientWidth;
  found.requests = view.performance.getEntriesByType('resource').map(entry => entry.name);
  const pre = document.createElement('pre');
  pre.textContent = 'FOUND' + JSON.stringify(found) + 'END';
  document.body.append(pre);
});
"#;

#[test]
fn a_browser_shows_every_plot_on_a_telephone_and_on_a_wide_screen() {
    let Some(browser) = browser() else { return };
    let folder = two_runs();
    folder.succeed("report fm din --resamples 50 --importance-rows 100");
    let page = folder.read("fm/report.html");
    let srcdoc = page.replace('&', "&amp;").replace('"', "&quot;");
    for width in [400, 1600] {
        // The script has to listen before the frame is there.
        let wrapper = format!(
            "<!DOCTYPE html><meta charset=utf-8><title>frame</title><link rel=icon href=data:,><body>\
             <iframe width={width} height=900 style=\"border:0\" srcdoc=\"{srcdoc}\"></iframe>\
             <script>{SCRIPT}</script></body>"
        );
        let name = format!("frame-{width}.html");
        folder.write(&name, wrapper);
        let profile = folder.path(&format!("profile-{width}"));
        let output = Command::new(&browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                "--virtual-time-budget=10000",
                "--window-size=1700,1000",
                "--dump-dom",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}", folder.path(&name).display()))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("CONSOLE"), "{stderr}");
        let dom = String::from_utf8_lossy(&output.stdout);
        let found = dom
            .rsplit_once("FOUND")
            .and_then(|(_, rest)| rest.split_once("END"));
        let (json, _) = found.unwrap_or_else(|| panic!("nothing was measured: {stderr}"));
        let json = json
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&");
        check(width, &serde_json::from_str(&json).unwrap());
    }
}

fn check(width: u64, found: &Value) {
    let plots = found["plots"].as_array().unwrap();
    let titles: Vec<&str> = plots
        .iter()
        .map(|plot| plot["title"].as_str().unwrap())
        .collect();
    assert_eq!(
        titles,
        [
            "Loss by epoch",
            "Validation AUC by epoch",
            "Calibration: fm",
            "Calibration: din",
            "ROC",
            "Importance of fields: fm",
            "Importance of fields: din",
            "Vectors of item: fm",
            "Vectors of item: din",
            "What each candidate looks at: din",
            "Time of the runs",
        ]
    );
    for plot in plots {
        let number = |name: &str| plot[name].as_f64().unwrap();
        assert!(
            number("width") > 200.0 && number("height") > 80.0,
            "{width}: {plot}"
        );
        assert!(number("marks") > 5.0, "{plot}");
        for text in ["label", "caption"] {
            assert!(plot[text].as_str().unwrap().len() > 20, "{plot}");
        }
    }
    assert_eq!(found["clientWidth"], width, "{found}");
    assert!(found["scrollWidth"].as_u64().unwrap() <= width, "{found}");
    assert!(found["texts"].as_u64().unwrap() > 200, "{found}");
    let smallest = found["smallest"].as_f64().unwrap();
    assert!(smallest >= 10.0, "{smallest} px: {}", found["smallestText"]);
    assert_eq!(found["requests"].as_array().unwrap().len(), 0, "{found}");
}

/// The browser, if there is one.
fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CROSSFIELD_CHROMIUM").map(PathBuf::from);
    let browser = named.unwrap_or_else(|| "/usr/bin/chromium".into());
    if browser.exists() {
        return Some(browser);
    }
    let required = std::env::var_os("CROSSFIELD_CHROMIUM_REQUIRED").is_some();
    assert!(!required, "no browser at {}", browser.display());
    eprintln!("skipped: no browser at {}", browser.display());
    None
}
