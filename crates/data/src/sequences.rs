//! Samples of what people did next: rows of a target and of the history before it, made of ratings
//! or of lists of items.
//!
//! ```text
//! events of a user in time     a  b  c  d  e        liked: all but c
//! rows                         a | b                history | item
//!                              a|b | c              c is of label 0
//!                              a|b | d              and is in no history
//!                              a|b|d | e
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crossfield_core::rng::{Purpose, name_key, rng};
use rand::{Rng, RngExt};
use serde_json::Value;

use crate::config::{Encoding, Header, RowsPart, SplitConfig, expand};
use crate::error::{At, Error, hint};
use crate::intern::Interner;
use crate::line::LineReader;
use crate::split::{Columns, Wanted, split};
use crate::tabular::{Layout, Records};

/// Separates the items of a history.
const DELIMITER: char = '|';
/// Longest line in bytes: a person's whole list, or all attributes, may stand on one.
const MAX_LINE: usize = 1 << 30;
/// Share of an event that rounding may have taken from a share of events.
const ROUNDING: f64 = 1e-9;

/// How the file of events is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    /// An event a line, its cells between tabs, without a header.
    #[default]
    Ratings,
    /// An event a line, its cells between commas; the first line names the columns.
    Csv,
    /// A user a line: the user, then their items, oldest first, between blanks.
    Lists,
}

/// Which events have a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleTargets {
    /// Each that has a history.
    #[default]
    All,
    /// In each part the last of each user, if it has a history.
    Last,
}

/// What of each user's events, in the order of their times, is validation and test part.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleSplit {
    /// The last event tests, the one before it validates. Users of fewer than three events are in
    /// the training part alone.
    Last,
    /// The last share tests, the one before it validates, rounded down and at least one event; 0
    /// is none. Users who would have no event left to train on are in the training part alone.
    Share {
        /// Share of the validation part.
        valid: f64,
        /// Share of the test part.
        test: f64,
    },
    /// Events that are listed test, whenever they were, and a share of the others, drawn by the seed,
    /// validates. Histories are of training events alone, for the others are not known.
    Rows {
        /// Share of the validation part among the events that are not listed.
        valid: f64,
        /// A file of the test events: their places in the file of events, from 0, one a line.
        test: String,
    },
}

/// Whether an event of the same time as the target is in its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// It is not: a history is strictly earlier.
    #[default]
    Exclude,
    /// It is, if the file has it before the target.
    Order,
}

/// What samples are made of, and how.
///
/// ```
/// use crossfield_data::{EventFormat, SampleSplit, SequenceSamples};
///
/// let folder = tempfile::tempdir()?;
/// let path = |name: &str| folder.path().join(name);
/// std::fs::write(path("lists.txt"), "u 1 2 3 4\nv 5 6\n")?;
/// let samples = SequenceSamples {
///     file: path("lists.txt").display().to_string(),
///     format: EventFormat::Lists,
///     split: SampleSplit::Last,
///     ..SequenceSamples::default()
/// };
/// let report = samples.write(&path("out"))?;
/// assert_eq!((report.users, report.items, report.events), (2, 6, 6));
/// let test = std::fs::read_to_string(path("out/test.csv"))?;
/// assert_eq!(test, "label,user,item,history\n1,u,4,1|2|3\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceSamples {
    /// The events, `.gz` and `.zst` decompressed. A path may use `$NAME`.
    pub file: String,
    /// How they are written.
    pub format: EventFormat,
    /// The columns of user, item, rating and time, in this order: by name in a csv file, by place
    /// in a ratings file. `-` in place of the rating is none. Without a rating all is liked;
    /// without a time the order of the file is that of the events. Default: `user`, `item`,
    /// `rating`, `timestamp`.
    pub columns: Vec<String>,
    /// One ASCII character between cells. Default: that of the format.
    pub separator: Option<String>,
    /// Attributes of the items: a csv file, or a `.json` object of lists by item. Of a list, the
    /// value counts that is in it most often, the first of several.
    pub attributes: Option<String>,
    /// The columns of item and category in a csv file of attributes.
    pub attribute_columns: [String; 2],
    /// Whether rows say when: the time, those of the history, and how long ago they are.
    pub times: bool,
    /// Ratings from here on are likes. Default: all are.
    pub min_rating: Option<f64>,
    /// The last so many items of a history are kept; 0 keeps all. Default: 50.
    pub max_len: usize,
    /// Which events have a row.
    pub targets: SampleTargets,
    /// Whether only likes have rows, and count for the split. Negatives imply it.
    pub liked_only: bool,
    /// Rows of label 0 behind each like: items that the user never had, in no line of the file.
    pub negatives: usize,
    /// The same for validation and test rows. Default: as many.
    pub test_negatives: Option<usize>,
    /// A file of the negatives of test rows, in place of drawn ones: a user and their items on a
    /// line, between blanks.
    pub test_candidates: Option<String>,
    /// Whether events that nothing is before have rows too, with empty histories.
    pub empty_histories: bool,
    /// What of each user's events is which part.
    pub split: SampleSplit,
    /// Events of the same time.
    pub ties: Ties,
    /// Decides which negatives are drawn, and which rows of a share.
    pub seed: u64,
}

