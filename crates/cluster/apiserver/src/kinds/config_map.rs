//! ConfigMaps, and the rules for data that Secrets share.

use serde_json::Value;

use super::{
    Causes, Column, Deletion, Kind, VERBS,
    path::Path,
    print::{self, AGE, NAME, number},
    rules,
    value::Read,
};

pub(super) static CONFIG_MAP: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.ConfigMap",
    subresources: &[],
    generation: false,
    deletion: Deletion::Immediate,
    default: |_| {},
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    prepare_status: |_, _| {},
    validate,
    validate_update: |new, old, causes| {
        unchanged_if_immutable(new, old, &["data", "binaryData"], causes);
    },
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row: |it, now| {
        let count = it.members("data").count() + it.members("binaryData").count();
        vec![print::name(it), count.into(), print::age(it, now)]
    },
    fields: |_, _| None,
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[NAME, number("Data", "Number of keys."), AGE];

/// Most bytes of data in a ConfigMap or Secret.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

fn validate(config_map: &Value, causes: &mut Causes) {
    let mut bytes = 0;
    for (name, size) in [("data", text_bytes as fn(&Value) -> usize), ("binaryData", data_bytes)] {
        let path = Path::new(name);
        for (key, value) in config_map.members(name) {
            rules::all(api::names::config_key(key), path.key(key), key, causes);
            if name == "data" && config_map.field("binaryData").has(key) {
                let detail = "duplicate of key present in binaryData";
                causes.invalid(path.key(key), &Value::from(key), detail);
            }
            bytes += size(value);
        }
    }
    if DATA_BYTES_MAX < bytes {
        rules::too_long("", DATA_BYTES_MAX, causes);
    }
}

fn text_bytes(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// Bytes that a base64 text stands for.
pub(super) fn data_bytes(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.trim_end_matches('=').len() * 3 / 4
}

/// What has once been made immutable stays so, with its data.
pub(super) fn unchanged_if_immutable(
    new: &Value,
    old: &Value,
    fields: &[&str],
    causes: &mut Causes,
) {
    let detail = "field is immutable when `immutable` is set";
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        causes.forbidden("immutable", detail);
    }
    for field in fields.iter().filter(|it| new.field(it) != old.field(it)) {
        causes.forbidden(*field, detail);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update_of, created, sample},
        *,
    };

    #[test]
    fn keys_become_files() {
        check(
            &CONFIG_MAP,
            json!({"data": {"a/b": "x"}}),
            expect![[
                r#"data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#
            ]],
        );
        check(
            &CONFIG_MAP,
            json!({"binaryData": {"key": "YQ=="}}),
            expect![[r#"data[key]: Invalid value: "key": duplicate of key present in binaryData"#]],
        );
    }

    #[test]
    fn size_is_limited() {
        let most = "x".repeat(DATA_BYTES_MAX);
        check(&CONFIG_MAP, json!({"data": {"key": most}}), expect![""]);
        check(
            &CONFIG_MAP,
            json!({"data": {"key": most, "b": "x"}}),
            expect![": Too long: may not be more than 1048576 bytes"],
        );
    }

    #[test]
    fn immutable_stays_immutable() {
        let mut old = created(&CONFIG_MAP, sample(&CONFIG_MAP));
        old["immutable"] = true.into();
        check_update_of(
            &CONFIG_MAP,
            &old,
            json!({"metadata": {"labels": {"a": "b"}}}),
            expect![""],
        );
        check_update_of(
            &CONFIG_MAP,
            &old,
            json!({"immutable": null, "data": {"b": "c"}}),
            expect![[r#"
            immutable: Forbidden: field is immutable when `immutable` is set
            data: Forbidden: field is immutable when `immutable` is set"#]],
        );
        check_row(&CONFIG_MAP, json!({"binaryData": {"b": "YQ=="}}), expect!["a | 2 | 60m"]);
    }
}
