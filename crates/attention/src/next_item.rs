//! What is trained to find the next item of a sequence among all.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData, activation};
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{
    Batch, ComponentConfig, Error, Init, Jagged, Link, Lookup, Model, Ragged, RankedItems, Ranker,
    Schema, TableConfig, TableField, Targets, TrainingStep, check_option, gather,
};
use rand::RngExt;

use crate::softmax_loss::{SoftmaxTerms, softmax_loss};
use crate::{SasRec, SasRecConfig};

/// What a [`NextItem`] minimises at every position, given its next item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NextItemLoss {
    /// `ln Z − s`, the next item's score `s` against all items, or against some that are drawn.
    ///
    /// ```text
    /// Z = exp(s) + Σ_j exp(s_j − ln(N q_j))
    /// ```
    ///
    /// over the N draws that are not the next item itself, where `q_j` is the probability by which item
    /// j is drawn: in expectation the sum over all other items. The draws are shared by the positions of
    /// a batch.
    ///
    /// # Source
    /// Bengio, Senécal, *Quick Training of Probabilistic Neural Nets by Importance Sampling*, AISTATS
    /// 2003, where the classes are drawn; the next item is there for certain.
    #[default]
    SampledSoftmax,
    /// `−ln σ(s − s_j)`, the mean over the items j that are drawn for the position, none of which the
    /// row has: neither in its history nor as its target.
    ///
    /// # Source
    /// Rendle et al., *BPR*, UAI 2009, section 4.
    Bpr,
}

/// Configuration of a [`NextItem`].
///
/// The example of the [crate] takes a step with one.
#[derive(Clone, Debug, PartialEq)]
pub struct NextItemConfig {
    /// What reads histories.
    pub encoder: SasRecConfig,
    /// What is minimised.
    pub loss: NextItemLoss,
    /// Items that are drawn: for a batch (softmax; 0: all items are taken instead), or for each
    /// position (BPR; 1 or more).
    pub negatives: usize,
    /// An item is drawn in proportion to (its number of occurrences)^`power`: 0 draws each item as
    /// often as any other.
    pub power: f64,
}

impl Default for NextItemConfig {
    fn default() -> Self {
        Self {
            encoder: SasRecConfig::default(),
            loss: NextItemLoss::SampledSoftmax,
            negatives: 1024,
            power: 0.0,
        }
    }
}

/// Finds the next item: a row is a sequence, its history and the item after that, and at each of its
/// positions the next item is to score above others.
///
/// ```text
/// history  a b c    target  d
/// asked    a → b    a b → c    a b c → d
/// ```
///
/// The score of item j at a position is ⟨h, v_j⟩, with h of the [`SasRec`] and the vectors that it
/// reads. The loss is the mean over the positions of the batch, each weighted by the weight of its
/// row. A row whose label is 0 asks nothing, nor does a position whose next item is not known to the
/// vocabulary. The score of a row is that of its target.
///
/// Negatives are drawn at each step into one more field behind those of the schema, from streams
/// that are keyed by seed and step. For a row that has every item BPR draws nothing.
#[derive(Module, Debug)]
pub struct NextItem {
    encoder: SasRec,
    #[module(skip)]
    loss: NextItemLoss,
    #[module(skip)]
    negatives: usize,
    #[module(skip)]
    sampler: Sampler,
    #[module(skip)]
    drawn: TableField,
    #[module(skip)]
    items: RankedItems,
}