impl Default for SequenceSamples {
    fn default() -> Self {
        Self {
            file: String::new(),
            format: EventFormat::default(),
            columns: ["user", "item", "rating", "timestamp"]
                .map(str::to_owned)
                .to_vec(),
            separator: None,
            attributes: None,
            attribute_columns: ["item", "category"].map(str::to_owned),
            times: false,
            min_rating: None,
            max_len: 50,
            targets: SampleTargets::default(),
            liked_only: false,
            negatives: 0,
            test_negatives: None,
            test_candidates: None,
            empty_histories: false,
            split: SampleSplit::Last,
            ties: Ties::default(),
            seed: 1,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceReport {
    /// Users in the file.
    pub users: usize,
    /// Items in the file.
    pub items: usize,
    /// Events in the file.
    pub events: usize,
    /// The parts that have rows.
    pub parts: Vec<SequencePart>,
    /// Targets with nothing before them: without a row, or with an empty history if that is asked for.
    pub without_history: usize,
    /// Rows whose history holds the target.
    pub repeats: usize,
    /// Lines of `candidates.txt`.
    pub candidates: usize,
}

/// Rows of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequencePart {
    /// `train`, `valid` or `test`.
    pub name: &'static str,
    /// All rows.
    pub rows: usize,
    /// Those of label 1.
    pub positives: usize,
    /// Items in the longest history.
    pub longest: usize,
}

const PARTS: [&str; 3] = ["train", "valid", "test"];
const TRAIN: usize = 0;
const VALID: usize = 1;
const TEST: usize = 2;

/// Something that a user did.
#[derive(Clone, Copy, Debug)]
struct Event {
    item: u32,
    liked: bool,
    /// Its place in the file, from 0.
    row: u32,
    /// Seconds; without times the place among the user's events.
    time: f64,
}

/// All events, in the order of each user's times.
struct Events {
    users: Interner,
    items: Interner,
    /// By user.
    of: Vec<Vec<Event>>,
    /// The line that each item is on first.
    first_line: Vec<u64>,
    /// The part of each event, by its row, where the split says it of single events.
    listed: Option<Vec<usize>>,
}

impl Events {
    fn new() -> Self {
        Self {
            users: Interner::default(),
            items: Interner::default(),
            of: Vec::new(),
            first_line: Vec::new(),
            listed: None,
        }
    }

    /// Whether an event may stand in a history.
    fn known(&self, event: &Event) -> bool {
        event.liked
            && self
                .listed
                .as_ref()
                .is_none_or(|part| part[event.row as usize] == TRAIN)
    }

    fn user(&mut self, user: &str) -> usize {
        let user = self.users.intern(user) as usize;
        if user == self.of.len() {
            self.of.push(Vec::new());
        }
        user
    }

    /// The number of an item, which can stand in a list.
    fn item(&mut self, column: &str, item: &str, at: At<'_>) -> Result<u32, Error> {
        check_item(column, item, at)?;
        let item = self.items.intern(item);
        if item as usize == self.first_line.len() {
            self.first_line.push(at.number());
        }
        Ok(item)
    }

    /// The items that a user ever had, rising.
    fn had(&self, user: u32) -> Vec<u32> {
        let events = &self.of[user as usize];
        let mut had: Vec<u32> = events.iter().map(|event| event.item).collect();
        had.sort_unstable();
        had.dedup();
        had
    }

    /// Users by number, if all of them are numbers, and as the file has them otherwise.
    fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.users.len() as u32).collect();
        let numbers = self.users.iter().map(|user| user.parse::<u64>().ok());
        if let Some(numbers) = numbers.collect::<Option<Vec<_>>>() {
            order.sort_by_key(|&user| numbers[user as usize]);
        }
        order
    }
}

/// Whether a text can stand in a list of them.
fn check_item(column: &str, text: &str, at: At<'_>) -> Result<(), Error> {
    if text.is_empty() || text.contains(DELIMITER) {
        let expected = format!("at least one character, and no `{DELIMITER}`");
        return Err(at.value(column, text, expected));
    }
    Ok(())
}

