//! Names of images, by the grammar of the distribution project: `nginx` is
//! `docker.io/library/nginx:latest`.

use std::{fmt, str::FromStr};

use crate::Digest;

/// The registry of names without one.
const DEFAULT_REGISTRY: &str = "docker.io";
/// What Docker Hub calls images of nobody.
const OFFICIAL: &str = "library";
/// The tag of names without tag and digest.
const DEFAULT_TAG: &str = "latest";
/// Longest repository, as distribution has it (`RepositoryNameTotalLengthMax`).
const REPOSITORY_LENGTH_MAX: usize = 255;
/// Longest tag, as distribution has it.
const TAG_LENGTH_MAX: usize = 128;
/// Longest host with port: a DNS name has at most 253 characters, and a port 5.
const REGISTRY_LENGTH_MAX: usize = 260;
/// Longest text that is looked at: all parts at their longest.
const LENGTH_MAX: usize = REGISTRY_LENGTH_MAX + REPOSITORY_LENGTH_MAX + TAG_LENGTH_MAX + 80;

/// The name of an image. There is a tag, or a digest, or both; with both the digest decides.
///
/// Displayed in full; [`Reference::familiar`] is the short form that people write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not the name of an image: the reason `InvalidImageName` of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name `{text}`: {reason}")]
pub struct Error {
    /// What was given, at most as long as any name may be.
    pub text: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Some part has too many characters.
    #[error("its {0} has more than {1} characters")]
    TooLong(&'static str, usize),
    /// The part before the first `/`.
    #[error("`{0}` is not a host name with or without a port")]
    Registry(String),
    /// A part between slashes.
    #[error(
        "repository `{0}` may only have lower-case letters and digits, with single `.`, `_`, `__` or \
         dashes between them"
    )]
    Repository(String),
    /// Lower case would do.
    #[error("repository `{0}` must be lower case")]
    UpperCase(String),
    /// After the last `:`.
    #[error(
        "tag `{0}` may only have letters, digits, `_`, `.` and `-`, and begins with none of the last two"
    )]
    Tag(String),
    /// After `@`.
    #[error(transparent)]
    Digest(#[from] crate::digest::Error),
    /// A digest alone names nothing that could be pulled.
    #[error("64 hexadecimal digits are an id, not a name")]
    Id,
}

impl Reference {
    /// Host, and port if one is given: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    #[must_use]
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether the tag is `latest`, or was left out, and no digest is given: what Kubernetes pulls
    /// always if nothing is said.
    #[must_use]
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref() == Some(DEFAULT_TAG)
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    ///
    /// [`Reason::Tag`] or [`Reason::TooLong`] for what is not a tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, Error> {
        let tag = parse_tag(tag).map_err(|reason| Error { text: cut(tag), reason })?;
        Ok(Self { tag: Some(tag), digest: None, ..self.clone() })
    }

    /// The short form that people write: without Docker Hub and the folder of its official images; a
    /// tag `latest` stays.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        if self.registry != DEFAULT_REGISTRY {
            return full;
        }
        let official = self.repository.strip_prefix(OFFICIAL).and_then(|it| it.strip_prefix('/'));
        let short = format!("{}{}", official.unwrap_or(&self.repository), self.suffix());
        // Docker Hub's `localhost/a` would be read as something else.
        if short.parse().as_ref() == Ok(self) { short } else { full }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.iter().map(|it| format!(":{it}"));
        tag.chain(self.digest.iter().map(|it| format!("@{it}"))).collect()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|reason| Error { text: cut(text), reason })
    }
}

fn parse(text: &str) -> Result<Reference, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() > LENGTH_MAX {
        return Err(Reason::TooLong("text", LENGTH_MAX));
    }
    if Digest::from_hex(text).is_ok() {
        return Err(Reason::Id);
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        None => (text, None),
    };
    // A colon after the last slash begins a tag; before it, a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(parse_tag(tag)?)),
        _ => (rest, None),
    };
    let (registry, repository) = split_registry(name);
    check_registry(registry)?;
    let mut repository = repository.to_owned();
    if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
        repository = format!("{OFFICIAL}/{repository}");
    }
    check_repository(&repository)?;
    let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The first part is a registry if it looks like a host: else it is a folder of Docker Hub.
fn split_registry(name: &str) -> (&str, &str) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, name);
    };
    let upper = first.chars().any(|it| it.is_ascii_uppercase());
    if first == "index.docker.io" {
        (DEFAULT_REGISTRY, rest)
    } else if first.contains(['.', ':']) || first == "localhost" || upper {
        (first, rest)
    } else {
        (DEFAULT_REGISTRY, name)
    }
}

fn check_registry(text: &str) -> Result<(), Reason> {
    let refused = || Err(Reason::Registry(text.to_owned()));
    if text.len() > REGISTRY_LENGTH_MAX {
        return Err(Reason::TooLong("registry", REGISTRY_LENGTH_MAX));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|it| it.starts_with('+') || it.parse::<u16>().is_err()) {
        return refused();
    }
    if let Some(literal) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        return if literal.parse::<std::net::Ipv6Addr>().is_ok() { Ok(()) } else { refused() };
    }
    let is_label = |it: &str| {
        let edges = !it.is_empty() && !it.starts_with('-') && !it.ends_with('-');
        edges && it.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    if host.split('.').all(is_label) { Ok(()) } else { refused() }
}

fn check_repository(text: &str) -> Result<(), Reason> {
    if text.len() > REPOSITORY_LENGTH_MAX {
        return Err(Reason::TooLong("repository", REPOSITORY_LENGTH_MAX));
    }
    if text.split('/').all(is_path_component) {
        return Ok(());
    }
    let text = text.to_owned();
    if text.to_ascii_lowercase().split('/').all(is_path_component) {
        return Err(Reason::UpperCase(text));
    }
    Err(Reason::Repository(text))
}

