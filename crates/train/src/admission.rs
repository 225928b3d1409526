//! Rows for the keys of a run, given as they come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crossfield_core::rng::name_key;
use crossfield_data::{AdmitConfig, Dataset, FittedSchema, Prepared, TrainingRows, file_name};
use crossfield_embedding::{Admission, AdmissionConfig, EmbeddingCollection, TablePlan};

use crate::{Error, Parts, State, bytes};

/// The keys of each vocabulary of a run whose values are given rows as they come (`admit` of a
/// field).
///
/// Most runs have no such vocabulary; rows then stay what they are.
///
/// ```
/// use crossfield_train::Admissions;
///
/// assert!(Admissions::default().is_empty());
/// ```
#[derive(Debug, Default)]
pub struct Admissions {
    by_vocabulary: BTreeMap<String, Admission>,
}

impl Admissions {
    /// Without keys.
    ///
    /// # Errors
    /// [`Error::Tables`] if the system does not give the memory for their counts.
    pub fn new(admitted: &BTreeMap<String, AdmitConfig>) -> Result<Self, Error> {
        Self::each(admitted, |_, config| Admission::new(config))
    }

    fn each(
        admitted: &BTreeMap<String, AdmitConfig>,
        make: impl Fn(&str, AdmissionConfig) -> Result<Admission, crossfield_embedding::Error>,
    ) -> Result<Self, Error> {
        let of =
            |(name, admit): (&String, &AdmitConfig)| Ok((name.clone(), make(name, config(admit))?));
        let by_vocabulary = admitted.iter().map(of);
        Ok(Self {
            by_vocabulary: by_vocabulary.collect::<Result<_, Error>>()?,
        })
    }

    /// The keys of a finished run.
    ///
    /// # Errors
    /// As [`State::read`]; [`Error::Tables`] for a file of keys that is missing, damaged or another
    /// run's.
    pub fn open(run: &Path, fitted: &FittedSchema) -> Result<Self, Error> {
        let admitted = fitted.admitted();
        if admitted.is_empty() {
            return Ok(Self::default());
        }
        let state = State::read(run, fitted.fingerprint())?;
        Self::load(run, &admitted, &state)
    }

    /// The keys of a checkpoint or of a finished run, whose state is `state`.
    pub(crate) fn load(
        folder: &Path,
        admitted: &BTreeMap<String, AdmitConfig>,
        state: &State,
    ) -> Result<Self, Error> {
        Self::each(admitted, |name, config| {
            Admission::load(&folder.join(file(name)), tag(state, name), config)
        })
    }

    /// Writes the keys into the folder of a checkpoint.
    pub(crate) fn save(&self, folder: &Path, state: &State) -> Result<(), Error> {
        for (name, admission) in &self.by_vocabulary {
            admission.save(&folder.join(file(name)), tag(state, name))?;
        }
        Ok(())
    }

    /// The files that [`save`](Self::save) writes.
    pub(crate) fn files(&self) -> impl Iterator<Item = String> {
        self.by_vocabulary.keys().map(|name| file(name))
    }

    /// Whether no vocabulary is given rows as they come.
    pub fn is_empty(&self) -> bool {
        self.by_vocabulary.is_empty()
    }

