//! Passes over rows: training and scoring.

use crossfield_core::Loss;
use crossfield_core::rng::{Purpose, rng};
use crossfield_embedding::EmbeddingCollection;
use rand::RngExt;

use crate::team::Barrier;
use crate::{
    Bias, Error, FusedComponent, Member, Options, RowData, RowPass, Shared, Step, Tables,
};

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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Passed {
    /// Σ loss × sample weight.
    pub loss_sum: f64,
    /// Σ sample weight.
    pub weight: f64,
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
            options,
        })
    }

    /// Checks that components, tables and rows fit together, before anything is trained.
    ///
    /// # Errors
    /// What [`train`](Self::train) would meet.
    pub fn check(&self, tables: &EmbeddingCollection, data: &RowData<'_>) -> Result<(), Error> {
        self.bind(&Tables::shared(tables), data).map(drop)
    }

    fn bind<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
    ) -> Result<Vec<Box<dyn RowPass + 'a>>, Error> {
        self.components
            .iter()
            .map(|component| component.bind(tables, data, self.options))
            .collect()
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
        assert_eq!(turn.rows.len(), turn.rates.len(), "a rate a row");
        let tables = Tables::exclusive(tables);
        let team = turn.threads.max(1);
        let barrier = Barrier::new(team);
        let lens: Vec<usize> = {
            let passes = self.bind(&tables, data)?;
            passes.iter().map(|pass| pass.shared_len()).collect()
        };
        let mut memory = vec![0f32; lens.iter().sum()];
        let shared = Shared::new(&mut memory);
        let work = |number: usize| {
            let _guard = barrier.guard();
            let member = Member { number, of: team };
            self.member(&tables, data, turn, member, &barrier, shared, &lens)
        };
        let (passed, bias) = if team == 1 {
            work(0)?
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..team)
                    .map(|number| scope.spawn(move || work(number).map(drop)))
                    .collect();
                let first = work(0);
                for other in others {
                    if let Err(panic) = other.join() {
                        std::panic::resume_unwind(panic);
                    }
                }
                first
            })?
        };
        self.bias = bias;
        Ok(passed)
    }

    #[expect(clippy::too_many_arguments, reason = "one thread's view of a turn")]
    fn member(
        &self,
        tables: &Tables<'_>,
        data: &RowData<'_>,
        turn: Turn<'_>,
        member: Member,
        barrier: &Barrier,
        shared: Shared,
        lens: &[usize],
    ) -> Result<(Passed, Option<Bias>), Error> {
        let mut passes = self.bind(tables, data)?;
        let mut parts = Vec::with_capacity(lens.len());
        let mut at = 0;
        for &len in lens {
            parts.push(shared.part(at, len));
            at += len;
        }
        // Each member keeps a bias of its own and makes the same updates to it.
        let mut bias = self.bias.clone();
        let mut passed = Passed::default();
        let examples = data.examples();
        let noise_key: u64 = rng(turn.seed, Purpose::Rounding, 0, 0).random();
        for (nth, &row) in turn.rows.iter().enumerate() {
            let row = row as usize;
            if let Some(&next) = turn.rows.get(nth + 1) {
                for pass in &passes {
                    pass.prefetch(next as usize, member);
                }
            }
            for (pass, &part) in passes.iter_mut().zip(&parts) {
                pass.forward(row, member, part);
            }
            barrier.wait();
            let mut score = bias.as_ref().map_or(0.0, |bias| bias.value);
            for (pass, &part) in passes.iter_mut().zip(&parts) {
                score += pass.score(part);
            }
            if !score.is_finite() {
                // All members see the same score and stop here together.
                let step = turn.first_step + nth as u64;
                return Err(Error::NonFiniteScore { row, step, score });
            }
            let (loss, slope) = self.loss.of_row(score, examples.labels[row]);
            let weight = examples.weights.map_or(1.0, |weights| weights[row]);
            passed.loss_sum += loss * f64::from(weight);
            passed.weight += f64::from(weight);
            let step = Step {
                slope: slope * weight,
                rate: turn.rates[nth],
                noise: noise_of(noise_key, turn.first_step + nth as u64),
            };
            for (pass, &part) in passes.iter_mut().zip(&parts) {
                pass.backward(row, step, member, part);
            }
            if let Some(bias) = &mut bias {
                bias.update(step.slope, step.rate);
            }
            barrier.wait();
        }
        Ok((passed, bias))
    }

    /// The scores of the rows `from..to`, before the link, handed over in blocks and in order.
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
        let mut passes = self.bind(&tables, data)?;
        let len = passes.iter().map(|pass| pass.shared_len()).sum();
        let mut memory = vec![0f32; len];
        let shared = Shared::new(&mut memory);
        let bias = self.bias.as_ref().map_or(0.0, |bias| bias.value);
        let rows = data.examples().rows;
        let mut scores = Vec::with_capacity(BLOCK.min(rows));
        for from in (0..rows).step_by(BLOCK) {
            let to = rows.min(from + BLOCK);
            scores.clear();
            for row in from..to {
                if row + 1 < rows {
                    for pass in &passes {
                        pass.prefetch(row + 1, Member::ALONE);
                    }
                }
                let mut score = bias;
                for pass in &mut passes {
                    pass.forward(row, Member::ALONE, shared);
                    score += pass.score(shared);
                }
                scores.push(score);
            }
            each(&scores);
        }
        Ok(())
    }
}

/// Noise for the rounding of one step, whichever turn the step falls into. A whole ChaCha stream
/// a step would cost a share of the step; the finalizer of SplitMix64 mixes a number as well.
fn noise_of(key: u64, step: u64) -> u32 {
    let mut z = key.wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ z >> 31) as u32
}