impl NextItemConfig {
    /// The tables of the encoder, read by one more field: that of the negatives.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration under this schema.
    pub fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        self.check()?;
        let mut tables = self.encoder.tables(schema)?;
        for table in &mut tables {
            table.fields.push(schema.fields.len());
        }
        Ok(tables)
    }

    /// The items that the model ranks.
    ///
    /// # Errors
    /// As [`tables`](Self::tables).
    pub fn items(&self, schema: &Schema) -> Result<RankedItems, Error> {
        self.encoder.items(schema)
    }

    /// Makes the model. `counts` are how often each item of the vocabulary occurs in training; only
    /// a model that is trained needs them, and an item without a count was seen never.
    ///
    /// # Errors
    /// As [`tables`](Self::tables).
    pub fn init(&self, schema: &Schema, init: &Init, counts: &[u64]) -> Result<NextItem, Error> {
        self.check()?;
        let encoder = self.encoder.init(schema, init)?;
        let items = self.items(schema)?;
        let rows = schema.fields[items.target].rows as usize;
        Ok(NextItem {
            loss: self.loss,
            negatives: self.negatives,
            sampler: Sampler::new(rows, items.hidden, counts, self.power),
            drawn: TableField {
                table: items.table.clone(),
                field: schema.fields.len(),
            },
            items,
            encoder,
        })
    }

    fn check(&self) -> Result<(), Error> {
        let (name, power) = (&self.encoder.name, self.power);
        let good = self.negatives > 0 || self.loss == NextItemLoss::SampledSoftmax;
        check_option(name, "negatives", self.negatives, good, "1 or more for bpr")?;
        let good = power >= 0.0 && power.is_finite();
        check_option(name, "power", power, good, "a number of at least 0")
    }
}

/// Draws items.
#[derive(Clone, Debug)]
struct Sampler {
    /// Σ of the weights of the items up to each.
    cumulative: Arc<[f64]>,
    /// How many items have a weight.
    drawable: usize,
    hidden: Option<u32>,
}

impl Sampler {
    fn new(rows: usize, hidden: Option<u32>, counts: &[u64], power: f64) -> Self {
        let weight = |row: usize| {
            let count = counts.get(row).copied().unwrap_or(0) as f64;
            if hidden == Some(row as u32) {
                0.0
            } else {
                count.powf(power)
            }
        };
        let (mut sum, mut drawable) = (0.0, 0);
        let cumulative = (0..rows).map(weight).map(|weight| {
            sum += weight;
            drawable += usize::from(weight > 0.0);
            sum
        });
        Self {
            cumulative: cumulative.collect(),
            drawable,
            hidden,
        }
    }

    fn total(&self) -> f64 {
        self.cumulative.last().copied().unwrap_or(0.0)
    }

    fn draw(&self, rng: &mut impl RngExt) -> u32 {
        let at = rng.random::<f64>() * self.total();
        // A product that is rounded up to the whole sum is of the last item that has a weight.
        let item = self.cumulative.partition_point(|&sum| sum <= at);
        let last = self.cumulative.partition_point(|&sum| sum < self.total());
        item.min(last) as u32
    }

    /// ln of the probability by which an item is drawn.
    fn log_probability(&self, item: u32) -> f64 {
        let item = item as usize;
        let before = if item == 0 {
            0.0
        } else {
            self.cumulative[item - 1]
        };
        ((self.cumulative[item] - before) / self.total()).ln()
    }

    /// Every item.
    fn all(&self) -> impl Iterator<Item = u32> {
        (0..self.cumulative.len() as u32).filter(|&item| Some(item) != self.hidden)
    }
}

/// The positions of a batch that ask for a next item.
struct Asked {
    /// The rows of the leaf that the next items have.
    next: Vec<u32>,
    /// How much each position counts.
    weights: Vec<f32>,
}

impl NextItem {
    /// What reads histories.
    pub fn encoder(&self) -> &SasRec {
        &self.encoder
    }

    fn asked(&self, x: &Lookup, targets: &Targets) -> Asked {
        let (history, target) = (self.encoder.history(), self.encoder.target());
        let (of_history, of_target) = (x.rows_of(history), x.rows_of(target));
        let (histories, wanted) = (
            &x.batch().sparse[history.field],
            &x.batch().sparse[target.field],
        );
        let mut asked = Asked {
            next: Vec::with_capacity(of_history.len()),
            weights: Vec::with_capacity(of_history.len()),
        };
        for row in 0..x.batch_size() {
            let range = histories.range(row);
            let weight = match targets.labels.get(row) {
                Some(&label) if label <= 0.0 => 0.0,
                _ => targets.weights.as_ref().map_or(1.0, |weights| weights[row]),
            };
            let places = range
                .clone()
                .skip(1)
                .map(|at| (of_history[at], histories.indices[at]));
            let target = (of_target[row], wanted.indices[row]);
            let places = places.chain((!range.is_empty()).then_some(target));
            for (place, item) in places {
                let known = Some(item) != self.items.hidden;
                asked.next.push(place);
                asked.weights.push(if known { weight } else { 0.0 });
            }
        }
        asked
    }

