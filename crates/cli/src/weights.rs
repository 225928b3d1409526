//! The weights of linear terms: the heaviest, and how many are exactly zero.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

use crossfield_core::{Schema, TableConfig, factor_table};
use crossfield_data::{FittedSchema, grouped};
use crossfield_embedding::{
    EmbeddingCollection, RowOptimizerKind, Snapshot, TablePlan, tensor_name,
};
use crossfield_train::{Error, State, check_memory};

use crate::console::joined;
use crate::run::{Anyhow, Finished, vocabulary};

/// The largest weights of the linear terms, one a line, after the shares of zeros.
pub(crate) fn heaviest(finished: &Finished, top: usize) -> Anyhow<String> {
    State::read(&finished.directory, finished.fitted.fingerprint())?;
    let schema = finished.fitted.schema();
    let mut plans = finished.plans()?;
    plans.retain(|plan| is_linear(&plan.config, schema));
    if plans.is_empty() {
        let kinds = finished.run.model.kinds().join(" + ");
        return Err(Error::Option {
            option: "model".into(),
            reason: format!(
                "is {kinds}, without linear terms that have weights to list: expected --data for the \
                 score of a row"
            ),
        }
        .into());
    }
    let mut snapshot = Snapshot::open(&finished.directory.join("model.safetensors"))?;
    let (mut zeros, mut largest) = (Zeros::default(), Largest::new(top));
    for (table, plan) in plans.iter().enumerate() {
        let group = group(&plan.config, schema).to_owned();
        read(plan, &mut snapshot, |row, weight| {
            zeros.count(&group, weight);
            largest.add(table, row, weight);
        })?;
    }
    let mut lines = Vec::new();
    for (table, row, weight) in largest.sorted() {
        let config = &plans[table].config;
        let count = finished
            .fitted
            .count(vocabulary(config, &finished.fitted), row);
        lines.push((weight, count, name(config, row, &finished.fitted)));
    }
    Ok(format!("{}\n{}", zeros.lines(), rules(&lines)))
}

/// How many weights of the tables that FTRL has trained are exactly zero, as lines.
pub(crate) fn sparsity(run: &Path, plans: &[TablePlan], schema: &Schema) -> Anyhow<String> {
    let mut zeros = Zeros::default();
    let is_sparse =
        |plan: &&TablePlan| plan.optimizer.kind == RowOptimizerKind::Ftrl && !plan.frozen;
    let mut sparse = plans.iter().filter(is_sparse).peekable();
    if sparse.peek().is_none() {
        return Ok(String::new());
    }
    let mut snapshot = Snapshot::open(&run.join("model.safetensors"))?;
    for plan in sparse {
        let group = group(&plan.config, schema).to_owned();
        let plan = plan.clone().into_read_only();
        read(&plan, &mut snapshot, |_, weight| {
            zeros.count(&group, weight)
        })?;
    }
    Ok(zeros.lines())
}

/// Whether the rows of a table are weights of linear terms, and no factors of one number.
fn is_linear(table: &TableConfig, schema: &Schema) -> bool {
    let group = group(table, schema);
    table.dim == 1 && group != factor_group() && !group.ends_with(".v1")
}

/// What all tables of factors of one number begin with.
fn factor_group() -> String {
    factor_table(1, "").trim_end_matches('.').to_owned()
}

/// The part of a table's name before its vocabulary: that of all tables of a component.
fn group<'a>(table: &'a TableConfig, schema: &Schema) -> &'a str {
    let vocabulary = table
        .fields
        .first()
        .map(|&field| &schema.fields[field].vocabulary);
    let group = vocabulary.and_then(|vocabulary| table.name.strip_suffix(vocabulary.as_str()));
    group
        .and_then(|group| group.strip_suffix('.'))
        .unwrap_or(&table.name)
}

/// Gives each weight and its row to `each`, those of a compressed table as they are composed.
fn read(
    plan: &TablePlan,
    snapshot: &mut Snapshot,
    mut each: impl FnMut(u32, f32),
) -> Result<(), Error> {
    let TableConfig {
        name, rows, dim, ..
    } = &plan.config;
    if plan.compress.is_none() {
        let mut at = 0;
        let tensor = tensor_name(name);
        // A table that grows was saved with the rows that it had.
        let saved = snapshot.shape(&tensor).and_then(|shape| shape.first());
        let rows = *saved.filter(|_| plan.growing.is_some()).unwrap_or(rows);
        snapshot.read(&tensor, &[rows, *dim], |block| {
            for &weight in block {
                each((at / dim) as u32, weight);
                at += 1;
            }
        })?;
        return Ok(());
    }
    check_memory(std::slice::from_ref(plan))?;
    let mut table = EmbeddingCollection::new(std::slice::from_ref(plan), 0)?;
    table.load_weights(snapshot)?;
    let mut weights = vec![0.0; *dim];
    for row in 0..*rows as u32 {
        table.read_weights(name, row, &mut weights);
        weights.iter().for_each(|&weight| each(row, weight));
    }
    Ok(())
}

