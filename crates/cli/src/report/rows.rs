//! Predictions beside what happened.

use crossfield_data::grouped;
use crossfield_report::{
    Axis, Marks, Part, Picture, Plot, Section, Series, reliability, residuals, roc,
};

use super::read::{Predictions, Told};
use crate::run::Anyhow;

/// Bins of a reliability plot, and steps of a histogram.
const BINS: usize = 12;
const STEPS: usize = 33;

pub(super) fn sections(runs: &[Told]) -> Anyhow<Vec<Section>> {
    let of_rows: Vec<(usize, &Told, &Predictions)> = runs
        .iter()
        .enumerate()
        .filter_map(|(at, run)| Some((at, run, run.rows.as_ref()?)))
        .collect();
    let Some((_, _, first)) = of_rows.first() else {
        let why = "The runs rank items: there is no prediction of a row to put beside its label.";
        return Ok(vec![Section {
            title: "Predicted and observed".into(),
            parts: vec![Part::Missing(why.into())],
        }]);
    };
    let (part, is_probability) = (first.part, first.predicted.is_probability);
    let mut pictures = Vec::new();
    for &(colour, run, predictions) in &of_rows {
        pictures.push(reliability_of(colour, run, predictions)?);
    }
    let mut parts = vec![Part::Text(format!("On the {part} rows."))];
    if part == "training" {
        parts.push(Part::Missing(
            "The runs have neither test nor validation rows. On rows that a model was trained on it \
             looks better than it is."
                .into(),
        ));
    }
    if is_probability {
        match roc_of(&of_rows)? {
            Some(picture) => pictures.push(picture),
            None => parts.push(Part::Missing(
                "No ROC curve: the labels are all alike.".into(),
            )),
        }
    } else {
        pictures.push(residuals_of(&of_rows)?);
    }
    parts.push(Part::Pictures(pictures));
    Ok(vec![Section {
        title: if is_probability {
            "Calibration and ROC".into()
        } else {
            "Predicted and true ratings".into()
        },
        parts,
    }])
}

fn reliability_of(colour: usize, run: &Told, predictions: &Predictions) -> Anyhow<Picture> {
    let bins = reliability(predictions.rows(), &predictions.predicted.predictions, BINS);
    let is_probability = predictions.predicted.is_probability;
    let ends = bins
        .iter()
        .flat_map(|bin| [bin.predicted, bin.low, bin.high]);
    let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), end| {
        (low.min(end), high.max(end))
    });
    let margin = 0.04 * (high - low).max(1e-6);
    let range = if is_probability {
        0.0..(high + margin).min(1.0)
    } else {
        low - margin..high + margin
    };
    let axis = |name| Axis {
        name,
        range: Some(range.clone()),
        is_whole: false,
    };
    let (predicted, observed) = match is_probability {
        true => ("predicted probability", "observed rate"),
        false => ("predicted rating", "mean true rating"),
    };
    let title = match is_probability {
        true => format!("Calibration: {}", run.name),
        false => format!("Predicted and true: {}", run.name),
    };
    let plot = Plot {
        title: &title,
        x: axis(predicted),
        y: axis(observed),
        series: vec![
            Series {
                name: String::new(),
                points: vec![[range.start; 2], [range.end; 2]],
                marks: Marks::Reference,
                colour,
            },
            Series {
                name: String::new(),
                points: bins
                    .iter()
                    .map(|bin| [bin.predicted, bin.observed])
                    .collect(),
                marks: Marks::Intervals(bins.iter().map(|bin| [bin.low, bin.high]).collect()),
                colour,
            },
        ],
        is_square: true,
    };
    let counts = bins.iter().map(|bin| bin.rows as u64);
    let (fewest, most) = (counts.clone().min(), counts.max());
    let counts = match (fewest, most) {
        (Some(fewest), Some(most)) if fewest != most => {
            format!("{} to {}", grouped(fewest), grouped(most))
        }
        (Some(fewest), _) => grouped(fewest),
        _ => "no".to_owned(),
    };
    let caption = format!(
        "Each dot is {counts} rows of about the same prediction; the bar through it is the 95 % interval \
         of what was observed. On the grey diagonal predictions are right on average; dots below it are \
         predicted too high."
    );
    Ok(Picture::plot(&plot, caption)?)
}

fn roc_of(of_rows: &[(usize, &Told, &Predictions)]) -> Anyhow<Option<Picture>> {
    let mut series = vec![Series {
        name: String::new(),
        points: vec![[0.0, 0.0], [1.0, 1.0]],
        marks: Marks::Reference,
        colour: 0,
    }];
    for &(colour, run, predictions) in of_rows {
        let points = roc(predictions.rows(), &predictions.predicted.predictions);
        if points.is_empty() {
            return Ok(None);
        }
        let auc = predictions.predicted.report()?.auc;
        series.push(Series {
            name: format!("{}, AUC {:.4}", run.name, auc.unwrap_or_default()),
            points,
            marks: Marks::Line,
            colour,
        });
    }
    let share = |name| Axis {
        name,
        range: Some(0.0..1.0),
        is_whole: false,
    };
    let plot = Plot {
        title: "ROC",
        x: share("share of non-clicks above the threshold"),
        y: share("share of clicks above it"),
        series,
        is_square: true,
    };
    let caption = "Every threshold on the prediction is a point: how many clicks are above it, and how many \
                   others with them. The area below is the AUC, the chance that a click is scored above a \
                   non-click; ½ is the grey line of guessing.";
    Ok(Some(Picture::plot(&plot, caption)?))
}

fn residuals_of(of_rows: &[(usize, &Told, &Predictions)]) -> Anyhow<Picture> {
    let series = of_rows.iter().map(|&(colour, run, predictions)| Series {
        name: run.name.clone(),
        points: residuals(
            predictions.rows(),
            &predictions.predicted.predictions,
            STEPS,
        ),
        marks: Marks::Line,
        colour,
    });
    let plot = Plot {
        title: "Residuals",
        x: Axis::named("true rating − predicted rating"),
        y: Axis {
            range: None,
            ..Axis::named("share of rows")
        },
        series: series.collect(),
        is_square: true,
    };
    let caption = "How far ratings are from what was predicted. Narrow is good; a middle away from 0 would \
                   mean that predictions are too high or too low on the whole.";
    Ok(Picture::plot(&plot, caption)?)
}
