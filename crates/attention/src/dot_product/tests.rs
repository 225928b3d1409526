use approx::assert_relative_eq;
use burn::tensor::{DType, Device};
use proptest::prelude::*;

use super::*;
use crate::test_support::{close, numbers, segments};

/// What is asked: queries and items of each row, dims of keys and of values, heads.
#[derive(Clone, Debug)]
struct Case {
    queries: Vec<usize>,
    items: Vec<usize>,
    dims: [usize; 2],
    heads: usize,
    causal: bool,
}

impl Case {
    fn shapes(&self) -> [[usize; 2]; 3] {
        let [asking, items] = [&self.queries, &self.items].map(|of_rows| of_rows.iter().sum());
        let [dim, out] = self.dims;
        [[asking, dim], [items, dim], [items, out]]
    }

    fn numbers(&self) -> [Vec<f32>; 3] {
        let mut seed = 0;
        self.shapes().map(|[count, dim]| {
            seed += 1;
            numbers(count * dim, seed).iter().map(|x| 2.0 * x).collect()
        })
    }

    fn tensors(&self, numbers: [Vec<f32>; 3], device: &Device) -> [Tensor<2>; 3] {
        let mut shapes = self.shapes().into_iter();
        numbers.map(|numbers| {
            let shape = shapes.next().unwrap();
            Tensor::from_data(TensorData::new(numbers, shape), device)
        })
    }

    fn attend(&self, form: Form, [queries, keys, values]: [Tensor<2>; 3]) -> Tensor<2> {
        let queries = Ragged {
            values: queries,
            segments: segments(&self.queries),
        };
        let keys = Ragged {
            values: keys,
            segments: segments(&self.items),
        };
        form(&queries, &keys, values, self.heads, self.causal)
    }

    /// The output, and the gradients of Σ output · numbers by queries, keys and values.
    fn all(&self, form: Form, numbers_of: [Vec<f32>; 3]) -> [Vec<f32>; 4] {
        let device = Device::flex().autodiff();
        let asked = self.tensors(numbers_of, &device).map(Tensor::require_grad);
        let output = self.attend(form, asked.clone());
        let shape = output.dims();
        let slopes = TensorData::new(numbers(shape[0] * shape[1], 9), shape);
        let slopes = Tensor::<2>::from_data(slopes, &device);
        let mut gradients = (output.clone() * slopes).sum().backward();
        let [queries, keys, values] = asked.map(|tensor| {
            let gradient = tensor.grad_remove(&mut gradients).unwrap();
            gradient.try_into_vec_as().unwrap()
        });
        [output.try_into_vec_as().unwrap(), queries, keys, values]
    }
}

type Form = fn(&Ragged, &Ragged, Tensor<2>, usize, bool) -> Tensor<2>;

