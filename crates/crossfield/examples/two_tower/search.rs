//! The items of a catalogue that suit a person, by the inner product of what the towers make of both.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use crossfield::core::{Component, Lookup, Scored};
use crossfield::data::Labels;
use crossfield::embedding::{Exact, Measure, Vectors};
use crossfield::train::Finished;

use crate::shop::{KINDS, THINGS, thing};

/// Whatever stops a search.
type Failure = Box<dyn std::error::Error>;

/// A tower of a component: one vector a row.
pub(crate) type Side<C> = fn(&C, &Lookup) -> Tensor<2>;

/// The rows of the `k` best items for the person in the first row of a file, the best first.
pub(crate) fn best<C: Component>(
    towers: &mut Finished<Scored<C>>,
    [user, item]: [Side<C>; 2],
    person: &Path,
    items: &Path,
    k: usize,
) -> Result<Vec<u32>, Failure> {
    let (people, items) = (
        vectors(towers, user, person)?,
        vectors(towers, item, items)?,
    );
    let search = Exact::new(&items, Measure::Dot)?;
    let best = search.nearest(people.row(0), k, &[])?;
    Ok(best.into_iter().map(|found| found.row).collect())
}

/// What a tower makes of each row of a file.
fn vectors<C: Component>(
    towers: &mut Finished<Scored<C>>,
    side: Side<C>,
    file: &Path,
) -> Result<Vectors, Failure> {
    let rows = towers.encode(file, Labels::Optional)?;
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    let trained = &mut towers.trained;
    let (x, _) = trained
        .tables
        .stage(Arc::new(rows.batch(&all)), &trained.device);
    let vectors = side(trained.model.component(), &x);
    let dim = vectors.dims()[1];
    Ok(Vectors::from_flat(&vectors.try_into_vec_as::<f32>()?, dim)?)
}

/// A file of one person, who bought these.
pub(crate) fn person(folder: &Path, bought: &[&str]) -> Result<PathBuf, Failure> {
    let file = folder.join("person.csv");
    let row = format!("tea-0,tea,spring,{}", bought.join("|"));
    std::fs::write(&file, format!("item,kind,season,history\n{row}\n"))?;
    Ok(file)
}

/// A file of everything in the shop, and the names in it.
pub(crate) fn catalogue(folder: &Path) -> Result<(PathBuf, Vec<String>), Failure> {
    let file = folder.join("catalogue.csv");
    let mut text = "item,kind,season,history\n".to_owned();
    let mut names = Vec::new();
    for (kind, name) in KINDS.iter().enumerate() {
        for number in 0..THINGS {
            names.push(thing((kind, number)));
            writeln!(text, "{},{name},spring,", thing((kind, number)))?;
        }
    }
    std::fs::write(&file, text)?;
    Ok((file, names))
}
