#![doc = include_str!("../README.md")]

mod checkpoint;
mod config;
mod dense;
mod error;
mod memory;
mod run_file;
mod trainer;

pub use checkpoint::{Evaluation, State};
pub use config::{
    DenseOptimizer, DenseOptimizerKind, DeviceConfig, EarlyStop, Executor, OptimizerConfig,
    RateSchedule, Schedule, ScheduleKind, TableOptions, TrainConfig,
};
pub use error::Error;
pub use memory::{bytes, check_memory, describe_tables, peak_memory, table_bytes};
pub use run_file::{RunFile, explain, nearest};
pub use trainer::{FinalMetrics, Observer, Parts, Setup, Timing, Trained, in_pool, train};
