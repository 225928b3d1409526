//! The sections `[data]`, `[label]`, `[[field]]` and `[[cross]]` of a run file.

use bytesize::ByteSize;
use crossfield_core::FieldKind;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Error;
pub use crate::line::Encoding;
use crate::planted;
use crate::raw::LabelKind;
use crate::synth::SynthConfig;

/// Where the data is and what of it is used: the run file's `[data]`, `[label]`, `[[field]]` and
/// `[[cross]]`.
///
/// ```
/// use crossfield_data::{DataSpec, FieldConfig};
/// let mut spec = DataSpec::default();
/// spec.data.train = vec!["clicks.csv".into()];
/// spec.field = vec![FieldConfig { name: "item".into(), ..FieldConfig::default() }];
/// assert_eq!(spec.complete().field[0].min_count, Some(1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    /// `[data]`.
    pub data: DataConfig,
    /// `[label]`.
    pub label: LabelConfig,
    /// `[[field]]`.
    pub field: Vec<FieldConfig>,
    /// `[[cross]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cross: Vec<CrossConfig>,
}

impl DataSpec {
    /// Share of the traffic's rows of label 0 that are left in the training part: what the train
    /// files hold of them, and what is kept of those.
    pub fn negative_rate(&self) -> f64 {
        self.label.negative_rate * self.data.keep_negatives
    }

    /// Whether the shares of rows of label 0 are shares, and the labels are such that there are some.
    pub(crate) fn check_negatives(&self, label: LabelKind) -> Result<(), Error> {
        for (key, share) in [
            ("label.negative_rate", self.label.negative_rate),
            ("data.keep_negatives", self.data.keep_negatives),
        ] {
            let expected = if !(share > 0.0 && share <= 1.0) {
                "a share above 0, at most 1"
            } else if share < 1.0 && label == LabelKind::Number {
                "1: only the labels 0 and 1, under a loss of clicks, have negatives"
            } else if share < 1.0 && self.label.only_positive {
                "1: label.only_positive leaves no negatives"
            } else {
                continue;
            };
            return Err(Error::Config {
                key: key.to_owned(),
                value: share.to_string(),
                expected: expected.to_owned(),
            });
        }
        Ok(())
    }

    /// The same with every default that its format and its kinds of fields imply written out.
    pub fn complete(&self) -> Self {
        let mut label = self.label.clone();
        if self.data.format == Format::Synth && label.column == LabelConfig::default().column {
            label.column = "click".to_owned();
        }
        let planted = if self.data.format == Format::Synth && self.field.is_empty() {
            planted::default_fields()
        } else {
            Vec::new()
        };
        let fields = self.field.iter().chain(&planted);
        let mut field: Vec<_> = (fields.map(|field| field.complete(self.data.format))).collect();
        complete_targets(&mut field);
        Self {
            data: self.data.complete(),
            label,
            field,
            cross: self.cross.iter().map(CrossConfig::complete).collect(),
        }
    }
}

/// Names the target of each sequence that names none: the categorical field of its vocabulary, if
/// there is exactly one.
fn complete_targets(fields: &mut [FieldConfig]) {
    let targets: Vec<_> = (fields.iter())
        .map(|field| {
            let is_target = |other: &&FieldConfig| {
                other.kind == FieldKind::Categorical && other.vocabulary == field.vocabulary
            };
            let mut found = fields.iter().filter(is_target);
            let target = found.next().filter(|_| found.next().is_none());
            target.map(|target| target.name.clone())
        })
        .collect();
    for (field, target) in fields.iter_mut().zip(targets) {
        if field.kind == FieldKind::Sequence && field.target.is_none() {
            field.target = target;
        }
    }
}

/// The format of data files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Lines of cells between separators.
    #[default]
    Csv,
    /// `label index:value …`; the index is a row number.
    Libsvm,
    /// `label field:index:value …`; the index is a row number.
    Libffm,
    /// Like csv, tab-separated, with the columns `user item rating timestamp`.
    Ratings,
    /// The generated ad log.
    Synth,
    /// Parquet files: columns by name. Lists are bags and sequences, and a null is a missing value.
    /// Needs the feature `parquet`.
    Parquet,
}

impl Format {
    /// Whether the indices in the file are row numbers.
    pub(crate) fn is_indexed(self) -> bool {
        matches!(self, Self::Libsvm | Self::Libffm)
    }
}