/// Letters and digits with separators between: one `.`, one or two `_`, any number of dashes.
fn is_path_component(text: &str) -> bool {
    let is_word = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
    let mut separator = Vec::new();
    let mut seen_word = false;
    for byte in text.bytes() {
        if !is_word(byte) {
            separator.push(byte);
            continue;
        }
        let allowed = match separator.as_slice() {
            [] | b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|it| *it == b'-'),
        };
        if !allowed || (!seen_word && !separator.is_empty()) {
            return false;
        }
        separator.clear();
        seen_word = true;
    }
    seen_word && separator.is_empty()
}

fn parse_tag(text: &str) -> Result<String, Reason> {
    if text.len() > TAG_LENGTH_MAX {
        return Err(Reason::TooLong("tag", TAG_LENGTH_MAX));
    }
    let is_word = |it: u8| it.is_ascii_alphanumeric() || it == b'_';
    let begins = text.bytes().next().is_some_and(is_word);
    if begins && text.bytes().all(|it| is_word(it) || it == b'.' || it == b'-') {
        return Ok(text.to_owned());
    }
    Err(Reason::Tag(text.to_owned()))
}

fn cut(text: &str) -> String {
    text.chars().take(LENGTH_MAX).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Expect) {
        let shown = match text.parse::<Reference>() {
            Ok(it) => format!("{it} = {}", it.familiar()),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed() {
        check("nginx", expect!["docker.io/library/nginx:latest = nginx:latest"]);
        check("ann/web:1.2", expect!["docker.io/ann/web:1.2 = ann/web:1.2"]);
        check("index.docker.io/nginx", expect!["docker.io/library/nginx:latest = nginx:latest"]);
        check("docker.io/a", expect!["docker.io/library/a:latest = a:latest"]);
        check("localhost/a", expect!["localhost/a:latest = localhost/a:latest"]);
        check(
            "localhost:5000/a/b",
            expect!["localhost:5000/a/b:latest = localhost:5000/a/b:latest"],
        );
        check("[::1]:5000/a:b", expect!["[::1]:5000/a:b = [::1]:5000/a:b"]);
        check("HOST/a", expect!["HOST/a:latest = HOST/a:latest"]);
        check("a:5000", expect!["docker.io/library/a:5000 = a:5000"]);
    }

    #[test]
    fn digests_stand_beside_tags() {
        let name = format!("quay.io/a/b:1@sha256:{HEX}");
        let parsed: Reference = name.parse().unwrap();
        assert_eq!(parsed.to_string(), name);
        assert_eq!(parsed.tag(), Some("1"));
        assert!(!parsed.is_latest());
        let parsed: Reference = format!("b@sha256:{HEX}").parse().unwrap();
        assert_eq!((parsed.tag(), parsed.is_latest()), (None, false));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", expect!["invalid image name ``: it is empty"]);
        check(
            "Nginx",
            expect!["invalid image name `Nginx`: repository `library/Nginx` must be lower case"],
        );
        check(
            "a b",
            expect![
                "invalid image name `a b`: repository `library/a b` may only have lower-case letters and digits, with single `.`, `_`, `__` or dashes between them"
            ],
        );
        check(
            "a___b",
            expect![
                "invalid image name `a___b`: repository `library/a___b` may only have lower-case letters and digits, with single `.`, `_`, `__` or dashes between them"
            ],
        );
        check(
            "a:-b",
            expect![
                "invalid image name `a:-b`: tag `-b` may only have letters, digits, `_`, `.` and `-`, and begins with none of the last two"
            ],
        );
        check(
            "a.b:99999/c",
            expect![
                "invalid image name `a.b:99999/c`: `a.b:99999` is not a host name with or without a port"
            ],
        );
        check(
            "-a.b/c",
            expect![
                "invalid image name `-a.b/c`: `-a.b` is not a host name with or without a port"
            ],
        );
        check(
            "a@sha256:12",
            expect![
                "invalid image name `a@sha256:12`: digest `sha256:12` has not 64 lower-case hexadecimal digits"
            ],
        );
        check(
            "a/",
            expect![
                "invalid image name `a/`: repository `a/` may only have lower-case letters and digits, with single `.`, `_`, `__` or dashes between them"
            ],
        );
        check(
            HEX,
            expect![
                "invalid image name `e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`: 64 hexadecimal digits are an id, not a name"
            ],
        );
        check(
            "https://a.b/c",
            expect![
                "invalid image name `https://a.b/c`: `https:` is not a host name with or without a port"
            ],
        );
        assert!("a".repeat(300).parse::<Reference>().is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_the_same_when_shown(text in "[a-zA-Z0-9._/:@\\[\\]-]{0,40}") {
            if let Ok(parsed) = text.parse::<Reference>() {
                prop_assert_eq!(&parsed.to_string().parse::<Reference>().unwrap(), &parsed);
                prop_assert_eq!(&parsed.familiar().parse::<Reference>().unwrap(), &parsed);
            }
        }

        #[test]
        fn grammar_is_accepted(
            host in "[a-z0-9]{1,5}\\.[a-z0-9]{1,5}(:[1-9][0-9]{1,3})?/",
            path in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?",
        ) {
            let text = format!("{host}{path}{tag}");
            prop_assert!(text.parse::<Reference>().is_ok(), "{}", text);
        }

        #[test]
        fn nothing_panics(text in ".{0,200}") {
            drop(text.parse::<Reference>());
        }
    }
}
