//! Points and lines over two axes.

use std::ops::Range;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Error;

/// Colours of series, one after the other. A page may give them others on a dark background: they are
/// written as `#RRGGBB` in capitals.
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(0x0B, 0x62, 0xC4),
    RGBColor(0xC2, 0x41, 0x0C),
    RGBColor(0x15, 0x80, 0x3D),
    RGBColor(0x7E, 0x22, 0xCE),
    RGBColor(0xA1, 0x62, 0x07),
    RGBColor(0x0E, 0x74, 0x90),
];
/// Of grids, and of what is only to compare with.
pub(crate) const GRID: RGBColor = RGBColor(0xE2, 0xE2, 0xE2);
pub(crate) const QUIET: RGBColor = RGBColor(0x77, 0x77, 0x77);
/// Of letters, in units of the drawing library: 13.7 pixels.
pub(crate) const LETTERS: i32 = 17;
/// Of one letter, about, in pixels.
pub(crate) const LETTER: i32 = 8;
/// Names that are written into a plot.
const NAMES: usize = 14;
/// Pixels. Small, so that letters stay readable where a page scales it down to a telephone.
const SIZE: (u32, u32) = (420, 300);

/// An axis.
///
/// ```
/// let axis = crossfield_report::Axis::named("epoch");
/// assert_eq!((axis.name, axis.is_whole), ("epoch", false));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis<'a> {
    /// What it measures.
    pub name: &'a str,
    /// From where to where; `None`: as far as the points go.
    pub range: Option<Range<f64>>,
    /// Whether only whole numbers have a meaning.
    pub is_whole: bool,
}

impl<'a> Axis<'a> {
    /// As long as the points go.
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

/// How the points of a series are drawn.
///
/// ```
/// use crossfield_report::Marks;
///
/// assert_ne!(Marks::Line, Marks::Dashed);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Marks {
    /// A line through them.
    Line,
    /// A broken line through them.
    Dashed,
    /// A line through them, and a dot on each.
    Dotted,
    /// A thin grey line, to compare with.
    Reference,
    /// A dot on each, with a line from the lower to the higher number.
    Intervals(Vec<[f64; 2]>),
    /// Small dots; beside the first ones, as far as there is room, a name.
    Named(Vec<String>),
}

/// Points that belong together.
///
/// ```
/// let series = crossfield_report::Series {
///     name: "train".into(),
///     points: vec![[1.0, 0.7], [2.0, 0.6]],
///     marks: crossfield_report::Marks::Line,
///     colour: 0,
/// };
/// assert_eq!(series.points.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name, for the legend; none if empty.
    pub name: String,
    /// Where they are, `[x, y]`.
    pub points: Vec<[f64; 2]>,
    /// How they are drawn.
    pub marks: Marks,
    /// Number of its colour; after the sixth they begin again.
    pub colour: usize,
}

/// Series over two axes.
///
/// ```
/// use crossfield_report::{Axis, Marks, Plot, Series};
///
/// let plot = Plot {
///     title: "Learning curve",
///     x: Axis { is_whole: true, ..Axis::named("epoch") },
///     y: Axis::named("logloss"),
///     series: vec![Series {
///         name: "train".into(),
///         points: vec![[1.0, 0.7], [2.0, 0.6]],
///         marks: Marks::Dotted,
///         colour: 0,
///     }],
///     is_square: false,
/// };
/// let svg = plot.svg()?;
/// assert!(svg.starts_with("<svg") && svg.contains("epoch") && svg.contains("#0B62C4"));
/// # Ok::<(), crossfield_report::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Plot<'a> {
    /// What it shows.
    pub title: &'a str,
    /// The axis across.
    pub x: Axis<'a>,
    /// The axis upwards.
    pub y: Axis<'a>,
    /// What is drawn, the last on top.
    pub series: Vec<Series>,
    /// As high as it is wide, where both axes measure the same.
    pub is_square: bool,
}

/// What a legend has of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub name: String,
    pub colour: String,
    pub is_dashed: bool,
}