fn finite(column: &str, text: &str, at: At<'_>) -> Result<f64, Error> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| at.value(column, text, "a finite number"))
}

fn option_error(option: &str, value: impl ToString, expected: &str) -> Error {
    Error::Config {
        key: option.to_owned(),
        value: value.to_string(),
        expected: expected.to_owned(),
    }
}

impl SequenceSamples {
    /// Writes `train.csv`, `valid.csv` and `test.csv`, those of them that have rows, into the folder
    /// `out`: new, or empty. Beside them `candidates.txt`, a user and the negatives of their test
    /// rows on a line, if there are any, and no user or item has a blank in its name.
    ///
    /// All is written beside it and renamed, so that `out` holds either all files or none.
    ///
    /// # Errors
    /// [`Error::Config`] for options that cannot be, a folder that is not empty among them;
    /// [`Error::Value`], [`Error::ColumnCount`], [`Error::JoinKey`] and others for what is wrong in
    /// a file, with its line; [`Error::Empty`] if there is nothing, or no row to train on;
    /// [`Error::Write`].
    pub fn write(&self, out: &Path) -> Result<SequenceReport, Error> {
        self.check()?;
        let write_error = |source| Error::Write {
            file: out.display().to_string(),
            source,
        };
        match out.read_dir() {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let expected = "an empty folder, or a new one";
                    return Err(option_error("--out", out.display(), expected));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(write_error(error)),
        }
        let events = self.read()?;
        let categories = match &self.attributes {
            Some(file) => Some(self.categories(&expand(file)?, &events)?),
            None => None,
        };
        let given = match &self.test_candidates {
            Some(file) => Some(read_candidates(&expand(file)?, &events)?),
            None => None,
        };
        let mut part = out.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let write = || {
            // What a command that was killed has left.
            if part.exists() {
                fs::remove_dir_all(&part).map_err(write_error)?;
            }
            fs::create_dir_all(&part).map_err(write_error)?;
            let mut samples = Writer {
                given: given.as_deref(),
                ..Writer::new(self, &events, categories.as_ref(), &part)
            };
            let report = samples.write()?;
            samples.finish()?;
            if out.exists() {
                fs::remove_dir(out).map_err(write_error)?;
            }
            fs::rename(&part, out).map_err(write_error)?;
            Ok(report)
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_dir_all(&part);
        }
        written
    }

    /// Whether only likes have rows.
    fn likes_alone(&self) -> bool {
        self.liked_only
            || self.negatives > 0
            || self.test_negatives.is_some_and(|many| many > 0)
            || self.test_candidates.is_some()
    }

    fn has_ratings(&self) -> bool {
        self.format != EventFormat::Lists && self.columns.get(2).is_some_and(|it| it != "-")
    }

