//! Tables that begin with the factors of a finished run, row by row by key.

use std::collections::BTreeMap;
use std::path::Path;

use crossfield_core::{TableConfig, factor_table};
use crossfield_data::FittedSchema;
use crossfield_embedding::{EmbeddingCollection, Moments, Principal, Snapshot, TablePlan};
use crossfield_train::{Error, OptimizerConfig, State, check_memory};

use crate::run::{Finished, vocabulary};

/// What is to be filled, checked.
#[derive(Debug)]
pub(crate) struct WarmStart {
    sources: Vec<Source>,
}

/// A finished run and the tables that begin with its factors.
struct Source {
    /// As the run file names it.
    from: String,
    finished: Finished,
    fills: Vec<Fill>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Source").field(&self.from).finish()
    }
}

/// A table and where its rows come from.
struct Fill {
    table: TableConfig,
    source: TableConfig,
    /// The rows of each key that both know, here and there.
    rows: Vec<(u32, u32)>,
    /// Keys of the table.
    keys: usize,
}

impl Fill {
    /// Source and target dim, if vectors have to be made shorter.
    fn shortened(&self) -> Option<(usize, usize)> {
        (self.table.dim < self.source.dim).then_some((self.source.dim, self.table.dim))
    }
}

impl WarmStart {
    /// Finds the tables that each `init_from` names, and the keys that both runs know.
    ///
    /// # Errors
    /// [`Error::Option`] with table and run for whatever does not fit.
    pub(crate) fn open(
        optimizer: &OptimizerConfig,
        plans: &[TablePlan],
        fitted: &FittedSchema,
    ) -> Result<Self, Error> {
        let mut sources: Vec<Source> = Vec::new();
        for plan in plans {
            let table = &plan.config;
            let Some(options) = optimizer.options(&table.name) else {
                continue;
            };
            let Some(from) = &options.init_from else {
                if let Some(name) = &options.init_table {
                    let reason = format!("is `{name}`: expected init_from beside it, a run");
                    return Err(refuse("init_table", table, reason));
                }
                continue;
            };
            if let Some(compress) = &plan.compress {
                let reason = format!(
                    "is `{from}`: expected a row for each key, which compress = \"{}\" does not \
                     have; leave one of the two out",
                    compress.name()
                );
                return Err(refuse("init_from", table, reason));
            }
            if plan.growing.is_some() {
                let reason = format!(
                    "is `{from}`: expected values that have their rows before training, which admit \
                     does not give; leave one of the two out"
                );
                return Err(refuse("init_from", table, reason));
            }
            let known = sources.iter().position(|source| source.from == *from);
            let at = match known {
                Some(at) => at,
                None => {
                    let finished =
                        open_run(from).map_err(|reason| refuse("init_from", table, reason))?;
                    sources.push(Source {
                        from: from.clone(),
                        finished,
                        fills: Vec::new(),
                    });
                    sources.len() - 1
                }
            };
            let source = &mut sources[at];
            let fill = find(table, options.init_table.as_deref(), source, fitted)?;
            source.fills.push(fill);
        }
        Ok(Self { sources })
    }

    /// Fills the tables, and says how many rows of each.
    ///
    /// # Errors
    /// Whatever is wrong with the other run's model.
    pub(crate) fn fill(&self, tables: &mut EmbeddingCollection) -> Result<(), Error> {
        self.sources
            .iter()
            .try_for_each(|source| source.fill(tables))
    }
}

impl Source {
    fn fill(&self, tables: &mut EmbeddingCollection) -> Result<(), Error> {
        let mut plans = self.finished.plans()?;
        plans.retain(|plan| {
            self.fills
                .iter()
                .any(|fill| fill.source.name == plan.config.name)
        });
        check_memory(&plans)?;
        let mut source = EmbeddingCollection::new(&plans, 0)?;
        let model = self.finished.directory.join("model.safetensors");
        source.load_weights(&mut Snapshot::open(&model)?)?;

        // Tables that are shortened alike are rotated alike, so that products of users and items
        // survive.
        let mut moments: BTreeMap<(usize, usize), BTreeMap<&str, Moments>> = BTreeMap::new();
        for fill in &self.fills {
            if let Some(dims) = fill.shortened() {
                let of_dims = moments.entry(dims).or_default();
                let of_table = of_dims.entry(&fill.source.name);
                of_table.or_insert_with(|| second_moments(&fill.source, &source));
            }
        }
        let principal: BTreeMap<(usize, usize), Principal> = moments
            .iter()
            .map(|(&dims, of_tables)| {
                let all: Vec<&Moments> = of_tables.values().collect();
                (dims, Principal::of(&all, dims.1))
            })
            .collect();
        for fill in &self.fills {
            let dims = fill.shortened();
            let rotation = dims.map(|dims| {
                (
                    &moments[&dims][fill.source.name.as_str()],
                    &principal[&dims],
                )
            });
            let table = tables.table_mut(&fill.table.name);
            let table = table.expect("each table was planned");
            let mut from = vec![0f32; fill.source.dim];
            let mut row = vec![0f32; fill.table.dim];
            for &(here, there) in &fill.rows {
                source.read_weights(&fill.source.name, there, &mut from);
                match rotation {
                    Some((_, principal)) => principal.rotate(&from, &mut row),
                    None => {
                        // What is left of a longer row stays as the initialiser made it.
                        table.read_weights(here, &mut row);
                        row[..from.len()].copy_from_slice(&from);
                    }
                }
                table.begin_row(here, &row);
            }
            let (there, here) = (fill.source.dim, fill.table.dim);
            let how = match rotation {
                Some((moments, principal)) => format!(
                    ", PCA {there} → {here} keeps {:.0} % of the squared length",
                    100.0 * moments.kept(principal)
                ),
                None if there < here => format!(", {there} of {here} weights"),
                None => String::new(),
            };
            eprintln!(
                "{}: {} of {} rows from {} ({}{how})",
                fill.table.name,
                fill.rows.len(),
                fill.keys,
                self.from,
                fill.source.name,
            );
        }
        Ok(())
    }
}

