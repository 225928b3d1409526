//! What the examples claim: each trains, every part of it, to the same bits at any number of threads;
//! and a mix gathers what its parts share once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use crossfield::core::metrics::Report;
use crossfield::core::{
    Batch, ComponentConfig, Field, FieldKind, Jagged, MlpConfig, Schema, merge_tables,
};
use crossfield::embedding::{EmbeddingCollection, RowOptimizer, Snapshot, TablePlan};
use crossfield::fm::FmConfig;
use crossfield::train::Training;
use crossfield::wide_deep::{DeepConfig, WideConfig};

#[path = "../examples/rows/ad_log.rs"]
mod ad_log;
#[path = "../examples/attention_fm/model.rs"]
mod attention_fm;
#[path = "../examples/dcn/model.rs"]
mod dcn;
#[path = "../examples/deep_fm/model.rs"]
mod deep_fm;
#[path = "../examples/din_wide/model.rs"]
mod din_wide;
#[path = "../examples/ffm_deep/model.rs"]
mod ffm_deep;
#[path = "../examples/nfm/model.rs"]
mod nfm;
#[path = "../examples/rows/outcome.rs"]
mod outcome;
#[path = "../examples/two_tower/search.rs"]
mod search;
#[path = "../examples/rows/shop.rs"]
mod shop;
#[path = "../examples/two_tower/model.rs"]
mod two_tower;

/// All tensors of a model's file, by name.
fn weights(run: &Path) -> Vec<(String, Vec<f32>)> {
    let mut snapshot = Snapshot::open(&run.join("model.safetensors")).unwrap();
    let names = snapshot.names();
    let read = |name: String| {
        let (shape, mut all) = (snapshot.shape(&name).unwrap().to_vec(), Vec::new());
        snapshot
            .read(&name, &shape, |block| all.extend_from_slice(block))
            .unwrap();
        (name, all)
    };
    names.into_iter().map(read).collect()
}

/// Trains on one thread, on two, and at rates of next to nothing, which leave weights as they begin.
fn check<C>(mut training: Training, config: impl Fn() -> C, ahead: f64)
where
    C: ComponentConfig + Send + Sync + 'static,
{
    let folder = training.out.clone();
    training.train.threads = 1;
    let one = outcome::fit(&training, "one", config()).unwrap();
    training.train.threads = 2;
    outcome::fit(&training, "two", config()).unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "metrics.json"] {
        let [one, two] = ["one", "two"].map(|run| std::fs::read(folder.join(run).join(file)));
        assert!(one.unwrap() == two.unwrap(), "{file}");
    }

    training.train.epochs = Some(1);
    (training.optimizer.rows.lr, training.optimizer.dense.lr) = (1e-30, 1e-30);
    outcome::fit(&training, "start", config()).unwrap();
    let (start, end) = (weights(&folder.join("start")), weights(&folder.join("one")));
    assert_eq!(start.len(), end.len());
    for ((name, start), (_, end)) in start.iter().zip(&end) {
        assert_ne!(start, end, "{name} was not trained");
    }

    let (mix, constant) = (one.metrics.test.as_ref(), one.metrics.constant.as_ref());
    let logloss = |report: Option<&Report>| report.and_then(|report| report.logloss).unwrap();
    assert!(
        logloss(mix) < logloss(constant) - ahead,
        "{}",
        outcome::table(&[("constant", constant), ("mix", mix)])
    );
}

/// Checks a mix on the ad log.
fn check_on_ads<C>(config: impl Fn() -> C)
where
    C: ComponentConfig + Send + Sync + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    let mut training = ad_log::ad_log(20_000, folder.path()).unwrap();
    training.train.batch_size = Some(256);
    check(training, config, 0.02);
}

/// Checks one that reads histories.
fn check_in_shop<C>(config: impl Fn() -> C)
where
    C: ComponentConfig + Send + Sync + 'static,
{
    let folder = tempfile::tempdir().unwrap();
    check(shop::shop(10_000, folder.path()).unwrap(), config, 0.05);
}

fn small() -> MlpConfig {
    MlpConfig {
        hidden: vec![16],
        ..MlpConfig::default()
    }
}

#[test]
fn deep_fm_trains_all_its_parts() {
    check_on_ads(deep_fm::deep_fm);
}

#[test]
fn ffm_beside_a_perceptron_trains_all_its_parts() {
    check_on_ads(ffm_deep::ffm_deep);
}

#[test]
fn nfm_trains_all_its_parts() {
    check_on_ads(|| (WideConfig::default(), nfm::NfmConfig(small())));
}

#[test]
fn cross_layers_beside_a_perceptron_train_all_their_parts() {
    check_on_ads(|| (dcn::CrossNetConfig(2), DeepConfig::default()));
}

#[test]
fn din_beside_wide_crosses_trains_all_its_parts() {
    check_in_shop(din_wide::din_wide);
}

