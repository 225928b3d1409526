//! A page of its own: text, tables and pictures, with nothing to fetch.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::plot::Key;
use crate::{Bars, Error, HeatMap, Plot};

/// What the pages say that they were made by; [`is_report`] looks for it.
const GENERATOR: &str = "crossfield report";

/// Whether a text is a page that [`Page::html`] has written.
///
/// ```
/// use crossfield_report::{Page, is_report};
///
/// let page = Page { title: "A run".into(), sections: vec![] };
/// assert!(is_report(&page.html()) && !is_report("<html><body>mine</body></html>"));
/// ```
pub fn is_report(text: &str) -> bool {
    let begin: String = text.chars().take(400).collect();
    begin.contains(&format!("name=\"generator\" content=\"{GENERATOR}\""))
}

/// A picture with what stands around it.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    title: String,
    svg: String,
    words: String,
    keys: Vec<Key>,
    caption: String,
    /// Whether it keeps its size, and is scrolled where it is too wide.
    is_fixed: bool,
}

impl Picture {
    /// A plot; the caption says how to read it.
    ///
    /// # Errors
    /// As [`Plot::svg`].
    pub fn plot(plot: &Plot<'_>, caption: impl Into<String>) -> Result<Self, Error> {
        Ok(Self {
            title: plot.title.to_owned(),
            svg: plot.svg()?,
            words: plot.words(),
            keys: plot.keys(),
            caption: caption.into(),
            is_fixed: false,
        })
    }

    /// Bars.
    ///
    /// # Errors
    /// As [`Bars::svg`].
    pub fn bars(bars: &Bars<'_>, caption: impl Into<String>) -> Result<Self, Error> {
        Ok(Self {
            title: bars.title.to_owned(),
            svg: bars.svg()?,
            words: bars.words(),
            keys: bars.keys(),
            caption: caption.into(),
            is_fixed: false,
        })
    }

    /// A heat map.
    ///
    /// # Errors
    /// As [`HeatMap::svg`].
    pub fn heat_map(map: &HeatMap<'_>, caption: impl Into<String>) -> Result<Self, Error> {
        let (rows, columns) = (map.rows.join(", "), map.columns.join(", "));
        Ok(Self {
            title: map.title.to_owned(),
            // The page has the title above.
            svg: HeatMap { title: "", ..*map }.svg()?,
            words: format!("{}: of {rows}, for {columns}", map.title),
            keys: Vec::new(),
            caption: caption.into(),
            is_fixed: true,
        })
    }

