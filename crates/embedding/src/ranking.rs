//! Figures of the lists that vectors of users and items give.

use crossfield_core::{ListFigures, RankingMetrics, RankingReport};
use rayon::prelude::*;

use crate::similarity::check_rows;
use crate::{Error, Exact, Measure, Neighbour, Vectors};

/// Users whose lists are held at a time.
const BLOCK: usize = 4096;

/// Rising lists of items, one a user.
pub type ListOf<'a> = dyn Fn(u32) -> &'a [u32] + Sync + 'a;

/// Ranks the whole catalogue for each user, but for what they have seen, and measures the first `k`
/// places.
///
/// The score is `user · item + bias`; of one score the lower row comes first. Users of whom nothing
/// is relevant are left out. What is relevant but has no row of its own, an item that only the test
/// set has, cannot be found and counts as missed. A row that nobody shall be shown, such as that of
/// unknown items, belongs into every list of `seen`. What is both seen and relevant is not shown.
///
/// Runs on all threads of the pool, in blocks of users, so that memory does not grow with their
/// number; the bits do not depend on the number of threads.
///
/// # Shapes
/// - users: `[users, dim]`
/// - items: `[items, dim]`
/// - item_bias: `[items]`
///
/// # Errors
/// [`Error::Length`] if the shapes do not fit or `k` is 0, [`Error::NonFiniteVector`] in the biases,
/// [`Error::Unsorted`] for what was seen.
///
/// ```
/// use crossfield_embedding::{Vectors, evaluate_ranking};
///
/// let users = Vectors::from_flat(&[1.0, 0.0, 0.0, 1.0], 2)?;
/// let items = Vectors::from_flat(&[3.0, 1.0, 2.0, 0.0, 1.0, 2.0], 2)?;
/// // Both have seen item 0 and want item 1.
/// let report = evaluate_ranking(&users, &items, None, &|_| &[0], &|_| &[1], 1)?;
/// // The first user is shown item 1, the second item 2.
/// assert_eq!((report.users, report.recall), (2, 0.5));
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
pub fn evaluate_ranking<'a>(
    users: &Vectors,
    items: &Vectors,
    item_bias: Option<&[f32]>,
    seen: &ListOf<'a>,
    relevant: &ListOf<'a>,
    k: usize,
) -> Result<RankingReport, Error> {
    let mut metrics = RankingMetrics::new(k.max(1), items.rows());
    each_list(
        users,
        items,
        item_bias,
        seen,
        relevant,
        k,
        &mut |list, wanted| {
            metrics.update(list, wanted);
        },
    )?;
    Ok(metrics.finish())
}

/// The figures of each user's list, as [`evaluate_ranking`] has their means: those of users of whom
/// something is relevant, in the order of their rows.
///
/// # Errors
/// As [`evaluate_ranking`].
///
/// ```
/// use crossfield_embedding::{Vectors, list_figures};
///
/// let users = Vectors::from_flat(&[1.0, 0.0, 0.0, 1.0], 2)?;
/// let items = Vectors::from_flat(&[3.0, 1.0, 2.0, 0.0, 1.0, 2.0], 2)?;
/// let figures = list_figures(&users, &items, None, &|_| &[0], &|_| &[1], 1)?;
/// assert_eq!((figures[0].recall, figures[1].recall), (1.0, 0.0));
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
pub fn list_figures<'a>(
    users: &Vectors,
    items: &Vectors,
    item_bias: Option<&[f32]>,
    seen: &ListOf<'a>,
    relevant: &ListOf<'a>,
    k: usize,
) -> Result<Vec<ListFigures>, Error> {
    let mut figures = Vec::new();
    each_list(
        users,
        items,
        item_bias,
        seen,
        relevant,
        k,
        &mut |list, wanted| {
            figures.extend(ListFigures::of(list, wanted, k));
        },
    )?;
    Ok(figures)
}

/// Hands over the list of each user of whom something is relevant, and what is.
fn each_list<'a>(
    users: &Vectors,
    items: &Vectors,
    item_bias: Option<&[f32]>,
    seen: &ListOf<'a>,
    relevant: &ListOf<'a>,
    k: usize,
    each: &mut dyn FnMut(&[u32], &[u32]),
) -> Result<(), Error> {
    let exact = start(items, item_bias, k)?;
    let all: Vec<u32> = (0..users.rows() as u32).collect();
    for block in all.chunks(BLOCK) {
        let wanted = block.iter().filter(|&&user| !relevant(user).is_empty());
        let wanted: Vec<u32> = wanted.copied().collect();
        let lists = exact.nearest_of_each(users, &wanted, k, seen)?;
        for (&user, list) in wanted.iter().zip(&lists) {
            each(&rows(list), relevant(user));
        }
    }
    Ok(())
}

