//! Kernels over rows of units: functions of each with a weight a unit, and their gradients.
//!
//! They are plain loops, compiled for the instruction set of the machine. Nothing in them is reordered
//! or fused, so that every set gives the same bits. Rows are taken in blocks of a fixed size, and what
//! is added over rows is added up within a block, then block by block: any number of threads gives
//! the same bits.

use std::mem::MaybeUninit;
use std::sync::LazyLock;

use crossfield_simd::{Isa, Kernel, Lanes};
use rayon::prelude::*;

/// Floats that are worked on at a time; with what is read beside them they stay in the second cache.
const BLOCK: usize = 1 << 14;

/// The best that the machine has. Which one it is decides about the time alone.
static ISA: LazyLock<Isa> = LazyLock::new(|| Isa::available()[0]);

/// Of each unit, its mean and what a distance from it is scaled by.
pub(crate) struct Moments {
    pub mean: Vec<f32>,
    pub scale: Vec<f32>,
}

/// σ(x), to 2.5e-7 of itself where |x| ≤ 80. Further out it stays where it is at 87.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// eˣ for |x| ≤ 87, to two units in the last place; beyond it stays what it is there.
///
/// x = n ln 2 + f with a whole n and |f| ≤ ln 2 / 2; e^f is its Taylor series to f⁷, which is off by
/// 6e-9.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// Added to a small number, it leaves it rounded in the last bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, of which the first has few bits: n times it is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = x.max(-87.0).min(87.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let f = x - n * LN_2[0] - n * LN_2[1];
    let mut sum = 1.0 / 5040.0;
    for factor in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * f + factor;
    }
    // 2ⁿ: the exponent's bits are n + 127.
    let power = (rounded.to_bits() << 23).wrapping_add(127 << 23);
    sum * f32::from_bits(power)
}

/// Rows of a block, at least one.
fn block_len(units: usize) -> usize {
    (BLOCK / units.max(1)).max(1) * units.max(1)
}

/// Runs on blocks, each with the place at which it begins.
fn blocks(x: &mut [f32], units: usize, run: impl Fn(usize, &mut [f32]) + Sync) {
    let len = block_len(units);
    let blocks = x.par_chunks_mut(len).enumerate();
    blocks.for_each(|(nth, block)| run(nth * len, block));
}

/// The numbers that `run` writes for those of a block, block by block: for each of them one.
fn mapped(
    x: &[f32],
    units: usize,
    run: impl Fn(&[f32], &mut [MaybeUninit<f32>]) + Sync,
) -> Vec<f32> {
    let len = block_len(units);
    assert!(x.len().is_multiple_of(units.max(1)), "whole rows");
    let mut output = Vec::with_capacity(x.len());
    let room = &mut output.spare_capacity_mut()[..x.len()];
    let blocks = room.par_chunks_mut(len).zip(x.par_chunks(len));
    blocks.for_each(|(output, x)| run(x, output));
    // SAFETY: there is room for that many, and the functions of this file, which alone call this one,
    // write every number of each row of the blocks, which are all.
    unsafe { output.set_len(x.len()) };
    output
}

/// What `run` adds up over the rows of a block, in each of `N` sums a unit, then over blocks.
fn sums<const N: usize>(
    floats: usize,
    units: usize,
    run: impl Fn(std::ops::Range<usize>, &mut [Vec<f32>; N]) + Sync,
) -> [Vec<f64>; N] {
    let len = block_len(units);
    let of_blocks: Vec<[Vec<f32>; N]> = (0..floats.div_ceil(len))
        .into_par_iter()
        .map(|nth| {
            let mut sums = [const { Vec::new() }; N].map(|_: Vec<f32>| vec![0f32; units]);
            run(nth * len..((nth + 1) * len).min(floats), &mut sums);
            sums
        })
        .collect();
    let mut totals = [const { Vec::new() }; N].map(|_: Vec<f64>| vec![0f64; units]);
    for sums in of_blocks {
        for (total, sum) in totals.iter_mut().zip(sums) {
            for (total, sum) in total.iter_mut().zip(sum) {
                *total += f64::from(sum);
            }
        }
    }
    totals
}

/// Mean and variance of each unit over all rows, first all means.
pub(crate) fn moments(x: &[f32], units: usize) -> Vec<f32> {
    let rows = (x.len() / units.max(1)) as f64;
    // About the first row: nothing is lost where the mean is far from 0.
    let about = &x[..units];
    let [sums, squares] = sums(x.len(), units, |range, [sum, square]| {
        let x = &x[range];
        ISA.run(MomentsOf {
            x,
            about,
            sum,
            square,
        });
    });
    let mean = sums.iter().map(|sum| sum / rows);
    let var = squares.iter().zip(mean.clone());
    let var = var.map(|(square, mean)| (square / rows - mean * mean).max(0.0) as f32);
    let mean = mean
        .zip(about)
        .map(|(mean, &about)| (mean + f64::from(about)) as f32);
    mean.chain(var).collect()
}

