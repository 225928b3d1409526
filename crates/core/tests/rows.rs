//! What a layer gives for a row does not depend on the rows beside it.

use burn::tensor::{Device, Tensor, TensorData};
use crossfield_core::{dense_layer, dense_layer_relu};

#[test]
fn a_rows_output_is_the_same_bits_alone_and_beside_others() {
    let device = Device::flex();
    let numbers = |count: usize, step: f32| -> Vec<f32> {
        (0..count).map(|at| (at as f32 * step).sin()).collect()
    };
    for (inputs, outputs) in [
        (1, 1),
        (5, 1),
        (16, 1),
        (128, 1),
        (300, 1),
        (64, 16),
        (56, 256),
        (256, 128),
        (7, 5),
        (3, 2),
        (700, 9),
        (1100, 3),
        (1100, 3),
    ] {
        let weight = TensorData::new(numbers(inputs * outputs, 0.7), [inputs, outputs]);
        let bias = numbers(outputs, 0.3);
        let row = numbers(inputs, 1.3);
        let last = |rows: usize, relu: bool| {
            let mut x = numbers((rows - 1) * inputs, 0.9);
            x.extend(&row);
            let x = Tensor::<2>::from_data(TensorData::new(x, [rows, inputs]), &device);
            let weight = Tensor::<2>::from_data(weight.clone(), &device);
            let bias = Tensor::<1>::from_data(&bias[..], &device);
            let output = if relu {
                dense_layer_relu(x, weight, bias)
            } else {
                dense_layer(x, weight, bias)
            };
            let output = output.try_into_vec_as::<f32>().unwrap();
            output[(rows - 1) * outputs..].to_vec()
        };
        for relu in [false, true] {
            let alone = last(1, relu);
            for rows in [2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 100, 1024, 5000] {
                assert_eq!(last(rows, relu), alone, "{rows} rows, {inputs} → {outputs}");
            }
        }
    }
}
