//! Passes over rows: training and scoring.

use std::sync::Mutex;

use crossfield_core::Loss;
use crossfield_core::rng::{Purpose, rng};
use crossfield_embedding::EmbeddingCollection;
use rand::RngExt;

use crate::team::Desk;
use crate::{Bias, Error, FusedComponent, Options, PARTS, RowData, RowPass, Shared, Step, Tables};

/// A sum of components and a bias, trained row by row.
///
/// Each row is a step of its own: score, slope of the loss, update of the rows of the tables that
/// it names. Sample weights scale the slope.
#[derive(Debug)]
pub struct Fused {
    components: Vec<Box<dyn FusedComponent>>,
    loss: Loss,
    /// The bias, if the model has one.
    pub bias: Option<Bias>,
    /// Whether [`train`](Self::train) keeps the score of each row.
    pub keep_scores: bool,
    options: Options,
}

/// Rows to train on, in order.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// Positions in the data.
    pub rows: &'a [u32],
    /// Factor on the learning rates, one a row.
    pub rates: &'a [f32],
    /// Seed of the run.
    pub seed: u64,
    /// Number of the first row's step since the run began.
    pub first_step: u64,
    /// Threads that share the work on each row.
    pub threads: usize,
}

/// What was measured on the way, each row before its update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Passed {
    /// Σ loss × sample weight.
    pub loss_sum: f64,
    /// Σ sample weight.
    pub weight: f64,
    /// The score of each row, before the link, where they are [kept](Fused::keep_scores).
    pub scores: Vec<f32>,
}

impl Fused {
    /// A sum of components.
    ///
    /// # Errors
    /// [`Error::SharedTable`] where two components read one table.
    pub fn new(
        components: Vec<Box<dyn FusedComponent>>,
        loss: Loss,
        bias: Option<Bias>,
        options: Options,
    ) -> Result<Self, Error> {
        let mut seen: Vec<(&str, usize)> = Vec::new();
        for (number, component) in components.iter().enumerate() {
            for table in component.tables() {
                if seen.iter().any(|&(name, by)| name == table && by != number) {
                    return Err(Error::SharedTable {
                        table: table.to_owned(),
                    });
                }
                seen.push((table, number));
            }
        }
        Ok(Self {
            components,
            loss,
            bias,
            keep_scores: false,
            options,
        })
    }

    /// Checks that components, tables and rows fit together, before anything is trained.
    ///
    /// # Errors
    /// What [`train`](Self::train) would meet.
    pub fn check(&self, tables: &EmbeddingCollection, data: &RowData<'_>) -> Result<(), Error> {
        Passes::bind(self, &Tables::shared(tables), data).map(drop)
    }

    /// Trains on rows, one after the other. The same turn gives the same bits with any number of
    /// threads.
    ///
    /// # Errors
    /// [`Error::NonFiniteScore`], before that row has changed a table; what binding meets.
    pub fn train(
        &mut self,
        tables: &mut EmbeddingCollection,
        data: &RowData<'_>,
        turn: Turn<'_>,
    ) -> Result<Passed, Error> {
        let mut passed = Passed::default();
        self.go_on(tables, data, turn, &mut passed)?;
        Ok(passed)
    }

