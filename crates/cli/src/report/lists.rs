//! Several runs that are measured by ranked lists, on the same users.

use crossfield_core::ListFigures;
use crossfield_data::grouped;
use crossfield_report::{Difference, Part, Rows, Table, mean_of};
use crossfield_train::Error;

use super::compare::{difference_cells, p_value};
use super::read::{Lists, Told};
use crate::console::WIDTH;
use crate::run::Anyhow;

type Figure = (&'static str, fn(&ListFigures) -> f64);

/// The first is that by which one run is called the best.
const FIGURES: [Figure; 5] = [
    ("NDCG@10", |list| list.ndcg),
    ("Rec@10", |list| list.recall),
    ("MAP@10", |list| list.map),
    ("HR@10", |list| list.hit_rate),
    ("MRR@10", |list| list.mrr),
];

/// Runs that rank items, measured and compared. All figures are means over users, so that their errors
/// and those of their differences have a closed form.
pub(super) struct ComparedLists<'a> {
    runs: Vec<(&'a str, &'a Lists)>,
    best: usize,
}

impl<'a> ComparedLists<'a> {
    /// `None` for runs that are measured row by row.
    pub(super) fn of(runs: &'a [Told]) -> Anyhow<Option<Self>> {
        let lists = runs
            .iter()
            .map(|run| Some((run.name.as_str(), run.lists.as_ref()?)));
        let Some(lists) = lists.collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let (first, of_first) = lists[0];
        for &(name, of_other) in &lists[1..] {
            let counts = [of_first.each.len(), of_other.each.len()];
            if of_first.part != of_other.part || counts[0] != counts[1] {
                return Err(Error::Option {
                    option: format!("{first} {name}"),
                    reason: format!(
                        "have lists of {} users of the {} rows and of {} users of the {} rows: expected \
                         the same users",
                        counts[0], of_first.part, counts[1], of_other.part
                    ),
                }
                .into());
            }
        }
        let ndcg = |&at: &usize| mean(lists[at].1, FIGURES[0].1).estimate.value;
        let mut best = 0;
        for at in 1..lists.len() {
            if ndcg(&at) > ndcg(&best) {
                best = at;
            }
        }
        Ok(Some(Self { runs: lists, best }))
    }

    fn difference(&self, at: usize, figure: fn(&ListFigures) -> f64) -> Difference {
        let [of, best] = [at, self.best].map(|at| &self.runs[at].1.each);
        let pairs = of.iter().zip(best);
        of_users(
            pairs
                .map(|(list, best)| figure(list) - figure(best))
                .collect(),
        )
    }

    fn units(&self) -> String {
        let lists = self.runs[0].1;
        format!(
            "{} users of the {} rows",
            grouped(lists.each.len() as u64),
            lists.part
        )
    }

    /// The comparison for a terminal, no line longer than 40 characters.
    pub(super) fn text(&self) -> String {
        let mut text = self.units() + "\n";
        let others: Vec<usize> = (0..self.runs.len()).filter(|&at| at != self.best).collect();
        for (at, (name, _)) in self.runs.iter().enumerate() {
            let name: String = name.chars().take(WIDTH - 10).collect();
            let is_best = at == self.best && !others.is_empty();
            let mark = if is_best { "  best" } else { "" };
            text += &format!("{:>2}  {name}{mark}\n", at + 1);
        }
        for (name, figure) in FIGURES {
            text += &format!("\n{name:<12} 95 % interval\n");
            for (at, (_, lists)) in self.runs.iter().enumerate() {
                let it = mean(lists, figure).estimate;
                let (value, low, high) = (it.value, it.low, it.high);
                text += &format!("{:>2}  {value:.5}  {low:.5} to {high:.5}\n", at + 1);
            }
            for &at in &others {
                let it = self.difference(at, figure);
                let (value, error) = (it.estimate.value, it.estimate.error);
                let against = format!("{} − {}", at + 1, self.best + 1);
                text += &format!("{against:>5} {value:+.5} ±{error:.5} p {}\n", p_value(it.p));
            }
        }
        text
    }

    /// The same for the page.
    pub(super) fn parts(&self) -> Vec<Part> {
        let names = self.runs.iter().map(|(name, _)| (*name).to_owned());
        let estimates = FIGURES.map(|(name, figure)| {
            let cells = self.runs.iter().map(|(_, lists)| {
                let it = mean(lists, figure).estimate;
                format!("{:.5} [{:.5}, {:.5}]", it.value, it.low, it.high)
            });
            [name.to_owned()].into_iter().chain(cells).collect()
        });
        let mut parts = vec![
            Part::Text(format!(
                "On {}, a list each. Figures are means over users, and the intervals those of a mean: how \
                 far the figure would move with other users of the same kind.",
                self.units()
            )),
            Part::Table(Table {
                caption: "Figure [95 % interval]".into(),
                head: ["figure".to_owned()].into_iter().chain(names).collect(),
                rows: estimates.to_vec(),
            }),
        ];
        if self.runs.len() > 1 {
            let best = self.runs[self.best].0;
            parts.push(Part::Text(format!(
                "Each run against {best}, whose NDCG@10 is the highest, user by user, so that what makes \
                 users hard for every model cancels out. p is how often chance alone would give as large \
                 a difference, were there none; the best was picked on these same users, which flatters \
                 it a little."
            )));
            let mut rows = Vec::new();
            for (at, (run, _)) in self
                .runs
                .iter()
                .enumerate()
                .filter(|&(at, _)| at != self.best)
            {
                for (name, figure) in FIGURES {
                    rows.push(difference_cells(
                        format!("{run}, {name}"),
                        self.difference(at, figure),
                    ));
                }
            }
            parts.push(Part::Table(Table {
                caption: "Paired differences".into(),
                head: ["run, figure", "difference", "SE", "95 % interval", "p"]
                    .map(str::to_owned)
                    .to_vec(),
                rows,
            }));
        }
        parts
    }
}

fn mean(lists: &Lists, figure: fn(&ListFigures) -> f64) -> Difference {
    of_users(lists.each.iter().map(figure).collect())
}

/// The mean of a number a user, with its error.
fn of_users(numbers: Vec<f64>) -> Difference {
    let labels = vec![0.0; numbers.len()];
    let rows = Rows {
        labels: &labels,
        weights: None,
        groups: None,
        is_probability: false,
    };
    mean_of(rows, &numbers)
}
