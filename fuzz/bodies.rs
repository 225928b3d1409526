//! What the fuzz targets do with bytes: read them as a file of each kind. Whatever they are, there is an
//! error or a value that holds together; the main workspace's tests run these over the corpus.

use std::fs;
use std::path::Path;

use crossfield_core::{Initializer, TableConfig};
use crossfield_data::{
    DataSpec, FittedSchema, LabelKind, Labels, Manifest, Prepared, encode_files, prepare,
};
use crossfield_embedding::{
    Admission, AdmissionConfig, EmbeddingCollection, Place, RowOptimizer, Snapshot, Storage,
    TablePlan,
};
use crossfield_train::{RunFile, State};

/// What a target does with bytes; whether they are a file of its kind.
pub(crate) type Body = fn(&[u8]) -> bool;

/// All targets, by name.
pub(crate) const ALL: &[(&str, Body)] = &[
    ("csv", csv),
    ("ratings", ratings),
    ("libsvm", libsvm),
    ("libffm", libffm),
    ("parquet", parquet),
    ("cache", cache),
    ("schema", schema),
    ("run_file", run_file),
    ("snapshot", snapshot),
    ("state", state),
    ("checksums", checksums),
    ("keys", keys),
    ("undo", undo),
];

/// Fields of every kind, on four columns.
const FIELDS: &str = "[label]\ncolumn = 'click'\n\
    [[field]]\nname = 'item'\n\
    [[field]]\nname = 'tags'\nkind = 'bag'\nweight_delimiter = ':'\n\
    [[field]]\nname = 'age'\nkind = 'numeric'\ntransform = 'quantile'\nbuckets = 4\n\
    [[field]]\nname = 'again'\nkind = 'hashed'\ncolumn = 'item'\nhash_rows = 7\n\
    [[cross]]\nfields = ['item', 'age']\n";

/// A folder with one file in it.
fn folder(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder");
    fs::write(&path, bytes).expect("a temporary file");
    folder
}

/// The data of a run file that reads `rows` of a folder.
fn spec(folder: &Path, format: &str, more: &str, fields: &str) -> DataSpec {
    let train = folder.join("rows");
    let text = format!(
        "[data]\nformat = '{format}'\ntrain = '{}'\n{more}\n{fields}\n[model]\nkind = 'fm'\n",
        train.display()
    );
    let run = RunFile::<toml::Table>::parse(&text, "fuzz.toml", &[]);
    run.expect("a run file of ours").data_spec()
}

/// Reads rows, and what was learned of them from its files again.
fn rows(bytes: &[u8], format: &str, more: &str, fields: &str, label: LabelKind) -> bool {
    let folder = folder("rows", bytes);
    let spec = spec(folder.path(), format, more, fields);
    let Ok(prepared) = prepare(&spec, 1, label) else {
        return false;
    };
    let run = folder.path().join("run");
    fs::create_dir(&run).expect("a folder");
    prepared
        .schema
        .save(&run)
        .expect("a schema of rows that were read");
    let schema = FittedSchema::load(&run).expect("what was saved");
    assert_eq!(schema.fingerprint(), prepared.schema.fingerprint());
    let again = encode_files(&spec, &schema, &spec.data.train, label, Labels::Required);
    let again = again.expect("rows that were read before");
    assert_eq!(again.len(), prepared.train.len());
    let all: Vec<u32> = (0..again.len().min(64) as u32).collect();
    let (first, second) = (prepared.train.batch(&all), again.batch(&all));
    for (first, second) in first.sparse.iter().zip(&second.sparse) {
        assert_eq!(first.indices, second.indices);
    }
    true
}

/// Separated cells.
pub(crate) fn csv(bytes: &[u8]) -> bool {
    rows(
        bytes,
        "csv",
        "missing = ['', '?']",
        FIELDS,
        LabelKind::Binary,
    )
}

/// Ratings between tabs.
pub(crate) fn ratings(bytes: &[u8]) -> bool {
    let fields = "[label]\ncolumn = 'rating'\n[[field]]\nname = 'user'\n[[field]]\nname = 'item'\n";
    rows(bytes, "ratings", "", fields, LabelKind::Number)
}

/// Labels with indices and values.
pub(crate) fn libsvm(bytes: &[u8]) -> bool {
    rows(bytes, "libsvm", "max_index = 1000", "", LabelKind::Number)
}

/// Labels with fields, indices and values.
pub(crate) fn libffm(bytes: &[u8]) -> bool {
    rows(bytes, "libffm", "max_index = 1000", "", LabelKind::Binary)
}

/// Columns of a Parquet file.
pub(crate) fn parquet(bytes: &[u8]) -> bool {
    let fields = "[label]\ncolumn = 'click'\n[[field]]\nname = 'user'\n[[field]]\nname = 'ad'\n";
    rows(bytes, "parquet", "", fields, LabelKind::Binary)
}

