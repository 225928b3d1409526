//! What a person wants to know about the data before training.

use std::fmt;

use crossfield_core::FieldKind;
use serde::{Deserialize, Serialize};

use crate::config::FieldConfig;

/// Files, rows and values of a data set, by part and by field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataReport {
    /// The parts that exist: train, valid, test.
    pub parts: Vec<PartReport>,
    /// The fields that are columns, in the order of the schema.
    pub fields: Vec<FieldReport>,
    /// The crosses, which come behind them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub crosses: Vec<CrossReport>,
    /// Rows of all files that were left out, for they are not positive (`label.only_positive`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// What `data.keep_negatives` left of the training part; `None` where it leaves all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negatives: Option<Negatives>,
    /// How the cache was used; `None` without `data.cache`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUse>,
}

/// Rows of label 0 of the training part.
///
/// ```
/// let negatives = crossfield_data::Negatives { kept: 1_000, of: 10_000 };
/// assert_eq!(
///     negatives.to_string(),
///     "1,000 of 10,000 negatives of the training part kept (data.keep_negatives)"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Negatives {
    /// Those that are trained on.
    pub kept: u64,
    /// All of them.
    pub of: u64,
}

impl fmt::Display for Negatives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, of) = (grouped(self.kept), grouped(self.of));
        write!(
            f,
            "{kept} of {of} negatives of the training part kept (data.keep_negatives)"
        )
    }
}

/// How the cache of encoded rows was used.
///
/// ```
/// let cache = crossfield_data::CacheUse {
///     file: "cache/rows.cache".into(),
///     rebuilt: Some("`a.csv` has another length".into()),
/// };
/// assert_eq!(
///     cache.to_string(),
///     "cache `cache/rows.cache`: built anew, for `a.csv` has another length"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheUse {
    /// Its file.
    pub file: String,
    /// Why it was built in this run; `None` if it was there and fits its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<String>,
}

impl fmt::Display for CacheUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, rebuilt } = self;
        match rebuilt {
            Some(reason) => write!(f, "cache `{file}`: built anew, for {reason}"),
            None => write!(f, "cache `{file}`: read in place of the files"),
        }
    }
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartReport {
    /// train, valid or test.
    pub name: String,
    /// The files that its rows come from.
    pub files: Vec<String>,
    /// Number of rows; `None` of files that are read block by block where nothing is to be learned
    /// from them.
    pub rows: Option<usize>,
    /// Mean label, weighted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_mean: Option<f64>,
}

/// One field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldReport {
    /// Name.
    pub name: String,
    /// Kind as in the run file.
    pub kind: FieldKind,
    /// Distinct values of this field in training. `None` for numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// Of those, the ones with a row of their own (hashed: rows with at least one value).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// Occurrences that go to the out-of-vocabulary row, by part: in training the rare values, in
    /// the others rare and unseen ones. Empty where the training part is encoded block by block
    /// later.
    pub out_of_vocabulary: Vec<u64>,
    /// Missing values and empty lists, by part.
    pub missing: Vec<u64>,
    /// Hashed fields: share of the distinct values that share their row with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collisions: Option<f64>,
    /// How many of its numbers the quantiles are of, if they are too many for `data.memory`: so many
    /// are drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<u64>,
}

impl FieldReport {
    /// Of a field of which nothing is known yet.
    pub(crate) fn new(config: &FieldConfig) -> Self {
        Self {
            name: config.name.clone(),
            kind: config.kind,
            distinct: None,
            kept: None,
            out_of_vocabulary: Vec::new(),
            missing: Vec::new(),
            collisions: None,
            sample: None,
        }
    }
}

/// One cross.
///
/// ```
/// // A condition that holds in 3 of 10 training rows.
/// let report = crossfield_data::CrossReport {
///     name: "bank=kookmin AND clicked=travel".into(),
///     seen: vec![3],
///     ..Default::default()
/// };
/// assert_eq!(report.warning(10), None);
/// assert!(report.warning(3).is_some());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrossReport {
    /// Name.
    pub name: String,
    /// Distinct combinations in training. `None` for a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<u64>,
    /// Of those, the ones with a row of their own (hashed: rows with at least one combination).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// How often the rarest, the median and the most frequent of them occur in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<[u64; 3]>,
    /// Occurrences of combinations, or rows in which the condition holds, by part.
    pub seen: Vec<u64>,
    /// Occurrences that go to the out-of-vocabulary row, by part; empty where there is no such row.
    pub out_of_vocabulary: Vec<u64>,
    /// Rows that the combinations are hashed into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_rows: Option<u32>,
    /// Hashed: share of the distinct combinations that share their row with another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collisions: Option<f64>,
}