    fn has_times(&self) -> bool {
        match self.format {
            EventFormat::Lists => self.times,
            EventFormat::Ratings | EventFormat::Csv => self.columns.len() > 3,
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.format != EventFormat::Lists && !(2..=4).contains(&self.columns.len()) {
            let expected = "two to four columns: user, item, rating, time";
            return Err(option_error("--columns", self.columns.join(","), expected));
        }
        if self.times && !self.has_times() {
            let expected = "a column of times: the fourth of --columns";
            return Err(option_error("--times", "true", expected));
        }
        if let Some(rating) = self.min_rating {
            if !rating.is_finite() {
                return Err(option_error("--min-rating", rating, "a finite number"));
            }
            if !self.has_ratings() {
                let expected = "a column of ratings: the third of --columns";
                return Err(option_error("--min-rating", rating, expected));
            }
        }
        if let (SampleSplit::Rows { .. }, EventFormat::Lists) = (&self.split, self.format) {
            let expected = "an event a line: --format ratings or csv";
            return Err(option_error("--split", "rows", expected));
        }
        if let SampleSplit::Share { valid, test } = self.split {
            for (option, share) in [("--valid", valid), ("--test", test)] {
                if !(0.0..1.0).contains(&share) {
                    return Err(option_error(option, share, "a share from 0 to below 1"));
                }
            }
            if valid + test >= 1.0 {
                let expected = "less than 1 together with --test";
                return Err(option_error("--valid", valid, expected));
            }
        }
        Ok(())
    }

    fn read(&self) -> Result<Events, Error> {
        let file = expand(&self.file)?;
        let mut events = Events::new();
        match self.format {
            EventFormat::Lists => self.read_lists(&file, &mut events)?,
            EventFormat::Ratings | EventFormat::Csv => self.read_table(&file, &mut events)?,
        }
        for of in &mut events.of {
            of.sort_by(|a, b| a.time.total_cmp(&b.time));
        }
        if let SampleSplit::Rows { valid, test } = &self.split {
            events.listed =
                Some(self.listed(*valid, test, events.of.iter().map(Vec::len).sum())?);
        }
        Ok(events)
    }

    /// The part of each of so many rows.
    fn listed(&self, valid: f64, test: &str, rows: usize) -> Result<Vec<usize>, Error> {
        let config = SplitConfig::Rows {
            test: Some(test.to_owned()),
            valid: Some(RowsPart::Share(valid)),
        };
        let wanted = Wanted {
            valid: true,
            test: true,
        };
        let parts = split(Some(&config), rows, Columns::default(), wanted, self.seed)?;
        let mut listed = vec![TRAIN; rows];
        for (part, rows) in [(VALID, parts.valid), (TEST, parts.test)] {
            for row in rows {
                listed[row as usize] = part;
            }
        }
        Ok(listed)
    }

    fn read_table(&self, file: &str, events: &mut Events) -> Result<(), Error> {
        let csv = self.format == EventFormat::Csv;
        let header = if csv {
            Header::Present(true)
        } else {
            Header::Names(self.columns.clone())
        };
        let separator = self.separator.as_deref();
        let records = Records::open(
            file,
            "--separator",
            &Layout {
                separator: separator.unwrap_or(if csv { "," } else { "\t" }),
                header: &header,
                encoding: Encoding::Utf8,
                trim: true,
                max_line: MAX_LINE,
            },
        )?;
        let mut places = Vec::new();
        for (role, column) in self.columns.iter().enumerate() {
            let names = records.header().iter().map(String::as_str);
            let place = names.clone().position(|name| name == column);
            if place.is_none() && !(role == 2 && column == "-") {
                return Err(Error::NoColumn {
                    wanted_by: "--columns".to_owned(),
                    file: file.to_owned(),
                    column: column.clone(),
                    hint: hint(column, names),
                });
            }
            places.push(place);
        }
        let (ratings, times) = (self.has_ratings(), self.has_times());
        let columns = &self.columns;
        let mut rows = 0;
        records.for_each(|cells, at| {
            let cell = |role: usize| places[role].map_or("", |place| cells[place]);
            let number = |role: usize| finite(&columns[role], cell(role), at);
            if cell(0).is_empty() {
                return Err(at.value(&columns[0], "", "a user"));
            }
            let item = events.item(&columns[1], cell(1), at)?;
            let rating = if ratings { Some(number(2)?) } else { None };
            let liked = match (self.min_rating, rating) {
                (Some(least), Some(rating)) => rating >= least,
                _ => true,
            };
            let time = if times { Some(number(3)?) } else { None };
            let user = events.user(cell(0));
            let of = &mut events.of[user];
            let time = time.unwrap_or(of.len() as f64);
            of.push(Event {
                item,
                liked,
                row: rows,
                time,
            });
            rows += 1;
            Ok(())
        })
    }

    fn read_lists(&self, file: &str, events: &mut Events) -> Result<(), Error> {
        let mut lines = LineReader::open(file, Encoding::Utf8, MAX_LINE)?;
        while let Some((text, line)) = lines.next()? {
            let at = At::line(file, line);
            let mut words = text.split_ascii_whitespace();
            let user = words.next().unwrap_or_default();
            let known = events.users.len();
            let number = events.user(user);
            if number < known {
                return Err(at.value("user", user, "each user on one line"));
            }
            let mut of = Vec::new();
            for word in words {
                let (item, time) = if self.times {
                    let pair = word.rsplit_once(':');
                    let (item, time) =
                        pair.ok_or_else(|| at.value("item", word, "item:time (--times)"))?;
                    (item, finite("item", time, at)?)
                } else {
                    (word, of.len() as f64)
                };
                if let Some(Event { time: before, .. }) = of.last()
                    && time < *before
                {
                    let expected = format!("times in order: none before {before}");
                    return Err(at.value("item", word, expected));
                }
                let item = events.item("item", item, at)?;
                of.push(Event {
                    item,
                    liked: true,
                    row: 0,
                    time,
                });
            }
            if of.is_empty() {
                return Err(Error::ColumnCount {
                    file: file.to_owned(),
                    line,
                    found: 1,
                    expected: 2,
                });
            }
            events.of[number] = of;
        }
        if events.of.is_empty() {
            return Err(Error::Empty {
                file: file.to_owned(),
                expected: "a user and their items on each line",
            });
        }
        Ok(())
    }

    /// The category of each item.
    fn categories(&self, file: &str, events: &Events) -> Result<Categories, Error> {
        let name = file.trim_end_matches(".gz").trim_end_matches(".zst");
        let known = if name.ends_with(".json") {
            Categories::of_json(file)?
        } else {
            Categories::of_csv(file, &self.attribute_columns)?
        };
        let mut of = Vec::with_capacity(events.items.len());
        for (item, &line) in events.items.iter().zip(&events.first_line) {
            let place = known.items.get(item).ok_or_else(|| Error::JoinKey {
                file: self.file.clone(),
                line,
                column: self.columns[1].clone(),
                value: item.to_owned(),
                side: file.to_owned(),
                keys: known.items.len(),
            })?;
            of.push(known.of[place as usize]);
        }
        Ok(Categories { of, ..known })
    }
}

/// The candidates of each user that has a line in `file`.
fn read_candidates(file: &str, events: &Events) -> Result<Vec<Option<Vec<u32>>>, Error> {
    let mut lines = LineReader::open(file, Encoding::Utf8, MAX_LINE)?;
    let mut given = vec![None; events.of.len()];
    while let Some((text, line)) = lines.next()? {
        let at = At::line(file, line);
        let mut words = text.split_ascii_whitespace();
        let user = words.next().unwrap_or_default();
        // Others have no rows.
        let Some(number) = events.users.get(user) else {
            continue;
        };
        let given = &mut given[number as usize];
        if given.is_some() {
            return Err(at.value("user", user, "each user on one line"));
        }
        let had = events.had(number);
        let mut items = Vec::new();
        for word in words {
            let item = events.items.get(word);
            let item = item.ok_or_else(|| at.value("item", word, "an item of the events"))?;
            if had.binary_search(&item).is_ok() {
                let expected = format!("items that user `{user}` never had");
                return Err(at.value("item", word, expected));
            }
            items.push(item);
        }
        *given = Some(items);
    }
    Ok(given)
}

/// A category for each of some items.
struct Categories {
    items: Interner,
    names: Interner,
    of: Vec<u32>,
}

impl Categories {
    fn new() -> Self {
        Self {
            items: Interner::default(),
            names: Interner::default(),
            of: Vec::new(),
        }
    }

