use super::*;
use approx::assert_relative_eq;
use crossfield_core::{FeatureLists, PredictionLink, PredictionMean};

type Rng8 = rand_chacha::ChaCha8Rng;

const ALS: Method = Method::Als {
    bias_l2: 0.5,
    linear_l2: 1.0,
    factor_l2: 2.0,
};

/// Rows of a user, an item and a weighted bag of tags, with targets of a planted machine.
struct Rows {
    hot: Vec<u32>,
    offsets: Vec<u64>,
    tags: Vec<u32>,
    weights: Vec<f32>,
    ratings: Vec<f32>,
    clicks: Vec<f32>,
}

const USERS: u32 = 12;
const ITEMS: u32 = 10;
const TAGS: u32 = 4;

/// One more user and item than occur.
fn columns() -> Columns {
    let range = |field, base, rows| FieldColumns { field, base, rows };
    let fields = vec![
        range(0, 0, USERS + 1),
        range(1, USERS + 1, ITEMS + 1),
        range(2, USERS + ITEMS + 2, TAGS),
    ];
    let groups = [(0, USERS + 1), (1, ITEMS + 1), (2, TAGS)];
    let groups = groups.into_iter().flat_map(|(g, n)| vec![g; n as usize]);
    Columns::new(fields, groups.collect()).unwrap()
}

impl Rows {
    fn new(noise: f64) -> Self {
        let mut rng = rng(9, Purpose::Synth, 0, 0);
        let planted = FmParameters {
            w0: 0.2,
            ..FmParameters::init(columns().len(), 2, false, 0.8, 77)
        };
        let mut rows = Self {
            hot: vec![],
            offsets: vec![0],
            tags: vec![],
            weights: vec![],
            ratings: vec![],
            clicks: vec![],
        };
        let mut features = Vec::new();
        for user in 0..USERS {
            for item in 0..ITEMS {
                rows.hot.extend([user, item]);
                features.clear();
                features.extend([(user, 1.0), (USERS + 1 + item, 1.0)]);
                for tag in 0..(user + item) % 3 {
                    let weight = 0.5 + tag as f32;
                    rows.tags.push(tag);
                    rows.weights.push(weight);
                    features.push((USERS + ITEMS + 2 + tag, weight));
                }
                rows.offsets.push(rows.tags.len() as u64);
                let z = planted.score(&features) + noise * normal(&mut rng);
                rows.ratings.push(z as f32);
                rows.clicks
                    .push(f32::from(u8::from(z + normal(&mut rng) > 0.0)));
            }
        }
        rows
    }

    fn labels(&self, loss: Loss) -> &[f32] {
        match loss {
            Loss::Squared => &self.ratings,
            _ => &self.clicks,
        }
    }

    fn examples(&self, loss: Loss) -> Examples<'_> {
        Examples {
            rows: self.ratings.len(),
            one_hot_fields: &[0, 1],
            one_hot: &self.hot,
            lists: vec![FeatureLists {
                field: 2,
                offsets: &self.offsets,
                indices: &self.tags,
                weights: Some(&self.weights),
            }],
            labels: self.labels(loss),
            weights: None,
        }
    }

    fn solver(&self, loss: Loss, embedding_dim: usize, method: Method) -> FmSolver {
        let config = SolverConfig {
            embedding_dim,
            method,
            ..SolverConfig::default()
        };
        FmSolver::new(&self.examples(loss), &columns(), loss, config, 3).unwrap()
    }

    /// What ALS lowers, pair by pair as the equation stands.
    fn objective(&self, loss: Loss, parameters: &FmParameters) -> f64 {
        let k = parameters.embedding_dim;
        let square = |values: &[f32]| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let mut sum =
            0.25 * square(&[parameters.w0]) + 0.5 * square(&parameters.w) + square(&parameters.v);
        let mut features = Vec::new();
        let examples = self.examples(loss);
        let columns = columns();
        let reader = design::RowReader::new(&examples, &columns).unwrap();
        for (row, &y) in self.labels(loss).iter().enumerate() {
            reader.read(row, &mut features).unwrap();
            let mut z = f64::from(parameters.w0);
            for (at, &(i, x)) in features.iter().enumerate() {
                z += f64::from(parameters.w[i as usize]) * f64::from(x);
                for &(j, other) in &features[at + 1..] {
                    let v = |i: u32| &parameters.v[i as usize * k..][..k];
                    let dot: f64 = (v(i).iter().zip(v(j)))
                        .map(|(&a, &b)| f64::from(a) * f64::from(b))
                        .sum();
                    z += dot * f64::from(x) * f64::from(other);
                }
            }
            sum += match loss {
                Loss::Squared => 0.5 * (z - f64::from(y)).powi(2),
                _ => probit::negative_log_normal(if y > 0.5 { z } else { -z }),
            };
        }
        sum
    }
}

