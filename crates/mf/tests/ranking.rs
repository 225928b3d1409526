//! Recommending the last film that a user liked: MovieLens-100k, where it is.
//!
//! Of each user with two likes (ratings of 4 and 5) or more the last is held out, and all films are
//! ranked but those that he liked before. Settings were chosen on the last but one.

use std::io::Read;

use crossfield_mf::{
    Bpr, BprConfig, Duplicates, ImplicitParameters, Interactions, Negatives, Wrmf, WrmfConfig,
};
use flate2::read::GzDecoder;

pub const USERS: usize = 943;
pub const ITEMS: usize = 1682;

/// Likes of each user in the order of time: item and rating.
pub fn likes() -> Option<Vec<Vec<(u32, f32)>>> {
    let Ok(data) = std::env::var("CROSSFIELD_DATA") else {
        eprintln!("skipped: CROSSFIELD_DATA does not say where ml-100k is");
        return None;
    };
    let file = std::fs::File::open(format!("{data}/ml-100k/u.data.gz")).unwrap();
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut users = vec![Vec::new(); USERS];
    for line in text.lines() {
        let fields: Vec<u32> = line
            .split('\t')
            .map(|field| field.parse().unwrap())
            .collect();
        if fields[2] >= 4 {
            users[fields[0] as usize - 1].push((fields[3], fields[1] - 1, fields[2] as f32));
        }
    }
    for likes in &mut users {
        // Stable: of the same second, in the order of the file.
        likes.sort_by_key(|like| like.0);
    }
    let untimed = |likes: Vec<(u32, u32, f32)>| likes.into_iter().map(|like| (like.1, like.2));
    Some(
        users
            .into_iter()
            .map(|likes| untimed(likes).collect())
            .collect(),
    )
}

pub struct Split {
    pub train: Interactions,
    /// A user and the item that was held out.
    pub test: Vec<(usize, u32)>,
}

impl Split {
    /// Holds out the last like of each user, once `dropped` later ones are left out.
    pub fn new(likes: &[Vec<(u32, f32)>], dropped: usize) -> Self {
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (user, likes) in likes.iter().enumerate() {
            let kept = likes.len().saturating_sub(dropped);
            if kept >= 2 {
                let before = &likes[..kept - 1];
                train.extend(
                    before
                        .iter()
                        .map(|&(item, rating)| (user as u32, item, rating)),
                );
                test.push((user, likes[kept - 1].0));
            }
        }
        let train = Interactions::new(USERS, ITEMS, train, Duplicates::Sum).unwrap();
        Self { train, test }
    }

    /// Recall and NDCG of the first ten.
    pub fn measure(&self, parameters: &ImplicitParameters) -> (f64, f64) {
        let (mut recall, mut ndcg) = (0.0, 0.0);
        for &(user, held_out) in &self.test {
            let seen = self.train.by_user().row(user).0;
            let score = parameters.score(user, held_out as usize);
            let better = (0..ITEMS).filter(|&item| {
                parameters.score(user, item) > score && seen.binary_search(&(item as u32)).is_err()
            });
            let rank = better.count() + 1;
            if rank <= 10 {
                recall += 1.0;
                ndcg += 1.0 / (rank as f64 + 1.0).log2();
            }
        }
        let users = self.test.len() as f64;
        (recall / users, ndcg / users)
    }
}

pub fn wrmf(split: &Split, config: &WrmfConfig, sweeps: usize, seed: u64) -> ImplicitParameters {
    let mut wrmf = Wrmf::new(split.train.clone(), config.clone(), seed).unwrap();
    for _ in 0..sweeps {
        wrmf.iterate().unwrap();
    }
    wrmf.parameters().clone()
}

pub fn bpr(split: &Split, config: &BprConfig, epochs: usize, seed: u64) -> ImplicitParameters {
    let mut bpr = Bpr::new(split.train.clone(), config.clone(), seed).unwrap();
    for _ in 0..epochs {
        bpr.iterate().unwrap();
    }
    bpr.parameters().clone()
}

/// Recall and NDCG, each the mean over seeds.
pub fn mean(figures: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (recall, ndcg): (Vec<f64>, Vec<f64>) = figures.unzip();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (mean(&recall), mean(&ndcg))
}
