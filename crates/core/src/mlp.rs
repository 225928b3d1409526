//! A multi-layer perceptron on tensors.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Init, dense_layer, dense_layer_relu};

/// Configuration of an [`Mlp`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Init, MlpConfig};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let config = MlpConfig {
///     hidden: vec![16, 8],
///     output: 1,
/// };
/// let mlp = config.init("deep", 4, &init);
/// let input = Tensor::<2>::ones([3, 4], &init.device);
/// assert_eq!(mlp.forward(input).dims(), [3, 1]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Units of each hidden layer, from the input on.
    pub hidden: Vec<usize>,
    /// Units of the output layer.
    pub output: usize,
}

/// Hidden layers with ReLU between them, and a linear output.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Linear>,
}

impl MlpConfig {
    /// Makes the layers for inputs of `inputs` columns; `name` keys their random weights.
    pub fn init(&self, name: &str, inputs: usize, init: &Init) -> Mlp {
        let widths: Vec<usize> = std::iter::once(inputs)
            .chain(self.hidden.iter().copied())
            .chain([self.output])
            .collect();
        Mlp {
            layers: widths
                .windows(2)
                .enumerate()
                .map(|(nth, width)| init.linear(&format!("{name}.{nth}"), width[0], width[1]))
                .collect(),
        }
    }
}

impl Mlp {
    /// # Shapes
    /// - input: `[batch, inputs]`
    /// - output: `[batch, output]`
    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().expect("the output layer");
        let hidden = hidden.iter().fold(input, |input, layer| {
            let (weight, bias) = weights(layer);
            dense_layer_relu(input, weight, bias)
        });
        let (weight, bias) = weights(last);
        dense_layer(hidden, weight, bias)
    }
}

fn weights(layer: &Linear) -> (Tensor<2>, Tensor<1>) {
    let bias = layer.bias.as_ref().expect("layers are made with a bias");
    (layer.weight.val(), bias.val())
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_same_seed_and_name_give_the_same_layers() {
        let config = MlpConfig {
            hidden: vec![5, 3],
            output: 1,
        };
        let make = |name, seed| {
            config
                .init(
                    name,
                    4,
                    &Init {
                        device: Device::flex(),
                        seed,
                    },
                )
                .forward(Tensor::ones([2, 4], &Device::flex()))
        };
        assert_eq!(make("deep", 1).dims(), [2, 1]);
        assert_eq!(make("deep", 1).into_data(), make("deep", 1).into_data());
        assert_ne!(make("deep", 1).into_data(), make("deep", 2).into_data());
        assert_ne!(make("deep", 1).into_data(), make("top", 1).into_data());
    }

    #[test]
    fn one_layer_is_the_affine_map() {
        let init = Init {
            device: Device::flex(),
            seed: 3,
        };
        let mlp = MlpConfig {
            hidden: vec![],
            output: 1,
        }
        .init("m", 2, &init);
        let weight = mlp.layers[0].weight.val().try_into_vec_as::<f32>().unwrap();
        let bias = mlp.layers[0]
            .bias
            .as_ref()
            .unwrap()
            .val()
            .into_scalar::<f32>();
        let out = mlp
            .forward(Tensor::from_data([[2.0, -1.0]], &init.device))
            .into_scalar::<f32>();
        assert!((out - (2.0 * weight[0] - weight[1] + bias)).abs() < 1e-6);
    }
}
