//! A multi-layer perceptron on tensors.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::normalization::Norm;
use crate::{
    Activation, ActivationLayer, Dropout, Error, Init, Normalization, TrainingStep, check_option,
    dense_layer, dense_layer_relu,
};

/// Configuration of an [`Mlp`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Init, MlpConfig, TrainingStep};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let config = MlpConfig {
///     hidden: vec![16, 8],
///     dropout: 0.5,
///     ..MlpConfig::default()
/// };
/// let mlp = config.init("deep", 4, &init)?;
/// let input = || Tensor::<2>::ones([3, 4], &init.device);
/// let scores = mlp.forward(input(), None);
/// assert_eq!(scores.dims(), [3, 1]);
/// // At a step of training half of the hidden units are left out.
/// let step = TrainingStep {
///     seed: 1,
///     epoch: 0,
///     step: 7,
/// };
/// assert_ne!(mlp.forward(input(), Some(step)).into_data(), scores.into_data());
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Units of each hidden layer, from the input on; none: the output is linear in the input.
    pub hidden: Vec<usize>,
    /// Units of the output layer.
    pub output: usize,
    /// What follows each hidden layer.
    pub activation: Activation,
    /// Probability that a hidden unit is left out of a row at a step of training (Srivastava et
    /// al. 2014); those that stay are divided by the probability to stay, so that the mean of a
    /// unit is the same and evaluation takes all units as they are.
    pub dropout: f64,
    /// How the units of a hidden layer are normalized before the activation.
    pub norm: Normalization,
    /// Whether a hidden layer adds its input to its output where both have one width (He et al.
    /// 2016, equation 1).
    pub residual: bool,
}

impl Default for MlpConfig {
    /// One linear layer to one number; hidden layers take ReLU and nothing else.
    fn default() -> Self {
        Self {
            hidden: Vec::new(),
            output: 1,
            activation: Activation::Relu,
            dropout: 0.0,
            norm: Normalization::None,
            residual: false,
        }
    }
}

/// Hidden layers and a linear output.
///
/// ```text
/// h_0 = input
/// h_l = dropout(activation(norm(W_l h_{l−1} + b_l)))  [+ h_{l−1}]
/// output = W h_L + b
/// ```
#[derive(Module, Debug)]
pub struct Mlp {
    hidden: Vec<Hidden>,
    output: Linear,
}

#[derive(Module, Debug)]
struct Hidden {
    linear: Linear,
    norm: Option<Norm>,
    activation: ActivationLayer,
    #[module(skip)]
    dropout: Dropout,
    #[module(skip)]
    is_residual: bool,
}

impl MlpConfig {
    /// Refuses what cannot be, for inputs of `inputs` columns; `component` is named in messages.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a width or a dropout out of its range, and for an option of hidden
    /// layers that applies to none.
    pub fn check(&self, component: &str, inputs: usize) -> Result<(), Error> {
        let widths = 1..=65_536;
        check_option(
            component,
            "hidden",
            format!("{:?}", self.hidden),
            self.hidden.iter().all(|units| widths.contains(units)),
            "layers of 1 to 65536 units",
        )?;
        check_option(
            component,
            "output",
            self.output,
            widths.contains(&self.output),
            "1 to 65536 units",
        )?;
        check_option(
            component,
            "dropout",
            self.dropout,
            (0.0..1.0).contains(&self.dropout),
            "a probability of at least 0 and below 1",
        )?;
        let has_hidden = !self.hidden.is_empty();
        check_option(
            component,
            "dropout",
            self.dropout,
            has_hidden || self.dropout == 0.0,
            "0, for there is no hidden layer",
        )?;
        check_option(
            component,
            "norm",
            self.norm.name(),
            has_hidden || self.norm == Normalization::None,
            "none, for there is no hidden layer",
        )?;
        let widths: Vec<usize> = self.widths(inputs).collect();
        check_option(
            component,
            "residual",
            format!("true with layers of {inputs} → {:?}", self.hidden),
            !self.residual || widths.windows(2).any(|width| width[0] == width[1]),
            "a hidden layer as wide as what it reads, or false",
        )
    }

