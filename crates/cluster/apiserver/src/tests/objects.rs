//! Create, get, update.

use expect_test::expect;

use super::{Api, pick};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(start_paused = true)]
async fn created_stored_and_served_alike() {
    let api = Api::new().await;
    let body = r#"{"metadata":{"name":"a","managedFields":[{}],"uid":"mine"},"data":{"k":"v"}}"#;
    api.check(&format!("POST {MAPS}"), body, expect![[r#"201 {"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}"#]]).await;
    api.check(&format!("GET {MAPS}/a"), "", expect![[r#"200 {"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}"#]]).await;
    api.check(
        &format!("POST {MAPS}"),
        body,
        expect![[r#"409 AlreadyExists configmaps "a" already exists"#]],
    )
    .await;
    api.check(&format!("GET {MAPS}/b"), "", expect![[r#"404 NotFound configmaps "b" not found"#]])
        .await;
    api.check(&format!("GET+partial {MAPS}/a"), "", expect![[r#"200 {"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}"#]]).await;
    api.check(&format!("GET+table {MAPS}/a"), "", expect![[r#"200 {"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"31"},"columnDefinitions":[{"description":"Name of the object, unique among its kind in its namespace.","format":"name","name":"Name","priority":0,"type":"string"},{"description":"Number of keys.","format":"","name":"Data","priority":0,"type":"integer"},{"description":"Time since the object was created.","format":"","name":"Age","priority":0,"type":"string"}],"rows":[{"cells":["a",1,"0s"],"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","resourceVersion":"31","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}}]}"#]]).await;
    api.check(
        &format!("GET+yaml {MAPS}/a"),
        "",
        expect![[r#"
            200 apiVersion: v1
            data:
              k: v
            kind: ConfigMap
            metadata:
              creationTimestamp: "2026-01-01T12:00:00Z"
              managedFields:
              - apiVersion: v1
                fieldsType: FieldsV1
                fieldsV1:
                  "f:data":
                    ".": {}
                    "f:k": {}
                manager: unknown
                operation: Update
                time: "2026-01-01T12:00:00Z"
              name: a
              namespace: default
              resourceVersion: "31"
              uid: 533da458-4da9-483f-8561-7adf6a4f23ce
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn names() {
    let api = Api::new().await;
    let create = format!("POST {MAPS}");
    api.check(&create, r#"{"metadata":{}}"#, expect![[r#"422 Invalid ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required"#]]).await;
    api.check(&create, r#"{"metadata":{"name":"A_b"}}"#, expect![[r#"422 Invalid ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#]]).await;
    let first = api.value(&create, r#"{"metadata":{"generateName":"g-"}}"#).await;
    let second = api.value(&create, r#"{"metadata":{"generateName":"g-"}}"#).await;
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    assert_eq!(first["metadata"]["name"].as_str().unwrap().len(), "g-".len() + 5);
    api.check(&create, r#"{"metadata":{"name":"a","namespace":"other"}}"#, expect!["400 BadRequest the namespace of the provided object does not match the namespace sent on the request"]).await;
    api.check(
        &create,
        r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#,
        expect!["400 BadRequest resourceVersion should not be set on objects to be created"],
    )
    .await;
    let missing = "POST /api/v1/namespaces/none/configmaps";
    api.check(
        missing,
        r#"{"metadata":{"name":"a"}}"#,
        expect![[r#"404 NotFound namespaces "none" not found"#]],
    )
    .await;
    api.check(
        "POST /api/v1/configmaps",
        r#"{"metadata":{"name":"a"}}"#,
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn metadata_is_checked() {
    let api = Api::new().await;
    let create = format!("POST {MAPS}");
    let body = r#"{"metadata":{"name":"a","labels":{"-":"x y"},"annotations":{"a b":""},"finalizers":["a/b/c"]}}"#;
    api.check(&create, body, expect![[r#"422 Invalid ConfigMap "a" is invalid: [metadata.labels: Invalid value: "-": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.labels: Invalid value: "x y": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?'), metadata.annotations: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.finalizers[0]: Invalid value: "a/b/c": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')]"#]]).await;
    let body = r#"{"metadata":{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"","controller":true},{"apiVersion":"v1","kind":"Pod","name":"q","uid":"2","controller":true}]}}"#;
    api.check(&create, body, expect![[r#"422 Invalid ConfigMap "a" is invalid: [metadata.ownerReferences[0].uid: Invalid value: "": uid must not be empty, metadata.ownerReferences: Invalid value: [{"apiVersion":"v1","controller":true,"kind":"Pod","name":"p","uid":""},{"apiVersion":"v1","controller":true,"kind":"Pod","name":"q","uid":"2"}]: Only one reference can have Controller set to true. Found "true" in references for Pod and Pod]"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn bodies() {
    let api = Api::new().await;
    let create = format!("POST {MAPS}");
    api.check(&create, "", expect!["400 BadRequest the request has no body"]).await;
    api.check(&create, "{", expect!["400 BadRequest the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: EOF while parsing an object at line 1 column 1"]).await;
    api.check(&create, "[]", expect!["400 BadRequest the body must be an object"]).await;
    api.check(&create, r#"{"kind":"Pod","apiVersion":"v1"}"#, expect![[r#"400 BadRequest Pod in version "v1" cannot be handled as a ConfigMap: the kind in the data (Pod) does not match the expected kind (ConfigMap)"#]]).await;
    api.check(&create, r#"{"kind":"ConfigMap","apiVersion":"v2"}"#, expect!["400 BadRequest the API version in the data (v2) does not match the expected API version (v1)"]).await;
    api.check(&create, r#"{"metadata":{"name":"a"},"data":{"k":1}}"#, expect![[r#"400 BadRequest ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"#]]).await;
    let yaml = "metadata:\n  name: b\ndata:\n  k: |\n    text\n";
    api.check(
        &format!("POST+yaml {MAPS}"),
        yaml,
        expect![[r#"
            201 apiVersion: v1
            data:
              k: |
                text
            kind: ConfigMap
            metadata:
              creationTimestamp: "2026-01-01T12:00:00Z"
              managedFields:
              - apiVersion: v1
                fieldsType: FieldsV1
                fieldsV1:
                  "f:data":
                    ".": {}
                    "f:k": {}
                manager: unknown
                operation: Update
                time: "2026-01-01T12:00:00Z"
              name: b
              namespace: default
              resourceVersion: "31"
              uid: 533da458-4da9-483f-8561-7adf6a4f23ce
        "#]],
    )
    .await;
    let made = api.value(&format!("GET {MAPS}/b"), "").await;
    assert_eq!(pick(&made, &["/data/k"]), "text\n");
    api.check(&format!("POST+protobuf-body {MAPS}"), "k8s", expect!["400 BadRequest the object provided is unrecognized (must be of type ConfigMap): provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"]).await;
    let large = format!("\"{}\"", "x".repeat(crate::limits::BODY_BYTES_MAX));
    api.check(
        &create,
        &large,
        expect!["413 RequestEntityTooLarge Request entity too large: limit is 3145728"],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn field_validation() {
    let api = Api::new().await;
    let body = r#"{"metadata":{"name":"a","x":1},"y":{},"data":{"k":"1","k":"2"}}"#;
    let with = |mode: &str| format!("POST {MAPS}?fieldValidation={mode}&dryRun=All");
    api.check(&with("Strict"), body, expect![[r#"400 BadRequest ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "data.k", unknown field "metadata.x", unknown field "y""#]]).await;
    api.check(&with("Warn"), body, expect![[r#"
        201 {"apiVersion":"v1","data":{"k":"2"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}
        warning: 299 - "duplicate field \"data.k\""
        warning: 299 - "unknown field \"metadata.x\""
        warning: 299 - "unknown field \"y\"""#]]).await;
    api.check(&with(""), body, expect![[r#"
        201 {"apiVersion":"v1","data":{"k":"2"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","uid":"7d39d286-4ca5-49bb-8070-011f623fd90f"}}
        warning: 299 - "duplicate field \"data.k\""
        warning: 299 - "unknown field \"metadata.x\""
        warning: 299 - "unknown field \"y\"""#]]).await;
    api.check(&with("Ignore"), body, expect![[r#"201 {"apiVersion":"v1","data":{"k":"2"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","managedFields":[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}}},"manager":"unknown","operation":"Update","time":"2026-01-01T12:00:00Z"}],"name":"a","namespace":"default","uid":"1ef5a622-501a-4ec5-b7e9-c6be37dce5c2"}}"#]]).await;
    api.check(&with("Else"), body, expect![[r#"400 BadRequest fieldValidation: Unsupported value: "Else": supported values: "Ignore", "Strict", "Warn""#]]).await;
    api.check(&format!("GET {MAPS}/a"), "", expect![[r#"404 NotFound configmaps "a" not found"#]])
        .await;
}

#[tokio::test(start_paused = true)]
async fn update() {
    let api = Api::new().await;
    let made = api.config_map("a", "").await;
    let put = format!("PUT {MAPS}/a");
    let version = &["/metadata/resourceVersion", "/metadata/uid", "/data/k"];
    let (uid, before) = (&made["metadata"]["uid"], &made["metadata"]["resourceVersion"]);
    let body =
        format!(r#"{{"metadata":{{"name":"a","resourceVersion":{before}}},"data":{{"k":"1"}}}}"#);
    let updated = api.value(&put, &body).await;
    assert_eq!(updated["metadata"]["uid"], *uid);
    assert_ne!(updated["metadata"]["resourceVersion"], *before);
    // The same resource version once more: somebody else (we) changed it meanwhile.
    api.check(&put, &body, expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#]]).await;
    // Without one, the write is unconditional; the same content writes nothing.
    let again = api.value(&put, r#"{"data":{"k":"1"}}"#).await;
    assert_eq!(pick(&again, version), pick(&updated, version));
    api.check(
        &put,
        r#"{"metadata":{"name":"b"}}"#,
        expect!["400 BadRequest the name of the object (b) does not match the name on the URL (a)"],
    )
    .await;
    api.check(&put, r#"{"metadata":{"uid":"other"}}"#, expect![[r#"409 Conflict Operation cannot be fulfilled on configmaps "a": Precondition failed: UID in precondition: other, UID in object meta: 533da458-4da9-483f-8561-7adf6a4f23ce"#]]).await;
    api.check(
        &format!("PUT {MAPS}/none"),
        r#"{"data":{}}"#,
        expect![[r#"404 NotFound configmaps "none" not found"#]],
    )
    .await;
    api.check(&format!("{put}?dryRun=All"), r#"{"data":{"k":"dry"}}"#, expect![[r#"200 {"apiVersion":"v1","data":{"k":"dry"},"kind":"ConfigMap","metadata":{"creationTimestamp":"2026-01-01T12:00:00Z","name":"a","namespace":"default","resourceVersion":"32","uid":"533da458-4da9-483f-8561-7adf6a4f23ce"}}"#]]).await;
    let kept = api.value(&format!("GET {MAPS}/a"), "").await;
    assert_eq!(pick(&kept, &["/data/k"]), "1");
}

#[tokio::test(start_paused = true)]
async fn generation_counts_the_specification() {
    let api = Api::new().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = r#"{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let generation = &["/metadata/generation", "/spec/replicas", "/status/replicas"];
    let made = api.value(&format!("POST {deployments}"), body).await;
    assert_eq!(pick(&made, generation), "1 1 -");
    let patch = format!("PATCH+merge {deployments}/d");
    let labelled = api.value(&patch, r#"{"metadata":{"labels":{"x":"y"}}}"#).await;
    assert_eq!(pick(&labelled, generation), "1 1 -");
    let status = api
        .value(&format!("{patch}/status"), r#"{"spec":{"replicas":9},"status":{"replicas":3}}"#)
        .await;
    assert_eq!(pick(&status, generation), "1 1 3");
    let scaled = api.value(&patch, r#"{"spec":{"replicas":2},"status":{"replicas":8}}"#).await;
    assert_eq!(pick(&scaled, generation), "2 2 3");
}