    /// The probability that is taken out of the scores of drawn items, `ln(N q_j)`; zeros where all
    /// are taken.
    fn corrections(&self, drawn: &[u32]) -> Vec<f32> {
        if self.negatives == 0 {
            return vec![0.0; drawn.len()];
        }
        let count = (self.negatives as f64).ln();
        let log = |&item: &u32| (count + self.sampler.log_probability(item)) as f32;
        drawn.iter().map(log).collect()
    }

    fn softmax(&self, x: &Lookup, h: Tensor<2>, asked: Asked) -> Tensor<1> {
        let drawn = x.rows_of(&self.drawn);
        let items = &x.batch().sparse[self.drawn.field].indices;
        // Which draws each next item is among.
        let mut by_row: Vec<(u32, u32)> = drawn.iter().copied().zip(0..).collect();
        by_row.sort_unstable();
        let mut hits = Vec::new();
        for (position, &next) in (0..).zip(&asked.next) {
            let first = by_row.partition_point(|&(row, _)| row < next);
            let same = by_row[first..].iter().take_while(|&&(row, _)| row == next);
            hits.extend(same.map(|&(_, nth)| (position, nth)));
        }
        let terms = SoftmaxTerms {
            corrections: self.corrections(items),
            hits,
            weights: asked.weights,
        };
        let next = x.rows_at(self.encoder.target(), asked.next);
        softmax_loss(h, next, x.rows_at(&self.drawn, drawn), terms)
    }

    fn bpr(&self, x: &Lookup, h: &Ragged, asked: Asked) -> Tensor<1> {
        let drawn = &x.batch().sparse[self.drawn.field];
        // The position that each draw is for.
        let positions = (0..x.batch_size()).flat_map(|row| {
            let range = h.segments.range(row);
            let each = drawn.range(row).len() / range.len().max(1);
            range.flat_map(move |position| std::iter::repeat_n(position as u32, each))
        });
        let positions: Vec<u32> = positions.collect();
        let weights: Vec<f32> = positions
            .iter()
            .map(|&position| asked.weights[position as usize])
            .collect();
        let total = weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        if positions.is_empty() {
            return nothing(x);
        }
        let next = positions
            .iter()
            .map(|&position| asked.next[position as usize])
            .collect();
        let better = x.rows_at(self.encoder.target(), next);
        let worse = x.rows_at(&self.drawn, x.rows_of(&self.drawn));
        let h = gather(h.values.clone(), positions, 1);
        let ahead = (h * (better - worse)).sum_dim(1);
        let device = ahead.device();
        let shape = [weights.len(), 1];
        let weights = Tensor::<2>::from_data(TensorData::new(weights, shape), &device);
        (activation::log_sigmoid(ahead).neg() * weights)
            .sum_dim(0)
            .div_scalar(total)
            .reshape([1])
    }
}

/// The loss of a batch that asks nothing: 0, of the leaves so that there is a graph to go back.
fn nothing(x: &Lookup) -> Tensor<1> {
    let sums = x.leaves().iter().map(|leaf| leaf.rows.clone().sum());
    let sum = sums.reduce(|a, b| a + b).expect("a model has a table");
    sum.mul_scalar(0.0)
}

impl Model for NextItem {
    fn loss(&self, x: &Lookup, targets: &Targets) -> Tensor<1> {
        let Some(h) = self.encoder.encode(x) else {
            return nothing(x);
        };
        let asked = self.asked(x, targets);
        match self.loss {
            NextItemLoss::SampledSoftmax => self.softmax(x, h.values, asked),
            NextItemLoss::Bpr => self.bpr(x, &h, asked),
        }
    }

