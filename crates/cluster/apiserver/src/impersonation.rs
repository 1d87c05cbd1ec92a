//! Acting as somebody else (`kubectl --as`): who may, says authorization; from then on the request is
//! that of whom it names.

use std::borrow::Cow;

use api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    authorization::{self, Action, Objects, Target},
    http::query::{Plus, decode},
    identity::{ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED},
};

/// How all these headers begin.
const PREFIX: &str = "impersonate-";
const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
/// A key follows, percent-encoded.
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// How users are named that are ServiceAccounts: `system:serviceaccount:NAMESPACE:NAME`.
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the request wants to act as, if it does and may.
pub(crate) fn acting_as(who: &Identity, headers: &HeaderMap) -> Result<Option<Identity>, Status> {
    if !headers.keys().any(|it| it.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let name = headers.get(USER).map(text).unwrap_or_default().to_owned();
    let mut wanted = Identity { name, ..Identity::default() };
    if !wanted.name.is_empty() {
        match service_account(&wanted.name) {
            Some((namespace, name)) => {
                let (namespace, name) = (Cow::Borrowed(namespace), name.into());
                ask(
                    who,
                    Objects { resource: "serviceaccounts", namespace, name, ..Objects::default() },
                )?;
            }
            None => ask(who, of("", "users", &wanted.name))?,
        }
    }
    for group in headers.get_all(GROUP).iter().map(text) {
        ask(who, of("", "groups", group))?;
        wanted.groups.push(group.to_owned());
    }
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) else { continue };
        let (key, value) = (decode(key, Plus::IsPlus), text(value));
        ask(who, Objects { subresource: &key, ..of(AUTHENTICATION, "userextras", value) })?;
        wanted.extra.entry(key.into_owned()).or_default().push(value.to_owned());
    }
    if let Some(uid) = headers.get(UID).map(text) {
        ask(who, of(AUTHENTICATION, "uids", uid))?;
        uid.clone_into(&mut wanted.uid);
    }
    if wanted.name.is_empty() {
        if wanted == Identity::default() {
            return Ok(None);
        }
        return Err(Status::bad_request("requested to act as somebody without naming a user"));
    }
    complete(&mut wanted);
    Ok(Some(wanted))
}

/// Whether `who` may act as this.
fn ask(who: &Identity, whom: Objects<'_>) -> Result<(), Status> {
    let action = Action { verb: "impersonate".into(), target: Target::Objects(whom) };
    authorization::authorize(who, &action)
}

/// The groups that nobody has to name.
fn complete(wanted: &mut Identity) {
    if let (true, Some((namespace, _))) = (wanted.groups.is_empty(), service_account(&wanted.name))
    {
        let own = format!("{SERVICE_ACCOUNTS}:{namespace}");
        wanted.groups = vec![SERVICE_ACCOUNTS.to_owned(), own];
    }
    let implied = match wanted.name.as_str() {
        ANONYMOUS if wanted.is_in(UNAUTHENTICATED) => return,
        ANONYMOUS => UNAUTHENTICATED,
        _ if wanted.is_in(UNAUTHENTICATED) || wanted.is_in(AUTHENTICATED) => return,
        _ => AUTHENTICATED,
    };
    wanted.groups.push(implied.to_owned());
}

fn of<'a>(group: &'a str, resource: &'a str, name: &'a str) -> Objects<'a> {
    Objects { group, resource, name: name.into(), ..Objects::default() }
}

/// Namespace and name of the ServiceAccount that a user is.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let good = api::names::dns1123_label(namespace).is_empty()
        && api::names::dns1123_subdomain(name).is_empty();
    good.then_some((namespace, name))
}

/// What is no text names nobody.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(who: &Identity, headers: &[(&'static str, &'static str)], expect: Expect) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let answer = match acting_as(who, &map) {
            Ok(None) => "nobody else".to_owned(),
            Ok(Some(Identity { name, uid, groups, extra })) => {
                format!("{name} {uid:?} {groups:?} {extra:?}")
            }
            Err(status) => format!("{} {}", status.code(), status.message()),
        };
        expect.assert_eq(&answer);
    }

    #[test]
    fn an_administrator_is_whoever_they_want() {
        let admin = Identity::in_process();
        check(&admin, &[("accept", "*/*")], expect!["nobody else"]);
        check(
            &admin,
            &[("impersonate-user", "ann")],
            expect![[r#"ann "" ["system:authenticated"] {}"#]],
        );
        let groups =
            [("impersonate-user", "ann"), ("impersonate-group", "a"), ("impersonate-group", "b")];
        check(&admin, &groups, expect![[r#"ann "" ["a", "b", "system:authenticated"] {}"#]]);
        let all = [
            ("impersonate-user", "ann"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-a%2fb", "c"),
        ];
        check(&admin, &all, expect![[r#"ann "7" ["system:authenticated"] {"a/b": ["c"]}"#]]);
        check(
            &admin,
            &[("impersonate-user", "system:serviceaccount:n:s")],
            expect![[
                r#"system:serviceaccount:n:s "" ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"] {}"#
            ]],
        );
        check(
            &admin,
            &[("impersonate-user", "system:serviceaccount:n:")],
            expect![[r#"system:serviceaccount:n: "" ["system:authenticated"] {}"#]],
        );
        check(
            &admin,
            &[("impersonate-user", "system:anonymous")],
            expect![[r#"system:anonymous "" ["system:unauthenticated"] {}"#]],
        );
        check(
            &admin,
            &[("impersonate-group", "a")],
            expect!["400 requested to act as somebody without naming a user"],
        );
    }

    #[test]
    fn nobody_else_may() {
        let ann = Identity::user("ann".to_owned(), Vec::new());
        check(
            &ann,
            &[("impersonate-user", "bob")],
            expect![[
                r#"403 users "bob" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#
            ]],
        );
        check(
            &ann,
            &[("impersonate-user", "system:serviceaccount:n:s")],
            expect![[
                r#"403 serviceaccounts "s" is forbidden: User "ann" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "n""#
            ]],
        );
        check(&Identity::anonymous(), &[("impersonate-user", "bob")], expect!["401 Unauthorized"]);
    }
}
