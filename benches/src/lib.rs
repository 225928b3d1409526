//! What the benches share: components over one table of any size, and batches of ids for it.

use std::sync::Arc;

use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use crossfield_core::rng::{Purpose, rng};
use crossfield_core::{
    Batch, Component, ComponentConfig, Field, FieldKind, Init, Jagged, Loss, Model, Schema, Scored,
    TableConfig, Targets, merge_tables,
};
use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};
use crossfield_fm::FmConfig;
use rand::RngExt;
use rand_distr::{Distribution, Zipf};

/// Rows a batch.
pub const BATCH: usize = 1024;
/// Ids a row.
pub const FIELDS: usize = 39;
/// Weights a row of the table.
pub const DIM: usize = 8;
/// Ids that a Zipf log draws from, whatever the size of the table.
pub const RANKS: u64 = 100_000;

/// How ids are drawn.
#[derive(Clone, Copy, Debug)]
pub enum Ids {
    /// Zipf with exponent 1.05 over [`RANKS`] ranks, spread over all rows by a fixed permutation,
    /// so that a batch has as many unique rows in a small table as in a large one.
    Zipf,
    /// Every row alike.
    Uniform,
}

/// `count` batches for a table of `rows` rows.
pub fn batches(rows: usize, ids: Ids, count: u64) -> Vec<Arc<Batch>> {
    let zipf = Zipf::new(RANKS as f32, 1.05).expect("a legal exponent");
    (0..count)
        .map(|nth| {
            let mut rng = rng(1, Purpose::Synth, rows as u64, nth);
            let mut draw = || match ids {
                // A prime that divides no size of ours permutes the rows.
                Ids::Zipf => (zipf.sample(&mut rng) as u64 * 6_700_417 % rows as u64) as u32,
                Ids::Uniform => rng.random_range(0..rows as u32),
            };
            let sparse = (0..FIELDS)
                .map(|_| Jagged::one_hot((0..BATCH).map(|_| draw()).collect()))
                .collect();
            let labels = (0..BATCH).map(|row| (row % 3 == 0) as u8 as f32).collect();
            let targets = Targets {
                labels,
                ..Targets::default()
            };
            Arc::new(Batch {
                batch_size: BATCH,
                sparse,
                dense: None,
                targets,
            })
        })
        .collect()
}

/// A component over one table of vectors of [`DIM`], with element-wise AdaGrad, and Adam for what is
/// dense.
pub struct Trainer<C: Component> {
    /// The table.
    pub tables: EmbeddingCollection,
    /// What it was planned to take.
    pub plans: Vec<TablePlan>,
    model: Scored<C>,
    optimizer: ModuleOptimizer,
    device: Device,
}

/// An FM without linear terms.
pub fn fm() -> FmConfig {
    FmConfig {
        embedding_dim: DIM,
        linear: false,
        ..FmConfig::default()
    }
}

impl<C: Component> Trainer<C> {
    /// A component on a table of `rows` rows that all fields share.
    ///
    /// # Panics
    /// If the configuration is refused.
    pub fn new(config: &impl ComponentConfig<Component = C>, rows: usize) -> Self {
        let plan = |config| TablePlan::new(config, RowOptimizer::default());
        let tables = |plans: &[TablePlan]| EmbeddingCollection::new(plans, 1);
        Self::with_tables(config, rows, plan, tables).expect("a legal optimizer")
    }

    /// A component on a table of `rows` rows that all fields share, planned and made as given.
    ///
    /// # Errors
    /// What making the tables meets.
    ///
    /// # Panics
    /// If the configuration is refused.
    pub fn with_tables<E>(
        config: &impl ComponentConfig<Component = C>,
        rows: usize,
        plan: impl Fn(TableConfig) -> TablePlan,
        make: impl FnOnce(&[TablePlan]) -> Result<EmbeddingCollection, E>,
    ) -> Result<Self, E> {
        let device = Device::flex().autodiff();
        let schema = Schema {
            fields: (0..FIELDS)
                .map(|field| Field {
                    name: format!("f{field}"),
                    kind: FieldKind::Categorical,
                    vocabulary: "id".into(),
                    rows: rows as u32,
                    oov_row: None,
                })
                .collect(),
            dense: vec![],
        };
        let tables = config
            .tables(&schema)
            .and_then(merge_tables)
            .expect("a legal model");
        let plans: Vec<TablePlan> = tables.into_iter().map(plan).collect();
        let init = Init {
            device: device.clone(),
            seed: 1,
        };
        let component = config.init(&schema, &init).expect("a legal model");
        Ok(Self {
            tables: make(&plans)?,
            plans,
            model: Scored::new(component, Loss::Logistic, 0.3, &device),
            optimizer: AdamConfig::new().init(),
            device,
        })
    }

    /// One training step, as the training loop does it.
    ///
    /// # Panics
    /// If training diverges.
    pub fn step(&mut self, batch: &Arc<Batch>) {
        let (lookup, staged) = self.tables.stage(batch.clone(), &self.device);
        let loss = self.model.loss(&lookup, &batch.targets);
        let mut gradients = loss.backward();
        self.tables
            .apply(&lookup, &staged, &mut gradients, 1.0)
            .expect("finite gradients");
        let gradients = GradientsParams::from_grads(gradients, &self.model);
        self.model = self.optimizer.step(0.001, self.model.clone(), gradients);
    }
}