    fn score(&self, x: &Lookup) -> Tensor<2> {
        crossfield_core::Component::forward(&self.encoder, x)
    }

    fn link(&self) -> Link {
        Link::Identity
    }

    fn draw(&self, batch: &mut Batch, at: TrainingStep) {
        let mut rng = rng(at.seed, Purpose::Negatives, at.epoch, at.step);
        let mut indices = Vec::new();
        let mut offsets = vec![0];
        match self.loss {
            NextItemLoss::SampledSoftmax => {
                if self.negatives == 0 {
                    indices.extend(self.sampler.all());
                } else {
                    indices.extend((0..self.negatives).map(|_| self.sampler.draw(&mut rng)));
                }
                // They lie in the first row, and belong to all.
                offsets.resize(batch.batch_size + 1, indices.len() as u32);
            }
            NextItemLoss::Bpr => {
                let (history, target) = (self.encoder.history().field, self.encoder.target().field);
                for row in 0..batch.batch_size {
                    let history = &batch.sparse[history];
                    let mut has = history.indices[history.range(row)].to_vec();
                    let count = has.len() * self.negatives;
                    has.push(batch.sparse[target].indices[row]);
                    has.sort_unstable();
                    has.dedup();
                    if has.len() < self.sampler.drawable {
                        let draws = std::iter::repeat_with(|| self.sampler.draw(&mut rng));
                        let new = draws.filter(|item| has.binary_search(item).is_err());
                        indices.extend(new.take(count));
                    }
                    offsets.push(indices.len() as u32);
                }
            }
        }
        batch.sparse.push(Jagged {
            indices,
            offsets: Some(offsets),
            weights: None,
        });
    }

    fn ranker(&self) -> Option<&dyn Ranker> {
        Some(self)
    }
}

impl Ranker for NextItem {
    fn items(&self) -> &RankedItems {
        &self.items
    }

