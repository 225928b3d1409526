//! What a row's target made of the history: in words, and as a heat map.

use std::collections::HashMap;
#[cfg(feature = "report")]
use std::path::Path;
use std::sync::Arc;

use crossfield_core::{AttentionWeights, FieldId, Scored};
use crossfield_data::Dataset;
#[cfg(feature = "report")]
use crossfield_report::HeatMap;
#[cfg(feature = "report")]
use crossfield_train::Error;
use crossfield_train::{Trained, in_pool};

use crate::console::WIDTH;
use crate::lists::TitleArgs;
use crate::model::Components;
use crate::run::{Anyhow, Finished};

/// Candidates of a heat map: more are too many to be told apart.
#[cfg(feature = "report")]
const CANDIDATES: usize = 12;

/// A model that was loaded, with names for what its histories hold.
pub(crate) struct Reader<'a> {
    finished: &'a Finished,
    /// By vocabulary, then key.
    titles: HashMap<String, HashMap<String, String>>,
}

/// A history as one target sees it.
struct Reading {
    weights: AttentionWeights,
    /// Indices of its items, the oldest first.
    items: Vec<u32>,
    target: u32,
}

impl<'a> Reader<'a> {
    /// With the titles of the vocabularies that `histories` are of.
    pub(crate) fn new(finished: &'a Finished, titles: &TitleArgs) -> Anyhow<Self> {
        let fields = &finished.fitted.schema().fields;
        let sequences = fields
            .iter()
            .filter(|field| field.kind == crossfield_core::FieldKind::Sequence);
        let mut all = HashMap::new();
        for field in sequences {
            let vocabulary = &field.vocabulary;
            if !all.contains_key(vocabulary) {
                all.insert(vocabulary.clone(), titles.read(finished, vocabulary)?);
            }
        }
        Ok(Self {
            finished,
            titles: all,
        })
    }

    /// What the model's components weighed for some rows.
    fn readings(
        &self,
        trained: &mut Trained<Scored<Components>>,
        data: &Dataset,
        rows: &[u32],
    ) -> Anyhow<Vec<Reading>> {
        let batch = Arc::new(data.batch(rows));
        let weights = in_pool(self.finished.run.train.threads, || {
            let (lookup, _) = trained.tables.stage(batch.clone(), &trained.device);
            crossfield_core::Component::attention(trained.model.component(), &lookup)
        })?;
        let indices = |field: FieldId, row: usize| {
            let field = &batch.sparse[field];
            field.indices[field.range(row)].to_vec()
        };
        let reading = |weights: AttentionWeights| Reading {
            items: indices(weights.history, weights.row),
            target: indices(weights.target, weights.row)[0],
            weights,
        };
        Ok(weights.into_iter().map(reading).collect())
    }

