#![doc = include_str!("../README.md")]

mod bars;
mod bootstrap;
mod calibration;
mod error;
mod heat_map;
mod page;
mod plot;

pub use bars::{Bar, Bars};
pub use bootstrap::{Best, Comparison, Difference, Estimate, Figure, Rows, mean_of, paired};
pub use calibration::{Bin, reliability, residuals, roc};
pub use error::Error;
pub use heat_map::HeatMap;
pub use page::{Page, Part, Picture, Section, Table, is_report};
pub use plot::{Axis, Marks, Plot, Series};
