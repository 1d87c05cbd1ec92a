//! Rules for a pod's specification, as a user meets them who makes a pod.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::kinds::{pod::POD, testing};

/// What is wrong with a pod whose `spec` has `change`.
fn check(change: Value, expected: Expect) {
    testing::check(&POD, json!({"spec": change}), expected);
}

/// What is wrong with a pod whose one container has `change`.
fn check_container(change: Value, expected: Expect) {
    let mut container = json!({"name": "c", "image": "app:v1"});
    json_patch::merge(&mut container, &change);
    check(json!({"containers": [container]}), expected);
}

#[test]
fn containers_have_names_and_images() {
    check(json!({"containers": null}), expect!["spec.containers: Required value"]);
    check_container(
        json!({"name": null, "image": null}),
        expect![[r#"
        spec.containers[0].name: Required value
        spec.containers[0].image: Required value"#]],
    );
    check_container(
        json!({"name": "My_c", "image": " x"}),
        expect![[r#"
        spec.containers[0].name: Invalid value: "My_c": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace"#]],
    );
    let c = || json!({"name": "c", "image": "x"});
    check(
        json!({"containers": [c(), c()]}),
        expect![[r#"spec.containers[1].name: Duplicate value: "c""#]],
    );
    check(
        json!({"initContainers": [c()]}),
        expect![[r#"spec.initContainers[0].name: Duplicate value: "c""#]],
    );
}

#[test]
fn policies_are_of_a_fixed_set() {
    check(
        json!({"restartPolicy": "Sometimes", "dnsPolicy": "x"}),
        expect![[r#"
        spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
        spec.dnsPolicy: Unsupported value: "x": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None""#]],
    );
    check_container(
        json!({"imagePullPolicy": "x", "terminationMessagePolicy": "y"}),
        expect![[r#"
        spec.containers[0].terminationMessagePolicy: Unsupported value: "y": supported values: "File", "FallbackToLogsOnError"
        spec.containers[0].imagePullPolicy: Unsupported value: "x": supported values: "Always", "IfNotPresent", "Never""#]],
    );
}

#[test]
fn ports_are_ports() {
    let ports = |it: Value| json!({"ports": it});
    check_container(
        ports(json!([{}, {"containerPort": 70000}])),
        expect![[r#"
        spec.containers[0].ports[0].containerPort: Required value
        spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"#]],
    );
    check_container(
        ports(json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}])),
        expect![[r#"spec.containers[0].ports[1].name: Duplicate value: "a""#]],
    );
    check_container(
        ports(json!([{"containerPort": 1, "protocol": "tcp"}])),
        expect![[
            r#"spec.containers[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP""#
        ]],
    );
    check_container(
        ports(json!([{"containerPort": 1, "name": "this-is-too-long"}])),
        expect![[
            r#"spec.containers[0].ports[0].name: Invalid value: "this-is-too-long": must be no more than 15 characters"#
        ]],
    );
}

#[test]
fn environment_has_names_and_sources() {
    let env = |it: Value| json!({"env": [it]});
    check_container(
        env(json!({"value": "x"})),
        expect!["spec.containers[0].env[0].name: Required value"],
    );
    check_container(
        env(json!({"name": "A=B"})),
        expect![[
            r#"spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='"#
        ]],
    );
    check_container(
        env(
            json!({"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
        ),
        expect![[
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#
        ]],
    );
    check_container(
        env(json!({"name": "A", "valueFrom": {}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"#
        ]],
    );
    check_container(
        env(json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}})),
        expect![[
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs""#
        ]],
    );
    check_container(
        env(
            json!({"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}),
        ),
        expect![""],
    );
    check_container(
        env(json!({"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m"}}})),
        expect!["spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value"],
    );
    check_container(
        json!({"envFrom": [{}]}),
        expect![[
            r#"spec.containers[0].envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#
        ]],
    );
}

#[test]
fn mounts_have_volumes() {
    check_container(
        json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}, {"name": "v", "mountPath": "/w"}]}),
        expect![[r#"
        spec.containers[0].volumeMounts[0].name: Not found: "w"
        spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/w": must be unique"#]],
    );
    check_container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/w", "subPath": "../x"}]}),
        expect![[
            r#"spec.containers[0].volumeMounts[0].subPath: Invalid value: "../x": must not contain '..'"#
        ]],
    );
}

#[test]
fn volumes_have_one_source() {
    let check_volumes = |volumes: Value, expected| {
        check(json!({"volumes": volumes, "containers": [{"name": "c", "image": "x"}]}), expected);
    };
    check_volumes(
        json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]),
        expect!["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"],
    );
    check_volumes(
        json!([{"name": "v", "secret": {}}, {"name": "v", "configMap": {}}]),
        expect![[r#"
        spec.volumes[0].secret.secretName: Required value
        spec.volumes[1].name: Duplicate value: "v"
        spec.volumes[1].configMap.name: Required value"#]],
    );
    check_volumes(
        json!([{"name": "v", "configMap": {"name": "m", "defaultMode": 512, "items": [{"key": "k", "path": "/x"}]}}]),
        expect![[r#"
        spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive
        spec.volumes[0].configMap.items[0].path: Invalid value: "/x": must be a relative path"#]],
    );
    check_volumes(
        json!([{"name": "v", "hostPath": {"path": "/a/../b", "type": "x"}}]),
        expect![[r#"
        spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'
        spec.volumes[0].hostPath.type: Unsupported value: "x": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket""#]],
    );
}

#[test]
fn probes_have_one_handler() {
    let liveness = |it: Value| json!({"livenessProbe": it});
    check_container(
        liveness(json!({})),
        expect!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check_container(
        liveness(json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}})),
        expect![
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"
        ],
    );
    check_container(
        liveness(json!({"tcpSocket": {"port": 0}, "successThreshold": 2, "periodSeconds": -1})),
        expect![[r#"
        spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive
        spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0
        spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"#]],
    );
    check_container(
        json!({"readinessProbe": {"httpGet": {"port": "x y", "scheme": "ftp"}, "terminationGracePeriodSeconds": 1}}),
        expect![[r#"
        spec.containers[0].readinessProbe.httpGet.port: Invalid value: "x y": must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)
        spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "ftp": supported values: "HTTP", "HTTPS"
        spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes"#]],
    );
}

#[test]
fn resources_are_sensible() {
    let resources = |it: Value| json!({"resources": it});
    check_container(
        resources(json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}})),
        expect![[
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#
        ]],
    );
    check_container(
        resources(json!({"limits": {"memory": "-1"}, "requests": {"memory": "-1"}})),
        expect![[r#"
        spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0
        spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0"#]],
    );
    check_container(
        resources(json!({"limits": {"foo": "1"}})),
        expect![[r#"
        spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
        spec.containers[0].resources.limits[foo]: Invalid value: "foo": must be a standard resource for containers
        spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
        spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers"#]],
    );
}

#[test]
fn init_containers_end() {
    let init = |it: Value| {
        let mut container = json!({"name": "i", "image": "x"});
        json_patch::merge(&mut container, &it);
        json!({"initContainers": [container]})
    };
    check(
        init(json!({"livenessProbe": {"tcpSocket": {"port": 1}}})),
        expect![
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"
        ],
    );
    check(
        init(json!({"livenessProbe": {"tcpSocket": {"port": 1}}, "restartPolicy": "Always"})),
        expect![""],
    );
}

#[test]
fn tolerations_make_sense() {
    check(
        json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}, {"operator": "Near"}]}),
        expect![[r#"
        spec.tolerations[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'
        spec.tolerations[1].operator: Invalid value: "Near": operator must be Exists when `key` is empty, which means "match all values and all keys"
        spec.tolerations[1].operator: Unsupported value: "Near": supported values: "Equal", "Exists""#]],
    );
}

#[test]
fn affinities_select_something() {
    let node = |it: Value| json!({"affinity": {"nodeAffinity": it}});
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    check(
        node(json!({required: {}})),
        expect![
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term"
        ],
    );
    let term = json!({"matchExpressions": [{"key": "a", "operator": "Gt"}, {"key": "a", "operator": "Like"}]});
    check(
        node(json!({required: {"nodeSelectorTerms": [term]}})),
        expect![[r#"
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'
        spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].operator: Invalid value: "Like": not a valid selector operator"#]],
    );
    check(
        json!({"affinity": {"podAntiAffinity": {required: [{}]}}}),
        expect![
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty"
        ],
    );
    check(
        json!({"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 0, "whenUnsatisfiable": "Cry"}]}),
        expect![[r#"
        spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
        spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway""#]],
    );
}

#[test]
fn users_are_in_range() {
    check(
        json!({"securityContext": {"runAsUser": -1, "supplementalGroups": [1, 4_294_967_296_u64]}}),
        expect![[r#"
        spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
        spec.securityContext.supplementalGroups[1]: Invalid value: 4294967296: must be between 0 and 2147483647, inclusive"#]],
    );
    check_container(
        json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
        expect![[
            r#"spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#
        ]],
    );
}

#[test]
fn dns_needs_a_server() {
    check(
        json!({"dnsPolicy": "None"}),
        expect![
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"
        ],
    );
    check(
        json!({"dnsPolicy": "None", "dnsConfig": {"searches": ["a b"]}}),
        expect![[r#"
        spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None
        spec.dnsConfig.searches[0]: Invalid value: "a b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]],
    );
    check(
        json!({"dnsConfig": {"nameservers": ["1.1.1.1", "x"]}}),
        expect![[
            r#"spec.dnsConfig.nameservers[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#
        ]],
    );
}

#[test]
fn users_of_a_pods_own_exclude_the_hosts_namespaces() {
    check(
        json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true}),
        expect![[r#"
            spec.hostNetwork: Forbidden: when `hostUsers` is false
            spec.HostPID: Forbidden: when `hostUsers` is false
            spec.HostIPC: Forbidden: when `hostUsers` is false"#]],
    );
    check(json!({"hostUsers": true, "hostPID": true}), expect![""]);
    let unmasked =
        json!([{"name": "c", "image": "x", "securityContext": {"procMount": "Unmasked"}}]);
    check(
        json!({"containers": unmasked}),
        expect![[
            r#"spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`"#
        ]],
    );
    check(json!({"containers": unmasked, "hostUsers": false}), expect![""]);
}
