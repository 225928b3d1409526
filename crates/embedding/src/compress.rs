//! Tables that take less memory than a row for each value: their rows are composed of the rows of
//! smaller tables.

use std::sync::Arc;

use crossfield_core::rng::{fnv1a, name_key};
use crossfield_core::{Initializer, TableConfig};
use serde::{Deserialize, Serialize};

use crate::collection::Dedup;
use crate::{Error, Precision, RowOptimizer, RowOptimizerKind, Table, TablePlan};

/// How the rows of a table are composed of rows of smaller tables, its parts.
///
/// Components look the table up as if it were whole. Its parts are tables of their own, named
/// `<table>.<part>`, under the table's optimizer: the gradient of a composed row is divided among
/// the rows that it is made of, what falls on one row is added up over the batch, and each is
/// updated once.
///
/// L2 is paid by the composed rows, as by those of a whole table, and its gradient divided with
/// theirs: paid by the parts, it would take the factors of a product to zero, whose gradients are as
/// small as the other factor is. (FTRL's `l2`, no term of a gradient, is that of the parts.)
///
/// The row of unseen values begins at zero, as in a whole table: under `hash` and
/// `quotient_remainder` it has a row of its own behind the others.
///
/// ```
/// use std::sync::Arc;
///
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{Compress, RowOptimizer, TablePlan};
///
/// let config = TableConfig {
///     name: "v8.item".into(),
///     rows: 1_000_000,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Normal { std: 0.01 },
///     oov_row: Some(0),
/// };
/// let plan = TablePlan {
///     compress: Some(Compress::Hash { rows: 10_000, hashes: 2 }),
///     ..TablePlan::new(config, RowOptimizer::default())
/// };
/// plan.check()?;
/// let parts = plan.parts();
/// // The one row more is that of unseen values.
/// assert_eq!((parts[0].config.name.as_str(), parts[0].config.rows), ("v8.item.hash", 10_001));
/// assert_eq!(plan.weight_bytes(), 10_001 * 32);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Compress {
    /// `v_i = Σ_j E[h_j(i)]`: the sum of `hashes` rows of one table of `rows` rows, part `hash`,
    /// that independent hashes of the index choose. Values that share one row hardly ever share
    /// the others.
    ///
    /// # Source
    /// Svenstrup, Hansen, Winther 2017, equation 1, with all importance weights 1.
    Hash {
        /// Rows of the smaller table.
        rows: usize,
        /// Rows that are added up.
        #[serde(default = "two")]
        hashes: usize,
    },
    /// `v_i = Q[i div rows] ⊙ R[i mod rows]`, or their sum: parts `quotient` and `remainder`. No two
    /// values have the same pair of rows.
    ///
    /// # Source
    /// Shi, Mudigere, Naumov, Yang 2020, algorithm 2.
    QuotientRemainder {
        /// Rows of the table of remainders.
        rows: usize,
        /// How the two rows are combined.
        #[serde(default)]
        combine: Combine,
    },
    /// `v_i = e_i P`: rows of `dim` weights, part `narrow`, times a learned matrix `[dim, the
    /// table's dim]`, part `projection`. With another `dim` for each table, these are mixed
    /// dimensions.
    ///
    /// # Source
    /// Ginart, Naumov, Mudigere, Yang, Zou 2021, section 3.
    Projection {
        /// Weights of a narrow row.
        dim: usize,
    },
    /// Only values that were seen at least `min_count` times in training have rows of their own,
    /// part `frequent`; the others share the row of unseen values, which they train.
    Frequent {
        /// How often a value has to be seen.
        min_count: u64,
    },
}

/// How [`Compress::QuotientRemainder`] combines its two rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Element-wise product.
    #[default]
    Product,
    /// Sum.
    Sum,
}

fn two() -> usize {
    2
}

