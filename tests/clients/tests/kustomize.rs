//! Kustomizations: each folder of `../kustomize` gives what the pinned kubectl makes of it, in the
//! same order.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context as _, bail};
use apiserver::schema;
use expect_test::expect;
use serde_json::Value;

/// The same types that the API has.
struct Types;

impl kustomize::Schema for Types {
    fn definition(&self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        schema::definition_of_kind(group, version, kind).map(|it| it.name)
    }

    fn field(&self, definition: &str, name: &str) -> Option<kustomize::Field> {
        let field = schema::definition(definition)?.field(name)?;
        let patching = schema::patching(definition, name)?;
        let keys = field.list_keys.or(patching.merge_key).unwrap_or_default();
        Some(kustomize::Field {
            merge: patching.merge,
            keys: keys.split(',').filter(|it| !it.is_empty()).collect(),
            definition: patching.definition,
            map: patching.map,
        })
    }
}

/// All files below a folder, by their path from there.
fn read(folder: &Path, name: &str, into: &mut BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.context("list a folder")?;
        let name = format!("{name}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{name}/"), into)?;
        } else {
            into.insert(name, fs::read(entry.path()).context("read a file")?);
        }
    }
    Ok(())
}

/// The folders that are compared: all that hold a kustomization, but for components.
fn folders(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut folders = Vec::new();
    for (path, bytes) in files {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let component = String::from_utf8_lossy(bytes).contains("kind: Component");
        if kustomize::NAMES.contains(&name) && !component {
            folders.push(folder.to_owned());
        }
    }
    folders
}

fn original(folder: &Path) -> anyhow::Result<Vec<Value>> {
    let kubectl =
        env::var_os("KUBECTL").context("KUBECTL is not set; `cargo xtask test clients`")?;
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output().context("kubectl")?;
    if !output.status.success() {
        bail!("kubectl kustomize: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("read what kubectl printed")?;
    serde_saphyr::from_multiple(&text).context("read what kubectl printed")
}

#[test]
fn objects_are_those_of_kubectl() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomize");
    let mut files = BTreeMap::new();
    read(&root, "", &mut files)?;
    let folders = folders(&files);
    let mut differences = Vec::new();
    for folder in &folders {
        let theirs = original(&root.join(folder)).with_context(|| folder.clone())?;
        match kustomize::build(&files, folder, &Types) {
            Ok(built) => {
                let ours: Vec<Value> = built.into_iter().map(|it| it.value).collect();
                differences.extend(compare(folder, &ours, &theirs));
            }
            Err(error) => differences.push(format!("{folder}: {error}")),
        }
    }
    if !differences.is_empty() {
        bail!("{}", differences.join("\n"));
    }
    expect!["31 folders"].assert_eq(&format!("{} folders", folders.len()));
    Ok(())
}

fn compare(folder: &str, ours: &[Value], theirs: &[Value]) -> Vec<String> {
    let mut differences = Vec::new();
    for index in 0..ours.len().max(theirs.len()) {
        let (ours, theirs) = (ours.get(index), theirs.get(index));
        if ours != theirs {
            let print = |it: Option<&Value>| it.map(Value::to_string).unwrap_or_default();
            let (ours, theirs) = (print(ours), print(theirs));
            differences.push(format!("{folder}[{index}]\n  ours   {ours}\n  theirs {theirs}"));
        }
    }
    differences
}
