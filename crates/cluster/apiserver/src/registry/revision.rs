//! What a client may say about time: `resourceVersion` and `resourceVersionMatch`
//! (KEP-2340, <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).

use api::status::{Cause, Status};
use store::Revision;

use crate::http::query::Query;

/// How recent an answer must be. All states are served from one store, so that `Any` and
/// `NotOlderThan` are simply the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest state.
    Newest,
    /// Any state at all (`resourceVersion=0`).
    Any,
    /// That state or a newer one.
    NotOlderThan(Revision),
    /// Exactly that state.
    Exactly(Revision),
}

/// Reads `resourceVersion`.
pub(crate) fn version(query: &Query<'_>) -> Result<Option<Revision>, Status> {
    let Some(text) = query.get("resourceVersion") else { return Ok(None) };
    let number = text.parse().map_err(|_| {
        let message = format!(
            "resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": \
             invalid syntax"
        );
        Status::bad_request(message)
    })?;
    Ok(Some(Revision::new(number)))
}

/// Reads both parameters as a get or list has them.
pub(crate) fn at(query: &Query<'_>) -> Result<At, Status> {
    let version = version(query)?;
    match (version, query.get("resourceVersionMatch")) {
        (None, None) => Ok(At::Newest),
        (None, Some(_)) => {
            Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
        }
        (Some(Revision::ZERO), None | Some("NotOlderThan")) => Ok(At::Any),
        (Some(Revision::ZERO), Some("Exact")) => {
            Err(forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
        }
        // A page that is limited is exact, unless the client says otherwise: so etcd does it.
        (Some(it), None) if query.get("limit").is_some_and(|it| it != "0") => Ok(At::Exactly(it)),
        (Some(it), None | Some("NotOlderThan")) => Ok(At::NotOlderThan(it)),
        (Some(it), Some("Exact")) => Ok(At::Exactly(it)),
        (_, Some(other)) => Err(forbidden(&format!(
            "Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
        ))),
    }
}

/// 422 about the list options.
pub(crate) fn forbidden(why: &str) -> Status {
    let cause = Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: "resourceVersionMatch".to_owned(),
    };
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// Refuses a revision that has not happened.
pub(crate) fn check_reached(asked: Revision, newest: Revision) -> Result<(), Status> {
    if asked > newest {
        return Err(Status::too_large_resource_version(asked.get(), newest.get()));
    }
    Ok(())
}