    fn of_csv(file: &str, columns: &[String; 2]) -> Result<Self, Error> {
        let header = Header::Present(true);
        let layout = Layout {
            separator: ",",
            header: &header,
            encoding: Encoding::Utf8,
            trim: true,
            max_line: MAX_LINE,
        };
        let records = Records::open(file, "--attributes", &layout)?;
        let mut places = [0; 2];
        for (place, column) in places.iter_mut().zip(columns) {
            let names = records.header().iter().map(String::as_str);
            let found = names.clone().position(|name| name == column);
            *place = found.ok_or_else(|| Error::NoColumn {
                wanted_by: "--attribute-columns".to_owned(),
                file: file.to_owned(),
                column: column.clone(),
                hint: hint(column, names),
            })?;
        }
        let mut categories = Self::new();
        records.for_each(|cells, at| {
            let [item, category] = places.map(|place| cells[place]);
            check_item(&columns[1], category, at)?;
            let known = categories.items.len();
            if (categories.items.intern(item) as usize) < known {
                return Err(at.value(&columns[0], item, "each item once"));
            }
            categories.of.push(categories.names.intern(category));
            Ok(())
        })?;
        Ok(categories)
    }

    /// Of an object whose values are lists: the value that a list has most often.
    fn of_json(file: &str) -> Result<Self, Error> {
        let mut lines = LineReader::open(file, Encoding::Utf8, MAX_LINE)?;
        let mut text = String::new();
        while let Some((line, _)) = lines.next()? {
            text.push_str(line);
            text.push('\n');
        }
        if text.is_empty() {
            return Err(Error::Empty {
                file: file.to_owned(),
                expected: "a JSON object of lists by item",
            });
        }
        let at = |line| At::line(file, line);
        let parsed: serde_json::Result<serde_json::Map<String, Value>> =
            serde_json::from_str(&text);
        let object = parsed.map_err(|error| {
            let place = format!("byte {}", error.column());
            let at = at(error.line() as u64);
            at.value_in(place, &error.to_string(), "a JSON object of lists by item")
        })?;
        let mut categories = Self::new();
        for (item, values) in &object {
            let wrong = |value: &Value| {
                let expected = "a list of at least one number or text";
                // What line it is on, the parser does not say.
                at(1).value(item, &value.to_string(), expected)
            };
            let list = values.as_array().filter(|list| !list.is_empty());
            let mut names = Vec::new();
            for value in list.ok_or_else(|| wrong(values))? {
                names.push(match value {
                    Value::String(name) => name.clone(),
                    Value::Number(number) => number.to_string(),
                    _ => return Err(wrong(value)),
                });
            }
            let category = most_frequent(&names);
            check_item(item, category, at(1))?;
            categories.items.intern(item);
            categories.of.push(categories.names.intern(category));
        }
        Ok(categories)
    }
}

/// The name that is there most often, the first of several.
fn most_frequent(names: &[String]) -> &str {
    let count = |name: &str| names.iter().filter(|other| *other == name).count();
    let mut best = ("", 0);
    for name in names {
        let count = count(name);
        if count > best.1 {
            best = (name, count);
        }
    }
    best.0
}

/// Distinct items that a user never had.
///
/// Ranks among what is left are drawn by Floyd's algorithm, each set of them equally likely, in as
/// many draws as there are negatives, however few items are left.
///
/// # Source
/// Bentley and Floyd, "Programming pearls: a sample of brilliance", CACM 30 (1987), algorithm F2.
fn draw_negatives(
    had: &[u32],
    items: usize,
    negatives: usize,
    stream: &mut impl Rng,
    drawn: &mut Vec<u32>,
) {
    let left = items - had.len();
    let mut ranks = HashSet::with_capacity(negatives);
    drawn.clear();
    for last in left - negatives..left {
        let bits: u64 = stream.random();
        // The high half of bits × (last + 1): a whole number below last + 1.
        let mut rank = ((u128::from(bits) * (last as u128 + 1)) >> 64) as usize;
        if !ranks.insert(rank) {
            rank = last;
            ranks.insert(rank);
        }
        // had[i] − i items below had[i] are left.
        let mut before = 0..had.len();
        while !before.is_empty() {
            let middle = (before.start + before.end) / 2;
            if had[middle] as usize - middle <= rank {
                before.start = middle + 1;
            } else {
                before.end = middle;
            }
        }
        drawn.push((rank + before.start) as u32);
    }
}

/// Whole doublings of a minute, plus 1: 0 is under a minute, 1 under 3, 2 under 7.
fn gap(seconds: f64) -> u32 {
    (1.0 + seconds / 60.0).log2() as u32
}

/// The files that are being written.
struct Writer<'a> {
    samples: &'a SequenceSamples,
    events: &'a Events,
    categories: Option<&'a Categories>,
    /// Negatives of the test rows of each user, where they are not drawn.
    given: Option<&'a [Option<Vec<u32>>]>,
    folder: &'a Path,
    parts: [Option<csv::Writer<File>>; 3],
    candidates: Option<BufWriter<File>>,
    /// Whether the names of users and items cannot be told apart in a list between blanks.
    has_blanks: bool,
    report: SequenceReport,
    reports: [SequencePart; 3],
}

