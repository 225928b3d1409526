//! `rank`: candidates for a context, best first.

use std::path::PathBuf;
use std::sync::Arc;

use crossfield_data::Candidates;
use crossfield_train::{Admissions, Error, Output, in_pool};

#[cfg(feature = "report")]
use crate::attention::Reader;
use crate::console::nine_digits;
#[cfg(feature = "report")]
use crate::lists::TitleArgs;
use crate::run::{Anyhow, Finished, label_kind, print};

/// Items of a history that a heat map shows, the heaviest.
#[cfg(feature = "report")]
const ITEMS: usize = 40;

/// `crossfield rank`.
#[derive(clap::Args, Debug)]
pub(crate) struct RankArgs {
    /// A finished run.
    run: PathBuf,
    /// A csv file with the columns of the context (a user, a page), a row for each context, in the
    /// format of the run's data; its first line names the columns.
    #[arg(long, value_name = "FILE")]
    context: String,
    /// A csv file of the same format with all other columns that the run reads, a row for each
    /// candidate.
    #[arg(long, value_name = "FILE")]
    candidates: String,
    /// Candidates to print for each context [default: all].
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Draws what the best candidates of the first context look at in the history, an SVG file.
    #[cfg(feature = "report")]
    #[arg(long, value_name = "FILE")]
    heat_map: Option<PathBuf>,
    #[cfg(feature = "report")]
    #[command(flatten)]
    titles: TitleArgs,
    /// Overrides a key of the run's run.toml, as in `train.executor=burn`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub(crate) fn rank(args: &RankArgs) -> Anyhow<()> {
    if args.top == Some(0) {
        return Err(Error::Option {
            option: "--top 0".into(),
            reason: "prints nothing: expected 1 or more".into(),
        }
        .into());
    }
    let finished = Finished::open(&args.run, &args.sets)?;
    let candidates = Candidates::open(
        &finished.run.data_spec(),
        &finished.fitted,
        &args.context,
        &args.candidates,
        label_kind(finished.run.train.loss),
    )?;
    let admissions = Admissions::open(&finished.directory, &finished.fitted)?;
    let mut scorer = finished.scorer()?;
    let output = scorer.output();
    for context in 0..candidates.contexts() {
        let data = admissions.look_up(Arc::new(candidates.encode(context)?));
        let mut scores = Vec::with_capacity(data.len());
        in_pool(finished.run.train.threads, || {
            scorer.score(&data, &mut |block| scores.extend_from_slice(block))
        })??;
        let number = (candidates.contexts() > 1).then_some(context + 1);
        let top = args.top.unwrap_or(scores.len());
        #[cfg(feature = "report")]
        if let Some(file) = args.heat_map.as_ref().filter(|_| context == 0) {
            let mut best = best_first(&scores);
            best.truncate(top);
            let reader = Reader::new(&finished, &args.titles)?;
            reader.draw(&mut finished.on_burn()?, &data, &best, ITEMS, file)?;
            eprintln!("drawn in {}", file.display());
        }
        print(&lines(&candidates, number, output, &scores, top))?;
    }
    Ok(())
}

/// Rank, prediction and cells of the best candidates, with a tab between them; before them the
/// number of the context, where there are several.
fn lines(
    candidates: &Candidates<'_>,
    context: Option<usize>,
    output: Output,
    scores: &[f32],
    top: usize,
) -> String {
    let mut text = String::new();
    for (rank, candidate) in (1..).zip(best_first(scores).into_iter().take(top)) {
        if let Some(context) = context {
            text += &format!("{context}\t");
        }
        let prediction = output.prediction(scores[candidate as usize]);
        text += &format!("{rank}\t{}", nine_digits(prediction));
        for cell in candidates.cells(candidate as usize) {
            text.push('\t');
            // A cell that was quoted may hold what separates cells here.
            text.extend(
                cell.chars()
                    .map(|letter| if letter == '\t' { ' ' } else { letter }),
            );
        }
        text.push('\n');
    }
    text
}

/// The places of the scores, the highest first; of equal ones the first stays first.
fn best_first(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    // Adding 0 turns −0 into 0: the two are equal.
    let score = |place: u32| scores[place as usize] + 0.0;
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_keep_their_order() {
        assert_eq!(best_first(&[0.5, -0.0, 2.0, 0.0, 2.0]), [2, 4, 0, 1, 3]);
    }
}