    /// As [`train`](Self::train), adding to what was measured before: several turns measure the same
    /// bits as one of all their rows.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn go_on(
        &mut self,
        tables: &mut EmbeddingCollection,
        data: &RowData<'_>,
        turn: Turn<'_>,
        passed: &mut Passed,
    ) -> Result<(), Error> {
        assert_eq!(turn.rows.len(), turn.rates.len(), "a rate a row");
        let tables = Tables::exclusive(tables);
        let mut books = Books {
            turn,
            data,
            loss: self.loss,
            bias: self.bias.clone(),
            passed: std::mem::take(passed),
            keep_scores: self.keep_scores,
            noise_key: rng(turn.seed, Purpose::Rounding, 0, 0).random(),
            error: None,
        };
        let alone = match &self.components[..] {
            [component] => component.bind_alone(&tables, data, self.options)?,
            _ => None,
        };
        match alone {
            Some(mut pass) => pass.train(&mut books),
            None => self.train_by_rows(&tables, &mut books)?,
        }
        self.bias = books.bias;
        *passed = books.passed;
        books.error.map_or(Ok(()), Err)
    }

    /// Row by row, each in its stages.
    fn train_by_rows(&self, tables: &Tables<'_>, books: &mut Books<'_>) -> Result<(), Error> {
        let (turn, data) = (books.turn, books.data);
        let mut passes = Passes::bind(self, tables, data)?;
        let mut memory = vec![0f32; passes.shared_len()];
        let shared = Shared::new(&mut memory);
        if turn.threads > 1 {
            return self.train_together(tables, shared, books);
        }
        for nth in 0..turn.rows.len() {
            for part in 0..PARTS {
                passes.forward(turn.rows[nth] as usize, part, shared);
            }
            let Some(step) = books.between(&mut passes, nth, shared) else {
                break;
            };
            for part in 0..PARTS {
                passes.backward(turn, nth, part, step, shared);
            }
        }
        Ok(())
    }

    /// As a team: the parts of each stage are done by whichever thread is free.
    fn train_together(
        &self,
        tables: &Tables<'_>,
        shared: Shared,
        books: &mut Books<'_>,
    ) -> Result<(), Error> {
        let (turn, data) = (books.turn, books.data);
        let desk = Desk::default();
        let books = Mutex::new(books);
        let stages = 2 * turn.rows.len() as u64;
        let work = &|thread: usize| -> Result<(), Error> {
            let _guard = desk.guard();
            let mut passes = Passes::bind(self, tables, data)?;
            while let Some(taken) = desk.take(stages, thread, turn.threads) {
                let nth = (taken.stage / 2) as usize;
                let forward = taken.stage.is_multiple_of(2);
                if forward {
                    for part in taken.parts() {
                        passes.forward(turn.rows[nth] as usize, part, shared);
                    }
                } else {
                    let step = passes.step(shared);
                    for part in taken.parts() {
                        passes.backward(turn, nth, part, step, shared);
                    }
                }
                if !desk.finish(taken) {
                    continue;
                }
                if forward {
                    let mut books = books.lock().expect("no panic while it is held");
                    match books.between(&mut passes, nth, shared) {
                        Some(step) => passes.set_step(step, shared),
                        None => desk.close(),
                    }
                }
                desk.open(taken.stage + 1);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let mut others = Vec::new();
            let mut result = Ok(());
            for thread in 1..turn.threads {
                let builder = std::thread::Builder::new();
                match builder.spawn_scoped(scope, move || work(thread)) {
                    Ok(other) => others.push(other),
                    Err(source) => {
                        // Those that were given stop before their first part, or soon.
                        desk.close();
                        result = Err(Error::Threads { source });
                        break;
                    }
                }
            }
            result = result.and_then(|()| work(0));
            for other in others {
                match other.join() {
                    Ok(of_other) => result = result.and(of_other),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            result
        })
    }

    /// The scores of all rows, before the link, handed over in blocks and in order.
    ///
    /// # Errors
    /// What binding meets.
    pub fn score(
        &self,
        tables: &EmbeddingCollection,
        data: &RowData<'_>,
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), Error> {
        const BLOCK: usize = 4096;
        let tables = Tables::shared(tables);
        let mut passes = Passes::bind(self, &tables, data)?;
        let mut memory = vec![0f32; passes.shared_len()];
        let shared = Shared::new(&mut memory);
        let bias = self.bias.as_ref().map_or(0.0, |bias| bias.value);
        let rows = data.examples().rows;
        let mut scores = Vec::with_capacity(BLOCK.min(rows));
        for from in (0..rows).step_by(BLOCK) {
            let to = rows.min(from + BLOCK);
            scores.clear();
            for row in from..to {
                for part in 0..PARTS {
                    if row + 1 < rows {
                        passes.prefetch(row + 1, part);
                    }
                    passes.forward(row, part, shared);
                }
                scores.push(bias + passes.score(row, shared));
            }
            each(&scores);
        }
        Ok(())
    }
}

/// The passes of all components of one thread, each with its part of the shared memory.
struct Passes<'a> {
    passes: Vec<(Box<dyn RowPass + 'a>, usize, usize)>,
}

impl<'a> Passes<'a> {
    fn bind(fused: &'a Fused, tables: &Tables<'a>, data: &'a RowData<'a>) -> Result<Self, Error> {
        let mut at = 0;
        let passes = fused.components.iter().map(|component| {
            let pass = component.bind(tables, data, fused.options)?;
            let (from, len) = (at, pass.shared_len());
            at += len;
            Ok((pass, from, len))
        });
        Ok(Self {
            passes: passes.collect::<Result<_, Error>>()?,
        })
    }

    /// What the components need, and behind it a [`Step`].
    fn shared_len(&self) -> usize {
        self.components_len() + 3
    }

    fn components_len(&self) -> usize {
        self.passes.iter().map(|(_, _, len)| len).sum()
    }

    /// Leaves a step to all threads.
    fn set_step(&self, step: Step, shared: Shared) {
        let at = self.components_len();
        shared.put(at, step.slope);
        shared.put(at + 1, step.rate);
        shared.put(at + 2, f32::from_bits(step.noise));
    }

    fn step(&self, shared: Shared) -> Step {
        let at = self.components_len();
        Step {
            slope: shared.get(at),
            rate: shared.get(at + 1),
            noise: shared.get(at + 2).to_bits(),
        }
    }

    #[inline]
    fn each(&mut self, shared: Shared, mut each: impl FnMut(&mut (dyn RowPass + 'a), Shared)) {
        for (pass, from, len) in &mut self.passes {
            each(&mut **pass, shared.part(*from, *len));
        }
    }

    #[inline]
    fn forward(&mut self, row: usize, part: usize, shared: Shared) {
        self.each(shared, |pass, shared| pass.forward(row, part, shared));
    }

    #[inline]
    fn prefetch(&self, row: usize, part: usize) {
        for (pass, _, _) in &self.passes {
            pass.prefetch(row, part);
        }
    }

    fn score(&mut self, row: usize, shared: Shared) -> f32 {
        let mut score = 0.0;
        self.each(shared, |pass, shared| score += pass.score(row, shared));
        score
    }

    #[inline]
    fn backward(&mut self, turn: Turn<'_>, nth: usize, part: usize, step: Step, shared: Shared) {
        let row = turn.rows[nth] as usize;
        let next = turn.rows.get(nth + 1).map_or(row, |&next| next as usize);
        self.each(shared, |pass, shared| {
            pass.backward(row, next, part, step, shared);
        });
    }
}

/// What one thread at a time keeps between the forward and the backward half of a row.
#[derive(Debug)]
pub struct Books<'a> {
    turn: Turn<'a>,
    data: &'a RowData<'a>,
    loss: Loss,
    bias: Option<Bias>,
    passed: Passed,
    keep_scores: bool,
    noise_key: u64,
    error: Option<Error>,
}

impl<'a> Books<'a> {
    /// The rows to train on.
    #[inline(always)]
    pub fn turn(&self) -> Turn<'a> {
        self.turn
    }

    /// From what the components give for row `nth` of the turn to what their update needs: adds
    /// the bias and updates it. `None` where the score is no number; the turn ends there.
    #[inline(always)]
    pub fn close_row(&mut self, nth: usize, components: f32) -> Option<Step> {
        let row = self.turn.rows[nth] as usize;
        let number = self.turn.first_step + nth as u64;
        let score = self.bias.as_ref().map_or(0.0, |bias| bias.value) + components;
        if !score.is_finite() {
            self.error = Some(Error::NonFiniteScore {
                row,
                step: number,
                score,
            });
            return None;
        }
        if self.keep_scores {
            self.passed.scores.push(score);
        }
        let examples = self.data.examples();
        let (loss, slope) = self.loss.of_row(score, examples.labels[row]);
        let weight = examples.weights.map_or(1.0, |weights| weights[row]);
        self.passed.loss_sum += loss * f64::from(weight);
        self.passed.weight += f64::from(weight);
        let step = Step {
            slope: slope * weight,
            rate: self.turn.rates[nth],
            noise: noise_of(self.noise_key, number),
        };
        if let Some(bias) = &mut self.bias {
            bias.update(step.slope, step.rate);
        }
        Some(step)
    }

    /// [`close_row`](Self::close_row) of a row whose parts are all computed.
    fn between(&mut self, passes: &mut Passes<'_>, nth: usize, shared: Shared) -> Option<Step> {
        if let Some(&later) = self.turn.rows.get(nth + 2) {
            self.data.prefetch(later as usize);
        }
        let row = self.turn.rows[nth] as usize;
        let step = self.close_row(nth, passes.score(row, shared))?;
        passes.each(shared, |pass, shared| pass.prepare(row, step, shared));
        Some(step)
    }
}

/// Noise for the rounding of one step, whichever turn the step falls into. A whole ChaCha stream
/// a step would cost a share of the step; the finalizer of SplitMix64 mixes a number as well.
#[inline(always)]
fn noise_of(key: u64, step: u64) -> u32 {
    let mut z = key.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ z >> 31) as u32
}
