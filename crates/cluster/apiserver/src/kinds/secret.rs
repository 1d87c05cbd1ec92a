//! Secrets.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

use super::{
    Causes, Column, Deletion, Kind, VERBS,
    config_map::{DATA_BYTES_MAX, data_bytes, unchanged_if_immutable},
    path::Path,
    print::{self, AGE, NAME, column, number},
    rules,
    value::{Read, object_mut, set, set_default},
};

pub(super) static SECRET: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: VERBS,
    schema: "io.k8s.api.core.v1.Secret",
    subresources: &[],
    generation: false,
    deletion: Deletion::Immediate,
    default,
    prepare_create: |_| {},
    prepare_update: |_, _| {},
    prepare_status: |_, _| {},
    validate,
    validate_update: |new, old, causes| {
        rules::unchanged(new, old, "type", "type", causes);
        unchanged_if_immutable(new, old, &["data"], causes);
    },
    validate_name: rules::subdomain_name,
    columns: COLUMNS,
    row: |it, now| {
        let count = it.members("data").count();
        vec![print::name(it), it.text("type").into(), count.into(), print::age(it, now)]
    },
    fields: |it, path| (path == "type").then(|| it.text("type").to_owned()),
    ..Kind::PLAIN
};

const COLUMNS: &[Column] =
    &[NAME, column("Type", "What the keys mean."), number("Data", "Number of keys."), AGE];

/// Annotation that a token's secret names its account in.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

fn default(secret: &mut Value) {
    set_default(secret, "type", "Opaque");
    // `stringData` is for writing only: clear text in, base64 out.
    let plain = secret.as_object_mut().and_then(|it| it.remove("stringData"));
    let Some(Value::Object(plain)) = plain else { return };
    let Some(data) = object_mut(secret, "data") else { return };
    for (key, value) in plain {
        set(data, &key, BASE64_STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

fn names_no_account(secret: &Value) -> bool {
    secret.at(&["metadata", "annotations"]).text(ACCOUNT).is_empty()
}

fn validate(secret: &Value, causes: &mut Causes) {
    let data = Path::new("data");
    let mut bytes = 0;
    for (key, value) in secret.members("data") {
        rules::all(api::names::config_key(key), data.key(key), key, causes);
        bytes += data_bytes(value);
    }
    if DATA_BYTES_MAX < bytes {
        rules::too_long("data", DATA_BYTES_MAX, causes);
    }
    let mut required = |key: &str| {
        if !secret.field("data").has(key) {
            causes.required(data.key(key), "");
        }
    };
    match secret.text("type") {
        "kubernetes.io/dockercfg" => required(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => required(".dockerconfigjson"),
        "kubernetes.io/ssh-auth" => required("ssh-privatekey"),
        "kubernetes.io/tls" => {
            required("tls.crt");
            required("tls.key");
        }
        "kubernetes.io/basic-auth" => {
            let has = |key| secret.field("data").has(key);
            if !has("username") && !has("password") {
                required("username");
                required("password");
            }
        }
        "kubernetes.io/service-account-token" if names_no_account(secret) => {
            let annotations = Path::new("metadata");
            causes.required(annotations.child("annotations").key(ACCOUNT), "");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::{
        super::testing::{check, check_row, check_update, created, sample},
        *,
    };

    #[test]
    fn string_data_is_written_into_data() {
        let secret = created(&SECRET, sample(&SECRET));
        assert_eq!(secret["data"], json!({"key": "dmFsdWU="}));
        assert_eq!(secret.get("stringData"), None);
        assert_eq!(secret["type"], "Opaque");
        check_row(&SECRET, json!({}), expect!["a | Opaque | 1 | 60m"]);
    }

    #[test]
    fn types_require_keys() {
        let of_type = |it: &str| json!({"type": it});
        check(
            &SECRET,
            of_type("kubernetes.io/tls"),
            expect![[r#"
            data[tls.crt]: Required value
            data[tls.key]: Required value"#]],
        );
        check(
            &SECRET,
            of_type("kubernetes.io/service-account-token"),
            expect!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check(&SECRET, of_type("example.com/mine"), expect![""]);
    }

    #[test]
    fn type_never_changes() {
        check_update(
            &SECRET,
            json!({"type": "other"}),
            expect![[r#"type: Invalid value: "other": field is immutable"#]],
        );
        check_update(&SECRET, json!({"data": {"b": "YQ=="}}), expect![""]);
    }
}
