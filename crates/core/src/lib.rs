#![doc = include_str!("../README.md")]

mod activation;
mod batch;
mod component;
mod dense_layer;
mod dropout;
mod error;
mod examples;
mod factors;
mod field_inputs;
mod gather;
mod lookup;
mod loss;
mod matrix;
pub mod metrics;
mod mlp;
mod normalization;
mod prediction;
mod ragged;
mod ranking;
pub mod rng;
mod schema;
mod segment_operations;
mod table;
mod units;

pub use activation::{Activation, ActivationLayer};
pub use batch::{Batch, Jagged, Targets};
pub use component::{
    AttentionWeights, Component, ComponentConfig, Contribution, Feature, Init, Model, RankedItems,
    Ranker, Scored, Sum, What,
};
pub use dense_layer::{dense_layer, dense_layer_relu};
pub use dropout::Dropout;
pub use error::{Error, check_option};
pub use examples::{Examples, FeatureLists};
pub use factors::{Factors, linear_tables};
pub use field_inputs::FieldInputs;
pub use gather::{gather, is_flex_f32};
pub use lookup::{Leaf, LookedUp, Lookup, StagedTable, TrainingStep};
pub use loss::{Link, Loss};
pub use matrix::{Matrix, product, product_into};
pub use mlp::{Mlp, MlpConfig};
pub use normalization::Normalization;
pub use prediction::{PredictionLink, PredictionMean};
pub use ragged::{Ragged, Segments};
pub use ranking::{ListFigures, RankingMetrics, RankingReport};
pub use schema::{Field, FieldId, FieldKind, Schema};
pub use table::{
    Initializer, TableConfig, TableField, factor_table, factors_for, features_in, merge_tables,
    tables_for,
};
