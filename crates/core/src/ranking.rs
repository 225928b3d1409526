//! How well ranked lists find what users turned out to want, in f64.
//!
//! Users are added one after the other, so that the same users in the same sequence give the same
//! bits.

use serde::{Deserialize, Serialize};

/// Adds up the figures of ranked lists, one list a user.
///
/// ```
/// use crossfield_core::RankingMetrics;
///
/// let mut metrics = RankingMetrics::new(3, 10);
/// // Of the two items that the user wanted, one is on the second place.
/// metrics.update(&[4, 7, 1], &[7, 9]);
/// let report = metrics.finish();
/// assert_eq!((report.recall, report.mrr), (0.5, 0.5));
/// assert_eq!(report.coverage, 0.3);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RankingMetrics {
    k: usize,
    items: usize,
    users: u64,
    recall: f64,
    ndcg: f64,
    map: f64,
    hits: u64,
    mrr: f64,
    /// A bit an item: whether it was in a list.
    listed: Vec<u64>,
}

/// The figures of one list, as [`RankingReport`] has their means.
///
/// ```
/// use crossfield_core::ListFigures;
///
/// // Of the two items that the user wanted, one is on the second of three places.
/// let figures = ListFigures::of(&[4, 7, 1], &[7, 9], 3).expect("something was wanted");
/// assert_eq!((figures.recall, figures.mrr, figures.hit_rate), (0.5, 0.5, 1.0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ListFigures {
    /// Share of what was wanted that is in the list.
    pub recall: f64,
    /// Discounted gain over that of the best possible list.
    pub ndcg: f64,
    /// Average precision.
    pub map: f64,
    /// 1 if something that was wanted is in the list, else 0.
    pub hit_rate: f64,
    /// One over the place of the first item that was wanted, 0 where none is in the list.
    pub mrr: f64,
}

impl ListFigures {
    /// Of a list, the best first and each item once, of which the first `k` places count, and of what
    /// was wanted, each item once; `None` where nothing was.
    pub fn of(top: &[u32], relevant: &[u32], k: usize) -> Option<Self> {
        if relevant.is_empty() {
            return None;
        }
        let (mut found, mut dcg, mut precisions, mut mrr) = (0u32, 0.0, 0.0, 0.0);
        for (place, item) in (1u32..).zip(&top[..top.len().min(k)]) {
            if relevant.contains(item) {
                if found == 0 {
                    mrr = 1.0 / f64::from(place);
                }
                found += 1;
                dcg += discount(place);
                precisions += f64::from(found) / f64::from(place);
            }
        }
        let most = k.min(relevant.len()) as u32;
        let ideal: f64 = (1..=most).map(discount).sum();
        Some(Self {
            recall: f64::from(found) / relevant.len() as f64,
            ndcg: dcg / ideal,
            map: precisions / f64::from(most),
            hit_rate: f64::from(u8::from(found > 0)),
            mrr,
        })
    }
}

/// Figures of ranked lists that are cut at `k`: means over users, 0 where there are none.
///
/// Below, `relevant` are the items that a user wanted, and `rel_i` is 1 where the item on place `i`
/// is one of them.
///
/// # Source
/// Recall, precision and average precision: Manning, Raghavan, Schütze, *Introduction to Information
/// Retrieval* (2008), chapter 8. NDCG: Järvelin, Kekäläinen, *Cumulated gain-based evaluation of IR
/// techniques* (2002), with the discount of every place, as recommenders use it. Reciprocal rank:
/// Voorhees, *The TREC-8 question answering track report* (1999).
///
/// ```
/// use crossfield_core::{RankingMetrics, RankingReport};
///
/// let nobody = RankingMetrics::new(10, 100).finish();
/// let expected = RankingReport {
///     k: 10,
///     ..RankingReport::default()
/// };
/// assert_eq!(nobody, expected);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankingReport {
    /// Places of a list that count.
    pub k: usize,
    /// Users that the figures are means over.
    pub users: u64,
    /// `Σ rel_i / |relevant|`: a user who wanted more than `k` items does not reach 1.
    pub recall: f64,
    /// `DCG / ideal`, `DCG = Σ rel_i / log2(i + 1)`; the ideal list begins with
    /// `min(k, |relevant|)` relevant items.
    pub ndcg: f64,
    /// `Σ rel_i · precision(i) / min(k, |relevant|)`.
    pub map: f64,
    /// Share of the users with a relevant item in the list.
    pub hit_rate: f64,
    /// `1 / i` of the first relevant item, 0 where none is in the list.
    pub mrr: f64,
    /// Share of the catalogue that is in some list.
    pub coverage: f64,
}

impl RankingMetrics {
    /// Metrics of lists that are cut at `k`, from a catalogue of `items`.
    ///
    /// # Panics
    /// If `k` is 0.
    pub fn new(k: usize, items: usize) -> Self {
        assert!(k > 0, "lists of no places");
        Self {
            k,
            items,
            users: 0,
            recall: 0.0,
            ndcg: 0.0,
            map: 0.0,
            hits: 0,
            mrr: 0.0,
            listed: vec![0; items.div_ceil(64)],
        }
    }