/// Weights that are exactly zero, and all, by group of tables.
#[derive(Default)]
struct Zeros(BTreeMap<String, [u64; 2]>);

impl Zeros {
    fn count(&mut self, group: &str, weight: f32) {
        if !self.0.contains_key(group) {
            self.0.insert(group.to_owned(), [0; 2]);
        }
        if let Some([zeros, all]) = self.0.get_mut(group) {
            *zeros += u64::from(weight == 0.0);
            *all += 1;
        }
    }

    fn lines(&self) -> String {
        let line = |(group, &[zeros, all]): (&String, &[u64; 2])| {
            let percent = 100.0 * zeros as f64 / all as f64;
            let (zeros, all) = (grouped(zeros), grouped(all));
            format!("{group}: {zeros} of {all} weights are exactly 0 ({percent:.1} %)\n")
        };
        self.0.iter().map(line).collect()
    }
}

/// A weight: the bits of its size, table and row, and its own bits. The bits of numbers from 0 up are
/// in their order, and of two of one size the first is the larger.
type Entry = (u32, Reverse<(usize, u32)>, u32);

/// The largest weights so far, and no others.
struct Largest {
    most: usize,
    /// The smallest of them on top.
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Largest {
    fn new(most: usize) -> Self {
        Self {
            most,
            heap: BinaryHeap::new(),
        }
    }

    fn add(&mut self, table: usize, row: u32, weight: f32) {
        if weight == 0.0 {
            return;
        }
        let entry = (
            weight.abs().to_bits(),
            Reverse((table, row)),
            weight.to_bits(),
        );
        if self.heap.len() < self.most {
            self.heap.push(Reverse(entry));
        } else if let Some(mut smallest) = self.heap.peek_mut()
            && smallest.0 < entry
        {
            *smallest = Reverse(entry);
        }
    }

    /// Table, row and weight, the largest first.
    fn sorted(self) -> Vec<(usize, u32, f32)> {
        let entries = self.heap.into_sorted_vec().into_iter();
        entries
            .map(|Reverse((_, Reverse((table, row)), weight))| (table, row, f32::from_bits(weight)))
            .collect()
    }
}

/// What a row of a table stands for. Where several fields share it, the vocabulary's name is in the
/// place of theirs.
fn name(table: &TableConfig, row: u32, fitted: &FittedSchema) -> String {
    let Some(&field) = table.fields.first() else {
        return table.name.clone();
    };
    let name = fitted.feature_name(field, row);
    let described = &fitted.schema().fields[field];
    match name.strip_prefix(described.name.as_str()) {
        Some(value) if table.fields.len() > 1 => format!("{}{value}", described.vocabulary),
        _ => name,
    }
}

/// Weight, count in training and name, in columns.
fn rules(lines: &[(f32, Option<u64>, String)]) -> String {
    let count = |count: &Option<u64>| count.map_or("-".to_owned(), grouped);
    let widths = lines.iter().map(|(_, seen, _)| count(seen).len());
    let width = widths.max().unwrap_or(0).max("seen".len());
    let mut text = format!("{:>10}  {:>width$}  rule\n", "weight", "seen");
    for (weight, seen, name) in lines {
        let number = format!("{weight:>+10.6}  {:>width$}  ", count(seen));
        text += &format!("{number}{}\n", joined(number.len(), name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_the_first_of_equals() {
        let mut largest = Largest::new(3);
        for (row, weight) in [0.5, -2.0, 0.0, 0.5, 1.0, -0.5, 0.25]
            .into_iter()
            .enumerate()
        {
            largest.add(1, row as u32, weight);
        }
        largest.add(0, 9, 0.5);
        assert_eq!(largest.sorted(), [(1, 1, -2.0), (1, 4, 1.0), (0, 9, 0.5)]);
        assert_eq!(Largest::new(0).sorted(), []);
    }

    #[test]
    fn zeros_are_counted_by_component_and_rules_stand_in_columns() {
        let mut zeros = Zeros::default();
        for weight in [0.0, -0.0, 1e-30] {
            zeros.count("wide", weight);
        }
        zeros.count("fm", 1.0);
        assert_eq!(
            zeros.lines(),
            "fm: 0 of 1 weights are exactly 0 (0.0 %)\n\
             wide: 2 of 3 weights are exactly 0 (66.7 %)\n"
        );
        let lines = [
            (-1.5, Some(12_345), "item=a".to_owned()),
            (0.25, None, "age".to_owned()),
            (0.125, Some(7), "bank & clicked=kookmin".to_owned()),
        ];
        assert_eq!(
            rules(&lines),
            "    weight    seen  rule\n \
             -1.500000  12,345  item=a\n \
             +0.250000       -  age\n \
             +0.125000       7  bank\n\
             \x20                   & clicked=kookmin\n"
        );
    }
}
