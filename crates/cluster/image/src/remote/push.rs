//! An image from the store to a registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use http_body_util::BodyExt as _;

use super::{
    Client, credentials,
    error::{Error, Kind},
    hinted,
    keyring::{Credential, Keyring},
    pull::retrying,
    registries::Endpoint,
    session::{Ask, Session},
    transport::{Body, full},
};
use crate::{
    Descriptor, Digest, Image, ImageError, Platform, Reference, Store,
    image::Document,
    outgoing::FileBody,
    progress::{Event, Progress},
};

/// Blobs at once, as with a pull.
const BLOBS_AT_ONCE: usize = 3;

/// Repositories of the same registry that a push may take layers from: each is named when a token is asked
/// for, and most images share layers with one or two.
const SOURCES_MAX: usize = 8;

/// How often it is said how far an upload is.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// What goes to the registry, each after what it refers to.
#[derive(Default)]
struct Parcel {
    blobs: Vec<Descriptor>,
    manifests: Vec<(Descriptor, Vec<u8>)>,
}

impl Client {
    /// Brings an image of the store to a registry, under the name `to`. What the registry has is not
    /// transferred, be it in another repository, as far as images here say so by their names. Of an index of which only some images are here, the one for this machine goes.
    ///
    /// Gives the digest by which the registry has it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn push(
        &self,
        store: &Store,
        image: &Image,
        to: &Reference,
        keyring: &Keyring,
        progress: Progress<'_>,
    ) -> Result<Digest, Error> {
        let work = Push { client: self, store, to, keyring, progress };
        work.run(image).await.map_err(|kind| kind.of(to))
    }
}

#[derive(Clone, Copy)]
struct Push<'a> {
    client: &'a Client,
    store: &'a Store,
    to: &'a Reference,
    keyring: &'a Keyring,
    progress: Progress<'a>,
}

