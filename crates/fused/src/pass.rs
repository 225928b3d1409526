//! What a component does for one row: forward to a score, backward to its tables.

use std::fmt::Debug;

use crossfield_core::Schema;

use crate::{Books, Error, Isa, RowData, Tables};

/// A component with a closed-form gradient, trained row by row without a graph.
pub trait FusedComponent: Debug + Send + Sync {
    /// The tables that it reads.
    fn tables(&self) -> Vec<&str>;

    /// Makes ready for a pass of one thread over rows.
    ///
    /// # Errors
    /// Where tables, rows and component do not fit together.
    fn bind<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Box<dyn RowPass + 'a>, Error>;

    /// A pass that walks over the rows of a turn by itself, for a component that is all there is to
    /// a model and whose rows are too small to be shared among threads: what [`bind`](Self::bind)'s
    /// costs a row would be most of its time. Both give the same bits.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    fn bind_alone<'a>(
        &'a self,
        _tables: &Tables<'a>,
        _data: &'a RowData<'a>,
        _options: Options,
    ) -> Result<Option<Box<dyn TurnPass + 'a>>, Error> {
        Ok(None)
    }
}

/// One thread's walk over the rows of a turn.
pub trait TurnPass {
    /// Trains on all rows of the turn in order, [`Books::close_row`] standing between the score of
    /// each and its update; stops where the books refuse a row.
    fn train(&mut self, books: &mut Books<'_>);
}

/// The configuration of a component that also has a fused form.
pub trait FusedConfig {
    /// The fused form, under the schema of the rows.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration under this schema.
    fn fused(&self, schema: &Schema) -> Result<Box<dyn FusedComponent>, crossfield_core::Error>;
}

/// How a pass computes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The instruction set.
    pub isa: Isa,
    /// Whether AdaGrad takes `1/√n` as the instruction set estimates it.
    pub fast: bool,
}

/// Parts into which the work on a row is divided: as many threads can share a row.
///
/// What a part is depends on nothing but the row, and what is added up is added in the order of the
/// parts, whoever computed them: results are the same bits for teams of any size.
pub const PARTS: usize = 4;

/// Memory of a team, through which threads hand over what they computed for a row: a float is
/// written in one of the stages of [`RowPass`], by one thread, and read in later ones.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: *mut f32,
    len: usize,
}

// SAFETY: the stages above: within one, a float is written by one thread, or read.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Over memory that outlives the pass.
    pub(crate) fn new(memory: &mut [f32]) -> Self {
        Self {
            base: memory.as_mut_ptr(),
            len: memory.len(),
        }
    }

    /// The memory from `at` on, for `len` floats.
    #[inline(always)]
    pub fn part(self, at: usize, len: usize) -> Self {
        assert!(at + len <= self.len, "parts lie inside of the memory");
        Self {
            base: self.base.wrapping_add(at),
            len,
        }
    }

    /// Where `len` floats from `at` on lie.
    #[inline(always)]
    pub fn floats(self, at: usize, len: usize) -> *mut f32 {
        assert!(at + len <= self.len, "floats lie inside of the memory");
        self.base.wrapping_add(at)
    }

    /// Writes one float.
    #[inline(always)]
    pub fn put(self, at: usize, value: f32) {
        // SAFETY: `floats` checks the bounds; the stages give the float to one thread.
        unsafe { self.floats(at, 1).write(value) }
    }

    /// Reads one float.
    #[inline(always)]
    pub fn get(self, at: usize) -> f32 {
        // SAFETY: `floats` checks the bounds; what was written in an earlier stage is not written now.
        unsafe { self.floats(at, 1).read() }
    }
}

/// What a row's update needs beside what the forward pass left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// Derivative of the loss by the score.
    pub slope: f32,
    /// Factor on the learning rates.
    pub rate: f32,
    /// Seed of this step's rounding.
    pub noise: u32,
}

/// One thread's view of a pass over rows.
///
/// The work on a row has four stages, each of which begins when the one before is complete:
///
/// 1. [`forward`](Self::forward), part by part, by any threads: reads tables, writes [`Shared`];
/// 2. [`score`](Self::score), by one thread;
/// 3. [`prepare`](Self::prepare), by the same thread;
/// 4. [`backward`](Self::backward), part by part: writes the table rows of that part.
///
/// A thread may do any parts of a row and miss others: whatever one part needs of another goes
/// through [`Shared`].
pub trait RowPass {
    /// Floats of [`Shared`] that it needs.
    fn shared_len(&self) -> usize;

    /// Asks for a part of the table rows of a row ahead of time, where rows are only scored.
    fn prefetch(&self, row: usize, part: usize);

    /// Computes a part of the score of a row.
    fn forward(&mut self, row: usize, part: usize, shared: Shared);

    /// The score of the row, whose parts are all computed.
    fn score(&mut self, row: usize, shared: Shared) -> f32;

    /// Computes what all parts of the update need.
    fn prepare(&mut self, _row: usize, _step: Step, _shared: Shared) {}

    /// Updates a part of the table rows of the row, and asks for the same part of those of the
    /// `next` row, or of `row` again where it is the last.
    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, shared: Shared);
}
