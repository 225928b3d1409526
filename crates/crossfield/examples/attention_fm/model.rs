//! A component that crossfield does not have: what a candidate reads of a history, as one more
//! feature of a factorization machine.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield::attention::{QkvAttention, QkvConfig};
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Lookup, Ragged, Schema, TableConfig, TableField,
    factors_for,
};
use crossfield::fm::interaction;

const DIM: usize = 8;

/// The history first, then the candidate that asks it, then the other fields.
pub(crate) struct AttentionFmConfig(pub(crate) Vec<String>);

/// z = FM(v_1, …, v_F, u),  u = Σ_t a_t W v_t over the history, a = softmax of the candidate's fit.
#[derive(Module, Debug)]
pub(crate) struct AttentionFm {
    #[module(skip)]
    fields: Vec<TableField>,
    attention: QkvAttention,
}

impl ComponentConfig for AttentionFmConfig {
    type Component = AttentionFm;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(factors_for(schema, &schema.bags("attention_fm", &self.0)?, DIM, 0.1).0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<AttentionFm, Error> {
        let fields = factors_for(schema, &schema.bags("attention_fm", &self.0)?, DIM, 0.1).1;
        let attention = QkvConfig::default().init("attention_fm", DIM, DIM, init)?;
        Ok(AttentionFm { fields, attention })
    }
}

impl Component for AttentionFm {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let candidate = Ragged::of_one(x.pooled(&self.fields[1..2]));
        let mut vectors = x.fields(&self.fields[1..]);
        if let Some(history) = x.ragged(&self.fields[0]) {
            let read = self.attention.forward(&candidate, &history, false);
            vectors = Tensor::cat(vec![vectors, read.unsqueeze_dim(1)], 1);
        }
        interaction(vectors)
    }
}
