//! Rules about the code base that neither rustc nor clippy can state.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

/// The architecture: each crate with the crates of ours it may use. Changing it is a decision.
const MAY_USE: &[(&str, &[&str])] = &[];

/// Longest file allowed, in lines.
const FILE_LINES_MAX: usize = 800;

/// Checks every rule under `root`.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for entry in walkdir::WalkDir::new(root.join("crates")).sort_by_file_name() {
        let path = entry.context("walk crates/")?.into_path();
        let name = path.file_name().unwrap_or_default();
        if name != "Cargo.toml" && path.extension().is_none_or(|it| it != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let found = if name == "Cargo.toml" { check_edges(&text)? } else { check_source(&text) };
        problems.extend(found.into_iter().map(|it| format!("{}: {it}", path.display())));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn check_source(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if !text.starts_with("//!") {
        problems.push("no //! header".to_owned());
    }
    let lines = text.lines().count();
    if FILE_LINES_MAX < lines {
        problems.push(format!("{lines} lines, at most {FILE_LINES_MAX}"));
    }
    problems
}

fn check_edges(manifest: &str) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("parse manifest")?;
    let name = manifest.get("package").and_then(|it| it.get("name")).and_then(|it| it.as_str());
    let name = name.context("package.name")?;
    let Some((_, may_use)) = MAY_USE.iter().find(|(it, _)| *it == name) else {
        return Ok(vec![format!("{name} is not in MAY_USE")]);
    };
    let ours = |it: &&String| MAY_USE.iter().any(|(other, _)| other == it);
    let used = manifest.get("dependencies").and_then(toml::Value::as_table);
    let used = used.into_iter().flat_map(toml::Table::keys).filter(ours);
    let forbidden = used.filter(|it| !may_use.contains(&it.as_str()));
    let mut problems: Vec<String> =
        forbidden.map(|it| format!("{name} must not use {it}")).collect();
    let lints = manifest.get("lints").and_then(|it| it.get("workspace"));
    if lints.and_then(toml::Value::as_bool) != Some(true) {
        problems.push("no `lints.workspace = true`".to_owned());
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_is_tidy() {
        check(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()).unwrap();
    }

    #[test]
    fn forbidden_edge_is_reported() {
        let manifest =
            "package.name = 'api'\ndependencies.controllers = {}\nlints.workspace = true";
        assert_eq!(check_edges(manifest).unwrap(), ["api must not use controllers"]);
    }
}
