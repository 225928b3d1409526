//! Losses, and the links that belong to them.

use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use crate::Targets;
use crate::metrics::sigmoid;

/// What a model that scores rows minimises.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Loss, Targets};
///
/// let z = Tensor::<2>::from_data([[0.0], [0.0]], &Device::flex());
/// let targets = Targets {
///     labels: vec![1.0, 0.0],
///     ..Targets::default()
/// };
/// // A coin's surprise is ln 2, whichever side falls.
/// let loss = Loss::Logistic.mean(z, &targets).into_scalar::<f32>();
/// assert!((loss - std::f32::consts::LN_2).abs() < 1e-6);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// `−ln σ(±z)`: clicks by the logistic link.
    #[default]
    Logistic,
    /// `−ln Φ(±z)`: clicks by the normal link.
    Probit,
    /// `½ (z − y)²`: ratings.
    Squared,
}

/// How a score becomes a prediction.
///
/// ```
/// use crossfield_core::{Link, Loss};
///
/// assert_eq!(Loss::Logistic.link(), Link::Logistic);
/// assert_eq!(Link::Logistic.prediction(0.0), 0.5);
/// assert!((Link::Logistic.score(0.25) + 3f64.ln()).abs() < 1e-12);
/// assert_eq!(Link::Identity.prediction(4.5), 4.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// Probability `σ(z)`.
    Logistic,
    /// Probability `Φ(z)`.
    Probit,
    /// The score itself.
    Identity,
}

impl Link {
    /// The prediction that belongs to a score.
    pub fn prediction(self, score: f64) -> f64 {
        match self {
            Link::Logistic => sigmoid(score),
            Link::Probit => 0.5 * libm::erfc(-score / std::f64::consts::SQRT_2),
            Link::Identity => score,
        }
    }

    /// The score that belongs to a prediction; probabilities are kept 1e-6 away from 0 and 1.
    pub fn score(self, prediction: f64) -> f64 {
        let prob = prediction.clamp(1e-6, 1.0 - 1e-6);
        match self {
            Link::Logistic => (prob / (1.0 - prob)).ln(),
            Link::Probit => {
                // Φ is monotone: sixty halvings of [−6, 6] reach the last bit.
                let (mut low, mut high) = (-6.0, 6.0);
                for _ in 0..60 {
                    let middle = 0.5 * (low + high);
                    if self.prediction(middle) < prob {
                        low = middle
                    } else {
                        high = middle
                    }
                }
                0.5 * (low + high)
            }
            Link::Identity => prediction,
        }
    }

    /// Whether predictions are probabilities.
    pub fn is_probability(self) -> bool {
        self != Link::Identity
    }
}

impl Loss {
    /// The link under which this loss is a likelihood.
    pub fn link(self) -> Link {
        match self {
            Loss::Logistic => Link::Logistic,
            Loss::Probit => Link::Probit,
            Loss::Squared => Link::Identity,
        }
    }

    /// The loss of one row and its derivative by the score.
    ///
    /// ```
    /// use crossfield_core::Loss;
    ///
    /// let (loss, slope) = Loss::Logistic.of_row(0.0, 1.0);
    /// assert!((loss - std::f64::consts::LN_2).abs() < 1e-7 && slope == -0.5);
    /// assert_eq!(Loss::Squared.of_row(3.0, 1.0), (2.0, 2.0));
    /// ```
    #[inline]
    pub fn of_row(self, score: f32, label: f32) -> (f64, f32) {
        let (z, y) = (f64::from(score), f64::from(label));
        match self {
            // exp and ln_1p in f32: their error is that of the score itself.
            Loss::Logistic => {
                let e = (-score.abs()).exp();
                let prob = if score < 0.0 { e } else { 1.0 } / (1.0 + e);
                let loss = score.max(0.0) - score * label + e.ln_1p();
                (f64::from(loss), prob - label)
            }
            Loss::Probit => {
                let sign = 2.0 * y - 1.0;
                let t = sign * z;
                let cdf = 0.5 * libm::erfc(-t / std::f64::consts::SQRT_2);
                // Below −30 the tail is φ(t)/|t| to eleven digits' worth of its logarithm, and the
                // ratio φ/Φ is |t| + 1/|t|.
                if t < -30.0 {
                    let ln_tail = -0.5 * t * t - (-t * (2.0 * std::f64::consts::PI).sqrt()).ln();
                    return (-ln_tail, (-sign * (-t - 1.0 / t)) as f32);
                }
                let density = (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (-cdf.ln(), (-sign * density / cdf) as f32)
            }
            Loss::Squared => {
                let error = score - label;
                (f64::from(0.5 * error * error), error)
            }
        }
    }

    /// Mean loss over the rows, each weighted by its sample weight.
    ///
    /// # Shapes
    /// - z: `[batch, 1]`
    /// - output: `[1]`
    pub fn mean(self, z: Tensor<2>, targets: &Targets) -> Tensor<1> {
        let device = z.device();
        let column = |values: &[f32]| {
            Tensor::<2>::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), &device)
        };
        let y = column(&targets.labels);
        let losses = match self {
            Loss::Logistic => logistic(z, y),
            Loss::Probit => probit(z, y),
            Loss::Squared => (z - y).square().mul_scalar(0.5),
        };
        // Added along a dimension, whose order is fixed; a whole-tensor mean would not be.
        match &targets.weights {
            Some(weights) => {
                let total: f32 = weights.iter().sum();
                (losses * column(weights))
                    .sum_dim(0)
                    .div_scalar(total.max(f32::MIN_POSITIVE))
            }
            None => losses.mean_dim(0),
        }
        .reshape([1])
    }
}

/// `−y ln σ(z) − (1 − y) ln σ(−z) = −ln σ(−z) − z y`, finite for any finite z.
fn logistic(z: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    activation::log_sigmoid(z.clone().neg()).neg() - z * y
}

