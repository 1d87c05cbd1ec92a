//! Who owns which field of an object (`metadata.managedFields`), and server-side apply, which is
//! built on that: structured-merge-diff over the table of types.
//!
//! Everything here is pure: objects in, objects and the text of the list out. Objects come without
//! their list, which is kept as JSON text beside them ([`crate::object::Stored`]).

mod element;
mod set;

mod shape;

mod compare;
mod fields;
mod merge;
mod remove;
mod valid;

mod owners;
mod reset;
mod versions;

mod apply;
mod conflict;
mod last_applied;
mod scale;
mod update;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::LazyLock};

use api::status::{Cause, Reason, Status};
use jiff::Timestamp;
use serde_json::{Map, Value};

pub(crate) use self::owners::same_but_times;
use self::{
    apply::{Apply, Refused},
    compare::{Comparison, compare},
    owners::{Operation, Owner},
    set::Set,
    shape::{EMPTY, Shape},
    valid::Duplicates,
    versions::Version,
};
use crate::{
    kinds::{Kind, Subresource},
    object::{self, meta, text},
    schema,
};

/// Longest name of a manager, in bytes. As in Kubernetes.
const MANAGER_BYTES_MAX: usize = 128;
/// Who owned what an object was before anybody's fields were known.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

static UNOWNED: LazyLock<Set<'static>> = LazyLock::new(reset::unowned);

/// Who writes, and what.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    kind: &'static Kind,
    subresource: Option<Subresource>,
    manager: Cow<'a, str>,
    time: String,
}

/// An object as it is stored: without the list of owners, and that list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live<'a> {
    pub(crate) object: &'a Value,
    pub(crate) owners: Option<&'a str>,
}

/// A new state of an object, and what is known of its owners.
#[derive(Debug)]
pub(crate) struct Draft {
    /// May have the list of owners that the client sent.
    pub(crate) object: Value,
    pub(crate) owners: Claims,
}

/// How the owners of a new state are found.
#[derive(Debug)]
pub(crate) enum Claims {
    /// By comparing it with the old one, or with nothing.
    Compared,
    /// They stay, or there are none: the server itself writes.
    Kept,
    /// They are known: the text of the list.
    Known(Option<String>),
}

impl Draft {
    /// A state that the server itself has made.
    pub(crate) const fn kept(object: Value) -> Self {
        Self { object, owners: Claims::Kept }
    }

    /// A state whose owners are found by comparing.
    pub(crate) const fn compared(object: Value) -> Self {
        Self { object, owners: Claims::Compared }
    }
}

impl<'a> Writer<'a> {
    /// `manager` is the parameter `fieldManager`; without one, the first word of `agent` counts.
    /// `options` is the kind of the parameters, for messages.
    pub(crate) fn new(
        kind: &'static Kind,
        subresource: Option<Subresource>,
        (manager, agent, options): (Option<&'a str>, &'a str, &str),
        now: Timestamp,
    ) -> Result<Self, Status> {
        let manager = match manager {
            Some(manager) => {
                refuse_manager(manager, options)?;
                Cow::Borrowed(manager)
            }
            None => first_word(agent),
        };
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Ok(Self { kind, subresource, manager, time })
    }

    fn version(&self) -> Result<Version, Status> {
        Version::of(self.kind, self.subresource)
    }