impl Push<'_> {
    async fn run(self, image: &Image) -> Result<Digest, Kind> {
        let lease = self.store.lease()?;
        lease.hold([image.target.digest, image.manifest])?;
        let parcel = self.parcel(image)?;
        let endpoints = self.client.registries.endpoints(self.to).map_err(|_| Kind::Blocked)?;
        // Nothing is pushed to mirrors.
        let endpoint = endpoints.into_iter().next_back().ok_or(Kind::Blocked)?;
        let mut last = None;
        for credential in credentials(self.to, &endpoint, self.keyring) {
            match self.with(endpoint.clone(), credential, &parcel).await {
                Err(error) if error.is_about_credentials() => last = Some(error),
                Err(error) => return Err(error),
                Ok(digest) => return Ok(digest),
            }
        }
        Err(hinted(last.unwrap_or(Kind::Blocked), self.to, self.keyring))
    }

    /// All of the target if all is here, else the image for this machine.
    fn parcel(self, image: &Image) -> Result<Parcel, Kind> {
        let mut parcel = Parcel::default();
        match self.collect(&image.target.digest, &mut parcel) {
            Err(Kind::Store(crate::store::Error::NoBlob(_)))
                if image.manifest != image.target.digest =>
            {
                parcel = Parcel::default();
                self.collect(&image.manifest, &mut parcel)?;
            }
            other => other?,
        }
        let mut seen = BTreeSet::new();
        parcel.blobs.retain(|it| seen.insert(it.digest));
        Ok(parcel)
    }

    fn collect(self, digest: &Digest, parcel: &mut Parcel) -> Result<(), Kind> {
        let bytes = self.store.document(digest)?;
        match Document::read(digest, &bytes)? {
            Document::Index(index) => {
                for child in &index.manifests {
                    self.collect(&child.digest, parcel)?;
                }
            }
            Document::Manifest(manifest) => {
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    if self.store.blob_size(&part.digest)? != Some(part.size) {
                        return Err(crate::store::Error::NoBlob(part.digest).into());
                    }
                    parcel.blobs.push(part.clone());
                }
            }
        }
        let found = self.store.descriptor_of(digest)?;
        let descriptor = found.ok_or(crate::store::Error::NoBlob(*digest))?;
        parcel.manifests.push((descriptor, bytes));
        Ok(())
    }

    async fn with(
        self,
        endpoint: Endpoint,
        credential: Option<Credential>,
        parcel: &Parcel,
    ) -> Result<Digest, Kind> {
        let transport = &self.client.transport;
        let sources = &self.sources(&endpoint, parcel)?;
        let mut session = Session::open(transport, endpoint, credential, "pull,push").await?;
        session.also_pull(sources.values());
        let session = &session;
        stream::iter(&parcel.blobs)
            .map(|blob| {
                let source = sources.get(&blob.digest).map(String::as_str);
                retrying(session, move || self.blob(session, blob, source))
            })
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<()>()
            .await?;
        let mut last = None;
        for (index, (descriptor, bytes)) in parcel.manifests.iter().enumerate() {
            let is_last = index + 1 == parcel.manifests.len();
            let tag = self.to.tag().filter(|_| is_last).map(str::to_owned);
            let name = tag.unwrap_or_else(|| descriptor.digest.to_string());
            retrying(session, || self.manifest(session, descriptor, bytes, &name)).await?;
            last = Some(descriptor.digest);
        }
        let nothing = || ImageError::Unusable {
            digest: Digest::of(b""),
            reason: format!("there is nothing in it for {}", Platform::host()),
        };
        last.ok_or_else(|| nothing().into())
    }

    /// In which other repository of the registry a blob may be: of what is here by a name there, some was
    /// pulled from it or pushed to it.
    fn sources(self, to: &Endpoint, parcel: &Parcel) -> Result<BTreeMap<Digest, String>, Kind> {
        let wanted: BTreeSet<Digest> = parcel.blobs.iter().map(|it| it.digest).collect();
        let (mut sources, mut repositories) = (BTreeMap::new(), BTreeSet::new());
        for named in self.store.list()? {
            let Ok(reference) = named.name.parse::<Reference>() else { continue };
            let from = self.client.registries.endpoints(&reference).ok();
            let from = from.and_then(|it| it.into_iter().next_back());
            let Some(from) = from.filter(|it| it.host == to.host && it.repository != to.repository)
            else {
                continue;
            };
            if !repositories.contains(&from.repository) && repositories.len() == SOURCES_MAX {
                continue;
            }
            let mut of_image = Parcel::default();
            // What is not here in full may be there, or not: it is left out.
            if self.collect(&named.target.digest, &mut of_image).is_err() {
                continue;
            }
            for blob in of_image.blobs.iter().filter(|it| wanted.contains(&it.digest)) {
                repositories.insert(from.repository.clone());
                sources.entry(blob.digest).or_insert_with(|| from.repository.clone());
            }
        }
        Ok(sources)
    }

    async fn blob(
        self,
        session: &Session<'_>,
        blob: &Descriptor,
        source: Option<&str>,
    ) -> Result<(), Kind> {
        let part = blob.digest.to_string();
        let path = format!("blobs/{part}");
        let ask = Ask::of(Method::HEAD, &path, &[]);
        let answer = session.send(&ask).await?;
        match answer.status() {
            StatusCode::OK => {
                (self.progress)(Event::Present { part });
                return Ok(());
            }
            StatusCode::NOT_FOUND => {}
            _ => return Err(session.refusal(&ask, answer).await),
        }
        let path = match source {
            Some(from) => {
                format!("blobs/uploads/?{}", super::auth::form(&[("mount", &part), ("from", from)]))
            }
            None => "blobs/uploads/".to_owned(),
        };
        let ask = Ask::of(Method::POST, &path, &[]);
        // A registry that has it elsewhere is done; all others begin an upload.
        let answer = session.expect(&ask, &[StatusCode::ACCEPTED, StatusCode::CREATED]).await?;
        if answer.status() == StatusCode::CREATED && source.is_some() {
            (self.progress)(Event::Present { part });
            return Ok(());
        }
        let place = answer.headers().get(LOCATION).and_then(|it| it.to_str().ok());
        let place = place.ok_or_else(|| Kind::Lied {
            registry: session.registry().to_owned(),
            cause: "it takes an upload and does not say where".to_owned(),
        })?;
        let joint = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{joint}{}", super::auth::form(&[("digest", &part)]));
        self.upload(session, blob, &place).await?;
        (self.progress)(Event::Finished { part });
        Ok(())
    }

    async fn upload(
        self,
        session: &Session<'_>,
        blob: &Descriptor,
        place: &str,
    ) -> Result<(), Kind> {
        let file = self.store.blob(&blob.digest)?;
        let taken = Arc::new(AtomicU64::new(0));
        let body = || -> Body {
            taken.store(0, Ordering::Relaxed);
            match file.try_clone() {
                Ok(file) => FileBody::new(file, 0, blob.size, Arc::clone(&taken)).boxed(),
                // Too short, so the request fails; the next one may have a descriptor again.
                Err(_) => full(""),
            }
        };
        let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned())];
        let ask = Ask { method: Method::PUT, path: place, headers: &headers, body: &body };
        let sent = session.expect(&ask, &[StatusCode::CREATED]);
        let mut sent = std::pin::pin!(sent);
        let stall = session.transport().patience.stall;
        let (mut before, mut quiet) = (0, Duration::ZERO);
        loop {
            let done = tokio::time::timeout(SHOWN_EVERY, &mut sent).await;
            let now = taken.load(Ordering::Relaxed);
            let (part, total) = (blob.digest.to_string(), Some(blob.size));
            (self.progress)(Event::Advanced { part, done: now, total });
            if let Ok(answer) = done {
                return answer.map(drop);
            }
            quiet = if now == before { quiet + SHOWN_EVERY } else { Duration::ZERO };
            before = now;
            if quiet > stall {
                let registry = session.registry().to_owned();
                return Err(Kind::Stalled { registry, after: stall, attempts: 1 });
            }
        }
    }

    async fn manifest(
        self,
        session: &Session<'_>,
        descriptor: &Descriptor,
        bytes: &[u8],
        name: &str,
    ) -> Result<(), Kind> {
        let path = format!("manifests/{name}");
        let headers = [(CONTENT_TYPE, descriptor.media_type.clone())];
        let body = || full(bytes.to_vec());
        let ask = Ask { method: Method::PUT, path: &path, headers: &headers, body: &body };
        let answer = session.expect(&ask, &[StatusCode::CREATED, StatusCode::OK]).await?;
        let said = answer.headers().get("docker-content-digest").and_then(|it| it.to_str().ok());
        let expected = descriptor.digest.to_string();
        match said {
            Some(found) if found.starts_with("sha256:") && found != expected => Err(Kind::Lied {
                registry: session.registry().to_owned(),
                cause: format!("it was given {expected}, and says that it has {found}"),
            }),
            _ => Ok(()),
        }
    }
}
