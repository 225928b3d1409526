//! Ranked lists as they are printed, with titles where there are any.

use std::collections::HashMap;
use std::io::IsTerminal;

use crossfield_data::{DataConfig, FieldConfig, JoinConfig, side_column};
use crossfield_train::Error;

use crate::console::{WIDTH, nine_digits};
use crate::run::{Anyhow, Finished, print};

/// The column of a joined file that names its rows to people.
const TITLE: &str = "title";

/// Where titles come from.
#[derive(clap::Args, Debug)]
pub(crate) struct TitleArgs {
    /// A csv file with titles by key [default: the file that the run joins by the vocabulary's
    /// column, if it has a column `title`].
    #[arg(long, value_name = "FILE")]
    titles: Option<String>,
    /// The columns of keys and titles in that file.
    #[arg(
        long,
        value_name = "KEY,TITLE",
        default_value = "key,title",
        requires = "titles"
    )]
    titles_columns: String,
}

impl TitleArgs {
    /// Titles by key: of the file that is named, or of the one that the run joins, if it is there.
    pub(crate) fn read(
        &self,
        finished: &Finished,
        vocabulary: &str,
    ) -> Anyhow<HashMap<String, String>> {
        let data = &finished.run.data;
        if let Some(file) = &self.titles {
            let Some((key, title)) = self.titles_columns.split_once(',') else {
                return Err(Error::Option {
                    option: format!("--titles-columns {}", self.titles_columns),
                    reason: "expected two names, as in key,title".to_owned(),
                }
                .into());
            };
            let join = JoinConfig {
                file: file.clone(),
                on: key.to_owned(),
                ..JoinConfig::default()
            };
            return Ok(side_column(&join, data, title)?);
        }
        let Some(join) = joined(finished.fitted.field_configs(), data, vocabulary) else {
            return Ok(HashMap::new());
        };
        match side_column(join, data, TITLE) {
            Ok(titles) => Ok(titles),
            Err(crossfield_data::Error::NoColumn { .. }) => Ok(HashMap::new()),
            Err(error) => {
                // The neighbours are worth printing where the data is not at hand.
                eprintln!("no titles: {error}");
                Ok(HashMap::new())
            }
        }
    }
}

/// The file that is joined by the column of the vocabulary.
fn joined<'a>(
    mut fields: impl Iterator<Item = &'a FieldConfig>,
    data: &'a DataConfig,
    vocabulary: &str,
) -> Option<&'a JoinConfig> {
    let field =
        fields.find(|field| field.vocabulary.as_deref().unwrap_or(&field.name) == vocabulary)?;
    let column = field.column.as_deref().unwrap_or(&field.name);
    data.join.iter().find(|join| join.on == column)
}

/// A place of a list.
pub(crate) struct Line {
    key: String,
    title: String,
    score: f64,
}

impl Line {
    pub(crate) fn new(key: String, score: f64, titles: &HashMap<String, String>) -> Self {
        Self {
            title: titles.get(&key).cloned().unwrap_or_default(),
            key,
            score,
        }
    }
}

/// Prints a list, the best first: for people on a terminal, for programs elsewhere.
pub(crate) fn print_list(lines: &[Line]) -> Anyhow<()> {
    print(&if std::io::stdout().is_terminal() {
        for_people(lines)
    } else {
        with_tabs(lines)
    })
}

/// Rank, key, title and score, with a tab between them.
fn with_tabs(lines: &[Line]) -> String {
    let mut text = String::new();
    for (rank, line) in (1..).zip(lines) {
        let title = line.title.replace(['\t', '\n'], " ");
        let score = nine_digits(line.score);
        text += &format!("{rank}\t{}\t{title}\t{score}\n", line.key);
    }
    text
}

/// Columns of rank, score, key and title; titles on lines of their own where some line would be
/// longer than 40 characters.
fn for_people(lines: &[Line]) -> String {
    let length = |text: &str| text.chars().count();
    let widest = lines
        .iter()
        .map(|line| length(&line.key))
        .max()
        .unwrap_or(0);
    let places = lines.len().to_string().len();
    let scores: Vec<String> = lines
        .iter()
        .map(|line| format!("{:.4}", line.score))
        .collect();
    let score_width = scores.iter().map(String::len).max().unwrap_or(0);
    let before = places + score_width + 4;
    let is_narrow = lines
        .iter()
        .all(|line| before + widest + 2 + length(&line.title) <= WIDTH);
    let mut text = String::new();
    for ((rank, line), score) in (1..).zip(lines).zip(&scores) {
        let Line { key, title, .. } = line;
        let start = format!("{rank:>places$}  {score:>score_width$}  ");
        text += &match title.as_str() {
            "" => format!("{start}{key}\n"),
            _ if is_narrow => format!("{start}{key:<widest$}  {title}\n"),
            _ => format!("{start}{key}\n{:before$}{title}\n", ""),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, title: &str, score: f64) -> Line {
        Line {
            key: key.into(),
            title: title.into(),
            score,
        }
    }

    #[test]
    fn lines_for_people_are_columns_and_long_titles_have_lines_of_their_own() {
        let short = [line("172", "Brazil", 0.9876), line("5", "", -0.5)];
        assert_eq!(
            for_people(&short),
            "1   0.9876  172  Brazil\n2  -0.5000  5\n"
        );
        let long = [
            line("172", "The Empire Strikes Back, and more", 0.5),
            line("5", "Alien", 0.25),
        ];
        assert_eq!(
            for_people(&long),
            "1  0.5000  172\n           The Empire Strikes Back, and more\n\
             2  0.2500  5\n           Alien\n"
        );
        assert_eq!(for_people(&[]), "");
    }

    #[test]
    fn lines_for_programs_have_four_cells_whatever_is_in_a_title() {
        let lines = [line("a b", "one\ttwo", 0.5), line("c", "", 1.0)];
        assert_eq!(
            with_tabs(&lines),
            "1\ta b\tone two\t0.500000000\n2\tc\t\t1.00000000\n"
        );
    }
}
