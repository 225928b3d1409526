//! The planted ad log: clicks whose true probabilities are known.
//!
//! Users with attributes and a hidden taste see ads of campaigns of categories, at an hour, on a
//! device, at a placement of a site. The log-odds of a click are
//!
//! ```text
//! z = bias + Σ_f b_f[i_f] + Σ_{(f, g)} s_{fg} ⟨a_{i_f, g}, a_{i_g, f}⟩
//!       − s · lean[category] · lean[site] + s · m / (h + m)
//! m = Σ_{items of the history, newest first} r^age · relation(item, ad)
//! ```
//!
//! * The pairs are **field-aware**: a value has one vector towards each field that it meets, drawn
//!   independently. Gender moves categories and sites along their lean; a category and a site of
//!   the same lean do worse together, where one vector a value would have them do better.
//! * Tastes are shared by segments of users, which follow age and gender in part, and are each
//!   user's own in part. No column holds them: a model learns them from the user's id, which is
//!   slow for rare users, or from the history.
//! * The **history** holds ads that the user has clicked elsewhere, drawn from the taste, before
//!   the row. It moves on between the rows of a user and does not depend on any click of the log,
//!   so that no split can leak a label through it. An item counts by its relation to the ad
//!   (same campaign, same category, a category that leads to the ad's) and by how recent it is,
//!   and the sum saturates early, so that one related item among many counts almost as much as
//!   several: attention over the items can find it, a mean of them dilutes it.
//! * Users and ads have Zipf ids, so most ids are rare.
//!
//! The labels are drawn from the probabilities: no model can have a lower expected logloss than
//! the truth's, which [`AdLog::probability`] gives.
//!
//! The same configuration gives the same log on every platform: all randomness is ChaCha, and all
//! arithmetic is in f64 with operations that IEEE 754 rounds exactly (the exponential and the
//! logarithm are written out here, the platform's are not used).
//!
//! ```
//! use crossfield_data::synth::{AdLog, SynthConfig, generate};
//!
//! let log = generate(&SynthConfig { rows: 100, ..SynthConfig::default() })?;
//! let mut record = Vec::new();
//! log.record(0, &mut record);
//! assert_eq!(record.len(), AdLog::HEADER.len());
//! assert!((0.0..1.0).contains(&log.probability(0)));
//! # Ok::<(), crossfield_data::synth::SynthError>(())
//! ```

use std::fmt::Write as _;
use std::io;

use crossfield_core::FieldKind;
use crossfield_core::rng::{Purpose, rng};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Rows of a row group of Parquet.
#[cfg(feature = "parquet")]
const ROW_GROUP: usize = 1 << 17;

/// Size and shape of a planted ad log.
///
/// The default log has 400,000 rows over two weeks, 117,000 ids (71,000 users, 44,000 ads), one click
/// in four rows, and a true AUC of 0.84.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SynthConfig {
    /// Rows (impressions).
    pub rows: usize,
    /// Users who can appear.
    pub users: u32,
    /// Ads that can appear.
    pub ads: u32,
    /// Campaigns, each of one category.
    pub campaigns: u32,
    /// Categories of advertisers.
    pub categories: u32,
    /// Sites.
    pub sites: u32,
    /// A user of rank `r` appears in proportion to `r^−zipf_users`.
    pub zipf_users: f64,
    /// As `zipf_users`, for ads.
    pub zipf_ads: f64,
    /// Longest history, in items.
    pub history: u32,
    /// Seed of everything random.
    pub seed: u64,
}

impl Default for SynthConfig {
    fn default() -> Self {
        Self {
            rows: 400_000,
            users: 80_000,
            ads: 50_000,
            campaigns: 1_500,
            categories: 24,
            sites: 300,
            zipf_users: 0.75,
            zipf_ads: 0.9,
            history: 16,
            seed: 1,
        }
    }
}

/// Why an ad log could not be generated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// A size or exponent out of its range.
    #[error("ad log: {key} = {value}, expected {expected}")]
    OutOfRange {
        /// Key of [`SynthConfig`].
        key: &'static str,
        /// Its value.
        value: f64,
        /// What it has to be.
        expected: &'static str,
    },
}

impl SynthConfig {
    fn check(&self) -> Result<(), SynthError> {
        let sizes = [
            (
                "rows",
                self.rows as f64,
                0.0,
                1e9,
                "from 0 to 1,000,000,000",
            ),
            (
                "users",
                self.users.into(),
                1.0,
                1e9,
                "from 1 to 1,000,000,000",
            ),
            ("ads", self.ads.into(), 1.0, 1e9, "from 1 to 1,000,000,000"),
            (
                "campaigns",
                self.campaigns.into(),
                1.0,
                1e7,
                "from 1 to 10,000,000",
            ),
            (
                "categories",
                self.categories.into(),
                1.0,
                1e4,
                "from 1 to 10,000",
            ),
            ("sites", self.sites.into(), 1.0, 1e7, "from 1 to 10,000,000"),
            (
                "zipf_users",
                self.zipf_users,
                0.0,
                4.0,
                "an exponent from 0 to 4",
            ),
            (
                "zipf_ads",
                self.zipf_ads,
                0.0,
                4.0,
                "an exponent from 0 to 4",
            ),
            (
                "history",
                self.history.into(),
                0.0,
                1000.0,
                "from 0 to 1,000 items",
            ),
        ];
        for (key, value, least, most, expected) in sizes {
            if !(least..=most).contains(&value) {
                return Err(SynthError::OutOfRange {
                    key,
                    value,
                    expected,
                });
            }
        }
        // Positions of the clicks made elsewhere are 32 bits wide.
        let most = u64::from(MOST_ADVANCE) * self.rows as u64
            + u64::from(self.users) * u64::from(self.history);
        if most > u64::from(u32::MAX) {
            return Err(SynthError::OutOfRange {
                key: "history",
                value: self.history.into(),
                expected: "3 · rows + users · history of at most 4,294,967,295",
            });
        }
        Ok(())
    }
}

