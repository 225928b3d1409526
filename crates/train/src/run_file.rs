//! Run files: reading, overriding, and saying what is wrong with them.

use std::path::Path;

use crossfield_data::{CrossConfig, DataConfig, DataSpec, FieldConfig, LabelConfig};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::write_whole;
use crate::{Error, OptimizerConfig, TrainConfig, TuneConfig};

/// A run file; `M` is the `[model]` section, which belongs to whoever knows the models.
///
/// ```
/// use crossfield_train::{Error, RunFile};
///
/// let text = "[data]\ntrain = 'a.csv'\n[model]\nkind = 'fm'\n";
/// let sets = ["train.epochs=3".to_owned()];
/// // `[model]` is whatever the caller can read: a plain table here.
/// let mut run = RunFile::<toml::Table>::parse(text, "a.toml", &sets)?;
/// assert_eq!(run.train.epochs(), 3);
/// // How many rows a step takes depends on the executor.
/// run.train.complete();
/// assert!(run.to_toml().contains("batch_size = 1024"));
///
/// let sets = ["train.epoch=3".to_owned()];
/// let error = RunFile::<toml::Table>::parse(text, "a.toml", &sets).unwrap_err();
/// assert!(matches!(error, Error::RunFile { .. }));
/// assert!(error.to_string().contains("did you mean `epochs`?"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFile<M> {
    /// Where rows come from.
    #[serde(default)]
    pub data: DataConfig,
    /// What is predicted.
    #[serde(default)]
    pub label: LabelConfig,
    /// The columns that models read.
    #[serde(default)]
    pub field: Vec<FieldConfig>,
    /// Values of several of them together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cross: Vec<CrossConfig>,
    /// The model.
    pub model: M,
    /// How it is updated.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How long, on what, from which seed.
    #[serde(default)]
    pub train: TrainConfig,
    /// What a search over settings draws; training ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tune: Option<TuneConfig>,
}

impl<M: Serialize + DeserializeOwned> RunFile<M> {
    /// Reads a run file and applies `key=value` overrides.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::RunFile`] with the nearest key for an unknown one, [`Error::Set`].
    pub fn read(path: &Path, sets: &[String]) -> Result<Self, Error> {
        read_toml(path, sets)
    }

    /// As [`read`](Self::read), from the text of a file called `name`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, name: &str, sets: &[String]) -> Result<Self, Error> {
        parse_toml(text, name, sets)
    }

    /// The run file of a table, as [`run_table`] gives it, that is called `name` and in which these keys
    /// have other values.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_table(
        mut table: toml::Table,
        name: &str,
        settings: &[(String, toml::Value)],
    ) -> Result<Self, Error> {
        for (key, value) in settings {
            let refuse = |reason| Error::Set {
                assignment: format!("{key}={value}"),
                reason,
            };
            set_value(&mut table, key, value.clone()).map_err(refuse)?;
        }
        understood(table).map_err(|message| Error::RunFile {
            place: name.to_owned(),
            message,
        })
    }

    /// The text of the run file, every default written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a run file is made of tables, lists, texts and numbers")
    }

    /// Writes the complete run file: all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        write_whole(path, &self.to_toml())
    }

    /// Writes out the defaults that the format, the kinds of fields and of crosses imply.
    pub fn complete_data(&mut self) {
        let DataSpec {
            data,
            label,
            field,
            cross,
        } = self.data_spec().complete();
        (self.data, self.label, self.field, self.cross) = (data, label, field, cross);
    }

    /// The part that describes data.
    pub fn data_spec(&self) -> DataSpec {
        DataSpec {
            data: self.data.clone(),
            label: self.label.clone(),
            field: self.field.clone(),
            cross: self.cross.clone(),
        }
    }
}

/// Reads a file in the manner of run files: `key=value` overrides, and errors that name the line and
/// the nearest key.
///
/// # Errors
/// [`Error::Io`], [`Error::RunFile`] with the nearest key for an unknown one, [`Error::Set`].
pub fn read_toml<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
    parse_toml(&text, &path.display().to_string(), sets)
}

fn parse_toml<T: DeserializeOwned>(text: &str, name: &str, sets: &[String]) -> Result<T, Error> {
    let table = run_table(text, name, sets)?;
    understood(table).map_err(|message| {
        // The table has no positions any more; the text as it stands may still have them.
        let span = toml::from_str::<T>(text)
            .err()
            .and_then(|error| error.span());
        Error::RunFile {
            place: span.map_or(name.to_owned(), |span| at_line(text, name, span.start)),
            message,
        }
    })
}

/// What a table says; else what is wrong with it.
fn understood<T: DeserializeOwned>(table: toml::Table) -> Result<T, String> {
    serde_path_to_error::deserialize(table).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, error.inner().message())
    })
}

fn at_line(text: &str, name: &str, at: usize) -> String {
    format!("{name}:{}", text[..at].matches('\n').count() + 1)
}

/// The text of a run file called `name` as a table with `key=value` overrides applied, whether or not
/// its keys mean anything.
///
/// # Errors
/// [`Error::RunFile`] for what is not TOML, [`Error::Set`].
///
/// ```
/// let sets = ["train.epochs=3".to_owned()];
/// let table = crossfield_train::run_table("[train]\nseed = 2", "a.toml", &sets)?;
/// assert_eq!(table["train"]["epochs"].as_integer(), Some(3));
/// # Ok::<(), crossfield_train::Error>(())
/// ```
pub fn run_table(text: &str, name: &str, sets: &[String]) -> Result<toml::Table, Error> {
    let mut table: toml::Table = toml::from_str(text).map_err(|error| Error::RunFile {
        place: error
            .span()
            .map_or(name.to_owned(), |span| at_line(text, name, span.start)),
        message: error.message().to_owned(),
    })?;
    for assignment in sets {
        set(&mut table, assignment)?;
    }
    Ok(table)
}

