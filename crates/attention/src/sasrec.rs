//! A self-attentive encoder of histories.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::Tensor;
use crossfield_core::{
    Component, ComponentConfig, Dropout, Error, Factors, FieldKind, Init, Lookup, Ragged,
    RankedItems, Schema, TableConfig, TableField, TrainingStep, check_option, gather,
};
use serde::{Deserialize, Serialize};

use crate::{SelfAttentionBlock, SelfAttentionConfig};

/// Which place of an item a learned position stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// 0 is the latest item, as where sequences are padded in front to one length.
    #[default]
    FromEnd,
    /// 0 is the oldest item.
    FromStart,
    /// No positions: later items know only what came before them.
    None,
}

/// Configuration of a [`SasRec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SasRecConfig {
    /// Name of the component, set by its place in a run file.
    #[serde(skip)]
    pub name: String,
    /// The sequence that is read, oldest item first.
    pub history: String,
    /// The item that is asked about: a categorical field of the history's vocabulary.
    pub target: String,
    /// The field of those whose sequences the rows are: not read, but what lists are asked for by.
    pub user: String,
    /// Length of an item's vector. The tables are `v<embedding_dim>.<vocabulary>`.
    pub embedding_dim: usize,
    /// Blocks of self-attention; 2 in the paper.
    pub blocks: usize,
    /// Heads of each; 1 in the paper. A divisor of `embedding_dim`; several are joined by one more
    /// matrix.
    pub heads: usize,
    /// Units between the two layers that follow the attention of a block; 0: `embedding_dim`, as in
    /// the paper.
    pub hidden: usize,
    /// Share of the numbers that are left out at a step of training: behind the embedding, the
    /// attention and the layers of each block.
    pub dropout: f64,
    /// What learned positions count from.
    pub positions: Positions,
    /// Learned positions; items beyond them share the last.
    pub max_positions: usize,
    /// Whether items' vectors are multiplied by √`embedding_dim` where they are read.
    pub scale: bool,
    /// Standard deviation of the vectors at the beginning.
    pub init_std: f64,
    /// Prefix of the table instead of `v<embedding_dim>`, which other components share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
}

impl Default for SasRecConfig {
    fn default() -> Self {
        Self {
            name: "sasrec".into(),
            history: "history".into(),
            target: "item".into(),
            user: "user".into(),
            embedding_dim: 64,
            blocks: 2,
            heads: 1,
            hidden: 0,
            dropout: 0.2,
            positions: Positions::FromEnd,
            max_positions: 50,
            scale: true,
            init_std: 0.02,
            share: None,
        }
    }
}

/// What a history leads to next, by self-attention: each item reads those up to it.
///
/// ```text
/// x_i = dropout(√d v_i + p_i)
/// h   = LayerNorm(block_N(… block_1(x)))
/// z   = ⟨h_last, v_target⟩
/// ```
///
/// with a position `p_i` for each place and causal blocks, so that `h_i` is of the items up to i alone.
/// The score of a row without history is 0. As a component it is a part of a score; what is trained
/// to find the next of all items is [`NextItem`](crate::NextItem).
///
/// # Source
/// Kang, McAuley, *Self-Attentive Sequential Recommendation*, ICDM 2018, section III: equations 1 to 6.
#[derive(Module, Debug)]
pub struct SasRec {
    blocks: Vec<SelfAttentionBlock>,
    positions: Option<Param<Tensor<2>>>,
    norm: LayerNorm,
    #[module(skip)]
    dropout: Dropout,
    #[module(skip)]
    from_end: bool,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    history: TableField,
    #[module(skip)]
    target: TableField,
}

impl SasRecConfig {
    /// The history and the target, checked.
    fn fields(&self, schema: &Schema) -> Result<[usize; 2], Error> {
        let named = [self.history.clone(), self.target.clone()];
        let ids = schema.bags(&self.name, &named)?;
        let (history, target) = (&schema.fields[ids[0]], &schema.fields[ids[1]]);
        let good = history.kind == FieldKind::Sequence;
        let expected = "a field of kind = \"sequence\"";
        check_option(&self.name, "history", &self.history, good, expected)?;
        let of_one = matches!(target.kind, FieldKind::Categorical | FieldKind::Hashed);
        let good = of_one && target.vocabulary == history.vocabulary;
        let expected = "a categorical field of the history's vocabulary";
        check_option(&self.name, "target", &self.target, good, expected)?;
        Ok([ids[0], ids[1]])
    }

