//! Development commands: `cargo xtask train|data|bench|check|test`. Spawns cargo; holds no product
//! code.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask train [ARGS]   crossfield train ARGS; without ARGS: FM on the planted ad log
cargo xtask data ARGS      crossfield data ARGS
cargo xtask bench [ARGS]   all benches, or those that ARGS name, as `cargo bench` takes them
cargo xtask check          formatting, lints, docs, spelling; all warnings are errors
cargo xtask test           check, then every test, those of the ndarray backend, a short run";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match task.as_str() {
        "train" if args.is_empty() => crossfield("train", &["configs/ad-log.toml".to_owned()]),
        "train" | "data" => crossfield(&task, &args),
        "bench" => cargo(&["bench", "--workspace", "--profile", "dev"], &args),
        "check" => check(),
        "test" => test(),
        _ => {
            eprintln!("{HELP}");
            return if task == "help" {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("xtask: {what}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    let mut doc = Command::new(env!("CARGO"));
    doc.args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    run(&mut doc)?;
    match Command::new("typos").status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("typos found misspelt words".into()),
        Err(_) => {
            eprintln!("typos is not installed (cargo install typos-cli): spelling not checked");
            Ok(())
        }
    }
}

fn test() -> Result<(), String> {
    check()?;
    cargo(&["test", "--workspace"], &[])?;
    // The parity tests carry `ndarray` in their names.
    cargo(
        &["test", "--workspace", "--features", NDARRAY, "ndarray"],
        &[],
    )?;
    let out = std::env::temp_dir().join(format!("crossfield-xtask-{}", std::process::id()));
    let trained = crossfield(
        "train",
        &[
            "configs/ad-log.toml".to_owned(),
            "--set".to_owned(),
            "data.synth.rows=40000".to_owned(),
            "--set".to_owned(),
            "train.epochs=1".to_owned(),
            "--out".to_owned(),
            out.display().to_string(),
        ],
    );
    // A run that failed before it made its folder leaves nothing to remove.
    let _ = std::fs::remove_dir_all(&out);
    trained
}

const NDARRAY: &str = "crossfield/ndarray,crossfield-cli/ndarray,crossfield-embedding/ndarray";

/// Builds the `crossfield` command and runs it. All packages are selected, so that features are
/// the same as for tests and Burn is compiled once.
fn crossfield(command: &str, args: &[String]) -> Result<(), String> {
    let mut build = vec!["build", "--quiet", "--workspace", "--bin", "crossfield"];
    if args.iter().any(|arg| arg.contains("ndarray")) {
        build.extend(["--features", NDARRAY]);
    }
    cargo(&build, &[])?;
    run(Command::new(binary()?).arg(command).args(args))
}

/// The `crossfield` command that was built beside this one.
fn binary() -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(this.with_file_name(format!("crossfield{}", std::env::consts::EXE_SUFFIX)))
}

fn cargo(args: &[&str], more: &[String]) -> Result<(), String> {
    run(Command::new(env!("CARGO")).args(args).args(more))
}

fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{command:?}: {status}"))
    }
}