    /// The items of the histories of a row with their weights, the heaviest first.
    pub(crate) fn lines(
        &self,
        trained: &mut Trained<Scored<Components>>,
        data: &Dataset,
        row: u32,
        top: usize,
    ) -> Anyhow<String> {
        let mut text = String::new();
        for reading in self.readings(trained, data, &[row])? {
            let Reading {
                weights,
                items,
                target,
            } = reading;
            text += &format!("\n{}", self.line("asked by ", weights.target, target));
            text += "    weight  back  item\n";
            let mut places: Vec<usize> = (0..items.len()).collect();
            let size = |place: usize| weights.weights[place].abs();
            // Of equal ones the most recent is first.
            places.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(b.cmp(&a)));
            let (shown, rest) = places.split_at(top.min(places.len()));
            for &place in shown {
                let weight = weights.weights[place];
                let start = format!("{weight:>+10.6} {:>5}  ", items.len() - place);
                text += &self.line(&start, weights.history, items[place]);
            }
            if !rest.is_empty() {
                let sum: f32 = rest.iter().map(|&place| weights.weights[place]).sum();
                text += &format!("and {} smaller ones: {sum:+.6}\n", rest.len());
            }
            if items.is_empty() {
                text += "   (no history)\n";
            }
        }
        Ok(text)
    }

    /// What the data said behind `start`, and its title, on a line of its own where both are too much
    /// for one.
    fn line(&self, start: &str, field: FieldId, index: u32) -> String {
        let (name, title) = (
            self.finished.fitted.name(field, index, 1.0),
            self.title(field, index),
        );
        let before = start.chars().count();
        match title {
            None => format!("{start}{name}\n"),
            Some(title) if before + name.chars().count() + 1 + title.chars().count() <= WIDTH => {
                format!("{start}{name} {title}\n")
            }
            Some(title) => format!("{start}{name}\n{:before$}{title}\n", ""),
        }
    }

    fn title(&self, field: FieldId, index: u32) -> Option<&str> {
        let fitted = &self.finished.fitted;
        let vocabulary = &fitted.schema().fields[field].vocabulary;
        let titles = self.titles.get(vocabulary)?;
        titles
            .get(fitted.key(vocabulary, index)?)
            .map(String::as_str)
    }

    /// The title, or what the data said where there is none.
    #[cfg(feature = "report")]
    fn name(&self, field: FieldId, index: u32) -> String {
        let title = self.title(field, index).map(str::to_owned);
        title.unwrap_or_else(|| self.finished.fitted.name(field, index, 1.0))
    }

    /// Draws the weights that several rows of one history give to its items, into an SVG file.
    #[cfg(feature = "report")]
    pub(crate) fn draw(
        &self,
        trained: &mut Trained<Scored<Components>>,
        data: &Dataset,
        rows: &[u32],
        top: usize,
        file: &Path,
    ) -> Anyhow<()> {
        let map = self.map(trained, data, rows, top)?;
        let map = map.ok_or_else(|| Error::Option {
            option: "--heat-map".into(),
            reason: "the row has no history that the model weighs".into(),
        })?;
        std::fs::write(file, map.as_heat_map().svg()?).map_err(Error::io(file, "write"))?;
        Ok(())
    }

    /// The weights that several rows of one history give to its items; names of the candidates go with
    /// their predictions. The history is that of the first row; rows of another one are left out.
    /// `None` where the model weighs no history of the first row.
    #[cfg(feature = "report")]
    pub(crate) fn map(
        &self,
        trained: &mut Trained<Scored<Components>>,
        data: &Dataset,
        rows: &[u32],
        top: usize,
    ) -> Anyhow<Option<AttentionMap>> {
        use crossfield_core::Model;
        use crossfield_train::Scorer;

        let &[row, ..] = rows else { return Ok(None) };
        let first = self.readings(trained, data, &[row])?;
        let histories = first.iter().map(|reading| {
            let column = data.column(reading.weights.history);
            (column, &reading.items[..])
        });
        let histories: Vec<_> = histories.collect();
        let same = |row: &u32| {
            let mut histories = histories.iter();
            histories.all(|(column, items)| &column.indices[column.range(*row as usize)] == *items)
        };
        let asking = rows.iter().copied().filter(same).take(CANDIDATES);
        let asking: Vec<u32> = asking.collect();
        // By candidate, then history.
        let mut readings: Vec<Vec<Reading>> = asking.iter().map(|_| Vec::new()).collect();
        for reading in self.readings(trained, data, &asking)? {
            readings[reading.weights.row].push(reading);
        }
        // The items of all histories one below the other, the heaviest of them.
        let mut items: Vec<(usize, usize)> = Vec::new();
        for (nth, reading) in first.iter().enumerate() {
            items.extend((0..reading.items.len()).map(|place| (nth, place)));
        }
        if items.is_empty() {
            return Ok(None);
        }
        let weight = |at: usize, (nth, place): (usize, usize)| {
            let of_candidate: &[Reading] = &readings[at];
            of_candidate[nth].weights.weights[place]
        };
        let heaviest = |item: (usize, usize)| {
            let weights = (0..asking.len()).map(|at| weight(at, item).abs());
            weights.fold(0f32, f32::max)
        };
        items.sort_by(|&a, &b| heaviest(b).total_cmp(&heaviest(a)).then(b.cmp(&a)));
        items.truncate(top);
        items.sort_unstable();
        let names = items.iter().map(|&(nth, place)| {
            let reading = &first[nth];
            self.name(reading.weights.history, reading.items[place])
        });
        let names: Vec<String> = names.collect();
        let output = trained.output();
        let batch = Arc::new(data.batch(&asking));
        let scores = in_pool(self.finished.run.train.threads, || {
            let (lookup, _) = trained.tables.stage(batch, &trained.device);
            trained.model.score(&lookup).try_into_vec_as::<f32>()
        })?;
        let scores = scores.expect("scores are floats");
        let columns = readings.iter().zip(scores).map(|(readings, score)| {
            let target = readings.first().map_or(String::new(), |reading| {
                self.name(reading.weights.target, reading.target)
            });
            format!("{target}: {:.4}", output.prediction(score))
        });
        let columns: Vec<String> = columns.collect();
        let values: Vec<f32> = items
            .iter()
            .flat_map(|&item| (0..asking.len()).map(move |at| (at, item)))
            .map(|(at, item)| weight(at, item))
            .collect();
        Ok(Some(AttentionMap {
            items: names,
            candidates: columns,
            weights: values,
        }))
    }

    /// The rows whose history is the one that most of the first `bound` rows have, of those with at least
    /// `shortest` items; none if there is no such history that the model weighs.
    #[cfg(feature = "report")]
    pub(crate) fn most_shared(
        &self,
        trained: &mut Trained<Scored<Components>>,
        data: &Dataset,
        shortest: usize,
        bound: usize,
    ) -> Anyhow<Vec<u32>> {
        use std::collections::BTreeMap;

        if data.is_empty() {
            return Ok(Vec::new());
        }
        let Some(first) = self.readings(trained, data, &[0])?.into_iter().next() else {
            return Ok(Vec::new());
        };
        let column = data.column(first.weights.history);
        let mut of_history: BTreeMap<&[u32], Vec<u32>> = BTreeMap::new();
        for row in 0..data.len().min(bound) {
            let history = &column.indices[column.range(row)];
            if history.len() >= shortest {
                of_history.entry(history).or_default().push(row as u32);
            }
        }
        let mut found: Vec<Vec<u32>> = of_history.into_values().collect();
        // The most rows; of several such the first.
        found.sort_by_key(|rows| (std::cmp::Reverse(rows.len()), rows[0]));
        Ok(found.into_iter().next().unwrap_or_default())
    }
}

/// What several candidates look at in one history.
#[cfg(feature = "report")]
pub(crate) struct AttentionMap {
    /// Names of the items, the oldest first.
    items: Vec<String>,
    /// Names of the candidates, with their predictions.
    candidates: Vec<String>,
    /// `[items, candidates]`.
    weights: Vec<f32>,
}

#[cfg(feature = "report")]
impl AttentionMap {
    pub(crate) fn as_heat_map(&self) -> HeatMap<'_> {
        HeatMap {
            title: "What each candidate looks at in the history, oldest first",
            rows: &self.items,
            columns: &self.candidates,
            values: &self.weights,
        }
    }
}
