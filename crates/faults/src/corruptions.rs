//! Files that are damaged, one at a time.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::files::{self, Files};
use crate::scenario::{Readers, Stage};
use crate::{Crossfield, Error, Scenario};

/// How long a run may take to its second checkpoint.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of damaging files.
#[derive(Clone, Debug, Default)]
pub struct Corruptions {
    /// Files that were damaged.
    pub corruptions: usize,
    /// Of these, refused by name.
    pub refused: usize,
    /// Of these, built anew to the same bytes.
    pub built_anew: usize,
    /// Of these, led back from, to the end of a run that nothing had happened to.
    pub led_back: usize,
    /// Those that were read as if nothing had happened.
    pub silent: Vec<String>,
    /// Those that a reader had no error for.
    pub panics: Vec<String>,
    /// Errors that do not name the file, and caches that were built otherwise.
    pub unclear: Vec<String>,
}

impl Corruptions {
    /// All that should not have been.
    pub fn failures(&self) -> impl Iterator<Item = &String> {
        self.silent.iter().chain(&self.panics).chain(&self.unclear)
    }
}

impl fmt::Display for Corruptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files damaged: {} refused by name, {} built anew, {} led back from; {} loaded \
             silently, {} panics, {} unclear errors",
            self.corruptions,
            self.refused,
            self.built_anew,
            self.led_back,
            self.silent.len(),
            self.panics.len(),
            self.unclear.len()
        )
    }
}

/// Files of a folder, and the command that must notice what happens to one of them.
struct Subject {
    place: PathBuf,
    whole: Files,
    names: Vec<String>,
    reader: String,
    is_cache: bool,
    /// Rows that are led back may be those that were damaged.
    is_mapped: bool,
}

