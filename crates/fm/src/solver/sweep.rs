//! One pass over the parameters of one factor, or over the linear weights.

use super::SolverError;
use super::design::{Design, Single};

/// What a sweep knows of a column: with `h = ∂z/∂θ`, the sums that give θ's conditional.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cell {
    /// `Σ h e` over the rows that have the column.
    pub(crate) pull: f64,
    /// `Σ h²`.
    pub(crate) weight: f64,
    /// θ before its update.
    pub(crate) value: f32,
    /// What the update added to it.
    pub(crate) step: f32,
}

/// The residuals that a sweep reads and keeps up to date.
pub(crate) struct Residuals<'a> {
    /// `e = z − y` of each row.
    pub(crate) e: &'a mut [f32],
    /// `q = Σ_i v_i x_i` of each row in this factor; not read for linear weights.
    pub(crate) q: &'a mut [f32],
}

/// Updates every column that occurs: `update` hears of the column and its sums and gives the new
/// value. `PAIRS`: the parameters are `v_f` (`h = x (q − x v)`), else `w` (`h = x`).
pub(crate) fn sweep<const PAIRS: bool>(
    design: &Design,
    residuals: &mut Residuals,
    cells: &mut [Cell],
    mut update: impl FnMut(usize, &Cell) -> Result<f32, SolverError>,
) -> Result<(), SolverError> {
    // A field's columns share no row, so that they are updated together; the pass that applies
    // its steps gathers the sums of the next field as well.
    let mut last: Option<&Single> = None;
    for field in &design.single {
        match last {
            None => gather::<PAIRS>(field, residuals, cells),
            Some(last) => apply_and_gather::<PAIRS>(last, field, residuals, cells),
        }
        for column in field.range.clone().filter(|&column| design.occurs(column)) {
            let new = update(column, &cells[column])?;
            cells[column].step = new - cells[column].value;
        }
        last = Some(field);
    }
    if let Some(last) = last {
        apply::<PAIRS>(last, residuals, cells);
    }
    for (line, &column) in design.listed.iter().enumerate() {
        let cell = &mut cells[column as usize];
        match design.by_column.line(line) {
            (rows, None) => {
                let entries = rows.iter().map(|&row| (row, 1.0));
                sweep_column::<PAIRS>(entries, residuals, cell, |cell| {
                    update(column as usize, cell)
                })?;
            }
            (rows, Some(values)) => {
                let entries = rows.iter().copied().zip(values.iter().copied());
                sweep_column::<PAIRS>(entries, residuals, cell, |cell| {
                    update(column as usize, cell)
                })?;
            }
        }
    }
    Ok(())
}

impl Cell {
    #[inline(always)]
    fn gather<const PAIRS: bool>(&mut self, e: f32, q: f32) {
        if PAIRS {
            let h = q - self.value;
            self.pull += f64::from(h * e);
            self.weight += f64::from(h * h);
        } else {
            self.pull += f64::from(e);
            self.weight += 1.0;
        }
    }

    #[inline(always)]
    fn apply<const PAIRS: bool>(&self, e: &mut f32, q: &mut f32) {
        if PAIRS {
            *e += (*q - self.value) * self.step;
            *q += self.step;
        } else {
            *e += self.step;
        }
    }
}

fn gather<const PAIRS: bool>(field: &Single, residuals: &mut Residuals, cells: &mut [Cell]) {
    let rows = residuals.e.iter().zip(residuals.q.iter());
    for (&column, (&e, &q)) in field.columns.iter().zip(rows) {
        cells[column as usize].gather::<PAIRS>(e, q);
    }
}

fn apply<const PAIRS: bool>(field: &Single, residuals: &mut Residuals, cells: &[Cell]) {
    let rows = residuals.e.iter_mut().zip(residuals.q.iter_mut());
    for (&column, (e, q)) in field.columns.iter().zip(rows) {
        cells[column as usize].apply::<PAIRS>(e, q);
    }
}

fn apply_and_gather<const PAIRS: bool>(
    last: &Single,
    next: &Single,
    residuals: &mut Residuals,
    cells: &mut [Cell],
) {
    let rows = residuals.e.iter_mut().zip(residuals.q.iter_mut());
    let columns = last.columns.iter().zip(&next.columns);
    for ((&last, &next), (e, q)) in columns.zip(rows) {
        cells[last as usize].apply::<PAIRS>(e, q);
        cells[next as usize].gather::<PAIRS>(*e, *q);
    }
}

fn sweep_column<const PAIRS: bool>(
    entries: impl Iterator<Item = (u32, f32)> + Clone,
    residuals: &mut Residuals,
    cell: &mut Cell,
    update: impl FnOnce(&Cell) -> Result<f32, SolverError>,
) -> Result<(), SolverError> {
    let value = cell.value;
    let slope = |x: f32, q: f32| if PAIRS { x * (q - x * value) } else { x };
    let (mut pull, mut weight) = (0.0, 0.0);
    for (row, x) in entries.clone() {
        let h = slope(x, residuals.q[row as usize]);
        pull += f64::from(h * residuals.e[row as usize]);
        weight += f64::from(h * h);
    }
    (cell.pull, cell.weight) = (pull, weight);
    let step = update(cell)? - value;
    for (row, x) in entries {
        let (e, q) = (
            &mut residuals.e[row as usize],
            &mut residuals.q[row as usize],
        );
        *e += slope(x, *q) * step;
        if PAIRS {
            *q += x * step;
        }
    }
    Ok(())
}
