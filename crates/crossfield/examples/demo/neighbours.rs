//! Who lies beside whom, though the model has seen ids only.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crossfield::data::{DataSpec, FieldConfig, Format, Header, LabelKind, prepare};
use crossfield::embedding::{Exact, Measure, Moments, Principal, Vectors};
use crossfield::mf::{Duplicates, Interactions, Wrmf, WrmfConfig};
use plotters::prelude::*;
use rand::RngExt;

use crate::planted::stream;
use crate::runs::Failure;

/// Songs of each group, and of all others.
const SONGS: u32 = 12;
const OTHERS: u32 = 60;
/// Songs that each listener plays, of their groups and of others.
const OWN: usize = 8;
const STRAY: usize = 3;

/// Listeners: how many, and the groups that they draw a song from, each as often as it is named.
const KINDS: [(&str, u32, &[u32]); 3] = [
    ("mostly A", 100, &[0, 0, 1]),
    ("mostly B", 100, &[1, 1, 0]),
    ("C", 100, &[2]),
];

// With 8 all cosines are smaller by a half: vectors have room for what sets one listener apart.
const DIM: usize = 4;
const SWEEPS: usize = 20;

/// Where the vectors of the listeners came to lie.
pub(crate) struct Outcome {
    /// Mean cosine of a listener of mostly A and one of mostly B.
    pub(crate) sharing: f64,
    /// Mean cosine of a listener of A or B and one of C.
    pub(crate) apart: f64,
    /// Mean cosine of two listeners of one group.
    pub(crate) same: f64,
    /// Kind of each listener, and where they lie on the map.
    points: Vec<(usize, [f32; 2])>,
}

pub(crate) fn run(seed: u64) -> Result<Outcome, Failure> {
    let mut stream = stream(seed, 0);
    let mut plays = Vec::new();
    let mut kinds = Vec::new();
    for (kind, (_, count, groups)) in KINDS.iter().enumerate() {
        for _ in 0..*count {
            let listener = kinds.len() as u32;
            kinds.push(kind);
            for _ in 0..OWN {
                let group = groups[stream.random_range(0..groups.len())];
                let song = group * SONGS + stream.random_range(0..SONGS);
                plays.push((listener, song, 1.0));
            }
            for _ in 0..STRAY {
                let song = 3 * SONGS + stream.random_range(0..OTHERS);
                plays.push((listener, song, 1.0));
            }
        }
    }
    let listeners = kinds.len();
    let songs = (3 * SONGS + OTHERS) as usize;
    let plays = Interactions::new(listeners, songs, plays, Duplicates::Sum)?;
    let config = WrmfConfig {
        embedding_dim: DIM,
        ..WrmfConfig::default()
    };
    let mut wrmf = Wrmf::new(plays, config, seed)?;
    for _ in 0..SWEEPS {
        wrmf.iterate()?;
    }
    let vectors = Vectors::from_flat(&wrmf.parameters().users, DIM)?;

    let mut moments = Moments::new(DIM);
    for row in 0..listeners as u32 {
        moments.add(vectors.row(row));
    }
    let plane = Principal::of(&[&moments], 2);
    let points = (0..listeners).map(|row| {
        let mut point = [0.0; 2];
        plane.rotate(vectors.row(row as u32), &mut point);
        (kinds[row], point)
    });
    let points = points.collect();
    let kinds = &kinds;

    let vectors = vectors.normalized()?;
    let of = |kind: usize| (0..listeners as u32).filter(move |&row| kinds[row as usize] == kind);
    let cosine = |kind: usize, other: usize| {
        let (mut sum, mut pairs) = (0.0, 0.0);
        for a in of(kind) {
            for b in of(other) {
                if a != b {
                    let products = vectors.row(a).iter().zip(vectors.row(b));
                    sum += products.map(|(a, b)| f64::from(a * b)).sum::<f64>();
                    pairs += 1.0;
                }
            }
        }
        sum / pairs
    };
    let (a, b, c) = (0, 1, 2);
    Ok(Outcome {
        sharing: cosine(a, b),
        apart: (cosine(a, c) + cosine(b, c)) / 2.0,
        same: (cosine(a, a) + cosine(b, b) + cosine(c, c)) / 3.0,
        points,
    })
}