/// A cache of other rows: opened, or built anew; whether it begins as one of this version.
pub(crate) fn cache(bytes: &[u8]) -> bool {
    let folder = folder("cache/rows.cache", bytes);
    let csv = "click,item,tags,age\n1,a,x:1|y:2,3\n0,b,,4\n1,a,y:2,5\n";
    fs::write(folder.path().join("rows"), csv).expect("a temporary file");
    let more = format!("cache = '{}'", folder.path().join("cache").display());
    let spec = spec(folder.path(), "csv", &more, FIELDS);
    let prepared: Prepared = prepare(&spec, 1, LabelKind::Binary).expect("rows of ours");
    let all: Vec<u32> = (0..prepared.train.len().min(64) as u32).collect();
    prepared.train.batch(&all);
    let built = fs::read(folder.path().join("cache/rows.cache")).expect("a cache");
    // Magic and version.
    bytes.get(..16) == built.get(..16)
}

/// schema.json, and behind a zero byte the vocabulary of `item`.
pub(crate) fn schema(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let folder = folder("schema.json", parts.next().unwrap_or_default());
    let vocabularies = folder.path().join("vocabularies");
    fs::create_dir(&vocabularies).expect("a folder");
    let keys = vocabularies.join("item.csv");
    fs::write(keys, parts.next().unwrap_or_default()).expect("a temporary file");
    let Ok(schema) = FittedSchema::load(folder.path()) else {
        return false;
    };
    schema.fingerprint();
    for (field, of) in schema.schema().fields.iter().enumerate() {
        for index in [0, of.rows - 1] {
            schema.name(field, index, 0.5);
        }
    }
    fs::write(
        folder.path().join("rows"),
        "click,item,tags,age\n1,a,x:1,3\n",
    )
    .expect("a file");
    let spec = spec(folder.path(), "csv", "", FIELDS);
    let _ = encode_files(
        &spec,
        &schema,
        &spec.data.train,
        LabelKind::Binary,
        Labels::Required,
    );
    true
}

/// A run file, whose complete form is read again.
pub(crate) fn run_file(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let Ok(run) = RunFile::<toml::Table>::parse(text, "fuzz.toml", &[]) else {
        return false;
    };
    let again = RunFile::parse(&run.to_toml(), "again.toml", &[]);
    // Numbers that are none are not equal to themselves.
    let again: RunFile<toml::Table> = again.expect("a run file that was read");
    assert_eq!(again.to_toml(), run.to_toml());
    true
}

/// Tensors.
pub(crate) fn snapshot(bytes: &[u8]) -> bool {
    let folder = folder("model.safetensors", bytes);
    let Ok(mut snapshot) = Snapshot::open(&folder.path().join("model.safetensors")) else {
        return false;
    };
    for name in snapshot.names() {
        let shape = snapshot.shape(&name).expect("a name of its own").to_vec();
        let mut count = 0;
        if snapshot
            .read(&name, &shape, |block| count += block.len())
            .is_ok()
        {
            assert_eq!(count, shape.iter().product::<usize>());
        }
    }
    true
}

/// state.json of the schema 1.
pub(crate) fn state(bytes: &[u8]) -> bool {
    let folder = folder("state.json", bytes);
    State::read(folder.path(), 1).is_ok()
}

/// checksums.json.
pub(crate) fn checksums(bytes: &[u8]) -> bool {
    let folder = folder(Manifest::FILE, bytes);
    let Ok(manifest) = Manifest::read(folder.path()) else {
        return false;
    };
    let _ = manifest.verify(folder.path());
    manifest.save(folder.path()).expect("a temporary file");
    assert_eq!(
        Manifest::read(folder.path()).expect("what was saved"),
        manifest
    );
    true
}

/// The keys of an admission.
pub(crate) fn keys(bytes: &[u8]) -> bool {
    let folder = folder("keys.ad", bytes);
    let config = AdmissionConfig {
        min_count: 2,
        max_rows: Some(3),
        evict_after: Some(10),
        sketch: 64,
    };
    let path = folder.path().join("keys.ad");
    let Ok(mut admission) = Admission::load(&path, 1, config) else {
        return false;
    };
    let rows = admission.admit(&[7, 8], &[2, 1], 2).rows;
    assert!(rows.iter().all(|&row| row <= 3));
    admission.save(&path, 2).expect("a temporary file");
    let again = Admission::load(&path, 2, config).expect("what was saved");
    assert_eq!(again.look_up(&[7, 8]), admission.look_up(&[7, 8]));
    true
}

/// The log that leads a mapped table back: rows are those of the checkpoint, or it is refused.
pub(crate) fn undo(bytes: &[u8]) -> bool {
    let folder = folder("unused", &[]);
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
    let plans = [plan];
    let place = |exists| Place {
        folder: folder.path(),
        exists,
    };
    let made = EmbeddingCollection::in_place(&plans, 1, place(false));
    let mut tables = made.expect("a temporary file");
    let saved = tables.settle_mapped().expect("a temporary file");
    tables.begin_undo(1, &saved).expect("a temporary file");
    let rows = tables.tables()[0].bytes().to_vec();
    drop(tables);
    fs::write(folder.path().join("v2.ad.undo-0000000001"), bytes).expect("a temporary file");
    let mut tables = EmbeddingCollection::in_place(&plans, 1, place(true)).expect("its file");
    let is_led_back = tables.go_back(1, &saved).is_ok();
    if is_led_back {
        assert_eq!(tables.tables()[0].bytes(), rows);
    }
    is_led_back
}
