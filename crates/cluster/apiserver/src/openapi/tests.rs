//! The documents as clients read them.

use super::*;
use crate::protobuf::wire::{Fields, Scalar};

fn v3(group: &str, version: &str) -> Value {
    let mut text = Vec::new();
    write_v3(group, version, &mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn v2() -> Value {
    let mut text = Vec::new();
    write_v2(&mut text).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Calls `visit` with every value in `value`.
fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|it| walk(it, visit)),
        Value::Object(members) => members.values().for_each(|it| walk(it, visit)),
        _ => {}
    }
}

fn documents() -> Vec<Value> {
    let served: BTreeSet<_> = KINDS.iter().map(|it| (it.group, it.version)).collect();
    served.iter().map(|(group, version)| v3(group, version)).collect()
}

#[test]
fn every_reference_leads_somewhere() {
    for document in documents() {
        walk(&document, &mut |it| {
            if let Some(Value::String(reference)) = it.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        });
    }
}

/// A client keeps a document for as long as its hash stays.
#[test]
fn the_fingerprint_covers_what_makes_the_documents() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = std::fs::read_dir(folder.join("openapi")).unwrap();
    let files = files.map(|it| it.unwrap().file_name().into_string().unwrap());
    let files = files.filter(|it| it != "tests.rs").map(|it| format!("openapi/{it}"));
    for file in files.chain(["kinds/mod.rs", "schema/table.rs"].map(str::to_owned)) {
        let source = std::fs::read_to_string(folder.join(&file)).unwrap();
        assert!(SOURCES.contains(&(file.as_str(), source.as_str())), "{file}");
    }
    let all = SOURCES.iter().map(|it| it.1).collect::<String>();
    let mut hash = Fnv::default();
    hash.add(all.as_bytes());
    assert_eq!(hash, GENERATOR);
}

/// What kubectl looks for before it applies.
#[test]
fn every_kind_can_be_patched_with_field_validation() {
    let mut patched = BTreeSet::new();
    for document in documents() {
        walk(&document["paths"], &mut |it| {
            let names = it["parameters"].as_array().into_iter().flatten();
            let mut names = names.filter_map(|it| it["name"].as_str());
            if it["x-kubernetes-action"] == "patch" && names.any(|it| it == "fieldValidation") {
                patched.insert(it["x-kubernetes-group-version-kind"].to_string());
            }
        });
    }
    for kind in KINDS.iter().filter(|it| it.verbs.contains(&"patch")) {
        let (group, version, kind) = (kind.group, kind.version, kind.kind);
        let wanted = json!({"group": group, "version": version, "kind": kind}).to_string();
        assert!(patched.contains(&wanted), "{kind}");
    }
}

#[test]
fn operations_are_named_apart() {
    let mut seen = BTreeSet::new();
    for document in documents() {
        walk(&document, &mut |it| {
            if let Some(Value::String(id)) = it.get("operationId") {
                assert!(seen.insert(id.clone()), "{id}");
            }
        });
    }
    assert!(seen.contains("patchAppsV1NamespacedDeploymentStatus"));
    assert!(seen.contains("listCoreV1PodForAllNamespaces"));
}

#[test]
fn fields_say_what_they_are() {
    let document = v3("apps", "v1");
    let schemas = &document["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    let template = &spec["properties"]["template"];
    assert_eq!(template["default"], json!({}));
    assert!(template["description"].as_str().unwrap().starts_with("Template describes"));
    let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
    assert_eq!(container["name"]["default"], "");
    assert_eq!(
        container["ports"]["x-kubernetes-list-map-keys"],
        json!(["containerPort", "protocol"])
    );
    let choices = json!(["Always", "IfNotPresent", "Never"]);
    assert_eq!(container["imagePullPolicy"]["enum"], choices);
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"];
    assert_eq!(port["protocol"]["default"], "TCP");
    assert_eq!(port["hostPort"].get("default"), None);
}

/// Against the published document: every schema that is served has the same fields, types, keys and
/// descriptions there. Its lists are described nowhere but in the document.
#[test]
fn nearly_everything_is_described() {
    let document = v2();
    let definitions = document["definitions"].as_object().unwrap();
    let mut without = BTreeSet::new();
    for (name, definition) in definitions {
        if definition.get("description").is_none() {
            without.insert(name.rsplit('.').next().unwrap().to_owned());
        }
    }
    let kinds: BTreeSet<String> = KINDS.iter().map(|it| format!("{}List", it.kind)).collect();
    let others: Vec<_> = without.difference(&kinds).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn version_2_refers_to_itself() {
    let document = v2();
    let mut references = 0;
    walk(&document, &mut |it| {
        if let Some(Value::String(reference)) = it.get("$ref") {
            references += 1;
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    });
    assert!(references > 1000, "{references}");
    let pods = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(pods["produces"][2], "application/vnd.kubernetes.protobuf");
}

#[test]
fn fingerprints_last() {
    assert_eq!(fingerprint(), fingerprint());
    assert_ne!(fingerprint(), Fnv::default());
}

/// The messages in a field of a message.
fn inside(message: &[u8], number: u32) -> Vec<&[u8]> {
    let fields = Fields::new(message).map(Result::unwrap);
    let found = fields.filter_map(|it| match it {
        (found, Scalar::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    });
    found.collect()
}

fn named<'a>(entries: &[&'a [u8]], name: &str) -> &'a [u8] {
    let found = entries.iter().find(|it| inside(it, 1) == [name.as_bytes()]);
    inside(found.expect(name), 2)[0]
}

#[test]
fn version_2_is_the_same_in_protobuf() {
    let document = v2_protobuf().unwrap();
    let json = v2();
    let paths = inside(inside(&document, 8)[0], 2);
    assert_eq!(paths.len(), json["paths"].as_object().unwrap().len());
    let definitions = inside(inside(&document, 9)[0], 1);
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let name = "io.k8s.api.core.v1.PodSpec";
    let spec = named(&definitions, name);
    let properties = inside(inside(spec, 25)[0], 1);
    let containers = named(&properties, "containers");
    let expected = &json["definitions"][name]["properties"]["containers"];
    let text = |message, number| std::str::from_utf8(inside(message, number)[0]).unwrap();
    assert_eq!(text(containers, 4), expected["description"].as_str().unwrap());
    assert_eq!(text(inside(containers, 22)[0], 1), "array");
    let item = inside(inside(containers, 23)[0], 1)[0];
    assert_eq!(text(item, 1), "#/definitions/io.k8s.api.core.v1.Container");
    let key = named(&inside(containers, 31), "x-kubernetes-patch-merge-key");
    assert_eq!(text(key, 2), "\"name\"\n");
    let pod = named(&paths, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = inside(pod, 8)[0];
    assert_eq!(text(patch, 5), "patchCoreV1NamespacedPod");
    let names: Vec<&str> = inside(patch, 8)
        .into_iter()
        .filter_map(|it| inside(inside(it, 1)[0], 2).into_iter().next())
        .filter_map(|it| inside(it, 3).into_iter().next())
        .map(|it| text(it, 4))
        .collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force", "pretty"]);
}
