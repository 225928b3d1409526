//! `describe`: what a finished run is, in forty columns.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::Folder;

const RUN: &str = r#"
[data]
train = "rows.csv"
split = { kind = "random", valid = 0.2, test = 0.2 }

[[field]]
name = "user"

[[field]]
name = "tags"
kind = "bag"
delimiter = " "

[model]
sum = ["fm", "deep"]

[model.fm]
embedding_dim = 2
linear = false

[model.deep]
embedding_dim = 2
hidden = [3]

[train]
epochs = 2
"#;

/// 100 rows of one of 4 users and 2 of 5 tags, a fifth of label 1.
fn rows() -> String {
    let row = |row: usize| {
        let label = usize::from(row.is_multiple_of(5));
        format!("{label},u{},a{} b{}\n", row % 4, row % 2, row % 3)
    };
    "label,user,tags\n".to_owned() + &(0..100).map(row).collect::<String>()
}

fn folder(run: &str) -> Folder {
    let folder = Folder::new();
    folder.write("rows.csv", rows());
    folder.write("run.toml", run);
    folder.succeed("train run.toml --out a");
    folder
}

/// A card is as wide as a narrow terminal, but for names and paths that cannot be broken.
fn card(folder: &Folder) -> String {
    let card = folder.succeed("describe a").stdout;
    for line in card.lines() {
        assert!(
            line.chars().count() <= 40 || !line.trim().contains(' '),
            "{line}"
        );
    }
    card
}

/// Says, wherever a line ends.
fn assert_says(card: &str, expected: &str) {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words(card).contains(&words(expected)),
        "{expected}\n\n{card}"
    );
}

#[test]
fn a_card_counts_what_can_be_counted_by_hand() {
    let folder = folder(RUN);
    let card = card(&folder);
    // Two components on the same tables: four users and five tags, each beside the unseen.
    assert_says(
        &card,
        "v2.user: 5 rows × 2 vocabulary: user shared by: fm, deep",
    );
    assert_says(&card, "v2.tags: 6 rows × 2");
    // Three features of two numbers: of the FM x v and x² v², and two squares of sums.
    assert_says(
        &card,
        "fm: kind fm embedding_dim: 2 linear: false FLOPs a row: 28",
    );
    // Of the deep part x v, and layers of 4 × 3 and 3.
    assert_says(
        &card,
        "deep: kind deep embedding_dim: 2 hidden: [3] FLOPs a row: 42",
    );
    assert_says(&card, "FLOPs a row, forward: 70");
    // 22 in tables; 4 × 3 + 3 and 3 + 1 of layers, and the bias.
    assert_says(&card, "parameters: 42 in tables: 22 dense: 20");
    assert_says(&card, "mlp.output.weight: [3, 1] = 3");
    assert_says(&card, "train rows: 60 share of label 1: ");
    assert_says(&card, "tags: bag, 6 rows, 2.00 a row");
    assert_says(&card, "loss: logistic executor: burn epochs: 2 of 2");
    assert_says(&card, "The test part has 20 rows, of label 1 a share of ");
    assert!(!card.contains("taken as one"), "{card}");

    let metrics = folder.metrics("a");
    let logloss = metrics["test"]["logloss"].as_f64().unwrap();
    assert_says(&card, &format!("{logloss:.5}"));
    let page = folder.succeed("describe a --format markdown").stdout;
    assert!(page.starts_with("## Model\n\n- `run`: a\n"), "{page}");
    assert!(
        page.contains("\n- `v2.user`: 5 rows × 2\n  - `vocabulary`: user\n"),
        "{page}"
    );
}

#[test]
fn solvers_have_no_optimizers_and_draws_count_in_full() {
    let run = RUN
        .replace("sum = [\"fm\", \"deep\"]", "kind = \"fm\"")
        .replace("[model.deep]\nembedding_dim = 2\nhidden = [3]\n", "")
        .replace(
            "epochs = 2",
            "executor = \"mcmc\"\nloss = \"probit\"\nepochs = 6\nsolver = { burn_in = 2 }",
        );
    let card = card(&folder(&run));
    assert_says(&card, "executor: mcmc sweeps: 6 of 6");
    assert_says(&card, "draws: 4, averaged over");
    // 22 factors and a bias, four times; and twice more while they are drawn.
    assert_says(&card, "parameters: 23 in tables: 22 dense: 1");
    assert_says(
        &card,
        "memory in training: 0.6 kB memory in scoring: 0.4 kB",
    );
    assert_says(&card, "FLOPs a row, forward: 112");
    assert!(!card.contains("optimizer:"), "{card}");
}

#[test]
fn a_run_that_finds_next_items_says_what_ranking_all_of_them_takes() {
    let folder = Folder::new();
    let row = |row: usize| format!("1,i{},i{} i{}\n", row % 4, (row + 1) % 4, (row + 2) % 4);
    let rows: String = (0..20).map(row).collect();
    folder.write("rows.csv", format!("label,item,history\n{rows}"));
    folder.write(
        "run.toml",
        r#"
[data]
train = "rows.csv"

[[field]]
name = "item"

[[field]]
name = "history"
kind = "sequence"
vocabulary = "item"
delimiter = " "
repeats = true

[model]
kind = "sasrec"
bias = false

[model.sasrec]
embedding_dim = 4
blocks = 1

[train]
loss = "sampled_softmax"
epochs = 1
negative_count = 0
"#,
    );
    folder.succeed("train run.toml --out a");
    let card = card(&folder);
    assert_says(&card, "prediction: a score that ranks items");
    // Two items: five matrices of 4 × 4 each, three pairs; x v of the target and the product.
    assert_says(&card, "FLOPs a row, forward: 384");
    // Four items and the unseen, of four numbers.
    assert_says(&card, "and to rank all items: 40");
    assert_says(&card, "There are figures of training rows alone");
}

#[test]
fn an_average_is_the_sum_of_what_its_members_take() {
    let folder = folder(RUN);
    folder.succeed("train run.toml --out b --set train.epochs=1");
    folder.write(
        "mean.toml",
        "[model]\naverage = ['a', 'b']\nweights = [0.25, 0.75]\n",
    );
    folder.succeed("train mean.toml --out m");
    let card = folder.succeed("describe m").stdout;
    assert_says(
        &card,
        "m/members/1: × 0.250 score: fm + deep parameters: 42",
    );
    assert_says(&card, "m/members/2: × 0.750");
    assert_says(&card, "parameters: 84 memory in scoring: ");
    assert_says(&card, "FLOPs a row, forward: 140");
    assert_says(&card, "The test part has 20 rows");
}

#[test]
fn a_run_that_is_not_finished_is_refused() {
    let folder = Folder::new();
    let message = folder.fail("describe none");
    assert!(message.contains("none"), "{message}");
}
