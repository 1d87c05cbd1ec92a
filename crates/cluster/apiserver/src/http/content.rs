//! Media types: what a client accepts, and what its body is.

use api::status::Status;
use http::{HeaderMap, header};

/// Media types a response can have.
pub(crate) const SERVED: &[&str] = &["application/json", "application/yaml"];

/// What an object looks like in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Itself.
    Object,
    /// A row of a `meta.k8s.io/v1` Table.
    Table,
    /// `meta.k8s.io/v1` PartialObjectMetadata.
    PartialMetadata,
    /// For `/api` and `/apis`: `apidiscovery.k8s.io/v2` APIGroupDiscoveryList.
    Discovery,
}

/// The text a response is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// What the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
}

const PLAIN: Wanted = Wanted { form: Form::Object, encoding: Encoding::Json };

/// Chooses the first clause of `Accept` that can be served (clients send them in order of
/// preference; weights are not looked at, as in Kubernetes for equal ones).
pub(crate) fn negotiate(headers: &HeaderMap) -> Result<Wanted, Status> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(PLAIN) };
    let accept = accept.to_str().unwrap_or_default();
    if accept.is_empty() {
        return Ok(PLAIN);
    }
    accept.split(',').find_map(clause).ok_or_else(|| Status::not_acceptable(SERVED))
}

fn clause(text: &str) -> Option<Wanted> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut form, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", value)) => form = value,
            Some(("g", value)) => group = value,
            Some(("v", value)) => version = value,
            // `q`, `charset`, `stream`: nothing to choose here.
            _ => {}
        }
    }
    let form = match (form, group, version) {
        ("", ..) => Form::Object,
        ("Table", "meta.k8s.io", "v1") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Form::PartialMetadata
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery,
        _ => return None,
    };
    Some(Wanted { form, encoding })
}

/// What a request body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// Media types of bodies that are objects.
const READ: &[&str] = &["application/json", "application/yaml"];

/// The media type of a request without its parameters; empty if none was sent.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    value.and_then(|it| it.split(';').next()).unwrap_or_default().trim()
}

/// The format of a body that is an object. Without a content type it is JSON.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" | "text/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => {
            let why = "application/vnd.kubernetes.protobuf is not supported yet";
            Err(Status::unsupported_media_type(READ, why))
        }
        _ => Err(Status::unsupported_media_type(READ, "")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(accept: &str, expect: Expect) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        let answer = negotiate(&headers);
        expect.assert_eq(&answer.map_or_else(
            |it| it.message().to_owned(),
            |it| format!("{:?} {:?}", it.form, it.encoding),
        ));
    }

    #[test]
    fn negotiates() {
        check("application/json", expect!["Object Json"]);
        check("*/*", expect!["Object Json"]);
        check("application/vnd.kubernetes.protobuf,application/json", expect!["Object Json"]);
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            expect!["Table Json"],
        );
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            expect![
                "only the following media types are accepted: application/json, application/yaml"
            ],
        );
        check(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
            expect!["Discovery Json"],
        );
        check("application/yaml", expect!["Object Yaml"]);
        check(
            "application/vnd.kubernetes.protobuf",
            expect![
                "only the following media types are accepted: application/json, application/yaml"
            ],
        );
    }
}