/// `[data]`: files, their format and how they are split. Paths are relative to the current
/// directory; `$NAME` and `${NAME}` in them are replaced from the environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Format of all files. Default: csv.
    pub format: Format,
    /// Files to train on: a path or a list; `.gz` and `.zst` are decompressed. `*`, `?` and `[…]`
    /// stand for all files that match, sorted by name, unless there is a file of just that name.
    #[serde(deserialize_with = "one_or_many")]
    pub train: Vec<String>,
    /// Files to validate on. Default: none.
    #[serde(deserialize_with = "one_or_many")]
    pub valid: Vec<String>,
    /// Files to test on. Default: none.
    #[serde(deserialize_with = "one_or_many")]
    pub test: Vec<String>,
    /// Which rows of the train files become validation and test rows. Parts that have files of
    /// their own are not split off. Default: none; of a generated log `random`, a tenth each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitConfig>,
    /// Share of the training part's rows of label 0 that are trained on, drawn by the run's seed
    /// after the split; predictions are corrected for it. Default: 1. Above 0.
    pub keep_negatives: f64,
    /// One ASCII character between cells. Default: `,`, for ratings a tab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separator: Option<String>,
    /// Whether the first line names the columns, or their names. Default: true, for ratings
    /// `["user", "item", "rating", "timestamp"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Header>,
    /// Default: utf-8.
    pub encoding: Encoding,
    /// Whether blanks around cells are dropped. Default: true.
    pub trim: bool,
    /// Cells that stand for a missing value: numerics become the mean plus an indicator,
    /// categoricals a value of their own. Default: the empty cell.
    #[serde(deserialize_with = "one_or_many")]
    pub missing: Vec<String>,
    /// Largest index of a libsvm or libffm file; it is a row number. Default: 2147483647.
    pub max_index: u64,
    /// Which row an index of a libsvm or libffm file has that no training row has. Default: shared.
    pub unseen: Unseen,
    /// Longest line in bytes. Default: 1 MiB.
    pub max_line: usize,
    /// Folder of the binary cache: encoded rows, mapped by later runs on the same data. Default:
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Rows that stay together when the training rows are shuffled, so that a cache larger than
    /// memory is read in stretches. Default: 0, all rows are shuffled as one.
    pub shuffle_block: usize,
    /// Whether training rows are read block by block, each epoch anew, so that memory does not grow
    /// with the files. Default: false.
    #[serde(skip_serializing_if = "is_false")]
    pub stream: bool,
    /// Rows of a block that is read at once; those of a block are shuffled. Default: 131072.
    #[serde(skip_serializing_if = "is_block_rows")]
    pub block_rows: usize,
    /// Whether an epoch visits the training rows in the order of their files, as logs in order of
    /// time need it. Default: false, they are shuffled.
    #[serde(skip_serializing_if = "is_false")]
    pub in_order: bool,
    /// Memory for what is counted and collected while rows are read block by block, such as
    /// "512MB"; what does not fit is spilled to files, in the folder of the cache if there is one.
    /// Default: 512MB.
    #[serde(skip_serializing_if = "is_memory")]
    pub memory: String,
    /// A finished run that this one goes on from, as `train --continue` has it: its vocabularies, to
    /// which new values are added, its transforms, and its weights. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continue_from: Option<String>,
    /// Side files joined to csv and ratings tables.
    pub join: Vec<JoinConfig>,
    /// Size and shape of the generated log. Default: [`SynthConfig::default`] where the format is
    /// synth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub synth: Option<SynthConfig>,
}

/// Rows of a block, unless `data.block_rows` says otherwise.
const BLOCK_ROWS: usize = 1 << 17;

/// What may be collected, unless `data.memory` says otherwise.
const MEMORY: &str = "512MB";

fn is_memory(text: &str) -> bool {
    text == MEMORY
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_block_rows(rows: &usize) -> bool {
    *rows == BLOCK_ROWS
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            format: Format::Csv,
            train: Vec::new(),
            valid: Vec::new(),
            test: Vec::new(),
            split: None,
            keep_negatives: 1.0,
            separator: None,
            header: None,
            encoding: Encoding::Utf8,
            trim: true,
            missing: vec![String::new()],
            max_index: 2_147_483_647,
            unseen: Unseen::Shared,
            max_line: 1 << 20,
            cache: None,
            shuffle_block: 0,
            stream: false,
            block_rows: BLOCK_ROWS,
            in_order: false,
            memory: MEMORY.to_owned(),
            continue_from: None,
            join: Vec::new(),
            synth: None,
        }
    }
}

