//! Who had to do with what, by user and by item.

use crossfield_core::{Examples, FieldId};

use crate::Error;

/// What becomes of a pair of user and item that occurs more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duplicates {
    /// Each is an observation of its own, as two ratings of one film are.
    Keep,
    /// One observation with the sum of their values, as plays of one song are counted.
    Sum,
}

/// Lists of indices with values, one list a row.
///
/// ```text
/// row 0   (2: 5.0) (7: 3.0)     indices 2 7 | 1     offsets 0 2 3
/// row 1   (1: 4.0)              values  5 3 | 4
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Csr {
    offsets: Vec<u64>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Csr {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The indices of a row, rising, and their values.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[row] as usize..self.offsets[row + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Where the entries of each row begin, and where those of the last one end.
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// The indices of all rows.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// The values of all rows.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// From entries `(row, index, value)` that rise by row, and by index within one.
    fn sorted(rows: usize, entries: impl Iterator<Item = (u32, u32, f32)>) -> Self {
        let mut csr = Self {
            offsets: vec![0; rows + 1],
            ..Self::default()
        };
        for (row, index, value) in entries {
            csr.offsets[row as usize + 1] += 1;
            csr.indices.push(index);
            csr.values.push(value);
        }
        for row in 0..rows {
            csr.offsets[row + 1] += csr.offsets[row];
        }
        csr
    }
}

/// Pairs of a user and an item with a value (a rating, a count of plays, 1 for a click), in the
/// order of users and in that of items.
///
/// Users and items are numbered from 0, as the rows of a vocabulary are; some may have no pair.
///
/// ```
/// use crossfield_mf::{Duplicates, Interactions};
///
/// let pairs = [(0, 2, 5.0), (1, 0, 1.0), (0, 2, 3.0)];
/// let ratings = Interactions::new(2, 3, pairs, Duplicates::Keep)?;
/// assert_eq!(ratings.by_user().row(0), (&[2, 2][..], &[5.0, 3.0][..]));
/// let plays = Interactions::new(2, 3, pairs, Duplicates::Sum)?;
/// assert_eq!(plays.by_item().row(2), (&[0][..], &[8.0][..]));
/// assert_eq!(plays.by_item().row(1), (&[][..], &[][..]));
/// # Ok::<(), crossfield_mf::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Interactions {
    by_user: Csr,
    by_item: Csr,
}

impl Interactions {
    /// From pairs `(user, item, value)` in any order.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::Value`] for a value that is not finite.
    pub fn new(
        users: usize,
        items: usize,
        pairs: impl IntoIterator<Item = (u32, u32, f32)>,
        duplicates: Duplicates,
    ) -> Result<Self, Error> {
        let mut entries: Vec<(u32, u32, f32)> = Vec::new();
        for (row, (user, item, value)) in pairs.into_iter().enumerate() {
            check_index(row, "user", user, users)?;
            check_index(row, "item", item, items)?;
            check_value(row, value)?;
            entries.push((user, item, value));
        }
        // Stable: duplicates stay in their order, so that sums have the same bits.
        entries.sort_by_key(|&(user, item, _)| (user, item));
        if duplicates == Duplicates::Sum {
            entries.dedup_by(|next, kept| {
                let same = (next.0, next.1) == (kept.0, kept.1);
                if same {
                    kept.2 += next.2;
                }
                same
            });
        }
        let by_user = Csr::sorted(users, entries.iter().copied());
        entries.sort_by_key(|&(user, item, _)| (item, user));
        let flipped = entries
            .iter()
            .map(|&(user, item, value)| (item, user, value));
        Ok(Self {
            by_user,
            by_item: Csr::sorted(items, flipped),
        })
    }

    /// From encoded rows: the labels of the pairs that `user` and `item` name, or 1 where rows have
    /// none. `sizes` are the rows of their vocabularies.
    ///
    /// # Errors
    /// [`Error::NotOneHot`] for a field that has not exactly one value a row;
    /// [`new`](Self::new)'s.
    pub fn of_examples(
        examples: &Examples<'_>,
        fields: [FieldId; 2],
        [users, items]: [usize; 2],
        duplicates: Duplicates,
    ) -> Result<Self, Error> {
        let pairs = pairs_of(examples, fields)?.enumerate();
        let pairs = pairs.map(|(row, [user, item])| {
            let value = examples.labels.get(row).copied().unwrap_or(1.0);
            (user, item, value)
        });
        Self::new(users, items, pairs, duplicates)
    }

    /// All pairs `(user, item, value)`, by rising user.
    pub fn pairs(&self) -> impl Iterator<Item = (u32, u32, f32)> {
        (0..self.users()).flat_map(|user| {
            let (items, values) = self.by_user.row(user);
            let pairs = items.iter().zip(values);
            pairs.map(move |(&item, &value)| (user as u32, item, value))
        })
    }

    /// Number of users, those without a pair included.
    pub fn users(&self) -> usize {
        self.by_user.rows()
    }

    /// Number of items, those without a pair included.
    pub fn items(&self) -> usize {
        self.by_item.rows()
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// The items of each user.
    pub fn by_user(&self) -> &Csr {
        &self.by_user
    }

    /// The users of each item.
    pub fn by_item(&self) -> &Csr {
        &self.by_item
    }
}

/// User and item of each row.
pub(crate) fn pairs_of<'a>(
    examples: &Examples<'a>,
    fields: [FieldId; 2],
) -> Result<impl Iterator<Item = [u32; 2]> + use<'a>, Error> {
    let column = |field: FieldId| {
        let mut fields = examples.one_hot_fields.iter();
        let column = fields.position(|&one_hot| one_hot == field);
        column.ok_or(Error::NotOneHot { field })
    };
    let columns = [column(fields[0])?, column(fields[1])?];
    let examples = examples.clone();
    Ok((0..examples.rows).map(move |row| columns.map(|column| examples.one_hot_of(row)[column])))
}

/// Refuses an index beyond the last one.
pub(crate) fn check_index(
    row: usize,
    what: &'static str,
    index: u32,
    count: usize,
) -> Result<(), Error> {
    if (index as usize) < count {
        return Ok(());
    }
    Err(Error::IndexOutOfRange {
        row,
        what,
        index,
        count,
    })
}

/// Refuses a value that is no number.
pub(crate) fn check_value(row: usize, value: f32) -> Result<(), Error> {
    if value.is_finite() {
        return Ok(());
    }
    let expected = "a finite number";
    Err(Error::Value {
        row,
        value,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_empty_ones_are_there() {
        let pairs = [(2, 1, 3.0), (0, 4, 1.0), (2, 0, 2.0)];
        let all = Interactions::new(4, 5, pairs, Duplicates::Keep).unwrap();
        assert_eq!((all.users(), all.items(), all.len()), (4, 5, 3));
        assert_eq!(all.by_user().row(2), (&[0, 1][..], &[2.0, 3.0][..]));
        assert!(all.by_user().row(3).0.is_empty());
        assert_eq!(all.by_item().row(4), (&[0][..], &[1.0][..]));
    }

    #[test]
    fn what_is_no_interaction_is_refused() {
        let new = |pair| Interactions::new(2, 2, [(0, 0, 1.0), pair], Duplicates::Keep);
        assert_eq!(
            new((0, 2, 1.0)).unwrap_err().to_string(),
            "interaction 1: item 2 of 2"
        );
        assert_eq!(
            new((1, 1, f32::NAN)).unwrap_err().to_string(),
            "interaction 1: value NaN, expected a finite number"
        );
    }
}
