//! Bayesian personalized ranking: vectors that put what a user has above what he has not.
//!
//! ```text
//! min Σ −ln σ(x_u·(y_i − y_j) + b_i − b_j) + ½ λ (‖x_u‖² + ‖y_i‖² + ‖y_j‖² + b_i² + b_j²)
//! ```
//!
//! over triples of a user u, an item i that he has and an item j that he has not. A step of
//! stochastic gradient descent takes a pair (u, i), each pair as often as any other, and draws j.
//!
//! # Source
//! Rendle, Freudenthaler, Gantner, Schmidt-Thieme, BPR: Bayesian personalized ranking from implicit
//! feedback, UAI 2009, equation 6 and figure 4; sampling negatives by popularity: Rendle,
//! Freudenthaler, Improving pairwise learning for item recommendation from implicit feedback, WSDM
//! 2014. They have no bias of an item; it stands for a coordinate of x_u that is 1 for everyone.

use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_simd::{Isa, Kernel, Lanes, prefetch};
use rand::{Rng, RngExt};
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use serde::{Deserialize, Serialize};

use crate::dense::Rows;
use crate::implicit::{check_dim, check_option, dot, seen};
use crate::{Error, ImplicitParameters, Interactions};

/// Draws of an item before those that the user has are left out by counting.
const TRIES: usize = 32;
/// Triples that are drawn at a time.
const BLOCK: usize = 1024;
/// Triples from the one whose rows are asked for to the one that is done.
const AHEAD: usize = 4;

/// How items that a user does not have are drawn.
///
/// ```
/// use crossfield_mf::Negatives;
///
/// assert_eq!(Negatives::default(), Negatives::Uniform);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Negatives {
    /// Each as often as any other, those that nobody has included.
    #[default]
    Uniform,
    /// In proportion to (number of users that have it)^`power`: harder ones for a power above 0,
    /// which never draws what nobody has.
    Popularity {
        /// The power: 0 is uniform, 1 as often as items occur.
        power: f64,
    },
}

/// Configuration of a [`Bpr`].
///
/// ```
/// use crossfield_mf::{BprConfig, Negatives};
///
/// let config = BprConfig {
///     negatives: Negatives::Popularity { power: 0.5 },
///     ..BprConfig::default()
/// };
/// assert_eq!(config.embedding_dim, 64);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BprConfig {
    /// Length k of the vectors.
    pub embedding_dim: usize,
    /// Learning rate.
    pub lr: f64,
    /// λ, paid by the rows of each triple.
    pub l2: f64,
    /// How items that a user does not have are drawn.
    pub negatives: Negatives,
    /// Whether items have a bias.
    pub item_bias: bool,
    /// Standard deviation of the vectors at the beginning.
    pub init_std: f64,
}

impl Default for BprConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 64,
            lr: 0.05,
            l2: 0.01,
            negatives: Negatives::Uniform,
            item_bias: true,
            init_std: 0.01,
        }
    }
}

impl BprConfig {
    fn check(&self) -> Result<(), Error> {
        check_dim(self.embedding_dim)?;
        check_option("lr", self.lr, self.lr > 0.0, "a number above 0")?;
        check_option("l2", self.l2, self.l2 >= 0.0, "a number of at least 0")?;
        let std = self.init_std;
        check_option("init_std", std, std > 0.0, "a number above 0")?;
        if let Negatives::Popularity { power } = self.negatives {
            check_option("power", power, power >= 0.0, "a number of at least 0")?;
        }
        Ok(())
    }
}