impl DataConfig {
    /// Refuses keys of text files where the files are none.
    pub(crate) fn check_parquet(&self) -> Result<(), Error> {
        if self.format != Format::Parquet {
            return Ok(());
        }
        if !cfg!(feature = "parquet") {
            return Err(Error::Config {
                key: "data.format".to_owned(),
                value: "parquet".to_owned(),
                expected: "another format: this build lacks the feature `parquet`".to_owned(),
            });
        }
        for (key, set) in [
            ("data.separator", self.separator.is_some()),
            ("data.header", self.header.is_some()),
            ("data.join", !self.join.is_empty()),
            ("data.encoding", self.encoding != Encoding::Utf8),
        ] {
            if set {
                return Err(Error::Config {
                    key: key.to_owned(),
                    value: "(set)".to_owned(),
                    expected: "no such key with parquet".to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Leaves the files of the test part out. A split takes no other rows in their place: the other
    /// parts are as they were.
    ///
    /// ```
    /// use crossfield_data::{DataConfig, SplitConfig};
    ///
    /// let mut data = DataConfig {
    ///     test: vec!["test.csv".into()],
    ///     split: Some(SplitConfig::Random { valid: 0.1, test: 0.2 }),
    ///     ..DataConfig::default()
    /// };
    /// data.leave_out_test_files();
    /// assert!(data.test.is_empty());
    /// assert_eq!(data.split, Some(SplitConfig::Random { valid: 0.1, test: 0.0 }));
    /// ```
    pub fn leave_out_test_files(&mut self) {
        if self.test.is_empty() {
            return;
        }
        self.test.clear();
        match &mut self.split {
            Some(SplitConfig::Random { test, .. } | SplitConfig::Time { test, .. }) => *test = 0.0,
            Some(SplitConfig::LeaveLast { test, .. }) => *test = false,
            Some(SplitConfig::Rows { test, .. }) => *test = None,
            None => {}
        }
    }

    /// Holds a tenth of the training rows out for validation, unless there are validation rows or
    /// a split already. Whether it did.
    ///
    /// ```
    /// use crossfield_data::DataConfig;
    ///
    /// let mut data = DataConfig::default();
    /// assert!(data.hold_out());
    /// assert!(!data.hold_out());
    /// ```
    pub fn hold_out(&mut self) -> bool {
        let no_valid = self.valid.is_empty() && self.complete().split.is_none();
        if no_valid {
            self.split = Some(SplitConfig::Random {
                valid: 0.1,
                test: 0.0,
            });
        }
        no_valid
    }

    /// What `memory` says, in bytes.
    pub(crate) fn memory_bytes(&self) -> Result<usize, Error> {
        let bytes = self.memory.parse().ok().map(|size: ByteSize| size.as_u64());
        let least = ByteSize::mb(1).as_u64();
        let bytes = bytes.filter(|&bytes| bytes >= least);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        bytes.ok_or_else(|| Error::Config {
            key: "data.memory".to_owned(),
            value: self.memory.clone(),
            expected: "a size such as \"512MB\", at least 1MB".to_owned(),
        })
    }

    /// What decides how rows are read, and nothing about what they are, as if it was never set.
    pub(crate) fn without_ways(&self) -> Self {
        let default = Self::default();
        Self {
            cache: None,
            shuffle_block: default.shuffle_block,
            stream: default.stream,
            block_rows: default.block_rows,
            in_order: default.in_order,
            memory: default.memory,
            ..self.clone()
        }
    }

    /// The same with every default that the format implies written out.
    pub fn complete(&self) -> Self {
        let mut complete = self.clone();
        let (separator, header) = match self.format {
            Format::Csv => (",", Header::Present(true)),
            Format::Ratings => (
                "\t",
                Header::Names(
                    ["user", "item", "rating", "timestamp"]
                        .map(str::to_owned)
                        .to_vec(),
                ),
            ),
            Format::Synth => {
                complete.synth.get_or_insert_default();
                complete.split.get_or_insert(SplitConfig::Random {
                    valid: 0.1,
                    test: 0.1,
                });
                (",", Header::Present(true))
            }
            Format::Libsvm | Format::Libffm | Format::Parquet => return complete,
        };
        complete.separator.get_or_insert(separator.to_owned());
        complete.header.get_or_insert(header);
        complete
    }
}

/// What becomes of the indices of a libsvm or libffm file that no training row has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unseen {
    /// All share one row, which begins at zero and adds nothing to a score.
    #[default]
    Shared,
    /// Up to the largest index of training each has a row of its own, which stays as it began, as
    /// libffm and libFM have it; only those beyond share the row of zeros.
    Own,
}

/// Whether a file names its columns in its first line, or their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Header {
    /// `true`: the first line names the columns. `false`: they are called `0`, `1`, ….
    Present(bool),
    /// The file has no header; these are the names.
    Names(Vec<String>),
}

impl Default for Header {
    fn default() -> Self {
        Self::Present(true)
    }
}

/// How validation and test rows are taken from the rows of the train files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SplitConfig {
    /// Shares of all rows, drawn by the run's seed.
    Random {
        /// Share of validation rows, 0 for none.
        #[serde(default)]
        valid: f64,
        /// Share of test rows, 0 for none.
        #[serde(default)]
        test: f64,
    },
    /// The latest rows are test rows, those before them validation rows; ties by row order.
    Time {
        /// The numeric column that orders the rows.
        column: String,
        /// Share of validation rows, 0 for none.
        #[serde(default)]
        valid: f64,
        /// Share of test rows, 0 for none.
        #[serde(default)]
        test: f64,
    },
    /// Each user's last row is a test row, the one before it a validation row. Users who would have
    /// no row left stay in training.
    LeaveLast {
        /// The column that names the user.
        user: String,
        /// The numeric column that orders a user's rows; ties by row order.
        time: String,
        /// Whether validation rows are taken.
        #[serde(default = "yes")]
        valid: bool,
        /// Whether test rows are taken.
        #[serde(default = "yes")]
        test: bool,
    },
    /// Row numbers listed in files, counted from 0 over all train files, one a line.
    Rows {
        /// File of the test rows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        test: Option<String>,
        /// File of the validation rows, or a share of the rows that are not test rows, drawn by
        /// the run's seed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        valid: Option<RowsPart>,
    },
}

fn yes() -> bool {
    true
}

/// Rows of a part: a share, or a file that lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RowsPart {
    /// A share of the rows, drawn by the run's seed.
    Share(f64),
    /// A file of row numbers from 0, one a line.
    File(String),
}

/// `[[data.join]]`: a side file whose columns are added to each row by a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JoinConfig {
    /// The side file.
    pub file: String,
    /// The key column, of this name in both files. It may come from an earlier join.
    pub on: String,
    /// One ASCII character between cells. Default: `,`.
    pub separator: String,
    /// Whether the first line names the columns, or their names. Default: true.
    pub header: Header,
    /// Default: utf-8.
    pub encoding: Encoding,
}