impl<'a> Writer<'a> {
    fn new(
        samples: &'a SequenceSamples,
        events: &'a Events,
        categories: Option<&'a Categories>,
        folder: &'a Path,
    ) -> Self {
        Self {
            samples,
            events,
            categories,
            given: None,
            folder,
            parts: [None, None, None],
            candidates: None,
            has_blanks: (events.users.iter().chain(events.items.iter()))
                .any(|name| name.contains(char::is_whitespace)),
            report: SequenceReport {
                users: events.users.len(),
                items: events.items.len(),
                events: events.of.iter().map(Vec::len).sum(),
                ..SequenceReport::default()
            },
            reports: PARTS.map(|name| SequencePart {
                name,
                rows: 0,
                positives: 0,
                longest: 0,
            }),
        }
    }

    fn write(&mut self) -> Result<SequenceReport, Error> {
        for user in self.events.order() {
            self.write_user(user)?;
        }
        let reports = self.reports.clone();
        if reports[TRAIN].rows == 0 {
            return Err(Error::Empty {
                file: self.samples.file.clone(),
                expected: "users with more events: none leaves a row to train on",
            });
        }
        let mut report = self.report.clone();
        report.parts = reports.into_iter().filter(|part| part.rows > 0).collect();
        Ok(report)
    }

