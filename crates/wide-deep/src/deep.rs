//! The deep part: a perceptron over the vectors of fields and the dense columns.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use crossfield_core::{
    Activation, Component, ComponentConfig, Contribution, Error, FieldKind, Init, Initializer,
    Lookup, Mlp, MlpConfig, Normalization, Schema, TableConfig, TableField, What, check_option,
    factor_table, tables_for,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`Deep`].
///
/// ```
/// use crossfield_core::{ComponentConfig, Field, FieldKind, Schema};
/// use crossfield_wide_deep::DeepConfig;
///
/// let schema = Schema {
///     fields: vec![Field {
///         name: "tags".into(),
///         kind: FieldKind::Bag,
///         vocabulary: "tags".into(),
///         rows: 4,
///         oov_row: Some(0),
///     }],
///     dense: Vec::new(),
/// };
/// let mut config = DeepConfig::default();
/// assert_eq!(config.tables(&schema)?[0].name, "v8.tags");
/// config.residual = true;
/// assert_eq!(
///     config.tables(&schema).unwrap_err().to_string(),
///     "`deep.residual` is true with layers of 8 → [256, 128]: expected a hidden layer as wide as \
///      what it reads, or false"
/// );
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeepConfig {
    /// Name of the component, set by its place in a run file; its dense weights are keyed by it.
    #[serde(skip)]
    pub name: String,
    /// Fields to read; none: all but sequences and crosses, for a cross remembers what it was
    /// trained on and is for the wide part (Cheng et al. 2016, section 3.1), and a perceptron makes
    /// its own. Numeric fields that are not in buckets arrive as their dense columns, with the
    /// indicator of their missing values; all others as vectors, those of a bag added up. A
    /// sequence that is named is read as a bag.
    pub fields: Vec<String>,
    /// Length of the vectors.
    pub embedding_dim: usize,
    /// Standard deviation of the vectors at the start, the same as a factorization machine's, with
    /// which they are shared.
    pub init_std: f64,
    /// Units of each hidden layer, from the input on. Cheng et al. have three of 1024, 512 and 256.
    pub hidden: Vec<usize>,
    /// What follows each hidden layer; ReLU as in Cheng et al.
    pub activation: Activation,
    /// Probability that a hidden unit is left out at a step of training; 0 as in Cheng et al.
    pub dropout: f64,
    /// How hidden units are normalized before the activation.
    pub norm: Normalization,
    /// Whether a hidden layer adds its input to its output where both have one width.
    pub residual: bool,
    /// Prefix of the tables instead of `v<embedding_dim>`, which other components share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for DeepConfig {
    fn default() -> Self {
        Self {
            name: "deep".into(),
            fields: Vec::new(),
            embedding_dim: 8,
            init_std: 0.01,
            hidden: vec![256, 128],
            activation: Activation::Relu,
            dropout: 0.0,
            norm: Normalization::None,
            residual: false,
            share: None,
        }
    }
}

/// A perceptron over the vectors of all fields, side by side with the dense columns.
///
/// ```text
/// a = [v_1, …, v_F, x_1, …, x_D],  v_f = Σ x v over the features of field f
/// z = MLP(a)
/// ```
///
/// An empty bag is a zero vector. The example of the [crate] adds one to a [`Wide`](crate::Wide).
///
/// # Source
/// Cheng et al. 2016, section 3.2; the layers are those of an [`Mlp`]. The vectors of the source
/// have 32 weights.
#[derive(Module, Debug)]
pub struct Deep {
    #[module(skip)]
    name: String,
    #[module(skip)]
    inputs: Inputs,
    mlp: Mlp,
}

/// What of a batch the perceptron reads.
#[derive(Clone, Debug, Default)]
struct Inputs {
    embedded: Vec<TableField>,
    /// Positions of the dense columns; none if it reads all of them.
    columns: Option<Vec<usize>>,
    width: usize,
}

