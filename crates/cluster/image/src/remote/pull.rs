//! An image from a registry into the store.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use runtime::Backoff;

use super::{
    Client, credentials,
    download::{after, download, is_passing},
    error::{Error, Kind},
    hinted,
    keyring::{Credential, Keyring},
    registries::Endpoint,
    session::{Ask, Session},
    transport::local,
};
use crate::{
    ANNOTATION_PULLED, Descriptor, Digest, Image, ImageConfig, ImageError, Platform, Reference,
    Store,
    image::{
        Document, check_document_size, check_layer, check_platform, choose, kind_of, layers,
        parse_config,
    },
    progress::{Event, Progress},
    spec::{DOCUMENT_BYTES_MAX, Manifest, media},
    store::{self, Lease},
};

/// Layers at once: enough to fill a line where each connection is slow, as many as Docker's.
const LAYERS_AT_ONCE: usize = 3;

/// Indexes in one another.
const INDEX_DEPTH_MAX: usize = 4;

/// The header in which a registry says what it thinks a manifest's digest is.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What of an image is on its way.
struct Documents {
    /// Manifests and indexes with their bytes, the one asked for first.
    bytes: Vec<Vec<u8>>,
    target: Descriptor,
    manifest: Manifest,
}

impl Client {
    /// Brings an image into the store, and gives it its name. Content that is there is not transferred;
    /// if a tag still stands for what is here, nothing is.
    ///
    /// Mirrors are asked first, and credentials that fit are tried one after the other.
    ///
    /// # Errors
    ///
    /// [`Error`]; if several places were asked, that of the last one, which is the registry itself.
    pub async fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        keyring: &Keyring,
        progress: Progress<'_>,
    ) -> Result<Image, Error> {
        let work = Pull { client: self, store, reference, keyring, progress, noted: false };
        work.run().await.map_err(|kind| kind.of(reference))
    }

    /// The same for others than the user: whose credentials the image was given for is noted, for
    /// [`Credentials::admit`](crate::worker::Credentials::admit).
    ///
    /// # Errors
    ///
    /// As [`Client::pull`].
    pub async fn pull_for_others(
        &self,
        store: &Store,
        reference: &Reference,
        keyring: &Keyring,
        progress: Progress<'_>,
    ) -> Result<Image, Error> {
        let work = Pull { client: self, store, reference, keyring, progress, noted: true };
        work.run().await.map_err(|kind| kind.of(reference))
    }
}

#[derive(Clone, Copy)]
struct Pull<'a> {
    client: &'a Client,
    store: &'a Store,
    reference: &'a Reference,
    keyring: &'a Keyring,
    progress: Progress<'a>,
    /// Whether it is noted who may have it; else it is everybody's.
    noted: bool,
}