impl CrossReport {
    /// What is probably not meant: more combinations than rows to hash them into, or a condition
    /// that says the same of all `rows` training rows.
    pub fn warning(&self, rows: usize) -> Option<String> {
        let holds = self.seen.first().copied().unwrap_or_default();
        let name = &self.name;
        match (self.distinct, self.hash_rows, self.collisions) {
            (Some(distinct), Some(rows), Some(share)) if distinct > u64::from(rows) => {
                let (distinct, rows) = (grouped(distinct), grouped(u64::from(rows)));
                let percent = 100.0 * share;
                Some(format!(
                    "cross `{name}`: {distinct} combinations in {rows} rows (hash_rows); \
                     {percent:.2} % of them share a row"
                ))
            }
            (None, ..) if holds == 0 => Some(format!(
                "cross `{name}`: it holds in none of the training rows"
            )),
            (None, ..) if holds == rows as u64 => Some(format!(
                "cross `{name}`: it holds in all of the training rows"
            )),
            _ => None,
        }
    }
}

impl fmt::Display for CrossReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", clipped(&self.name, 40))?;
        let joined = |each: Vec<String>| each.join(" / ");
        match (self.distinct, self.kept) {
            (Some(distinct), Some(kept)) => {
                let (distinct, kept) = (short(distinct, 11), short(kept, 11));
                match self.hash_rows {
                    None => writeln!(f, "  {distinct} distinct, {kept} kept")?,
                    Some(rows) => {
                        let rows = short(u64::from(rows), 11);
                        writeln!(f, "  {distinct} distinct in {rows} rows")?;
                    }
                }
            }
            _ => {
                let rows = self.seen.iter().map(|&rows| short(rows, 9)).collect();
                return writeln!(f, "  holds in {} rows", joined(rows));
            }
        }
        if let Some([smallest, median, largest]) = self.counts {
            let [smallest, largest] = [smallest, largest].map(|count| short(count, 9));
            writeln!(f, "  each {smallest} to {largest} times, median {median}")?;
        }
        if let Some(share) = self.collisions {
            writeln!(f, "  {:.2} % of them share a row", 100.0 * share)?;
        }
        if !self.out_of_vocabulary.is_empty() {
            let parts = self.out_of_vocabulary.iter().zip(&self.seen);
            let shares = parts.map(|(&unknown, &all)| {
                format!("{:.2}", 100.0 * unknown as f64 / all.max(1) as f64)
            });
            writeln!(f, "  {} % oov", joined(shares.collect()))?;
        }
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A number with commas between its thousands.
///
/// ```
/// assert_eq!(crossfield_data::grouped(45_840_617), "45,840,617");
/// ```
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width - 1).collect();
    kept + "…"
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<7}{:>13}{:>12}  files", "part", "rows", "label mean")?;
        for part in &self.parts {
            let mean = part
                .label_mean
                .map_or("-".to_owned(), |mean| format!("{mean:.4}"));
            let rows = part
                .rows
                .map_or("-".to_owned(), |rows| grouped(rows as u64));
            let files = clipped(&part.files.join(" "), 66);
            writeln!(f, "{:<7}{rows:>13}{mean:>12}  {files}", part.name)?;
        }
        if self.left_out > 0 {
            let left_out = grouped(self.left_out);
            writeln!(
                f,
                "{left_out} rows left out: not positive (label.only_positive)"
            )?;
        }
        if let Some(negatives) = &self.negatives {
            writeln!(f, "{negatives}")?;
        }
        writeln!(f)?;
        let parts: Vec<_> = self.parts.iter().map(|part| &part.name).collect();
        let width = |least: usize, texts: &mut dyn Iterator<Item = usize>| {
            texts.max().unwrap_or(0).max(least)
        };
        let names = width(
            5,
            &mut self.fields.iter().map(|field| field.name.chars().count()),
        );
        let names = names.min(22);
        write!(
            f,
            "{:<names$} {:<11}{:>12}{:>12}",
            "field", "kind", "distinct", "kept"
        )?;
        for part in &parts {
            write!(f, "{:>10}", format!("oov.{part}"))?;
        }
        writeln!(f, "{:>10}", "missing")?;
        for field in &self.fields {
            let count =
                |number: Option<u64>| number.map_or("-".to_owned(), |number| short(number, 11));
            let name = clipped(&field.name, names);
            write!(f, "{name:<names$} {:<11}", field.kind.name())?;
            write!(f, "{:>12}{:>12}", count(field.distinct), count(field.kept))?;
            // Of parts that are not encoded yet nothing is known.
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |it| short(it, 9));
            for part in 0..parts.len() {
                let unknown = field.out_of_vocabulary.get(part).copied();
                write!(f, "{:>10}", number(unknown))?;
            }
            let missing = field.missing.iter().sum();
            let missing = (!field.missing.is_empty()).then_some(missing);
            writeln!(f, "{:>10}", number(missing))?;
        }
        for field in &self.fields {
            if let Some(share) = field.collisions {
                let percent = 100.0 * share;
                let name = clipped(&field.name, 40);
                writeln!(f, "{name}: {percent:.2} % of its values share a hashed row")?;
            }
            if let Some(sample) = field.sample {
                let (name, sample) = (clipped(&field.name, 40), grouped(sample));
                writeln!(f, "{name}: quantiles of {sample} of its values, drawn")?;
            }
        }
        if !self.crosses.is_empty() {
            let parts: Vec<_> = self.parts.iter().map(|part| part.name.as_str()).collect();
            writeln!(f, "\ncrosses ({})", parts.join(" / "))?;
        }
        for cross in &self.crosses {
            write!(f, "{cross}")?;
        }
        let rows = self.parts.first().and_then(|part| part.rows);
        let warning = |cross: &CrossReport| cross.warning(rows?);
        for warning in self.crosses.iter().filter_map(warning) {
            writeln!(f, "warning: {warning}")?;
        }
        match &self.cache {
            Some(cache) => writeln!(f, "{cache}"),
            None => Ok(()),
        }
    }
}

