//! What the tables will take, said before they are made.

use std::fmt::Write;
use std::path::Path;

use crossfield_embedding::{Precision, Storage, TablePlan};
use sysinfo::{Disks, MemoryRefreshKind, System};

use crate::Error;

/// Bytes of memory that the tables of a plan take, those that are not mapped: weights, and optimizer
/// state.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_train::{OptimizerConfig, bytes, check_memory, describe_tables, table_bytes};
///
/// let table = TableConfig {
///     name: "v8.user".into(),
///     rows: 1_000_000,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: None,
/// };
/// let plans = OptimizerConfig::default().plan(vec![table])?;
/// let (weights, state) = table_bytes(&plans);
/// assert_eq!((bytes(weights), bytes(state)), ("32.0 MB".into(), "32.0 MB".into()));
/// assert!(describe_tables(&plans).contains("1000000 rows × 64 B (8 f32 weights + 8 adagrad)"));
/// check_memory(&plans)?;
/// # Ok::<(), crossfield_train::Error>(())
/// ```
pub fn table_bytes(plans: &[TablePlan]) -> (u64, u64) {
    let held = plans.iter().filter(|plan| plan.storage == Storage::Memory);
    held.fold((0, 0), |(weights, state), plan| {
        (weights + plan.weight_bytes(), state + plan.state_bytes())
    })
}

/// Bytes of the files of a plan's mapped tables.
///
/// ```
/// use crossfield_core::{Initializer, TableConfig};
/// use crossfield_embedding::{RowOptimizer, Storage, TablePlan};
/// use crossfield_train::{check_memory_of, mapped_bytes, table_bytes};
///
/// let config = TableConfig {
///     name: "v8.user".into(),
///     rows: 1_000_000,
///     dim: 8,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: None,
/// };
/// let plan = TablePlan {
///     storage: Storage::Mapped,
///     ..TablePlan::new(config, RowOptimizer::default())
/// };
/// let plans = [plan];
/// assert_eq!((table_bytes(&plans), mapped_bytes(&plans)), ((0, 0), 64_000_000));
/// // Whatever the size of the file, pages of it may take what is left.
/// assert!(check_memory_of(&plans, Some(1 << 40))? > 0);
/// # Ok::<(), crossfield_train::Error>(())
/// ```
pub fn mapped_bytes(plans: &[TablePlan]) -> u64 {
    let mapped = plans.iter().filter(|plan| plan.storage == Storage::Mapped);
    mapped.map(size).sum()
}

