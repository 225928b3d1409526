//! Where the vectors of keys lie.

use std::cmp::Reverse;
use std::collections::HashMap;

use crossfield_core::TableConfig;
use crossfield_data::grouped;
use crossfield_embedding::{Moments, Principal};
use crossfield_report::{Axis, Marks, Part, Picture, Plot, Section, Series};

use super::read::Told;
use crate::lists::TitleArgs;
use crate::run::{Anyhow, Finished, vocabulary};
use crate::vectors::KeyedVectors;

/// Keys of a map, the most frequent.
const KEYS: usize = 300;
/// Dims beyond which principal components would take too long.
const MOST_DIMS: usize = 512;

pub(super) fn section(runs: &[Told], titles: &TitleArgs) -> Anyhow<Section> {
    let (mut pictures, mut parts) = (Vec::new(), Vec::new());
    for (colour, run) in runs.iter().enumerate() {
        let found = match run.finished() {
            Ok(finished) => map(colour, &run.name, finished, titles)?
                .map_err(|why| format!("{}: {why}.", run.name)),
            Err(why) => Err(why),
        };
        match found {
            Ok(picture) => pictures.push(picture),
            Err(why) => parts.push(Part::Missing(why)),
        }
    }
    if !pictures.is_empty() {
        parts.insert(0, Part::Pictures(pictures));
    }
    Ok(Section {
        title: "Map of embeddings".into(),
        parts,
    })
}

/// The table of vectors that is worth most to look at: of a vocabulary with titles, then the one with
/// the most rows.
fn table<'a>(
    finished: &'a Finished,
    titles: &TitleArgs,
) -> Anyhow<Option<(&'a TableConfig, HashMap<String, String>)>> {
    let fitted = &finished.fitted;
    let mut found: Option<(&TableConfig, HashMap<String, String>)> = None;
    for table in &finished.tables {
        let name = vocabulary(table, fitted);
        let has_keys = fitted.key(name, 1).is_some();
        if !has_keys || !(2..=MOST_DIMS).contains(&table.dim) {
            continue;
        }
        let titles = titles.read(finished, name)?;
        let rank = |titled: bool, table: &TableConfig| (titled, table.rows);
        let is_better = found.as_ref().is_none_or(|(other, of_other)| {
            rank(!titles.is_empty(), table) > rank(!of_other.is_empty(), other)
        });
        if is_better {
            found = Some((table, titles));
        }
    }
    Ok(found)
}

/// A picture, or why there is none.
fn map(
    colour: usize,
    of: &str,
    finished: &Finished,
    titles: &TitleArgs,
) -> Anyhow<Result<Picture, String>> {
    let Some((table, titles)) = table(finished, titles)? else {
        return Ok(Err(
            "no table with a vector of at least two numbers for each key".into(),
        ));
    };
    let fitted = &finished.fitted;
    let name = vocabulary(table, fitted);
    let keyed = match KeyedVectors::read(finished, name, Some(&table.name), None) {
        Ok(keyed) => keyed,
        Err(error) => return Ok(Err(format!("no map of {}: {error}", table.name))),
    };
    let mut keys: Vec<(u32, String)> = keyed.keys().collect();
    keys.sort_by_key(|&(row, _)| (Reverse(fitted.count(name, row)), row));
    let all = keys.len();
    keys.truncate(KEYS);
    let dim = table.dim;
    let mut mean = vec![0f64; dim];
    for &(row, _) in &keys {
        let vector = keyed.vectors.row(row);
        mean.iter_mut()
            .zip(vector)
            .for_each(|(mean, &x)| *mean += f64::from(x) / keys.len() as f64);
    }
    // What vectors have in common says nothing of what sets them apart.
    let centred = |row: u32| -> Vec<f32> {
        let vector = keyed.vectors.row(row).iter().zip(&mean);
        vector
            .map(|(&x, mean)| (f64::from(x) - mean) as f32)
            .collect()
    };
    let mut moments = Moments::new(dim);
    keys.iter().for_each(|&(row, _)| moments.add(&centred(row)));
    let plane = Principal::of(&[&moments], 2);
    let first = moments.kept(&Principal::of(&[&moments], 1));
    let second = moments.kept(&plane) - first;
    let points = keys.iter().map(|&(row, _)| {
        let mut point = [0f32; 2];
        plane.rotate(&centred(row), &mut point);
        point.map(f64::from)
    });
    let points: Vec<[f64; 2]> = points.collect();
    let names = keys.iter().map(|(_, key)| match titles.get(key) {
        Some(title) => title.clone(),
        None => key.clone(),
    });
    let title = format!("Vectors of {name}: {of}");
    let (x, y) = (
        format!("first principal component, {:.0} %", 100.0 * first),
        format!("second, {:.0} %", 100.0 * second),
    );
    let plot = Plot {
        title: &title,
        x: Axis::named(&x),
        y: Axis::named(&y),
        series: vec![Series {
            name: String::new(),
            marks: Marks::Named(names.collect()),
            points,
            colour,
        }],
        is_square: true,
    };
    let caption = format!(
        "Table {}: the {} most frequent of {} keys, each a vector of {dim} numbers, on the plane in which \
         they differ most; the axes say which share of their spread they show. The most frequent have \
         their names, where there is room. Keys that lie close act alike, as far as a plane can tell.",
        table.name,
        grouped(keys.len() as u64),
        grouped(all as u64)
    );
    Ok(Ok(Picture::plot(&plot, caption)?))
}
