//! Each case shows the whole table.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::table::{Action, Asked, PathMatch, Route, Rule, Target};

fn objects<K: DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<K>> {
    values.into_iter().map(|it| Arc::new(serde_json::from_value(it).unwrap())).collect()
}

fn ingress(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn path(path_type: &str, path: &str, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    json!({"path": path, "pathType": path_type, "backend": backend})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"host": host, "http": {"paths": paths}})
}

fn service(name: &str, ports: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"ports": ports}})
}

fn slice(service: &str, endpoints: Value) -> Value {
    json!({"metadata": {"name": service, "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints})
}

/// Services `a` and `b` with an endpoint each.
fn seen(ingresses: Vec<Value>) -> Seen {
    let ports = json!([{"port": 80}]);
    Seen {
        ingresses: objects(ingresses),
        services: objects(vec![service("a", ports.clone()), service("b", ports)]),
        slices: objects(vec![
            slice("a", json!([{"addresses": ["10.0.0.1"]}])),
            slice("b", json!([{"addresses": ["10.0.0.2"]}])),
        ]),
        ..Seen::default()
    }
}

fn shown(decision: &Decision) -> String {
    let table = &decision.table;
    let target = |route: &Route| match &route.action {
        Action::To(Target::Forward(it)) => {
            format!("{}:{} {:?} {:?}", it.service, it.port, it.ready, it.leaving)
        }
        Action::To(Target::Refuse(status, why)) => format!("{} {why}", status.as_u16()),
        other => format!("{other:?}"),
    };
    let mut text = String::new();
    let mut rules = |host: &str, rules: &[Rule]| {
        for rule in rules {
            let path = match &rule.wants.path {
                PathMatch::Exact(it) => format!("={it}"),
                PathMatch::Prefix(it) => format!("{it}/*"),
                PathMatch::Regex(it) => format!("~{it}"),
            };
            writeln!(text, "{host} {path} -> {}", target(&rule.route)).unwrap();
        }
    };
    for (host, of_host) in &table.hosts {
        rules(host, of_host);
    }
    for (host, of_host) in &table.wildcards {
        rules(&format!("*.{host}"), of_host);
    }
    rules("any", &table.any);
    for (name, route) in &table.names {
        writeln!(text, "{name} -> {}", target(route)).unwrap();
    }
    if let Some(route) = &table.fallback {
        writeln!(text, "else -> {}", target(route)).unwrap();
    }
    for (key, problems) in &decision.ingresses {
        for problem in problems {
            writeln!(text, "{key}: {}: {}", problem.reason, problem.text).unwrap();
        }
    }
    text
}

#[track_caller]
fn check(seen: &Seen, expected: Expect) {
    expected.assert_eq(&shown(&decide(seen)));
}

#[test]
fn the_longest_path_comes_first_and_the_exact_one_before_a_prefix() {
    let paths = [
        path("Prefix", "/", "a"),
        path("Prefix", "/x/", "a"),
        path("Exact", "/x", "b"),
        path("ImplementationSpecific", "/x/y", "b"),
    ];
    check(
        &seen(vec![ingress("one", json!({"rules": [rule("Web.Example.com", &paths)]}))]),
        expect![[r#"
            web.example.com =/x -> shop/b:80 [10.0.0.2:8080] []
            web.example.com /x/y/* -> shop/b:80 [10.0.0.2:8080] []
            web.example.com /x/* -> shop/a:80 [10.0.0.1:8080] []
            web.example.com /* -> shop/a:80 [10.0.0.1:8080] []
            a.shop.localhost -> shop/a:80 [10.0.0.1:8080] []
            b.shop.localhost -> shop/b:80 [10.0.0.2:8080] []
        "#]],
    );
}

#[test]
fn whoever_was_first_keeps_what_two_want() {
    let older = |mut it: Value| {
        it["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        it
    };
    let younger = |mut it: Value| {
        it["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        it
    };
    let spec = |it| json!({"rules": [rule("x", &[path("Prefix", "/", it)])]});
    check(
        &seen(vec![younger(ingress("a", spec("a"))), older(ingress("b", spec("b")))]),
        expect![[r#"
            x /* -> shop/b:80 [10.0.0.2:8080] []
            x /* -> shop/a:80 [10.0.0.1:8080] []
            a.shop.localhost -> shop/a:80 [10.0.0.1:8080] []
            b.shop.localhost -> shop/b:80 [10.0.0.2:8080] []
        "#]],
    );
}

#[test]
fn hosts_wildcards_and_what_is_left() {
    let backend = json!({"service": {"name": "b", "port": {"number": 80}}});
    let rules = [
        json!({"host": "bare.example.com"}),
        rule("*.example.com", &[path("Prefix", "/", "a")]),
        rule("", &[path("Prefix", "/any", "a")]),
    ];
    check(
        &seen(vec![ingress("one", json!({"defaultBackend": backend, "rules": rules}))]),
        expect![[r#"
            bare.example.com /* -> shop/b:80 [10.0.0.2:8080] []
            *.example.com /* -> shop/a:80 [10.0.0.1:8080] []
            any /any/* -> shop/a:80 [10.0.0.1:8080] []
            a.shop.localhost -> shop/a:80 [10.0.0.1:8080] []
            b.shop.localhost -> shop/b:80 [10.0.0.2:8080] []
            else -> shop/b:80 [10.0.0.2:8080] []
        "#]],
    );
}

#[test]
fn what_cannot_be_honoured_is_said() {
    let unknown = json!({"path": "/u", "pathType": "Prefix",
        "backend": {"service": {"name": "a", "port": {"name": "http"}}}});
    let resource = json!({"path": "/r", "pathType": "Prefix",
        "backend": {"resource": {"kind": "Bucket", "name": "x", "apiGroup": "example.com"}}});
    let paths = [path("Prefix", "/none", "none"), unknown, resource];
    let mut one = ingress("one", json!({"rules": [rule("x", &paths)]}));
    one["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/rewrite-target": "/",
        "kubernetes.io/tls-acme": "true", "nginx.ingress.kubernetes.io/ssl-redirect": "true"});
    check(
        &seen(vec![one]),
        expect![[r#"
            x /none/* -> 503 Service shop/none does not exist
            x /u/* -> 503 Service shop/a has no port `http`
            x /r/* -> 503 a backend that is Bucket is not supported, only Services are
            a.shop.localhost -> shop/a:80 [10.0.0.1:8080] []
            b.shop.localhost -> shop/b:80 [10.0.0.2:8080] []
            shop/one: AnnotationIgnored: annotations of other controllers have no effect here: nginx.ingress.kubernetes.io/rewrite-target, nginx.ingress.kubernetes.io/ssl-redirect
            shop/one: BackendNotFound: Service shop/none does not exist
            shop/one: BackendNotFound: Service shop/a has no port `http`
            shop/one: BackendNotFound: a backend that is Bucket is not supported, only Services are
        "#]],
    );
}

#[test]
fn endpoints_on_their_way_out_are_for_want_of_others() {
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let mut seen = seen(Vec::new());
    seen.slices = objects(vec![
        slice(
            "a",
            json!([
                {"addresses": ["10.0.0.3"], "conditions": leaving},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
            ]),
        ),
        slice("b", json!([{"addresses": ["10.0.0.5"], "conditions": leaving}])),
    ]);
    check(
        &seen,
        expect![[r#"
            a.shop.localhost -> shop/a:80 [10.0.0.1:8080] [10.0.0.3:8080]
            b.shop.localhost -> shop/b:80 [] [10.0.0.5:8080]
        "#]],
    );
    let decision = decide(&seen);
    let endpoints = |name: &str| match &decision.table.names[name].action {
        Action::To(Target::Forward(it)) => {
            it.in_turn().chain(it.in_turn()).map(|it| it.to_string()).collect()
        }
        _ => Vec::new(),
    };
    assert_eq!(endpoints("a.shop.localhost"), ["10.0.0.1:8080"; 2]);
    assert_eq!(endpoints("b.shop.localhost"), ["10.0.0.5:8080"; 2]);
}

/// A pod with two addresses is one endpoint, and IPv4's slices know the same pods; where they have none,
/// IPv6's are used.
#[test]
fn endpoints_are_of_one_family() {
    let six = |service: &str, endpoints: Value| {
        let mut slice = slice(service, endpoints);
        slice["metadata"]["name"] = format!("{service}-6").into();
        slice["addressType"] = "IPv6".into();
        slice
    };
    let mut seen = seen(Vec::new());
    let gone = json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": false}}]);
    seen.slices = objects(vec![
        six("a", json!([{"addresses": ["fd00::a00:1"]}])),
        slice("a", json!([{"addresses": ["10.0.0.1"]}])),
        six("b", json!([{"addresses": ["fd00::a00:2"]}, {"addresses": ["fd00::a00:3"]}])),
        slice("b", gone),
    ]);
    check(
        &seen,
        expect![[r#"
        a.shop.localhost -> shop/a:80 [10.0.0.1:8080] []
        b.shop.localhost -> shop/b:80 [[fd00::a00:2]:8080, [fd00::a00:3]:8080] []
    "#]],
    );
}

#[test]
fn ingresses_of_other_controllers_are_theirs() {
    let class = |name: &str, controller: &str, default: &str| {
        json!({"metadata": {"name": name, "annotations":
            {"ingressclass.kubernetes.io/is-default-class": default}},
            "spec": {"controller": controller}})
    };
    let ours = class("coracle", CONTROLLER, "true");
    let theirs = |default| class("theirs", "example.com/ingress", default);
    let of_class = |name: &str, class: Value| {
        let rules = [rule(name, &[path("Prefix", "/", "a")])];
        ingress(name, json!({"ingressClassName": class, "rules": rules}))
    };
    let mut old = of_class("old", json!(null));
    old["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "theirs"});
    let ingresses = vec![
        of_class("none", json!(null)),
        of_class("ours", json!("coracle")),
        of_class("theirs", json!("theirs")),
        of_class("unknown", json!("nginx")),
        old,
    ];
    let served = |classes| {
        let decision = decide(&Seen { classes: objects(classes), ..seen(ingresses.clone()) });
        decision.ingresses.into_keys().map(|it| it.name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(served(vec![ours, theirs("false")]), "none ours unknown");
    assert_eq!(served(vec![class("coracle", CONTROLLER, "false"), theirs("true")]), "ours unknown");
    assert_eq!(served(Vec::new()), "none old ours theirs unknown");
}

#[test]
fn certificates_are_those_of_secrets() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let secret = |certificate: &str, key: &str| {
        let data = json!({"tls.crt": certificate, "tls.key": key});
        let mut secret: Secret = serde_json::from_value(json!({"stringData": data})).unwrap();
        let data = secret.string_data.take().unwrap().into_iter();
        let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
        secret.data = Some(data.map(|(name, it)| (name, bytes(it))).collect());
        Arc::new(secret)
    };
    let (certificate, key) = (cert.pem(), signing_key.serialize_pem());
    let tls = |secret: &str| json!({"hosts": [format!("{secret}.test")], "secretName": secret});
    let tls = [tls("good"), tls("none"), tls("rubbish"), tls("another"), json!({"hosts": ["y"]})];
    let rules = [rule("good.test", &[path("Prefix", "/", "a")])];
    let mut seen = seen(vec![ingress("one", json!({"rules": rules, "tls": tls}))]);
    assert_eq!(secrets(&seen).len(), 4);
    seen.secrets = [
        ("good", secret(&certificate, &key)),
        ("rubbish", secret("rubbish", &key)),
        ("another", secret(&certificate, &other)),
    ]
    .map(|(name, it)| (Key::namespaced("shop", name), it))
    .into();
    let decision = decide(&seen);
    let hosts: Vec<&String> = decision.table.certificates.keys().collect();
    assert_eq!(hosts, ["good.test"]);
    let problems = decision.ingresses.values().flatten().map(|it| format!("{}\n", it.text));
    expect![[r#"
        Secret shop/none does not exist; the cluster's authority signs certificates instead
        Secret shop/rubbish is not usable: there is no certificate in PEM; the cluster's authority signs certificates instead
        Secret shop/another is not usable: the private key is not the certificate's: keys may not be consistent: KeyMismatch; the cluster's authority signs certificates instead
    "#]].assert_eq(&problems.collect::<String>());
}

/// A rule as it is written, and a request.
mod matching {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    type Written = (&'static str, &'static str, String);

    fn hosts() -> impl Strategy<Value = &'static str> {
        select(vec!["", "a.test", "b.test", "*.test", "x.a.test", "*.a.test", "s0.shop.localhost"])
    }

    fn paths() -> impl Strategy<Value = String> {
        let element = select(vec!["a", "b", "ab", "A"]);
        (vec(element, 0..4), any::<bool>()).prop_map(|(elements, slash)| {
            let end = if slash || elements.is_empty() { "/" } else { "" };
            elements.iter().map(|it| format!("/{it}")).collect::<String>() + end
        })
    }

    fn elements(path: &str) -> Vec<&str> {
        path.trim_matches('/').split('/').filter(|it| !it.is_empty()).collect()
    }

    /// How well a host is named: not at all, by nobody, by `*`, by its name.
    fn host_rank(written: &str, asked: &str) -> Option<u8> {
        match written.strip_prefix("*.") {
            _ if written == asked => Some(3),
            _ if written.is_empty() => Some(0),
            Some(rest) => {
                let labels: Vec<&str> = asked.splitn(2, '.').collect();
                (labels.get(1) == Some(&rest)).then_some(2)
            }
            None => None,
        }
    }

    /// By the words of the API's documentation, every rule for itself: the elements of the longest
    /// path, and whether it is exact.
    fn path_rank(written: &Written, asked: &str) -> Option<(usize, bool)> {
        let (_, path_type, path) = written;
        let exact = *path_type == "Exact";
        let taken =
            if exact { path == asked } else { elements(asked).starts_with(&elements(path)) };
        let length = if exact { path.len() } else { path.trim_end_matches('/').len() };
        taken.then_some((length, exact))
    }

    proptest! {
        #[test]
        fn the_best_rule_takes_a_request(
            rules in vec((hosts(), select(vec!["Exact", "Prefix"]), paths()), 1..12),
            host in select(vec!["a.test", "b.test", "c.test", "x.a.test", "y.a.test", "test", "other"]),
            asked in paths(),
        ) {
            let ports = json!([{"port": 80}]);
            let service = |number: usize| service(&format!("s{number}"), ports.clone());
            let written = |(number, (host, path_type, path)): (usize, &Written)| {
                let paths = [path_of(path_type, path, number)];
                let rule = if host.is_empty() {
                    json!({"http": {"paths": paths}})
                } else {
                    rule(host, &paths)
                };
                let mut it = ingress(&format!("i{number:02}"), json!({"rules": [rule]}));
                it["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                it
            };
            let seen = Seen {
                ingresses: objects(rules.iter().enumerate().map(written).collect()),
                services: objects((0..rules.len()).map(service).collect()),
                ..Seen::default()
            };
            let ranked = rules.iter().enumerate().filter_map(|(number, it)| {
                let ranks = (host_rank(it.0, host)?, path_rank(it, &asked)?);
                // Of equals, the first one.
                Some((ranks, std::cmp::Reverse(number)))
            });
            let wanted = ranked.max().map(|(_, number)| format!("i{:02}", number.0));
            let decision = decide(&seen);
            let headers = http::HeaderMap::new();
            let (method, query) = (&http::Method::GET, "");
            let asked = Asked { host, at: 80, method, path: &asked, query, headers: &headers };
            let found = decision.table.route(&asked).map(|it| it.of.key.name.clone());
            prop_assert_eq!(found, wanted);
        }
    }

    fn path_of(path_type: &str, text: &str, number: usize) -> Value {
        path(path_type, text, &format!("s{number}"))
    }
}

#[test]
fn ports_of_the_host_are_left_to_who_asks_for_them() {
    let mut published = service("a", json!([{"port": 80}]));
    published["metadata"]["annotations"] = json!({"coracle.dev/publish": "8080:80,81"});
    let pod = |port: i32, phase: &str| {
        let ports = json!([{"containerPort": port, "hostPort": port}, {"containerPort": 1}]);
        json!({"spec": {"containers": [{"name": "a", "ports": ports}]}, "status": {"phase": phase}})
    };
    let seen = Seen {
        services: objects(vec![published]),
        pods: objects(vec![pod(443, "Pending"), pod(8443, "Succeeded")]),
        ..Seen::default()
    };
    assert_eq!(decide(&seen).taken.into_iter().collect::<Vec<_>>(), [81, 443, 8080]);
}