#[test]
fn als_leaves_the_column_it_updated_at_its_minimum() {
    let rows = Rows::new(0.3);
    for embedding_dim in [0, 3, 8] {
        let mut solver = rows.solver(Loss::Squared, embedding_dim, ALS);
        solver.iterate().unwrap();
        let (column, _) = solver.design.lines().last().unwrap();
        let parameters = solver.parameters();
        let slope = |change: fn(&mut FmParameters, usize, f32), at: usize| {
            let moved = |by: f32| {
                let mut moved = parameters.clone();
                change(&mut moved, at, by);
                rows.objective(Loss::Squared, &moved)
            };
            (moved(1e-2) - moved(-1e-2)) / 2e-2
        };
        // Elsewhere the slope is of the order of 1: the objective is quadratic, so that the
        // central difference is exact but for the rounding of f32.
        assert!(slope(|p, at, by| p.w[at] += by, 0).abs() > 0.01);
        assert!(slope(|p, at, by| p.w[at] += by, column).abs() < 1e-3);
        for f in 0..embedding_dim {
            let at = column * embedding_dim + f;
            assert!(slope(|p, at, by| p.v[at] += by, at).abs() < 1e-3);
        }
    }
}

#[test]
fn no_iteration_of_als_raises_the_objective() {
    let rows = Rows::new(0.3);
    for loss in [Loss::Squared, Loss::Probit] {
        for embedding_dim in [3, 11] {
            let mut solver = rows.solver(loss, embedding_dim, ALS);
            let mut last = rows.objective(loss, solver.parameters());
            for _ in 0..20 {
                solver.iterate().unwrap();
                let now = rows.objective(loss, solver.parameters());
                assert!(now < last + 1e-4, "{loss:?}: {now} after {last}");
                last = now;
            }
        }
    }
}

#[test]
fn als_and_mcmc_recover_a_planted_machine_on_rows_they_did_not_see() {
    let rows = Rows::new(0.02);
    let all = rows.examples(Loss::Squared);
    let held_out = |row: usize| row % 7 == 3;
    // The training rows are the others.
    let mut train = Rows::new(0.02);
    let kept: Vec<usize> = (0..all.rows).filter(|&row| !held_out(row)).collect();
    train.hot = kept
        .iter()
        .flat_map(|&row| all.one_hot_of(row).to_vec())
        .collect();
    train.ratings = kept.iter().map(|&row| rows.ratings[row]).collect();
    (train.offsets, train.tags, train.weights) = (vec![0], vec![], vec![]);
    for &row in &kept {
        let range = all.lists[0].range(row);
        train.tags.extend(&rows.tags[range.clone()]);
        train.weights.extend(&rows.weights[range]);
        train.offsets.push(train.tags.len() as u64);
    }
    let als = Method::Als {
        bias_l2: 0.0,
        linear_l2: 0.01,
        factor_l2: 0.01,
    };
    // Share of the squares that is left. ALS stops at the planted noise; the prior of MCMC's noise
    // weighs 1 beside the squared errors of 102 rows, a variance of 0.01 where the planted one is
    // 0.0004, so that it fits less closely.
    for (method, burn_in, left) in [(als, 299, 0.01), (Method::Mcmc, 100, 0.04)] {
        let mut solver = train.solver(Loss::Squared, 2, method);
        let link = PredictionLink {
            range: None,
            ..PredictionLink::of(Loss::Squared, &[])
        };
        let mut mean = PredictionMean::new(link, all.rows);
        for iteration in 0..300 {
            solver.iterate().unwrap();
            if iteration >= burn_in {
                mean.add(&scores(solver.parameters(), &all, &columns()).unwrap());
            }
        }
        let predictions = mean.predictions();
        let (mut error, mut spread) = (0.0, 0.0);
        for row in (0..all.rows).filter(|&row| held_out(row)) {
            error += (predictions[row] - f64::from(rows.ratings[row])).powi(2);
            spread += f64::from(rows.ratings[row]).powi(2);
        }
        assert!(error < left * spread, "{method:?}: {error} of {spread}");
    }
}

