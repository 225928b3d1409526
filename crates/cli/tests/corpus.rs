//! Each file that fuzzing began with or came upon is read once.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

#[test]
fn every_file_of_the_corpus_is_read_or_refused() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (name, body) in bodies::ALL {
        if *name == "parquet" && !cfg!(feature = "parquet") {
            continue;
        }
        let mut read = 0;
        for entry in corpus.join(name).read_dir().unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let bytes = std::fs::read(&path).unwrap();
            read += usize::from(body(&bytes) && !bytes.is_empty());
        }
        // Fuzzing begins with a file of the kind, or hardly ever makes one.
        assert!(read > 0, "no file for `{name}` that is one");
    }
}
