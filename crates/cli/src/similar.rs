//! `similar`: the nearest rows to the row of a key.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::PathBuf;

use crossfield_data::{DataConfig, FieldConfig, JoinConfig, side_column};
#[cfg(feature = "ann")]
use crossfield_embedding::{Approximate, HnswConfig};
use crossfield_embedding::{Exact, Measure, Neighbour};
use crossfield_train::{Error, in_pool};

use crate::console::nine_digits;
use crate::run::{Anyhow, Finished, print};
use crate::vectors::KeyedVectors;

/// Characters of a line beyond which a title takes one of its own.
const WIDTH: usize = 40;
/// The column of a joined file that names its rows to people.
const TITLE: &str = "title";

/// `crossfield similar`.
#[derive(clap::Args, Debug)]
pub(crate) struct SimilarArgs {
    /// A finished run.
    run: PathBuf,
    /// The vocabulary of the key, as `item`.
    #[arg(long, value_name = "NAME")]
    vocabulary: String,
    /// A value of the data, as it stands in the files.
    #[arg(long)]
    key: String,
    /// How many neighbours to print.
    #[arg(short, value_name = "K", default_value_t = 10)]
    k: usize,
    /// What is compared [default: cosine; dot with `--to`].
    #[arg(long)]
    measure: Option<MeasureArg>,
    /// The table of the vectors [default: the only table of factors of the vocabulary].
    #[arg(long)]
    table: Option<String>,
    /// Finds rows of another vocabulary: the items of a user, with `--vocabulary user --to item`.
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
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
    /// Searches a graph of the vectors (HNSW), which may miss neighbours. Building it takes longer
    /// than many exact searches: this shows what such an index would find.
    #[cfg(feature = "ann")]
    #[arg(long)]
    approximate: bool,
}

/// `--measure`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MeasureArg {
    Cosine,
    Dot,
}

pub(crate) fn similar(args: &SimilarArgs) -> Anyhow<()> {
    let finished = Finished::open(&args.run, &[])?;
    let from = KeyedVectors::read(&finished, &args.vocabulary, args.table.as_deref(), None)?;
    let row = from.row(&args.key)?;
    let other = match &args.to {
        Some(to) if *to != args.vocabulary => {
            let dim = Some(from.table.dim);
            Some(KeyedVectors::read(&finished, to, None, dim)?)
        }
        _ => None,
    };
    let measure = match args.measure {
        Some(MeasureArg::Cosine) => Measure::Cosine,
        Some(MeasureArg::Dot) => Measure::Dot,
        None if other.is_some() => Measure::Dot,
        None => Measure::Cosine,
    };
    let among = other.as_ref().unwrap_or(&from);
    // What stands for no key, and the key itself.
    let excluded = (0..among.table.rows as u32).filter(|&other_row| {
        among.key(other_row).is_none() || (other.is_none() && other_row == row)
    });
    let excluded: Vec<u32> = excluded.collect();
    let query = from.vectors.row(row);
    let found = in_pool(finished.run.train.threads, || {
        search(args, among, measure, query, &excluded)
    })??;
    let titles = titles(args, &finished, among.vocabulary)?;
    let rows: Vec<Line> = found
        .iter()
        .map(|found| Line::new(found, among, &titles))
        .collect();
    print(&if std::io::stdout().is_terminal() {
        for_people(&rows)
    } else {
        with_tabs(&rows)
    })
}

fn search(
    args: &SimilarArgs,
    among: &KeyedVectors<'_>,
    measure: Measure,
    query: &[f32],
    excluded: &[u32],
) -> Result<Vec<Neighbour>, crossfield_embedding::Error> {
    #[cfg(feature = "ann")]
    if args.approximate {
        // The graph knows none that are left out: as many more are asked for.
        let k = args.k + excluded.len();
        let defaults = HnswConfig::default();
        let config = HnswConfig {
            ef_search: k.max(defaults.ef_search),
            ..defaults
        };
        let index = Approximate::new(&among.vectors, measure, config)?;
        let mut found = index.nearest(query, k)?;
        found.retain(|found| excluded.binary_search(&found.row).is_err());
        found.truncate(args.k);
        return Ok(found);
    }
    Exact::new(&among.vectors, measure)?.nearest(query, args.k, excluded)
}

/// Titles by key: of the file that is named, or of the one that the run joins, if it is there.
fn titles(
    args: &SimilarArgs,
    finished: &Finished,
    vocabulary: &str,
) -> Anyhow<HashMap<String, String>> {
    let data = &finished.run.data;
    if let Some(file) = &args.titles {
        let Some((key, title)) = args.titles_columns.split_once(',') else {
            return Err(Error::Option {
                option: format!("--titles-columns {}", args.titles_columns),
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

/// A neighbour as it is printed.
struct Line {
    key: String,
    title: String,
    score: f32,
}

impl Line {
    fn new(found: &Neighbour, among: &KeyedVectors<'_>, titles: &HashMap<String, String>) -> Self {
        let key = among.key(found.row).unwrap_or_default();
        Self {
            title: titles.get(&key).cloned().unwrap_or_default(),
            key,
            score: found.score,
        }
    }
}

/// Rank, key, title and score, with a tab between them.
fn with_tabs(lines: &[Line]) -> String {
    let mut text = String::new();
    for (rank, line) in (1..).zip(lines) {
        let title = line.title.replace(['\t', '\n'], " ");
        let score = nine_digits(f64::from(line.score));
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

    fn line(key: &str, title: &str, score: f32) -> Line {
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
