//! The paths of the API: which endpoint, or which object of which resource.

use std::borrow::Cow;

use super::query::{Plus, decode};

/// The part of an object that passes requests on.
const PROXY: &str = "proxy";

/// Where a request goes. Groups and resources are not checked for existence here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz` and their single checks; the path without the first slash.
    Health(&'a str),
    /// `/metrics`
    Metrics,
    /// `/snapshot`
    Snapshot,
    /// `/`
    Root,
    /// `/api`
    Core,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(&'a str),
    /// `/api/VERSION` (group empty) or `/apis/GROUP/VERSION`
    GroupVersion { group: &'a str, version: &'a str },
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/api/VERSION` or `/openapi/v3/apis/GROUP/VERSION`
    OpenApi { group: &'a str, version: &'a str },
    /// Objects.
    Resource(ResourcePath<'a>),
    /// Nothing of ours.
    Unknown,
}

/// A collection, an object or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResourcePath<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    /// Plural name.
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<Cow<'a, str>>,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) subresource: Option<&'a str>,
    /// Whether the path itself asks for a watch (`…/watch/RESOURCE`), which Kubernetes has long
    /// deprecated and still serves.
    pub(crate) watch: bool,
}

impl<'a> Route<'a> {
    pub(crate) fn parse(path: &'a str) -> Self {
        // Clients differ in the trailing slash; Kubernetes accepts both.
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut rest = path.splitn(2, '/');
        match (rest.next().unwrap_or_default(), rest.next()) {
            ("", None) => Self::Root,
            ("version", None) => Self::Version,
            ("healthz" | "livez" | "readyz", _) => Self::Health(path),
            ("metrics", None) => Self::Metrics,
            ("snapshot", None) => Self::Snapshot,
            ("api", None) => Self::Core,
            ("api", Some(rest)) => Self::versioned("", rest),
            ("apis", None) => Self::Groups,
            ("apis", Some(rest)) => match rest.split_once('/') {
                None => Self::Group(rest),
                Some((group, rest)) => Self::versioned(group, rest),
            },
            ("openapi", Some(rest)) => Self::open_api(rest),
            _ => Self::Unknown,
        }
    }

    fn versioned(group: &'a str, rest: &'a str) -> Self {
        match rest.split_once('/') {
            None => Self::GroupVersion { group, version: rest },
            Some((version, rest)) => {
                ResourcePath::parse(group, version, rest).map_or(Self::Unknown, Self::Resource)
            }
        }
    }

    fn open_api(rest: &'a str) -> Self {
        let mut parts = rest.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("v2"), None, ..) => Self::OpenApiV2,
            (Some("v3"), None, ..) => Self::OpenApiIndex,
            (Some("v3"), Some("api"), Some(version), None, _) => {
                Self::OpenApi { group: "", version }
            }
            (Some("v3"), Some("apis"), Some(group), Some(version), None) => {
                Self::OpenApi { group, version }
            }
            _ => Self::Unknown,
        }
    }
}

impl<'a> ResourcePath<'a> {
    fn parse(group: &'a str, version: &'a str, rest: &'a str) -> Option<Self> {
        let mut parts = rest.split('/');
        let mut next = || parts.next().filter(|it| !it.is_empty());
        let mut first = next()?;
        let watch = first == "watch";
        if watch {
            first = next()?;
        }
        let (second, third) = (next(), next());
        let plain = |it: &'a str| decode(it, Plus::IsPlus);
        // `namespaces/x/status` is a part of the namespace, `namespaces/x/pods` are its pods.
        let own = matches!(third, None | Some("status" | "finalize"));
        let path = if first == "namespaces" && !own {
            Self {
                group,
                version,
                resource: third?,
                namespace: second.map(plain),
                name: next().map(plain),
                subresource: next(),
                watch,
            }
        } else {
            let (resource, name, subresource) = (first, second.map(plain), third);
            Self { group, version, resource, namespace: None, name, subresource, watch }
        };
        // What comes after it is a path of somebody else's.
        let more = parts.next().is_some() && path.subresource != Some(PROXY);
        if more { None } else { Some(path) }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(path: &str, expect: Expect) {
        expect.assert_eq(&format!("{:?}", Route::parse(path)));
    }

    #[test]
    fn endpoints() {
        check("/", expect!["Root"]);
        check("/version/", expect!["Version"]);
        check("/readyz/ping", expect![[r#"Health("readyz/ping")"#]]);
        check("/api/", expect!["Core"]);
        check("/api/v1", expect![[r#"GroupVersion { group: "", version: "v1" }"#]]);
        check("/apis/apps/", expect![[r#"Group("apps")"#]]);
        check("/apis/apps/v1", expect![[r#"GroupVersion { group: "apps", version: "v1" }"#]]);
        check("/openapi/v3", expect!["OpenApiIndex"]);
        check("/openapi/v3/apis/apps/v1", expect![[r#"OpenApi { group: "apps", version: "v1" }"#]]);
        check("/openapi/v3/apis/apps", expect!["Unknown"]);
        check("/metrics", expect!["Metrics"]);
        check("/metrics/slis", expect!["Unknown"]);
    }

    #[test]
    fn objects() {
        check(
            "/api/v1/pods",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "pods", namespace: None, name: None, subresource: None, watch: false })"#
            ]],
        );
        check(
            "/api/v1/namespaces/a/pods/b/log",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "pods", namespace: Some("a"), name: Some("b"), subresource: Some("log"), watch: false })"#
            ]],
        );
        check(
            "/api/v1/namespaces/a/finalize",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "namespaces", namespace: None, name: Some("a"), subresource: Some("finalize"), watch: false })"#
            ]],
        );
        check(
            "/apis/apps/v1/namespaces/a/deployments/",
            expect![[
                r#"Resource(ResourcePath { group: "apps", version: "v1", resource: "deployments", namespace: Some("a"), name: None, subresource: None, watch: false })"#
            ]],
        );
        check(
            "/api/v1/nodes/n%3A1",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "nodes", namespace: None, name: Some("n:1"), subresource: None, watch: false })"#
            ]],
        );
        check("/api/v1/namespaces/a/pods/b/log/x", expect!["Unknown"]);
        check(
            "/api/v1/namespaces/a/pods/http:b:80/proxy/x//y/",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "pods", namespace: Some("a"), name: Some("http:b:80"), subresource: Some("proxy"), watch: false })"#
            ]],
        );
        check(
            "/api/v1/watch/namespaces/a/pods/b",
            expect![[
                r#"Resource(ResourcePath { group: "", version: "v1", resource: "pods", namespace: Some("a"), name: Some("b"), subresource: None, watch: true })"#
            ]],
        );
        check("/api/v1/watch", expect!["Unknown"]);
    }
}
