#![doc = include_str!("../README.md")]

mod corruptions;
mod crossfield;
mod files;
mod kills;
mod limits;
mod scenario;

use std::path::{Path, PathBuf};

pub use corruptions::{Corruptions, corrupt};
pub use crossfield::{Crossfield, Outcome};
pub use kills::{Kills, kill};
pub use limits::{Limits, starve};
pub use scenario::{ALL, Readers, Scenario};

/// Why the harness itself could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the harness.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no `crossfield` to run.
    #[error(
        "{path} is not there: build it with cargo build --workspace --bin crossfield --example demo",
        path = path.display()
    )]
    NoProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A command that nothing disturbs has failed.
    #[error("{scenario}: `crossfield {args}` failed undisturbed: {message}")]
    Undisturbed {
        /// Name of the scenario.
        scenario: &'static str,
        /// What was run.
        args: String,
        /// What it said.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<'_> {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}