/// Fits vectors by BPR, one epoch after the other.
///
/// An epoch draws as many triples as there are pairs, and updates on one thread. It depends on the
/// pairs, the configuration, the seed, its number and the parameters alone, so that a run goes on
/// from saved parameters ([`resume`](Self::resume)) to the bit.
///
/// - A pair is one with a value above 0; more than one of the same are one, and values do not
///   matter beyond that.
/// - A user without a pair keeps a zero vector. An item that nobody has starts at zero and is only
///   ever a negative.
/// - A user who has every item that can be drawn is left out: there is nothing to put below.
///
/// ```
/// use crossfield_mf::{Bpr, BprConfig, Duplicates, Interactions};
///
/// // Users 0 and 1 like items 0 and 1, users 2 and 3 items 2 and 3; user 0 has not seen item 1.
/// let pairs = [(0, 0), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3)];
/// let pairs = pairs.map(|(user, item)| (user, item, 1.0));
/// let likes = Interactions::new(4, 4, pairs, Duplicates::Sum)?;
/// let config = BprConfig { embedding_dim: 4, ..BprConfig::default() };
/// let mut bpr = Bpr::new(likes, config, 1)?;
/// for _ in 0..400 {
///     bpr.iterate()?;
/// }
/// assert!(bpr.last_loss() < 0.5);
/// let parameters = bpr.parameters();
/// assert!(parameters.score(0, 1) > parameters.score(0, 2));
/// # Ok::<(), crossfield_mf::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bpr {
    interactions: Interactions,
    /// The user of each pair, in the order of users.
    owners: Vec<u32>,
    negatives: NegativeSampler,
    config: BprConfig,
    seed: u64,
    isa: Isa,
    epochs: u64,
    parameters: ImplicitParameters,
    last_loss: f64,
}

impl Bpr {
    /// Starts from small vectors and biases of 0.
    ///
    /// # Errors
    /// [`Error::Option`]; [`Error::Value`] for a value below 0; [`Error::Empty`] where none is above
    /// 0; [`Error::Isa`].
    pub fn new(interactions: Interactions, config: BprConfig, seed: u64) -> Result<Self, Error> {
        config.check()?;
        let interactions = seen(interactions)?;
        let by_user = interactions.by_user();
        let owners = (0..by_user.rows() as u32)
            .flat_map(|user| std::iter::repeat_n(user, by_user.row(user as usize).0.len()))
            .collect();
        Ok(Self {
            negatives: NegativeSampler::new(&interactions, config.negatives)?,
            parameters: ImplicitParameters::init(
                &interactions,
                config.embedding_dim,
                config.init_std,
                config.item_bias,
                seed,
            ),
            isa: Isa::detect()?,
            epochs: 0,
            last_loss: f64::NAN,
            owners,
            interactions,
            config,
            seed,
        })
    }

    /// The parameters after the last epoch.
    pub fn parameters(&self) -> &ImplicitParameters {
        &self.parameters
    }

    /// Mean of `−ln σ(…)` over the triples of the last epoch, each before its step; NaN before the
    /// first, and where no user lacks an item.
    pub fn last_loss(&self) -> f64 {
        self.last_loss
    }

    /// Epochs done.
    pub fn epochs(&self) -> u64 {
        self.epochs
    }

    /// Goes on from the parameters that a run had after that many epochs.
    ///
    /// # Errors
    /// [`Error::Parameters`] and [`Error::NonFinite`]; nothing is changed then.
    pub fn resume(&mut self, parameters: ImplicitParameters, epochs: u64) -> Result<(), Error> {
        parameters.check_like(&self.parameters)?;
        self.parameters = parameters;
        self.epochs = epochs;
        Ok(())
    }

    /// Takes as many steps as there are pairs.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a vector is not finite after them; the parameters before stand.
    pub fn iterate(&mut self) -> Result<(), Error> {
        let dim = self.config.embedding_dim;
        let mut users = Rows::of(&self.parameters.users, dim);
        let mut items = Rows::of(&self.parameters.items, dim);
        let mut bias = self.parameters.item_bias.clone();
        // Without biases they stay 0, for their rate is.
        bias.resize(self.interactions.items(), 0.0);
        let mut rng = rng(self.seed, Purpose::Negatives, self.epochs + 1, 0);
        let (mut loss, mut steps) = (0.0, 0usize);
        let mut triples = Vec::with_capacity(BLOCK);
        let pairs = self.interactions.len();
        for start in (0..pairs).step_by(BLOCK) {
            triples.clear();
            for _ in start..(start + BLOCK).min(pairs) {
                triples.extend(self.draw(&mut rng));
            }
            steps += triples.len();
            loss += self.isa.run(Steps {
                triples: &triples,
                width: users.stride(),
                users: users.values_mut(),
                items: items.values_mut(),
                bias: &mut bias,
                rates: Rates::of(&self.config),
            });
        }
        let mut parameters = self.parameters.clone();
        users.copy_to(&mut parameters.users);
        items.copy_to(&mut parameters.items);
        if self.config.item_bias {
            parameters.item_bias = bias;
        }
        parameters.check_finite()?;
        self.parameters = parameters;
        self.epochs += 1;
        self.last_loss = loss / steps as f64;
        Ok(())
    }

