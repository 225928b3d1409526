#![doc = include_str!("../README.md")]

mod admission;
mod average;
mod burn_executor;
mod checkpoint;
mod config;
mod dense;
mod error;
mod executor;
mod fused_executor;
mod memory;
mod ranking;
mod run_file;
mod solver_executor;
mod trainer;
mod training;
mod tune;

pub use admission::{Admissions, describe_admitted};
pub use average::average_weights;
pub use burn_executor::Trained;
pub use checkpoint::{Evaluation, Posterior, State, save_imported, write_whole};
pub use config::{
    DenseOptimizer, DenseOptimizerKind, DeviceConfig, EarlyStop, Executor, Negatives, Objective,
    OptimizerConfig, RateSchedule, Schedule, ScheduleKind, SolverOptions, TableOptions,
    TrainConfig, vocabulary,
};
pub use error::Error;
pub use executor::{Output, Scorer};
pub use fused_executor::{FusedModel, FusedTrained};
pub use memory::{
    bytes, check_draws, check_memory, check_memory_of, cpu_seconds, describe_tables, mapped_bytes,
    peak_memory, table_bytes,
};
pub use ranking::{PLACES, RankedRows, item_counts};
pub use run_file::{RunFile, explain, nearest, read_toml, run_table};
pub use solver_executor::{Solver, SolverFailure, SolverModel, SolverTrained};
pub use trainer::{
    CheckBlock, Continued, Fill, FinalMetrics, Observer, Parts, Setup, Timing, best_evaluation,
    in_pool, train, train_fused, train_solver,
};
pub use training::{Finished, Training, check_schema};
pub use tune::{Between, Range, TuneConfig, TuneScale, rungs, survivors};
