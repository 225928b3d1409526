//! The Deep Interest Network.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Activation, AttentionWeights, Component, ComponentConfig, Contribution, Error, Examples,
    Factors, FieldId, FieldInputs, Init, Lookup, Mlp, MlpConfig, Normalization, Ragged, Schema,
    TableConfig, TrainingStep, check_option, features_in,
};
use serde::{Deserialize, Serialize};

use crate::behaviour::{self, Behaviour};
use crate::{
    ActivationUnit, ActivationUnitConfig, AdditiveAttention, AdditiveConfig, BehaviourConfig,
    PositionEncoding, dot_product_weights, weighted_sum,
};

/// How the events of a history become one vector.
///
/// ```
/// use crossfield_attention::{DinConfig, Pooling};
///
/// assert_eq!(DinConfig::default().attention, Pooling::Unit);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// By an [`ActivationUnit`], whose weights may have any sum, as in the source.
    #[default]
    Unit,
    /// The same with weights brought to a sum of 1.
    UnitSoftmax,
    /// By scaled dot products with the target, brought to a sum of 1 (Vaswani et al. 2017).
    Dot,
    /// By an [`AdditiveAttention`], brought to a sum of 1.
    Additive,
    /// Their mean, whatever the target is.
    Mean,
    /// Their sum, whatever the target is.
    Sum,
    /// Not at all: histories are not read. Everything else is the same, to compare with.
    None,
}

/// Configuration of a [`Din`].
///
/// ```
/// use crossfield_attention::DinConfig;
/// use crossfield_core::{ComponentConfig, Field, FieldKind, Schema};
///
/// let field = |name: &str, kind| Field {
///     name: name.into(),
///     kind,
///     vocabulary: "item".into(),
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
/// // The sequence is the history of the one field that shares its vocabulary, and its vectors.
/// let tables = DinConfig::default().tables(&schema)?;
/// assert_eq!((tables[0].name.as_str(), &tables[0].fields[..]), ("v8.item", &[0, 1][..]));
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinConfig {
    /// Name of the component, set by its place in a run file; its dense weights are keyed by it.
    #[serde(skip)]
    pub name: String,
    /// Fields to read beside the histories; none: all but sequences and crosses. Targets are read
    /// whether they are named or not.
    pub fields: Vec<String>,
    /// Length of the vectors.
    pub embedding_dim: usize,
    /// Standard deviation of the vectors at the start, the same as a factorization machine's, with
    /// which they are shared.
    pub init_std: f64,
    /// How the events of a history become one vector.
    pub attention: Pooling,
    /// Units of the hidden layers of activation units; those of additive attention are the first.
    pub unit_hidden: Vec<usize>,
    /// What follows each of them.
    pub unit_activation: Activation,
    /// Units of each hidden layer over the vectors of all fields and histories.
    pub hidden: Vec<usize>,
    /// What follows each of them.
    pub activation: Activation,
    /// Probability that one of their units is left out at a step of training.
    pub dropout: f64,
    /// How their units are normalized before the activation.
    pub norm: Normalization,
    /// Prefix of the tables instead of `v<embedding_dim>`, which other components share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// What asks which histories; none: every sequence that shares its vocabulary with exactly one
    /// field of one value a row is the history of that field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behaviour: Vec<BehaviourConfig>,
}

impl Default for DinConfig {
    fn default() -> Self {
        Self {
            name: "din".into(),
            fields: Vec::new(),
            embedding_dim: 8,
            init_std: 0.01,
            attention: Pooling::Unit,
            unit_hidden: vec![64, 16],
            unit_activation: Activation::Dice,
            hidden: vec![256, 128],
            activation: Activation::Dice,
            dropout: 0.0,
            norm: Normalization::None,
            share: None,
            behaviour: Vec::new(),
        }
    }
}

