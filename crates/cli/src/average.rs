//! `[model] average = [runs]`: a run that is the mean of what finished runs predict.
//!
//! Its directory holds copies of them under `members/`, so that it predicts whatever becomes of them.

use std::fs;
use std::path::{Path, PathBuf};

use crossfield_core::Link;
use crossfield_core::metrics::Report;
use crossfield_data::Labels;
use crossfield_train::{Error, FinalMetrics, average_weights, read_toml, write_whole};
use serde::{Deserialize, Serialize};

use crate::console;
use crate::predicted::{Part, Predicted};
use crate::run::{Anyhow, Finished, make_directory, print, refuse_taken};

const MEMBERS: &str = "members";
/// What only training goes on from.
const LEFT_OUT: [&str; 3] = ["optimizer.safetensors", "checkpoints", "tables"];

/// A run file of an average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AverageFile {
    model: AverageConfig,
}

/// `[model]` of an average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AverageConfig {
    /// Directories of finished runs.
    average: Vec<String>,
    /// How much each counts; none: what is best on the validation rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    weights: Vec<f64>,
}

/// Whether a run file is that of an average. One that cannot be read is not: whoever reads it next
/// says what is wrong.
pub(crate) fn is_average(run_file: &Path) -> bool {
    let text = fs::read_to_string(run_file).unwrap_or_default();
    let table: Option<toml::Table> = toml::from_str(&text).ok();
    table.is_some_and(|table| {
        let model = table.get("model").and_then(toml::Value::as_table);
        model.is_some_and(|model| model.contains_key("average"))
    })
}

/// What a member predicts for the rows that it was not trained on.
struct Member {
    name: String,
    predicted: [Option<Predicted>; Part::ALL.len()],
    /// The mean label of its training rows.
    mean: Option<f64>,
}

/// `crossfield train` of an average.
pub(crate) fn train(file: &Path, sets: &[String], out: Option<&Path>) -> Anyhow<()> {
    let AverageFile { model: config } = read_toml(file, sets)?;
    config.check()?;
    if let Some(out) = out {
        refuse_taken(out)?;
    }
    let mut members = Vec::new();
    for name in &config.average {
        let member = Member::read(name)?;
        if let Some(first) = members.first() {
            member.check_beside(first)?;
        }
        members.push(member);
    }
    let predicted = |part: Part| -> Option<Vec<&Predicted>> {
        let each = members.iter();
        each.map(|member| member.predicted[part as usize].as_ref())
            .collect()
    };
    let weights = match (config.weights.as_slice(), predicted(Part::Valid)) {
        ([], Some(valid)) => fitted(&valid),
        ([], None) => {
            return Err(Error::Option {
                option: "model.weights".into(),
                reason: format!(
                    "is missing, and {} has no validation rows to choose it on: expected a weight \
                     for each run, or runs with data.valid or valid in data.split",
                    config.average[0]
                ),
            }
            .into());
        }
        (given, _) => {
            let total: f64 = given.iter().sum();
            given.iter().map(|weight| weight / total).collect()
        }
    };

    let averages = Part::ALL.map(|part| predicted(part).map(|each| mean(&each, &weights)));
    let report = |average: &Option<Predicted>| average.as_ref().map(Predicted::report).transpose();
    let [valid, test] = [report(&averages[0])?, report(&averages[1])?];
    let held_out = averages.iter().rev().flatten().next();
    let constant = held_out.zip(members[0].mean).map(|(held_out, mean)| {
        let predictions = vec![mean; held_out.predictions.len()];
        let constant = Predicted {
            predictions,
            ..held_out.clone()
        };
        constant.report()
    });
    let metrics = FinalMetrics {
        valid,
        test,
        constant: constant.transpose()?,
        ..FinalMetrics::default()
    };

    let out = make_directory(out, file)?;
    let file = AverageFile {
        model: AverageConfig {
            weights: weights.clone(),
            ..config.clone()
        },
    };
    if let Err(error) = save(&out, &file, &metrics) {
        // It was made, or empty.
        let _ = fs::remove_dir_all(&out);
        return Err(error);
    }
    print(&described(&members, &weights, &metrics)?)?;
    eprintln!("saved in {}", out.display());
    Ok(())
}

