//! Each file that fuzzing began with or came upon is read once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

#[test]
fn every_file_of_the_corpus_is_read_or_refused() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, body) in bodies::ALL {
        let mut files = 0;
        for entry in corpus.join(name).read_dir().unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            body(&std::fs::read(&path).unwrap());
            files += 1;
        }
        assert!(files > 0, "no files for `{name}`");
    }
}

#[test]
fn write_seeds_once() {
    use crossfield_core::{Initializer, TableConfig};
    use crossfield_embedding::*;
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for name in ["keys", "undo"] {
        std::fs::create_dir_all(corpus.join(name)).unwrap();
    }
    let config = AdmissionConfig {
        min_count: 2,
        max_rows: Some(3),
        evict_after: Some(10),
        sketch: 64,
    };
    let mut admission = Admission::new(config).unwrap();
    admission.save(&corpus.join("keys/empty"), 1).unwrap();
    admission.admit(&[7, 9, 11], &[2, 3, 1], 6);
    admission.admit(&[11, 5], &[1, 4], 5);
    admission.save(&corpus.join("keys/three"), 1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let plan = TablePlan {
        storage: Storage::Mapped,
        ..TablePlan::new(
            TableConfig {
                name: "v2.ad".into(),
                rows: 5,
                dim: 2,
                fields: vec![0],
                initializer: Initializer::Normal { std: 1.0 },
                oov_row: Some(0),
            },
            RowOptimizer::default(),
        )
    };
    let place = Place {
        folder: folder.path(),
        exists: false,
    };
    let mut tables = EmbeddingCollection::in_place(&[plan], 1, place).unwrap();
    let saved = tables.settle_mapped().unwrap();
    tables.begin_undo(1, &saved).unwrap();
    let log = folder.path().join("v2.ad.undo-0000000001");
    std::fs::copy(&log, corpus.join("undo/empty")).unwrap();
    let examples = crossfield_core::Examples {
        rows: 2,
        one_hot_fields: &[0],
        one_hot: &[3, 1],
        lists: vec![],
        labels: &[0.0, 1.0],
        weights: None,
    };
    tables
        .about_to_change(&examples, [0usize, 1].into_iter())
        .unwrap();
    std::fs::copy(&log, corpus.join("undo/two")).unwrap();
}
