//! ValidatingWebhookConfigurations and MutatingWebhookConfigurations.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use super::{
    FAILURE_POLICIES, PLAIN, REINVOCATION_POLICIES, conditions, default_match, rule, selectors,
};
use crate::kinds::{
    Causes, Column, Kind,
    path::Path,
    print::{self, AGE, NAME, number},
    rules,
    value::{Read, items_mut, set_default},
};

pub(in crate::kinds) static VALIDATING_WEBHOOK_CONFIGURATION: Kind = Kind {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    schema: "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    ..CONFIGURATION
};

pub(in crate::kinds) static MUTATING_WEBHOOK_CONFIGURATION: Kind = Kind {
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    schema: "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    default: |configuration| {
        default(configuration);
        let hooks = items_mut(configuration, "webhooks");
        hooks.for_each(|it| set_default(it, "reinvocationPolicy", "Never"));
    },
    ..CONFIGURATION
};

const CONFIGURATION: Kind = Kind {
    default,
    validate,
    columns: COLUMNS,
    row: |it, now| vec![print::name(it), it.items("webhooks").len().into(), print::age(it, now)],
    ..PLAIN
};

const COLUMNS: &[Column] = &[NAME, number("Webhooks", "Number of webhooks."), AGE];

/// How long an answer is waited for, in seconds.
const TIMEOUT_SECONDS: i64 = 10;
/// The longest that can be waited.
const TIMEOUT_SECONDS_MAX: i64 = 30;
/// Where a Service is asked.
const PORT: i64 = 443;
/// Versions of the question that webhooks are asked in.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

fn default(configuration: &mut Value) {
    for hook in items_mut(configuration, "webhooks") {
        set_default(hook, "failurePolicy", "Fail");
        set_default(hook, "timeoutSeconds", TIMEOUT_SECONDS);
        default_match(hook, &["rules"]);
        if let Some(service) = hook.get_mut("clientConfig").and_then(|it| it.get_mut("service")) {
            set_default(service, "port", PORT);
        }
    }
}

fn validate(configuration: &Value, causes: &mut Causes) {
    let list = Path::new("webhooks");
    let mut seen = BTreeSet::new();
    for (index, hook) in configuration.items("webhooks").iter().enumerate() {
        let path = list.index(index);
        let name = hook.text("name");
        full_name(name, path.child("name"), causes);
        let rules_path = path.child("rules");
        for (index, it) in hook.items("rules").iter().enumerate() {
            rule(it, rules_path.index(index), causes);
        }
        rules::one_of(hook, "failurePolicy", &FAILURE_POLICIES, path, causes);
        match hook.text("sideEffects") {
            "" => {
                let detail = "must specify one of None, NoneOnDryRun";
                causes.required(path.child("sideEffects"), detail);
            }
            _ => rules::one_of(hook, "sideEffects", &SIDE_EFFECTS, path, causes),
        }
        let timeout = hook.int("timeoutSeconds").unwrap_or(TIMEOUT_SECONDS);
        if !(1..=TIMEOUT_SECONDS_MAX).contains(&timeout) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            causes.invalid(path.child("timeoutSeconds"), &timeout.into(), detail);
        }
        selectors(hook, path, causes);
        let policy = "reinvocationPolicy";
        rules::optional_one_of(hook, policy, &REINVOCATION_POLICIES, path, causes);
        client(hook.field("clientConfig"), path.child("clientConfig"), causes);
        conditions(hook, path, causes);
        review_versions(hook, path.child("admissionReviewVersions"), causes);
        if !name.is_empty() && !seen.insert(name) {
            causes.duplicate(path.child("name"), &name.into());
        }
    }
}

/// A domain name of at least three parts.
fn full_name(name: &str, path: Path<'_>, causes: &mut Causes) {
    if name.is_empty() {
        causes.required(path, "");
        return;
    }
    let problems = names::dns1123_subdomain(name);
    if problems.is_empty() && name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        causes.invalid(path, &name.into(), detail);
    }
    if let [first, ..] = problems.as_slice() {
        causes.invalid(path, &name.into(), first);
    }
}

fn client(client: &Value, path: Path<'_>, causes: &mut Causes) {
    match (client.field("url").as_str(), client.has("service")) {
        (Some(url), false) => validate_url(url, path.child("url"), causes),
        (None, true) => service(client.field("service"), path.child("service"), causes),
        _ => causes.required(path, "exactly one of url or service is required"),
    }
}

fn validate_url(url: &str, path: Path<'_>, causes: &mut Causes) {
    let form = "desired format: https://host[/path]";
    let rest = url.strip_prefix("https://");
    let mut refuse = |value: &str, detail: String| causes.invalid(path, &value.into(), &detail);
    let scheme = url.split_once("://").map_or("", |it| it.0);
    if rest.is_none() {
        refuse(scheme, format!("'https' is the only allowed URL scheme; {form}"));
    }
    let rest = rest.unwrap_or_else(|| url.split_once("://").map_or(url, |it| it.1));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, tail) = rest.split_at(end);
    if host.is_empty() {
        refuse(host, format!("host must be specified; {form}"));
    }
    if let Some((user, _)) = host.split_once('@') {
        refuse(user, "user information is not permitted in the URL".to_owned());
    }
    if let Some((_, fragment)) = tail.split_once('#') {
        refuse(fragment, "fragments are not permitted in the URL".to_owned());
    }
    if let Some((_, query)) = tail.split_once('?') {
        refuse(query, "query parameters are not permitted in the URL".to_owned());
    }
}

