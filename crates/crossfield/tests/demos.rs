//! What the demos are to show, on seeds on which no setting was chosen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../examples/demo/attention.rs"]
mod attention;
#[path = "../examples/demo/bars.rs"]
mod bars;
#[path = "../examples/demo/combine.rs"]
mod combine;
#[path = "../examples/demo/fields.rs"]
mod fields;
#[path = "../examples/demo/memorise_generalise.rs"]
mod memorise_generalise;
#[path = "../examples/demo/mix.rs"]
mod mix;
#[path = "../examples/demo/neighbours.rs"]
mod neighbours;
#[path = "../examples/demo/one_hot.rs"]
mod one_hot;
#[path = "../examples/demo/planted.rs"]
mod planted;
#[path = "../examples/demo/runs.rs"]
mod runs;
#[path = "../examples/demo/transfer.rs"]
mod transfer;
#[path = "../examples/demo/warm_start.rs"]
mod warm_start;

use std::path::Path;

const SEEDS: [u64; 2] = [1, 2];

fn assert_narrow(report: &str) {
    for line in report.lines() {
        assert!(line.chars().count() <= 40, "{line}");
    }
}

/// What a picture says.
fn drawn(draw: impl Fn(&Path) -> Result<(), runs::Failure>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("picture.svg");
    draw(&file).unwrap();
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn only_factorised_models_estimate_pairs_that_were_never_seen() {
    for seed in SEEDS {
        let outcomes = transfer::run(seed).unwrap();
        let [constant, linear, poly2, fm, ffm, best] = &outcomes[..] else {
            panic!("six predictors");
        };
        let report = transfer::report(&outcomes);
        assert_narrow(&report);
        // What the pairs of the other fields add helps Poly2 on these rows, too.
        assert!(linear.unseen < constant.unseen, "{report}");
        assert!(poly2.unseen < linear.unseen, "{report}");
        for factorised in [fm, ffm] {
            assert!(factorised.unseen < poly2.unseen, "{report}");
            assert!(factorised.seen < poly2.seen, "{report}");
            assert!(factorised.unseen > best.unseen, "{report}");
            assert!(factorised.correlation.unwrap() > 0.5, "{report}");
        }
        assert_eq!(poly2.correlation, None, "{report}");
        let picture = drawn(|file| transfer::draw(&outcomes, file));
        let above = format!("{:.4}", poly2.unseen - best.unseen);
        assert!(picture.contains("Poly2") && picture.contains(&above));
    }
}

#[test]
fn field_aware_vectors_beat_longer_ones_where_a_feature_acts_in_two_ways() {
    for seed in SEEDS {
        let outcomes = fields::run(seed).unwrap();
        let report = fields::report(&outcomes);
        assert_narrow(&report);
        let picture = drawn(|file| fields::draw(&outcomes, file));
        assert!(picture.contains("FFM k=2, 979 weights"), "{picture}");
        let fields::Outcomes {
            fm,
            equal_fm,
            double_fm,
            ffm,
            constant,
            best,
        } = outcomes;
        assert_eq!(equal_fm.weights, ffm.weights, "{report}");
        assert!(fm.logloss < constant, "{report}");
        assert!(equal_fm.logloss < fm.logloss, "{report}");
        assert!(double_fm.weights > ffm.weights, "{report}");
        for fm in [equal_fm, double_fm] {
            assert!(ffm.logloss < fm.logloss, "{report}");
        }
        assert!(best < ffm.logloss, "{report}");
    }
}

#[test]
fn looking_rows_up_does_what_one_hot_rows_do_and_does_not_grow_with_the_ids() {
    let outcomes = one_hot::run(1, one_hot::MOST / 10).unwrap();
    let report = one_hot::report(&outcomes);
    assert_narrow(&report);
    let picture = drawn(|file| one_hot::draw(&outcomes, file));
    assert!(picture.contains("rows looked up"), "{picture}");
    let [first, .., last] = &outcomes[..] else {
        panic!("{report}");
    };
    assert_eq!((first.ids, last.ids), (1000, 100_000));
    for outcome in &outcomes {
        // Sums in another order.
        assert!(outcome.difference < 1e-6, "{report}");
    }
    assert!(last.one_hot.bytes > 90 * first.one_hot.bytes, "{report}");
    assert!(last.lookup.bytes < 2 * first.lookup.bytes, "{report}");
    // By a factor of several hundred on a quiet machine.
    assert!(
        last.one_hot.seconds > 10.0 * last.lookup.seconds,
        "{report}"
    );
}

#[test]
fn listeners_who_share_an_audience_lie_close_though_the_model_saw_ids_only() {
    for seed in SEEDS {
        let outcome = neighbours::run(seed).unwrap();
        let report = neighbours::report(&outcome);
        assert_narrow(&report);
        assert!(outcome.sharing > 0.4, "{report}");
        assert!(outcome.apart.abs() < 0.1, "{report}");
        assert!(outcome.same > outcome.sharing, "{report}");
    }
    let outcome = neighbours::run(1).unwrap();
    let picture = drawn(|file| neighbours::draw(&outcome, file));
    assert!(
        picture.matches("<circle").count() >= 300,
        "a dot a listener"
    );
    assert!(picture.contains("listeners of mostly A"));
}

#[test]
fn well_known_films_have_films_of_their_kind_beside_them() {
    let Some(films) = neighbours::films(1).unwrap() else {
        eprintln!("skipped: CROSSFIELD_DATA names no folder with ml-100k");
        return;
    };
    let near = |film: &str| {
        let after = films.split(film).nth(1).unwrap();
        after.split("\n\n").next().unwrap().to_owned()
    };
    for other in [
        "Empire Strikes Back",
        "Return of the Jedi",
        "Raiders of the Lost Ark",
    ] {
        let near = near("\nStar Wars (1977)\n");
        assert!(near.contains(other), "{near}");
    }
    assert_eq!(
        films.lines().filter(|line| line.starts_with("  ")).count(),
        50
    );
}

#[test]
fn vectors_of_plays_start_a_click_model_ahead_where_clicks_are_few() {
    for seed in SEEDS {
        let outcomes = warm_start::run(seed).unwrap();
        let report = warm_start::report(&outcomes);
        assert_narrow(&report);
        let ahead = |of: &warm_start::Outcome| of.random.warm - of.from_plays.warm;
        let picture = drawn(|file| warm_start::draw(&outcomes, file));
        assert!(picture.contains("warm users, from plays"), "{picture}");
        for outcome in &outcomes.by_share {
            assert!(ahead(outcome) > 0.005, "{report}");
            assert!(outcome.from_plays.warm > outcomes.best.warm, "{report}");
        }
        let [few, some, all] = &outcomes.by_share[..] else {
            panic!("three shares");
        };
        // Few clicks teach a random start nothing; with enough of them it catches up.
        for (outcome, gain) in [(few, 0.01), (some, 0.02)] {
            assert!(
                outcome.random.warm > outcomes.constant.warm - 0.005,
                "{report}"
            );
            assert!(
                outcome.from_plays.warm < outcomes.constant.warm - gain,
                "{report}"
            );
        }
        assert!(ahead(some) > ahead(all), "{report}");
        // Of cold users nothing is known beforehand.
        let cold = |of: &warm_start::Outcome| of.random.cold - of.from_plays.cold;
        assert!(cold(few).abs() < 0.02, "{report}");
        assert!(cold(some) < ahead(some), "{report}");
    }
}

#[test]
fn wide_remembers_rules_deep_infers_the_rest_and_both_together_do_both() {
    use memorise_generalise::Slice::{HeldOut, NewIds, Rules};
    // The log was made harder once, after a look at 1 and 2.
    for seed in [3, 4] {
        let outcomes = memorise_generalise::run(seed).unwrap();
        let report = memorise_generalise::report(&outcomes);
        assert_narrow(&report);
        let [constant, wide, deep, both, best] = &outcomes[..] else {
            panic!("five predictors");
        };
        // In standard errors, row by row: far beyond what another sample would change.
        assert!(wide.ahead_of(deep, Rules) > 5.0, "{report}");
        assert!(deep.ahead_of(wide, HeldOut) > 3.0, "{report}");
        assert!(deep.ahead_of(wide, NewIds) > 2.0, "{report}");
        for slice in [Rules, HeldOut, NewIds] {
            for alone in [wide, deep] {
                assert!(both.ahead_of(alone, slice) > -2.0, "{report}");
            }
            assert!(both.logloss(slice) < constant.logloss(slice), "{report}");
            assert!(best.logloss(slice) < both.logloss(slice), "{report}");
        }
        let picture = drawn(|file| memorise_generalise::draw(&outcomes, file));
        assert!(picture.contains("held-out pairs"), "{picture}");
    }
}

#[test]
fn only_the_candidate_changes_and_the_weights_move_to_what_matters_for_it() {
    // The penalty on vectors was chosen after a look at 1.
    for seed in [3, 4] {
        let outcomes = attention::run(seed).unwrap();
        let report = attention::report(&outcomes);
        assert_narrow(&report);
        let [constant, none, fixed, asked, best] = &outcomes[..] else {
            panic!("five predictors");
        };
        assert!(none.logloss() < constant.logloss() + 0.001, "{report}");
        assert!(fixed.ahead_of(none) > 3.0, "{report}");
        assert!(asked.ahead_of(fixed) > 5.0, "{report}");
        assert!(best.logloss() < asked.logloss(), "{report}");
        assert!(asked.on_make > 0.7 && fixed.on_make < 0.25, "{report}");
        // Shoes ask shoes, novels ask novels.
        for candidate in [0, 1] {
            assert!(asked.share(candidate, "shoes") > 0.7, "{report}");
        }
        for candidate in [2, 3] {
            assert!(asked.share(candidate, "novel") > 0.7, "{report}");
        }
        let picture = drawn(|file| attention::draw_map(&outcomes, file));
        assert!(picture.contains("novel-4d") && picture.contains("shoes-2a"));
        // Half of the past is of each kind, and that is all that a mean can say.
        for weights in &fixed.weights {
            assert_eq!(weights, &[0.1; 10], "{report}");
        }
    }
}

#[test]
fn a_product_of_vectors_is_best_taken_as_one_and_not_learned() {
    for seed in [3, 4] {
        let outcomes = combine::run(seed).unwrap();
        let report = combine::report(&outcomes);
        assert_narrow(&report);
        let [constant, dot, cosine, concatenation, product, best] = &outcomes[..] else {
            panic!("six predictors");
        };
        for way in [dot, cosine, concatenation, product] {
            assert!(way.ahead_of(constant) > 5.0, "{report}");
        }
        for way in [cosine, concatenation] {
            assert!(dot.ahead_of(way) > 3.0, "{report}");
        }
        assert!(product.ahead_of(dot) < 3.0, "{report}");
        assert!(best.logloss() < dot.logloss(), "{report}");
        assert_eq!((dot.beside, cosine.beside), (0, 1), "{report}");
        let picture = drawn(|file| combine::draw(&outcomes, file));
        assert!(picture.contains("concatenation"), "{picture}");
    }
}

#[test]
fn each_component_learns_its_part_and_their_sum_learns_all_on_shared_tables() {
    // Early stopping was made more patient after a look at 3.
    for seed in [5, 6] {
        let outcomes = mix::run(seed).unwrap();
        let report = mix::report(&outcomes);
        assert_narrow(&report);
        for (part, alone) in outcomes.alone.iter().enumerate() {
            assert!(alone.ahead_of(&outcomes.constant) > 5.0, "{report}");
            for (other, follows) in alone.follows.iter().enumerate() {
                let follows = follows.unwrap();
                assert!((follows > 0.5) == (part == other), "{report}");
                assert!(part == other || follows.abs() < 0.1, "{report}");
            }
            // Within the sum, each goes on to do what it did alone.
            let (name, within) = &outcomes.within[part];
            assert_eq!(*name, alone.name);
            for (other, follows) in within.iter().enumerate() {
                let follows = follows.unwrap();
                assert!((follows > 0.5) == (part == other), "{report}");
            }
        }
        for fewer in outcomes.alone.iter().chain(&outcomes.two) {
            assert!(outcomes.all.ahead_of(fewer) > 5.0, "{report}");
        }
        assert!(outcomes.best.logloss() < outcomes.all.logloss(), "{report}");
        let (of_each, of_sum) = outcomes.tables;
        assert_eq!((of_each, of_sum), ([3, 4, 1], 7), "{report}");
        let picture = drawn(|file| mix::draw(&outcomes, file));
        assert!(picture.contains("wide + din"), "{picture}");
    }
}
