//! Folders, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Error;

/// What lies in a folder: files with their bytes; folders end with `/` and have none.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// All that lies in a folder.
pub(crate) fn read(folder: &Path) -> Result<Files, Error> {
    let mut files = Files::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            if path.is_dir() {
                files.insert(format!("{name}/"), Vec::new());
                folders.push(name + "/");
            } else {
                files.insert(name, fs::read(&path).map_err(Error::io(&path))?);
            }
        }
    }
    Ok(files)
}

/// Puts back what lay in a folder.
pub(crate) fn write(folder: &Path, files: &Files) -> Result<(), Error> {
    remove(folder)?;
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    for (name, bytes) in files {
        let path = folder.join(name);
        let written = match name.ends_with('/') {
            true => fs::create_dir_all(&path),
            false => fs::write(&path, bytes),
        };
        written.map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder)(error)),
        _ => Ok(()),
    }
}

/// The first difference between the files of two runs. Clocks, their checksums and locks do not count.
pub(crate) fn difference(got: &Files, expected: &Files) -> Option<String> {
    let counts = |name: &&String| {
        !["timing.jsonl", "checksums.json", ".lock"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let names = |files: &Files| files.keys().filter(counts).cloned().collect::<Vec<_>>();
    let (names_got, names_expected) = (names(got), names(expected));
    if let Some(name) = names_expected.iter().find(|name| !got.contains_key(*name)) {
        return Some(format!("{name} is missing"));
    }
    if let Some(name) = names_got.iter().find(|name| !expected.contains_key(*name)) {
        return Some(format!("{name} is left over"));
    }
    let differs = |name: &&String| got[*name] != expected[*name];
    let name = names_expected.iter().find(differs)?;
    Some(format!("{name} has other bytes"))
}

/// Whether a file is being written, or was when its writer was killed, below a folder.
pub(crate) fn has_part(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.ends_with(".part")
            || name.ends_with(".new")
            || entry.file_type().is_ok_and(|kind| kind.is_dir()) && has_part(&entry.path())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;

    fn files(of: &[(&str, &str)]) -> Files {
        of.iter()
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn what_is_put_back_is_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let some = files(&[("b/", ""), ("b/c", "one"), ("d/", "")]);
        write(&path, &some).unwrap();
        fs::write(path.join("b/e.part"), "two").unwrap();
        assert!(has_part(&path));
        write(&path, &some).unwrap();
        assert!(!has_part(&path));
        assert_eq!(read(&path).unwrap(), some);
    }

    #[test]
    fn clocks_are_no_difference_and_anything_else_is() {
        let expected = files(&[("a", "one"), ("timing.jsonl", "1")]);
        let same = files(&[("a", "one"), ("timing.jsonl", "2"), ("checksums.json", "")]);
        assert_eq!(difference(&same, &expected), None);
        let says = |got: &[(&str, &str)]| difference(&files(got), &expected);
        assert_eq!(says(&[]), Some("a is missing".into()));
        assert_eq!(says(&[("a", "two")]), Some("a has other bytes".into()));
        let more = [("a", "one"), ("b", "")];
        assert_eq!(says(&more), Some("b is left over".into()));
    }
}
