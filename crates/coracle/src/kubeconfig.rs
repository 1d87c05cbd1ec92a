//! The kubeconfig of a cluster: prints it, merges it into the user's own, takes it out again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    directories::{Directories, write_private},
    output,
};

/// The lists of a kubeconfig; entries of each are known by their `name`.
const LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Prints the kubeconfig, or with `merge` adds it to that file.
pub(crate) fn run(
    directories: &Directories,
    merge: Option<Option<&Path>>,
) -> anyhow::Result<ExitCode> {
    let path = directories.kubeconfig();
    let text = fs::read_to_string(&path).with_context(|| {
        format!(
            "read `{}`: cluster `{}` was never started; `coracle up` starts it",
            path.display(),
            directories.name
        )
    })?;
    let Some(user) = merge else {
        output::line(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    };
    let Some(user) = user else { bail!("neither KUBECONFIG nor HOME is set: merge into what?") };
    let ours =
        serde_saphyr::from_str(&text).with_context(|| format!("read `{}`", path.display()))?;
    let mut theirs = read(user)?.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Config"}));
    merge_into(&mut theirs, &ours);
    write(user, &theirs)?;
    output::note(&format!(
        "context `{}` is in `{}` and current",
        directories.context(),
        user.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Takes the context of a cluster that is gone out of the user's kubeconfig, if it was merged.
pub(crate) fn unmerge(directories: &Directories, user: &Option<PathBuf>) -> anyhow::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let Some(mut theirs) = read(user)? else { return Ok(()) };
    if remove(&mut theirs, &directories.context()) {
        write(user, &theirs)?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Option<Value>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let value = serde_saphyr::from_str(&text);
            value.map(Some).with_context(|| format!("read kubeconfig `{}`", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read kubeconfig `{}`", path.display())),
    }
}

fn write(path: &Path, value: &Value) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(value).context("print kubeconfig")?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make `{}`", folder.display()))?;
    }
    write_private(path, text.as_bytes())
        .with_context(|| format!("write kubeconfig `{}`", path.display()))
}

fn named<'a>(list: &'a Value, name: &str) -> Option<usize> {
    let is_it = |it: &'a Value| it.get("name").and_then(Value::as_str) == Some(name);
    list.as_array()?.iter().position(is_it)
}

fn merge_into(theirs: &mut Value, ours: &Value) {
    let Some(root) = theirs.as_object_mut() else { return };
    for list in LISTS {
        let target = root.entry(list).or_insert_with(|| json!([]));
        if !target.is_array() {
            *target = json!([]);
        }
        for entry in ours.get(list).and_then(Value::as_array).into_iter().flatten() {
            let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
            let at = named(target, name);
            let Some(entries) = target.as_array_mut() else { continue };
            match at.and_then(|it| entries.get_mut(it)) {
                Some(old) => old.clone_from(entry),
                None => entries.push(entry.clone()),
            }
        }
    }
    if let Some(current) = ours.get("current-context") {
        root.insert("current-context".to_owned(), current.clone());
    }
}

fn remove(theirs: &mut Value, name: &str) -> bool {
    let Some(root) = theirs.as_object_mut() else { return false };
    let mut changed = false;
    for list in LISTS {
        if let Some(entries) = root.get_mut(list).and_then(Value::as_array_mut) {
            let before = entries.len();
            entries.retain(|it| it.get("name").and_then(Value::as_str) != Some(name));
            changed |= entries.len() != before;
        }
    }
    if changed && root.get("current-context").and_then(Value::as_str) == Some(name) {
        root.insert("current-context".to_owned(), json!(""));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, server: &str) -> Value {
        json!({
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {}}],
            "current-context": name,
        })
    }

    #[test]
    fn merge_keeps_what_is_there_and_removal_undoes_it() {
        let before = config("work", "https://work");
        let mut user = before.clone();
        merge_into(&mut user, &config("coracle", "https://127.0.0.1:6443"));
        merge_into(&mut user, &config("coracle", "https://127.0.0.1:6444"));
        assert_eq!(user["clusters"].as_array().unwrap().len(), 2);
        assert_eq!(user["clusters"][1]["cluster"]["server"], "https://127.0.0.1:6444");
        assert_eq!(user["current-context"], "coracle");
        assert!(remove(&mut user, "coracle"));
        assert!(!remove(&mut user, "coracle"));
        assert_eq!(user["clusters"], before["clusters"]);
        assert_eq!(user["current-context"], "");
    }
}
