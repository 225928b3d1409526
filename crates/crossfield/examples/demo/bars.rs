//! How far predictors are from the best possible one, as bars. Narrow, to be read on a telephone.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::runs::Failure;

const WIDTH: i32 = 460;
/// Where bars begin, and the longest end.
const LEFT: i32 = 150;
const RIGHT: i32 = 400;
/// What the lengths are.
const MEASURE: &str = "logloss above the best possible";
const BAR: i32 = 16;
const GAP: i32 = 12;
const COLOURS: [RGBColor; 3] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x9f, 0x40),
    RGBColor(0x2c, 0xa0, 0x2c),
];

/// A group of bars for each predictor, a bar in it for each kind of rows.
pub(crate) struct Bars<'a> {
    /// What is compared.
    pub(crate) title: &'a str,
    /// The kinds of rows, at most three; they are named if there are several.
    pub(crate) kinds: &'a [&'a str],
    /// Each predictor with a number of 0 or more for each kind.
    pub(crate) groups: Vec<(String, Vec<f64>)>,
}

impl Bars<'_> {
    /// Draws the bars from the top down, each with its number.
    pub(crate) fn draw(&self, file: &Path) -> Result<(), Failure> {
        let kinds = self.kinds.len() as i32;
        let legend = if kinds > 1 { 30 } else { 0 };
        let top = 64 + legend;
        let height = top + self.groups.len() as i32 * (kinds * BAR + GAP) + GAP;
        let root = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let font = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
        let anchored = |size, side| font(size).pos(Pos::new(side, VPos::Center));
        for (text, y, size) in [(self.title, 22, 17), (MEASURE, 44, 14)] {
            root.draw(&Text::new(
                text,
                (WIDTH / 2, y),
                anchored(size, HPos::Center),
            ))?;
        }
        if kinds > 1 {
            let step = (WIDTH - 20) / kinds;
            for (nth, kind) in self.kinds.iter().enumerate() {
                let x = 10 + nth as i32 * step;
                root.draw(&Rectangle::new(
                    [(x, 65), (x + 14, 79)],
                    COLOURS[nth % COLOURS.len()].filled(),
                ))?;
                root.draw(&Text::new(*kind, (x + 20, 73), anchored(14, HPos::Left)))?;
            }
        }
        let most = self.groups.iter().flat_map(|(_, numbers)| numbers);
        let most = most.fold(f64::MIN_POSITIVE, |most, &number| most.max(number));
        for (nth, (name, numbers)) in self.groups.iter().enumerate() {
            let from = top + nth as i32 * (kinds * BAR + GAP);
            let middle = from + kinds * BAR / 2;
            let place = (LEFT - 10, middle);
            root.draw(&Text::new(name.as_str(), place, anchored(14, HPos::Right)))?;
            for (kind, &number) in numbers.iter().enumerate() {
                let y = from + kind as i32 * BAR;
                let end = LEFT + (f64::from(RIGHT - LEFT) * number / most).round() as i32;
                let colour = COLOURS[kind % COLOURS.len()].filled();
                root.draw(&Rectangle::new([(LEFT, y), (end, y + BAR - 2)], colour))?;
                let text = format!("{number:.4}");
                let place = (end + 6, y + BAR / 2 - 1);
                root.draw(&Text::new(text, place, anchored(13, HPos::Left)))?;
            }
        }
        let line = [(LEFT, top - 4), (LEFT, height - GAP)];
        root.draw(&PathElement::new(line, BLACK))?;
        root.present()?;
        Ok(())
    }
}
