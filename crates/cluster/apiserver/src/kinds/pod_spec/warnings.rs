//! What users hear of pods that are valid and probably not what they mean. The words are Kubernetes'.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use api::quantity::Quantity;
use serde_json::Value;

use crate::kinds::value::Read;

/// Labels of nodes that have other names by now.
const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Annotations that say nothing any more.
const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Kinds of volumes that are gone or going.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Lists of containers, in the order in which they are looked at.
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// What was found, each with its place.
struct Heard<'a> {
    base: &'a str,
    list: Vec<String>,
}

impl Heard<'_> {
    fn say(&mut self, place: impl Display, what: impl Display) {
        self.list.push(format!("{}{place}: {what}", self.base));
    }
}

/// What is said of a pod, or of a template, which stands at `base`: a path with a dot behind it, or
/// nothing.
pub(in crate::kinds) fn warnings(pod: &Value, base: &str) -> Vec<String> {
    let mut heard = Heard { base, list: Vec::new() };
    let (spec, annotations) = (pod.field("spec"), pod.at(&["metadata", "annotations"]));
    labels(spec, &mut heard);
    for (name, message) in ANNOTATIONS.iter().filter(|(name, _)| annotations.has(name)) {
        heard.say(format_args!("metadata.annotations[{name}]"), message);
    }
    for (index, volume) in spec.items("volumes").iter().enumerate() {
        for (name, message) in VOLUMES.iter().filter(|(name, _)| volume.has(name)) {
            heard.say(format_args!("spec.volumes[{index}].{name}"), message);
        }
    }
    twice(spec, ["hostAliases", "ip"], &mut heard);
    twice(spec, ["imagePullSecrets", "name"], &mut heard);
    for (index, _) in unnamed(spec.items("imagePullSecrets")) {
        let place = format_args!("spec.imagePullSecrets[{index}].name");
        heard.say(place, "invalid empty name \"\"");
    }
    fractions(spec, "overhead", "spec", &mut heard);
    for (place, container) in containers(spec) {
        for list in ["limits", "requests"] {
            fractions(
                container.field("resources"),
                list,
                &format!("{place}.resources"),
                &mut heard,
            );
        }
        variables(container, &place, &mut heard);
    }
    ports(spec, &mut heard);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|it| it < 0) {
        let what = "must be >= 0; negative values are invalid and will be treated as 1";
        heard.say("spec.terminationGracePeriodSeconds", what);
    }
    heard.list
}

fn containers(spec: &Value) -> impl Iterator<Item = (String, &Value)> {
    LISTS.into_iter().flat_map(|list| {
        let items = spec.items(list).iter().enumerate();
        items.map(move |(index, it)| (format!("spec.{list}[{index}]"), it))
    })
}

fn unnamed(items: &[Value]) -> impl Iterator<Item = (usize, &Value)> {
    items.iter().enumerate().filter(|(_, it)| it.text("name").is_empty())
}

/// Old labels of nodes, and spreads that are about no pod.
fn labels(spec: &Value, heard: &mut Heard<'_>) {
    let message = |key: &str| NODE_LABELS.iter().find(|it| it.0 == key).map(|it| it.1);
    for (key, _) in spec.members("nodeSelector") {
        if let Some(message) = message(key) {
            heard.say(format_args!("spec.nodeSelector[{key}]"), message);
        }
    }
    for (index, spread) in spec.items("topologySpreadConstraints").iter().enumerate() {
        let place = format!("spec.topologySpreadConstraints[{index}]");
        let key = spread.text("topologyKey");
        if let Some(message) = message(key) {
            heard.say(format_args!("{place}.topologyKey"), format_args!("{key} is {message}"));
        }
        if !spread.has("labelSelector") {
            let what = "a null labelSelector results in matching no pod";
            heard.say(format_args!("{place}.labelSelector"), what);
        }
    }
}

/// Entries of a list that have the same in a field.
fn twice(spec: &Value, [list, name]: [&str; 2], heard: &mut Heard<'_>) {
    let mut seen = BTreeSet::new();
    for (index, item) in spec.items(list).iter().enumerate() {
        let text = item.text(name);
        if !seen.insert(text) {
            let place = format_args!("spec.{list}[{index}].{name}");
            heard.say(place, format_args!("duplicate {name} {text:?}"));
        }
    }
}

/// Bytes of which there is a part.
fn fractions(holder: &Value, list: &str, place: &str, heard: &mut Heard<'_>) {
    for name in ["memory", "ephemeral-storage"] {
        let text = holder.field(list).text(name);
        let whole = text.parse::<Quantity>().is_ok_and(|it| it.is_whole());
        if !text.is_empty() && !whole {
            let what =
                format_args!("fractional byte value {text:?} is invalid, must be an integer");
            heard.say(format_args!("{place}.{list}[{name}]"), what);
        }
    }
}

