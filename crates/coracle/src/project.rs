//! `coracle.yaml`: what is only true on a developer's machine. The manifests beside it stay what
//! production gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use api::{
    annotation::Publish,
    link::{self, Link},
};
use serde::Deserialize;

use crate::own;

/// Name of the file, in the folder of the manifests.
pub(crate) const FILE_NAME: &str = "coracle.yaml";

/// The file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Project {
    /// Links from images to local source, by name.
    #[serde(default)]
    links: BTreeMap<String, LinkSource>,
    /// Ports of Services that are published on the host.
    #[serde(default)]
    publish: Vec<PublishSource>,
    /// Folder that relative paths count from: the one of the file.
    #[serde(skip)]
    folder: PathBuf,
    /// Links that come from elsewhere than the file, and need no build.
    #[serde(skip)]
    ready: BTreeMap<String, Link>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LinkSource {
    /// Image repository that the link stands in for, without tag.
    image: String,
    /// Folder of the source, relative to the file.
    #[serde(default)]
    directory: PathBuf,
    /// Command that builds it, run in `directory`.
    #[serde(default)]
    build: Vec<String>,
    /// What takes the place of the image's entry point.
    #[serde(default)]
    run: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PublishSource {
    service: String,
    #[serde(default)]
    namespace: Option<String>,
    port: u16,
    #[serde(default)]
    host_port: Option<u16>,
}

impl Project {
    /// One that is no file's: these links, and nothing published.
    pub(crate) fn of_links(ready: BTreeMap<String, Link>) -> Self {
        Self { ready, ..Self::default() }
    }

    /// Reads the file that goes with the manifests at `manifests`: in that folder, or beside that
    /// file. Without one, a project that links nothing.
    pub(crate) fn read(manifests: &Path) -> anyhow::Result<Self> {
        if manifests == Path::new("-") {
            return Ok(Self::default());
        }
        let folder = if manifests.is_dir() { Some(manifests) } else { manifests.parent() };
        let folder = folder.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let path = folder.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read `{}`", path.display())),
        };
        let folder = folder
            .canonicalize()
            .with_context(|| format!("find the folder of `{}`", path.display()))?;
        Self::parse(&path.display().to_string(), &text, folder)
    }

    fn parse(file: &str, text: &str, folder: PathBuf) -> anyhow::Result<Self> {
        let mut project: Self = match serde_saphyr::from_str(text) {
            Ok(project) => project,
            Err(error) => {
                let line = error.location().map_or(0, |it| it.line());
                bail!("{file}:{line}: {}", error.without_snippet());
            }
        };
        project.folder = folder;
        for (name, source) in &project.links {
            if link::repository(&source.image) != source.image {
                bail!(
                    "{file}: link `{name}`: image `{}` has a tag or digest; name the repository \
                     alone, as every tag of it is linked",
                    source.image
                );
            }
        }
        Ok(project)
    }

    /// The links as the cluster keeps them, by name. A `run` that begins with `coracle` is that command
    /// in `commands`, whatever `PATH` the container will have.
    pub(crate) fn links(&self, commands: &Path) -> anyhow::Result<BTreeMap<String, Link>> {
        let resolve = |(name, source): (&String, &LinkSource)| {
            let directory = self.folder.join(&source.directory);
            let directory = directory.canonicalize().with_context(|| {
                format!("find the folder `{}` of link `{name}`", directory.display())
            })?;
            let mut run = source.run.clone();
            if let Some(program) = run.first_mut().filter(|it| *it == own::COMMAND) {
                *program = commands.join(own::COMMAND).display().to_string();
            }
            let link = Link { image: source.image.clone(), directory, run };
            Ok((name.clone(), link))
        };
        let ready = self.ready.iter().map(|(name, link)| Ok((name.clone(), link.clone())));
        self.links.iter().map(resolve).chain(ready).collect()
    }

    /// The ports to publish of Service `name`.
    pub(crate) fn published(&self, namespace: &str, name: &str) -> Vec<Publish> {
        let of_service = self.publish.iter().filter(|it| {
            it.service == name && it.namespace.as_deref().unwrap_or("default") == namespace
        });
        let publish = |it: &PublishSource| Publish {
            host_port: it.host_port.unwrap_or(it.port),
            service_port: it.port,
        };
        of_service.map(publish).collect()
    }

    /// Forgets the links of the file. Returns their names.
    pub(crate) fn unlink(&mut self) -> Vec<String> {
        std::mem::take(&mut self.links).into_keys().collect()
    }

    /// Builds every link that says how, one after the other, telling `say` which. What the builds
    /// print goes to standard error.
    pub(crate) fn build(&self, mut say: impl FnMut(&str)) -> anyhow::Result<()> {
        // Links may share one build, which then builds them all.
        let mut built = BTreeSet::new();
        for (name, source) in &self.links {
            let Some((program, arguments)) = source.build.split_first() else { continue };
            if !built.insert((&source.directory, &source.build)) {
                continue;
            }
            say(&format!("building {name}: {}", source.build.join(" ")));
            let directory = self.folder.join(&source.directory);
            let status = Command::new(program)
                .args(arguments)
                .current_dir(&directory)
                .stdin(Stdio::null())
                .stdout(io::stderr())
                .status()
                .with_context(|| {
                    format!("start `{program}` in `{}` to build link `{name}`", directory.display())
                })?;
            if !status.success() {
                bail!("build of link `{name}` failed: `{}`: {status}", source.build.join(" "));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn refuse(text: &str, expected: Expect) {
        let error = Project::parse("coracle.yaml", text, PathBuf::from("/")).unwrap_err();
        expected.assert_eq(&error.to_string());
    }

    #[test]
    fn reads_links_and_ports() {
        let text = "links:\n  tmp: {image: team/app, directory: tmp, run: [./app]}\n\
                    publish:\n- {service: web, port: 80, hostPort: 8080}\n\
                    - {service: web, namespace: other, port: 81}\n";
        let project = Project::parse("coracle.yaml", text, PathBuf::from("/")).unwrap();
        let links = project.links(Path::new("/run/.default")).unwrap();
        assert_eq!(links["tmp"].directory, Path::new("/tmp"));
        assert!(links["tmp"].applies_to("team/app:v2"));
        let published = project.published("default", "web");
        assert_eq!(published, [Publish { host_port: 8080, service_port: 80 }]);
        assert_eq!(project.published("other", "web").len(), 1);
    }

    #[test]
    fn coracle_is_this_binary_as_first_word_only() {
        let text = "links:\n  queue: {image: q, directory: /tmp, run: [coracle, queue]}\n  \
                    other: {image: o, directory: /tmp, run: [echo, coracle]}\n";
        let project = Project::parse("coracle.yaml", text, PathBuf::from("/")).unwrap();
        let links = project.links(Path::new("/run/.default")).unwrap();
        assert_eq!(links["queue"].run, ["/run/.default/coracle", "queue"]);
        assert_eq!(links["other"].run, ["echo", "coracle"]);
    }

    #[test]
    fn refuses_tags_and_unknown_fields() {
        refuse(
            "links:\n  a: {image: app:v1}\n",
            expect![
                "coracle.yaml: link `a`: image `app:v1` has a tag or digest; name the repository alone, as every tag of it is linked"
            ],
        );
        let error = Project::parse("coracle.yaml", "link: {}\n", PathBuf::from("/")).unwrap_err();
        assert!(error.to_string().starts_with("coracle.yaml:1: "), "{error}");
    }
}
