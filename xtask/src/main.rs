//! Development commands: `cargo xtask train|data|demo|guide|bench|faults|check|test`. Spawns cargo; holds
//! no product code.

mod guide;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask train [ARGS]   crossfield train ARGS; without ARGS: FM on the planted ad log
cargo xtask data ARGS      crossfield data ARGS
cargo xtask demo NAME      an experiment: one-hot, neighbours, combine, warm-start,
                           transfer, fields, memorise-generalise, attention or
                           mix; a seed may follow
cargo xtask guide          docs/guide as books in target/guide, by mdbook
cargo xtask bench [ARGS]   all criterion benches, or those that ARGS name, as `cargo bench`
                           takes them
cargo xtask bench all [NAMES]
                           every model on every data set, or on those whose names hold
                           NAMES, on three seeds: benches/RESULTS.md and its HTML
cargo xtask faults [ARGS]  runs that are killed, damaged and starved: 1,000 kills, 10,000 damaged
                           files; ARGS may name scenarios, and --kills, --corruptions
cargo xtask check          formatting, lints, docs, spelling; all warnings are errors
cargo xtask test           check, then every test, those of the ndarray backend and of the package
                           outside the workspace, a short run";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let task = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match task.as_str() {
        "train" if args.is_empty() => crossfield("train", &["configs/ad-log.toml".to_owned()]),
        "train" | "data" => crossfield(&task, &args),
        "demo" => demo(&args),
        "guide" => guide::build(),
        "bench" if args.first().is_some_and(|what| what == "all") => bench_all(&args[1..]),
        "bench" => cargo(&["bench", "--workspace", "--profile", "dev"], &args),
        "faults" => faults(&args),
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
    let mut doc = cargo_command();
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
    // Examples are checked above, and trained by tests that compile them once more.
    cargo(&["test", "--workspace", "--tests"], &[])?;
    cargo(&["test", "--workspace", "--doc"], &[])?;
    parity()?;
    downstream()?;
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

/// Compares the backends, in the crates that have such tests: they carry `ndarray` in their names. With
/// the whole workspace much would be compiled once more that has none. Not optimised, they are built in a
/// third of the time.
fn parity() -> Result<(), String> {
    let crates = ["attention", "embedding", "ffm", "fm", "wide-deep"];
    let packages = crates.map(|name| format!("--package=crossfield-{name}"));
    let features = crates.map(|name| format!("--features=crossfield-{name}/ndarray"));
    let mut args = vec!["test", "--tests"];
    args.extend(["--config", "profile.dev.opt-level=0"]);
    args.extend(["--config", "profile.dev.package.'*'.opt-level=0"]);
    args.extend(packages.iter().chain(&features).map(String::as_str));
    args.push("ndarray");
    cargo(&args, &[])
}

/// Builds and tests the package that depends on crossfield from outside the workspace.
fn downstream() -> Result<(), String> {
    let mut test = cargo_command();
    test.args(["test", "--locked", "--manifest-path"])
        .arg("examples/downstream/Cargo.toml")
        .env("CARGO_TARGET_DIR", "target/downstream");
    run(&mut test)
}

const NDARRAY: &str = "crossfield/ndarray,crossfield-cli/ndarray,crossfield-embedding/ndarray";

/// Builds the `crossfield` command and runs it.
fn crossfield(command: &str, args: &[String]) -> Result<(), String> {
    let ndarray = args.iter().any(|arg| arg.contains("ndarray"));
    build(if ndarray {
        &["--features", NDARRAY]
    } else {
        &[]
    })?;
    run(Command::new(built("crossfield")?).arg(command).args(args))
}

/// Builds the demos and runs one.
fn demo(args: &[String]) -> Result<(), String> {
    build(&[])?;
    run(Command::new(built("examples/demo")?).args(args))
}

/// Builds what runs every model, and runs it.
fn bench_all(args: &[String]) -> Result<(), String> {
    build(&["--bin", "bench-all"])?;
    run(Command::new(built("bench-all")?)
        .arg(built("crossfield")?)
        .args(args))
}

/// Builds what disturbs runs, and lets it disturb those of the `crossfield` command.
fn faults(args: &[String]) -> Result<(), String> {
    build(&["--bin", "faults"])?;
    run(Command::new(built("faults")?).args(args))
}

/// Builds the `crossfield` command and the demos.
///
/// Cargo builds a dependency once for each set of features. It takes those of all packages that are
/// selected, and those that development dependencies ask for as soon as a target is selected that
/// may use them. With the whole workspace and an example, the set is that of `cargo test
/// --workspace`, and Burn is compiled once for both; without the example it is another.
fn build(more: &[&str]) -> Result<(), String> {
    let mut build = vec!["build", "--quiet", "--workspace"];
    build.extend(["--bin", "crossfield", "--example", "demo"]);
    build.extend(more);
    cargo(&build, &[])
}

/// A program that was built beside this one.
fn built(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(this.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

fn cargo(args: &[&str], more: &[String]) -> Result<(), String> {
    run(cargo_command().args(args).args(more))
}

/// Cargo, without what it told this program about the package `xtask`: build scripts that read such
/// variables (ring's does) would run again, and TLS be compiled again, at each change between
/// `cargo xtask` and plain cargo.
fn cargo_command() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
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
