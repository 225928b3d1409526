//! Tables and rows as kernels see them.

use crossfield_core::{Examples, FieldId, TableField};
use crossfield_embedding::{
    EmbeddingCollection, RowLayout, RowOptimizer, RowOptimizerKind, RowStep, Table,
};

use crate::{Error, PARTS, Rule};

/// The tables of a collection, open for a pass over rows.
#[derive(Debug)]
pub struct Tables<'a> {
    tables: Vec<TableRows<'a>>,
}

/// The rows of one table.
#[derive(Clone, Copy, Debug)]
pub struct TableRows<'a> {
    table: &'a str,
    number: u32,
    base: *mut u8,
    rows: usize,
    layout: RowLayout,
    optimizer: &'a RowOptimizer,
    frozen: bool,
}

// SAFETY: a pointer into memory that the collection's borrow keeps alive. Threads that write
// through it follow the stages of `RowPass`: within one, each row, or tile of rows, belongs to one
// thread.
unsafe impl Send for TableRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for TableRows<'_> {}

impl<'a> Tables<'a> {
    /// Opens tables to be trained.
    pub fn exclusive(collection: &'a mut EmbeddingCollection) -> Self {
        let bases: Vec<*mut u8> = collection
            .tables_mut()
            .iter_mut()
            .map(|table| table.bytes_mut().as_mut_ptr())
            .collect();
        Self::new(collection.tables(), |number, _| bases[number])
    }

    /// Opens tables to be read: passes over them must not update.
    pub(crate) fn shared(collection: &'a EmbeddingCollection) -> Self {
        Self::new(collection.tables(), |_, table| {
            table.bytes().as_ptr().cast_mut()
        })
    }

    fn new(tables: &'a [Table], base: impl Fn(usize, &'a Table) -> *mut u8) -> Self {
        let tables = tables.iter().enumerate().map(|(number, table)| TableRows {
            table: &table.config().name,
            number: number as u32,
            base: base(number, table),
            rows: table.rows(),
            layout: table.layout(),
            optimizer: table.optimizer(),
            frozen: table.is_frozen(),
        });
        Self {
            tables: tables.collect(),
        }
    }

    fn find(&self, name: &str) -> Result<TableRows<'a>, Error> {
        let found = self.tables.iter().find(|table| table.table == name);
        found.copied().ok_or_else(|| Error::MissingTable {
            table: name.to_owned(),
        })
    }
}

impl<'a> TableRows<'a> {
    /// Name of the table.
    #[inline]
    pub fn name(&self) -> &'a str {
        self.table
    }

    /// Number of the table within its collection.
    #[inline]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where the parts of its rows lie.
    #[inline]
    pub fn layout(&self) -> &RowLayout {
        &self.layout
    }

    /// How its rows are updated.
    #[inline]
    pub fn optimizer(&self) -> &'a RowOptimizer {
        self.optimizer
    }

    /// The rule of its rows at `rate` times their learning rate.
    ///
    /// # Errors
    /// As [`Rule::new`].
    #[inline]
    pub fn rule(&self, rate: f32, fast: bool) -> Result<Rule, Error> {
        Rule::new(
            self.table,
            self.optimizer,
            self.layout.precision,
            rate,
            fast,
        )
    }

    /// Bytes of its rows.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.rows * self.layout.stride
    }

    /// Whether its rows stay as they are.
    #[inline]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// The row of an index that [`RowData`] has checked.
    #[inline(always)]
    pub fn row(&self, index: u32) -> *mut u8 {
        debug_assert!((index as usize) < self.rows);
        self.base.wrapping_add(index as usize * self.layout.stride)
    }

    /// The row optimizer's update of a row of a single weight.
    ///
    /// # Safety
    /// `row` is a row of this table, of one `f32` weight, that no other thread touches.
    #[inline(always)]
    pub unsafe fn update_weight(&self, row: *mut u8, gradient: f32, rate: f32) {
        let optimizer = self.optimizer;
        // SAFETY: the caller vouches for the row: a weight, and its state behind it.
        let (weight, state) = unsafe {
            let weight = &mut *row.cast::<f32>();
            (weight, row.add(self.layout.state_at).cast::<f32>())
        };
        match optimizer.kind {
            // The usual ones, without the detour over slices.
            RowOptimizerKind::Sgd if gradient != 0.0 => {
                let gradient = gradient + optimizer.l2 as f32 * *weight;
                *weight -= optimizer.lr as f32 * rate * gradient;
            }
            RowOptimizerKind::Adagrad if gradient != 0.0 => {
                let gradient = gradient + optimizer.l2 as f32 * *weight;
                // SAFETY: one accumulator.
                let n = unsafe { &mut *state };
                *n += gradient * gradient;
                *weight -=
                    gradient / (n.sqrt() + optimizer.eps as f32) * (optimizer.lr as f32 * rate);
            }
            RowOptimizerKind::Sgd | RowOptimizerKind::Adagrad => {}
            _ => {
                // SAFETY: as above.
                let state =
                    unsafe { std::slice::from_raw_parts_mut(state, optimizer.state_len(1)) };
                let step = RowStep { rate, share: 1.0 };
                optimizer.update(std::slice::from_mut(weight), state, &[gradient], step);
            }
        }
    }

    /// A number for a row that no other row of any table has.
    #[inline(always)]
    fn key(&self, index: u32) -> u64 {
        u64::from(self.number) << 32 | u64::from(index)
    }
}