impl Plot<'_> {
    /// The picture, without its title and legend, on no background: a
    /// [`Picture`](crate::Picture) has them.
    ///
    /// # Errors
    /// [`Error::Point`] for a number that is not finite.
    pub fn svg(&self) -> Result<String, Error> {
        let mut points = self.series.iter().flat_map(|series| {
            let of_series = series.points.iter().map(move |point| (series, *point));
            let intervals: &[[f64; 2]] = match &series.marks {
                Marks::Intervals(intervals) => intervals,
                _ => &[],
            };
            let ends = series.points.iter().zip(intervals);
            of_series.chain(
                ends.flat_map(move |(point, ends)| ends.map(|end| (series, [point[0], end]))),
            )
        });
        if let Some((series, [x, y])) =
            points.find(|(_, point)| !point.iter().all(|n| n.is_finite()))
        {
            return Err(Error::Point {
                plot: self.title.to_owned(),
                series: series.name.clone(),
                x,
                y,
            });
        }
        self.draw()
    }

    fn range(&self, axis: &Axis<'_>, at: usize) -> Range<f64> {
        if let Some(range) = &axis.range {
            return range.clone();
        }
        let mut range = f64::INFINITY..f64::NEG_INFINITY;
        for series in &self.series {
            let mut widen = |value: f64| {
                range.start = range.start.min(value);
                range.end = range.end.max(value);
            };
            series.points.iter().for_each(|point| widen(point[at]));
            if let (Marks::Intervals(intervals), 1) = (&series.marks, at) {
                intervals.iter().flatten().for_each(|&end| widen(end));
            }
        }
        if range.is_empty() && range.start != range.end {
            return 0.0..1.0;
        }
        let length = range.end - range.start;
        let margin = match (axis.is_whole, length > 0.0) {
            (true, true) => 0.0,
            (false, true) => 0.05 * length,
            (true, false) => 1.0,
            (false, false) => 0.05 * range.end.abs().max(1e-6),
        };
        range.start - margin..range.end + margin
    }

    fn draw(&self) -> Result<String, Error> {
        let (x, y) = (self.range(&self.x, 0), self.range(&self.y, 1));
        let size = match self.is_square {
            true => (SIZE.0, SIZE.0 - 30),
            false => SIZE,
        };
        let (x_digits, y_digits) = (digits(&x, self.x.is_whole), digits(&y, self.y.is_whole));
        let y_width = [y.start, y.end]
            .map(|end| format!("{end:.y_digits$}").chars().count() as i32)
            .into_iter()
            .max()
            .unwrap_or(0);
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin(8)
                .margin_right(16)
                .x_label_area_size(44)
                .y_label_area_size(LETTER * y_width + 34)
                .build_cartesian_2d(x.clone(), y.clone())
                .map_err(drawing)?;
            let letters = ("sans-serif", LETTERS).into_font().color(&BLACK);
            let labels = match self.x.is_whole {
                // No more than there are whole numbers.
                true => ((x.end - x.start) as usize + 1).min(7),
                false => 6,
            };
            chart
                .configure_mesh()
                .x_desc(self.x.name)
                .y_desc(self.y.name)
                .x_labels(labels)
                .y_labels(6)
                .max_light_lines(0)
                .bold_line_style(GRID)
                .axis_style(QUIET)
                .label_style(letters.clone())
                .axis_desc_style(letters)
                .x_label_formatter(&|value| number(*value, x_digits))
                .y_label_formatter(&|value| number(*value, y_digits))
                .draw()
                .map_err(drawing)?;
            for series in &self.series {
                draw_series(&mut chart, series)?;
            }
            root.present().map_err(drawing)?;
        }
        Ok(svg)
    }

    /// What stands beside it in a legend.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let named = self.series.iter().filter(|series| !series.name.is_empty());
        let key = |series: &Series| Key {
            name: series.name.clone(),
            colour: hex(colour(series)),
            is_dashed: matches!(series.marks, Marks::Dashed),
        };
        named.map(key).collect()
    }

    /// In words, for those who do not see it.
    pub(crate) fn words(&self) -> String {
        let names: Vec<&str> = self
            .series
            .iter()
            .map(|series| series.name.as_str())
            .filter(|name| !name.is_empty())
            .collect();
        let (title, x, y) = (self.title, self.x.name, self.y.name);
        match names[..] {
            [] => format!("{title}: {y} by {x}"),
            _ => format!("{title}: {y} by {x}, of {}", names.join(", ")),
        }
    }
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw_series(chart: &mut Chart<'_, '_>, series: &Series) -> Result<(), Error> {
    let colour = colour(series);
    let points = series.points.iter().map(|&[x, y]| (x, y));
    let dots = |radius| {
        let points = series.points.iter().map(|&[x, y]| (x, y));
        points.map(move |point| Circle::new(point, radius, colour.filled()))
    };
    match &series.marks {
        Marks::Line => {
            let line = LineSeries::new(points, colour.stroke_width(2));
            chart.draw_series(line).map_err(drawing)?;
        }
        Marks::Dashed => {
            let line = DashedLineSeries::new(points, 6, 4, colour.stroke_width(2));
            chart.draw_series(line).map_err(drawing)?;
        }
        Marks::Dotted => {
            let line = LineSeries::new(points, colour.stroke_width(2));
            chart.draw_series(line).map_err(drawing)?;
            chart.draw_series(dots(3)).map_err(drawing)?;
        }
        Marks::Reference => {
            let line = LineSeries::new(points, colour.stroke_width(1));
            chart.draw_series(line).map_err(drawing)?;
        }
        Marks::Intervals(intervals) => {
            let line = LineSeries::new(points, colour.stroke_width(1));
            chart.draw_series(line).map_err(drawing)?;
            let bars = series.points.iter().zip(intervals);
            let bars = bars.map(|(&[x, _], &[low, high])| {
                PathElement::new(vec![(x, low), (x, high)], colour.stroke_width(2))
            });
            chart.draw_series(bars).map_err(drawing)?;
            chart.draw_series(dots(3)).map_err(drawing)?;
        }
        Marks::Named(names) => {
            let (name, dot) = (colour.mix(0.45), &series.points);
            let small = dot
                .iter()
                .map(|&[x, y]| Circle::new((x, y), 2, name.filled()));
            chart.draw_series(small).map_err(drawing)?;
            draw_names(chart, &series.points, names, colour)?;
        }
    }
    Ok(())
}

