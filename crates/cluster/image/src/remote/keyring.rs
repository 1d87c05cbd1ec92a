//! Credentials for registries: from the files of Docker and Podman, and from pull secrets, which have
//! the same form.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    Digest, Hasher, Reference,
    store::{Grant, Holder},
};

/// Largest file of credentials; a Secret of Kubernetes has at most 1 MiB.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Docker Hub's name in files of credentials: an address of times when it was the only one.
const DOCKER_HUB: [&str; 3] =
    ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Who to be at a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub user: String,
    /// What only they know.
    pub password: String,
    /// Instead of both: a token that the registry's token server takes (`identitytoken`).
    pub identity_token: Option<String>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Credentials by registry, and by part of a registry. What was added first is tried first among
/// those that fit equally well.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<Known>,
    helpers: Vec<(Pattern, String)>,
}

#[derive(Clone, Debug)]
struct Known {
    pattern: Pattern,
    credential: Credential,
    /// Where it was found, if it is not the user's own.
    origin: Option<String>,
}

/// What a credential is for: a host, where labels may be globs, and the beginning of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    host: String,
    path: String,
}

/// Why credentials cannot be read. Says nothing of what is in them.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Too large.
    #[error("more than {FILE_BYTES_MAX} bytes of credentials")]
    TooLarge,
    /// Not the form that Docker writes.
    #[error("no credentials as `docker login` writes them: {0}")]
    Form(String),
}

/// `~/.docker/config.json`, and a Secret's `.dockerconfigjson`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Keyring {
    /// Adds what a file has: `{"auths": {HOST: {"auth": BASE64}}}`.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn add_config(&mut self, bytes: &[u8]) -> Result<(), KeyringError> {
        self.add_file(bytes, None)
    }

    /// The same of a file that is not the user's: what is fetched with it is not everybody's. `origin`
    /// says where it was found, in words that stand for no other place.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn add_config_of(&mut self, origin: &str, bytes: &[u8]) -> Result<(), KeyringError> {
        self.add_file(bytes, Some(origin))
    }

    fn add_file(&mut self, bytes: &[u8], origin: Option<&str>) -> Result<(), KeyringError> {
        let file: File = parse(bytes)?;
        self.add_entries(file.auths.unwrap_or_default(), origin)?;
        for (host, helper) in file.cred_helpers.unwrap_or_default() {
            self.helpers.push((Pattern::parse(&host), helper));
        }
        if let Some(helper) = file.creds_store.filter(|it| !it.is_empty()) {
            self.helpers.push((Pattern::parse("*"), helper));
        }
        Ok(())
    }

    /// Adds what a Secret's `.dockercfg` has, the old form: `{HOST: {"auth": BASE64}}`.
    ///
    /// # Errors
    ///
    /// [`KeyringError`].
    pub fn add_legacy_config(&mut self, bytes: &[u8]) -> Result<(), KeyringError> {
        self.add_entries(parse(bytes)?, None)
    }

    /// Adds one for a registry, or for a part of it (`HOST/PATH`).
    pub fn add(&mut self, registry: &str, credential: Credential) {
        self.entries.push(Known { pattern: Pattern::parse(registry), credential, origin: None });
    }

    /// Who could fetch what was fetched with this credential, or without any.
    pub(crate) fn grant(
        &self,
        credential: Option<&Credential>,
        image: &Digest,
        repository: &str,
    ) -> Grant {
        let same: Vec<&Known> =
            self.entries.iter().filter(|it| Some(&it.credential) == credential).collect();
        if same.iter().any(|it| it.origin.is_none()) || credential.is_none() {
            return Grant::Everybody;
        }
        Grant::Holders(same.into_iter().filter_map(|it| it.holder(image, repository)).collect())
    }

    /// What of it is not the user's, as it is remembered of an image.
    pub(crate) fn holders(&self, image: &Digest, repository: &str) -> Vec<Holder> {
        self.entries.iter().filter_map(|it| it.holder(image, repository)).collect()
    }

    /// What may be tried for an image, best fit first: the longest path, then as added. None means to
    /// ask as nobody.
    #[must_use]
    pub fn of(&self, reference: &Reference) -> Vec<Credential> {
        let fits = |it: &&Known| it.pattern.fits(reference);
        let mut found: Vec<&Known> = self.entries.iter().filter(fits).collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.pattern.path.len()));
        let mut credentials: Vec<Credential> =
            found.into_iter().map(|it| it.credential.clone()).collect();
        credentials.dedup();
        credentials
    }

    /// The helper program that the user's files name for a registry. It is not run: the error that
    /// comes of it says so.
    pub(crate) fn helper(&self, reference: &Reference) -> Option<&str> {
        self.helpers.iter().find(|it| it.0.fits(reference)).map(|it| it.1.as_str())
    }

    fn add_entries(
        &mut self,
        entries: BTreeMap<String, Entry>,
        origin: Option<&str>,
    ) -> Result<(), KeyringError> {
        for (host, entry) in entries {
            // A helper leaves empty entries behind.
            if let Some(credential) = entry.credential()? {
                let (pattern, origin) = (Pattern::parse(&host), origin.map(str::to_owned));
                self.entries.push(Known { pattern, credential, origin });
            }
        }
        Ok(())
    }
}

