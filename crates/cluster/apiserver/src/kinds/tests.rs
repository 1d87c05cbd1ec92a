//! Rules that hold for every kind of the table.

use expect_test::expect_file;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Causes, KINDS, Source,
    testing::{created, findings, kind, row, sample},
};
use crate::schema;

#[test]
fn every_kind_has_a_schema_of_the_same_name() {
    for kind in KINDS {
        let definition = schema::definition(kind.schema).expect(kind.kind);
        let published = definition.kind.expect(kind.kind);
        assert_eq!((published.group, published.version), (kind.group, kind.version));
        assert_eq!(published.kind, kind.kind);
    }
}

#[test]
fn every_kind_is_told_apart() {
    let mut names: Vec<&str> = KINDS
        .iter()
        // Singular and plural of Endpoints are the same, and so are names in another version.
        // What is measured has the name of what it is measured of.
        .filter(|it| it.kind != "Endpoints" && it.conversion.is_none())
        .filter(|it| it.source == Source::Store)
        .flat_map(|it| it.short_names.iter().copied().chain([it.plural, it.singular]))
        .collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn a_good_object_is_good_and_stays_good() {
    for kind in KINDS {
        let object = created(kind, sample(kind));
        assert_eq!(findings(kind, &object), "", "{}", kind.kind);
        let stored = kind.stored().schema;
        assert_eq!(schema::check(stored, &object), schema::Problems::default());
        let mut causes = Causes::default();
        (kind.validate_update)(&object, &object, &mut causes);
        assert!(causes.is_empty(), "{}: {causes:?}", kind.kind);
    }
}

#[test]
fn defaulting_twice_is_defaulting_once() {
    for kind in KINDS {
        let mut object = created(kind, sample(kind));
        kind.convert_from_stored(&mut object);
        (kind.default)(&mut object);
        let once = object.clone();
        (kind.default)(&mut object);
        assert_eq!(object, once, "{}", kind.kind);
        kind.convert_to_stored(&mut object);
        kind.convert_from_stored(&mut object);
        assert_eq!(object, once, "{}: there and back", kind.kind);
    }
}

type Reader = fn(&Value) -> Result<(), serde_json::Error>;

/// Reads `object` as client programs do.
fn read_as<K: serde::de::DeserializeOwned>(object: &Value) -> Result<(), serde_json::Error> {
    serde_json::from_value::<K>(object.clone()).map(drop)
}

macro_rules! readers {
    ($($group:literal $package:ident $version:ident: $($kind:ident)*;)*) => {
        &[$($((
            $group,
            stringify!($version),
            stringify!($kind),
            read_as::<k8s_openapi::api::$package::$version::$kind>,
        ),)*)*]
    };
}

/// What kubectl reads for `top`: k8s-openapi has none of it.
#[derive(serde::Deserialize)]
#[expect(dead_code, reason = "only read")]
struct Metrics {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    timestamp: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
    window: String,
}

/// How clients read each kind: group, version, kind, reader.
const READERS: &[(&str, &str, &str, Reader)] = readers! {
    "" core v1: Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
        PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
    "admissionregistration.k8s.io" admissionregistration v1: MutatingAdmissionPolicy
        MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration;
    "authentication.k8s.io" authentication v1: SelfSubjectReview TokenReview;
    "authorization.k8s.io" authorization v1: LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
        SubjectAccessReview;
    "certificates.k8s.io" certificates v1: CertificateSigningRequest;
    "flowcontrol.apiserver.k8s.io" flowcontrol v1: FlowSchema PriorityLevelConfiguration;
    "resource.k8s.io" resource v1: DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice;
    "apps" apps v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    "autoscaling" autoscaling v1: HorizontalPodAutoscaler;
    "autoscaling" autoscaling v2: HorizontalPodAutoscaler;
    "batch" batch v1: CronJob Job;
    "coordination.k8s.io" coordination v1: Lease;
    "discovery.k8s.io" discovery v1: EndpointSlice;
    "events.k8s.io" events v1: Event;
    "networking.k8s.io" networking v1: IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR;
    "node.k8s.io" node v1: RuntimeClass;
    "policy" policy v1: PodDisruptionBudget;
    "rbac.authorization.k8s.io" rbac v1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "scheduling.k8s.io" scheduling v1: PriorityClass;
    "storage.k8s.io" storage v1: CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass;
};

#[test]
fn client_types_can_read_every_kind() {
    for kind in KINDS {
        let mut object = created(kind, sample(kind));
        kind.convert_from_stored(&mut object);
        // k8s-openapi has the types of Kubernetes' own repository only.
        if ["gateway.networking.k8s.io", "coracle.dev"].contains(&kind.group) {
            continue;
        }
        if kind.source != Source::Store {
            assert!(read_as::<Metrics>(&object).is_ok(), "{}", kind.kind);
            continue;
        }
        let read =
            READERS.iter().find(|it| (it.0, it.1, it.2) == (kind.group, kind.version, kind.kind));
        let (.., read) = read.unwrap_or_else(|| panic!("say how clients read `{}`", kind.kind));
        let read = read(&object);
        assert!(read.is_ok(), "{}: {read:?}", kind.kind);
    }
}

#[test]
fn nothing_panics_on_an_object_that_says_nothing() {
    for kind in KINDS {
        for object in [json!({}), json!({"metadata": {}, "spec": {}}), json!({"spec": 1})] {
            let object = created(kind, object);
            findings(kind, &object);
            (kind.row)(&object, jiff::Timestamp::UNIX_EPOCH);
            (kind.fields)(&object, "status.phase");
        }
    }
}

#[test]
fn a_row_has_a_cell_for_every_column() {
    for kind in KINDS {
        let row = (kind.row)(&created(kind, sample(kind)), jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), kind.columns.len(), "{}", kind.kind);
    }
}

