//! A component that crossfield does not have: two towers, for retrieval.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Lookup, Mlp, MlpConfig, Schema, TableConfig,
    TableField, factors_for,
};

const DIM: usize = 16;

/// The fields of the user, and those of the item.
#[derive(Clone)]
pub(crate) struct TwoTowerConfig(pub(crate) [Vec<String>; 2]);

/// z = (W_u vectors of the user's fields) · (W_i those of the item's); those of a history are added up.
#[derive(Module, Debug)]
pub(crate) struct TwoTower {
    pub(crate) user: Tower,
    pub(crate) item: Tower,
}

/// One side.
#[derive(Module, Debug)]
pub(crate) struct Tower {
    #[module(skip)]
    fields: Vec<TableField>,
    mlp: Mlp,
}

impl ComponentConfig for TwoTowerConfig {
    type Component = TwoTower;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let fields = schema.bags("two_tower", &self.0.concat())?;
        Ok(factors_for(schema, &fields, DIM, 0.1).0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<TwoTower, Error> {
        let tower = |names: &[String]| {
            let fields = factors_for(schema, &schema.bags("two_tower", names)?, DIM, 0.1).1;
            let layers = MlpConfig {
                output: DIM,
                ..MlpConfig::default()
            };
            let mlp = layers.init(&names.join(" "), fields.len() * DIM, init)?;
            Ok(Tower { fields, mlp })
        };
        Ok(TwoTower {
            user: tower(&self.0[0])?,
            item: tower(&self.0[1])?,
        })
    }
}

impl Tower {
    pub(crate) fn of(&self, x: &Lookup) -> Tensor<2> {
        self.mlp
            .forward(x.fields(&self.fields).flatten(1, 2), x.training())
    }
}

impl Component for TwoTower {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        (self.user.of(x) * self.item.of(x)).sum_dim(1)
    }
}
