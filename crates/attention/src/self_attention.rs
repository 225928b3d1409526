//! A block in which the items of a row attend to those before them.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Int, Tensor, TensorData};
use crossfield_core::{
    Activation, Dropout, Error, Init, Mlp, MlpConfig, Ragged, TrainingStep, check_option,
};
use serde::{Deserialize, Serialize};

use crate::{QkvAttention, QkvConfig};

/// Configuration of a [`SelfAttentionBlock`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_attention::SelfAttentionConfig;
/// use crossfield_core::{Init, Ragged, Segments};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let config = SelfAttentionConfig {
///     heads: 2,
///     ..SelfAttentionConfig::default()
/// };
/// let block = config.init("block.0", 8, &init)?;
/// let items = Ragged {
///     values: Tensor::ones([5, 8], &init.device),
///     segments: Segments::new(vec![0, 3, 5]),
/// };
/// assert_eq!(block.forward(&items, None).values.dims(), [5, 8]);
/// assert_eq!(block.weights(&items).dims(), [5, 2]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelfAttentionConfig {
    /// Heads of the attention; they divide the dim of the items.
    pub heads: usize,
    /// Whether what the heads read goes through one more matrix.
    pub output: bool,
    /// Units of the hidden layer of the network behind the attention; as many as the items have
    /// columns, if it is left out.
    pub hidden: Option<usize>,
    /// What follows that hidden layer.
    pub activation: Activation,
    /// Probability that a number of what a part adds, or of the hidden layer, is left out at a step
    /// of training.
    pub dropout: f64,
    /// Whether parts read normalized items and add to them as they are (true), or sums are
    /// normalized (false, the original order of Vaswani et al.).
    pub norm_first: bool,
}

impl Default for SelfAttentionConfig {
    /// SASRec's: one head without an output matrix, ReLU, normalization first, dropout of 0.2.
    fn default() -> Self {
        Self {
            heads: 1,
            output: false,
            hidden: None,
            activation: Activation::Relu,
            dropout: 0.2,
            norm_first: true,
        }
    }
}

/// Each item with what it reads of itself and those before it, then a network on it alone.
///
/// ```text
/// h = x + dropout(SA(norm(x)))
/// y = h + dropout(W_2 dropout(activation(W_1 norm(h) + b_1)) + b_2)
/// ```
///
/// where SA is causal [`QkvAttention`] of the items to themselves and norm is over the columns of an
/// item (Ba, Kiros and Hinton 2016). Without `norm_first`, `h = norm(x + dropout(SA(x)))`, and the
/// same for y.
///
/// # Source
/// Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, section III.B. Their
/// attention weights are dropped out in their program, which the paper does not say and this does not
/// do.
#[derive(Module, Debug)]
pub struct SelfAttentionBlock {
    attention: QkvAttention,
    attention_norm: LayerNorm,
    network: Mlp,
    network_norm: LayerNorm,
    #[module(skip)]
    attention_dropout: Dropout,
    #[module(skip)]
    network_dropout: Dropout,
    #[module(skip)]
    norm_first: bool,
}

impl SelfAttentionConfig {
    /// Refuses what cannot be, for items of `dim` columns; `name` is named in messages.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for heads that do not divide the dim, and a width or a dropout out of its
    /// range.
    pub fn check(&self, name: &str, dim: usize) -> Result<(), Error> {
        check_option(
            name,
            "heads",
            self.heads,
            self.heads > 0 && dim.is_multiple_of(self.heads),
            format!("a divisor of {dim}, the dim of its items"),
        )?;
        self.network(dim).check(name, dim)
    }

