//! Each instruction set computes what plain code does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crossfield_embedding::{Precision, RowLayout, RowOptimizer, RowOptimizerKind, RowStep};
use crossfield_fused::{Isa, Kernel, Lanes, Rule, UpdateRow};
use proptest::prelude::*;

/// All operations on eight or sixteen lanes: what they give, one after the other.
struct Everything<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Everything<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Vec<f32> {
        let mut out = Vec::new();
        let mut lanes = [0f32; 16];
        let mut halves = [0u16; 16];
        // SAFETY: the slices hold sixteen floats, enough for any `L` here; `run` is called by
        // `Isa`, which has seen that the machine has the set.
        unsafe {
            for at in (0..16).step_by(L::N) {
                let (a, b) = (
                    L::load(self.a.as_ptr().add(at)),
                    L::load(self.b.as_ptr().add(at)),
                );
                let positive = a.mul(a).add(L::splat(0.25));
                let results = [
                    a.add(b),
                    a.sub(b),
                    a.mul(b),
                    a.div(positive),
                    a.mul_add(b, a),
                    a.neg_mul_add(b, a),
                    a.max(b),
                    positive.sqrt(),
                    positive.rsqrt(),
                    a.where_nonzero(b),
                    a.where_above(b, L::splat(0.5)),
                    a.copy_sign(b),
                    a.exp(),
                ];
                for result in results {
                    result.store(lanes.as_mut_ptr());
                    out.extend_from_slice(&lanes[..L::N]);
                }
                a.store_half(
                    halves.as_mut_ptr(),
                    L::noise(crossfield_fused::element_noise(77, at)),
                );
                L::load_half(halves.as_ptr()).store(lanes.as_mut_ptr());
                out.extend_from_slice(&lanes[..L::N]);
            }
        }
        out
    }
}

struct Sums<'a>(&'a [f32]);

impl Kernel for Sums<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            (0..16)
                .step_by(L::N)
                .map(|at| L::load(self.0.as_ptr().add(at)).sum())
                .sum()
        }
    }
}

/// Four sums at once, and one by one.
struct FourSums<'a>(&'a [f32]);

impl Kernel for FourSums<'_> {
    type Output = [[f32; 4]; 2];

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> [[f32; 4]; 2] {
        // SAFETY: as above; there are 64.
        unsafe {
            let mut vectors = [L::splat(0.0); 4];
            let mut one_by_one = [0.0; 4];
            for (nth, vector) in vectors.iter_mut().enumerate() {
                *vector = L::load(self.0.as_ptr().add(nth * L::N));
                one_by_one[nth] = vector.sum();
            }
            [L::sums(vectors), one_by_one]
        }
    }
}

struct Transposed<'a>(&'a [f32]);

impl Kernel for Transposed<'_> {
    type Output = Vec<(usize, Vec<f32>)>;

    /// For each number of parts: the parts transposed, and each row without its diagonal part.
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Vec<(usize, Vec<f32>)> {
        #[inline(always)]
        unsafe fn parts<L: Lanes, const G: usize>(from: *const f32) -> (usize, Vec<f32>) {
            let mut out = vec![0.0; 2 * G * L::N];
            // SAFETY: the caller's memory holds G vectors, and so does each half of `out`.
            unsafe {
                let mut rows = [L::splat(0.0); G];
                for (i, row) in rows.iter_mut().enumerate() {
                    *row = L::load(from.add(i * L::N));
                }
                let columns = L::transpose(rows);
                for i in 0..G {
                    columns[i].store(out.as_mut_ptr().add(i * L::N));
                    let rest = rows[i].without_part::<G>(i);
                    rest.store(out.as_mut_ptr().add((G + i) * L::N));
                }
            }
            (G, out)
        }
        // SAFETY: 64 floats are at least four vectors.
        unsafe {
            let mut all = vec![
                parts::<L, 1>(self.0.as_ptr()),
                parts::<L, 2>(self.0.as_ptr()),
            ];
            if L::N == 16 {
                all.push(parts::<L, 4>(self.0.as_ptr()));
            }
            all
        }
    }
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6 * b.abs().max(1.0)
}