#[test]
fn status_is_not_for_users_to_set() {
    for name in ["Pod", "Deployment", "ReplicaSet", "Service"] {
        let kind = kind(name);
        let mut object = sample(kind);
        object["status"] = json!({"observedGeneration": 7});
        let object = created(kind, object);
        assert_eq!(object["status"].get("observedGeneration"), None, "{name}");
    }
}

#[test]
fn tables_are_kubectls() {
    let mut text = String::new();
    for kind in KINDS {
        let columns: Vec<String> = kind
            .columns
            .iter()
            .map(|it| if it.priority == 0 { it.name.to_owned() } else { format!("({})", it.name) })
            .collect();
        text += &format!("{}: {}\n", kind.plural, columns.join(", "));
    }
    expect_file!["columns.txt"].assert_eq(&text);
}

/// `object` with some of its fields taken away or replaced by something else, as `choices` say.
fn mangled(object: &Value, choices: &mut impl Iterator<Item = u8>) -> Value {
    match (choices.next().unwrap_or(u8::MAX), object) {
        (0, _) => Value::Null,
        (1, _) => json!({}),
        (2, _) => json!([{}]),
        (3, _) => json!("x"),
        (4, _) => json!(-1),
        (_, Value::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), mangled(value, choices))).collect()
        }
        (_, Value::Array(items)) => items.iter().map(|it| mangled(it, choices)).collect(),
        (_, other) => other.clone(),
    }
}

proptest! {
    #[test]
    fn nonsense_is_found_not_fatal(choices in prop::collection::vec(0..40_u8, 0..60)) {
        for kind in KINDS {
            let object = mangled(&created(kind, sample(kind)), &mut choices.iter().copied());
            let mut once = object.clone();
            schema::prune(kind.schema, &mut once);
            let mut twice = once.clone();
            schema::prune(kind.schema, &mut twice);
            prop_assert_eq!(&once, &twice, "pruned twice");
            (kind.default)(&mut once);
            let mut twice = once.clone();
            (kind.default)(&mut twice);
            prop_assert_eq!(&once, &twice, "defaulted twice");
            findings(kind, &once);
            let mut causes = Causes::default();
            (kind.validate_update)(&once, &object, &mut causes);
            let now = jiff::Timestamp::UNIX_EPOCH;
            let whole = (kind.row)(&once, now);
            // As everything that is stored.
            if once["metadata"].is_object() {
                prop_assert_eq!(whole, row(kind, &once, now), "{} reads more", kind.kind);
            }
            let mut status = object.clone();
            (kind.prepare_status)(&mut status, &once);
        }
    }
}