impl Compress {
    /// Its name, as a run file spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Compress::Hash { .. } => "hash",
            Compress::QuotientRemainder { .. } => "quotient_remainder",
            Compress::Projection { .. } => "projection",
            Compress::Frequent { .. } => "frequent",
        }
    }

    /// Checks that it makes the table of a plan smaller.
    ///
    /// # Errors
    /// [`Error::Compress`], [`Error::Needs`].
    pub(crate) fn check(&self, plan: &TablePlan) -> Result<(), Error> {
        let table = &plan.config;
        let refuse = |option: &'static str, value: u64, expected: String| {
            Err(Error::Compress {
                table: table.name.clone(),
                option,
                value,
                expected,
            })
        };
        let needs = |what, expected| {
            Err(Error::Needs {
                table: table.name.clone(),
                what,
                expected,
            })
        };
        if plan.precision != Precision::F32 {
            return needs("compress", "precision = \"f32\"");
        }
        let fewer = format!(
            "1 to {}, fewer than the table has",
            table.rows.saturating_sub(1)
        );
        match *self {
            Compress::Hash { rows, .. } | Compress::QuotientRemainder { rows, .. }
                if !(1..table.rows).contains(&rows) =>
            {
                return refuse("rows", rows as u64, fewer);
            }
            Compress::Hash { hashes, .. } if !(1..=16).contains(&hashes) => {
                return refuse("hashes", hashes as u64, "1 to 16".into());
            }
            Compress::Projection { dim } if !(1..table.dim).contains(&dim) => {
                let expected = match table.dim {
                    1 => "no projection of a table of single weights: leave it out".into(),
                    wide => format!("1 to {}, narrower than the table", wide - 1),
                };
                return refuse("dim", dim as u64, expected);
            }
            Compress::Frequent { min_count } => {
                if min_count < 2 {
                    return refuse("min_count", min_count, "2 or more".into());
                }
                if plan.own_rows.is_none() || table.oov_row.is_none() {
                    return needs(
                        "compress = \"frequent\"",
                        "a vocabulary of texts, whose values are counted",
                    );
                }
                return Ok(());
            }
            _ => {}
        }
        let weights = |table: &TableConfig| (table.rows * table.dim) as u64;
        let parts: u64 = plan.parts().iter().map(|part| weights(&part.config)).sum();
        if parts >= weights(table) {
            let expected = format!("fewer than the {} of the whole table", weights(table));
            return refuse("weights", parts, expected);
        }
        Ok(())
    }

    /// The parts of a table.
    pub(crate) fn parts(&self, plan: &TablePlan) -> Vec<TablePlan> {
        let table = &plan.config;
        let own_row = usize::from(table.oov_row.is_some());
        let l2 = match plan.optimizer.kind {
            RowOptimizerKind::Ftrl => plan.optimizer.l2,
            // Paid by the composed rows.
            _ => 0.0,
        };
        let part = |part: &str, rows: usize, oov_row: Option<usize>| TablePlan {
            config: TableConfig {
                name: format!("{}.{part}", table.name),
                rows,
                oov_row: oov_row.map(|row| row as u32),
                ..table.clone()
            },
            optimizer: RowOptimizer {
                l2,
                ..plan.optimizer
            },
            compress: None,
            own_rows: None,
            ..plan.clone()
        };
        let begin = |plan: TablePlan, initializer| TablePlan {
            config: TableConfig {
                initializer,
                ..plan.config
            },
            ..plan
        };
        match *self {
            Compress::Hash { rows, hashes } => {
                let hash = part("hash", rows + own_row, table.oov_row.map(|_| rows));
                vec![begin(hash, share(table.initializer, hashes as f64))]
            }
            Compress::QuotientRemainder { rows, combine } => {
                let quotient = part("quotient", table.rows.div_ceil(rows.max(1)), None);
                let remainder = part("remainder", rows + own_row, table.oov_row.map(|_| rows));
                match combine {
                    // Around 1, with a mean square of 1: a product begins as large as the
                    // initialiser says, and rows of one remainder begin apart.
                    Combine::Product => {
                        let root = (13.0f64 / 12.0).sqrt();
                        let around_one = Initializer::Uniform {
                            low: 0.5 / root,
                            high: 1.5 / root,
                        };
                        vec![begin(quotient, around_one), remainder]
                    }
                    Combine::Sum => {
                        let half = share(table.initializer, 2.0);
                        vec![begin(quotient, half), begin(remainder, half)]
                    }
                }
            }
            Compress::Projection { dim } => {
                let mut narrow = part("narrow", table.rows, table.oov_row.map(|row| row as usize));
                narrow.config.dim = dim;
                // Keeps the variance that the initialiser gives.
                let std = 1.0 / (dim.max(1) as f64).sqrt();
                let projection = part("projection", dim, None);
                vec![narrow, begin(projection, Initializer::Normal { std })]
            }
            Compress::Frequent { .. } => {
                let own_rows = plan.own_rows.as_deref().unwrap_or_default();
                let last = own_rows.iter().max().map_or(0, |&last| last as usize);
                vec![part("frequent", last + 1, Some(0))]
            }
        }
    }

    /// Bytes beside the parts.
    pub(crate) fn index_bytes(&self, table: &TableConfig) -> u64 {
        match self {
            Compress::Frequent { .. } => (table.rows * size_of::<u32>()) as u64,
            _ => 0,
        }
    }
}

/// The initialiser of parts of which `terms` are added up: their sum has the mean and the variance
/// that the initialiser of the whole asks for.
fn share(initializer: Initializer, terms: f64) -> Initializer {
    let root = terms.max(1.0).sqrt();
    match initializer {
        Initializer::Zeros => Initializer::Zeros,
        Initializer::Normal { std } => Initializer::Normal { std: std / root },
        Initializer::Uniform { low, high } => {
            let (mean, half) = (
                (low + high) / 2.0 / terms.max(1.0),
                (high - low) / 2.0 / root,
            );
            Initializer::Uniform {
                low: mean - half,
                high: mean + half,
            }
        }
    }
}