struct MomentsOf<'a> {
    x: &'a [f32],
    about: &'a [f32],
    sum: &'a mut [f32],
    square: &'a mut [f32],
}

impl Kernel for MomentsOf<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.about.len();
        let (sum, square) = (&mut self.sum[..units], &mut self.square[..units]);
        for x in self.x.chunks_exact(units) {
            for unit in 0..units {
                let distance = x[unit] - self.about[unit];
                sum[unit] += distance;
                square[unit] += distance * distance;
            }
        }
    }
}

/// x where above 0, else slope · x.
pub(crate) fn prelu(x: &[f32], slope: &[f32]) -> Vec<f32> {
    mapped(x, slope.len(), |x, output| {
        ISA.run(Prelu { x, slope, output });
    })
}

struct Prelu<'a> {
    x: &'a [f32],
    slope: &'a [f32],
    output: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Prelu<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.slope.len();
        let rows = self.output.chunks_exact_mut(units);
        for (output, x) in rows.zip(self.x.chunks_exact(units)) {
            for unit in 0..units {
                let slope = if x[unit] > 0.0 { 1.0 } else { self.slope[unit] };
                output[unit].write(x[unit] * slope);
            }
        }
    }
}

/// The gradient by the slope, given the one by the output, which becomes the one by the input.
pub(crate) fn prelu_gradient(x: &[f32], slope: &[f32], output: &mut [f32]) -> Vec<f32> {
    let units = slope.len();
    let [by_slope] = sums(x.len(), units, |range, [by_slope]| {
        let (x, output) = (&x[range.clone()], &output[range]);
        ISA.run(PreluBySlope {
            x,
            output,
            by_slope,
        });
    });
    blocks(output, units, |from, output| {
        let x = &x[from..][..output.len()];
        ISA.run(PreluByInput { x, slope, output });
    });
    by_slope.into_iter().map(|sum| sum as f32).collect()
}

struct PreluByInput<'a> {
    x: &'a [f32],
    slope: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for PreluByInput<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.slope.len();
        let rows = self.output.chunks_exact_mut(units);
        for (output, x) in rows.zip(self.x.chunks_exact(units)) {
            for unit in 0..units {
                output[unit] *= if x[unit] > 0.0 { 1.0 } else { self.slope[unit] };
            }
        }
    }
}

struct PreluBySlope<'a> {
    x: &'a [f32],
    output: &'a [f32],
    by_slope: &'a mut [f32],
}

impl Kernel for PreluBySlope<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.by_slope.len();
        let by_slope = &mut self.by_slope[..units];
        for (x, output) in self
            .x
            .chunks_exact(units)
            .zip(self.output.chunks_exact(units))
        {
            for unit in 0..units {
                by_slope[unit] += output[unit] * if x[unit] > 0.0 { 0.0 } else { x[unit] };
            }
        }
    }
}

/// x (slope + (1 − slope) σ((x − mean) scale)).
pub(crate) fn dice(x: &[f32], slope: &[f32], moments: &Moments) -> Vec<f32> {
    mapped(x, slope.len(), |x, output| {
        ISA.run(Dice {
            x,
            slope,
            moments,
            output,
        });
    })
}

struct Dice<'a> {
    x: &'a [f32],
    slope: &'a [f32],
    moments: &'a Moments,
    output: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Dice<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.slope.len();
        let (mean, scale) = (&self.moments.mean[..units], &self.moments.scale[..units]);
        let rows = self.output.chunks_exact_mut(units);
        for (output, x) in rows.zip(self.x.chunks_exact(units)) {
            for unit in 0..units {
                let slope = self.slope[unit];
                let p = sigmoid((x[unit] - mean[unit]) * scale[unit]);
                output[unit].write(x[unit] * (slope + (1.0 - slope) * p));
            }
        }
    }
}

/// The gradient by the slope, given the one by the output, which becomes the one by the input; through
/// the moments, if these are those of the rows.
///
/// With u = (x − mean) scale and g the gradient by u: of rows, by x it is
/// scale (g − mean(g) − u mean(g u)), else scale g.
pub(crate) fn dice_gradient(
    x: &[f32],
    slope: &[f32],
    (moments, of_batch): (&Moments, bool),
    output: &mut [f32],
) -> Vec<f32> {
    let units = slope.len();
    let [by_u, by_u_u, by_slope] = sums(x.len(), units, |range, sums| {
        let (x, output) = (&x[range.clone()], &output[range]);
        ISA.run(DiceSums {
            x,
            slope,
            moments,
            output,
            sums,
        });
    });
    let rows = if of_batch {
        x.len() as f64 / units as f64
    } else {
        // Means of 0: the moments are constants.
        f64::INFINITY
    };
    let means = [by_u, by_u_u].map(|sums| {
        let means = sums.into_iter().map(|sum| (sum / rows) as f32);
        means.collect::<Vec<f32>>()
    });
    blocks(output, units, |from, output| {
        let x = &x[from..][..output.len()];
        ISA.run(DiceByInput {
            x,
            slope,
            moments,
            output,
            means: &means,
        });
    });
    by_slope.into_iter().map(|sum| sum as f32).collect()
}

