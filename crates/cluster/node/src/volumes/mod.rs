//! A pod's volumes: folders of the machine that its containers mount.
//! <https://kubernetes.io/docs/concepts/storage/volumes/>
//!
//! Types: emptyDir, configMap, secret, hostPath. Others are refused by name. Sets up and tears
//! down; who mounts what into a container is [`mounts`]. Secrets are files in the pod's own folder,
//! which only the invoking user can read, like the store that they come from; they are not kept
//! off the disk.

mod atomic;
mod host_path;
mod memory;
pub(crate) mod mounts;
mod projection;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, Pod, SecretVolumeSource, Volume,
};

use crate::{environment::Objects, quantity};
use projection::{Files, ProjectionError, Selection};

/// Where a volume of the pod is on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Folder, or file for some hostPaths.
    pub path: PathBuf,
    /// Whether containers may only read it, whatever their mount says.
    pub read_only: bool,
}

/// A volume that cannot be set up: the message of a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {reason}")]
pub(crate) struct SetUpError {
    /// The volume.
    pub volume: String,
    /// Why, for users.
    pub reason: String,
}

/// What a pod's `fsGroup` may do with the files of volumes that cannot be written, as the kubelet
/// has it.
const GROUP_READS: u32 = 0o440;

/// Where the volumes of a pod live: its folder in the state folder.
#[must_use]
pub(crate) fn folder(pod_folder: &Path) -> PathBuf {
    pod_folder.join("volumes")
}

/// What volumes are made with.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    /// The pod's folder in the state folder.
    pub(crate) folder: &'a Path,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) now: Timestamp,
    /// The pod's `fsGroup`, as the group is called on the disk.
    pub(crate) group: Option<u32>,
}

/// Sets up every volume of `pod`. To be repeated when a ConfigMap or Secret has changed: what is
/// right already is not touched.
pub(crate) fn set_up(pod: &Pod, means: Means<'_>) -> Result<BTreeMap<String, Ready>, SetUpError> {
    let volumes = pod.spec.as_ref().and_then(|it| it.volumes.as_deref()).unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let Means { folder: pod_folder, objects, now, group } = means;
    let folder = folder(pod_folder);
    let maker = Maker { namespace, folder: &folder, objects, now, group };
    let mut result = BTreeMap::new();
    for volume in volumes {
        let ready = maker
            .set_up(volume)
            .map_err(|reason| SetUpError { volume: volume.name.clone(), reason })?;
        result.insert(volume.name.clone(), ready);
    }
    Ok(result)
}

/// Takes down what would stay mounted; contents of volumes on disk stay.
pub(crate) fn tear_down(pod_folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder(pod_folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        memory::unmount(&entry?.path())?;
    }
    Ok(())
}

struct Maker<'a> {
    namespace: &'a str,
    folder: &'a Path,
    objects: &'a dyn Objects,
    now: Timestamp,
    group: Option<u32>,
}

impl Maker<'_> {
    fn set_up(&self, volume: &Volume) -> Result<Ready, String> {
        let path = self.folder.join(&volume.name);
        if let Some(source) = &volume.empty_dir {
            empty_dir(&path, source, self.group)?;
            return Ok(Ready { path, read_only: false });
        }
        if let Some(source) = &volume.host_path {
            host_path::check(Path::new(&source.path), source.type_.as_deref().unwrap_or_default())?;
            return Ok(Ready { path: PathBuf::from(&source.path), read_only: false });
        }
        let mut files = if let Some(source) = &volume.config_map {
            self.config_map(source)?
        } else if let Some(source) = &volume.secret {
            self.secret(source)?
        } else {
            return Err(format!("volumes of type {} are not supported yet", type_of(volume)));
        };
        if self.group.is_some() {
            files.values_mut().for_each(|it| it.mode |= GROUP_READS);
        }
        atomic::write(&path, &files, self.now, self.group)
            .map_err(|error| format!("write `{}`: {error}", path.display()))?;
        Ok(Ready { path, read_only: true })
    }

    fn config_map(&self, source: &ConfigMapVolumeSource) -> Result<Files, String> {
        let optional = source.optional.unwrap_or_default();
        let mut data = BTreeMap::new();
        match self.objects.config_map(self.namespace, &source.name) {
            Some(object) => {
                let text = object.data.iter().flatten();
                data.extend(text.map(|(key, it)| (key.clone(), it.clone().into_bytes())));
                let binary = object.binary_data.iter().flatten();
                data.extend(binary.map(|(key, it)| (key.clone(), it.0.clone())));
            }
            None if optional => return Ok(Files::new()),
            None => return Err(format!("configmap \"{}\" not found", source.name)),
        }
        let items = source.items.as_deref();
        let selection = Selection { items, default_mode: source.default_mode, optional };
        projection::files(data, selection).map_err(|it: ProjectionError| it.to_string())
    }

    fn secret(&self, source: &SecretVolumeSource) -> Result<Files, String> {
        let optional = source.optional.unwrap_or_default();
        let name = source.secret_name.as_deref().unwrap_or_default();
        let data = match self.objects.secret(self.namespace, name) {
            Some(object) => {
                let data = object.data.iter().flatten();
                data.map(|(key, it)| (key.clone(), it.0.clone())).collect()
            }
            None if optional => return Ok(Files::new()),
            None => return Err(format!("secret \"{name}\" not found")),
        };
        let items = source.items.as_deref();
        let selection = Selection { items, default_mode: source.default_mode, optional };
        projection::files(data, selection).map_err(|it| it.to_string())
    }
}