    /// A pair, and an item that its user does not have; none where he has all.
    fn draw(&self, rng: &mut impl Rng) -> Option<Triple> {
        let by_user = self.interactions.by_user();
        let pair = rng.random_range(0..self.owners.len());
        let user = self.owners[pair];
        let negative = self.negatives.draw(by_user.row(user as usize).0, rng)?;
        Some(Triple {
            user,
            item: by_user.indices()[pair],
            negative,
        })
    }

    /// The vector of a user with these items, all else as it is: a new user's, or the one of a user
    /// who has got another item.
    ///
    /// It takes `epochs` × the number of items steps of x_u alone, from zero, over the triples that
    /// an epoch draws for such a user; the number of epochs that the items were fitted with suits.
    /// The same items give the same bits; an item that is named more than once counts once, and no
    /// items give a zero vector.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::NonFinite`].
    pub fn fold_in_user(&self, items: &[u32], epochs: usize) -> Result<Vec<f32>, Error> {
        let items = distinct("item", items, self.interactions.items())?;
        let mut rng = rng(self.seed, Purpose::Negatives, name_key("fold_in"), 0);
        let parameters = &self.parameters;
        let mut x = vec![0.0; self.config.embedding_dim];
        for _ in 0..epochs * items.len() {
            let item = items[rng.random_range(0..items.len())] as usize;
            let Some(negative) = self.negatives.draw(&items, &mut rng) else {
                break;
            };
            let negative = negative as usize;
            let (y, z) = (parameters.item(item), parameters.item(negative));
            let bias = self.bias(item) - self.bias(negative);
            let slope = slope(dot(&x, y) - dot(&x, z) + bias);
            for (x, (&y, &z)) in x.iter_mut().zip(y.iter().zip(z)) {
                *x += self.step(slope * f64::from(y - z), *x);
            }
        }
        finite("user", self.interactions.users(), x)
    }

    /// The vector and the bias (0 without biases) of an item that these users have, all else as it
    /// is: a new item's, or the one of an item that has got another user.
    ///
    /// As [`fold_in_user`](Self::fold_in_user); the item is drawn as a negative of other users as
    /// often as in an epoch, against their items.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::NonFinite`].
    pub fn fold_in_item(&self, users: &[u32], epochs: usize) -> Result<(Vec<f32>, f32), Error> {
        let users = distinct("user", users, self.interactions.users())?;
        let mut rng = rng(self.seed, Purpose::Negatives, name_key("fold_in"), 1);
        let parameters = &self.parameters;
        let by_user = self.interactions.by_user();
        let pairs = self.owners.len();
        let as_negative = (pairs as f64 * self.negatives.share(users.len())).round() as usize;
        let mut y = vec![0.0; self.config.embedding_dim];
        let mut bias = 0.0;
        let steps = if users.is_empty() {
            0
        } else {
            users.len() + as_negative
        };
        for _ in 0..epochs * steps {
            let at = rng.random_range(0..steps);
            let (user, other, sign) = if let Some(&user) = users.get(at) {
                let has = by_user.row(user as usize).0;
                let Some(negative) = self.negatives.draw(has, &mut rng) else {
                    continue;
                };
                (user, negative, 1.0)
            } else {
                let pair = rng.random_range(0..pairs);
                let user = self.owners[pair];
                if users.binary_search(&user).is_ok() {
                    continue;
                }
                (user, by_user.indices()[pair], -1.0)
            };
            let x = parameters.user(user as usize);
            let ahead =
                f64::from(bias) + dot(x, &y) - parameters.score(user as usize, other as usize);
            let slope = sign * slope(sign * ahead);
            for (y, &x) in y.iter_mut().zip(x) {
                *y += self.step(slope * f64::from(x), *y);
            }
            if self.config.item_bias {
                bias += self.step(slope, bias);
            }
        }
        Ok((finite("item", self.interactions.items(), y)?, bias))
    }

