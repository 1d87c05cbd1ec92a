//! Rules that hold for every kind of the table.

use expect_test::expect;
use serde_json::json;

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
        assert_eq!(schema::check(kind.schema, &object), schema::Problems::default());
        let mut causes = Causes::default();
        (kind.validate_update)(&object, &object, &mut causes);
        assert!(causes.is_empty(), "{}: {causes:?}", kind.kind);
    }
}

#[test]
fn defaulting_twice_is_defaulting_once() {
    for kind in KINDS {
        let mut object = created(kind, sample(kind));
        let once = object.clone();
        (kind.default)(&mut object);
        assert_eq!(object, once, "{}", kind.kind);
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
        events: Last Seen, Type, Reason, Object, (Subobject), (Source), Message, (First Seen), (Count), (Name)
        namespaces: Name, Status, Age
        nodes: Name, Status, Roles, Age, Version, (Internal-IP), (External-IP), (OS-Image), (Kernel-Version), (Container-Runtime)
        pods: Name, Ready, Status, Restarts, Age, (IP), (Node), (Nominated Node), (Readiness Gates)
        secrets: Name, Type, Data, Age
        services: Name, Type, Cluster-IP, External-IP, Port(s), Age, (Selector)
        serviceaccounts: Name, Secrets, Age
        deployments: Name, Ready, Up-to-date, Available, Age, (Containers), (Images), (Selector)
        replicasets: Name, Desired, Current, Ready, Age, (Containers), (Images), (Selector)
        leases: Name, Holder, Age
        endpointslices: Name, AddressType, Ports, Endpoints, Age
    "#]]
    .assert_eq(&text);
}
