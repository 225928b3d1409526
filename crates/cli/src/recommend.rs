//! `recommend`: the best items for a user, known or new.

use std::collections::HashSet;
use std::path::PathBuf;

use crossfield_data::Dataset;
use crossfield_mf::{BiasedMfConfig, FoldIn, MfParameters, MfTables};
use crossfield_train::{Error, Objective, Solver};

use crate::lists::{Line, TitleArgs, print_list};
use crate::mf::{MfModel, ratings_l2, read_parameters, wrmf_config};
use crate::next_item::Sequences;
use crate::run::{Anyhow, Finished};

/// `crossfield recommend`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("who").required(true)))]
pub(crate) struct RecommendArgs {
    /// A finished run of a matrix factorization (model.kind = "mf").
    run: PathBuf,
    /// A user of the training rows.
    #[arg(long, value_name = "KEY", group = "who")]
    user: Option<String>,
    /// Someone new, by what they have had: keys of items, with a rating or a count as in 50:4.5
    /// where that matters. Their vector is found without training again.
    #[arg(
        long,
        value_name = "ITEM[:VALUE],…",
        value_delimiter = ',',
        group = "who"
    )]
    history: Vec<String>,
    /// How many items to print.
    #[arg(short, value_name = "K", default_value_t = 10)]
    k: usize,
    /// Prints items that the user has in the training rows, too.
    #[arg(long)]
    with_seen: bool,
    #[command(flatten)]
    titles: TitleArgs,
}

pub(crate) fn recommend(args: &RecommendArgs) -> Anyhow<()> {
    let finished = Finished::open(&args.run, &[])?;
    if let Some(mut sequences) = Sequences::open(&finished)? {
        let found = match &args.user {
            Some(user) => sequences.for_user(user, args.k, args.with_seen)?,
            None => sequences.for_history(&args.history, args.k, args.with_seen)?,
        };
        return print_found(args, &finished, sequences.vocabulary(), found);
    }
    let Some(config) = finished.run.model.only_mf() else {
        let kinds = finished.run.model.kinds().join(" + ");
        return Err(Error::Option {
            option: "model.kind".into(),
            reason: format!(
                "is {kinds}: recommend ranks items by the vectors of kind = \"mf\"; `predict` \
                 scores any candidates"
            ),
        }
        .into());
    };
    let lists = Recommender::open(&finished, config)?;
    let found = match &args.user {
        Some(user) => lists.for_user(user, args.k, args.with_seen)?,
        None => lists.for_history(&args.history, args.k, args.with_seen)?,
    };
    print_found(args, &finished, lists.items, found)
}

fn print_found(
    args: &RecommendArgs,
    finished: &Finished,
    items: &str,
    found: Vec<(u32, f64)>,
) -> Anyhow<()> {
    let titles = args.titles.read(finished, items)?;
    let lines = found.into_iter().map(|(row, score)| {
        let key = finished.fitted.key(items, row).unwrap_or_default();
        Line::new(key.to_owned(), score, &titles)
    });
    print_list(&lines.collect::<Vec<_>>())
}

/// What a run knows of users and items.
struct Recommender<'a> {
    finished: &'a Finished,
    config: &'a BiasedMfConfig,
    tables: MfTables,
    /// The vocabularies of users and of items.
    users: &'a str,
    items: &'a str,
    /// One set of parameters, or draws of them, over which predictions are averaged.
    sets: Vec<MfParameters>,
}

/// A user's bias and vector under one set of parameters.
type User = (f32, Vec<f32>);

impl<'a> Recommender<'a> {
    fn open(finished: &'a Finished, config: &'a BiasedMfConfig) -> Anyhow<Self> {
        let schema = finished.fitted.schema();
        let (tables, sets) = read_parameters(finished, config)?;
        let [users, items] = config
            .fields(schema)?
            .map(|field| schema.fields[field].vocabulary.as_str());
        Ok(Self {
            sets,
            finished,
            config,
            tables,
            users,
            items,
        })
    }

    fn for_user(&self, key: &str, k: usize, with_seen: bool) -> Anyhow<Vec<(u32, f64)>> {
        let row = self.row(self.users, "--user", key)? as usize;
        let users = self.sets.iter().map(|set| {
            let bias = set.user_bias.get(row).copied().unwrap_or(0.0);
            (bias, set.user(row).to_vec())
        });
        let users = users.collect();
        let seen = if with_seen {
            Vec::new()
        } else {
            self.seen(&self.finished.prepare()?.train, row as u32)
        };
        Ok(self.best(users, &seen, k))
    }