#[test]
fn draws_of_a_conditional_have_its_closed_form_mean_and_covariance() {
    // Two rows, x = 1: h = q − v = 2 and −1, e = 1 and 3; α = 2, both priors N(0.5, 1/4).
    let line = Line {
        indices: &[0, 1],
        values: None,
    };
    let (v, w) = ([0.25f32, 0.0, 0.0, 0.0], 0.75);
    let q = [[2.25f32, 0.0, 0.0, 0.0], [-0.75, 0.0, 0.0, 0.0]];
    let sums = Sums::of(line, &v, &[1.0, 3.0], &q);
    assert_eq!((sums.hh[0][0], sums.he[0]), (5.0, -1.0));
    assert_eq!((sums.xx, sums.xe, sums.xh[0]), (2.0, 4.0, 1.0));
    let prior = Prior {
        mean: 0.5,
        precision: 4.0,
    };
    let conditional = Conditional::new(&sums, 2.0, 1, &v, |_| prior, Some((w, prior)));
    // P = [[4 + 2·5, 2·1], [2·1, 4 + 2·2]] = [[14, 2], [2, 8]], det 108;
    // g = [2·1 + 4 (0.5 − 0.25), −2·4 + 4 (0.5 − 0.75)] = [3, −9].
    let expected = [
        (8.0 * 3.0 + 2.0 * 9.0) / 108.0,
        (-2.0 * 3.0 - 14.0 * 9.0) / 108.0,
    ];
    let mean = conditional.clone().step(None::<&mut Rng8>);
    assert_relative_eq!(mean[0], expected[0], epsilon = 1e-12);
    assert_relative_eq!(mean[1], expected[1], epsilon = 1e-12);
    let mut rng = rng(1, Purpose::Gibbs, 0, 0);
    let (n, mut first, mut second) = (40_000, [0.0; 2], [0.0; 3]);
    for _ in 0..n {
        let draw = conditional.clone().step(Some(&mut rng));
        let off = [draw[0] - expected[0], draw[1] - expected[1]];
        first = [first[0] + off[0], first[1] + off[1]];
        for (sum, product) in
            second
                .iter_mut()
                .zip([off[0] * off[0], off[0] * off[1], off[1] * off[1]])
        {
            *sum += product / f64::from(n);
        }
    }
    // Standard deviations are 0.27 and 0.36: four standard errors of a mean of 40,000.
    assert!(
        first
            .iter()
            .all(|sum| (sum / f64::from(n)).abs() < 4.0 * 0.36 / 200.0)
    );
    // The inverse of P: [[8, −2], [−2, 14]] / 108.
    for (got, expected) in second.iter().zip([8.0 / 108.0, -2.0 / 108.0, 14.0 / 108.0]) {
        assert_relative_eq!(*got, expected, epsilon = 0.004);
    }
}

#[test]
fn a_parameter_of_which_nothing_is_known_stays() {
    let sums = Sums::<4>::of(Line::default(), &[0.5; 4], &[], &[]);
    let flat = Prior {
        mean: 0.0,
        precision: 0.0,
    };
    let conditional = Conditional::new(&sums, 1.0, 4, &[0.5; 4], |_| flat, Some((0.5, flat)));
    assert_eq!(conditional.step(None::<&mut Rng8>), [0.0; 9]);
}

#[test]
fn priors_are_drawn_around_the_mean_and_the_precision_of_their_columns() {
    let rows = Rows::new(0.0);
    let design = Design::new(&rows.examples(Loss::Squared), &columns()).unwrap();
    let mut rng = rng(1, Purpose::Gibbs, 0, 0);
    // Users: values 1 and 3 in turn, the user that does not occur far away.
    let value = |column: usize| match column as u32 {
        USERS => 1e6,
        user => {
            if user % 2 == 0 {
                1.0
            } else {
                3.0
            }
        }
    };
    let (mut mean, mut precision) = (0.0, 0.0);
    for _ in 0..20_000 {
        let prior = draw_priors(&design, value, &mut rng)[0];
        mean += prior.mean / 20_000.0;
        precision += prior.precision / 20_000.0;
    }
    // n = 12, m = 2: μ has mean 24/13; λ has mean (1 + 12) / (1 + 12 + 4·12/13).
    assert_relative_eq!(mean, 24.0 / 13.0, epsilon = 0.01);
    assert_relative_eq!(precision, 13.0 / (13.0 + 48.0 / 13.0), epsilon = 0.01);
}

