//! The runs that are disturbed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::{self, Files};
use crate::{Crossfield, Error};

/// A small run, and how it is started, continued and read. Commands run in a folder of their own, beside
/// which lie the files that all of them share.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Name.
    pub name: &'static str,
    /// Files that are shared: name and content.
    pub files: &'static [(&'static str, &'static str)],
    /// Commands that make other shared files, in the folder `before`.
    pub before: &'static [&'static str],
    /// Makes `run`, and whatever else is to be the same at the end.
    pub start: &'static str,
    /// Goes on with it once the file is there; none: it is started anew.
    pub goes_on: Option<(&'static str, &'static str)>,
    /// Who reads the files.
    pub readers: &'static [Readers],
}

/// Which files a command reads that are damaged one by one.
#[derive(Clone, Copy, Debug)]
pub enum Readers {
    /// Files of a run that is complete, whose names begin so, and a command that must refuse them.
    Finished {
        /// Beginnings of names.
        names: &'static [&'static str],
        /// What reads them.
        reader: &'static str,
    },
    /// The newest checkpoint of an interrupted run, and what the run began with: refused by whoever
    /// goes on. The checkpoint before: refused by whoever goes back to it.
    Interrupted,
    /// The files of mapped tables of an interrupted run: refused by whoever goes on, or of no matter,
    /// for rows are led back to what they were at the checkpoint.
    Mapped,
    /// A cache, built anew by a command that says so.
    Cache {
        /// The file.
        name: &'static str,
        /// What reads it.
        reader: &'static str,
    },
}

/// The log that most scenarios read.
const LOG: &str = "data synth --out ../log.csv --rows 2500 --seed 5";

/// What the run files share. Tables of 4,000 rows for some 500 values, so that saves take a while.
macro_rules! run_file {
    ($data:literal, $rest:literal) => {
        concat!(
            "[data]\ntrain = '../log.csv'\n",
            $data,
            "\n[label]\ncolumn = 'click'\n\
             [[field]]\nname = 'user'\nkind = 'hashed'\nhash_rows = 4000\n\
             [[field]]\nname = 'ad'\nkind = 'hashed'\nhash_rows = 4000\n\
             [[field]]\nname = 'campaign'\n",
            $rest
        )
    };
}

const GOES_ON: Option<(&str, &str)> = Some(("run/run.toml", "train --resume run"));

const PREDICTED: Readers = Readers::Finished {
    names: &["run/"],
    reader: "predict run --data ../log.csv",
};

/// A run whose tables lie in files, trained by an executor.
macro_rules! mapped {
    ($model:literal) => {
        concat!(
            "[data]\ntrain = '../log.csv'\nsplit = { kind = 'random', valid = 0.1 }\n\
             [label]\ncolumn = 'click'\n\
             [[field]]\nname = 'user'\nkind = 'hashed'\nhash_rows = 4000\n\
             [[field]]\nname = 'ad'\nkind = 'hashed'\nhash_rows = 4000\n",
            $model,
            "early_stop = { patience = 2 }\n\
             [[optimizer.table]]\nmatch = 'v8.*'\nstorage = 'mapped'\n"
        )
    };
}

