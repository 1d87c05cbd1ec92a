//! ServiceAccounts.

use super::{
    Column, Deletion, Kind, VERBS,
    print::{self, AGE, NAME},
    rules,
};

pub(super) static SERVICE_ACCOUNT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.ServiceAccount",
    subresources: &[],
    generation: false,
    deletion: Deletion::Immediate,
    default: |_| {},
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    prepare_status: |_, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _| {},
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row: |it, now| vec![print::name(it), print::age(it, now)],
    fields: |_, _| None,
    shows_deleted: true,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, AGE];