    fn block(&self) -> SelfAttentionConfig {
        SelfAttentionConfig {
            heads: self.heads,
            output: self.heads > 1,
            hidden: (self.hidden > 0).then_some(self.hidden),
            dropout: self.dropout,
            ..SelfAttentionConfig::default()
        }
    }

    fn factors(&self) -> Factors<'_> {
        Factors::new(&self.name, self.embedding_dim, self.init_std)
            .in_tables_of(self.share.as_deref())
    }

    fn check(&self) -> Result<(), Error> {
        let name = &self.name;
        self.factors().check_multiplied()?;
        let good = (1..=64).contains(&self.blocks);
        check_option(name, "blocks", self.blocks, good, "1 to 64")?;
        self.block().check(name, self.embedding_dim)?;
        let good = (1..=1_000_000).contains(&self.max_positions);
        check_option(
            name,
            "max_positions",
            self.max_positions,
            good,
            "1 to 1000000",
        )
    }

    fn table(&self, schema: &Schema) -> Result<(Vec<TableConfig>, [TableField; 2]), Error> {
        self.check()?;
        let ids = self.fields(schema)?;
        let (tables, lookups) = self.factors().tables(schema, &ids);
        let [history, target] = [&lookups[0], &lookups[1]].map(Clone::clone);
        Ok((tables, [history, target]))
    }

    /// The items that can be ranked, and where a row has them.
    pub(crate) fn items(&self, schema: &Schema) -> Result<RankedItems, Error> {
        let (_, [history, target]) = self.table(schema)?;
        Ok(RankedItems {
            hidden: schema.fields[target.field].oov_row,
            table: target.table,
            history: history.field,
            target: target.field,
        })
    }
}

impl ComponentConfig for SasRecConfig {
    type Component = SasRec;

    fn tables(&self, schema: &Schema) -> Result<Vec<TableConfig>, Error> {
        Ok(self.table(schema)?.0)
    }

    fn init(&self, schema: &Schema, init: &Init) -> Result<SasRec, Error> {
        let (_, [history, target]) = self.table(schema)?;
        let (name, dim) = (&self.name, self.embedding_dim);
        let block = |nth| {
            let block = self.block();
            block.init(&format!("{name}.blocks.{nth}"), dim, init)
        };
        let scale = if self.scale { (dim as f64).sqrt() } else { 1.0 };
        // Uniform, of the vectors' standard deviation.
        let bound = (3f64.sqrt() * self.init_std) as f32;
        let positions = (self.positions != Positions::None).then(|| {
            let shape = [self.max_positions, dim];
            init.uniform(&format!("{name}.positions"), shape, bound)
        });
        Ok(SasRec {
            blocks: (0..self.blocks).map(block).collect::<Result<_, Error>>()?,
            positions,
            norm: LayerNormConfig::new(dim).init(&init.device),
            dropout: Dropout::new(&format!("{name}.embedding"), self.dropout),
            from_end: self.positions == Positions::FromEnd,
            scale,
            history,
            target,
        })
    }

    /// The blocks over the history, x v of the target, and the product of both. Of histories as long as
    /// the mean: longer ones take more than shorter ones save.
    fn flops(&self, schema: &Schema, features: &[f64]) -> Option<f64> {
        let [history, target] = self.fields(schema).ok()?;
        let blocks = self.block().flops(self.embedding_dim, features[history]);
        let score = (features[target] + 1.0) * self.embedding_dim as f64;
        Some(self.blocks as f64 * blocks + 2.0 * score)
    }
}

impl SasRec {
    /// `h_i` of each item of each history, or `None` if no row has one.
    ///
    /// # Shapes
    /// - output: `[items, dim]`
    pub fn encode(&self, x: &Lookup) -> Option<Ragged> {
        let history = x.ragged(&self.history)?;
        Some(self.encode_items(history, x.training()))
    }

