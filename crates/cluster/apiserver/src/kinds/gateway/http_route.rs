//! HTTPRoutes: which requests go to which backends.

use std::collections::BTreeSet;

use api::duration;
use regex_lite::Regex;
use serde_json::{Value, json};

use super::{
    super::{
        Causes, Column, Conversion, Kind, Reason,
        path::Path,
        print::{self, AGE, NAME, column},
        structural,
        value::{Read, items_mut, object_mut, set},
    },
    CATEGORIES, GROUP, V1BETA1, broken,
};

pub(in crate::kinds) static HTTP_ROUTE: Kind = HTTP_ROUTE_V1;

const HTTP_ROUTE_V1: Kind = Kind {
    group: GROUP,
    kind: "HTTPRoute",
    plural: "httproutes",
    singular: "httproute",
    categories: CATEGORIES,
    schema: "io.k8s.networking.gateway.v1.HTTPRoute",
    generation: true,
    default,
    prepare_create: |route| set(route, "status", json!({"parents": []})),
    validate,
    columns: COLUMNS,
    row: |it, now| {
        let hosts = match it.field("spec").items("hostnames") {
            [] => String::new(),
            _ => it.at(&["spec", "hostnames"]).to_string(),
        };
        vec![print::name(it), hosts.into(), print::age(it, now)]
    },
    ..Kind::WITH_STATUS
};

pub(in crate::kinds) static HTTP_ROUTE_V1BETA1: Kind = Kind {
    version: V1BETA1,
    schema: "io.k8s.networking.gateway.v1beta1.HTTPRoute",
    conversion: Some(&Conversion { stored: &HTTP_ROUTE, to_stored: |_| {}, from_stored: |_| {} }),
    ..HTTP_ROUTE_V1
};

const SPEC: &str = "io.k8s.networking.gateway.v1.HTTPRouteSpec";
const COLUMNS: &[Column] = &[NAME, column("Hostnames", "Hosts whose requests it takes."), AGE];

/// Most matches of all rules of a route together.
const MATCHES_MAX: usize = 128;
/// What a path to compare with may not have in it, and how it may not end.
const BAD_SEQUENCES: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "#"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];
/// What it consists of.
const PATH: &str = r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$";
/// Types of filters, the field of each, and whether a list may have several of them.
const FILTERS: [(&str, &str, bool); 7] = [
    ("RequestHeaderModifier", "requestHeaderModifier", false),
    ("ResponseHeaderModifier", "responseHeaderModifier", false),
    ("RequestMirror", "requestMirror", true),
    ("RequestRedirect", "requestRedirect", false),
    ("URLRewrite", "urlRewrite", false),
    ("ExtensionRef", "extensionRef", true),
    ("CORS", "cors", false),
];
/// Codes of redirections.
const CODES: [i64; 5] = [301, 302, 303, 307, 308];

fn default(route: &mut Value) {
    let Some(spec) = object_mut(route, "spec") else { return };
    if spec.items("rules").is_empty() {
        set(spec, "rules", json!([{}]));
    }
    for rule in items_mut(spec, "rules") {
        if rule.items("matches").is_empty() {
            set(rule, "matches", json!([{}]));
        }
        for one in items_mut(rule, "matches") {
            object_mut(one, "path");
        }
    }
    structural::default(SPEC, spec);
}

fn validate(route: &Value, causes: &mut Causes) {
    let (spec, path) = (route.field("spec"), Path::new("spec"));
    structural::validate(SPEC, spec, path, causes);
    parents(spec.items("parentRefs"), path.child("parentRefs"), causes);
    let list = path.child("rules");
    let (mut matches, mut names) = (0, BTreeSet::new());
    for (index, rule) in spec.items("rules").iter().enumerate() {
        matches += rule.items("matches").len();
        let name = rule.text("name");
        if !name.is_empty() && !names.insert(name) {
            broken(list, "Rule name must be unique within the route", causes);
        }
        one_rule(rule, list.index(index), causes);
    }
    if MATCHES_MAX < matches {
        let rule = "While 16 rules and 64 matches per rule are allowed, the total number of matches \
            across all rules in a route must be less than 128";
        causes.push(Reason::Invalid, list, format!("Invalid value: \"array\": {rule}"));
    }
}