    /// The block for items of `dim` columns; `name` keys its random weights and what is left out.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn init(&self, name: &str, dim: usize, init: &Init) -> Result<SelfAttentionBlock, Error> {
        self.check(name, dim)?;
        let attention = QkvConfig {
            heads: self.heads,
            output: self.output,
            ..QkvConfig::default()
        };
        let [attention_name, network_name] =
            ["attention", "network"].map(|part| format!("{name}.{part}"));
        let norm = || {
            LayerNormConfig::new(dim)
                .with_epsilon(1e-5)
                .init(&init.device)
        };
        Ok(SelfAttentionBlock {
            attention: attention.init(&attention_name, dim, dim, init)?,
            attention_norm: norm(),
            network: self.network(dim).init(&network_name, dim, init)?,
            network_norm: norm(),
            attention_dropout: Dropout::new(&attention_name, self.dropout),
            network_dropout: Dropout::new(&network_name, self.dropout),
            norm_first: self.norm_first,
        })
    }

    /// Floating-point operations for a row of `items` items of `dim` columns: the projections and the
    /// network of each item, and for each pair of an item and one up to it a fit and a weighted sum.
    ///
    /// ```
    /// use crossfield_attention::SelfAttentionConfig;
    ///
    /// let config = SelfAttentionConfig::default();
    /// // Of 3 items 6 pairs; per item five matrices of 4 × 4.
    /// assert_eq!(config.flops(4, 3.0), 2.0 * (3.0 * 5.0 * 16.0 + 6.0 * 2.0 * 4.0));
    /// ```
    pub fn flops(&self, dim: usize, items: f64) -> f64 {
        let projections = if self.output { 4 } else { 3 };
        let maps = 2.0 * (projections * dim * dim) as f64 + self.network(dim).flops(dim);
        let pairs = items * (items + 1.0) / 2.0;
        items * maps + 2.0 * pairs * 2.0 * dim as f64
    }

    fn network(&self, dim: usize) -> MlpConfig {
        MlpConfig {
            hidden: vec![self.hidden.unwrap_or(dim)],
            output: dim,
            activation: self.activation,
            dropout: self.dropout,
            ..MlpConfig::default()
        }
    }
}

impl SelfAttentionBlock {
    /// The items, each with what it reads of itself and of those before it in its row. `training` is
    /// the step of training: without one nothing is left out.
    ///
    /// # Shapes
    /// - items and output: `[items, dim]` in all
    pub fn forward(&self, items: &Ragged, training: Option<TrainingStep>) -> Ragged {
        let attention = |x: Tensor<2>| {
            let x = Ragged {
                values: x,
                segments: items.segments.clone(),
            };
            self.attention.forward(&x, &x, true)
        };
        let network = |x| self.network.forward(x, training);
        let (norm, dropout) = (&self.attention_norm, self.attention_dropout);
        let hidden = self.around(items.values.clone(), attention, norm, dropout, training);
        let (norm, dropout) = (&self.network_norm, self.network_dropout);
        Ragged {
            values: self.around(hidden, network, norm, dropout, training),
            segments: items.segments.clone(),
        }
    }

    /// The weights that the last item of each row gives to the row's items.
    ///
    /// # Shapes
    /// - items: `[items, dim]` in all
    /// - output: `[items, heads]`
    pub fn weights(&self, items: &Ragged) -> Tensor<2> {
        let values = match self.norm_first {
            true => self.attention_norm.forward(items.values.clone()),
            false => items.values.clone(),
        };
        let segments = &items.segments;
        // A row without items takes any: there is nothing that it could give weights to.
        let last = |row| segments.range(row).end.saturating_sub(1) as i64;
        let last: Vec<i64> = (0..segments.rows()).map(last).collect();
        let last = TensorData::new(last, [segments.rows()]);
        let last = Tensor::<1, Int>::from_data(last, &values.device());
        let items = Ragged {
            values: values.clone(),
            segments: segments.clone(),
        };
        self.attention.weights(values.select(0, last), &items)
    }