/// The figures of the members beside those of their average, and its weights.
fn described(members: &[Member], weights: &[f64], metrics: &FinalMetrics) -> Anyhow<String> {
    let mut text = String::new();
    for (member, weight) in members.iter().zip(weights) {
        text += &format!("{weight:.3}  {}\n", member.name);
    }
    for (part, average) in Part::ALL.into_iter().zip([&metrics.valid, &metrics.test]) {
        let Some(average) = average else { continue };
        let of = |member: &Member| {
            member.predicted[part as usize]
                .as_ref()
                .map(Predicted::report)
        };
        let reports: Vec<Report> = members.iter().filter_map(of).collect::<Result<_, _>>()?;
        let names: Vec<&str> = members
            .iter()
            .map(|member| base_name(&member.name))
            .collect();
        let mut rows: Vec<(&str, &Report)> = names.into_iter().zip(&reports).collect();
        rows.push(("average", average));
        if let (Part::Test, Some(constant)) = (part, &metrics.constant) {
            rows.push(("constant", constant));
        }
        text += &format!("\n{} rows\n{}", part.name(), console::table(&rows));
    }
    Ok(text)
}

fn base_name(directory: &str) -> &str {
    let name = Path::new(directory).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(directory)
}

impl AverageConfig {
    fn check(&self) -> Result<(), Error> {
        let refuse = |option: &str, reason: String| {
            Err(Error::Option {
                option: option.into(),
                reason,
            })
        };
        let runs = self.average.len();
        if runs < 2 {
            let reason = format!("names {runs} run: expected two or more");
            return refuse("model.average", reason);
        }
        let weights = &self.weights;
        if !weights.is_empty() && weights.len() != runs {
            let reason = format!("has {} numbers: expected {runs}, one a run", weights.len());
            return refuse("model.weights", reason);
        }
        let good = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if let Some(bad) = weights.iter().find(|&weight| !good(weight)) {
            let reason = format!("has {bad}: expected finite numbers from 0");
            return refuse("model.weights", reason);
        }
        if !weights.is_empty() && weights.iter().sum::<f64>() <= 0.0 {
            return refuse("model.weights", "is all 0: expected one above it".into());
        }
        Ok(())
    }
}

impl Member {
    fn read(name: &str) -> Anyhow<Self> {
        let finished = Finished::open(Path::new(name), &[])?;
        finished.check_predicts()?;
        let prepared = finished.prepare()?;
        let mean = prepared.train.traffic_mean();
        let mut predicted = [None, None];
        for (part, data) in [(Part::Valid, prepared.valid), (Part::Test, prepared.test)] {
            let data = data.map(std::sync::Arc::new);
            let of_part = data.map(|data| finished.predicted(&data)).transpose()?;
            predicted[part as usize] = of_part;
        }
        Ok(Self {
            name: name.to_owned(),
            predicted,
            mean,
        })
    }

    /// Refuses another's rows.
    fn check_beside(&self, first: &Self) -> Result<(), Error> {
        for part in Part::ALL {
            let (mine, its) = (
                self.predicted[part as usize].as_ref(),
                first.predicted[part as usize].as_ref(),
            );
            let of = |rows: Option<&Predicted>| match rows {
                Some(rows) => format!("{} {} rows", rows.labels.len(), part.name()),
                None => format!("no {} rows", part.name()),
            };
            let difference = match (mine, its) {
                (Some(mine), Some(its)) => mine.difference(its),
                (None, None) => None,
                _ => Some(format!("{}, not {}", of(mine), of(its))),
            };
            if let Some(difference) = difference {
                return Err(Error::Option {
                    option: "model.average".into(),
                    reason: format!(
                        "{} differs from {} on {} rows: {difference}; expected runs of the same rows \
                         in the same order",
                        self.name,
                        first.name,
                        part.name(),
                    ),
                });
            }
        }
        Ok(())
    }
}

