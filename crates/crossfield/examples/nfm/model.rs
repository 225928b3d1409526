//! A component that crossfield does not have: a neural factorization machine.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Lookup, Mlp, MlpConfig, Schema, TableConfig,
    TableField, factors_for,
};
use crossfield::fm::bi_interaction_of_sums;

/// Length of the vectors.
pub(crate) const DIM: usize = 8;

/// All fields are read; what is set are the layers.
pub(crate) struct NfmConfig(pub(crate) MlpConfig);

/// z = MLP(½ [(Σ x v)² − Σ x² v²])
#[derive(Module, Debug)]
pub(crate) struct Nfm {
    #[module(skip)]
    fields: Vec<TableField>,
    mlp: Mlp,
}

impl ComponentConfig for NfmConfig {
    type Component = Nfm;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(factors_for(schema, &schema.bags("nfm", &[])?, DIM, 0.01).0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Nfm, Error> {
        Ok(Nfm {
            fields: factors_for(schema, &schema.bags("nfm", &[])?, DIM, 0.01).1,
            mlp: self.0.init("nfm", DIM, init)?,
        })
    }
}

impl Component for Nfm {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let (sum, square) = x.pooled_with_square(&self.fields);
        let pairs = bi_interaction_of_sums(sum, square);
        self.mlp.forward(pairs, x.training())
    }
}
