//! The `[tune]` section of a run file: random search with successive halving.

use std::collections::BTreeMap;

use crossfield_core::rng::{Purpose, name_key, rng};
use rand::RngExt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Error;

/// `[tune]`: what a search over settings compares, and what it draws. `crossfield train` ignores it.
///
/// ```
/// use crossfield_train::TuneConfig;
///
/// let config: TuneConfig = toml::from_str(
///     "trials = 30
///      [range]
///      'optimizer.rows.lr' = { low = 0.003, high = 0.3, scale = 'log' }
///      'model.fm.embedding_dim' = [4, 8, 16]",
/// )?;
/// config.check()?;
/// // What a trial has depends on the seed and its number alone.
/// assert_eq!(config.settings(1, 7), config.settings(1, 7));
/// assert_ne!(config.settings(1, 7), config.settings(1, 8));
/// assert!(config.settings(1, 7)[1].1.as_float().is_some_and(|lr| (0.003..=0.3).contains(&lr)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TuneConfig {
    /// The figure of the validation part that is compared, as metrics.jsonl names it; none: the one
    /// that early stopping goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How many settings are tried. The first is the run file as it stands.
    pub trials: usize,
    /// Share of the trials that go on at each rung, to 1 / `keep` times as many epochs.
    pub keep: f64,
    /// Epochs of the first rung.
    pub min_epochs: usize,
    /// Seed of the settings; none: the run's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// What is drawn: for each key, as `--set` spells it, its values. Keys stand in quotes, or as
    /// tables within each other.
    #[serde(deserialize_with = "flat")]
    pub range: BTreeMap<String, Range>,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self {
            metric: None,
            trials: 30,
            keep: 1.0 / 3.0,
            min_epochs: 1,
            seed: None,
            range: BTreeMap::new(),
        }
    }
}

/// The values that a key may have.
///
/// ```
/// use crossfield_train::Range;
///
/// let parse = |text: &str| text.parse::<toml::Table>().map(|table| table["it"].clone());
/// let range: Range = parse("it = { low = 1, high = 100, scale = 'log', integer = true }")?.try_into()?;
/// // Half the way from 1 to 100 by ratio.
/// assert_eq!(range.at(0.5).as_integer(), Some(10));
/// let range: Range = parse("it = ['sgd', 'adam']")?.try_into()?;
/// assert_eq!(range.at(0.9).as_str(), Some("adam"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "toml::Value")]
pub enum Range {
    /// One of these, each as likely as any other.
    Values(Vec<toml::Value>),
    /// A number between two others.
    Between(Between),
}

/// A number of an interval.
///
/// ```
/// use crossfield_train::{Between, Range, TuneScale};
///
/// let between: Between = toml::from_str("low = 0.01\nhigh = 1.0\nscale = 'log'")?;
/// assert_eq!((between.scale, between.integer), (TuneScale::Log, false));
/// // Half the way by ratio.
/// assert_eq!(Range::Between(between).at(0.5).as_float(), Some(0.1));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The least value.
    pub low: f64,
    /// The largest.
    pub high: f64,
    /// How values are spread.
    #[serde(default)]
    pub scale: TuneScale,
    /// Whether it is a whole number.
    #[serde(default)]
    pub integer: bool,
}

/// How the values of a range are spread.
///
/// ```
/// use crossfield_train::TuneScale;
///
/// assert_eq!(TuneScale::default(), TuneScale::Linear);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TuneScale {
    /// Evenly.
    #[default]
    Linear,
    /// Evenly by their logarithm: as often between 0.01 and 0.1 as between 0.1 and 1.
    Log,
}

/// Ranges by key, whether `a.b` is one key in quotes or a table in a table.
fn flat<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Range>, D::Error> {
    fn walk(
        prefix: &str,
        table: toml::Table,
        ranges: &mut BTreeMap<String, Range>,
    ) -> Result<(), String> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner)
                    if !["low", "high"]
                        .iter()
                        .any(|bound| inner.contains_key(*bound)) =>
                {
                    walk(&format!("{key}."), inner, ranges)?;
                }
                value => {
                    let range = value.try_into().map_err(|error: toml::de::Error| {
                        format!("`tune.range.\"{key}\"`: {}", error.message())
                    })?;
                    ranges.insert(key, range);
                }
            }
        }
        Ok(())
    }
    let mut ranges = BTreeMap::new();
    walk("", toml::Table::deserialize(from)?, &mut ranges).map_err(D::Error::custom)?;
    Ok(ranges)
}

