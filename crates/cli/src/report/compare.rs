//! Several runs on the same rows.

use crossfield_data::grouped;
use crossfield_report::{Comparison, Difference, Estimate, Figure, Part, Section, Table, paired};
use crossfield_train::Error;

use super::lists::ComparedLists;
use super::read::{Predictions, Told};
use crate::console::WIDTH;
use crate::run::Anyhow;

/// Rows beyond which fewer resamples are drawn than are asked for, each of so many rows in all.
const DRAWN: usize = 400_000_000;

/// Runs that predict rows, measured and compared.
pub(super) struct Compared {
    comparison: Comparison,
    part: &'static str,
    rows: usize,
    by_group: bool,
    /// Each run less the best by mean loss, row by row; none for the best.
    by_row: Vec<Option<Difference>>,
}

impl Compared {
    /// `None` for runs that are measured by lists.
    pub(super) fn of(runs: &[Told], resamples: usize, seed: u64) -> Anyhow<Option<Self>> {
        let [first, others @ ..] = runs else {
            return Ok(None);
        };
        for other in others {
            check_same(first, other)?;
        }
        let Some(of_first) = &first.rows else {
            return Ok(None);
        };
        let all: Vec<&Predictions> = runs.iter().filter_map(|run| run.rows.as_ref()).collect();
        // What one run knows of users holds for all: they have the same rows.
        let mut rows = of_first.rows();
        rows.groups = all.iter().find_map(|run| run.rows().groups);
        let predictions = all.iter().map(|run| &run.predicted.predictions[..]);
        let predictions: Vec<&[f64]> = predictions.collect();
        let count = rows.labels.len();
        let resamples = resamples.min((DRAWN / count.max(1)).max(200));
        let comparison = Comparison::of(rows, &predictions, resamples, seed)?;
        let best = comparison.best();
        let by_row = predictions.iter().enumerate().map(|(at, of_run)| {
            let difference = (at != best).then(|| paired(rows, of_run, predictions[best]));
            difference.transpose()
        });
        let by_row = by_row.collect::<Result<_, _>>()?;
        Ok(Some(Self {
            comparison,
            part: of_first.part,
            rows: count,
            by_group: rows.groups.is_some(),
            by_row,
        }))
    }

    /// What is resampled, in words.
    fn units(&self) -> String {
        let (rows, units) = (self.rows as u64, self.comparison.units() as u64);
        match self.by_group {
            true => format!(
                "{} {} rows, {} users drawn whole",
                grouped(rows),
                self.part,
                grouped(units)
            ),
            false => format!("{} {} rows", grouped(rows), self.part),
        }
    }

    /// The comparison for a terminal, no line longer than 40 characters.
    pub(super) fn text(&self, runs: &[Told]) -> String {
        let mut text = wrapped(&self.units());
        let best = self.comparison.best();
        for (at, run) in runs.iter().enumerate() {
            let name: String = run.name.chars().take(WIDTH - 10).collect();
            let mark = if at == best && runs.len() > 1 {
                "  best"
            } else {
                ""
            };
            text += &format!("{:>2}  {name}{mark}\n", at + 1);
        }
        for &figure in self.comparison.figures() {
            text += &format!("\n{:<12} 95 % interval\n", figure.name());
            for at in 0..runs.len() {
                if let Some(it) = self.comparison.estimate(at, figure) {
                    let Estimate {
                        value, low, high, ..
                    } = it;
                    text += &format!("{:>2}  {value:.5}  {low:.5} to {high:.5}\n", at + 1);
                }
            }
            for at in (0..runs.len()).filter(|&at| at != best) {
                if let Some(it) = self.difference(at, figure) {
                    let Estimate { value, error, .. } = it.estimate;
                    let against = format!("{} − {}", at + 1, best + 1);
                    text += &format!("{against:>5} {value:+.5} ±{error:.5} p {}\n", p_value(it.p));
                }
            }
        }
        text
    }

    fn difference(&self, at: usize, figure: Figure) -> Option<Difference> {
        // Which calibration is the better one is not a matter of more or less.
        figure.best()?;
        self.comparison
            .difference(at, self.comparison.best(), figure)
    }
}

/// Refuses runs that do not have the same rows to be measured on.
fn check_same(first: &Told, other: &Told) -> Anyhow<()> {
    let directories = [first, other].map(Told::directory);
    let refuse = |reason: String| {
        let option = format!("{} {}", directories[0], directories[1]);
        Err(Error::Option { option, reason }.into())
    };
    let (one, another) = match (&first.rows, &other.rows) {
        (Some(one), Some(another)) => (one, another),
        (None, None) => {
            return match (first.judged(), other.judged()) {
                (Some(a), Some(b)) if a.rows != b.rows => refuse(format!(
                    "are measured on {} and {} rows: expected the same test rows",
                    grouped(a.rows),
                    grouped(b.rows)
                )),
                _ => Ok(()),
            };
        }
        _ => {
            let ranks = usize::from(first.rows.is_some());
            return refuse(format!(
                "{} ranks items, and the other predicts rows: expected runs that are measured alike",
                directories[ranks]
            ));
        }
    };
    if one.part != another.part {
        return refuse(format!(
            "are measured on {} and {} rows: expected the same rows",
            one.part, another.part
        ));
    }
    let (a, b) = (&one.predicted, &another.predicted);
    if a.labels.len() != b.labels.len() {
        return refuse(format!(
            "have {} and {} {} rows: expected the same rows",
            grouped(a.labels.len() as u64),
            grouped(b.labels.len() as u64),
            one.part
        ));
    }
    let mut labels = a.labels.iter().zip(&b.labels);
    if let Some(row) = labels.position(|(a, b)| a != b) {
        return refuse(format!(
            "have other {} rows: the label of row {} is {} and {}; expected the same rows in the same \
             order",
            one.part,
            row + 1,
            a.labels[row],
            b.labels[row]
        ));
    }
    if a.is_probability != b.is_probability {
        return refuse("predict probabilities and ratings: expected the same".into());
    }
    if a.weights != b.weights {
        return refuse(format!(
            "weigh their {} rows differently: expected the same weights",
            one.part
        ));
    }
    Ok(())
}

