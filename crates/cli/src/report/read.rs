//! What there is to tell of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossfield_core::ListFigures;
use crossfield_core::metrics::Report;
use crossfield_data::{Dataset, grouped};
use crossfield_report::Rows;
use crossfield_train::{Error, Evaluation, FinalMetrics, Timing, in_pool};
use serde::de::DeserializeOwned;

use crate::average::Average;
use crate::predicted::{Part, Predicted};
use crate::run::{Anyhow, Finished};

/// A run, as far as it has left traces.
pub(super) struct Told {
    /// Name of its directory, unlike all others.
    pub(super) name: String,
    directory: PathBuf,
    pub(super) source: Source,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) timings: Vec<Timing>,
    pub(super) metrics: FinalMetrics,
    /// What it predicts; none for a run that is measured by lists.
    pub(super) rows: Option<Predictions>,
    /// The lists of a run that is measured by those.
    pub(super) lists: Option<Lists>,
}

/// The figures of the lists of a run, one a user.
pub(super) struct Lists {
    /// As [`Predictions`] has it.
    pub(super) part: &'static str,
    pub(super) each: Vec<ListFigures>,
}

/// What predicts.
pub(super) enum Source {
    /// A run that was trained.
    Trained(Box<Finished>),
    /// The mean of several.
    Average(Average),
}

/// Rows that a run was not trained on, with its predictions.
pub(super) struct Predictions {
    /// Which rows these are: `test`, `validation`, or `training` where there are no others.
    pub(super) part: &'static str,
    pub(super) data: Arc<Dataset>,
    pub(super) predicted: Predicted,
}

impl Predictions {
    pub(super) fn rows(&self) -> Rows<'_> {
        let predicted = &self.predicted;
        Rows {
            labels: &predicted.labels,
            weights: predicted.weights.as_deref(),
            groups: predicted.groups.as_deref(),
            is_probability: predicted.is_probability,
        }
    }
}

impl Told {
    fn read(directory: &Path, name: String) -> Anyhow<Self> {
        let (source, rows, lists) = match Average::open(directory, &[])? {
            Some(average) => {
                let rows = predictions_of_average(&average)?;
                (Source::Average(average), rows, None)
            }
            None => {
                let finished = Finished::open(directory, &[])?;
                let (rows, lists) = match finished.run.train.loss.of_rows() {
                    Some(_) => (Some(predictions(&finished)?), None),
                    None => (None, lists(&finished)?),
                };
                (Source::Trained(Box::new(finished)), rows, lists)
            }
        };
        let evaluations = lines(&directory.join("metrics.jsonl"))?;
        let timings = lines(&directory.join("timing.jsonl"))?;
        let path = directory.join("metrics.json");
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let metrics = parsed(&path, &text)?;
        Ok(Self {
            name,
            directory: directory.to_owned(),
            source,
            evaluations,
            timings,
            metrics,
            rows,
            lists,
        })
    }

    /// The run, if it was trained itself; else why it has nothing to show of its own.
    pub(super) fn finished(&self) -> Result<&Finished, String> {
        match &self.source {
            Source::Trained(finished) => Ok(finished),
            Source::Average(_) => Err(format!(
                "{}: an average of runs; see the report of a member, such as {}.",
                self.name,
                self.directory.join("members").join("1").display()
            )),
        }
    }

    pub(super) fn directory(&self) -> String {
        self.directory.display().to_string()
    }

    /// The figures of the rows that the run is judged by.
    pub(super) fn judged(&self) -> Option<&Report> {
        let metrics = &self.metrics;
        let held_out = metrics.test.as_ref().or(metrics.valid.as_ref());
        held_out.or(metrics.train.as_ref())
    }