impl TryFrom<toml::Value> for Range {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Array(values) => Ok(Self::Values(values)),
            toml::Value::Table(table) => {
                let between = toml::Value::Table(table).try_into();
                between
                    .map(Self::Between)
                    .map_err(|error: toml::de::Error| {
                        // Otherwise taken for an unknown key of the whole section.
                        let message = error.message().lines().next().unwrap_or_default();
                        format!("as a range, {message}")
                    })
            }
            other => Err(format!(
                "{other} is no range: expected a list of values, or {{ low = …, high = … }}"
            )),
        }
    }
}

impl From<Range> for toml::Value {
    fn from(range: Range) -> Self {
        match range {
            Range::Values(values) => Self::Array(values),
            Range::Between(between) => {
                Self::try_from(between).expect("numbers and the name of a scale")
            }
        }
    }
}

impl Range {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// A text that says so, and what was expected.
    fn check(&self) -> Result<(), String> {
        let Between {
            low,
            high,
            scale,
            integer,
        } = match self {
            Self::Values(values) if values.is_empty() => {
                return Err("is empty: expected at least one value".into());
            }
            Self::Values(_) => return Ok(()),
            Self::Between(between) => *between,
        };
        let [low_text, high_text] = [low, high].map(|bound| bound.to_string());
        if !(low.is_finite() && high.is_finite()) {
            return Err(format!(
                "from {low_text} to {high_text}: expected finite bounds"
            ));
        }
        if low > high {
            return Err(format!(
                "from {low_text} to {high_text}: expected low ≤ high"
            ));
        }
        if scale == TuneScale::Log && low <= 0.0 {
            return Err(format!(
                "scale = \"log\" from {low_text}: expected low above 0"
            ));
        }
        if integer && (low.fract() != 0.0 || high.fract() != 0.0) {
            return Err(format!(
                "integer = true from {low_text} to {high_text}: expected whole bounds"
            ));
        }
        Ok(())
    }

    /// The value at a share of the way, from 0 to below 1: numbers have four digits.
    pub fn at(&self, share: f64) -> toml::Value {
        let Between {
            low,
            high,
            scale,
            integer,
        } = match self {
            Self::Values(values) => {
                let at = (share * values.len() as f64) as usize;
                return values[at.min(values.len() - 1)].clone();
            }
            Self::Between(between) => *between,
        };
        if integer {
            // Each whole number has the share of those that are rounded to it.
            let value = match scale {
                TuneScale::Linear => (low + share * (high - low + 1.0)).floor(),
                TuneScale::Log => (low * (high / low).powf(share)).round(),
            };
            return toml::Value::Integer(value.clamp(low, high) as i64);
        }
        let value = match scale {
            TuneScale::Linear => low + share * (high - low),
            TuneScale::Log => low * (high / low).powf(share),
        };
        let short: f64 = format!("{value:.3e}").parse().unwrap_or(value);
        toml::Value::Float(short.clamp(low, high))
    }

    /// The values whose run files are looked at before anything is trained: the bounds, or all.
    pub fn ends(&self) -> Vec<toml::Value> {
        match self {
            Self::Values(values) => values.clone(),
            Self::Between(between) => {
                let number = |value: f64| match between.integer {
                    true => toml::Value::Integer(value as i64),
                    false => toml::Value::Float(value),
                };
                vec![number(between.low), number(between.high)]
            }
        }
    }
}

impl TuneConfig {
    /// Checks the numbers and each range by itself.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &str, reason: String| {
            let option = format!("tune.{key}");
            Err(Error::Option { option, reason })
        };
        if self.trials == 0 {
            return refuse("trials", "is 0: expected 1 or more".into());
        }
        if self.min_epochs == 0 {
            return refuse("min_epochs", "is 0: expected 1 or more".into());
        }
        if !(self.keep > 0.0 && self.keep < 1.0) {
            let reason = format!("is {}: expected a share above 0 and below 1", self.keep);
            return refuse("keep", reason);
        }
        if self.range.is_empty() {
            let reason = "names nothing to draw: expected keys and their values, as in \
                          \"optimizer.rows.lr\" = { low = 0.003, high = 0.3, scale = \"log\" }";
            return refuse("range", reason.into());
        }
        for (key, range) in &self.range {
            if let Some(reason) = fixed(key) {
                return refuse(&format!("range.\"{key}\""), reason.into());
            }
            if let Err(reason) = range.check() {
                return refuse(&format!("range.\"{key}\""), reason);
            }
        }
        Ok(())
    }

    /// What a trial sets, by rising key: drawn from a stream of (seed, trial, key), so that one more
    /// range leaves the draws of the others as they are. The first trial, number 1, sets nothing.
    pub fn settings(&self, seed: u64, trial: usize) -> Vec<(String, toml::Value)> {
        if trial <= 1 {
            return Vec::new();
        }
        let draw = |(key, range): (&String, &Range)| {
            let share = rng(seed, Purpose::Trials, trial as u64, name_key(key)).random::<f64>();
            (key.clone(), range.at(share))
        };
        self.range.iter().map(draw).collect()
    }
}