#[test]
fn the_noise_and_the_bias_of_ratings_are_found() {
    // A linear model of one column that every row has: labels 3 ± 0.5.
    let labels: Vec<f32> = (0..400)
        .map(|row| if row % 2 == 0 { 2.5 } else { 3.5 })
        .collect();
    let examples = Examples {
        rows: 400,
        one_hot_fields: &[0],
        one_hot: &[0; 400],
        lists: vec![],
        labels: &labels,
        weights: None,
    };
    let columns = Columns::new(
        vec![FieldColumns {
            field: 0,
            base: 0,
            rows: 1,
        }],
        vec![0],
    )
    .unwrap();
    let config = SolverConfig {
        embedding_dim: 0,
        ..SolverConfig::default()
    };
    let mut solver = FmSolver::new(&examples, &columns, Loss::Squared, config, 5).unwrap();
    let (mut alpha, mut z) = (0.0, 0.0);
    for _ in 0..2_000 {
        solver.iterate().unwrap();
        alpha += solver.hyper().alpha / 2_000.0;
        z += solver.parameters().score(&[(0, 1.0)]) / 2_000.0;
    }
    // Variance 1/4. A draw of α has a relative deviation of √(2/400), of z one of 0.5/√400.
    assert_relative_eq!(alpha, 4.0, max_relative = 0.02);
    assert_relative_eq!(z, 3.0, epsilon = 0.005);
}

#[test]
fn one_hot_fields_and_weighted_lists_of_the_same_rows_give_the_same_bits() {
    let rows = Rows::new(0.3);
    for loss in [Loss::Squared, Loss::Probit] {
        for method in [ALS, Method::Mcmc] {
            let mut hot = rows.solver(loss, 9, method);
            let [users, items] = [0, 1].map(|at| {
                rows.hot
                    .iter()
                    .skip(at)
                    .step_by(2)
                    .copied()
                    .collect::<Vec<_>>()
            });
            let offsets: Vec<u64> = (0..=rows.ratings.len() as u64).collect();
            let ones = vec![1.0; rows.ratings.len()];
            let list = |field, indices| FeatureLists {
                field,
                offsets: &offsets,
                indices,
                weights: Some(&ones),
            };
            let mut examples = rows.examples(loss);
            (examples.one_hot_fields, examples.one_hot) = (&[], &[]);
            examples
                .lists
                .splice(0..0, [list(0, &users), list(1, &items)]);
            let config = hot.config.clone();
            let mut lists = FmSolver::new(&examples, &columns(), loss, config, 3).unwrap();
            for _ in 0..3 {
                hot.iterate().unwrap();
                lists.iterate().unwrap();
            }
            assert_eq!(hot.parameters(), lists.parameters());
        }
    }
}

#[test]
fn a_run_repeats_and_resumes_to_the_bit() {
    let rows = Rows::new(0.3);
    for loss in [Loss::Squared, Loss::Probit] {
        let mut run = rows.solver(loss, 8, Method::Mcmc);
        for _ in 0..3 {
            run.iterate().unwrap();
        }
        let saved = run.parameters().clone();
        for _ in 0..3 {
            run.iterate().unwrap();
        }
        let mut resumed = rows.solver(loss, 8, Method::Mcmc);
        resumed.resume(saved, 3).unwrap();
        for _ in 0..3 {
            resumed.iterate().unwrap();
        }
        assert_eq!(resumed.parameters(), run.parameters());
        assert_eq!(resumed.hyper(), run.hyper());
        assert_eq!(resumed.iterations(), 6);
        let mut other = rows.solver(loss, 8, Method::Mcmc);
        for _ in 0..6 {
            other.iterate().unwrap();
        }
        assert_eq!(other.parameters(), run.parameters());
    }
}

