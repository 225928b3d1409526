//! `import`, and `export` of whole models: those of other programs, as yet of libffm.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use crossfield_core::ComponentConfig;
use crossfield_data::{FittedSchema, Format};
use crossfield_embedding::{EmbeddingCollection, Snapshot, SnapshotTensor, tensor_name};
use crossfield_ffm::libffm::{self, Header, Reader};
use crossfield_train::{Error, Objective, State, check_memory, save_imported};

use crate::run::{Anyhow, Finished, Run, refuse_taken};

/// Programs whose models can be read.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Program {
    /// libffm.
    Libffm,
}

/// `crossfield import`.
#[derive(clap::Args, Debug)]
pub(crate) struct ImportArgs {
    /// The program that wrote the model.
    program: Program,
    /// Its file, text or binary.
    model: PathBuf,
    /// The run directory to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn import(args: &ImportArgs) -> Anyhow<()> {
    let Program::Libffm = args.program;
    let (model, out) = (&args.model, &args.out);
    refuse_taken(out)?;
    let file = File::open(model).map_err(Error::io(model, "open"))?;
    let input = BufReader::with_capacity(1 << 18, file);
    let reader = libffm::read(&model.display().to_string(), input)?;
    let header = reader.header();
    let was_there = out.exists();
    fs::create_dir_all(out).map_err(Error::io(out, "create"))?;
    if let Err(error) = make_run(reader, out) {
        // It was empty: what is there now is of no use.
        let _ = fs::remove_dir_all(out);
        if was_there {
            let _ = fs::create_dir(out);
        }
        return Err(error);
    }
    eprintln!(
        "{} features × {} fields × {} in {}",
        header.features,
        header.fields,
        header.embedding_dim,
        out.display()
    );
    Ok(())
}

/// Fills a run directory. metrics.json, which marks a finished run, comes last.
fn make_run(reader: Reader<BufReader<File>>, out: &Path) -> Anyhow<()> {
    let header = reader.header();
    let text = format!(
        "[data]\nformat = 'libffm'\nunseen = 'own'\n\
         [model]\nkind = 'ffm'\nbias = false\n\
         [model.ffm]\nembedding_dim = {}\nlinear = false\nnormalize = {}\n\
         [train]\nexecutor = 'fused'\n",
        header.embedding_dim, header.normalize,
    );
    let mut run = Run::parse(&text, "libffm", &[])?;
    run.complete_data();
    run.train.complete();
    let fitted = FittedSchema::libffm(header.features, header.fields)?;
    fitted.save(out)?;
    run.save(&out.join("run.toml"))?;
    let tables = run.model.tables(fitted.schema())?;
    let [table] = tables.as_slice() else {
        unreachable!("one vocabulary and no linear terms");
    };
    let (reader, failure) = (RefCell::new(reader), RefCell::new(None));
    let values = |write: &mut dyn FnMut(&[f32]) -> Result<(), crossfield_embedding::Error>| {
        let mut reader = reader.borrow_mut();
        loop {
            match reader.next_vector() {
                Ok(Some(vector)) => write(vector.weights)?,
                Ok(None) => break,
                Err(error) => {
                    let source = io::Error::other(error.to_string());
                    failure.replace(Some(error));
                    return Err(crossfield_embedding::Error::Io {
                        path: out.to_owned(),
                        action: "fill",
                        source,
                    });
                }
            }
        }
        // Indices beyond the model add nothing.
        write(&vec![0.0; table.dim])
    };
    let tensor = SnapshotTensor {
        shape: vec![table.rows, table.dim],
        values: Box::new(values),
    };
    let tensors = BTreeMap::from([(tensor_name(&table.name), tensor)]);
    let saved = save_imported(out, fitted.fingerprint(), tensors);
    match failure.take() {
        Some(error) => Err(error.into()),
        None => Ok(saved?),
    }
}

