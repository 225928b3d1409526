//! A component that crossfield does not have: two towers, for retrieval.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Lookup, Schema, TableConfig, TableField, factors_for,
};

const DIM: usize = 16;

/// The fields of the user, and those of the item.
pub(crate) struct TwoTowerConfig(pub(crate) [Vec<String>; 2]);

/// z = tanh(W_u Σ v + b_u) · tanh(W_i Σ v + b_i), over the vectors v of the fields of either side.
#[derive(Module, Debug)]
pub(crate) struct TwoTower {
    #[module(skip)]
    sides: [Vec<TableField>; 2],
    layers: [Linear; 2],
}

impl ComponentConfig for TwoTowerConfig {
    type Component = TwoTower;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let fields = schema.bags("two_tower", &self.0.concat())?;
        Ok(factors_for(schema, &fields, DIM, 0.1).0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<TwoTower, Error> {
        let side = |names| Ok(factors_for(schema, &schema.bags("two_tower", names)?, DIM, 0.1).1);
        Ok(TwoTower {
            sides: [side(&self.0[0])?, side(&self.0[1])?],
            layers: ["user", "item"].map(|name| init.linear(name, DIM, DIM)),
        })
    }
}

impl TwoTower {
    /// What a tower makes of each row, at 0 the user's, at 1 the item's.
    pub(crate) fn tower(&self, at: usize, x: &Lookup) -> Tensor<2> {
        self.layers[at].forward(x.pooled(&self.sides[at])).tanh()
    }
}

impl Component for TwoTower {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        (self.tower(0, x) * self.tower(1, x)).sum_dim(1)
    }
}