impl Default for JoinConfig {
    fn default() -> Self {
        Self {
            file: String::new(),
            on: String::new(),
            separator: ",".to_owned(),
            header: Header::Present(true),
            encoding: Encoding::Utf8,
        }
    }
}

/// `[label]`: what is predicted, and how rows count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelConfig {
    /// The label's column. Default: `label`; of a generated log `click`.
    pub column: String,
    /// Values that are 1; all others are 0, or an error if `negative` is given.
    #[serde(deserialize_with = "one_or_many")]
    pub positive: Vec<String>,
    /// Values that are 0.
    #[serde(deserialize_with = "one_or_many")]
    pub negative: Vec<String>,
    /// Numbers from here on are 1, those below are 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Whether rows whose label is 0 are left out, before anything is split or counted: for models
    /// that learn from what people did and not from ratings. Default: false. (csv, ratings, synth)
    pub only_positive: bool,
    /// Share of the rows of label 0 that the train files still hold, of all that there were:
    /// predictions are corrected for it. Files of `data.valid` and `data.test` hold all. Default: 1.
    /// Above 0.
    pub negative_rate: f64,
    /// The column of the sample weights. Default: none, all rows weigh 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// The column of the groups (users, queries) for GAUC. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl Default for LabelConfig {
    fn default() -> Self {
        Self {
            column: "label".to_owned(),
            positive: Vec::new(),
            negative: Vec::new(),
            threshold: None,
            only_positive: false,
            negative_rate: 1.0,
            weight: None,
            group: None,
        }
    }
}

/// `[[field]]`: a column and how it reaches the model. Keys that do not belong to the kind are
/// errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FieldConfig {
    /// Name, unique in a run file.
    pub name: String,
    /// Default: categorical.
    pub kind: FieldKind,
    /// The column. Default: the field's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Of a bag columns of 0 and 1: the names of those that are 1. Of a sequence the columns of its
    /// values, oldest first; `a..b` stands for all columns from `a` to `b`. (bag, sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// The vocabulary; fields of the same one share rows. Default: the field's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
    /// Values seen less often in training are out of vocabulary. Default: 1. (categorical, bag,
    /// sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_count: Option<u64>,
    /// A finished run whose keys of the same vocabulary have rows here too, whether or not a training
    /// row has them: so that what it knows of them (`optimizer.table.init_from`) has a place.
    /// Default: none. (categorical, bag, sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_from: Option<String>,
    /// What separates the values of a list. Default: `|`. (bag, sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// What separates a value from its weight, as in `a:2|b:0.5`. Default: no weights. (bag,
    /// sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_delimiter: Option<String>,
    /// Default: sum. (bag)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Default: standardise. (numeric)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformKind>,
    /// Number of quantiles, default 33 (`transform = "quantile"`), or the edges themselves
    /// (`transform = "buckets"`). (numeric)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buckets: Option<Buckets>,
    /// Rows that the values are hashed into. Default: 100000. (hashed)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_rows: Option<u32>,
    /// Rows for values as they come, in place of `hash_rows`. Default: none. (hashed)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admit: Option<AdmitConfig>,
    /// Only the last so many of a sequence are kept; 0 keeps all. Default: 0. (sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_len: Option<u32>,
    /// What stands in a column where there is no value. Default: nothing but what `data.missing`
    /// has. (sequence, with `columns`)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<String>,
    /// The field whose past this is: a categorical one of the same vocabulary. Its own value must
    /// not be in the sequence. Default: the one such field, if there is exactly one. (sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Whether the sequence may hold the target's value, for people come back to what they had.
    /// Default: false; of a generated log, and with `beside`, true. (sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<bool>,
    /// The column of the times of the values, delimited as these are: they do not fall, and lie
    /// before that of the row. Default: none. (sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<String>,
    /// The column of the row's own time. (sequence, with `times`)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// A sequence that this one describes value by value, as categories do items: in each row it is
    /// as long. Default: none. (sequence)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
}

