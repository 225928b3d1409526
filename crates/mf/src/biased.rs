//! Matrix factorization with biases, as a component.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Contribution, Error, FieldId, FieldKind, Init, Lookup, Schema,
    TableConfig, TableField, factor_table, features_in, linear_tables,
};
use crossfield_embedding::{DotProduct, DotProductConfig};
use serde::{Deserialize, Serialize};

/// Configuration of a [`BiasedMf`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BiasedMfConfig {
    /// Name of the component, set by its place in a run file; its biases are the tables `<name>.<vocabulary>`.
    #[serde(skip)]
    pub name: String,
    /// The field that names the user, one value a row.
    pub user: String,
    /// The field that names the item, one value a row.
    pub item: String,
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// Which of users and items have a bias.
    pub biases: Biases,
    /// Standard deviation of the vectors at the beginning. Vectors of zero would stay zero.
    pub init_std: f64,
}

/// Which of users and items have a bias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Biases {
    /// Both: for ratings.
    #[default]
    Both,
    /// Items alone: where items of one user are compared, a user's bias says nothing.
    Item,
    /// Neither: products alone, as WRMF and nearest neighbours take them.
    None,
}

impl Default for BiasedMfConfig {
    fn default() -> Self {
        Self {
            name: "mf".into(),
            user: "user".into(),
            item: "item".into(),
            embedding_dim: 32,
            biases: Biases::Both,
            init_std: 0.1,
        }
    }
}

/// `b_u + b_i + p_u · q_i`; the mean μ is the bias of the model.
///
/// # Source
/// Koren, Bell, Volinsky, Matrix Factorization Techniques for Recommender Systems, IEEE Computer
/// 42 (8), 2009, equation 4.
///
/// The example of the [crate] scores a pair.
#[derive(Module, Debug)]
pub struct BiasedMf {
    product: DotProduct,
    #[module(skip)]
    biases: Vec<TableField>,
}

/// Where a matrix factorization finds its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct MfLookups {
    /// The tables of the vectors of users and of items.
    pub factors: [TableField; 2],
    /// The tables of the biases there are, users' before items'.
    pub biases: Vec<TableField>,
}

impl BiasedMfConfig {
    /// The fields of user and item.
    ///
    /// # Errors
    /// [`Error::UnknownField`], [`Error::DuplicateField`]; [`Error::NoFields`] for a field that may
    /// have no value or several; [`Error::OutOfRange`].
    pub fn fields(&self, schema: &Schema) -> Result<[FieldId; 2], Error> {
        let ids = schema.bags(&self.name, &[self.user.clone(), self.item.clone()])?;
        for &id in &ids {
            let one_value = matches!(
                schema.fields[id].kind,
                FieldKind::Categorical | FieldKind::Hashed
            );
            if !one_value {
                return Err(Error::NoFields {
                    component: self.name.clone(),
                    expected: "a user and an item of kind categorical or hashed (kind = \"dot\" \
                               multiplies sums of bags)",
                });
            }
        }
        Ok([ids[0], ids[1]])
    }

    /// Where its parameters are.
    ///
    /// # Errors
    /// As [`fields`](Self::fields).
    pub fn lookups(&self, schema: &Schema) -> Result<MfLookups, Error> {
        let ids = self.fields(schema)?;
        let factors = ids.map(|field| TableField {
            table: factor_table(self.embedding_dim, &schema.fields[field].vocabulary),
            field,
        });
        Ok(MfLookups {
            factors,
            biases: self.bias_tables(schema, ids).1,
        })
    }

    fn product(&self) -> DotProductConfig {
        DotProductConfig {
            name: self.name.clone(),
            left: vec![self.user.clone()],
            right: vec![self.item.clone()],
            embedding_dim: self.embedding_dim,
            init_std: self.init_std,
        }
    }

    fn bias_tables(
        &self,
        schema: &Schema,
        [user, item]: [FieldId; 2],
    ) -> (Vec<TableConfig>, Vec<TableField>) {
        let ids: &[FieldId] = match self.biases {
            Biases::Both => &[user, item],
            Biases::Item => &[item],
            Biases::None => &[],
        };
        linear_tables(schema, ids, &self.name)
    }
}

impl ComponentConfig for BiasedMfConfig {
    type Component = BiasedMf;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let ids = self.fields(schema)?;
        let mut tables = self.product().tables(schema)?;
        tables.extend(self.bias_tables(schema, ids).0);
        Ok(tables)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<BiasedMf, Error> {
        Ok(BiasedMf {
            biases: self.lookups(schema)?.biases,
            product: self.product().init(schema, init)?,
        })
    }

    /// Those of the product, and the biases.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let biases = self.lookups(schema).ok()?.biases;
        let product = self.product().flops(schema, features)?;
        Some(product + 2.0 * features_in(&biases, features))
    }
}

impl Component for BiasedMf {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let product = self.product.forward(x);
        if self.biases.is_empty() {
            product
        } else {
            product + x.pooled(&self.biases)
        }
    }

    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut contributions = x.linear_terms(&self.biases);
        contributions.extend(self.product.explain(x));
        contributions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::Field;

    #[test]
    fn operations_are_counted_as_by_hand() {
        let field = |name: &str| Field {
            name: name.into(),
            kind: FieldKind::Categorical,
            vocabulary: name.into(),
            rows: 4,
            oov_row: Some(0),
        };
        let schema = Schema {
            fields: vec![field("user"), field("item")],
            dense: vec![],
        };
        let flops = |biases| {
            let config = BiasedMfConfig {
                embedding_dim: 3,
                biases,
                ..BiasedMfConfig::default()
            };
            config.flops(&schema, &[1.0, 1.0])
        };
        // x v of both, 3 products, and the biases.
        assert_eq!(flops(Biases::None), Some(2.0 * (6.0 + 3.0)));
        assert_eq!(flops(Biases::Both), Some(2.0 * (9.0 + 2.0)));
    }
}
