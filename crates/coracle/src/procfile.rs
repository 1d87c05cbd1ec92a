//! A Procfile as `coracle up` is given it: which file that is, and what lies beside it. What it means is
//! the crate `compose`'s to say.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use compose::{Application, Procfile, Variables};

use crate::{
    kustomization,
    manifest::{self, Object},
    project::Project,
};

/// The file's name; another may follow after a dot, as in `Procfile.dev`.
const NAME: &str = "Procfile";

/// Name of the file beside it with variables for all processes.
const VARIABLES: &str = ".env";

/// The Procfile that `path` means: that file, or the one of that folder if it has no manifests. None if
/// it means manifests.
pub(crate) fn find(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !path.is_dir() {
        return Ok(is_procfile(path).then(|| path.to_owned()));
    }
    let file = path.join(NAME);
    let manifests = kustomization::is_in(path) || !manifest::files(path)?.is_empty();
    Ok((file.is_file() && !manifests).then_some(file))
}

fn is_procfile(file: &Path) -> bool {
    let name = file.file_name().and_then(|it| it.to_str()).unwrap_or_default();
    let rest = name.strip_prefix(NAME);
    rest.is_some_and(|it| it.is_empty() || it.starts_with('.')) && !manifest::is_manifest(file)
}

/// Reads the Procfile and what is beside it: a Deployment a process, and the link that they run by.
pub(crate) fn read(file: &Path) -> anyhow::Result<(Vec<Object>, Project)> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file).with_context(|| format!("read `{name}`"))?;
    let procfile = Procfile::parse(&name, &text)?;
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let variables = variables(&folder.join(VARIABLES))?;
    let folder = folder.canonicalize().with_context(|| format!("find the folder of `{name}`"))?;
    let Application { objects, links } = compose::from_procfile(&procfile, &variables, &folder)?;
    let object = |it: compose::Object| Object::of_line(it.value, &name, it.line);
    Ok((objects.into_iter().map(object).collect(), Project::of_links(links)))
}

fn variables(file: &Path) -> anyhow::Result<Variables> {
    let name = file.display().to_string();
    match fs::read_to_string(file) {
        Ok(text) => Ok(Variables::parse(&name, &text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Variables::default()),
        Err(error) => Err(error).with_context(|| format!("read `{name}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in files {
            fs::write(folder.path().join(name), "web: node web.js\n").unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_with_manifests_means_those() {
        let found = |files: &[&str], name: &str| {
            let folder = folder(files);
            let found = find(&folder.path().join(name)).unwrap();
            found.map(|it| it.strip_prefix(folder.path()).unwrap().display().to_string())
        };
        assert_eq!(found(&["Procfile"], "").as_deref(), Some("Procfile"));
        assert_eq!(found(&["Procfile", "coracle.yaml"], "").as_deref(), Some("Procfile"));
        assert_eq!(found(&["Procfile", "web.yaml"], ""), None);
        assert_eq!(found(&["Procfile.dev"], ""), None);
        assert_eq!(found(&["Procfile", "web.yaml"], "Procfile").as_deref(), Some("Procfile"));
        assert_eq!(found(&["Procfile.dev"], "Procfile.dev").as_deref(), Some("Procfile.dev"));
        assert_eq!(found(&["Procfile.yaml"], "Procfile.yaml"), None);
        assert_eq!(found(&["web.yaml"], "web.yaml"), None);
        assert_eq!(find(Path::new("-")).unwrap(), None);
    }

    #[test]
    fn variables_beside_it_are_read() {
        let folder = folder(&["Procfile"]);
        fs::write(folder.path().join(VARIABLES), "A=1\nnothing\n").unwrap();
        let file = folder.path().join("Procfile");
        let error = read(&file).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{}/.env:2: `nothing` is not `NAME=VALUE`", folder.path().display())
        );
        fs::write(folder.path().join(VARIABLES), "A=1\n").unwrap();
        let (objects, project) = read(&file).unwrap();
        assert_eq!(objects[0].place("spec"), format!("{}:1", file.display()));
        assert!(objects[0].value.to_string().contains(r#"{"name":"A","value":"1"}"#));
        let links = project.links(Path::new("/commands")).unwrap();
        let link = links.values().next().unwrap();
        assert_eq!(link.directory, folder.path().canonicalize().unwrap());
    }
}