    fn owner(&self, operation: Operation) -> Owner<'_> {
        let subresource = self.subresource.map_or("", Subresource::name);
        let version = Cow::Owned(self.kind.api_version());
        update::writer(&self.manager, operation, version, subresource, &self.time)
    }

    /// The owners of a new object, which may have come with some.
    pub(crate) fn create(&self, new: &Value, given: Option<&Value>) -> Option<String> {
        let comparison = self.compare(&EMPTY, new)?;
        let given = given.and_then(|it| owners::read(it).ok()).unwrap_or_default();
        self.updated(given, comparison, (&EMPTY, new))
    }

    /// The owners of `old` after it became `new`, which may have come with some.
    pub(crate) fn update(
        &self,
        old: Live<'_>,
        new: &Value,
        given: Option<&Value>,
    ) -> Option<String> {
        let kept = || old.owners.map(str::to_owned);
        // Through a subresource nobody can say who owns what.
        let given = given.filter(|_| self.subresource.is_none());
        if given.is_some_and(is_reset) {
            return None;
        }
        let given = given.and_then(|it| owners::read(it).ok()).filter(|it| !it.is_empty());
        let Some(comparison) = self.compare(old.object, new) else { return kept() };
        if given.is_none() && comparison.is_empty() {
            return kept();
        }
        let live = || owners::parse(old.owners?).ok();
        let owners = given.or_else(live).unwrap_or_default();
        if owners.is_empty() {
            // Nobody's fields were known, and that stays so until somebody applies.
            return None;
        }
        self.updated(owners, comparison, (old.object, new))
    }

    /// The owners after this writer made `new` of `old`.
    fn updated<'b>(
        &'b self,
        owners: Vec<Owner<'b>>,
        comparison: Comparison<'b>,
        (old, new): (&Value, &Value),
    ) -> Option<String> {
        let elsewhere = match self.version().ok()?.elsewhere(&owners, (old, new)) {
            Ok(elsewhere) => elsewhere,
            Err(why) => {
                self.broken(new, &why);
                return owners::write(owners);
            }
        };
        let writer = self.owner(Operation::Update);
        owners::write(update::update(owners, comparison, &elsewhere, (writer, &UNOWNED)))
    }

    /// The owners of a workload after its Scale changed.
    pub(crate) fn scale(
        &self,
        old: Live<'_>,
        old_scale: &Value,
        new_scale: &Value,
    ) -> Result<Option<String>, Status> {
        let kept = || Ok(old.owners.map(str::to_owned));
        let Ok(workload) = owners::parse(old.owners.unwrap_or("[]")) else { return kept() };
        let shape = Version::of_scale()?.shape;
        let Ok(comparison) = compare(shape, old_scale, new_scale) else { return kept() };
        if workload.is_empty() || comparison.is_empty() {
            return kept();
        }
        let scale = scale::of_scale(&workload);
        let mut writer = self.owner(Operation::Update);
        writer.api_version = Cow::Borrowed(scale::API_VERSION);
        let scale = update::update(scale, comparison, &[], (writer, &UNOWNED));
        Ok(owners::write(scale::of_workload(workload, scale, &self.kind.api_version())))
    }

    /// The changes this writer can make; `None` if the original would not know whose they are.
    fn compare<'b>(&self, old: &'b Value, new: &'b Value) -> Option<Comparison<'b>> {
        let version = self.version();
        match version.map(|it| (it, compare(it.shape, old, new))) {
            Ok((version, Ok(found))) => Some(found.without(&version.reset())),
            Ok((_, Err(why))) => {
                self.broken(new, &why);
                None
            }
            Err(status) => {
                tracing::error!(%status, "no owners: the type is unknown");
                None
            }
        }
    }

    fn broken(&self, object: &Value, why: &str) {
        let (kind, name) = (self.kind.kind, meta(object, "name"));
        tracing::debug!(kind, name, why, "no owners: the object breaks its type");
    }

    /// Server-side apply of `wanted` over what is there, if anything.
    pub(crate) fn apply(
        &self,
        live: Option<Live<'_>>,
        wanted: &Value,
        force: bool,
    ) -> Result<Draft, Status> {
        let live = live.unwrap_or(Live { object: &EMPTY, owners: None });
        let mut owners = read(live)?;
        if owners.is_empty() {
            let comparison = self.compare(&EMPTY, live.object).unwrap_or_default();
            let mut before = self.owner(Operation::Update);
            before.manager = Cow::Borrowed(BEFORE_FIRST_APPLY);
            owners = update::update(owners, comparison, &[], (before, &UNOWNED));
        }
        let apply = Apply {
            version: self.version()?,
            live: live.object,
            wanted,
            owners,
            applier: self.owner(Operation::Apply),
            unowned: &UNOWNED,
            force,
        };
        let (object, owners) = run(apply, self.kind.kind)?;
        Ok(Draft { object, owners: Claims::Known(owners::write(owners)) })
    }

    /// Server-side apply of `wanted` over the Scale of a workload: the new Scale, and the owners of
    /// the workload.
    pub(crate) fn apply_scale(
        &self,
        workload: Live<'_>,
        scale: &Value,
        wanted: &Value,
        force: bool,
    ) -> Result<(Value, Option<String>), Status> {
        let before = read(workload)?;
        let mut applier = self.owner(Operation::Apply);
        applier.api_version = Cow::Borrowed(scale::API_VERSION);
        let apply = Apply {
            version: Version::of_scale()?,
            live: scale,
            wanted,
            owners: scale::of_scale(&before),
            applier,
            unowned: &UNOWNED,
            force,
        };
        let (scale, owners) = run(apply, "Scale")?;
        let owners = scale::of_workload(before, owners, &self.kind.api_version());
        Ok((scale, owners::write(owners)))
    }
}

