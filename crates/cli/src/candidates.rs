//! `eval --candidates`: ranked lists of given items, as published where the whole catalogue is not
//! ranked.

use std::path::Path;
use std::sync::Arc;

use crossfield_core::metrics::Report;
use crossfield_data::Dataset;
use crossfield_embedding::{Candidates, evaluate_candidates};
use crossfield_train::{Error, PLACES};

use crate::mf::{held_out, read_parameters, vectors};
use crate::next_item::Sequences;
use crate::run::{Anyhow, Finished};

/// A user, their candidates and what of them they wanted.
struct List {
    user: u32,
    items: Vec<u32>,
    relevant: Vec<u32>,
}

/// Measures the lists of the users of `data`: what of it is positive, among the candidates.
pub(crate) fn evaluate(finished: &Finished, data: &Arc<Dataset>, file: &Path) -> Anyhow<Report> {
    let run = &finished.run;
    let refuse = |reason: String| -> Box<dyn std::error::Error> {
        let option = format!("--candidates {}", file.display());
        Box::new(Error::Option { option, reason })
    };
    if let Some(mut sequences) = Sequences::open(finished)? {
        let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
        let lists = (1..).zip(text.lines()).filter_map(|(number, line)| {
            let mut keys = line.split_whitespace();
            Some((number, keys.next()?, keys.collect()))
        });
        return sequences.evaluate(data, lists);
    }
    let mf = run.model.only_mf();
    let Some(config) = mf.filter(|_| run.train.loss.of_rows().is_none()) else {
        let reason = "the run is measured row by row: expected one of loss = \"wrmf\" or \"bpr\"";
        return Err(refuse(reason.into()));
    };
    let schema = finished.fitted.schema();
    let [users, items] = config
        .fields(schema)?
        .map(|field| schema.fields[field].vocabulary.as_str());
    let (tables, sets) = read_parameters(finished, config)?;
    let wanted = held_out(&tables, data, schema)?;
    let unknown = schema.fields[tables.fields()[1]].oov_row;

    let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
    let mut lists = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut keys = line.split_whitespace();
        let Some(user) = keys.next() else { continue };
        let Some(user) = finished.fitted.row(users, user) else {
            return Err(refuse(format!(
                "line {number}: user `{user}` is not in the training rows"
            )));
        };
        let relevant = wanted.by_user().row(user as usize).0.to_vec();
        // What training does not have has no vector and is not listed; held out, it counts as missed.
        let known = keys.filter_map(|key| finished.fitted.row(items, key));
        let all = known.chain(relevant.iter().copied());
        let mut candidates: Vec<u32> = all.filter(|&item| Some(item) != unknown).collect();
        candidates.sort_unstable();
        candidates.dedup();
        lists.push(List {
            user,
            items: candidates,
            relevant,
        });
    }
    let asked: Vec<Candidates<'_>> = lists
        .iter()
        .map(|list| Candidates {
            user: list.user,
            items: &list.items,
            relevant: &list.relevant,
        })
        .collect();
    if asked.iter().all(|list| list.relevant.is_empty()) {
        let reason = "none of its users has a held-out item in the data".to_owned();
        return Err(refuse(reason));
    }
    // Neither loss has draws.
    let ([users, items], bias) = vectors(&sets[0])?;
    let ranking = evaluate_candidates(&users, &items, bias, &asked, PLACES)?;
    Ok(Report {
        ranking: Some(ranking),
        rows: data.len() as u64,
        ..Report::default()
    })
}
