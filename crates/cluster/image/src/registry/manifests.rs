//! Manifests and indexes: by tag or digest, put, deleted, and found by what they are about.

use http::{
    HeaderName, Method, Request, StatusCode,
    header::{CONTENT_TYPE, ETAG, LOCATION},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::{
    Registry,
    answer::{self, Answer, CONTENT_DIGEST, Failure},
    route::Query,
    uploads::blocking,
};
use crate::{
    Descriptor, Digest,
    image::{Document, kind_of},
    spec::{Compression, DOCUMENT_BYTES_MAX, Index, media},
    store::Named,
};

/// The header that says that a manifest's subject was understood.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// The header that says which filters were applied.
const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");

/// What a tag or a digest in a path is.
enum Name {
    Tag(String),
    Digest(Digest),
}

impl Name {
    fn parse(text: &str) -> Result<Self, Failure> {
        if text.contains(':') {
            return super::route::digest(text).map(Self::Digest);
        }
        Ok(Self::Tag(text.to_owned()))
    }
}

impl Registry {
    pub(super) async fn manifest(
        &self,
        request: Request<Incoming>,
        repository: &str,
        name: &str,
    ) -> Result<Answer, Failure> {
        let parsed = Name::parse(name)?;
        match *request.method() {
            Method::GET | Method::HEAD => self.get(repository, &parsed),
            Method::PUT => self.put(request, repository, parsed).await,
            Method::DELETE => self.delete(repository, &parsed),
            _ => Err(Failure::method("GET, HEAD, PUT, DELETE")),
        }
    }

    fn get(&self, repository: &str, name: &Name) -> Result<Answer, Failure> {
        let digest = self.digest_of(repository, name)?;
        let bytes = self.shared.store.document(&digest)?;
        let media_type = kind_of(&bytes).unwrap_or_else(|| media::MANIFEST.to_owned());
        let headers = [
            (CONTENT_TYPE, media_type),
            (CONTENT_DIGEST, digest.to_string()),
            (ETAG, format!("\"{digest}\"")),
        ];
        Ok(answer::bytes(StatusCode::OK, &headers, bytes))
    }

    /// What a tag stands for, or a digest if the repository has it: under a name, or in an index.
    fn digest_of(&self, repository: &str, name: &Name) -> Result<Digest, Failure> {
        let targets = self.targets(repository)?;
        if targets.is_empty() {
            return Err(Failure::not_found("NAME_UNKNOWN", format!("repository `{repository}`")));
        }
        let digest = match name {
            Name::Tag(tag) => {
                let wanted = self.reference(repository, tag)?.to_string();
                let found = targets.iter().find(|it| it.name == wanted);
                return found
                    .map(|it| it.target.digest)
                    .ok_or_else(|| Failure::not_found("MANIFEST_UNKNOWN", format!("tag `{tag}`")));
            }
            Name::Digest(digest) => *digest,
        };
        let named = targets.iter().any(|it| it.target.digest == digest);
        let in_index = |it: &Named| {
            let bytes = self.shared.store.document(&it.target.digest).ok()?;
            match Document::parse(&bytes)? {
                Document::Index(index) => {
                    Some(index.manifests.iter().any(|it| it.digest == digest))
                }
                Document::Manifest(_) => None,
            }
        };
        if named || targets.iter().any(|it| in_index(it).unwrap_or(false)) {
            return Ok(digest);
        }
        Err(Failure::not_found("MANIFEST_UNKNOWN", digest))
    }

    /// The names of a repository, with tags and without.
    pub(super) fn targets(&self, repository: &str) -> Result<Vec<Named>, Failure> {
        let prefix = format!("{}/{repository}", self.shared.host);
        let mut names = self.shared.store.list()?;
        names.retain(|it| {
            it.name.strip_prefix(&prefix).is_some_and(|it| it.starts_with([':', '@']))
        });
        Ok(names)
    }

    async fn put(
        &self,
        request: Request<Incoming>,
        repository: &str,
        name: Name,
    ) -> Result<Answer, Failure> {
        let header = request.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let media_type = header.map(|it| it.split(';').next().unwrap_or(it).trim().to_owned());
        let max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
        let body = Limited::new(request.into_body(), max).collect().await.map_err(|error| {
            let (status, code) = (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID");
            if error.is::<http_body_util::LengthLimitError>() {
                return Failure::new(status, code, format!("a manifest has at most {max} bytes"));
            }
            Failure::bad("MANIFEST_INVALID", error.to_string())
        })?;
        let bytes = body.to_bytes().to_vec();
        let digest = Digest::of(&bytes);
        if let Name::Digest(expected) = name
            && expected != digest
        {
            return Err(Failure::digest_invalid(format!("it has {digest}, not {expected}")));
        }
        let descriptor = self.check(&bytes, media_type)?;
        let subject = subject(&bytes);
        let reference = match &name {
            Name::Tag(tag) => self.reference(repository, tag)?,
            Name::Digest(digest) => self.reference_of(repository, digest)?,
        };
        let store = self.shared.store.clone();
        blocking(move || {
            // Until it has its name.
            let lease = store.lease()?;
            lease.hold([digest])?;
            store.put(&bytes)?;
            store.tag(&reference, &descriptor)
        })
        .await??;
        let mut headers = vec![
            (LOCATION, format!("/v2/{repository}/manifests/{digest}")),
            (CONTENT_DIGEST, digest.to_string()),
        ];
        headers.extend(subject.map(|it| (SUBJECT, it.digest.to_string())));
        Ok(answer::empty(StatusCode::CREATED, &headers))
    }

    /// A manifest is taken if it can be read and all that it refers to is here.
    fn check(&self, bytes: &[u8], said: Option<String>) -> Result<Descriptor, Failure> {
        let invalid = |message: String| Failure::bad("MANIFEST_INVALID", message);
        let digest = Digest::of(bytes);
        let document =
            Document::read(&digest, bytes).map_err(|error| invalid(error.to_string()))?;
        let kind = kind_of(bytes).unwrap_or_default();
        if let Some(said) = said.filter(|it| *it != kind) {
            return Err(invalid(format!("it is of type `{kind}`, and was sent as `{said}`")));
        }
        let parts = match document {
            Document::Index(index) => index.manifests,
            Document::Manifest(manifest) => {
                let mut parts = manifest.layers;
                // What is to be had from elsewhere need not be here.
                parts.retain(|it| {
                    it.urls.is_empty() || Compression::of_layer(&it.media_type).is_some()
                });
                parts.push(manifest.config);
                parts
            }
        };
        for part in parts {
            self.hold(part.digest)?;
            if self.shared.store.blob_size(&part.digest)?.is_none() {
                let message = format!("it refers to {}, which is not here", part.digest);
                return Err(Failure::bad("MANIFEST_BLOB_UNKNOWN", message));
            }
        }
        Ok(Descriptor::new(&kind, digest, bytes.len() as u64))
    }

    /// A tag goes; a digest goes with all its tags. Content is collected later.
    fn delete(&self, repository: &str, name: &Name) -> Result<Answer, Failure> {
        let gone: Vec<String> = match name {
            Name::Tag(tag) => vec![self.reference(repository, tag)?.to_string()],
            Name::Digest(digest) => {
                let targets = self.targets(repository)?;
                let same = targets.into_iter().filter(|it| it.target.digest == *digest);
                same.map(|it| it.name).collect()
            }
        };
        let mut any = false;
        for name in &gone {
            let reference = name.parse().map_err(|_| Failure::name_invalid(name))?;
            any |= self.shared.store.untag(&reference)?;
        }
        if !any {
            return Err(Failure::not_found("MANIFEST_UNKNOWN", "the manifest"));
        }
        Ok(answer::empty(StatusCode::ACCEPTED, &[]))
    }

    /// The manifests of a repository that are about another: signatures, lists of parts.
    pub(super) fn referrers(
        &self,
        method: &Method,
        repository: &str,
        digest: &Digest,
        query: &Query,
    ) -> Result<Answer, Failure> {
        if *method != Method::GET && *method != Method::HEAD {
            return Err(Failure::method("GET, HEAD"));
        }
        let wanted = query.get("artifactType");
        let mut found: Vec<Descriptor> = Vec::new();
        for named in self.targets(repository)? {
            let Ok(bytes) = self.shared.store.document(&named.target.digest) else {
                continue;
            };
            if subject(&bytes).is_none_or(|it| it.digest != *digest) {
                continue;
            }
            let descriptor = described(named.target, &bytes);
            let fits = wanted.is_none_or(|it| descriptor.artifact_type.as_deref() == Some(it));
            if fits && !found.iter().any(|it| it.digest == descriptor.digest) {
                found.push(descriptor);
            }
        }
        let index = serde_json::to_vec(&Index::of(found))
            .map_err(|error| Failure::bad("UNKNOWN", error.to_string()))?;
        let mut headers = vec![(CONTENT_TYPE, media::INDEX.to_owned())];
        headers.extend(wanted.map(|_| (FILTERS, "artifactType".to_owned())));
        Ok(answer::bytes(StatusCode::OK, &headers, index))
    }
}

/// What a manifest is about.
fn subject(bytes: &[u8]) -> Option<Descriptor> {
    match Document::parse(bytes)? {
        Document::Index(index) => index.subject,
        Document::Manifest(manifest) => manifest.subject,
    }
}

/// A descriptor with what the referrers API tells of a manifest.
fn described(mut target: Descriptor, bytes: &[u8]) -> Descriptor {
    match Document::parse(bytes) {
        Some(Document::Index(index)) => {
            target.artifact_type = index.artifact_type;
            target.annotations = index.annotations;
        }
        Some(Document::Manifest(manifest)) => {
            let config = manifest.config.media_type;
            target.artifact_type = manifest.artifact_type.or(Some(config));
            target.annotations = manifest.annotations;
        }
        None => {}
    }
    target
}
