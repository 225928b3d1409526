//! What a person sees of a run.

use std::io::IsTerminal;

use crossfield_core::metrics::{AucMethod, Report};
use crossfield_data::{Progress, grouped};
use crossfield_train::{Evaluation, FinalMetrics, Observer, State, Timing, bytes};
use indicatif::{ProgressBar, ProgressStyle};

/// Progress on stderr: a bar on a terminal, a line an epoch elsewhere.
pub(crate) struct Console {
    epochs: usize,
    batch_size: usize,
    bar: Option<ProgressBar>,
    epoch: usize,
}

impl Console {
    pub(crate) fn new(epochs: usize, batch_size: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent}% {msg} {eta}");
            ProgressBar::new(1).with_style(style.expect("the template is well-formed"))
        });
        Self {
            epochs,
            batch_size,
            bar,
            epoch: 0,
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Console {
    fn resumed(&mut self, state: &State) {
        self.say(&format!(
            "resumed after epoch {}, step {}",
            state.epoch, state.step
        ));
    }

    fn stepped(&mut self, epoch: usize, step: usize, steps: usize, loss: f64) {
        let Some(bar) = &self.bar else { return };
        // Where an epoch is one step, the bar is of the run.
        let whole_run = steps == 1;
        if epoch != self.epoch {
            if !(whole_run && self.epoch > 0) {
                bar.reset();
            }
            self.epoch = epoch;
            bar.set_length(if whole_run { self.epochs } else { steps } as u64);
            bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
        }
        bar.set_position(if whole_run { epoch } else { step } as u64);
        let rate = bar.per_sec() * self.batch_size as f64;
        bar.set_message(format!("loss {loss:.4} {} rows/s", thousands(rate)));
    }

    fn evaluated(&mut self, evaluation: &Evaluation, timing: &Timing) {
        let valid = evaluation.valid.as_ref();
        let before = evaluation.progressive.as_ref();
        let ranking = valid.and_then(|valid| valid.ranking.as_ref());
        let figure = |name: &str, value: Option<f64>| {
            value.map_or(String::new(), |value| format!("  {name} {value:.5}"))
        };
        self.say(&format!(
            "epoch {}/{}  train {:.5}{}{}{}{}{}{}  {:.1} s, {} rows/s",
            evaluation.epoch,
            self.epochs,
            evaluation.train_loss,
            figure(
                "before",
                before.and_then(|before| before.logloss.or(before.rmse))
            ),
            figure("AUC", before.and_then(|before| before.auc)),
            figure("valid", valid.and_then(|valid| valid.logloss)),
            figure("rmse", valid.and_then(|valid| valid.rmse)),
            figure("AUC", valid.and_then(|valid| valid.auc)),
            figure("NDCG@10", ranking.map(|ranking| ranking.ndcg)),
            timing.train_seconds,
            thousands(timing.examples_per_second),
        ));
        if evaluation.epoch == self.epochs {
            self.clear();
        }
    }

    fn admitted(&mut self, vocabulary: &str, keys: usize, size: u64) {
        let size = bytes(size);
        self.say(&format!(
            "keys of {vocabulary}: {keys} with a row, {size} with the counts of others"
        ));
    }

    fn stopped_early(&mut self, best: usize) {
        self.clear();
        self.say(&format!(
            "back to epoch {best}, the best on the validation part"
        ));
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Passes over files on stderr: rows as they are read on a terminal, a line a pass elsewhere.
pub(crate) struct Reading {
    bar: Option<ProgressBar>,
    last: Option<Progress>,
}

impl Reading {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(ProgressBar::no_length);
        let style = ProgressStyle::with_template("{msg} {per_sec}");
        let style = style.expect("the template is well-formed");
        Self {
            bar: bar.map(|bar| bar.with_style(style)),
            last: None,
        }
    }

    pub(crate) fn see(&mut self, at: Progress) {
        if self.last.is_some_and(|last| last.pass != at.pass) {
            self.end_pass();
        }
        if let Some(bar) = &self.bar {
            bar.set_position(at.rows);
            bar.set_message(line(at));
        }
        self.last = Some(at);
    }

    fn end_pass(&mut self) {
        let Some(last) = self.last.take() else { return };
        match &self.bar {
            Some(bar) => {
                bar.suspend(|| eprintln!("{}", line(last)));
                bar.reset();
            }
            None => eprintln!("{}", line(last)),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.end_pass();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(at: Progress) -> String {
    let Progress { pass, passes, rows } = at;
    format!("pass {pass} of {passes}: {} rows", grouped(rows))
}

/// `33 k`, `1.2 M`.
fn thousands(count: f64) -> String {
    match count {
        1e6.. => format!("{:.1} M", count / 1e6),
        1e3.. => format!("{:.0} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}

/// A figure: its name, the digits behind the point, and where it is in a report.
pub(crate) type Column = (&'static str, usize, fn(&Report) -> Option<f64>);

/// What tables have columns of, where the figure applies.
pub(crate) const FIGURES: [Column; 14] = [
    ("logloss", 5, |report| report.logloss),
    ("AUC", 5, |report| report.auc),
    ("GAUC", 5, |report| report.gauc),
    ("NE", 4, |report| report.normalized_entropy),
    ("calib.", 4, |report| report.calibration),
    ("ECE", 4, |report| report.ece),
    ("RMSE", 5, |report| report.rmse),
    ("MAE", 5, |report| report.mae),
    ("Rec@10", 4, |report| Some(report.ranking.as_ref()?.recall)),
    ("NDCG@10", 4, |report| Some(report.ranking.as_ref()?.ndcg)),
    ("MAP@10", 4, |report| Some(report.ranking.as_ref()?.map)),
    ("HR@10", 4, |report| Some(report.ranking.as_ref()?.hit_rate)),
    ("MRR@10", 4, |report| Some(report.ranking.as_ref()?.mrr)),
    ("cover", 4, |report| Some(report.ranking.as_ref()?.coverage)),
];

/// A table of reports, one a line.
pub(crate) fn table(rows: &[(&str, &Report)]) -> String {
    let columns: Vec<&Column> = FIGURES
        .iter()
        .filter(|(_, _, figure)| rows.iter().any(|(_, report)| figure(report).is_some()))
        .collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}", "");
    for (name, ..) in &columns {
        text += &format!(" {name:>8}");
    }
    text += &format!(" {:>10}\n", "rows");
    for (name, report) in rows {
        text += &format!("{name:width$}");
        for (_, digits, figure) in &columns {
            text += &match figure(report) {
                Some(value) => format!(" {value:>8.digits$}"),
                None => format!(" {:>8}", "-"),
            };
        }
        text += &format!(" {:>10}\n", report.rows);
    }
    if rows
        .iter()
        .any(|(_, report)| report.auc_method == Some(AucMethod::Bucketed))
    {
        text += "AUC from bucketed scores: not all rows are kept, which the exact one needs\n";
    }
    text
}

/// The end of a run: its figures beside the constant predictor's and, where the truth is known,
/// the best possible ones.
pub(crate) fn summary(metrics: &FinalMetrics) -> String {
    let ranks = |report: &Report| report.ranking.is_some();
    let constant = match &metrics.constant {
        Some(report) if ranks(report) => "popularity",
        _ => "constant",
    };
    let rows = [
        ("train", &metrics.train),
        ("before", &metrics.progressive),
        ("valid", &metrics.valid),
        ("test", &metrics.test),
        (constant, &metrics.constant),
        ("Bayes-optimal", &metrics.bayes),
    ];
    let rows: Vec<(&str, &Report)> = rows
        .iter()
        .filter_map(|(name, report)| Some((*name, report.as_ref()?)))
        .collect();
    let mut text = table(&rows);
    let held_out = metrics.test.as_ref().or(metrics.valid.as_ref());
    let logloss = |report: Option<&Report>| report?.logloss;
    if let (Some(model), Some(constant), Some(bayes)) = (
        logloss(held_out),
        logloss(metrics.constant.as_ref()),
        logloss(metrics.bayes.as_ref()),
    ) {
        let share = 100.0 * (constant - model) / (constant - bayes);
        text += &format!("closed {share:.1} % of the gap from constant to Bayes-optimal logloss\n");
    }
    text
}

/// `tables: 12.3 MB of weights + 12.3 MB of optimizer state`.
pub(crate) fn memory_line(weights: u64, state: u64) -> String {
    format!(
        "tables: {} of weights + {} of optimizer state = {}",
        bytes(weights),
        bytes(state),
        bytes(weights + state)
    )
}

/// What mapped tables take: bytes of their files, and of these in memory at most.
pub(crate) fn mapped_line(files: u64, left: u64) -> String {
    format!(
        "mapped: files of {} in the run directory until it is finished; up to {} of them in memory\n",
        bytes(files),
        bytes(left.min(files))
    )
}

/// Characters of a line on a narrow terminal.
pub(crate) const WIDTH: usize = 40;

/// What ` & ` joins, on one line where that is narrow enough behind `before` characters, else a part
/// a line, the others below the first.
pub(crate) fn joined(before: usize, name: &str) -> String {
    if before + name.chars().count() <= WIDTH {
        return name.to_owned();
    }
    name.replace(" & ", &format!("\n{:before$}& ", ""))
}

/// A number with nine significant digits.
pub(crate) fn nine_digits(value: f64) -> String {
    let scientific = format!("{value:.8e}");
    let exponent: i32 = scientific
        .split_once('e')
        .and_then(|(_, exponent)| exponent.parse().ok())
        .unwrap_or(0);
    match exponent {
        -5..=8 => format!("{value:.*}", (8 - exponent) as usize),
        _ => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_nine_significant_digits() {
        assert_eq!(nine_digits(0.123_456_789_4), "0.123456789");
        assert_eq!(nine_digits(0.000_123_456_789_4), "0.000123456789");
        assert_eq!(nine_digits(3.5), "3.50000000");
        assert_eq!(nine_digits(-12.0), "-12.0000000");
        assert_eq!(nine_digits(1.5e-9), "1.50000000e-9");
        assert_eq!(nine_digits(0.0), "0.00000000");
    }

    #[test]
    fn the_table_shows_only_figures_that_apply() {
        let report = Report {
            rmse: Some(0.92),
            mae: Some(0.73),
            rows: 10,
            ..Report::default()
        };
        assert_eq!(
            table(&[("test", &report)]),
            "         RMSE      MAE       rows\ntest  0.92000  0.73000         10\n"
        );
    }
}
