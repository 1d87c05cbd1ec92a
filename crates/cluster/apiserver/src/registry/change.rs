//! Writes over an existing object: update, patch, and the writes of its subresources.

use std::borrow::Cow;

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use store::{Entry, Expect, WriteError};

use super::{Call, Registry, create::take_namespace, render::Header, store_failure};
use crate::{
    addresses,
    http::{body::Body, respond},
    kinds::{Causes, Deletion, Kind, Subresource},
    limits::WRITE_ATTEMPTS_MAX,
    object::{
        self, at,
        decode::Decoded,
        encode::Template,
        is_terminating, meta, metadata,
        stored::{self, Stored},
    },
    ownership::{self, Claims, Draft, Live, Writer},
};

/// Which part of the object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status.
    Main,
    /// The status.
    Status,
    /// What another subresource shows of the object.
    Other(Subresource),
    /// What the server itself changes on behalf of a subresource: no preparation, no
    /// validation of the kind.
    Internal,
}

impl Part {
    /// The part a subresource writes.
    pub(super) const fn of(subresource: Option<Subresource>) -> Self {
        match subresource {
            Some(Subresource::Status) => Self::Status,
            Some(Subresource::Binding | Subresource::Eviction | Subresource::Finalize) => {
                Self::Internal
            }
            Some(
                other @ (Subresource::Approval
                | Subresource::EphemeralContainers
                | Subresource::Resize),
            ) => Self::Other(other),
            None | Some(Subresource::Scale | Subresource::Log | Subresource::Proxy) => Self::Main,
        }
    }
}

/// What became of an attempt to write.
enum Attempt {
    Done(Bytes),
    /// Somebody else was faster.
    Overtaken,
}

