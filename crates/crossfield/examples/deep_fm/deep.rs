//! The deep half of DeepFM: a perceptron over the vectors of all fields.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield::core::{
    Component, ComponentConfig, Error, Init, Initializer, Lookup, Mlp, MlpConfig, Schema,
    TableConfig, TableField, factor_table, tables_for,
};
use crossfield::fm::FmConfig;

/// Length of the vectors, which the FM shares.
pub(crate) const DIM: usize = 8;

/// Configuration: none.
pub(crate) struct DeepConfig;

/// A perceptron over the vectors of all fields.
#[derive(Module, Debug)]
pub(crate) struct Deep {
    #[module(skip)]
    fields: Vec<TableField>,
    mlp: Mlp,
}

impl DeepConfig {
    /// The tables of the FM: the same names, rows and beginnings.
    fn lookups(schema: &Schema) -> Result<(Vec<TableConfig>, Vec<TableField>), Error> {
        let begin = Initializer::Normal {
            std: FmConfig::default().init_std,
        };
        let ids = schema.bags("deep", &[])?;
        Ok(tables_for(schema, &ids, DIM, begin, |vocabulary| {
            factor_table(DIM, vocabulary)
        }))
    }
}

impl ComponentConfig for DeepConfig {
    type Component = Deep;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(Self::lookups(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Deep, Error> {
        let fields = Self::lookups(schema)?.1;
        let config = MlpConfig {
            hidden: vec![64, 32],
            ..MlpConfig::default()
        };
        Ok(Deep {
            mlp: config.init("deep", fields.len() * DIM, init)?,
            fields,
        })
    }
}

impl Component for Deep {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let v = x.fields(&self.fields);
        let [batch, fields, dim] = v.dims();
        let v = v.reshape([batch, fields * dim]);
        self.mlp.forward(v, x.training())
    }
}
