//! `export`: what a finished run has learned, for other programs.

use std::path::PathBuf;

use crossfield_embedding::{VectorFormat, write_vectors};
use crossfield_train::Error;

use crate::libffm;
use crate::run::{Anyhow, Finished};
use crate::vectors::KeyedVectors;

/// `crossfield export`.
#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    /// A finished run.
    run: PathBuf,
    /// What is written.
    #[arg(long)]
    format: Format,
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Of format `libffm`: writes what libffm reads since version 1.20, instead of the text that it
    /// read until 1.14.
    #[arg(long)]
    binary: bool,
    /// Of vectors: the vocabulary whose keys are written, as `item`.
    #[arg(long, value_name = "NAME")]
    vocabulary: Option<String>,
    /// Of vectors: their table [default: the only table of factors of the vocabulary].
    #[arg(long)]
    table: Option<String>,
}

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A model of libffm.
    Libffm,
    /// Vectors as a NumPy array, their keys in FILE.keys.txt.
    Npy,
    /// Vectors in the text format of word2vec, blanks in keys as `_`.
    Word2vec,
    /// Vectors as the tensor `vectors`, their keys in FILE.keys.txt.
    Safetensors,
}

pub(crate) fn export(args: &ExportArgs) -> Anyhow<()> {
    let format = match args.format {
        Format::Libffm => None,
        Format::Npy => Some(VectorFormat::Npy),
        Format::Word2vec => Some(VectorFormat::Word2vec),
        Format::Safetensors => Some(VectorFormat::Safetensors),
    };
    let refuse = |option: &str, reason: &str| {
        let (option, reason) = (option.to_owned(), reason.to_owned());
        Err(Error::Option { option, reason }.into())
    };
    let finished = Finished::open(&args.run, &[])?;
    match (format, &args.vocabulary) {
        (None, None) if args.table.is_none() => libffm::export(&finished, &args.out, args.binary),
        (None, _) => refuse(
            "--format libffm",
            "writes a whole model: expected neither --vocabulary nor --table",
        ),
        (Some(_), _) if args.binary => {
            refuse("--binary", "is an option of --format libffm: leave it out")
        }
        (Some(_), None) => refuse(
            "--vocabulary",
            "expected the one whose vectors are written, as in --vocabulary item",
        ),
        (Some(format), Some(vocabulary)) => {
            let keyed = KeyedVectors::read(&finished, vocabulary, args.table.as_deref(), None)?;
            let keys: Vec<(u32, String)> = keyed.keys().collect();
            write_vectors(&args.out, format, &keyed.vectors, &keys)?;
            eprintln!(
                "{} vectors of {} from {} in {}",
                keys.len(),
                keyed.table.dim,
                keyed.table.name,
                args.out.display()
            );
            Ok(())
        }
    }
}
