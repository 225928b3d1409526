use super::*;
use crate::Duplicates;
use approx::assert_abs_diff_eq;
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

const USERS: usize = 14;
const ITEMS: usize = 11;

fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// Two thirds of all pairs of a planted model of two factors, with noise; `cold` more users and
/// items without a rating.
fn planted(noise: f64, cold: usize) -> Interactions {
    let mut rng = rng(5, Purpose::Synth, 0, 0);
    let mut side = |rows: usize| -> Vec<[f64; 3]> {
        (0..rows)
            .map(|_| std::array::from_fn(|_| 0.7 * normal(&mut rng)))
            .collect()
    };
    let (users, items) = (side(USERS), side(ITEMS));
    let mut pairs = Vec::new();
    for (user, p) in users.iter().enumerate() {
        for (item, q) in items.iter().enumerate() {
            let exact = 3.5 + p[0] + q[0] + p[1] * q[1] + p[2] * q[2];
            let rating = exact + noise * normal(&mut rng);
            if (user + 2 * item) % 3 != 0 {
                pairs.push((user as u32, item as u32, rating as f32));
            }
        }
    }
    Interactions::new(USERS + cold, ITEMS + cold, pairs, Duplicates::Keep).unwrap()
}

fn l2(bias_l2: f64, factor_l2: f64, weighted: bool) -> RatingsL2 {
    RatingsL2 {
        bias_l2,
        factor_l2,
        weighted,
    }
}

fn als(embedding_dim: usize, l2: RatingsL2) -> RatingsConfig {
    RatingsConfig {
        embedding_dim,
        method: RatingsMethod::Als(l2),
        ..RatingsConfig::default()
    }
}

fn gibbs(embedding_dim: usize) -> RatingsConfig {
    RatingsConfig {
        embedding_dim,
        ..RatingsConfig::default()
    }
}

fn fitted(ratings: Interactions, config: RatingsConfig, sweeps: usize) -> RatingsSolver {
    let mut solver = RatingsSolver::new(ratings, config, 3).unwrap();
    for _ in 0..sweeps {
        solver.iterate().unwrap();
    }
    solver
}

/// `½ Σ (r − ŷ)² + ½ Σ λ |·|²`, and the greatest element of its gradient by items; by double loops.
fn objective(ratings: &Interactions, of: &BiasedParameters, l2: RatingsL2) -> (f64, f64) {
    let k = of.embedding_dim;
    let (mut loss, mut steepest) = (0.0, 0f64);
    let scale = |n: usize| if l2.weighted { n as f64 } else { 1.0 };
    let square = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
    let bias = |biases: &[f32], row: usize| biases.get(row).copied().map_or(0.0, f64::from);
    for user in 0..ratings.users() {
        let n = scale(ratings.by_user().row(user).0.len());
        loss += 0.5 * n * l2.factor_l2 * square(&of.users[user * k..][..k]);
        loss += 0.5 * n * l2.bias_l2 * bias(&of.user_bias, user).powi(2);
    }
    for item in 0..ratings.items() {
        let (users, values) = ratings.by_item().row(item);
        let n = scale(users.len());
        let q = &of.items[item * k..][..k];
        loss += 0.5 * n * l2.factor_l2 * square(q);
        loss += 0.5 * n * l2.bias_l2 * bias(&of.item_bias, item).powi(2);
        let mut slope_b = n * l2.bias_l2 * bias(&of.item_bias, item);
        let mut slope: Vec<f64> = q.iter().map(|&q| n * l2.factor_l2 * f64::from(q)).collect();
        for (&user, &rating) in users.iter().zip(values) {
            let p = &of.users[user as usize * k..][..k];
            let dot: f64 = p
                .iter()
                .zip(q)
                .map(|(&p, &q)| f64::from(p) * f64::from(q))
                .sum();
            let biases = bias(&of.user_bias, user as usize) + bias(&of.item_bias, item);
            let score = f64::from(of.mean) + biases + dot;
            assert!((score - of.score(user as usize, item)).abs() < 1e-5);
            let error = score - f64::from(rating);
            loss += 0.5 * error * error;
            slope_b += error;
            for (slope, &p) in slope.iter_mut().zip(p) {
                *slope += error * f64::from(p);
            }
        }
        if !of.item_bias.is_empty() {
            steepest = steepest.max(slope_b.abs());
        }
        steepest = slope.iter().fold(steepest, |most, s| most.max(s.abs()));
    }
    (loss, steepest)
}