#[test]
fn saved_draws_give_the_predictions_of_the_run_that_drew_them() {
    let rows = Rows::new(0.3);
    let examples = rows.examples(Loss::Probit);
    let mut solver = rows.solver(Loss::Probit, 4, Method::Mcmc);
    let link = PredictionLink::of(Loss::Probit, &rows.clicks);
    let mut running = PredictionMean::new(link, examples.rows);
    let mut draws = Vec::new();
    for _ in 0..5 {
        solver.iterate().unwrap();
        running.add(&scores(solver.parameters(), &examples, &columns()).unwrap());
        draws.push(solver.parameters().clone());
    }
    let mut again = PredictionMean::new(link, examples.rows);
    for draw in &draws {
        again.add(&scores(draw, &examples, &columns()).unwrap());
    }
    assert_eq!(again, running);
    let first = scores(&draws[0], &examples, &columns()).unwrap()[7];
    let mean = draws
        .iter()
        .map(|draw| link.prediction(scores(draw, &examples, &columns()).unwrap()[7]));
    assert_relative_eq!(
        running.predictions()[7],
        mean.sum::<f64>() / 5.0,
        epsilon = 1e-12
    );
    assert_ne!(link.prediction(first), running.predictions()[7]);
}

#[test]
fn clicks_are_learned_better_than_by_their_mean() {
    let rows = Rows::new(0.0);
    for method in [ALS, Method::Mcmc] {
        let mut solver = rows.solver(Loss::Probit, 4, method);
        let start = solver.train_loss();
        solver.iterate().unwrap();
        assert_relative_eq!(solver.last_loss(), start, max_relative = 1e-12);
        for _ in 1..30 {
            solver.iterate().unwrap();
        }
        assert!(solver.train_loss() < 0.9 * start);
    }
}

#[test]
fn columns_that_no_row_has_go_to_their_prior() {
    let rows = Rows::new(0.3);
    let mut als = rows.solver(Loss::Squared, 4, ALS);
    als.iterate().unwrap();
    let unseen = USERS as usize;
    assert!(!als.design.occurs(unseen));
    // But for the rounding of √λ √λ.
    assert!(als.parameters().w[unseen].abs() < 1e-12);
    assert!(
        als.parameters().v[unseen * 4..][..4]
            .iter()
            .all(|v| v.abs() < 1e-12)
    );

    let mut mcmc = rows.solver(Loss::Squared, 4, Method::Mcmc);
    let (mut sum, mut square) = (0.0, 0.0);
    for _ in 0..500 {
        mcmc.iterate().unwrap();
        let prior = mcmc.hyper().linear[0];
        let w = f64::from(mcmc.parameters().w[unseen]);
        let standard = (w - prior.mean) * prior.precision.sqrt();
        sum += standard / 500.0;
        square += standard * standard / 500.0;
    }
    // Standard normal, to four standard errors of 500 draws.
    assert!(sum.abs() < 0.18 && (square - 1.0).abs() < 0.25);
}

#[test]
fn what_a_row_has_twice_is_one_feature_of_the_summed_value() {
    let both = FieldColumns {
        field: 0,
        base: 0,
        rows: 3,
    };
    let columns = Columns::new(vec![both, FieldColumns { field: 1, ..both }], vec![0; 3]).unwrap();
    let examples = Examples {
        rows: 2,
        one_hot_fields: &[0, 1],
        one_hot: &[2, 2, 1, 0],
        lists: vec![],
        labels: &[],
        weights: None,
    };
    let parameters = FmParameters {
        embedding_dim: 1,
        w0: 0.0,
        w: vec![1.0, 2.0, 3.0],
        v: vec![5.0, 7.0, 11.0],
    };
    // 2 w_2, and no pair of a feature with itself; w_0 + w_1 + v_0 v_1.
    assert_eq!(
        scores(&parameters, &examples, &columns).unwrap(),
        [6.0, 38.0]
    );
    let design = Design::new(&examples, &columns).unwrap();
    let mut features = Vec::new();
    design.read(0, &mut features);
    assert_eq!(features, [(2, 2.0)]);
}

#[test]
fn rows_without_features_are_scored_by_the_bias() {
    let columns = Columns::new(
        vec![FieldColumns {
            field: 0,
            base: 0,
            rows: 2,
        }],
        vec![0; 2],
    )
    .unwrap();
    let examples = Examples {
        rows: 3,
        one_hot_fields: &[],
        one_hot: &[],
        lists: vec![FeatureLists {
            field: 0,
            offsets: &[0, 0, 2, 2],
            indices: &[0, 1],
            weights: None,
        }],
        labels: &[1.0, 0.0, 1.0],
        weights: None,
    };
    for loss in [Loss::Squared, Loss::Probit] {
        let mut solver =
            FmSolver::new(&examples, &columns, loss, SolverConfig::default(), 1).unwrap();
        for _ in 0..50 {
            solver.iterate().unwrap();
            let scores = scores(solver.parameters(), &examples, &columns).unwrap();
            assert_eq!(scores[0], f64::from(solver.parameters().w0));
            assert!(scores.iter().all(|score| score.is_finite()));
        }
    }
}

