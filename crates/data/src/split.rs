//! Which rows train, validate and test.

use std::collections::BTreeMap;

use crossfield_core::rng::{Purpose, rng};
use rand::{Rng, RngExt};

use crate::config::{RowsPart, SplitConfig, expand};
use crate::error::{At, Error};
use crate::line::{Encoding, LineReader};
use crate::report::Negatives;

/// Row numbers of each part, rising.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parts {
    pub(crate) train: Vec<u32>,
    pub(crate) valid: Vec<u32>,
    pub(crate) test: Vec<u32>,
}

/// What the split reads besides the number of rows.
#[derive(Clone, Copy, Default)]
pub(crate) struct Columns<'a> {
    pub(crate) time: Option<&'a [f64]>,
    pub(crate) user: Option<&'a [u32]>,
}

/// Which parts are to be split off: those without files of their own.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) valid: bool,
    pub(crate) test: bool,
}

/// Puts `items` into a random order (Fisher–Yates). The same stream gives the same order on every
/// platform and with every version of `rand`.
pub(crate) fn shuffle<T>(items: &mut [T], stream: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        let bits: u64 = stream.random();
        // The high half of bits × (last + 1): a whole number below last + 1.
        let other = ((u128::from(bits) * (last as u128 + 1)) >> 64) as usize;
        items.swap(last, other);
    }
}

fn split_error(problem: String, expected: &str) -> Error {
    Error::Split {
        problem,
        expected: expected.to_owned(),
    }
}

/// Rows of a share, at least one where the share is not 0.
fn share_of(name: &str, share: f64, rows: usize) -> Result<usize, Error> {
    if !(0.0..1.0).contains(&share) {
        return Err(split_error(
            format!("{name} = {share}"),
            "a share from 0 to below 1",
        ));
    }
    let count = (share * rows as f64).round() as usize;
    if count == 0 && share > 0.0 {
        let problem = format!("{name} = {share} of {rows} rows leaves no {name} row");
        return Err(split_error(problem, "a larger share or more rows"));
    }
    Ok(count)
}

fn sizes(valid: f64, test: f64, wanted: Wanted, rows: usize) -> Result<(usize, usize), Error> {
    let valid = if wanted.valid {
        share_of("valid", valid, rows)?
    } else {
        0
    };
    let test = if wanted.test {
        share_of("test", test, rows)?
    } else {
        0
    };
    if valid + test >= rows {
        let problem =
            format!("{valid} validation and {test} test rows of {rows} leave no row to train on");
        return Err(split_error(problem, "smaller shares"));
    }
    Ok((valid, test))
}

/// Parts from an order of all rows: the last ones test, those before them validate.
fn cut(mut order: Vec<u32>, valid: usize, test: usize) -> Parts {
    let mut test = order.split_off(order.len() - test);
    let mut valid = order.split_off(order.len() - valid);
    for part in [&mut order, &mut valid, &mut test] {
        part.sort_unstable();
    }
    Parts {
        train: order,
        valid,
        test,
    }
}