    fn bias(&self, item: usize) -> f64 {
        let bias = self.parameters.item_bias.get(item);
        f64::from(bias.copied().unwrap_or(0.0))
    }

    fn step(&self, ascent: f64, value: f32) -> f32 {
        (self.config.lr * (ascent - self.config.l2 * f64::from(value))) as f32
    }
}

/// The slope of ln σ at `ahead`: `σ(−ahead)`.
fn slope(ahead: f64) -> f64 {
    1.0 / (1.0 + ahead.exp())
}

fn distinct(what: &'static str, indices: &[u32], count: usize) -> Result<Vec<u32>, Error> {
    crate::implicit::check_indices(what, indices, count)?;
    let mut indices = indices.to_vec();
    indices.sort_unstable();
    indices.dedup();
    Ok(indices)
}

fn finite(what: &'static str, index: usize, vector: Vec<f32>) -> Result<Vec<f32>, Error> {
    if vector.iter().all(|value| value.is_finite()) {
        return Ok(vector);
    }
    Err(Error::NonFinite { what, index })
}

/// Draws items that a user does not have.
#[derive(Clone, Debug)]
struct NegativeSampler {
    kind: Negatives,
    /// How often each item is drawn, up to a factor.
    weights: Vec<f64>,
    total: f64,
    /// None: uniform.
    alias: Option<WeightedAliasIndex<f64>>,
    /// Items that can be drawn at all.
    candidates: usize,
}

impl NegativeSampler {
    fn new(interactions: &Interactions, kind: Negatives) -> Result<Self, Error> {
        let by_item = interactions.by_item();
        let weight = |item| weight(kind, by_item.row(item).0.len());
        let weights: Vec<f64> = (0..by_item.rows()).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let alias = match kind {
            Negatives::Uniform => None,
            Negatives::Popularity { power } => {
                let alias = WeightedAliasIndex::new(weights.clone());
                // The weights of items that somebody has are 1 or more, so only their size matters.
                Some(alias.map_err(|_| Error::Option {
                    option: "power",
                    value: power,
                    expected: "one that keeps counts^power finite",
                })?)
            }
        };
        Ok(Self {
            candidates: weights.iter().filter(|&&weight| weight > 0.0).count(),
            kind,
            weights,
            total,
            alias,
        })
    }

    /// An item that is not among those (rising); none where they are all that can be drawn.
    fn draw(&self, has: &[u32], rng: &mut impl Rng) -> Option<u32> {
        let few = has.len() < self.candidates;
        for _ in 0..if few { TRIES } else { 0 } {
            let item = match &self.alias {
                None => rng.random_range(0..self.weights.len()),
                Some(alias) => alias.sample(rng),
            };
            if has.binary_search(&(item as u32)).is_err() {
                return Some(item as u32);
            }
        }
        // He has nearly all: from the others, by their weights.
        let mut others = Vec::new();
        let mut total = 0.0;
        for (item, &weight) in self.weights.iter().enumerate() {
            if weight > 0.0 && has.binary_search(&(item as u32)).is_err() {
                total += weight;
                others.push((item as u32, total));
            }
        }
        let &(last, _) = others.last()?;
        let at = rng.random::<f64>() * total;
        let found = others.iter().find(|(_, up_to)| at < *up_to);
        Some(found.map_or(last, |&(item, _)| item))
    }

    /// How large a part of the draws an item with that many users has.
    fn share(&self, users: usize) -> f64 {
        let weight = weight(self.kind, users);
        weight / (self.total + weight)
    }
}

fn weight(kind: Negatives, users: usize) -> f64 {
    match kind {
        Negatives::Uniform => 1.0,
        Negatives::Popularity { power } => (users as f64).powf(power),
    }
}

/// A user, an item that he has, and one that he has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Triple {
    user: u32,
    item: u32,
    negative: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rates {
    lr: f32,
    /// 0 without biases.
    bias_lr: f32,
    l2: f32,
}

