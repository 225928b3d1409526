//! What an order and a clock say of items: vectors to add to theirs.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use crossfield_core::{Error, Init, Segments, check_option, gather};
use serde::{Deserialize, Serialize};

/// Configuration of a [`PositionEncoding`].
///
/// ```
/// use burn::tensor::Device;
/// use crossfield_attention::PositionConfig;
/// use crossfield_core::{Init, Segments};
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let positions = PositionConfig::default().init("position", 4, &init)?;
/// // The last item of a row has the same vector in every row.
/// let vectors = positions.forward(&Segments::new(vec![0, 3, 4]), &init.device);
/// let vectors = vectors.try_into_vec_as::<f32>().expect("floats");
/// assert_eq!(vectors[8..12], vectors[12..]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PositionConfig {
    /// Learned or given.
    pub kind: PositionKind,
    /// Positions that have vectors of their own; items further from the end share the last.
    pub max_positions: usize,
}

impl Default for PositionConfig {
    /// Learned, of 50 positions as in SASRec on sparse data.
    fn default() -> Self {
        Self {
            kind: PositionKind::Learned,
            max_positions: 50,
        }
    }
}

/// Where the vectors of positions come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionKind {
    /// They are learned (Kang and McAuley 2018, section III.A).
    #[default]
    Learned,
    /// Sines and cosines (Vaswani et al. 2017, section 3.5).
    Sinusoidal,
}

/// A vector for each item by its position from the end of its row: 0 for the most recent.
///
/// ```text
/// learned:     P[p],  p = min(position, max_positions − 1)
/// sinusoidal:  P[p][2i] = sin(p / 10000^(2i/dim)),  P[p][2i + 1] = cos(p / 10000^(2i/dim))
/// ```
///
/// Positions count from the end, so that a longer past does not move the recent items.
#[derive(Module, Debug)]
pub struct PositionEncoding {
    learned: Option<Param<Tensor<2>>>,
    #[module(skip)]
    max_positions: usize,
    #[module(skip)]
    dim: usize,
}

impl PositionConfig {
    /// The encoding of `dim` columns; `name` keys its random weights and is what messages name.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for more than 65,536 positions, or none.
    pub fn init(&self, name: &str, dim: usize, init: &Init) -> Result<PositionEncoding, Error> {
        let max_positions = self.max_positions;
        let range = 1..=65_536;
        check_option(
            name,
            "max_positions",
            max_positions,
            range.contains(&max_positions),
            "1 to 65536",
        )?;
        Ok(PositionEncoding {
            learned: match self.kind {
                PositionKind::Learned => Some(learned(name, max_positions, dim, init)),
                PositionKind::Sinusoidal => None,
            },
            max_positions,
            dim,
        })
    }
}

impl PositionEncoding {
    /// The vector of each item, on the device of the items.
    ///
    /// # Shapes
    /// - output: `[items, dim]`
    pub fn forward(&self, segments: &Segments, device: &Device) -> Tensor<2> {
        let of_row = |row| (0..segments.range(row).len()).rev();
        let positions = (0..segments.rows()).flat_map(of_row);
        let positions = positions.map(|position| position.min(self.max_positions - 1) as u32);
        let vectors = match &self.learned {
            Some(learned) => learned.val(),
            None => self.sinusoids(segments.longest().clamp(1, self.max_positions), device),
        };
        gather(vectors, positions.collect(), 1)
    }

    fn sinusoids(&self, positions: usize, device: &Device) -> Tensor<2> {
        let dim = self.dim;
        let number = |at: usize| {
            let (position, column) = (at / dim, at % dim);
            let period = 10_000f64.powf((column - column % 2) as f64 / dim as f64);
            let angle = position as f64 / period;
            (if column % 2 == 0 {
                angle.sin()
            } else {
                angle.cos()
            }) as f32
        };
        let numbers: Vec<f32> = (0..positions * dim).map(number).collect();
        Tensor::from_data(TensorData::new(numbers, [positions, dim]), device)
    }
}

/// Configuration of a [`TimeGapEncoding`].
///
/// ```
/// use burn::tensor::Device;
/// use crossfield_attention::TimeGapConfig;
/// use crossfield_core::Init;
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let gaps = TimeGapConfig::default().init("gap", 4, &init)?;
/// // A minute, an hour and a year ago.
/// assert_eq!(gaps.forward(&[60, 3600, 31_536_000]).dims(), [3, 4]);
/// # Ok::<(), crossfield_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeGapConfig {
    /// Seconds of the smallest gap that is told from none.
    pub unit: u64,
    /// Buckets that have vectors of their own; longer gaps share the last.
    pub buckets: usize,
}

impl Default for TimeGapConfig {
    /// Minutes, in 24 buckets: the last begins at 16 years.
    fn default() -> Self {
        Self {
            unit: 60,
            buckets: 24,
        }
    }
}

/// The bucket of a gap: ⌊log₂(1 + gap / unit)⌋.
///
/// ```
/// use crossfield_attention::time_gap_bucket;
///
/// let buckets = [0, 59, 60, 179, 180, 3600].map(|seconds| time_gap_bucket(seconds, 60));
/// assert_eq!(buckets, [0, 0, 1, 1, 2, 5]);
/// ```
///
/// # Panics
/// If the unit is 0.
pub fn time_gap_bucket(gap: u64, unit: u64) -> usize {
    // The whole part of the quotient has the same logarithm, rounded down.
    (gap / unit).saturating_add(1).ilog2() as usize
}

