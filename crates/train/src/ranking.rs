//! Lists of items for rows, measured or printed.

use std::sync::Arc;

use burn::tensor::Device;
use crossfield_core::metrics::Report;
use crossfield_core::{Batch, ListFigures, Model, RankedItems, Ranker, RankingReport};
use crossfield_data::{Dataset, Loader, Order};
use crossfield_embedding::{EmbeddingCollection, Vectors, evaluate_ranking, list_figures};

use crate::Error;
use crate::burn_executor::SCORE_BATCH;

/// Places of a list that are measured.
pub const PLACES: usize = 10;

/// The vectors that rank all items for each of some rows, what each row has had and what it wanted.
///
/// [`Trained::ranked`](crate::Trained::ranked) makes them.
///
/// ```
/// use crossfield_embedding::Vectors;
/// use crossfield_train::RankedRows;
///
/// let rows = RankedRows {
///     queries: Vectors::from_flat(&[1.0, 0.0], 2)?,
///     items: Vectors::from_flat(&[9.0, 0.0, 3.0, 0.0, 2.0, 5.0], 2)?,
///     seen: vec![vec![0]],
///     wanted: vec![vec![2]],
/// };
/// // The row has had item 0; item 1 is ahead of item 2.
/// assert_eq!(rows.evaluate()?.mrr, 0.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RankedRows {
    /// One vector a row.
    pub queries: Vectors,
    /// One vector an item.
    pub items: Vectors,
    /// What lists leave out, rising: the row's history, and the row of unknown items.
    pub seen: Vec<Vec<u32>>,
    /// What the row wanted: its target, if its label is above 0 or it has none.
    pub wanted: Vec<Vec<u32>>,
}

impl RankedRows {
    /// Figures of the first ten places of each row's list, of the whole catalogue but for what the
    /// row has had.
    ///
    /// # Errors
    /// [`Error::Tables`] for vectors that do not fit together.
    pub fn evaluate(&self) -> Result<RankingReport, Error> {
        self.evaluate_with(&self.queries, &self.items, None)
    }

    /// The figures of each row's list, of rows that wanted something.
    ///
    /// # Errors
    /// [`Error::Tables`] for vectors that do not fit together.
    pub fn each(&self) -> Result<Vec<ListFigures>, Error> {
        let seen = |row: u32| &self.seen[row as usize][..];
        let wanted = |row: u32| &self.wanted[row as usize][..];
        let (queries, items) = (&self.queries, &self.items);
        Ok(list_figures(queries, items, None, &seen, &wanted, PLACES)?)
    }

    /// The same figures of one list for all, by how often each item was taken.
    fn evaluate_popular(&self, counts: &[u64]) -> Result<RankingReport, Error> {
        let zeros = |count| Vectors::from_flat(&vec![0.0; count], 1);
        let (queries, items) = (zeros(self.queries.rows())?, zeros(counts.len())?);
        let counts: Vec<f32> = counts.iter().map(|&count| count as f32).collect();
        self.evaluate_with(&queries, &items, Some(&counts))
    }

    fn evaluate_with(
        &self,
        queries: &Vectors,
        items: &Vectors,
        bias: Option<&[f32]>,
    ) -> Result<RankingReport, Error> {
        let seen = |row: u32| &self.seen[row as usize][..];
        let wanted = |row: u32| &self.wanted[row as usize][..];
        Ok(evaluate_ranking(
            queries, items, bias, &seen, &wanted, PLACES,
        )?)
    }
}