    /// Adds a user: their list, the best first and each item once, and what they wanted, each item
    /// once.
    ///
    /// Who wanted nothing has no recall and is left out. Places beyond `k` do not count; a list may
    /// be shorter.
    ///
    /// # Panics
    /// If an item of the list is not in the catalogue.
    pub fn update(&mut self, top: &[u32], relevant: &[u32]) {
        let Some(figures) = ListFigures::of(top, relevant, self.k) else {
            return;
        };
        for &item in top.iter().take(self.k) {
            assert!(
                (item as usize) < self.items,
                "item {item} of {}",
                self.items
            );
            self.listed[item as usize / 64] |= 1 << (item % 64);
        }
        self.users += 1;
        self.hits += u64::from(figures.hit_rate > 0.0);
        self.recall += figures.recall;
        self.ndcg += figures.ndcg;
        self.map += figures.map;
        self.mrr += figures.mrr;
    }

    /// Adds the users of another part. Merge parts in a fixed order: sums of `f64` depend on it.
    ///
    /// # Panics
    /// If the other part has another `k` or catalogue.
    pub fn merge(&mut self, other: &Self) {
        let (ours, theirs) = ((self.k, self.items), (other.k, other.items));
        assert_eq!(ours, theirs, "parts of different evaluations");
        self.users += other.users;
        self.recall += other.recall;
        self.ndcg += other.ndcg;
        self.map += other.map;
        self.hits += other.hits;
        self.mrr += other.mrr;
        for (word, other) in self.listed.iter_mut().zip(&other.listed) {
            *word |= other;
        }
    }

    /// The figures of all users so far.
    pub fn finish(&self) -> RankingReport {
        let share = |sum: f64, of: f64| if of > 0.0 { sum / of } else { 0.0 };
        let mean = |sum| share(sum, self.users as f64);
        let listed: u32 = self.listed.iter().map(|word| word.count_ones()).sum();
        RankingReport {
            k: self.k,
            users: self.users,
            recall: mean(self.recall),
            ndcg: mean(self.ndcg),
            map: mean(self.map),
            hit_rate: mean(self.hits as f64),
            mrr: mean(self.mrr),
            coverage: share(f64::from(listed), self.items as f64),
        }
    }
}

fn discount(place: u32) -> f64 {
    1.0 / libm::log2(f64::from(place) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    #[test]
    fn the_figures_of_one_list_are_those_counted_by_hand() {
        let mut metrics = RankingMetrics::new(4, 10);
        // Found on places 1 and 3 of 4; three were wanted.
        metrics.update(&[5, 0, 6, 1, 7], &[5, 6, 7]);
        let report = metrics.finish();
        assert_eq!((report.k, report.users), (4, 1));
        assert_relative_eq!(report.recall, 2.0 / 3.0);
        // log2 of 2, 3 and 4.
        let ideal = 1.0 + 1.0 / 3f64.log2() + 0.5;
        assert_relative_eq!(report.ndcg, 1.5 / ideal);
        assert_relative_eq!(report.map, (1.0 + 2.0 / 3.0) / 3.0);
        assert_eq!((report.hit_rate, report.mrr), (1.0, 1.0));
        // The fifth place is beyond k.
        assert_relative_eq!(report.coverage, 0.4);
    }

    #[test]
    fn a_perfect_list_has_an_ndcg_and_map_of_one_even_when_more_was_wanted_than_it_holds() {
        let mut metrics = RankingMetrics::new(2, 5);
        metrics.update(&[3, 1], &[0, 1, 3, 4]);
        let report = metrics.finish();
        assert_eq!((report.ndcg, report.map), (1.0, 1.0));
        assert_eq!(report.recall, 0.5);
    }

    #[test]
    fn a_list_without_a_hit_scores_nothing_and_still_covers_the_catalogue() {
        let mut metrics = RankingMetrics::new(2, 4);
        metrics.update(&[0, 1], &[3]);
        metrics.update(&[], &[3]);
        let report = metrics.finish();
        let figures = [
            report.recall,
            report.ndcg,
            report.map,
            report.hit_rate,
            report.mrr,
        ];
        assert_eq!(figures, [0.0; 5]);
        assert_eq!((report.users, report.coverage), (2, 0.5));
    }

    #[test]
    fn who_wanted_nothing_is_left_out() {
        let mut metrics = RankingMetrics::new(2, 4);
        metrics.update(&[0, 1], &[]);
        assert_eq!(metrics, RankingMetrics::new(2, 4));
    }

    #[test]
    fn parts_that_are_merged_are_the_whole() {
        // Figures that are sums of powers of two, so that no order of adding rounds.
        let lists: [([u32; 2], &[u32]); 3] = [([0, 1], &[1]), ([2, 3], &[2]), ([0, 2], &[1])];
        let mut whole = RankingMetrics::new(1, 70);
        let mut parts = [RankingMetrics::new(1, 70), RankingMetrics::new(1, 70)];
        for (nth, (top, relevant)) in lists.iter().enumerate() {
            whole.update(top, relevant);
            parts[nth % 2].update(top, relevant);
        }
        let [mut merged, second] = parts;
        merged.merge(&second);
        assert_eq!(merged, whole);
        assert_relative_eq!(merged.finish().coverage, 2.0 / 70.0);
    }
}
