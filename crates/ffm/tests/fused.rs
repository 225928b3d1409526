//! The fused pass of FFM: its instruction sets, its two ways through a row, its teams.
#![cfg(feature = "fused")]

use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{
    Examples, FeatureLists, FieldId, Initializer, Loss, TableConfig, TableField,
};
use crossfield_embedding::{
    EmbeddingCollection, Precision, RowOptimizer, RowOptimizerKind, TablePlan,
};
use crossfield_ffm::FusedFfm;
use crossfield_fused::{Bias, BiasOptimizer, BiasRule, Fused, Isa, Options, RowData, Turn};
use rand::RngExt;

const ROWS: usize = 60;
const VALUES: u32 = 9;

/// One-hot rows of some fields, as they lie row by row and as lists.
struct Rows {
    fields: Vec<FieldId>,
    indices: Vec<u32>,
    offsets: Vec<u64>,
    columns: Vec<Vec<u32>>,
    labels: Vec<f32>,
}

impl Rows {
    fn new(fields: usize) -> Self {
        let mut rng = rng(3, Purpose::Synth, fields as u64, 0);
        let indices: Vec<u32> = (0..ROWS * fields)
            .map(|_| rng.random_range(0..VALUES))
            .collect();
        Self {
            fields: (0..fields).collect(),
            columns: (0..fields)
                .map(|field| {
                    indices
                        .iter()
                        .copied()
                        .skip(field)
                        .step_by(fields)
                        .collect()
                })
                .collect(),
            indices,
            offsets: (0..=ROWS as u64).collect(),
            labels: (0..ROWS).map(|_| f32::from(rng.random::<bool>())).collect(),
        }
    }

    fn one_hot(&self) -> Examples<'_> {
        Examples {
            rows: ROWS,
            one_hot_fields: &self.fields,
            one_hot: &self.indices,
            lists: Vec::new(),
            labels: &self.labels,
            weights: None,
        }
    }

    fn lists(&self) -> Examples<'_> {
        let list = |field: &FieldId| FeatureLists {
            field: *field,
            offsets: &self.offsets,
            indices: &self.columns[*field],
            weights: None,
        };
        Examples {
            one_hot_fields: &[],
            one_hot: &[],
            lists: self.fields.iter().map(list).collect(),
            ..self.one_hot()
        }
    }
}

fn optimizer(kind: RowOptimizerKind) -> RowOptimizer {
    RowOptimizer {
        kind,
        lr: 0.2,
        l2: 1e-3,
        l1: 1e-3,
        initial_accumulator: 0.1,
        ..RowOptimizer::default()
    }
}

fn tables(
    fields: usize,
    dim: usize,
    optimizer: RowOptimizer,
    precision: Precision,
) -> EmbeddingCollection {
    let table = |name: String, dim, field, initializer| TableConfig {
        name,
        rows: VALUES as usize,
        dim,
        fields: vec![field],
        initializer,
        oov_row: None,
    };
    let uniform = Initializer::Uniform {
        low: -0.5,
        high: 0.5,
    };
    let factors = (0..fields).map(|field| TablePlan {
        precision,
        ..TablePlan::new(
            table(format!("f{field:02}"), fields * dim, field, uniform),
            optimizer,
        )
    });
    let linear = (0..fields).map(|field| {
        let config = table(format!("l{field:02}"), 1, field, Initializer::Zeros);
        TablePlan::new(config, RowOptimizer::default())
    });
    EmbeddingCollection::new(&factors.chain(linear).collect::<Vec<_>>(), 5).unwrap()
}

fn fused(fields: usize, dim: usize, isa: Isa, fast: bool) -> Fused {
    let at = |prefix: &str| -> Vec<TableField> {
        (0..fields)
            .map(|field| TableField {
                table: format!("{prefix}{field:02}"),
                field,
            })
            .collect()
    };
    let ffm = FusedFfm::new(at("f"), at("l"), dim, true, true);
    let bias = Bias::new(
        0.1,
        BiasOptimizer {
            kind: BiasRule::Sgd,
            lr: 0.1,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        },
    );
    let options = Options { isa, fast };
    Fused::new(vec![Box::new(ffm)], Loss::Logistic, Some(bias), options).unwrap()
}