pub(crate) fn report(outcome: &Outcome) -> String {
    let mut text = String::from("mean cosine of two listeners\n");
    for (what, cosine) in [
        ("of the same group", outcome.same),
        ("of mostly A and B", outcome.sharing),
        ("of A or B and of C", outcome.apart),
    ] {
        let _ = writeln!(text, "{what:<20} {cosine:>6.3}");
    }
    text += "\nWho plays A plays B, too, and no one\n";
    text += "plays both A and C. The model saw ids\n";
    text += "of listeners and songs, no groups.\n";
    text
}

/// Draws the listeners on the plane of their two principal components.
pub(crate) fn draw(outcome: &Outcome, file: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(file, (480, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let range = |axis: usize| {
        let places = outcome.points.iter().map(|(_, point)| point[axis]);
        let (low, high) = places.fold((0f32, 0f32), |(low, high), at| (low.min(at), high.max(at)));
        let margin = 0.1 * (high - low);
        low - margin..high + margin
    };
    let mut chart = ChartBuilder::on(&root)
        .caption("Listeners by the ids that they played", ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(40)
        .build_cartesian_2d(range(0), range(1))?;
    chart
        .configure_mesh()
        .x_desc("first principal component")
        .y_desc("second")
        .disable_mesh()
        .draw()?;
    let colours = [
        RGBColor(0x1f, 0x77, 0xb4),
        RGBColor(0x2c, 0xa0, 0x2c),
        RGBColor(0xd6, 0x27, 0x28),
    ];
    for (kind, (name, ..)) in KINDS.iter().enumerate() {
        let colour = colours[kind];
        let of_kind = outcome.points.iter().filter(|(of, _)| *of == kind);
        let dots = of_kind.map(|(_, point)| Circle::new((point[0], point[1]), 3, colour));
        chart
            .draw_series(dots)?
            .label(format!("listeners of {name}"))
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleMiddle)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// Films that many have seen.
const FILMS: [&str; 5] = [
    "Star Wars (1977)",
    "Toy Story (1995)",
    "Fargo (1996)",
    "Silence of the Lambs, The (1991)",
    "Casablanca (1942)",
];

/// The ten films nearest to each of five well-known ones, by who liked them; `None` without
/// MovieLens-100k in `$CROSSFIELD_DATA`.
pub(crate) fn films(seed: u64) -> Result<Option<String>, Failure> {
    let Some(folder) = std::env::var_os("CROSSFIELD_DATA") else {
        return Ok(None);
    };
    let folder = PathBuf::from(folder).join("ml-100k");
    let field = |name: &str| FieldConfig {
        name: name.into(),
        ..FieldConfig::default()
    };
    let mut ratings = DataSpec::default();
    ratings.data.format = Format::Ratings;
    ratings.data.train = vec![folder.join("u.data.gz").display().to_string()];
    ratings.data.join = vec![crossfield::data::JoinConfig {
        file: folder.join("u.item.gz").display().to_string(),
        on: "item".into(),
        separator: "|".into(),
        header: Header::Names(
            (0..24)
                .map(|column| match column {
                    0 => "item".to_owned(),
                    1 => "title".to_owned(),
                    other => format!("column {other}"),
                })
                .collect(),
        ),
        encoding: crossfield::data::Encoding::Latin1,
    }];
    ratings.label.column = "rating".into();
    ratings.label.threshold = Some(4.0);
    ratings.label.only_positive = true;
    ratings.field = vec![field("user"), field("title")];
    let prepared = prepare(&ratings, seed, LabelKind::Binary)?;
    let sizes = [0, 1].map(|at| prepared.schema.schema().fields[at].rows as usize);
    let examples = prepared.train.examples();
    let likes = Interactions::of_examples(&examples, [0, 1], sizes, Duplicates::Sum)?;
    let config = WrmfConfig {
        embedding_dim: 32,
        ..WrmfConfig::default()
    };
    let mut wrmf = Wrmf::new(likes, config, seed)?;
    for _ in 0..SWEEPS {
        wrmf.iterate()?;
    }
    let vectors = Vectors::from_flat(&wrmf.parameters().items, 32)?;
    let exact = Exact::new(&vectors, Measure::Cosine)?;
    let mut text = String::new();
    for film in FILMS {
        let row = prepared.schema.row("title", film);
        let row = row.ok_or_else(|| format!("{film} is not in u.item"))?;
        let _ = writeln!(text, "\n{film}");
        for near in exact.nearest(vectors.row(row), 10, &[row])? {
            let title = prepared.schema.key("title", near.row).unwrap_or("?");
            let _ = writeln!(text, "  {:.2} {title}", near.score);
        }
    }
    Ok(Some(text))
}
