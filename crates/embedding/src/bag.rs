//! A pooled bag of embeddings, for models that are put together by hand.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use crossfield_core::{Lookup, TableField};

/// How an [`EmbeddingBag`] pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// `Σ x v`.
    #[default]
    Sum,
    /// `Σ x v / n` over the `n` features, whatever their values `x`.
    Mean,
}

/// The vectors of all features of some fields, pooled into one: `Σ x v`, or its mean.
///
/// It has no weights of its own: the vectors are rows of the tables that its fields name, which a
/// component declares and an [`EmbeddingCollection`](crate::EmbeddingCollection) stages.
///
/// ```
/// use std::sync::Arc;
///
/// use burn::tensor::Device;
/// use crossfield_core::{Batch, Initializer, Jagged, TableConfig, TableField};
/// use crossfield_embedding::{EmbeddingBag, EmbeddingCollection, Pooling, TablePlan};
///
/// let config = TableConfig {
///     name: "v2.tag".into(),
///     rows: 3,
///     dim: 2,
///     fields: vec![0],
///     initializer: Initializer::Zeros,
///     oov_row: None,
/// };
/// let mut tables = EmbeddingCollection::new(&[TablePlan::new(config, Default::default())], 1)?;
/// let table = tables.table_mut("v2.tag").expect("the plan's table");
/// table.begin_row(1, &[1.0, 2.0]);
/// table.begin_row(2, &[3.0, 4.0]);
///
/// // Two rows: the tags {1, 2}, and none.
/// let tags = Jagged {
///     indices: vec![1, 2],
///     offsets: Some(vec![0, 2, 2]),
///     weights: None,
/// };
/// let batch = Batch {
///     batch_size: 2,
///     sparse: vec![tags],
///     ..Batch::default()
/// };
/// let (lookup, _) = tables.stage(Arc::new(batch), &Device::flex());
///
/// let tag = TableField { table: "v2.tag".into(), field: 0 };
/// let sum = EmbeddingBag::new(vec![tag.clone()], Pooling::Sum).forward(&lookup);
/// assert_eq!(sum.try_into_vec_as::<f32>().unwrap(), [4.0, 6.0, 0.0, 0.0]);
/// let mean = EmbeddingBag::new(vec![tag], Pooling::Mean).forward(&lookup);
/// assert_eq!(mean.try_into_vec_as::<f32>().unwrap(), [2.0, 3.0, 0.0, 0.0]);
/// # Ok::<(), crossfield_embedding::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct EmbeddingBag {
    #[module(skip)]
    fields: Vec<TableField>,
    #[module(skip)]
    pooling: Pooling,
}

impl EmbeddingBag {
    /// A bag over fields whose tables are of one dim.
    pub fn new(fields: Vec<TableField>, pooling: Pooling) -> Self {
        Self { fields, pooling }
    }

    /// Pools the rows of a batch.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`; an empty bag is a zero vector.
    ///
    /// # Panics
    /// As [`Lookup::pooled`].
    pub fn forward(&self, x: &Lookup) -> Tensor<2> {
        let sum = x.pooled(&self.fields);
        match self.pooling {
            Pooling::Sum => sum,
            Pooling::Mean => {
                let features = |row| {
                    let fields = self.fields.iter().map(|field| field.field);
                    let counts = fields.map(|field| x.batch().sparse[field].range(row).len());
                    counts.sum::<usize>().max(1) as f32
                };
                let counts: Vec<f32> = (0..x.batch_size()).map(features).collect();
                let shape = [counts.len(), 1];
                sum / Tensor::from_data(TensorData::new(counts, shape), x.device())
            }
        }
    }
}