/// The section of the page.
pub(super) fn section(
    runs: &[Told],
    compared: Option<&Compared>,
    lists: Option<&ComparedLists<'_>>,
) -> Section {
    let title = match runs.len() {
        1 => "How sure the figures are",
        _ => "Comparison",
    };
    let mut parts = Vec::new();
    match (compared, lists) {
        (None, Some(lists)) => parts.extend(lists.parts()),
        (None, None) => parts.push(Part::Missing(
            "Nothing is left of the runs to measure them by.".into(),
        )),
        (Some(compared), _) => {
            parts.push(Part::Text(format!(
                "On {}. The intervals hold 95 % of {} resamples with replacement: how far the figure \
                 would move on other rows of the same kind.",
                compared.units(),
                grouped(compared.comparison.resamples() as u64)
            )));
            parts.push(Part::Table(estimates(runs, compared)));
            if runs.len() > 1 {
                let best = &runs[compared.comparison.best()].name;
                let figure = compared.comparison.figures()[0].name();
                parts.push(Part::Text(format!(
                    "Each run against {best}, whose {figure} is the lowest. All runs are measured on the \
                     same resamples, so that what makes rows hard for every model cancels out: a \
                     difference can be sure where the intervals above overlap. p is how often chance \
                     alone would give as large a difference, were there none; the best was picked on \
                     these same rows, which flatters it a little."
                )));
                parts.push(Part::Table(differences(runs, compared)));
            }
        }
    }
    Section {
        title: title.into(),
        parts,
    }
}

fn estimates(runs: &[Told], compared: &Compared) -> Table {
    let row = |&figure: &Figure| {
        let cells = (0..runs.len()).map(|at| match compared.comparison.estimate(at, figure) {
            Some(it) => format!("{:.5} [{:.5}, {:.5}]", it.value, it.low, it.high),
            None => "–".to_owned(),
        });
        let name = figure.name().to_owned();
        [name].into_iter().chain(cells).collect()
    };
    let names = runs.iter().map(|run| run.name.clone());
    Table {
        caption: "Figure [95 % interval]".into(),
        head: ["figure".to_owned()].into_iter().chain(names).collect(),
        rows: compared.comparison.figures().iter().map(row).collect(),
    }
}

fn differences(runs: &[Told], compared: &Compared) -> Table {
    let best = compared.comparison.best();
    let mut rows = Vec::new();
    for (at, run) in runs.iter().enumerate().filter(|&(at, _)| at != best) {
        for &figure in compared.comparison.figures() {
            if let Some(it) = compared.difference(at, figure) {
                rows.push(difference_cells(
                    format!("{}, {}", run.name, figure.name()),
                    it,
                ));
            }
        }
        if let Some(it) = compared.by_row[at] {
            let loss = match runs[best].rows.as_ref() {
                Some(rows) if rows.predicted.is_probability => "logloss",
                _ => "squared error",
            };
            rows.push(difference_cells(format!("{}, {loss} by row", run.name), it));
        }
    }
    Table {
        caption: "Paired differences; “by row” is the closed form of a mean, without resampling"
            .into(),
        head: ["run, figure", "difference", "SE", "95 % interval", "p"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    }
}

/// A line of a table of differences: name, difference, standard error, interval, p.
pub(super) fn difference_cells(name: String, it: Difference) -> Vec<String> {
    let Estimate {
        value,
        error,
        low,
        high,
    } = it.estimate;
    vec![
        name,
        format!("{value:+.5}"),
        format!("{error:.5}"),
        format!("[{low:+.5}, {high:+.5}]"),
        p_value(it.p),
    ]
}

pub(super) fn p_value(p: f64) -> String {
    match p < 0.001 {
        true => "<0.001".into(),
        false => format!("{p:.3}"),
    }
}

/// Words on lines of at most 40 characters.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let letters = word.chars().count();
        if length > 0 && length + 1 + letters > WIDTH {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines += word;
        length += letters;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_before_a_word_that_is_too_much() {
        let text = wrapped("20,000 test rows, 943 users drawn whole, and more");
        assert_eq!(text, "20,000 test rows, 943 users drawn whole,\nand more\n");
    }
}