/// What scenarios of one training run share.
const TRAINED: Scenario = Scenario {
    name: "",
    files: &[],
    before: &[LOG],
    start: "train ../a.toml --out run",
    goes_on: GOES_ON,
    readers: &[PREDICTED, Readers::Interrupted],
};

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "fused",
        files: &[(
            "a.toml",
            run_file!(
                "split = { kind = 'random', valid = 0.1 }",
                "[model]\nsum = ['wide', 'fm']\n\
                 [optimizer]\nrows = { kind = 'adagrad', lr = 0.05 }\n\
                 schedule = { kind = 'linear', end = 0.1 }\n\
                 [train]\nexecutor = 'fused'\nepochs = 4\ncheckpoint_every = 400\n\
                 early_stop = { patience = 2 }\n"
            ),
        )],
        ..TRAINED
    },
    Scenario {
        name: "burn",
        files: &[(
            "a.toml",
            run_file!(
                "split = { kind = 'random', valid = 0.1 }",
                "[model]\nsum = ['wide', 'fm', 'deep']\n\
                 [model.deep]\nhidden = [16]\ndropout = 0.2\nnorm = 'batch'\n\
                 [optimizer]\nrows = { kind = 'adam', lr = 0.01 }\n\
                 [[optimizer.table]]\nmatch = 'wide.*'\nkind = 'ftrl'\nlr = 0.1\n\
                 [train]\nepochs = 3\nbatch_size = 256\ncheckpoint_every = 3\n\
                 early_stop = { patience = 2 }\n"
            ),
        )],
        ..TRAINED
    },
    Scenario {
        name: "cache",
        files: &[(
            "a.toml",
            run_file!(
                "split = { kind = 'random', valid = 0.1 }\ncache = 'cache'",
                "[model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 1\n"
            ),
        )],
        before: &["data synth --out ../log.csv --rows 20000 --seed 5"],
        readers: &[Readers::Cache {
            name: "cache/rows.cache",
            reader: "data stats ../a.toml",
        }],
        ..TRAINED
    },
    Scenario {
        name: "stream",
        files: &[(
            "a.toml",
            run_file!(
                "stream = true\nblock_rows = 700",
                "[model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 3\n\
                 checkpoint_every = 500\n"
            ),
        )],
        ..TRAINED
    },
    Scenario {
        name: "mapped",
        files: &[(
            "a.toml",
            mapped!(
                "[model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 4\n\
                 checkpoint_every = 400\n"
            ),
        )],
        readers: &[PREDICTED, Readers::Interrupted, Readers::Mapped],
        ..TRAINED
    },
    Scenario {
        name: "mapped-burn",
        files: &[(
            "a.toml",
            mapped!(
                "[model]\nsum = ['wide', 'fm']\n[train]\nepochs = 3\nbatch_size = 256\n\
                 checkpoint_every = 3\nmemory = '300MB'\n"
            ),
        )],
        readers: &[PREDICTED, Readers::Interrupted, Readers::Mapped],
        ..TRAINED
    },
    Scenario {
        name: "admitted",
        files: &[(
            "a.toml",
            "[data]\ntrain = '../log.csv'\nstream = true\nblock_rows = 700\n\
             [label]\ncolumn = 'click'\n\
             [[field]]\nname = 'user'\nkind = 'hashed'\n\
             admit = { min_count = 2, max_rows = 150, evict_after = 900, sketch = '1MB' }\n\
             [[field]]\nname = 'ad'\nkind = 'hashed'\nadmit = { sketch = '1MB' }\n\
             [model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 3\n\
             checkpoint_every = 500\n",
        )],
        ..TRAINED
    },
    Scenario {
        name: "second-day",
        files: &[(
            "a.toml",
            run_file!(
                "",
                "[model]\nsum = ['wide', 'fm']\n\
                 [train]\nexecutor = 'fused'\nepochs = 2\ncheckpoint_every = 400\n"
            ),
        )],
        before: &[
            LOG,
            "data synth --out ../tuesday.csv --rows 2500 --seed 6",
            "train ../a.toml --out monday",
        ],
        start: "train --continue ../before/monday --data ../tuesday.csv --evaluate-first --out run",
        goes_on: GOES_ON,
        readers: &[PREDICTED, Readers::Interrupted],
    },
    Scenario {
        name: "prepare",
        files: &[(
            "a.toml",
            "[data]\ntrain = '../log.csv'\ncache = 'cache'\nstream = true\nmemory = '1MB'\n\
             block_rows = 2000\n\
             [label]\ncolumn = 'click'\n\
             [[field]]\nname = 'user'\n[[field]]\nname = 'ad'\n\
             [[field]]\nname = 'history'\nkind = 'bag'\nvocabulary = 'ad'\n\
             [model]\nkind = 'fm'\n",
        )],
        before: &["data synth --out ../log.csv --rows 15000 --seed 5"],
        start: "data prepare ../a.toml",
        goes_on: None,
        readers: &[Readers::Cache {
            name: "cache/rows.cache",
            reader: "data prepare ../a.toml",
        }],
    },
    Scenario {
        name: "als",
        files: &[(
            "a.toml",
            run_file!(
                "",
                "[model]\nkind = 'fm'\n[train]\nexecutor = 'als'\nloss = 'squared'\nepochs = 30\n"
            ),
        )],
        ..TRAINED
    },
    Scenario {
        name: "average",
        files: &[
            (
                "a.toml",
                run_file!(
                    "split = { kind = 'random', valid = 0.1 }",
                    "[model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 1\n"
                ),
            ),
            (
                "mean.toml",
                "[model]\naverage = ['../before/one', '../before/two']\n",
            ),
        ],
        before: &[
            LOG,
            "train ../a.toml --out one",
            "train ../a.toml --out two --set optimizer.rows.lr=0.2",
        ],
        start: "train ../mean.toml --out run",
        goes_on: None,
        readers: &[PREDICTED],
    },
    Scenario {
        name: "tune",
        files: &[(
            "a.toml",
            run_file!(
                "split = { kind = 'random', valid = 0.1 }",
                "[model]\nkind = 'fm'\n[train]\nexecutor = 'fused'\nepochs = 4\n\
                 [tune]\ntrials = 4\nkeep = 0.5\n[tune.range]\n\
                 \"optimizer.rows.lr\" = { low = 0.01, high = 0.1, scale = 'log' }\n"
            ),
        )],
        before: &[LOG],
        start: "tune ../a.toml --out run",
        goes_on: Some(("run/tune.toml", "tune --resume run")),
        readers: &[Readers::Finished {
            names: &["run/tune.toml", "run/trials.jsonl", "run/checksums.json"],
            reader: "tune --resume run",
        }],
    },
];