fn train(
    fused: &mut Fused,
    tables: &mut EmbeddingCollection,
    examples: Examples<'_>,
    rows: &[u32],
    threads: usize,
) {
    let data = RowData::new(examples);
    let rates = vec![1.0; rows.len()];
    let turn = Turn {
        rows,
        rates: &rates,
        seed: 1,
        first_step: 0,
        threads,
    };
    fused.train(tables, &data, turn).unwrap();
}

fn weights(tables: &EmbeddingCollection) -> Vec<f32> {
    let mut all = Vec::new();
    for table in tables.tables() {
        let mut row = vec![0.0; table.config().dim];
        for index in 0..VALUES {
            table.read_weights(index, &mut row);
            all.extend_from_slice(&row);
        }
    }
    all
}

fn assert_near(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.iter().zip(expected).enumerate() {
        // A weight near zero is as near as one of size 0.1.
        let near = (got - expected).abs() <= tolerance * expected.abs().max(0.1);
        assert!(near, "{what}: weight {at} is {got}, expected {expected}");
    }
}

const SHAPES: [(usize, usize); 6] = [(5, 4), (39, 4), (3, 8), (6, 8), (4, 3), (2, 4)];
const RULES: [(RowOptimizerKind, Precision); 5] = [
    (RowOptimizerKind::Sgd, Precision::F32),
    (RowOptimizerKind::Adagrad, Precision::F32),
    (RowOptimizerKind::Ftrl, Precision::F32),
    (RowOptimizerKind::RowwiseAdagrad, Precision::F32),
    (RowOptimizerKind::RowwiseAdagrad, Precision::Bf16),
];

#[test]
fn each_instruction_set_updates_a_row_as_plain_code_does() {
    for (fields, dim) in SHAPES {
        let rows = Rows::new(fields);
        for (kind, precision) in RULES {
            let after = |isa| {
                let mut tables = tables(fields, dim, optimizer(kind), precision);
                train(
                    &mut fused(fields, dim, isa, false),
                    &mut tables,
                    rows.one_hot(),
                    &[7],
                    1,
                );
                weights(&tables)
            };
            let expected = after(Isa::PORTABLE);
            for isa in Isa::available() {
                // A half is rounded up or down; where the sum falls on the other side of the
                // boundary by its last bit, by one step of a half.
                let tolerance = match precision {
                    Precision::F32 => 1e-6,
                    Precision::Bf16 => 1.0 / 128.0,
                };
                let what = format!("{} {kind:?} {precision:?} {fields} × {dim}", isa.name());
                assert_near(&after(isa), &expected, tolerance, &what);
            }
        }
    }
}

#[test]
fn the_fast_root_is_near_the_refined_one() {
    let rows = Rows::new(39);
    for isa in Isa::available() {
        let after = |fast| {
            let mut tables = tables(39, 4, optimizer(RowOptimizerKind::Adagrad), Precision::F32);
            train(
                &mut fused(39, 4, isa, fast),
                &mut tables,
                rows.one_hot(),
                &[7],
                1,
            );
            weights(&tables)
        };
        // 11 bits of the root, of a step of at most 0.2.
        assert_near(&after(true), &after(false), 4e-4, isa.name());
    }
}

#[test]
fn tiles_do_what_the_general_pass_does() {
    let all: Vec<u32> = (0..ROWS as u32).collect();
    for (fields, dim) in SHAPES {
        let rows = Rows::new(fields);
        for (kind, precision) in RULES {
            if precision == Precision::Bf16 {
                // Sums in another order, rounded at random: compared by what they learn, below.
                continue;
            }
            let after = |examples: Examples<'_>| {
                let mut tables = tables(fields, dim, optimizer(kind), precision);
                let isa = Isa::available()[0];
                train(
                    &mut fused(fields, dim, isa, false),
                    &mut tables,
                    examples,
                    &all,
                    1,
                );
                weights(&tables)
            };
            let what = format!("{kind:?} {fields} × {dim}");
            assert_near(&after(rows.one_hot()), &after(rows.lists()), 2e-4, &what);
        }
    }
}

