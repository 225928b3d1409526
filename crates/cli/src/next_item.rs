//! Runs that find the next item of a sequence: `sasrec` with the losses `sampled_softmax` and `bpr`.

use std::collections::HashMap;
use std::sync::Arc;

use crossfield_attention::{NextItem, NextItemConfig, NextItemLoss};
use crossfield_core::metrics::Report;
use crossfield_core::{Init, RankedItems, Schema};
use crossfield_data::Dataset;
use crossfield_embedding::{Candidates, evaluate_candidates};
use crossfield_train::{Error, Executor, Negatives, Objective, PLACES, Trained, item_counts};

use crate::run::{Anyhow, Finished, Run};

/// Refuses a run of a loss that orders items, but for those of self-attention alone.
pub(crate) fn check(run: &Run) -> Result<(), Error> {
    let name = run.train.loss.name();
    let refuse = |option: &str, reason: String| {
        let option = option.to_owned();
        Err(Error::Option { option, reason })
    };
    if run.model.only_sasrec().is_none() {
        let kinds = run.model.kinds().join(" + ");
        let reason = format!(
            "{name} fits a self-attentive encoder alone (model.kind = \"sasrec\"); the model is {kinds}"
        );
        return refuse("train.loss", reason);
    }
    if !run.train.loss.draws() {
        let reason = format!(
            "is {name}: a self-attentive encoder learns the next item by \"sampled_softmax\" or \
             \"bpr\", and clicks by \"logistic\""
        );
        return refuse("train.loss", reason);
    }
    if run.train.executor != Executor::Burn {
        let executor = run.train.executor.name();
        let reason =
            format!("is {executor}: {name} of kind = \"sasrec\" needs executor = \"burn\"");
        return refuse("train.executor", reason);
    }
    if run.model.bias {
        let reason = format!(
            "is true: {name} compares items, which a bias adds nothing to; set model.bias = false"
        );
        return refuse("model.bias", reason);
    }
    Ok(())
}

/// What a run trains, if it finds next items.
pub(crate) fn config(run: &Run) -> Option<NextItemConfig> {
    let loss = match run.train.loss {
        Objective::SampledSoftmax => NextItemLoss::SampledSoftmax,
        Objective::Bpr => NextItemLoss::Bpr,
        _ => return None,
    };
    Some(NextItemConfig {
        encoder: run.model.only_sasrec()?.clone(),
        loss,
        negatives: run.train.negative_count(),
        power: match run.train.negatives.unwrap_or_default() {
            Negatives::Uniform => 0.0,
            Negatives::Popularity { power } => power,
        },
    })
}

/// The model before its first step.
pub(crate) fn model(
    config: &NextItemConfig,
    schema: &Schema,
    init: &Init,
    train: &Dataset,
) -> Result<NextItem, Error> {
    let ranked = config.items(schema)?;
    Ok(config.init(schema, init, &item_counts(&ranked, train))?)
}

/// A finished run that finds next items.
pub(crate) struct Sequences<'a> {
    finished: &'a Finished,
    trained: Trained<NextItem>,
    items: RankedItems,
    /// The field of users, if the data has it.
    user: Option<usize>,
}

impl<'a> Sequences<'a> {
    /// `None` for a run of another kind.
    pub(crate) fn open(finished: &'a Finished) -> Anyhow<Option<Self>> {
        let Some(config) = config(&finished.run) else {
            return Ok(None);
        };
        let schema = finished.fitted.schema();
        Ok(Some(Self {
            trained: finished.next_item(&config)?,
            items: config.items(schema)?,
            user: schema.field(&config.encoder.user),
            finished,
        }))
    }