impl Registry {
    /// `PUT …/NAME` and `PUT …/NAME/status`.
    pub(crate) async fn update(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let dry_run = call.dry_run()?;
        let Decoded { mut object, mut warnings } = call.decode(headers, &body)?;
        take_namespace(call, &mut object)?;
        let given = meta(&object, "name");
        if given.is_empty() {
            object::set(&mut object, &["metadata", "name"], json!(call.name));
        } else if given != call.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({})",
                call.name
            )));
        }
        let writer = call.writer("UpdateOptions", self.clock.now())?;
        let mut before = None;
        let draft = |live: Live<'_>| {
            before = generation(live.object);
            Ok(Draft::compared(object.clone()))
        };
        let value = self.change(call, &writer, dry_run, draft).await?;
        warnings.extend(warnings_on_update(call, before, &value)?);
        self.changed(call, &value, &warnings)
    }

    /// The answer to a write.
    pub(crate) fn changed(
        &self,
        call: &Call<'_>,
        value: &Bytes,
        warnings: &[String],
    ) -> Result<Response<Body>, Status> {
        let text = self.renderer(call)?.object(value, Header::Shown)?;
        let mut response = respond::encoded(StatusCode::OK, call.wanted.encoding, text)?;
        respond::warn(&mut response, warnings);
        Ok(response)
    }

    /// Reads the object, lets `apply` make the new one of it, and writes that; again if it was
    /// changed meanwhile and the new one names no resource version. Returns the stored bytes.
    pub(crate) async fn change(
        &self,
        call: &Call<'_>,
        writer: &Writer<'_>,
        dry_run: bool,
        mut apply: impl FnMut(Live<'_>) -> Result<Draft, Status> + Send,
    ) -> Result<Bytes, Status> {
        let key = call.key();
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let entry = self.store.get(&key).ok_or_else(|| call.not_found())?;
            let Stored { object: old, owners } = stored::parse(&entry.value)?;
            let own = in_version_of(call.kind, &old);
            let live = Live { object: &own, owners };
            let draft = apply(live)?;
            check_preconditions(call, &draft.object, &old)?;
            let (new, owners) = self.prepare(call, writer, (draft, live), &old)?;
            let live = Live { object: &old, owners: live.owners };
            match self.replace(call, &entry, Change { new, owners, live }, dry_run).await? {
                Attempt::Done(value) => return Ok(value),
                Attempt::Overtaken => {}
            }
        }
        Err(Status::modified(call.kind.resource(), call.name))
    }

    /// Makes the new version ready to be stored, checks it, and finds out who owns its fields. The draft
    /// and what it was made of are of the version of the call, `old` is as it was stored.
    fn prepare(
        &self,
        call: &Call<'_>,
        writer: &Writer<'_>,
        (draft, live): (Draft, Live<'_>),
        old: &Value,
    ) -> Result<(Value, Option<String>), Status> {
        let (kind, part) = (call.kind, Part::of(call.subresource));
        let Draft { object: mut new, owners } = draft;
        let given = object::remove(&mut new, &["metadata", "managedFields"]);
        if part != Part::Internal {
            metadata::keep_server_owned(&mut new, old);
            (kind.default)(&mut new);
        }
        if let Part::Other(part) = part {
            (kind.prepare_part)(part, &mut new, old);
        }
        // Before the kind has its say: what that adds or takes back is nobody's. Only of the small parts
        // it is not known what they take back.
        let owners = match owners {
            Claims::Compared => writer.update(live, &new, given.as_ref()),
            Claims::Kept => live.owners.map(str::to_owned),
            Claims::Known(owners) => owners,
        };
        kind.convert_to_stored(&mut new);
        match part {
            Part::Main => {
                addresses::carry_over(kind, &mut new, old);
                (kind.prepare_update)(&mut new, old);
                self.addresses.settle(kind, &mut new, Some(old))?;
                count_generation(kind, &mut new, old);
            }
            Part::Status => (kind.prepare_status)(&mut new, old),
            Part::Other(_) => count_generation(kind, &mut new, old),
            Part::Internal => return Ok((new, owners)),
        }
        let mut causes = Causes::default();
        metadata::validate_update(&new, old, &mut causes);
        metadata::validate(kind, &new, &mut causes);
        (kind.validate)(&new, &mut causes);
        match part {
            Part::Other(part) => (kind.validate_part)(part, &new, old, &mut causes),
            Part::Main | Part::Status | Part::Internal => {
                (kind.validate_update)(&new, old, &mut causes);
            }
        }
        kind.refuse(call.name, &causes)?;
        Ok((new, owners))
    }

    /// Writes the new version where the old one stands, or removes the object if that was all it
    /// waited for.
    async fn replace(
        &self,
        call: &Call<'_>,
        entry: &Entry,
        change: Change<'_>,
        dry_run: bool,
    ) -> Result<Attempt, Status> {
        let Change { mut new, owners, live } = change;
        let reserved = self.addresses.reserve(call.kind, &mut new, Some(live.object))?;
        if same(&new, live.object) && same_owners(owners.as_deref(), live.owners) {
            return Ok(Attempt::Done(entry.value.clone()));
        }
        let template = Template::new(&new, owners.as_deref())?;
        let expect = Expect::Modified(entry.modified);
        if dry_run {
            return Ok(Attempt::Done(template.at(entry.modified)));
        }
        let written = if is_free_to_go(call.kind, &new) {
            let last = |revision, _: &Entry| template.at(revision);
            self.store.delete(&entry.key, expect, last).await.inspect(|_| {
                self.addresses.release(call.kind, &new);
            })
        } else {
            let key = entry.key.clone();
            self.store.put(key, expect, |revision| template.at(revision)).await
        };
        match written {
            Ok(entry) => {
                reserved.keep();
                Ok(Attempt::Done(entry.value))
            }
            Err(WriteError::Conflict { .. }) => Ok(Attempt::Overtaken),
            Err(error) => Err(store_failure(&error)),
        }
    }
}

