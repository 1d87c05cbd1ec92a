//! Delete: preconditions, propagation, grace, finalizers, removal.

use api::status::{self, Details, Status};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Entry, Expect, WriteError};

use super::{Call, Registry, change::is_free_to_go, render::Header, store_failure};
use crate::{
    admission,
    http::{body::Body, content, query::Query, respond},
    kinds::Deletion,
    limits::WRITE_ATTEMPTS_MAX,
    object::{
        self, at, decode,
        encode::Template,
        finalizers, is_terminating, meta,
        stored::{self, Stored},
    },
};

/// Finalizer that keeps an object until its dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer that keeps an object until its dependents have forgotten it.
const ORPHAN: &str = "orphan";
/// A pod's grace when neither it nor the request names one, in seconds.
const GRACE_SECONDS: i64 = 30;

/// `DeleteOptions` of body or query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    grace_seconds: Option<i64>,
    /// `None` if the request does not say.
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What a delete came to.
pub(crate) enum Deleted {
    /// The object is gone; its last state.
    Gone(Bytes),
    /// It waits for its node or its finalizers; its present state.
    Waits(Bytes),
}

impl Options {
    pub(crate) fn read(
        query: &Query<'_>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Status> {
        let value = if body.iter().all(u8::is_ascii_whitespace) {
            Value::Null
        } else {
            let format = content::body_format(headers)?;
            decode::value(body, format).map_err(|error| {
                Status::bad_request(format!("the DeleteOptions could not be read: {error}"))
            })?
        };
        let own = |key: &str| at(&value, &["preconditions", key]).and_then(Value::as_str);
        let policy = query
            .get("propagationPolicy")
            .or_else(|| value.get("propagationPolicy").and_then(Value::as_str));
        let orphans = query
            .optional_flag("orphanDependents")
            .or_else(|| value.get("orphanDependents").and_then(Value::as_bool));
        let grace = query.number("gracePeriodSeconds")?;
        let dry_run = match value.get("dryRun") {
            Some(Value::Array(list)) if !list.is_empty() => list.as_slice() == [json!("All")],
            _ => query.get("dryRun") == Some("All"),
        };
        Ok(Self {
            grace_seconds: grace
                .or_else(|| value.get("gracePeriodSeconds").and_then(Value::as_i64)),
            propagation: propagation(policy, orphans)?,
            uid: own("uid").map(str::to_owned),
            resource_version: own("resourceVersion").map(str::to_owned),
            dry_run,
        })
    }

    /// The same for an object that was changed since, by the caller itself.
    pub(crate) fn without_resource_version(&self) -> Self {
        Self { resource_version: None, ..self.clone() }
    }

    pub(crate) fn check_preconditions(&self, call: &Call<'_>, old: &Value) -> Result<(), Status> {
        let asked = [
            ("UID", "uid", &self.uid),
            ("ResourceVersion", "resourceVersion", &self.resource_version),
        ];
        for (title, key, asked) in asked {
            let found = meta(old, key);
            if let Some(asked) = asked.as_ref().filter(|it| it.as_str() != found) {
                let why = format!(
                    "Precondition failed: {title} in precondition: {asked}, {title} in object \
                     meta: {found}"
                );
                return Err(Status::conflict(call.kind.resource(), call.name, &why));
            }
        }
        Ok(())
    }
}

fn propagation(policy: Option<&str>, orphans: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphans) {
        (Some(_), Some(_)) => {
            Err(Status::bad_request("orphanDependents and deletionPropagation cannot be both set"))
        }
        (Some("Orphan"), _) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
        (Some("Background"), _) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (None, None) => Ok(None),
        (Some(other), _) => Err(Status::bad_request(format!(
            "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Background\", \
             \"Foreground\", \"Orphan\""
        ))),
    }
}

impl Registry {
    /// `DELETE …/NAME`.
    pub(crate) async fn delete(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let options = Options::read(&call.query, headers, &body)?;
        admission::delete(call.kind, call.name)?;
        let mut answer = match self.delete_object(call, &options).await? {
            Deleted::Gone(value) if !call.kind.shows_deleted => {
                let last = object::parse(&value)?;
                let details = Details {
                    name: call.name.to_owned(),
                    group: call.kind.group.to_owned(),
                    kind: call.kind.plural.to_owned(),
                    uid: meta(&last, "uid").to_owned(),
                    ..Details::default()
                };
                let text = status::success(&details).to_string();
                respond::encoded(StatusCode::OK, call.wanted.encoding, text.into())
            }
            Deleted::Gone(value) | Deleted::Waits(value) => {
                let text = self.renderer(call)?.object(&value, Header::Shown)?;
                respond::encoded(StatusCode::OK, call.wanted.encoding, text)
            }
        }?;
        if let (Some(warning), None) = (call.kind.orphans, options.propagation) {
            respond::warn(&mut answer, warning);
        }
        Ok(answer)
    }

