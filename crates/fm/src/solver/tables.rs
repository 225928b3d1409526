//! The parameters of a solver as the bias and the tables of the model that it fits.

use std::ops::Range;

use crossfield_core::{ComponentConfig, Error, Schema};

use super::{Columns, FmParameters, SolverError};
use crate::FmConfig;

/// Name of the bias.
const BIAS: &str = "bias";

/// The columns of a model's fields, and where each of its tables lies in the parameters.
///
/// ```text
/// tensor   shape              values
/// bias     [1]                w0
/// v8.item  [rows of item, 8]  v, from the first column of item on
/// fm.item  [rows of item, 1]  w, likewise
/// ```
///
/// ```
/// use crossfield_core::{Field, FieldKind, Schema};
/// use crossfield_fm::FmConfig;
/// use crossfield_fm::solver::{FmParameters, FmTables};
///
/// let field = |name: &str, rows| Field {
///     name: name.into(),
///     kind: FieldKind::Categorical,
///     vocabulary: name.into(),
///     rows,
///     oov_row: None,
/// };
/// let schema = Schema { fields: vec![field("user", 2), field("item", 1)], dense: vec![] };
/// let tables = FmTables::of(&FmConfig { embedding_dim: 1, ..FmConfig::default() }, &schema)?;
/// // Sorted by name, as tables are.
/// let names: Vec<&str> = tables.tensors().iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(names, ["bias", "v1.item", "v1.user", "fm.item", "fm.user"]);
///
/// let parameters = FmParameters {
///     embedding_dim: 1,
///     w0: 0.5,
///     w: vec![1.0, 2.0, 3.0],
///     v: vec![4.0, 5.0, 6.0],
/// };
/// let values = tables.values(&parameters);
/// assert_eq!(values, [0.5, 6.0, 4.0, 5.0, 3.0, 1.0, 2.0]);
/// assert_eq!(tables.parameters(&values)?, parameters);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct FmTables {
    columns: Columns,
    embedding_dim: usize,
    linear: bool,
    tensors: Vec<(String, Vec<usize>)>,
    /// The columns of each table, those of the vectors first.
    ranges: Vec<Range<usize>>,
}

impl FmTables {
    /// The tables that `config` reads under `schema`, a group of columns for each vocabulary.
    ///
    /// # Errors
    /// What [`FmConfig`] says of its options and fields; [`Error::OutOfRange`] for more features
    /// than a `u32` counts.
    pub fn of(config: &FmConfig, schema: &Schema) -> Result<Self, Error> {
        let tables = config.tables(schema)?;
        let ids = schema.bags(&config.name, &config.fields)?;
        let columns = Columns::of(schema, &ids).map_err(|error| Error::OutOfRange {
            component: config.name.clone(),
            option: "fields",
            value: error.to_string(),
            expected: "at most 4294967295 features in all".into(),
        })?;
        let range = |field| {
            let mut fields = columns.fields().iter();
            let one = fields.find(|one| one.field == field);
            let one = one.expect("tables are of the fields that have columns");
            one.base as usize..one.base as usize + one.rows as usize
        };
        let ranges = tables.iter().map(|table| range(table.fields[0])).collect();
        let mut tensors = vec![(BIAS.to_owned(), vec![1])];
        tensors.extend(
            tables
                .into_iter()
                .map(|table| (table.name, vec![table.rows, table.dim])),
        );
        Ok(Self {
            columns,
            embedding_dim: config.embedding_dim,
            linear: config.linear,
            tensors,
            ranges,
        })
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Name and shape of the bias and of each table, in the order of [`values`](Self::values).
    pub fn tensors(&self) -> &[(String, Vec<usize>)] {
        &self.tensors
    }

    /// How many tables hold vectors; linear weights follow.
    fn vectors(&self) -> usize {
        self.ranges.len() / if self.linear { 2 } else { 1 }
    }

    /// The values of all tensors, one after the other.
    ///
    /// # Panics
    /// If the parameters are of other columns.
    pub fn values(&self, parameters: &FmParameters) -> Vec<f32> {
        let mut values = vec![parameters.w0];
        let (vectors, linear) = self.ranges.split_at(self.vectors());
        let k = self.embedding_dim;
        for range in vectors {
            values.extend_from_slice(&parameters.v[range.start * k..range.end * k]);
        }
        for range in linear {
            values.extend_from_slice(&parameters.w[range.clone()]);
        }
        values
    }

    /// The parameters that have these [`values`](Self::values).
    ///
    /// # Errors
    /// [`SolverError::Parameters`] for more or fewer than the tensors hold.
    pub fn parameters(&self, values: &[f32]) -> Result<FmParameters, SolverError> {
        let (k, columns) = (self.embedding_dim, self.columns.len());
        let linear_columns = if self.linear { columns } else { 0 };
        let expected = 1 + columns * k + linear_columns;
        if values.len() != expected {
            return Err(SolverError::Parameters {
                what: "values",
                expected,
                got: values.len(),
            });
        }
        let mut parameters = FmParameters {
            embedding_dim: k,
            w0: values[0],
            w: vec![0.0; linear_columns],
            v: vec![0.0; columns * k],
        };
        let mut rest = &values[1..];
        let mut take = |into: &mut [f32]| {
            let (some, others) = rest.split_at(into.len());
            into.copy_from_slice(some);
            rest = others;
        };
        let (vectors, linear) = self.ranges.split_at(self.vectors());
        for range in vectors {
            take(&mut parameters.v[range.start * k..range.end * k]);
        }
        for range in linear {
            take(&mut parameters.w[range.clone()]);
        }
        Ok(parameters)
    }
}
