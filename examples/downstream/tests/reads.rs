//! An offer is scored by what its person had before.

use burn::tensor::Device;
use downstream::{AttentiveFm, Rows};

#[test]
fn what_is_read_depends_on_the_past_item() {
    let device = Device::flex().autodiff();
    let model = AttentiveFm::new(&device);
    let rows = |past: i64| Rows {
        items: vec![1],
        places: vec![0],
        history: vec![past],
        offsets: vec![0, 1],
        clicks: vec![1.0],
    };
    let logit = |past| model.forward(&rows(past), &device).into_scalar::<f32>();
    assert_ne!(logit(2), logit(3));
}