/// What of several references leads to the same Gateway says which part of it.
fn parents(references: &[Value], path: Path<'_>, causes: &mut Causes) {
    let whole =
        |it: &'_ Value| ["group", "kind", "namespace", "name"].map(|name| it.text(name).to_owned());
    for (index, one) in references.iter().enumerate() {
        let same = |it: &&Value| whole(it) == whole(one);
        let Some(other) = references.iter().take(index).find(same) else { continue };
        let (section, others) = (one.text("sectionName"), other.text("sectionName"));
        let ports = (one.int("port"), other.int("port"));
        if section.is_empty() != others.is_empty() {
            let rule = "sectionName must be specified when parentRefs includes 2 or more references \
                to the same parent";
            broken(path, rule, causes);
        } else if section == others && ports.0 == ports.1 {
            let rule = "sectionName must be unique when parentRefs includes 2 or more references to \
                the same parent";
            broken(path, rule, causes);
        }
    }
}

fn one_rule(rule: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("matches");
    for (index, one) in rule.items("matches").iter().enumerate() {
        path_match(one.field("path"), list.index(index).child("path"), causes);
    }
    let of_rule = rule.items("filters");
    filters(of_rule, path.child("filters"), causes);
    if !rule.items("backendRefs").is_empty() && of_rule.iter().any(|it| it.has("requestRedirect")) {
        broken(path, "RequestRedirect filter must not be used together with backendRefs", causes);
    }
    let mut prefixed = of_rule.iter().any(replaces_prefix);
    let list = path.child("backendRefs");
    for (index, backend) in rule.items("backendRefs").iter().enumerate() {
        let (path, own) = (list.index(index), backend.items("filters"));
        reference(backend, path, causes);
        filters(own, path.child("filters"), causes);
        prefixed |= own.iter().any(replaces_prefix);
    }
    let one_prefix = match rule.items("matches") {
        [one] => one.field("path").text("type") == "PathPrefix",
        _ => false,
    };
    if prefixed && !one_prefix {
        let rule = "When using a filter with path.replacePrefixMatch, exactly one PathPrefix match \
            must be specified";
        broken(path, rule, causes);
    }
    timeouts(rule.field("timeouts"), path.child("timeouts"), causes);
}

fn path_match(value: &Value, at: Path<'_>, causes: &mut Causes) {
    let (kind, text) = (value.text("type"), value.text("value"));
    if !matches!(kind, "Exact" | "PathPrefix") {
        return;
    }
    let mut refuse = |rule: &str| {
        let rule = format!("{rule} when type one of ['Exact', 'PathPrefix']");
        broken(at, &rule, causes);
    };
    if !text.starts_with('/') {
        refuse("value must be an absolute path and start with '/'");
    }
    for bad in BAD_SEQUENCES.iter().filter(|it| text.contains(*it)) {
        refuse(&format!("must not contain '{bad}'"));
    }
    for bad in BAD_SUFFIXES.iter().filter(|it| text.ends_with(*it)) {
        refuse(&format!("must not end with '{bad}'"));
    }
    if !Regex::new(PATH).is_ok_and(|it| it.is_match(text)) {
        let rule = format!(
            "must only contain valid characters (matching {PATH}) for types ['Exact', 'PathPrefix']"
        );
        broken(at, &rule, causes);
    }
}

fn filters(filters: &[Value], list: Path<'_>, causes: &mut Causes) {
    let of = |kind: &str| filters.iter().filter(|it| it.text("type") == kind).count();
    if 0 < of("RequestRedirect") && 0 < of("URLRewrite") {
        let rule = "May specify either httpRouteFilterRequestRedirect or \
            httpRouteFilterRequestRewrite, but not both";
        broken(list, rule, causes);
    }
    for (kind, ..) in FILTERS.iter().filter(|it| !it.2 && 1 < of(it.0)) {
        broken(list, &format!("{kind} filter cannot be repeated"), causes);
    }
    for (index, filter) in filters.iter().enumerate() {
        let path = list.index(index);
        for (kind, field, _) in FILTERS {
            match (filter.text("type") == kind, filter.has(field)) {
                (true, false) => {
                    let rule = format!("filter.{field} must be specified for {kind} filter.type");
                    broken(path, &rule, causes);
                }
                (false, true) => {
                    let rule =
                        format!("filter.{field} must be nil if the filter.type is not {kind}");
                    broken(path, &rule, causes);
                }
                _ => {}
            }
        }
        for field in ["requestRedirect", "urlRewrite"] {
            let path = path.child(field);
            path_modifier(filter.field(field).field("path"), path.child("path"), causes);
        }
        let code = filter.field("requestRedirect").int("statusCode");
        if let Some(code) = code.filter(|it| !CODES.contains(it)) {
            let path = path.child("requestRedirect");
            let codes = CODES.map(|it| it.to_string());
            let codes = codes.each_ref().map(String::as_str);
            causes.not_supported(path.child("statusCode"), &code.into(), &codes);
        }
        mirror(filter.field("requestMirror"), path.child("requestMirror"), causes);
    }
}

