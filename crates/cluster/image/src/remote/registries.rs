//! Where registries really are: mirrors, and hosts that may be spoken to without TLS. Read from
//! `registries.conf` (version 2), which Podman, Skopeo, Buildah and CRI-O have too.

use serde::Deserialize;

use super::certificates::Folder;
use crate::Reference;

/// Largest configuration.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The API of Docker Hub.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// What is known of registries.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    entries: Vec<Entry>,
    insecure: Vec<String>,
    certificates: Vec<Folder>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// Too large.
    #[error("more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not TOML, or not of this form.
    #[error(transparent)]
    Form(#[from] toml::de::Error),
    /// The form of before 2020.
    #[error(
        "it is of version 1 (`[registries.search]`), which is not supported: write it as version 2"
    )]
    Version1,
}

#[derive(Clone, Debug, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Entry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Deserialize)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default, rename = "pull-from-mirror")]
    pull_from_mirror: String,
}

/// A place to get an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port of the API.
    pub(crate) host: String,
    /// The repository there.
    pub(crate) repository: String,
    /// Whether TLS may be left out, and certificates are not checked.
    pub(crate) insecure: bool,
    /// Whether it is a mirror: what is not there may be elsewhere.
    pub(crate) mirror: bool,
}

/// The configuration says that nothing is pulled from there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Blocked;

impl Registries {
    /// Adds the entries of a `registries.conf`; of two with the same prefix the later one counts.
    ///
    /// # Errors
    ///
    /// [`RegistriesError`].
    pub fn add_file(&mut self, text: &str) -> Result<(), RegistriesError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(RegistriesError::TooLarge);
        }
        let file: File = toml::from_str(text)?;
        if file.registries.is_some() {
            return Err(RegistriesError::Version1);
        }
        self.entries.extend(file.registry);
        Ok(())
    }

    /// Lets a host (`HOST` or `HOST:PORT`) be spoken to without TLS or with any certificate.
    pub fn add_insecure(&mut self, host: &str) {
        self.insecure.push(host.to_owned());
    }

    /// Adds what is set up for the TLS of registries; of two for the same host the earlier one counts.
    pub(crate) fn add_certificates(&mut self, folders: Vec<Folder>) {
        for folder in folders {
            if self.certificates.iter().all(|it| it.host != folder.host) {
                self.certificates.push(folder);
            }
        }
    }

    pub(crate) fn certificates(&self) -> &[Folder] {
        &self.certificates
    }

    /// The places for an image, in the order to try them; the registry itself is the last.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Blocked> {
        let name = reference.name();
        let prefixed = |it: &&Entry| it.rest(&name).is_some();
        // The longest prefix counts; the later of equal ones.
        let entry = self.entries.iter().filter(prefixed).max_by_key(|it| it.own_prefix().len());
        let Some(entry) = entry else {
            return Ok(vec![self.endpoint(&name, false, false)]);
        };
        if entry.blocked {
            return Err(Blocked);
        }
        let rest = entry.rest(&name).unwrap_or_default();
        let wanted = |it: &&Mirror| match it.pull_from_mirror.as_str() {
            "digest-only" => reference.digest().is_some(),
            "tag-only" => reference.digest().is_none(),
            _ => true,
        };
        let mirrors = entry.mirror.iter().filter(wanted);
        let mut endpoints: Vec<Endpoint> = mirrors
            .map(|it| self.endpoint(&format!("{}{rest}", it.location), it.insecure, true))
            .collect();
        let location = entry.location.as_ref().map(|it| format!("{it}{rest}"));
        endpoints.push(self.endpoint(&location.unwrap_or(name), entry.insecure, false));
        Ok(endpoints)
    }

    fn endpoint(&self, name: &str, insecure: bool, mirror: bool) -> Endpoint {
        let (host, repository) = name.split_once('/').unwrap_or((name, ""));
        let host = if host == "docker.io" { DOCKER_HUB_API } else { host };
        let insecure = insecure || is_loopback(host) || self.insecure.iter().any(|it| it == host);
        Endpoint { host: host.to_owned(), repository: repository.to_owned(), insecure, mirror }
    }
}