/// Why a key cannot be drawn, if it cannot.
fn fixed(key: &str) -> Option<&'static str> {
    const RULES: [(&str, &str); 9] = [
        (
            "data.test",
            "the test part is not for choosing settings: no trial sees it",
        ),
        (
            "data",
            "decides which rows there are: all trials are measured on the same",
        ),
        (
            "label",
            "decides what is predicted: all trials are measured on the same",
        ),
        (
            "train.seed",
            "is luck, not a setting; all trials have the seed of the run file",
        ),
        (
            "train.epochs",
            "is what trials are given more of from rung to rung; the best number is found on the way",
        ),
        (
            "train.early_stop",
            "decides how trials are compared: the same for all of them",
        ),
        ("train.threads", "changes no figure"),
        ("train.checkpoint_every", "changes no figure"),
        ("tune", "is the search itself"),
    ];
    // Of training rows alone.
    if key == "data.keep_negatives" {
        return None;
    }
    let of = |name: &str| {
        key.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let (_, reason) = RULES.iter().find(|(name, _)| of(name))?;
    Some(reason)
}

/// The epochs after which trials are compared: from `min_epochs` on 1 / `keep` times as many each
/// time, the last after all `epochs`.
///
/// ```
/// assert_eq!(crossfield_train::rungs(1, 40, 1.0 / 3.0), [1, 3, 9, 27, 40]);
/// assert_eq!(crossfield_train::rungs(5, 4, 0.5), [4]);
/// ```
pub fn rungs(min_epochs: usize, epochs: usize, keep: f64) -> Vec<usize> {
    let mut rungs = Vec::new();
    let mut next = min_epochs as f64;
    let mut last = 0;
    loop {
        let rung = (next.round() as usize).max(last + 1);
        if rung >= epochs {
            rungs.push(epochs);
            return rungs;
        }
        rungs.push(rung);
        (last, next) = (rung, next / keep);
    }
}

