//! What a component does for one row: forward to a score, backward to its tables.

use std::fmt::Debug;

use crossfield_core::Schema;

use crate::{Error, Isa, RowData, Tables};

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

/// One thread of a team that works on the same row at the same time.
///
/// For each row, all members call [`forward`](RowPass::forward), wait for each other, call
/// [`score`](RowPass::score) and [`backward`](RowPass::backward), and wait again. Who does which
/// part depends on nothing but the row and the number of members, and what is added up is added in
/// one order whoever computed it: results are the same bits for teams of any size.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Number of this member, from 0.
    pub number: usize,
    /// Size of the team.
    pub of: usize,
}

impl Member {
    /// A team of one.
    pub const ALONE: Member = Member { number: 0, of: 1 };

    /// Whether the part numbered `part` is this member's.
    #[inline(always)]
    pub fn does(self, part: usize) -> bool {
        part % self.of == self.number
    }
}

/// Memory of a team, through which members hand over what they computed for a row: written before
/// a barrier by the member whose part it is, read after it by all.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    base: *mut f32,
    len: usize,
}

// SAFETY: the schedule above: between two barriers a float is written by one member, or read.
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
        // SAFETY: `floats` checks the bounds; the schedule gives the float to one member.
        unsafe { self.floats(at, 1).write(value) }
    }

    /// Reads one float.
    #[inline(always)]
    pub fn get(self, at: usize) -> f32 {
        // SAFETY: `floats` checks the bounds; after the barrier nobody writes.
        unsafe { self.floats(at, 1).read() }
    }
}

/// What a row's update needs beside what the forward pass left.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Derivative of the loss by the score.
    pub slope: f32,
    /// Factor on the learning rates.
    pub rate: f32,
    /// Seed of this step's rounding.
    pub noise: u32,
}

/// One thread's pass over rows.
pub trait RowPass {
    /// Floats of [`Shared`] that it needs.
    fn shared_len(&self) -> usize {
        1
    }

    /// Asks for this member's share of a row's table rows ahead of time.
    fn prefetch(&self, row: usize, member: Member);

    /// Computes this member's part of the score of a row.
    fn forward(&mut self, row: usize, member: Member, shared: Shared);

    /// The score of the row, from what all members computed.
    fn score(&mut self, shared: Shared) -> f32;

    /// Updates this member's part of the table rows.
    fn backward(&mut self, row: usize, step: Step, member: Member, shared: Shared);
}