    /// What it is: a heading, and names with their values.
    pub(super) fn card(&self) -> (String, Vec<(String, String)>) {
        let finished = match &self.source {
            Source::Trained(finished) => finished,
            Source::Average(average) => return self.card_of_average(average),
        };
        let run = &finished.run;
        let count = |report: &Option<Report>| report.as_ref().map(|report| grouped(report.rows));
        let counts = [
            ("train", count(&self.metrics.train)),
            ("validation", count(&self.metrics.valid)),
            ("test", count(&self.metrics.test)),
        ];
        let counts = counts
            .into_iter()
            .filter_map(|(part, count)| Some(format!("{} {part}", count?)));
        let files = run.data.train.iter().map(|file| {
            let name = Path::new(file).file_name();
            name.map_or(file.clone(), |name| name.to_string_lossy().into_owned())
        });
        let mut data: Vec<String> = files.collect();
        if data.is_empty() {
            data.push("generated".into());
        }
        let epochs = match self.evaluations.last() {
            Some(last) => format!("{} of {}", last.epoch, run.train.epochs()),
            None => run.train.epochs().to_string(),
        };
        let tables = &finished.tables;
        let weights: u64 = tables.iter().map(|it| (it.rows * it.dim) as u64).sum();
        let lines = [
            ("model", run.model.kinds().join(" + ")),
            ("loss", run.train.loss.name().to_owned()),
            ("executor", run.train.executor.name().to_owned()),
            ("epochs", epochs),
            ("seed", run.train.seed.to_string()),
            ("data", data.join(", ")),
            ("rows", counts.collect::<Vec<_>>().join(", ")),
            (
                "tables",
                format!("{} of {} weights", tables.len(), grouped(weights)),
            ),
            ("directory", self.directory()),
        ];
        let lines = lines.map(|(name, value)| (name.to_owned(), value));
        (self.name.clone(), lines.to_vec())
    }

    fn card_of_average(&self, average: &Average) -> (String, Vec<(String, String)>) {
        let mut lines = vec![("model".to_owned(), "average of runs".to_owned())];
        for (at, (member, weight)) in average.members().enumerate() {
            let run = &member.run;
            let model = run.model.kinds().join(" + ");
            let executor = run.train.executor.name();
            let member = format!("{weight:.3} × {model}, {executor}, seed {}", run.train.seed);
            lines.push((format!("member {}", at + 1), member));
        }
        lines.push(("directory".to_owned(), self.directory()));
        (self.name.clone(), lines)
    }
}

/// The test rows of a run; of one without, the validation rows; else the training rows.
fn held_out(finished: &Finished) -> Anyhow<(&'static str, Arc<Dataset>)> {
    let prepared = finished.prepare()?;
    let (part, data) = match (prepared.test, prepared.valid) {
        (Some(test), _) => (Part::Test.name(), test),
        (None, Some(valid)) => (Part::Valid.name(), valid),
        (None, None) => ("training", prepared.train),
    };
    Ok((part, Arc::new(data)))
}

fn lists(finished: &Finished) -> Anyhow<Option<Lists>> {
    let (part, data) = held_out(finished)?;
    let mut scorer = finished.scorer()?;
    let each = in_pool(finished.run.train.threads, || scorer.lists(&data))??;
    Ok(each.map(|each| Lists { part, each }))
}

fn predictions(finished: &Finished) -> Anyhow<Predictions> {
    let (part, data) = held_out(finished)?;
    Ok(Predictions {
        part,
        predicted: finished.predicted(&data)?,
        data,
    })
}

fn predictions_of_average(average: &Average) -> Anyhow<Option<Predictions>> {
    let each = average.members().map(|(member, _)| predictions(member));
    let each: Vec<Predictions> = each.collect::<Anyhow<_>>()?;
    let predicted: Vec<Predicted> = each.iter().map(|it| it.predicted.clone()).collect();
    Ok(each.into_iter().next().map(|first| Predictions {
        predicted: average.mean_of(&predicted),
        ..first
    }))
}

/// Reads runs, and names each as no other is.
pub(super) fn runs(directories: &[PathBuf]) -> Anyhow<Vec<Told>> {
    let mut told: Vec<Told> = Vec::new();
    for directory in directories {
        let name = directory.canonicalize().ok();
        let name = name.as_deref().unwrap_or(directory).file_name();
        let name = name.map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let taken = |name: &str| told.iter().any(|run| run.name == name);
        let name = if taken(&name) {
            let numbered = (2..).map(|number| format!("{name} ({number})"));
            let mut free = numbered.filter(|name| !taken(name));
            free.next().unwrap_or(name)
        } else {
            name
        };
        told.push(Told::read(directory, name)?);
    }
    Ok(told)
}

/// A value a line; none where there is no such file.
fn lines<T: DeserializeOwned>(path: &Path) -> Anyhow<Vec<T>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    text.lines().map(|line| parsed(path, line)).collect()
}

fn parsed<T: DeserializeOwned>(path: &Path, text: &str) -> Anyhow<T> {
    let value = serde_json::from_str(text).map_err(|error| Error::RunDirectory {
        path: path.to_owned(),
        reason: format!("not as a run leaves it: {error}"),
    });
    Ok(value?)
}