/// The arithmetic of a plan, a line a table: the largest eight, and the rest in one line. A
/// compressed table has a line for each of its parts, and one that says what it takes beside the
/// whole.
pub fn describe_tables(plans: &[TablePlan]) -> String {
    const TABLES: usize = 8;
    let mut largest: Vec<&TablePlan> = plans.iter().collect();
    largest.sort_by_key(|plan| std::cmp::Reverse(size(plan)));
    let shown: Vec<(&TablePlan, Vec<TablePlan>)> = largest
        .iter()
        .take(TABLES)
        .map(|plan| (*plan, plan.parts()))
        .collect();
    let names = shown.iter().flat_map(|(_, parts)| parts);
    let width = names.map(|part| part.config.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (plan, parts) in &shown {
        for part in parts {
            let _ = writeln!(
                text,
                "  {:<width$} {} = {}",
                part.config.name,
                arithmetic(part),
                bytes(size(part)),
            );
        }
        if let Some(compress) = &plan.compress {
            let whole = plan.whole();
            let index = size(plan) - parts.iter().map(size).sum::<u64>();
            let _ = writeln!(
                text,
                "    {} by {}: {}{} instead of {} = {}, {:.1} %",
                plan.config.name,
                compress.name(),
                bytes(size(plan)),
                match index {
                    0 => String::new(),
                    index => format!(" ({} of them which row is whose)", bytes(index)),
                },
                arithmetic(&whole).trim_start(),
                bytes(size(&whole)),
                100.0 * size(plan) as f64 / size(&whole) as f64,
            );
        }
    }
    if largest.len() > TABLES {
        let rest = &largest[TABLES..];
        let sum = rest.iter().map(|plan| size(plan)).sum();
        let _ = writeln!(text, "  and {} smaller tables: {}", rest.len(), bytes(sum));
    }
    text
}

fn size(plan: &TablePlan) -> u64 {
    plan.weight_bytes() + plan.state_bytes()
}

/// `1000000 rows × 64 B (8 f32 weights + 8 adagrad)`.
fn arithmetic(table: &TablePlan) -> String {
    let dim = table.config.dim;
    let parts = table.optimizer.state().iter();
    let state: usize = parts.map(|(_, width)| width.values(dim)).sum();
    format!(
        "{:>11} rows × {} B ({dim} {} weights + {state} {}{})",
        table.counted_rows(),
        table.layout().stride,
        match table.precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        },
        serde_json::to_value(table.optimizer.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default(),
        match table.storage {
            Storage::Memory => "",
            Storage::Mapped => ", in a file",
        },
    )
}

/// Refuses a plan that the machine has no memory for.
///
/// # Errors
/// [`Error::Memory`] with the arithmetic.
pub fn check_memory(plans: &[TablePlan]) -> Result<(), Error> {
    check_against(plans, available())
}

/// As [`check_memory`], where the process may take no more than `memory` bytes in all, if that is
/// bounded. Gives what is left for pages of mapped tables, a quarter of it set aside for the work on
/// a step and for what the system reads of the files.
///
/// # Errors
/// [`Error::Memory`] with the arithmetic.
pub fn check_memory_of(plans: &[TablePlan], memory: Option<u64>) -> Result<u64, Error> {
    let available = match memory {
        None => available(),
        Some(memory) => available().min(memory.saturating_sub(held().unwrap_or(0))),
    };
    check_against(plans, available)?;
    let (weights, state) = table_bytes(plans);
    let left = available - weights - state;
    Ok(left - left / 4)
}

/// Refuses mapped tables for whose files, and for the finished run that is made of them, the disk that
/// `folder` is on has no room.
///
/// # Errors
/// [`Error::Disk`].
pub(crate) fn check_disk(plans: &[TablePlan], folder: &Path) -> Result<(), Error> {
    let Ok(folder) = folder.canonicalize() else {
        return Ok(());
    };
    let disks = Disks::new_with_refreshed_list();
    let of_folder = disks
        .iter()
        .filter(|disk| folder.starts_with(disk.mount_point()));
    let disk = of_folder.max_by_key(|disk| disk.mount_point().as_os_str().len());
    // A system that does not tell says so when the files are written.
    let Some(available) = disk.map(sysinfo::Disk::available_space) else {
        return Ok(());
    };
    check_room(plans, &folder, available)
}

fn check_room(plans: &[TablePlan], folder: &Path, available: u64) -> Result<(), Error> {
    let files = mapped_bytes(plans);
    if 2 * files <= available {
        return Ok(());
    }
    Err(Error::Disk {
        path: folder.to_owned(),
        files: bytes(files),
        total: bytes(2 * files),
        available: bytes(available),
    })
}

/// Bytes of memory that this process holds and that are of no file, where the system tells.
fn held() -> Option<u64> {
    of_status("RssAnon:")
}

/// Refuses so many draws of `each` bytes if the machine has no memory for them.
///
/// # Errors
/// [`Error::DrawMemory`].
pub fn check_draws(draws: usize, each: u64) -> Result<(), Error> {
    let (total, available) = (each.saturating_mul(draws as u64), available());
    if total <= available {
        return Ok(());
    }
    Err(Error::DrawMemory {
        draws,
        each: bytes(each),
        total: bytes(total),
        available: bytes(available),
    })
}

fn check_against(plans: &[TablePlan], available: u64) -> Result<(), Error> {
    let (weights, state) = table_bytes(plans);
    if weights + state <= available {
        return Ok(());
    }
    Err(Error::Memory {
        weights: bytes(weights),
        state: bytes(state),
        total: bytes(weights + state),
        available: bytes(available).into(),
        tables: describe_tables(plans).trim_end().into(),
        largest: plans
            .iter()
            .filter(|plan| plan.storage == Storage::Memory && plan.compress.is_none())
            .max_by_key(|plan| size(plan))
            .map(|plan| plan.config.name.as_str())
            .unwrap_or_default()
            .into(),
    })
}

/// Bytes of address space that are left to this process, where the system tells and limits them
/// (`ulimit -v`).
fn address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:"))?;
    let kilobytes: u64 = size.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(limit.saturating_sub(kilobytes * 1024))
}

/// Bytes that the system, the control group around this process, or its own limit can still give.
fn available() -> u64 {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let machine = system.available_memory();
    let machine = address_space().map_or(machine, |left| machine.min(left));
    match system.cgroup_limits() {
        Some(limits) if limits.total_memory > 0 => machine.min(limits.free_memory),
        _ => machine,
    }
}

