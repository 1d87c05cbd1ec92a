//! Rules that hold for every kind of the table.

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Causes, KINDS,
    testing::{created, findings, kind, sample},
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
        .filter(|it| it.kind != "Endpoints" && it.conversion.is_none())
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

/// How clients read each kind: group, version, kind, reader.
const READERS: &[(&str, &str, &str, Reader)] = readers! {
    "" core v1: ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume PersistentVolumeClaim Pod
        PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount;
    "apps" apps v1: ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet;
    "autoscaling" autoscaling v1: HorizontalPodAutoscaler;
    "autoscaling" autoscaling v2: HorizontalPodAutoscaler;
    "batch" batch v1: CronJob Job;
    "coordination.k8s.io" coordination v1: Lease;
    "discovery.k8s.io" discovery v1: EndpointSlice;
    "events.k8s.io" events v1: Event;
    "networking.k8s.io" networking v1: Ingress IngressClass NetworkPolicy;
    "node.k8s.io" node v1: RuntimeClass;
    "policy" policy v1: PodDisruptionBudget;
    "rbac.authorization.k8s.io" rbac v1: ClusterRole ClusterRoleBinding Role RoleBinding;
    "scheduling.k8s.io" scheduling v1: PriorityClass;
    "storage.k8s.io" storage v1: StorageClass;
};

#[test]
fn client_types_can_read_every_kind() {
    for kind in KINDS {
        let mut object = created(kind, sample(kind));
        kind.convert_from_stored(&mut object);
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
    expect![[r#"
        configmaps: Name, Data, Age
        endpoints: Name, Endpoints, Age
        events: Last Seen, Type, Reason, Object, (Subobject), (Source), Message, (First Seen), (Count), (Name)
        limitranges: Name, Created At
        namespaces: Name, Status, Age
        nodes: Name, Status, Roles, Age, Version, (Internal-IP), (External-IP), (OS-Image), (Kernel-Version), (Container-Runtime)
        persistentvolumeclaims: Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, (VolumeMode)
        persistentvolumes: Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, (VolumeMode)
        pods: Name, Ready, Status, Restarts, Age, (IP), (Node), (Nominated Node), (Readiness Gates)
        podtemplates: Name, Containers, Images, Pod Labels
        replicationcontrollers: Name, Desired, Current, Ready, Age, (Containers), (Images), (Selector)
        resourcequotas: Name, Request, Limit, Age
        secrets: Name, Type, Data, Age
        services: Name, Type, Cluster-IP, External-IP, Port(s), Age, (Selector)
        serviceaccounts: Name, Age
        controllerrevisions: Name, Controller, Revision, Age
        daemonsets: Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, Age, (Containers), (Images), (Selector)
        deployments: Name, Ready, Up-to-date, Available, Age, (Containers), (Images), (Selector)
        replicasets: Name, Desired, Current, Ready, Age, (Containers), (Images), (Selector)
        statefulsets: Name, Ready, Age, (Containers), (Images)
        events: Last Seen, Type, Reason, Object, (Subobject), (Source), Message, (First Seen), (Count), (Name)
        horizontalpodautoscalers: Name, Reference, Targets, MinPods, MaxPods, Replicas, Age
        horizontalpodautoscalers: Name, Reference, Targets, MinPods, MaxPods, Replicas, Age
        cronjobs: Name, Schedule, Timezone, Suspend, Active, Last Schedule, Age, (Containers), (Images), (Selector)
        jobs: Name, Status, Completions, Duration, Age, (Containers), (Images), (Selector)
        ingressclasses: Name, Controller, Parameters, Age
        ingresses: Name, Class, Hosts, Address, Ports, Age
        networkpolicies: Name, Pod-Selector, Age
        poddisruptionbudgets: Name, Min Available, Max Unavailable, Allowed Disruptions, Age
        clusterrolebindings: Name, Role, Age, (Users), (Groups), (ServiceAccounts)
        clusterroles: Name, Created At
        rolebindings: Name, Role, Age, (Users), (Groups), (ServiceAccounts)
        roles: Name, Created At
        storageclasses: Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age
        priorityclasses: Name, Value, Global-Default, Age, PreemptionPolicy
        leases: Name, Holder, Age
        runtimeclasses: Name, Handler, Age
        endpointslices: Name, AddressType, Ports, Endpoints, Age
    "#]]
    .assert_eq(&text);
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
            (kind.row)(&once, jiff::Timestamp::UNIX_EPOCH);
            let mut status = object.clone();
            (kind.prepare_status)(&mut status, &once);
        }
    }
}