    /// As [`encode`](Self::encode), of vectors that are given.
    pub(crate) fn encode_items(&self, items: Ragged, at: Option<TrainingStep>) -> Ragged {
        let Ragged { values, segments } = items;
        let mut values = values.mul_scalar(self.scale);
        if let Some(positions) = &self.positions {
            let last = positions.dims()[0] - 1;
            let places = (0..segments.rows()).flat_map(|row| {
                let length = segments.range(row).len();
                (0..length).map(move |place| {
                    let place = if self.from_end {
                        length - 1 - place
                    } else {
                        place
                    };
                    place.min(last) as u32
                })
            });
            values = values + gather(positions.val(), places.collect(), 1);
        }
        let mut items = Ragged {
            values: self.dropout.forward(values, at),
            segments,
        };
        for block in &self.blocks {
            items = block.forward(&items, at);
        }
        Ragged {
            values: self.norm.forward(items.values),
            segments: items.segments,
        }
    }

    /// `h` of the last item of each row; zeros where there is none.
    ///
    /// # Shapes
    /// - output: `[batch, dim]`
    pub fn last(&self, x: &Lookup) -> Tensor<2> {
        let dim = self.norm.gamma.dims()[0];
        let Some(Ragged { values, segments }) = self.encode(x) else {
            return Tensor::zeros([x.batch_size(), dim], x.device());
        };
        let nothing = segments.items();
        let last = (0..segments.rows()).map(|row| {
            let range = segments.range(row);
            let last = if range.is_empty() {
                nothing
            } else {
                range.end - 1
            };
            last as u32
        });
        let zeros = Tensor::zeros([1, dim], x.device());
        gather(Tensor::cat(vec![values, zeros], 0), last.collect(), 1)
    }

    /// Where the history is looked up.
    pub(crate) fn history(&self) -> &TableField {
        &self.history
    }

    /// Where the target is looked up.
    pub(crate) fn target(&self) -> &TableField {
        &self.target
    }
}