/// What is averaged: logits, or ratings.
fn scores(predicted: &Predicted) -> Vec<f64> {
    let link = link(predicted);
    let predictions = predicted.predictions.iter();
    predictions
        .map(|&prediction| link.score(prediction))
        .collect()
}

fn link(predicted: &Predicted) -> Link {
    if predicted.is_probability {
        Link::Logistic
    } else {
        Link::Identity
    }
}

fn fitted(valid: &[&Predicted]) -> Vec<f64> {
    let scores: Vec<Vec<f64>> = valid.iter().map(|member| scores(member)).collect();
    let (labels, weights) = (&valid[0].labels, valid[0].weights.as_deref());
    average_weights(&scores, labels, weights, valid[0].is_probability)
}

/// The average of predictions for the same rows.
fn mean(each: &[&Predicted], weights: &[f64]) -> Predicted {
    let (first, link) = (each[0], link(each[0]));
    let mut sum = vec![0.0; first.predictions.len()];
    for (member, weight) in each.iter().zip(weights) {
        for (sum, score) in sum.iter_mut().zip(scores(member)) {
            *sum += weight * score;
        }
    }
    Predicted {
        predictions: sum
            .into_iter()
            .map(|score| link.prediction(score))
            .collect(),
        ..first.clone()
    }
}

/// Fills the directory; metrics.json, which marks a finished run, comes last.
fn save(out: &Path, file: &AverageFile, metrics: &FinalMetrics) -> Anyhow<()> {
    for (number, member) in (1..).zip(&file.model.average) {
        copy(Path::new(member), &member_directory(out, number))?;
    }
    write_whole(&out.join("run.toml"), &toml::to_string(file)?)?;
    let metrics = serde_json::to_string_pretty(metrics)? + "\n";
    write_whole(&out.join("metrics.json"), &metrics)?;
    Ok(())
}

fn member_directory(out: &Path, number: usize) -> PathBuf {
    out.join(MEMBERS).join(number.to_string())
}

/// Copies a finished run but for what training goes on from.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::io(to, "create"))?;
    for entry in fs::read_dir(from).map_err(Error::io(from, "read"))? {
        let entry = entry.map_err(Error::io(from, "read"))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if LEFT_OUT.iter().any(|&name| entry.file_name() == name) {
            continue;
        }
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(Error::io(&source, "copy"))?;
        }
    }
    Ok(())
}

/// A finished average.
pub(crate) struct Average {
    members: Vec<Finished>,
    weights: Vec<f64>,
}

impl Average {
    /// The average in a directory; none if there is a run of another kind.
    pub(crate) fn open(directory: &Path, sets: &[String]) -> Anyhow<Option<Self>> {
        let run_file = directory.join("run.toml");
        if !is_average(&run_file) {
            return Ok(None);
        }
        let AverageFile { model: config } = read_toml(&run_file, &[])?;
        let members = 1..=config.average.len();
        let open = |number| Finished::open(&member_directory(directory, number), sets);
        Ok(Some(Self {
            members: members.map(open).collect::<Anyhow<_>>()?,
            weights: config.weights,
        }))
    }

    /// The runs that it is of, and how much each counts.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&Finished, f64)> {
        self.members.iter().zip(self.weights.iter().copied())
    }

    /// The average of what the members predict for the same rows.
    pub(crate) fn mean_of(&self, each: &[Predicted]) -> Predicted {
        mean(&each.iter().collect::<Vec<_>>(), &self.weights)
    }

    /// A prediction for each row of some files.
    pub(crate) fn predicted(&self, files: &[String], labels: Labels) -> Anyhow<Predicted> {
        let each = self.members.iter().map(|member| {
            let data = member.encode(files, labels)?;
            member.predicted(&data)
        });
        let each: Vec<Predicted> = each.collect::<Anyhow<_>>()?;
        Ok(self.mean_of(&each))
    }
}