/// `−ln Φ(t)` with `t = ±z`, finite for any finite z.
///
/// # Source
/// The Chebyshev fit to erfc of Numerical Recipes (2nd ed., 6.2), whose fractional error is below
/// 1.2e-7 everywhere and which can be taken in logarithms.
fn probit(z: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
    let t = z * (y * 2.0 - 1.0);
    let x = t.clone().mul_scalar(-std::f32::consts::FRAC_1_SQRT_2);
    // |x|, with the slope of its branch at 0, where that of abs would be 0.
    let size = x.clone().neg().mask_where(t.clone().lower_elem(0.0), x);
    let tau = (size.clone().mul_scalar(0.5) + 1.0).recip();
    const FIT: [f32; 9] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
    ];
    let fit = FIT.iter().fold(tau.zeros_like(), |sum, &coefficient| {
        sum * tau.clone() + coefficient
    }) * tau.clone()
        - 1.265_512_23;
    // ln erfc(|x|)
    let log_erfc = tau.log() - size.square() + fit;
    // Where t < 0: ln Φ(t) = ln ½ + ln erfc(x). Elsewhere: ln(1 − ½ erfc(−x)).
    let negative = log_erfc.clone() - std::f32::consts::LN_2;
    let positive = (log_erfc.exp().mul_scalar(-0.5)).log1p();
    positive.mask_where(t.lower_elem(0.0), negative).neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use burn::tensor::Device;

    /// Loss and its derivative for one row.
    fn at(loss: Loss, z: f32, y: f32) -> (f32, f32) {
        let z = Tensor::<2>::from_data([[z]], &Device::flex().autodiff()).require_grad();
        let targets = Targets {
            labels: vec![y],
            ..Targets::default()
        };
        let value = loss.mean(z.clone(), &targets);
        let gradient = z.grad(&value.backward()).unwrap().into_scalar::<f32>();
        (value.into_scalar::<f32>(), gradient)
    }

    #[test]
    fn logistic_is_stable_and_its_gradient_is_p_minus_y() {
        for z in [-1000.0f32, -30.0, -1.5, 0.0, 0.7, 25.0, 1000.0] {
            for y in [0.0f32, 1.0] {
                let (value, gradient) = at(Loss::Logistic, z, y);
                let prob = Link::Logistic.prediction(f64::from(z));
                assert_relative_eq!(gradient, prob as f32 - y, epsilon = 1e-6);
                let expected =
                    f64::from(z).max(0.0) - f64::from(z * y) + (-f64::from(z).abs()).exp().ln_1p();
                assert_relative_eq!(value, expected as f32, epsilon = 1e-6, max_relative = 1e-5);
            }
        }
    }

    #[test]
    fn probit_follows_the_normal_distribution_into_its_tails() {
        for z in [-9.0f32, -3.0, -0.5, 0.25, 2.0, 4.0] {
            let prob = Link::Probit.prediction(f64::from(z));
            assert_relative_eq!(
                at(Loss::Probit, z, 1.0).0,
                -prob.ln() as f32,
                epsilon = 1e-6,
                max_relative = 1e-4
            );
            let density =
                (-0.5 * f64::from(z) * f64::from(z)).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert_relative_eq!(
                at(Loss::Probit, z, 1.0).1,
                -(density / prob) as f32,
                epsilon = 1e-6,
                max_relative = 1e-3
            );
        }
        assert!(at(Loss::Probit, -1000.0, 1.0).0.is_finite());
        assert!(at(Loss::Probit, -1000.0, 1.0).1.is_finite());
    }

    #[test]
    fn squared_is_half_the_square() {
        assert_eq!(at(Loss::Squared, 3.0, 1.0), (2.0, 2.0));
    }

    #[test]
    fn sample_weights_make_a_weighted_mean() {
        let z = Tensor::<2>::from_data([[1.0], [3.0]], &Device::flex());
        let targets = Targets {
            labels: vec![0.0, 0.0],
            weights: Some(vec![3.0, 1.0]),
            ..Targets::default()
        };
        // (3 · ½ + 1 · 4½) / 4
        assert_eq!(Loss::Squared.mean(z, &targets).into_scalar::<f32>(), 1.5);
    }

    #[test]
    fn the_loss_of_a_row_is_the_mean_of_one_and_its_slope_the_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        for loss in [Loss::Logistic, Loss::Probit, Loss::Squared] {
            for z in [-40.0f32, -7.0, -0.3, 0.0, 1.5, 20.0] {
                for y in [0.0, 1.0] {
                    let targets = Targets {
                        labels: vec![y],
                        ..Targets::default()
                    };
                    let tensor = Tensor::<2>::from_data([[z]], &device).require_grad();
                    let mean = loss.mean(tensor.clone(), &targets);
                    let gradient = tensor.grad(&mean.backward()).expect("z is a leaf");
                    let expected = f64::from(mean.into_scalar::<f32>());
                    let (value, slope) = loss.of_row(z, y);
                    let near = |a: f64, b: f64| (a - b).abs() <= 2e-5 * b.abs().max(0.05);
                    assert!(
                        near(value, expected),
                        "{loss:?} {z} {y}: {value} {expected}"
                    );
                    let gradient = f64::from(gradient.into_scalar::<f32>());
                    let slope = f64::from(slope);
                    assert!(
                        near(slope, gradient),
                        "{loss:?} {z} {y}: {slope} {gradient}"
                    );
                }
            }
        }
    }

    #[test]
    fn links_invert() {
        for link in [Link::Logistic, Link::Probit, Link::Identity] {
            assert_relative_eq!(link.prediction(link.score(0.3)), 0.3, epsilon = 1e-9);
        }
    }
}
