//! The tables in benches/RESULTS.md, and that file as a page.

use std::path::Path;

use crossfield_train::bytes;
use pulldown_cmark::{Options, Parser, html};

use crate::plan::Plan;
use crate::runs::{Row, Table};

const BEGIN: &str = "<!-- bench all: written by `cargo xtask bench all` -->";
const END: &str = "<!-- bench all: end -->";

/// Puts the tables between their marks, and writes the page.
pub(crate) fn write(
    root: &Path,
    plan: &Plan,
    tables: &[Table],
) -> Result<(), Box<dyn std::error::Error>> {
    let file = root.join("benches/RESULTS.md");
    let text = std::fs::read_to_string(&file)?;
    let marks = text.find(BEGIN).zip(text.find(END));
    let (begin, end) = marks.ok_or_else(|| format!("{}: no line `{BEGIN}`", file.display()))?;
    let section = markdown(plan, tables);
    print!("{section}");
    let text = format!("{}{BEGIN}\n\n{section}\n{}", &text[..begin], &text[end..]);
    std::fs::write(&file, &text)?;
    let page = root.join("benches/RESULTS.html");
    std::fs::write(&page, to_html(&text))?;
    eprintln!("{} and {}", file.display(), page.display());
    Ok(())
}

type Figure = (&'static str, fn(&Row) -> &Vec<f64>, fn(&[f64]) -> String);

const FIGURES: [Figure; 6] = [
    ("logloss", |row| &row.logloss, with_error),
    ("AUC", |row| &row.auc, with_error),
    ("RMSE", |row| &row.rmse, with_error),
    ("NDCG@10", |row| &row.ndcg, with_error),
    ("rows/s", |row| &row.rate, |rates| thousands(median(rates))),
    (
        "memory",
        |row| &row.memory,
        |most| bytes(median(most) as u64),
    ),
];

/// A table a data set, of what was measured there.
fn markdown(plan: &Plan, tables: &[Table]) -> String {
    let seeds: Vec<String> = plan.seeds.iter().map(u64::to_string).collect();
    let mut text = format!(
        "Test rows (validation rows, where there are no others), seeds {}: mean ± standard error over \
         seeds; training\nrows a second of processor time and most memory held, the median. A model\n\
         that has no preset is trained with the settings of another, which were not chosen for it: \
         `benches/all.toml`.\n",
        seeds.join(", ")
    );
    for table in tables {
        let measured: Vec<&Row> = table.rows.iter().filter(|row| !row.is_empty()).collect();
        text += &format!("\n### {}\n\n{}\n\n", table.name, sentence(&table.about));
        if measured.is_empty() {
            text += "Not run: its data is not here.\n";
            continue;
        }
        let has = |(_, of, _): &&Figure| measured.iter().any(|row| !of(row).is_empty());
        let figures: Vec<&Figure> = FIGURES.iter().filter(has).collect();
        text += "| model |";
        figures
            .iter()
            .for_each(|(name, ..)| text += &format!(" {name} |"));
        text += &format!("\n|---|{}\n", "---:|".repeat(figures.len()));
        for row in measured {
            text += &format!("| {} |", row.model);
            for (_, of, print) in &figures {
                let values = of(row);
                let cell = if values.is_empty() {
                    String::new()
                } else {
                    print(values)
                };
                text += &format!(" {cell} |");
            }
            text += "\n";
        }
    }
    text
}

impl Row {
    fn is_empty(&self) -> bool {
        FIGURES.iter().all(|(_, of, _)| of(self).is_empty())
    }
}

fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    let first = letters.next().map(char::to_uppercase);
    let first = first.map_or(String::new(), Iterator::collect);
    format!("{first}{}.", letters.as_str())
}

/// `.48159 ± .00012`; one value alone has no error.
fn with_error(values: &[f64]) -> String {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let short = |value: f64| format!("{value:.5}").trim_start_matches('0').to_owned();
    if values.len() < 2 {
        return short(mean);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (count - 1.0) / count).sqrt();
    format!("{} ± {}", short(mean), short(error))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        0.5 * (sorted[middle - 1] + sorted[middle])
    }
}

fn thousands(rate: f64) -> String {
    if rate >= 1e6 {
        format!("{:.1} M", rate / 1e6)
    } else {
        format!("{:.0} k", rate / 1e3)
    }
}

/// A page that needs nothing beside it; tables scroll in their own boxes on narrow screens.
fn to_html(markdown: &str) -> String {
    let options = Options::ENABLE_TABLES;
    let mut body = String::new();
    html::push_html(&mut body, Parser::new_ext(markdown, options));
    let body = body
        .replace("<table>", "<div class=\"scroll\"><table>")
        .replace("</table>", "</table></div>");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>crossfield: results</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
.scroll, pre { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #8884; text-align: left; white-space: nowrap; }
code { font-size: .9em; overflow-wrap: anywhere; }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Data;

    #[test]
    fn errors_are_those_of_the_mean_over_seeds() {
        // Variance 1, of three: 1/√3.
        assert_eq!(with_error(&[0.0, 1.0, 2.0]), "1.00000 ± .57735");
        assert_eq!(with_error(&[0.25]), ".25000");
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(
            (thousands(12_300.0), thousands(2.34e6)),
            ("12 k".into(), "2.3 M".into())
        );
    }

    #[test]
    fn tables_show_only_what_was_measured_and_pages_hold_them() {
        let plan = Plan {
            seeds: vec![1, 2],
            data: Vec::<Data>::new(),
        };
        let table = Table {
            name: "Adult".into(),
            about: "census income".into(),
            rows: vec![
                Row {
                    model: "FM".into(),
                    auc: vec![0.5, 0.7],
                    rate: vec![5e3],
                    ..Row::default()
                },
                Row {
                    model: "not run".into(),
                    ..Row::default()
                },
            ],
        };
        let text = markdown(&plan, &[table]);
        let expected = "### Adult\n\nCensus income.\n\n| model | AUC | rows/s |\n|---|---:|---:|\n\
                        | FM | .60000 ± .10000 | 5 k |\n";
        assert!(text.ends_with(expected), "{text}");
        let page = to_html(&text);
        assert!(page.contains("<div class=\"scroll\"><table>"), "{page}");
        assert!(page.contains(">.60000 ± .10000</td>"), "{page}");
    }
}
