//! What models of implicit feedback share: their parameters, and what is refused.

use crossfield_core::rng::{Purpose, name_key, rng};
use rand::RngExt;
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};

use crate::{Duplicates, Error, Interactions};

/// Longest vector.
const MAX_DIM: usize = 1024;

/// Vectors of users and items whose dot product ranks the items of a user.
///
/// ```text
/// z_ui = x_u · y_i + b_i
/// ```
///
/// ```
/// use crossfield_mf::ImplicitParameters;
///
/// let parameters = ImplicitParameters {
///     embedding_dim: 2,
///     users: vec![1.0, 2.0],
///     items: vec![3.0, 0.5, -1.0, 1.0],
///     item_bias: vec![0.25, 0.0],
/// };
/// assert_eq!(parameters.score(0, 0), 3.0 + 1.0 + 0.25);
/// assert_eq!(parameters.score(0, 1), -1.0 + 2.0);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImplicitParameters {
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// x, `[users, embedding_dim]`, row-major.
    pub users: Vec<f32>,
    /// y, `[items, embedding_dim]`, row-major.
    pub items: Vec<f32>,
    /// b, `[items]`; empty: there is none.
    pub item_bias: Vec<f32>,
}

impl ImplicitParameters {
    /// Vectors that are normal around 0, and biases of 0 where there are any; zero vectors for users
    /// and items without a pair.
    pub(crate) fn init(
        interactions: &Interactions,
        embedding_dim: usize,
        std: f64,
        item_bias: bool,
        seed: u64,
    ) -> Self {
        let draw = |name: &str, side: &crate::Csr| {
            let mut rng = rng(seed, Purpose::TableInit, name_key(name), 0);
            let mut vectors = vec![0.0; side.rows() * embedding_dim];
            for (row, vector) in vectors.chunks_exact_mut(embedding_dim).enumerate() {
                if !side.row(row).0.is_empty() {
                    vector.fill_with(|| (std * rng.sample::<f64, _>(StandardNormal)) as f32);
                }
            }
            vectors
        };
        Self {
            embedding_dim,
            users: draw("implicit.users", interactions.by_user()),
            items: draw("implicit.items", interactions.by_item()),
            item_bias: vec![0.0; if item_bias { interactions.items() } else { 0 }],
        }
    }

    /// `x_u · y_i + b_i`.
    ///
    /// # Panics
    /// If there is no such user or item.
    pub fn score(&self, user: usize, item: usize) -> f64 {
        let score = dot(self.user(user), self.item(item));
        score + f64::from(self.item_bias.get(item).copied().unwrap_or(0.0))
    }

    /// The vector of a user.
    ///
    /// # Panics
    /// If there is no such user.
    pub fn user(&self, user: usize) -> &[f32] {
        &self.users[user * self.embedding_dim..][..self.embedding_dim]
    }

    /// The vector of an item.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn item(&self, item: usize) -> &[f32] {
        &self.items[item * self.embedding_dim..][..self.embedding_dim]
    }

    /// That these have the shape of others, and are finite.
    pub(crate) fn check_like(&self, other: &Self) -> Result<(), Error> {
        let parts = |p: &Self| [p.users.len(), p.items.len(), p.item_bias.len()];
        if self.embedding_dim != other.embedding_dim || parts(self) != parts(other) {
            return Err(Error::Parameters {
                got: parts(self).iter().sum(),
                expected: parts(other).iter().sum(),
            });
        }
        self.check_finite()
    }

    pub(crate) fn check_finite(&self) -> Result<(), Error> {
        let parts = [
            ("user", &self.users, self.embedding_dim),
            ("item", &self.items, self.embedding_dim),
            ("item", &self.item_bias, 1),
        ];
        for (what, values, dim) in parts {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let index = at / dim;
                return Err(Error::NonFinite { what, index });
            }
        }
        Ok(())
    }
}

/// `a · b`, in double precision.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
    products.sum()
}

/// The pairs with a value above 0, each once with the sum of its values: what was seen.
pub(crate) fn seen(interactions: Interactions) -> Result<Interactions, Error> {
    let by_user = interactions.by_user();
    let pairs = (0..by_user.rows()).flat_map(|user| {
        let (items, values) = by_user.row(user);
        items
            .iter()
            .zip(values)
            .map(move |(&item, &value)| (user as u32, item, value))
    });
    if let Some((row, (.., value))) = pairs.clone().enumerate().find(|(_, pair)| pair.2 < 0.0) {
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
        let above = pairs.filter(|pair| pair.2 > 0.0);
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
    match indices.iter().position(|&index| index as usize >= count) {
        None => Ok(()),
        Some(row) => Err(Error::IndexOutOfRange {
            row,
            what,
            index: indices[row],
            count,
        }),
    }
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