/// A perceptron over the vectors of all fields and what the target reads of each history.
///
/// ```text
/// u_b = Σ_t w_t k_t over the events t of behaviour b,  w_t = unit(q, k_t)
/// z = MLP([v_1, …, v_F, x_1, …, x_D, u_1, …, u_B])
/// ```
///
/// with the vectors v of all fields, the target's among them, the dense columns x, and the target's
/// vector q. A row without events reads zeros.
///
/// # Source
/// Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018, section 4.3.
#[derive(Module, Debug)]
pub struct Din {
    #[module(skip)]
    name: String,
    #[module(skip)]
    inputs: FieldInputs,
    #[module(skip)]
    pooling: Pooling,
    #[module(skip)]
    behaviours: Vec<Behaviour>,
    /// One for each behaviour, if they are pooled by one.
    units: Vec<ActivationUnit>,
    /// Likewise.
    additive: Vec<AdditiveAttention>,
    /// One for each behaviour.
    positions: Vec<Option<PositionEncoding>>,
    mlp: Mlp,
}

struct Parts {
    tables: Vec<TableConfig>,
    inputs: FieldInputs,
    behaviours: Vec<Behaviour>,
    width: usize,
}

impl DinConfig {
    fn factors(&self) -> Factors<'_> {
        Factors::new(&self.name, self.embedding_dim, self.init_std)
            .in_tables_of(self.share.as_deref())
    }

    fn parts(&self, schema: &Schema) -> Result<Parts, Error> {
        let factors = self.factors();
        factors.check()?;
        let behaviours = Behaviour::all(&self.behaviour, schema, factors)?;
        let mut fields = schema.bags(&self.name, &self.fields)?;
        for target in behaviours.iter().flat_map(Behaviour::targets) {
            if !fields.contains(&target) {
                fields.push(target);
            }
        }
        let name = |vocabulary: &str| factors.table(vocabulary);
        let inputs = FieldInputs::new(schema, &fields, self.embedding_dim, name);
        let reads_histories = self.attention != Pooling::None;
        let behaviours = if reads_histories {
            behaviours
        } else {
            Vec::new()
        };
        let embedded = inputs.embedded().iter().map(|field| field.field);
        let histories = behaviours.iter().flat_map(Behaviour::histories);
        let ids: Vec<FieldId> = embedded.chain(histories).collect();
        let mut tables = behaviour::tables(factors, schema, ids);
        for behaviour in &behaviours {
            tables.extend(behaviour.added_tables(schema, factors));
        }
        let pooled: usize = behaviours.iter().map(Behaviour::dim).sum();
        let width = inputs.width() + pooled;
        self.mlp().check(&self.name, width)?;
        if self.has_units() || self.attention == Pooling::Additive {
            self.unit().check("unit_hidden", &self.name)?;
        }
        if self.attention == Pooling::Additive {
            check_option(
                &self.name,
                "unit_hidden",
                "[]",
                !self.unit_hidden.is_empty(),
                "a layer, whose units are those of additive attention",
            )?;
        }
        Ok(Parts {
            tables,
            inputs,
            behaviours,
            width,
        })
    }

    fn has_units(&self) -> bool {
        matches!(self.attention, Pooling::Unit | Pooling::UnitSoftmax)
    }

    fn unit(&self) -> ActivationUnitConfig {
        ActivationUnitConfig {
            hidden: self.unit_hidden.clone(),
            activation: self.unit_activation,
            softmax: self.attention == Pooling::UnitSoftmax,
        }
    }

    fn mlp(&self) -> MlpConfig {
        MlpConfig {
            hidden: self.hidden.clone(),
            output: 1,
            activation: self.activation,
            dropout: self.dropout,
            norm: self.norm,
            residual: false,
        }
    }
}

impl ComponentConfig for DinConfig {
    type Component = Din;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(self.parts(schema)?.tables)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Din, Error> {
        let Parts {
            inputs,
            behaviours,
            width,
            ..
        } = self.parts(schema)?;
        let mut units = Vec::new();
        let mut additive = Vec::new();
        let mut positions = Vec::new();
        for (nth, behaviour) in behaviours.iter().enumerate() {
            let (name, dim) = (&self.name, behaviour.dim());
            if self.has_units() {
                units.push(self.unit().init(&format!("{name}.unit.{nth}"), dim, init)?);
            }
            if self.attention == Pooling::Additive {
                let config = AdditiveConfig {
                    units: self.unit_hidden[0],
                };
                additive.push(config.init(&format!("{name}.additive.{nth}"), dim, dim, init)?);
            }
            positions.push(behaviour.positions(name, nth, init)?);
        }
        Ok(Din {
            name: self.name.clone(),
            inputs,
            pooling: self.attention,
            behaviours,
            units,
            additive,
            positions,
            mlp: self.mlp().init(&self.name, width, init)?,
        })
    }