/// What a user chooses from when only some items are ranked.
///
/// ```
/// use crossfield_embedding::{Candidates, Vectors, evaluate_candidates};
///
/// let users = Vectors::from_flat(&[1.0, 0.0], 2)?;
/// let items = Vectors::from_flat(&[3.0, 1.0, 2.0, 0.0, 1.0, 2.0], 2)?;
/// let lists = [Candidates {
///     user: 0,
///     items: &[1, 2],
///     relevant: &[1],
/// }];
/// let report = evaluate_candidates(&users, &items, None, &lists, 1)?;
/// assert_eq!(report.hit_rate, 1.0);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// The user.
    pub user: u32,
    /// The items, each once, in any order.
    pub items: &'a [u32],
    /// Those among them that the user wanted.
    pub relevant: &'a [u32],
}

/// Ranks for each user the candidates that are given, such as one relevant item among 99 that were
/// sampled, and measures the first `k` places.
///
/// Figures of sampled candidates are higher than those of the whole catalogue, and need not put
/// models in the same order; they compare with published ones on the same samples only.
///
/// # Source
/// The protocol: He et al., *Neural Collaborative Filtering* (2017), section 4.1. Its limits:
/// Krichene, Rendle, *On Sampled Metrics for Item Recommendation* (2020).
///
/// # Errors
/// As [`evaluate_ranking`], and [`Error::NoRow`] for a user or a candidate.
pub fn evaluate_candidates(
    users: &Vectors,
    items: &Vectors,
    item_bias: Option<&[f32]>,
    lists: &[Candidates<'_>],
    k: usize,
) -> Result<RankingReport, Error> {
    let exact = start(items, item_bias, k)?;
    let mut metrics = RankingMetrics::new(k, items.rows());
    for block in lists.chunks(BLOCK) {
        let tops = block.par_iter().map(|list| {
            check_rows("user", &[list.user], users.rows())?;
            let mut scores = exact.scores(users.row(list.user), list.items)?;
            scores.sort_unstable_by(Neighbour::nearer);
            scores.truncate(k);
            Ok(rows(&scores))
        });
        let tops: Vec<Vec<u32>> = tops.collect::<Result<_, Error>>()?;
        for (list, top) in block.iter().zip(&tops) {
            metrics.update(top, list.relevant);
        }
    }
    Ok(metrics.finish())
}

fn start<'a>(items: &'a Vectors, bias: Option<&'a [f32]>, k: usize) -> Result<Exact<'a>, Error> {
    if k == 0 {
        return Err(Error::Length {
            what: "places of a list",
            got: 0,
            expected: "1 or more".to_owned(),
        });
    }
    let exact = Exact::new(items, Measure::Dot)?;
    match bias {
        Some(bias) => exact.with_bias(bias),
        None => Ok(exact),
    }
}

fn rows(list: &[Neighbour]) -> Vec<u32> {
    list.iter().map(|neighbour| neighbour.row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossfield_core::rng::{Purpose, rng};
    use rand::RngExt;

    const USERS: usize = 150;
    const ITEMS: usize = 77;

    struct Data {
        users: Vectors,
        items: Vectors,
        bias: Vec<f32>,
        seen: Vec<Vec<u32>>,
        relevant: Vec<Vec<u32>>,
    }

    /// Small integers, so that scores are exact and many are equal.
    fn data() -> Data {
        let mut rng = rng(1, Purpose::Synth, 0, 0);
        let mut draw = |rows: usize| {
            let draws = (0..rows * 5).map(|_| rng.random_range(-3i8..=3).into());
            Vectors::from_flat(&draws.collect::<Vec<f32>>(), 5).unwrap()
        };
        let (users, items) = (draw(USERS), draw(ITEMS));
        let lists = |every: u32, rest: u32| {
            let of = |user| (0..ITEMS as u32).filter(move |item| (item * 7 + user) % every == rest);
            (0..USERS as u32).map(|user| of(user).collect()).collect()
        };
        let (seen, mut relevant): (_, Vec<Vec<u32>>) = (lists(5, 0), lists(13, 1));
        relevant[3].clear();
        relevant[USERS - 1].clear();
        // No row of its own.
        relevant[4].push(ITEMS as u32);
        Data {
            users,
            items,
            bias: (0..ITEMS).map(|item| (item % 3) as f32).collect(),
            seen,
            relevant,
        }
    }

    impl Data {
        fn score(&self, user: u32, item: u32) -> f32 {
            let (user, row) = (self.users.row(user), self.items.row(item));
            user.iter().zip(row).map(|(a, b)| a * b).sum::<f32>() + self.bias[item as usize]
        }

        /// Items by falling score, of one score by rising number.
        fn ranked(&self, user: u32, items: impl Iterator<Item = u32>) -> Vec<u32> {
            let mut items: Vec<u32> = items.collect();
            items.sort_unstable();
            items.sort_by(|&a, &b| self.score(user, b).total_cmp(&self.score(user, a)));
            items
        }

        fn evaluate(&self, k: usize) -> RankingReport {
            evaluate_ranking(
                &self.users,
                &self.items,
                Some(&self.bias),
                &|user| &self.seen[user as usize],
                &|user| &self.relevant[user as usize],
                k,
            )
            .unwrap()
        }
    }

    #[test]
    fn the_whole_catalogue_is_ranked_as_by_a_sort_for_each_user() {
        let data = data();
        // More places than there are items, too.
        for k in [1, 10, 100] {
            let mut expected = RankingMetrics::new(k, ITEMS);
            for user in 0..USERS as u32 {
                let seen = &data.seen[user as usize];
                let unseen = (0..ITEMS as u32).filter(|item| !seen.contains(item));
                let list = data.ranked(user, unseen);
                expected.update(&list[..k.min(list.len())], &data.relevant[user as usize]);
            }
            let report = data.evaluate(k);
            assert_eq!(report, expected.finish());
            assert_eq!(report.users, USERS as u64 - 2);
            let (seen, relevant) = (&data.seen, &data.relevant);
            let each = list_figures(
                &data.users,
                &data.items,
                Some(&data.bias),
                &|user| &seen[user as usize],
                &|user| &relevant[user as usize],
                k,
            )
            .unwrap();
            let ndcg: f64 = each.iter().map(|list| list.ndcg).sum();
            assert_eq!(ndcg / each.len() as f64, report.ndcg);
        }
    }

    #[test]
    fn candidates_alone_are_ranked_whatever_their_order() {
        let data = data();
        let own: Vec<Vec<u32>> = (0..USERS as u32)
            .map(|user| {
                (0..20)
                    .map(|nth| (user + 3 * (19 - nth)) % ITEMS as u32)
                    .collect()
            })
            .collect();
        let lists: Vec<Candidates<'_>> = (0..USERS)
            .map(|user| Candidates {
                user: user as u32,
                items: &own[user],
                relevant: &own[user][user % 20..][..1],
            })
            .collect();
        let mut expected = RankingMetrics::new(5, ITEMS);
        for list in &lists {
            let ranked = data.ranked(list.user, list.items.iter().copied());
            expected.update(&ranked[..5], list.relevant);
        }
        let (users, items) = (&data.users, &data.items);
        let report = evaluate_candidates(users, items, Some(&data.bias), &lists, 5).unwrap();
        assert_eq!(report, expected.finish());
    }

    #[test]
    fn any_number_of_threads_gives_the_same_figures() {
        let data = data();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| data.evaluate(10))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let data = data();
        let nobody: &ListOf<'_> = &|_| &[];
        let error = |items: &Vectors, bias: Option<&[f32]>, k| {
            evaluate_ranking(&data.users, items, bias, nobody, nobody, k)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            error(&data.items, None, 0),
            "places of a list: got 0, expected 1 or more"
        );
        let other = Vectors::from_flat(&[1.0; 4], 4).unwrap();
        assert_eq!(
            error(&other, None, 1),
            "numbers of a query: got 5, expected 4"
        );
        assert_eq!(
            error(&data.items, Some(&[1.0]), 1),
            "biases: got 1, expected 77"
        );
        let lists = [Candidates {
            user: 0,
            items: &[77],
            relevant: &[77],
        }];
        let error = evaluate_candidates(&data.users, &data.items, None, &lists, 1).unwrap_err();
        assert_eq!(error.to_string(), "candidate 77: expected a row below 77");
    }
}