    /// The layers for inputs of `inputs` columns; `name` keys their random weights and which units
    /// are left out, and is what messages name.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn init(&self, name: &str, inputs: usize, init: &Init) -> Result<Mlp, Error> {
        self.check(name, inputs)?;
        let widths: Vec<usize> = self.widths(inputs).collect();
        let hidden = widths.windows(2).enumerate().map(|(nth, width)| {
            let name = format!("{name}.{nth}");
            Hidden {
                linear: init.linear(&name, width[0], width[1]),
                norm: self.norm.init(width[1], &init.device),
                activation: self.activation.init(width[1], &init.device),
                dropout: Dropout::new(&name, self.dropout),
                is_residual: self.residual && width[0] == width[1],
            }
        });
        let last = widths[self.hidden.len()];
        let output = format!("{name}.{}", self.hidden.len());
        Ok(Mlp {
            hidden: hidden.collect(),
            output: init.linear(&output, last, self.output),
        })
    }

    /// Floating-point operations for one row of `inputs` columns, two for each multiply-add of its
    /// matrices; a bias is the sum that a product begins with.
    ///
    /// ```
    /// use crossfield_core::MlpConfig;
    ///
    /// let config = MlpConfig {
    ///     hidden: vec![16, 8],
    ///     ..MlpConfig::default()
    /// };
    /// assert_eq!(config.flops(4), 2.0 * (4.0 * 16.0 + 16.0 * 8.0 + 8.0));
    /// ```
    pub fn flops(&self, inputs: usize) -> f64 {
        let widths: Vec<usize> = self.widths(inputs).chain([self.output]).collect();
        let products = widths.windows(2).map(|width| width[0] * width[1]);
        2.0 * products.sum::<usize>() as f64
    }

    /// Of the input and of each hidden layer.
    fn widths(&self, inputs: usize) -> impl Iterator<Item = usize> {
        std::iter::once(inputs).chain(self.hidden.iter().copied())
    }
}

impl Mlp {
    /// The output for each row. `training` is the step of training that the rows are of, as
    /// [`Lookup::training`](crate::Lookup::training) has it: without one nothing is dropped, and a
    /// batch is normalized by running statistics.
    ///
    /// # Shapes
    /// - input: `[batch, inputs]`
    /// - output: `[batch, output]`
    pub fn forward(&self, input: Tensor<2>, training: Option<TrainingStep>) -> Tensor<2> {
        let hidden = self
            .hidden
            .iter()
            .fold(input, |input, layer| layer.forward(input, training));
        let (weight, bias) = weights(&self.output);
        dense_layer(hidden, weight, bias)
    }

    /// The output for each row of an input that is never made: `first` computes `input W + b` of the
    /// first layer from W and b, by what it knows of the input.
    ///
    /// # Shapes
    /// - W: `[inputs, units]`, b: `[units]`
    /// - what `first` gives: `[batch, units]`
    /// - output: `[batch, output]`
    ///
    /// # Panics
    /// If the first layer adds its input to its output.
    pub fn forward_from(
        &self,
        first: impl FnOnce(Tensor<2>, Tensor<1>) -> Tensor<2>,
        training: Option<TrainingStep>,
    ) -> Tensor<2> {
        let Some((layer, rest)) = self.hidden.split_first() else {
            let (weight, bias) = weights(&self.output);
            return first(weight, bias);
        };
        assert!(!layer.is_residual, "a residual layer needs its input");
        let (weight, bias) = weights(&layer.linear);
        let units = layer.finish(first(weight, bias), training);
        let hidden = rest
            .iter()
            .fold(units, |input, layer| layer.forward(input, training));
        let (weight, bias) = weights(&self.output);
        dense_layer(hidden, weight, bias)
    }
}

