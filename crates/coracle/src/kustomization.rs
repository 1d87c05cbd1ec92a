//! A folder with a `kustomization.yaml`, as `coracle up` is given it: the door to its files. What it
//! means is the crate `kustomize`'s to say.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use anyhow::Context as _;
use apiserver::schema;
use kustomize::{FILE_BYTES_MAX, Field, Files, Schema};

use crate::manifest::Object;

/// Whether a folder is built, rather than its manifests applied as they are.
pub(crate) fn is_in(folder: &Path) -> bool {
    kustomize::NAMES.iter().any(|name| folder.join(name).is_file())
}

/// The objects that the folder is built into.
pub(crate) fn read(folder: &Path) -> anyhow::Result<Vec<Object>> {
    let name = folder.to_str().with_context(|| format!("`{}` is not UTF-8", folder.display()))?;
    let built = kustomize::build(&Disk, name, &Kinds)?;
    Ok(built.into_iter().map(|it| Object::of_file(it.value, &it.file)).collect())
}

struct Disk;

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let missing = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        };
        match fs::metadata(path) {
            Ok(it) if it.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut bytes = Vec::new();
        let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn is_folder(&self, path: &str) -> bool {
        Path::new(path).is_dir()
    }
}

/// The types that the API server knows.
struct Kinds;

impl Schema for Kinds {
    fn definition(&self, group: &str, version: &str, kind: &str) -> Option<&'static str> {
        schema::definition_of_kind(group, version, kind).map(|it| it.name)
    }

    fn field(&self, definition: &str, name: &str) -> Option<Field> {
        let field = schema::definition(definition)?.field(name)?;
        let patching = schema::patching(definition, name)?;
        let keys = field.list_keys.or(patching.merge_key).unwrap_or_default();
        Some(Field {
            merge: patching.merge,
            keys: keys.split(',').filter(|it| !it.is_empty()).collect(),
            definition: patching.definition,
            map: patching.map,
        })
    }
}
