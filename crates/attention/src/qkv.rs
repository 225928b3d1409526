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
