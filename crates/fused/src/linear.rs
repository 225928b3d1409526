//! `Σ w x`: the linear terms that every model may have.

use crossfield_core::TableField;

use crate::{
    Error, FusedComponent, Gathered, Options, PARTS, RowData, RowPass, Shared, Slots, Step, Tables,
};

/// Linear terms, a weight a feature.
#[derive(Clone, Debug)]
pub struct Linear {
    fields: Vec<TableField>,
}

impl Linear {
    /// Over the given fields, each looked up in a table of one weight a row.
    pub fn new(fields: Vec<TableField>) -> Self {
        Self { fields }
    }
}

impl FusedComponent for Linear {
    fn tables(&self) -> Vec<&str> {
        self.fields.iter().map(|at| at.table.as_str()).collect()
    }

    fn bind<'a>(
        &'a self,
        tables: &Tables<'a>,
        data: &'a RowData<'a>,
        options: Options,
    ) -> Result<Box<dyn RowPass + 'a>, Error> {
        let slots = Slots::new(tables, data, &self.fields)?;
        for slot in slots.slots() {
            assert_eq!(slot.table.layout().dim, 1, "linear weights are single");
            slot.table.rule(1.0, options.fast)?;
        }
        Ok(Box::new(LinearPass {
            slots,
            features: Gathered::default(),
        }))
    }
}

/// The part that does it all: the last, since the first has the rest of a small team's odd work.
const PART: usize = PARTS - 1;

#[derive(Debug)]
struct LinearPass<'a> {
    slots: Slots<'a>,
    features: Gathered,
}

impl RowPass for LinearPass<'_> {
    fn shared_len(&self) -> usize {
        1
    }

    fn prefetch(&self, row: usize, part: usize) {
        if part == PART {
            self.slots.prefetch(row);
        }
    }

    fn forward(&mut self, row: usize, part: usize, shared: Shared) {
        if part != PART {
            return;
        }
        let mut sum = 0.0;
        for feature in self.features.of(&self.slots, row) {
            // SAFETY: a checked row of one f32 weight.
            sum += unsafe { feature.row.cast::<f32>().read() } * feature.x;
        }
        shared.put(0, sum);
    }

    fn score(&mut self, _row: usize, shared: Shared) -> f32 {
        shared.get(0)
    }

    fn backward(&mut self, row: usize, next: usize, part: usize, step: Step, _shared: Shared) {
        if part != PART {
            return;
        }
        self.slots.prefetch(next);
        for feature in self.features.of(&self.slots, row) {
            let table = &self.slots.slots()[feature.slot].table;
            if table.is_frozen() {
                continue;
            }
            let gradient = step.slope * feature.x;
            // SAFETY: a checked row of a single weight, which this part alone touches.
            unsafe { table.update_weight(feature.row, gradient, step.rate) }
        }
    }
}
