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
