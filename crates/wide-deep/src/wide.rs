//! The wide part: a linear model over features and crosses.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, Init, Lookup, Schema, TableConfig, TableField,
    features_in, linear_tables,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Wide`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WideConfig {
    /// Name of the component, set by its place in a run file; its weights are the tables `<name>.<vocabulary>`.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but the sequences, crosses included.
    pub fields: Vec<String>,
    /// Prefix of the tables instead of the name, to share them with another component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for WideConfig {
    fn default() -> Self {
        Self {
            name: "wide".into(),
            fields: Vec::new(),
            share: None,
        }
    }
}

/// One weight for each feature.
///
/// z = Σ_i w_i x_i over raw features and crosses. The example of the [crate] scores two rows.
///
/// # Source
/// Cheng et al. 2016, section 3.1.
#[derive(Module, Debug)]
pub struct Wide {
    #[module(skip)]
    fields: Vec<TableField>,
}

impl WideConfig {
    fn lookups(&self, schema: &Schema) -> Result<(Vec<TableConfig>, Vec<TableField>), Error> {
        let ids = schema.bags_and_crosses(&self.name, &self.fields)?;
        let prefix = self.share.as_deref().unwrap_or(&self.name);
        Ok(linear_tables(schema, &ids, prefix))
    }
}

impl ComponentConfig for WideConfig {
    type Component = Wide;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(self.lookups(schema)?.0)
    }

    fn init(&self, schema: &Schema, _init: &Init) -> Result<Wide, Error> {
        Ok(Wide {
            fields: self.lookups(schema)?.1,
        })
    }

    /// w x of each feature.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let fields = self.lookups(schema).ok()?.1;
        Some(2.0 * features_in(&fields, features))
    }
}

#[cfg(feature = "fused")]
impl crossfield_fused::FusedConfig for WideConfig {
    fn fused(&self, schema: &Schema) -> Result<Box<dyn crossfield_fused::FusedComponent>, Error> {
        let fields = self.lookups(schema)?.1;
        Ok(Box::new(crossfield_fused::Linear::new(fields)))
    }
}

impl Component for Wide {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        x.pooled(&self.fields)
    }

    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        x.linear_terms(&self.fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use approx::assert_relative_eq;
    use burn::tensor::Device;
    use crossfield_core::{Batch, Feature, Field, FieldKind, Jagged, What};
    use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};

    #[test]
    fn operations_are_counted_as_by_hand() {
        let field = |name: &str, kind| Field {
            name: name.into(),
            kind,
            vocabulary: name.into(),
            rows: 4,
            oov_row: None,
        };
        let schema = Schema {
            fields: vec![
                field("ad", FieldKind::Categorical),
                field("tags", FieldKind::Bag),
                field("past", FieldKind::Sequence),
            ],
            dense: vec![],
        };
        // w x of 1 + 2.5 features; the sequence is not read.
        let flops = WideConfig::default().flops(&schema, &[1.0, 2.5, 40.0]);
        assert_eq!(flops, Some(7.0));
    }

    #[test]
    fn the_score_is_the_weighted_sum_of_the_weights() {
        let field = |name: &str, kind, rows| Field {
            name: name.into(),
            kind,
            vocabulary: name.into(),
            rows,
            oov_row: None,
        };
        let schema = Schema {
            fields: vec![
                field("age", FieldKind::Numeric, 2),
                field("tags", FieldKind::Bag, 4),
            ],
            dense: vec!["age".into()],
        };
        let config = WideConfig::default();
        let plans: Vec<TablePlan> = config
            .tables(&schema)
            .unwrap()
            .into_iter()
            .map(|config| TablePlan::new(config, RowOptimizer::default()))
            .collect();
        let mut tables = EmbeddingCollection::new(&plans, 1).unwrap();
        tables.table_mut("wide.age").unwrap().weights_mut(0)[0] = 2.0;
        tables.table_mut("wide.age").unwrap().weights_mut(1)[0] = -1.0;
        tables.table_mut("wide.tags").unwrap().weights_mut(3)[0] = 0.5;
        // Row 0: age 1.5, tags {3, 3}; row 1: age missing, no tag.
        let batch = Arc::new(Batch {
            batch_size: 2,
            sparse: vec![
                Jagged {
                    indices: vec![0, 1],
                    offsets: None,
                    weights: Some(vec![1.5, 1.0]),
                },
                Jagged {
                    indices: vec![3, 3],
                    offsets: Some(vec![0, 2, 2]),
                    weights: None,
                },
            ],
            ..Batch::default()
        });
        let device = Device::flex();
        let wide = config
            .init(
                &schema,
                &Init {
                    device: device.clone(),
                    seed: 1,
                },
            )
            .unwrap();
        let (lookup, _) = tables.stage(batch, &device);
        let scores = wide.forward(&lookup).try_into_vec_as::<f32>().unwrap();
        assert_relative_eq!(scores[0], 4.0);
        assert_relative_eq!(scores[1], -1.0);

        let parts = wide.explain(&lookup);
        let age = Feature {
            field: 0,
            index: 0,
            value: 1.5,
        };
        assert_eq!(
            parts[0],
            Contribution {
                row: 0,
                what: What::Linear(age),
                weight: 2.0,
                contribution: 3.0,
            }
        );
        // Two tags of row 0, one age of row 1.
        let rest: Vec<_> = parts[1..]
            .iter()
            .map(|part| (part.row, part.contribution))
            .collect();
        assert_eq!(rest, [(0, 0.5), (0, 0.5), (1, -1.0)]);
    }
}
