//! Each case shows the rules, and what is said about the objects.

use std::{fmt::Write as _, sync::Arc};

use api::gateway::{GROUP, HttpRouteStatus, ParentReference};
use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, serde::de::DeserializeOwned};
use serde_json::{Value, json};

use super::*;
use crate::{
    decide::decide,
    table::{Action, Asked, Rule, Target},
};

fn objects<K: DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<K>> {
    values.into_iter().map(|it| Arc::new(serde_json::from_value(it).unwrap())).collect()
}

fn object(namespace: &str, name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace, "generation": 1}, "spec": spec})
}

fn gateway(listeners: Value) -> Value {
    object("infra", "front", json!({"gatewayClassName": "coracle", "listeners": listeners}))
}

fn http(name: &str, port: i32) -> Value {
    json!({"name": name, "port": port, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "All"}}})
}

fn to(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80})
}

fn route(name: &str, hostnames: Value, rules: Value) -> Value {
    let parents = json!([{"name": "front", "namespace": "infra"}]);
    object("shop", name, json!({"parentRefs": parents, "hostnames": hostnames, "rules": rules}))
}

/// Services `a` and `b`, and the class.
fn seen(gateways: Vec<Value>, routes: Vec<Value>) -> Seen {
    let service = |namespace, name| object(namespace, name, json!({"ports": [{"port": 80}]}));
    let class = json!({"metadata": {"name": "coracle"}, "spec": {"controllerName": CONTROLLER}});
    Seen {
        gateway_classes: objects(vec![class]),
        gateways: objects(gateways),
        routes: objects(routes),
        services: objects(vec![service("shop", "a"), service("shop", "b"), service("other", "c")]),
        ..Seen::default()
    }
}

fn conditions(text: &mut String, of: &str, conditions: &[Condition]) {
    let usual = |it: &&Condition| match it.type_.as_str() {
        "Conflicted" => it.status == "False",
        _ => it.status == "True" && it.message.is_empty(),
    };
    for it in conditions.iter().filter(|it| !usual(it)) {
        let Condition { type_, status, reason, message, .. } = it;
        writeln!(text, "  {of} {type_}={status} {reason}: {message}").unwrap();
    }
}

/// Every listener at its port but 443, which is 8443.
fn reached(decision: &Decision) -> Reached {
    let found = decision.gateways.values().flat_map(|it| &it.listeners);
    let port = |it: &FoundListener| (it.port, Ok(if it.port == 443 { 8443 } else { it.port }));
    found.map(port).collect()
}

fn said(seen: &Seen, decision: &Decision) -> String {
    let mut text = String::new();
    let now = Timestamp::UNIX_EPOCH;
    for gateway in &seen.gateways {
        let key = Key::of(&**gateway);
        let Some(found) = decision.gateways.get(&key) else { continue };
        let status = of_gateway(gateway, found, &reached(decision), now);
        let addresses: Vec<_> = status.addresses.iter().filter_map(|it| it.value.clone()).collect();
        writeln!(text, "Gateway {key} {addresses:?}").unwrap();
        conditions(&mut text, "", &status.conditions);
        for it in &status.listeners {
            writeln!(text, "  {} {}", it.name, it.attached_routes).unwrap();
            conditions(&mut text, "  ", &it.conditions);
        }
    }
    for route in &seen.routes {
        let key = Key::of(&**route);
        writeln!(text, "HTTPRoute {key}").unwrap();
        let HttpRouteStatus { parents } = of_route(route, &decision.routes[&key], now);
        for it in parents {
            let section = it.parent_ref.section_name.unwrap_or_default();
            let of = format!("{}/{section}", it.parent_ref.name);
            writeln!(text, "  {of}").unwrap();
            conditions(&mut text, "  ", &it.conditions);
        }
    }
    text
}

fn goes(target: &Target) -> String {
    match target {
        Target::Forward(it) => format!("{}:{}", it.service, it.port),
        Target::Refuse(status, why) => format!("{} {why}", status.as_u16()),
    }
}