impl DeepConfig {
    fn inputs(&self, schema: &Schema) -> Result<(Vec<TableConfig>, Inputs), Error> {
        check_option(
            &self.name,
            "embedding_dim",
            self.embedding_dim,
            (1..=1024).contains(&self.embedding_dim),
            "1 to 1024",
        )?;
        check_option(
            &self.name,
            "init_std",
            self.init_std,
            self.init_std.is_finite() && self.init_std >= 0.0,
            "a finite number of at least 0",
        )?;
        let ids = schema.bags(&self.name, &self.fields)?;
        let is_dense = |&id: &usize| {
            let field = &schema.fields[id];
            field.kind == FieldKind::Numeric && schema.dense.contains(&field.name)
        };
        let (numbers, ids): (Vec<usize>, Vec<usize>) = ids.into_iter().partition(is_dense);
        // A number's column and, if it has one, the indicator of its missing values.
        let columns: Vec<usize> = (0..schema.dense.len())
            .filter(|&column| {
                let column = &schema.dense[column];
                numbers.iter().any(|&id| {
                    let name = &schema.fields[id].name;
                    column == name || column.strip_suffix(".missing") == Some(name)
                })
            })
            .collect();
        let (tables, embedded) = tables_for(
            schema,
            &ids,
            self.embedding_dim,
            Initializer::Normal { std: self.init_std },
            |vocabulary| match &self.share {
                Some(prefix) => format!("{prefix}.{vocabulary}"),
                None => factor_table(self.embedding_dim, vocabulary),
            },
        );
        let width = embedded.len() * self.embedding_dim + columns.len();
        self.mlp().check(&self.name, width)?;
        let columns = (columns.len() < schema.dense.len()).then_some(columns);
        let inputs = Inputs {
            embedded,
            columns,
            width,
        };
        Ok((tables, inputs))
    }

    fn mlp(&self) -> MlpConfig {
        MlpConfig {
            hidden: self.hidden.clone(),
            output: 1,
            activation: self.activation,
            dropout: self.dropout,
            norm: self.norm,
            residual: self.residual,
        }
    }
}

impl ComponentConfig for DeepConfig {
    type Component = Deep;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(self.inputs(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Deep, Error> {
        let inputs = self.inputs(schema)?.1;
        Ok(Deep {
            name: self.name.clone(),
            mlp: self.mlp().init(&self.name, inputs.width, init)?,
            inputs,
        })
    }
}

impl Inputs {
    /// # Shapes
    /// - output: `[batch, width]`
    fn of(&self, x: &Lookup) -> Tensor<2> {
        let vectors = (!self.embedded.is_empty()).then(|| {
            let vectors = x.fields(&self.embedded);
            let [batch, fields, dim] = vectors.dims();
            vectors.reshape([batch, fields * dim])
        });
        let columns = match &self.columns {
            None => x.dense(),
            Some(columns) if columns.is_empty() => None,
            Some(columns) => x.dense().map(|dense| {
                let columns: Vec<i64> = columns.iter().map(|&column| column as i64).collect();
                let columns = Tensor::<1, Int>::from_data(&columns[..], &dense.device());
                dense.select(1, columns)
            }),
        };
        let parts: Vec<Tensor<2>> = vectors.into_iter().chain(columns).collect();
        Tensor::cat(parts, 1)
    }
}

impl Component for Deep {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        self.mlp.forward(self.inputs.of(x), x.training())
    }

    /// The score under the component's own name: a perceptron has no parts that add up.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let scores = self.forward(x).into_data().convert::<f32>();
        let scores = scores.as_slice::<f32>().expect("scores were made f32");
        let of_row = |(row, &score): (usize, &f32)| Contribution {
            row,
            what: What::Named(self.name.clone()),
            weight: 1.0,
            contribution: score,
        };
        scores.iter().enumerate().map(of_row).collect()
    }
}
