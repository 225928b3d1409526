//! `describe`: a card of a finished run, for those who are to use its model.

use std::path::{Path, PathBuf};

use crossfield_core::metrics::Report;
use crossfield_core::{ComponentConfig, FieldKind};
use crossfield_data::{FittedSchema, grouped};
use crossfield_embedding::{Precision, Snapshot, TablePlan, tensor_name};
use crossfield_train::{Error, Evaluation, Executor, FinalMetrics, State, bytes, table_bytes};

use crate::average::Average;
use crate::console::WIDTH;
use crate::run::{Anyhow, Finished, print, vocabulary};

/// `crossfield describe`.
#[derive(clap::Args, Debug)]
pub(crate) struct DescribeArgs {
    /// A finished run.
    run: PathBuf,
    /// How it is written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    /// For a terminal, forty columns wide.
    #[default]
    Text,
    /// For a page.
    Markdown,
}

pub(crate) fn describe(args: &DescribeArgs) -> Anyhow<()> {
    let card = match Average::open(&args.run, &[])? {
        Some(average) => Card::of_average(&args.run, &average)?,
        None => Card::of(&Finished::open(&args.run, &[])?)?,
    };
    print(&match args.format {
        Format::Text => card.text(),
        Format::Markdown => card.markdown(),
    })
}

/// What there is to say, section by section.
#[derive(Debug, Default)]
struct Card {
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    title: &'static str,
    items: Vec<Item>,
}

#[derive(Debug)]
enum Item {
    /// A name and what is said of it; names of a depth above 0 belong to the one before them.
    Said {
        depth: usize,
        name: String,
        value: String,
    },
    /// As it stands.
    Line(String),
    Sentence(String),
}

impl Section {
    fn new(title: &'static str) -> Self {
        Self {
            title,
            items: Vec::new(),
        }
    }

    fn say(&mut self, depth: usize, name: impl Into<String>, value: impl Into<String>) {
        self.items.push(Item::Said {
            depth,
            name: name.into(),
            value: value.into(),
        });
    }
}

impl Card {
    fn text(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &format!("{}\n", section.title);
            for item in &section.items {
                match item {
                    Item::Line(line) => text += &format!("  {line}\n"),
                    Item::Sentence(sentence) => text += &wrapped(sentence, 2),
                    Item::Said { depth, name, value } => {
                        let indent = 2 + 2 * depth;
                        let line = format!("{:indent$}{name}: {value}", "");
                        if line.chars().count() <= WIDTH {
                            text += &format!("{line}\n");
                        } else {
                            text += &format!("{:indent$}{name}:\n", "");
                            text += &wrapped(value, indent + 2);
                        }
                    }
                }
            }
        }
        text
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text += &format!("## {}\n\n", section.title);
            let mut is_fenced = false;
            for item in &section.items {
                let is_line = matches!(item, Item::Line(_));
                if is_line != is_fenced {
                    text += "```\n";
                    is_fenced = is_line;
                }
                match item {
                    Item::Line(line) => text += &format!("{line}\n"),
                    Item::Sentence(sentence) => text += &format!("- {sentence}\n"),
                    Item::Said { depth, name, value } => {
                        let indent = 2 * depth;
                        text += &format!("{:indent$}- `{name}`: {value}\n", "");
                    }
                }
            }
            text += if is_fenced { "```\n\n" } else { "\n" };
        }
        text
    }
}

/// Words in lines of the width of a narrow terminal.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split(' ') {
        let is_full = indent + line.chars().count() + 1 + word.chars().count() > WIDTH;
        if !line.is_empty() && is_full {
            lines += &format!("{:indent$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{:indent$}{line}\n", "")
}