/// A field of the ad log, for a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthField {
    /// Name of the field and of its column.
    pub name: &'static str,
    /// How its values are to be read.
    pub kind: FieldKind,
    /// Vocabulary; the items of a history share the ads'.
    pub vocabulary: &'static str,
    /// What separates the values in a cell, if there can be more than one.
    pub delimiter: Option<char>,
}

/// Separates the items of a history.
pub const HISTORY_DELIMITER: char = '|';

const AGES: [&str; 7] = ["18-24", "25-34", "35-44", "45-54", "55-64", "65-74", "75+"];
const AGE_WEIGHTS: [f64; 7] = [18.0, 24.0, 20.0, 16.0, 11.0, 7.0, 4.0];
const GENDERS: [&str; 2] = ["f", "m"];
const DEVICES: [&str; 4] = ["phone", "desktop", "tablet", "tv"];
const DEVICE_WEIGHTS: [f64; 4] = [58.0, 27.0, 10.0, 5.0];
const PLACEMENTS: [&str; 6] = ["top", "feed", "side", "article", "video", "footer"];
const PLACEMENT_WEIGHTS: [f64; 6] = [22.0, 34.0, 14.0, 15.0, 9.0, 6.0];
/// Rows by hour of the day, in proportion.
const ACTIVITY: [f64; 24] = [
    9.0, 5.0, 3.0, 2.0, 2.0, 4.0, 9.0, 16.0, 21.0, 22.0, 21.0, 22.0, 26.0, 25.0, 21.0, 20.0, 21.0,
    24.0, 28.0, 33.0, 36.0, 35.0, 27.0, 16.0,
];
/// Midnight of Monday, 1 January 2024, UTC, in seconds.
const START: u64 = 1_704_067_200;
const DAYS: f64 = 14.0;

/// Length of the planted vectors.
const RANK: usize = 3;
const SEGMENTS: u32 = 14;
const ROWS_PER_BLOCK: usize = 4096;
/// Most clicks elsewhere between two rows of a user.
const MOST_ADVANCE: u32 = 3;

/// What the values of a row are about. The order is that of the planted ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    User,
    Age,
    Gender,
    Hour,
    Device,
    Site,
    Placement,
    Ad,
    Campaign,
    Category,
}

use Planted::{Ad, Age, Campaign, Category, Device, Gender, Hour, Placement, Site, User};

const PLANTED: [Planted; 10] = [
    User, Age, Gender, Hour, Device, Site, Placement, Ad, Campaign, Category,
];

const BIAS: f64 = -1.9;

/// Standard deviation of the effect of each field on its own.
const LINEAR: [(Planted, f64); 10] = [
    (User, 0.2),
    (Age, 0.2),
    (Gender, 0.1),
    (Hour, 0.2),
    (Device, 0.3),
    (Site, 0.45),
    (Placement, 0.45),
    (Ad, 0.15),
    (Campaign, 0.35),
    (Category, 0.35),
];

/// Standard deviation of the effect of each pair of fields.
const PAIRS: [(Planted, Planted, f64); 11] = [
    (User, Category, 0.5),
    (Gender, Category, 0.6),
    (Gender, Site, 0.35),
    (Age, Category, 0.55),
    (Age, Site, 0.35),
    (Hour, Category, 0.35),
    (Device, Category, 0.35),
    (Device, Placement, 0.3),
    (Site, Category, 0.35),
    (Campaign, Age, 0.2),
    (Campaign, Site, 0.2),
];

/// Weight of −lean[category] · lean[site].
const LEAN_CONFLICT: f64 = 0.3;

/// Share of a taste that is its segment's; the rest is the user's own.
const SEGMENT_SHARE: f64 = 0.85;

/// How sharply the items of a history follow the taste.
const TASTE_SHARPNESS: f64 = 1.0;
const HISTORY_STRENGTH: f64 = 1.6;
/// Interest at which half of the strength is reached.
const HALF_INTEREST: f64 = 0.3;
const RECENCY: f64 = 0.8;
const SAME_CAMPAIGN: f64 = 2.0;
const SAME_CATEGORY: f64 = 0.8;
const LEADS_TO: f64 = 0.8;

/// Parts of the generator, each with streams of its own. The effects of the fields have the parts
/// from 100 on, the vectors of the pairs those from 200 on.
#[derive(Clone, Copy)]
enum Part {
    Users = 1,
    Ads = 2,
    Campaigns = 3,
    Rows = 4,
    History = 5,
    Labels = 6,
    Segments = 7,
}

/// Draws from one stream, in ways that no version of a library changes.
struct Draw<R>(R);

impl<R: Rng> Draw<R> {
    /// In `[0, 1)`, a multiple of 2⁻⁵³.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// One of `0..n`.
    fn below(&mut self, n: u32) -> u32 {
        ((u64::from(n) * (self.0.next_u64() >> 32)) >> 32) as u32
    }

