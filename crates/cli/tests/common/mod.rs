//! The `crossfield` command, run in a folder of its own.

#![allow(dead_code, reason = "no test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A temporary folder that commands run in.
pub(crate) struct Folder(tempfile::TempDir);

/// What a command did.
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The figures of a finished run.
    pub(crate) fn metrics(&self, run: &str) -> serde_json::Value {
        self.json(&format!("{run}/metrics.json"))
    }

    /// `crossfield`, to be given its arguments.
    pub(crate) fn crossfield(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfield"));
        command.current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs `crossfield` with arguments that are separated by blanks.
    pub(crate) fn run(&self, args: &str) -> Output {
        output(self.crossfield().args(args.split_whitespace()))
    }

    /// Runs `crossfield`, which has to succeed.
    pub(crate) fn succeed(&self, args: &str) -> Output {
        let output = self.run(args);
        assert_eq!(output.code, Some(0), "{args}\n{}", output.stderr);
        output
    }

    /// Runs `crossfield`, which has to fail; gives the message after `error: `.
    pub(crate) fn fail(&self, args: &str) -> String {
        self.run(args).message()
    }

    /// As `sh -c 'ulimit -f …; exec crossfield …'`: no file may grow beyond `limit` blocks of 512
    /// or 1024 bytes, as the shell counts. A write beyond fails as it does on a full disk.
    pub(crate) fn run_with_little_disk(&self, limit: u32, args: &str) -> Output {
        self.run_limited(&format!("-f {limit}"), args)
    }

    /// As `sh -c 'ulimit …; exec crossfield …'`.
    pub(crate) fn run_limited(&self, limit: &str, args: &str) -> Output {
        let script = format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" {args}");
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &script, env!("CARGO_BIN_EXE_crossfield")])
            .current_dir(self.0.path());
        output(&mut shell)
    }

    /// Starts `crossfield` without waiting for it.
    pub(crate) fn start(&self, args: &str) -> Child {
        self.crossfield()
            .args(args.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Trains into `out` until there is a checkpoint, and kills it there.
    pub(crate) fn interrupt(&self, run_file: &str, out: &str) {
        self.interrupt_at(run_file, out, 1);
    }

    /// Trains into `out` until there are `count` checkpoints, and kills it there.
    pub(crate) fn interrupt_at(&self, run_file: &str, out: &str, count: usize) {
        let mut child = self.start(&format!("train {run_file} --out {out}"));
        let begin = Instant::now();
        let checkpoints = self.path(out).join("checkpoints");
        let is_complete = || {
            checkpoints.read_dir().is_ok_and(|entries| {
                let names = entries.flatten().map(|entry| entry.file_name());
                let complete =
                    |name: &std::ffi::OsString| !name.to_string_lossy().ends_with(".part");
                names.filter(complete).count() >= count
            })
        };
        while !is_complete() {
            assert!(child.try_wait().unwrap().is_none(), "no checkpoint is left");
            assert!(begin.elapsed() < Duration::from_secs(60), "no checkpoint");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let finished = self.path(out).join("metrics.json").exists();
        assert!(!finished, "the run was finished before it was killed");
    }

    /// Lists files of a folder as they are now, as if they had been written so.
    pub(crate) fn list(&self, folder: &str, names: &[&str]) {
        let path = self.path(folder);
        let manifest = crossfield_data::Manifest::of(&path, names.iter().copied()).unwrap();
        manifest.save(&path).unwrap();
    }

    /// Lists the files of a run as they are now.
    pub(crate) fn list_all(&self, run: &str) {
        let path = self.path(run);
        let names = crossfield_data::Manifest::read(&path).unwrap();
        self.list(run, &names.names().collect::<Vec<_>>());
    }

    /// All files below a folder, but timing.jsonl, which holds clocks, and the lists of checksums, which
    /// hold its.
    pub(crate) fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path(folder), "", &mut files);
        files.remove("timing.jsonl");
        files.retain(|name, _| !name.ends_with("checksums.json"));
        files
    }

    /// Lists the files of a run as they are now: as if it had been made of them.
    pub(crate) fn list_again(&self, run: &str) {
        let run = self.path(run);
        let list = crossfield_data::Manifest::of_all(&run).unwrap();
        list.save(&run).unwrap();
    }

    /// Names of everything in the folder itself, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.0.path().read_dir().unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            // A folder is listed too, so that an empty one does not go unseen.
            files.insert(format!("{name}/"), Vec::new());
            collect(&path, &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Output {
    /// The message of a command that failed as it should: with code 1, nothing on stdout and no
    /// panic.
    pub(crate) fn message(self) -> String {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        assert_eq!(code, Some(1), "{stdout}\n{stderr}");
        assert_eq!(stdout, "", "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let (_, message) = format!("\n{stderr}")
            .rsplit_once("\nerror: ")
            .map(|(before, message)| (before.to_owned(), message.trim_end().to_owned()))
            .unwrap_or_else(|| panic!("no message: {stderr}"));
        message
    }
}

/// Two runs, file by file.
pub(crate) fn assert_same_files(
    got: &BTreeMap<String, Vec<u8>>,
    expected: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(got), names(expected), "{what}");
    for (name, bytes) in expected {
        assert!(got[name] == *bytes, "{what}: {name} differs");
    }
}

/// Numbers from 0 to 1, the same for the same seed (splitmix64).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A sum of two models on a small planted log, with every kind of state: two row optimizers, a
/// dense one, a schedule, checkpoints inside the epochs, early stopping.
pub(crate) const RICH_RUN: &str = r#"
[data]
format = "synth"

[data.synth]
rows = 30000
users = 2000
ads = 1000
campaigns = 100
sites = 50

[model]
sum = ["wide", "fm"]

[optimizer]
rows = { kind = "adam", lr = 0.01 }
schedule = { kind = "linear", end = 0.1 }

[[optimizer.table]]
match = "wide.*"
kind = "ftrl"
lr = 0.1

[train]
epochs = 6
batch_size = 512
checkpoint_every = 17
early_stop = { patience = 2 }
"#;

/// Wide, FM and deep parts on the same log: FTRL, lazy Adam and a dense optimizer in one step, every
/// activation, both norms, dropout and shortcuts.
pub(crate) const DEEP_RUN: &str = r#"
[data]
format = "synth"

[data.synth]
rows = 12000
users = 2000
ads = 1000
campaigns = 100
sites = 50

[model]
sum = ["wide", "fm", "deep", "gelu", "silu", "tanh", "sigmoid"]

[model.fm]
linear = false

[model.deep]
hidden = [32, 32]
dropout = 0.2
norm = "batch"
residual = true

[model.gelu]
kind = "deep"
hidden = [16]
activation = "gelu"
norm = "layer"
dropout = 0.1

[model.silu]
kind = "deep"
hidden = [16]
activation = "silu"
norm = "batch"

[model.tanh]
kind = "deep"
hidden = [16]
activation = "tanh"

[model.sigmoid]
kind = "deep"
hidden = [16]
activation = "sigmoid"

[optimizer]
rows = { kind = "adam", lr = 0.01 }
dense = { kind = "adagrad", lr = 0.01 }
schedule = { kind = "linear", end = 0.1 }

[[optimizer.table]]
match = "wide.*"
kind = "ftrl"
lr = 0.1
l1 = 0.001

[train]
epochs = 4
batch_size = 512
checkpoint_every = 7
early_stop = { patience = 2 }
"#;

/// Fused runs on the same log: an FFM, an FM beside a linear model, and both with rows of bf16.
/// Checkpoints inside the epochs, a schedule, early stopping.
pub(crate) fn fused_runs() -> [(&'static str, String); 4] {
    let half = |tables: &str| {
        format!(
            "\n[[optimizer.table]]\nmatch = \"{tables}\"\nkind = \"rowwise_adagrad\"\n\
             precision = \"bf16\"\n"
        )
    };
    let run = |model: &str, tables: &str| {
        format!(
            r#"
[data]
format = "synth"

[data.synth]
rows = 10000
users = 2000
ads = 1000
campaigns = 100
sites = 50

[model]
{model}

[optimizer]
rows = {{ kind = "adagrad", lr = 0.05, l2 = 0.00001 }}
schedule = {{ kind = "linear", end = 0.1 }}
{tables}
[train]
executor = "fused"
epochs = 6
checkpoint_every = 1777
early_stop = {{ patience = 2 }}
"#
        )
    };
    let (ffm, fm) = ("kind = \"ffm\"", "sum = [\"wide\", \"fm\"]");
    [
        ("ffm", run(ffm, "")),
        ("ffm-bf16", run(ffm, &half("ffm.v*"))),
        ("fm", run(fm, "")),
        ("fm-bf16", run(fm, &half("v8.*"))),
    ]
}
