#![doc = include_str!("../README.md")]

mod interaction;
pub mod libffm;

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, FieldId, Init, Initializer, Lookup, Schema,
    TableConfig, TableField, What, factor_table, tables_for,
};
pub use interaction::{interaction, interaction_plain};
use serde::{Deserialize, Serialize};

/// Configuration of an [`Ffm`]. Its defaults are libffm's but for the signed start and the linear
/// terms, which libffm does not have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FfmConfig {
    /// Name of the component, set by its place in a run file; its vectors are the tables
    /// `<name>.v<k>.<vocabulary>` and its linear weights the tables `<name>.<vocabulary>`.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but the sequences.
    pub fields: Vec<String>,
    /// Length k of each of the vectors that a feature has, one towards each field; 4 is libffm's.
    pub embedding_dim: usize,
    /// Whether the linear terms `w_i x_i` are part of it; leave them out beside `wide`.
    pub linear: bool,
    /// Whether the pairs of a row are divided by Σ x², so that rows with many features are not
    /// louder than others.
    pub normalize: bool,
    /// Whether two features of one field are a pair, as they are in libffm.
    pub same_field: bool,
    /// The vectors begin uniform in ±`init_scale`. Vectors of zero would stay zero.
    pub init_scale: f64,
    /// Prefix of the linear tables instead of the name, to share them with another component.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for FfmConfig {
    fn default() -> Self {
        Self {
            name: "ffm".into(),
            fields: Vec::new(),
            embedding_dim: 4,
            linear: true,
            normalize: true,
            same_field: true,
            init_scale: 0.05,
            share: None,
        }
    }
}

/// Linear terms and field-aware pairs of all features, those inside one bag included.
///
/// The example of the [crate] scores a row.
#[derive(Module, Debug)]
pub struct Ffm {
    #[module(skip)]
    factors: Vec<TableField>,
    #[module(skip)]
    linear: Vec<TableField>,
    #[module(skip)]
    embedding_dim: usize,
    #[module(skip)]
    normalize: bool,
    #[module(skip)]
    same_field: bool,
}

impl FfmConfig {
    /// A row of a table holds a feature's vectors side by side: the one towards the component's
    /// g-th field in the columns g·k..(g + 1)·k.
    fn factors(&self, schema: &Schema, ids: &[FieldId]) -> (Vec<TableConfig>, Vec<TableField>) {
        let initializer = Initializer::Uniform {
            low: -self.init_scale,
            high: self.init_scale,
        };
        let dim = ids.len() * self.embedding_dim;
        tables_for(schema, ids, dim, initializer, |vocabulary| {
            let table = factor_table(self.embedding_dim, vocabulary);
            format!("{}.{table}", self.name)
        })
    }

    fn linear(&self, schema: &Schema, ids: &[FieldId]) -> (Vec<TableConfig>, Vec<TableField>) {
        let ids = if self.linear { ids } else { &[] };
        let prefix = self.share.as_deref().unwrap_or(&self.name);
        tables_for(schema, ids, 1, Initializer::Zeros, |vocabulary| {
            format!("{prefix}.{vocabulary}")
        })
    }

    fn check(&self) -> Result<(), Error> {
        let out_of_range = |option, value: String, expected| {
            Err(Error::OutOfRange {
                component: self.name.clone(),
                option,
                value,
                expected,
            })
        };
        if !(1..=1024).contains(&self.embedding_dim) {
            return out_of_range("embedding_dim", self.embedding_dim.to_string(), "1 to 1024");
        }
        if !(self.init_scale > 0.0 && self.init_scale.is_finite()) {
            return out_of_range(
                "init_scale",
                self.init_scale.to_string(),
                "a number above 0",
            );
        }
        Ok(())
    }
}

