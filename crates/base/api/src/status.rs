//! Kubernetes' `Status`: how the API says that a request failed. The HTTP status and the reason of
//! every failure are chosen in this file and nowhere else.
//!
//! Messages are worded as `k8s.io/apimachinery/pkg/api/errors` words them, because kubectl and
//! client libraries show them and scripts compare them.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value, json};

/// Why a request failed, in one machine-readable word (`Status.reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409: an object of that name exists.
    AlreadyExists,
    /// 409: the object is not what the client believed.
    Conflict,
    /// 410: that part of the past is not kept any more.
    Expired,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422: the object breaks rules, see the causes.
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504
    Timeout,
    /// 500 with nothing a machine could read.
    Unknown,
}

impl Reason {
    /// The word on the wire, which is left out if it is empty.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
            Self::Unknown => "",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::Unknown => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// One finding about one field (`StatusCause`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Such as `FieldValueInvalid`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Path of the field, such as `spec.replicas`; may be empty.
    pub field: String,
}

/// What the failure is about (`StatusDetails`); empty strings are left out on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Object name.
    pub name: String,
    /// API group.
    pub group: String,
    /// Resource (`deployments`), or the kind for [`Status::invalid`].
    pub kind: String,
    /// Uid of the object.
    pub uid: String,
    /// Findings.
    pub causes: Vec<Cause>,
    /// How long to wait before asking again, in seconds; 0 if not said.
    pub retry_after_seconds: u32,
}

/// A resource of a group, as messages name it: `deployments.apps`, `pods`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural resource name, or the kind where Kubernetes names the kind.
    pub resource: &'a str,
}

impl fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// A failure, ready for the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    reason: Reason,
    message: String,
    details: Option<Box<Details>>,
    resume: Option<Box<str>>,
}

impl Status {
    /// A failure about nothing in particular.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None, resume: None }
    }

    fn about(reason: Reason, of: GroupResource<'_>, name: &str, message: String) -> Self {
        let details = Details {
            name: name.to_owned(),
            group: of.group.to_owned(),
            kind: of.resource.to_owned(),
            ..Details::default()
        };
        Self { reason, message, details: Some(Box::new(details)), resume: None }
    }

    /// Adds a finding.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Asks the client to come back after so many seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Gives a `continue` token by which a list that has lost its moment can go on all the same.
    #[must_use]
    pub fn with_continue(mut self, token: &str) -> Self {
        self.resume = Some(token.into());
        self
    }

    /// 404: no object of that name.
    #[must_use]
    pub fn not_found(of: GroupResource<'_>, name: &str) -> Self {
        Self::about(Reason::NotFound, of, name, format!("{of} \"{name}\" not found"))
    }

    /// 404: no such path.
    #[must_use]
    pub fn no_such_path() -> Self {
        let mut status =
            Self::new(Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409: create of what is there.
    #[must_use]
    pub fn already_exists(of: GroupResource<'_>, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, of, name, format!("{of} \"{name}\" already exists"))
    }

    /// 409: `Operation cannot be fulfilled on …: <why>`.
    #[must_use]
    pub fn conflict(of: GroupResource<'_>, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {of} \"{name}\": {why}");
        Self::about(Reason::Conflict, of, name, message)
    }

    /// 409: the object was changed by someone else since the client read it.
    #[must_use]
    pub fn modified(of: GroupResource<'_>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(of, name, why)
    }

    /// 403: `… is forbidden: <why>`.
    #[must_use]
    pub fn forbidden(of: GroupResource<'_>, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() { of.to_string() } else { format!("{of} \"{name}\"") };
        Self::about(Reason::Forbidden, of, name, format!("{subject} is forbidden: {why}"))
    }

    /// 422: an object of `kind` breaks the rules named by `causes`.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let of = GroupResource { group, resource: kind };
        let list = causes.iter().map(|it| format!("{}: {}", it.field, it.message));
        let list: Vec<String> = list.collect();
        let list = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
        let mut status =
            Self::about(Reason::Invalid, of, name, format!("{of} \"{name}\" is invalid: {list}"));
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// 400 with this message.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(Reason::Unauthorized, "Unauthorized")
    }

    /// 405.
    #[must_use]
    pub fn method_not_allowed(of: GroupResource<'_>) -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::about(Reason::MethodNotAllowed, of, "", message.to_owned())
    }

    /// 406: none of the media types the client accepts is served.
    #[must_use]
    pub fn not_acceptable(served: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", served.join(", "));
        Self::new(Reason::NotAcceptable, message)
    }

    /// 415: the body is in none of the media types that are read here. `why` may be empty.
    #[must_use]
    pub fn unsupported_media_type(read: &[&str], why: &str) -> Self {
        let mut message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            read.join(", ")
        );
        if !why.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(message, " ({why})");
        }
        Self::new(Reason::UnsupportedMediaType, message)
    }

    /// 410: the past that was asked for is gone; the client must list again.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 504: the resource version asked for does not exist yet (KEP-2523).
    #[must_use]
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::new(Reason::Timeout, format!("Timeout: {message}")).with_retry_after(1).with_cause(
            Cause {
                reason: "ResourceVersionTooLarge",
                message: "Too large resource version".to_owned(),
                field: String::new(),
            },
        )
    }

    /// 413.
    #[must_use]
    pub fn too_large(bytes_max: usize) -> Self {
        let message = format!("Request entity too large: limit is {bytes_max}");
        Self::new(Reason::RequestEntityTooLarge, message)
    }

    /// 500 with the reason for people.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// Why the request failed.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// HTTP status.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.reason.code()
    }

    /// Text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What it is about, if that was said.
    #[must_use]
    pub fn details(&self) -> Option<&Details> {
        self.details.as_deref()
    }

    /// The object on the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
            "code": self.code(),
        });
        if let Some(status) = status.as_object_mut() {
            if self.reason == Reason::Unknown {
                status.remove("reason");
            }
            if let Some(details) = &self.details {
                status.insert("details".to_owned(), details.to_json());
            }
            if let Some(token) = &self.resume {
                status.insert("metadata".to_owned(), json!({"continue": token}));
            }
        }
        status
    }
}