#[test]
fn no_sweep_of_als_raises_the_objective_and_items_end_at_their_minimum() {
    let ratings = planted(0.3, 0);
    for weighted in [false, true] {
        for (biases, k) in [(true, 0), (true, 2), (true, 20), (false, 2)] {
            let l2 = l2(0.05, 0.1, weighted);
            let config = RatingsConfig {
                biases,
                ..als(k, l2)
            };
            let mut solver = RatingsSolver::new(ratings.clone(), config, 3).unwrap();
            let (mut before, _) = objective(&ratings, solver.parameters(), l2);
            for sweep in 0..8 {
                let loss = solver.train_loss();
                solver.iterate().unwrap();
                assert_eq!(solver.last_loss(), loss);
                let (after, steepest) = objective(&ratings, solver.parameters(), l2);
                assert!(after <= before + 1e-4, "{sweep}: {after} after {before}");
                assert!(steepest < 1e-3, "{k} {weighted}: {steepest}");
                before = after;
            }
        }
    }
}

#[test]
fn biases_alone_are_shrunken_means_by_hand() {
    // Mean 3; user 0 rates 5 and 4, user 1 rates 0. Items have no bias yet: b_0 = (2 + 1)/(2 + λ),
    // b_1 = −3/(1 + λ). Then item 0, rated 5 and 0: b = (2 − b_0 − 3 − b_1)/(2 + λ).
    let pairs = [(0, 0, 5.0), (0, 1, 4.0), (1, 0, 0.0)];
    let ratings = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
    let solver = fitted(ratings, als(0, l2(1.0, 1.0, false)), 1);
    let parameters = solver.parameters();
    assert_eq!(parameters.mean, 3.0);
    assert_abs_diff_eq!(parameters.user_bias[..], [1.0, -1.5], epsilon = 1e-6);
    let expected = [-0.5 / 3.0, 0.0];
    assert_abs_diff_eq!(parameters.item_bias[..], expected, epsilon = 1e-6);
}

#[test]
fn weighted_l2_counts_once_a_rating() {
    // As above with λ times 2 and 1 ratings: b_0 = 3/(2 + 2 λ), b_1 = −3/(1 + λ).
    let pairs = [(0, 0, 5.0), (0, 1, 4.0), (1, 0, 0.0)];
    let ratings = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
    let solver = fitted(ratings, als(0, l2(0.5, 1.0, true)), 1);
    assert_abs_diff_eq!(
        solver.parameters().user_bias[..],
        [1.0, -2.0],
        epsilon = 1e-6
    );
}

#[test]
fn gibbs_finds_the_noise_and_the_ratings_without_it() {
    let (exact, noisy) = (planted(0.0, 0), planted(0.3, 0));
    let mut solver = RatingsSolver::new(noisy, gibbs(2), 3).unwrap();
    let mut mean = vec![0.0; USERS * ITEMS];
    let (mut alphas, mut draws) = (0.0, 0.0);
    for sweep in 1..=600 {
        solver.iterate().unwrap();
        if sweep > 100 {
            draws += 1.0;
            alphas += solver.alpha();
            for (at, mean) in mean.iter_mut().enumerate() {
                *mean += solver.parameters().score(at / ITEMS, at % ITEMS);
            }
        }
    }
    // The planted precision is 1/0.09 = 11, known from some 100 ratings only.
    let alpha = alphas / draws;
    assert!((5.0..20.0).contains(&alpha), "{alpha}");
    let mut squares = 0.0;
    for user in 0..USERS {
        let (items, values) = exact.by_user().row(user);
        for (&item, &value) in items.iter().zip(values) {
            let error = mean[user * ITEMS + item as usize] / draws - f64::from(value);
            squares += error * error;
        }
    }
    let rmse = (squares / exact.len() as f64).sqrt();
    assert!(rmse < 0.3, "{rmse}");
}

#[test]
fn a_run_goes_on_from_its_parameters_to_the_bit() {
    let configs = [als(3, l2(0.1, 0.2, true)), gibbs(3)];
    for config in configs {
        let whole = fitted(planted(0.3, 1), config.clone(), 9);
        let half = fitted(planted(0.3, 1), config.clone(), 4);
        let mut resumed = RatingsSolver::new(planted(0.3, 1), config, 3).unwrap();
        resumed.resume(half.parameters().clone(), 4).unwrap();
        for _ in 4..9 {
            resumed.iterate().unwrap();
        }
        assert_eq!(resumed.parameters(), whole.parameters());
        assert_eq!(resumed.last_loss(), whole.last_loss());
        assert_eq!(resumed.sweeps(), 9);
    }
}