/// A folder everybody in the pod may write to. On disk `sizeLimit` is not enforced (a kubelet evicts
/// pods over it); in memory it is the file system's size.
fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), String> {
    let failed = |error: io::Error| format!("make `{}`: {error}", path.display());
    fs::create_dir_all(path).map_err(failed)?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => {
            let limit = source.size_limit.as_ref().and_then(|it| quantity::units(&it.0));
            memory::mount(path, limit.filter(|it| *it != 0)).map_err(failed)?;
        }
        other => return Err(format!("emptyDir medium `{other}` is not supported yet")),
    }
    if group.is_some() {
        std::os::unix::fs::chown(path, None, group).map_err(failed)?;
    }
    // What is made in it belongs to the group as well, if there is one.
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// The name of the field that says what a volume is.
fn type_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut keys = value.as_object().into_iter().flat_map(serde_json::Map::keys);
    keys.find(|it| *it != "name").cloned().unwrap_or_else(|| "(none)".to_owned())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::environment::tests::Fixed;

    fn check(volume: Value, expected: &Expect) {
        let folder = tempfile::tempdir().unwrap();
        let pod = json!({ "metadata": { "namespace": "shop" },
            "spec": { "containers": [], "volumes": [volume] } });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let (folder_, now) = (folder.path(), Timestamp::UNIX_EPOCH);
        let means = Means { folder: folder_, objects: &Fixed, now, group: None };
        let text = match set_up(&pod, means) {
            Err(error) => format!("error: {error}\n"),
            Ok(volumes) => {
                let ready = &volumes["v"];
                let mut entries: Vec<String> = fs::read_dir(&ready.path)
                    .unwrap()
                    .map(|it| it.unwrap())
                    .filter(|it| !it.file_name().to_string_lossy().starts_with(".."))
                    .map(|it| {
                        let mode = fs::metadata(it.path()).unwrap().permissions().mode() & 0o777;
                        let text = fs::read(it.path()).unwrap();
                        let text = String::from_utf8_lossy(&text).into_owned();
                        format!("{} {mode:o} {text:?}\n", it.file_name().display())
                    })
                    .collect();
                entries.sort();
                format!("read only: {}\n{}", ready.read_only, entries.concat())
            }
        };
        expected.assert_eq(&text);
        tear_down(folder.path()).unwrap();
    }

    #[test]
    fn empty_dir_and_what_is_not_supported() {
        check(
            json!({ "name": "v", "emptyDir": {} }),
            &expect![[r#"
                read only: false
            "#]],
        );
        check(
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "x" } }),
            &expect![[r#"
                error: MountVolume.SetUp failed for volume "v" : volumes of type persistentVolumeClaim are not supported yet
            "#]],
        );
    }

    #[test]
    fn config_maps_and_secrets() {
        check(
            json!({ "name": "v", "configMap": { "name": "settings", "defaultMode": 0o440 } }),
            &expect![[r#"
                read only: true
                color 440 "blue"
                logo 440 "�PNG"
                size 440 "$(A)"
            "#]],
        );
        check(
            json!({ "name": "v", "secret": { "secretName": "keys",
                "items": [{ "key": "token", "path": "t", "mode": 0o400 }] } }),
            &expect![[r#"
                read only: true
                t 400 "s3cr3t"
            "#]],
        );
        check(
            json!({ "name": "v", "secret": { "secretName": "none", "optional": true } }),
            &expect![[r#"
                read only: true
            "#]],
        );
        check(
            json!({ "name": "v", "configMap": { "name": "none" } }),
            &expect![[r#"
                error: MountVolume.SetUp failed for volume "v" : configmap "none" not found
            "#]],
        );
    }

    #[test]
    fn host_paths_are_checked() {
        check(
            json!({ "name": "v", "hostPath": { "path": "/nowhere/at/all", "type": "Directory" } }),
            &expect![[r#"
                error: MountVolume.SetUp failed for volume "v" : hostPath type check failed: /nowhere/at/all is not a directory
            "#]],
        );
    }
}