/// A learned vector for each item by how long ago it was: `G[b]` of its [bucket](time_gap_bucket) b.
#[derive(Module, Debug)]
pub struct TimeGapEncoding {
    learned: Param<Tensor<2>>,
    #[module(skip)]
    unit: u64,
}

impl TimeGapConfig {
    /// The encoding of `dim` columns; `name` keys its random weights and is what messages name.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a unit of 0, and for buckets that no gap can have.
    pub fn init(&self, name: &str, dim: usize, init: &Init) -> Result<TimeGapEncoding, Error> {
        check_option(name, "unit", self.unit, self.unit > 0, "1 second or more")?;
        let buckets = self.buckets;
        let range = 1..=65;
        check_option(
            name,
            "buckets",
            buckets,
            range.contains(&buckets),
            "1 to 65",
        )?;
        Ok(TimeGapEncoding {
            learned: learned(name, buckets, dim, init),
            unit: self.unit,
        })
    }
}

impl TimeGapEncoding {
    /// The vector of each item, `gaps` seconds before the moment that is asked about.
    ///
    /// # Shapes
    /// - output: `[gaps, dim]`
    pub fn forward(&self, gaps: &[u64]) -> Tensor<2> {
        let vectors = self.learned.val();
        let last = vectors.dims()[0] - 1;
        let bucket = |&gap| time_gap_bucket(gap, self.unit).min(last) as u32;
        gather(vectors, gaps.iter().map(bucket).collect(), 1)
    }
}

/// Vectors of a length near that of embedding vectors of the same dim.
fn learned(name: &str, count: usize, dim: usize, init: &Init) -> Param<Tensor<2>> {
    let bound = 1.0 / (dim as f32).sqrt();
    init.uniform(&format!("{name}.vectors"), [count, dim], bound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{init, segments, values};

    #[test]
    fn positions_count_from_the_end_and_far_ones_share_the_last() {
        let device = Device::flex();
        let config = PositionConfig {
            max_positions: 3,
            ..PositionConfig::default()
        };
        let positions = config.init("p", 2, &init(device.clone())).unwrap();
        let vectors = values(positions.learned.as_ref().unwrap().val());
        let of = |position: usize| vectors[position * 2..][..2].to_vec();
        let got = values(positions.forward(&segments(&[1, 0, 5]), &device));
        let expected = [0, 2, 2, 2, 1, 0].map(of).concat();
        assert_eq!(got, expected);
    }

    #[test]
    fn each_learned_vector_gets_the_gradients_of_its_items() {
        let device = Device::flex().autodiff();
        let config = PositionConfig {
            max_positions: 2,
            ..PositionConfig::default()
        };
        let positions = config.init("p", 1, &init(device.clone())).unwrap();
        let slopes = Tensor::<2>::from_data([[1.0], [10.0], [100.0], [1000.0]], &device);
        let vectors = positions.forward(&segments(&[3, 1]), &device);
        let mut gradients = (vectors * slopes).sum().backward();
        let learned = positions.learned.as_ref().unwrap().val();
        let gradient = values(learned.grad_remove(&mut gradients).unwrap());
        assert_eq!(gradient, [1100.0, 11.0]);
    }

    #[test]
    fn sinusoids_are_those_of_the_paper() {
        let device = Device::flex();
        let config = PositionConfig {
            kind: PositionKind::Sinusoidal,
            max_positions: 50,
        };
        let positions = config.init("p", 4, &init(device.clone())).unwrap();
        let got = values(positions.forward(&segments(&[2]), &device));
        let expected = [
            1f32.sin(),
            1f32.cos(),
            0.01f32.sin(),
            0.01f32.cos(),
            0.0,
            1.0,
            0.0,
            1.0,
        ];
        for (got, expected) in got.iter().zip(expected) {
            approx::assert_relative_eq!(*got, expected, epsilon = 1e-6);
        }
    }

    #[test]
    fn gaps_fall_into_buckets_by_powers_of_two() {
        for gap in [0u64, 1, 6, 7, 8, 13, 20, 21, 1_000_000_007] {
            let expected = (1.0 + gap as f64 / 7.0).log2().floor() as usize;
            assert_eq!(time_gap_bucket(gap, 7), expected, "{gap}");
        }
        assert_eq!(time_gap_bucket(u64::MAX, 1), 63);
        let config = TimeGapConfig {
            unit: 10,
            buckets: 3,
        };
        let gaps = config.init("g", 1, &init(Device::flex())).unwrap();
        let vectors = values(gaps.learned.val());
        let got = values(gaps.forward(&[0, 10, 29, 30, 70, 4_000_000_000]));
        let expected = [0, 1, 1, 2, 2, 2].map(|bucket| vectors[bucket]);
        assert_eq!(got, expected);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let init = init(Device::flex());
        let positions = PositionConfig {
            max_positions: 0,
            ..PositionConfig::default()
        };
        let error = positions.init("p", 4, &init).unwrap_err();
        let message = "`p.max_positions` is 0: expected 1 to 65536";
        assert_eq!(error.to_string(), message);
        let gaps = |unit, buckets| {
            let error = TimeGapConfig { unit, buckets }.init("g", 4, &init);
            error.unwrap_err().to_string()
        };
        assert_eq!(gaps(0, 2), "`g.unit` is 0: expected 1 second or more");
        assert_eq!(gaps(1, 66), "`g.buckets` is 66: expected 1 to 65");
    }
}
