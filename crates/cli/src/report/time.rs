//! Where the time went.

use crossfield_data::grouped;
use crossfield_report::{Bar, Bars, Part, Picture, Section, Table};
use crossfield_train::bytes;

use super::read::Told;
use crate::run::Anyhow;

pub(super) fn section(runs: &[Told]) -> Anyhow<Section> {
    let mut parts = Vec::new();
    let (timed, without): (Vec<&Told>, Vec<&Told>) =
        runs.iter().partition(|run| !run.timings.is_empty());
    if !timed.is_empty() {
        let bars = timed.iter().map(|run| {
            let (train, other) = seconds(run);
            Bar {
                name: run.name.clone(),
                parts: vec![train, other],
                interval: None,
            }
        });
        let bars = Bars {
            title: "Time of the runs",
            axis: "seconds",
            parts: &["training", "evaluation and saving"],
            bars: bars.collect(),
        };
        let caption =
            "Seconds by the clock, added up over all epochs, without the reading of the data.";
        parts.push(Part::Table(Table {
            caption: "Clocks, rates and memory".into(),
            head: [
                "run",
                "epochs",
                "training",
                "evaluation, saving",
                "CPU time of training",
                "rows/s",
                "peak memory",
            ]
            .map(str::to_owned)
            .to_vec(),
            rows: timed.iter().map(|run| line(run)).collect(),
        }));
        parts.push(Part::Pictures(vec![Picture::bars(&bars, caption)?]));
    }
    for run in without {
        let gone = "no timing.jsonl: made by another program, or the file was removed";
        let why = run.finished().err();
        parts.push(Part::Missing(
            why.unwrap_or_else(|| format!("{}: {gone}.", run.name)),
        ));
    }
    Ok(Section {
        title: "Time".into(),
        parts,
    })
}

fn seconds(run: &Told) -> (f64, f64) {
    let timings = run.timings.iter();
    timings.fold((0.0, 0.0), |(train, other), it| {
        (train + it.train_seconds, other + it.other_seconds)
    })
}

fn line(run: &Told) -> Vec<String> {
    let (train, other) = seconds(run);
    let timings = &run.timings;
    let rows = timings
        .iter()
        .map(|it| it.examples_per_second * it.train_seconds);
    let rows: f64 = rows.sum();
    let cpu: Option<f64> = timings.iter().map(|it| it.cpu_seconds).sum();
    let memory = timings.iter().filter_map(|it| it.peak_memory).max();
    let none = || "–".to_owned();
    vec![
        run.name.clone(),
        timings.last().map_or(none(), |it| it.epoch.to_string()),
        format!("{train:.1} s"),
        format!("{other:.1} s"),
        cpu.map_or(none(), |cpu| format!("{cpu:.1} s")),
        if train > 0.0 {
            grouped((rows / train).round() as u64)
        } else {
            none()
        },
        memory.map_or(none(), bytes),
    ]
}