/// Self-attention, or a few queries a row over rows of any length.
fn cases() -> impl Strategy<Value = Case> {
    let lengths = prop::collection::vec(prop::sample::select(vec![0, 1, 2, 3, 6, 9, 17, 40]), 1..6);
    let widths = prop::sample::select(vec![[1, 3], [4, 4], [8, 8], [5, 16], [16, 16], [32, 24]]);
    (lengths.clone(), lengths, widths, 1usize..4, 0..3).prop_map(
        |(items, mut queries, widths, heads, kind)| {
            queries.resize(items.len(), 1);
            let queries = if kind == 0 { queries } else { items.clone() };
            Case {
                queries,
                items,
                dims: widths.map(|width| width * heads),
                heads,
                causal: kind == 2,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_operation_equals_the_plain_form_and_its_gradients(case in cases()) {
        prop_assume!(case.shapes().iter().all(|[count, _]| *count > 0));
        let got = case.all(dot_product_attention, case.numbers());
        let expected = case.all(dot_product_attention_plain, case.numbers());
        for (got, expected) in got.iter().zip(&expected) {
            close(got, expected);
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_beside_others(case in cases()) {
        prop_assume!(case.shapes().iter().all(|[count, _]| *count > 0));
        let together = case.all(dot_product_attention, case.numbers());
        let (queries, items) = (segments(&case.queries), segments(&case.items));
        let numbers_of = case.numbers();
        let slopes = numbers(together[0].len(), 9);
        for row in 0..items.rows() {
            let ranges = [queries.range(row), items.range(row), items.range(row)];
            if ranges.iter().any(|range| range.is_empty()) {
                continue;
            }
            let alone = Case {
                queries: vec![ranges[0].len()],
                items: vec![ranges[1].len()],
                ..case.clone()
            };
            let [dim, out] = case.dims;
            let cut = |numbers: &[f32], nth: usize, dim: usize| {
                numbers[ranges[nth].start * dim..ranges[nth].end * dim].to_vec()
            };
            let of_row = [
                cut(&numbers_of[0], 0, dim),
                cut(&numbers_of[1], 1, dim),
                cut(&numbers_of[2], 2, out),
            ];
            let device = Device::flex().autodiff();
            let asked = alone.tensors(of_row, &device).map(Tensor::require_grad);
            let output = alone.attend(dot_product_attention, asked.clone());
            let slopes = TensorData::new(cut(&slopes, 0, out), output.dims());
            let slopes = Tensor::<2>::from_data(slopes, &device);
            let mut gradients = (output.clone() * slopes).sum().backward();
            prop_assert_eq!(output.try_into_vec_as::<f32>().unwrap(), cut(&together[0], 0, out));
            for (nth, tensor) in asked.into_iter().enumerate() {
                let gradient = tensor.grad_remove(&mut gradients).unwrap();
                let gradient = gradient.try_into_vec_as::<f32>().unwrap();
                let dim = if nth == 2 { out } else { dim };
                prop_assert_eq!(gradient, cut(&together[nth + 1], nth, dim));
            }
        }
    }
}

#[test]
fn a_query_reads_the_values_by_the_fit_of_their_keys() {
    // Scores ln 3 and 0 times √1: weights ¾ and ¼; the second row has no items.
    let case = Case {
        queries: vec![1, 1],
        items: vec![2, 0],
        dims: [1, 2],
        heads: 1,
        causal: false,
    };
    let numbers = [
        vec![3f32.ln(), 5.0],
        vec![1.0, 0.0],
        vec![4.0, 0.0, 0.0, 8.0],
    ];
    let [output, queries, keys, values] = case.all(dot_product_attention, numbers);
    close(&output[..2], &[3.0, 2.0]);
    assert_eq!(output[2..], [0.0, 0.0]);
    let slopes = crate::test_support::numbers(4, 9);
    let score = 0.75 * 0.25 * (4.0 * slopes[0] - 8.0 * slopes[1]);
    close(&queries, &[score, 0.0]);
    close(&keys, &[3f32.ln() * score, -3f32.ln() * score]);
    let expected = [
        0.75 * slopes[0],
        0.75 * slopes[1],
        0.25 * slopes[0],
        0.25 * slopes[1],
    ];
    close(&values, &expected);
}

#[test]
fn the_gradients_are_those_of_finite_differences() {
    for (queries, causal) in [(vec![2, 1], false), (vec![5, 1], true)] {
        let case = Case {
            items: vec![5, 1],
            dims: [4, 6],
            heads: 2,
            queries,
            causal,
        };
        let start = case.numbers();
        let slopes = numbers(case.shapes()[0][0] * 6, 9);
        let value = |numbers: [Vec<f32>; 3]| -> f64 {
            let asked = case.tensors(numbers, &Device::flex());
            let output = case.attend(dot_product_attention, asked);
            let output = output.try_into_vec_as::<f32>().unwrap();
            let terms = output.iter().zip(&slopes);
            terms
                .map(|(&x, &slope)| f64::from(x) * f64::from(slope))
                .sum()
        };
        let [_, gradients @ ..] = case.all(dot_product_attention, start.clone());
        for (part, gradient) in gradients.iter().enumerate() {
            for (at, &expected) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut numbers = start.clone();
                    numbers[part][at] += by;
                    value(numbers)
                };
                let difference = (moved(0.005) - moved(-0.005)) / 0.01;
                assert_relative_eq!(difference, f64::from(expected), epsilon = 1e-3);
            }
        }
    }
}

#[test]
fn the_same_bits_at_any_number_of_threads() {
    let items: Vec<usize> = (0..40).map(|row| row * 7 % 31).collect();
    let case = Case {
        queries: items.clone(),
        items,
        dims: [32, 32],
        heads: 2,
        causal: true,
    };
    let [one, two, four] = [1, 2, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap()
            .install(|| case.all(dot_product_attention, case.numbers()))
    });
    assert!(one == two && two == four);
}

#[test]
fn later_items_change_no_bit_of_what_earlier_ones_read() {
    let case = |length| Case {
        queries: vec![length],
        items: vec![length],
        dims: [16, 16],
        heads: 1,
        causal: true,
    };
    let of = |length: usize| {
        let numbers = case(50).numbers().map(|mut numbers| {
            numbers.truncate(length * 16);
            numbers
        });
        let asked = case(length).tensors(numbers, &Device::flex());
        let output = case(length).attend(dot_product_attention, asked);
        output.try_into_vec_as::<f32>().unwrap()
    };
    let all = of(50);
    for length in [6, 7, 8, 9, 16, 17, 33] {
        assert_eq!(of(length), all[..length * 16]);
    }
}

#[test]
fn scores_of_any_size_give_finite_weights_and_gradients() {
    let case = Case {
        queries: vec![6, 1],
        items: vec![6, 20],
        dims: [8, 8],
        heads: 1,
        causal: false,
    };
    let large = case
        .numbers()
        .map(|numbers| numbers.iter().map(|x| x * 1e4).collect());
    for numbers in case.all(dot_product_attention, large) {
        assert!(numbers.iter().all(|number| number.is_finite()));
    }
}

#[test]
fn every_instruction_set_gives_what_plain_code_does() {
    use crate::row::{Answer, Row, Scratch};
    for (asking, items, width) in [(1, 37, 20), (9, 21, 16), (7, 3, 7)] {
        let row = [
            numbers(asking * width, 1),
            numbers(items * width, 2),
            numbers(items * width, 3),
        ];
        let row = Row {
            queries: &row[0],
            keys: &row[1],
            values: &row[2],
            dims: [width, width],
            heads: 1,
            causal: false,
        };
        let answer = |isa| {
            let (mut output, mut log_sums) = (vec![0f32; asking * width], vec![0f32; asking]);
            let answer = Answer {
                output: &mut output,
                log_sums: &mut log_sums,
            };
            row.answer(isa, answer, &mut Scratch::default());
            output
        };
        for isa in Isa::available() {
            close(&answer(isa), &answer(Isa::PORTABLE));
        }
    }
}

#[test]
fn weights_are_those_by_which_values_are_read() {
    let device = Device::flex();
    let case = Case {
        queries: vec![1, 1, 1],
        items: vec![4, 0, 3],
        dims: [6, 6],
        heads: 2,
        causal: false,
    };
    let [queries, keys, _] = case.tensors(case.numbers(), &device);
    let keys = Ragged {
        values: keys,
        segments: segments(&case.items),
    };
    let weights = dot_product_weights(queries.clone(), &keys, 2);
    // Values of 1 for one head and 2 for the other, times the weights by hand.
    let values = Tensor::<2>::from_data(
        TensorData::new((0..14).map(|at| (at * at % 5) as f32).collect(), [7, 2]),
        &device,
    );
    let read = keys.segments.sum(weights * values.clone());
    let asked = Ragged {
        values: queries,
        segments: Segments::of_one(3),
    };
    let expected = dot_product_attention(&asked, &keys, values, 2, false);
    close(
        &read.try_into_vec_as::<f32>().unwrap(),
        &expected.try_into_vec_as::<f32>().unwrap(),
    );
}

#[test]
fn other_floats_take_the_plain_form() {
    let case = Case {
        queries: vec![2],
        items: vec![3],
        dims: [4, 4],
        heads: 2,
        causal: false,
    };
    let asked = case.tensors(case.numbers(), &Device::flex());
    let narrow = case.attend(dot_product_attention, asked.clone());
    let wide = case.attend(dot_product_attention, asked.map(|x| x.cast(DType::F64)));
    assert_eq!(wide.dtype(), DType::F64);
    let wide = wide.cast(DType::F32).try_into_vec_as::<f32>().unwrap();
    close(&narrow.try_into_vec_as::<f32>().unwrap(), &wide);
}

#[test]
#[should_panic(expected = "expected queries and keys of the same items")]
fn causal_attention_is_of_items_to_themselves() {
    let case = Case {
        queries: vec![1],
        items: vec![3],
        dims: [4, 4],
        heads: 2,
        causal: true,
    };
    let asked = case.tensors(case.numbers(), &Device::flex());
    case.attend(dot_product_attention, asked);
}