fn shown(decision: &Decision) -> String {
    let table = &decision.table;
    let mut text = String::new();
    let mut rules = |host: &str, rules: &[Rule]| {
        for Rule { wants, route } in rules {
            let action = match &route.action {
                Action::To(target) => goes(target),
                other => format!("{other:?}"),
            };
            let port = wants.at.unwrap_or_default();
            write!(text, "{host}:{port} {:?}", wants.path).unwrap();
            wants.method.iter().for_each(|it| write!(text, " {it}").unwrap());
            wants.headers.iter().for_each(|it| write!(text, " {it:?}").unwrap());
            wants.query.iter().for_each(|it| write!(text, " {it:?}").unwrap());
            writeln!(text, " -> {action}").unwrap();
        }
    };
    table.hosts.iter().for_each(|(host, it)| rules(host, it));
    table.wildcards.iter().for_each(|(host, it)| rules(&format!("*.{host}"), it));
    rules("", &table.any);
    text
}

#[track_caller]
fn check(seen: &Seen, expected: Expect) {
    let decision = decide(seen);
    expected.assert_eq(&format!("{}{}", shown(&decision), said(seen, &decision)));
}

#[test]
fn a_route_serves_what_it_has_in_common_with_listeners() {
    let mut wild = http("wild", 80);
    wild["hostname"] = json!("*.shop.test");
    let rules = json!([{"backendRefs": [to("a")]}]);
    let mut section = route("section", json!([]), rules.clone());
    section["spec"]["parentRefs"][0]["sectionName"] = json!("other");
    check(
        &seen(
            vec![gateway(json!([wild, http("other", 8888)]))],
            vec![route("web", json!(["Web.shop.test", "shop.test"]), rules), section],
        ),
        expect![[r#"
            shop.test:8888 Prefix("") -> shop/a:80
            web.shop.test:80 Prefix("") -> shop/a:80
            web.shop.test:8888 Prefix("") -> shop/a:80
            :8888 Prefix("") -> shop/a:80
            Gateway infra/front ["127.0.0.1"]
              wild 1
                 Programmed=True Programmed: port 80 of this machine's loopback addresses
              other 2
                 Programmed=True Programmed: port 8888 of this machine's loopback addresses
            HTTPRoute shop/web
              front/
            HTTPRoute shop/section
              front/other
        "#]],
    );
}

#[test]
fn the_best_match_comes_first() {
    let path = |kind: &str, value: &str| json!({"path": {"type": kind, "value": value}});
    let with = |mut one: Value, name: &str, value: Value| {
        one[name] = value;
        one
    };
    let field = |name: &str| json!({"name": name, "value": "1"});
    let regex = json!([{"name": "Q", "value": "[a-z]+", "type": "RegularExpression"}]);
    let matches = json!([
        path("PathPrefix", "/"),
        path("PathPrefix", "/a/"),
        with(path("PathPrefix", "/a"), "headers", json!([field("X-One"), field("x-one")])),
        with(path("PathPrefix", "/a"), "queryParams", regex),
        with(path("PathPrefix", "/a"), "method", json!("GET")),
        path("RegularExpression", "/[0-9]"),
        path("Exact", "/"),
    ]);
    let rules = json!([{"matches": matches, "backendRefs": [to("a")]}]);
    check(
        &seen(vec![gateway(json!([http("web", 80)]))], vec![route("web", json!([]), rules)]),
        expect![[r#"
            :80 Exact("/") -> shop/a:80
            :80 Regex(Regex("^(?:/[0-9])$")) -> shop/a:80
            :80 Prefix("/a") GET -> shop/a:80
            :80 Prefix("/a") ("x-one", Exact("1")) -> shop/a:80
            :80 Prefix("/a") ("Q", Regex(Regex("^(?:[a-z]+)$"))) -> shop/a:80
            :80 Prefix("/a") -> shop/a:80
            :80 Prefix("") -> shop/a:80
            Gateway infra/front ["127.0.0.1"]
              web 1
                 Programmed=True Programmed: port 80 of this machine's loopback addresses
            HTTPRoute shop/web
              front/
        "#]],
    );
}

#[test]
fn listeners_that_cannot_be_served_say_why() {
    let tls = |name: &str, reference: Value| {
        json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": format!("{name}.test"),
            "tls": {"certificateRefs": [reference]}})
    };
    let mut kinds = http("kinds", 80);
    kinds["hostname"] = json!("kinds.test");
    kinds["allowedRoutes"]["kinds"] = json!([{"kind": "GRPCRoute"}]);
    let mut mixed = http("mixed", 80);
    mixed["allowedRoutes"]["kinds"] = json!([{"kind": "TCPRoute"}, {"kind": "HTTPRoute"}]);
    let listeners = json!([
        {"name": "raw", "port": 1, "protocol": "TCP"},
        http("conflict", 443),
        http("taken", 8081),
        kinds,
        mixed,
        tls("none", json!({"name": "none"})),
        tls("elsewhere", json!({"name": "none", "namespace": "shop"})),
        tls("kind", json!({"name": "none", "kind": "ConfigMap"})),
    ]);
    let rules = json!([{"backendRefs": [to("a")]}]);
    let mut seen = seen(vec![gateway(listeners)], vec![route("web", json!([]), rules)]);
    let published = json!({"metadata": {"name": "p", "namespace": "shop",
        "annotations": {"coracle.dev/publish": "8081:80"}}, "spec": {"ports": [{"port": 80}]}});
    seen.services.extend(objects(vec![published]));
    check(
        &seen,
        expect![[r#"
            :80 Prefix("") -> shop/a:80
            Gateway infra/front ["127.0.0.1"]
               Accepted=True ListenersNotValid: not all listeners are as they should be
              raw 0
                 Accepted=False UnsupportedProtocol: TCP is not supported, only HTTP and HTTPS are
                 Programmed=False Invalid: not served
              conflict 1
                 Accepted=False PortUnavailable: port 443 is for HTTPS
                 Conflicted=True ProtocolConflict: port 443 is for HTTPS
                 Programmed=False Invalid: not served
              taken 1
                 Accepted=False PortUnavailable: a Service or a pod has port 8081 of this machine
                 Programmed=False Invalid: not served
              kinds 0
                 ResolvedRefs=False InvalidRouteKinds: routes of kind GRPCRoute are not supported, only HTTPRoutes are
                 Programmed=True Programmed: port 80 of this machine's loopback addresses
              mixed 1
                 ResolvedRefs=False InvalidRouteKinds: routes of kind TCPRoute are not supported, only HTTPRoutes are
                 Programmed=True Programmed: port 80 of this machine's loopback addresses
              none 0
                 ResolvedRefs=False InvalidCertificateRef: Secret infra/none does not exist
                 Programmed=False Invalid: not served
              elsewhere 0
                 ResolvedRefs=False RefNotPermitted: no ReferenceGrant lets this Gateway use Secret shop/none
                 Programmed=False Invalid: not served
              kind 0
                 ResolvedRefs=False InvalidCertificateRef: a certificate that is ConfigMap none is not supported, only Secrets are
                 Programmed=False Invalid: not served
            HTTPRoute shop/web
              front/
        "#]],
    );
}

#[test]
fn addresses_are_loopback() {
    let of = |kind: &str, value: &str| {
        let mut it = gateway(json!([http("web", 80)]));
        it["spec"]["addresses"] = json!([{"type": kind, "value": value}]);
        seen(vec![it], Vec::new())
    };
    check(
        &of("IPAddress", "::1"),
        expect![[r#"
        Gateway infra/front ["127.0.0.1"]
          web 0
             Programmed=True Programmed: port 80 of this machine's loopback addresses
    "#]],
    );
    check(
        &of("IPAddress", "192.0.2.1"),
        expect![[r#"
            Gateway infra/front []
               Programmed=False AddressNotUsable: only 127.0.0.1 and ::1 are, not 192.0.2.1
              web 0
                 Programmed=False Invalid: not served
        "#]],
    );
    check(
        &of("Hostname", "a.test"),
        expect![[r#"
            Gateway infra/front []
               Accepted=False UnsupportedAddress: addresses of type Hostname are not supported, only IPAddress is
               Programmed=False UnsupportedAddress: addresses of type Hostname are not supported, only IPAddress is
              web 0
                 Programmed=False Invalid: not served
        "#]],
    );
}

#[test]
fn routes_that_have_no_effect_say_why() {
    let mut same = http("same", 80);
    same["allowedRoutes"] = json!({"namespaces": {"from": "Same"}});
    let mut selected = http("selected", 81);
    selected["allowedRoutes"]["namespaces"] =
        json!({"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}});
    let mut host = http("host", 82);
    host["hostname"] = json!("a.test");
    let rules = json!([{"backendRefs": [to("a")]}]);
    let mut web = route("web", json!(["b.test"]), rules.clone());
    web["spec"]["parentRefs"] = ["same", "selected", "host", "none"]
        .map(|it| json!({"name": "front", "namespace": "infra", "sectionName": it}))
        .into();
    let mut other = route("other", json!([]), rules);
    other["metadata"]["namespace"] = json!("other");
    let mut seen = seen(vec![gateway(json!([same, selected, host]))], vec![web, other]);
    let team = json!({"metadata": {"name": "shop", "labels": {"team": "shop"}}});
    seen.namespaces = objects(vec![team]);
    check(
        &seen,
        expect![[r#"
            a.test:82 Prefix("") -> 500 Service other/a does not exist
            b.test:81 Prefix("") -> shop/a:80
            Gateway infra/front ["127.0.0.1"]
              same 0
                 Programmed=True Programmed: port 80 of this machine's loopback addresses
              selected 1
                 Programmed=True Programmed: port 81 of this machine's loopback addresses
              host 1
                 Programmed=True Programmed: port 82 of this machine's loopback addresses
            HTTPRoute shop/web
              front/same
                 Accepted=False NotAllowedByListeners: no listener takes HTTPRoutes of this namespace
              front/selected
              front/host
                 Accepted=False NoMatchingListenerHostname: no listener has a host of this route
              front/none
                 Accepted=False NoMatchingParent: the Gateway has no listener of this name and port
            HTTPRoute other/other
              front/
                 ResolvedRefs=False BackendNotFound: Service other/a does not exist
        "#]],
    );
}

#[test]
fn what_is_not_supported_takes_no_requests() {
    let mirror = json!({"filters": [{"type": "RequestMirror"}], "backendRefs": [to("a")]});
    let regex = json!({"matches": [{"path": {"type": "RegularExpression", "value": "["}}]});
    let edit = json!({"set": [{"name": "content-length", "value": "1"}]});
    let edit = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edit});
    let edit = json!({"filters": [edit], "backendRefs": [to("a")]});
    let fine = json!({"backendRefs": [to("a")]});
    let one = |name: &str, rule: Value| route(name, json!([]), json!([fine, rule]));
    let routes = vec![one("mirror", mirror), one("regex", regex), one("edit", edit)];
    check(
        &seen(vec![gateway(json!([http("web", 80)]))], routes),
        expect![[r#"
        Gateway infra/front ["127.0.0.1"]
          web 0
             Programmed=True Programmed: port 80 of this machine's loopback addresses
        HTTPRoute shop/mirror
          front/
             Accepted=False UnsupportedValue: the filter RequestMirror is not supported
        HTTPRoute shop/regex
          front/
             Accepted=False UnsupportedValue: regular expression `[`: non-empty character class has no closing bracket
        HTTPRoute shop/edit
          front/
             Accepted=False UnsupportedValue: content-length is about the connection and cannot be changed
    "#]],
    );
}

/// A rule for a path.
fn at(path: &str, backends: Value) -> Value {
    let matches = json!([{"path": {"type": "Exact", "value": path}}]);
    json!({"matches": matches, "backendRefs": backends})
}

#[test]
fn backends_share() {
    let weighted = |name: &str, weight: i32| {
        let mut it = to(name);
        it["weight"] = json!(weight);
        it
    };
    let several = json!([weighted("a", 1), weighted("b", 3), weighted("none", 1)]);
    let rules = json!([at("/share", several), at("/zero", json!([weighted("a", 0)]))]);
    let routes = vec![route("several", json!([]), rules)];
    let decision = decide(&seen(vec![gateway(json!([http("web", 80)]))], routes));
    let [shares] = decision.table.shares.values().collect::<Vec<_>>()[..] else { panic!("one") };
    let mut turns: Vec<String> = (0..5).map(|_| goes(&shares.next().target)).collect();
    turns.sort();
    expect![[r#"
        500 Service shop/none does not exist
        shop/a:80
        shop/b:80
        shop/b:80
        shop/b:80"#]]
    .assert_eq(&turns.join("\n"));
}

#[test]
fn backends_that_are_not_there_are_refused() {
    let mut elsewhere = to("c");
    elsewhere["namespace"] = json!("other");
    let one = |name: &str, backends: Value| {
        route(name, json!([]), json!([at(&format!("/{name}"), backends)]))
    };
    let kind = json!({"name": "a", "kind": "Bucket", "group": "example.com"});
    let routes = vec![
        one("elsewhere", json!([elsewhere])),
        one("kind", json!([kind])),
        one("missing", json!([to("missing")])),
        one("none", json!([])),
    ];
    let mut seen = seen(vec![gateway(json!([http("web", 80)]))], routes);
    let mut go_on = |expected: Expect| {
        check(&seen, expected);
        let grant = json!({"from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service", "name": "c"}]});
        seen.grants = objects(vec![object("other", "grant", grant)]);
    };
    go_on(expect![[r#"
        :80 Exact("/elsewhere") -> 500 no ReferenceGrant lets this HTTPRoute use Service other/c
        :80 Exact("/missing") -> 500 Service shop/missing does not exist
        :80 Exact("/kind") -> 500 a backend that is Bucket a is not supported, only Services are
        :80 Exact("/none") -> 500 no backend takes these requests
        Gateway infra/front ["127.0.0.1"]
          web 4
             Programmed=True Programmed: port 80 of this machine's loopback addresses
        HTTPRoute shop/elsewhere
          front/
             ResolvedRefs=False RefNotPermitted: no ReferenceGrant lets this HTTPRoute use Service other/c
        HTTPRoute shop/kind
          front/
             ResolvedRefs=False InvalidKind: a backend that is Bucket a is not supported, only Services are
        HTTPRoute shop/missing
          front/
             ResolvedRefs=False BackendNotFound: Service shop/missing does not exist
        HTTPRoute shop/none
          front/
    "#]]);
    go_on(expect![[r#"
        :80 Exact("/elsewhere") -> other/c:80
        :80 Exact("/missing") -> 500 Service shop/missing does not exist
        :80 Exact("/kind") -> 500 a backend that is Bucket a is not supported, only Services are
        :80 Exact("/none") -> 500 no backend takes these requests
        Gateway infra/front ["127.0.0.1"]
          web 4
             Programmed=True Programmed: port 80 of this machine's loopback addresses
        HTTPRoute shop/elsewhere
          front/
        HTTPRoute shop/kind
          front/
             ResolvedRefs=False InvalidKind: a backend that is Bucket a is not supported, only Services are
        HTTPRoute shop/missing
          front/
             ResolvedRefs=False BackendNotFound: Service shop/missing does not exist
        HTTPRoute shop/none
          front/
    "#]]);
}

#[test]
fn what_others_say_and_when_it_changed_stays() {
    let rules = json!([{"backendRefs": [to("a")]}]);
    let mut web = route("web", json!([]), rules);
    let theirs = json!({"parentRef": {"name": "theirs"}, "controllerName": "example.com/their",
        "conditions": []});
    web["status"] = json!({"parents": [theirs]});
    let mut seen = seen(vec![gateway(json!([http("web", 80)]))], vec![web]);
    let second = |it: i64| Timestamp::from_second(it).unwrap();
    let (mut before, mut times) = (None, Vec::new());
    for now in 1..4 {
        let decision = decide(&seen);
        let (gateway, route) = (&seen.gateways[0], &seen.routes[0]);
        let of_gateway = of_gateway(
            gateway,
            &decision.gateways[&Key::of(&**gateway)],
            &reached(&decision),
            second(now),
        );
        let of_route = of_route(route, &decision.routes[&Key::of(&**route)], second(now));
        assert_eq!(of_route.parents[0].controller_name, "example.com/their");
        // Once written, nothing is left to do.
        let written = (of_gateway.clone(), of_route.clone());
        if let Some(before) = &before {
            assert_eq!(*before, written);
        }
        let mut told = (**route).clone();
        told.status = of_route;
        seen.routes = vec![Arc::new(told)];
        let mut told = (**gateway).clone();
        told.status = of_gateway;
        seen.gateways = vec![Arc::new(told)];
        before = Some(written);
        if now == 2 {
            // What is no longer named is no longer spoken of.
            let mut gone = (*seen.routes[0]).clone();
            gone.spec.parent_refs = vec![ParentReference::default()];
            let seen = Seen { routes: vec![Arc::new(gone.clone())], ..seen.clone() };
            let found = &decide(&seen).routes[&Key::of(&gone)];
            times.push(super::of_route(&gone, found, second(9)).parents.len());
        }
    }
    assert_eq!(times, [1]);
}

/// Routes as they are written, and a request.
mod matching {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};
    use proptest::{collection::vec, option, prelude::*, sample::select, sample::subsequence};

    use super::*;

    const HOSTS: [&str; 6] = ["", "a.test", "*.test", "*.a.test", "x.a.test", "b.test"];

    #[derive(Clone, Debug)]
    struct Written {
        host: &'static str,
        path: (&'static str, &'static str),
        method: Option<&'static str>,
        headers: Vec<&'static str>,
        query: Vec<&'static str>,
    }

    fn written() -> impl Strategy<Value = Written> {
        let path = (select(vec!["Exact", "PathPrefix"]), select(vec!["/", "/a", "/a/b", "/ab"]));
        let some = || subsequence(vec!["one", "two"], 0..=2);
        let method = option::weighted(0.3, select(vec!["GET", "POST"]));
        (select(HOSTS.to_vec()), path, method, some(), some()).prop_map(
            |(host, path, method, headers, query)| Written { host, path, method, headers, query },
        )
    }

    /// By the words of the API's documentation; none if it does not take the request. The host comes first.
    type Rank = (usize, (bool, usize), bool, usize, usize);

    fn rank(of: &Written, asked: &Asked<'_>) -> Option<Rank> {
        let host = match of.host.strip_prefix("*.") {
            _ if of.host.is_empty() => 0,
            Some(rest) if asked.host.ends_with(&format!(".{rest}")) => rest.len(),
            None if of.host == asked.host => 100,
            _ => return None,
        };
        let (kind, path) = of.path;
        let elements = |path: &'static str| path.split('/').filter(|it| !it.is_empty());
        let asked_elements: Vec<&str> = asked.path.split('/').filter(|it| !it.is_empty()).collect();
        let taken = match kind {
            "Exact" => path == asked.path,
            _ => asked_elements.starts_with(&elements(path).collect::<Vec<_>>()),
        };
        let method = of.method.is_none_or(|it| it == asked.method.as_str());
        let headers = of.headers.iter().all(|it| asked.headers.contains_key(*it));
        let query = of.query.iter().all(|it| asked.query.contains(&format!("{it}=1")));
        let length = path.trim_end_matches('/').len();
        let rank = (
            host,
            (kind == "Exact", length),
            of.method.is_some(),
            of.headers.len(),
            of.query.len(),
        );
        (taken && method && headers && query).then_some(rank)
    }

    fn object_of(number: usize, of: &Written) -> Value {
        let field = |name: &&str| json!({"name": name, "value": "1"});
        let (kind, value) = of.path;
        let one = json!({"path": {"type": kind, "value": value}, "method": of.method,
            "headers": of.headers.iter().map(field).collect::<Vec<_>>(),
            "queryParams": of.query.iter().map(field).collect::<Vec<_>>()});
        let hosts = if of.host.is_empty() { json!([]) } else { json!([of.host]) };
        route(
            &format!("r{number:02}"),
            hosts,
            json!([{"matches": [one], "backendRefs": [to("a")]}]),
        )
    }

    proptest! {
        #[test]
        fn the_best_route_takes_a_request(
            routes in vec(written(), 1..10),
            host in select(vec!["a.test", "b.test", "x.a.test", "y.x.a.test", "test"]),
            path in select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab"]),
            method in select(vec![Method::GET, Method::POST]),
            fields in subsequence(vec!["one", "two"], 0..=2),
            query in select(vec!["", "one=1", "two=1&one=1", "%74wo=1"]),
        ) {
            let headers: HeaderMap = fields.into_iter()
                .map(|it| (HeaderName::from_static(it), HeaderValue::from_static("1")))
                .collect();
            let decoded = query.replace("%74", "t");
            let asked = Asked { host, at: 80, method: &method, path, query, headers: &headers };
            let plain = Asked { query: &decoded, ..asked };
            let objects = routes.iter().enumerate().map(|(number, it)| object_of(number, it));
            let seen = seen(vec![gateway(json!([http("web", 80)]))], objects.collect());
            let ranked = routes.iter().enumerate()
                .filter_map(|(number, it)| Some((rank(it, &plain)?, std::cmp::Reverse(number))));
            let wanted = ranked.max().map(|(_, number)| format!("r{:02}", number.0));
            let decision = decide(&seen);
            let found = decision.table.route(&asked).map(|it| it.of.key.name.clone());
            prop_assert_eq!(found, wanted);
            let elsewhere = decision.table.route(&Asked { at: 81, ..asked });
            prop_assert!(elsewhere.is_none());
        }
    }
}
