//! Units that are left out while a layer is trained.

use burn::tensor::{Tensor, TensorData};
use rand::Rng;

use crate::TrainingStep;
use crate::rng::{Purpose, name_key, rng};

/// Random numbers that are drawn at once, of 16 bits each.
const DRAWS: usize = 2048;

/// Which units a layer leaves out at a step of training (Srivastava et al., Dropout, JMLR 2014).
///
/// Those that stay are divided by the probability to stay, so that the mean of a unit is the same and
/// evaluation takes all units as they are. Which they are follows from the seed, the layer's name and
/// the step: a run that is resumed leaves out the same. In a module it is a constant,
/// `#[module(skip)]`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Dropout, TrainingStep};
///
/// let dropout = Dropout::new("deep.0", 0.75);
/// let units = || Tensor::<2>::ones([8, 8], &Device::flex());
/// let step = TrainingStep {
///     seed: 1,
///     epoch: 0,
///     step: 7,
/// };
/// let at = |step| dropout.forward(units(), step).try_into_vec_as::<f32>().expect("floats");
/// assert_eq!(at(None), [1.0; 64]);
/// assert!(at(Some(step)).iter().all(|&unit| unit == 0.0 || unit == 4.0));
/// assert_eq!(at(Some(step)), at(Some(step)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    probability: f64,
    /// Key of the layer's name.
    layer: u64,
}

impl Dropout {
    /// Of the layer of that name, each unit with this probability.
    ///
    /// # Panics
    /// If the probability is not at least 0 and below 1: configurations are checked for it.
    pub fn new(layer: &str, probability: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&probability),
            "dropout is {probability}: expected a probability of at least 0 and below 1"
        );
        Self {
            probability,
            layer: name_key(layer),
        }
    }

    /// The units that stay at a step of training; all, where there is none.
    ///
    /// # Shapes
    /// - units and output: `[batch, units]`
    pub fn forward(self, units: Tensor<2>, training: Option<TrainingStep>) -> Tensor<2> {
        match training {
            Some(step) if self.probability > 0.0 => self.apply(units, step),
            _ => units,
        }
    }

    fn apply(self, units: Tensor<2>, at: TrainingStep) -> Tensor<2> {
        let shape = units.dims();
        let mut rng = rng(at.seed, Purpose::Dropout, self.layer, at.step);
        let below = (self.probability * f64::from(1 << 16)).round() as u32;
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let count = shape[0] * shape[1];
        let mut mask = Vec::with_capacity(count);
        let mut bytes = [0; size_of::<u16>() * DRAWS];
        while mask.len() < count {
            rng.fill_bytes(&mut bytes);
            let (draws, _) = bytes.as_chunks();
            let mask_of = |&draw| match u32::from(u16::from_le_bytes(draw)) < below {
                true => 0.0,
                false => kept,
            };
            let left = count - mask.len();
            mask.extend(draws.iter().take(left).map(mask_of));
        }
        let device = units.device();
        units * Tensor::from_data(TensorData::new(mask, shape), &device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn dropout_keeps_the_mean_and_differs_by_step_and_layer() {
        let ones = || Tensor::<2>::ones([100, 100], &Device::flex());
        let drop = |layer: &str, step| {
            let at = TrainingStep {
                seed: 1,
                epoch: 0,
                step,
            };
            let units = Dropout::new(layer, 0.75).forward(ones(), Some(at));
            units.try_into_vec_as::<f32>().unwrap()
        };
        let first = drop("a", 7);
        // A unit that stays counts four times.
        assert!(first.iter().all(|&unit| unit == 0.0 || unit == 4.0));
        // The mean of 10,000 units, of standard deviation √3, is within 4 · √3 / 100 of 1.
        let mean = first.iter().sum::<f32>() / 1e4;
        assert!((mean - 1.0).abs() < 0.07, "{mean}");
        assert_eq!(first, drop("a", 7));
        for other in [drop("a", 8), drop("b", 7)] {
            // Two independent masks agree on 3/4 · 3/4 + 1/4 · 1/4 of the units, ± 0.005.
            let alike = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((6000..6500).contains(&alike), "{alike}");
        }
    }
}
