//! The local activation unit of DIN.

use burn::module::Module;
use burn::tensor::Tensor;
use crossfield_core::{
    Activation, Error, Init, Mlp, MlpConfig, Normalization, Ragged, TrainingStep, check_option,
};

use crate::unit_layer::unit_layer;
use crate::weighted_sum;

/// Configuration of an [`ActivationUnit`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::ActivationUnitConfig;
/// use crossfield_core::{Init, Ragged, Segments};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let unit = ActivationUnitConfig::default().init("unit", 2, &init)?;
/// // The first row has two items, the second none.
/// let keys = Ragged {
///     values: Tensor::from_data([[1.0, 0.0], [0.0, 1.0]], &init.device),
///     segments: Segments::new(vec![0, 2, 2]),
/// };
/// let query = Tensor::<2>::from_data([[1.0, 0.0], [0.0, 3.0]], &init.device);
/// let weights = unit.weights(query.clone(), &keys, None).try_into_vec_as::<f32>().unwrap();
/// // Of keys that are unit vectors, the sum has the weights themselves.
/// let pooled = unit.forward(query, &keys, None).try_into_vec_as::<f32>().unwrap();
/// assert_eq!(pooled, [weights[0], weights[1], 0.0, 0.0]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationUnitConfig {
    /// Units of each hidden layer.
    pub hidden: Vec<usize>,
    /// What follows each.
    pub activation: Activation,
    /// Whether the weights of a row are brought to a sum of 1 by a softmax. The source leaves it out,
    /// so that how much of a history fits the query is not lost.
    pub softmax: bool,
}

impl Default for ActivationUnitConfig {
    /// Two layers; the authors' code has 80 and 40 units.
    fn default() -> Self {
        Self {
            hidden: vec![64, 16],
            activation: Activation::Dice,
            softmax: false,
        }
    }
}

/// A weight for each item of a row's history, from a perceptron that sees the item beside the query,
/// and the sum of the items by these weights.
///
/// ```text
/// w_t = MLP([q, k_t, q − k_t, q ⊙ k_t])
/// output = Σ_t w_t k_t
/// ```
///
/// # Source
/// Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018, equation 3 of
/// section 4.3 and figure 2. The figure has an outer product of query and item between the two; as in
/// the authors' code, difference and element-wise product stand in its place.
#[derive(Module, Debug)]
pub struct ActivationUnit {
    mlp: Mlp,
    #[module(skip)]
    softmax: bool,
}

impl ActivationUnitConfig {
    /// Refuses widths that cannot be, under the name that they have in the options of a component.
    pub(crate) fn check(&self, option: &'static str, component: &str) -> Result<(), Error> {
        let widths = 1..=65_536;
        check_option(
            component,
            option,
            format!("{:?}", self.hidden),
            self.hidden.iter().all(|units| widths.contains(units)),
            "layers of 1 to 65536 units",
        )
    }

    fn mlp(&self) -> MlpConfig {
        MlpConfig {
            hidden: self.hidden.clone(),
            output: 1,
            activation: self.activation,
            dropout: 0.0,
            norm: Normalization::None,
            residual: false,
        }
    }

    /// Floating-point operations for one row with a query and `items` items of `dim` numbers. Of the
    /// first layer a row's query takes a product with its own share of the matrix, and with what
    /// stands in front of the items, which are then as short as the query.
    ///
    /// ```
    /// use crossfield_attention::ActivationUnitConfig;
    ///
    /// let config = ActivationUnitConfig {
    ///     hidden: vec![3],
    ///     ..ActivationUnitConfig::default()
    /// };
    /// // Two products of 4 × 3 for the row; for each of 5 items one of 4 × 3, then of 3 × 1.
    /// assert_eq!(config.flops(4, 5.0), 2.0 * (24.0 + 5.0 * (12.0 + 3.0)));
    /// ```
    pub fn flops(&self, dim: usize, items: f64) -> f64 {
        let first = self.hidden.first().map_or(1, |&units| units) * dim;
        let all = self.mlp().flops(4 * dim) / 2.0;
        let others = all - (4 * first) as f64;
        2.0 * ((2.0 + items) * first as f64 + items * others)
    }

    /// The unit for vectors of `dim` numbers; `name` keys its random weights, and is named in messages.
    ///
    /// # Errors
    /// As [`MlpConfig::check`].
    pub fn init(&self, name: &str, dim: usize, init: &Init) -> Result<ActivationUnit, Error> {
        Ok(ActivationUnit {
            mlp: self.mlp().init(name, 4 * dim, init)?,
            softmax: self.softmax,
        })
    }
}

impl ActivationUnit {
    /// The sum of each row's items by their weights; zeros where a row has none. `training` is as
    /// [`Mlp::forward`] takes it.
    ///
    /// # Shapes
    /// - query: `[rows, dim]`
    /// - keys: `[items, dim]`
    /// - output: `[rows, dim]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        query: Tensor<2>,
        keys: &Ragged,
        training: Option<TrainingStep>,
    ) -> Tensor<2> {
        let weights = self.weights(query, keys, training);
        weighted_sum(weights, keys.values.clone(), &keys.segments)
    }

    /// The weight of each item.
    ///
    /// # Shapes
    /// - query: `[rows, dim]`
    /// - keys: `[items, dim]`
    /// - output: `[items, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn weights(
        &self,
        query: Tensor<2>,
        keys: &Ragged,
        training: Option<TrainingStep>,
    ) -> Tensor<2> {
        let Ragged { values, segments } = keys;
        let first = |weight, bias| unit_layer(query, values.clone(), segments, weight, bias);
        let weights = self.mlp.forward_from(first, training);
        if self.softmax {
            segments.softmax(weights)
        } else {
            weights
        }
    }
}