fn mirror(mirror: &Value, path: Path<'_>, causes: &mut Causes) {
    if mirror.is_null() {
        return;
    }
    if mirror.has("percent") && mirror.has("fraction") {
        let rule = "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter";
        broken(path, rule, causes);
    }
    let fraction = mirror.field("fraction");
    if fraction.int("denominator") < fraction.int("numerator") {
        let rule = "numerator must be less than or equal to denominator";
        broken(path.child("fraction"), rule, causes);
    }
    reference(mirror.field("backendRef"), path.child("backendRef"), causes);
}

/// A new path says one of two things, and its type which.
fn path_modifier(modifier: &Value, path: Path<'_>, causes: &mut Causes) {
    if modifier.is_null() {
        return;
    }
    for (kind, field) in
        [("ReplaceFullPath", "replaceFullPath"), ("ReplacePrefixMatch", "replacePrefixMatch")]
    {
        match (modifier.text("type") == kind, modifier.has(field)) {
            (true, false) => {
                let rule = format!("{field} must be specified when type is set to '{kind}'");
                broken(path, &rule, causes);
            }
            (false, true) => {
                broken(path, &format!("type must be '{kind}' when {field} is set"), causes);
            }
            _ => {}
        }
    }
}

fn replaces_prefix(filter: &Value) -> bool {
    ["requestRedirect", "urlRewrite"]
        .iter()
        .any(|it| filter.field(it).field("path").has("replacePrefixMatch"))
}

/// A Service is named with its port.
fn reference(backend: &Value, path: Path<'_>, causes: &mut Causes) {
    let service = backend.text("group").is_empty() && backend.text("kind") == "Service";
    if service && !backend.has("port") {
        broken(path, "Must have port for Service reference", causes);
    }
}