/// How often each item of a vocabulary occurs in the histories and targets of rows.
///
/// ```
/// use crossfield_core::{FieldKind, RankedItems};
/// use crossfield_data::{DataSpec, FieldConfig, LabelKind, prepare};
/// use crossfield_train::item_counts;
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("a.csv");
/// std::fs::write(&file, "label,item,history\n1,c,a|b\n1,b,a\n")?;
/// let mut spec = DataSpec::default();
/// spec.data.train = vec![file.display().to_string()];
/// let field = |name: &str, kind| FieldConfig {
///     name: name.into(),
///     kind,
///     vocabulary: Some("item".into()),
///     ..FieldConfig::default()
/// };
/// spec.field = vec![
///     field("history", FieldKind::Sequence),
///     field("item", FieldKind::Categorical),
/// ];
/// let prepared = prepare(&spec, 1, LabelKind::Binary)?;
/// let items = RankedItems {
///     table: "v8.item".into(),
///     history: 0,
///     target: 1,
///     hidden: Some(0),
/// };
/// let counts = item_counts(&items, &prepared.train);
/// let of = |key: &str| counts[prepared.schema.row("item", key).expect("it was seen") as usize];
/// assert_eq!((of("a"), of("b"), of("c")), (2, 2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn item_counts(items: &RankedItems, rows: &Dataset) -> Vec<u64> {
    let mut counts = vec![0; rows.schema().fields[items.target].rows as usize];
    for field in [items.history, items.target] {
        for index in rows.column(field).indices {
            counts[index as usize] += 1;
        }
    }
    counts
}

/// The lists of all rows, if the model ranks items.
pub(crate) fn ranked<M: Model>(
    model: &M,
    tables: &mut EmbeddingCollection,
    device: &Device,
    data: &Arc<Dataset>,
) -> Option<Result<RankedRows, Error>> {
    let ranker = model.ranker()?;
    Some(ranked_by(ranker, tables, device, data))
}

fn ranked_by(
    ranker: &dyn Ranker,
    tables: &mut EmbeddingCollection,
    device: &Device,
    data: &Arc<Dataset>,
) -> Result<RankedRows, Error> {
    let items = ranker.items();
    let mut queries = Vec::new();
    let (mut seen, mut wanted) = (Vec::new(), Vec::new());
    for batch in Loader::new(data.clone(), Order::Sequential, SCORE_BATCH, 0)? {
        add_lists(items, &batch, &mut seen, &mut wanted);
        let (lookup, _) = tables.stage(Arc::new(batch), device);
        let rows = ranker.queries(&lookup).try_into_vec_as::<f32>();
        queries.extend(rows.expect("queries are floats"));
    }
    let items = tables.vectors(&items.table)?;
    Ok(RankedRows {
        queries: Vectors::from_flat(&queries, items.dim())?,
        items,
        seen,
        wanted,
    })
}

/// What the rows of a batch have had and wanted.
fn add_lists(
    items: &RankedItems,
    batch: &Batch,
    seen: &mut Vec<Vec<u32>>,
    wanted: &mut Vec<Vec<u32>>,
) {
    let [history, target] = [items.history, items.target].map(|field| &batch.sparse[field]);
    for row in 0..batch.batch_size {
        let mut had = history.indices[history.range(row)].to_vec();
        had.extend(items.hidden);
        had.sort_unstable();
        had.dedup();
        seen.push(had);
        let is_positive = batch
            .targets
            .labels
            .get(row)
            .is_none_or(|&label| label > 0.0);
        let target = &target.indices[target.range(row)];
        wanted.push(if is_positive {
            target.to_vec()
        } else {
            Vec::new()
        });
    }
}

/// Figures of the lists of labelled rows.
pub(crate) fn evaluated(
    ranked: Result<RankedRows, Error>,
    data: &Dataset,
) -> Result<Report, Error> {
    Ok(of_lists(ranked?.evaluate()?, data))
}

/// Figures of lists by popularity in the training rows.
pub(crate) fn by_popularity(
    items: &RankedItems,
    ranked: Result<RankedRows, Error>,
    train: &Dataset,
    data: &Dataset,
) -> Result<Report, Error> {
    let report = ranked?.evaluate_popular(&item_counts(items, train))?;
    Ok(of_lists(report, data))
}

pub(crate) fn of_lists(ranking: RankingReport, data: &Dataset) -> Report {
    Report {
        ranking: Some(ranking),
        rows: data.len() as u64,
        ..Report::default()
    }
}