/// `number` with separators, or in millions where those need more than `width` characters.
fn short(number: u64, width: usize) -> String {
    let text = grouped(number);
    if text.len() <= width {
        text
    } else {
        format!("{:.1}M", number as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_narrow() {
        let part = |name: &str, rows| PartReport {
            name: name.to_owned(),
            files: vec!["a.csv".repeat(30)],
            rows: Some(rows),
            label_mean: Some(0.25),
        };
        let report = DataReport {
            parts: vec![
                part("train", 45_840_617),
                part("valid", 10),
                part("test", 7),
            ],
            fields: vec![FieldReport {
                name: "a field with quite a long name".to_owned(),
                kind: FieldKind::Categorical,
                distinct: Some(10_131_227),
                kept: Some(999),
                out_of_vocabulary: vec![1_787_654_321, 2, 3],
                missing: vec![4, 5, 6],
                collisions: Some(0.125),
                sample: Some(1_000_000),
            }],
            crosses: Vec::new(),
            left_out: 0,
            negatives: None,
            cache: None,
        };
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines.iter().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert_eq!(lines[0], "part            rows  label mean  files");
        assert!(
            lines[1].starts_with("train     45,840,617      0.2500  a.csv"),
            "{text}"
        );
        assert_eq!(
            lines[6],
            "a field with quite a … categorical  10,131,227         999   1787.7M         2\
             \x20        3        15"
        );
        assert_eq!(lines[5].chars().count(), lines[6].chars().count());
        assert_eq!(
            lines[7],
            "a field with quite a long name: 12.50 % of its values share a hashed row"
        );
        assert_eq!(
            lines[8],
            "a field with quite a long name: quantiles of 1,000,000 of its values, drawn"
        );
    }
}
