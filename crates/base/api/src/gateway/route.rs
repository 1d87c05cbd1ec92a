//! HTTPRoutes.

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use serde::{Deserialize, Serialize};

use super::resource;

resource!(HttpRoute, "HTTPRoute", "httproutes", NamespaceResourceScope);

/// Which requests go to which backends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name and such.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: HttpRouteSpec,
    /// What is.
    pub status: HttpRouteStatus,
}

/// What of a route is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways.
    pub parent_refs: Vec<ParentReference>,
    /// The hosts; all of the listeners', if there are none.
    pub hostnames: Vec<String>,
    /// Which requests go where.
    pub rules: Vec<Rule>,
}

/// A Gateway, or a listener of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentReference {
    /// Group of the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Gateway`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace, if that is not the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The listener's name; all listeners without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    /// The listeners' port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
}

/// Requests of which one of the matches is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// Its name in the route.
    pub name: Option<String>,
    /// Which requests; all without any.
    pub matches: Vec<Match>,
    /// What is done to them.
    pub filters: Vec<Filter>,
    /// Where they go.
    pub backend_refs: Vec<BackendRef>,
    /// How long that may take.
    pub timeouts: Timeouts,
}

/// What must all be true of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Match {
    /// Of its path.
    pub path: Option<ValueMatch>,
    /// Of its header fields.
    pub headers: Vec<ValueMatch>,
    /// Of its query.
    pub query_params: Vec<ValueMatch>,
    /// Its method.
    pub method: Option<String>,
}

/// What something must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ValueMatch {
    /// `Exact`, `PathPrefix` or `RegularExpression`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Of the field or parameter.
    pub name: String,
    /// What it is compared with.
    pub value: Option<String>,
}

/// Something that is done to a request, or its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    /// Which of the fields below.
    #[serde(rename = "type")]
    pub type_: String,
    /// Fields of the request.
    pub request_header_modifier: Option<HeaderFilter>,
    /// Fields of the answer.
    pub response_header_modifier: Option<HeaderFilter>,
    /// The answer is another address.
    pub request_redirect: Option<RedirectFilter>,
    /// The request is made to another address.
    pub url_rewrite: Option<RewriteFilter>,
}

/// Changes of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeaderFilter {
    /// In the place of those of the same name.
    pub set: Vec<Header>,
    /// Beside those of the same name.
    pub add: Vec<Header>,
    /// Names of those that go.
    pub remove: Vec<String>,
}

/// A header field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An address of which the client is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectFilter {
    /// `http` or `https`; as it was without one.
    pub scheme: Option<String>,
    /// Another host.
    pub hostname: Option<String>,
    /// Another path.
    pub path: Option<PathModifier>,
    /// Another port.
    pub port: Option<i32>,
    /// 302, if there is none.
    pub status_code: Option<i64>,
}

/// An address at which the backend is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RewriteFilter {
    /// Another host.
    pub hostname: Option<String>,
    /// Another path.
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathModifier {
    /// Which of the fields below.
    #[serde(rename = "type")]
    pub type_: String,
    /// In the place of the whole.
    pub replace_full_path: Option<String>,
    /// In the place of what the match says.
    pub replace_prefix_match: Option<String>,
}

/// Where requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendRef {
    /// Group of the kind.
    pub group: Option<String>,
    /// `Service`.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace, if that is not the route's.
    pub namespace: Option<String>,
    /// Its port.
    pub port: Option<i32>,
    /// Its part of the requests; 1 if there is none.
    pub weight: Option<i32>,
    /// What is done to them on this way only.
    pub filters: Vec<Filter>,
}

/// How long things may take, in words of [`crate::duration`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Timeouts {
    /// Until the client is answered.
    pub request: Option<String>,
    /// Until a backend has answered.
    pub backend_request: Option<String>,
}

/// What controllers say about a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteStatus {
    /// For each Gateway.
    pub parents: Vec<ParentStatus>,
}

/// What the controller of a Gateway says about a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentStatus {
    /// Which Gateway.
    pub parent_ref: ParentReference,
    /// Who says it.
    pub controller_name: String,
    /// Whether it serves the route.
    pub conditions: Vec<Condition>,
}