    fn for_history(
        &self,
        history: &[String],
        k: usize,
        with_seen: bool,
    ) -> Anyhow<Vec<(u32, f64)>> {
        let pairs = history.iter().map(|text| self.pair(text));
        let pairs: Vec<(u32, f32)> = pairs.collect::<Anyhow<_>>()?;
        let users = self.sets.iter().map(|set| self.fold_in(set, &pairs));
        let users = users.collect::<Anyhow<_>>()?;
        let seen = if with_seen { &[][..] } else { &pairs[..] };
        let seen: Vec<u32> = seen.iter().map(|&(item, _)| item).collect();
        Ok(self.best(users, &seen, k))
    }

    /// An item, and its rating or count behind a colon.
    fn pair(&self, text: &str) -> Anyhow<(u32, f32)> {
        let ratings = self.finished.run.train.loss == Objective::Squared;
        // A key may hold a colon itself.
        let whole = self.finished.fitted.row(self.items, text);
        let (key, value) = match text.rsplit_once(':') {
            Some((key, value)) if whole.is_none() => (key, Some(value)),
            _ => (text, None),
        };
        let row = self.row(self.items, "--history", key)?;
        let refuse = |expected: &str| -> Box<dyn std::error::Error> {
            let option = format!("--history {text}");
            let reason = format!("expected {expected}");
            Box::new(Error::Option { option, reason })
        };
        let value = match value {
            None if ratings => return Err(refuse("a rating, as in 50:4.5")),
            None => 1.0,
            Some(value) => match value.parse::<f32>() {
                Ok(value) if value.is_finite() => value,
                _ => return Err(refuse("a finite number behind the colon")),
            },
        };
        Ok((row, value))
    }

    /// Bias and vector of someone with this history, as the run's solver finds them.
    fn fold_in(&self, parameters: &MfParameters, history: &[(u32, f32)]) -> Anyhow<User> {
        let run = &self.finished.run;
        Ok(match run.train.loss {
            Objective::Squared => parameters.fold_in_user(history, ratings_l2(&run.train))?,
            Objective::Wrmf => {
                let config = wrmf_config(self.config, &run.train);
                (0.0, FoldIn::users(parameters, config)?.fold_in(history)?)
            }
            Objective::Bpr => {
                let rows = self.finished.prepare()?.train;
                let model = MfModel::of_rows(self.config, run.model.bias, rows.schema())?;
                let mut bpr = model.bpr(self.config, run, &rows)?;
                let epochs = run.train.epochs();
                bpr.resume(&self.tables.values(parameters), epochs as u64)
                    .map_err(|error| error.to_string())?;
                let items: Vec<u32> = history.iter().map(|&(item, _)| item).collect();
                (0.0, bpr.fold_in_user(&items, epochs)?)
            }
            loss @ (Objective::Logistic | Objective::Probit | Objective::SampledSoftmax) => {
                let reason = format!(
                    "the run was trained by {}: someone new is found in runs of squared, wrmf and \
                     bpr",
                    loss.name()
                );
                let option = "--history".to_owned();
                return Err(Error::Option { option, reason }.into());
            }
        })
    }

    /// The items of the best predictions, but for those that were seen and the row of unknown ones.
    fn best(&self, users: Vec<User>, seen: &[u32], k: usize) -> Vec<(u32, f64)> {
        let seen: HashSet<u32> = seen.iter().copied().collect();
        let link = self.finished.run.train.loss.link();
        let [_, items] = self.tables.sizes();
        let mut scores = vec![0.0; items];
        for (set, (bias, vector)) in self.sets.iter().zip(&users) {
            for (item, score) in scores.iter_mut().enumerate() {
                let products = vector.iter().zip(set.item(item));
                let product: f64 = products.map(|(p, q)| f64::from(p * q)).sum();
                let of_item = set.item_bias.get(item).copied().unwrap_or(0.0);
                *score += f64::from(set.mean) + f64::from(*bias) + f64::from(of_item) + product;
            }
        }
        let mut found: Vec<(u32, f64)> = (0..items as u32)
            .filter(|&item| {
                self.finished.fitted.key(self.items, item).is_some() && !seen.contains(&item)
            })
            .map(|item| {
                let mean = scores[item as usize] / self.sets.len() as f64;
                (item, link.prediction(mean))
            })
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.truncate(k);
        found
    }

    /// The items of a user in the training rows.
    fn seen(&self, rows: &Dataset, user: u32) -> Vec<u32> {
        let [users, items] = self.tables.fields().map(|field| rows.column(field).indices);
        let seen = users.into_iter().zip(items);
        let of_user = seen.filter(|&(of, _)| of == user);
        of_user.map(|(_, item)| item).collect()
    }

    fn row(&self, vocabulary: &str, option: &str, key: &str) -> Result<u32, Error> {
        let row = self.finished.fitted.row(vocabulary, key);
        row.ok_or_else(|| Error::Option {
            option: format!("{option} {key}"),
            reason: format!("is not in the vocabulary `{vocabulary}` of the run"),
        })
    }
}