    fn html(&self) -> Markup {
        let class = if self.is_fixed { "fixed" } else { "plot" };
        // The drawing library begins with the size; the page gives it another.
        let body = self.svg.find('>').map_or("", |end| &self.svg[end + 1..]);
        let attribute = |name: &str| {
            let (_, rest) = self.svg.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let view = attribute("viewBox").unwrap_or("0 0 1 1");
        let (width, height) = (attribute("width"), attribute("height"));
        let (width, height) = match self.is_fixed {
            true => (width, height),
            false => (None, None),
        };
        let drawing = html! {
            svg class=(class) viewBox=(view) width=[width] height=[height] role="img"
                aria-label=(self.words) {
                (PreEscaped(body.trim_end().trim_end_matches("</svg>")))
            }
        };
        html! {
            figure class=[self.is_fixed.then_some("wide")] {
                h3 { (self.title) }
                @if !self.keys.is_empty() {
                    ul class="legend" {
                        @for key in &self.keys {
                            li {
                                svg class="key" viewBox="0 0 22 10" aria-hidden="true" {
                                    line x1="0" y1="5" x2="22" y2="5" stroke=(key.colour)
                                        stroke-width="3"
                                        stroke-dasharray=[key.is_dashed.then_some("6 4")];
                                }
                                (key.name)
                            }
                        }
                    }
                }
                @if self.is_fixed {
                    div class="scroll" tabindex="0" role="region" aria-label=(self.title) { (drawing) }
                } @else {
                    (drawing)
                }
                figcaption { (self.caption) }
            }
        }
    }
}

/// A table: the first cell of a row names it.
///
/// ```
/// let table = crossfield_report::Table {
///     caption: "Final figures".into(),
///     head: vec!["part".into(), "logloss".into()],
///     rows: vec![vec!["test".into(), "0.54".into()]],
/// };
/// assert_eq!(table.rows[0].len(), table.head.len());
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// Cells, row by row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn html(&self) -> Markup {
        html! {
            p class="caption" { (self.caption) }
            div class="scroll" tabindex="0" role="region" aria-label=(self.caption) {
                table {
                    thead { tr { @for cell in &self.head { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (at, cell) in row.iter().enumerate() {
                                    @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Part of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A paragraph.
    Text(String),
    /// Why something is not there, in a line.
    Missing(String),
    /// A table.
    Table(Table),
    /// Pictures, side by side where there is room.
    Pictures(Vec<Picture>),
    /// A card for each of several things: its heading, and names with their values.
    Cards(Vec<(String, Vec<(String, String)>)>),
}

/// Parts under a heading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What is below it.
    pub parts: Vec<Part>,
}

/// A page of HTML with no script, and nothing that is elsewhere.
///
/// ```
/// use crossfield_report::{Page, Part, Section};
///
/// let page = Page {
///     title: "Two runs".into(),
///     sections: vec![Section {
///         title: "Figures".into(),
///         parts: vec![Part::Text("a < b".into())],
///     }],
/// };
/// assert!(page.html().contains("a &lt; b"));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Its title.
    pub title: String,
    /// Its sections.
    pub sections: Vec<Section>,
}

impl Page {
    /// The text of the page.
    pub fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="generator" content=(GENERATOR);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    // Without it browsers ask the server for an icon.
                    link rel="icon" href="data:,";
                    title { (self.title) }
                    style { (PreEscaped(include_str!("page.css"))) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        nav aria-label="Sections" {
                            @for (at, section) in self.sections.iter().enumerate() {
                                a href={ "#section-" (at + 1) } { (section.title) }
                                " "
                            }
                        }
                    }
                    main {
                        @for (at, section) in self.sections.iter().enumerate() {
                            section id={ "section-" (at + 1) } {
                                h2 { (section.title) }
                                @for part in &section.parts { (part.html()) }
                            }
                        }
                    }
                }
            }
        };
        page.into_string()
    }
}

impl Part {
    fn html(&self) -> Markup {
        html! {
            @match self {
                Self::Text(text) => p { (text) },
                Self::Missing(why) => p class="missing" { (why) },
                Self::Table(table) => (table.html()),
                Self::Pictures(pictures) => div class="pictures" {
                    @for picture in pictures { (picture.html()) }
                },
                Self::Cards(cards) => div class="cards" {
                    @for (heading, lines) in cards {
                        div class="card" {
                            h3 { (heading) }
                            dl {
                                @for (name, value) in lines { dt { (name) } dd { (value) } }
                            }
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Axis, Marks, Series};

    #[test]
    fn text_from_data_is_escaped_wherever_it_stands() {
        let evil = "</title></svg><script>alert(1)</script>\"'&";
        let plot = Plot {
            title: evil,
            x: Axis::named(evil),
            y: Axis::named("y"),
            series: vec![Series {
                name: evil.into(),
                points: vec![[0.0, 0.0], [1.0, 1.0]],
                marks: Marks::Named(vec![evil.into(); 2]),
                colour: 0,
            }],
            is_square: false,
        };
        let map = HeatMap {
            title: evil,
            rows: &[evil.to_owned()],
            columns: &[evil.to_owned()],
            values: &[1.0],
        };
        let page = Page {
            title: evil.into(),
            sections: vec![Section {
                title: evil.into(),
                parts: vec![
                    Part::Text(evil.into()),
                    Part::Missing(evil.into()),
                    Part::Table(Table {
                        caption: evil.into(),
                        head: vec![evil.into()],
                        rows: vec![vec![evil.into(), evil.into()]],
                    }),
                    Part::Cards(vec![(evil.into(), vec![(evil.into(), evil.into())])]),
                    Part::Pictures(vec![
                        Picture::plot(&plot, evil).unwrap(),
                        Picture::heat_map(&map, evil).unwrap(),
                    ]),
                ],
            }],
        };
        let html = page.html();
        assert!(!html.contains("<script"), "{html}");
        let count = |what: &str| html.matches(what).count();
        assert_eq!(count("<svg"), count("</svg>"));
        assert_eq!(count("</title>"), 1);
    }

    #[test]
    fn a_page_names_nothing_that_is_elsewhere() {
        let html = Page::default().html();
        for elsewhere in ["http:", "https:", "@import", "url(", "src="] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
    }
}
