//! The lists of checksums of a run: what it begins with, and what it ends with.

use std::path::Path;

use crossfield_data::{Error as Damage, Manifest};

use crate::Error;
use crate::checkpoint::{MODEL, STATE, write_whole};

const RUN_FILE: &str = "run.toml";
const SCHEMA: &str = "schema.json";
const METRICS: &str = "metrics.json";
/// What is beside the model in a finished run, where it was trained.
const WRITTEN_BY_EPOCH: [&str; 2] = ["metrics.jsonl", "timing.jsonl"];

/// Whether a run begins with a file of that name, which no step changes.
fn is_beginning(name: &str) -> bool {
    name == RUN_FILE || name == SCHEMA || name.starts_with("vocabularies/")
}

/// Writes `checksums.json` of a run that is about to be trained: of `run.toml`, `schema.json` and the
/// vocabularies.
///
/// # Errors
/// [`Error::Data`] if one of them cannot be read, or the list not written.
///
/// ```
/// use crossfield_data::FittedSchema;
/// use crossfield_train::{begin_run, check_begun};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let run = tempfile::tempdir()?;
/// std::fs::write(run.path().join("run.toml"), "[model]\nkind = 'fm'\n")?;
/// FittedSchema::libffm(3, 2)?.save(run.path())?;
/// // Interrupted before it was complete: there is nothing to compare.
/// assert!(!check_begun(run.path())?);
///
/// begin_run(run.path())?;
/// assert!(check_begun(run.path())?);
/// std::fs::write(run.path().join("run.toml"), "[model]\nkind = 'mf'\n")?;
/// assert!(check_begun(run.path()).is_err());
/// # Ok(())
/// # }
/// ```
pub fn begin_run(run: &Path) -> Result<(), Error> {
    Ok(beginning(run)?.save(run)?)
}

fn beginning(run: &Path) -> Result<Manifest, Error> {
    // What trains without a run file has none of them.
    let begins = [RUN_FILE, SCHEMA].into_iter();
    let begins = begins.filter(|name| run.join(name).exists());
    let mut names: Vec<String> = begins.map(str::to_owned).collect();
    let folder = run.join("vocabularies");
    if folder.exists() {
        for entry in folder.read_dir().map_err(Error::io(&folder, "list"))? {
            let entry = entry.map_err(Error::io(&folder, "list"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".csv") {
                names.push(format!("vocabularies/{name}"));
            }
        }
    }
    Ok(Manifest::of(run, names)?)
}

/// Compares what an interrupted run began with with its list. `false`: it was interrupted before there
/// was a list, hence before any checkpoint.
///
/// # Errors
/// [`Error::Data`] with the file that is damaged.
///
/// [`begin_run`] has an example.
pub fn check_begun(run: &Path) -> Result<bool, Error> {
    if !run.join(Manifest::FILE).exists() && !has_checkpoints(run) {
        return Ok(false);
    }
    let all = Manifest::read(run)?;
    if all.names().any(|name| name == METRICS) && !has_checkpoints(run) {
        // It was finished; its checkpoints go after metrics.json is there.
        all.verify_file(run, METRICS)?;
    }
    let list = all.without(|name| !is_beginning(name));
    verify(
        &list,
        run,
        "the settings of a run that has begun stay: train anew with another --out",
    )?;
    list.requires(run, &[RUN_FILE, SCHEMA])?;
    Ok(true)
}

fn has_checkpoints(run: &Path) -> bool {
    let entries = run.join("checkpoints").read_dir();
    entries.is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("step-") && !name.ends_with(".part")
            })
        })
    })
}

/// Compares the files of a finished run with its list.
///
/// # Errors
/// [`Error::Data`] with the file that is damaged, or the list if there is none.
///
/// The example of [`Training`](crate::Training) opens a finished run, which does this.
pub fn check_run(run: &Path) -> Result<(), Error> {
    let list = Manifest::read(run)?;
    verify(
        &list,
        run,
        "settings of a finished run are changed by --set, not in the file",
    )?;
    Ok(list.requires(run, &[RUN_FILE, SCHEMA, MODEL, STATE, METRICS])?)
}

/// Compares files with their list; of the run file says what to do instead of editing it.
fn verify(list: &Manifest, run: &Path, instead: &str) -> Result<(), Error> {
    for name in list.names() {
        list.verify_file(run, name).map_err(|error| match error {
            Damage::Damaged { file, problem } if name == RUN_FILE => Damage::Damaged {
                file,
                problem: format!("{problem} ({instead})"),
            },
            error => error,
        })?;
    }
    Ok(())
}

/// Finishes a run: writes the list of all its files, `model` being those of its model, and then
/// metrics.json, which marks a finished run.
pub(crate) fn finish(run: &Path, model: &Manifest, metrics: &str) -> Result<(), Error> {
    let mut list = beginning(run)?;
    list.extend(model);
    for name in WRITTEN_BY_EPOCH {
        if run.join(name).exists() {
            list.add(run, name)?;
        }
    }
    list.add_text(METRICS, metrics);
    list.save(run)?;
    write_whole(&run.join(METRICS), metrics)
}
