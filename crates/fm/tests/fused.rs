//! What the fused pass of FM refuses.
#![cfg(feature = "fused")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use crossfield_core::{Examples, Initializer, Loss, TableConfig, TableField};
use crossfield_embedding::{
    EmbeddingCollection, Precision, RowOptimizer, RowOptimizerKind, TablePlan,
};
use crossfield_fm::FusedFm;
use crossfield_fused::{Fused, Isa, Options, RowData};

#[test]
fn tables_of_different_precision_are_refused() {
    let names = ["a", "b"];
    let optimizer = RowOptimizer {
        kind: RowOptimizerKind::RowwiseAdagrad,
        ..RowOptimizer::default()
    };
    let plan = |field: usize, precision| {
        let config = TableConfig {
            name: names[field].into(),
            rows: 2,
            dim: 8,
            fields: vec![field],
            initializer: Initializer::Zeros,
            oov_row: None,
        };
        TablePlan {
            precision,
            ..TablePlan::new(config, optimizer)
        }
    };
    let check = |second| {
        let plans = [plan(0, Precision::Bf16), plan(1, second)];
        let tables = EmbeddingCollection::new(&plans, 1).unwrap();
        let fields = (0..2).map(|field| TableField {
            table: names[field].into(),
            field,
        });
        let fm = FusedFm::new(fields.collect(), Vec::new());
        let options = Options {
            isa: Isa::PORTABLE,
            fast: false,
        };
        let fused = Fused::new(vec![Box::new(fm)], Loss::Logistic, None, options).unwrap();
        let examples = Examples {
            rows: 1,
            one_hot_fields: &[0, 1],
            one_hot: &[0, 1],
            lists: Vec::new(),
            labels: &[1.0],
            weights: None,
        };
        fused.check(&tables, &RowData::new(examples))
    };
    assert!(check(Precision::Bf16).is_ok());
    let message = check(Precision::F32).unwrap_err().to_string();
    assert!(
        message.starts_with("table `b` keeps its weights in another precision"),
        "{message}"
    );
}
