//! The traits that models agree on, and sums of components.

use std::fmt::Debug;

use burn::module::{Module, ModuleDisplay, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;

use crate::rng::{Purpose, name_key, rng};
use crate::{
    Batch, Error, Examples, FieldId, Link, Lookup, Loss, Schema, TableConfig, Targets, TrainingStep,
};

/// Where a component's dense weights are made, and what they are drawn from.
///
/// ```
/// use burn::tensor::Device;
/// use crossfield_core::Init;
///
/// let init = Init {
///     device: Device::flex(),
///     seed: 1,
/// };
/// let layer = init.linear("deep.0", 4, 3);
/// assert_eq!(layer.weight.val().dims(), [4, 3]);
/// let again = init.linear("deep.0", 4, 3);
/// assert_eq!(layer.weight.val().into_data(), again.weight.val().into_data());
/// ```
#[derive(Clone, Debug)]
pub struct Init {
    /// Device of the weights; on an autodiff device they are trained.
    pub device: Device,
    /// Seed of the run.
    pub seed: u64,
}

impl Init {
    /// A weight drawn uniformly from `[-bound, bound)`, the same for the same name and seed.
    pub fn uniform<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        bound: f32,
    ) -> Param<Tensor<D>> {
        let mut rng = rng(self.seed, Purpose::DenseInit, name_key(name), 0);
        let count = shape.iter().product();
        let weights: Vec<f32> = (0..count)
            .map(|_| (rng.random::<f32>() * 2.0 - 1.0) * bound)
            .collect();
        Param::from_data(TensorData::new(weights, shape), &self.device)
    }

    /// A linear layer, weights and bias uniform within `1/√inputs` as Burn's own.
    pub fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let bound = 1.0 / (inputs as f32).sqrt();
        Linear {
            weight: self.uniform(&format!("{name}.weight"), [inputs, outputs], bound),
            bias: Some(self.uniform(&format!("{name}.bias"), [outputs], bound)),
        }
    }
}

/// The configuration of a component: what it reads, and how it is made.
///
/// A pair of configs is the config of the [`Sum`] of their components; the example of the
/// [crate] implements this trait and the next.
pub trait ComponentConfig {
    /// What [`init`](Self::init) makes.
    type Component: Component;

    /// The tables that the component will look up. The same name in two components is one table.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration under this schema.
    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error>;

    /// Makes the component.
    ///
    /// # Errors
    /// As [`tables`](Self::tables).
    fn init(&self, schema: &Schema, init: &Init) -> Result<Self::Component, Error>;