impl FieldConfig {
    /// The same with every default of its kind written out.
    pub fn complete(&self, format: Format) -> Self {
        let mut complete = self.clone();
        if self.columns.is_none() {
            complete.column.get_or_insert(self.name.clone());
        }
        complete.vocabulary.get_or_insert(self.name.clone());
        match self.kind {
            FieldKind::Categorical => {
                complete.min_count.get_or_insert(1);
            }
            FieldKind::Bag => {
                complete.pooling.get_or_insert(Pooling::Sum);
                if !format.is_indexed() {
                    complete.min_count.get_or_insert(1);
                    if self.columns.is_none() {
                        complete.delimiter.get_or_insert("|".to_owned());
                    }
                }
            }
            FieldKind::Sequence => {
                complete.min_count.get_or_insert(1);
                if self.columns.is_none() {
                    complete.delimiter.get_or_insert("|".to_owned());
                }
                complete.max_len.get_or_insert(0);
                let repeats = format == Format::Synth || self.beside.is_some();
                complete.repeats.get_or_insert(repeats);
            }
            FieldKind::Numeric => {
                let transform = *complete.transform.get_or_insert(TransformKind::Standardise);
                if transform == TransformKind::Quantile {
                    complete.buckets.get_or_insert(Buckets::Count(33));
                }
            }
            FieldKind::Hashed => {
                if self.admit.is_none() {
                    complete.hash_rows.get_or_insert(100_000);
                }
            }
            // Refused by `check`.
            FieldKind::Cross => {}
        }
        complete
    }