/// The trials that go on from a rung, the best first: a share `keep` of all that were compared, rounded,
/// and at least one. Each has its number and its figure, lower being better; those without a figure
/// have failed. Of equals the lower number is the better.
///
/// # Source
/// Jamieson, Talwalkar, *Non-stochastic Best Arm Identification and Hyperparameter Optimization*,
/// AISTATS 2016, algorithm 1, with a share of any size as in Li et al., *Hyperband*, JMLR 18, 2018,
/// algorithm 1.
///
/// ```
/// let figures = [(1, Some(0.5)), (2, Some(0.3)), (3, None), (4, Some(0.4)), (5, Some(0.6))];
/// assert_eq!(crossfield_train::survivors(&figures, 0.4), [2, 4]);
/// assert_eq!(crossfield_train::survivors(&figures[..1], 0.4), [1]);
/// assert!(crossfield_train::survivors(&figures[2..3], 0.4).is_empty());
/// ```
pub fn survivors(figures: &[(usize, Option<f64>)], keep: f64) -> Vec<usize> {
    let count = (figures.len() as f64 * keep).round().max(1.0) as usize;
    let known = figures
        .iter()
        .filter_map(|&(trial, figure)| Some((figure?, trial)));
    let mut known: Vec<(f64, usize)> = known.collect();
    known.sort_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
    known
        .into_iter()
        .take(count)
        .map(|(_, trial)| trial)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<TuneConfig, String> {
        let config: TuneConfig =
            toml::from_str(text).map_err(|error| error.message().to_owned())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn rungs_grow_by_the_share_that_goes_on() {
        assert_eq!(rungs(1, 40, 0.333), [1, 3, 9, 27, 40]);
        assert_eq!(rungs(2, 16, 0.5), [2, 4, 8, 16]);
        // A share near 1 still takes an epoch more at each rung.
        assert_eq!(rungs(1, 4, 0.9), [1, 2, 3, 4]);
        assert_eq!(rungs(1, 1, 0.5), [1]);
    }

    #[test]
    fn halving_keeps_the_best_as_by_hand() {
        // Nine trials, the figure of trial t being |t − 6|: three stay, then one.
        let figures: Vec<(usize, Option<f64>)> = (1..=9)
            .map(|trial| (trial, Some((trial as f64 - 6.0).abs())))
            .collect();
        let second = survivors(&figures, 1.0 / 3.0);
        assert_eq!(second, [6, 5, 7]);
        let figures: Vec<(usize, Option<f64>)> = second
            .iter()
            .map(|&trial| (trial, (trial != 6).then_some(trial as f64)))
            .collect();
        // Trial 6 has failed meanwhile.
        assert_eq!(survivors(&figures, 1.0 / 3.0), [5]);
    }

    #[test]
    fn draws_stay_in_their_range_and_spread_as_they_are_asked_to() {
        let config = config(
            "[range]\n'a.log' = { low = 0.01, high = 1.0, scale = 'log' }\n'b.dim' = [4, 8]\n\
             'c.whole' = { low = 1, high = 4, integer = true }",
        )
        .unwrap();
        assert!(config.settings(1, 1).is_empty());
        let (mut below, mut fours, mut whole) = (0, 0, [0; 5]);
        for trial in 2..402 {
            let settings = config.settings(1, trial);
            let log = settings[0].1.as_float().unwrap();
            assert!((0.01..=1.0).contains(&log), "{log}");
            below += usize::from(log < 0.1);
            fours += usize::from(settings[1].1.as_integer() == Some(4));
            whole[settings[2].1.as_integer().unwrap() as usize] += 1;
        }
        // Half of 400 each, and a quarter each: four standard deviations of either side.
        assert!((160..=240).contains(&below), "{below}");
        assert!((160..=240).contains(&fours), "{fours}");
        assert_eq!(whole[0], 0);
        assert!(
            whole[1..].iter().all(|count| (65..=135).contains(count)),
            "{whole:?}"
        );
    }

    #[test]
    fn one_more_range_leaves_the_draws_of_the_others_as_they_are() {
        let one = config("[range]\n'b.lr' = { low = 0.0, high = 1.0 }").unwrap();
        let two = config(
            "[range]\n'a.lr' = { low = 0.0, high = 1.0 }\n'b.lr' = { low = 0.0, high = 1.0 }",
        )
        .unwrap();
        assert_eq!(one.settings(3, 9)[0], two.settings(3, 9)[1]);
        assert_ne!(two.settings(3, 9)[0].1, two.settings(3, 9)[1].1);
    }

    #[test]
    fn keys_without_quotes_are_tables_that_mean_the_same() {
        let quoted = config("[range]\n'a.b' = { low = 1, high = 2 }\n'a.c' = [1]").unwrap();
        let nested = config("[range.a]\nb = { low = 1, high = 2 }\nc = [1]").unwrap();
        assert_eq!(quoted, nested);
        let text = toml::to_string(&quoted).unwrap();
        assert_eq!(config(&text).unwrap(), quoted);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("trials = 0", "tune.trials: is 0: expected 1 or more"),
            (
                "keep = 1.0",
                "tune.keep: is 1: expected a share above 0 and below 1",
            ),
            (
                "[range]\n'x.y' = []",
                "tune.range.\"x.y\": is empty: expected at least one value",
            ),
            (
                "[range]\n'x.y' = { low = 2, high = 1 }",
                "tune.range.\"x.y\": from 2 to 1: expected low ≤ high",
            ),
            (
                "[range]\n'x.y' = { low = 0, high = 1, scale = 'log' }",
                "tune.range.\"x.y\": scale = \"log\" from 0: expected low above 0",
            ),
            (
                "[range]\n'x.y' = { low = 0.5, high = 1, integer = true }",
                "tune.range.\"x.y\": integer = true from 0.5 to 1: expected whole bounds",
            ),
            (
                "[range]\n'data.test' = ['a.csv']",
                "tune.range.\"data.test\": the test part is not for choosing settings: no trial sees \
                 it",
            ),
            (
                "[range]\n'train.seed' = [1, 2]",
                "tune.range.\"train.seed\": is luck, not a setting; all trials have the seed of the \
                 run file",
            ),
        ] {
            assert_eq!(config(text).unwrap_err(), expected);
        }
        assert!(
            config("")
                .unwrap_err()
                .starts_with("tune.range: names nothing to draw")
        );
        let message = config("[range]\n'x.y' = 3").unwrap_err();
        assert!(
            message.contains("`tune.range.\"x.y\"`: 3 is no range: expected a list of values"),
            "{message}"
        );
        let message = config("[range]\n'x.y' = { low = 1, hihg = 2 }").unwrap_err();
        assert!(message.contains("`hihg`"), "{message}");
        assert!(config("[range]\n'data.keep_negatives' = [0.5, 1.0]").is_ok());
    }
}