fn second_moments(table: &TableConfig, source: &EmbeddingCollection) -> Moments {
    let mut moments = Moments::new(table.dim);
    let mut vector = vec![0f32; table.dim];
    for row in 0..table.rows as u32 {
        if table.oov_row != Some(row) {
            source.read_weights(&table.name, row, &mut vector);
            moments.add(&vector);
        }
    }
    moments
}

fn refuse(option: &str, table: &TableConfig, reason: String) -> Error {
    Error::Option {
        option: format!("{option} of table `{}`", table.name),
        reason,
    }
}

/// A finished run that holds one model.
fn open_run(from: &str) -> Result<Finished, String> {
    let finished = Finished::open(Path::new(from), &[]).map_err(|error| error.to_string())?;
    match State::read(&finished.directory, finished.fitted.fingerprint()) {
        Ok(_) => Ok(finished),
        Err(Error::Draws { draws, .. }) => Err(format!(
            "{from} holds {draws} draws of the executor mcmc: expected one model, such as als or \
             fused fit"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// The table of the other run that a table begins with.
fn find(
    table: &TableConfig,
    named: Option<&str>,
    source: &Source,
    fitted: &FittedSchema,
) -> Result<Fill, Error> {
    let (from, other) = (&source.from, &source.finished.fitted);
    let of = vocabulary(table, fitted);
    let names = |tables: &[&TableConfig]| {
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        names.join(", ")
    };
    let all: Vec<&TableConfig> = source.finished.tables.iter().collect();
    let found = match named {
        Some(name) => {
            let found = all.iter().copied().find(|table| table.name == name);
            let found = found.ok_or_else(|| {
                let reason = format!("{from} has no `{name}`: expected one of {}", names(&all));
                refuse("init_table", table, reason)
            })?;
            let its = vocabulary(found, other);
            if its != of {
                let reason =
                    format!("`{name}` of {from} is of the vocabulary `{its}`: expected `{of}`");
                return Err(refuse("init_table", table, reason));
            }
            found
        }
        None => {
            if !is_factors(table, fitted) {
                let reason = format!(
                    "is `{from}`: expected init_table beside it, for this is no table of factors \
                     shared under the name v<dim>.{of}"
                );
                return Err(refuse("init_from", table, reason));
            }
            let factors: Vec<&TableConfig> =
                all.into_iter().filter(|t| is_factors(t, other)).collect();
            let same = factors.iter().copied();
            let same: Vec<&TableConfig> = same.filter(|t| vocabulary(t, other) == of).collect();
            match same.as_slice() {
                [one] => *one,
                [] => {
                    let reason = match names(&factors) {
                        none if none.is_empty() => format!("{from} has no table of factors"),
                        names => format!(
                            "{from} has no factors of the vocabulary `{of}`; it has {names}"
                        ),
                    };
                    return Err(refuse("init_from", table, reason));
                }
                several => {
                    let reason = format!(
                        "{from} has {} tables of factors of the vocabulary `{of}`: expected \
                         init_table, one of {}",
                        several.len(),
                        names(several)
                    );
                    return Err(refuse("init_from", table, reason));
                }
            }
        }
    };
    let (rows, keys) = shared_rows(table, found, of, fitted, other);
    if rows.is_empty() {
        let reason = format!(
            "{from} knows none of the {keys} values of the vocabulary `{of}` (values of hashed \
             fields have no names to be known by)"
        );
        return Err(refuse("init_from", table, reason));
    }
    Ok(Fill {
        table: table.clone(),
        source: found.clone(),
        rows,
        keys,
    })
}

/// Whether this is a table of factors that components share: `v8.item`.
fn is_factors(table: &TableConfig, fitted: &FittedSchema) -> bool {
    table.name == factor_table(table.dim, vocabulary(table, fitted))
}

/// The rows of the values that both schemas know, here and there, and how many there are here.
fn shared_rows(
    table: &TableConfig,
    source: &TableConfig,
    vocabulary: &str,
    fitted: &FittedSchema,
    other: &FittedSchema,
) -> (Vec<(u32, u32)>, usize) {
    let (mut rows, mut keys) = (Vec::new(), 0);
    for here in 0..table.rows as u32 {
        let there = if let Some(key) = fitted.key(vocabulary, here) {
            other.row(vocabulary, key)
        } else if fitted.has_own_row(vocabulary, here) {
            // Values of libsvm and libffm files are the rows themselves.
            Some(here).filter(|&row| other.has_own_row(vocabulary, row))
        } else {
            continue;
        };
        keys += 1;
        rows.extend(
            there
                .filter(|&row| (row as usize) < source.rows)
                .map(|there| (here, there)),
        );
    }
    (rows, keys)
}
