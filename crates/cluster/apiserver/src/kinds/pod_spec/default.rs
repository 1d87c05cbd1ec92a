//! Values of fields of a pod's specification that are not given.

use serde_json::{Value, json};

use crate::kinds::value::{Read, items_mut, object_mut, set, set_default};

/// Path of the file a container may leave its last words in.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// Mode of files in volumes made from objects: `0644`.
const VOLUME_MODE: i64 = 0o644;
/// Seconds a projected token lives.
const TOKEN_SECONDS: i64 = 3600;

/// Fills in a pod's or template's `spec`.
pub(in crate::kinds) fn default(spec: &mut Value) {
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    default_account(spec);
    let host_network = spec.flag("hostNetwork");
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(|it| default_container(it, host_network));
    }
    items_mut(spec, "volumes").for_each(default_volume);
}

/// The account's name has an old and a new field, which say the same.
fn default_account(spec: &mut Value) {
    let [new, old] = ["serviceAccountName", "serviceAccount"].map(|it| spec.text(it).to_owned());
    if !new.is_empty() {
        set(spec, "serviceAccount", new);
    } else if !old.is_empty() {
        set(spec, "serviceAccountName", old);
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    let policy = if has_latest_tag(container.text("image")) { "Always" } else { "IfNotPresent" };
    set_default(container, "imagePullPolicy", policy);
    set_default(container, "terminationMessagePath", TERMINATION_MESSAGE_PATH);
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
        if let (true, Some(number)) = (host_network, port.int("containerPort")) {
            set_default(port, "hostPort", number);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for name in ["postStart", "preStop"] {
            default_http_get(lifecycle.get_mut(name));
        }
    }
    for variable in items_mut(container, "env") {
        default_field_ref(variable.get_mut("valueFrom"));
    }
}

/// Whether the image's tag is `latest`, said or not. A digest fixes the image as a tag does.
fn has_latest_tag(image: &str) -> bool {
    if image.is_empty() || image.contains('@') {
        return false;
    }
    match api::link::repository(image).len() {
        length if length == image.len() => true,
        length => image.get(length..) == Some(":latest"),
    }
}

fn default_probe(probe: &mut Value) {
    set_default(probe, "timeoutSeconds", 1);
    set_default(probe, "periodSeconds", 10);
    set_default(probe, "successThreshold", 1);
    set_default(probe, "failureThreshold", 3);
    default_http_get(Some(probe));
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

fn default_http_get(handler: Option<&mut Value>) {
    if let Some(get) = handler.and_then(|it| it.get_mut("httpGet")) {
        set_default(get, "path", "/");
        set_default(get, "scheme", "HTTP");
    }
}

fn default_field_ref(source: Option<&mut Value>) {
    if let Some(field) = source.and_then(|it| it.get_mut("fieldRef")) {
        set_default(field, "apiVersion", "v1");
    }
}

fn default_volume(volume: &mut Value) {
    let no_source = volume.as_object().is_some_and(|it| it.keys().all(|it| it == "name"));
    if no_source {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            set_default(source, "defaultMode", VOLUME_MODE);
        }
    }
    // Here an empty type says something: no check at all.
    if let Some(Value::Object(host_path)) = volume.get_mut("hostPath") {
        host_path.entry("type").or_insert_with(|| "".into());
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(|it| default_field_ref(Some(it)));
    }
    if let Some(projected) = volume.get_mut("projected") {
        items_mut(projected, "sources").for_each(default_projection);
    }
    if let Some(claim) =
        volume.get_mut("ephemeral").and_then(|it| it.get_mut("volumeClaimTemplate"))
        && let Some(spec) = object_mut(claim, "spec")
    {
        set_default(spec, "volumeMode", "Filesystem");
    }
}

fn default_projection(source: &mut Value) {
    if let Some(token) = source.get_mut("serviceAccountToken") {
        set_default(token, "expirationSeconds", TOKEN_SECONDS);
    }
    if let Some(downward) = source.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(|it| default_field_ref(Some(it)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mut spec: Value, path: &str, expected: &Value) {
        default(&mut spec);
        assert_eq!(spec.pointer(path), Some(expected));
        let once = spec.clone();
        default(&mut spec);
        assert_eq!(spec, once, "defaulting twice changes nothing");
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, expected) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("localhost:5000/nginx", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            let spec = json!({"containers": [{"image": image}]});
            check(spec, "/containers/0/imagePullPolicy", &json!(expected));
        }
    }

    #[test]
    fn probes_and_handlers() {
        let spec = json!({"containers": [{"livenessProbe": {"httpGet": {"port": 80}}}]});
        check(
            spec,
            "/containers/0/livenessProbe",
            &json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        );
    }

    #[test]
    fn volumes() {
        let volume = |it: Value| json!({"volumes": [it]});
        check(volume(json!({"name": "a"})), "/volumes/0/emptyDir", &json!({}));
        check(volume(json!({"secret": {}})), "/volumes/0/secret/defaultMode", &json!(420));
        check(volume(json!({"hostPath": {"path": "/x"}})), "/volumes/0/hostPath/type", &json!(""));
    }

    #[test]
    fn accounts_have_two_names() {
        check(json!({"serviceAccountName": "a"}), "/serviceAccount", &json!("a"));
        check(json!({"serviceAccount": "a"}), "/serviceAccountName", &json!("a"));
    }

    #[test]
    fn host_network_opens_host_ports() {
        let spec = json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]});
        check(spec, "/containers/0/ports/0/hostPort", &json!(80));
    }
}
