//! Rows without histories.

use std::path::Path;

use crossfield::train::{Error, Training};

/// Clicks of the planted ad log: ten fields of one value a row, no history.
pub(crate) fn ad_log(rows: usize, folder: &Path) -> Result<Training, Error> {
    let text = format!(
        "[data]
         format = 'synth'
         synth = {{ rows = {rows}, users = 2000, ads = 1000, campaigns = 60, sites = 40 }}
         [train]
         early_stop = {{ patience = 1 }}"
    );
    Training::parse(&text, folder)
}