/// Checks that what is applied can be, and applies it.
fn run<'a>(apply: Apply<'a>, kind: &str) -> Result<(Value, Vec<Owner<'a>>), Status> {
    let (shape, live, wanted) = (apply.version.shape, apply.live, apply.wanted);
    let is_kind = text(wanted, &["kind"]) == kind
        && text(wanted, &["apiVersion"]) == apply.applier.api_version;
    if !is_kind {
        return Err(Status::bad_request(format!("invalid object type: {}", gvk(wanted))));
    }
    if owners_in(wanted) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let about = |it: &Value| format!("{}/{}; {}", meta(it, "namespace"), meta(it, "name"), gvk(it));
    valid::check(shape, wanted, Duplicates::Refused).map_err(|why| {
        failure(&format!("failed to create typed patch object ({}): {why}", about(wanted)))
    })?;
    let broken = |why: String| {
        failure(&format!("failed to create typed live object ({}): {why}", about(live)))
    };
    valid::check(shape, live, Duplicates::Allowed).map_err(broken)?;
    let by_kubectl = apply.applier.manager == last_applied::MANAGER;
    let applied = apply.run().map_err(|refused| match refused {
        Refused::Conflicts(conflicts) => conflict::status(&conflicts),
        Refused::Broken(why) => broken(why),
    })?;
    let mut object = applied.object.unwrap_or_else(|| live.clone());
    if by_kubectl {
        last_applied::renew(&mut object, wanted);
    }
    Ok((object, applied.owners))
}

/// The owners of a stored object.
fn read(live: Live<'_>) -> Result<Vec<Owner<'_>>, Status> {
    owners::parse(live.owners.unwrap_or("[]"))
        .map_err(|why| failure(&format!("failed to decode managed fields: {why}")))
}

fn shape_of(definition: &str) -> Result<Shape, Status> {
    let found = schema::definition(definition);
    let missing = || Status::internal(&format!("no type `{definition}`"));
    found.map(Shape::Struct).ok_or_else(missing)
}

/// 500 without a reason, as the original answers what is wrong with an applied object.
fn failure(message: &str) -> Status {
    Status::new(Reason::Unknown, message)
}

/// Kind of an object, as Go prints it.
fn gvk(object: &Value) -> String {
    let version = text(object, &["apiVersion"]);
    let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
    format!("{version}, Kind={}", text(object, &["kind"]))
}

/// Whether a client asks for an end of all ownership: `[]` or `[{}]`.
fn is_reset(given: &Value) -> bool {
    match given.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Whether what is applied says who owns what, which it may not. An empty list says nothing.
fn owners_in(wanted: &Value) -> bool {
    let owners = object::at(wanted, &["metadata", "managedFields"]).and_then(Value::as_array);
    owners.is_some_and(|it| !it.is_empty())
}

fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// The name of a program from its `User-Agent`.
fn first_word(agent: &str) -> Cow<'_, str> {
    let word = agent.split('/').next().unwrap_or_default();
    if word.len() <= MANAGER_BYTES_MAX && word.chars().all(is_printable) {
        return Cow::Borrowed(word);
    }
    let mut name = String::new();
    for letter in word.chars().filter(|it| is_printable(*it)) {
        if MANAGER_BYTES_MAX < name.len() + letter.len_utf8() {
            break;
        }
        name.push(letter);
    }
    Cow::Owned(name)
}

fn refuse_manager(manager: &str, options: &str) -> Result<(), Status> {
    let mut causes = Vec::new();
    let mut refuse = |reason, message| {
        causes.push(Cause { reason, message, field: "fieldManager".to_owned() });
    };
    if MANAGER_BYTES_MAX < manager.len() {
        let message = format!("Too long: may not be more than {MANAGER_BYTES_MAX} bytes");
        refuse("FieldValueTooLong", message);
    }
    for (at, letter) in manager.char_indices().filter(|(_, it)| !is_printable(*it)) {
        let code = u32::from(letter);
        let shown = Value::from(manager);
        let message =
            format!("Invalid value: {shown}: invalid character U+{code:04X} (at position {at})");
        refuse("FieldValueInvalid", message);
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("meta.k8s.io", options, "", causes))
}
