//! `cargo xtask guide`: the guide as books, in both languages.

use std::path::Path;
use std::process::Command;

use crate::run;

/// The second book is built into the folder of the first.
const BOOKS: [&str; 2] = ["docs/guide", "docs/guide/ko"];
const OUT: &str = "target/guide";

/// Builds the books, whose links into the code then lead to this checkout.
pub(crate) fn build() -> Result<(), String> {
    if Command::new("mdbook").arg("--version").output().is_err() {
        return Err("mdbook is not installed: cargo install mdbook --no-default-features".into());
    }
    for book in BOOKS {
        run(Command::new("mdbook").args(["build", book]))?;
    }
    lead_out(Path::new(OUT)).map_err(|error| format!("{OUT}: {error}"))?;
    println!("{OUT}/index.html\n{OUT}/guide/ko/index.html");
    Ok(())
}

/// Mends the links of all pages that leave the books. A page lies one folder deeper than its
/// chapter, and mdbook takes every file of Markdown for a page.
fn lead_out(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            lead_out(&path)?;
        } else if path.extension().is_some_and(|end| end == "html") {
            let page = std::fs::read_to_string(&path)?;
            let mended: Vec<String> = page.split("href=\"").map(mend).collect();
            std::fs::write(&path, mended.join("href=\""))?;
        }
    }
    Ok(())
}

/// Mends what follows the beginning of a link, if the link leaves the books.
fn mend(text: &str) -> String {
    let end = text.find('"').unwrap_or(0);
    let (link, rest) = text.split_at(end);
    let leaves = ["benches", "configs", "crates", "xtask"];
    let way = link.trim_start_matches("../");
    if way.len() < link.len() && leaves.iter().any(|folder| way.starts_with(folder)) {
        format!("../{}{rest}", link.replace(".html", ".md"))
    } else {
        text.to_owned()
    }
}
