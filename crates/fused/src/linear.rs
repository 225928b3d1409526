//! `Σ w x`: the linear terms that every model may have.

use crossfield_core::TableField;
use crossfield_embedding::{RowOptimizer, RowOptimizerKind, RowStep};

use crate::{
    Error, Feature, FusedComponent, Member, Options, RowData, RowPass, Rule, Shared, Slots, Step,
    Tables,
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
            let (table, optimizer) = (&slot.table, slot.table.optimizer());
            assert_eq!(table.layout().dim, 1, "linear weights are single");
            Rule::new(
                table.name(),
                optimizer,
                table.layout().precision,
                1.0,
                options.fast,
            )?;
        }
        Ok(Box::new(LinearPass {
            slots,
            features: Vec::new(),
        }))
    }
}

#[derive(Debug)]
struct LinearPass<'a> {
    slots: Slots<'a>,
    features: Vec<Feature>,
}

impl RowPass for LinearPass<'_> {
    fn prefetch(&self, row: usize, member: Member) {
        self.slots.prefetch(row, member.number, member.of);
    }

    fn forward(&mut self, row: usize, member: Member, shared: Shared) {
        // The last one: the first has the rest of a small team's odd work.
        if member.number + 1 != member.of {
            return;
        }
        self.slots.gather(row, &mut self.features);
        let mut sum = 0.0;
        for feature in &self.features {
            // SAFETY: a checked row of one f32 weight.
            sum += unsafe { feature.row.cast::<f32>().read() } * feature.x;
        }
        shared.put(0, sum);
    }

    fn score(&mut self, shared: Shared) -> f32 {
        shared.get(0)
    }

    fn backward(&mut self, _row: usize, step: Step, member: Member, _shared: Shared) {
        if member.number + 1 != member.of {
            return;
        }
        for feature in &self.features {
            let table = &self.slots.slots()[feature.slot].table;
            if table.is_frozen() {
                continue;
            }
            let gradient = step.slope * feature.x;
            // SAFETY: a checked row, weight and state of f32, which this member alone touches.
            unsafe {
                let weight = &mut *feature.row.cast::<f32>();
                let state = feature.row.add(table.layout().state_at).cast::<f32>();
                update(table.optimizer(), weight, state, gradient, step.rate);
            }
        }
    }
}

/// The row optimizer's update of a single weight.
///
/// # Safety
/// `state` is the state of that weight.
#[inline(always)]
unsafe fn update(
    optimizer: &RowOptimizer,
    weight: &mut f32,
    state: *mut f32,
    gradient: f32,
    rate: f32,
) {
    // AdaGrad, the usual one, without the detour over slices.
    if optimizer.kind == RowOptimizerKind::Adagrad {
        if gradient != 0.0 {
            let gradient = gradient + optimizer.l2 as f32 * *weight;
            // SAFETY: the caller vouches for the state: one accumulator.
            let n = unsafe { &mut *state };
            *n += gradient * gradient;
            *weight -= gradient / (n.sqrt() + optimizer.eps as f32) * (optimizer.lr as f32 * rate);
        }
        return;
    }
    // SAFETY: the caller vouches for the state.
    let state = unsafe { std::slice::from_raw_parts_mut(state, optimizer.state_len(1)) };
    let step = RowStep { rate, share: 1.0 };
    optimizer.update(std::slice::from_mut(weight), state, &[gradient], step);
}