    /// The key that this kind does not have, if one is set.
    pub(crate) fn check(&self, format: Format) -> Result<(), Error> {
        use FieldKind::{Bag, Categorical, Hashed, Numeric, Sequence};
        let indexed = format.is_indexed();
        let fail = |key: &str, value: String, expected: String| {
            let key = format!("field `{}`: {key}", self.name);
            Err(Error::Config {
                key,
                value,
                expected,
            })
        };
        if self.kind == FieldKind::Cross {
            let expected = "a kind of column: crosses are declared under [[cross]]".to_owned();
            return fail("kind", "cross".to_owned(), expected);
        }
        if indexed && self.kind != Bag {
            let kind = self.kind.name().to_owned();
            return fail("kind", kind, "`bag` in a libsvm or libffm file".to_owned());
        }
        let lists: &[FieldKind] = &[Bag, Sequence];
        let learned: &[FieldKind] = if indexed {
            &[]
        } else {
            &[Categorical, Bag, Sequence]
        };
        let lists = if indexed || self.columns.is_some() {
            &[]
        } else {
            lists
        };
        let keys: [(&str, bool, &[FieldKind]); 17] = [
            (
                "columns",
                self.columns.is_some(),
                if indexed { &[] } else { &[Bag, Sequence] },
            ),
            ("min_count", self.min_count.is_some(), learned),
            ("keys_from", self.keys_from.is_some(), learned),
            ("delimiter", self.delimiter.is_some(), lists),
            ("weight_delimiter", self.weight_delimiter.is_some(), lists),
            ("pooling", self.pooling.is_some(), &[Bag]),
            ("transform", self.transform.is_some(), &[Numeric]),
            ("buckets", self.buckets.is_some(), &[Numeric]),
            ("hash_rows", self.hash_rows.is_some(), &[Hashed]),
            ("admit", self.admit.is_some(), &[Hashed]),
            ("max_len", self.max_len.is_some(), &[Sequence]),
            ("padding", self.padding.is_some(), &[Sequence]),
            ("target", self.target.is_some(), &[Sequence]),
            ("repeats", self.repeats.is_some(), &[Sequence]),
            ("times", self.times.is_some(), &[Sequence]),
            ("time", self.time.is_some(), &[Sequence]),
            ("beside", self.beside.is_some(), &[Sequence]),
        ];
        for (key, set, kinds) in keys {
            if set && !kinds.contains(&self.kind) {
                let owners: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                let owners = if owners.is_empty() {
                    "no such key here".to_owned()
                } else {
                    format!("it only in fields of kind {}", owners.join(", "))
                };
                let value = format!("(set on kind {})", self.kind.name());
                return fail(key, value, owners);
            }
        }
        if let (Some(column), Some(_)) = (&self.column, &self.columns) {
            return fail(
                "column",
                column.clone(),
                "either `column` or `columns`".to_owned(),
            );
        }
        if let (Some(padding), None) = (&self.padding, &self.columns) {
            let expected = "it only beside `columns`".to_owned();
            return fail("padding", padding.clone(), expected);
        }
        match (&self.times, &self.time) {
            (Some(times), _) if self.columns.is_some() => {
                let expected = "values and times in a column each, without `columns`".to_owned();
                return fail("times", times.clone(), expected);
            }
            (Some(times), None) => {
                let expected = "`time`, the column of the row's own, beside it".to_owned();
                return fail("times", times.clone(), expected);
            }
            (None, Some(time)) => {
                let expected = "`times`, the column of those of the values, beside it".to_owned();
                return fail("time", time.clone(), expected);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return fail("columns", "[]".to_owned(), "at least one column".to_owned());
        }
        for (key, text) in [
            ("delimiter", &self.delimiter),
            ("weight_delimiter", &self.weight_delimiter),
        ] {
            if text.as_ref().is_some_and(String::is_empty) {
                return fail(key, "\"\"".to_owned(), "at least one character".to_owned());
            }
        }
        if self.weight_delimiter.is_some() && self.weight_delimiter == self.delimiter {
            let value = self.delimiter.clone().unwrap_or_default();
            return fail(
                "weight_delimiter",
                value,
                "another text than the delimiter".to_owned(),
            );
        }
        if self.min_count == Some(0) {
            return fail("min_count", "0".to_owned(), "at least 1".to_owned());
        }
        if let Some(rows @ (0 | u32::MAX)) = self.hash_rows {
            return fail("hash_rows", rows.to_string(), "1 to 4294967294".to_owned());
        }
        if let (Some(_), Some(rows)) = (&self.admit, self.hash_rows) {
            let expected = "either hash_rows or admit: admitted values have rows of their own";
            return fail("hash_rows", rows.to_string(), expected.to_owned());
        }
        if let Some((key, value, expected)) = self.admit.as_ref().and_then(AdmitConfig::wrong) {
            return fail(key, value, expected.to_owned());
        }
        let transform = self.transform.unwrap_or_default();
        match (&self.buckets, transform) {
            (None, TransformKind::Buckets) => fail(
                "buckets",
                "(not set)".to_owned(),
                "edges such as [20, 30, 40]".to_owned(),
            ),
            (Some(Buckets::Edges(edges)), TransformKind::Buckets) => {
                let rising = edges.windows(2).all(|pair| pair[0] < pair[1]);
                if edges.is_empty() || !rising || edges.iter().any(|edge| !edge.is_finite()) {
                    return fail(
                        "buckets",
                        format!("{edges:?}"),
                        "at least one edge, all finite, each larger than the one before".to_owned(),
                    );
                }
                Ok(())
            }
            (Some(Buckets::Count(count)), TransformKind::Quantile) if *count >= 2 => Ok(()),
            (Some(Buckets::Count(count)), TransformKind::Quantile) => fail(
                "buckets",
                count.to_string(),
                "at least 2 quantiles".to_owned(),
            ),
            (Some(buckets), _) => fail(
                "buckets",
                match buckets {
                    Buckets::Count(count) => count.to_string(),
                    Buckets::Edges(edges) => format!("{edges:?}"),
                },
                "a number with transform = \"quantile\", or edges with transform = \"buckets\""
                    .to_owned(),
            ),
            (None, _) => Ok(()),
        }
    }
}

/// `admit` of a hashed field: its values are given rows one by one, when they were seen often enough,
/// and may lose them. There is no vocabulary to hold all of them, and no number of rows that they
/// must share.
///
/// A value is known by a hash of 64 bits; two values of one hash are one. Among n values that happens
/// to any two with a probability of n² / 2⁶⁵.
///
/// ```
/// use crossfield_data::{AdmitConfig, FieldConfig};
///
/// let field: FieldConfig = serde_json::from_str(
///     r#"{"name": "cookie", "kind": "hashed", "admit": {"min_count": 3, "max_rows": 1000000,
///         "evict_after": 10000000, "sketch": "64MB"}}"#,
/// )?;
/// let admit = field.admit.ok_or("set")?;
/// assert_eq!((admit.rows(), admit.sketch_bytes()), (1_000_001, Some(64_000_000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdmitConfig {
    /// How often a value has been seen lately when it is given a row, 1 to 15. Default: 2. Until then
    /// it shares row 0 with all others that have none.
    pub min_count: u32,
    /// Rows for values, the shared one aside: with all of them given, a new value takes the row of one
    /// that was not seen for long. Default: none, as many as there can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u32>,
    /// Rows of data after which a value that none of them has loses its row, half as many more at most.
    /// Default: none, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evict_after: Option<u64>,
    /// Memory for the counts of values without a row, such as `"64MB"`. Default: 64 MB. "Lately" is a
    /// quarter of so many occurrences of such values as it has bytes.
    pub sketch: String,
}

impl Default for AdmitConfig {
    fn default() -> Self {
        Self {
            min_count: 2,
            max_rows: None,
            evict_after: None,
            sketch: "64MB".to_owned(),
        }
    }
}

impl AdmitConfig {
    /// The most rows for values, the shared one aside.
    const MOST: u32 = u32::MAX - 2;

    /// Rows that there can be, the shared one among them.
    pub fn rows(&self) -> u32 {
        self.max_rows.unwrap_or(Self::MOST).min(Self::MOST) + 1
    }

    /// Bytes of the counts; `None` if `sketch` is no size.
    pub fn sketch_bytes(&self) -> Option<u64> {
        let size: bytesize::ByteSize = self.sketch.parse().ok()?;
        Some(size.as_u64()).filter(|&bytes| bytes > 0)
    }