/// Writes names beside points, but for those that would cover one that is written.
fn draw_names(
    chart: &mut Chart<'_, '_>,
    points: &[[f64; 2]],
    names: &[String],
    colour: RGBColor,
) -> Result<(), Error> {
    let area = chart.plotting_area().strip_coord_spec();
    let (across, down) = area.get_pixel_range();
    let mut taken: Vec<[i32; 4]> = Vec::new();
    for (&[x, y], name) in points.iter().zip(names) {
        let (x, y) = chart.backend_coord(&(x, y));
        let name = shortened(name, 22);
        let width = LETTER * name.chars().count() as i32;
        let right = x + 5 + width < across.end;
        let left = if right { x + 5 } else { x - 5 - width };
        let place = [left, y - 9, left + width, y + 9];
        let covers = |other: &[i32; 4]| {
            place[0] < other[2] && other[0] < place[2] && place[1] < other[3] && other[1] < place[3]
        };
        let is_inside = left >= across.start && place[1] >= down.start && place[3] <= down.end;
        if !is_inside || taken.iter().any(covers) {
            continue;
        }
        if taken.len() == NAMES {
            break;
        }
        taken.push(place);
        let anchor = if right { HPos::Left } else { HPos::Right };
        let at = (
            if right { x + 5 } else { x - 5 } - across.start,
            y - down.start,
        );
        let style = ("sans-serif", LETTERS - 1).into_font().color(&BLACK);
        let text = Text::new(name, at, style.pos(Pos::new(anchor, VPos::Center)));
        area.draw(&text).map_err(drawing)?;
        let dot = Circle::new((x - across.start, y - down.start), 3, colour.filled());
        area.draw(&dot).map_err(drawing)?;
    }
    Ok(())
}