/// Splits `rows` rows.
pub(crate) fn split(
    config: Option<&SplitConfig>,
    rows: usize,
    columns: Columns<'_>,
    wanted: Wanted,
    seed: u64,
) -> Result<Parts, Error> {
    let all: Vec<u32> = (0..rows as u32).collect();
    let parts = match config {
        None => Parts {
            train: all,
            ..Parts::default()
        },
        Some(SplitConfig::Random { valid, test }) => {
            let (valid, test) = sizes(*valid, *test, wanted, rows)?;
            let mut order = all;
            shuffle(&mut order, &mut rng(seed, Purpose::Split, 0, 0));
            cut(order, valid, test)
        }
        Some(SplitConfig::Time { valid, test, .. }) => {
            let time = columns
                .time
                .expect("the time column is read for this split");
            let (valid, test) = sizes(*valid, *test, wanted, rows)?;
            let mut order = all;
            order.sort_by(|&a, &b| {
                time[a as usize]
                    .total_cmp(&time[b as usize])
                    .then(a.cmp(&b))
            });
            cut(order, valid, test)
        }
        Some(SplitConfig::LeaveLast { valid, test, .. }) => {
            let time = columns
                .time
                .expect("the time column is read for this split");
            let user = columns
                .user
                .expect("the user column is read for this split");
            let mut by_user = BTreeMap::<u32, Vec<u32>>::new();
            for row in all {
                by_user.entry(user[row as usize]).or_default().push(row);
            }
            let (test, valid) = (*test && wanted.test, *valid && wanted.valid);
            let taken = usize::from(test) + usize::from(valid);
            let mut parts = Parts::default();
            for (_, mut rows) in by_user {
                rows.sort_by(|&a, &b| {
                    time[a as usize]
                        .total_cmp(&time[b as usize])
                        .then(a.cmp(&b))
                });
                if rows.len() > taken {
                    if test {
                        parts.test.extend(rows.pop());
                    }
                    if valid {
                        parts.valid.extend(rows.pop());
                    }
                }
                parts.train.extend(rows);
            }
            for part in [&mut parts.train, &mut parts.valid, &mut parts.test] {
                part.sort_unstable();
            }
            let lacks = |part: &[u32], asked: bool| asked && part.is_empty();
            if lacks(&parts.test, test) || lacks(&parts.valid, valid) {
                let problem = format!("leave_last finds no user with {} rows", taken + 1);
                return Err(split_error(problem, "at least one"));
            }
            parts
        }
        Some(SplitConfig::Rows { test, valid }) => {
            let mut part = vec![None; rows];
            if let (Some(file), true) = (test, wanted.test) {
                mark(&mut part, file, "test")?;
            }
            match valid {
                Some(RowsPart::File(file)) if wanted.valid => mark(&mut part, file, "valid")?,
                Some(RowsPart::Share(share)) if wanted.valid => {
                    let mut rest: Vec<u32> = all
                        .into_iter()
                        .filter(|&row| part[row as usize].is_none())
                        .collect();
                    let count = share_of("valid", *share, rest.len())?;
                    shuffle(&mut rest, &mut rng(seed, Purpose::Split, 0, 0));
                    for &row in &rest[rest.len() - count..] {
                        part[row as usize] = Some("valid");
                    }
                }
                _ => {}
            }
            let of = |name| {
                let rows = part
                    .iter()
                    .enumerate()
                    .filter(move |(_, part)| **part == name);
                rows.map(|(row, _)| row as u32).collect()
            };
            Parts {
                train: of(None),
                valid: of(Some("valid")),
                test: of(Some("test")),
            }
        }
    };
    if parts.train.is_empty() {
        let problem = "no row is left to train on".to_owned();
        return Err(split_error(problem, "at least one"));
    }
    Ok(parts)
}

/// Keeps the share `keep` of the rows of label 0 among `rows`, and all others. Without a share to
/// leave out there is nothing to report.
pub(crate) fn keep_negatives(
    rows: &mut Vec<u32>,
    labels: &[f32],
    keep: f64,
    seed: u64,
) -> Result<Option<Negatives>, Error> {
    if keep == 1.0 {
        return Ok(None);
    }
    let is_negative = |row: u32| labels[row as usize] == 0.0;
    let mut negatives: Vec<u32> = rows
        .iter()
        .copied()
        .filter(|&row| is_negative(row))
        .collect();
    let of = negatives.len();
    let kept = (keep * of as f64).round() as usize;
    if kept == 0 && of > 0 {
        return Err(Error::Config {
            key: "data.keep_negatives".to_owned(),
            value: keep.to_string(),
            expected: format!("a share that leaves one of the {of} negatives of the training part"),
        });
    }
    shuffle(&mut negatives, &mut rng(seed, Purpose::KeepNegatives, 0, 0));
    negatives.truncate(kept);
    rows.retain(|&row| !is_negative(row));
    rows.extend(negatives);
    rows.sort_unstable();
    Ok(Some(Negatives {
        kept: kept as u64,
        of: of as u64,
    }))
}