/// Writes the model of a finished run as libffm's own.
pub(crate) fn export(finished: &Finished, out: &Path, binary: bool) -> Anyhow<()> {
    let (header, blocks) = as_libffm(finished)?;
    let state = State::read(&finished.directory, finished.fitted.fingerprint())?;
    if state.negative_rate != 1.0 {
        eprintln!(
            "this model was trained on {} of the negatives: libffm will not correct its predictions",
            state.negative_rate
        );
    }
    let plans = finished.plans()?;
    check_memory(&plans)?;
    let mut tables = EmbeddingCollection::new(&plans, 0)?;
    tables.load_weights(&mut Snapshot::open(
        &finished.directory.join("model.safetensors"),
    )?)?;
    let [table] = finished.tables.as_slice() else {
        unreachable!("one vocabulary and no linear terms");
    };
    let (mut row, mut row_index) = (vec![0f32; table.dim], None);
    let fields = finished.fitted.schema().fields.first();
    let vocabulary = fields.map_or("", |field| field.vocabulary.as_str());
    let dim = header.embedding_dim as usize;
    let format = if binary {
        libffm::Format::Binary
    } else {
        libffm::Format::Text
    };

    let mut part = out.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::create(&part).map_err(Error::io(&part, "create"))?;
    let output = BufWriter::with_capacity(1 << 18, file);
    let written = libffm::write(output, header, format, |index, field, weights| {
        // What shares the row of zeros here has zeros there.
        if let Some(&Some(block)) = blocks.get(field as usize)
            && finished.fitted.has_own_row(vocabulary, index)
        {
            // One row holds the vectors towards all fields, which are asked for one after the other.
            if row_index != Some(index) {
                tables.read_weights(&table.name, index, &mut row);
                row_index = Some(index);
            }
            weights.copy_from_slice(&row[block * dim..][..dim]);
        }
    });
    let renamed = written.map_err(Box::from).and_then(|()| {
        fs::rename(&part, out).map_err(|error| Error::io(out, "rename into place")(error).into())
    });
    if renamed.is_err() {
        let _ = fs::remove_file(&part);
    }
    renamed
}

/// The size of the model in libffm's terms, and for each of libffm's fields the block of a row that
/// holds the vectors towards it.
///
/// # Errors
/// [`Error::Option`] for the first thing that libffm's models do not have.
fn as_libffm(finished: &Finished) -> Result<(Header, Vec<Option<usize>>), Error> {
    let run = &finished.run;
    let refuse = |option: &str, reason: &str| {
        Err(Error::Option {
            option: option.to_owned(),
            reason: reason.to_owned(),
        })
    };
    if run.data.format != Format::Libffm {
        return refuse(
            "data.format",
            "libffm knows features by the numbers in its files; a run whose data is in format = \
             \"libffm\" can be exported",
        );
    }
    if !run.field.is_empty() {
        return refuse(
            "field",
            "libffm reads all fields of its files, with one range of indices; train without \
             [[field]] to export",
        );
    }
    if !run.cross.is_empty() {
        let reason = "libffm has no crosses of fields; train without [[cross]] to export";
        return refuse("cross", reason);
    }
    let Some(ffm) = run.model.only_ffm() else {
        let reason = format!(
            "is {}: libffm has one field-aware factorization machine and nothing beside it; train \
             with kind = \"ffm\" to export",
            run.model.names().join(" + ")
        );
        return refuse("model", &reason);
    };
    let key = |key: &str| format!("model.{}.{key}", ffm.name);
    if run.model.bias {
        let reason = "libffm has no bias; train with model.bias = false to export";
        return refuse("model.bias", reason);
    }
    if ffm.linear {
        let reason = "libffm has no linear terms; train with linear = false to export";
        return refuse(&key("linear"), reason);
    }
    if !ffm.same_field {
        let reason = "in libffm two features of one field are a pair; train with same_field = true \
                      to export";
        return refuse(&key("same_field"), reason);
    }
    if !ffm.fields.is_empty() {
        let reason = "libffm reads all fields; train without fields = […] to export";
        return refuse(&key("fields"), reason);
    }
    if run.train.loss != Objective::Logistic {
        let reason = "libffm predicts by the logistic function; train with loss = \"logistic\" to \
                      export";
        return refuse("train.loss", reason);
    }
    let fields = &finished.fitted.schema().fields;
    let mut blocks: Vec<Option<usize>> = Vec::new();
    for (block, field) in fields.iter().enumerate() {
        let number: usize = field.name.parse().map_err(|_| Error::Option {
            option: "field".to_owned(),
            reason: format!("`{}` is no field number of a libffm file", field.name),
        })?;
        blocks.resize(blocks.len().max(number + 1), None);
        blocks[number] = Some(block);
    }
    // The last row is for what no training row has.
    let rows = fields.first().map_or(0, |field| field.rows);
    let header = Header {
        features: rows.saturating_sub(1),
        fields: blocks.len() as u32,
        embedding_dim: ffm.embedding_dim as u32,
        normalize: ffm.normalize,
    };
    Ok((header, blocks))
}