/// Sets `a.b.0.c=value`, making tables on the way. The value is TOML, or else text.
fn set(table: &mut toml::Table, assignment: &str) -> Result<(), Error> {
    let refuse = |reason: String| Error::Set {
        assignment: assignment.to_owned(),
        reason,
    };
    let (key, text) = assignment
        .split_once('=')
        .ok_or_else(|| refuse("expected key=value, as in train.epochs=3".into()))?;
    let value = format!("value = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    set_value(table, key, value).map_err(refuse)
}

fn set_value(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), String> {
    let (parents, last) = match key.rsplit_once('.') {
        Some((parents, last)) => (parents.split('.').collect(), last),
        None => (Vec::new(), key),
    };
    if key.split('.').any(str::is_empty) {
        return Err("a part of the key is empty".into());
    }
    let mut at = table;
    let mut parents = parents.into_iter().peekable();
    while let Some(parent) = parents.next() {
        let next = at
            .entry(parent)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let next = match next {
            toml::Value::Array(items) => {
                let index = parents.next().unwrap_or(last);
                let count = items.len();
                index
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get_mut(index))
                    .ok_or_else(|| {
                        format!("`{parent}` is a list of {count}: `{index}` is not in it")
                    })?
            }
            other => other,
        };
        at = next
            .as_table_mut()
            .ok_or_else(|| format!("`{parent}` is a value, not a table"))?;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

/// Turns a message of serde about the value at `path` into one that names the key and the nearest
/// known one.
pub fn explain(path: &str, message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    if message.starts_with("unknown key") {
        // Already explained, by a section that reads itself.
        return message.to_owned();
    }
    let path = path.trim_matches('.');
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    for (what, start) in [("key", "unknown field"), ("value", "unknown variant")] {
        if let (true, Some((&unknown, known))) = (message.starts_with(start), quoted.split_first())
        {
            let parent = path
                .strip_suffix(unknown)
                .unwrap_or(path)
                .trim_end_matches('.');
            let place = match (what, parent) {
                ("key", "" | "?") => format!("`{unknown}`"),
                ("key", parent) => format!("`{parent}.{unknown}`"),
                (_, parent) => format!("`{unknown}` of `{parent}`"),
            };
            let advice = nearest(unknown, known)
                .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            return format!(
                "unknown {what} {place}{advice} (known: {})",
                known.join(", ")
            );
        }
    }
    if path.is_empty() || path == "?" {
        message.to_owned()
    } else {
        format!("`{path}`: {message}")
    }
}

/// The known name that is nearest to a mistyped one, if one is near.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|&known| (strsim::jaro_winkler(name, known), known))
        // One wrong letter of two is still near: `fn` is 0.7 like `fm`.
        .filter(|&(similarity, _)| similarity > 0.65)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Run = RunFile<toml::Table>;
    const TEXT: &str = "[data]\ntrain = 'a.csv'\n[[field]]\nname = 'user'\n[model]\nkind = 'fm'\n";

    fn error(text: &str, sets: &[&str]) -> String {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Run::parse(text, "a.toml", &sets).unwrap_err().to_string()
    }

    #[test]
    fn a_complete_run_file_reads_back_equal() {
        let mut run = Run::parse(TEXT, "a.toml", &[]).unwrap();
        run.complete_data();
        run.train.complete();
        let text = run.to_toml();
        assert!(text.contains("batch_size = 1024"), "{text}");
        assert_eq!(Run::parse(&text, "b.toml", &[]).unwrap(), run);
    }

    #[test]
    fn set_reaches_tables_lists_and_new_keys() {
        let sets = [
            "train.epochs=9",
            "field.0.name=item",
            "optimizer.rows.lr=0.5",
            "data.test=t.csv",
            "cross=[{fields=['user','item']}]",
            "cross.0.hash_rows=9",
        ]
        .map(str::to_owned);
        let run = Run::parse(TEXT, "a.toml", &sets).unwrap();
        assert_eq!(run.train.epochs(), 9);
        assert_eq!(run.field[0].name, "item");
        assert_eq!(run.optimizer.rows.lr, 0.5);
        assert_eq!(run.data.test, ["t.csv"]);
        assert_eq!(run.cross[0].hash_rows, Some(9));
    }

    #[test]
    fn unknown_keys_are_answered_with_the_nearest() {
        let message = error(&format!("{TEXT}[train]\nepoch = 3\n"), &[]);
        assert!(
            message.starts_with("a.toml:8: unknown key `train.epoch`: did you mean `epochs`?"),
            "{message}"
        );
        let message = error(
            &format!("{TEXT}[optimizer]\nrows = {{ kind = 'adagrat' }}\n"),
            &[],
        );
        assert!(message.contains("did you mean `adagrad`?"), "{message}");
        let message = error(TEXT, &["train.epoch=3"]);
        assert!(
            message.starts_with("a.toml: unknown key `train.epoch`: did you mean `epochs`?"),
            "{message}"
        );
    }

    #[test]
    fn what_is_not_toml_and_wrong_types_name_their_place() {
        assert!(error("[data\n", &[]).starts_with("a.toml:1: "));
        let message = error(&format!("{TEXT}[train]\nepochs = 'many'\n"), &[]);
        assert!(
            message.starts_with("a.toml:8: `train.epochs`: invalid type"),
            "{message}"
        );
        assert_eq!(
            error(TEXT, &["train"]),
            "--set train: expected key=value, as in train.epochs=3"
        );
        assert_eq!(
            error(TEXT, &["field.7.name=x"]),
            "--set field.7.name=x: `field` is a list of 1: `7` is not in it"
        );
    }
}