impl Component for SasRec {
    fn forward(&self, x: &Lookup) -> Tensor<2> {
        (self.last(x) * x.pooled(std::slice::from_ref(&self.target))).sum_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::test_support::{close, init, values};
    use burn::tensor::{Device, TensorData};
    use crossfield_core::{Batch, Field, Jagged, Segments};
    use crossfield_embedding::{EmbeddingCollection, RowOptimizer, TablePlan};

    fn schema() -> Schema {
        let field = |name: &str, kind, vocabulary: &str| Field {
            name: name.into(),
            kind,
            vocabulary: vocabulary.into(),
            rows: 8,
            oov_row: Some(0),
        };
        Schema {
            fields: vec![
                field("history", FieldKind::Sequence, "item"),
                field("item", FieldKind::Categorical, "item"),
                field("user", FieldKind::Categorical, "user"),
            ],
            dense: vec![],
        }
    }

    fn config() -> SasRecConfig {
        SasRecConfig {
            embedding_dim: 4,
            heads: 2,
            max_positions: 3,
            init_std: 0.5,
            ..SasRecConfig::default()
        }
    }

    fn batch(histories: &[&[u32]], targets: &[u32]) -> Arc<Batch> {
        let mut offsets = vec![0];
        for history in histories {
            offsets.push(offsets[offsets.len() - 1] + history.len() as u32);
        }
        let history = Jagged {
            indices: histories.concat(),
            offsets: Some(offsets),
            weights: None,
        };
        Arc::new(Batch {
            batch_size: histories.len(),
            sparse: vec![history, Jagged::one_hot(targets.to_vec())],
            ..Batch::default()
        })
    }

    fn tables(config: &SasRecConfig) -> EmbeddingCollection {
        let tables = config.tables(&schema()).unwrap();
        let plan = |table| TablePlan::new(table, RowOptimizer::default());
        let plans: Vec<TablePlan> = tables.into_iter().map(plan).collect();
        EmbeddingCollection::new(&plans, 1).unwrap()
    }

    #[test]
    fn the_score_is_the_formula() {
        let device = Device::flex();
        for positions in [Positions::FromEnd, Positions::FromStart, Positions::None] {
            let config = SasRecConfig {
                positions,
                ..config()
            };
            let (model, mut tables) = (
                config.init(&schema(), &init(device.clone())).unwrap(),
                tables(&config),
            );
            let (history, target) = ([3u32, 1, 4, 1, 5], 2);
            let (x, _) = tables.stage(batch(&[&history], &[target]), &device);
            let got = values(model.forward(&x))[0];

            let vector = |item: u32| {
                let mut vector = [0f32; 4];
                tables.read_weights("v4.item", item, &mut vector);
                vector
            };
            let learned = model
                .positions
                .as_ref()
                .map(|learned| values(learned.val()));
            let mut sums = Vec::new();
            for (place, &item) in history.iter().enumerate() {
                let place = match positions {
                    Positions::FromEnd => 4 - place,
                    _ => place,
                };
                for (at, v) in vector(item).into_iter().enumerate() {
                    let position = learned.as_ref().map_or(0.0, |p| p[place.min(2) * 4 + at]);
                    sums.push(2.0 * v + position);
                }
            }
            let mut items = Ragged {
                values: Tensor::from_data(TensorData::new(sums, [5, 4]), &device),
                segments: Segments::new(vec![0, 5]),
            };
            for block in &model.blocks {
                items = block.forward(&items, None);
            }
            let last = values(items.values)[16..].to_vec();
            let mean = last.iter().sum::<f32>() / 4.0;
            let variance = last.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 4.0;
            let normal = last.iter().map(|x| (x - mean) / (variance + 1e-5).sqrt());
            let expected: f32 = normal.zip(vector(target)).map(|(h, v)| h * v).sum();
            close(&[got], &[expected]);
        }
    }

    #[test]
    fn what_comes_later_changes_nothing_before_it() {
        let device = Device::flex();
        let config = SasRecConfig {
            positions: Positions::FromStart,
            ..config()
        };
        let model = config.init(&schema(), &init(device.clone())).unwrap();
        let mut tables = tables(&config);
        let mut encoded = |history: &[u32], beside: &[u32]| {
            let (x, _) = tables.stage(batch(&[history, beside], &[1, 1]), &device);
            let h = model.encode(&x).expect("there are items");
            values(h.values)[..history.len() * 4].to_vec()
        };
        let first = encoded(&[1, 2, 3, 4], &[5]);
        let changed = encoded(&[1, 2, 3, 7], &[5]);
        assert_eq!(first[..12], changed[..12]);
        assert_ne!(first[12..], changed[12..]);
        // Nor do other rows, nor that there is no later item.
        assert_eq!(first[..12], encoded(&[1, 2, 3], &[6, 7, 1, 2, 3, 4])[..]);
    }

    #[test]
    fn operations_are_counted_as_by_hand() {
        // Of 3 items of 4 numbers: four matrices of 4 × 4 and a network of two each, and 6 pairs of a
        // fit and a sum, in each of two blocks; x v of the target, and the product.
        let block = 3.0 * 6.0 * 16.0 + 6.0 * 2.0 * 4.0;
        let flops = config().flops(&schema(), &[3.0, 1.0, 1.0]);
        assert_eq!(flops, Some(2.0 * (2.0 * block + 4.0 + 4.0)));
    }

    #[test]
    fn without_a_history_the_score_is_zero() {
        let device = Device::flex();
        let model = config().init(&schema(), &init(device.clone())).unwrap();
        let mut tables = tables(&config());
        let (x, _) = tables.stage(batch(&[&[], &[2], &[]], &[1, 2, 3]), &device);
        let scores = values(model.forward(&x));
        assert_eq!([scores[0], scores[2]], [0.0, 0.0]);
        assert!(scores[1] != 0.0);
        let (x, _) = tables.stage(batch(&[&[], &[]], &[1, 2]), &device);
        assert_eq!(values(model.forward(&x)), [0.0, 0.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |config: SasRecConfig| config.tables(&schema()).unwrap_err().to_string();
        let config = config();
        assert_eq!(
            error(SasRecConfig {
                heads: 3,
                ..config.clone()
            }),
            "`sasrec.heads` is 3: expected a divisor of 4, the dim of its items"
        );
        assert_eq!(
            error(SasRecConfig {
                target: "user".into(),
                ..config.clone()
            }),
            "`sasrec.target` is user: expected a categorical field of the history's vocabulary"
        );
        assert_eq!(
            error(SasRecConfig {
                history: "user".into(),
                ..config.clone()
            }),
            "`sasrec.history` is user: expected a field of kind = \"sequence\""
        );
        let dropout = error(SasRecConfig {
            dropout: 1.0,
            ..config
        });
        assert!(dropout.starts_with("`sasrec.dropout` is 1"), "{dropout}");
    }
}