impl Rates {
    fn of(config: &BprConfig) -> Self {
        let lr = config.lr as f32;
        Self {
            lr,
            bias_lr: if config.item_bias { lr } else { 0.0 },
            l2: config.l2 as f32,
        }
    }
}

/// A step for each triple, in their order; gives the sum of the losses before.
struct Steps<'a> {
    triples: &'a [Triple],
    /// Floats of a row, whole vectors.
    width: usize,
    users: &'a mut [f32],
    items: &'a mut [f32],
    bias: &'a mut [f32],
    rates: Rates,
}

impl Kernel for Steps<'_> {
    type Output = f64;

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) -> f64 {
        let (users, items) = (self.users.as_mut_ptr(), self.items.as_mut_ptr());
        let Rates { lr, bias_lr, l2 } = self.rates;
        let bytes = self.width * size_of::<f32>();
        let mut loss = 0.0;
        for (nth, triple) in self.triples.iter().enumerate() {
            if let Some(next) = self.triples.get(nth + AHEAD) {
                prefetch(
                    users.wrapping_add(next.user as usize * self.width).cast(),
                    bytes,
                );
                prefetch(
                    items.wrapping_add(next.item as usize * self.width).cast(),
                    bytes,
                );
                prefetch(
                    items
                        .wrapping_add(next.negative as usize * self.width)
                        .cast(),
                    bytes,
                );
            }
            let (item, negative) = (triple.item as usize, triple.negative as usize);
            // SAFETY: indices of interactions and of the sampler are within their tables, whose
            // rows are `width` floats, whole vectors of every set; item and negative differ.
            unsafe {
                let x = users.add(triple.user as usize * self.width);
                let y = items.add(item * self.width);
                let z = items.add(negative * self.width);
                let mut dots = L::splat(0.0);
                for at in (0..self.width).step_by(L::N) {
                    let difference = L::load(y.add(at)).sub(L::load(z.add(at)));
                    dots = L::load(x.add(at)).mul_add(difference, dots);
                }
                let ahead = dots.sum() + self.bias[item] - self.bias[negative];
                // In a form that does not overflow.
                let small = (-ahead.abs()).exp();
                let slope = if ahead > 0.0 { small } else { 1.0 } / (1.0 + small);
                loss += f64::from(small.ln_1p() + (-ahead).max(0.0));
                let (up, kept) = (L::splat(lr * slope), L::splat(1.0 - lr * l2));
                for at in (0..self.width).step_by(L::N) {
                    let (user, has) = (L::load(x.add(at)), L::load(y.add(at)));
                    let lacks = L::load(z.add(at));
                    let by_user = up.mul(user);
                    up.mul_add(has.sub(lacks), kept.mul(user)).store(x.add(at));
                    kept.mul_add(has, by_user).store(y.add(at));
                    kept.mul(lacks).sub(by_user).store(z.add(at));
                }
                self.bias[item] += bias_lr * (slope - l2 * self.bias[item]);
                self.bias[negative] -= bias_lr * (slope + l2 * self.bias[negative]);
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Duplicates;

    fn likes(users: usize, items: usize, pairs: &[(u32, u32)]) -> Interactions {
        let pairs = pairs.iter().map(|&(user, item)| (user, item, 1.0));
        Interactions::new(users, items, pairs, Duplicates::Sum).unwrap()
    }

    fn config(embedding_dim: usize) -> BprConfig {
        BprConfig {
            embedding_dim,
            ..BprConfig::default()
        }
    }

    /// Two groups of ten users: those of a group have nine of its ten items each.
    fn groups() -> Interactions {
        let pairs = (0..20u32).flat_map(|user| {
            let items = (0..10).filter(move |item| *item != user % 10);
            items.map(move |item| (user, user / 10 * 10 + item))
        });
        likes(20, 20, &pairs.collect::<Vec<_>>())
    }

    #[test]
    fn a_step_follows_the_formula_on_every_instruction_set() {
        let (x, y, z) = ([0.5, -1.0, 0.25], [1.0, 0.5, -0.5], [-0.25, 0.75, 1.0]);
        let (lr, l2) = (0.1, 0.02);
        let ahead: f64 = (0..3).map(|f| x[f] * (y[f] - z[f])).sum::<f64>() + 0.3 - 0.1;
        let slope = 1.0 / (1.0 + ahead.exp());
        for isa in Isa::available() {
            let single = |v: [f64; 3]| v.map(|v| v as f32);
            let mut users = Rows::of(&single(x), 3);
            let mut items = Rows::of(&[single(z), single(y)].concat(), 3);
            let mut bias = [0.1, 0.3];
            let triple = Triple {
                user: 0,
                item: 1,
                negative: 0,
            };
            let loss = isa.run(Steps {
                triples: &[triple],
                width: users.stride(),
                users: users.values_mut(),
                items: items.values_mut(),
                bias: &mut bias,
                rates: Rates {
                    lr: lr as f32,
                    bias_lr: lr as f32,
                    l2: l2 as f32,
                },
            });
            let close = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 1e-6);
            assert!((loss - (-ahead).exp().ln_1p()).abs() < 1e-6);
            for f in 0..3 {
                let moved = |v: f64, ascent: f64| v + lr * (ascent - l2 * v);
                close(users.row(0)[f], moved(x[f], slope * (y[f] - z[f])));
                close(items.row(1)[f], moved(y[f], slope * x[f]));
                close(items.row(0)[f], moved(z[f], -slope * x[f]));
            }
            close(bias[1], 0.3 + lr * (slope - l2 * 0.3));
            close(bias[0], 0.1 + lr * (-slope - l2 * 0.1));
            let padding = users.row(0)[3..].iter().chain(&items.row(0)[3..]);
            assert!(padding.into_iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn negatives_are_never_items_that_the_user_has() {
        let interactions = groups();
        for kind in [Negatives::Uniform, Negatives::Popularity { power: 0.75 }] {
            let negatives = NegativeSampler::new(&interactions, kind).unwrap();
            let mut rng = rng(1, Purpose::Negatives, 1, 0);
            // All but item 7: soon drawn by counting.
            let has: Vec<u32> = (0..20).filter(|&item| item != 7).collect();
            for _ in 0..100 {
                assert_eq!(negatives.draw(&has, &mut rng), Some(7));
                assert!(negatives.draw(&[0, 1, 2], &mut rng).unwrap() > 2);
            }
            let all: Vec<u32> = (0..20).collect();
            assert_eq!(negatives.draw(&all, &mut rng), None);
        }
    }

    #[test]
    fn popular_items_are_drawn_by_the_power_of_their_users() {
        // Item 0 has four users, item 1 one, item 2 none.
        let pairs = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1)];
        let power = 0.5;
        let interactions = likes(6, 3, &pairs);
        let negatives =
            NegativeSampler::new(&interactions, Negatives::Popularity { power }).unwrap();
        let mut rng = rng(1, Purpose::Negatives, 1, 0);
        let mut counts = [0; 3];
        for _ in 0..3000 {
            counts[negatives.draw(&[], &mut rng).unwrap() as usize] += 1;
        }
        // 2 : 1 : 0; the standard error of the first is 26.
        assert!((counts[0] as i32 - 2000).abs() < 100 && counts[2] == 0);
        assert_eq!(negatives.share(4), 2.0 / 5.0);
    }

    #[test]
    fn what_a_user_lacks_of_his_group_comes_before_the_other_group() {
        let mut bpr = Bpr::new(groups(), config(8), 1).unwrap();
        for _ in 0..200 {
            bpr.iterate().unwrap();
        }
        for user in 0..20 {
            let held_out = user / 10 * 10 + user % 10;
            let other = (1 - user / 10) * 10;
            let score = |item| bpr.parameters().score(user, item);
            assert!((other..other + 10).all(|item| score(item) < score(held_out)));
        }
    }

    #[test]
    fn a_run_goes_on_from_its_parameters_to_the_bit() {
        let mut whole = Bpr::new(groups(), config(5), 3).unwrap();
        whole.iterate().unwrap();
        let mut resumed = Bpr::new(groups(), config(5), 3).unwrap();
        resumed.resume(whole.parameters().clone(), 1).unwrap();
        whole.iterate().unwrap();
        resumed.iterate().unwrap();
        assert_eq!(whole.parameters(), resumed.parameters());
        assert_eq!(whole.last_loss(), resumed.last_loss());
        let smaller = Bpr::new(groups(), config(4), 3)
            .unwrap()
            .parameters()
            .clone();
        let refused = resumed.resume(smaller, 1).unwrap_err();
        assert_eq!(
            refused,
            Error::Parameters {
                got: 180,
                expected: 220
            }
        );
    }

    #[test]
    fn a_user_who_has_everything_and_one_who_has_nothing_are_left_out() {
        let all = likes(3, 2, &[(0, 0), (0, 1), (1, 0)]);
        let mut bpr = Bpr::new(all, config(3), 1).unwrap();
        let before = bpr.parameters().clone();
        bpr.iterate().unwrap();
        let after = bpr.parameters();
        assert_eq!(after.user(0), before.user(0));
        assert_eq!(after.user(2), [0.0; 3]);

        let mut nothing = Bpr::new(likes(1, 1, &[(0, 0)]), config(3), 1).unwrap();
        nothing.iterate().unwrap();
        assert!(nothing.last_loss().is_nan());
    }

    #[test]
    fn without_biases_there_are_none() {
        let config = BprConfig {
            item_bias: false,
            ..config(2)
        };
        let mut bpr = Bpr::new(groups(), config, 1).unwrap();
        bpr.iterate().unwrap();
        assert!(bpr.parameters().item_bias.is_empty());
        assert_eq!(bpr.fold_in_item(&[0], 3).unwrap().1, 0.0);
    }

    #[test]
    fn folded_in_rows_rank_as_the_fitted_ones_do() {
        let mut bpr = Bpr::new(groups(), config(8), 1).unwrap();
        for _ in 0..200 {
            bpr.iterate().unwrap();
        }
        let parameters = bpr.parameters();
        let user = bpr.fold_in_user(&[1, 2, 2, 3], 200).unwrap();
        let score =
            |item: usize| dot(&user, parameters.item(item)) + f64::from(parameters.item_bias[item]);
        let worst = (4..10).map(score).fold(f64::MAX, f64::min);
        assert!((10..20).all(|item| score(item) < worst));

        let (item, bias) = bpr.fold_in_item(&[11, 12, 13], 200).unwrap();
        let score = |user: usize| dot(&item, parameters.user(user)) + f64::from(bias);
        let worst = (14..20).map(score).fold(f64::MAX, f64::min);
        assert!((0..10).all(|user| score(user) < worst));
        assert_eq!(bpr.fold_in_item(&[], 9).unwrap(), (vec![0.0; 8], 0.0));
        assert_eq!(bpr.fold_in_user(&[], 9).unwrap(), vec![0.0; 8]);
        let refused = bpr.fold_in_user(&[1, 20], 9).unwrap_err().to_string();
        assert_eq!(refused, "interaction 1: item 20 of 20");
    }

    #[test]
    fn numbers_that_grow_too_large_stop_the_run_and_the_parameters_stand() {
        let config = BprConfig {
            lr: 1e3,
            l2: 1e3,
            ..config(2)
        };
        let mut bpr = Bpr::new(groups(), config, 1).unwrap();
        let before = bpr.parameters().clone();
        assert!(matches!(bpr.iterate(), Err(Error::NonFinite { .. })));
        assert_eq!(bpr.parameters(), &before);
    }

    #[test]
    fn options_out_of_their_range_are_refused() {
        let refused = |config| Bpr::new(groups(), config, 1).unwrap_err().to_string();
        let rate = BprConfig {
            lr: 0.0,
            ..config(2)
        };
        assert_eq!(refused(rate), "lr is 0: expected a number above 0");
        assert_eq!(refused(config(0)), "embedding_dim is 0: expected 1 to 1024");
        let negatives = Negatives::Popularity { power: -1.0 };
        let power = BprConfig {
            negatives,
            ..config(2)
        };
        assert_eq!(
            refused(power),
            "power is -1: expected a number of at least 0"
        );
    }
}
