//! Prints a loss that falls.

use downstream::{Rows, train};

fn main() {
    let (_, losses) = train(&Rows::generate(400), 60);
    for (step, loss) in losses.iter().enumerate().step_by(10) {
        println!("step {step:>2}: {loss:.4}");
    }
}
