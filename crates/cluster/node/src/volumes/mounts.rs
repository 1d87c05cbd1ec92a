//! Which folders a container sees where: its `volumeMounts`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::Ready;
use crate::environment::{ConfigError, Environment, expand};

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The volume, as a path on the machine.
    pub volume: PathBuf,
    /// What of it is mounted, if not all: a relative path, which containers may lead elsewhere in the
    /// volume at any moment.
    pub below: Option<PathBuf>,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// The container's mounts, those above others first.
///
/// A `subPath` is resolved when the container starts: what it names later is not seen, so a ConfigMap
/// mounted by `subPath` is not updated, as Kubernetes documents.
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
        let below = sub_path(mount, environment)?.map(|path| {
            make_below(&ready.path, &path).map_err(|error| {
                ConfigError(format!("subPath \"{path}\" of volume \"{name}\": {error}"))
            })
        });
        result.push(Mount {
            volume: ready.path.clone(),
            below: below.transpose()?,
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

/// Makes a folder at `sub_path` of a volume if nothing is there; refuses what leads out, also by symbolic
/// links. What containers do to the volume meanwhile changes nothing outside of it.
fn make_below(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let refuse = |words: &str| io::Error::new(io::ErrorKind::InvalidInput, words);
    let relative = Path::new(sub_path);
    if !relative.components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir)) {
        return Err(refuse("must be relative and not contain `..`"));
    }
    let volume = rustix::fs::open(volume, NAMED, Mode::empty())?;
    let find = |path: &Path| -> io::Result<Option<OwnedFd>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&volume, path, NAMED, Mode::empty(), resolve) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(refuse("leads out of the volume")),
            Err(error) => Err(error.into()),
        }
    };
    // As the kubelet has it: who may use the volume may use what is made in it.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&volume)?.st_mode & 0o7777);
    let mut path = PathBuf::from(".");
    let mut parent = volume.try_clone()?;
    for name in relative.components() {
        path.push(name);
        parent = match find(&path)? {
            Some(found) => found,
            None => make_folder(&parent, name.as_os_str(), mode)?,
        };
    }
    Ok(relative.to_owned())
}

/// To name what is there.
const NAMED: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

fn make_folder(parent: &OwnedFd, name: &OsStr, mode: Mode) -> io::Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    // The mask of this process is not the volume's.
    rustix::fs::fchmod(&folder, mode)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

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
            mounts_of(&volume, list).map(|it| it[0].below.clone().unwrap())
        };
        assert_eq!(of("inside").unwrap(), Path::new("inside"));
        assert_eq!(of("new/folder").unwrap(), Path::new("new/folder"));
        assert!(volume.join("new/folder").is_dir());
        for path in ["../x", "/etc", "outside", "outside/new"] {
            of(path).unwrap_err();
        }
        assert!(!Path::new("/etc/new").exists());
    }
}
