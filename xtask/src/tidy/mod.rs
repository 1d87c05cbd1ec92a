//! Rules about the code base that neither rustc nor clippy can state. They run in `cargo test`.
//! Everything is read from the work tree: no git, no network, no build.

mod edges;
mod prose;
mod source;

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

/// Folders with code of ours.
const CODE: &[&str] = &["crates", "xtask", "tests", "benches", "examples"];
/// Folders that hold what is built or belongs to git.
const NOT_OURS: &[&str] = &["target", ".git"];
/// Endings of the files that people read.
const TEXT: &[&str] = &["md", "rs", "sh", "toml", "txt", "yaml", "yml"];

/// Checks every rule under `root` and reports all that is wrong at once.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let workspace = read(&root.join("Cargo.toml"))?;
    let workspace: toml::Table = workspace.parse().context("read the workspace's Cargo.toml")?;
    let mut problems = Vec::new();
    let tree = walkdir::WalkDir::new(root).sort_by_file_name().into_iter();
    let is_ours = |it: &walkdir::DirEntry| !NOT_OURS.iter().any(|name| it.file_name() == *name);
    for entry in tree.filter_entry(is_ours) {
        let entry = entry.context("walk the work tree")?;
        let path = entry.path().strip_prefix(root).unwrap_or(entry.path());
        let is_text = path.extension().is_some_and(|it| TEXT.iter().any(|text| it == *text));
        if !entry.file_type().is_file() || !is_text {
            continue;
        }
        let found = check_file(root, path, &read(entry.path())?, &workspace)?;
        problems.extend(found.into_iter().map(|it| format!("{}: {it}", path.display())));
    }
    if !problems.is_empty() {
        bail!("not tidy:\n{}", problems.join("\n"));
    }
    Ok(())
}

fn check_file(
    root: &Path,
    path: &Path,
    text: &str,
    workspace: &toml::Table,
) -> anyhow::Result<Vec<String>> {
    let mut problems = prose::check(root, path, text);
    let is_code = CODE.iter().any(|it| path.starts_with(it));
    if is_code && path.extension().is_some_and(|it| it == "rs") {
        problems.extend(source::check(path, text));
    }
    // What is a workspace of its own, as an example in a user's hands, has no edges to our crates.
    let is_alone = text.lines().any(|it| it == "[workspace]");
    if is_code && !is_alone && path.ends_with("Cargo.toml") {
        let found = edges::check(text, workspace).with_context(|| path.display().to_string())?;
        problems.extend(found);
    }
    Ok(problems)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_tidy() {
        if let Err(error) = check(crate::root()) {
            panic!("{error:#}");
        }
    }
}