impl Hidden {
    fn forward(&self, input: Tensor<2>, training: Option<TrainingStep>) -> Tensor<2> {
        let shortcut = self.is_residual.then(|| input.clone());
        let (weight, bias) = weights(&self.linear);
        let units = if self.norm.is_none() && self.activation.function() == Activation::Relu {
            self.dropout
                .forward(dense_layer_relu(input, weight, bias), training)
        } else {
            self.finish(dense_layer(input, weight, bias), training)
        };
        match shortcut {
            Some(input) => units + input,
            None => units,
        }
    }

    /// What follows the affine map.
    fn finish(&self, sums: Tensor<2>, training: Option<TrainingStep>) -> Tensor<2> {
        let is_training = training.is_some();
        let sums = match &self.norm {
            None => sums,
            Some(norm) => norm.forward(sums, is_training),
        };
        self.dropout
            .forward(self.activation.forward(sums, is_training), training)
    }
}

fn weights(layer: &Linear) -> (Tensor<2>, Tensor<1>) {
    let bias = layer.bias.as_ref().expect("layers are made with a bias");
    (layer.weight.val(), bias.val())
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    fn init() -> Init {
        Init {
            device: Device::flex(),
            seed: 3,
        }
    }

    fn at(step: u64) -> TrainingStep {
        TrainingStep {
            seed: 1,
            epoch: 0,
            step,
        }
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.try_into_vec_as::<f32>().unwrap()
    }

    /// Weights and bias of a layer.
    fn of(layer: &Linear) -> (Vec<f32>, Vec<f32>) {
        let bias = layer.bias.as_ref().unwrap();
        (values(layer.weight.val()), values(bias.val()))
    }

    #[test]
    fn the_same_seed_and_name_give_the_same_layers() {
        let config = MlpConfig {
            hidden: vec![5, 3],
            ..MlpConfig::default()
        };
        let make = |name, seed| {
            let init = Init { seed, ..init() };
            let mlp = config.init(name, 4, &init).unwrap();
            mlp.forward(Tensor::ones([2, 4], &Device::flex()), None)
        };
        assert_eq!(make("deep", 1).dims(), [2, 1]);
        assert_eq!(make("deep", 1).into_data(), make("deep", 1).into_data());
        assert_ne!(make("deep", 1).into_data(), make("deep", 2).into_data());
        assert_ne!(make("deep", 1).into_data(), make("top", 1).into_data());
    }

    #[test]
    fn without_hidden_layers_it_is_the_affine_map() {
        let mlp = MlpConfig::default().init("m", 2, &init()).unwrap();
        let (weight, bias) = of(&mlp.output);
        let input = Tensor::from_data([[2.0, -1.0]], &Device::flex());
        let out = values(mlp.forward(input, Some(at(1))));
        assert_relative_eq!(
            out[0],
            2.0 * weight[0] - weight[1] + bias[0],
            epsilon = 1e-6
        );
    }

    #[test]
    fn layers_are_linear_then_layer_norm_then_activation_then_their_input() {
        let config = MlpConfig {
            hidden: vec![2, 3],
            activation: Activation::Tanh,
            norm: Normalization::Layer,
            residual: true,
            ..MlpConfig::default()
        };
        let mlp = config.init("m", 2, &init()).unwrap();
        let input = [0.5f32, -1.5];
        let mut units = input.to_vec();
        for layer in &mlp.hidden {
            let (weight, bias) = of(&layer.linear);
            let width = bias.len();
            let linear: Vec<f32> = (0..width)
                .map(|out| {
                    let terms = units.iter().enumerate();
                    let sum: f32 = terms
                        .map(|(at, unit)| unit * weight[at * width + out])
                        .sum();
                    sum + bias[out]
                })
                .collect();
            let mean = linear.iter().sum::<f32>() / width as f32;
            let square = |x: &f32| (x - mean).powi(2);
            let var = linear.iter().map(square).sum::<f32>() / width as f32;
            let activated = linear
                .iter()
                .map(|x| ((x - mean) / (var + 1e-5).sqrt()).tanh());
            // The second layer is wider than what it reads and adds nothing.
            units = if width == units.len() {
                activated.zip(&units).map(|(x, input)| x + input).collect()
            } else {
                activated.collect()
            };
        }
        let (weight, bias) = of(&mlp.output);
        let expected: f32 = units.iter().zip(weight).map(|(x, w)| x * w).sum();
        let got = values(mlp.forward(Tensor::from_data([input], &Device::flex()), None));
        assert_relative_eq!(got[0], expected + bias[0], epsilon = 1e-5);
    }

    #[test]
    fn dropout_ends_with_training() {
        let ones = || Tensor::<2>::ones([100, 100], &Device::flex());
        let config = MlpConfig {
            hidden: vec![32],
            dropout: 0.5,
            ..MlpConfig::default()
        };
        let mlp = config.init("m", 100, &init()).unwrap();
        let without = MlpConfig {
            dropout: 0.0,
            ..config
        };
        let without = without.init("m", 100, &init()).unwrap();
        let scores = values(without.forward(ones(), None));
        assert_eq!(values(mlp.forward(ones(), None)), scores);
        assert_ne!(values(mlp.forward(ones(), Some(at(1)))), scores);
    }

    #[test]
    fn left_out_units_get_no_gradient() {
        let config = MlpConfig {
            hidden: vec![8],
            activation: Activation::Sigmoid,
            dropout: 0.5,
            ..MlpConfig::default()
        };
        let device = Device::flex().autodiff();
        let on_autodiff = Init {
            device: device.clone(),
            ..init()
        };
        let mlp = config.init("m", 1, &on_autodiff).unwrap();
        let input = Tensor::ones([1, 1], &device);
        let gradients = mlp.forward(input, Some(at(3))).sum().backward();
        let bias = mlp.hidden[0].linear.bias.as_ref().unwrap();
        let gradient = values(bias.val().grad(&gradients).unwrap());
        let ones = Tensor::ones([1, 8], &Device::flex());
        let mask = values(mlp.hidden[0].dropout.forward(ones, Some(at(3))));
        assert!(mask.contains(&0.0) && mask.contains(&2.0), "{mask:?}");
        for (gradient, mask) in gradient.iter().zip(mask) {
            assert_eq!(*gradient == 0.0, mask == 0.0);
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let with = |change: fn(&mut MlpConfig)| {
            let mut config = MlpConfig {
                hidden: vec![4, 2],
                ..MlpConfig::default()
            };
            change(&mut config);
            config.check("deep", 3).map_err(|error| error.to_string())
        };
        for (change, expected) in [
            (
                (|config| config.hidden = vec![4, 0]) as fn(&mut MlpConfig),
                "`deep.hidden` is [4, 0]: expected layers of 1 to 65536 units",
            ),
            (
                |config| config.output = 0,
                "`deep.output` is 0: expected 1 to 65536 units",
            ),
            (
                |config| config.dropout = 1.0,
                "`deep.dropout` is 1: expected a probability of at least 0 and below 1",
            ),
            (
                |config| config.dropout = f64::NAN,
                "`deep.dropout` is NaN: expected a probability of at least 0 and below 1",
            ),
            (
                |config| (config.hidden, config.dropout) = (vec![], 0.5),
                "`deep.dropout` is 0.5: expected 0, for there is no hidden layer",
            ),
            (
                |config| (config.hidden, config.norm) = (vec![], Normalization::Batch),
                "`deep.norm` is batch: expected none, for there is no hidden layer",
            ),
            (
                |config| config.residual = true,
                "`deep.residual` is true with layers of 3 → [4, 2]: expected a hidden layer as \
                 wide as what it reads, or false",
            ),
        ] {
            assert_eq!(with(change), Err(expected.to_owned()));
        }
        assert_eq!(with(|config| config.hidden = vec![]), Ok(()));
        assert_eq!(
            with(|config| (config.hidden, config.residual) = (vec![3], true)),
            Ok(())
        );
    }
}
