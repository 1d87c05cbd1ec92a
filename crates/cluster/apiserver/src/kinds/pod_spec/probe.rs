//! Rules for probes and lifecycle handlers: what a kubelet runs or asks.

use api::names;
use serde_json::Value;

use crate::kinds::{Causes, path::Path, rules, value::Read};

/// Checks the probes and the lifecycle handlers of the container at `path`.
pub(super) fn validate(container: &Value, path: Path<'_>, causes: &mut Causes) {
    let lifecycle = path.child("lifecycle");
    for name in ["postStart", "preStop"] {
        let handler = container.field("lifecycle").field(name);
        if !handler.is_null() {
            let kinds = ["exec", "httpGet", "tcpSocket", "sleep"];
            validate_handler(handler, &kinds, lifecycle.child(name), causes);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(name) {
            validate_probe(container.field(name), name, path.child(name), causes);
        }
    }
}

fn validate_probe(probe: &Value, name: &str, path: Path<'_>, causes: &mut Causes) {
    validate_handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], path, causes);
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        rules::not_negative(probe, number, path, causes);
    }
    let grace = "terminationGracePeriodSeconds";
    match (name, probe.int(grace)) {
        ("readinessProbe", Some(_)) => {
            causes.invalid(
                path.child(grace),
                probe.field(grace),
                "must not be set for readinessProbes",
            );
        }
        (_, Some(..=0)) => {
            causes.invalid(path.child(grace), probe.field(grace), "must be greater than 0");
        }
        _ => {}
    }
    let success = "successThreshold";
    if name != "readinessProbe" && probe.int(success).is_some_and(|it| it != 1) {
        causes.invalid(path.child(success), probe.field(success), "must be 1");
    }
}

/// Exactly one of `kinds` must be there.
fn validate_handler(handler: &Value, kinds: &[&str], path: Path<'_>, causes: &mut Causes) {
    let mut given = kinds.iter().filter(|it| handler.has(it));
    let Some(first) = given.next() else {
        causes.required(path, "must specify a handler type");
        return;
    };
    validate_one(handler.field(first), first, path.child(first), causes);
    for more in given {
        causes.forbidden(path.child(more), "may not specify more than 1 handler type");
    }
}

fn validate_one(handler: &Value, kind: &str, path: Path<'_>, causes: &mut Causes) {
    match kind {
        "exec" if handler.items("command").is_empty() => causes.required(path.child("command"), ""),
        "httpGet" => {
            if handler.text("path").is_empty() {
                causes.required(path.child("path"), "");
            }
            rules::port_number_or_name(handler.field("port"), path.child("port"), causes);
            rules::one_of(handler, "scheme", &["HTTP", "HTTPS"], path, causes);
            let headers = path.child("httpHeaders");
            for (index, header) in handler.items("httpHeaders").iter().enumerate() {
                let header = header.text("name");
                let problems = names::http_header_name(header);
                rules::all(problems, headers.index(index).child("name"), header, causes);
            }
        }
        "tcpSocket" => {
            rules::port_number_or_name(handler.field("port"), path.child("port"), causes);
        }
        "grpc" => {
            let port = handler.int("port").unwrap_or_default();
            rules::all(names::port_number(port), path.child("port"), port, causes);
        }
        "sleep" => rules::not_negative(handler, "seconds", path, causes),
        _ => {}
    }
}