/// In the order of a vector: what differs between eight and sixteen lanes is only the grouping.
fn by_lane(values: &[f32], lanes: usize) -> Vec<f32> {
    let operations = values.len() / 16;
    (0..operations)
        .flat_map(|operation| {
            (0..16).map(move |lane| {
                let (block, lane) = (lane / lanes, lane % lanes);
                values[block * operations * lanes + operation * lanes + lane]
            })
        })
        .collect()
}

proptest! {
    #[test]
    fn vectors_do_what_plain_code_does(
        a in proptest::collection::vec(-4f32..4.0, 16),
        mut b in proptest::collection::vec(-1f32..1.0, 16),
    ) {
        b[3] = 0.0;
        let work = Everything { a: &a, b: &b };
        let expected = Isa::PORTABLE.run(Everything { ..work });
        for isa in Isa::available() {
            let lanes = if isa.name() == "avx2" { 8 } else { 16 };
            let got = by_lane(&isa.run(Everything { a: &a, b: &b }), lanes);
            for (at, (got, expected)) in got.iter().zip(by_lane(&expected, 16)).enumerate() {
                prop_assert!(near(*got, expected), "{} {at}: {got} {expected}", isa.name());
            }
            let eight = by_lane(&isa.run_eight(Everything { a: &a, b: &b }), 8);
            for (got, expected) in eight.iter().zip(by_lane(&expected, 16)) {
                prop_assert!(near(*got, expected));
            }
            prop_assert!((isa.run(Sums(&a)) - a.iter().sum::<f32>()).abs() < 1e-4);
            let four: Vec<f32> = (0..64).map(|at| a[at % 16] * (at as f32 + 0.7)).collect();
            for [together, one_by_one] in [isa.run(FourSums(&four)), isa.run_eight(FourSums(&four))] {
                prop_assert_eq!(together.map(f32::to_bits), one_by_one.map(f32::to_bits));
            }
        }
    }
}

#[test]
fn parts_are_transposed_and_left_out() {
    let numbers: Vec<f32> = (0..64).map(|number| number as f32 + 1.0).collect();
    for isa in Isa::available() {
        for (parts, got) in isa.run(Transposed(&numbers)) {
            let lanes = got.len() / (2 * parts);
            let width = lanes / parts;
            let at = |row: usize, part: usize, i: usize| numbers[row * lanes + part * width + i];
            for (row, part, i) in (0..parts)
                .flat_map(|row| (0..parts).map(move |part| (row, part)))
                .flat_map(|(row, part)| (0..width).map(move |i| (row, part, i)))
            {
                let place = row * lanes + part * width + i;
                assert_eq!(got[place], at(part, row, i), "{} {parts}", isa.name());
                let rest = got[parts * lanes + place];
                let expected = if row == part { 0.0 } else { at(row, part, i) };
                assert_eq!(rest, expected, "{} {parts}", isa.name());
            }
        }
    }
}

#[test]
fn halves_are_rounded_up_as_often_as_they_lie_near_the_upper_one() {
    struct Rounded(f32, u32);
    impl Kernel for Rounded {
        type Output = f32;
        #[inline(always)]
        unsafe fn run<L: Lanes>(self) -> f32 {
            let mut halves = [0u16; 16];
            let mut lanes = [0f32; 16];
            // SAFETY: sixteen are enough for any `L`.
            unsafe {
                L::splat(self.0).store_half(halves.as_mut_ptr(), L::noise(self.1));
                L::load_half(halves.as_ptr()).store(lanes.as_mut_ptr());
            }
            lanes[0]
        }
    }
    // A quarter of the way from 1 to the next half, 1 + 2⁻⁷.
    let value = 1.0 + 0.25 / 128.0;
    for isa in Isa::available() {
        let draws = 20_000u32;
        let sum: f64 = (0..draws)
            .map(|draw| f64::from(isa.run(Rounded(value, draw.wrapping_mul(0x9E37_79B9)))))
            .sum();
        let mean = sum / f64::from(draws);
        assert!(
            (mean - f64::from(value)).abs() < 1e-4,
            "{} {mean}",
            isa.name()
        );
    }
}