impl Entry {
    fn own_prefix(&self) -> &str {
        self.prefix.as_deref().or(self.location.as_deref()).unwrap_or_default()
    }

    /// What of a name follows the prefix, if it fits: `*.example.com` is any host below that.
    fn rest<'a>(&self, name: &'a str) -> Option<&'a str> {
        let prefix = self.own_prefix();
        if let Some(domain) = prefix.strip_prefix('*') {
            let host = name.split('/').next().unwrap_or_default();
            return host.ends_with(domain).then(|| name.get(host.len()..).unwrap_or_default());
        }
        let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

/// Whether a host is this machine by its name: nobody is in between.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|it| it.is_ascii_digit()) => bare,
        _ => host,
    };
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = bare.parse().ok();
    bare == "localhost"
        || bare.ends_with(".localhost")
        || address.is_some_and(|it| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, image: &str) -> Vec<String> {
        let mut registries = Registries::default();
        registries.add_file(text).unwrap();
        let show = |it: Endpoint| {
            let marks = [(it.insecure, " insecure"), (it.mirror, " mirror")];
            let marks: String = marks.iter().filter(|it| it.0).map(|it| it.1).collect();
            format!("{}/{}{marks}", it.host, it.repository)
        };
        match registries.endpoints(&image.parse().unwrap()) {
            Ok(found) => found.into_iter().map(show).collect(),
            Err(Blocked) => vec!["blocked".to_owned()],
        }
    }

    const FILE: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.test/hub"
        [[registry.mirror]]
        location = "digests.test"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "quay.io/team"
        location = "10.0.0.1:5000/other"
        insecure = true
        [[registry]]
        prefix = "*.bad.test"
        blocked = true
    "#;

    #[test]
    fn mirrors_come_first() {
        assert_eq!(
            check(FILE, "nginx"),
            ["mirror.test/hub/library/nginx mirror", "registry-1.docker.io/library/nginx"]
        );
        let digest = crate::Digest::of(b"");
        assert_eq!(
            check(FILE, &format!("nginx@{digest}"))[1],
            "digests.test/library/nginx insecure mirror"
        );
        assert_eq!(check(FILE, "quay.io/team/a"), ["10.0.0.1:5000/other/a insecure"]);
        assert_eq!(check(FILE, "quay.io/teams/a"), ["quay.io/teams/a"]);
        assert_eq!(check(FILE, "a.bad.test/a"), ["blocked"]);
    }

    #[test]
    fn only_this_machine_is_insecure_by_itself() {
        assert_eq!(check("", "localhost:5000/a"), ["localhost:5000/a insecure"]);
        assert_eq!(check("", "127.0.0.2:5000/a"), ["127.0.0.2:5000/a insecure"]);
        assert_eq!(check("", "[::1]:5000/a"), ["[::1]:5000/a insecure"]);
        assert_eq!(check("", "10.0.0.1:5000/a"), ["10.0.0.1:5000/a"]);
        assert_eq!(check("", "localhost.example.com/a"), ["localhost.example.com/a"]);
    }

    #[test]
    fn certificates_of_the_user_go_before_those_of_the_machine() {
        let (own, machine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in [own.path().join("a.test"), machine.path().join("a.test")] {
            std::fs::create_dir(path).unwrap();
        }
        let folders =
            |it: &tempfile::TempDir| super::super::certificates::folders(it.path()).unwrap();
        let mut registries = Registries::default();
        registries.add_certificates(folders(&own));
        registries.add_certificates(folders(&machine));
        assert_eq!(registries.certificates(), folders(&own));
    }

    #[test]
    fn the_old_form_is_refused_by_name() {
        let error = Registries::default().add_file("[registries.search]\nregistries = []");
        assert!(error.unwrap_err().to_string().contains("version 1"));
    }
}