impl Pull<'_> {
    async fn run(self) -> Result<Image, Kind> {
        let endpoints =
            self.client.registries.endpoints(self.reference).map_err(|_| Kind::Blocked)?;
        let mut last = Kind::Blocked;
        for endpoint in endpoints {
            match self.from(&endpoint).await {
                Ok(image) => return Ok(image),
                Err(error) if error.is_ours() => return Err(error),
                Err(error) => {
                    if endpoint.mirror {
                        tracing::info!(mirror = endpoint.host, %error, "mirror does not give it");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    /// From one registry, with one credential after the other.
    async fn from(self, endpoint: &Endpoint) -> Result<Image, Kind> {
        let mut last = None;
        for credential in credentials(self.reference, endpoint, self.keyring) {
            match self.with(endpoint.clone(), credential).await {
                Err(error) if error.is_about_credentials() => last = Some(error),
                other => return other,
            }
        }
        Err(hinted(last.unwrap_or(Kind::Blocked), self.reference, self.keyring))
    }

    async fn with(self, endpoint: Endpoint, credential: Option<Credential>) -> Result<Image, Kind> {
        let transport = &self.client.transport;
        let open = || Session::open(transport, endpoint.clone(), credential.clone(), "pull");
        let session = open().await?;
        let credential = credential.as_ref();
        if let Some(image) = self.unchanged(&session, credential).await? {
            (self.progress)(Event::Present { part: image.target.digest.to_string() });
            return Ok(image);
        }
        let lease = self.store.lease()?;
        let documents = self.documents(&session, &lease).await?;
        let config = self.config(&session, &documents).await?;
        self.layers(&session, &lease, &documents, &config.1).await?;
        self.finish(documents, config.0, credential).await
    }

    /// The image that is here, if the tag still stands for it.
    async fn unchanged(
        self,
        session: &Session<'_>,
        credential: Option<&Credential>,
    ) -> Result<Option<Image>, Kind> {
        let here = match self.store.resolve(self.reference) {
            Ok(Some(here)) => here,
            Ok(None) | Err(ImageError::NoSuchPlatform { .. } | ImageError::Unusable { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let path = format!("manifests/{}", self.wanted());
        let headers = accept();
        let ask = Ask::of(Method::HEAD, &path, &headers);
        let answer = session.expect(&ask, &[StatusCode::OK]).await?;
        let said = answer.headers().get(CONTENT_DIGEST).and_then(|it| it.to_str().ok());
        if said != Some(here.target.digest.to_string().as_str()) {
            return Ok(None);
        }
        // A registry has it, wherever this one came from.
        let here = Image { target: pulled(here.target), ..here };
        if self.noted {
            let repository = self.reference.name();
            // To name a digest is easy: who claims to have what others were given is to show it.
            if !self.store.is_of(&here.id, &repository)? {
                return Ok(None);
            }
            let grant = self.keyring.grant(credential, &here.id, &repository);
            self.store.admit(&here.id, &repository, &grant, false)?;
            self.store.name(&self.name(), &here.target)?;
        } else {
            self.store.tag(&self.name(), &here.target)?;
        }
        Ok(Some(here))
    }

    /// What is asked for: the digest, or the tag.
    fn wanted(self) -> String {
        let digest = self.reference.digest().map(|it| it.to_string());
        digest.or_else(|| self.reference.tag().map(str::to_owned)).unwrap_or_default()
    }

    /// The name that the image gets: with a digest, the tag says nothing.
    fn name(self) -> Reference {
        match self.reference.digest() {
            Some(digest) => self.reference.with_digest(digest),
            None => self.reference.clone(),
        }
    }

    /// The manifest for this machine, and the indexes that lead to it.
    async fn documents(self, session: &Session<'_>, lease: &Lease) -> Result<Documents, Kind> {
        let digest = self.reference.digest();
        let bytes = self.manifest(session, &self.wanted(), digest, None).await?;
        let media_type = kind_of(&bytes).unwrap_or_default();
        let target = Descriptor::of(&media_type, &bytes);
        lease.hold([target.digest])?;
        let mut all = Vec::new();
        let (mut bytes, mut digest) = (bytes, target.digest);
        for _ in 0..INDEX_DEPTH_MAX {
            let document = Document::read(&digest, &bytes)?;
            all.push(bytes);
            let index = match document {
                Document::Index(index) => index,
                Document::Manifest(manifest) => {
                    let content = manifest.layers.iter().map(|it| it.digest);
                    lease.hold(content.chain([digest, manifest.config.digest]))?;
                    return Ok(Documents { bytes: all, target, manifest: *manifest });
                }
            };
            let chosen = choose(&target.digest, &index, &Platform::host())?;
            check_document_size(chosen)?;
            let (wanted, size) = (chosen.digest, chosen.size);
            bytes = self.manifest(session, &wanted.to_string(), Some(wanted), Some(size)).await?;
            digest = wanted;
        }
        let reason = format!("more than {INDEX_DEPTH_MAX} indexes in one another");
        Err(ImageError::Unusable { digest, reason }.into())
    }

    /// A manifest or index; tried again if that may help.
    async fn manifest(
        self,
        session: &Session<'_>,
        wanted: &str,
        digest: Option<Digest>,
        size: Option<u64>,
    ) -> Result<Vec<u8>, Kind> {
        let path = format!("manifests/{wanted}");
        let (bytes, said, media_type) = retrying(session, || self.fetch(session, &path)).await?;
        let registry = || session.registry().to_owned();
        let lied = |cause: String| Kind::Lied { registry: registry(), cause };
        let found = Digest::of(&bytes);
        if media_type.starts_with(media::DOCKER_SCHEMA_1)
            || media_type == media::DOCKER_SCHEMA_1_SIGNED
        {
            let reason =
                "the registry has it as a manifest of Docker's schema 1 only, which is no \
                          longer supported: push it again with a tool of this decade"
                    .to_owned();
            return Err(ImageError::Unusable { digest: found, reason }.into());
        }
        if let Some(expected) = digest.filter(|it| *it != found) {
            return Err(lied(store::Error::Digest { expected, found }.to_string()));
        }
        if said.is_some_and(|it| it != found.to_string()) {
            return Err(lied(format!("a manifest has digest {found}, and it says another")));
        }
        if let Some(expected) = size.filter(|it| *it != bytes.len() as u64) {
            let error = store::Error::Size { digest: found, expected, found: bytes.len() as u64 };
            return Err(lied(error.to_string()));
        }
        Ok(bytes)
    }

    async fn fetch(
        self,
        session: &Session<'_>,
        path: &str,
    ) -> Result<(Vec<u8>, Option<String>, String), Kind> {
        let headers = accept();
        let ask = Ask::of(Method::GET, path, &headers);
        let answer = session.expect(&ask, &[StatusCode::OK]).await?;
        let header = |name: &str| {
            let value = answer.headers().get(name).and_then(|it| it.to_str().ok());
            value.map(str::to_owned)
        };
        let (said, media_type) = (header(CONTENT_DIGEST), header(CONTENT_TYPE.as_str()));
        let max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
        let registry = session.registry();
        let bytes = session.transport().whole(registry, answer.into_body(), max).await?;
        // Other algorithms are not compared.
        let said = said.filter(|it| it.starts_with("sha256:"));
        Ok((bytes, said, media_type.unwrap_or_default()))
    }

    /// The configuration, after all that can be refused without it.
    async fn config(
        self,
        session: &Session<'_>,
        documents: &Documents,
    ) -> Result<(Vec<u8>, ImageConfig), Kind> {
        let Documents { manifest, target, .. } = documents;
        check_document_size(&manifest.config)?;
        for layer in &manifest.layers {
            check_layer(layer)?;
        }
        let descriptor = &manifest.config;
        download(session, self.store, descriptor, self.progress).await?;
        let bytes = self.store.document(&descriptor.digest)?;
        let config = parse_config(manifest, &bytes)?;
        check_platform(&target.digest, &config, &Platform::host())?;
        layers(manifest, &config)?;
        Ok((bytes, config))
    }

    async fn layers(
        self,
        session: &Session<'_>,
        lease: &Lease,
        documents: &Documents,
        config: &ImageConfig,
    ) -> Result<(), Kind> {
        // Unpacked layers of other images are as good.
        lease.hold(config.rootfs.diff_ids.iter().copied())?;
        let mut seen = BTreeSet::new();
        let once = documents.manifest.layers.iter().filter(|it| seen.insert(it.digest));
        let once: Vec<&Descriptor> = once.collect();
        let parts = once.iter().map(|it| (it.digest.to_string(), it.size)).collect();
        (self.progress)(Event::Layers { parts });
        stream::iter(once)
            .map(|layer| download(session, self.store, layer, self.progress))
            .buffer_unordered(LAYERS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Puts the documents into the store, and gives the image its name: now it is there.
    async fn finish(
        self,
        documents: Documents,
        config: Vec<u8>,
        credential: Option<&Credential>,
    ) -> Result<Image, Kind> {
        let (store, name) = (self.store.clone(), self.name());
        let (id, repository) = (documents.manifest.config.digest, self.reference.name());
        let grant = self.noted.then(|| self.keyring.grant(credential, &id, &repository));
        let finish = move || -> Result<Image, Kind> {
            store.put(&config)?;
            if let (Some(grant), Some(manifest)) = (&grant, documents.bytes.last()) {
                // Before the image is there; one that is there already came by the user's hand.
                let bring = store.blob_size(&Digest::of(manifest))?.is_none();
                store.admit(&id, &repository, grant, bring)?;
            }
            // The innermost first, so that what is there refers only to what is there.
            for bytes in documents.bytes.iter().rev() {
                store.put(bytes)?;
            }
            let target = pulled(documents.target);
            let image = Image::read(&store, &target, &Platform::host())?;
            match grant {
                Some(_) => store.name(&name, &target)?,
                None => store.tag(&name, &target)?,
            }
            Ok(image)
        };
        let done = tokio::task::spawn_blocking(finish).await;
        done.map_err(|error| local("write", std::io::Error::other(error)))?
    }
}

/// Tries again what may do better.
pub(crate) async fn retrying<T, F>(
    session: &Session<'_>,
    mut work: impl FnMut() -> F,
) -> Result<T, Kind>
where
    F: Future<Output = Result<T, Kind>>,
{
    let patience = session.transport().patience;
    let backoff = Backoff { base: patience.pause, max: std::time::Duration::from_secs(5) };
    let mut failures = 0;
    loop {
        match work().await {
            Err(error) if is_passing(&error) => {
                failures += 1;
                if failures >= patience.attempts {
                    return Err(after(error, failures));
                }
                tokio::time::sleep(backoff.delay(failures)).await;
            }
            other => return other,
        }
    }
}

/// Notes of an image that a registry has it under this name.
fn pulled(mut target: Descriptor) -> Descriptor {
    target.annotations.insert(ANNOTATION_PULLED.to_owned(), String::new());
    target
}

/// What kinds of manifest are understood.
fn accept() -> Vec<(http::header::HeaderName, String)> {
    [media::INDEX, media::DOCKER_INDEX, media::MANIFEST, media::DOCKER_MANIFEST]
        .map(|it| (ACCEPT, it.to_owned()))
        .to_vec()
}