    /// Deletes one object as far as that goes now.
    pub(crate) async fn delete_object(
        &self,
        call: &Call<'_>,
        options: &Options,
    ) -> Result<Deleted, Status> {
        let key = call.key();
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let entry = self.store.get(&key).ok_or_else(|| call.not_found())?;
            let Stored { object: old, owners } = stored::parse(&entry.value)?;
            options.check_preconditions(call, &old)?;
            let new = begin(call, options, &old, self.clock.now());
            let template = Template::new(&new, owners)?;
            let gone = is_free_to_go(call.kind, &new);
            if options.dry_run || (new == old && !gone) {
                let value = template.at(entry.modified);
                return Ok(if gone { Deleted::Gone(value) } else { Deleted::Waits(value) });
            }
            let expect = Expect::Modified(entry.modified);
            let written = if gone {
                // Watchers see the object as it was, without the deletion that took no time.
                let last = if is_terminating(&old) { &new } else { &old };
                let template = Template::new(last, owners)?;
                let last = |revision, _: &Entry| template.at(revision);
                self.store.delete(&key, expect, last).await
            } else {
                self.store.put(key.clone(), expect, |revision| template.at(revision)).await
            };
            match written {
                Ok(entry) if gone => {
                    self.addresses.release(call.kind, &old);
                    return Ok(Deleted::Gone(entry.value));
                }
                Ok(entry) => return Ok(Deleted::Waits(entry.value)),
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(store_failure(&error)),
            }
        }
        Err(Status::modified(call.kind.resource(), call.name))
    }
}

/// The object after its deletion has begun, or has been hastened.
fn begin(call: &Call<'_>, options: &Options, old: &Value, now: Timestamp) -> Value {
    let mut new = old.clone();
    let usual =
        if call.kind.orphans.is_some() { Propagation::Orphan } else { Propagation::Background };
    set_propagation(&mut new, options.propagation.unwrap_or(usual));
    let grace = match call.kind.deletion {
        Deletion::Graceful => grace_seconds(options, old),
        Deletion::Immediate | Deletion::Finalized => 0,
    };
    let path = &["metadata", "deletionGracePeriodSeconds"];
    let running = at(old, path).and_then(Value::as_i64);
    // A deletion that has begun can be hastened but not put off.
    if !is_terminating(old) || running.is_some_and(|it| grace < it) {
        let since = if is_terminating(old) {
            let old_end = meta(old, "deletionTimestamp").parse().unwrap_or(now);
            let old_grace = SignedDuration::from_secs(running.unwrap_or(0));
            old_end.checked_sub(old_grace).unwrap_or(now).max(Timestamp::UNIX_EPOCH)
        } else {
            now
        };
        let end = since.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        object::set(&mut new, &["metadata", "deletionTimestamp"], object::time(end));
        object::set(&mut new, path, json!(grace));
        let generation = at(old, &["metadata", "generation"]).and_then(Value::as_i64);
        if let Some(generation) = generation.filter(|it| *it > 0) {
            object::set(&mut new, &["metadata", "generation"], json!(generation + 1));
        }
        if call.kind.deletion == Deletion::Finalized {
            object::set(&mut new, &["status", "phase"], json!("Terminating"));
            // Namespaces have no grace.
            drop(object::remove(&mut new, path));
        }
    }
    new
}

/// A pod that runs nowhere, or not any more, needs no grace.
fn grace_seconds(options: &Options, pod: &Value) -> i64 {
    let own = at(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
    let phase = object::text(pod, &["status", "phase"]);
    if object::text(pod, &["spec", "nodeName"]).is_empty()
        || matches!(phase, "Failed" | "Succeeded")
    {
        return 0;
    }
    match options.grace_seconds.or(own).unwrap_or(GRACE_SECONDS) {
        // A negative grace means the least one, not none.
        ..0 => 1,
        grace => grace,
    }
}

/// Adds the finalizer of the propagation and removes the others'.
fn set_propagation(new: &mut Value, propagation: Propagation) {
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let before = finalizers(new);
    let mut after: Vec<&str> =
        before.iter().copied().filter(|it| *it != FOREGROUND && *it != ORPHAN).collect();
    after.extend(wanted);
    if before == after {
        return;
    }
    let after = json!(after);
    if after == json!([]) {
        drop(object::remove(new, &["metadata", "finalizers"]));
    } else {
        object::set(new, &["metadata", "finalizers"], after);
    }
}