impl ComponentConfig for FfmConfig {
    type Component = Ffm;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        self.check()?;
        let ids = schema.bags(&self.name, &self.fields)?;
        let mut tables = self.factors(schema, &ids).0;
        tables.extend(self.linear(schema, &ids).0);
        Ok(tables)
    }

    fn init(&self, schema: &Schema, _init: &Init) -> Result<Ffm, Error> {
        self.check()?;
        let ids = schema.bags(&self.name, &self.fields)?;
        Ok(Ffm {
            factors: self.factors(schema, &ids).1,
            linear: self.linear(schema, &ids).1,
            embedding_dim: self.embedding_dim,
            normalize: self.normalize,
            same_field: self.same_field,
        })
    }
}

impl Component for Ffm {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let fields = self.factors.len();
        let shape = [x.batch_size(), fields, fields, self.embedding_dim];
        let mut pairs = interaction(x.fields(&self.factors).reshape(shape));
        if let Some(inside) = self.inside_fields(x) {
            pairs = pairs + inside;
        }
        if self.normalize {
            pairs = pairs * scale(self.norm2(x));
        }
        if self.linear.is_empty() {
            pairs
        } else {
            pairs + x.pooled(&self.linear)
        }
    }

    /// Every pair on its own, so in time quadratic in the features of a row.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut contributions = x.linear_terms(&self.linear);
        let scales = if self.normalize {
            let scales = scale(self.norm2(x)).into_data().convert::<f32>();
            scales
                .as_slice::<f32>()
                .expect("they were made f32")
                .to_vec()
        } else {
            vec![1.0; x.batch_size()]
        };
        let rows = x.features(&self.factors);
        for (row, (features, scale)) in rows.iter().zip(scales).enumerate() {
            for (at, a) in features.iter().enumerate() {
                for b in &features[at + 1..] {
                    if a.nth == b.nth && !self.same_field {
                        continue;
                    }
                    let [a_to_b, b_to_a] = [(a, b), (b, a)].map(|(from, to)| {
                        &from.weights[to.nth * self.embedding_dim..][..self.embedding_dim]
                    });
                    let weight: f32 = a_to_b.iter().zip(b_to_a).map(|(a, b)| a * b).sum();
                    contributions.push(Contribution {
                        row,
                        what: What::Pair(a.feature, b.feature),
                        weight,
                        contribution: weight * scale * a.feature.value * b.feature.value,
                    });
                }
            }
        }
        contributions
    }
}

impl Ffm {
    /// The pairs inside one field, of all fields: ½ Σ_f [|Σ x v|² − Σ x² |v|²], where v are the
    /// vectors of the field's features towards the field itself. `None` where no row of the batch
    /// has two features in one field.
    fn inside_fields(&self, x: &Lookup) -> Option<Tensor<2>> {
        if !self.same_field {
            return None;
        }
        let has_pairs = |field: &TableField| {
            let jagged = &x.batch().sparse[field.field];
            jagged.offsets.is_some() && (0..x.batch_size()).any(|row| jagged.range(row).len() > 1)
        };
        let (blocks, bags): (Vec<usize>, Vec<TableField>) = self
            .factors
            .iter()
            .cloned()
            .enumerate()
            .filter(|(_, field)| has_pairs(field))
            .unzip();
        if bags.is_empty() {
            return None;
        }
        let (sum, square) = x.blocks_with_square(&bags, &blocks, self.embedding_dim);
        let shape = [x.batch_size(), self.embedding_dim];
        let twice = sum.square().sum_dim(1).reshape(shape) - square;
        Some(twice.sum_dim(1).mul_scalar(0.5))
    }

    fn norm2(&self, x: &Lookup) -> Tensor<2> {
        let ids: Vec<FieldId> = self.factors.iter().map(|field| field.field).collect();
        x.norm2(&ids)
    }
}

/// 1 / Σ x²; 0 where that has no reciprocal, as in a row without features.
fn scale(norm2: Tensor<2>) -> Tensor<2> {
    let empty = norm2.clone().lower_elem(f32::MIN_POSITIVE);
    norm2.recip().mask_fill(empty, 0.0)
}
