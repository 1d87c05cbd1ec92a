//! Who may do what. This is the only place that decides it: every request asks before anything else is
//! done, and the reviews of `authorization.k8s.io` are answered from here.
//!
//! What is granted is a table, of the same shape as the rules of roles. These grants are those that
//! Kubernetes makes before anybody binds a role.

use std::borrow::Cow;

use api::status::{GroupResource, Reason, Status};
use http::Method;

use crate::{
    http::{path::Route, query::Query},
    identity::{AUTHENTICATED, Identity, MASTERS, UNAUTHENTICATED},
};

/// Stands for all verbs, groups, resources or paths.
const ALL: &str = "*";

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action<'a> {
    /// One of discovery's verbs, or a method in lower case for what is no object.
    pub(crate) verb: Cow<'a, str>,
    pub(crate) target: Target<'a>,
}

/// What an [`Action`] is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Objects(Objects<'a>),
    /// A path that is not about objects.
    Path(&'a str),
}

/// Objects, as far as it matters who may touch them. What is empty is not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Objects<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: Cow<'a, str>,
    pub(crate) name: Cow<'a, str>,
}

/// Something that is granted. A rule is about objects or about paths.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) verbs: &'static [&'static str],
    pub(crate) groups: &'static [&'static str],
    /// With the subresource, as in `pods/log`.
    pub(crate) resources: &'static [&'static str],
    /// A path, or the beginning of one and a `*`.
    pub(crate) paths: &'static [&'static str],
}

struct Grant {
    /// To whom: a group of users.
    to: &'static str,
    rules: &'static [Rule],
}

const NOTHING: Rule = Rule { verbs: &[], groups: &[], resources: &[], paths: &[] };

/// Whether all goes well, and what this is: nothing of it is anybody's secret.
const PUBLIC: Rule = Rule {
    verbs: &["get"],
    paths: &[
        "/healthz",
        "/healthz/*",
        "/livez",
        "/livez/*",
        "/readyz",
        "/readyz/*",
        "/version",
        "/version/",
    ],
    ..NOTHING
};

const GRANTS: &[Grant] = &[
    Grant {
        to: MASTERS,
        rules: &[
            Rule { verbs: &[ALL], groups: &[ALL], resources: &[ALL], ..NOTHING },
            Rule { verbs: &[ALL], paths: &[ALL], ..NOTHING },
        ],
    },
    Grant {
        to: AUTHENTICATED,
        rules: &[
            // Who am I, and what may I do.
            Rule {
                verbs: &["create"],
                groups: &["authentication.k8s.io"],
                resources: &["selfsubjectreviews"],
                ..NOTHING
            },
            Rule {
                verbs: &["create"],
                groups: &["authorization.k8s.io"],
                resources: &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                ..NOTHING
            },
            // What there is.
            Rule {
                verbs: &["get"],
                paths: &["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"],
                ..NOTHING
            },
            PUBLIC,
        ],
    },
    Grant { to: UNAUTHENTICATED, rules: &[PUBLIC] },
];

/// All that is granted to `who`, in all namespaces.
pub(crate) fn rules_of(who: &Identity) -> impl Iterator<Item = &'static Rule> {
    GRANTS.iter().filter(|it| who.is_in(it.to)).flat_map(|it| it.rules)
}

/// Whether `who` may do it.
pub(crate) fn allows(who: &Identity, action: &Action<'_>) -> bool {
    rules_of(who).any(|it| it.covers(action))
}

/// Refuses what `who` may not do: 401 if it is not known who they are, else 403.
pub(crate) fn authorize(who: &Identity, action: &Action<'_>) -> Result<(), Status> {
    if allows(who, action) {
        Ok(())
    } else if who.is_anonymous() {
        Err(Status::unauthorized())
    } else {
        Err(refusal(who, action))
    }
}

impl Rule {
    fn covers(&self, action: &Action<'_>) -> bool {
        let among = |list: &[&str], it: &str| list.iter().any(|any| *any == ALL || *any == it);
        let covered = match &action.target {
            Target::Path(path) => self.paths.iter().any(|it| match it.strip_suffix('*') {
                Some(beginning) => path.starts_with(beginning),
                None => it == path,
            }),
            Target::Objects(it) => among(self.groups, it.group) && self.covers_resource(it),
        };
        covered && among(self.verbs, &action.verb)
    }

    fn covers_resource(&self, it: &Objects<'_>) -> bool {
        self.resources.iter().any(|known| {
            let (resource, subresource) = known.split_once('/').unwrap_or((known, ""));
            *known == ALL || (resource == it.resource && subresource == it.subresource)
        })
    }
}

