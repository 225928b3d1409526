//! A click model on Burn alone, made of two of crossfield's layers: what a candidate reads of a history
//! by attention is one more vector of a factorization machine. Its vectors are Burn's own embedding, its
//! training Burn's own autodiff and optimizer.

use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Device, Int, Tensor};
use crossfield_attention::crossfield_core::{Ragged, Segments};
use crossfield_attention::dot_product_attention;
use crossfield_fm::interaction;

/// Things that can be offered.
pub const ITEMS: usize = 24;
/// Kinds of them: that of an item is what is left of its number.
pub const KINDS: usize = 6;
const PLACES: usize = 3;
const DIM: usize = 8;

/// Offers, on the host.
pub struct Rows {
    /// What was offered.
    pub items: Vec<i64>,
    /// Where on the page.
    pub places: Vec<i64>,
    /// What each person had before, one after the other.
    pub history: Vec<i64>,
    /// Where each person's begin, and the end of the last.
    pub offsets: Vec<u32>,
    /// 1 for a click.
    pub clicks: Vec<f32>,
}

impl Rows {
    /// Offers that are clicked if the person has had something of their kind.
    pub fn generate(rows: usize) -> Self {
        let mut state = 1u64;
        // Knuth's linear congruential generator: its high bits are good enough here.
        let mut below = |most: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) % most as u64) as i64
        };
        let mut made = Self {
            items: Vec::new(),
            places: Vec::new(),
            history: Vec::new(),
            offsets: vec![0],
            clicks: Vec::new(),
        };
        for _ in 0..rows {
            let item = below(ITEMS);
            let had: Vec<i64> = (0..below(7)).map(|_| below(ITEMS)).collect();
            let kind = |item: &i64| item % KINDS as i64;
            let is_clicked = had.iter().any(|other| kind(other) == kind(&item));
            made.items.push(item);
            made.places.push(below(PLACES));
            made.history.extend(&had);
            made.offsets.push(made.history.len() as u32);
            made.clicks.push(f32::from(is_clicked));
        }
        made
    }
}

/// z = FM(v_item, v_place, u) + w · v_item + b, with u what the item reads of the history.
#[derive(Module, Debug)]
pub struct AttentiveFm {
    items: Embedding,
    places: Embedding,
    linear: Linear,
}

impl AttentiveFm {
    /// A model that is not trained.
    pub fn new(device: &Device) -> Self {
        device.seed(1);
        Self {
            items: EmbeddingConfig::new(ITEMS, DIM).init(device),
            places: EmbeddingConfig::new(PLACES, DIM).init(device),
            linear: LinearConfig::new(DIM, 1).init(device),
        }
    }

    /// The logit of each row, `[rows, 1]`.
    pub fn forward(&self, rows: &Rows, device: &Device) -> Tensor<2> {
        let look_up = |table: &Embedding, ids: &[i64]| {
            let ids = Tensor::<1, Int>::from_data(ids, device).unsqueeze_dim(0);
            let vectors: Tensor<2> = table.forward(ids).squeeze_dim(0);
            vectors
        };
        let items = look_up(&self.items, &rows.items);
        let places = look_up(&self.places, &rows.places);
        let candidates = Ragged::of_one(items.clone());
        let history = Ragged {
            values: look_up(&self.items, &rows.history),
            segments: Segments::new(rows.offsets.clone()),
        };
        let values = history.values.clone();
        // A row without a history reads zeros.
        let read = dot_product_attention(&candidates, &history, values, 1, false);
        let vectors = Tensor::stack(vec![items.clone(), places, read], 1);
        interaction(vectors) + self.linear.forward(items)
    }

    /// The mean logloss.
    pub fn loss(&self, rows: &Rows, device: &Device) -> Tensor<1> {
        let z = self.forward(rows, device);
        let y = Tensor::<1>::from_data(&rows.clicks[..], device).reshape(z.dims());
        let of_click = y.clone() * log_sigmoid(z.clone());
        let of_none = (y.neg() + 1.0) * log_sigmoid(z.neg());
        (of_click + of_none).mean().neg()
    }
}

/// The model after so many steps of Adam, and the loss before each.
pub fn train(rows: &Rows, steps: usize) -> (AttentiveFm, Vec<f32>) {
    let device = Device::flex().autodiff();
    let mut model = AttentiveFm::new(&device);
    let mut optimizer = AdamConfig::new().init();
    let mut losses = Vec::with_capacity(steps);
    for _ in 0..steps {
        let loss = model.loss(rows, &device);
        losses.push(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.05, model, gradients);
    }
    (model, losses)
}