    fn check_rows(&self, schema: &Schema, rows: &Examples<'_>) -> Result<(), Error> {
        let Parts { behaviours, .. } = self.parts(schema)?;
        let mut behaviours = behaviours.iter();
        behaviours.try_for_each(|behaviour| behaviour.check_rows(&self.name, schema, rows))
    }

    /// x v of each feature, for each behaviour the weights of its events and their sum, and the layers.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let parts = self.parts(schema).ok()?;
        let vectors = features_in(parts.inputs.embedded(), features);
        let pooled = parts.behaviours.iter().map(|behaviour| {
            let (dim, items) = (behaviour.dim(), behaviour.events(features));
            let query = 2.0 * behaviour.asked(features) * self.embedding_dim as f64;
            let weights = match self.attention {
                Pooling::Unit | Pooling::UnitSoftmax => query + self.unit().flops(dim, items),
                Pooling::Dot => query + 2.0 * items * dim as f64,
                Pooling::Additive => {
                    let units = self.unit_hidden[0];
                    query + AdditiveConfig { units }.flops(dim, items)
                }
                Pooling::Mean | Pooling::Sum | Pooling::None => query,
            };
            weights + 2.0 * items * dim as f64
        });
        let pooled: f64 = pooled.sum();
        let vectors = 2.0 * vectors * self.embedding_dim as f64;
        Some(vectors + pooled + self.mlp().flops(parts.width))
    }
}

impl Din {
    /// The weight of each event of a behaviour.
    ///
    /// # Shapes
    /// - output: `[items, 1]`
    fn weights(
        &self,
        nth: usize,
        query: Tensor<2>,
        keys: &Ragged,
        training: Option<TrainingStep>,
    ) -> Tensor<2> {
        let Ragged { values, segments } = keys;
        let constant = |weight: &dyn Fn(usize) -> f32| {
            let of_row = |row| {
                let items = segments.range(row).len();
                std::iter::repeat_n(weight(items), items)
            };
            let weights: Vec<f32> = (0..segments.rows()).flat_map(of_row).collect();
            Tensor::<1>::from_data(&weights[..], &values.device()).unsqueeze_dim(1)
        };
        match self.pooling {
            Pooling::Unit | Pooling::UnitSoftmax => self.units[nth].weights(query, keys, training),
            Pooling::Dot => dot_product_weights(query, keys, 1),
            Pooling::Additive => self.additive[nth].weights(query, keys),
            Pooling::Mean => constant(&|items| 1.0 / items as f32),
            Pooling::Sum => constant(&|_| 1.0),
            Pooling::None => unreachable!("then no behaviour is kept"),
        }
    }

    /// # Shapes
    /// - output: `[batch, dim]`
    fn pooled(&self, nth: usize, x: &Lookup) -> Tensor<2> {
        let behaviour = &self.behaviours[nth];
        let Some(keys) = behaviour.keys(x, &self.positions[nth]) else {
            return Tensor::zeros([x.batch_size(), behaviour.dim()], x.device());
        };
        let weights = self.weights(nth, behaviour.query(x), &keys, x.training());
        weighted_sum(weights, keys.values, &keys.segments)
    }
}

impl Component for Din {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        let pooled = (0..self.behaviours.len()).map(|nth| self.pooled(nth, x));
        let parts = std::iter::once(self.inputs.of(x)).chain(pooled);
        let input = Tensor::cat(parts.collect(), 1);
        self.mlp.forward(input, x.training())
    }

    /// The score under the component's own name: a perceptron has no parts that add up.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        Contribution::whole(&self.name, self.forward(x))
    }

    fn attention(&self, x: &Lookup) -> Vec<AttentionWeights> {
        let of_one = |(nth, behaviour): (usize, &Behaviour)| {
            let keys = behaviour.keys(x, &self.positions[nth]);
            let weights = keys.map(|keys| {
                let query = behaviour.query(x);
                self.weights(nth, query, &keys, x.training())
            });
            behaviour.attention(x, weights)
        };
        let behaviours = self.behaviours.iter().enumerate();
        behaviours.flat_map(of_one).collect()
    }
}
