//! Numbers as lengths, side by side.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;
use crate::plot::{
    COLOURS, GRID, Key, LETTER, LETTERS, QUIET, digits, drawing, hex, number, shortened,
};

/// A bar.
///
/// ```
/// let bar = crossfield_report::Bar {
///     name: "user".into(),
///     parts: vec![0.02],
///     interval: Some([0.015, 0.025]),
/// };
/// assert_eq!(bar.parts.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Lengths, one behind the other; a single one may be negative.
    pub parts: Vec<f64>,
    /// Where the end may lie as well.
    pub interval: Option<[f64; 2]>,
}

/// Bars from the left, one below the other.
///
/// ```
/// use crossfield_report::{Bar, Bars};
///
/// let bars = Bars {
///     title: "Importance of fields",
///     axis: "rise of the logloss",
///     parts: &[],
///     bars: vec![Bar { name: "user".into(), parts: vec![0.02], interval: None }],
/// };
/// assert!(bars.svg()?.contains("user"));
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Bars<'a> {
    /// What they show.
    pub title: &'a str,
    /// What their lengths measure.
    pub axis: &'a str,
    /// Names of the parts of a bar, where there are several.
    pub parts: &'a [&'a str],
    /// The bars, from the top.
    pub bars: Vec<Bar>,
}

const WIDTH: i32 = 420;
const LINE: i32 = 24;
/// Of the axis below.
const AXIS: i32 = 46;
/// Letters of a name, beyond which it is cut.
const NAME: usize = 20;

impl Bars<'_> {
    /// The picture, without its title and legend, on no background: a
    /// [`Picture`](crate::Picture) has them.
    ///
    /// # Errors
    /// [`Error::Point`] for a length that is not finite.
    pub fn svg(&self) -> Result<String, Error> {
        let ends = |bar: &Bar| {
            let interval = bar.interval.into_iter().flatten();
            let all = interval.chain([bar.parts.iter().sum()]);
            all.fold([0f64, 0f64], |[low, high], end| {
                [low.min(end), high.max(end)]
            })
        };
        for (at, bar) in self.bars.iter().enumerate() {
            let interval = bar.interval.into_iter().flatten();
            let mut all = bar.parts.iter().copied().chain(interval);
            if let Some(x) = all.find(|value| !value.is_finite()) {
                return Err(Error::Point {
                    plot: self.title.to_owned(),
                    series: bar.name.clone(),
                    x,
                    y: at as f64,
                });
            }
        }
        let all = self.bars.iter().map(ends);
        let [low, high] = all.fold([0f64, 0f64], |a, b| [a[0].min(b[0]), a[1].max(b[1])]);
        let length = if high > low { high - low } else { 1.0 };
        let low = if low < 0.0 { low - 0.04 * length } else { 0.0 };
        let across = low..high.max(low + length) + 0.04 * length;

        let names = self.bars.iter().map(|bar| shortened(&bar.name, NAME));
        let names: Vec<String> = names.collect();
        let letters = names.iter().map(|name| name.chars().count()).max();
        let left = LETTER * letters.unwrap_or(0) as i32 + 14;
        let count = self.bars.len();
        let size = (WIDTH as u32, (LINE * count as i32 + AXIS + 12) as u32);
        let behind = digits(&across, false);
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin_top(8)
                .margin_right(20)
                .margin_bottom(4)
                .x_label_area_size(AXIS)
                .y_label_area_size(left)
                .build_cartesian_2d(across, 0.0..count as f64)
                .map_err(drawing)?;
            let style = ("sans-serif", LETTERS).into_font().color(&BLACK);
            chart
                .configure_mesh()
                .x_desc(self.axis)
                .x_labels(4)
                .y_labels(0)
                .disable_y_mesh()
                .max_light_lines(0)
                .bold_line_style(GRID)
                .axis_style(QUIET)
                .label_style(style.clone())
                .axis_desc_style(style.clone())
                .x_label_formatter(&|value| number(*value, behind))
                .draw()
                .map_err(drawing)?;
            for (at, (bar, name)) in self.bars.iter().zip(&names).enumerate() {
                // From the top.
                let middle = (count - at) as f64 - 0.5;
                let mut from = 0.0;
                for (part, length) in bar.parts.iter().enumerate() {
                    let corners = [(from, middle + 0.32), (from + length, middle - 0.32)];
                    let colour = COLOURS[part % COLOURS.len()];
                    let rectangle = Rectangle::new(corners, colour.filled());
                    chart.draw_series([rectangle]).map_err(drawing)?;
                    from += length;
                }
                if let Some([low, high]) = bar.interval {
                    let ends = vec![(low, middle), (high, middle)];
                    let line = PathElement::new(ends, BLACK.stroke_width(2));
                    chart.draw_series([line]).map_err(drawing)?;
                }
                let (_, y) = chart.backend_coord(&(0.0, middle));
                let style = style.clone().pos(Pos::new(HPos::Right, VPos::Center));
                let text = Text::new(name.clone(), (left - 8, y), style);
                root.draw(&text).map_err(drawing)?;
            }
            root.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        let parts = self.parts.iter().zip(COLOURS);
        let key = |(name, colour): (&&str, RGBColor)| Key {
            name: (*name).to_owned(),
            colour: hex(colour),
            is_dashed: false,
        };
        parts.map(key).collect()
    }

    /// In words, for those who do not see it.
    pub(crate) fn words(&self) -> String {
        let bars = self.bars.iter().map(|bar| {
            let length: f64 = bar.parts.iter().sum();
            format!("{} {length:.4}", bar.name)
        });
        let bars: Vec<String> = bars.collect();
        format!("{}, {}: {}", self.title, self.axis, bars.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(parts: Vec<f64>, interval: Option<[f64; 2]>) -> Bars<'static> {
        Bars {
            title: "t",
            axis: "seconds",
            parts: &[],
            bars: vec![
                Bar {
                    name: "<a>".into(),
                    parts,
                    interval,
                },
                Bar {
                    name: "b".into(),
                    parts: vec![4.0],
                    interval: None,
                },
            ],
        }
    }

    /// Left end and width of the bars, in pixels.
    fn widths(svg: &str) -> Vec<(i32, i32)> {
        let cell = |line: &str, name: &str| -> i32 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let rectangles = svg.lines().filter(|line| line.starts_with("<rect"));
        rectangles
            .map(|line| (cell(line, "x"), cell(line, "width")))
            .collect()
    }

    #[test]
    fn lengths_are_in_proportion_and_parts_lie_one_behind_the_other() {
        let svg = bars(vec![1.0, 1.0], None).svg().unwrap();
        let widths = widths(&svg);
        let ((first, long), (second, length), (_, whole)) = (widths[0], widths[1], widths[2]);
        assert!(
            (long - length).abs() <= 1 && (4 * long - whole).abs() <= 4,
            "{widths:?}"
        );
        assert!((first + long - second).abs() <= 1);
        assert!(svg.contains("&lt;a&gt;"));
    }

    #[test]
    fn a_negative_bar_ends_where_the_others_begin() {
        let svg = bars(vec![-1.0], Some([-2.0, 0.0])).svg().unwrap();
        let widths = widths(&svg);
        assert!(
            (widths[0].0 + widths[0].1 - widths[1].0).abs() <= 1,
            "{widths:?}"
        );
    }

    #[test]
    fn a_length_that_is_no_number_is_refused_by_name() {
        let error = bars(vec![f64::NAN], None).svg().unwrap_err();
        assert!(error.to_string().contains("<a>"), "{error}");
    }
}
