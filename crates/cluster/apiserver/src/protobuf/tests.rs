//! Protobuf against the reference: what another implementation, generated from the published
//! message definitions, writes is read here, and what is written here is read there.

use std::collections::BTreeSet;

use k8s_pb::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authn,
        authorization::v1 as authz, autoscaling::v1 as scaling1, autoscaling::v2 as scaling,
        batch::v1 as batch, certificates::v1 as certificates, coordination::v1 as coordination,
        core::v1 as core, discovery::v1 as discovery, events::v1 as events,
        flowcontrol::v1 as flow, networking::v1 as networking, node::v1 as node,
        policy::v1 as policy, rbac::v1 as rbac, resource::v1 as resource,
        scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions,
    apimachinery::pkg::{
        api::resource::Quantity, apis::meta::v1 as meta, util::intstr::IntOrString,
    },
    kube_aggregator::pkg::apis::apiregistration::v1 as registration,
};
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Type, definition};

/// A body around a message.
fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut body = MAGIC.to_vec();
    wire::put_message(&mut body, UNKNOWN_TYPE, |out| {
        wire::put_bytes(out, TYPE_API_VERSION, api_version.as_bytes());
        wire::put_bytes(out, TYPE_KIND, kind.as_bytes());
    });
    wire::put_bytes(&mut body, UNKNOWN_RAW, raw);
    body
}

/// The message in a body.
fn raw(body: &[u8]) -> Vec<u8> {
    let fields = Fields::new(body.strip_prefix(MAGIC).unwrap()).map(Result::unwrap);
    let mut raw = fields.filter_map(|it| match it {
        (UNKNOWN_RAW, Scalar::Bytes(bytes)) => Some(bytes.to_vec()),
        _ => None,
    });
    raw.next().unwrap()
}

