//! Encoded rows.

use std::sync::Arc;

use crossfield_core::{Batch, Jagged, Schema, Targets};

/// Encoded rows, field by field, from which batches are taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub(crate) schema: Arc<Schema>,
    pub(crate) rows: usize,
    pub(crate) sparse: Vec<Jagged>,
    /// Row-major `[rows, schema.dense.len()]`; empty without dense columns.
    pub(crate) dense: Vec<f32>,
    pub(crate) targets: Targets,
    pub(crate) probabilities: Option<Vec<f32>>,
}

impl Dataset {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The fields and dense columns of the rows.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The indices of all rows, by field in the order of [`Schema::fields`].
    pub fn sparse(&self) -> &[Jagged] {
        &self.sparse
    }

    /// The labels, sample weights and groups of all rows.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The true probability of each row of a generated log.
    pub fn probabilities(&self) -> Option<&[f32]> {
        self.probabilities.as_deref()
    }

    /// The rows at the given positions, in that order.
    ///
    /// # Panics
    /// If a position is not below [`len`](Self::len).
    pub fn batch(&self, rows: &[u32]) -> Batch {
        let columns = self.schema.dense.len();
        let dense = (columns > 0).then(|| {
            let mut dense = Vec::with_capacity(rows.len() * columns);
            for &row in rows {
                dense.extend_from_slice(&self.dense[row as usize * columns..][..columns]);
            }
            dense
        });
        Batch {
            batch_size: rows.len(),
            sparse: self.sparse.iter().map(|lists| lists.select(rows)).collect(),
            dense,
            targets: Targets {
                labels: if self.targets.labels.is_empty() {
                    Vec::new()
                } else {
                    pick(&self.targets.labels, rows)
                },
                weights: self
                    .targets
                    .weights
                    .as_ref()
                    .map(|weights| pick(weights, rows)),
                groups: self
                    .targets
                    .groups
                    .as_ref()
                    .map(|groups| pick(groups, rows)),
                log_q: self.targets.log_q.as_ref().map(|log_q| pick(log_q, rows)),
            },
        }
    }

    /// Mean of the labels, each with its weight; `None` without labels or weight.
    pub fn label_mean(&self) -> Option<f64> {
        let mut sum = 0.0;
        let mut total = 0.0;
        for (row, &label) in self.targets.labels.iter().enumerate() {
            let weight = self
                .targets
                .weights
                .as_ref()
                .map_or(1.0, |all| f64::from(all[row]));
            sum += weight * f64::from(label);
            total += weight;
        }
        (total > 0.0).then(|| sum / total)
    }

    /// Rows that have nothing but their number as their label.
    #[cfg(test)]
    pub(crate) fn numbered(rows: u32) -> Self {
        let labels = (0..rows).map(|row| row as f32).collect();
        Self {
            schema: Arc::new(Schema::default()),
            rows: rows as usize,
            sparse: Vec::new(),
            dense: Vec::new(),
            targets: Targets {
                labels,
                ..Targets::default()
            },
            probabilities: None,
        }
    }
}

fn pick<T: Copy>(values: &[T], rows: &[u32]) -> Vec<T> {
    rows.iter().map(|&row| values[row as usize]).collect()
}