/// Where the rows of a table lie, by the positions of tables in memory.
#[derive(Debug)]
pub(crate) enum Composition {
    /// In a table of their own.
    Whole(usize),
    Hash {
        table: usize,
        rows: u32,
        /// What each hash begins with.
        keys: Vec<u64>,
        oov_row: Option<u32>,
    },
    QuotientRemainder {
        quotient: usize,
        remainder: usize,
        rows: u32,
        combine: Combine,
        oov_row: Option<u32>,
    },
    Projection {
        narrow: usize,
        projection: usize,
    },
    Frequent {
        table: usize,
        /// For each row of the whole, that of the part.
        rows: Arc<[u32]>,
    },
}

/// Gradients of rows of a part, added up over the rows that are composed of them.
#[derive(Debug)]
pub(crate) struct RowSums {
    pub(crate) table: usize,
    dim: usize,
    dedup: Dedup,
    sums: Vec<f32>,
}

impl RowSums {
    fn new(table: usize, dim: usize, occurrences: usize) -> Self {
        let mut dedup = Dedup::default();
        dedup.begin(occurrences);
        Self {
            table,
            dim,
            dedup,
            sums: Vec::new(),
        }
    }

    /// The sum of a row, to be added to.
    fn row(&mut self, row: u32) -> &mut [f32] {
        let at = self.dedup.slot(row) as usize * self.dim;
        if at == self.sums.len() {
            self.sums.resize(at + self.dim, 0.0);
        }
        &mut self.sums[at..][..self.dim]
    }

    /// Each row and its gradient, in the order in which they were first met.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (u32, &[f32])> {
        let rows = self.dedup.rows().iter().copied();
        rows.zip(self.sums.chunks_exact(self.dim))
    }
}

impl Composition {
    /// Finds the parts of a plan, which was checked, among the tables in memory.
    pub(crate) fn new(plan: &TablePlan, position: impl Fn(&str) -> usize) -> Self {
        let table = &plan.config;
        let part = |part: &str| position(&format!("{}.{part}", table.name));
        let oov_row = table.oov_row;
        match plan.compress {
            None => Self::Whole(position(&table.name)),
            Some(Compress::Hash { rows, hashes }) => {
                let key = |hash: usize| fnv1a(name_key(&table.name), &[hash as u8]);
                Self::Hash {
                    table: part("hash"),
                    rows: rows as u32,
                    keys: (0..hashes).map(key).collect(),
                    oov_row,
                }
            }
            Some(Compress::QuotientRemainder { rows, combine }) => Self::QuotientRemainder {
                quotient: part("quotient"),
                remainder: part("remainder"),
                rows: rows as u32,
                combine,
                oov_row,
            },
            Some(Compress::Projection { .. }) => Self::Projection {
                narrow: part("narrow"),
                projection: part("projection"),
            },
            Some(Compress::Frequent { .. }) => Self::Frequent {
                table: part("frequent"),
                rows: plan.own_rows.clone().expect("a plan that was checked"),
            },
        }
    }

    /// Appends several rows of `dim` weights each.
    pub(crate) fn gather(
        &self,
        tables: &[Table],
        rows: &[u32],
        dim: usize,
        weights: &mut Vec<f32>,
    ) {
        let from = weights.len();
        weights.resize(from + rows.len() * dim, 0.0);
        let weights = &mut weights[from..];
        if let Self::Whole(table) = self {
            tables[*table].read_rows(rows, weights);
            return;
        }
        for (&row, weights) in rows.iter().zip(weights.chunks_exact_mut(dim)) {
            self.read(tables, row, weights);
        }
    }

    /// Composes a row.
    ///
    /// # Shapes
    /// - weights: `[dim]`
    pub(crate) fn read(&self, tables: &[Table], row: u32, weights: &mut [f32]) {
        match self {
            Self::Whole(table) => tables[*table].read_weights(row, weights),
            Self::Frequent { table, rows } => {
                tables[*table].read_weights(rows[row as usize], weights);
            }
            Self::Hash {
                table,
                rows,
                oov_row,
                ..
            }
            | Self::QuotientRemainder {
                remainder: table,
                rows,
                oov_row,
                ..
            } if *oov_row == Some(row) => tables[*table].read_weights(*rows, weights),
            Self::Hash {
                table, rows, keys, ..
            } => {
                weights.fill(0.0);
                for &key in keys {
                    add(
                        weights,
                        tables[*table].weights(hashed(key, row, *rows)),
                        1.0,
                    );
                }
            }
            Self::QuotientRemainder {
                quotient,
                remainder,
                rows,
                combine,
                ..
            } => {
                weights.copy_from_slice(tables[*remainder].weights(row % rows));
                let other = tables[*quotient].weights(row / rows);
                match combine {
                    Combine::Product => multiply(weights, other),
                    Combine::Sum => add(weights, other, 1.0),
                }
            }
            Self::Projection { narrow, projection } => {
                weights.fill(0.0);
                for (column, &e) in tables[*narrow].weights(row).iter().enumerate() {
                    add(weights, tables[*projection].weights(column as u32), e);
                }
            }
        }
    }

