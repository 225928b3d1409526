//! Peak memory of a process that trains a table of 10,000,000 × 8 and saves it.

use crossfield_benches::{Ids, Trainer, batches, fm};
use crossfield_embedding::write_snapshot;
use crossfield_train::{bytes, describe_tables, peak_memory, table_bytes};

fn main() {
    let rows = 10_000_000;
    let mut trainer = Trainer::new(&fm(), rows);
    for batch in batches(rows, Ids::Zipf, 100) {
        trainer.step(&batch);
    }
    let folder = tempfile::tempdir().expect("a folder for the snapshot");
    let path = folder.path().join("snapshot.safetensors");
    write_snapshot(&path, trainer.tables.weight_tensors()).expect("room for the snapshot");
    write_snapshot(&path, trainer.tables.state_tensors()).expect("room for the snapshot");

    print!("{}", describe_tables(&trainer.plans));
    let (weights, state) = table_bytes(&trainer.plans);
    match peak_memory() {
        Some(peak) => println!(
            "weights {} + AdaGrad state {}; peak memory {}: {} beside the tables",
            bytes(weights),
            bytes(state),
            bytes(peak),
            bytes(peak.saturating_sub(weights + state)),
        ),
        None => println!("this system does not tell the peak memory of a process"),
    }
}