    /// The key that is out of range, its value, and what was expected.
    fn wrong(&self) -> Option<(&'static str, String, &'static str)> {
        match *self {
            Self {
                min_count: count @ (0 | 16..),
                ..
            } => Some(("admit.min_count", count.to_string(), "1 to 15")),
            Self {
                max_rows: Some(rows @ (0 | 0xffff_fffe..)),
                ..
            } => Some(("admit.max_rows", rows.to_string(), "1 to 4294967293")),
            Self {
                evict_after: Some(0),
                ..
            } => Some((
                "admit.evict_after",
                "0".to_owned(),
                "at least 1 row of data",
            )),
            _ if self.sketch_bytes().is_none() => Some((
                "admit.sketch",
                self.sketch.clone(),
                "a size such as \"64MB\"",
            )),
            _ => None,
        }
    }
}

impl std::fmt::Display for AdmitConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{{ min_count = {}", self.min_count)?;
        if let Some(rows) = self.max_rows {
            write!(f, ", max_rows = {rows}")?;
        }
        if let Some(after) = self.evict_after {
            write!(f, ", evict_after = {after}")?;
        }
        write!(f, ", sketch = \"{}\" }}", self.sketch)
    }
}

/// `[[cross]]`: values of several fields together, as features of their own. Either `fields` or
/// `when`.
///
/// ```
/// use crossfield_data::CrossConfig;
///
/// let cross = CrossConfig {
///     fields: vec!["bank".into(), "clicked".into()],
///     ..CrossConfig::default()
/// };
/// let complete = cross.complete();
/// assert_eq!(complete.name.as_deref(), Some("bank & clicked"));
/// assert_eq!(complete.min_count, Some(1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrossConfig {
    /// Name, unique among fields and crosses. Default: the fields, joined by ` & `, or the
    /// condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Two to four fields: every combination of their values is a feature.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// One to four conditions, `field=value` joined by ` AND `: one feature, which a row has where
    /// all of them hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Rows that the combinations are hashed into. Default: none, each has a row of its own.
    /// (fields)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_rows: Option<u32>,
    /// Combinations seen less often in training are out of vocabulary. Default: 1. (fields, without
    /// `hash_rows`)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_count: Option<u64>,
}

impl CrossConfig {
    /// The same with every default written out.
    pub fn complete(&self) -> Self {
        let mut complete = self.clone();
        let name = match &self.when {
            Some(when) => when.trim().to_owned(),
            None => self.fields.join(" & "),
        };
        complete.name.get_or_insert(name);
        if self.when.is_none() && self.hash_rows.is_none() {
            complete.min_count.get_or_insert(1);
        }
        complete
    }

    /// The name of one that is complete.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// How the values of a bag are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Each value counts with its weight.
    #[default]
    Sum,
    /// The weights of a row are divided by their sum.
    Mean,
}

/// What is done to numbers; everything is learned from the training part alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransformKind {
    /// (x − mean) / standard deviation.
    #[default]
    Standardise,
    /// sign(x) · ln(1 + |x|), then standardised.
    Log,
    /// One-hot buckets between quantiles of all values and of those that are not zero.
    Quantile,
    /// One-hot buckets between given edges; a value equal to an edge is right of it.
    Buckets,
}

/// Number of quantiles, or edges of buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Buckets {
    /// So many quantiles.
    Count(u32),
    /// These edges, rising.
    Edges(Vec<f64>),
}

/// One text or a list of them; numbers and booleans stand for their text.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum One {
        Text(String),
        Bool(bool),
        Integer(i64),
        Number(f64),
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(One),
        Many(Vec<One>),
    }
    let text = |one| match one {
        One::Text(text) => text,
        One::Bool(truth) => truth.to_string(),
        One::Integer(number) => number.to_string(),
        One::Number(number) => number.to_string(),
    };
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(one) => vec![text(one)],
        Texts::Many(many) => many.into_iter().map(text).collect(),
    })
}

