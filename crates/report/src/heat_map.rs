//! Numbers as colours.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;
use crate::plot::{drawing, shortened};

/// A number for each row and column, as a colour and in words.
///
/// Rows are named beside their line. Columns are numbered, and their names stand above the map, so
/// that long ones stay readable.
///
/// ```
/// use crossfield_report::HeatMap;
///
/// let map = HeatMap {
///     title: "What each candidate looks at",
///     rows: &["running socks".into(), "a novel".into()],
///     columns: &["running shoes".into(), "poems".into()],
///     values: &[0.9, 0.2, 0.1, 0.8],
/// };
/// let svg = map.svg()?;
/// assert!(svg.starts_with("<svg") && svg.contains("running socks") && svg.contains("0.90"));
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HeatMap<'a> {
    /// What it shows.
    pub title: &'a str,
    /// Names of the rows, from the top.
    pub rows: &'a [String],
    /// Names of the columns, from the left.
    pub columns: &'a [String],
    /// `[rows, columns]`, row by row.
    pub values: &'a [f32],
}

/// Sizes in pixels.
const LINE: i32 = 22;
const CELL: i32 = 54;
const MARGIN: i32 = 16;
/// Of a letter of a name, about.
const LETTER: i32 = 7;
/// Letters of a name, beyond which it is cut.
const LETTERS: usize = 60;

impl HeatMap<'_> {
    /// The picture.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Value`] for a number that is not finite.
    pub fn svg(&self) -> Result<String, Error> {
        self.check()?;
        let rows: Vec<String> = self.rows.iter().map(|name| cut(name)).collect();
        let legend: Vec<String> = (1..)
            .zip(self.columns)
            .map(|(number, name)| format!("{number}  {}", cut(name)))
            .collect();
        let letters = |names: &[String]| {
            let longest = names.iter().map(|name| name.chars().count()).max();
            LETTER * longest.unwrap_or(0) as i32
        };
        let left = 2 * MARGIN + letters(&rows);
        let top = 2 * MARGIN + LINE * (legend.len() as i32 + 2);
        let across = left + CELL * self.columns.len() as i32 + MARGIN;
        let title_width = 10 * self.title.chars().count() as i32 + 2 * MARGIN;
        let width = across.max(title_width).max(2 * MARGIN + letters(&legend));
        let height = top + LINE * rows.len() as i32 + MARGIN;
        let mut svg = String::new();
        {
            let size = (width as u32, height as u32);
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            root.fill(&WHITE).map_err(drawing)?;
            let write = |text: &str, at: (i32, i32), size: i32, across: HPos, colour: &RGBColor| {
                let style = ("sans-serif", size).into_font().color(colour);
                let style = style.pos(Pos::new(across, VPos::Center));
                root.draw(&Text::new(text.to_owned(), at, style))
                    .map_err(drawing)
            };
            write(self.title, (MARGIN, MARGIN + 4), 18, HPos::Left, &BLACK)?;
            for (line, name) in (1..).zip(&legend) {
                let at = (MARGIN, MARGIN + 4 + LINE * line);
                write(name, at, 13, HPos::Left, &BLACK)?;
            }
            for column in 0..self.columns.len() as i32 {
                let at = (left + CELL * column + CELL / 2, top - LINE / 2);
                write(&(column + 1).to_string(), at, 13, HPos::Center, &BLACK)?;
            }
            let most = self
                .values
                .iter()
                .fold(0f32, |most, value| most.max(value.abs()));
            let mut values = self.values.iter();
            for (row, name) in (0..).zip(&rows) {
                let middle = top + LINE * row + LINE / 2;
                write(name, (left - MARGIN / 2, middle), 13, HPos::Right, &BLACK)?;
                for (column, &value) in (0..).zip(values.by_ref().take(self.columns.len())) {
                    let corner = (left + CELL * column, top + LINE * row);
                    let other = (corner.0 + CELL - 2, corner.1 + LINE - 2);
                    let share = if most > 0.0 { value / most } else { 0.0 };
                    let cell = Rectangle::new([corner, other], colour(share).filled());
                    root.draw(&cell).map_err(drawing)?;
                    let ink = if share.abs() > 0.6 { &WHITE } else { &BLACK };
                    let at = (corner.0 + CELL / 2, middle);
                    write(&format!("{value:.2}"), at, 13, HPos::Center, ink)?;
                }
            }
            root.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    fn check(&self) -> Result<(), Error> {
        let (rows, columns, got) = (self.rows.len(), self.columns.len(), self.values.len());
        let expected = rows * columns;
        if expected == 0 || got != expected {
            return Err(Error::Shape {
                rows,
                columns,
                expected,
                got,
            });
        }
        match self.values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(Error::Value {
                row: self.rows[at / columns].clone(),
                column: self.columns[at % columns].clone(),
                value: self.values[at],
            }),
        }
    }
}

fn cut(name: &str) -> String {
    shortened(name, LETTERS)
}

/// From white at 0 to blue at 1, and to red at −1.
fn colour(share: f32) -> RGBColor {
    let (far, share) = if share < 0.0 {
        ([0xb2, 0x18, 0x2b], -share)
    } else {
        ([0x08, 0x51, 0x9c], share)
    };
    let [r, g, b] = far.map(|far| (255.0 + (far as f32 - 255.0) * share).round() as u8);
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_largest_number_is_the_darkest_and_names_are_escaped() {
        let (rows, columns) = (names(&["a & b"]), names(&["x", "y"]));
        let map = HeatMap {
            title: "t",
            rows: &rows,
            columns: &columns,
            values: &[0.0, 0.5],
        };
        let svg = map.svg().unwrap();
        assert!(svg.contains("a &amp; b") && svg.contains("1  x") && svg.contains("2  y"));
        assert!(svg.contains("#FFFFFF") && svg.contains("#08519C"), "{svg}");
    }

    #[test]
    fn what_has_no_colour_is_refused_by_name() {
        let (rows, columns) = (names(&["a"]), names(&["x", "y"]));
        let with = |values| {
            let map = HeatMap {
                title: "t",
                rows: &rows,
                columns: &columns,
                values,
            };
            map.svg().unwrap_err().to_string()
        };
        assert_eq!(
            with(&[0.0, f32::NAN]),
            "value NaN of row a and column y: expected a finite number"
        );
        assert_eq!(
            with(&[0.0]),
            "a heat map of 1 rows and 2 columns: expected at least one of each and 2 values, got 1"
        );
    }

    #[test]
    fn a_long_name_is_cut() {
        let long = "x".repeat(80);
        assert_eq!(cut(&long).chars().count(), LETTERS);
    }
}
