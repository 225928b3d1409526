//! Rows whose true click probabilities are known.

use crossfield::core::metrics::sigmoid;
use crossfield::core::rng::{Purpose, rng};
use crossfield::data::{
    DataSpec, FieldConfig, FittedSchema, Generated, LabelKind, SplitConfig, prepare_generated,
};
use crossfield::train::Parts;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

use crate::runs::Failure;

/// Columns that every log has beside its fields.
const LABEL: &str = "click";
const NUMBER: &str = "row";

/// Rows with one value in each field, the clicks drawn from their true probabilities.
pub(crate) struct Log {
    header: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    cells: Vec<String>,
    click: bool,
    probability: f32,
}

impl Log {
    /// An empty log with these columns.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        Self {
            header: [columns, &[NUMBER, LABEL]].concat(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; its click is drawn from the true log odds.
    pub(crate) fn push(&mut self, cells: Vec<String>, log_odds: f64, stream: &mut impl Rng) {
        let probability = sigmoid(log_odds);
        self.rows.push(Row {
            cells,
            click: stream.random::<f64>() < probability,
            probability: probability as f32,
        });
    }

    /// The last `test` rows to test on, the `valid` rows before them to validate on, the others to
    /// train on; and what was learned from those.
    pub(crate) fn prepare(
        &self,
        seed: u64,
        valid: usize,
        test: usize,
    ) -> Result<(FittedSchema, Parts), Failure> {
        self.prepare_as(seed, valid, test, |_| ())
    }

    /// As [`prepare`](Self::prepare), with another description of the columns than one field for
    /// each.
    pub(crate) fn prepare_as(
        &self,
        seed: u64,
        valid: usize,
        test: usize,
        describe: impl FnOnce(&mut DataSpec),
    ) -> Result<(FittedSchema, Parts), Failure> {
        let share = |rows| rows as f64 / self.rows.len() as f64;
        let mut spec = DataSpec::default();
        spec.data.split = Some(SplitConfig::Time {
            column: NUMBER.into(),
            valid: share(valid),
            test: share(test),
        });
        spec.label.column = LABEL.into();
        let columns = &self.header[..self.header.len() - 2];
        spec.field = columns
            .iter()
            .map(|&name| FieldConfig {
                name: name.into(),
                ..FieldConfig::default()
            })
            .collect();
        describe(&mut spec);
        let prepared = prepare_generated(&spec, seed, LabelKind::Binary, self)?;
        Ok((prepared.schema.clone(), prepared.into()))
    }
}

impl Generated for Log {
    fn name(&self) -> &str {
        "planted rows"
    }

    fn header(&self) -> &[&str] {
        &self.header
    }

    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn record(&self, row: usize, cells: &mut Vec<String>) {
        cells.clone_from(&self.rows[row].cells);
        cells.push(row.to_string());
        cells.push(u8::from(self.rows[row].click).to_string());
    }

    fn probability(&self, row: usize) -> f32 {
        self.rows[row].probability
    }
}

/// A stream of random numbers for one part of a generator.
pub(crate) fn stream(seed: u64, part: u64) -> impl Rng {
    rng(seed, Purpose::Synth, part, 0)
}

/// `count` vectors of `dim` entries, normal around 0 with the standard deviation `std`.
pub(crate) fn vectors(count: usize, dim: usize, std: f64, stream: &mut impl Rng) -> Vec<Vec<f64>> {
    let mut entry = || std * stream.sample::<f64, _>(StandardNormal);
    let mut vector = || (0..dim).map(|_| entry()).collect();
    (0..count).map(|_| vector()).collect()
}

/// The inner product.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