#[test]
fn an_update_that_is_not_finite_stops_and_changes_nothing() {
    let columns = Columns::new(
        vec![FieldColumns {
            field: 0,
            base: 0,
            rows: 1,
        }],
        vec![0],
    )
    .unwrap();
    let examples = Examples {
        rows: 2,
        one_hot_fields: &[],
        one_hot: &[],
        lists: vec![FeatureLists {
            field: 0,
            offsets: &[0, 1, 2],
            indices: &[0, 0],
            weights: Some(&[1e30, 1e30]),
        }],
        labels: &[1.0, 2.0],
        weights: None,
    };
    let config = SolverConfig {
        method: ALS,
        ..SolverConfig::default()
    };
    let mut solver = FmSolver::new(&examples, &columns, Loss::Squared, config, 1).unwrap();
    let before = solver.parameters().clone();
    let error = solver.iterate().unwrap_err();
    assert!(
        error.to_string().starts_with("iteration 1: the update of"),
        "{error}"
    );
    assert_eq!(solver.parameters(), &before);
    assert_eq!(solver.iterations(), 0);
}

#[test]
fn bad_input_is_named() {
    let rows = Rows::new(0.3);
    let config = SolverConfig::default();
    let fails = |examples: &Examples, loss, config: &SolverConfig| {
        FmSolver::new(examples, &columns(), loss, config.clone(), 1)
            .unwrap_err()
            .to_string()
    };
    let good = rows.examples(Loss::Squared);
    assert_eq!(
        fails(&good, Loss::Probit, &config),
        format!("row 0: the label is {}: expected 0 or 1", rows.ratings[0])
    );
    assert_eq!(
        fails(&good, Loss::Logistic, &config),
        "the loss is Logistic: expected squared (ratings) or probit (clicks)"
    );
    let wrong = SolverConfig {
        init_std: f64::NAN,
        ..config.clone()
    };
    assert_eq!(
        fails(&good, Loss::Squared, &wrong),
        "`init_std` is NaN: expected a number above 0"
    );
    let weights = vec![1.0; good.rows];
    let weighted = Examples {
        weights: Some(&weights),
        ..good.clone()
    };
    assert_eq!(
        fails(&weighted, Loss::Squared, &config),
        "sample weights: expected none, as ALS and MCMC count every row once"
    );
    let mut hot = rows.hot.clone();
    hot[3] = ITEMS + 1;
    let beyond = Examples {
        one_hot: &hot,
        ..good.clone()
    };
    assert_eq!(
        fails(&beyond, Loss::Squared, &config),
        "row 1, field 1: the index is 11: expected below 11"
    );
    let mut labels = rows.ratings.clone();
    labels[4] = f32::INFINITY;
    let infinite = Examples {
        labels: &labels,
        ..good.clone()
    };
    assert_eq!(
        fails(&infinite, Loss::Squared, &config),
        "row 4: the label is inf: expected a finite number"
    );
    let mut weights = rows.weights.clone();
    weights[0] = f32::NAN;
    let mut lists = good.clone();
    lists.lists[0].weights = Some(&weights);
    assert_eq!(
        fails(&lists, Loss::Squared, &config),
        "row 1, field 2: a weight is NaN: expected a finite number"
    );
    let mut solver = rows.solver(Loss::Squared, 8, Method::Mcmc);
    let mut other = solver.parameters().clone();
    other.w[2] = f32::NAN;
    assert_eq!(
        solver.resume(other, 1).unwrap_err().to_string(),
        "the parameters' w: expected finite numbers, got NaN at 2"
    );
    let apart = FieldColumns {
        field: 0,
        base: 0,
        rows: 3,
    };
    let overlapping = FieldColumns {
        field: 1,
        base: 2,
        rows: 3,
    };
    assert!(Columns::new(vec![apart, overlapping], vec![0; 5]).is_err());
}
