//! Rules for a pod's specification as a whole, and for templates of pods.

use api::names;
use serde_json::{Value, json};

use super::{
    container::{self, Pod},
    placement, security, volume,
};
use crate::kinds::{Causes, path::Path, rules, value::Read};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// Name servers that a resolver asks.
const NAMESERVERS_MAX: usize = 3;
/// Search paths that resolvers have room for.
const SEARCHES_MAX: usize = 32;

/// Checks the `spec` of a pod or template at `path`.
pub(in crate::kinds) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let volumes = volume::validate(spec, path, causes);
    let pod = Pod { volumes: &volumes, host_network: spec.flag("hostNetwork") };
    container::validate(spec, pod, path, causes);
    rules::one_of(spec, "restartPolicy", RESTART_POLICIES, path, causes);
    rules::one_of(spec, "dnsPolicy", DNS_POLICIES, path, causes);
    placement::validate(spec, path, causes);
    security::pod(spec.field("securityContext"), path.child("securityContext"), causes);
    security::users(spec, path, causes);
    optional_name(spec, "serviceAccountName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "nodeName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "hostname", names::dns1123_label, path, causes);
    optional_name(spec, "subdomain", names::dns1123_label, path, causes);
    optional_name(spec, "priorityClassName", names::dns1123_subdomain, path, causes);
    optional_name(spec, "runtimeClassName", names::dns1123_subdomain, path, causes);
    rules::not_negative(spec, "terminationGracePeriodSeconds", path, causes);
    if let Some(seconds) = spec.int("activeDeadlineSeconds") {
        let problems = names::in_range(seconds, 1, i64::from(i32::MAX));
        rules::all(problems, path.child("activeDeadlineSeconds"), seconds, causes);
    }
    dns(spec, path, causes);
    host_aliases(spec, path, causes);
    image_pull_secrets(spec, path, causes);
}

/// Checks a template of pods that are to run for ever: its labels must match `selector`, and its
/// pods must always be restarted.
pub(in crate::kinds) fn template(
    template: &Value,
    selector: &Value,
    kind: &str,
    path: Path<'_>,
    causes: &mut Causes,
) {
    if !rules::selects_everything(selector) {
        template_is_selected(template, selector, path, causes);
    }
    any_template(template, path, causes);
    runs_for_ever(template.field("spec"), kind, path.child("spec"), causes);
}

/// Reports a template whose pods would not belong to the object that makes them.
pub(in crate::kinds) fn template_is_selected(
    template: &Value,
    selector: &Value,
    path: Path<'_>,
    causes: &mut Causes,
) {
    let labels = template.field("metadata").field("labels");
    if !rules::selects(selector, labels) {
        let metadata = path.child("metadata");
        let value = if labels.is_null() { json!({}) } else { labels.clone() };
        causes.invalid(
            metadata.child("labels"),
            &value,
            "`selector` does not match template `labels`",
        );
    }
}

/// Checks a template of pods of any kind.
pub(in crate::kinds) fn any_template(template: &Value, path: Path<'_>, causes: &mut Causes) {
    let labels = template.field("metadata").field("labels");
    // Kubernetes leaves `metadata` out of these two paths.
    rules::labels(labels, path.child("labels"), causes);
    let annotations = template.field("metadata").field("annotations");
    rules::annotations(annotations, path.child("annotations"), causes);
    validate(template.field("spec"), path.child("spec"), causes);
}

/// Reports what would end pods that are to run for ever; `kind` is who makes them.
fn runs_for_ever(spec: &Value, kind: &str, path: Path<'_>, causes: &mut Causes) {
    let policy = spec.text("restartPolicy");
    if RESTART_POLICIES.contains(&policy) && policy != "Always" {
        causes.not_supported(path.child("restartPolicy"), spec.field("restartPolicy"), &["Always"]);
    }
    if spec.has("activeDeadlineSeconds") {
        causes.forbidden(
            path.child("activeDeadlineSeconds"),
            &format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

fn optional_name(
    spec: &Value,
    name: &str,
    rule: fn(&str) -> Vec<String>,
    path: Path<'_>,
    causes: &mut Causes,
) {
    let text = spec.text(name);
    if !text.is_empty() {
        rules::all(rule(text), path.child(name), text, causes);
    }
}

fn dns(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let none = spec.text("dnsPolicy") == "None";
    let path = path.child("dnsConfig");
    if none && !spec.has("dnsConfig") {
        causes.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        return;
    }
    let config = spec.field("dnsConfig");
    let servers = config.items("nameservers");
    let list = path.child("nameservers");
    if none && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.required(list, detail);
    }
    if NAMESERVERS_MAX < servers.len() {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        causes.invalid(list, config.field("nameservers"), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        rules::ip(server.as_str().unwrap_or_default(), list.index(index), causes);
    }
    let list = path.child("searches");
    let searches = config.items("searches");
    if SEARCHES_MAX < searches.len() {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        causes.invalid(list, config.field("searches"), &detail);
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        let relative = search.strip_suffix('.').unwrap_or(search);
        rules::all(names::dns1123_subdomain(relative), list.index(index), search, causes);
    }
    let list = path.child("options");
    for (index, option) in config.items("options").iter().enumerate() {
        if option.text("name").is_empty() {
            causes.required(list.index(index), "must not be empty");
        }
    }
}

fn host_aliases(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("hostAliases");
    for (index, alias) in spec.items("hostAliases").iter().enumerate() {
        let path = list.index(index);
        rules::ip(alias.text("ip"), path.child("ip"), causes);
        let hostnames = path.child("hostnames");
        for (index, name) in alias.items("hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            rules::all(names::dns1123_subdomain(name), hostnames.index(index), name, causes);
        }
    }
}

fn image_pull_secrets(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("imagePullSecrets");
    for (index, secret) in spec.items("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            causes.required(list.index(index).child("name"), "");
        }
    }
}