impl<'a> Action<'a> {
    /// What a request wants to do. It need not be anything that is served.
    pub(crate) fn of(
        method: &'a Method,
        path: &'a str,
        route: &'a Route<'_>,
        query: &Query<'_>,
    ) -> Self {
        let Route::Resource(it) = route else {
            return Self {
                verb: method.as_str().to_ascii_lowercase().into(),
                target: Target::Path(path),
            };
        };
        let verb = match (method.as_str(), it.name.is_some()) {
            _ if it.watch => "watch",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            ("GET" | "HEAD", true) => "get",
            ("GET" | "HEAD", false) if query.flag("watch") => "watch",
            ("GET" | "HEAD", false) => "list",
            _ => "",
        };
        let name = it.name.as_deref().unwrap_or_default();
        // A namespace is in itself.
        let own = (it.group, it.resource) == ("", "namespaces");
        let namespace = it.namespace.as_deref().or(own.then_some(name)).unwrap_or_default();
        let target = Target::Objects(Objects {
            group: it.group,
            resource: it.resource,
            subresource: it.subresource.unwrap_or_default(),
            namespace: namespace.into(),
            name: name.into(),
        });
        Self { verb: verb.into(), target }
    }
}

/// 403 in the original's words.
fn refusal(who: &Identity, action: &Action<'_>) -> Status {
    let (name, verb) = (&who.name, &action.verb);
    let it = match &action.target {
        Target::Path(path) => {
            let what = format!("forbidden: User \"{name}\" cannot {verb} path \"{path}\"");
            return Status::new(Reason::Forbidden, harmless(&what));
        }
        Target::Objects(it) => it,
    };
    let slash = if it.subresource.is_empty() { "" } else { "/" };
    let place = if it.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", it.namespace)
    };
    let Objects { group, resource, subresource, .. } = it;
    let what = format!(
        "User \"{name}\" cannot {verb} resource \"{resource}{slash}{subresource}\" in API group \
         \"{group}\" {place}"
    );
    Status::forbidden(GroupResource { group, resource }, &it.name, &harmless(&what))
}

/// Nothing that a browser would take for HTML: what stands there comes from the client.
fn harmless(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn somebody() -> Identity {
        Identity::user("ann".to_owned(), vec!["people".to_owned()])
    }

    #[track_caller]
    fn check(who: &Identity, request: &str, expect: Expect) {
        let (method, url) = request.split_once(' ').unwrap();
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let method = method.parse().unwrap();
        let (route, query) = (Route::parse(path), Query::parse(Some(query)));
        let action = Action::of(&method, path, &route, &query);
        let answer = match authorize(who, &action) {
            Ok(()) => "yes".to_owned(),
            Err(status) => format!("{} {}", status.code(), status.message()),
        };
        expect.assert_eq(&answer);
    }

    #[test]
    fn an_administrator_may_do_everything() {
        let admin = Identity::in_process();
        for request in ["GET /", "DELETE /api/v1/nodes", "BREW /tea", "POST /apis/a/b/c/d/e"] {
            check(&admin, request, expect!["yes"]);
        }
    }

    #[test]
    fn who_is_known_may_look_around() {
        for request in
            ["GET /api", "GET /apis/apps/v1", "GET /openapi/v3/api/v1", "GET /readyz/ping"]
        {
            check(&somebody(), request, expect!["yes"]);
        }
        let review = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        check(&somebody(), review, expect!["yes"]);
        check(
            &somebody(),
            "GET /metrics",
            expect![[r#"403 forbidden: User "ann" cannot get path "/metrics""#]],
        );
        check(
            &somebody(),
            "GET /a<b",
            expect![[r#"403 forbidden: User "ann" cannot get path "/a&lt;b""#]],
        );
        check(
            &somebody(),
            "POST /api",
            expect![[r#"403 forbidden: User "ann" cannot post path "/api""#]],
        );
    }

    #[test]
    fn what_is_refused_is_named() {
        let who = somebody();
        check(
            &who,
            "GET /api/v1/pods?watch=1",
            expect![[
                r#"403 pods is forbidden: User "ann" cannot watch resource "pods" in API group "" at the cluster scope"#
            ]],
        );
        check(
            &who,
            "GET /api/v1/namespaces/a",
            expect![[
                r#"403 namespaces "a" is forbidden: User "ann" cannot get resource "namespaces" in API group "" in the namespace "a""#
            ]],
        );
        check(
            &who,
            "PUT /apis/apps/v1/namespaces/a/deployments/b/scale",
            expect![[
                r#"403 deployments.apps "b" is forbidden: User "ann" cannot update resource "deployments/scale" in API group "apps" in the namespace "a""#
            ]],
        );
        check(
            &who,
            "DELETE /api/v1/nodes",
            expect![[
                r#"403 nodes is forbidden: User "ann" cannot deletecollection resource "nodes" in API group "" at the cluster scope"#
            ]],
        );
    }

    #[test]
    fn nobody_sees_nothing_but_health() {
        let nobody = Identity::anonymous();
        check(&nobody, "GET /livez", expect!["yes"]);
        check(&nobody, "GET /version", expect!["yes"]);
        check(&nobody, "POST /livez", expect!["401 Unauthorized"]);
        check(&nobody, "GET /api", expect!["401 Unauthorized"]);
        check(&nobody, "GET /api/v1/pods", expect!["401 Unauthorized"]);
    }
}
