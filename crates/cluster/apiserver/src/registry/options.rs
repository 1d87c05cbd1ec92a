//! What a list or watch is asked for: `ListOptions`, with the rules and the words of the original
//! (`k8s.io/apimachinery/pkg/apis/meta/internalversion`, KEP-2340, KEP-3157).

use std::num::IntErrorKind;

use api::status::{Cause, Status};
use store::Revision;

use crate::http::query::Query;

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The parameters of a list or watch, and of the deletion of a collection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListOptions<'a> {
    /// Empty if there is none.
    resource_version: &'a str,
    /// Empty if there is none.
    matching: &'a str,
    /// Whether the query asks for a watch; a path can do so too, and does not count here.
    watch: bool,
    limit: i64,
    pub(crate) resume: Option<&'a str>,
    pub(crate) timeout_seconds: Option<i64>,
    pub(crate) bookmarks: bool,
    send_initial_events: Option<bool>,
}

/// How recent a list must be. All states are served from one store, so that "any" is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest state.
    Newest,
    /// That state or a newer one.
    NotOlderThan(Revision),
    /// Exactly that state.
    Exactly(Revision),
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With what happens after a revision.
    After(Revision),
    /// With what happens from now on.
    Now,
    /// With every object as ADDED, as of that revision or later. With `end`, a bookmark says when
    /// that was all.
    State { not_older_than: Revision, end: bool },
}

impl<'a> ListOptions<'a> {
    /// Reads them and checks what can be said without knowing the objects.
    pub(crate) fn read(query: &'a Query<'_>) -> Result<Self, Status> {
        let options = Self {
            resource_version: query.get("resourceVersion").unwrap_or_default(),
            matching: query.get("resourceVersionMatch").unwrap_or_default(),
            watch: query.flag("watch"),
            limit: query.number("limit")?.unwrap_or(0),
            resume: query.get("continue"),
            timeout_seconds: query.number("timeoutSeconds")?,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        };
        let options = options.with_defaults();
        let causes = if options.watch { options.watch_causes() } else { options.list_causes() };
        if causes.is_empty() {
            return Ok(options);
        }
        Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes))
    }

    /// A watch from nowhere or anywhere begins with the state, and says so.
    fn with_defaults(self) -> Self {
        let said = self.send_initial_events.is_some() || !self.matching.is_empty();
        if self.watch && !said && self.is_anywhere() {
            return Self { send_initial_events: Some(true), matching: NOT_OLDER_THAN, ..self };
        }
        self
    }

    fn is_anywhere(&self) -> bool {
        matches!(self.resource_version, "" | "0")
    }

    fn list_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if !self.matching.is_empty() {
            if self.resource_version.is_empty() {
                causes.push(match_forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if self.resume.is_some() {
                causes.push(match_forbidden(
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if self.matching != EXACT && self.matching != NOT_OLDER_THAN {
                causes.push(self.match_unsupported(r#""Exact", "NotOlderThan", """#));
            }
            if self.matching == EXACT && self.resource_version == "0" {
                causes.push(match_forbidden(
                    r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
                ));
            }
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            causes.push(forbidden("sendInitialEvents", why));
        }
        causes
    }

    fn watch_causes(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        if self.send_initial_events.is_some() && self.matching != NOT_OLDER_THAN {
            causes.push(match_forbidden(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !self.matching.is_empty() {
            if self.send_initial_events.is_none() {
                causes.push(match_forbidden(
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                     provided",
                ));
            }
            if self.matching != NOT_OLDER_THAN {
                causes.push(self.match_unsupported(r#""NotOlderThan""#));
            }
            if self.resume.is_some() {
                causes.push(match_forbidden(
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
        }
        causes
    }

    fn match_unsupported(&self, supported: &str) -> Cause {
        Cause {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {:?}: supported values: {supported}",
                self.matching
            ),
            field: "resourceVersionMatch".to_owned(),
        }
    }

    /// How many objects a page has at most. "Any" state comes whole: so the original does it, whose
    /// cache has it at hand.
    pub(crate) fn limit(&self) -> Option<usize> {
        let limit = usize::try_from(self.limit).ok().filter(|it| *it > 0);
        limit.filter(|_| self.resource_version != "0")
    }

    /// Whether a version is asked for, which a token excludes.
    pub(crate) fn has_version(&self) -> bool {
        !self.is_anywhere()
    }

    /// What a list without a token is of; `single` says that a selector names one object.
    pub(crate) fn at(&self, single: bool) -> Result<At, Status> {
        let version = version(self.resource_version).map_err(|problem| {
            Status::bad_request(format!("invalid resource version: {problem}"))
        })?;
        Ok(match self.matching {
            _ if version == Revision::ZERO => At::Newest,
            EXACT => At::Exactly(version),
            // A limited page of a version was exact before clients could say what they want.
            "" if self.limit > 0 && !single => At::Exactly(version),
            _ => At::NotOlderThan(version),
        })
    }

    /// Where a watch begins.
    pub(crate) fn begin(&self) -> Result<Begin, Status> {
        let version = version(self.resource_version).map_err(Status::bad_request)?;
        Ok(match (self.send_initial_events, self.is_anywhere()) {
            (Some(true), _) => Begin::State { not_older_than: version, end: self.bookmarks },
            (Some(false), true) => Begin::Now,
            (None, true) => Begin::State { not_older_than: version, end: false },
            (_, false) => Begin::After(version),
        })
    }
}

/// What a get demands: the state as of that version or a later one.
pub(crate) fn get_version(query: &Query<'_>) -> Result<Revision, Status> {
    if query.flag("export") {
        return Err(Status::bad_request(
            "the export parameter, deprecated since v1.14, is no longer supported",
        ));
    }
    let text = query.get("resourceVersion").unwrap_or_default();
    version(text).map_err(Status::bad_request)
}

/// Refuses a revision that has not happened.
pub(crate) fn check_reached(asked: Revision, newest: Revision) -> Result<(), Status> {
    if asked > newest {
        return Err(Status::too_large_resource_version(asked.get(), newest.get()));
    }
    Ok(())
}

/// A resource version, or what is wrong with it; none is the first one.
fn version(text: &str) -> Result<Revision, String> {
    if text.is_empty() {
        return Ok(Revision::ZERO);
    }
    // A sign is for Rust part of a number, for Go it is not.
    let number = if text.starts_with('+') { Err(None) } else { text.parse().map_err(Some) };
    number.map(Revision::new).map_err(|error: Option<std::num::ParseIntError>| {
        let large = error.is_some_and(|it| *it.kind() == IntErrorKind::PosOverflow);
        let problem = if large { "value out of range" } else { "invalid syntax" };
        format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: \
             {problem}"
        )
    })
}

fn match_forbidden(why: &str) -> Cause {
    forbidden("resourceVersionMatch", why)
}

fn forbidden(field: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    }
}