#[test]
fn teams_of_any_size_give_the_same_bits() {
    let all: Vec<u32> = (0..ROWS as u32).collect();
    let rows = Rows::new(39);
    for (kind, precision) in RULES {
        let after = |threads| {
            let mut tables = tables(39, 4, optimizer(kind), precision);
            let isa = Isa::available()[0];
            let mut fused = fused(39, 4, isa, false);
            train(&mut fused, &mut tables, rows.one_hot(), &all, threads);
            (weights(&tables), fused.bias)
        };
        let alone = after(1);
        for threads in [2, 3, 4, 7] {
            assert_eq!(
                after(threads),
                alone,
                "{kind:?} {precision:?} {threads} threads"
            );
        }
    }
}

#[test]
fn turns_of_any_length_give_the_same_bits() {
    let all: Vec<u32> = (0..ROWS as u32).collect();
    let rows = Rows::new(39);
    let after = |turns: &[&[u32]]| {
        let kind = optimizer(RowOptimizerKind::RowwiseAdagrad);
        let mut tables = tables(39, 4, kind, Precision::Bf16);
        let mut fused = fused(39, 4, Isa::available()[0], false);
        let data = RowData::new(rows.one_hot());
        let mut first_step = 0;
        for rows in turns {
            let turn = Turn {
                rows,
                rates: &vec![1.0; rows.len()],
                seed: 1,
                first_step,
                threads: 1,
            };
            fused.train(&mut tables, &data, turn).unwrap();
            first_step += rows.len() as u64;
        }
        weights(&tables)
    };
    assert_eq!(
        after(&[&all]),
        after(&[&all[..17], &all[17..18], &all[18..]])
    );
}

#[test]
fn halves_learn_what_floats_learn() {
    let rows = Rows::new(6);
    let many: Vec<u32> = (0..2000).map(|step| step % ROWS as u32).collect();
    let loss = |precision| {
        let kind = optimizer(RowOptimizerKind::RowwiseAdagrad);
        let mut tables = tables(6, 4, kind, precision);
        let mut fused = fused(6, 4, Isa::available()[0], false);
        train(&mut fused, &mut tables, rows.one_hot(), &many, 1);
        let data = RowData::new(rows.one_hot());
        let (mut loss, mut at) = (0.0, 0);
        fused
            .score(&tables, &data, |scores| {
                for &score in scores {
                    loss += Loss::Logistic.of_row(score, rows.labels[at]).0 / ROWS as f64;
                    at += 1;
                }
            })
            .unwrap();
        loss
    };
    let (half, full) = (loss(Precision::Bf16), loss(Precision::F32));
    // The labels are coin flips, learnt by heart: from ln 2 down to a few hundredths.
    assert!(full < 0.2, "{full}");
    assert!((half - full).abs() < 0.02, "{half} {full}");
}

#[test]
fn a_score_that_is_no_number_stops_before_the_tables_change() {
    let rows = Rows::new(5);
    let mut tables = tables(5, 4, optimizer(RowOptimizerKind::Adagrad), Precision::F32);
    tables
        .table_mut("f00")
        .unwrap()
        .weights_mut(rows.indices[35])[4] = f32::INFINITY;
    for threads in [1, 2] {
        let before = weights(&tables);
        let data = RowData::new(rows.one_hot());
        let turn = Turn {
            rows: &[7],
            rates: &[1.0],
            seed: 1,
            first_step: 40,
            threads,
        };
        let error = fused(5, 4, Isa::available()[0], false).train(&mut tables, &data, turn);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("training row 7 is") && message.contains("step 40"),
            "{message}"
        );
        assert_eq!(weights(&tables), before);
    }
}

#[test]
fn an_index_beyond_its_table_is_refused() {
    let rows = Rows::new(5);
    let mut outside = rows.indices.clone();
    outside[13] = VALUES;
    let examples = Examples {
        one_hot: &outside,
        ..rows.one_hot()
    };
    let tables = tables(5, 4, optimizer(RowOptimizerKind::Adagrad), Precision::F32);
    let error = fused(5, 4, Isa::PORTABLE, false).check(&tables, &RowData::new(examples));
    assert_eq!(
        error.unwrap_err().to_string(),
        "field 3: index 9 in a table of 9 rows"
    );
}