    /// Mean 0, variance 1, bell-shaped within ±4.9: a sum of eight 16-bit uniforms.
    fn normal(&mut self) -> f64 {
        let mut sum = 0;
        for _ in 0..2 {
            let bits = self.0.next_u64();
            sum += (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        }
        // Eight uniforms have mean 4 and variance 8/12.
        (sum as f64 / 65_535.0 - 4.0) / (2.0f64 / 3.0).sqrt()
    }

    /// A position in a rising table of sums, in proportion to the steps between them.
    fn weighted(&mut self, sums: &[f64]) -> u32 {
        let point = self.uniform() * sums.last().copied().unwrap_or(0.0);
        sums.partition_point(|&sum| sum <= point)
            .min(sums.len() - 1) as u32
    }
}

fn draw(config: &SynthConfig, part: u64, block: u64) -> Draw<impl Rng> {
    Draw(rng(config.seed, Purpose::Synth, part, block))
}

fn running_sums(weights: impl IntoIterator<Item = f64>) -> Vec<f64> {
    weights
        .into_iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

fn zipf(ranks: u32, exponent: f64) -> impl Iterator<Item = f64> {
    (1..=ranks).map(move |rank| exp(-exponent * ln(f64::from(rank))))
}

/// `e^x` for |x| < 700, in operations that round the same everywhere.
fn exp(x: f64) -> f64 {
    let twos = (x * std::f64::consts::LOG2_E).round();
    // ln 2 in two parts, so that the remainder is exact.
    let rest = x - twos * 0.693_147_180_369_123_8 - twos * 1.908_214_929_270_587_7e-10;
    let series = (1..=13)
        .rev()
        .fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    series * f64::from_bits(((1023 + twos as i64) as u64) << 52)
}

/// `ln x` for a normal `x > 0`, in operations that round the same everywhere.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut twos = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa /= 2.0;
        twos += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let series = (0..=11)
        .rev()
        .fold(0.0, |sum, n| sum * s * s + 1.0 / f64::from(2 * n + 1));
    2.0 * s * series + twos as f64 * std::f64::consts::LN_2
}

/// Everything that the rows are drawn from.
struct World<'a> {
    config: &'a SynthConfig,
    /// Age, gender and segment by user.
    users: Vec<[u8; 3]>,
    campaign_of_ad: Vec<u32>,
    category_of_campaign: Vec<u32>,
    /// Ads of each category, with running sums of their popularity.
    ads_of_category: Vec<(Vec<u32>, Vec<f64>)>,
    linear: Vec<Vec<f64>>,
    /// Vectors of both sides of each of `PAIRS`.
    pairs: Vec<[Vec<[f64; RANK]>; 2]>,
    /// Category whose ads are of interest after a click in a category.
    leads_to: Vec<u32>,
}

fn size(config: &SynthConfig, field: Planted) -> u32 {
    match field {
        User => config.users,
        Age => AGES.len() as u32,
        Gender => GENDERS.len() as u32,
        Hour => ACTIVITY.len() as u32,
        Device => DEVICES.len() as u32,
        Site => config.sites,
        Placement => PLACEMENTS.len() as u32,
        Ad => config.ads,
        Campaign => config.campaigns,
        Category => config.categories,
    }
}

/// Vectors of the values of `field` towards `other`, each entry of variance 1.
fn vectors(
    config: &SynthConfig,
    users: &[[u8; 3]],
    field: Planted,
    other: Planted,
) -> Vec<[f64; RANK]> {
    let part = 200 + 16 * field as u64 + other as u64;
    let mut own = draw(config, part, 0);
    match field {
        // One direction, two signs: what one gender gains the other loses.
        Gender => [1.0, -1.0]
            .map(|sign| [sign * (RANK as f64).sqrt(), 0.0, 0.0])
            .to_vec(),
        User => {
            let mut shared = draw(config, Part::Segments as u64, other as u64);
            let segments: Vec<[f64; RANK]> = (0..SEGMENTS)
                .map(|_| [(); RANK].map(|()| shared.normal()))
                .collect();
            let (segment_share, own_share) = (SEGMENT_SHARE.sqrt(), (1.0 - SEGMENT_SHARE).sqrt());
            users
                .iter()
                .map(|&[.., segment]| {
                    segments[segment as usize]
                        .map(|entry| segment_share * entry + own_share * own.normal())
                })
                .collect()
        }
        _ => (0..size(config, field))
            .map(|_| [(); RANK].map(|()| own.normal()))
            .collect(),
    }
}

