//! Media types: what a client accepts, and what its body is.

use api::status::Status;
use http::{HeaderMap, header};

/// Media types a response can have.
pub(crate) const SERVED: &[&str] =
    &["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE];

/// Media types a watch can have.
const STREAMED: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// What an object looks like in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Itself.
    Object,
    /// A row of a Table.
    Table,
    /// PartialObjectMetadata, of a single object or of each event of a watch.
    PartialMetadata,
    /// PartialObjectMetadataList.
    PartialMetadataList,
}

/// What a response is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// What the client wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
    /// `apiVersion` of everything but the object itself.
    pub(crate) meta_version: &'static str,
}

/// What the client wants of `/api` and `/apis`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// Groups and versions alone.
    Plain,
    /// Everything, as `apidiscovery.k8s.io/v2` APIGroupDiscoveryList.
    V2,
    /// The same as `v2beta1`.
    V2Beta1,
}

impl Wanted {
    /// What is answered to a client that wants nothing in particular.
    pub(crate) const PLAIN: Self = Self::of(Form::Object, Encoding::Json);

    const fn of(form: Form, encoding: Encoding) -> Self {
        Self { form, encoding, meta_version: "meta.k8s.io/v1" }
    }

    /// Refuses what cannot be streamed.
    pub(crate) fn streamed(self) -> Result<Self, Status> {
        match self.encoding {
            Encoding::Json | Encoding::Protobuf => Ok(self),
            Encoding::Yaml => Err(Status::not_acceptable(STREAMED)),
        }
    }
}

/// What an object, a list or a watch is written as, if there are messages of it in protobuf or not.
pub(crate) fn negotiate(headers: &HeaderMap, messages: bool) -> Result<Wanted, Status> {
    choose(headers, Wanted::PLAIN, |clause, encoding| {
        if encoding == Encoding::Protobuf && !messages {
            return None;
        }
        let meta_version = match (clause.group, clause.version) {
            ("meta.k8s.io", "v1") => "meta.k8s.io/v1",
            ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
            ("", "") if clause.form.is_empty() => {
                return Some(Wanted::of(Form::Object, encoding));
            }
            _ => return None,
        };
        let form = match clause.form {
            // There is no message of a Table.
            "Table" if encoding != Encoding::Protobuf => Form::Table,
            "PartialObjectMetadata" => Form::PartialMetadata,
            "PartialObjectMetadataList" => Form::PartialMetadataList,
            _ => return None,
        };
        Some(Wanted { form, encoding, meta_version })
    })
}

/// What `/api` or `/apis` is written as.
pub(crate) fn negotiate_discovery(headers: &HeaderMap) -> Result<(Discovery, Encoding), Status> {
    choose(headers, (Discovery::Plain, Encoding::Json), |clause, encoding| {
        let discovery = match (clause.form, clause.group, clause.version) {
            ("", "", "") => Discovery::Plain,
            // No client wants it so.
            _ if encoding == Encoding::Protobuf => return None,
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Discovery::V2,
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => Discovery::V2Beta1,
            _ => return None,
        };
        Some((discovery, encoding))
    })
}

/// What an answer with one form is written in.
pub(crate) fn negotiate_encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    choose(headers, Encoding::Json, |clause, encoding| {
        let plain = (clause.form, clause.group, clause.version) == ("", "", "");
        plain.then_some(encoding)
    })
}

/// Media types without parameters in the client's order of preference; `*/*` if it has none.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<String> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return vec!["*/*".to_owned()];
    }
    clauses.iter().map(|it| format!("{}/{}", it.media_type, it.subtype)).collect()
}

/// The clauses of `Accept`, by weight, then the specific ones, then in the client's order.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    // A client may spread its list over several headers.
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let mut clauses: Vec<Clause<'_>> =
        accept.flat_map(|it| it.split(',')).filter_map(Clause::parse).collect();
    clauses.sort_by_key(|it| (std::cmp::Reverse(it.weight), it.wildcards()));
    clauses
}

/// The first clause of `Accept`, by weight and then in the client's order, that can be served in some
/// encoding; `default` if there is none at all.
fn choose<T>(
    headers: &HeaderMap,
    default: T,
    serve: impl Fn(&Clause<'_>, Encoding) -> Option<T>,
) -> Result<T, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(default);
    }
    let mut served = clauses.iter().flat_map(|clause| {
        let encodings = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf].into_iter();
        encodings.filter(|it| clause.allows(*it)).filter_map(|it| serve(clause, it))
    });
    served.next().ok_or_else(|| Status::not_acceptable(SERVED))
}

