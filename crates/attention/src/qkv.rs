//! Dot-product attention between learned projections.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use crossfield_core::{Error, Init, Ragged, check_option, dense_layer};
use serde::{Deserialize, Serialize};

use crate::{dot_product_attention, dot_product_weights};

/// Configuration of a [`QkvAttention`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::QkvConfig;
/// use crossfield_core::{Init, Ragged, Segments};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let config = QkvConfig {
///     heads: 2,
///     output: true,
///     ..QkvConfig::default()
/// };
/// // Queries of 4 numbers, items of 6.
/// let attention = config.init("a", 4, 6, &init)?;
/// let queries = Ragged {
///     values: Tensor::ones([2, 4], &init.device),
///     segments: Segments::of_one(2),
/// };
/// let items = Ragged {
///     values: Tensor::ones([5, 6], &init.device),
///     segments: Segments::new(vec![0, 3, 5]),
/// };
/// assert_eq!(attention.forward(&queries, &items, false).dims(), [2, 4]);
/// assert_eq!(attention.weights(queries.values, &items).dims(), [5, 2]);
/// let error = QkvConfig { heads: 3, ..config }.init("a", 4, 6, &init).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`a.heads` is 3: expected a divisor of 4, the dim of its queries"
/// );
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QkvConfig {
    /// Blocks of queries, keys and values that attend by themselves.
    pub heads: usize,
    /// Width of queries, keys and values of all heads together; that of what asks, if it is left out.
    pub dim: Option<usize>,
    /// Whether what the heads read goes through one more matrix, back to the width of what asks.
    pub output: bool,
    /// Whether the projections add a bias.
    pub bias: bool,
}

impl Default for QkvConfig {
    /// One head of the queries' width, and neither an output projection nor biases.
    fn default() -> Self {
        Self {
            heads: 1,
            dim: None,
            output: false,
            bias: false,
        }
    }
}

/// Attention between projections of what asks, x, and of the items that are asked, y:
///
/// ```text
/// Q = x W_Q,  K = y W_K,  V = y W_V
/// head_h = softmax(Q_h K_hᵀ / √d) V_h
/// output = [head_1 … head_H] W_O
/// ```
///
/// where `_h` is the h-th block of columns and d its width. Without `output` there is no W_O. A query
/// whose row has no items reads zeros (and the bias of W_O, where there is one).
///
/// # Source
/// Vaswani et al., Attention Is All You Need, NeurIPS 2017, section 3.2.2.
#[derive(Module, Debug)]
pub struct QkvAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Option<Linear>,
    #[module(skip)]
    heads: usize,
}

impl QkvConfig {
    /// Refuses what cannot be, for queries of so many columns; `name` is named in messages.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a width out of its range, or one that the heads do not divide.
    pub fn check(&self, name: &str, queries: usize) -> Result<(), Error> {
        let dim = self.dim.unwrap_or(queries);
        let widths = 1..=65_536;
        check_option(name, "dim", dim, widths.contains(&dim), "1 to 65536")?;
        let whose = match self.dim {
            Some(_) => "its `dim`",
            None => "the dim of its queries",
        };
        check_option(
            name,
            "heads",
            self.heads,
            self.heads > 0 && dim.is_multiple_of(self.heads),
            format!("a divisor of {dim}, {whose}"),
        )
    }

    /// The layer for queries and items of so many columns; `name` keys its random weights.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn init(
        &self,
        name: &str,
        queries: usize,
        items: usize,
        init: &Init,
    ) -> Result<QkvAttention, Error> {
        self.check(name, queries)?;
        let dim = self.dim.unwrap_or(queries);
        let projection = |part: &str, inputs, outputs| {
            let layer = init.linear(&format!("{name}.{part}"), inputs, outputs);
            Linear {
                bias: layer.bias.filter(|_| self.bias),
                ..layer
            }
        };
        Ok(QkvAttention {
            query: projection("query", queries, dim),
            key: projection("key", items, dim),
            value: projection("value", items, dim),
            output: self.output.then(|| projection("output", dim, queries)),
            heads: self.heads,
        })
    }
}

impl QkvAttention {
    /// What each query reads of its row's items.
    ///
    /// # Shapes
    /// - queries: `[queries, queries' dim]` in all
    /// - items: `[items, items' dim]` in all
    /// - output: `[queries, dim]`, or `[queries, queries' dim]` with an output projection
    ///
    /// # Panics
    /// If rows or columns do not fit; with `causal` if queries and items are not as many in each row.
    pub fn forward(&self, queries: &Ragged, items: &Ragged, causal: bool) -> Tensor<2> {
        let asked = Ragged {
            values: project(&self.query, queries.values.clone()),
            segments: queries.segments.clone(),
        };
        let values = project(&self.value, items.values.clone());
        let read = dot_product_attention(&asked, &self.keys(items), values, self.heads, causal);
        match &self.output {
            Some(output) => project(output, read),
            None => read,
        }
    }

    /// The weights that the one query of each row gives to the row's items.
    ///
    /// # Shapes
    /// - queries: `[rows, queries' dim]`
    /// - items: `[items, items' dim]` in all
    /// - output: `[items, heads]`
    ///
    /// # Panics
    /// If rows or columns do not fit.
    pub fn weights(&self, queries: Tensor<2>, items: &Ragged) -> Tensor<2> {
        let queries = project(&self.query, queries);
        dot_product_weights(queries, &self.keys(items), self.heads)
    }