/// A scenario that was run once, undisturbed.
pub(crate) struct Stage {
    pub(crate) scenario: &'static Scenario,
    pub(crate) crossfield: Crossfield,
    folder: tempfile::TempDir,
    /// What an undisturbed run leaves.
    pub(crate) undisturbed: Files,
    /// How long it takes.
    pub(crate) duration: Duration,
}

impl Stage {
    pub(crate) fn new(scenario: &'static Scenario, crossfield: &Crossfield) -> Result<Self, Error> {
        let temporary = std::env::temp_dir();
        let folder = tempfile::tempdir().map_err(Error::io(&temporary))?;
        for (name, content) in scenario.files {
            let path = folder.path().join(name);
            fs::write(&path, content).map_err(Error::io(&path))?;
        }
        let mut stage = Self {
            scenario,
            crossfield: crossfield.clone(),
            folder,
            undisturbed: Files::new(),
            duration: Duration::ZERO,
        };
        let before = stage.place("before")?;
        for args in scenario.before {
            stage.succeed(&before, args)?;
        }
        let place = stage.place("undisturbed")?;
        let begin = Instant::now();
        stage.succeed(&place, scenario.start)?;
        stage.duration = begin.elapsed();
        stage.undisturbed = files::read(&place)?;
        Ok(stage)
    }

    /// An empty folder to run in.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf, Error> {
        let place = self.folder.path().join(name);
        files::remove(&place)?;
        fs::create_dir(&place).map_err(Error::io(&place))?;
        Ok(place)
    }

    /// Where a process may write what it says.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("said")
    }

    fn succeed(&self, place: &Path, args: &str) -> Result<(), Error> {
        let outcome = self.crossfield.run(place, args)?;
        if outcome.succeeded() {
            return Ok(());
        }
        Err(Error::Undisturbed {
            scenario: self.scenario.name,
            args: args.to_owned(),
            message: outcome.text,
        })
    }

    /// What to run in a folder where the run may have begun. Where it has not, or cannot be continued,
    /// its folder is removed first.
    pub(crate) fn next(&self, place: &Path) -> Result<&'static str, Error> {
        match self.scenario.goes_on {
            Some((begun, goes_on)) if place.join(begun).exists() => Ok(goes_on),
            _ => {
                files::remove(&place.join("run"))?;
                Ok(self.scenario.start)
            }
        }
    }
}