    /// Refuses rows that the component cannot read although each field by itself is well: before they
    /// are trained on or scored. Most components read all.
    ///
    /// # Errors
    /// What is wrong, with the number of the row, from 1.
    fn check_rows(&self, _schema: &Schema, _rows: &Examples<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Floating-point operations of [`Component::forward`] for one row that has `features[f]` features
    /// in field f: two for each multiply-add of its sums of products. Activations, softmax and norms
    /// are not counted, nor what is only copied. `None`: not known.
    fn flops(&self, _schema: &Schema, _features: &[f64]) -> Option<f64> {
        None
    }
}

/// Part of a score: scores of several components add up.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use burn::module::Module;
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{
///     Batch, Component, Contribution, Link, Lookup, Loss, Model, Scored, Sum, Targets, What,
/// };
///
/// /// So much for each unit of the first dense column.
/// #[derive(Module, Debug)]
/// struct Slope {
///     #[module(skip)]
///     weight: f32,
/// }
///
/// impl Component for Slope {
///     fn forward(&self, x: &Lookup) -> Tensor<2> {
///         x.dense().expect("a dense column").mul_scalar(self.weight)
///     }
///
///     fn explain(&self, x: &Lookup) -> Vec<Contribution> {
///         let dense = x.batch().dense.as_ref().expect("a dense column");
///         let part = |(row, value): (usize, &f32)| Contribution {
///             row,
///             what: What::Named("age".into()),
///             weight: self.weight,
///             contribution: self.weight * value,
///         };
///         dense.iter().enumerate().map(part).collect()
///     }
/// }
///
/// let batch = Batch {
///     batch_size: 2,
///     dense: Some(vec![1.0, 3.0]),
///     ..Batch::default()
/// };
/// let x = Lookup::new(Arc::new(batch), Device::flex(), vec![], BTreeMap::new());
/// // Components add up; with a bias and a loss they are a model.
/// let sum = Sum {
///     a: Slope { weight: 2.0 },
///     b: Slope { weight: 0.5 },
/// };
/// assert_eq!(sum.explain(&x).len(), 4);
/// let model = Scored::new(sum, Loss::Squared, 1.0, &Device::flex());
/// assert_eq!(model.score(&x).try_into_vec_as::<f32>().unwrap(), [3.5, 8.5]);
/// assert_eq!(model.link(), Link::Identity);
/// // What a score is made of adds up to it: 1 + 2 · 1 + 0.5 · 1.
/// let first: Vec<f32> = model.explain(&x)[..3].iter().map(|part| part.contribution).collect();
/// assert_eq!(first, [1.0, 2.0, 0.5]);
/// let targets = Targets {
///     labels: vec![3.5, 6.5],
///     ..Targets::default()
/// };
/// // ½ · mean(0², 2²)
/// assert_eq!(model.loss(&x, &targets).into_scalar::<f32>(), 1.0);
/// ```
pub trait Component: Module + ModuleDisplay {
    /// The component's share of the score.
    ///
    /// # Shapes
    /// - output: `[batch, 1]`
    fn forward(&self, x: &Lookup) -> Tensor<2>;

    /// What the score of each row of the batch is made of: contributions that add up to
    /// [`forward`](Self::forward). A component that cannot take its score apart is one
    /// contribution, under the name of its type.
    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let path = std::any::type_name::<Self>();
        let name = path.rsplit("::").next().unwrap_or(path);
        Contribution::whole(name, self.forward(x))
    }

    /// How much each item of a history counted in the score of each row, for a component that weighs
    /// histories; others have nothing to say.
    fn attention(&self, _x: &Lookup) -> Vec<AttentionWeights> {
        Vec::new()
    }
}

/// The weights that one row's target gave to the items of a history.
///
/// ```
/// use crossfield_core::AttentionWeights;
///
/// // For its second row a batch has two past items, of which the later one matters.
/// let of_row = AttentionWeights {
///     row: 1,
///     target: 0,
///     history: 3,
///     weights: vec![0.1, 0.9],
/// };
/// assert_eq!(of_row.weights.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionWeights {
    /// The row of the batch.
    pub row: usize,
    /// The field that asks.
    pub target: FieldId,
    /// The sequence that is asked; of sequences side by side the first.
    pub history: FieldId,
    /// One weight for each item of the row's history, the oldest first; the mean over heads, where
    /// there are several.
    pub weights: Vec<f32>,
}

/// A feature of a row: an index that a field has there, and its value.
///
/// A vocabulary turns the index back into what the data said.
///
/// ```
/// use crossfield_core::{Feature, What};
///
/// let tag = Feature {
///     field: 1,
///     index: 7,
///     value: 0.5,
/// };
/// assert_eq!(What::Linear(tag), What::Linear(tag));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feature {
    /// Its field.
    pub field: FieldId,
    /// Its row of the field's tables.
    pub index: u32,
    /// x: 1 for a categorical value, the weight in a bag, the transformed number.
    pub value: f32,
}

/// What a contribution comes from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// The bias of the model.
    Bias,
    /// A feature alone, w x.
    Linear(Feature),
    /// Two features together, in the order of the component's fields.
    Pair(Feature, Feature),
    /// A past item, given the target that asked for it: first the target.
    History(Feature, Feature),
    /// Anything else by its name: a dense column, a rule, a whole component.
    Named(String),
}

/// A share of one row's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The row of the batch.
    pub row: usize,
    /// Where it comes from.
    pub what: What,
    /// The weight it was given, before the values of its features: w, or ⟨v, v'⟩.
    pub weight: f32,
    /// What it adds to the score.
    pub contribution: f32,
}