    /// A part of the block, its norm before or behind it, and what it adds to.
    fn around(
        &self,
        x: Tensor<2>,
        part: impl FnOnce(Tensor<2>) -> Tensor<2>,
        norm: &LayerNorm,
        dropout: Dropout,
        training: Option<TrainingStep>,
    ) -> Tensor<2> {
        if self.norm_first {
            x.clone() + dropout.forward(part(norm.forward(x)), training)
        } else {
            norm.forward(x.clone() + dropout.forward(part(x), training))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{check_gradient, close, init, ragged, segments, values};
    use burn::tensor::Device;

    fn at(step: u64) -> Option<TrainingStep> {
        Some(TrainingStep {
            seed: 1,
            epoch: 0,
            step,
        })
    }

    fn block(config: &SelfAttentionConfig, device: &Device) -> SelfAttentionBlock {
        config.init("b", 4, &init(device.clone())).unwrap()
    }

    /// Mean 0 and variance 1.
    fn norm(x: Tensor<2>) -> Tensor<2> {
        let centered = x.clone() - x.mean_dim(1);
        let variance = centered.clone().square().mean_dim(1);
        centered / variance.add_scalar(1e-5).sqrt()
    }

    #[test]
    fn a_block_is_attention_then_a_network_each_around_a_norm() {
        let device = Device::flex();
        for norm_first in [true, false] {
            let config = SelfAttentionConfig {
                heads: 2,
                hidden: Some(6),
                norm_first,
                ..SelfAttentionConfig::default()
            };
            let block = block(&config, &device);
            let items = ragged(&[3, 1, 5], 4, 1, &device);
            let attend = |x: Tensor<2>| {
                let x = Ragged {
                    values: x,
                    segments: items.segments.clone(),
                };
                block.attention.forward(&x, &x, true)
            };
            let x = items.values.clone();
            let expected = if norm_first {
                let h = x.clone() + attend(norm(x));
                h.clone() + block.network.forward(norm(h), None)
            } else {
                let h = norm(x.clone() + attend(x));
                norm(h.clone() + block.network.forward(h, None))
            };
            let got = block.forward(&items, None);
            close(&values(got.values), &values(expected));
            assert_eq!(got.segments, items.segments);
        }
    }

    #[test]
    fn later_items_and_other_rows_change_no_bit_of_an_item() {
        let device = Device::flex();
        let block = block(&SelfAttentionConfig::default(), &device);
        let items = ragged(&[7, 5], 4, 1, &device);
        let all = values(block.forward(&items, None).values);
        let first = Ragged {
            values: items.values.clone().narrow(0, 0, 6),
            segments: segments(&[6]),
        };
        assert_eq!(values(block.forward(&first, None).values), all[..24]);
        let second = Ragged {
            values: items.values.narrow(0, 7, 5),
            segments: segments(&[5]),
        };
        assert_eq!(values(block.forward(&second, None).values), all[28..]);
    }

    #[test]
    fn what_is_left_out_follows_from_the_step() {
        let device = Device::flex();
        let block = block(&SelfAttentionConfig::default(), &device);
        let items = ragged(&[7, 5], 4, 1, &device);
        let run = |training| values(block.forward(&items, training).values);
        assert_eq!(run(at(1)), run(at(1)));
        assert_ne!(run(at(1)), run(at(2)));
        assert_ne!(run(at(1)), run(None));
    }

    #[test]
    fn its_gradients_are_those_of_finite_differences() {
        for norm_first in [true, false] {
            let config = SelfAttentionConfig {
                heads: 2,
                output: true,
                activation: Activation::Tanh,
                norm_first,
                ..SelfAttentionConfig::default()
            };
            check_gradient([8, 4], |x, device| {
                let items = Ragged {
                    values: x,
                    segments: segments(&[2, 0, 6]),
                };
                block(&config, device).forward(&items, at(1)).values
            });
        }
    }

    #[test]
    fn the_weights_are_those_of_the_last_item_and_add_up_to_one() {
        let device = Device::flex();
        for norm_first in [true, false] {
            let config = SelfAttentionConfig {
                heads: 2,
                norm_first,
                ..SelfAttentionConfig::default()
            };
            let block = block(&config, &device);
            let items = ragged(&[3, 0, 2], 4, 1, &device);
            let weights = block.weights(&items);
            let sums = values(items.segments.sum(weights.clone()));
            close(&sums, &[1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
            // By the last item of the last row.
            let x = match norm_first {
                true => norm(items.values.clone()),
                false => items.values.clone(),
            };
            let row = Ragged {
                values: x.narrow(0, 3, 2),
                segments: segments(&[2]),
            };
            let expected = block
                .attention
                .weights(row.values.clone().narrow(0, 1, 1), &row);
            close(&values(weights)[6..], &values(expected));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let change = |change: fn(&mut SelfAttentionConfig)| {
            let mut config = SelfAttentionConfig::default();
            change(&mut config);
            let error = config.init("b", 8, &init(Device::flex()));
            error.unwrap_err().to_string()
        };
        assert_eq!(
            change(|config| config.heads = 3),
            "`b.heads` is 3: expected a divisor of 8, the dim of its items"
        );
        assert_eq!(
            change(|config| config.dropout = 1.0),
            "`b.dropout` is 1: expected a probability of at least 0 and below 1"
        );
        assert_eq!(
            change(|config| config.hidden = Some(0)),
            "`b.hidden` is [0]: expected layers of 1 to 65536 units"
        );
    }
}