impl Known {
    fn holder(&self, image: &Digest, repository: &str) -> Option<Holder> {
        let Credential { user, password, identity_token } = &self.credential;
        let token = identity_token.as_deref().unwrap_or_default();
        let mut hasher = Hasher::default();
        for part in [&image.to_string(), repository, user, password, token] {
            // No two lists of parts look the same.
            hasher.update(&part.len().to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Some(Holder { origin: self.origin.clone()?, credential: hasher.finish() })
    }
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, KeyringError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(KeyringError::TooLarge);
    }
    // The text of the parser's error may have parts of the content.
    let place = |error: serde_json::Error| {
        KeyringError::Form(format!("line {}, column {}", error.line(), error.column()))
    };
    serde_json::from_slice(bytes).map_err(place)
}

impl Entry {
    fn credential(self) -> Result<Option<Credential>, KeyringError> {
        let identity_token = self.identitytoken.filter(|it| !it.is_empty());
        let (user, password) = match (self.username, self.password, self.auth) {
            (Some(user), Some(password), _) if !user.is_empty() => (user, password),
            (_, _, Some(auth)) if !auth.is_empty() => decode(&auth)?,
            _ if identity_token.is_some() => (String::new(), String::new()),
            _ => return Ok(None),
        };
        Ok(Some(Credential { user, password, identity_token }))
    }
}

fn decode(auth: &str) -> Result<(String, String), KeyringError> {
    let wrong = || KeyringError::Form("`auth` is not base64 of USER:PASSWORD".to_owned());
    let bytes = STANDARD.decode(auth.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (user, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let text = bare.unwrap_or(text);
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        // The old addresses end in the version of the API.
        let path = path.trim_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let host = if DOCKER_HUB.contains(&host) { "docker.io" } else { host };
        Self { host: host.to_owned(), path: path.to_owned() }
    }

    fn fits(&self, reference: &Reference) -> bool {
        let path = self.path.split('/').filter(|it| !it.is_empty());
        let mut parts = reference.repository().split('/');
        host_fits(&self.host, reference.registry())
            && path.into_iter().all(|it| parts.next() == Some(it))
    }
}

/// Labels are compared one by one, as the kubelet does; the port must be the same.
fn host_fits(pattern: &str, host: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let split = |it: &str| -> (String, String) {
        let (host, port) = it.rsplit_once(':').unwrap_or((it, ""));
        (host.to_ascii_lowercase(), port.to_owned())
    };
    let ((pattern, pattern_port), (host, port)) = (split(pattern), split(host));
    let (patterns, labels) = (pattern.split('.'), host.split('.'));
    pattern_port == port
        && pattern.split('.').count() == host.split('.').count()
        && patterns.zip(labels).all(|(pattern, label)| glob(pattern, label))
}

/// `*` stands for any text within a label.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(begin) else {
        return false;
    };
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .any(|at| text.get(at..).is_some_and(|it| glob(rest, it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.of(&image.parse().unwrap()).into_iter().map(|it| it.user).collect()
    }

    #[test]
    fn docker_config() {
        let mut keyring = Keyring::default();
        let auth = STANDARD.encode("ann:pass:word");
        let text = format!(
            r#"{{"auths": {{
                "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "quay.io": {{"username": "bob", "password": "x"}},
                "quay.io/team": {{"username": "team", "password": "x"}},
                "*.azurecr.io": {{"username": "glob", "password": "x"}},
                "ghcr.io": {{}}
            }}, "credHelpers": {{"gcr.io": "gcloud"}}}}"#
        );
        keyring.add_config(text.as_bytes()).unwrap();
        assert_eq!(users(&keyring, "nginx"), ["ann"]);
        assert_eq!(keyring.of(&"nginx".parse().unwrap())[0].password, "pass:word");
        assert_eq!(users(&keyring, "quay.io/team/a"), ["team", "bob"]);
        assert_eq!(users(&keyring, "quay.io/teams/a"), ["bob"]);
        assert_eq!(users(&keyring, "x.azurecr.io/a"), ["glob"]);
        assert_eq!(users(&keyring, "x.y.azurecr.io/a").len(), 0);
        assert_eq!(users(&keyring, "quay.io:443/team/a").len(), 0);
        assert_eq!(users(&keyring, "ghcr.io/a").len(), 0);
        assert_eq!(keyring.helper(&"gcr.io/a".parse().unwrap()), Some("gcloud"));
    }

    #[test]
    fn errors_do_not_tell_what_is_in_the_file() {
        let mut keyring = Keyring::default();
        for text in
            [r#"{"auths": {"a": {"auth": "c2VjcmV0"}}}"#, r#"{"auths": "secret"}"#, "secret"]
        {
            let error = keyring.add_config(text.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("c2Vj"), "{error}");
        }
        keyring.add_legacy_config(br#"{"a.b": {"username": "u", "password": "p"}}"#).unwrap();
        assert_eq!(users(&keyring, "a.b/c"), ["u"]);
        assert_eq!(
            format!("{:?}", keyring.of(&"a.b/c".parse().unwrap())),
            r#"[Credential { user: "u", .. }]"#
        );
    }
}