fn dot(a: &[f64; RANK], b: &[f64; RANK]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl<'a> World<'a> {
    fn new(config: &'a SynthConfig) -> Self {
        let mut people = draw(config, Part::Users as u64, 0);
        let ages = running_sums(AGE_WEIGHTS);
        let users: Vec<[u8; 3]> = (0..config.users)
            .map(|_| {
                let (age, gender) = (people.weighted(&ages), people.below(2));
                let follows = people.uniform() < 0.6;
                let any = people.below(SEGMENTS);
                let segment = if follows {
                    (2 * age + gender) % SEGMENTS
                } else {
                    any
                };
                [age as u8, gender as u8, segment as u8]
            })
            .collect();

        let mut campaigns = draw(config, Part::Campaigns as u64, 0);
        let category_of_campaign: Vec<u32> = (0..config.campaigns)
            .map(|_| campaigns.below(config.categories))
            .collect();
        let mut ads = draw(config, Part::Ads as u64, 0);
        let campaign_sizes = running_sums(zipf(config.campaigns, 0.5));
        let campaign_of_ad: Vec<u32> = (0..config.ads)
            .map(|_| ads.weighted(&campaign_sizes))
            .collect();
        let mut ads_of_category = vec![(Vec::new(), Vec::new()); config.categories as usize];
        for (ad, popularity) in (0..).zip(zipf(config.ads, config.zipf_ads)) {
            let category = category_of_campaign[campaign_of_ad[ad as usize] as usize];
            let (members, weights) = &mut ads_of_category[category as usize];
            members.push(ad);
            weights.push(popularity);
        }
        for (_, weights) in &mut ads_of_category {
            *weights = running_sums(std::mem::take(weights));
        }

        let linear = LINEAR
            .iter()
            .map(|&(field, strength)| {
                let mut effects = draw(config, 100 + field as u64, 0);
                (0..size(config, field))
                    .map(|_| strength * effects.normal())
                    .collect()
            })
            .collect();
        let pairs = PAIRS
            .iter()
            .map(|&(f, g, _)| [vectors(config, &users, f, g), vectors(config, &users, g, f)])
            .collect();
        let leads_to = (0..config.categories)
            .map(|category| (category + 7) % config.categories)
            .collect();
        Self {
            config,
            users,
            campaign_of_ad,
            category_of_campaign,
            ads_of_category,
            linear,
            pairs,
            leads_to,
        }
    }

    fn category(&self, ad: u32) -> u32 {
        self.category_of_campaign[self.campaign_of_ad[ad as usize] as usize]
    }

    /// How far a category or site leans to the first gender.
    fn lean(&self, field: Planted, id: u32) -> f64 {
        let pair = PAIRS
            .iter()
            .position(|&(f, g, _)| f == Gender && g == field)
            .expect("gender meets categories and sites");
        self.pairs[pair][1][id as usize][0]
    }

    /// Log-odds of a click without the history.
    fn logit(&self, ids: &[u32; PLANTED.len()]) -> f64 {
        let mut logit = BIAS;
        for (&(field, _), effects) in LINEAR.iter().zip(&self.linear) {
            logit += effects[ids[field as usize] as usize];
        }
        for (&(f, g, strength), [of_f, of_g]) in PAIRS.iter().zip(&self.pairs) {
            let product = dot(
                &of_f[ids[f as usize] as usize],
                &of_g[ids[g as usize] as usize],
            );
            logit += strength / (RANK as f64).sqrt() * product;
        }
        let (category, site) = (ids[Category as usize], ids[Site as usize]);
        logit - LEAN_CONFLICT * self.lean(Category, category) * self.lean(Site, site)
    }

    /// What the history, oldest item first, adds to the log-odds of a click on `ad`.
    fn history_effect(&self, history: &[u32], ad: u32) -> f64 {
        let (campaign, category) = (self.campaign_of_ad[ad as usize], self.category(ad));
        let (mut interest, mut recency) = (0.0, 1.0);
        for &item in history.iter().rev() {
            let item_category = self.category(item);
            if self.campaign_of_ad[item as usize] == campaign {
                interest += recency * SAME_CAMPAIGN;
            } else if item_category == category {
                interest += recency * SAME_CATEGORY;
            } else if self.leads_to[item_category as usize] == category {
                interest += recency * LEADS_TO;
            }
            recency *= RECENCY;
        }
        HISTORY_STRENGTH * interest / (HALF_INTEREST + interest)
    }

    /// Running sums of how likely a user clicks each category elsewhere.
    fn tastes(&self, user: u32) -> Vec<f64> {
        let pair = PAIRS
            .iter()
            .position(|&(f, g, _)| f == User && g == Category)
            .expect("users meet categories");
        let [of_users, of_categories] = &self.pairs[pair];
        let scale = TASTE_SHARPNESS / (RANK as f64).sqrt();
        running_sums(
            of_categories
                .iter()
                .zip(&self.ads_of_category)
                .map(|(vector, (ads, _))| {
                    // A category without ads cannot be clicked.
                    if ads.is_empty() {
                        0.0
                    } else {
                        exp(scale * dot(&of_users[user as usize], vector))
                    }
                }),
        )
    }
}

/// Rows of a planted ad log, with the probability that each was drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct AdLog {
    config: SynthConfig,
    ids: Vec<[u32; PLANTED.len()]>,
    times: Vec<u64>,
    /// Ads clicked elsewhere, user by user, oldest first.
    clicked: Vec<u32>,
    /// Positions in `clicked` of each row's history.
    histories: Vec<[u32; 2]>,
    category_of_ad: Vec<u32>,
    probs: Vec<f32>,
    clicks: Vec<bool>,
}

/// Generates a planted ad log, rows in order of time.
///
/// # Errors
/// A size or an exponent out of its range, by its key.
pub fn generate(config: &SynthConfig) -> Result<AdLog, SynthError> {
    config.check()?;
    let world = World::new(config);
    let (ids, times, advances) = draw_rows(&world);
    let (clicked, histories) = draw_histories(&world, &ids, &advances);
    let mut probs = Vec::with_capacity(config.rows);
    let mut clicks = Vec::with_capacity(config.rows);
    for (block, rows) in (0..).zip(ids.chunks(ROWS_PER_BLOCK)) {
        let mut labels = draw(config, Part::Labels as u64, block);
        for row in rows {
            let [start, end] = histories[probs.len()];
            let history = &clicked[start as usize..end as usize];
            let logit = world.logit(row) + world.history_effect(history, row[Ad as usize]);
            // The label is drawn from the probability as it is reported, after rounding.
            let prob = (1.0 / (1.0 + exp(-logit))) as f32;
            clicks.push(labels.uniform() < f64::from(prob));
            probs.push(prob);
        }
    }
    let category_of_ad = (0..config.ads).map(|ad| world.category(ad)).collect();
    Ok(AdLog {
        config: config.clone(),
        ids,
        times,
        clicked,
        histories,
        category_of_ad,
        probs,
        clicks,
    })
}

