//! What each field is worth: how much the loss rises when its values are shuffled.

use std::sync::Arc;

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{FieldId, FieldKind};
use crossfield_data::{Dataset, grouped};
use crossfield_report::{Bar, Bars, Part, Picture, Rows, Section, mean_of};
use rand::seq::SliceRandom;

use super::read::{Predictions, Told};
use crate::run::{Anyhow, Finished};

/// Shuffles that a rise is the mean of.
const SHUFFLES: u64 = 3;
/// Fields that a plot has room for.
const SHOWN: usize = 30;

/// Fields that are shuffled together, and what that costs.
struct Worth {
    name: String,
    rise: f64,
    interval: [f64; 2],
}

pub(super) fn section(runs: &[Told], most_rows: usize, seed: u64) -> Anyhow<Section> {
    let mut parts = Vec::new();
    let mut pictures = Vec::new();
    let mut told = String::new();
    for run in runs {
        let Some(predictions) = &run.rows else {
            parts.push(Part::Missing(format!(
                "{}: ranks items; no row's loss could rise.",
                run.name
            )));
            continue;
        };
        let finished = match run.finished() {
            Ok(finished) => finished,
            Err(why) => {
                parts.push(Part::Missing(why));
                continue;
            }
        };
        if most_rows == 0 {
            continue;
        }
        let (worths, rows) = importance(finished, predictions, most_rows, seed)?;
        let all = predictions.data.len();
        let of_rows = match rows < all {
            true => format!(
                "{} of the {} {} rows, drawn at random",
                grouped(rows as u64),
                grouped(all as u64),
                predictions.part
            ),
            false => format!("the {} {} rows", grouped(all as u64), predictions.part),
        };
        told = format!(
            "The values of one field are shuffled among {of_rows}, and the rows scored again: the loss \
             rises by what the model draws from that field and from nothing else. Fields of one column, and \
             sequences that lie side by side, are shuffled together. A cross is shuffled by itself, so a field that crosses hold as \
             well counts for less than it is worth. Seed {seed}, {SHUFFLES} shuffles a field."
        );
        let axis = match predictions.predicted.is_probability {
            true => "rise of the logloss",
            false => "rise of the squared error",
        };
        let bars = worths.iter().take(SHOWN).map(|worth| Bar {
            name: worth.name.clone(),
            parts: vec![worth.rise],
            interval: Some(worth.interval),
        });
        let title = format!("Importance of fields: {}", run.name);
        let bars = Bars {
            title: &title,
            axis,
            parts: &[],
            bars: bars.collect(),
        };
        let mut caption = "The longer the bar, the more the model needs the field; the black line is the \
                           95 % interval over rows. A field whose interval holds 0 could be left out \
                           without a loss that these rows show."
            .to_owned();
        if worths.len() > SHOWN {
            caption += &format!(" The {SHOWN} most important of {} fields.", worths.len());
        }
        pictures.push(Picture::bars(&bars, caption)?);
    }
    if most_rows == 0 {
        parts.push(Part::Missing(
            "Not measured: --importance-rows is 0.".into(),
        ));
    }
    if !pictures.is_empty() {
        parts.push(Part::Text(told));
        parts.push(Part::Pictures(pictures));
    }
    Ok(Section {
        title: "Importance of fields".into(),
        parts,
    })
}

/// Fields with what they are worth, the most important first, and the rows that were scored.
fn importance(
    finished: &Finished,
    predictions: &Predictions,
    most_rows: usize,
    seed: u64,
) -> Anyhow<(Vec<Worth>, usize)> {
    let all = &predictions.data;
    let data = if all.len() > most_rows {
        let mut rows: Vec<u32> = (0..all.len() as u32).collect();
        rows.shuffle(&mut rng(seed, Purpose::Permutation, 0, 0));
        rows.truncate(most_rows);
        rows.sort_unstable();
        Arc::new(all.select(&rows))
    } else {
        all.clone()
    };
    let mut scorer = finished.scorer()?;
    let before = finished.predicted_by(&mut *scorer, &data)?;
    let rows = Rows {
        labels: &before.labels,
        weights: before.weights.as_deref(),
        groups: before.groups.as_deref(),
        is_probability: before.is_probability,
    };
    let schema = data.schema();
    let mut worths = Vec::new();
    for fields in together(finished, &data) {
        let names: Vec<&str> = fields
            .iter()
            .map(|&field| schema.fields[field].name.as_str())
            .collect();
        let name = match column(finished, fields[0]) {
            Some(column) if fields.len() > 1 && !is_sequence(&data, fields[0]) => column.to_owned(),
            _ => names.join(" + "),
        };
        let mut rises = vec![0.0; data.len()];
        for shuffle in 0..SHUFFLES {
            let mut from: Vec<u32> = (0..data.len() as u32).collect();
            let key = name_key(&name);
            from.shuffle(&mut rng(seed, Purpose::Permutation, key, shuffle));
            let shuffled = Arc::new(data.rearranged(&fields, &from));
            let after = finished.predicted_by(&mut *scorer, &shuffled)?;
            for (row, rise) in rises.iter_mut().enumerate() {
                let loss = rows.loss(row, after.predictions[row]);
                *rise += (loss - rows.loss(row, before.predictions[row])) / SHUFFLES as f64;
            }
        }
        let mean = mean_of(rows, &rises).estimate;
        worths.push(Worth {
            name,
            rise: mean.value,
            interval: [mean.low, mean.high],
        });
    }
    worths.sort_by(|a, b| b.rise.total_cmp(&a.rise));
    Ok((worths, data.len()))
}

/// The fields, each alone, but for those of one column, and for sequences that are as long as each
/// other in every row: they tell of the same events.
fn together(finished: &Finished, data: &Dataset) -> Vec<Vec<FieldId>> {
    let mut sets: Vec<Vec<FieldId>> = Vec::new();
    for field in 0..data.schema().fields.len() {
        let beside = sets.iter_mut().find(|set| {
            let (other, its) = (set[0], column(finished, field));
            let are_of_one_column = its.is_some() && column(finished, other) == its;
            let are_sequences = is_sequence(data, field) && is_sequence(data, other);
            are_of_one_column
                || (are_sequences && data.column(other).offsets == data.column(field).offsets)
        });
        match beside {
            Some(set) => set.push(field),
            None => sets.push(vec![field]),
        }
    }
    sets
}

fn is_sequence(data: &Dataset, field: FieldId) -> bool {
    data.schema().fields[field].kind == FieldKind::Sequence
}

/// The column that a field is read from; none for a cross, and for a field of several columns.
fn column(finished: &Finished, field: FieldId) -> Option<&str> {
    // Crosses come behind the fields.
    let config = finished.fitted.field_configs().nth(field)?;
    config.column.as_deref()
}
