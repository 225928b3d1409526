//! Every run file under configs/ can be read, and so can its data.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Folder, output};

/// Runs what the comments of a preset say to make its data with, in `folder`; gives the overrides by
/// which the preset reads it there. What fetches data is left out, for it is there.
fn made(folder: &Folder, preset: &str, run: &toml::Table) -> Vec<String> {
    let indented = preset
        .lines()
        .filter_map(|line| line.strip_prefix("#     "));
    let skipped = ["crossfield data fetch", "crossfield eval", "export "];
    let script: Vec<&str> = indented
        .filter(|line| !skipped.iter().any(|start| line.starts_with(start)))
        .collect();
    if script.is_empty() {
        return Vec::new();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_crossfield"))
        .parent()
        .unwrap();
    let path = std::env::var("PATH").unwrap();
    std::fs::create_dir_all(folder.path("data")).unwrap();
    let configs = root().join("configs").canonicalize().unwrap();
    std::os::unix::fs::symlink(configs, folder.path("configs")).unwrap();
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", &script.join("\n")])
        .env("PATH", format!("{}:{path}", programs.display()))
        .current_dir(folder.path("."));
    let done = output(&mut shell);
    assert_eq!(done.code, Some(0), "{script:?}: {}", done.stderr);
    let there = |file: &toml::Value| {
        let file = file.as_str().unwrap();
        format!("{:?}", folder.path(file).display().to_string())
    };
    let parts = ["train", "valid", "test"].into_iter().filter_map(|part| {
        let files = match run["data"].get(part)? {
            toml::Value::Array(files) => files.iter().map(there).collect(),
            file => vec![there(file)],
        };
        Some(format!("data.{part}=[{}]", files.join(", ")))
    });
    parts.collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Checks that the comments of an average say how each of its runs is trained, by other presets.
fn check_average(name: &str, preset: &str, runs: &toml::Value) {
    let lines = preset.lines();
    let commands = lines.filter_map(|line| line.strip_prefix("#     crossfield train "));
    let mut trained = Vec::new();
    for command in commands {
        let (preset, out) = command.split_once(" --out ").unwrap();
        assert!(root().join(preset).exists(), "{name}: {preset}");
        trained.push(toml::Value::from(out));
    }
    assert_eq!(runs.as_array(), Some(&trained), "{name}");
}

#[test]
fn every_preset_describes_data_that_can_be_read() {
    let root = root();
    let has_data = std::env::var_os("CROSSFIELD_DATA").is_some();
    let mut presets: Vec<_> = root
        .join("configs")
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    presets.sort();
    assert!(!presets.is_empty(), "no preset");
    for preset in presets {
        let name = preset.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&preset).unwrap();
        let run: toml::Table = text.parse().unwrap();
        assert!(run.contains_key("model"), "{name}");
        if let Some(runs) = run["model"].get("average") {
            check_average(name, &text, runs);
            continue;
        }
        let folder = Folder::new();
        folder.write(
            "a.ffm",
            "1 0:0:1 1:3:1\n0 0:1:1 1:2:1\n".repeat(20).as_bytes(),
        );
        if text.contains("$CROSSFIELD_DATA") && !has_data {
            println!("skipped: {name}, CROSSFIELD_DATA is not set");
            continue;
        }
        let mut command = folder.crossfield();
        // Paths in the presets are relative to the root of a checkout; nothing is written there.
        command
            .args(["data", "stats"])
            .arg(&preset)
            .current_dir(&root);
        if text.contains("format = \"libffm\"") {
            let file = folder.path("a.ffm");
            for part in ["train", "valid"] {
                command
                    .arg("--set")
                    .arg(format!("data.{part}={}", file.display()));
            }
        }
        for set in made(&folder, &text, &run) {
            command.args(["--set", &set]);
        }
        let output = output(&mut command);
        assert_eq!(output.code, Some(0), "{name}: {}", output.stderr);
        assert_eq!(output.stderr, "", "{name}");
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert!(lines[0].starts_with("part "), "{name}: {}", output.stdout);
        assert!(lines[1].starts_with("train "), "{name}: {}", output.stdout);
        println!("{name}:\n{}", output.stdout);
    }
}
