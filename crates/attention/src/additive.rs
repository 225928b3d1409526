//! Attention whose fit is a small network.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use crossfield_core::{Error, Init, Ragged, check_option};
use serde::{Deserialize, Serialize};

use crate::qkv::project;
use crate::weighted_sum;

/// Configuration of an [`AdditiveAttention`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::AdditiveConfig;
/// use crossfield_core::{Init, Ragged, Segments};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// // Queries of 4 numbers, items of 6.
/// let attention = AdditiveConfig { units: 8 }.init("a", 4, 6, &init)?;
/// let queries = Tensor::ones([2, 4], &init.device);
/// let items = Ragged {
///     values: Tensor::ones([5, 6], &init.device),
///     segments: Segments::new(vec![0, 3, 5]),
/// };
/// let weights = attention.weights(queries.clone(), &items);
/// assert_eq!(weights.dims(), [5, 1]);
/// let read = attention.forward(queries, &items, items.values.clone());
/// assert_eq!(read.dims(), [2, 6]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdditiveConfig {
    /// Units of the hidden layer.
    pub units: usize,
}

impl Default for AdditiveConfig {
    /// 16 units.
    fn default() -> Self {
        Self { units: 16 }
    }
}

/// What the one query of a row, q, reads of the row's values, by the fit of their keys:
///
/// ```text
/// e_j = wᵀ tanh(W_q q + W_k k_j + b)
/// output = Σ_j softmax_j(e) v_j
/// ```
///
/// A query whose row has no items reads zeros.
///
/// # Source
/// Bahdanau, Cho and Bengio, Neural Machine Translation by Jointly Learning to Align and Translate,
/// ICLR 2015, section A.1.2; b is ours.
#[derive(Module, Debug)]
pub struct AdditiveAttention {
    query: Linear,
    key: Linear,
    fit: Param<Tensor<2>>,
}

impl AdditiveConfig {
    /// Floating-point operations of the weights of `items` items of `dim` numbers for a query of as
    /// many.
    pub(crate) fn flops(&self, dim: usize, items: f64) -> f64 {
        let map = (self.units * dim) as f64;
        2.0 * (map + items * (map + self.units as f64))
    }

    /// The layer for queries and items of so many columns; `name` keys its random weights.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a width out of its range.
    pub fn init(
        &self,
        name: &str,
        queries: usize,
        items: usize,
        init: &Init,
    ) -> Result<AdditiveAttention, Error> {
        let units = self.units;
        let widths = 1..=65_536;
        check_option(name, "units", units, widths.contains(&units), "1 to 65536")?;
        let bound = 1.0 / (units as f32).sqrt();
        let query = init.linear(&format!("{name}.query"), queries, units);
        Ok(AdditiveAttention {
            query,
            // One bias is enough.
            key: Linear {
                bias: None,
                ..init.linear(&format!("{name}.key"), items, units)
            },
            fit: init.uniform(&format!("{name}.fit"), [units, 1], bound),
        })
    }
}

impl AdditiveAttention {
    /// What the query of each row reads.
    ///
    /// # Shapes
    /// - queries: `[rows, queries' dim]`
    /// - items: `[items, items' dim]` in all, the keys
    /// - values: `[items, values' dim]`
    /// - output: `[rows, values' dim]`
    ///
    /// # Panics
    /// If rows or columns do not fit.
    pub fn forward(&self, queries: Tensor<2>, items: &Ragged, values: Tensor<2>) -> Tensor<2> {
        weighted_sum(self.weights(queries, items), values, &items.segments)
    }

    /// The weights that the query of each row gives to the row's items.
    ///
    /// # Shapes
    /// - queries: `[rows, queries' dim]`
    /// - items: `[items, items' dim]` in all
    /// - output: `[items, 1]`
    ///
    /// # Panics
    /// If rows or columns do not fit.
    pub fn weights(&self, queries: Tensor<2>, items: &Ragged) -> Tensor<2> {
        let segments = &items.segments;
        let asked = segments.spread(project(&self.query, queries));
        let hidden = (asked + project(&self.key, items.values.clone())).tanh();
        segments.softmax(hidden.matmul(self.fit.val()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{
        check_gradient, close, init, ragged, segments, tensor, times, values,
    };
    use burn::tensor::Device;

    #[test]
    fn the_fit_is_the_network_of_the_paper() {
        let device = Device::flex();
        let config = AdditiveConfig { units: 6 };
        let layer = config.init("a", 3, 5, &init(device.clone())).unwrap();
        let queries = tensor(3, 3, 1, &device);
        let items = ragged(&[4, 0, 2], 5, 2, &device);
        let read = tensor(6, 2, 3, &device);
        let (w_q, w_k) = (
            values(layer.query.weight.val()),
            values(layer.key.weight.val()),
        );
        let bias = values(layer.query.bias.as_ref().unwrap().val());
        let fit = values(layer.fit.val());
        let [asked, past, numbers] =
            [&queries, &items.values, &read].map(|tensor| values(tensor.clone()));
        let (mut weights, mut expected) = (Vec::new(), vec![0.0; 6]);
        for row in 0..3 {
            let q = times(&asked[row * 3..][..3], &w_q);
            let power = |item: usize| {
                let k = times(&past[item * 5..][..5], &w_k);
                let unit = |at: usize| fit[at] * (q[at] + k[at] + bias[at]).tanh();
                (0..6).map(unit).sum::<f32>().exp()
            };
            let powers: Vec<f32> = items.segments.range(row).map(power).collect();
            let sum: f32 = powers.iter().sum();
            for (item, power) in items.segments.range(row).zip(powers) {
                weights.push(power / sum);
                for column in 0..2 {
                    expected[row * 2 + column] += power / sum * numbers[item * 2 + column];
                }
            }
        }
        close(&values(layer.weights(queries.clone(), &items)), &weights);
        close(&values(layer.forward(queries, &items, read)), &expected);
        assert_eq!(expected[2..4], [0.0, 0.0]);
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        let layer = |device: &Device| {
            let config = AdditiveConfig::default();
            config.init("a", 3, 4, &init(device.clone())).unwrap()
        };
        check_gradient([5, 4], |x, device| {
            let items = Ragged {
                values: x.clone(),
                segments: segments(&[3, 0, 2]),
            };
            layer(device).forward(tensor(3, 3, 1, device), &items, x)
        });
        check_gradient([3, 3], |x, device| {
            let items = ragged(&[3, 0, 2], 4, 2, device);
            layer(device).forward(x, &items, items.values.clone())
        });
    }

    #[test]
    fn no_units_are_refused() {
        let error = AdditiveConfig { units: 0 }.init("a", 3, 4, &init(Device::flex()));
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "`a.units` is 0: expected 1 to 65536");
    }
}
