//! `explain`: what the score of a row is made of, and which weights are the heaviest.

use std::path::PathBuf;
use std::sync::Arc;

use crossfield_core::{Contribution, Feature, Model, What};
use crossfield_data::{FittedSchema, Labels};
use crossfield_train::{Error, Scorer, in_pool};

use crate::attention::Reader;
use crate::console::{joined, nine_digits};
use crate::lists::TitleArgs;
use crate::run::{Anyhow, Finished, print};
use crate::weights::heaviest;

/// Features of a row beyond which its pairs are too many to be named one by one.
const MOST_FEATURES: usize = 2000;

/// `crossfield explain`.
#[derive(clap::Args, Debug)]
pub(crate) struct ExplainArgs {
    /// A finished run.
    run: PathBuf,
    /// Files of rows, in the format of the run's data; the label column may be missing. Without them
    /// the heaviest weights of the model's linear terms are listed.
    #[arg(long, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// The row, from 1, over all files: the one whose prediction is on that line of `predict`
    /// [default: 1].
    #[arg(long, value_name = "N", requires = "data")]
    row: Option<usize>,
    /// Contributions to print, of which the smaller ones are added up in one line; or weights.
    #[arg(long, value_name = "K", default_value_t = 40)]
    top: usize,
    /// Draws what the row's candidate looks at in the history, an SVG file; beside it the candidates
    /// of other rows of the same history.
    #[cfg(feature = "report")]
    #[arg(long, value_name = "FILE", requires = "data")]
    heat_map: Option<PathBuf>,
    #[command(flatten)]
    titles: TitleArgs,
}

pub(crate) fn explain(args: &ExplainArgs) -> Anyhow<()> {
    let finished = Finished::open(&args.run, &[])?;
    if args.data.is_empty() {
        return print(&heaviest(&finished, args.top)?);
    }
    let row = args.row.unwrap_or(1);
    let data = finished.encode(&args.data, Labels::Optional)?;
    let place = row.checked_sub(1).filter(|&row| row < data.len());
    let place = place.ok_or_else(|| Error::Option {
        option: format!("--row {row}"),
        reason: format!(
            "expected 1 to {}, a row of {}",
            data.len(),
            args.data.join(" ")
        ),
    })?;
    let mut trained = finished.on_burn()?;
    let batch = Arc::new(data.batch(&[place as u32]));
    let features: usize = batch.sparse.iter().map(|field| field.indices.len()).sum();
    if features > MOST_FEATURES {
        return Err(Error::Option {
            option: format!("--row {row}"),
            reason: format!(
                "has {features} features, {} pairs: expected at most {MOST_FEATURES} features",
                features * (features - 1) / 2
            ),
        }
        .into());
    }
    let (score, mut parts) = in_pool(finished.run.train.threads, || {
        let (lookup, _) = trained.tables.stage(batch, &trained.device);
        let score = trained.model.score(&lookup).into_scalar::<f32>();
        (score, trained.model.explain(&lookup))
    })?;
    let (output, shift) = (trained.output(), trained.output().shift());
    if shift != 0.0 {
        parts.push(Contribution {
            row: 0,
            what: What::Named("down-sampling".to_owned()),
            weight: shift as f32,
            contribution: shift as f32,
        });
    }
    // Of parts of one size the first stays first.
    parts.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
    let mut text = format!(
        "score       {}\nprediction  {}\n\n",
        nine_digits(f64::from(score) + shift),
        nine_digits(output.prediction(score)),
    );
    text += &lines(&finished.fitted, &parts, args.top);
    let reader = Reader::new(&finished, &args.titles)?;
    text += &reader.lines(&mut trained, &data, place as u32, args.top)?;
    #[cfg(feature = "report")]
    if let Some(file) = &args.heat_map {
        let others = (0..data.len() as u32).filter(|&other| other != place as u32);
        let rows: Vec<u32> = std::iter::once(place as u32).chain(others).collect();
        reader.draw(&mut trained, &data, &rows, args.top, file)?;
        eprintln!("drawn in {}", file.display());
    }
    print(&text)
}

/// Contributions, the largest first, line by line, and their sum.
fn lines(fitted: &FittedSchema, parts: &[Contribution], top: usize) -> String {
    let mut text = String::new();
    let (shown, rest) = parts.split_at(top.min(parts.len()));
    for part in shown {
        let number = format!("{:>+10.6}  ", part.contribution);
        let name = |feature: &Feature| fitted.name(feature.field, feature.index, feature.value);
        text += &number;
        text += &match &part.what {
            What::Bias => "bias".to_owned(),
            What::Linear(feature) => joined(number.len(), &name(feature)),
            What::Pair(a, b) => joined(number.len(), &format!("{} & {}", name(a), name(b))),
            What::History(target, past) => {
                joined(number.len(), &format!("{} & {}", name(past), name(target)))
            }
            What::Named(name) => name.clone(),
            other => format!("{other:?}"),
        };
        text.push('\n');
    }
    let sum = |parts: &[Contribution]| {
        let each = parts.iter().map(|part| f64::from(part.contribution));
        each.sum::<f64>()
    };
    if !rest.is_empty() {
        text += &format!("and {} smaller ones: {:+.6}\n", rest.len(), sum(rest));
    }
    text + &format!("{:>+10.6}  sum\n", sum(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_and_the_rest_is_one_line_of_at_most_forty_characters() {
        let fitted = FittedSchema::libffm(2_000_000, 30).expect("a small model");
        let feature = |field, index, value| Feature {
            field,
            index,
            value,
        };
        let part = |what, contribution| Contribution {
            row: 0,
            what,
            weight: 1.0,
            contribution,
        };
        let (a, b) = (feature(1, 7, 1.0), feature(2, 9, 0.5));
        let long = feature(29, 1_234_567, -0.25);
        let parts = [
            part(What::Bias, -2.0),
            part(What::Pair(a, b), 1.5),
            part(What::Pair(a, long), -0.5),
            part(What::Linear(a), 0.25),
            part(What::Named("deep".into()), 0.125),
        ];
        assert_eq!(
            lines(&fitted, &parts, 3),
            " -2.000000  bias\n \
             +1.500000  1=7 & 2=9 × 0.5\n \
             -0.500000  1=7 & 29=1234567 × -0.25\n\
             and 2 smaller ones: +0.375000\n \
             -0.625000  sum\n"
        );
        let both = [part(What::Pair(long, long), 1.0)];
        assert_eq!(
            lines(&fitted, &both, 40),
            " +1.000000  29=1234567 × -0.25\n\
             \x20           & 29=1234567 × -0.25\n \
             +1.000000  sum\n"
        );
    }
}
