//! `data prepare` and training out of its cache: bounded memory, and nothing lost on the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{Folder, assert_same_files};

/// A log of `rows` rows with keys of which most are distinct, and rows to validate on.
fn log(folder: &Folder, name: &str, rows: u32) {
    let text = |from: u32, to: u32| {
        let mut text = "label,user,item\n".to_owned();
        for row in from..to {
            let mixed = row.wrapping_mul(0x9e37_79b1);
            let label = u32::from(mixed >> 4 & 3 == 0);
            let (user, item) = (mixed >> 8, (mixed >> 3) % 100);
            text += &format!("{label},user-{user},{item}\n");
        }
        text
    };
    folder.write(&format!("{name}.csv"), text(0, rows));
    folder.write("valid.csv", text(rows, rows + 100));
    let run = format!(
        "[data]\ntrain = \"{name}.csv\"\nvalid = \"valid.csv\"\ncache = \"cache-{name}\"\n\
         memory = \"1MB\"\nblock_rows = 2048\n\
         [[field]]\nname = \"user\"\nmin_count = 2\n[[field]]\nname = \"item\"\n\
         [model]\nkind = \"fm\"\n[train]\nexecutor = \"fused\"\nepochs = 2\n"
    );
    folder.write(&format!("{name}.toml"), &run);
}

#[test]
fn train_maps_what_prepare_built_and_the_figures_are_those_of_memory() {
    let folder = Folder::new();
    log(&folder, "a", 4000);
    let prepared = folder.succeed("data prepare a.toml");
    assert!(
        prepared.stderr.contains("pass 2 of 2: 4,100 rows"),
        "{}",
        prepared.stderr
    );
    let built = "cache `cache-a/rows.cache`: built anew, for there was none";
    assert!(prepared.stdout.contains(built), "{}", prepared.stdout);
    let stats = folder.succeed("data stats a.toml");
    let read = "cache `cache-a/rows.cache`: read in place of the files";
    assert_eq!(stats.stdout, prepared.stdout.replace(built, read));
    let again = folder.succeed("data prepare a.toml");
    assert_eq!(again.stdout, stats.stdout);

    folder.succeed("train a.toml --out mapped");
    folder.succeed("train a.toml --out memory --set data.cache=elsewhere");
    let figures = |run: &str| folder.read(&format!("{run}/metrics.jsonl"));
    assert_eq!(figures("mapped"), figures("memory"));
    // Blocks of a stream are those of the cache, whoever built it.
    folder.succeed("train a.toml --out streamed --set data.stream=true");
    folder.succeed("train a.toml --out built --set data.stream=true --set data.cache=\"third\"");
    assert_eq!(figures("streamed"), figures("built"));
    assert_ne!(figures("streamed"), figures("mapped"));
}

#[test]
fn a_full_disk_leaves_the_old_cache_and_nothing_else() {
    let folder = Folder::new();
    log(&folder, "a", 20_000);
    folder.succeed("data prepare a.toml");
    let before = folder.files("cache-a");
    // The description is another: the cache is to be built anew.
    let set = "data prepare a.toml --set data.missing=x";
    for (limit, memory, file) in [
        (16, "1MB", "cache-a/spill-"),
        (100, "512MB", "cache-a/rows.cache`: File too large"),
    ] {
        let set = format!("{set} --set data.memory={memory}");
        let message = folder.run_with_little_disk(limit, &set).message();
        assert!(
            message.starts_with("cannot write `") && message.contains(file),
            "{message}"
        );
        assert_same_files(&folder.files("cache-a"), &before, "cache-a");
    }
    let stats = folder.succeed("data stats a.toml");
    assert!(stats.stdout.contains("read in place of the files"));
}

/// Most memory that `crossfield data prepare` ever had, in kB.
#[cfg(target_os = "linux")]
fn peak(folder: &Folder, args: &str) -> u64 {
    let mut child = folder.start(args);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kb) = line.and_then(|line| line.trim().strip_suffix(" kB")) {
            peak = kb.parse::<u64>().unwrap().max(peak);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_rows() {
    let folder = Folder::new();
    log(&folder, "small", 50_000);
    log(&folder, "large", 200_000);
    let small = peak(&folder, "data prepare small.toml");
    let large = peak(&folder, "data prepare large.toml");
    // 150,000 keys more would be some 15 MB in memory.
    assert!(
        large < small + 4_000,
        "{small} kB of 50,000 rows, {large} kB of 200,000"
    );
    let streamed = "train large.toml --out r --set data.stream=true --set train.epochs=1";
    let streaming = peak(&folder, streamed);
    let held = peak(&folder, "train large.toml --out h --set train.epochs=1");
    assert!(
        streaming <= held + 4_000,
        "{streaming} kB as a stream, {held} kB at once"
    );
}
