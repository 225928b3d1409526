//! `similar`: the nearest rows to the row of a key.

use std::path::PathBuf;

#[cfg(feature = "ann")]
use crossfield_embedding::{Approximate, HnswConfig};
use crossfield_embedding::{Exact, Measure, Neighbour};
use crossfield_train::in_pool;

use crate::lists::{Line, TitleArgs, print_list};
use crate::run::{Anyhow, Finished};
use crate::vectors::KeyedVectors;

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
    #[command(flatten)]
    titles: TitleArgs,
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
    let titles = args.titles.read(&finished, among.vocabulary)?;
    let lines = found.iter().map(|found| {
        let key = among.key(found.row).unwrap_or_default();
        Line::new(key, f64::from(found.score), &titles)
    });
    print_list(&lines.collect::<Vec<_>>())
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