type Rows = (Vec<[u32; PLANTED.len()]>, Vec<u64>, Vec<u8>);

/// Ids and time of each row, and the clicks elsewhere since the user's last one.
fn draw_rows(world: &World<'_>) -> Rows {
    let config = world.config;
    let users = running_sums(zipf(config.users, config.zipf_users));
    let ads = running_sums(zipf(config.ads, config.zipf_ads));
    let sites = running_sums(zipf(config.sites, 0.8));
    let (devices, placements) = (
        running_sums(DEVICE_WEIGHTS),
        running_sums(PLACEMENT_WEIGHTS),
    );
    let activity = running_sums(ACTIVITY);
    let day_total = activity[activity.len() - 1];
    let mut rows = Vec::with_capacity(config.rows);
    let mut times = Vec::with_capacity(config.rows);
    let mut advances = Vec::with_capacity(config.rows);
    for start in (0..config.rows).step_by(ROWS_PER_BLOCK) {
        let mut row = draw(config, Part::Rows as u64, (start / ROWS_PER_BLOCK) as u64);
        for position in start..config.rows.min(start + ROWS_PER_BLOCK) {
            let days = (position as f64 + 0.5) / config.rows as f64 * DAYS;
            let point = (days - days.floor()) * day_total;
            let hour = activity
                .partition_point(|&sum| sum <= point)
                .min(activity.len() - 1);
            let into_hour = (point - (activity[hour] - ACTIVITY[hour])) / ACTIVITY[hour];
            let seconds = (into_hour * 3600.0).clamp(0.0, 3599.0) as u64;
            times.push(START + days.floor() as u64 * 86_400 + hour as u64 * 3600 + seconds);

            let user = row.weighted(&users);
            let [age, gender, _] = world.users[user as usize];
            let ad = row.weighted(&ads);
            let mut ids = [0; PLANTED.len()];
            ids[User as usize] = user;
            ids[Age as usize] = age.into();
            ids[Gender as usize] = gender.into();
            ids[Hour as usize] = hour as u32;
            ids[Device as usize] = row.weighted(&devices);
            ids[Site as usize] = row.weighted(&sites);
            ids[Placement as usize] = row.weighted(&placements);
            ids[Ad as usize] = ad;
            ids[Campaign as usize] = world.campaign_of_ad[ad as usize];
            ids[Category as usize] = world.category(ad);
            rows.push(ids);
            advances.push(row.below(MOST_ADVANCE + 1) as u8);
        }
    }
    (rows, times, advances)
}

/// Ads that each user clicked elsewhere, and the part of them that each row's history shows.
fn draw_histories(
    world: &World<'_>,
    ids: &[[u32; PLANTED.len()]],
    advances: &[u8],
) -> (Vec<u32>, Vec<[u32; 2]>) {
    let config = world.config;
    let mut lengths = vec![0u32; config.users as usize];
    for (row, &advance) in ids.iter().zip(advances) {
        lengths[row[User as usize] as usize] += u32::from(advance);
    }
    // Where each user's clicks start and how many of them lie before the user's next row.
    let mut streams = Vec::with_capacity(lengths.len());
    let mut clicked = Vec::new();
    for (user, &length) in (0..).zip(&lengths) {
        let mut stream = draw(config, Part::History as u64, u64::from(user));
        let before = if config.history == 0 {
            0
        } else {
            stream.below(config.history + 1)
        };
        streams.push([clicked.len() as u32, before]);
        let tastes = world.tastes(user);
        for _ in 0..before + length {
            let category = stream.weighted(&tastes);
            let (ads, popularity) = &world.ads_of_category[category as usize];
            clicked.push(ads[stream.weighted(popularity) as usize]);
        }
    }
    let histories = ids
        .iter()
        .zip(advances)
        .map(|(row, &advance)| {
            let [start, before] = &mut streams[row[User as usize] as usize];
            *before += u32::from(advance);
            [
                *start + before.saturating_sub(config.history),
                *start + *before,
            ]
        })
        .collect();
    (clicked, histories)
}

