//! What an embedding saves: one-hot rows times a matrix against looking rows up.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use crossfield::core::{Batch, Initializer, Jagged, TableConfig, TableField};
use crossfield::embedding::{EmbeddingCollection, RowOptimizer, RowOptimizerKind, TablePlan};
use plotters::prelude::*;
use rand::RngExt;

use crate::planted::stream;
use crate::runs::Failure;

/// Ids of the largest vocabulary: its one-hot batch takes 256 MB.
pub(crate) const MOST: usize = 1_000_000;
const BATCH: usize = 64;
const DIM: usize = 16;
const STEPS: usize = 3;
const LR: f64 = 0.5;

/// One way of doing a step.
pub(crate) struct Way {
    /// Seconds of a step: forward, backward, update.
    pub(crate) seconds: f64,
    /// Bytes of what a step makes beside the weights: its input and its gradients.
    pub(crate) bytes: usize,
}

/// Both ways, for a vocabulary of so many ids.
pub(crate) struct Outcome {
    pub(crate) ids: usize,
    pub(crate) one_hot: Way,
    pub(crate) lookup: Way,
    /// Largest difference of a weight after the same steps.
    pub(crate) difference: f32,
}

/// Vocabularies from a thousand ids to `most`, each ten times the one before.
pub(crate) fn run(seed: u64, most: usize) -> Result<Vec<Outcome>, Failure> {
    let sizes = std::iter::successors(Some(1000), |ids| Some(ids * 10));
    sizes
        .take_while(|&ids| ids <= most)
        .map(|ids| compare(seed, ids))
        .collect()
}

fn compare(seed: u64, ids: usize) -> Result<Outcome, Failure> {
    let device = Device::flex().autodiff();
    let config = TableConfig {
        name: "v.id".into(),
        rows: ids,
        dim: DIM,
        fields: vec![0],
        initializer: Initializer::Normal { std: 0.1 },
        oov_row: None,
    };
    let sgd = RowOptimizer {
        kind: RowOptimizerKind::Sgd,
        lr: LR,
        ..RowOptimizer::default()
    };
    let mut tables = EmbeddingCollection::new(&[TablePlan::new(config, sgd)], seed)?;
    let start: Vec<f32> = (0..ids as u32)
        .flat_map(|row| tables.tables()[0].weights(row).to_vec())
        .collect();

    let mut stream = stream(seed, 0);
    let steps: Vec<Vec<u32>> = (0..STEPS)
        .map(|_| {
            let draw = |_| stream.random_range(0..ids as u32);
            (0..BATCH).map(draw).collect()
        })
        .collect();
    let labels: Vec<f32> = (0..BATCH).map(|row| (row % 2) as f32).collect();
    let labels = Tensor::<2>::from_data(TensorData::new(labels, [BATCH, 1]), &device);
    let loss = |v: Tensor<2>| (v.sum_dim(1) - labels.clone()).square().mean();

    let mut weights =
        Tensor::<2>::from_data(TensorData::new(start, [ids, DIM]), &device).require_grad();
    let started = Instant::now();
    for step in &steps {
        let mut cells = vec![0f32; BATCH * ids];
        for (row, &id) in step.iter().enumerate() {
            cells[row * ids + id as usize] = 1.0;
        }
        let x = Tensor::<2>::from_data(TensorData::new(cells, [BATCH, ids]), &device);
        let gradients = loss(x.matmul(weights.clone())).backward();
        let gradient = weights.grad(&gradients).ok_or("no gradient")?;
        let updated = weights.inner() - gradient.mul_scalar(LR);
        weights = Tensor::from_inner(updated).require_grad();
    }
    let one_hot = Way {
        seconds: started.elapsed().as_secs_f64() / STEPS as f64,
        bytes: size_of::<f32>() * (BATCH * ids + ids * DIM),
    };

    let field = [TableField {
        table: "v.id".into(),
        field: 0,
    }];
    let mut unique = 0;
    let started = Instant::now();
    for step in &steps {
        let batch = Batch {
            batch_size: BATCH,
            sparse: vec![Jagged::one_hot(step.clone())],
            ..Batch::default()
        };
        let (x, staged) = tables.stage(Arc::new(batch), &device);
        let mut gradients = loss(x.pooled(&field)).backward();
        unique = x.leaves()[0].rows.dims()[0];
        tables.apply(&x, &staged, &mut gradients, 1.0)?;
    }
    let lookup = Way {
        seconds: started.elapsed().as_secs_f64() / STEPS as f64,
        // The unique rows and their gradients, and a position for each row of the batch.
        bytes: size_of::<f32>() * 2 * unique * DIM + size_of::<i64>() * BATCH,
    };

    let dense = weights.into_data();
    let dense = dense.as_slice::<f32>().map_err(|_| "weights are f32")?;
    let difference = steps.iter().flatten().flat_map(|&row| {
        let dense = &dense[row as usize * DIM..][..DIM];
        let looked_up = tables.tables()[0].weights(row);
        dense.iter().zip(looked_up).map(|(a, b)| (a - b).abs())
    });
    Ok(Outcome {
        ids,
        one_hot,
        lookup,
        difference: difference.fold(0.0, f32::max),
    })
}

