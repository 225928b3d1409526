//! Attention of a target over histories, whose score is the sum of what each past item adds.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use crossfield_core::{
    AttentionWeights, Component, ComponentConfig, Contribution, Error, Examples, Factors, Init,
    Lookup, Ragged, Schema, TableConfig, What,
};
use serde::{Deserialize, Serialize};

use crate::behaviour::{self, Behaviour, values};
use crate::{BehaviourConfig, PositionEncoding, dot_product_weights, weighted_sum};

/// ⟨q, k_t⟩ for each item.
///
/// # Shapes
/// - output: `[items, 1]`
fn dots(query: Tensor<2>, keys: &Ragged) -> Tensor<2> {
    (keys.segments.spread(query) * keys.values.clone()).sum_dim(1)
}

/// Configuration of a [`TargetAttention`].
///
/// ```
/// use crossfield_attention::TargetAttentionConfig;
/// use crossfield_core::{ComponentConfig, Field, FieldKind, Schema};
///
/// let field = |name: &str, kind| Field {
///     name: name.into(),
///     kind,
///     vocabulary: name.into(),
///     rows: 4,
///     oov_row: Some(0),
/// };
/// let schema = Schema {
///     fields: vec![
///         field("item", FieldKind::Categorical),
///         field("items", FieldKind::Sequence),
///     ],
///     dense: Vec::new(),
/// };
/// // The two have vocabularies of their own: nothing asks the sequence.
/// let error = TargetAttentionConfig::default().tables(&schema).unwrap_err();
/// assert!(error.to_string().starts_with("`attention` has no field to read"));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetAttentionConfig {
    /// Name of the component, set by its place in a run file; its dense weights are keyed by it.
    #[serde(skip)]
    pub name: String,
    /// Length of the vectors.
    pub embedding_dim: usize,
    /// Standard deviation of the vectors at the start, the same as a factorization machine's, with
    /// which they are shared.
    pub init_std: f64,
    /// Whether weights go by trained linear maps of query and keys instead of these themselves.
    pub projections: bool,
    /// Prefix of the tables instead of `v<embedding_dim>`, which other components share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// What asks which histories; none: every sequence that shares its vocabulary with exactly one
    /// field of one value a row is the history of that field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behaviour: Vec<BehaviourConfig>,
}

impl Default for TargetAttentionConfig {
    fn default() -> Self {
        Self {
            name: "attention".into(),
            embedding_dim: 8,
            init_std: 0.01,
            projections: false,
            share: None,
            behaviour: Vec::new(),
        }
    }
}

/// How well the target fits what it attends to in the histories.
///
/// ```text
/// z = Σ_b Σ_t a_t ⟨q, v_t⟩,  a_t = softmax_t((q W_Q) · (v_t W_K) / √dim)
/// ```
///
/// over the events t of each behaviour b, with the vectors v of the events and q of the target; W_Q and
/// W_K are left out unless they are asked for. Each past item adds a_t ⟨q, v_t⟩, which is what an
/// explanation says. A row without events scores 0.
///
/// # Source
/// The weights are those of Vaswani et al., Attention Is All You Need, NeurIPS 2017, equation 1; the
/// score is that of a factorized similarity model (Kabbur et al., FISM, KDD 2013, equation 4) under
/// them.
#[derive(Module, Debug)]
pub struct TargetAttention {
    #[module(skip)]
    behaviours: Vec<Behaviour>,
    /// For each behaviour W_Q and W_K, `[dim, dim]`; none without projections.
    projections: Vec<Projections>,
    /// One for each behaviour.
    positions: Vec<Option<PositionEncoding>>,
}

#[derive(Module, Debug)]
struct Projections {
    query: Param<Tensor<2>>,
    key: Param<Tensor<2>>,
}

impl TargetAttentionConfig {
    fn factors(&self) -> Factors<'_> {
        Factors::new(&self.name, self.embedding_dim, self.init_std)
            .in_tables_of(self.share.as_deref())
    }

    fn behaviours(&self, schema: &Schema) -> Result<Vec<Behaviour>, Error> {
        self.factors().check()?;
        Behaviour::all(&self.behaviour, schema, self.factors())
    }
}