    /// Sums for the gradients of so many composed rows, one for each part.
    pub(crate) fn sums(&self, tables: &[Table], rows: usize) -> Vec<RowSums> {
        let sums = |table: usize, occurrences| {
            RowSums::new(table, tables[table].config().dim, occurrences)
        };
        match self {
            Self::Whole(table) | Self::Frequent { table, .. } => vec![sums(*table, rows)],
            Self::Hash { table, keys, .. } => vec![sums(*table, rows * keys.len())],
            Self::QuotientRemainder {
                quotient,
                remainder,
                ..
            } => vec![sums(*quotient, rows), sums(*remainder, rows)],
            Self::Projection { narrow, projection } => {
                let columns = tables[*projection].config().rows;
                vec![sums(*narrow, rows), sums(*projection, columns)]
            }
        }
    }

    /// Divides the gradient of a composed row among the rows that it is made of, and adds it there.
    ///
    /// # Shapes
    /// - gradient: `[dim]`
    pub(crate) fn scatter(
        &self,
        tables: &[Table],
        row: u32,
        gradient: &[f32],
        sums: &mut [RowSums],
    ) {
        match self {
            Self::Whole(_) => add(sums[0].row(row), gradient, 1.0),
            Self::Frequent { rows, .. } => {
                add(sums[0].row(rows[row as usize]), gradient, 1.0);
            }
            Self::Hash { rows, oov_row, .. } if *oov_row == Some(row) => {
                add(sums[0].row(*rows), gradient, 1.0);
            }
            Self::Hash { rows, keys, .. } => {
                for &key in keys {
                    add(sums[0].row(hashed(key, row, *rows)), gradient, 1.0);
                }
            }
            Self::QuotientRemainder { rows, oov_row, .. } if *oov_row == Some(row) => {
                add(sums[1].row(*rows), gradient, 1.0);
            }
            Self::QuotientRemainder {
                quotient,
                remainder,
                rows,
                combine,
                ..
            } => {
                let (q, r) = (row / rows, row % rows);
                match combine {
                    Combine::Product => {
                        let (q_weights, r_weights) =
                            (tables[*quotient].weights(q), tables[*remainder].weights(r));
                        add_product(sums[0].row(q), gradient, r_weights);
                        add_product(sums[1].row(r), gradient, q_weights);
                    }
                    Combine::Sum => {
                        add(sums[0].row(q), gradient, 1.0);
                        add(sums[1].row(r), gradient, 1.0);
                    }
                }
            }
            Self::Projection { narrow, projection } => {
                let [narrow_sums, projection_sums] = sums else {
                    unreachable!("two parts");
                };
                let into = narrow_sums.row(row);
                let weights = tables[*narrow].weights(row);
                for (column, (into, &e)) in into.iter_mut().zip(weights).enumerate() {
                    let column = column as u32;
                    let matrix = tables[*projection].weights(column);
                    *into += gradient.iter().zip(matrix).map(|(g, p)| g * p).sum::<f32>();
                    add(projection_sums.row(column), gradient, e);
                }
            }
        }
    }
}

