//! The command that is disturbed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Error;

/// The built `crossfield` command.
#[derive(Clone, Debug)]
pub struct Crossfield {
    program: PathBuf,
}

/// How a command has ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed on both outputs.
    pub text: String,
}

impl Outcome {
    /// Whether it did what it was asked to.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Whether it met a case that it has no error for.
    pub fn panicked(&self) -> bool {
        self.code == Some(101) || self.text.contains("panicked at")
    }

    /// Whether it has stopped with an error.
    pub fn refused(&self) -> bool {
        self.code == Some(1) && !self.panicked() && self.text.contains("error: ")
    }

    /// Whether the system gave no memory, and the runtime ended the process with a message.
    pub fn ran_out_of_memory(&self) -> bool {
        // The second is the runtime's own word where a thread has begun without room for signals.
        let words = [
            "memory allocation of ",
            "failed to allocate an alternative stack",
        ];
        self.code != Some(0) && words.iter().any(|words| self.text.contains(words))
    }
}

impl Crossfield {
    /// A command at a path.
    ///
    /// # Errors
    /// [`Error::NoProgram`].
    pub fn new(program: PathBuf) -> Result<Self, Error> {
        match program.exists() {
            true => Ok(Self { program }),
            false => Err(Error::NoProgram { path: program }),
        }
    }

    /// The command that was built beside the program that runs, or beside the folder of its tests.
    ///
    /// # Errors
    /// [`Error::NoProgram`].
    pub fn built() -> Result<Self, Error> {
        let this = std::env::current_exe().map_err(Error::io(Path::new("this program")))?;
        let mut folder = this.parent().unwrap_or(&this);
        if folder.ends_with("deps") {
            folder = folder.parent().unwrap_or(folder);
        }
        Self::new(folder.join(format!("crossfield{}", std::env::consts::EXE_SUFFIX)))
    }

    /// Runs it in a folder, with arguments that are separated by blanks.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be started.
    pub fn run(&self, folder: &Path, args: &str) -> Result<Outcome, Error> {
        let mut command = Command::new(&self.program);
        command.args(args.split_whitespace());
        self.output(&mut command, folder)
    }

    /// As [`run`](Self::run), after `ulimit limit`. What would make a file larger than allowed fails
    /// as it does on a full disk.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_limited(&self, folder: &Path, limit: &str, args: &str) -> Result<Outcome, Error> {
        let script = format!("trap '' XFSZ; ulimit {limit}; exec \"$0\" {args}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(&self.program);
        self.output(&mut shell, folder)
    }

    fn output(&self, command: &mut Command, folder: &Path) -> Result<Outcome, Error> {
        let output = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io(&self.program))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        Ok(Outcome {
            code: output.status.code(),
            text,
        })
    }

    /// Starts it without waiting for it; what it says goes to `log` in the folder.
    pub(crate) fn start(&self, folder: &Path, args: &str, log: &Path) -> Result<Child, Error> {
        let said = std::fs::File::create(log).map_err(Error::io(log))?;
        Command::new(&self.program)
            .args(args.split_whitespace())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .map_err(Error::io(&self.program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_no_refusal() {
        let ended = |code, text: &str| Outcome {
            code,
            text: text.into(),
        };
        let refused = ended(Some(1), "error: `a` is damaged");
        assert!(refused.refused() && !refused.panicked());
        let panicked = ended(Some(101), "thread 'main' panicked at a.rs:1");
        assert!(panicked.panicked() && !panicked.refused());
        let aborted = ended(None, "memory allocation of 5 bytes failed");
        assert!(aborted.ran_out_of_memory() && !aborted.refused());
    }
}
