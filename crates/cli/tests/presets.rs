//! Every run file under configs/ can be read, and so can its data.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::{Folder, output};

/// Makes the samples that the comments of a preset say how to make; gives the file of each part.
fn samples(folder: &Folder, name: &str, preset: &str) -> Vec<(&'static str, String)> {
    const COMMAND: &str = "crossfield data sequences ";
    let Some(start) = preset.find(COMMAND) else {
        return Vec::new();
    };
    let mut words = String::new();
    for line in preset[start + COMMAND.len()..].lines() {
        let line = line.trim_start_matches('#').trim();
        words += line.trim_end_matches('\\');
        words.push(' ');
        if !line.ends_with('\\') {
            break;
        }
    }
    let data = std::env::var("CROSSFIELD_DATA").unwrap();
    let words = words.replace("$CROSSFIELD_DATA", &data);
    let mut args: Vec<&str> = words.split_whitespace().collect();
    let out = args.iter().position(|word| *word == "--out").unwrap() + 1;
    args[out] = name;
    folder.succeed(&format!("data sequences {}", args.join(" ")));
    let path = |part: &str| {
        folder
            .path(&format!("{name}/{part}.csv"))
            .display()
            .to_string()
    };
    ["train", "valid", "test"]
        .map(|part| (part, path(part)))
        .to_vec()
}

#[test]
fn every_preset_describes_data_that_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = Folder::new();
    folder.write(
        "a.ffm",
        "1 0:0:1 1:3:1\n0 0:1:1 1:2:1\n".repeat(20).as_bytes(),
    );
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
        for (part, file) in samples(&folder, &name.replace(".toml", ""), &text) {
            command.arg("--set").arg(format!("data.{part}={file}"));
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