impl Details {
    /// The object on the wire, without what is empty.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, value) in texts {
            if !value.is_empty() {
                object.insert(key.to_owned(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(Cause::to_json).collect();
            object.insert("causes".to_owned(), Value::Array(causes));
        }
        if self.retry_after_seconds != 0 {
            object.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(object)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut object = Map::new();
        for (key, value) in
            [("reason", self.reason), ("message", &self.message), ("field", &self.field)]
        {
            if !value.is_empty() {
                object.insert(key.to_owned(), json!(value));
            }
        }
        Value::Object(object)
    }
}

/// The `Status` of a success, as a delete answers it.
#[must_use]
pub fn success(details: &Details) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_json(),
    })
}

/// The `Status` of a success that a create answers which leaves no object, with its code as there.
#[must_use]
pub fn created() -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": 201,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(status: &Status, expect: Expect) {
        expect.assert_eq(&status.to_json().to_string());
    }

    const DEPLOYMENTS: GroupResource<'_> = GroupResource { group: "apps", resource: "deployments" };

    #[test]
    fn about_an_object() {
        check(
            &Status::not_found(DEPLOYMENTS, "web"),
            expect![[
                r#"{"apiVersion":"v1","code":404,"details":{"group":"apps","kind":"deployments","name":"web"},"kind":"Status","message":"deployments.apps \"web\" not found","metadata":{},"reason":"NotFound","status":"Failure"}"#
            ]],
        );
        check(
            &Status::modified(DEPLOYMENTS, "web"),
            expect![[
                r#"{"apiVersion":"v1","code":409,"details":{"group":"apps","kind":"deployments","name":"web"},"kind":"Status","message":"Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again","metadata":{},"reason":"Conflict","status":"Failure"}"#
            ]],
        );
    }

    #[test]
    fn one_cause_is_not_in_brackets() {
        let cause = |field: &str| Cause {
            reason: "FieldValueRequired",
            message: "Required value".to_owned(),
            field: field.to_owned(),
        };
        let one = Status::invalid("apps", "Deployment", "web", vec![cause("spec.selector")]);
        assert_eq!(
            one.message(),
            "Deployment.apps \"web\" is invalid: spec.selector: Required value"
        );
        let two = Status::invalid("", "Pod", "x", vec![cause("spec.a"), cause("spec.b")]);
        check(
            &two,
            expect![[
                r#"{"apiVersion":"v1","code":422,"details":{"causes":[{"field":"spec.a","message":"Required value","reason":"FieldValueRequired"},{"field":"spec.b","message":"Required value","reason":"FieldValueRequired"}],"kind":"Pod","name":"x"},"kind":"Status","message":"Pod \"x\" is invalid: [spec.a: Required value, spec.b: Required value]","metadata":{},"reason":"Invalid","status":"Failure"}"#
            ]],
        );
    }

    #[test]
    fn waiting_is_said() {
        check(
            &Status::too_large_resource_version(9, 4),
            expect![[
                r#"{"apiVersion":"v1","code":504,"details":{"causes":[{"message":"Too large resource version","reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1},"kind":"Status","message":"Timeout: Too large resource version: 9, current: 4","metadata":{},"reason":"Timeout","status":"Failure"}"#
            ]],
        );
    }
}