    fn write_user(&mut self, user: u32) -> Result<(), Error> {
        let events = &self.events.of[user as usize];
        let likes_alone = self.samples.likes_alone();
        let targets: Vec<usize> = (0..events.len())
            .filter(|&event| !likes_alone || events[event].liked)
            .collect();
        let had = self.events.had(user);
        let mut candidates = Vec::new();
        let mut history = Vec::new();
        for (part, targets) in self.parts(events, targets).into_iter().enumerate() {
            let mut targets = targets.as_slice();
            if self.samples.targets == SampleTargets::Last {
                targets = &targets[targets.len().saturating_sub(1)..];
            }
            let key = name_key(self.events.users.text(user));
            let mut stream = rng(self.samples.seed, Purpose::Samples, key, part as u64);
            for &target in targets {
                self.history(events, target, &mut history);
                if history.is_empty() {
                    self.report.without_history += 1;
                    if !self.samples.empty_histories {
                        continue;
                    }
                }
                let event = events[target];
                let repeats = history.iter().any(|past| past.item == event.item);
                self.report.repeats += usize::from(repeats);
                self.write_row(part, user, event.liked, event.item, event.time, &history)?;
                let mut drawn = self.negatives_of(part, user, &had, &mut stream)?;
                for &item in &drawn {
                    self.write_row(part, user, false, item, event.time, &history)?;
                }
                if part == TEST {
                    candidates.append(&mut drawn);
                }
            }
        }
        self.write_candidates(user, candidates)
    }

    /// The targets of each part.
    fn parts(&self, events: &[Event], mut targets: Vec<usize>) -> [Vec<usize>; 3] {
        let (valid, test) = match self.samples.split {
            SampleSplit::Last => (1, 1),
            SampleSplit::Share { valid, test } => {
                let count = |share: f64| {
                    let least = usize::from(share > 0.0);
                    ((share * targets.len() as f64 + ROUNDING) as usize).max(least)
                };
                (count(valid), count(test))
            }
            SampleSplit::Rows { .. } => {
                let listed = self.events.listed.as_ref();
                let listed = listed.expect("it is made where events are read");
                return [TRAIN, VALID, TEST].map(|part| {
                    let of = |&&event: &&usize| listed[events[event].row as usize] == part;
                    targets.iter().filter(of).copied().collect()
                });
            }
        };
        if valid + test >= targets.len() {
            return [targets, Vec::new(), Vec::new()];
        }
        let test = targets.split_off(targets.len() - test);
        let valid = targets.split_off(targets.len() - valid);
        [targets, valid, test]
    }

    /// What the user liked before the target.
    fn history(&self, events: &[Event], target: usize, history: &mut Vec<Event>) {
        let now = events[target].time;
        let before = match self.samples.ties {
            Ties::Order => &events[..target],
            Ties::Exclude => &events[..events.partition_point(|event| event.time < now)],
        };
        history.clear();
        let likes = before.iter().rev().filter(|event| self.events.known(event));
        match self.samples.max_len {
            0 => history.extend(likes),
            most => history.extend(likes.take(most)),
        }
        history.reverse();
    }

    /// The negatives of one row.
    fn negatives_of(
        &self,
        part: usize,
        user: u32,
        had: &[u32],
        stream: &mut impl Rng,
    ) -> Result<Vec<u32>, Error> {
        let name = self.events.users.text(user);
        if let (TEST, Some(given), Some(file)) = (part, self.given, &self.samples.test_candidates) {
            let expected = format!("a line for user `{name}`");
            return given[user as usize]
                .clone()
                .ok_or_else(|| option_error("--test-candidates", file, &expected));
        }
        let (option, negatives) = match self.samples.test_negatives {
            Some(negatives) if part != TRAIN => ("--test-negatives", negatives),
            _ => ("--negatives", self.samples.negatives),
        };
        let items = self.events.items.len();
        let left = items - had.len();
        if left < negatives {
            let expected = format!("at most {left}: user `{name}` had all other items of the file");
            return Err(option_error(option, negatives, &expected));
        }
        let mut drawn = Vec::new();
        if negatives > 0 {
            draw_negatives(had, items, negatives, stream, &mut drawn);
        }
        Ok(drawn)
    }