fn service(service: &Value, path: Path<'_>, causes: &mut Causes) {
    for (name, detail) in
        [("name", "service name is required"), ("namespace", "service namespace is required")]
    {
        if service.text(name).is_empty() {
            causes.required(path.child(name), detail);
        }
    }
    let port = service.int("port").unwrap_or(PORT);
    for problem in names::port_number(port) {
        let detail = format!("port is not valid: {problem}");
        causes.invalid(path.child("port"), &port.into(), &detail);
    }
    let Some(text) = service.field("path").as_str() else { return };
    let mut refuse = |detail: &str| causes.invalid(path.child("path"), &text.into(), detail);
    if !text.starts_with('/') {
        refuse("must start with a '/'");
    }
    for (index, step) in text.trim_matches('/').split('/').enumerate() {
        if step.is_empty() && text != "/" {
            refuse(&format!("segment[{index}] may not be empty"));
        } else if let Some(problem) = names::dns1123_subdomain(step).first().filter(|_| text != "/")
        {
            refuse(&format!("segment[{index}]: {problem}"));
        }
    }
}

fn review_versions(hook: &Value, path: Path<'_>, causes: &mut Causes) {
    let name = "admissionReviewVersions";
    let versions: Vec<&str> = hook.items(name).iter().filter_map(Value::as_str).collect();
    if versions.is_empty() {
        causes.required(path, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        if !seen.insert(*version) {
            causes.invalid(path.index(index), &(*version).into(), "duplicate version");
            continue;
        }
        rules::all(names::dns1035_label(version), path.index(index), *version, causes);
    }
    if !versions.iter().any(|it| REVIEW_VERSIONS.contains(it)) {
        causes.invalid(path, hook.field(name), "must include at least one of v1, v1beta1");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{check, check_row, created, sample};

    #[test]
    fn says_what_is_not_said() {
        let configuration =
            created(&MUTATING_WEBHOOK_CONFIGURATION, sample(&MUTATING_WEBHOOK_CONFIGURATION));
        expect![[r#"{"admissionReviewVersions":["v1"],"clientConfig":{"url":"https://a.example.com/x"},"failurePolicy":"Fail","matchPolicy":"Equivalent","name":"a.example.com","namespaceSelector":{},"objectSelector":{},"reinvocationPolicy":"Never","rules":[{"apiGroups":[""],"apiVersions":["v1"],"operations":["CREATE"],"resources":["pods"],"scope":"*"}],"sideEffects":"None","timeoutSeconds":10}"#]].assert_eq(&configuration["webhooks"][0].to_string());
        check_row(&MUTATING_WEBHOOK_CONFIGURATION, json!({}), expect!["a | 1 | 60m"]);
    }

    #[test]
    fn a_webhook_is_somewhere_and_about_something() {
        let rule = json!({"operations": ["*", "READ"], "apiGroups": [""], "apiVersions": ["v1", "*"],
            "resources": ["*", "pods", "pods/*", "pods/log", ""], "scope": "Some"});
        let hook = json!({"name": "a.b", "rules": [rule, {}], "failurePolicy": "Retry",
            "timeoutSeconds": 99, "sideEffects": "Some", "admissionReviewVersions": ["v9", "v9"],
            "clientConfig": {"url": "http://u@h/?q#f"},
            "matchConditions": [{}, {"name": "a", "expression": "x"}, {"name": "a", "expression": "y"}]});
        check(
            &VALIDATING_WEBHOOK_CONFIGURATION,
            json!({"webhooks": [hook]}),
            expect![[r#"
            webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
            webhooks[0].rules[0].operations: Invalid value: ["*","READ"]: if '*' is present, must not specify other operations
            webhooks[0].rules[0].operations[1]: Unsupported value: "READ": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"
            webhooks[0].rules[0].apiVersions: Invalid value: ["v1","*"]: if '*' is present, must not specify other API versions
            webhooks[0].rules[0].resources[3]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log
            webhooks[0].rules[0].resources[4]: Required value
            webhooks[0].rules[0].resources: Invalid value: ["*","pods","pods/*","pods/log",""]: if '*' is present, must not specify other resources without subresources
            webhooks[0].rules[0].scope: Unsupported value: "Some": supported values: "*", "Cluster", "Namespaced"
            webhooks[0].rules[1].operations: Required value
            webhooks[0].rules[1].apiGroups: Required value
            webhooks[0].rules[1].apiVersions: Required value
            webhooks[0].rules[1].resources: Required value
            webhooks[0].failurePolicy: Unsupported value: "Retry": supported values: "Fail", "Ignore"
            webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"
            webhooks[0].timeoutSeconds: Invalid value: 99: the timeout value must be between 1 and 30 seconds
            webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "u": user information is not permitted in the URL
            webhooks[0].clientConfig.url: Invalid value: "f": fragments are not permitted in the URL
            webhooks[0].clientConfig.url: Invalid value: "q#f": query parameters are not permitted in the URL
            webhooks[0].matchConditions[0].expression: Required value
            webhooks[0].matchConditions[0].name: Required value
            webhooks[0].matchConditions[2].name: Duplicate value: "a"
            webhooks[0].admissionReviewVersions[1]: Invalid value: "v9": duplicate version
            webhooks[0].admissionReviewVersions: Invalid value: ["v9","v9"]: must include at least one of v1, v1beta1"#]],
        );
        let service = json!({"service": {"port": 0, "path": "a//b"}});
        check(
            &VALIDATING_WEBHOOK_CONFIGURATION,
            json!({"webhooks": [{"clientConfig": service}]}),
            expect![[r#"
                webhooks[0].name: Required value
                webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
                webhooks[0].clientConfig.service.name: Required value: service name is required
                webhooks[0].clientConfig.service.namespace: Required value: service namespace is required
                webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive
                webhooks[0].clientConfig.service.path: Invalid value: "a//b": must start with a '/'
                webhooks[0].clientConfig.service.path: Invalid value: "a//b": segment[1] may not be empty
                webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"#]],
        );
    }
}