/// The row of `rows` that a hash of the index chooses (the finalizer of splitmix64).
fn hashed(key: u64, index: u32, rows: u32) -> u32 {
    let mut bits = key.wrapping_add(u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // The high bits of a product instead of a remainder: without bias towards small rows.
    ((u128::from(bits) * u128::from(rows)) >> 64) as u32
}

fn add(into: &mut [f32], weights: &[f32], by: f32) {
    for (into, &weight) in into.iter_mut().zip(weights) {
        *into += by * weight;
    }
}

fn multiply(into: &mut [f32], by: &[f32]) {
    for (into, &by) in into.iter_mut().zip(by) {
        *into *= by;
    }
}

fn add_product(into: &mut [f32], gradient: &[f32], weights: &[f32]) {
    for ((into, &g), &weight) in into.iter_mut().zip(gradient).zip(weights) {
        *into += g * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EmbeddingCollection, Snapshot, write_snapshot};
    use approx::assert_relative_eq;
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use crossfield_core::{Batch, Jagged, Lookup, TableField};
    use std::collections::BTreeMap;

    const ROWS: usize = 40;
    const DIM: usize = 4;

    fn plan(compress: Compress) -> TablePlan {
        let config = TableConfig {
            name: "v4.item".into(),
            rows: ROWS,
            dim: DIM,
            fields: vec![0],
            initializer: Initializer::Normal { std: 0.3 },
            oov_row: Some(0),
        };
        let sgd = RowOptimizer {
            kind: RowOptimizerKind::Sgd,
            lr: 1.0,
            ..RowOptimizer::default()
        };
        let plan = TablePlan {
            compress: Some(compress),
            ..TablePlan::new(config, sgd)
        };
        // Row 7 was seen 7 times.
        plan.with_counts(u64::from)
    }

    fn variants() -> [Compress; 5] {
        let quotient_remainder = |combine| Compress::QuotientRemainder { rows: 7, combine };
        [
            Compress::Hash { rows: 9, hashes: 2 },
            quotient_remainder(Combine::Product),
            quotient_remainder(Combine::Sum),
            Compress::Projection { dim: 2 },
            Compress::Frequent { min_count: 30 },
        ]
    }

    /// Rows of the table, with the row of unseen values and repeated ones among them.
    const ITEMS: [u32; 8] = [3, 39, 0, 14, 3, 31, 24, 5];

    fn stage(tables: &mut EmbeddingCollection, items: &[u32]) -> (Lookup, crate::StagedRows) {
        let batch = Batch {
            batch_size: items.len(),
            sparse: vec![Jagged::one_hot(items.to_vec())],
            ..Batch::default()
        };
        tables.stage(Arc::new(batch), &Device::flex().autodiff())
    }

    fn item() -> TableField {
        TableField {
            table: "v4.item".into(),
            field: 0,
        }
    }

    /// Any smooth function of the vectors `[batch, dim]`, with another gradient for each.
    fn loss(v: Tensor<2>) -> Tensor<1> {
        let all = v.clone().sum_dim(0).square().sum();
        all + v.clone().powf_scalar(3.0).sum() + v.sum_dim(1).exp().sum()
    }

    fn step(tables: &mut EmbeddingCollection, items: &[u32]) {
        let (lookup, staged) = stage(tables, items);
        let mut gradients = loss(lookup.pooled(&[item()])).backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
    }

    fn weights(tables: &EmbeddingCollection) -> BTreeMap<String, Vec<f32>> {
        let all = tables.tables().iter().map(|table| {
            let rows = 0..table.config().rows as u32;
            let weights = rows.flat_map(|row| table.weights(row).to_vec());
            (table.config().name.clone(), weights.collect())
        });
        all.collect()
    }

    /// The rows of ITEMS, composed by tensor operations.
    fn composed(compress: &Compress, parts: &BTreeMap<String, Tensor<2>>) -> Tensor<2> {
        let part = |name: &str| parts[&format!("v4.item.{name}")].clone();
        let select = |name: &str, rows: Vec<u32>| {
            let rows: Vec<i64> = rows.into_iter().map(i64::from).collect();
            let count = rows.len();
            let device = part(name).device();
            let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
            part(name).select(0, rows)
        };
        let of = |row: &dyn Fn(u32) -> u32| ITEMS.map(row).to_vec();
        match compress {
            Compress::Hash { rows, hashes } => (0..*hashes)
                .map(|hash| {
                    let key = fnv1a(name_key("v4.item"), &[hash as u8]);
                    // The row of unseen values is taken once.
                    let oov = if hash == 0 { 1.0 } else { 0.0 };
                    let real = ITEMS.map(|item| if item == 0 { oov } else { 1.0f32 });
                    let own = |item| match item {
                        0 => *rows as u32,
                        item => hashed(key, item, *rows as u32),
                    };
                    let device = part("hash").device();
                    let real = Tensor::<1>::from_data(real, &device).reshape([ITEMS.len(), 1]);
                    select("hash", of(&own)) * real
                })
                .reduce(|a, b| a + b)
                .unwrap(),
            Compress::QuotientRemainder { rows, combine } => {
                let rows = *rows as u32;
                let own = |item| if item == 0 { rows } else { item % rows };
                let remainder = select("remainder", of(&own));
                let quotient = select("quotient", of(&|item| item / rows));
                let device = quotient.device();
                let real = ITEMS.map(|item| if item == 0 { 0.0f32 } else { 1.0 });
                let real = Tensor::<1>::from_data(real, &device).reshape([ITEMS.len(), 1]);
                match combine {
                    // Where unseen, the quotient has no part.
                    Combine::Product => {
                        remainder * (quotient * real.clone() + real.neg().add_scalar(1.0))
                    }
                    Combine::Sum => remainder + quotient * real,
                }
            }
            Compress::Projection { .. } => {
                select("narrow", of(&|item| item)).matmul(part("projection"))
            }
            // Rows 30 to 39 have rows 1 to 10.
            Compress::Frequent { .. } => select("frequent", of(&|item| item.saturating_sub(29))),
        }
    }

    #[test]
    fn rows_and_gradients_equal_those_of_the_same_composition_in_autodiff() {
        for compress in variants() {
            let mut tables = EmbeddingCollection::new(&[plan(compress.clone())], 5).unwrap();
            // Off the zero of unseen values.
            step(&mut tables, &[0, 1]);
            let device = Device::flex().autodiff();
            let before = weights(&tables);
            let tensors: BTreeMap<String, Tensor<2>> = tables
                .tables()
                .iter()
                .map(|table| {
                    let config = table.config();
                    let data = before[&config.name].clone();
                    let data = TensorData::new(data, [config.rows, config.dim]);
                    let tensor = Tensor::<2>::from_data(data, &device).require_grad();
                    (config.name.clone(), tensor)
                })
                .collect();
            let expected = composed(&compress, &tensors);
            let (lookup, _) = stage(&mut tables, &ITEMS);
            let got = lookup.pooled(&[item()]).try_into_vec_as::<f32>().unwrap();
            let rows = expected.clone().try_into_vec_as::<f32>().unwrap();
            for (got, expected) in got.iter().zip(&rows) {
                assert_relative_eq!(*got, *expected, epsilon = 1e-6);
            }
            let gradients = loss(expected).backward();
            step(&mut tables, &ITEMS);
            let after = weights(&tables);
            for (name, tensor) in &tensors {
                let gradient = tensor.grad(&gradients).unwrap();
                let gradient = gradient.try_into_vec_as::<f32>().unwrap();
                for ((before, after), gradient) in
                    before[name].iter().zip(&after[name]).zip(gradient)
                {
                    // One step of SGD at rate 1, in floats of the size of the weights.
                    assert_relative_eq!(
                        before - after,
                        gradient,
                        epsilon = 1e-6,
                        max_relative = 2e-6
                    );
                }
            }
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for compress in variants() {
            let fresh = || EmbeddingCollection::new(&[plan(compress.clone())], 6).unwrap();
            let mut stepped = fresh();
            step(&mut stepped, &ITEMS);
            let (before, after) = (weights(&fresh()), weights(&stepped));
            for table in fresh().tables() {
                let config = table.config();
                for row in 0..config.rows as u32 {
                    let at = row as usize % config.dim;
                    let value = |by: f32| {
                        let mut tables = fresh();
                        tables.table_mut(&config.name).unwrap().weights_mut(row)[at] += by;
                        let (lookup, _) = stage(&mut tables, &ITEMS);
                        f64::from(loss(lookup.pooled(&[item()])).into_scalar::<f32>())
                    };
                    let slope = (value(1e-2) - value(-1e-2)) / 2e-2;
                    let place = row as usize * config.dim + at;
                    let gradient = before[&config.name][place] - after[&config.name][place];
                    assert_relative_eq!(
                        f64::from(gradient),
                        slope,
                        epsilon = 2e-3,
                        max_relative = 2e-3
                    );
                }
            }
        }
    }

    #[test]
    fn a_shared_row_is_updated_once_by_the_sum_of_its_gradients() {
        let adagrad = RowOptimizer {
            lr: 0.1,
            l2: 0.5,
            ..RowOptimizer::default()
        };
        let one = TablePlan {
            optimizer: adagrad,
            ..plan(Compress::Hash { rows: 1, hashes: 1 })
        };
        let mut tables = EmbeddingCollection::new(&[one], 5).unwrap();
        tables
            .table_mut("v4.item.hash")
            .unwrap()
            .begin_row(0, &[2.0; DIM]);
        // Three values, all on one row, whose gradients are 1 each; half of it is of unseen ones.
        let (lookup, staged) = stage(&mut tables, &[1, 2, 3, 0, 0, 0]);
        let mut gradients = lookup.pooled(&[item()]).sum().backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        // 3 + 0.5 · (3 / 6) · 2 = 3.5; the first step of AdaGrad is its rate.
        let table = &tables.tables()[0];
        assert_relative_eq!(table.weights(0)[0], 2.0 - 0.1, epsilon = 1e-6);
        let mut state = Vec::new();
        let (_, accumulator) = table.state_tensors().remove(0);
        (accumulator.values)(&mut |block| {
            state.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
        assert_relative_eq!(state[0], 3.5 * 3.5, epsilon = 1e-5);
        // The row of unseen values is another.
        assert_relative_eq!(state[DIM], 9.0, epsilon = 1e-5);
    }

    #[test]
    fn l2_is_that_of_the_composed_row() {
        let product = Compress::QuotientRemainder {
            rows: 7,
            combine: Combine::Product,
        };
        let mut penalized = plan(product);
        penalized.optimizer.l2 = 0.5;
        let mut tables = EmbeddingCollection::new(&[penalized], 5).unwrap();
        // Value 10 is quotient 1, remainder 3.
        for (part, row, weight) in [("quotient", 1, 2.0), ("remainder", 3, 3.0)] {
            let table = tables.table_mut(&format!("v4.item.{part}")).unwrap();
            table.begin_row(row, &[weight; DIM]);
        }
        let (lookup, staged) = stage(&mut tables, &[10, 0]);
        let mut gradients = lookup.pooled(&[item()]).sum().backward();
        tables.apply(&lookup, &staged, &mut gradients, 1.0).unwrap();
        // 1 + 0.5 · ½ · 6 = 2.5, times 3 and times 2.
        let [remainder, quotient] = [1, 0].map(|at| &tables.tables()[at]);
        assert_eq!(quotient.weights(1), [2.0 - 7.5; DIM]);
        assert_eq!(remainder.weights(3), [3.0 - 5.0; DIM]);
    }

    #[test]
    fn rare_values_share_the_row_of_unseen_ones() {
        let mut tables =
            EmbeddingCollection::new(&[plan(Compress::Frequent { min_count: 38 })], 5).unwrap();
        assert_eq!(tables.tables()[0].config().rows, 3);
        step(&mut tables, &[37, 38]);
        let row = |row| {
            let mut weights = [0f32; DIM];
            tables.read_weights("v4.item", row, &mut weights);
            weights
        };
        assert_eq!(row(0), row(37));
        assert_eq!(row(0), row(1));
        assert_ne!(row(0), [0.0; DIM]);
        assert_ne!(row(38), row(39));
    }

    #[test]
    fn unseen_values_begin_at_zero_and_others_as_large_as_the_initializer_says() {
        for compress in variants() {
            let large = |initializer| {
                let mut large = plan(compress.clone());
                large.config.rows = 20_000;
                large.config.initializer = initializer;
                match &mut large.compress {
                    Some(Compress::Hash { rows, .. }) => *rows = 2000,
                    Some(Compress::QuotientRemainder { rows, .. }) => *rows = 500,
                    _ => {}
                }
                EmbeddingCollection::new(&[large.with_counts(|_| 30)], 5).unwrap()
            };
            let moments = |tables: &EmbeddingCollection| {
                let (mut mean, mut square) = (0.0, 0.0);
                for row in 1..20_000 {
                    let mut weights = [0f32; DIM];
                    tables.read_weights("v4.item", row, &mut weights);
                    for weight in weights.map(f64::from) {
                        mean += weight / (4.0 * 19_999.0);
                        square += weight * weight / (4.0 * 19_999.0);
                    }
                }
                (mean, (square - mean * mean).sqrt())
            };
            let tables = large(Initializer::Normal { std: 0.3 });
            let mut unseen = [1f32; DIM];
            tables.read_weights("v4.item", 0, &mut unseen);
            assert_eq!(unseen, [0.0; DIM], "{compress:?}");
            let (mean, deviation) = moments(&tables);
            // Three standard errors or more: 8000 weights of hashed rows, 160 of quotients, 8 of a
            // projection, 80 000 of rows of their own.
            let (of_mean, of_deviation) = match compress {
                Compress::Hash { .. } => (0.02, 0.02),
                Compress::QuotientRemainder { .. } => (0.05, 0.03),
                Compress::Projection { .. } => (0.02, 0.15),
                Compress::Frequent { .. } => (0.01, 0.01),
            };
            assert!(mean.abs() < of_mean, "{compress:?}: {mean}");
            assert!(
                (deviation - 0.3).abs() < of_deviation,
                "{compress:?}: {deviation}"
            );
            if let Compress::Hash { .. } = compress {
                let uniform = large(Initializer::Uniform {
                    low: 0.2,
                    high: 0.8,
                });
                let (mean, deviation) = moments(&uniform);
                assert!((mean - 0.5).abs() < 0.01, "{mean}");
                assert!((deviation - 0.6 / 12f64.sqrt()).abs() < 0.01, "{deviation}");
            }
        }
    }

    #[test]
    fn snapshots_bring_the_parts_back() {
        for compress in variants() {
            let mut tables = EmbeddingCollection::new(&[plan(compress.clone())], 5).unwrap();
            step(&mut tables, &ITEMS);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model");
            write_snapshot(&path, tables.weight_tensors()).unwrap();
            let read_only = plan(compress).into_read_only();
            let mut loaded = EmbeddingCollection::new(&[read_only], 0).unwrap();
            loaded
                .load_weights(&mut Snapshot::open(&path).unwrap())
                .unwrap();
            let vectors = loaded.vectors("v4.item").unwrap();
            for row in 0..ROWS as u32 {
                let [mut a, mut b] = [[0f32; DIM]; 2];
                tables.read_weights("v4.item", row, &mut a);
                loaded.read_weights("v4.item", row, &mut b);
                assert_eq!(a, b);
                assert_eq!(vectors.row(row), a);
            }
        }
    }

    #[test]
    fn hashes_of_an_index_are_independent() {
        // Of 10 000 pairs of values that share their first row, one in 50 shares the second.
        let keys = [0, 1].map(|hash| fnv1a(name_key("v8.item"), &[hash]));
        let [first, second] = keys.map(|key| {
            let rows = (0..5000u32).map(move |index| hashed(key, index, 50));
            rows.collect::<Vec<u32>>()
        });
        let (mut shared, mut both) = (0, 0);
        for a in 0..5000 {
            for b in 0..a {
                if first[a] == first[b] {
                    shared += 1;
                    both += u32::from(second[a] == second[b]);
                }
            }
        }
        let share = f64::from(both) / f64::from(shared);
        assert!((share - 0.02).abs() < 0.002, "{both} of {shared}");
        assert!(first.contains(&0) && first.contains(&49) && !first.contains(&50));
    }

    #[test]
    fn a_gradient_that_overflows_in_a_part_changes_no_row() {
        let product = Compress::QuotientRemainder {
            rows: 7,
            combine: Combine::Product,
        };
        let mut tables = EmbeddingCollection::new(&[plan(product)], 5).unwrap();
        let quotients = tables.table_mut("v4.item.quotient").unwrap();
        quotients.begin_row(1, &[1e30; DIM]);
        let before = weights(&tables);
        let (lookup, staged) = stage(&mut tables, &[3, 8]);
        let loss = lookup.pooled(&[item()]).mul_scalar(1e20).sum();
        let mut gradients = loss.backward();
        let error = tables.apply(&lookup, &staged, &mut gradients, 1.0);
        let message = error.unwrap_err().to_string();
        assert!(
            message.starts_with("the gradient of table `v4.item.remainder` is not finite (row 1)"),
            "{message}"
        );
        assert_eq!(weights(&tables), before);
    }

    #[test]
    fn parts_that_cannot_be_are_named() {
        let message = |compress| plan(compress).check().unwrap_err().to_string();
        let hash = |rows, hashes| message(Compress::Hash { rows, hashes });
        let combine = Combine::Sum;
        for (got, expected) in [
            (
                hash(0, 2),
                "rows is 0, expected 1 to 39, fewer than the table has",
            ),
            (
                hash(40, 2),
                "rows is 40, expected 1 to 39, fewer than the table has",
            ),
            (hash(9, 0), "hashes is 0, expected 1 to 16"),
            (
                hash(39, 2),
                "weights is 160, expected fewer than the 160 of the whole table",
            ),
            (
                message(Compress::QuotientRemainder { rows: 1, combine }),
                "weights is 168, expected fewer than the 160 of the whole table",
            ),
            (
                message(Compress::Projection { dim: 4 }),
                "dim is 4, expected 1 to 3, narrower than the table",
            ),
            (
                message(Compress::Frequent { min_count: 1 }),
                "min_count is 1, expected 2 or more",
            ),
        ] {
            assert_eq!(got, format!("compress of table `v4.item`: {expected}"));
        }
        let mut linear = plan(Compress::Projection { dim: 1 });
        linear.config.dim = 1;
        assert_eq!(
            linear.check().unwrap_err().to_string(),
            "compress of table `v4.item`: dim is 1, expected no projection of a table of single \
             weights: leave it out"
        );
        let uncounted = TablePlan {
            own_rows: None,
            ..plan(Compress::Frequent { min_count: 2 })
        };
        assert_eq!(
            uncounted.check().unwrap_err().to_string(),
            "table `v4.item`: compress = \"frequent\" needs a vocabulary of texts, whose values \
             are counted"
        );
        let bounded = TablePlan {
            max_norm: Some(1.0),
            ..plan(Compress::Hash { rows: 9, hashes: 2 })
        };
        assert_eq!(
            bounded.check().unwrap_err().to_string(),
            "table `v4.item`: max_norm needs rows that are not composed of others: leave out \
             compress"
        );
        let mut other = plan(Compress::Hash { rows: 9, hashes: 2 }).whole();
        other.config.name = "v4.item.hash".into();
        let both = [plan(Compress::Hash { rows: 9, hashes: 2 }), other];
        assert_eq!(
            EmbeddingCollection::new(&both, 1).unwrap_err().to_string(),
            "two tables are called `v4.item.hash`: one is a part of a compressed table, rename the \
             other"
        );
    }
}
