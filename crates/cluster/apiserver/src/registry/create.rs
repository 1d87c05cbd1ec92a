//! Create.

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use store::{Expect, WriteError};

use super::{Call, Registry, keys, render::Header, store_failure};
use crate::{
    admission,
    http::{body::Body, respond},
    kinds::Causes,
    limits::GENERATE_NAME_ATTEMPTS_MAX,
    object::{self, encode::Template, meta, metadata},
    ownership::{Claims, Draft, Writer},
};

/// Letters of generated names: no vowels, so that no words come out.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters in a generated name's suffix.
const SUFFIX_LENGTH: usize = 5;
/// Longest name to which a suffix is appended; a longer `generateName` is cut.
const GENERATED_BASE_MAX: usize = 63 - SUFFIX_LENGTH;

impl Registry {
    /// `POST` to a collection.
    pub(crate) async fn create(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let dry_run = call.dry_run()?;
        let decoded = call.decode(headers, &body)?;
        let mut new = decoded.object;
        let mut warnings = decoded.warnings;
        warnings.extend(call.kind.warnings_on_create(&new));
        take_namespace(call, &mut new)?;
        let writer = call.writer("CreateOptions", self.clock.now())?;
        let value = self.create_object(call, &writer, Draft::compared(new), dry_run).await?;
        let text = self.renderer(call)?.object(&value, Header::Shown)?;
        let mut response = respond::encoded(StatusCode::CREATED, call.wanted.encoding, text)?;
        respond::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Defaults, admits, prepares, checks and stores a new object; returns its bytes.
    pub(crate) async fn create_object(
        &self,
        call: &Call<'_>,
        writer: &Writer<'_>,
        draft: Draft,
        dry_run: bool,
    ) -> Result<Bytes, Status> {
        let kind = call.kind;
        let Draft { object: mut new, owners } = draft;
        if !meta(&new, "resourceVersion").is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        metadata::drop_server_owned(&mut new);
        let generates = meta(&new, "name").is_empty() && !meta(&new, "generateName").is_empty();
        let given = object::remove(&mut new, &["metadata", "managedFields"]);
        (kind.default)(&mut new);
        let owners = match owners {
            Claims::Compared => writer.create(&new, given.as_ref()),
            Claims::Kept => None,
            Claims::Known(owners) => owners,
        };
        kind.convert_to_stored(&mut new);
        admission::create(&self.store, kind, call.user, &mut new)?;
        object::set(&mut new, &["metadata", "uid"], json!(self.uid()));
        object::set(&mut new, &["metadata", "creationTimestamp"], object::time(self.clock.now()));
        if kind.generation {
            object::set(&mut new, &["metadata", "generation"], json!(1));
        }
        let mut attempts = if generates { GENERATE_NAME_ATTEMPTS_MAX } else { 1 };
        loop {
            attempts -= 1;
            if generates {
                self.generate_name(&mut new);
            }
            (kind.prepare_create)(&mut new);
            match self.insert(call, &mut new, owners.as_deref(), dry_run).await {
                Err(status) if generates && attempts > 0 && is_clash(&status) => {}
                result => return result,
            }
        }
    }

    async fn insert(
        &self,
        call: &Call<'_>,
        new: &mut Value,
        owners: Option<&str>,
        dry_run: bool,
    ) -> Result<Bytes, Status> {
        let kind = call.kind;
        let name = meta(new, "name").to_owned();
        self.addresses.settle(kind, new, None)?;
        let mut causes = Causes::default();
        metadata::validate(kind, new, &mut causes);
        (kind.validate)(new, &mut causes);
        (kind.validate_create)(new, &mut causes);
        kind.refuse(&name, &causes)?;
        let key = keys::object(kind, meta(new, "namespace"), &name);
        let exists = || Status::already_exists(kind.resource(), &name);
        let reserved = self.addresses.reserve(kind, new, None)?;
        if dry_run {
            if self.store.get(&key).is_some() {
                return Err(exists());
            }
            return Template::without_revision(new, owners);
        }
        let template = Template::new(new, owners)?;
        match self.store.put(key, Expect::Absent, |revision| template.at(revision)).await {
            Ok(entry) => {
                reserved.keep();
                Ok(entry.value)
            }
            Err(WriteError::Conflict { .. }) => Err(exists()),
            Err(error) => Err(store_failure(&error)),
        }
    }

    fn generate_name(&self, new: &mut Value) {
        let base = meta(new, "generateName");
        let base: String = base.chars().take(GENERATED_BASE_MAX).collect();
        let suffix: String = self.random(|random| {
            let letter = |_| random.choice(SUFFIX_LETTERS).copied().map(char::from);
            (0..SUFFIX_LENGTH).filter_map(letter).collect()
        });
        object::set(new, &["metadata", "name"], json!(format!("{base}{suffix}")));
    }
}

fn is_clash(status: &Status) -> bool {
    status.reason() == api::status::Reason::AlreadyExists
}

/// The namespace of the path is that of the object.
pub(crate) fn take_namespace(call: &Call<'_>, new: &mut Value) -> Result<(), Status> {
    let wanted = call.namespace.unwrap_or_default();
    let given = meta(new, "namespace");
    if !call.kind.namespaced {
        if given.is_empty() {
            return Ok(());
        }
        return Err(Status::bad_request("namespace is not allowed on this type"));
    }
    if !given.is_empty() && given != wanted {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object::set(new, &["metadata", "namespace"], json!(wanted));
    Ok(())
}