impl AdLog {
    /// Names of the columns, in the order of [`AdLog::record`].
    pub const HEADER: &'static [&'static str] = &[
        "click",
        "time",
        "user",
        "age",
        "gender",
        "hour",
        "device",
        "site",
        "placement",
        "ad",
        "campaign",
        "category",
        "history",
        "history_category",
    ];

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What the log was generated from.
    pub fn config(&self) -> &SynthConfig {
        &self.config
    }

    /// The true probability of a click in `row`, from which its label was drawn.
    pub fn probability(&self, row: usize) -> f32 {
        self.probs[row]
    }

    /// The label of `row`.
    pub fn click(&self, row: usize) -> bool {
        self.clicks[row]
    }

    fn history(&self, row: usize) -> &[u32] {
        let [start, end] = self.histories[row];
        &self.clicked[start as usize..end as usize]
    }

    /// The cells of `row` as text, in the order of [`AdLog::HEADER`]; what `out` held is replaced.
    pub fn record(&self, row: usize, out: &mut Vec<String>) {
        out.resize_with(Self::HEADER.len(), String::new);
        out.iter_mut().for_each(String::clear);
        let id = |field: Planted| self.ids[row][field as usize];
        let (history, categories) = (Self::HEADER.len() - 2, Self::HEADER.len() - 1);
        let mut put = |column: usize, cell: std::fmt::Arguments<'_>| {
            out[column]
                .write_fmt(cell)
                .expect("a String takes all text");
        };
        put(0, format_args!("{}", u8::from(self.clicks[row])));
        put(1, format_args!("{}", self.times[row]));
        put(2, format_args!("u{}", id(User)));
        put(3, format_args!("{}", AGES[id(Age) as usize]));
        put(4, format_args!("{}", GENDERS[id(Gender) as usize]));
        put(5, format_args!("{}", id(Hour)));
        put(6, format_args!("{}", DEVICES[id(Device) as usize]));
        put(7, format_args!("s{}", id(Site)));
        put(8, format_args!("{}", PLACEMENTS[id(Placement) as usize]));
        put(9, format_args!("a{}", id(Ad)));
        put(10, format_args!("c{}", id(Campaign)));
        put(11, format_args!("k{}", id(Category)));
        for (position, &item) in self.history(row).iter().enumerate() {
            if position > 0 {
                put(history, format_args!("{HISTORY_DELIMITER}"));
                put(categories, format_args!("{HISTORY_DELIMITER}"));
            }
            put(history, format_args!("a{item}"));
            put(
                categories,
                format_args!("k{}", self.category_of_ad[item as usize]),
            );
        }
    }

    /// Writes the log as CSV with a header line.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write_csv(&self, out: impl io::Write) -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(Self::HEADER).map_err(io::Error::from)?;
        let mut record = Vec::new();
        for row in 0..self.len() {
            self.record(row, &mut record);
            writer.write_record(&record).map_err(io::Error::from)?;
        }
        writer.flush()
    }

    /// Writes the log as zstd Parquet, with row groups of 131,072 rows. `click`, `time` and `hour` are
    /// numbers, the histories lists; the keys are those of the CSV.
    ///
    /// # Errors
    /// What the writer reports.
    #[cfg(feature = "parquet")]
    pub fn write_parquet(&self, out: impl io::Write + Send) -> io::Result<()> {
        use arrow_array::RecordBatch;
        use parquet::arrow::ArrowWriter;
        use parquet::basic::{Compression, ZstdLevel};
        use parquet::file::properties::WriterProperties;

        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let batch = |rows| RecordBatch::try_from_iter(self.columns(rows)).map_err(io::Error::other);
        let schema = batch(0..0)?.schema();
        let mut writer = ArrowWriter::try_new(out, schema, Some(properties))?;
        for start in (0..self.len()).step_by(ROW_GROUP) {
            writer.write(&batch(start..self.len().min(start + ROW_GROUP))?)?;
            writer.flush()?;
        }
        writer.close()?;
        Ok(())
    }

    /// Columns of Parquet, by name.
    #[cfg(feature = "parquet")]
    fn columns(&self, rows: std::ops::Range<usize>) -> Vec<(&'static str, arrow_array::ArrayRef)> {
        use arrow_array::builder::{Int64Builder, ListBuilder, StringBuilder};
        use std::sync::Arc;

        let mut record = Vec::new();
        let mut cells: Vec<Vec<String>> = vec![Vec::new(); Self::HEADER.len()];
        for row in rows {
            self.record(row, &mut record);
            for (column, cell) in cells.iter_mut().zip(&record) {
                column.push(cell.clone());
            }
        }
        let columns = Self::HEADER.iter().zip(cells);
        let columns = columns.map(|(&name, cells)| -> (_, arrow_array::ArrayRef) {
            let column: arrow_array::ArrayRef = match name {
                "click" | "time" | "hour" => {
                    let mut numbers = Int64Builder::new();
                    for cell in cells {
                        numbers.append_value(cell.parse().expect("the log writes whole numbers"));
                    }
                    Arc::new(numbers.finish())
                }
                "history" | "history_category" => {
                    let mut lists = ListBuilder::new(StringBuilder::new());
                    for cell in cells {
                        let values = cell.split(HISTORY_DELIMITER);
                        lists.append_value(values.filter(|value| !value.is_empty()).map(Some));
                    }
                    Arc::new(lists.finish())
                }
                _ => {
                    let mut texts = StringBuilder::new();
                    cells.iter().for_each(|cell| texts.append_value(cell));
                    Arc::new(texts.finish())
                }
            };
            (name, column)
        });
        columns.collect()
    }

    /// The fields of the log: all columns but `click` and `time`.
    pub fn default_fields() -> Vec<SynthField> {
        Self::HEADER[2..]
            .iter()
            .map(|&name| {
                let vocabulary = match name {
                    "history" => "ad",
                    "history_category" => "category",
                    _ => name,
                };
                let sequence = name != vocabulary;
                SynthField {
                    name,
                    kind: if sequence {
                        FieldKind::Sequence
                    } else {
                        FieldKind::Categorical
                    },
                    vocabulary,
                    delimiter: sequence.then_some(HISTORY_DELIMITER),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::metrics::{Kind, Metrics};
    use crossfield_core::rng::name_key;
    use std::collections::BTreeSet;

    fn small() -> SynthConfig {
        SynthConfig {
            rows: 20_000,
            users: 2_000,
            ads: 1_000,
            campaigns: 60,
            sites: 40,
            ..SynthConfig::default()
        }
    }

    fn csv(log: &AdLog) -> String {
        let mut bytes = Vec::new();
        log.write_csv(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn exp_and_ln_agree_with_the_platform() {
        for step in -400..400 {
            let x = f64::from(step) / 13.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 4e-16, "{x}");
            let y = x.exp();
            assert!((ln(y) - y.ln()).abs() < 4e-16 * x.abs().max(1.0), "{y}");
        }
        assert_eq!((exp(0.0), ln(1.0)), (1.0, 0.0));
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let config = small();
        let mut stream = draw(&config, 1, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 1e5;
        // Four standard errors.
        assert!(
            mean.abs() < 0.013 && (variance - 1.0).abs() < 0.018,
            "{mean} {variance}"
        );
    }

    #[test]
    fn same_seed_same_log_and_other_seed_other_log() {
        let log = generate(&small()).unwrap();
        assert_eq!(log, generate(&small()).unwrap());
        let other = generate(&SynthConfig { seed: 2, ..small() }).unwrap();
        assert_ne!(log.probs, other.probs);
        assert_ne!(log.clicks, other.clicks);
        assert_ne!(log.ids, other.ids);
    }

    #[test]
    fn the_log_is_this_one_on_every_platform() {
        // FNV-1a of the CSV and of the bits of the probabilities, made by this generator on
        // x86-64 Linux: a change here changes every figure that was measured on the log.
        let log = generate(&small()).unwrap();
        let probs: String = log
            .probs
            .iter()
            .map(|p| format!("{:08x}", p.to_bits()))
            .collect();
        assert_eq!(
            (name_key(&csv(&log)), name_key(&probs)),
            (4853122442375819118, 17676159625429743518)
        );
    }

    #[test]
    fn labels_follow_the_probabilities() {
        let log = generate(&SynthConfig {
            rows: 100_000,
            ..small()
        })
        .unwrap();
        let mut bins = [(0.0, 0.0, 0.0); 10];
        for row in 0..log.len() {
            let prob = f64::from(log.probability(row));
            let bin = &mut bins[((prob * 10.0) as usize).min(9)];
            *bin = (
                bin.0 + prob,
                bin.1 + f64::from(u8::from(log.click(row))),
                bin.2 + prob * (1.0 - prob),
            );
        }
        for (expected, clicks, variance) in bins {
            assert!(variance > 10.0, "every bin has rows");
            assert!(
                (clicks - expected).abs() < 4.0 * f64::sqrt(variance),
                "{clicks} {expected}"
            );
        }
    }

    #[test]
    fn the_default_log_is_as_large_and_as_hard_as_documented() {
        let log = generate(&SynthConfig::default()).unwrap();
        assert_eq!(log.len(), 400_000);
        let ids: usize = PLANTED
            .iter()
            .map(|&field| {
                log.ids
                    .iter()
                    .map(|ids| ids[field as usize])
                    .collect::<BTreeSet<_>>()
                    .len()
            })
            .sum();
        assert!(ids >= 100_000, "{ids} ids");
        let labels: Vec<f32> = log
            .clicks
            .iter()
            .map(|&click| f32::from(u8::from(click)))
            .collect();
        let mut truth = Metrics::new(Kind::Probabilities);
        truth.update(&log.probs, &labels, None, None).unwrap();
        let truth = truth.finish();
        let mean = labels.iter().map(|&y| f64::from(y)).sum::<f64>() / labels.len() as f64;
        assert!((0.2..0.3).contains(&mean), "click rate {mean}");
        assert!((0.8..0.85).contains(&truth.auc.unwrap()), "{truth:?}");
        assert!(truth.normalized_entropy.unwrap() < 0.8, "{truth:?}");
    }

    #[test]
    fn ids_are_zipf() {
        let log = generate(&SynthConfig {
            rows: 100_000,
            ..small()
        })
        .unwrap();
        for (field, exponent, size) in [(User, 0.75, 2_000), (Ad, 0.9, 1_000)] {
            let total: f64 = (1..=size).map(|rank| f64::from(rank).powf(-exponent)).sum();
            let head: f64 = (1..=10).map(|rank| f64::from(rank).powf(-exponent)).sum();
            let drawn = log
                .ids
                .iter()
                .filter(|ids| ids[field as usize] < 10)
                .count();
            let (share, expected) = (drawn as f64 / 1e5, head / total);
            let error = (expected * (1.0 - expected) / 1e5).sqrt();
            assert!(
                (share - expected).abs() < 4.0 * error,
                "{field:?}: {share} {expected}"
            );
        }
    }

    #[test]
    fn gender_and_lean_work_by_field() {
        let config = SynthConfig {
            rows: 200_000,
            ..small()
        };
        let log = generate(&config).unwrap();
        let world = World::new(&config);
        // Mean log-odds over the log by (gender or lean of the site, lean of the category).
        let logit = |row: usize| {
            let prob = f64::from(log.probability(row));
            ln(prob / (1.0 - prob))
        };
        let interaction = |side: &dyn Fn(&[u32; 10]) -> f64, other: Planted| {
            let mut cells = [[(0.0, 0.0); 2]; 2];
            for (row, ids) in log.ids.iter().enumerate() {
                let (a, b) = (side(ids), world.lean(other, ids[other as usize]));
                if a.abs() > 0.5 && b.abs() > 0.5 {
                    let cell = &mut cells[usize::from(a > 0.0)][usize::from(b > 0.0)];
                    *cell = (cell.0 + logit(row), cell.1 + 1.0);
                }
            }
            let mean = |a: usize, b: usize| cells[a][b].0 / cells[a][b].1;
            mean(1, 1) - mean(1, 0) - mean(0, 1) + mean(0, 0)
        };
        let woman = |ids: &[u32; 10]| if ids[Gender as usize] == 0 { 1.0 } else { -1.0 };
        let site_lean = |ids: &[u32; 10]| world.lean(Site, ids[Site as usize]);
        assert!(interaction(&woman, Category) > 0.5);
        assert!(interaction(&woman, Site) > 0.3);
        assert!(interaction(&site_lean, Category) < -0.3);
    }

    #[test]
    fn related_and_recent_items_raise_the_probability_and_the_sum_saturates() {
        let config = small();
        let world = World::new(&config);
        let of = |category: u32| world.ads_of_category[category as usize].0.as_slice();
        let (candidate, category) = (of(3)[0], 3);
        let before = (0..24)
            .find(|&k| world.leads_to[k as usize] == category)
            .unwrap();
        let after = world.leads_to[category as usize];
        let same_campaign = candidate;
        let other_campaign = *of(3)
            .iter()
            .find(|&&ad| {
                world.campaign_of_ad[ad as usize] != world.campaign_of_ad[candidate as usize]
            })
            .unwrap();
        let effect = |history: &[u32]| world.history_effect(history, candidate);
        assert_eq!(effect(&[]), 0.0);
        assert_eq!(effect(&[of(after)[0]]), 0.0, "the relation has a direction");
        assert_eq!(
            effect(&[other_campaign]),
            HISTORY_STRENGTH * 0.8 / (0.3 + 0.8)
        );
        assert_eq!(
            effect(&[of(before)[0]]),
            HISTORY_STRENGTH * 0.8 / (0.3 + 0.8)
        );
        assert_eq!(
            effect(&[same_campaign]),
            HISTORY_STRENGTH * 2.0 / (0.3 + 2.0)
        );
        assert!(effect(&[other_campaign, of(after)[0]]) < effect(&[of(after)[0], other_campaign]));
        assert!(effect(&[same_campaign; 12]) < HISTORY_STRENGTH);
    }

    #[test]
    fn histories_move_on_and_know_nothing_of_the_clicks() {
        let log = generate(&small()).unwrap();
        // Redrawn where there are no labels, the histories are the same.
        let world = World::new(&log.config);
        let (ids, _, advances) = draw_rows(&world);
        let (clicked, histories) = draw_histories(&world, &ids, &advances);
        assert_eq!((&clicked, &histories), (&log.clicked, &log.histories));
        let mut latest = vec![[0, 0]; 2_000];
        let mut moved = 0;
        for (ids, &[start, end]) in log.ids.iter().zip(&histories) {
            assert!(start <= end && end - start <= 16);
            let last = &mut latest[ids[User as usize] as usize];
            assert!(
                *last == [0, 0] || (start >= last[0] && end >= last[1]),
                "in order of time"
            );
            moved += usize::from(end > last[1]);
            *last = [start, end];
        }
        assert!(moved > log.len() / 2);
        assert!(log.times.is_sorted());
        assert!(
            histories.iter().any(|[start, end]| start == end),
            "some are empty"
        );
    }

    #[test]
    fn csv_has_a_header_and_one_line_a_row() {
        let log = generate(&SynthConfig { rows: 3, ..small() }).unwrap();
        let text = csv(&log);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], AdLog::HEADER.join(","));
        assert_eq!(lines.len(), 4);
        let mut record = vec!["stale".to_owned(); 20];
        log.record(1, &mut record);
        assert_eq!(lines[2], record.join(","));
        assert_eq!(record[0], if log.click(1) { "1" } else { "0" });
        let items = |cell: &str| cell.split(HISTORY_DELIMITER).count();
        assert_eq!(items(&record[12]), items(&record[13]));
        let fields = AdLog::default_fields();
        assert_eq!(fields.len(), AdLog::HEADER.len() - 2);
        assert_eq!(fields[10].vocabulary, "ad");
        assert_eq!(fields[10].delimiter, Some('|'));
    }

    #[test]
    fn sizes_out_of_range_are_refused_by_key() {
        let error = generate(&SynthConfig {
            users: 0,
            ..small()
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "ad log: users = 0, expected from 1 to 1,000,000,000"
        );
        let error = generate(&SynthConfig {
            zipf_ads: f64::NAN,
            ..small()
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("zipf_ads = NaN, expected an exponent"),
            "{error}"
        );
    }

    #[test]
    fn the_smallest_log_is_legal() {
        let config = SynthConfig {
            rows: 5,
            users: 1,
            ads: 1,
            campaigns: 1,
            categories: 1,
            sites: 1,
            history: 0,
            ..SynthConfig::default()
        };
        let log = generate(&config).unwrap();
        assert_eq!(log.len(), 5);
        assert!((0..5).all(|row| log.history(row).is_empty()));
        assert!(
            generate(&SynthConfig { rows: 0, ..config })
                .unwrap()
                .is_empty()
        );
    }
}