/// The name of an option's value as a run file spells it.
fn spelled(value: impl serde::Serialize) -> String {
    match toml::Value::try_from(value) {
        Ok(toml::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn count(number: usize) -> String {
    grouped(number as u64)
}

/// How many features of each field a training row has, on the average, and of which fields that is a
/// guess.
struct Features {
    means: Vec<f64>,
    guessed: Vec<String>,
}

impl Features {
    /// Vocabularies have counted the values of all their fields together: a field of one value a row
    /// has had its share, and the others the rest in equal parts.
    fn of(fitted: &FittedSchema, rows: Option<u64>) -> Self {
        let schema = fitted.schema();
        let has_one = |kind| {
            matches!(
                kind,
                FieldKind::Categorical | FieldKind::Numeric | FieldKind::Hashed
            )
        };
        let (mut means, mut guessed) = (Vec::new(), Vec::new());
        for field in &schema.fields {
            if has_one(field.kind) {
                means.push(1.0);
                continue;
            }
            let counts = (0..field.rows).filter_map(|row| fitted.count(&field.vocabulary, row));
            let total: u64 = counts.sum();
            let rows = rows.filter(|&rows| rows > 0 && total > 0);
            let Some(rows) = rows else {
                guessed.push(field.name.clone());
                means.push(1.0);
                continue;
            };
            let of_it = schema.fields.iter();
            let of_it = of_it.filter(|other| other.vocabulary == field.vocabulary);
            let (one, many): (Vec<_>, Vec<_>) = of_it.partition(|other| has_one(other.kind));
            let rest = total as f64 / rows as f64 - one.len() as f64;
            means.push(rest.max(0.0) / many.len() as f64);
        }
        Self { means, guessed }
    }
}

/// What is read of a run before anything is said of it.
struct Facts<'a> {
    finished: &'a Finished,
    state: State,
    metrics: FinalMetrics,
    features: Features,
    plans: Vec<TablePlan>,
    /// Names and shapes of the weights that are of no table.
    dense: Vec<(String, Vec<usize>)>,
    draws: Option<usize>,
}

impl<'a> Facts<'a> {
    fn of(finished: &'a Finished) -> Anyhow<Self> {
        let directory = &finished.directory;
        let state: State = read(directory, "state.json")?;
        let metrics: FinalMetrics = read(directory, "metrics.json")?;
        let rows = metrics.train.as_ref().map(|report| report.rows);
        let plans = finished.training_plans()?;
        let draws = state.posterior.map(|posterior| posterior.draws);
        Ok(Self {
            features: Features::of(&finished.fitted, rows),
            dense: dense(finished, "model.safetensors", &plans, draws)?,
            finished,
            state,
            metrics,
            plans,
            draws,
        })
    }

    /// Sets of parameters that a prediction is of.
    fn sets(&self) -> u64 {
        self.draws.unwrap_or(1) as u64
    }

    fn parameters_in_tables(&self) -> usize {
        self.plans.iter().map(parameters).sum()
    }

    fn parameters(&self) -> usize {
        self.parameters_in_tables() + size(&self.dense)
    }

    /// Bytes of what scores rows.
    fn scoring(&self) -> Anyhow<u64> {
        if self.finished.run.train.executor.is_solver() {
            return Ok(4 * self.parameters() as u64 * self.sets());
        }
        let plans = self.finished.plans()?;
        let tables: u64 = plans.iter().map(TablePlan::weight_bytes).sum();
        Ok(tables + 4 * size(&self.dense) as u64)
    }

    /// Bytes of that and of what updates it.
    fn training(&self) -> Anyhow<u64> {
        if self.finished.run.train.executor.is_solver() {
            // The parameters as they are, and as they were before a sweep.
            return Ok(4 * self.parameters() as u64 * (self.sets() + 2));
        }
        let (weights, state) = table_bytes(&self.plans);
        let of_dense = dense(self.finished, "optimizer.safetensors", &self.plans, None)?;
        Ok(weights + state + 4 * (size(&self.dense) + size(&of_dense)) as u64)
    }

    fn flops(&self) -> Option<f64> {
        let schema = self.finished.fitted.schema();
        let flops = (self.finished.run.model).flops(schema, &self.features.means)?;
        Some(flops * self.sets() as f64)
    }
}

/// Of the rows that are in memory, those of the parts of a compressed table.
fn parameters(plan: &TablePlan) -> usize {
    let parts = plan.parts();
    parts
        .iter()
        .map(|part| part.counted_rows() * part.config.dim)
        .sum()
}

impl Card {
    fn of(finished: &Finished) -> Anyhow<Self> {
        let facts = Facts::of(finished)?;
        let stops = finished.run.train.early_stop.is_some();
        let rate = facts.state.negative_rate;
        Ok(Self {
            sections: vec![
                model(&facts),
                tables(&facts)?,
                dense_weights(&facts.dense),
                totals(&facts)?,
                data(&facts),
                training(&facts)?,
                figures(&facts.metrics),
                limits(stops, rate, &facts.metrics),
            ],
        })
    }

    fn of_average(directory: &Path, average: &Average) -> Anyhow<Self> {
        let mut section = Section::new("Average");
        section.say(0, "run", directory.display().to_string());
        let (mut all, mut memory, mut operations_of_all) = (0, 0, Some(0.0));
        let mut rate: f64 = 1.0;
        for (member, weight) in average.members() {
            let facts = Facts::of(member)?;
            section.say(
                0,
                member.directory.display().to_string(),
                format!("× {weight:.3}"),
            );
            section.say(1, "score", member.run.model.names().join(" + "));
            section.say(1, "parameters", count(facts.parameters()));
            section.say(1, "FLOPs a row", operations(facts.flops()));
            all += facts.parameters();
            memory += facts.scoring()?;
            operations_of_all = operations_of_all
                .zip(facts.flops())
                .map(|(sum, it)| sum + it);
            rate = rate.min(facts.state.negative_rate);
        }
        let sentence = "Weights that were not given are those that were best on the validation part. \
                        `describe` of a member has its card.";
        section.items.push(Item::Sentence(sentence.into()));
        let mut totals = Section::new("Totals");
        totals.say(0, "parameters", count(all));
        totals.say(0, "memory in scoring", bytes(memory));
        totals.say(0, "FLOPs a row, forward", operations(operations_of_all));
        let metrics: FinalMetrics = read(directory, "metrics.json")?;
        Ok(Self {
            sections: vec![
                section,
                totals,
                figures(&metrics),
                limits(false, rate, &metrics),
            ],
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> Result<T, Error> {
    let path = directory.join(name);
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
    serde_json::from_str(&text).map_err(|error| Error::RunDirectory {
        path,
        reason: format!("not of a run: {error}"),
    })
}

fn model(facts: &Facts<'_>) -> Section {
    let (finished, run) = (facts.finished, &facts.finished.run);
    let schema = finished.fitted.schema();
    let mut section = Section::new("Model");
    section.say(0, "run", finished.directory.display().to_string());
    section.say(0, "score", run.model.names().join(" + "));
    section.say(0, "bias", if run.model.bias { "yes" } else { "no" });
    let prediction = match run.train.loss.of_rows() {
        None => "a score that ranks items",
        Some(loss) if loss.link().is_probability() => "a probability",
        Some(_) => "a number",
    };
    section.say(0, "prediction", prediction);
    for component in run.model.describe(schema, &facts.features.means) {
        section.say(0, component.name, format!("kind {}", component.kind));
        for (key, value) in component.changed {
            section.say(1, key, value.to_string());
        }
        section.say(1, "FLOPs a row", operations(component.flops));
    }
    section.items.push(Item::Sentence(
        "Options that are not named have their defaults.".into(),
    ));
    section
}

fn operations(flops: Option<f64>) -> String {
    flops.map_or("not known".into(), |flops| grouped(flops.round() as u64))
}

fn tables(facts: &Facts<'_>) -> Anyhow<Section> {
    let finished = facts.finished;
    let schema = finished.fitted.schema();
    let readers = finished.run.model.readers(schema)?;
    let is_trained = !finished.run.train.executor.is_solver();
    let mut section = Section::new("Tables");
    for plan in &facts.plans {
        let config = &plan.config;
        let rows = if plan.growing == Some(1) {
            "as many rows as keys".to_owned()
        } else {
            format!("{} rows", count(plan.counted_rows()))
        };
        let shape = format!("{rows} × {}", config.dim);
        section.say(0, &config.name, shape);
        section.say(1, "vocabulary", vocabulary(config, &finished.fitted));
        let of = readers
            .iter()
            .filter(|(_, tables)| tables.contains(&config.name));
        let of: Vec<&str> = of.map(|(name, _)| name.as_str()).collect();
        section.say(
            1,
            if of.len() > 1 { "shared by" } else { "of" },
            of.join(", "),
        );
        section.say(1, "parameters", count(parameters(plan)));
        if let Some(compress) = &plan.compress {
            section.say(1, "compressed by", compress.name());
        }
        if is_trained {
            let rule = spelled(plan.optimizer.kind);
            let rule = format!("{rule}, lr {}, l2 {}", plan.optimizer.lr, plan.optimizer.l2);
            section.say(
                1,
                "optimizer",
                if plan.frozen { "frozen".into() } else { rule },
            );
            if plan.precision == Precision::Bf16 {
                section.say(1, "precision", "bf16");
            }
            let (weights, state) = (plan.weight_bytes(), plan.state_bytes());
            let memory = format!("{} + {} of optimizer", bytes(weights), bytes(state));
            section.say(1, "memory", memory);
        }
        let options = finished.run.optimizer.options(&config.name);
        if let Some(from) = options.and_then(|options| options.init_from.as_deref()) {
            section.say(1, "began with", from);
        }
    }
    Ok(section)
}

/// Tensors of a file that are of no table: names and shapes, without the draws.
fn dense(
    finished: &Finished,
    file: &str,
    plans: &[TablePlan],
    draws: Option<usize>,
) -> Result<Vec<(String, Vec<usize>)>, Error> {
    let path = finished.directory.join(file);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let of_tables: Vec<String> = plans
        .iter()
        .flat_map(TablePlan::parts)
        .map(|part| tensor_name(&part.config.name))
        .collect();
    let snapshot = Snapshot::open(&path)?;
    let is_of_table = |name: &str| {
        let mut tables = of_tables.iter();
        tables.any(|table| name.strip_prefix(table.as_str()).is_some_and(is_end))
    };
    let tensors = snapshot
        .names()
        .into_iter()
        .filter(|name| !is_of_table(name));
    let tensors = tensors.map(|name| {
        let shape = snapshot.shape(&name).unwrap_or_default();
        let shape = shape[usize::from(draws.is_some() && !shape.is_empty())..].to_vec();
        (name, shape)
    });
    Ok(tensors.collect())
}

/// What may follow the name of a table in that of one of its tensors.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('.')
}

fn size(tensors: &[(String, Vec<usize>)]) -> usize {
    let sizes = tensors
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>());
    sizes.sum()
}

fn dense_weights(dense: &[(String, Vec<usize>)]) -> Section {
    let mut section = Section::new("Dense weights");
    for (name, shape) in dense {
        let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
        let parameters = count(shape.iter().product());
        section.say(0, name, format!("[{}] = {parameters}", sizes.join(", ")));
    }
    if dense.is_empty() {
        section.items.push(Item::Sentence("None.".into()));
    }
    section
}

fn totals(facts: &Facts<'_>) -> Anyhow<Section> {
    let mut section = Section::new("Totals");
    section.say(0, "parameters", count(facts.parameters()));
    section.say(1, "in tables", count(facts.parameters_in_tables()));
    section.say(1, "dense", count(size(&facts.dense)));
    if let Some(draws) = facts.draws {
        section.say(0, "draws", format!("{draws}, averaged over"));
    }
    section.say(0, "memory in training", bytes(facts.training()?));
    section.say(0, "memory in scoring", bytes(facts.scoring()?));
    section.items.push(Item::Sentence(
        "Memory is that of weights and optimizers, without the rows of the data and the batches."
            .into(),
    ));
    section.say(0, "FLOPs a row, forward", operations(facts.flops()));
    if let Some(config) = crate::next_item::config(&facts.finished.run) {
        let items = config.items(facts.finished.fitted.schema())?;
        let mut plans = facts.plans.iter();
        let table = plans.find(|plan| plan.config.name == items.table);
        let all = table.map(|plan| 2.0 * (plan.config.rows * plan.config.dim) as f64);
        section.say(0, "and to rank all items", operations(all));
    }
    section.items.push(Item::Sentence(
        "Two for each multiply-add; activations and norms are not counted. Of a row with the mean \
         number of features of a training row."
            .into(),
    ));
    let guessed = &facts.features.guessed;
    if !guessed.is_empty() {
        section.items.push(Item::Sentence(format!(
            "How many these have was not counted, and is taken as one: {}.",
            guessed.join(", ")
        )));
    }
    Ok(section)
}

fn data(facts: &Facts<'_>) -> Section {
    let (finished, features) = (facts.finished, &facts.features);
    let schema = finished.fitted.schema();
    let mut section = Section::new("Data");
    section.say(0, "format", spelled(finished.run.data.format));
    for (name, report) in parts(&facts.metrics) {
        section.say(0, format!("{name} rows"), grouped(report.rows));
        if let Some(mean) = report.label_mean {
            section.say(1, "share of label 1", format!("{mean:.4}"));
        }
    }
    for (field, mean) in schema.fields.iter().zip(&features.means) {
        let mut said = format!("{}, {} rows", field.kind.name(), grouped(field.rows.into()));
        if !features.guessed.contains(&field.name) && *mean != 1.0 {
            said += &format!(", {mean:.2} a row");
        }
        if field.vocabulary != field.name {
            said += &format!(", vocabulary {}", field.vocabulary);
        }
        section.say(0, &field.name, said);
    }
    if !schema.dense.is_empty() {
        section.say(0, "dense columns", schema.dense.join(", "));
    }
    section
}

fn parts(metrics: &FinalMetrics) -> impl Iterator<Item = (&'static str, &Report)> {
    let parts = [
        ("train", &metrics.train),
        ("valid", &metrics.valid),
        ("test", &metrics.test),
    ];
    let parts = parts.into_iter();
    parts.filter_map(|(name, report)| Some((name, report.as_ref()?)))
}

fn training(facts: &Facts<'_>) -> Anyhow<Section> {
    let (finished, state) = (facts.finished, &facts.state);
    let run = &finished.run;
    let train = &run.train;
    let mut section = Section::new("Training");
    section.say(0, "loss", train.loss.name());
    section.say(0, "executor", train.executor.name());
    let done = evaluations(finished)?
        .last()
        .map_or(state.epoch, |last| last.epoch);
    let what = if train.executor.is_solver() {
        "sweeps"
    } else {
        "epochs"
    };
    section.say(0, what, format!("{done} of {}", train.epochs()));
    if let Some(stop) = train.early_stop {
        section.say(1, "early stopping", format!("patience {}", stop.patience));
        section.say(1, "the model is of epoch", state.epoch.to_string());
    }
    if !train.executor.is_solver() {
        section.say(0, "steps", grouped(state.step));
        section.say(0, "rows a step", count(train.batch_size()));
        section.say(0, "schedule", spelled(run.optimizer.schedule.kind));
        if train.executor == Executor::Burn {
            let dense = run.optimizer.dense;
            let rule = format!("{}, lr {}", spelled(dense.kind), dense.lr);
            section.say(0, "dense optimizer", rule);
        }
    }
    section.say(0, "seed", train.seed.to_string());
    Ok(section)
}

/// Those of metrics.jsonl; an imported run has none.
fn evaluations(finished: &Finished) -> Result<Vec<Evaluation>, Error> {
    let path = finished.directory.join("metrics.jsonl");
    if !path.exists() {
        return Ok(Vec::new());
    }
    crate::tune::evaluations(&path)
}

fn figures(metrics: &FinalMetrics) -> Section {
    type Figure = (&'static str, fn(&Report) -> Option<f64>);
    const FIGURES: [Figure; 13] = [
        ("logloss", |report| report.logloss),
        ("AUC", |report| report.auc),
        ("GAUC", |report| report.gauc),
        ("NE", |report| report.normalized_entropy),
        ("calib.", |report| report.calibration),
        ("ECE", |report| report.ece),
        ("RMSE", |report| report.rmse),
        ("MAE", |report| report.mae),
        ("Rec@10", |report| Some(report.ranking.as_ref()?.recall)),
        ("NDCG@10", |report| Some(report.ranking.as_ref()?.ndcg)),
        ("MAP@10", |report| Some(report.ranking.as_ref()?.map)),
        ("HR@10", |report| Some(report.ranking.as_ref()?.hit_rate)),
        ("MRR@10", |report| Some(report.ranking.as_ref()?.mrr)),
    ];
    let mut section = Section::new("Figures");
    let parts: Vec<(&str, &Report)> = parts(metrics).collect();
    if parts.is_empty() {
        let sentence = "None: the model was trained elsewhere.";
        section.items.push(Item::Sentence(sentence.into()));
        return section;
    }
    let names: String = parts
        .iter()
        .map(|(name, _)| format!(" {name:>8}"))
        .collect();
    section.items.push(Item::Line(format!("{:8}{names}", "")));
    for (name, figure) in FIGURES {
        let values: Vec<Option<f64>> = parts.iter().map(|(_, report)| figure(report)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let cells: String = values
            .iter()
            .map(|value| value.map_or(format!(" {:>8}", "-"), |value| format!(" {value:>8.5}")))
            .collect();
        section.items.push(Item::Line(format!("{name:<8}{cells}")));
    }
    section
}

fn limits(stops_early: bool, negative_rate: f64, metrics: &FinalMetrics) -> Section {
    let mut section = Section::new("Limits");
    let mut say = |sentence: String| section.items.push(Item::Sentence(sentence));
    match parts(metrics).last() {
        Some(("train", _)) => say(
            "There are figures of training rows alone: nothing says how well the model does on \
             others."
                .into(),
        ),
        Some((part, report)) => {
            let rows = grouped(report.rows);
            match report.label_mean {
                Some(mean) => say(format!(
                    "The {part} part has {rows} rows, of label 1 a share of {mean:.4}: a share of so \
                     many rows has a standard error of {:.4}.",
                    (mean * (1.0 - mean) / report.rows as f64).sqrt()
                )),
                None => say(format!("The {part} part has {rows} rows.")),
            }
            let constant = metrics.constant.as_ref();
            if let Some(logloss) = constant.and_then(|constant| constant.logloss) {
                say(format!(
                    "The mean label of training alone has logloss {logloss:.5} there."
                ));
            } else if let Some(rmse) = constant.and_then(|constant| constant.rmse) {
                say(format!(
                    "The mean label of training alone has RMSE {rmse:.5} there."
                ));
            } else if let Some(ranking) = constant.and_then(|it| it.ranking.as_ref()) {
                say(format!(
                    "Popularity alone has NDCG@10 {:.5} there.",
                    ranking.ndcg
                ));
            }
            if part == "valid" {
                say("There is no test part.".into());
            }
        }
        None => {}
    }
    if stops_early {
        say("The validation part has chosen the epoch: its figures flatter the model.".into());
    }
    if negative_rate < 1.0 {
        say(format!(
            "It was trained on a share of {} of the rows of label 0; predictions are corrected for \
             it.",
            negative_rate
        ));
    }
    say("Values that training did not have are scored as unseen ones.".into());
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_wide_as_a_narrow_terminal_and_words_stay_whole() {
        let mut section = Section::new("Totals");
        section.say(0, "parameters", "1,234");
        section.say(
            1,
            "a name that is rather long",
            "and a value that is longer than a line",
        );
        section.items.push(Item::Line("a  b".into()));
        let card = Card {
            sections: vec![section],
        };
        let text = card.text();
        assert_eq!(
            text,
            "Totals\n  parameters: 1,234\n    a name that is rather long:\n      and a value that is \
             longer than a\n      line\n  a  b\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
        assert_eq!(
            card.markdown(),
            "## Totals\n\n- `parameters`: 1,234\n  - `a name that is rather long`: and a value that \
             is longer than a line\n```\na  b\n```\n\n"
        );
    }
}