#[test]
fn rules_do_what_row_optimizers_do() {
    let kinds = [
        RowOptimizerKind::Sgd,
        RowOptimizerKind::Adagrad,
        RowOptimizerKind::RowwiseAdagrad,
        RowOptimizerKind::Ftrl,
    ];
    for (kind, dim) in kinds
        .iter()
        .flat_map(|&kind| [1, 2, 5, 8, 20].map(|dim| (kind, dim)))
    {
        let optimizer = RowOptimizer {
            kind,
            lr: 0.3,
            l2: 0.01,
            l1: 0.02,
            initial_accumulator: 0.5,
            ..RowOptimizer::default()
        };
        let layout = RowLayout::new(dim, &optimizer, Precision::F32);
        let start: Vec<f32> = (0..dim).map(|at| (at as f32 - 3.0) * 0.1).collect();
        let gradients: Vec<Vec<f32>> = (0..4)
            .map(|step| {
                let value = |at: usize| ((at * 7 + step * 3) % 5) as f32 * 0.2 - 0.4;
                (0..dim).map(value).collect()
            })
            .collect();
        let (mut weights, mut state) = (start.clone(), vec![0f32; optimizer.state_len(dim)]);
        optimizer.init_state(&weights, &mut state);
        let new_row = {
            let mut row = vec![0f32; layout.stride / 4];
            row[..dim].copy_from_slice(&start);
            row[layout.state_at / 4..][..state.len()].copy_from_slice(&state);
            row
        };
        for gradient in &gradients {
            let step = RowStep {
                rate: 0.5,
                share: 1.0,
            };
            optimizer.update(&mut weights, &mut state, gradient, step);
        }
        for isa in Isa::available() {
            let mut row = new_row.clone();
            for gradient in &gradients {
                let mut padded = gradient.clone();
                padded.resize(layout.width, 0.0);
                let rule = Rule::new("t", &optimizer, Precision::F32, 0.5, false).unwrap();
                let update = UpdateRow {
                    row: row.as_mut_ptr().cast(),
                    layout: &layout,
                    noise: 0,
                    gradient: &padded,
                };
                match rule {
                    Rule::Sgd(rule) => update.by(rule, isa),
                    Rule::Adagrad(rule) => update.by(rule, isa),
                    Rule::Rowwise(rule) => update.by(rule, isa),
                    Rule::Ftrl(rule) => update.by(rule, isa),
                    other => panic!("{other:?} was not asked for"),
                }
            }
            for (got, expected) in row.iter().zip(&weights) {
                assert!(
                    near(*got, *expected),
                    "{} {kind:?} {dim}: {got} {expected}",
                    isa.name()
                );
            }
            assert!(row[dim..layout.width].iter().all(|&padding| padding == 0.0));
        }
    }
    let adam = RowOptimizer {
        kind: RowOptimizerKind::Adam,
        ..RowOptimizer::default()
    };
    let error = Rule::new("v8.ad", &adam, Precision::F32, 1.0, false).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("table `v8.ad`: the fused executor has no `adam`")
    );
}

/// eˣ of whole vectors.
struct Exp<'a>(&'a [f32]);

impl Kernel for Exp<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> Vec<f32> {
        let mut out = vec![0f32; self.0.len()];
        for at in (0..out.len()).step_by(L::N) {
            // SAFETY: the slices are multiples of sixteen long; `run` is called by `Isa`.
            unsafe {
                let x = L::load(self.0.as_ptr().add(at));
                x.exp().store(out.as_mut_ptr().add(at));
            }
        }
        out
    }
}

#[test]
fn the_exponential_is_right_to_two_units_in_the_last_place() {
    let numbers: Vec<f32> = (0..32_000).map(|at| at as f32 * 0.005_46 - 87.0).collect();
    for isa in Isa::available() {
        for (x, got) in numbers.iter().zip(isa.run(Exp(&numbers))) {
            let expected = f64::from(*x).exp();
            let unit = f64::from(f32::EPSILON) * expected;
            assert!(
                (f64::from(got) - expected).abs() <= 2.0 * unit,
                "{} exp({x}) = {got}, expected {expected}",
                isa.name()
            );
        }
        let mut limits = [0f32; 16];
        limits[..3].copy_from_slice(&[-90.0, f32::NEG_INFINITY, f32::NAN]);
        let got = isa.run(Exp(&limits));
        assert_eq!(got[..2], [0.0, 0.0]);
        assert!(got[2].is_nan() && got[3..] == [1.0; 13]);
    }
}