    /// Vocabulary, keys that have a row, and bytes that their places and the counts of others take.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&str, usize, u64)> {
        let each = self.by_vocabulary.iter();
        each.map(|(name, admission)| (name.as_str(), admission.keys(), admission.bytes()))
    }

    /// The same rows, with the rows of tables that their keys have in place of the keys.
    ///
    /// # Panics
    /// If the rows are of another schema.
    pub fn look_up(&self, data: Arc<Dataset>) -> Arc<Dataset> {
        if self.is_empty() {
            return data;
        }
        let of = |(name, keys)| (name, self.by_vocabulary[name].look_up(keys));
        Arc::new(data.with_rows(&data.keys().map(of).collect()))
    }

    /// As [`look_up`](Self::look_up), of each part.
    pub fn look_up_parts(&self, parts: &Parts) -> Parts {
        let all = |rows: &Option<Arc<Dataset>>| rows.clone().map(|rows| self.look_up(rows));
        Parts {
            train: match &parts.train {
                TrainingRows::Held(rows) => TrainingRows::Held(self.look_up(rows.clone())),
                streamed @ TrainingRows::Streamed(_) => streamed.clone(),
            },
            valid: all(&parts.valid),
            test: all(&parts.test),
            ..parts.clone()
        }
    }

    /// As [`look_up`](Self::look_up), of each part of data that was prepared again.
    pub fn look_up_prepared(&self, prepared: Prepared) -> Prepared {
        if self.is_empty() {
            return prepared;
        }
        let all = |rows: Dataset| Arc::unwrap_or_clone(self.look_up(Arc::new(rows)));
        Prepared {
            train: all(prepared.train),
            valid: prepared.valid.map(all),
            test: prepared.test.map(all),
            ..prepared
        }
    }

    /// Goes on by a block of training rows: its keys are counted unless they were in an epoch before,
    /// some are given rows, and those are begun in each table of their vocabulary. Then as
    /// [`look_up`](Self::look_up).
    pub(crate) fn admit(
        &mut self,
        data: Arc<Dataset>,
        first_epoch: bool,
        seed: u64,
        tables: Option<&mut EmbeddingCollection>,
    ) -> Arc<Dataset> {
        let Some(tables) = tables.filter(|_| !self.by_vocabulary.is_empty()) else {
            return data;
        };
        let mut rows = BTreeMap::new();
        for (name, keys) in data.keys() {
            let counts = if first_epoch {
                data.key_counts(name)
            } else {
                vec![0; keys.len()]
            };
            let admission = self.by_vocabulary.get_mut(name);
            let admission = admission.expect("the rows are of the run's schema");
            let admitted = admission.admit(keys, &counts, data.len() as u64);
            for table in tables.tables_mut() {
                let field = table.config().fields.first();
                let fields = &data.schema().fields;
                if field.is_some_and(|&field| fields[field].vocabulary == name) {
                    table.begin_keys(seed, &admitted.begun);
                }
            }
            rows.insert(name, admitted.rows);
        }
        Arc::new(data.with_rows(&rows))
    }
}

fn config(admit: &AdmitConfig) -> AdmissionConfig {
    AdmissionConfig {
        min_count: admit.min_count,
        max_rows: admit.max_rows,
        evict_after: admit.evict_after,
        sketch: admit.sketch_bytes().unwrap_or_default(),
    }
}

fn file(vocabulary: &str) -> String {
    format!("keys.{}", file_name(vocabulary))
}

/// Stands for the run and the step that keys belong to.
fn tag(state: &State, vocabulary: &str) -> u64 {
    let State {
        schema, seed, step, ..
    } = state;
    name_key(&format!("{schema} {seed} {step} {vocabulary}"))
}

/// Refuses tables that rows cannot be begun in.
pub(crate) fn check(
    admitted: &BTreeMap<String, AdmitConfig>,
    plans: &[TablePlan],
    tables: Option<&mut EmbeddingCollection>,
) -> Result<(), Error> {
    let Some(name) = admitted.keys().next() else {
        return Ok(());
    };
    let reason = if tables.is_none() {
        "gives rows as training goes on: expected the executor burn or fused, which work on tables"
    } else if plans.iter().all(|plan| plan.growing.is_none()) {
        "gives rows of tables that grow: expected plans made by `OptimizerConfig::plan_for`"
    } else {
        return Ok(());
    };
    Err(Error::Option {
        option: format!("admit of vocabulary `{name}`"),
        reason: reason.into(),
    })
}

/// What the keys will take, a line a vocabulary; nothing where there are none.
///
/// ```
/// use crossfield_data::FittedSchema;
///
/// let fitted = FittedSchema::libffm(100, 3)?;
/// assert_eq!(crossfield_train::describe_admitted(&fitted), "");
/// # Ok::<(), crossfield_data::Error>(())
/// ```
pub fn describe_admitted(fitted: &FittedSchema) -> String {
    /// Of a slot in which a key may lie; two thirds of them are taken at least.
    const MOST_A_KEY: u64 = 32;
    let line = |(name, admit): (String, AdmitConfig)| {
        let counts = bytes(admit.sketch_bytes().unwrap_or_default());
        let keys = match admit.max_rows {
            Some(rows) => format!(
                "{rows} rows at most; their keys {}",
                bytes(u64::from(rows) * MOST_A_KEY)
            ),
            None => format!("rows without a bound; a key {MOST_A_KEY} B"),
        };
        format!("  keys of {name}: {keys}; counts of others {counts}\n")
    };
    fitted.admitted().into_iter().map(line).collect()
}