impl ComponentConfig for TargetAttentionConfig {
    type Component = TargetAttention;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let behaviours = self.behaviours(schema)?;
        let fields = behaviours
            .iter()
            .flat_map(|it| it.targets().chain(it.histories()));
        let mut tables = behaviour::tables(self.factors(), schema, fields.collect());
        for behaviour in &behaviours {
            tables.extend(behaviour.added_tables(schema, self.factors()));
        }
        Ok(tables)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<TargetAttention, Error> {
        let behaviours = self.behaviours(schema)?;
        let projections = |(nth, behaviour): (usize, &Behaviour)| {
            let dim = behaviour.dim();
            let map = |what: &str| {
                let name = format!("{}.{what}.{nth}", self.name);
                init.uniform(&name, [dim, dim], 1.0 / (dim as f32).sqrt())
            };
            Projections {
                query: map("query"),
                key: map("key"),
            }
        };
        let projections = if self.projections {
            behaviours.iter().enumerate().map(projections).collect()
        } else {
            Vec::new()
        };
        let positions = behaviours.iter().enumerate();
        let positions = positions.map(|(nth, it)| it.positions(&self.name, nth, init));
        Ok(TargetAttention {
            positions: positions.collect::<Result<_, _>>()?,
            behaviours,
            projections,
        })
    }

    fn check_rows(&self, schema: &Schema, rows: &Examples<'_>) -> Result<(), Error> {
        let behaviours = self.behaviours(schema)?;
        let mut behaviours = behaviours.iter();
        behaviours.try_for_each(|behaviour| behaviour.check_rows(&self.name, schema, rows))
    }

    /// For each behaviour x v of the target, for each event the fit of its weight, that of its share,
    /// and what it adds; with projections a matrix for the target and for each event.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let behaviours = self.behaviours(schema).ok()?;
        let of_each = behaviours.iter().map(|behaviour| {
            let (dim, items) = (behaviour.dim() as f64, behaviour.events(features));
            let query = behaviour.asked(features) * self.embedding_dim as f64;
            let maps = if self.projections { dim * dim } else { 0.0 };
            2.0 * (query + maps + items * (maps + 2.0 * dim + 1.0))
        });
        Some(of_each.sum())
    }
}

impl TargetAttention {
    /// Weights of the events of a behaviour, and how well each fits the target.
    ///
    /// # Shapes
    /// - outputs: `[items, 1]`
    fn weights_and_fits(&self, nth: usize, x: &Lookup, keys: &Ragged) -> [Tensor<2>; 2] {
        let query = self.behaviours[nth].query(x);
        let fits = dots(query.clone(), keys);
        let weights = match self.projections.get(nth) {
            Some(Projections {
                query: of_query,
                key,
            }) => {
                let keys = Ragged {
                    values: keys.values.clone().matmul(key.val()),
                    segments: keys.segments.clone(),
                };
                dot_product_weights(query.matmul(of_query.val()), &keys, 1)
            }
            None => {
                let dim = self.behaviours[nth].dim() as f64;
                keys.segments.softmax(fits.clone().div_scalar(dim.sqrt()))
            }
        };
        [weights, fits]
    }
}

impl Component for TargetAttention {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let of_one =
            |(nth, behaviour): (usize, &Behaviour)| match behaviour.keys(x, &self.positions[nth]) {
                None => Tensor::zeros([x.batch_size(), 1], x.device()),
                Some(keys) => {
                    let [weights, fits] = self.weights_and_fits(nth, x, &keys);
                    weighted_sum(weights, fits, &keys.segments)
                }
            };
        let scores = self.behaviours.iter().enumerate().map(of_one);
        let sum = scores.reduce(|sum, score| sum + score);
        sum.expect("a configuration has a behaviour")
    }

    /// What each past item adds, under its weight.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut parts = Vec::new();
        for (nth, behaviour) in self.behaviours.iter().enumerate() {
            let Some(keys) = behaviour.keys(x, &self.positions[nth]) else {
                continue;
            };
            let [weights, fits] = self.weights_and_fits(nth, x, &keys).map(values);
            for row in 0..x.batch_size() {
                for item in keys.segments.range(row) {
                    let Some((target, past)) = behaviour.pair(x, row, item) else {
                        continue;
                    };
                    parts.push(Contribution {
                        row,
                        what: What::History(target, past),
                        weight: weights[item],
                        contribution: weights[item] * fits[item],
                    });
                }
            }
        }
        parts
    }

    fn attention(&self, x: &Lookup) -> Vec<AttentionWeights> {
        let of_one = |(nth, behaviour): (usize, &Behaviour)| {
            let weights = behaviour.keys(x, &self.positions[nth]);
            let weights = weights.map(|keys| {
                let [weights, _] = self.weights_and_fits(nth, x, &keys);
                weights
            });
            behaviour.attention(x, weights)
        };
        let behaviours = self.behaviours.iter().enumerate();
        behaviours.flat_map(of_one).collect()
    }
}
