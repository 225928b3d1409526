//! A component that crossfield does not have: the cross layers of DCN-v2.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Lookup, Schema, TableConfig, TableField, factors_for,
};

const DIM: usize = 8;

/// The number of layers: each raises the degree of the polynomial by one.
pub(crate) struct CrossNetConfig(pub(crate) usize);

/// x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l over the vectors x_0 of all fields, and z = w · x_L + b.
#[derive(Module, Debug)]
pub(crate) struct CrossNet {
    #[module(skip)]
    fields: Vec<TableField>,
    cross: Vec<Linear>,
    head: Linear,
}

impl ComponentConfig for CrossNetConfig {
    type Component = CrossNet;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(factors_for(schema, &schema.bags("cross_net", &[])?, DIM, 0.01).0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<CrossNet, Error> {
        let fields = factors_for(schema, &schema.bags("cross_net", &[])?, DIM, 0.01).1;
        let width = fields.len() * DIM;
        let layer = |l| init.linear(&format!("cross_net.{l}"), width, width);
        Ok(CrossNet {
            cross: (0..self.0).map(layer).collect(),
            head: init.linear("cross_net.head", width, 1),
            fields,
        })
    }
}

impl Component for CrossNet {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let x0: Tensor<2> = x.fields(&self.fields).flatten(1, 2);
        let cross = |x: Tensor<2>, layer: &Linear| x0.clone() * layer.forward(x.clone()) + x;
        self.head.forward(self.cross.iter().fold(x0.clone(), cross))
    }
}