    fn write_row(
        &mut self,
        part: usize,
        user: u32,
        positive: bool,
        item: u32,
        time: f64,
        history: &[Event],
    ) -> Result<(), Error> {
        let file = self.folder.join(format!("{}.csv", PARTS[part]));
        let write_error = |source: csv::Error| Error::Write {
            file: file.display().to_string(),
            source: source.into(),
        };
        let writer = match &mut self.parts[part] {
            Some(writer) => writer,
            none => {
                let mut writer = csv::Writer::from_path(&file).map_err(write_error)?;
                let mut header = vec!["label", "user", "item", "history"];
                if self.categories.is_some() {
                    header.extend(["category", "history_category"]);
                }
                if self.samples.times {
                    header.extend(["time", "history_times", "gaps"]);
                }
                writer.write_record(header).map_err(write_error)?;
                none.insert(writer)
            }
        };
        let events = self.events;
        let item_of = |event: &Event| events.items.text(event.item).to_owned();
        let mut cells = vec![
            u8::from(positive).to_string(),
            events.users.text(user).to_owned(),
            events.items.text(item).to_owned(),
            joined(history, item_of),
        ];
        if let Some(categories) = self.categories {
            let category = |item: u32| categories.names.text(categories.of[item as usize]);
            cells.push(category(item).to_owned());
            cells.push(joined(history, |event| category(event.item).to_owned()));
        }
        if self.samples.times {
            cells.push(time.to_string());
            cells.push(joined(history, |event| event.time.to_string()));
            cells.push(joined(history, |event| gap(time - event.time).to_string()));
        }
        writer.write_record(cells).map_err(write_error)?;
        let report = &mut self.reports[part];
        report.rows += 1;
        report.positives += usize::from(positive);
        report.longest = report.longest.max(history.len());
        Ok(())
    }

    /// One line: the user, and what was drawn for any of their test rows.
    fn write_candidates(&mut self, user: u32, mut items: Vec<u32>) -> Result<(), Error> {
        if items.is_empty() || self.has_blanks {
            return Ok(());
        }
        items.sort_unstable();
        items.dedup();
        let events = self.events;
        let mut line = events.users.text(user).to_owned();
        for item in items {
            line.push(' ');
            line += events.items.text(item);
        }
        line.push('\n');
        let file = self.folder.join("candidates.txt");
        let write_error = |source| Error::Write {
            file: file.display().to_string(),
            source,
        };
        let writer = match &mut self.candidates {
            Some(writer) => writer,
            none => none.insert(BufWriter::new(File::create(&file).map_err(write_error)?)),
        };
        self.report.candidates += 1;
        writer.write_all(line.as_bytes()).map_err(write_error)
    }

    /// All that is written is on the disk.
    fn finish(self) -> Result<(), Error> {
        let write_error = |source| Error::Write {
            file: self.folder.display().to_string(),
            source,
        };
        for writer in self.parts.into_iter().flatten() {
            let file = writer.into_inner().map_err(|error| {
                let kind = error.error().kind();
                write_error(io::Error::new(kind, error.to_string()))
            })?;
            file.sync_all().map_err(write_error)?;
        }
        if let Some(writer) = self.candidates {
            let file = writer
                .into_inner()
                .map_err(|error| write_error(error.into_error()))?;
            file.sync_all().map_err(write_error)?;
        }
        Ok(())
    }
}

fn joined(history: &[Event], text: impl Fn(&Event) -> String) -> String {
    let texts: Vec<String> = history.iter().map(text).collect();
    texts.join(DELIMITER.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_are_distinct_and_were_never_had() {
        let mut stream = rng(1, Purpose::Samples, 0, 0);
        let mut drawn = Vec::new();
        let mut counts = [0u32; 8];
        for _ in 0..3000 {
            draw_negatives(&[0, 3, 4, 7], 8, 2, &mut stream, &mut drawn);
            assert_eq!(drawn.len(), 2);
            assert_ne!(drawn[0], drawn[1]);
            drawn.iter().for_each(|&item| counts[item as usize] += 1);
        }
        for item in [0, 3, 4, 7] {
            assert_eq!(counts[item], 0);
        }
        // Each of the four is in half of the pairs: 1500 ± 27.
        for item in [1, 2, 5, 6] {
            assert!(counts[item].abs_diff(1500) < 110, "{counts:?}");
        }
        draw_negatives(&[0, 3, 4, 7], 8, 4, &mut stream, &mut drawn);
        drawn.sort_unstable();
        assert_eq!(drawn, [1, 2, 5, 6]);
    }

    #[test]
    fn a_gap_is_the_number_of_doublings_of_a_minute() {
        let gaps = [0.0, 59.0, 60.0, 179.0, 180.0, 419.0, 420.0, 86_400.0].map(gap);
        assert_eq!(gaps, [0, 0, 1, 1, 2, 2, 3, 10]);
    }

    #[test]
    fn the_most_frequent_attribute_counts_and_the_first_of_several() {
        let names = ["b", "a", "c", "a", "b"].map(str::to_owned);
        assert_eq!(most_frequent(&names), "b");
        assert_eq!(most_frequent(&names[1..]), "a");
    }
}