/// Gives the rows that `file` lists to the part called `name`.
fn mark(part: &mut [Option<&'static str>], file: &str, name: &'static str) -> Result<(), Error> {
    let file = expand(file)?;
    let mut lines = LineReader::open(&file, Encoding::Utf8, 1 << 20)?;
    let rows = part.len();
    let mut any = false;
    while let Some((text, line)) = lines.next()? {
        any = true;
        let at = At::line(&file, line);
        let row = text.trim().parse::<usize>().ok().filter(|&row| row < rows);
        let row = row.ok_or_else(|| {
            let expected = format!("a row number from 0 to {}", rows.saturating_sub(1));
            at.value_in(format!("{name} row"), text.trim(), expected)
        })?;
        if part[row].is_some() {
            let expected = "each row once over all parts";
            return Err(at.value_in(format!("{name} row"), text.trim(), expected));
        }
        part[row] = Some(name);
    }
    if any {
        Ok(())
    } else {
        Err(Error::Empty {
            file,
            expected: "row numbers, one a line",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Wanted = Wanted {
        valid: true,
        test: true,
    };

    fn parts(config: &SplitConfig, rows: usize, columns: Columns<'_>) -> Result<Parts, String> {
        split(Some(config), rows, columns, BOTH, 1).map_err(|error| error.to_string())
    }

    fn sorted_union(parts: &Parts) -> Vec<u32> {
        let mut all = [parts.train.as_slice(), &parts.valid, &parts.test].concat();
        all.sort_unstable();
        all
    }

    #[test]
    fn random_shares_cover_all_rows_and_follow_the_seed() {
        let config = SplitConfig::Random {
            valid: 0.1,
            test: 0.2,
        };
        let first = parts(&config, 50, Columns::default()).unwrap();
        assert_eq!(
            (first.train.len(), first.valid.len(), first.test.len()),
            (35, 5, 10)
        );
        assert_eq!(sorted_union(&first), (0..50).collect::<Vec<_>>());
        assert_eq!(parts(&config, 50, Columns::default()).unwrap(), first);
        let other = split(Some(&config), 50, Columns::default(), BOTH, 2).unwrap();
        assert_ne!(other, first);
        let wanted = Wanted {
            valid: true,
            test: false,
        };
        let split = split(Some(&config), 50, Columns::default(), wanted, 1).unwrap();
        assert!(split.test.is_empty() && split.valid.len() == 5);
    }

    #[test]
    fn shares_that_leave_a_part_empty_are_errors() {
        let config = SplitConfig::Random {
            valid: 0.1,
            test: 0.0,
        };
        assert_eq!(
            parts(&config, 4, Columns::default()).unwrap_err(),
            "data.split: valid = 0.1 of 4 rows leaves no valid row; expected a larger share or \
             more rows"
        );
        let config = SplitConfig::Random {
            valid: 0.5,
            test: 0.5,
        };
        assert_eq!(
            parts(&config, 4, Columns::default()).unwrap_err(),
            "data.split: 2 validation and 2 test rows of 4 leave no row to train on; expected \
             smaller shares"
        );
        let config = SplitConfig::Random {
            valid: 1.5,
            test: 0.5,
        };
        assert_eq!(
            parts(&config, 4, Columns::default()).unwrap_err(),
            "data.split: valid = 1.5; expected a share from 0 to below 1"
        );
    }

    #[test]
    fn the_latest_rows_are_tested_and_ties_follow_row_order() {
        let config = SplitConfig::Time {
            column: "t".into(),
            valid: 0.25,
            test: 0.25,
        };
        let time = [9.0, 1.0, 5.0, 5.0];
        let columns = Columns {
            time: Some(&time),
            user: None,
        };
        let parts = parts(&config, 4, columns).unwrap();
        assert_eq!(
            parts,
            Parts {
                train: vec![1, 2],
                valid: vec![3],
                test: vec![0]
            }
        );
    }

    #[test]
    fn each_users_last_rows_are_left_out() {
        let config = SplitConfig::LeaveLast {
            user: "u".into(),
            time: "t".into(),
            valid: true,
            test: true,
        };
        let user = [0, 0, 1, 0, 1, 0];
        let time = [3.0, 1.0, 1.0, 3.0, 2.0, 2.0];
        let columns = Columns {
            time: Some(&time),
            user: Some(&user),
        };
        // User 0 in time: rows 1 5 0 3 (the tie of 0 and 3 by row); user 1 has two rows.
        let split = parts(&config, 6, columns).unwrap();
        assert_eq!(
            split,
            Parts {
                train: vec![1, 2, 4, 5],
                valid: vec![0],
                test: vec![3]
            }
        );
        let few = Columns {
            time: Some(&time[..2]),
            user: Some(&user[..2]),
        };
        assert_eq!(
            parts(&config, 2, few).unwrap_err(),
            "data.split: leave_last finds no user with 3 rows; expected at least one"
        );
    }

    #[test]
    fn a_share_of_the_negatives_and_every_positive_is_kept() {
        // Rows 0, 10, 20 … are positive.
        let labels: Vec<f32> = (0..100).map(|row| f32::from(row % 10 == 0)).collect();
        // Of the rows from 5 on, as if the others were held out: 86 negatives.
        let kept = |keep, seed| {
            let mut rows: Vec<u32> = (5..100).collect();
            let negatives = keep_negatives(&mut rows, &labels, keep, seed);
            negatives.map(|negatives| (rows, negatives))
        };
        let (rows, negatives) = kept(0.25, 1).unwrap();
        assert_eq!(negatives, Some(Negatives { kept: 22, of: 86 }));
        assert_eq!(rows.len(), 9 + 22);
        assert!(rows.is_sorted() && rows.iter().all(|&row| row >= 5));
        assert_eq!(rows.iter().filter(|&row| row % 10 == 0).count(), 9);
        assert_eq!(kept(0.25, 1).unwrap().0, rows);
        assert_ne!(kept(0.25, 2).unwrap().0, rows);
        assert_eq!(kept(1.0, 1).unwrap(), ((5..100).collect(), None));
        assert_eq!(
            kept(0.001, 1).unwrap_err().to_string(),
            "data.keep_negatives = 0.001: expected a share that leaves one of the 86 negatives of \
             the training part"
        );
    }

    #[test]
    fn listed_rows_are_taken_and_bad_lists_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rows");
        let name = file.to_str().unwrap().to_owned();
        let config = SplitConfig::Rows {
            test: Some(name.clone()),
            valid: Some(RowsPart::Share(0.34)),
        };
        std::fs::write(&file, "4\n0\n").unwrap();
        let split = parts(&config, 5, Columns::default()).unwrap();
        assert_eq!(split.test, [0, 4]);
        assert_eq!((split.train.len(), split.valid.len()), (2, 1));
        std::fs::write(&file, "4\n5\n").unwrap();
        assert_eq!(
            parts(&config, 5, Columns::default()).unwrap_err(),
            format!("`{name}` line 2, test row: `5`; expected a row number from 0 to 4")
        );
        std::fs::write(&file, "4\n4\n").unwrap();
        assert_eq!(
            parts(&config, 5, Columns::default()).unwrap_err(),
            format!("`{name}` line 2, test row: `4`; expected each row once over all parts")
        );
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            parts(&config, 5, Columns::default()).unwrap_err(),
            format!("`{name}` is empty; expected row numbers, one a line")
        );
    }
}
