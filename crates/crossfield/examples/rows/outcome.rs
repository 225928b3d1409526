//! Training on the same rows, and a table of what came of it.

use crossfield::core::metrics::Report;
use crossfield::core::{ComponentConfig, Scored};
use crossfield::train::{Error, Finished, Training};

/// A run of the same settings and rows in a folder of its own.
pub(crate) fn fit<C>(
    training: &Training,
    name: &str,
    config: C,
) -> Result<Finished<Scored<C::Component>>, Error>
where
    C: ComponentConfig + Send + Sync + 'static,
{
    let training = Training {
        out: training.out.join(name),
        ..training.clone()
    };
    training.fit(config)
}

/// Test figures, one line each.
pub(crate) fn table(lines: &[(&str, Option<&Report>)]) -> String {
    let mut text = "                logloss     AUC".to_owned();
    for (name, report) in lines {
        let figure = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
        let (logloss, auc) = report.map_or((None, None), |report| (report.logloss, report.auc));
        text += &format!("\n{name:<14}  {:.5}  {:.4}", figure(logloss), figure(auc));
    }
    text
}
