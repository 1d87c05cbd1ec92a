//! Leases: who leads, and since when.

use serde_json::Value;

use super::{
    Causes, Column, Deletion, Kind, VERBS,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(super) static LEASE: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.coordination.v1.Lease",
    subresources: &[],
    generation: false,
    deletion: Deletion::Immediate,
    default: |_| {},
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    prepare_status: |_, _| {},
    validate,
    validate_update: |_, _, _| {},
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row: |it, now| {
        vec![print::name(it), it.field("spec").text("holderIdentity").into(), print::age(it, now)]
    },
    fields: |_, _| None,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, column("Holder", "Who holds the lease."), AGE];

fn validate(lease: &Value, causes: &mut Causes) {
    let spec = lease.field("spec");
    let path = Path::new("spec");
    if spec.int("leaseDurationSeconds").is_some_and(|it| it <= 0) {
        let value = spec.field("leaseDurationSeconds");
        causes.invalid(path.child("leaseDurationSeconds"), value, "must be greater than 0");
    }
    rules::not_negative(spec, "leaseTransitions", path, causes);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row},
        *,
    };

    #[test]
    fn durations_are_positive() {
        check(
            &LEASE,
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            expect![[r#"
            spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
            spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"#]],
        );
        check_row(&LEASE, json!({"spec": {"holderIdentity": "me"}}), expect!["a | me | 60m"]);
    }
}