/// `metadata.generation`.
pub(crate) fn generation(object: &Value) -> Option<i64> {
    at(object, &["metadata", "generation"]).and_then(Value::as_i64)
}

/// What the client hears of an object that it changed, whose generation was `before`.
pub(crate) fn warnings_on_update(
    call: &Call<'_>,
    before: Option<i64>,
    value: &Bytes,
) -> Result<Vec<String>, Status> {
    let Some(warnings) = call.kind.warnings_on_update.filter(|_| call.subresource.is_none()) else {
        return Ok(Vec::new());
    };
    let new = object::parse(value)?;
    let counts = !call.kind.generation || generation(&new) != before;
    Ok(if counts { warnings(&new) } else { Vec::new() })
}

/// A new version, ready to be written.
struct Change<'a> {
    new: Value,
    owners: Option<String>,
    live: Live<'a>,
}

/// Whether two versions differ in nothing but the resource version.
fn same(new: &Value, old: &Value) -> bool {
    let metadata = |it| at(it, &["metadata"]);
    same_but(&["metadata"], Some(new), Some(old))
        && same_but(&["resourceVersion"], metadata(new), metadata(old))
}

/// Whether two objects have the same members, but for some of these names.
fn same_but(names: &[&str], a: Option<&Value>, b: Option<&Value>) -> bool {
    let [a, b] = [a, b].map(|it| {
        let members = it.and_then(Value::as_object).into_iter().flatten();
        members.filter(|(name, _)| !names.contains(&name.as_str()))
    });
    a.eq(b)
}

/// Whether two lists of owners differ in nothing but times, which alone are not worth a write.
fn same_owners(new: Option<&str>, old: Option<&str>) -> bool {
    match (new, old) {
        (Some(new), Some(old)) => new == old || ownership::same_but_times(new, old),
        (new, old) => new == old,
    }
}

/// The resource version and the uid in the new object must be those of the stored one.
fn check_preconditions(call: &Call<'_>, new: &Value, old: &Value) -> Result<(), Status> {
    let asked = meta(new, "resourceVersion");
    if !asked.is_empty() && asked != "0" && asked != meta(old, "resourceVersion") {
        return Err(Status::modified(call.kind.resource(), call.name));
    }
    let (asked, found) = (meta(new, "uid"), meta(old, "uid"));
    if !asked.is_empty() && asked != found {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        return Err(Status::conflict(call.kind.resource(), call.name, &why));
    }
    Ok(())
}

/// A stored object in the version of `kind`.
fn in_version_of<'a>(kind: &Kind, stored: &'a Value) -> Cow<'a, Value> {
    match kind.conversion {
        None => Cow::Borrowed(stored),
        Some(_) => {
            let mut own = stored.clone();
            kind.convert_from_stored(&mut own);
            Cow::Owned(own)
        }
    }
}

/// Adds 1 to the generation if anything but metadata and status differs and the kind itself has
/// not done so.
fn count_generation(kind: &Kind, new: &mut Value, old: &Value) {
    let path = &["metadata", "generation"];
    if !kind.generation || at(new, path) != at(old, path) {
        return;
    }
    if !same_but(&["metadata", "status"], Some(new), Some(old)) {
        let generation = at(old, path).and_then(Value::as_i64).unwrap_or(0);
        object::set(new, path, json!(generation + 1));
    }
}

/// Whether an object whose deletion has begun has nothing left to wait for.
pub(super) fn is_free_to_go(kind: &Kind, object: &Value) -> bool {
    let empty =
        |path: &[&str]| at(object, path).and_then(Value::as_array).is_none_or(Vec::is_empty);
    let grace = at(object, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    is_terminating(object)
        && empty(&["metadata", "finalizers"])
        && match kind.deletion {
            Deletion::Immediate => true,
            Deletion::Graceful => grace.unwrap_or(0) == 0,
            Deletion::Finalized => empty(&["spec", "finalizers"]),
        }
}