#[test]
fn threads_do_not_change_bits_but_the_seed_does() {
    // More users than a thread takes at least.
    let pairs = (0..600u32).map(|at| (at % 100, at * 7 % 30, (at % 5) as f32));
    let ratings = Interactions::new(100, 30, pairs, Duplicates::Keep).unwrap();
    let run = |threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut solver = RatingsSolver::new(ratings.clone(), gibbs(4), seed).unwrap();
            for _ in 0..5 {
                solver.iterate().unwrap();
            }
            (solver.parameters().clone(), solver.last_loss())
        })
    };
    assert_eq!(run(1, 3), run(3, 3));
    assert_ne!(run(1, 3), run(1, 4));
}

#[test]
fn a_folded_in_user_has_the_row_that_als_gives() {
    for weighted in [false, true] {
        let l2 = l2(0.1, 0.2, weighted);
        let ratings = planted(0.3, 0);
        let mut solver = fitted(ratings.clone(), als(3, l2), 4);
        let before = solver.parameters().clone();
        solver.iterate().unwrap();
        let after = solver.parameters();
        for user in 0..USERS {
            let (items, values) = ratings.by_user().row(user);
            let mut own: Vec<_> = items.iter().copied().zip(values.iter().copied()).collect();
            // In whatever order.
            own.reverse();
            let (bias, vector) = before.fold_in_user(&own, l2).unwrap();
            assert_eq!(bias, after.user_bias[user]);
            assert_eq!(vector, after.users[user * 3..][..3]);
        }
        // Items come after users within a sweep.
        for item in 0..ITEMS {
            let (users, values) = ratings.by_item().row(item);
            let own: Vec<_> = users.iter().copied().zip(values.iter().copied()).collect();
            let (bias, vector) = after.fold_in_item(&own, l2).unwrap();
            assert_eq!(bias, after.item_bias[item]);
            assert_eq!(vector, after.items[item * 3..][..3]);
        }
    }
}

#[test]
fn what_cannot_be_folded_in_is_refused() {
    let solver = fitted(planted(0.3, 0), als(2, l2(0.1, 0.2, false)), 2);
    let fold = |ratings: &[(u32, f32)], l2| solver.parameters().fold_in_user(ratings, l2);
    let good = l2(0.1, 0.2, false);
    assert_eq!(fold(&[], good).unwrap(), (0.0, vec![0.0; 2]));
    assert_eq!(
        fold(&[(0, 1.0), (11, 1.0)], good).unwrap_err().to_string(),
        "interaction 1: item 11 of 11"
    );
    assert_eq!(
        fold(&[(0, f32::INFINITY)], good).unwrap_err().to_string(),
        "interaction 0: value inf, expected a finite number"
    );
    assert_eq!(
        fold(&[(0, 1.0)], l2(0.1, 0.0, false))
            .unwrap_err()
            .to_string(),
        "factor_l2 is 0: expected a number above 0"
    );
}

#[test]
fn both_of_two_ratings_of_an_item_count() {
    // Mean 3, q = 1: targets 3 and 1, p = (3 + 1)/(1 + 1 + λ).
    let parameters = BiasedParameters {
        embedding_dim: 1,
        mean: 3.0,
        user_bias: vec![],
        item_bias: vec![],
        users: vec![],
        items: vec![1.0],
    };
    let pairs = [(0, 6.0), (0, 4.0)];
    let (_, vector) = parameters
        .fold_in_user(&pairs, l2(0.0, 2.0, false))
        .unwrap();
    assert_eq!(vector, [1.0]);
}

#[test]
fn who_has_no_rating_is_zero_under_als() {
    for weighted in [false, true] {
        let solver = fitted(planted(0.3, 2), als(3, l2(0.0, 0.2, weighted)), 3);
        let parameters = solver.parameters();
        assert_eq!(parameters.user_bias[USERS..], [0.0; 2]);
        assert_eq!(parameters.item_bias[ITEMS..], [0.0; 2]);
        assert_eq!(parameters.users[USERS * 3..], [0.0; 6]);
        assert_eq!(parameters.items[ITEMS * 3..], [0.0; 6]);
        assert_eq!(
            parameters.score(USERS, ITEMS),
            f64::from(parameters.mean),
            "the mean of the ratings"
        );
    }
}

#[test]
fn who_has_no_rating_is_drawn_from_the_prior_and_changes_nobody_else() {
    let (with, without) = (planted(0.3, 1), planted(0.3, 0));
    let (with, without) = (fitted(with, gibbs(3), 5), fitted(without, gibbs(3), 5));
    let (with, without) = (with.parameters(), without.parameters());
    assert_eq!(with.users[..USERS * 3], without.users);
    assert_eq!(with.item_bias[..ITEMS], without.item_bias);
    let cold = &with.items[ITEMS * 3..];
    assert!(cold.iter().all(|&value| value != 0.0 && value.abs() < 10.0));
}