/// Rows of data, looked through once: what each field's smallest and largest index is.
#[derive(Debug)]
pub struct RowData<'a> {
    examples: Examples<'a>,
    /// By field; `None` where no row has a feature of it.
    ranges: Vec<Option<(u32, u32)>>,
}

impl<'a> RowData<'a> {
    /// Looks through the rows.
    pub fn new(examples: Examples<'a>) -> Self {
        let width = examples.one_hot_fields.len();
        let (mut low, mut high) = (vec![u32::MAX; width], vec![0; width]);
        if width > 0 {
            for row in examples.one_hot.chunks_exact(width) {
                for ((low, high), &index) in low.iter_mut().zip(&mut high).zip(row) {
                    *low = index.min(*low);
                    *high = index.max(*high);
                }
            }
        }
        let fields = examples.one_hot_fields.iter().copied();
        let fields = fields.chain(examples.lists.iter().map(|list| list.field));
        let mut ranges = vec![None; fields.max().map_or(0, |last| last + 1)];
        if examples.rows > 0 {
            for (&field, range) in examples
                .one_hot_fields
                .iter()
                .zip(low.into_iter().zip(high))
            {
                ranges[field] = Some(range);
            }
        }
        for list in &examples.lists {
            let (low, high) = (list.indices.iter().min(), list.indices.iter().max());
            ranges[list.field] = low.copied().zip(high.copied());
        }
        Self { examples, ranges }
    }

    /// Asks for what a row itself consists of: rows are visited at random, and their indices must
    /// be there before the rows of tables that they name can be asked for.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: usize) {
        let one_hot = self.examples.one_hot_of(row);
        crate::prefetch(one_hot.as_ptr().cast(), size_of_val(one_hot));
        if let Some(label) = self.examples.labels.get(row) {
            crate::prefetch(std::ptr::from_ref(label).cast(), 1);
        }
    }

    /// The rows.
    #[inline]
    pub fn examples(&self) -> &Examples<'a> {
        &self.examples
    }
}

/// Where a field's indices are found, and the table that they are rows of.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The table.
    pub table: TableRows<'a>,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    OneHot(usize),
    List(usize),
}

/// The fields that a component reads, each in its table.
#[derive(Debug)]
pub struct Slots<'a> {
    data: &'a RowData<'a>,
    slots: Vec<Slot<'a>>,
    /// Whether a row may name a row of a table twice.
    may_repeat: bool,
    /// What of the slots is needed to find the table rows of one-hot fields: small, for a loop
    /// that runs for each row. Empty unless all fields are one-hot.
    one_hot: Vec<OneHot>,
}

#[derive(Clone, Copy, Debug)]
struct OneHot {
    base: *mut u8,
    stride: usize,
    column: usize,
}

/// A feature of a row: the row of a table, and Σ x and Σ x² of the features that name it.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// Which field it is of, counted as the component does; the first, where several name it.
    pub slot: usize,
    /// Unique for the row of a table.
    pub key: u64,
    /// The row of the table.
    pub row: *mut u8,
    /// Σ x.
    pub x: f32,
    /// Σ x².
    pub squares: f32,
}

impl<'a> Slots<'a> {
    /// Finds the fields and checks that all indices lie in their tables.
    ///
    /// # Errors
    /// [`Error::MissingTable`], [`Error::MissingField`], [`Error::IndexOutOfRange`].
    pub fn new(
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        fields: &[TableField],
    ) -> Result<Self, Error> {
        let mut slots = Vec::with_capacity(fields.len());
        let mut may_repeat = false;
        let mut taken: Vec<(u32, (u32, u32))> = Vec::new();
        for TableField { table, field } in fields {
            let table = tables.find(table)?;
            let source = Self::source(data.examples(), *field)?;
            may_repeat |= matches!(source, Source::List(_));
            if let Some((low, high)) = data.ranges[*field] {
                if high as usize >= table.rows {
                    return Err(Error::IndexOutOfRange {
                        field: *field,
                        index: high,
                        rows: table.rows,
                    });
                }
                may_repeat |= taken.iter().any(|&(number, (other_low, other_high))| {
                    number == table.number && low <= other_high && other_low <= high
                });
                taken.push((table.number, (low, high)));
            }
            slots.push(Slot { table, source });
        }
        let one_hot = slots.iter().filter_map(|slot| match slot.source {
            Source::OneHot(column) => Some(OneHot {
                base: slot.table.base,
                stride: slot.table.layout.stride,
                column,
            }),
            Source::List(_) => None,
        });
        let one_hot: Vec<OneHot> = one_hot.collect();
        Ok(Self {
            data,
            one_hot: if one_hot.len() == slots.len() {
                one_hot
            } else {
                Vec::new()
            },
            slots,
            may_repeat,
        })
    }

