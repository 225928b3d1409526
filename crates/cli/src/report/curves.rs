//! How figures went, epoch by epoch.

use crossfield_core::metrics::Report;
use crossfield_report::{Axis, Marks, Part, Picture, Plot, Section, Series};
use crossfield_train::Evaluation;

use super::read::Told;
use crate::run::Anyhow;

/// A figure of the validation part, beside the loss.
type Valid = (&'static str, fn(&Report) -> Option<f64>);

const VALID: [Valid; 3] = [
    ("AUC", |report| report.auc),
    ("RMSE", |report| report.rmse),
    ("NDCG@10", |report| Some(report.ranking.as_ref()?.ndcg)),
];

pub(super) fn section(runs: &[Told]) -> Anyhow<Section> {
    let mut pictures = Vec::new();
    let mut losses = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        let train = series(run, colour, "training", Marks::Dotted, |it| {
            Some(it.train_loss)
        });
        let valid = series(run, colour, "validation", Marks::Dashed, |it| {
            it.valid.as_ref()?.logloss
        });
        losses.extend(train.into_iter().chain(valid));
    }
    if !losses.is_empty() {
        let mut trained = runs.iter().filter_map(|run| run.finished().ok());
        let is_logloss = trained.all(|run| run.run.train.loss.link().is_probability());
        let axis = if is_logloss { "logloss" } else { "mean loss" };
        let plot = Plot {
            title: "Loss by epoch",
            x: epochs(),
            y: Axis::named(axis),
            series: losses,
            is_square: false,
        };
        let caption = "Training loss is the mean over the epoch's steps, each measured before its \
                       update. Where it still falls and the validation loss rises, the model learns \
                       its training rows by heart.";
        pictures.push(Picture::plot(&plot, caption)?);
    }
    for (name, figure) in VALID {
        let of_run = |(colour, run): (usize, &Told)| {
            let valid = |it: &Evaluation| figure(it.valid.as_ref()?);
            series(run, colour, "validation", Marks::Dotted, valid)
        };
        let series: Vec<Series> = runs.iter().enumerate().filter_map(of_run).collect();
        if series.is_empty() {
            continue;
        }
        let plot = Plot {
            title: &format!("Validation {name} by epoch"),
            x: epochs(),
            y: Axis::named(name),
            series,
            is_square: false,
        };
        let caption = match name {
            "RMSE" => {
                "The lower the better: the root of the mean squared error of held-out ratings."
            }
            "AUC" => {
                "The higher the better: how often a click is scored above a non-click of the held-out \
                 rows."
            }
            _ => "The higher the better: how far up the lists are what people turned out to want.",
        };
        pictures.push(Picture::plot(&plot, caption)?);
    }
    let mut parts = Vec::new();
    let without: Vec<&str> = runs
        .iter()
        .filter(|run| run.finished().is_ok())
        .filter(|run| run.evaluations.iter().all(|it| it.valid.is_none()))
        .map(|run| run.name.as_str())
        .collect();
    if !pictures.is_empty() {
        parts.push(Part::Pictures(pictures));
    }
    if !without.is_empty() {
        let without = without.join(", ");
        let why = "no validation rows, hence no curve of them";
        parts.push(Part::Missing(format!("{without}: {why}.")));
    }
    let averages = runs.iter().filter_map(|run| run.finished().err());
    parts.extend(averages.map(Part::Missing));
    Ok(Section {
        title: "Learning curves".into(),
        parts,
    })
}

fn epochs() -> Axis<'static> {
    Axis {
        is_whole: true,
        ..Axis::named("epoch")
    }
}

/// `None` without a single point.
fn series(
    run: &Told,
    colour: usize,
    what: &str,
    marks: Marks,
    figure: impl Fn(&Evaluation) -> Option<f64>,
) -> Option<Series> {
    let points = run
        .evaluations
        .iter()
        .filter_map(|it| Some([it.epoch as f64, figure(it)?]));
    let points: Vec<[f64; 2]> = points.collect();
    (!points.is_empty()).then(|| Series {
        name: format!("{}, {what}", run.name),
        points,
        marks,
        colour,
    })
}