    fn keys(&self, items: &Ragged) -> Ragged {
        Ragged {
            values: project(&self.key, items.values.clone()),
            segments: items.segments.clone(),
        }
    }
}

/// `x W`, with the bias of the layer if it has one.
pub(crate) fn project(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let weight = layer.weight.val();
    let bias = match &layer.bias {
        Some(bias) => bias.val(),
        None => Tensor::zeros([weight.dims()[1]], (&x.device(), x.dtype())),
    };
    dense_layer(x, weight, bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{check_gradient, close, init, ragged, segments, times, values};
    use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig};
    use burn::tensor::{Bool, Device};

    #[test]
    fn a_query_reads_projected_values_by_projected_keys() {
        let device = Device::flex();
        let config = QkvConfig {
            heads: 2,
            dim: Some(4),
            output: true,
            bias: false,
        };
        let layer = config.init("a", 3, 5, &init(device.clone())).unwrap();
        let queries = ragged(&[1, 2, 1], 3, 1, &device);
        let items = ragged(&[3, 1, 0], 5, 2, &device);
        let of = |layer: &Linear| values(layer.weight.val());
        let [w_q, w_k, w_v] = [&layer.query, &layer.key, &layer.value].map(of);
        let w_o = of(layer.output.as_ref().unwrap());
        let (asked, past) = (values(queries.values.clone()), values(items.values.clone()));
        let mut expected = Vec::new();
        for row in 0..3 {
            for query in queries.segments.range(row) {
                let q = times(&asked[query * 3..][..3], &w_q);
                let mut read = vec![0.0; 4];
                for head in 0..2 {
                    let keys: Vec<usize> = items.segments.range(row).collect();
                    let power = |&item: &usize| {
                        let k = times(&past[item * 5..][..5], &w_k);
                        let fit: f32 = (0..2).map(|d| q[head * 2 + d] * k[head * 2 + d]).sum();
                        (fit / 2f32.sqrt()).exp()
                    };
                    let powers: Vec<f32> = keys.iter().map(power).collect();
                    for (item, power) in keys.iter().zip(&powers) {
                        let v = times(&past[item * 5..][..5], &w_v);
                        for d in 0..2 {
                            let weight = power / powers.iter().sum::<f32>();
                            read[head * 2 + d] += weight * v[head * 2 + d];
                        }
                    }
                }
                expected.extend(times(&read, &w_o));
            }
        }
        close(&values(layer.forward(&queries, &items, false)), &expected);
        assert_eq!(expected[9..], [0.0; 3]);
    }

    #[test]
    fn on_rows_without_padding_it_is_burns_multi_head_attention() {
        let device = Device::flex();
        let config = QkvConfig {
            heads: 2,
            output: true,
            bias: true,
            ..QkvConfig::default()
        };
        let ours = config.init("a", 8, 8, &init(device.clone())).unwrap();
        let mut burns = MultiHeadAttentionConfig::new(8, 2)
            .with_dropout(0.0)
            .init(&device);
        burns.query = ours.query.clone();
        burns.key = ours.key.clone();
        burns.value = ours.value.clone();
        burns.output = ours.output.clone().unwrap();
        let items = ragged(&[5, 5, 5], 8, 1, &device);
        let padded = items.values.clone().reshape([3, 5, 8]);
        for causal in [false, true] {
            let input = MhaInput::self_attn(padded.clone());
            let input = if causal {
                let later = (0..75).map(|at| at % 5 > at / 5 % 5).collect();
                let later = burn::tensor::TensorData::new(later, [3, 5, 5]);
                input.mask_attn(Tensor::<3, Bool>::from_data(later, &device))
            } else {
                input
            };
            let expected = burns.forward(input);
            close(
                &values(ours.forward(&items, &items, causal)),
                &values(expected.context),
            );
            if causal {
                // The weights of the last item of each row: [rows, heads, time, time].
                let last = ragged(&[1, 1, 1], 8, 1, &device);
                let queries = items.values.clone().reshape([3, 5, 8]).narrow(1, 4, 1);
                let queries = queries.reshape(last.values.dims());
                let weights = expected.weights.narrow(2, 4, 1).reshape([3, 2, 5]);
                close(
                    &values(ours.weights(queries, &items)),
                    &values(weights.swap_dims(1, 2)),
                );
            }
        }
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        let config = QkvConfig {
            heads: 2,
            output: true,
            bias: true,
            ..QkvConfig::default()
        };
        check_gradient([7, 4], |x, device| {
            let items = Ragged {
                values: x,
                segments: segments(&[2, 0, 5]),
            };
            let layer = config.init("a", 4, 4, &init(device.clone())).unwrap();
            layer.forward(&items, &items, true)
        });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let init = init(Device::flex());
        for (config, message) in [
            (
                QkvConfig {
                    heads: 3,
                    dim: Some(8),
                    ..QkvConfig::default()
                },
                "`a.heads` is 3: expected a divisor of 8, its `dim`",
            ),
            (
                QkvConfig {
                    heads: 0,
                    ..QkvConfig::default()
                },
                "`a.heads` is 0: expected a divisor of 4, the dim of its queries",
            ),
            (
                QkvConfig {
                    dim: Some(0),
                    ..QkvConfig::default()
                },
                "`a.dim` is 0: expected 1 to 65536",
            ),
        ] {
            let error = config.init("a", 4, 4, &init).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