    /// The vocabulary of items.
    pub(crate) fn vocabulary(&self) -> &'a str {
        &self.finished.fitted.schema().fields[self.items.target].vocabulary
    }

    fn user(&self, option: &str) -> Result<(usize, &'a str), Error> {
        let fields = &self.finished.fitted.schema().fields;
        let Some(user) = self.user else {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            return Err(Error::Option {
                option: option.to_owned(),
                reason: format!(
                    "asks for sequences by their user, and the data has no field as model.user names \
                     it (fields: {})",
                    names.join(", ")
                ),
            });
        };
        Ok((user, &fields[user].vocabulary))
    }

    /// The next items after the sequence of a user of the training rows: the longest of them.
    pub(crate) fn for_user(
        &mut self,
        key: &str,
        k: usize,
        with_seen: bool,
    ) -> Anyhow<Vec<(u32, f64)>> {
        let (field, vocabulary) = self.user("--user")?;
        let row = self.finished.fitted.row(vocabulary, key);
        let row = row.ok_or_else(|| self.unknown("--user", key, vocabulary))?;
        let rows = self.finished.prepare()?.train;
        let (users, targets) = (rows.column(field), rows.column(self.items.target));
        let histories = rows.column(self.items.history);
        let of_user = (0..rows.len()).filter(|&at| users.indices[users.range(at)].contains(&row));
        let longest = of_user.max_by_key(|&at| histories.range(at).len());
        let mut history = Vec::new();
        if let Some(at) = longest {
            history.extend(&histories.indices[histories.range(at)]);
            history.extend(&targets.indices[targets.range(at)]);
        }
        self.after(history, k, with_seen)
    }

    /// The next items after a sequence that is given.
    pub(crate) fn for_history(
        &mut self,
        keys: &[String],
        k: usize,
        with_seen: bool,
    ) -> Anyhow<Vec<(u32, f64)>> {
        let vocabulary = self.vocabulary();
        let rows = keys.iter().map(|key| {
            let row = self.finished.fitted.row(vocabulary, key);
            row.ok_or_else(|| self.unknown("--history", key, vocabulary))
        });
        let history = rows.collect::<Result<_, Error>>()?;
        self.after(history, k, with_seen)
    }

    fn unknown(&self, option: &str, key: &str, vocabulary: &str) -> Error {
        Error::Option {
            option: format!("{option} {key}"),
            reason: format!("is not in the vocabulary `{vocabulary}` of the run"),
        }
    }

    fn after(
        &mut self,
        mut history: Vec<u32>,
        k: usize,
        with_seen: bool,
    ) -> Anyhow<Vec<(u32, f64)>> {
        let mut hidden: Vec<u32> = self.items.hidden.into_iter().collect();
        if !with_seen {
            hidden.extend(&history);
        }
        hidden.sort_unstable();
        hidden.dedup();
        // As long as the rows of the run are.
        let field = self.finished.fitted.field_configs().nth(self.items.history);
        let most = field.and_then(|field| field.max_len).unwrap_or(0) as usize;
        if most > 0 {
            history.drain(..history.len().saturating_sub(most));
        }
        let queries = self.trained.queries(&[history]).unwrap_or_default();
        let items = self.trained.tables.vectors(&self.items.table)?;
        let exact = crossfield_embedding::Exact::new(&items, crossfield_embedding::Measure::Dot)?;
        let found = exact.nearest(&queries, k, &hidden)?;
        Ok(found
            .iter()
            .map(|found| (found.row, f64::from(found.score)))
            .collect())
    }

    /// Ranks the target of each user's row among candidates of that user, `(line, user, items)` in the
    /// keys of a file.
    pub(crate) fn evaluate<'l>(
        &mut self,
        data: &Arc<Dataset>,
        lists: impl Iterator<Item = (usize, &'l str, Vec<&'l str>)>,
    ) -> Anyhow<Report> {
        let (field, vocabulary) = self.user("--candidates")?;
        let users = data.column(field);
        let mut row_of: HashMap<u32, Vec<u32>> = HashMap::new();
        for row in 0..data.len() {
            for &user in &users.indices[users.range(row)] {
                row_of.entry(user).or_default().push(row as u32);
            }
        }
        let ranked = self.trained.ranked(data);
        let ranked = ranked.expect("a next-item model ranks")?;
        let fitted = &self.finished.fitted;
        let mut owned = Vec::new();
        for (line, user, keys) in lists {
            let rows = fitted
                .row(vocabulary, user)
                .and_then(|user| row_of.get(&user));
            let Some(rows) = rows else {
                return Err(Error::Option {
                    option: "--candidates".into(),
                    reason: format!("line {line}: user `{user}` has no row in the data"),
                }
                .into());
            };
            for &row in rows {
                let wanted = &ranked.wanted[row as usize];
                // What training does not have has no vector and is not listed; wanted, it is missed.
                let known = keys
                    .iter()
                    .filter_map(|key| fitted.row(self.vocabulary(), key));
                let all = known.chain(wanted.iter().copied());
                let mut items: Vec<u32> = all
                    .filter(|&item| Some(item) != self.items.hidden)
                    .collect();
                items.sort_unstable();
                items.dedup();
                owned.push((row, items));
            }
        }
        let asked: Vec<Candidates<'_>> = owned
            .iter()
            .map(|(row, items)| Candidates {
                user: *row,
                items,
                relevant: &ranked.wanted[*row as usize],
            })
            .collect();
        let ranking = evaluate_candidates(&ranked.queries, &ranked.items, None, &asked, PLACES)?;
        Ok(Report {
            ranking: Some(ranking),
            rows: data.len() as u64,
            ..Report::default()
        })
    }
}
