//! Rules for containers.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use super::{env, probe, resources, security, volume};
use crate::kinds::{Causes, path::Path, rules, value::Read};

/// What a container needs to know of the rest of its pod.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub(super) volumes: &'a BTreeSet<&'a str>,
    pub(super) host_network: bool,
}

/// Checks containers and init containers, whose names and host ports are unique together.
pub(super) fn validate(spec: &Value, pod: Pod<'_>, path: Path<'_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    if spec.items("containers").is_empty() {
        causes.required(path.child("containers"), "");
    }
    for list in ["containers", "initContainers"] {
        let containers = path.child(list);
        for (index, container) in spec.items(list).iter().enumerate() {
            let path = containers.index(index);
            name(container, &mut seen, path, causes);
            validate_one(container, pod, path, causes);
            if list == "initContainers" {
                init(container, path, causes);
            }
        }
    }
    host_ports(spec, path, causes);
}

fn name<'a>(
    container: &'a Value,
    seen: &mut BTreeSet<&'a str>,
    path: Path<'_>,
    causes: &mut Causes,
) {
    let name = container.text("name");
    if name.is_empty() {
        causes.required(path.child("name"), "");
        return;
    }
    rules::all(names::dns1123_label(name), path.child("name"), name, causes);
    if !seen.insert(name) {
        causes.duplicate(path.child("name"), &Value::from(name));
    }
}

fn validate_one(container: &Value, pod: Pod<'_>, path: Path<'_>, causes: &mut Causes) {
    let image = container.text("image");
    if image.is_empty() {
        causes.required(path.child("image"), "");
    } else if image.trim() != image {
        let image = Value::from(image);
        causes.invalid(path.child("image"), &image, "must not have leading or trailing whitespace");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    rules::one_of(container, "terminationMessagePolicy", &policies, path, causes);
    probe::validate(container, path, causes);
    ports(container, pod, path, causes);
    env::validate(container, path, causes);
    mounts(container, pod, path, causes);
    rules::one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, causes);
    resources::validate(container.field("resources"), path.child("resources"), causes);
    security::container(container.field("securityContext"), path.child("securityContext"), causes);
}

/// An init container that does not stay runs to its end before the others: it has no probes.
fn init(container: &Value, path: Path<'_>, causes: &mut Causes) {
    match container.text("restartPolicy") {
        "Always" => return,
        "" => {}
        _ => {
            let policy = container.field("restartPolicy");
            causes.not_supported(path.child("restartPolicy"), policy, &["Always"]);
        }
    }
    for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(name) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            causes.forbidden(path.child(name), detail);
        }
    }
}

fn ports(container: &Value, pod: Pod<'_>, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("ports");
    let mut seen = BTreeSet::new();
    for (index, port) in container.items("ports").iter().enumerate() {
        let path = list.index(index);
        let name = port.text("name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                causes.duplicate(path.child("name"), &Value::from(name));
            }
            rules::all(problems, path.child("name"), name, causes);
        }
        match port.int("containerPort").unwrap_or_default() {
            0 => causes.required(path.child("containerPort"), ""),
            number => {
                let problems = names::port_number(number);
                rules::all(problems, path.child("containerPort"), number, causes);
            }
        }
        let host_port = port.int("hostPort").unwrap_or_default();
        if host_port != 0 {
            let problems = names::port_number(host_port);
            rules::all(problems, path.child("hostPort"), host_port, causes);
        }
        if pod.host_network && port.int("containerPort") != port.int("hostPort") {
            let detail = "must match `hostPort` when `hostNetwork` is true";
            causes.invalid(path.child("containerPort"), port.field("containerPort"), detail);
        }
        rules::one_of(port, "protocol", &["SCTP", "TCP", "UDP"], path, causes);
    }
}

/// Two containers of a pod cannot take the same port of the host.
fn host_ports(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let containers = path.child("containers");
    let mut seen = BTreeSet::new();
    for (index, container) in spec.items("containers").iter().enumerate() {
        let container_path = containers.index(index);
        let list = container_path.child("ports");
        for (index, port) in container.items("ports").iter().enumerate() {
            let number = port.int("hostPort").unwrap_or_default();
            let key = (port.text("protocol"), port.text("hostIP"), number);
            if number != 0 && !seen.insert(key) {
                let value = Value::from(format!("{}/{}/{number}", key.0, key.1));
                causes.duplicate(list.index(index).child("hostPort"), &value);
            }
        }
    }
}

fn mounts(container: &Value, pod: Pod<'_>, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("volumeMounts");
    let mut seen = BTreeSet::new();
    for (index, mount) in container.items("volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let name = mount.text("name");
        if name.is_empty() {
            causes.required(path.child("name"), "");
        } else if !pod.volumes.contains(name) {
            let message = format!("Not found: {name:?}");
            causes.push(crate::kinds::Reason::NotFound, path.child("name"), message);
        }
        let mount_path = mount.text("mountPath");
        if mount_path.is_empty() {
            causes.required(path.child("mountPath"), "");
        } else if !seen.insert(mount_path) {
            causes.invalid(path.child("mountPath"), &Value::from(mount_path), "must be unique");
        }
        let sub_path = mount.text("subPath");
        if !sub_path.is_empty() {
            volume::relative(sub_path, path.child("subPath"), causes);
        }
        let propagation = ["Bidirectional", "HostToContainer", "None"];
        if mount.has("mountPropagation") {
            rules::one_of(mount, "mountPropagation", &propagation, path, causes);
        }
    }
}
