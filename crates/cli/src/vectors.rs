//! The vectors of a finished run, and the keys that their rows stand for.

use crossfield_core::{TableConfig, factor_table};
use crossfield_embedding::{EmbeddingCollection, Snapshot, Vectors};
use crossfield_train::{Error, State, check_memory};

use crate::run::{Anyhow, Finished};

/// The rows of one table.
pub(crate) struct KeyedVectors<'a> {
    finished: &'a Finished,
    pub(crate) vocabulary: &'a str,
    pub(crate) table: &'a TableConfig,
    pub(crate) vectors: Vectors,
}

impl<'a> KeyedVectors<'a> {
    /// Reads the table that is asked for, or the only table of factors of the vocabulary; of
    /// several, the one with `dim` numbers a row.
    pub(crate) fn read(
        finished: &'a Finished,
        vocabulary: &'a str,
        asked: Option<&str>,
        dim: Option<usize>,
    ) -> Anyhow<Self> {
        if finished.fitted.admit(vocabulary).is_some() {
            return Err(Error::Option {
                option: format!("vocabulary `{vocabulary}`"),
                reason: "is of hashes that were given rows as they came (admit), not of values: \
                         expected one whose rows have texts"
                    .into(),
            }
            .into());
        }
        let table = find_table(finished, vocabulary, asked, dim)?;
        State::read(&finished.directory, finished.fitted.fingerprint())?;
        let mut plans = finished.plans()?;
        plans.retain(|plan| plan.config.name == table.name);
        check_memory(&plans)?;
        let mut rows = EmbeddingCollection::new(&plans, 0)?;
        let mut snapshot = Snapshot::open(&finished.directory.join("model.safetensors"))?;
        rows.load_weights(&mut snapshot)?;
        Ok(Self {
            finished,
            vocabulary,
            table,
            vectors: rows.vectors(&table.name)?,
        })
    }

    /// The key that a row stands for, if it is for one key alone.
    pub(crate) fn key(&self, row: u32) -> Option<String> {
        let fitted = &self.finished.fitted;
        match fitted.key(self.vocabulary, row) {
            Some(key) => Some(key.to_owned()),
            None => fitted
                .has_own_row(self.vocabulary, row)
                .then(|| row.to_string()),
        }
    }

    /// Rows and their keys, by rising row.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (u32, String)> {
        (0..self.table.rows as u32).filter_map(|row| Some((row, self.key(row)?)))
    }

    /// The row of a key.
    pub(crate) fn row(&self, key: &str) -> Result<u32, Error> {
        let (fitted, vocabulary) = (&self.finished.fitted, self.vocabulary);
        let as_index = || {
            key.parse()
                .ok()
                .filter(|&row| fitted.has_own_row(vocabulary, row))
        };
        fitted
            .row(vocabulary, key)
            .or_else(as_index)
            .ok_or_else(|| {
                let mut keys = self.keys();
                let expected = match keys.next() {
                    Some((_, first)) => {
                        format!(
                            "expected one of its {} keys, such as `{first}`",
                            keys.count() + 1
                        )
                    }
                    None => {
                        "its rows are not of single keys: it is hashed, or of numbers".to_owned()
                    }
                };
                Error::Option {
                    option: format!("--key {key}"),
                    reason: format!("is not in the vocabulary `{vocabulary}`; {expected}"),
                }
            })
    }
}

fn find_table<'a>(
    finished: &'a Finished,
    vocabulary: &str,
    asked: Option<&str>,
    dim: Option<usize>,
) -> Result<&'a TableConfig, Error> {
    let fields = &finished.fitted.schema().fields;
    let refuse = |option: String, reason: String| Err(Error::Option { option, reason });
    if !fields.iter().any(|field| field.vocabulary == vocabulary) {
        let mut known: Vec<&str> = fields
            .iter()
            .map(|field| field.vocabulary.as_str())
            .collect();
        known.sort_unstable();
        known.dedup();
        let reason = format!("the run has {}", known.join(", "));
        return refuse(format!("vocabulary `{vocabulary}`"), reason);
    }
    let is_of = |table: &&TableConfig| {
        let mut of_table = table.fields.iter().map(|&field| &fields[field].vocabulary);
        of_table.any(|of_table| of_table == vocabulary)
    };
    let tables: Vec<&TableConfig> = finished.tables.iter().filter(is_of).collect();
    let names = |tables: &[&TableConfig]| {
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    if let Some(asked) = asked {
        return match tables.iter().find(|table| table.name == asked) {
            Some(&table) => Ok(table),
            None => refuse(
                format!("--table {asked}"),
                format!("the tables of `{vocabulary}` are: {}", names(&tables)),
            ),
        };
    }
    let is_wanted = |table: &&TableConfig| {
        table.name == factor_table(table.dim, vocabulary) && dim.is_none_or(|dim| dim == table.dim)
    };
    let factors: Vec<&TableConfig> = tables.iter().copied().filter(is_wanted).collect();
    match (&factors[..], dim) {
        (&[table], _) => Ok(table),
        ([], Some(dim)) => refuse(
            format!("vocabulary `{vocabulary}`"),
            format!(
                "has no table of factors of {dim} numbers a row to compare with; its tables are: {}",
                names(&tables)
            ),
        ),
        ([], None) => refuse(
            "--table".to_owned(),
            format!(
                "the run has no table of factors of `{vocabulary}`; name one of: {}",
                names(&tables)
            ),
        ),
        (several, _) => refuse(
            "--table".to_owned(),
            format!(
                "the run has several tables of factors of `{vocabulary}`; name one of: {}",
                names(several)
            ),
        ),
    }
}