#[test]
fn attention_as_a_feature_of_an_fm_trains_all_its_parts() {
    let fields = ["history", "item", "kind", "season"].map(str::to_owned);
    check_in_shop(|| attention_fm::AttentionFmConfig(fields.to_vec()));
}

fn towers() -> two_tower::TwoTowerConfig {
    let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
    two_tower::TwoTowerConfig([names(["history", "season"]), names(["item", "kind"])])
}

#[test]
fn two_towers_train_all_their_parts() {
    check_in_shop(towers);
}

#[test]
fn two_towers_find_things_of_the_kind_that_a_person_buys() {
    let folder = tempfile::tempdir().unwrap();
    let training = shop::shop(10_000, folder.path()).unwrap();
    let mut towers = outcome::fit(&training, "towers", towers()).unwrap();
    let person = search::person(folder.path(), &["tea-0", "tea-3", "tea-4", "tea-1"]).unwrap();
    let (items, names) = search::catalogue(folder.path()).unwrap();
    let sides: [search::Side<two_tower::TwoTower>; 2] = [
        |towers, x| towers.tower(0, x),
        |towers, x| towers.tower(1, x),
    ];
    let best = search::best(&mut towers, sides, &person, &items, 6).unwrap();
    let best: Vec<&str> = best.iter().map(|&row| &*names[row as usize]).collect();
    // One kind of ten.
    let liked = best.iter().filter(|name| name.starts_with("tea"));
    assert!(liked.count() >= 5, "{best:?}");
}

/// Rows of tables that a batch of three rows gathers for a component.
fn gathered(config: &impl ComponentConfig) -> usize {
    let field = |name: &str| Field {
        name: name.into(),
        kind: FieldKind::Categorical,
        vocabulary: name.into(),
        rows: 10,
        oov_row: None,
    };
    let schema = Schema {
        fields: vec![field("user"), field("item")],
        dense: vec![],
    };
    let plan = |table| TablePlan::new(table, RowOptimizer::default());
    let tables = merge_tables(config.tables(&schema).unwrap()).unwrap();
    let plans: Vec<TablePlan> = tables.into_iter().map(plan).collect();
    let mut tables = EmbeddingCollection::new(&plans, 1).unwrap();
    // Two users, three items.
    let batch = Batch {
        batch_size: 3,
        sparse: vec![
            Jagged::one_hot(vec![4, 4, 9]),
            Jagged::one_hot(vec![1, 2, 3]),
        ],
        ..Batch::default()
    };
    let (_, staged) = tables.stage(Arc::new(batch), &Device::flex());
    staged.gathered()
}

#[test]
fn what_two_or_three_components_share_is_gathered_once() {
    // Vectors and linear weights of five rows.
    assert_eq!(gathered(&FmConfig::default()), 10);
    assert_eq!(gathered(&DeepConfig::default()), 5);
    assert_eq!(gathered(&deep_fm::deep_fm()), 10);
    let three = (deep_fm::deep_fm(), nfm::NfmConfig(small()));
    assert_eq!(gathered(&three), 10);
}

#[test]
fn what_one_component_has_alone_is_gathered_beside_what_is_shared() {
    let of_users = FmConfig {
        fields: vec!["user".into()],
        ..FmConfig::default()
    };
    assert_eq!(gathered(&of_users), 4);
    // The vectors of three items.
    assert_eq!(gathered(&(of_users, DeepConfig::default())), 4 + 3);
    // An FFM has vectors of its own, and so has a perceptron of another dim.
    let wider = DeepConfig {
        embedding_dim: 4,
        ..DeepConfig::default()
    };
    assert_eq!(gathered(&(FmConfig::default(), wider)), 10 + 5);
}

#[test]
fn each_model_is_thirty_lines_of_code_at_most() {
    for (name, text) in [
        (
            "attention_fm",
            include_str!("../examples/attention_fm/model.rs"),
        ),
        ("dcn", include_str!("../examples/dcn/model.rs")),
        ("deep_fm", include_str!("../examples/deep_fm/model.rs")),
        ("din_wide", include_str!("../examples/din_wide/model.rs")),
        ("ffm_deep", include_str!("../examples/ffm_deep/model.rs")),
        ("nfm", include_str!("../examples/nfm/model.rs")),
        ("two_tower", include_str!("../examples/two_tower/model.rs")),
    ] {
        let mut is_import = false;
        let counts = |line: &&str| {
            is_import |= line.starts_with("use ");
            let counts = !is_import
                && !line.trim().is_empty()
                && !["//", "#["].iter().any(|it| line.trim().starts_with(it));
            is_import &= !line.ends_with(';');
            counts
        };
        let lines = text.lines().filter(counts).count();
        assert!((5..=30).contains(&lines), "{name} has {lines}");
    }
}