pub(crate) fn report(outcomes: &[Outcome]) -> String {
    let mut text = format!("a step: {BATCH} rows, vectors of {DIM}\n\n");
    text += "              one-hot          lookup\n";
    text += "     ids      ms      MB      ms     KB\n";
    for Outcome {
        ids,
        one_hot,
        lookup,
        ..
    } in outcomes
    {
        let ms = |way: &Way| 1e3 * way.seconds;
        let _ = writeln!(
            text,
            "{ids:>8} {:>7.1} {:>7.1} {:>7.2} {:>6.1}",
            ms(one_hot),
            one_hot.bytes as f64 / 1e6,
            ms(lookup),
            lookup.bytes as f64 / 1e3,
        );
    }
    let differences = outcomes.iter().map(|outcome| outcome.difference);
    let largest = differences.fold(0.0, f32::max);
    text += "\n";
    if largest == 0.0 {
        text += "the weights are the same after both\n";
    } else {
        let _ = writeln!(text, "weights differ after both by {largest:.0e}");
    }
    text
}

/// Draws the milliseconds of a step over the number of ids.
pub(crate) fn draw(outcomes: &[Outcome], file: &Path) -> Result<(), Failure> {
    let ids = |outcome: &Outcome| outcome.ids as f64;
    let (first, last) = match outcomes {
        [first, .., last] => (ids(first), ids(last)),
        _ => return Err("at least two vocabularies".into()),
    };
    let ms = |way: &Way| 1e3 * way.seconds;
    let times = outcomes
        .iter()
        .flat_map(|of| [ms(&of.one_hot), ms(&of.lookup)]);
    let (low, high) = times.fold((f64::INFINITY, 0f64), |(low, high), time| {
        (low.min(time), high.max(time))
    });
    let root = SVGBackend::new(file, (480, 360)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("A step of training, in milliseconds", ("sans-serif", 17))
        .margin(16)
        .margin_right(36)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(
            (first..last).log_scale(),
            (low / 2.0..high * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("ids of the vocabulary")
        .x_label_formatter(&|ids| format!("{ids:.0}"))
        .y_desc("milliseconds")
        .y_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .draw()?;
    type Curve = (&'static str, RGBColor, fn(&Outcome) -> &Way);
    let curves: [Curve; 2] = [
        (
            "one-hot rows times a matrix",
            RGBColor(0xd6, 0x27, 0x28),
            |of| &of.one_hot,
        ),
        ("rows looked up", RGBColor(0x1f, 0x77, 0xb4), |of| {
            &of.lookup
        }),
    ];
    for (name, colour, of) in curves {
        let points = outcomes
            .iter()
            .map(|outcome| (ids(outcome), ms(of(outcome))));
        let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}