    fn queries(&self, x: &Lookup) -> Tensor<2> {
        self.encoder.last(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Positions;
    use crate::test_support::{init, values};
    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use crossfield_core::{Field, FieldKind};
    use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};

    const ROWS: u32 = 9;

    fn schema() -> Schema {
        let field = |name: &str, kind| Field {
            name: name.into(),
            kind,
            vocabulary: "item".into(),
            rows: ROWS,
            oov_row: Some(0),
        };
        Schema {
            fields: vec![
                field("history", FieldKind::Sequence),
                field("item", FieldKind::Categorical),
            ],
            dense: vec![],
        }
    }

    fn config(loss: NextItemLoss, negatives: usize) -> NextItemConfig {
        NextItemConfig {
            encoder: SasRecConfig {
                embedding_dim: 4,
                blocks: 1,
                dropout: 0.0,
                init_std: 0.4,
                positions: Positions::FromStart,
                ..SasRecConfig::default()
            },
            loss,
            negatives,
            power: 0.0,
        }
    }

    fn made(config: &NextItemConfig, device: &Device) -> (NextItem, EmbeddingCollection) {
        let model = config.init(&schema(), &init(device.clone()), &[1; ROWS as usize]);
        let plan = |table| TablePlan::new(table, RowOptimizer::default());
        let plans: Vec<TablePlan> = config
            .tables(&schema())
            .unwrap()
            .into_iter()
            .map(plan)
            .collect();
        (model.unwrap(), EmbeddingCollection::new(&plans, 1).unwrap())
    }

    const HISTORIES: [&[u32]; 4] = [&[1, 2, 3], &[], &[4], &[5, 0, 6]];
    const TARGETS: [u32; 4] = [4, 2, 8, 7];

    fn jagged(rows: &[&[u32]]) -> Jagged {
        let mut offsets = vec![0];
        for row in rows {
            offsets.push(offsets[offsets.len() - 1] + row.len() as u32);
        }
        Jagged {
            indices: rows.concat(),
            offsets: Some(offsets),
            weights: None,
        }
    }

    /// Four rows; the second has no history, the third counts twice, the fourth has an unknown item.
    fn batch() -> Batch {
        Batch {
            batch_size: 4,
            sparse: vec![jagged(&HISTORIES), Jagged::one_hot(TARGETS.to_vec())],
            targets: Targets {
                labels: vec![1.0; 4],
                weights: Some(vec![1.0, 1.0, 2.0, 1.0]),
                ..Targets::default()
            },
            ..Batch::default()
        }
    }

    fn at(step: u64) -> TrainingStep {
        TrainingStep {
            seed: 1,
            epoch: 0,
            step,
        }
    }

    fn loss_of(model: &NextItem, tables: &mut EmbeddingCollection, batch: Batch) -> f32 {
        let targets = batch.targets.clone();
        let (x, _) = tables.stage(Arc::new(batch), &Device::flex());
        model.loss(&x, &targets).into_scalar::<f32>()
    }

    /// Each position that asks: its next item, its weight, and the scores of all items there.
    fn asked(model: &NextItem, tables: &mut EmbeddingCollection) -> Vec<(u32, f64, Vec<f64>)> {
        let device = Device::flex();
        let mut all = Vec::new();
        for (row, history) in HISTORIES.iter().enumerate() {
            for length in 1..=history.len() {
                // The position as the last of a sequence of its own, against each item as the target.
                let scores = (0..ROWS).map(|item| {
                    let alone = Batch {
                        batch_size: 1,
                        sparse: vec![jagged(&[&history[..length]]), Jagged::one_hot(vec![item])],
                        ..Batch::default()
                    };
                    let (x, _) = tables.stage(Arc::new(alone), &device);
                    f64::from(values(model.score(&x))[0])
                });
                let scores = scores.collect();
                let next = history.get(length).copied().unwrap_or(TARGETS[row]);
                let weight = if next == 0 {
                    0.0
                } else {
                    [1.0, 1.0, 2.0, 1.0][row]
                };
                all.push((next, weight, scores));
            }
        }
        all
    }

    fn mean(terms: impl Iterator<Item = (f64, f64)>) -> f64 {
        let (sum, total) = terms.fold((0.0, 0.0), |(sum, total), (weight, loss)| {
            (sum + weight * loss, total + weight)
        });
        sum / total
    }

    #[test]
    fn the_full_softmax_is_a_loop_over_positions_and_items() {
        let (model, mut tables) = made(&config(NextItemLoss::SampledSoftmax, 0), &Device::flex());
        let mut batch = batch();
        model.draw(&mut batch, at(0));
        let got = loss_of(&model, &mut tables, batch);
        let positions = asked(&model, &mut tables);
        assert_eq!(positions.len(), 7);
        let expected = mean(positions.iter().map(|(next, weight, scores)| {
            let z: f64 = (1..ROWS as usize).map(|item| scores[item].exp()).sum();
            (*weight, z.ln() - scores[*next as usize])
        }));
        assert_relative_eq!(f64::from(got), expected, max_relative = 1e-5);
    }

    #[test]
    fn a_sample_of_all_items_is_the_full_softmax() {
        let full = config(NextItemLoss::SampledSoftmax, 0);
        // As many uniform draws as there are items: each stands for itself.
        let sampled = config(NextItemLoss::SampledSoftmax, ROWS as usize - 1);
        let mut batch = batch();
        let (model, mut tables) = made(&full, &Device::flex());
        model.draw(&mut batch, at(0));
        let expected = loss_of(&model, &mut tables, batch.clone());
        let (model, mut tables) = made(&sampled, &Device::flex());
        let got = loss_of(&model, &mut tables, batch);
        assert_relative_eq!(got, expected, max_relative = 1e-6);
    }

    #[test]
    fn sampled_losses_are_loops_over_positions_and_draws() {
        for loss in [NextItemLoss::SampledSoftmax, NextItemLoss::Bpr] {
            let config = NextItemConfig {
                power: 0.5,
                ..config(loss, 5)
            };
            let counts: Vec<u64> = (0..u64::from(ROWS)).collect();
            let (_, mut tables) = made(&config, &Device::flex());
            let model = config
                .init(&schema(), &init(Device::flex()), &counts)
                .unwrap();
            let mut batch = batch();
            model.draw(&mut batch, at(3));
            let drawn = batch.sparse[2].indices.clone();
            let got = loss_of(&model, &mut tables, batch);
            let total: f64 = (1..ROWS).map(|item| f64::from(item).sqrt()).sum();
            let probability = |item: u32| f64::from(item).sqrt() / total;
            let positions = asked(&model, &mut tables);
            let of_position = positions
                .iter()
                .enumerate()
                .map(|(nth, (next, weight, scores))| {
                    let own = scores[*next as usize];
                    let of_draw = |&item: &u32| scores[item as usize];
                    let loss = match loss {
                        NextItemLoss::SampledSoftmax => {
                            let others = drawn.iter().filter(|&item| item != next);
                            let powers =
                                others.map(|item| of_draw(item).exp() / (5.0 * probability(*item)));
                            (own.exp() + powers.sum::<f64>()).ln() - own
                        }
                        NextItemLoss::Bpr => {
                            let mine = &drawn[nth * 5..(nth + 1) * 5];
                            let losses =
                                mine.iter().map(|item| (of_draw(item) - own).exp().ln_1p());
                            losses.sum::<f64>() / 5.0
                        }
                    };
                    (*weight, loss)
                });
            let expected = mean(of_position);
            assert_relative_eq!(f64::from(got), expected, max_relative = 1e-4);
        }
    }

    #[test]
    fn the_gradients_by_vectors_are_those_of_finite_differences() {
        for (loss, negatives) in [
            (NextItemLoss::SampledSoftmax, 0),
            (NextItemLoss::SampledSoftmax, 4),
            (NextItemLoss::Bpr, 2),
        ] {
            let config = config(loss, negatives);
            let device = Device::flex().autodiff();
            let (model, mut tables) = made(&config, &device);
            let mut batch = batch();
            model.draw(&mut batch, at(1));
            let targets = batch.targets.clone();
            let batch = Arc::new(batch);
            let (x, _) = tables.stage(batch.clone(), &device);
            let mut gradients = model.loss(&x, &targets).backward();
            let gradient = x.leaves()[0].rows.grad_remove(&mut gradients).unwrap();
            let gradient = values(gradient);
            let start = values(x.leaves()[0].rows.clone().inner());
            let plain = made(&config, &Device::flex()).0;
            let (staged, _) = tables.stage(batch.clone(), &Device::flex());
            let value = |rows: Vec<f32>| {
                let shape = [rows.len() / 4, 4];
                let rows = Tensor::from_data(TensorData::new(rows, shape), &Device::flex());
                let x = staged.with_leaf(0, rows);
                f64::from(plain.loss(&x, &targets).into_scalar::<f32>())
            };
            for (at, expected) in gradient.into_iter().enumerate() {
                let moved = |by: f32| {
                    let mut rows = start.clone();
                    rows[at] += by;
                    value(rows)
                };
                let difference = (moved(0.004) - moved(-0.004)) / 0.008;
                // Two losses of about 2, each rounded to 24 bits, divided by the step.
                assert_relative_eq!(difference, f64::from(expected), epsilon = 1e-3);
            }
        }
    }

    #[test]
    fn draws_follow_their_probabilities_and_the_sum_that_they_stand_for() {
        let counts = [9, 1, 4, 0, 16];
        let sampler = Sampler::new(5, Some(0), &counts, 0.5);
        assert_eq!(sampler.drawable, 3);
        let expected = [1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0];
        for (item, expected) in [1, 2, 4].into_iter().zip(expected) {
            assert_relative_eq!(
                sampler.log_probability(item).exp(),
                expected,
                epsilon = 1e-12
            );
        }
        let mut rng = rng(1, Purpose::Negatives, 0, 0);
        let draws: Vec<u32> = (0..20_000).map(|_| sampler.draw(&mut rng)).collect();
        assert!(draws.iter().all(|draw| [1, 2, 4].contains(draw)));
        // Scores of 0, 1 and −1: the mean of exp(s) / q is Σ exp(s) over the three items.
        let score = |item: u32| [0.0f64, 0.0, 1.0, 0.0, -1.0][item as usize];
        let terms = draws
            .iter()
            .map(|&item| (score(item) - sampler.log_probability(item)).exp());
        let mean = terms.sum::<f64>() / draws.len() as f64;
        let sum = 1.0 + 1f64.exp() + (-1f64).exp();
        // The standard deviation of a term is below 4, that of the mean below 0.03.
        assert!((mean - sum).abs() < 0.1, "{mean} for {sum}");
    }

    #[test]
    fn draws_repeat_by_step_and_bpr_draws_nothing_that_the_row_has() {
        for (loss, negatives) in [(NextItemLoss::SampledSoftmax, 6), (NextItemLoss::Bpr, 3)] {
            let (model, _) = made(&config(loss, negatives), &Device::flex());
            let drawn = |step| {
                let mut batch = batch();
                model.draw(&mut batch, at(step));
                batch.sparse[2].clone()
            };
            assert_eq!(drawn(5), drawn(5));
            assert_ne!(drawn(5).indices, drawn(6).indices);
            assert!(drawn(5).indices.iter().all(|&item| item != 0));
            if loss == NextItemLoss::Bpr {
                for step in 0..20 {
                    let drawn = drawn(step);
                    for (row, history) in HISTORIES.iter().enumerate() {
                        let range = drawn.range(row);
                        assert_eq!(range.len(), history.len() * 3);
                        let mut of_row = drawn.indices[range].iter();
                        assert!(
                            of_row.all(|item| !history.contains(item) && *item != TARGETS[row])
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_that_asks_nothing_has_no_loss_and_no_gradient() {
        let all: Vec<u32> = (1..ROWS - 1).collect();
        // No history, a row that has every item, labels of 0.
        for (history, target, label) in
            [(&[][..], 1, 1.0), (&all[..], 8, 1.0), (&[1, 2][..], 3, 0.0)]
        {
            for (loss, negatives) in [(NextItemLoss::SampledSoftmax, 3), (NextItemLoss::Bpr, 1)] {
                if loss == NextItemLoss::SampledSoftmax && history.len() > 2 {
                    continue;
                }
                let device = Device::flex().autodiff();
                let (model, mut tables) = made(&config(loss, negatives), &device);
                let mut batch = Batch {
                    batch_size: 1,
                    sparse: vec![jagged(&[history]), Jagged::one_hot(vec![target])],
                    targets: Targets {
                        labels: vec![label],
                        ..Targets::default()
                    },
                    ..Batch::default()
                };
                model.draw(&mut batch, at(0));
                let targets = batch.targets.clone();
                let (x, _) = tables.stage(Arc::new(batch), &device);
                let loss = model.loss(&x, &targets);
                let mut gradients = loss.clone().backward();
                assert_eq!(loss.into_scalar::<f32>(), 0.0);
                let by_rows = x.leaves()[0].rows.grad_remove(&mut gradients);
                let by_rows = by_rows.map(values).unwrap_or_default();
                assert!(by_rows.iter().all(|&number| number == 0.0));
            }
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let error = |config: NextItemConfig| config.tables(&schema()).unwrap_err().to_string();
        assert_eq!(
            error(config(NextItemLoss::Bpr, 0)),
            "`sasrec.negatives` is 0: expected 1 or more for bpr"
        );
        let power = NextItemConfig {
            power: -1.0,
            ..config(NextItemLoss::Bpr, 1)
        };
        assert_eq!(
            error(power),
            "`sasrec.power` is -1: expected a number of at least 0"
        );
    }
}