/// One part of `Accept`: a media type and what it is to be.
struct Clause<'a> {
    media_type: &'a str,
    subtype: &'a str,
    /// Thousandths, as the weight has three digits.
    weight: u32,
    form: &'a str,
    group: &'a str,
    version: &'a str,
    stream: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (media_type, subtype) = match parts.next()? {
            "" => return None,
            "*" => ("*", "*"),
            other => other.split_once('/')?,
        };
        let mut clause = Self {
            media_type,
            subtype,
            weight: 1000,
            form: "",
            group: "",
            version: "",
            stream: "",
        };
        for (name, value) in parts.filter_map(|it| it.split_once('=')) {
            match name.trim() {
                "as" => clause.form = value,
                "g" => clause.group = value,
                "v" => clause.version = value,
                "stream" => clause.stream = value,
                "q" => clause.weight = weight(value),
                // `charset`, `profile`, `pretty`: nothing to choose here.
                _ => {}
            }
        }
        Some(clause)
    }

    /// How unspecific it is.
    fn wildcards(&self) -> usize {
        [self.media_type, self.subtype].into_iter().filter(|it| *it == "*").count()
    }

    fn allows(&self, encoding: Encoding) -> bool {
        let subtype = match encoding {
            Encoding::Json => "json",
            Encoding::Yaml => "yaml",
            Encoding::Protobuf => "vnd.kubernetes.protobuf",
        };
        let typed = match (self.media_type, self.subtype) {
            ("*", "*") | ("application", "*") => true,
            ("application", it) => it == subtype,
            _ => false,
        };
        let streamed = match self.stream {
            "" => true,
            it => it == "watch" && encoding != Encoding::Yaml,
        };
        typed && streamed
    }
}

/// A weight in thousandths; what is none counts as the full one.
fn weight(text: &str) -> u32 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{part:0<3}");
    match (whole, digits.get(..3).and_then(|it| it.parse().ok())) {
        ("0", Some(thousandths)) => thousandths,
        _ => 1000,
    }
}

/// What a request body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

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
        crate::protobuf::MEDIA_TYPE => Ok(Format::Protobuf),
        _ => Err(Status::unsupported_media_type(SERVED, "")),
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
        let answer = negotiate(&headers, true);
        expect.assert_eq(&answer.map_or_else(
            |it| it.message().to_owned(),
            |it| format!("{:?} {:?}", it.form, it.encoding),
        ));
    }

    #[test]
    fn negotiates() {
        check("application/json", expect!["Object Json"]);
        check("*/*", expect!["Object Json"]);
        check("application/vnd.kubernetes.protobuf,application/json", expect!["Object Protobuf"]);
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            expect!["Table Json"],
        );
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", expect!["Table Json"]);
        check("application/yaml", expect!["Object Yaml"]);
        check("application/vnd.kubernetes.protobuf", expect!["Object Protobuf"]);
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            expect!["PartialMetadataList Protobuf"],
        );
        check("text/html, application/json;stream=watch", expect!["Object Json"]);
    }

    #[test]
    fn what_cannot_be_served_is_passed_over() {
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        check(&format!("{table},application/json"), expect!["Object Json"]);
        check(
            table,
            expect![
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
            ],
        );
        check("application/json;as=Table;v=v2;g=meta.k8s.io,*/*", expect!["Object Json"]);
        check(
            "text/html",
            expect![
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
            ],
        );
    }

    #[test]
    fn the_heaviest_wins() {
        check("application/json;q=0.5,application/yaml;q=0.9", expect!["Object Yaml"]);
        check("*/*,application/yaml", expect!["Object Yaml"]);
        check("application/yaml;q=0.001,application/json;q=0", expect!["Object Yaml"]);
        check("application/yaml;q=nonsense,application/json", expect!["Object Yaml"]);
    }

    #[test]
    fn discovery_is_negotiated_apart() {
        let mut headers = HeaderMap::new();
        assert_eq!(negotiate_discovery(&headers).unwrap(), (Discovery::Plain, Encoding::Json));
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(negotiate_discovery(&headers).unwrap(), (Discovery::V2Beta1, Encoding::Json));
        assert!(negotiate(&headers, true).is_err());
        assert!(negotiate_encoding(&headers).is_err());
    }
}
