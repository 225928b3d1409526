//! The planted ad log as the data of a run.

use crate::config::FieldConfig;
use crate::prepare::Generated;
use crate::synth::AdLog;

impl Generated for AdLog {
    fn name(&self) -> &str {
        "generated ad log"
    }

    fn header(&self) -> &[&str] {
        Self::HEADER
    }

    fn rows(&self) -> usize {
        self.len()
    }

    fn record(&self, row: usize, cells: &mut Vec<String>) {
        AdLog::record(self, row, cells);
    }

    fn probability(&self, row: usize) -> f32 {
        AdLog::probability(self, row)
    }
}

/// The fields of a run on the ad log that declares none.
pub(crate) fn default_fields() -> Vec<FieldConfig> {
    let fields = AdLog::default_fields().into_iter();
    let config = |field: crate::synth::SynthField| FieldConfig {
        name: field.name.to_owned(),
        kind: field.kind,
        vocabulary: Some(field.vocabulary.to_owned()),
        delimiter: field.delimiter.map(String::from),
        beside: (field.name == "history_category").then(|| "history".to_owned()),
        ..FieldConfig::default()
    };
    fields.map(config).collect()
}