fn timeouts(timeouts: &Value, path: Path<'_>, causes: &mut Causes) {
    let whole = duration::parse(timeouts.text("request"));
    let one_try = duration::parse(timeouts.text("backendRequest"));
    if let (Some(whole), Some(one_try)) = (whole, one_try)
        && !whole.is_zero()
        && whole < one_try
    {
        broken(path, "backendRequest timeout cannot be longer than request timeout", causes);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::super::testing::{check, check_row, created},
        *,
    };

    fn rule(rule: Value) -> Value {
        json!({"spec": {"rules": [rule]}})
    }

    #[test]
    fn defaults_are_the_originals() {
        let route = json!({"metadata": {"name": "a"}, "spec": {"parentRefs": [{"name": "g"}],
            "rules": [{"backendRefs": [{"name": "s", "port": 80}, {"name": "t", "port": 80, "weight": 0}]},
                {"matches": [{"headers": [{"name": "a", "value": "b"}]}],
                    "filters": [{"type": "RequestRedirect", "requestRedirect": {}}]}]}});
        let created = created(&HTTP_ROUTE, route);
        expect![[r#"
            {
              "parentRefs": [
                {
                  "group": "gateway.networking.k8s.io",
                  "kind": "Gateway",
                  "name": "g"
                }
              ],
              "rules": [
                {
                  "backendRefs": [
                    {
                      "group": "",
                      "kind": "Service",
                      "name": "s",
                      "port": 80,
                      "weight": 1
                    },
                    {
                      "group": "",
                      "kind": "Service",
                      "name": "t",
                      "port": 80,
                      "weight": 0
                    }
                  ],
                  "matches": [
                    {
                      "path": {
                        "type": "PathPrefix",
                        "value": "/"
                      }
                    }
                  ]
                },
                {
                  "filters": [
                    {
                      "requestRedirect": {
                        "statusCode": 302
                      },
                      "type": "RequestRedirect"
                    }
                  ],
                  "matches": [
                    {
                      "headers": [
                        {
                          "name": "a",
                          "type": "Exact",
                          "value": "b"
                        }
                      ],
                      "path": {
                        "type": "PathPrefix",
                        "value": "/"
                      }
                    }
                  ]
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&created["spec"]).unwrap());
    }

    #[test]
    fn matches_are_checked() {
        let value = |it: &str| json!({"path": {"type": "PathPrefix", "value": it}});
        check(
            &HTTP_ROUTE,
            rule(json!({"matches": [value("a"), value("/a//b/.."), value("/ä"),
                {"path": {"type": "RegularExpression", "value": "[a-z]+"}},
                {"method": "get", "headers": [{"name": "a b", "value": ""}],
                    "queryParams": [{"name": "q", "value": "1", "type": "Prefix"}]}]})),
            expect![[r#"
                spec.rules[0].matches[4].headers[0].name: Invalid value: "a b": spec.rules[0].matches[4].headers[0].name in body should match '^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$'
                spec.rules[0].matches[4].headers[0].value: Invalid value: "": spec.rules[0].matches[4].headers[0].value in body should be at least 1 chars long
                spec.rules[0].matches[4].method: Unsupported value: "get": supported values: "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"
                spec.rules[0].matches[4].queryParams[0].type: Unsupported value: "Prefix": supported values: "Exact", "RegularExpression"
                spec.rules[0].matches[0].path: Invalid value: "object": value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']
                spec.rules[0].matches[1].path: Invalid value: "object": must not contain '//' when type one of ['Exact', 'PathPrefix']
                spec.rules[0].matches[1].path: Invalid value: "object": must not end with '/..' when type one of ['Exact', 'PathPrefix']
                spec.rules[0].matches[2].path: Invalid value: "object": must only contain valid characters (matching ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']"#]],
        );
    }

    #[test]
    fn filters_are_checked() {
        check(
            &HTTP_ROUTE,
            rule(json!({"backendRefs": [{"name": "s", "port": 70000}, {"name": "s"}],
                "filters": [{"type": "URLRewrite", "requestRedirect": {"statusCode": 300}},
                    {"type": "RequestRedirect", "requestRedirect": {"path":
                        {"type": "ReplaceFullPath", "replacePrefixMatch": "/"}}},
                    {"type": "RequestRedirect", "requestRedirect": {"scheme": "ftp"}},
                    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m"},
                        "percent": 10, "fraction": {"numerator": 200}}}],
                "matches": [{"path": {"type": "Exact", "value": "/a"}}],
                "timeouts": {"request": "1s", "backendRequest": "1m"}})),
            expect![[r#"
                spec.rules[0].backendRefs[0].port: Invalid value: 70000: spec.rules[0].backendRefs[0].port in body should be less than or equal to 65535
                spec.rules[0].filters[2].requestRedirect.scheme: Unsupported value: "ftp": supported values: "http", "https"
                spec.rules[0].filters: Invalid value: "object": May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both
                spec.rules[0].filters: Invalid value: "object": RequestRedirect filter cannot be repeated
                spec.rules[0].filters[0]: Invalid value: "object": filter.requestRedirect must be nil if the filter.type is not RequestRedirect
                spec.rules[0].filters[0]: Invalid value: "object": filter.urlRewrite must be specified for URLRewrite filter.type
                spec.rules[0].filters[0].requestRedirect.statusCode: Unsupported value: 300: supported values: "301", "302", "303", "307", "308"
                spec.rules[0].filters[1].requestRedirect.path: Invalid value: "object": replaceFullPath must be specified when type is set to 'ReplaceFullPath'
                spec.rules[0].filters[1].requestRedirect.path: Invalid value: "object": type must be 'ReplacePrefixMatch' when replacePrefixMatch is set
                spec.rules[0].filters[3].requestMirror: Invalid value: "object": Only one of percent or fraction may be specified in HTTPRequestMirrorFilter
                spec.rules[0].filters[3].requestMirror.fraction: Invalid value: "object": numerator must be less than or equal to denominator
                spec.rules[0].filters[3].requestMirror.backendRef: Invalid value: "object": Must have port for Service reference
                spec.rules[0]: Invalid value: "object": RequestRedirect filter must not be used together with backendRefs
                spec.rules[0].backendRefs[1]: Invalid value: "object": Must have port for Service reference
                spec.rules[0]: Invalid value: "object": When using a filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified
                spec.rules[0].timeouts: Invalid value: "object": backendRequest timeout cannot be longer than request timeout"#]],
        );
    }

    #[test]
    fn parents_are_told_apart() {
        check(
            &HTTP_ROUTE,
            json!({"spec": {"parentRefs": [{"name": "g"}, {"name": "g"},
                {"name": "g", "sectionName": "s"}, {"name": "h", "sectionName": "s"},
                {"name": "h", "sectionName": "t"}], "hostnames": ["*", "a.example.com"]}}),
            expect![[r#"
                spec.hostnames[0]: Invalid value: "*": spec.hostnames[0] in body should match '^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'
                spec.parentRefs: Invalid value: "object": sectionName must be unique when parentRefs includes 2 or more references to the same parent
                spec.parentRefs: Invalid value: "object": sectionName must be specified when parentRefs includes 2 or more references to the same parent"#]],
        );
    }

    #[test]
    fn rows_show_hosts() {
        check_row(
            &HTTP_ROUTE,
            json!({"spec": {"hostnames": ["a.example.com", "b"]}}),
            expect![[r#"a | ["a.example.com","b"] | 60m"#]],
        );
    }
}