    fn source(examples: &Examples<'_>, field: FieldId) -> Result<Source, Error> {
        let one_hot = examples.one_hot_fields.iter().position(|&at| at == field);
        let list = || examples.lists.iter().position(|list| list.field == field);
        one_hot
            .map(Source::OneHot)
            .or_else(|| list().map(Source::List))
            .ok_or(Error::MissingField { field })
    }

    /// The fields, in the component's order.
    #[inline]
    pub fn slots(&self) -> &[Slot<'a>] {
        &self.slots
    }

    /// Whether each row has exactly one feature of weight 1 in each field, none of which is the
    /// same row of a table as another.
    #[inline]
    pub fn all_plain(&self) -> bool {
        !self.may_repeat
    }

    /// The rows of the tables, one a field.
    ///
    /// # Panics
    /// Unless [`all_plain`](Self::all_plain).
    #[inline(always)]
    pub fn plain(&self, row: usize, rows: &mut [*mut u8]) {
        assert_eq!(self.one_hot.len(), rows.len(), "one row a field");
        let indices = self.data.examples.one_hot_of(row);
        for (at, to) in self.one_hot.iter().zip(rows) {
            *to = at.row(indices);
        }
    }

    /// Calls `each` with field, row of its table, index and weight of each feature.
    #[inline(always)]
    fn each(&self, row: usize, mut each: impl FnMut(usize, &TableRows<'a>, u32, f32)) {
        let examples = &self.data.examples;
        let indices = examples.one_hot_of(row);
        for (number, slot) in self.slots.iter().enumerate() {
            match slot.source {
                Source::OneHot(column) => each(number, &slot.table, indices[column], 1.0),
                Source::List(list) => {
                    let list = &examples.lists[list];
                    for at in list.range(row) {
                        each(number, &slot.table, list.indices[at], list.weight(at));
                    }
                }
            }
        }
    }

    /// The features of a row, those that name the same row of a table joined, in an order that
    /// does not depend on addresses.
    #[inline]
    fn gather(&self, row: usize, features: &mut Vec<Feature>) {
        features.clear();
        self.each_feature(row, |feature| features.push(feature));
        if self.may_repeat {
            features.sort_by_key(|feature| feature.key);
            features.dedup_by(|next, first| {
                let same = next.key == first.key;
                if same {
                    first.x += next.x;
                    first.squares += next.squares;
                }
                same
            });
        }
    }

    /// Calls `each` with each feature as it stands.
    #[inline(always)]
    pub fn each_feature(&self, row: usize, mut each: impl FnMut(Feature)) {
        self.each(row, |slot, table, index, x| {
            each(Feature {
                slot,
                key: table.key(index),
                row: table.row(index),
                x,
                squares: x * x,
            });
        });
    }

    /// Asks for the table rows of a row.
    #[inline]
    pub fn prefetch(&self, row: usize) {
        if self.one_hot.is_empty() {
            self.each(row, |_, table, index, _| {
                crate::prefetch(table.row(index), table.layout.stride);
            });
        } else {
            self.prefetch_one_hot(row, &self.one_hot);
        }
    }

    /// Asks for what a row of data itself consists of, before its table rows can be asked for.
    #[inline(always)]
    pub fn prefetch_data(&self, row: usize) {
        self.data.prefetch(row);
    }

    /// Asks for one of [`PARTS`] parts of the table rows of a row.
    #[inline]
    pub fn prefetch_part(&self, row: usize, part: usize) {
        let len = self.one_hot.len();
        let fields = &self.one_hot[len * part / PARTS..len * (part + 1) / PARTS];
        if len > 0 {
            self.prefetch_one_hot(row, fields);
        } else if part == 0 {
            self.prefetch(row);
        }
    }

    #[inline]
    fn prefetch_one_hot(&self, row: usize, fields: &[OneHot]) {
        let indices = self.data.examples.one_hot_of(row);
        for at in fields {
            crate::prefetch(at.row(indices), at.stride);
        }
    }
}

impl OneHot {
    #[inline(always)]
    fn row(self, indices: &[u32]) -> *mut u8 {
        self.base
            .wrapping_add(indices[self.column] as usize * self.stride)
    }
}

/// The features of the row that a pass works on, gathered when they are first asked for.
#[derive(Debug, Default)]
pub struct Gathered {
    row: Option<usize>,
    features: Vec<Feature>,
}

impl Gathered {
    /// The features of a row, those that name the same row of a table joined.
    #[inline]
    pub fn of(&mut self, slots: &Slots<'_>, row: usize) -> &[Feature] {
        if self.row != Some(row) {
            slots.gather(row, &mut self.features);
            self.row = Some(row);
        }
        &self.features
    }
}