impl Contribution {
    /// The scores of rows as they are, for a component that cannot take them apart.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use crossfield_core::{Contribution, What};
    ///
    /// let scores = Tensor::from_data([[0.5], [-2.0]], &Device::flex());
    /// let parts = Contribution::whole("deep", scores);
    /// assert_eq!(parts[1].what, What::Named("deep".into()));
    /// assert_eq!((parts[1].row, parts[1].contribution), (1, -2.0));
    /// ```
    ///
    /// # Shapes
    /// - scores: `[batch, 1]`
    pub fn whole(name: &str, scores: Tensor<2>) -> Vec<Self> {
        let scores = scores.into_data().convert::<f32>();
        let scores = scores.as_slice::<f32>().expect("scores were made f32");
        let of_row = |(row, &score): (usize, &f32)| Self {
            row,
            what: What::Named(name.to_owned()),
            weight: 1.0,
            contribution: score,
        };
        scores.iter().enumerate().map(of_row).collect()
    }
}

/// What the training loop trains.
pub trait Model: Module {
    /// Mean loss over the batch, weighted by the sample weights.
    ///
    /// # Shapes
    /// - output: `[1]`
    fn loss(&self, x: &Lookup, targets: &Targets) -> Tensor<1>;

    /// The score of each row before the link: a logit for a click model.
    ///
    /// # Shapes
    /// - output: `[batch, 1]`
    fn score(&self, x: &Lookup) -> Tensor<2>;

    /// How a score becomes a prediction.
    fn link(&self) -> Link;

    /// Puts into a batch what the model draws itself at a step of training, sampled negatives say:
    /// before the rows of its tables are staged, so that they are staged too. A model that draws
    /// nothing leaves the batch as it is.
    fn draw(&self, _batch: &mut Batch, _at: TrainingStep) {}

    /// Where the order of items counts and not the score of single rows: what ranks them. `None`:
    /// rows are measured by their scores.
    fn ranker(&self) -> Option<&dyn Ranker> {
        None
    }
}

/// What ranks all items of a vocabulary for a row by `query · v_item`.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use burn::tensor::{Device, Tensor};
/// use crossfield_core::{Batch, Lookup, RankedItems, Ranker};
///
/// /// Shows everybody the same: the items that lie furthest in the first direction.
/// struct Same(RankedItems);
///
/// impl Ranker for Same {
///     fn items(&self) -> &RankedItems {
///         &self.0
///     }
///     fn queries(&self, x: &Lookup) -> Tensor<2> {
///         Tensor::<2>::from_data([[1.0, 0.0]], x.device()).repeat_dim(0, x.batch_size())
///     }
/// }
///
/// let same = Same(RankedItems {
///     table: "v2.item".into(),
///     history: 0,
///     target: 1,
///     hidden: Some(0),
/// });
/// let batch = Batch {
///     batch_size: 3,
///     ..Batch::default()
/// };
/// let x = Lookup::new(Arc::new(batch), Device::flex(), vec![], BTreeMap::new());
/// assert_eq!(same.queries(&x).dims(), [3, 2]);
/// assert_eq!(same.items().hidden, Some(0));
/// ```
pub trait Ranker {
    /// The items, and which of them a row has had and wanted.
    fn items(&self) -> &RankedItems;

    /// The vector of each row, by whose product with the items' they are ranked.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`
    fn queries(&self, x: &Lookup) -> Tensor<2>;
}

/// The items that a [`Ranker`] ranks: those of a vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankedItems {
    /// The table of their vectors.
    pub table: String,
    /// What a row has had, which its list leaves out.
    pub history: FieldId,
    /// What it wanted.
    pub target: FieldId,
    /// The row of the table that is of no item of its own, and is in no list.
    pub hidden: Option<u32>,
}

/// The sum of two components, made by a pair of their configs.
#[derive(Module, Debug)]
pub struct Sum<A: Module + ModuleDisplay, B: Module + ModuleDisplay> {
    /// First summand.
    pub a: A,
    /// Second summand.
    pub b: B,
}

impl<A: Component, B: Component> Component for Sum<A, B> {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        self.a.forward(x) + self.b.forward(x)
    }

    fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let mut contributions = self.a.explain(x);
        contributions.extend(self.b.explain(x));
        contributions
    }

    fn attention(&self, x: &Lookup) -> Vec<AttentionWeights> {
        let mut weights = self.a.attention(x);
        weights.extend(self.b.attention(x));
        weights
    }
}

