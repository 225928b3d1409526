//! benches/all.toml.

use std::path::Path;

use serde::Deserialize;

/// What is run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) seeds: Vec<u64>,
    pub(crate) data: Vec<Data>,
}

/// A data set with its models.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Data {
    pub(crate) name: String,
    /// What a reader has to know of it.
    pub(crate) about: String,
    pub(crate) runs: Vec<Model>,
}

/// A model of a data set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) model: String,
    /// A run file of `configs/`, without its ending.
    pub(crate) preset: String,
    /// Keys that are set otherwise, as `--set` takes them.
    #[serde(default)]
    pub(crate) set: Vec<String>,
    /// By which averages name it.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The runs of the same seed that it averages, by their names.
    #[serde(default)]
    pub(crate) average: Vec<String>,
}

impl Plan {
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let text = std::fs::read_to_string(file)?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()).into())
    }
}

impl Data {
    /// The folder of one of its runs: by name, or by place.
    pub(crate) fn folder(&self, model: &Model, seed: u64) -> String {
        let words = |text: &str| -> String {
            let letters = text.chars().map(|letter| match letter {
                'a'..='z' | '0'..='9' => letter,
                'A'..='Z' => letter.to_ascii_lowercase(),
                _ => '-',
            });
            let letters: String = letters.collect();
            let words: Vec<&str> = letters.split('-').filter(|word| !word.is_empty()).collect();
            words.join("-")
        };
        match &model.name {
            Some(name) => format!("{name}.{seed}"),
            None => format!("{}.{}.{seed}", words(&self.name), words(&model.model)),
        }
    }
}