/// The reference's message means `object`, in both directions.
#[track_caller]
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, object: &Value) {
    let version = object["apiVersion"].as_str().unwrap();
    let kind = object["kind"].as_str().unwrap();
    let read = decode(&body(version, kind, &message.encode_to_vec())).unwrap();
    assert_eq!(read, *object);
    let written = encode(object.to_string().as_bytes()).unwrap();
    assert_eq!(M::decode(raw(&written).as_slice()).unwrap(), *message);
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn volume() -> core::Volume {
    core::Volume {
        name: some("v"),
        volume_source: Some(core::VolumeSource {
            empty_dir: Some(core::EmptyDirVolumeSource {
                medium: some("Memory"),
                size_limit: Some(Quantity { string: some("1Gi") }),
            }),
            ..Default::default()
        }),
    }
}

fn container() -> core::Container {
    let probe = core::Probe {
        handler: Some(core::ProbeHandler {
            http_get: Some(core::HttpGetAction {
                path: some("/"),
                port: Some(IntOrString { r#type: Some(1), int_val: None, str_val: some("web") }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        period_seconds: Some(5),
        ..Default::default()
    };
    core::Container {
        name: some("c"),
        env: vec![core::EnvVar {
            name: some("A"),
            value_from: Some(core::EnvVarSource {
                config_map_key_ref: Some(core::ConfigMapKeySelector {
                    local_object_reference: Some(core::LocalObjectReference { name: some("m") }),
                    key: some("k"),
                    optional: Some(false),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        resources: Some(core::ResourceRequirements {
            limits: [("cpu".to_owned(), Quantity { string: some("500m") })].into(),
            ..Default::default()
        }),
        liveness_probe: Some(probe),
        ..Default::default()
    }
}

#[test]
fn a_pod() {
    let pod = core::Pod {
        metadata: Some(meta::ObjectMeta {
            name: some("p"),
            labels: [("a".to_owned(), "b".to_owned()), ("empty".to_owned(), String::new())].into(),
            creation_timestamp: Some(meta::Time { seconds: Some(1_700_000_000), nanos: Some(0) }),
            ..Default::default()
        }),
        spec: Some(core::PodSpec {
            volumes: vec![volume()],
            containers: vec![container()],
            termination_grace_period_seconds: Some(0),
            security_context: Some(core::PodSecurityContext {
                supplemental_groups: vec![7, 8],
                ..Default::default()
            }),
            ..Default::default()
        }),
        status: Some(core::PodStatus::default()),
    };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"a": "b", "empty": ""},
            "creationTimestamp": "2023-11-14T22:13:20Z"},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
            "containers": [{
                "name": "c",
                "env": [{"name": "A", "valueFrom":
                    {"configMapKeyRef": {"name": "m", "key": "k", "optional": false}}}],
                "resources": {"limits": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 5},
            }],
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"supplementalGroups": [7, 8]},
        },
        "status": {},
    });
    let read = decode(&body("v1", "Pod", &pod.encode_to_vec())).unwrap();
    assert_eq!(read, object);
    // Fields in a message that JSON leaves out come one by one, and are put together again.
    let written = raw(&encode(object.to_string().as_bytes()).unwrap());
    assert_eq!(core::Pod::decode(written.as_slice()).unwrap(), pod);
}

#[test]
fn a_secret_has_bytes() {
    let secret = core::Secret {
        data: [("k".to_owned(), b"\x00\xff".to_vec())].into(),
        immutable: Some(false),
        ..Default::default()
    };
    let object = json!({"apiVersion": "v1", "kind": "Secret", "data": {"k": "AP8="},
        "immutable": false});
    check(&secret, &object);
}

#[test]
fn a_lease_has_microseconds() {
    let time = meta::MicroTime { seconds: Some(-1), nanos: Some(500_000_000) };
    let lease = coordination::Lease {
        spec: Some(coordination::LeaseSpec { renew_time: Some(time), ..Default::default() }),
        ..Default::default()
    };
    let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "spec": {"renewTime": "1969-12-31T23:59:59.500000Z"}});
    check(&lease, &object);
}

#[test]
fn a_review_has_lists_in_messages() {
    let groups = authz::ExtraValue { items: vec!["a".to_owned(), "b".to_owned()] };
    let review = authz::SubjectAccessReview {
        spec: Some(authz::SubjectAccessReviewSpec {
            extra: [("scopes".to_owned(), groups)].into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let object = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"extra": {"scopes": ["a", "b"]}}});
    check(&review, &object);
}

/// What a Go client writes: every field that is no pointer, though it is zero.
#[test]
fn zeros_of_no_pointers_are_absent() {
    let map = core::ConfigMap {
        metadata: Some(meta::ObjectMeta {
            name: some("m"),
            generate_name: some(""),
            namespace: some(""),
            creation_timestamp: Some(meta::Time::default()),
            generation: Some(0),
            deletion_grace_period_seconds: Some(0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let read = decode(&body("v1", "ConfigMap", &map.encode_to_vec())).unwrap();
    let metadata = json!({"name": "m", "deletionGracePeriodSeconds": 0});
    assert_eq!(read, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}));
}

#[test]
fn what_is_no_object_is_refused() {
    let refused = |body: &[u8]| decode(body).unwrap_err().to_string();
    assert_eq!(refused(b""), "empty data");
    assert_eq!(refused(b"k8s\0"), "empty body");
    assert_eq!(
        refused(b"{}"),
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    );
    assert_eq!(
        refused(&body("v2", "Pod", b"")),
        "no kind \"Pod\" is registered for version \"v2\""
    );
    assert_eq!(refused(&body("v1", "Pod", &[0x0a, 9])), "unexpected EOF");
    assert_eq!(refused(&body("v1", "Pod", &[0x08, 9])), "proto: wrong wireType for field metadata");
    assert_eq!(
        encode(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1"}"#).unwrap_err().to_string(),
        "object Table does not implement the protobuf marshalling interface and cannot be encoded \
         to a protobuf message"
    );
}

#[test]
fn nesting_ends() {
    let nested = |levels: usize| {
        (0..levels).fold(Vec::new(), |inner, _| {
            let mut outer = Vec::new();
            // `JSONSchemaProps.not`.
            wire::put_bytes(&mut outer, 28, &inner);
            outer
        })
    };
    let definition = definition(JSON_SCHEMA).unwrap();
    assert!(decode::object(definition, &nested(decode::DEPTH_MAX - 1)).is_ok());
    let error = decode::object(definition, &nested(decode::DEPTH_MAX)).unwrap_err();
    assert_eq!(error, DecodeError::Depth);
}

/// A value with every field of its type.
fn full(kind: &'static Type, around: &mut Vec<&'static str>) -> Value {
    match kind {
        Type::String => json!("text"),
        Type::Int32 => json!(-7),
        Type::Int64 => json!(1_i64 << 40),
        Type::Double => json!(1.5),
        Type::Bool => json!(true),
        Type::Bytes => json!("AP8="),
        Type::Quantity => json!("1500m"),
        Type::IntOrString => json!("25%"),
        Type::Time => json!("2026-01-02T03:04:05Z"),
        Type::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        Type::Any => Value::Null,
        Type::List(items) => json!([full(items, around)]),
        Type::Map(values) => json!({"key": full(values, around)}),
        Type::Object(_) => {
            let definition = kind.below().unwrap();
            match Special::of(definition) {
                Some(Special::Raw) => return json!({"any": ["thing", 1]}),
                Some(Special::OrTexts) => return json!(["text"]),
                Some(Special::OrBool) => return json!(false),
                Some(Special::OrSchemas) => return json!([{"type": "string"}]),
                None => {}
            }
            if around.contains(&definition.name) {
                return json!({});
            }
            around.push(definition.name);
            let object = full_object(definition, around);
            around.pop();
            object
        }
    }
}

fn full_object(definition: &'static Definition, around: &mut Vec<&'static str>) -> Value {
    let fields = definition.fields.iter().filter(|it| !it.wire.numbers.is_empty());
    let fields = fields.map(|it| (it.name.to_owned(), full(&it.kind, around)));
    Value::Object(fields.collect())
}

/// Paths of `whole` that `part` does not have or has with another value.
fn differences(whole: &Value, part: &Value, path: &str, found: &mut BTreeSet<String>) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in whole {
                let path = format!("{path}.{name}");
                match part.get(name) {
                    Some(part) => differences(value, part, &path, found),
                    None => drop(found.insert(path)),
                }
            }
        }
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            for (whole, part) in whole.iter().zip(part) {
                differences(whole, part, path, found);
            }
        }
        (whole, part) if whole == part => {}
        _ => drop(found.insert(format!("{path}: {part}"))),
    }
}

/// Everything a type can say, read and written again by the reference.
fn through<M: Message + Default>(name: &str, found: &mut BTreeSet<String>) {
    let definition = definition(name).unwrap();
    let object = full_object(definition, &mut vec![definition.name]);
    let mut written = Vec::new();
    encode::object(definition, object.to_string().as_bytes(), &mut written).unwrap();
    let own = Value::Object(decode::object(definition, &written).unwrap());
    assert_eq!(own, object, "{name}");
    let theirs = M::decode(written.as_slice()).unwrap().encode_to_vec();
    let back = Value::Object(decode::object(definition, &theirs).unwrap());
    differences(&object, &back, definition.short_name(), found);
}

/// Every number of every type below these kinds is the reference's. The few fields that come out
/// are younger than its release.
#[test]
fn every_field_of_every_kind_passes_through_the_reference() {
    let mut found = BTreeSet::new();
    macro_rules! every {
        ($($package:literal: $module:ident { $($kind:ident),* })*) => {
            $($(through::<$module::$kind>(
                concat!("io.k8s.", $package, ".", stringify!($kind)),
                &mut found,
            );)*)*
        };
    }
    every! {
        "api.core.v1": core {
            Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
            PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota,
            Secret, Service, ServiceAccount
        }
        "api.apps.v1": apps { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
        "api.batch.v1": batch { CronJob, Job }
        "api.autoscaling.v1": scaling1 { Scale, HorizontalPodAutoscaler }
        "api.autoscaling.v2": scaling { HorizontalPodAutoscaler }
        "api.policy.v1": policy { Eviction, PodDisruptionBudget }
        "api.rbac.v1": rbac { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
        "api.networking.v1": networking { Ingress, IngressClass, NetworkPolicy }
        "api.discovery.v1": discovery { EndpointSlice }
        "api.events.v1": events { Event }
        "api.coordination.v1": coordination { Lease }
        "api.storage.v1": storage { CSIDriver, CSINode, StorageClass, VolumeAttachment }
        "api.scheduling.v1": scheduling { PriorityClass }
        "api.node.v1": node { RuntimeClass }
        "api.certificates.v1": certificates { CertificateSigningRequest }
        "api.authentication.v1": authn { SelfSubjectReview, TokenRequest, TokenReview }
        "api.authorization.v1": authz { SelfSubjectAccessReview, SubjectAccessReview }
        "api.flowcontrol.v1": flow { FlowSchema, PriorityLevelConfiguration }
        "api.resource.v1": resource { DeviceClass, ResourceClaim, ResourceSlice }
        "api.admissionregistration.v1": admission {
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration
        }
        "apiextensions-apiserver.pkg.apis.apiextensions.v1": extensions { CustomResourceDefinition }
        "kube-aggregator.pkg.apis.apiregistration.v1": registration { APIService }
        "apimachinery.pkg.apis.meta.v1": meta {
            APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions,
            PartialObjectMetadata, PartialObjectMetadataList, Status
        }
    }
    let found: Vec<String> = found.into_iter().collect();
    younger().assert_eq(&found.join("\n"));
}

fn younger() -> expect_test::Expect {
    expect_test::expect![[r#"
        CSIDriver.spec.preventPodSchedulingIfMissing
        CronJob.spec.jobTemplate.spec.template.spec.schedulingGroup
        DaemonSet.spec.template.spec.schedulingGroup
        Deployment.spec.template.spec.schedulingGroup
        Job.spec.template.spec.schedulingGroup
        PartialObjectMetadataList.metadata.shardInfo
        Pod.spec.schedulingGroup
        Pod.status.containerStatuses.allocatedResourcesStatus.resources.message
        Pod.status.containerStatuses.volumeMounts.volumeStatus
        Pod.status.ephemeralContainerStatuses.allocatedResourcesStatus.resources.message
        Pod.status.ephemeralContainerStatuses.volumeMounts.volumeStatus
        Pod.status.initContainerStatuses.allocatedResourcesStatus.resources.message
        Pod.status.initContainerStatuses.volumeMounts.volumeStatus
        Pod.status.nodeAllocatableResourceClaimStatuses
        PodTemplate.template.spec.schedulingGroup
        ReplicaSet.spec.template.spec.schedulingGroup
        ReplicationController.spec.template.spec.schedulingGroup
        ResourceSlice.spec.devices.attributes.key.bools
        ResourceSlice.spec.devices.attributes.key.ints
        ResourceSlice.spec.devices.attributes.key.strings
        ResourceSlice.spec.devices.attributes.key.versions
        ResourceSlice.spec.devices.nodeAllocatableResourceMappings
        StatefulSet.spec.template.spec.schedulingGroup
        Status.metadata.shardInfo"#]]
}

proptest! {
    #[test]
    fn nonsense_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(decode(&body("v1", "Pod", &bytes)));
        drop(decode(&body("apiextensions.k8s.io/v1", "CustomResourceDefinition", &bytes)));
        drop(decode(&bytes));
        drop(encode(&bytes));
    }

    /// A good body with some bytes changed is refused or says something else.
    #[test]
    fn damage_is_no_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let definition = definition("io.k8s.api.core.v1.Pod").unwrap();
        let object = full_object(definition, &mut vec![definition.name]);
        let mut written = Vec::new();
        encode::object(definition, object.to_string().as_bytes(), &mut written).unwrap();
        for (place, byte) in changes {
            let place = place.index(written.len());
            written[place] = byte;
        }
        drop(decode::object(definition, &written));
    }
}
