//! What the tables will take, said before they are made.

use std::fmt::Write;

use crossfield_embedding::{Precision, TablePlan};
use sysinfo::{MemoryRefreshKind, System};

use crate::Error;

/// Bytes that the tables of a plan take: weights, and optimizer state.
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
    plans.iter().fold((0, 0), |(weights, state), plan| {
        (weights + plan.weight_bytes(), state + plan.state_bytes())
    })
}

/// The arithmetic of a plan, a line a table: the largest eight, and the rest in one line.
pub fn describe_tables(plans: &[TablePlan]) -> String {
    const LINES: usize = 8;
    let mut largest: Vec<&TablePlan> = plans.iter().collect();
    let size = |plan: &TablePlan| plan.weight_bytes() + plan.state_bytes();
    largest.sort_by_key(|plan| std::cmp::Reverse(size(plan)));
    let name = |plan: &&TablePlan| plan.config.name.len();
    let shown = &largest[..largest.len().min(LINES)];
    let width = shown.iter().map(name).max().unwrap_or(0);
    let mut text = String::new();
    for plan in shown {
        let dim = plan.config.dim;
        let parts = plan.optimizer.state().iter();
        let state: usize = parts.map(|(_, width)| width.values(dim)).sum();
        let _ = writeln!(
            text,
            "  {:<width$} {:>11} rows × {} B ({} {} weights + {} {}) = {}",
            plan.config.name,
            plan.config.rows,
            plan.layout().stride,
            dim,
            match plan.precision {
                Precision::F32 => "f32",
                Precision::Bf16 => "bf16",
            },
            state,
            serde_json::to_value(plan.optimizer.kind)
                .ok()
                .and_then(|kind| kind.as_str().map(str::to_owned))
                .unwrap_or_default(),
            bytes(size(plan)),
        );
    }
    if largest.len() > LINES {
        let rest = &largest[LINES..];
        let sum = rest.iter().map(|plan| size(plan)).sum();
        let _ = writeln!(text, "  and {} smaller tables: {}", rest.len(), bytes(sum));
    }
    text
}

/// Refuses a plan that the machine has no memory for.
///
/// # Errors
/// [`Error::Memory`] with the arithmetic.
pub fn check_memory(plans: &[TablePlan]) -> Result<(), Error> {
    check_against(plans, available())
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
        available: bytes(available),
        tables: describe_tables(plans).trim_end().to_owned(),
    })
}

/// Bytes that the system, or the control group around this process, can still give.
fn available() -> u64 {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let machine = system.available_memory();
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
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::{Initializer, TableConfig};
    use crossfield_embedding::RowOptimizer;

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
             v16.user   500000000 rows × 128 B (16 f32 weights + 16 adagrad) = 64.00 GB"
        );
        assert!(check_against(&[plan], 64_000_000_000).is_ok());
        assert!(available() > 0);
    }
}
