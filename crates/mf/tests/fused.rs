//! The two passes of a matrix factorization are one, on any instruction set.
#![cfg(feature = "fused")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crossfield_core::{Examples, Initializer, Loss, TableConfig, TableField};
use crossfield_embedding::{
    EmbeddingCollection, Precision, RowOptimizer, RowOptimizerKind, TablePlan,
};
use crossfield_fused::{
    Error, Fused, FusedComponent, Isa, Options, RowData, RowPass, Shared, Step, Tables, Turn,
};
use crossfield_mf::{FusedMf, MfLookups};

/// Beside it, a component is no longer alone.
#[derive(Debug)]
struct Nothing;

impl FusedComponent for Nothing {
    fn tables(&self) -> Vec<&str> {
        Vec::new()
    }

    fn bind<'a>(
        &'a self,
        _tables: &Tables<'a>,
        _data: &'a RowData<'a>,
        _options: Options,
    ) -> Result<Box<dyn RowPass + 'a>, Error> {
        Ok(Box::new(Self))
    }
}

impl RowPass for Nothing {
    fn shared_len(&self) -> usize {
        0
    }
    fn prefetch(&self, _row: usize, _part: usize) {}
    fn forward(&mut self, _row: usize, _part: usize, _shared: Shared) {}
    fn score(&mut self, _row: usize, _shared: Shared) -> f32 {
        0.0
    }
    fn backward(&mut self, _row: usize, _next: usize, _part: usize, _step: Step, _shared: Shared) {}
}

const ROWS: usize = 300;

#[derive(Clone, Copy, Debug)]
struct Case {
    dim: usize,
    /// Of users, and of items.
    kinds: [RowOptimizerKind; 2],
    frozen_items: bool,
    precision: Precision,
    isa: Isa,
}

fn at(table: &str, field: usize) -> TableField {
    TableField {
        table: table.into(),
        field,
    }
}

/// The weights of all tables after a turn, alone or beside another component.
fn trained(case: Case, alone: bool) -> Vec<f32> {
    trained_on(case, alone, ROWS)
}

fn trained_on(case: Case, alone: bool, rows: usize) -> Vec<f32> {
    let plan = |name: &str, rows, dim, field| {
        let config = TableConfig {
            name: name.into(),
            rows,
            dim,
            fields: vec![field],
            initializer: Initializer::Normal { std: 0.3 },
            oov_row: None,
        };
        let optimizer = RowOptimizer {
            kind: case.kinds[field],
            lr: 0.05,
            l2: 0.01,
            initial_accumulator: 0.1,
            ..RowOptimizer::default()
        };
        TablePlan {
            frozen: case.frozen_items && name == "v.item",
            precision: if dim == 1 {
                Precision::F32
            } else {
                case.precision
            },
            ..TablePlan::new(config, optimizer)
        }
    };
    let plans = [
        plan("b.item", 7, 1, 1),
        plan("b.user", 11, 1, 0),
        plan("v.item", 7, case.dim, 1),
        plan("v.user", 11, case.dim, 0),
    ];
    let mut tables = EmbeddingCollection::new(&plans, 5).unwrap();
    let pairs: Vec<u32> = (0..ROWS as u32)
        .flat_map(|row| [row * 5 % 11, row * row % 7])
        .collect();
    let labels: Vec<f32> = (0..ROWS).map(|row| (row % 5) as f32).collect();
    let examples = Examples {
        rows: ROWS,
        one_hot_fields: &[0, 1],
        one_hot: &pairs,
        lists: Vec::new(),
        labels: &labels,
        weights: None,
    };
    let mf = FusedMf::new(MfLookups {
        factors: [at("v.user", 0), at("v.item", 1)],
        biases: vec![at("b.user", 0), at("b.item", 1)],
    });
    let mut components: Vec<Box<dyn FusedComponent>> = vec![Box::new(mf)];
    if !alone {
        components.push(Box::new(Nothing));
    }
    let options = Options {
        isa: case.isa,
        fast: false,
    };
    let mut fused = Fused::new(components, Loss::Squared, None, options).unwrap();
    let rows: Vec<u32> = (0..rows as u32).collect();
    let turn = Turn {
        rows: &rows,
        rates: &vec![0.5; rows.len()],
        seed: 1,
        first_step: 0,
        threads: 1,
    };
    fused
        .train(&mut tables, &RowData::new(examples), turn)
        .unwrap();
    let mut all = Vec::new();
    for table in tables.tables() {
        let mut weights = vec![0.0; table.config().dim];
        for row in 0..table.config().rows as u32 {
            table.read_weights(row, &mut weights);
            all.extend_from_slice(&weights);
        }
    }
    all
}

fn cases() -> Vec<Case> {
    use RowOptimizerKind::{Adagrad, Ftrl, RowwiseAdagrad, Sgd};
    let mut cases = Vec::new();
    for isa in Isa::available() {
        for dim in [2, 5, 8, 32] {
            for kind in [Sgd, Adagrad, RowwiseAdagrad, Ftrl] {
                cases.push(Case {
                    dim,
                    kinds: [kind; 2],
                    frozen_items: false,
                    precision: Precision::F32,
                    isa,
                });
            }
        }
        cases.push(Case {
            dim: 16,
            kinds: [RowwiseAdagrad; 2],
            frozen_items: false,
            precision: Precision::Bf16,
            isa,
        });
    }
    cases
}

#[test]
fn alone_and_beside_others_give_the_same_bits() {
    for case in cases() {
        let (alone, beside) = (trained(case, true), trained(case, false));
        assert!(alone.iter().any(|&weight| weight != 0.0), "{case:?}");
        assert_eq!(alone, beside, "{case:?}");
    }
}

#[test]
fn instruction_sets_agree() {
    for case in cases() {
        if case.precision == Precision::Bf16 {
            // A weight between two halves may go either way.
            continue;
        }
        let plain = Case {
            isa: Isa::PORTABLE,
            ..case
        };
        for (vector, plain) in trained(case, true).iter().zip(trained(plain, true)) {
            // Sums in another order, 300 steps on.
            let near = (vector - plain).abs() <= 1e-4 * plain.abs().max(0.1);
            assert!(near, "{case:?}: {vector} {plain}");
        }
    }
}

/// One row of a user and an item, both vectors of which are known.
#[test]
fn sides_of_different_rules_and_frozen_ones_follow_the_same_gradient() {
    use RowOptimizerKind::{Adagrad, Sgd};
    for isa in Isa::available() {
        let case = |kinds, frozen_items| Case {
            dim: 8,
            kinds,
            frozen_items,
            precision: Precision::F32,
            isa,
        };
        // Where all is one kind, both sides are updated in one walk; else one after the other.
        let both = trained_on(case([Sgd; 2], false), true, 1);
        let user = trained_on(case([Sgd, Adagrad], false), true, 1);
        let item = trained_on(case([Adagrad, Sgd], false), true, 1);
        let frozen = trained_on(case([Sgd; 2], true), true, 1);
        let start = trained_on(case([Sgd; 2], false), true, 0);
        // Biases of 7 items and 11 users, then their vectors.
        let (items, users) = (18..18 + 7 * 8, 18 + 7 * 8..18 + 18 * 8);
        assert_eq!(both[users.clone()], user[users.clone()]);
        assert_eq!(both[items.clone()], item[items.clone()]);
        assert_eq!(frozen[users.clone()], both[users.clone()]);
        assert_eq!(frozen[items.clone()], start[items.clone()]);
        assert_ne!(both[items.clone()], start[items]);
        assert_ne!(both[users.clone()], start[users]);
    }
}
