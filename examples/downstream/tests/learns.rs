//! Two of crossfield's layers learn together under Burn's own optimizer. Alone in its program: Burn draws
//! the weights from one generator of the process, which a test beside it would draw from too.

use burn::tensor::Device;
use downstream::{Rows, train};

#[test]
fn the_loss_falls_and_new_rows_are_ordered() {
    let rows = Rows::generate(600);
    let (model, losses) = train(&rows, 60);
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < 0.5 * first, "{first} to {last}");
    // One who had items 0 and 7 is offered 6, of the kind of 0, and 8, of another.
    let new = Rows {
        items: vec![6, 8],
        places: vec![0, 0],
        history: vec![0, 7, 0, 7],
        offsets: vec![0, 2, 4],
        clicks: vec![1.0, 0.0],
    };
    let logits = model.forward(&new, &Device::flex().autodiff());
    let logits = logits.try_into_vec_as::<f32>().expect("floats");
    assert!(logits[0] > 0.0 && logits[1] < 0.0, "{logits:?}");
}