/// Variables that hide others of their name, unless they use them.
fn variables(container: &Value, place: &str, heard: &mut Heard<'_>) {
    let mut seen = BTreeSet::new();
    for (index, variable) in container.items("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        let reference = format!("$({name})");
        let uses = value != reference && value.contains(&reference);
        if !seen.insert(name) && (variable.has("valueFrom") || !uses) {
            let what = format_args!(
                "hides previous definition of {name:?}, which may be dropped when using apply"
            );
            heard.say(format_args!("{place}.env[{index}]"), what);
        }
    }
}

/// Ports that are in each other's way, first by number, then by name.
fn ports(spec: &Value, heard: &mut Heard<'_>) {
    let all: Vec<(String, &Value)> = containers(spec)
        .flat_map(|(place, it)| {
            let ports = it.items("ports").iter().enumerate();
            ports.map(move |(index, port)| (format!("{place}.ports[{index}]"), port))
        })
        .collect();
    let protocol = |it: &Value| match it.text("protocol") {
        "" => "TCP".to_owned(),
        other => other.to_owned(),
    };
    let host = |it: &Value| (it.text("hostIP").to_owned(), it.int("hostPort").unwrap_or_default());
    let mut numbers: BTreeMap<_, Vec<(&String, &Value)>> = BTreeMap::new();
    let base = heard.base;
    for (place, port) in &all {
        let same = numbers.entry((port.int("containerPort"), protocol(port))).or_default();
        for (other, before) in same.iter() {
            let ((ip, number), (ip_before, number_before)) = (host(port), host(before));
            let how = if (&ip, number) == (&ip_before, number_before) {
                "duplicate"
            } else if number == 0 || number_before == 0 {
                "overlapping"
            } else if number == number_before && ip.is_empty() != ip_before.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            heard.say(place, format_args!("{how} port definition with {base}{other}"));
        }
        same.push((place, port));
    }
    let mut names: BTreeMap<&str, &String> = BTreeMap::new();
    for (place, port) in all.iter().filter(|(_, it)| !it.text("name").is_empty()) {
        let name = port.text("name");
        let Some(other) = names.get(name) else {
            names.insert(name, place);
            continue;
        };
        let what = format_args!(
            "duplicate port name {name:?} with {base}{other}, services and probes that select \
             ports by name will use {base}{other}"
        );
        heard.say(place, what);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    #[track_caller]
    fn check(spec: Value, expect: Expect) {
        expect.assert_eq(&warnings(&json!({"spec": spec}), "spec.template.").join("\n"));
    }

    #[test]
    fn a_usual_pod_is_passed_over() {
        let port = |number: u32, name: &str| json!({"containerPort": number, "name": name});
        let memory = json!({"limits": {"memory": "1.5Gi", "ephemeral-storage": "1k"}});
        let env = json!([{"name": "A", "value": "a"}, {"name": "A", "value": "$(A):b"}]);
        let one = json!({"ports": [port(80, "a"), port(81, "b")], "resources": memory, "env": env});
        check(
            json!({"containers": [one], "nodeSelector": {"kubernetes.io/os": "linux"}}),
            expect![],
        );
    }

    #[test]
    fn what_is_old() {
        let pod = json!({"spec": {"nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "volumes": [{"name": "v", "gitRepo": {}}],
            "topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone"}]},
            "metadata": {"annotations": {"security.alpha.kubernetes.io/sysctls": ""}}});
        expect![[r#"
            spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead
            spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use "topology.kubernetes.io/zone" instead
            spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod
            metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead
            spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"#]].assert_eq(&warnings(&pod, "").join("\n"));
    }

    #[test]
    fn what_hides_something() {
        let env = json!([{"name": "A", "value": "a"}, {"name": "A", "value": "b"}]);
        let port =
            |name: &str, host: u32| json!({"containerPort": 80, "name": name, "hostPort": host});
        check(
            json!({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}],
                "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
                "terminationGracePeriodSeconds": -1,
                "initContainers": [{"ports": [port("a", 0)]}],
                "containers": [{"env": env, "ports": [port("a", 0), port("b", 9)],
                    "resources": {"requests": {"memory": "100m"}}}]}),
            expect![[r#"
                spec.template.spec.hostAliases[1].ip: duplicate ip "1.1.1.1"
                spec.template.spec.imagePullSecrets[1].name: duplicate name "a"
                spec.template.spec.imagePullSecrets[2].name: invalid empty name ""
                spec.template.spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer
                spec.template.spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply
                spec.template.spec.containers[0].ports[0]: duplicate port definition with spec.template.spec.initContainers[0].ports[0]
                spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.initContainers[0].ports[0]
                spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]
                spec.template.spec.containers[0].ports[0]: duplicate port name "a" with spec.template.spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.template.spec.initContainers[0].ports[0]
                spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"#]],
        );
    }
}