fn colour(series: &Series) -> RGBColor {
    match series.marks {
        Marks::Reference => QUIET,
        _ => COLOURS[series.colour % COLOURS.len()],
    }
}

pub(crate) fn hex(colour: RGBColor) -> String {
    let RGBColor(r, g, b) = colour;
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// Digits behind the point that tell the numbers of an axis apart.
pub(crate) fn digits(range: &Range<f64>, is_whole: bool) -> usize {
    let length = range.end - range.start;
    if is_whole || length <= 0.0 {
        return 0;
    }
    // There are at most six numbers on an axis.
    (-(length / 6.0).log10()).ceil().clamp(0.0, 8.0) as usize
}

/// A number of an axis: no zero is below zero.
pub(crate) fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

/// A text of at most so many letters.
pub(crate) fn shortened(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let head: String = text.chars().take(letters - 1).collect();
    head + "…"
}

pub(crate) fn drawing(error: impl std::fmt::Display) -> Error {
    Error::Drawing(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<[f64; 2]>, marks: Marks) -> Plot<'static> {
        Plot {
            title: "t",
            x: Axis::named("across"),
            y: Axis::named("up"),
            series: vec![Series {
                name: "a".into(),
                points,
                marks,
                colour: 1,
            }],
            is_square: false,
        }
    }

    #[test]
    fn a_point_that_is_no_number_is_refused_by_series() {
        let error = plot(vec![[1.0, f64::NAN]], Marks::Line).svg().unwrap_err();
        assert_eq!(
            error.to_string(),
            "plot `t`: a has a point at 1, NaN: expected finite numbers"
        );
        let intervals = Marks::Intervals(vec![[0.0, f64::INFINITY]]);
        assert!(plot(vec![[1.0, 0.5]], intervals).svg().is_err());
    }

    #[test]
    fn an_axis_goes_as_far_as_points_and_intervals_do() {
        let intervals = Marks::Intervals(vec![[-1.0, 3.0]]);
        let one = plot(vec![[2.0, 1.0]], intervals);
        let range = one.range(&one.y, 1);
        assert!((range.start + 1.2).abs() < 1e-12 && (range.end - 3.2).abs() < 1e-12);
        let range = one.range(&one.x, 0);
        assert!(range.start < 2.0 && range.end > 2.0);
    }

    #[test]
    fn names_that_would_cover_another_are_left_out() {
        let points = vec![[0.0, 0.0], [0.001, 0.0], [1.0, 1.0]];
        let names = ["first & best", "hidden", "last"].map(str::to_owned);
        let svg = plot(points, Marks::Named(names.to_vec())).svg().unwrap();
        assert!(svg.contains("first &amp; best") && svg.contains("last"));
        assert!(!svg.contains("hidden"));
    }

    #[test]
    fn numbers_of_an_axis_have_the_digits_that_tell_them_apart() {
        assert_eq!(digits(&(0.0..1.0), false), 1);
        assert_eq!(digits(&(0.54..0.56), false), 3);
        assert_eq!(digits(&(0.28..0.53), false), 2);
        assert_eq!(digits(&(0.0..100.0), false), 0);
        assert_eq!(digits(&(1.0..5.0), true), 0);
        assert_eq!([number(-1e-9, 2), number(-0.25, 1)], ["0.00", "-0.2"]);
    }

    #[test]
    fn plots_of_one_point_and_of_none_are_drawn() {
        for points in [vec![], vec![[1.0, 1.0]]] {
            for marks in [Marks::Dotted, Marks::Dashed, Marks::Reference] {
                assert!(plot(points.clone(), marks).svg().is_ok());
            }
        }
    }
}
