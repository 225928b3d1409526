//! What the demos are to show, on seeds on which no setting was chosen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../examples/demo/fields.rs"]
mod fields;
#[path = "../examples/demo/planted.rs"]
mod planted;
#[path = "../examples/demo/runs.rs"]
mod runs;
#[path = "../examples/demo/transfer.rs"]
mod transfer;

const SEEDS: [u64; 2] = [1, 2];

fn assert_narrow(report: &str) {
    for line in report.lines() {
        assert!(line.chars().count() <= 40, "{line}");
    }
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
    }
}

#[test]
fn field_aware_vectors_beat_longer_ones_where_a_feature_acts_in_two_ways() {
    for seed in SEEDS {
        let outcomes = fields::run(seed).unwrap();
        let report = fields::report(&outcomes);
        assert_narrow(&report);
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
