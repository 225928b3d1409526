//! `report`: finished runs on one page.

mod compare;
mod curves;
mod importance;
mod lists;
mod map;
mod read;
mod rows;
mod time;

use std::path::{Path, PathBuf};

use crossfield_report::{Page, Part, Section, Table, is_report};
use crossfield_train::Error;

use crate::attention::Reader;
use crate::console::FIGURES;
use crate::lists::TitleArgs;
use crate::run::{Anyhow, Finished, print};

use read::Told;

/// Rows of an attention map's search, and items and the fewest items of its history.
const MAP_ROWS: usize = 5000;
const MAP_ITEMS: usize = 16;
const MAP_SHORTEST: usize = 4;

/// `crossfield report`.
#[derive(clap::Args, Debug)]
pub(crate) struct ReportArgs {
    /// Finished runs; several are compared, on the same test rows.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write [default: report.html in the first run].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Rows among which the values of a field are shuffled, to see what the field is worth; 0: none.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    importance_rows: usize,
    /// Resamples that intervals and p-values are of.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resamples: usize,
    /// Seed of resamples and shuffles.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    titles: TitleArgs,
}

pub(crate) fn report(args: &ReportArgs) -> Anyhow<()> {
    let file = match &args.output {
        Some(file) => file.clone(),
        None => args.runs[0].join("report.html"),
    };
    refuse_other(&file)?;
    if args.resamples < 2 {
        return Err(Error::Option {
            option: format!("--resamples {}", args.resamples),
            reason: "expected at least 2".into(),
        }
        .into());
    }
    let runs = read::runs(&args.runs)?;
    let compared = compare::Compared::of(&runs, args.resamples, args.seed)?;
    let lists = lists::ComparedLists::of(&runs)?;

    let mut sections = vec![about(&runs), final_figures(&runs)];
    sections.push(compare::section(&runs, compared.as_ref(), lists.as_ref()));
    sections.push(curves::section(&runs)?);
    sections.extend(rows::sections(&runs)?);
    sections.push(importance::section(&runs, args.importance_rows, args.seed)?);
    sections.push(map::section(&runs, &args.titles)?);
    sections.push(attention(&runs, &args.titles)?);
    sections.push(time::section(&runs)?);
    let title = match &runs[..] {
        [one] => format!("Report of {}", one.name),
        several => format!("Report of {} runs", several.len()),
    };
    let page = Page { title, sections };

    // Beside its place first, so that an interrupt leaves the old page whole.
    let part = file.with_extension("html.part");
    std::fs::write(&part, page.html()).map_err(Error::io(&part, "write"))?;
    std::fs::rename(&part, &file).map_err(Error::io(&file, "write"))?;
    if let Some(compared) = &compared {
        print(&compared.text(&runs))?;
    }
    if let Some(lists) = &lists {
        print(&lists.text())?;
    }
    eprintln!("written to {}", file.display());
    Ok(())
}

/// Refuses to write over what is no report.
fn refuse_other(file: &Path) -> Anyhow<()> {
    match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(file, "read")(error).into()),
        Ok(bytes) if is_report(&String::from_utf8_lossy(&bytes)) => Ok(()),
        Ok(_) => Err(Error::Option {
            option: format!("--output {}", file.display()),
            reason: "is there already, and is not a report: name another file".into(),
        }
        .into()),
    }
}

/// What each run is.
fn about(runs: &[Told]) -> Section {
    Section {
        title: "Runs".into(),
        parts: vec![Part::Cards(runs.iter().map(Told::card).collect())],
    }
}

/// The figures that each run was finished with.
fn final_figures(runs: &[Told]) -> Section {
    let mut lines = Vec::new();
    for run in runs {
        let metrics = &run.metrics;
        let constant = match &metrics.constant {
            Some(report) if report.ranking.is_some() => "popularity",
            _ => "constant",
        };
        for (part, report) in [
            ("train", &metrics.train),
            ("validation", &metrics.valid),
            ("test", &metrics.test),
            (constant, &metrics.constant),
            ("Bayes-optimal", &metrics.bayes),
        ] {
            if let Some(report) = report {
                lines.push((format!("{}, {part}", run.name), report));
            }
        }
    }
    let applies = |figure: &&crate::console::Column| {
        let (_, _, value) = figure;
        lines.iter().any(|(_, report)| value(report).is_some())
    };
    let columns: Vec<_> = FIGURES.iter().filter(applies).collect();
    let names = columns.iter().map(|(name, ..)| (*name).to_owned());
    let head = ["run, part".to_owned()].into_iter().chain(names);
    let row = |(name, report): &(String, &crossfield_core::metrics::Report)| {
        let cells = columns
            .iter()
            .map(|(_, digits, value)| match value(report) {
                Some(value) => format!("{value:.digits$}"),
                None => "–".to_owned(),
            });
        let begin = [name.clone()].into_iter().chain(cells);
        begin
            .chain([crossfield_data::grouped(report.rows)])
            .collect()
    };
    Section {
        title: "Final figures".into(),
        parts: vec![
            Part::Text(
                "As each run was finished. The constant predictor knows the mean of the training \
                 labels alone (popularity: how often each item was taken); a model has to be better \
                 than that. Bayes-optimal are the true probabilities of a generated log, which no \
                 model can pass but by luck."
                    .into(),
            ),
            Part::Table(Table {
                caption: "Figures of the saved model".into(),
                head: head.chain(["rows".to_owned()]).collect(),
                rows: lines.iter().map(row).collect(),
            }),
        ],
    }
}

/// What candidates look at in a history, of each run that has one.
fn attention(runs: &[Told], titles: &TitleArgs) -> Anyhow<Section> {
    let mut parts = Vec::new();
    for run in runs {
        let found = match run.finished() {
            Ok(finished) => attention_of(run, finished, titles)?.unwrap_or_else(|| {
                let why = "no component that weighs a history, or no history long enough";
                Part::Missing(format!("{}: {why}.", run.name))
            }),
            Err(why) => Part::Missing(why),
        };
        parts.push(found);
    }
    Ok(Section {
        title: "Attention".into(),
        parts,
    })
}

fn attention_of(run: &Told, finished: &Finished, titles: &TitleArgs) -> Anyhow<Option<Part>> {
    let Some(rows) = &run.rows else {
        return Ok(None);
    };
    let Ok(mut trained) = finished.on_burn() else {
        return Ok(None);
    };
    let reader = Reader::new(finished, titles)?;
    let asking = reader.most_shared(&mut trained, &rows.data, MAP_SHORTEST, MAP_ROWS)?;
    let map = reader.map(&mut trained, &rows.data, &asking, MAP_ITEMS)?;
    let Some(map) = map else { return Ok(None) };
    let mut drawn = map.as_heat_map();
    let title = format!("What each candidate looks at: {}", run.name);
    drawn.title = &title;
    let caption = format!(
        "A row is an item of one history of the {} rows, oldest first; a column is a candidate that was \
         shown to the same person, with the model's prediction. The darker, the more the item counts \
         when this candidate is asked about; red weighs against it. Of a longer history the {MAP_ITEMS} \
         heaviest items are shown.",
        rows.part
    );
    let picture = crossfield_report::Picture::heat_map(&drawn, caption)?;
    Ok(Some(Part::Pictures(vec![picture])))
}
