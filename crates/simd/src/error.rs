use thiserror::Error;

/// What can go wrong with the choice of an instruction set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The environment asks for an instruction set that is not there.
    #[error("CROSSFIELD_ISA is `{asked}`: this machine has {available}")]
    Isa {
        /// What was asked for.
        asked: String,
        /// What there is.
        available: String,
    },
}
