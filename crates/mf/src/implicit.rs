//! What models of what people did share: the pairs that count, and what is refused.

use crate::interactions::check_index;
use crate::{Duplicates, Error, Interactions};

/// Longest vector.
const MAX_DIM: usize = 1024;

/// `a · b`, in double precision.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum()
}

/// The pairs with a value above 0, each once with the sum of its values: what was seen.
pub(crate) fn seen(interactions: Interactions) -> Result<Interactions, Error> {
    let by_user = interactions.by_user();
    if let Some((row, (.., value))) = interactions
        .pairs()
        .enumerate()
        .find(|(_, pair)| pair.2 < 0.0)
    {
        let expected = "at least 0";
        return Err(Error::Value {
            row,
            value,
            expected,
        });
    }
    let repeated = (0..by_user.rows()).any(|user| {
        let items = by_user.row(user).0;
        items.windows(2).any(|two| two[0] == two[1])
    });
    let seen = if repeated || by_user.values().contains(&0.0) {
        let above = interactions.pairs().filter(|pair| pair.2 > 0.0);
        Interactions::new(
            interactions.users(),
            interactions.items(),
            above,
            Duplicates::Sum,
        )?
    } else {
        interactions
    };
    if seen.is_empty() {
        return Err(Error::Empty);
    }
    Ok(seen)
}

pub(crate) fn check_dim(embedding_dim: usize) -> Result<(), Error> {
    if (1..=MAX_DIM).contains(&embedding_dim) {
        return Ok(());
    }
    Err(Error::Option {
        option: "embedding_dim",
        value: embedding_dim as f64,
        expected: "1 to 1024",
    })
}

/// Refuses an option that is not finite or not `good`.
pub(crate) fn check_option(
    option: &'static str,
    value: f64,
    good: bool,
    expected: &'static str,
) -> Result<(), Error> {
    if good && value.is_finite() {
        return Ok(());
    }
    Err(Error::Option {
        option,
        value,
        expected,
    })
}

/// Refuses an index beyond the last one.
pub(crate) fn check_indices(
    what: &'static str,
    indices: &[u32],
    count: usize,
) -> Result<(), Error> {
    let mut rows = indices.iter().enumerate();
    rows.try_for_each(|(row, &index)| check_index(row, what, index, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_add_up_and_zeros_are_not_seen() {
        let pairs = [(0, 1, 2.0), (0, 1, 3.0), (1, 0, 0.0), (1, 1, 1.0)];
        let all = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
        let seen = seen(all).unwrap();
        assert_eq!(seen.by_user().row(0), (&[1][..], &[5.0][..]));
        assert_eq!(seen.by_user().row(1), (&[1][..], &[1.0][..]));
        assert!(seen.by_item().row(0).0.is_empty());
    }

    #[test]
    fn negative_values_and_nothing_seen_are_refused() {
        let new = |value| Interactions::new(1, 2, [(0, 1, value)], Duplicates::Keep).unwrap();
        let refused = seen(new(-1.0)).unwrap_err().to_string();
        assert_eq!(refused, "interaction 0: value -1, expected at least 0");
        assert_eq!(seen(new(0.0)).unwrap_err(), Error::Empty);
    }
}
