//! What the tests of the layers share.

use burn::tensor::{Device, Tensor, TensorData};
use crossfield_core::{Init, Ragged, Segments};

/// Numbers without a pattern, in ±1.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32)
        .map(|at| {
            let mixed = (at + 7919 * seed).wrapping_mul(2_654_435_761);
            (mixed >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

pub(crate) fn tensor(rows: usize, dim: usize, seed: u32, device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(numbers(rows * dim, seed), [rows, dim]),
        device,
    )
}

/// Rows of so many items each.
pub(crate) fn segments(lengths: &[usize]) -> Segments {
    let mut offsets = vec![0];
    for &length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length as u32);
    }
    Segments::new(offsets)
}

pub(crate) fn ragged(lengths: &[usize], dim: usize, seed: u32, device: &Device) -> Ragged {
    Ragged {
        values: tensor(lengths.iter().sum(), dim, seed, device),
        segments: segments(lengths),
    }
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().unwrap()
}

pub(crate) fn close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        approx::assert_relative_eq!(got, expected, epsilon = 1e-4, max_relative = 1e-4);
    }
}

pub(crate) fn init(device: Device) -> Init {
    Init { device, seed: 3 }
}

/// Row times matrix: `[inputs]` and `[inputs, outputs]` to `[outputs]`.
pub(crate) fn times(row: &[f32], matrix: &[f32]) -> Vec<f32> {
    let outputs = matrix.len() / row.len();
    let sum = |out| {
        let terms = row.iter().enumerate();
        terms.map(|(at, x)| x * matrix[at * outputs + out]).sum()
    };
    (0..outputs).map(sum).collect()
}

/// Holds the gradient of Σ layer(x) · numbers by x, at an autodiff device, to finite differences.
pub(crate) fn check_gradient(x: [usize; 2], layer: impl Fn(Tensor<2>, &Device) -> Tensor<2>) {
    let start = numbers(x[0] * x[1], 5);
    let device = Device::flex().autodiff();
    let input = Tensor::<2>::from_data(TensorData::new(start.clone(), x), &device).require_grad();
    let output = layer(input.clone(), &device);
    let shape = output.dims();
    let slopes = numbers(shape[0] * shape[1], 6);
    let by = Tensor::<2>::from_data(TensorData::new(slopes.clone(), shape), &device);
    let mut gradients = (output * by).sum().backward();
    let gradient = values(input.grad_remove(&mut gradients).unwrap());
    let value = |x_at: Vec<f32>| -> f64 {
        let flex = Device::flex();
        let input = Tensor::<2>::from_data(TensorData::new(x_at, x), &flex);
        let output = values(layer(input, &flex));
        let terms = output.iter().zip(&slopes);
        terms
            .map(|(&x, &slope)| f64::from(x) * f64::from(slope))
            .sum()
    };
    for (at, expected) in gradient.into_iter().enumerate() {
        let moved = |by: f32| {
            let mut x = start.clone();
            x[at] += by;
            value(x)
        };
        let difference = (moved(0.004) - moved(-0.004)) / 0.008;
        approx::assert_relative_eq!(difference, f64::from(expected), epsilon = 2e-3);
    }
}