#[test]
fn one_rating_and_more_factors_than_ratings_are_enough() {
    let ratings = Interactions::new(1, 1, [(0, 0, 4.0)], Duplicates::Keep).unwrap();
    for config in [als(40, l2(0.0, 0.1, false)), gibbs(40)] {
        let solver = fitted(ratings.clone(), config, 10);
        assert!(solver.parameters().score(0, 0).is_finite());
    }
    let solver = fitted(ratings, als(40, l2(0.0, 0.1, false)), 3);
    // The mean is all that there is to learn.
    assert!((solver.parameters().score(0, 0) - 4.0).abs() < 1e-5);
}

#[test]
fn ratings_may_lie_anywhere() {
    let pairs = [(0, 0, -1000.0), (0, 1, 3.0), (1, 0, 3.0), (1, 1, 1000.0)];
    let ratings = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
    let solver = fitted(ratings, als(2, l2(0.001, 0.001, false)), 30);
    assert!((solver.parameters().score(0, 0) + 1000.0).abs() < 5.0);
    assert!((solver.parameters().score(1, 1) - 1000.0).abs() < 5.0);
}

#[test]
fn options_out_of_range_and_no_ratings_are_refused() {
    let message = |config: RatingsConfig| {
        let solver = RatingsSolver::new(planted(0.3, 0), config, 1);
        solver.unwrap_err().to_string()
    };
    assert_eq!(
        message(als(2, l2(-1.0, 1.0, false))),
        "bias_l2 is -1: expected a number of at least 0"
    );
    assert_eq!(
        message(als(2, l2(1.0, f64::NAN, false))),
        "factor_l2 is NaN: expected a number above 0"
    );
    assert_eq!(
        message(gibbs(1025)),
        "embedding_dim is 1025: expected 0 to 1024"
    );
    assert_eq!(
        message(RatingsConfig {
            biases: false,
            ..gibbs(0)
        }),
        "embedding_dim is 0: expected 1 to 1024 without biases"
    );
    assert_eq!(
        message(RatingsConfig {
            init_std: 0.0,
            ..gibbs(2)
        }),
        "init_std is 0: expected a number above 0"
    );
    let none = Interactions::new(2, 2, [], Duplicates::Keep).unwrap();
    let error = RatingsSolver::new(none, gibbs(2), 1).unwrap_err();
    assert_eq!(error, Error::Empty);
}

#[test]
fn a_sweep_that_fails_leaves_the_parameters() {
    // Six factors, two ratings a user, and an L2 below the precision of f32.
    let pairs = [(0, 0, 1e6), (0, 1, 2e6), (1, 0, 0.0), (1, 1, 3e6)];
    let ratings = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
    let config = als(6, l2(0.0, 1e-12, false));
    let mut solver = RatingsSolver::new(ratings, config, 3).unwrap();
    let before = solver.parameters().clone();
    let error = solver.iterate().unwrap_err();
    assert!(matches!(error, Error::Singular { what: "user", .. }));
    assert_eq!(
        Error::Singular {
            what: "user",
            index: 1
        }
        .to_string(),
        "the equations of user 1 have no single solution: expected a greater L2"
    );
    assert_eq!(solver.parameters(), &before);
    assert_eq!(solver.sweeps(), 0);

    // −3.4e38 less a mean of 1.1e38 is beyond f32.
    let pairs = [(0, 0, f32::MAX), (0, 1, -f32::MAX), (1, 0, f32::MAX)];
    let ratings = Interactions::new(2, 2, pairs, Duplicates::Keep).unwrap();
    for config in [als(2, l2(1.0, 1.0, false)), gibbs(2)] {
        let mut solver = RatingsSolver::new(ratings.clone(), config, 3).unwrap();
        let before = solver.parameters().clone();
        let error = solver.iterate().unwrap_err();
        let (what, index) = ("user", 0);
        assert_eq!(error, Error::NonFinite { what, index });
        assert_eq!(solver.parameters(), &before);
    }
}

#[test]
fn parameters_of_another_model_are_refused() {
    let mut solver = RatingsSolver::new(planted(0.3, 0), gibbs(2), 1).unwrap();
    let good = solver.parameters().clone();
    let mut other = good.clone();
    other.users.pop();
    assert_eq!(
        solver.resume(other, 1).unwrap_err().to_string(),
        "parameters of 75 numbers, expected 76"
    );
    let mut other = good.clone();
    other.items[5] = f32::NAN;
    let error = solver.resume(other, 1).unwrap_err();
    assert_eq!(
        error,
        Error::NonFinite {
            what: "item",
            index: 2
        }
    );
    assert_eq!(solver.parameters(), &good);
}
