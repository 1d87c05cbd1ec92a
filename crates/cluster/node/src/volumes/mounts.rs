//! Which folders a container sees where: its `volumeMounts`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::Ready;
use crate::environment::{ConfigError, Environment, expand};

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Path on the machine.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// The container's mounts, those above others first.
///
/// A `subPath` is resolved now: what it names later is not seen, so a ConfigMap mounted by
/// `subPath` is not updated, as Kubernetes documents.
pub(crate) fn mounts(
    container: &Container,
    volumes: &BTreeMap<String, Ready>,
    environment: &Environment,
) -> Result<Vec<Mount>, ConfigError> {
    let mut result = Vec::new();
    for mount in container.volume_mounts.as_deref().unwrap_or_default() {
        let name = &mount.name;
        let ready = volumes
            .get(name)
            .ok_or_else(|| ConfigError(format!("cannot find volume \"{name}\" to mount")))?;
        let source = match sub_path(mount, environment)? {
            Some(path) => resolve(&ready.path, &path).map_err(|error| {
                ConfigError(format!("subPath \"{path}\" of volume \"{name}\": {error}"))
            })?,
            None => ready.path.clone(),
        };
        result.push(Mount {
            source,
            target: Path::new("/").join(&mount.mount_path),
            read_only: ready.read_only || mount.read_only.unwrap_or_default(),
        });
    }
    result.sort_by_key(|it| it.target.components().count());
    Ok(result)
}

fn sub_path(mount: &VolumeMount, environment: &Environment) -> Result<Option<String>, ConfigError> {
    let given = |it: &Option<String>| it.clone().filter(|it| !it.is_empty());
    if let Some(path) = given(&mount.sub_path) {
        return Ok(Some(path));
    }
    let Some(text) = given(&mount.sub_path_expr) else { return Ok(None) };
    let path = expand(&text, |name| environment.get(name));
    if path.contains("$(") {
        let words = format!("missing value in subPathExpr \"{text}\" of volume \"{}\"", mount.name);
        return Err(ConfigError(words));
    }
    Ok(Some(path))
}

/// The real path of `sub_path` below `volume`. Makes a folder if nothing is there; refuses what
/// leads out, also by symbolic links.
fn resolve(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let refuse = |words: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, words));
    let relative = Path::new(sub_path);
    if !relative.components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir)) {
        return refuse("must be relative and not contain `..`");
    }
    let volume = fs::canonicalize(volume)?;
    let mut path = volume.clone();
    // Step by step, so that nothing is made behind a link that leads out.
    for component in relative.components() {
        path.push(component);
        path = match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path)?;
                path
            }
            other => other?,
        };
        if !path.starts_with(&volume) {
            return refuse("leads out of the volume");
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::{Value, json};

    use super::*;

    fn mounts_of(folder: &Path, list: Value) -> Result<Vec<Mount>, ConfigError> {
        let container = json!({ "name": "c", "volumeMounts": list });
        let ready = Ready { path: folder.to_owned(), read_only: false };
        let volumes = [("v".to_owned(), ready)].into();
        let container = serde_json::from_value(container).unwrap();
        mounts(&container, &volumes, &Environment::default())
    }

    #[test]
    fn parents_before_children() {
        let folder = tempfile::tempdir().unwrap();
        let list = json!([{ "name": "v", "mountPath": "/a/b", "readOnly": true },
            { "name": "v", "mountPath": "/a" }]);
        let targets: Vec<(PathBuf, bool)> = mounts_of(folder.path(), list)
            .unwrap()
            .into_iter()
            .map(|it| (it.target, it.read_only))
            .collect();
        assert_eq!(targets, [("/a".into(), false), ("/a/b".into(), true)]);
        let unknown = mounts_of(folder.path(), json!([{ "name": "x", "mountPath": "/" }]));
        assert_eq!(unknown.unwrap_err().0, "cannot find volume \"x\" to mount");
    }

    #[test]
    fn sub_paths_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("v");
        fs::create_dir(&volume).unwrap();
        fs::write(volume.join("file"), "").unwrap();
        symlink("file", volume.join("inside")).unwrap();
        symlink("/etc", volume.join("outside")).unwrap();
        let of = |path: &str| {
            let list = json!([{ "name": "v", "mountPath": "/a", "subPath": path }]);
            mounts_of(&volume, list).map(|it| it[0].source.clone())
        };
        let real = fs::canonicalize(&volume).unwrap();
        assert_eq!(of("inside").unwrap(), real.join("file"));
        assert_eq!(of("new/folder").unwrap(), real.join("new/folder"));
        for path in ["../x", "/etc", "outside", "outside/new"] {
            of(path).unwrap_err();
        }
        assert!(!Path::new("/etc/new").exists());
    }
}