/// A size for people: `1.50 GB` is 1.5 × 10⁹ bytes.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        1e9.. => format!("{:.2} GB", count / 1e9),
        1e6.. => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.1} kB", count / 1e3),
    }
}

/// Most memory that this process has held so far, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    of_status("VmHWM:")
}

fn of_status(entry: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(entry))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Seconds of processor time that this process has used so far, in the system's and its own name,
/// on all threads, where the system tells.
pub fn cpu_seconds() -> Option<f64> {
    /// In which the system counts here, whatever its own clock does.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name of the program in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = |nth: usize| fields.split_whitespace().nth(nth)?.parse::<f64>().ok();
    // Fields 14 and 15, the first here being field 3.
    Some((ticks(11)? + ticks(12)?) / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::{Initializer, TableConfig};
    use crossfield_embedding::{Compress, RowOptimizer};

    #[cfg(target_os = "linux")]
    #[test]
    fn work_takes_processor_time() {
        let (clock, before) = (std::time::Instant::now(), cpu_seconds().unwrap());
        let mut sum = 0u64;
        while cpu_seconds().unwrap() < before + 0.05 {
            assert!(clock.elapsed().as_secs() < 60, "none was counted");
            sum = (0..100_000u64).fold(sum, |sum, it| std::hint::black_box(sum ^ it));
        }
    }

    #[test]
    fn draws_beyond_the_memory_are_refused_before_they_are_drawn() {
        check_draws(80, 1000).unwrap();
        let message = check_draws(80, 1 << 40).unwrap_err().to_string();
        assert!(
            message
                .starts_with("not enough memory: 80 draws of 1099.51 GB each need 87960.93 GB; "),
            "{message}"
        );
    }

    #[test]
    fn a_compressed_table_stands_beside_the_whole() {
        let config = TableConfig {
            name: "v8.item".into(),
            rows: 100_000,
            dim: 8,
            fields: vec![0],
            initializer: Initializer::Zeros,
            oov_row: Some(0),
        };
        let plan = |compress| {
            let plan = TablePlan {
                compress: Some(compress),
                ..TablePlan::new(config.clone(), RowOptimizer::default())
            };
            plan.with_counts(u64::from)
        };
        let hash = plan(Compress::Hash {
            rows: 1000,
            hashes: 2,
        });
        let frequent = plan(Compress::Frequent { min_count: 90_000 });
        assert_eq!(
            describe_tables(&[hash, frequent]),
            "  v8.item.frequent       10001 rows × 64 B (8 f32 weights + 8 adagrad) = 640.1 kB\n    \
             v8.item by frequent: 1.0 MB (400.0 kB of them which row is whose) instead of 100000 \
             rows × 64 B (8 f32 weights + 8 adagrad) = 6.4 MB, 16.3 %\n  \
             v8.item.hash            1001 rows × 64 B (8 f32 weights + 8 adagrad) = 64.1 kB\n    \
             v8.item by hash: 64.1 kB instead of 100000 rows × 64 B (8 f32 weights + 8 adagrad) = \
             6.4 MB, 1.0 %\n"
        );
    }

    #[test]
    fn too_large_tables_are_refused_with_the_arithmetic() {
        let config = TableConfig {
            name: "v16.user".into(),
            rows: 500_000_000,
            dim: 16,
            fields: vec![0],
            initializer: Initializer::Zeros,
            oov_row: None,
        };
        let plan = TablePlan::new(config, RowOptimizer::default());
        let error = check_against(std::slice::from_ref(&plan), 8_000_000_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "not enough memory: the tables need 32.00 GB and their optimizers 32.00 GB, 64.00 GB \
             in all; 8.00 GB is available\n  \
             v16.user   500000000 rows × 128 B (16 f32 weights + 16 adagrad) = 64.00 GB\n\
             a table may lie in a file instead: [[optimizer.table]] match = \"v16.user\", \
             storage = \"mapped\""
        );
        let mapped = TablePlan {
            storage: Storage::Mapped,
            ..plan.clone()
        };
        assert!(check_against(std::slice::from_ref(&mapped), 0).is_ok());
        assert_eq!(
            check_room(
                std::slice::from_ref(&mapped),
                Path::new("run/tables"),
                100_000_000_000
            )
            .unwrap_err()
            .to_string(),
            "run/tables: not enough room on the disk: the files of mapped tables need 64.00 GB, and \
             with the finished run 128.00 GB; 100.00 GB is available"
        );
        assert!(check_room(&[mapped], Path::new("run/tables"), 128_000_000_000).is_ok());
        assert!(check_against(&[plan], 64_000_000_000).is_ok());
        assert!(available() > 0);
    }
}
