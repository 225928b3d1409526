//! A block of self-attention.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Tensor, TensorData};
use crossfield_core::rng::{Purpose, name_key, rng};
use crossfield_core::{Init, Ragged, TrainingStep, dense_layer, dense_layer_relu};
use rand::Rng;

use crate::dot_product_attention;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Dropout {
    probability: f64,
    layer: u64,
}

impl Dropout {
    pub(crate) fn new(name: &str, probability: f64) -> Self {
        Self {
            probability,
            layer: name_key(name),
        }
    }

    pub(crate) fn apply(self, units: Tensor<2>, at: TrainingStep) -> Tensor<2> {
        if self.probability == 0.0 {
            return units;
        }
        let shape = units.dims();
        let mut rng = rng(at.seed, Purpose::Dropout, self.layer, at.step);
        let mut bytes = vec![0; shape[0] * shape[1] * size_of::<u32>()];
        rng.fill_bytes(&mut bytes);
        let (draws, _) = bytes.as_chunks();
        let below = (self.probability * 2f64.powi(32)) as u32;
        let kept = (1.0 / (1.0 - self.probability)) as f32;
        let mask: Vec<f32> = draws
            .iter()
            .map(|&draw| {
                if u32::from_le_bytes(draw) < below {
                    0.0
                } else {
                    kept
                }
            })
            .collect();
        let device = units.device();
        units * Tensor::from_data(TensorData::new(mask, shape), &device)
    }
}

pub(crate) struct BlockConfig {
    pub(crate) heads: usize,
    pub(crate) hidden: usize,
    pub(crate) dropout: f64,
}

#[derive(Module, Debug)]
pub(crate) struct Block {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    first: Linear,
    second: Linear,
    layers_norm: LayerNorm,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    dropouts: [Dropout; 2],
}

impl BlockConfig {
    pub(crate) fn init(&self, name: &str, dim: usize, init: &Init) -> Block {
        let linear =
            |part: &str, inputs, outputs| init.linear(&format!("{name}.{part}"), inputs, outputs);
        let norm = || LayerNormConfig::new(dim).init(&init.device);
        Block {
            query: linear("query", dim, dim),
            key: linear("key", dim, dim),
            value: linear("value", dim, dim),
            output: linear("output", dim, dim),
            attention_norm: norm(),
            first: linear("first", dim, self.hidden),
            second: linear("second", self.hidden, dim),
            layers_norm: norm(),
            heads: self.heads,
            dropouts: [
                Dropout::new(&format!("{name}.attention"), self.dropout),
                Dropout::new(&format!("{name}.layers"), self.dropout),
            ],
        }
    }
}

fn apply(layer: &Linear, x: Tensor<2>) -> Tensor<2> {
    let bias = layer.bias.as_ref().expect("layers are made with a bias");
    dense_layer(x, layer.weight.val(), bias.val())
}

impl Block {
    pub(crate) fn forward(&self, items: Ragged, at: Option<TrainingStep>) -> Ragged {
        let drop = |units, nth: usize| match at {
            Some(at) => self.dropouts[nth].apply(units, at),
            None => units,
        };
        let Ragged { values, segments } = items;
        let x = self.attention_norm.forward(values.clone());
        let ragged = |values| Ragged {
            values,
            segments: segments.clone(),
        };
        let read = dot_product_attention(
            &ragged(apply(&self.query, x.clone())),
            &ragged(apply(&self.key, x.clone())),
            apply(&self.value, x),
            self.heads,
            true,
        );
        let values = values + drop(apply(&self.output, read), 0);
        let x = self.layers_norm.forward(values.clone());
        let bias = self
            .first
            .bias
            .as_ref()
            .expect("layers are made with a bias");
        let x = dense_layer_relu(x, self.first.weight.val(), bias.val());
        let values = values + drop(apply(&self.second, x), 1);
        Ragged { values, segments }
    }
}