impl<A: ComponentConfig, B: ComponentConfig> ComponentConfig for (A, B) {
    type Component = Sum<A::Component, B::Component>;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        let mut tables = self.0.tables(schema)?;
        tables.extend(self.1.tables(schema)?);
        Ok(tables)
    }

    fn check_rows(&self, schema: &Schema, rows: &Examples<'_>) -> Result<(), Error> {
        self.0.check_rows(schema, rows)?;
        self.1.check_rows(schema, rows)
    }

    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        Some(self.0.flops(schema, features)? + self.1.flops(schema, features)?)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<Self::Component, Error> {
        Ok(Sum {
            a: self.0.init(schema, init)?,
            b: self.1.init(schema, init)?,
        })
    }
}

/// A component with a bias and a loss: a model that predicts one number a row.
///
/// score = bias + component, or the component alone; the loss alone owns the link from scores to
/// predictions.
#[derive(Module, Debug)]
pub struct Scored<C: Module + ModuleDisplay> {
    component: C,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    loss: Loss,
}

impl<C: Component> Scored<C> {
    /// A model whose bias starts at the score of the constant predictor `mean`, the mean label of
    /// the training part.
    pub fn new(component: C, loss: Loss, mean: f64, device: &Device) -> Self {
        let bias = Param::from_data(TensorData::from([loss.link().score(mean) as f32]), device);
        Self {
            component,
            bias: Some(bias),
            loss,
        }
    }

    /// A model without a bias.
    pub fn without_bias(component: C, loss: Loss) -> Self {
        Self {
            component,
            bias: None,
            loss,
        }
    }

    /// The component.
    pub fn component(&self) -> &C {
        &self.component
    }

    /// What the score of each row is made of: row by row the bias, then what the component says.
    /// The contributions of a row add up to its [`score`](Model::score).
    pub fn explain(&self, x: &Lookup) -> Vec<Contribution> {
        let bias = self
            .bias
            .as_ref()
            .map(|bias| bias.val().into_scalar::<f32>());
        let of_row = |row| {
            bias.map(|bias| Contribution {
                row,
                what: What::Bias,
                weight: bias,
                contribution: bias,
            })
        };
        let mut contributions: Vec<Contribution> = (0..x.batch_size()).filter_map(of_row).collect();
        contributions.extend(self.component.explain(x));
        contributions.sort_by_key(|contribution| contribution.row);
        contributions
    }
}

impl<C: Component> Model for Scored<C> {
    fn loss(&self, x: &Lookup, targets: &Targets) -> Tensor<1> {
        self.loss.mean(self.score(x), targets)
    }

    fn score(&self, x: &Lookup) -> Tensor<2> {
        let score = self.component.forward(x);
        match &self.bias {
            Some(bias) => score + bias.val().reshape([1, 1]),
            None => score,
        }
    }

    fn link(&self) -> Link {
        self.loss.link()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// The dense column, without an explanation of its own.
    #[derive(Module, Debug)]
    struct Column {
        #[module(skip)]
        times: f32,
    }

    impl Component for Column {
        fn forward(&self, x: &Lookup) -> Tensor<2> {
            let column = x.dense().expect("a dense column");
            column.mul_scalar(self.times)
        }
    }

    #[test]
    fn an_explanation_goes_row_by_row_bias_first_and_names_what_it_cannot_take_apart() {
        let batch = Batch {
            batch_size: 2,
            dense: Some(vec![1.0, 3.0]),
            ..Batch::default()
        };
        let device = Device::flex();
        let x = Lookup::new(Arc::new(batch), device.clone(), vec![], BTreeMap::new());
        let sum = Sum {
            a: Column { times: 2.0 },
            b: Column { times: -1.0 },
        };
        let model = Scored::new(sum, Loss::Squared, 0.5, &device);
        let parts: Vec<_> = model
            .explain(&x)
            .into_iter()
            .map(|part| (part.row, part.what, part.contribution))
            .collect();
        let column = || What::Named("Column".into());
        assert_eq!(
            parts,
            [
                (0, What::Bias, 0.5),
                (0, column(), 2.0),
                (0, column(), -1.0),
                (1, What::Bias, 0.5),
                (1, column(), 6.0),
                (1, column(), -3.0),
            ]
        );
    }
}