/// Damages `count` files of a scenario, each put back before the next.
///
/// # Errors
/// What keeps the harness from going on; what readers do wrong is counted.
pub fn corrupt(
    scenario: &'static Scenario,
    crossfield: &Crossfield,
    count: usize,
    seed: u64,
) -> Result<Corruptions, Error> {
    let stage = Stage::new(scenario, crossfield)?;
    let mut subjects = Vec::new();
    for (number, readers) in scenario.readers.iter().enumerate() {
        subjects.extend(Subject::of(&stage, *readers, number)?);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut done = Corruptions::default();
    let files: usize = subjects.iter().map(|subject| subject.names.len()).sum();
    while files > 0 && done.corruptions < count {
        let mut at = rng.random_range(0..files);
        let mut each = subjects.iter();
        let subject = loop {
            match each.next() {
                Some(subject) if at < subject.names.len() => break subject,
                Some(subject) => at -= subject.names.len(),
                None => unreachable!("`at` is below the sum of their lengths"),
            }
        };
        subject.damage(at, &stage, &mut rng, &mut done)?;
    }
    Ok(done)
}

impl Subject {
    fn of(stage: &Stage, readers: Readers, number: usize) -> Result<Vec<Self>, Error> {
        let place = stage.place(&format!("damaged-{number}"))?;
        let subject = |place: PathBuf, whole: Files, is: &dyn Fn(&str) -> bool, reader: String| {
            let names = whole.keys().filter(|name| !name.ends_with('/') && is(name));
            Self {
                names: names.cloned().collect(),
                place,
                reader,
                is_cache: matches!(readers, Readers::Cache { .. }),
                is_mapped: matches!(readers, Readers::Mapped),
                whole: whole.clone(),
            }
        };
        let whole = match readers {
            Readers::Interrupted | Readers::Mapped => interrupted(stage, &place)?,
            Readers::Finished { .. } | Readers::Cache { .. } => stage.undisturbed.clone(),
        };
        files::write(&place, &whole)?;
        Ok(match readers {
            Readers::Finished { names, reader } => {
                let is = |name: &str| names.iter().any(|begin| name.starts_with(begin));
                vec![subject(place, whole, &is, reader.to_owned())]
            }
            Readers::Cache { name, reader } => {
                vec![subject(
                    place,
                    whole,
                    &|file| file == name,
                    reader.to_owned(),
                )]
            }
            Readers::Mapped => {
                let is = |name: &str| name.starts_with("run/tables/");
                vec![subject(place, whole, &is, "train --resume run".into())]
            }
            Readers::Interrupted => {
                let mut steps: Vec<&str> = (whole.keys())
                    .filter_map(|name| name.strip_prefix("run/checkpoints/")?.strip_suffix('/'))
                    .collect();
                steps.sort_unstable();
                let [.., before, newest] = steps.as_slice() else {
                    unreachable!("it was interrupted when there were two");
                };
                let of = |step: &str| format!("run/checkpoints/{step}/");
                let (before_files, newest_files) = (of(before), of(newest));
                // Which lie beside each other in the run directory, and are read by each resume.
                let is_beginning = |name: &str| {
                    let beginnings = ["run/run.toml", "run/schema.json", "run/checksums.json"];
                    beginnings.contains(&name) || name.starts_with("run/vocabularies/")
                };
                let newest = |name: &str| name.starts_with(&newest_files) || is_beginning(name);
                let older = |name: &str| name.starts_with(&before_files);
                let number = before.trim_start_matches("step-").trim_start_matches('0');
                let reader = format!("train --resume run --step {number}");
                let other = stage.place("damaged-older")?;
                files::write(&other, &whole)?;
                vec![
                    subject(place, whole.clone(), &newest, "train --resume run".into()),
                    subject(other, whole.clone(), &older, reader),
                ]
            }
        })
    }

    /// Damages a file, looks what its reader does, and puts it back.
    fn damage(
        &self,
        at: usize,
        stage: &Stage,
        rng: &mut ChaCha8Rng,
        done: &mut Corruptions,
    ) -> Result<(), Error> {
        let name = &self.names[at];
        let path = self.place.join(name);
        let mut bytes = self.whole[name].clone();
        let what = if bytes.is_empty() {
            bytes.push(0);
            format!("{name}, a byte added")
        } else if rng.random_range(0..4) == 0 {
            bytes.truncate(rng.random_range(0..bytes.len()));
            format!("{name}, cut to {} bytes", bytes.len())
        } else {
            let (at, bit) = (rng.random_range(0..bytes.len()), rng.random_range(0..8));
            bytes[at] ^= 1 << bit;
            format!("{name}, bit {bit} of byte {at}")
        };
        let what = format!("{}: {what}: {}", stage.scenario.name, self.reader);
        // A new file: another name of the old one may be elsewhere.
        fs::remove_file(&path)
            .and_then(|()| fs::write(&path, &bytes))
            .map_err(Error::io(&path))?;
        let outcome = stage.crossfield.run(&self.place, &self.reader)?;
        done.corruptions += 1;
        let says = |text: &str| format!("{what}: {}", text.trim_end());
        if outcome.panicked() {
            done.panics.push(says(&outcome.text));
        } else if self.is_cache {
            let now = fs::read(&path).map_err(Error::io(&path))?;
            if !outcome.succeeded() || now != self.whole[name] {
                let list = match outcome.text.contains("built anew") {
                    false if outcome.succeeded() => &mut done.silent,
                    _ => &mut done.unclear,
                };
                list.push(says(&outcome.text));
            } else {
                done.built_anew += 1;
            }
        } else if outcome.succeeded() && self.is_mapped {
            match files::difference(&files::read(&self.place)?, &stage.undisturbed) {
                None => done.led_back += 1,
                Some(wrong) => done.silent.push(says(&wrong)),
            }
        } else if outcome.succeeded() {
            done.silent.push(says(&outcome.text));
        } else if outcome.refused() && outcome.text.contains(name.as_str()) {
            done.refused += 1;
        } else {
            done.unclear.push(says(&outcome.text));
        }
        if outcome.refused() {
            fs::remove_file(&path)
                .and_then(|()| fs::write(&path, &self.whole[name]))
                .map_err(Error::io(&path))
        } else {
            files::write(&self.place, &self.whole)
        }
    }
}

/// The files of a run that was killed when it had two checkpoints.
fn interrupted(stage: &Stage, place: &Path) -> Result<Files, Error> {
    let checkpoints = place.join("run/checkpoints");
    let complete = || {
        let entries = fs::read_dir(&checkpoints).into_iter().flatten().flatten();
        entries
            .filter(|entry| !entry.file_name().to_string_lossy().ends_with(".part"))
            .count()
    };
    let begin = Instant::now();
    loop {
        files::write(place, &Files::new())?;
        let mut child = stage
            .crossfield
            .start(place, stage.scenario.start, &stage.log())?;
        while complete() < 2 && child.try_wait().map_err(Error::io(place))?.is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        // One that has ended is tried again: it was too fast.
        let _ = child.kill();
        child.wait().map_err(Error::io(place))?;
        if complete() >= 2 && !place.join("run/metrics.json").exists() {
            let mut whole = files::read(place)?;
            // What is being written belongs to nobody.
            whole.retain(|name, _| !name.contains(".part"));
            return Ok(whole);
        }
        if begin.elapsed() > PATIENCE {
            return Err(Error::Undisturbed {
                scenario: stage.scenario.name,
                args: stage.scenario.start.to_owned(),
                message: "it never had two checkpoints that were seen in time".into(),
            });
        }
    }
}