struct DiceSums<'a> {
    x: &'a [f32],
    slope: &'a [f32],
    moments: &'a Moments,
    output: &'a [f32],
    /// Σ g, Σ g u, and the gradient by the slope.
    sums: &'a mut [Vec<f32>; 3],
}

impl Kernel for DiceSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.slope.len();
        let (mean, scale) = (&self.moments.mean[..units], &self.moments.scale[..units]);
        let [by_u, by_u_u, by_slope] = self.sums;
        let (by_u, by_u_u) = (&mut by_u[..units], &mut by_u_u[..units]);
        let by_slope = &mut by_slope[..units];
        for (x, output) in self
            .x
            .chunks_exact(units)
            .zip(self.output.chunks_exact(units))
        {
            for unit in 0..units {
                let u = (x[unit] - mean[unit]) * scale[unit];
                let p = sigmoid(u);
                let by_p = output[unit] * x[unit];
                let below = by_p * (1.0 - p);
                let g = below * p * (1.0 - self.slope[unit]);
                by_u[unit] += g;
                by_u_u[unit] += g * u;
                by_slope[unit] += below;
            }
        }
    }
}

struct DiceByInput<'a> {
    x: &'a [f32],
    slope: &'a [f32],
    moments: &'a Moments,
    output: &'a mut [f32],
    /// Means of g and of g u.
    means: &'a [Vec<f32>; 2],
}

impl Kernel for DiceByInput<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let units = self.slope.len();
        let (mean, scale) = (&self.moments.mean[..units], &self.moments.scale[..units]);
        let [of_g, of_g_u] = self.means;
        let (of_g, of_g_u) = (&of_g[..units], &of_g_u[..units]);
        let rows = self.output.chunks_exact_mut(units);
        for (output, x) in rows.zip(self.x.chunks_exact(units)) {
            for unit in 0..units {
                let (x, slope, by_output) = (x[unit], self.slope[unit], output[unit]);
                let u = (x - mean[unit]) * scale[unit];
                let p = sigmoid(u);
                let g = by_output * x * (1.0 - slope) * p * (1.0 - p);
                let through = (g - of_g[unit] - u * of_g_u[unit]) * scale[unit];
                output[unit] = by_output * (slope + (1.0 - slope) * p) + through;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_in_the_last_place() {
        let mut x = -87.0f32;
        while x < 87.0 {
            let exact = f64::from(x).exp();
            let off = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(off < 2.4e-7, "{x}: {off:e}");
            x += 0.001_3;
        }
        assert_eq!(exp(-1e30), exp(-87.0));
        assert_eq!(exp(1e30), exp(87.0));
        assert_eq!((sigmoid(1e30), sigmoid(0.0)), (1.0, 0.5));
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let units = 37;
        let x: Vec<f32> = (0..units * 11)
            .map(|at| (at as f32 * 0.7).sin() * 3.0)
            .collect();
        let slope: Vec<f32> = (0..units).map(|at| at as f32 / 50.0).collect();
        let moments = Moments {
            mean: slope.clone(),
            scale: vec![1.5; units],
        };
        let of = |isa: Isa| {
            let mut output = vec![MaybeUninit::new(0f32); x.len()];
            isa.run(Dice {
                x: &x,
                slope: &slope,
                moments: &moments,
                output: &mut output,
            });
            let output: Vec<f32> = output
                .into_iter()
                // SAFETY: they are all set from the start.
                .map(|number| unsafe { number.assume_init() })
                .collect();
            let mut sums = [vec![0f32; units], vec![0f32; units], vec![0f32; units]];
            isa.run(DiceSums {
                x: &x,
                slope: &slope,
                moments: &moments,
                output: &output,
                sums: &mut sums,
            });
            (output, sums)
        };
        for isa in Isa::available() {
            assert_eq!(of(isa), of(Isa::PORTABLE), "{}", isa.name());
        }
    }

    #[test]
    fn moments_far_from_zero_are_exact() {
        let x: Vec<f32> = (0..20_000)
            .flat_map(|at| [1e4 + (at % 2) as f32, 3.0])
            .collect();
        assert_eq!(moments(&x, 2), [1e4 + 0.5, 3.0, 0.25, 0.0]);
    }
}