/// `path` with `$NAME` and `${NAME}` replaced from the environment. A `$` before anything but a
/// name stays.
///
/// # Errors
/// [`Error::Environment`] if a variable is not set or not UTF-8.
pub fn expand(path: &str) -> Result<String, Error> {
    let mut expanded = String::new();
    let mut rest = path;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        let (braced, inner) = match rest.strip_prefix('{') {
            Some(inner) => (true, inner),
            None => (false, rest),
        };
        let length = inner
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(inner.len());
        let (variable, after) = inner.split_at(length);
        let after = if braced {
            after.strip_prefix('}')
        } else {
            Some(after)
        };
        match after {
            Some(after) if !variable.is_empty() => {
                expanded.push_str(&std::env::var(variable).map_err(|_| Error::Environment {
                    path: path.to_owned(),
                    variable: variable.to_owned(),
                })?);
                rest = after;
            }
            _ => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_variables_are_replaced_and_unset_ones_named() {
        // Cargo sets this variable for every test.
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        assert_eq!(
            expand("$CARGO_MANIFEST_DIR/a$").unwrap(),
            format!("{root}/a$")
        );
        assert_eq!(
            expand("x${CARGO_MANIFEST_DIR}y").unwrap(),
            format!("x{root}y")
        );
        assert_eq!(
            expand("$CROSSFIELD_UNSET_9/a.csv").unwrap_err().to_string(),
            "`$CROSSFIELD_UNSET_9/a.csv`: the environment variable `CROSSFIELD_UNSET_9` is not \
             set; expected its value"
        );
    }

    #[test]
    fn a_complete_spec_reads_back_equal() {
        let spec: DataSpec = serde_json::from_str(
            r#"{"data": {"format": "ratings", "train": "u.data", "missing": ["", "?"],
                "split": {"kind": "rows", "test": "rows", "valid": 0.1},
                "join": [{"file": "u.item", "on": "item", "separator": "|"}]},
                "label": {"column": "rating", "threshold": 4, "positive": [1, "a"]},
                "field": [{"name": "user"}, {"name": "age", "kind": "numeric",
                "transform": "quantile"}, {"name": "genres", "kind": "bag",
                "columns": ["Action"]}, {"name": "history", "kind": "sequence"}]}"#,
        )
        .unwrap();
        assert_eq!(spec.label.positive, ["1", "a"]);
        let complete = spec.complete();
        assert_eq!(complete.data.separator.as_deref(), Some("\t"));
        assert_eq!(complete.field[1].buckets, Some(Buckets::Count(33)));
        assert_eq!(complete.field[2].delimiter, None);
        assert_eq!(complete.field[3].max_len, Some(0));
        let text = serde_json::to_string(&complete).unwrap();
        assert_eq!(serde_json::from_str::<DataSpec>(&text).unwrap(), complete);
        assert_eq!(complete.complete(), complete);
        for field in &complete.field {
            field.check(Format::Ratings).unwrap();
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let refused = |text: &str| {
            serde_json::from_str::<DataSpec>(text)
                .unwrap_err()
                .to_string()
        };
        assert!(refused(r#"{"data": {"trian": "a"}}"#).contains("unknown field `trian`"));
        let split = r#"{"data": {"split": {"kind": "random", "vlaid": 0.1}}}"#;
        assert!(refused(split).contains("unknown field `vlaid`"));
        assert!(refused(r#"{"field": [{"nmae": "a"}]}"#).contains("unknown field `nmae`"));
    }

    #[test]
    fn options_of_admission_that_cannot_be_are_named() {
        let field = |admit: AdmitConfig| FieldConfig {
            name: "user".to_owned(),
            kind: FieldKind::Hashed,
            admit: Some(admit),
            ..FieldConfig::default()
        };
        let message = |field: FieldConfig| field.check(Format::Csv).unwrap_err().to_string();
        let usual = AdmitConfig::default;
        assert_eq!(
            message(field(AdmitConfig {
                min_count: 0,
                ..usual()
            })),
            "field `user`: admit.min_count = 0: expected 1 to 15"
        );
        assert_eq!(
            message(field(AdmitConfig {
                max_rows: Some(0),
                ..usual()
            })),
            "field `user`: admit.max_rows = 0: expected 1 to 4294967293"
        );
        assert_eq!(
            message(field(AdmitConfig {
                evict_after: Some(0),
                ..usual()
            })),
            "field `user`: admit.evict_after = 0: expected at least 1 row of data"
        );
        assert_eq!(
            message(field(AdmitConfig {
                sketch: "many".to_owned(),
                ..usual()
            })),
            "field `user`: admit.sketch = many: expected a size such as \"64MB\""
        );
        assert_eq!(
            message(FieldConfig {
                hash_rows: Some(10),
                ..field(usual())
            }),
            "field `user`: hash_rows = 10: expected either hash_rows or admit: admitted values have \
             rows of their own"
        );
        assert_eq!(
            message(FieldConfig {
                kind: FieldKind::Categorical,
                ..field(usual())
            }),
            "field `user`: admit = (set on kind categorical): expected it only in fields of kind hashed"
        );
        assert_eq!(field(usual()).complete(Format::Csv).hash_rows, None);
        field(usual()).check(Format::Csv).unwrap();
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        let field = FieldConfig {
            name: "age".to_owned(),
            buckets: Some(Buckets::Count(3)),
            ..FieldConfig::default()
        };
        assert_eq!(
            field.check(Format::Csv).unwrap_err().to_string(),
            "field `age`: buckets = (set on kind categorical): expected it only in fields of kind \
             numeric"
        );
        let field = FieldConfig {
            kind: FieldKind::Numeric,
            transform: Some(TransformKind::Buckets),
            buckets: Some(Buckets::Edges(vec![2.0, 1.0])),
            ..field
        };
        assert_eq!(
            field.check(Format::Csv).unwrap_err().to_string(),
            "field `age`: buckets = [2.0, 1.0]: expected at least one edge, all finite, each \
             larger than the one before"
        );
    }
}
