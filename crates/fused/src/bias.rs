//! The bias of a model, a single dense weight.

/// A bias and its optimizer, which follows Burn's dense optimizers.
#[derive(Clone, Debug, PartialEq)]
pub struct Bias {
    /// The bias.
    pub value: f32,
    /// Its optimizer.
    pub optimizer: BiasOptimizer,
    /// The optimizer's state: two moments (or AdaGrad's sum of squares), and updates done.
    pub state: [f32; 3],
}

/// The rule by which a bias is updated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BiasOptimizer {
    /// The rule.
    pub kind: BiasRule,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decay of Adam's first moment.
    pub beta1: f64,
    /// Decay of Adam's second moment.
    pub beta2: f64,
    /// ε of Adam and AdaGrad.
    pub eps: f64,
}

/// A kind of optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasRule {
    /// Plain gradient descent.
    Sgd,
    /// AdaGrad.
    Adagrad,
    /// Adam; with decoupled weight decay: AdamW.
    Adam {
        /// Whether weight decay is decoupled from the moments.
        decoupled: bool,
    },
}

/// Updates beyond which Adam's corrections are 1 to the last bit; a whole `f32`.
const MANY: f32 = 16_777_216.0;

impl Bias {
    /// A bias that begins at `value`.
    pub fn new(value: f32, optimizer: BiasOptimizer) -> Self {
        Self {
            value,
            optimizer,
            state: [0.0; 3],
        }
    }

    /// One step down the gradient.
    #[inline(always)]
    pub fn update(&mut self, gradient: f32, rate: f32) {
        let BiasOptimizer {
            kind,
            lr,
            weight_decay,
            beta1,
            beta2,
            eps,
        } = self.optimizer;
        let lr = lr as f32 * rate;
        let decay = weight_decay as f32;
        let mut g = gradient;
        if !matches!(kind, BiasRule::Adam { decoupled: true }) {
            g += decay * self.value;
        }
        let [m, v, time] = &mut self.state;
        match kind {
            BiasRule::Sgd => self.value -= lr * g,
            BiasRule::Adagrad => {
                *v += g * g;
                self.value -= lr * g / (v.sqrt() + eps as f32);
            }
            BiasRule::Adam { decoupled } => {
                *time = (*time + 1.0).min(MANY);
                let (b1, b2) = (beta1 as f32, beta2 as f32);
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                // Powers below 2⁻⁵⁴ change nothing, and taking them would cost as much as the rest.
                let power = |beta: f64| {
                    let time = f64::from(*time);
                    if beta < 1.0 && time * (1.0 - beta) > 38.0 {
                        0.0
                    } else {
                        beta.powi(time.min(1e6) as i32)
                    }
                };
                let m_hat = f64::from(*m) / (1.0 - power(beta1));
                let v_hat = f64::from(*v) / (1.0 - power(beta2));
                if decoupled {
                    self.value -= lr * decay * self.value;
                }
                self.value -= lr * (m_hat / (v_hat.sqrt() + eps)) as f32;
            }
        }
    }
}
