//! The three languages against the cases of their documents, and against their own laws.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";

fn strategic(schema: &str, original: &Value, patch: &Value) -> Result<Value, Status> {
    Patch::Strategic(patch.clone()).apply(schema, original)
}

#[track_caller]
fn check(schema: &str, original: Value, patch: Value, expect: Expect) {
    expect.assert_eq(&match strategic(schema, &original, &patch) {
        Ok(value) => value.to_string(),
        Err(status) => format!("error: {}", status.message()),
    });
}

/// A pod of containers given as `name=image`.
fn pod(containers: &[&str]) -> Value {
    let containers = containers.iter().map(|it| {
        let (name, image) = it.split_once('=').unwrap();
        json!({"name": name, "image": image})
    });
    json!({"spec": {"containers": containers.collect::<Vec<_>>()}})
}

#[track_caller]
fn check_containers(original: &[&str], patch: Value, expect: Expect) {
    let after = strategic(POD, &pod(original), &json!({"spec": patch})).unwrap();
    let containers = after["spec"]["containers"].as_array().unwrap().iter();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap_or("-").to_owned();
    let shown = containers.map(|it| format!("{}={}", text(it, "name"), text(it, "image")));
    expect.assert_eq(&shown.collect::<Vec<_>>().join(" "));
}

#[test]
fn lists_merge_by_their_key() {
    // The first example of the document: a sidecar is added, nothing else is lost.
    let add = json!({"containers": [{"name": "log-tailer", "image": "log-tailer-1.0"}]});
    check_containers(
        &["nginx=nginx-1.0"],
        add,
        expect!["nginx=nginx-1.0 log-tailer=log-tailer-1.0"],
    );
    let change = json!({"containers": [{"name": "a", "image": "2"}]});
    check_containers(&["a=1", "b=1"], change, expect!["a=2 b=1"]);
}

#[test]
fn list_directives() {
    let replace = json!({"containers": [{"name": "c", "image": "1"}, {"$patch": "replace"}]});
    check_containers(&["a=1", "b=1"], replace, expect!["c=1"]);
    let delete = json!({"containers": [{"name": "a", "$patch": "delete"}]});
    check_containers(&["a=1", "b=1"], delete, expect!["b=1"]);
    let delete_absent = json!({"containers": [{"name": "z", "$patch": "delete"}]});
    check_containers(&["a=1"], delete_absent, expect!["a=1"]);
}

#[test]
fn set_element_order() {
    let order = |names: &[&str]| names.iter().map(|it| json!({"name": it})).collect::<Value>();
    let patch = json!({
        "$setElementOrder/containers": order(&["c", "a", "b"]),
        "containers": [{"name": "c", "image": "1"}],
    });
    check_containers(&["a=1", "b=1"], patch, expect!["c=1 a=1 b=1"]);
    // What only the server has keeps its place among its neighbours.
    let patch = json!({"$setElementOrder/containers": order(&["b", "a"])});
    check_containers(&["a=1", "x=1", "b=1"], patch, expect!["x=1 b=1 a=1"]);
    let patch = json!({
        "$setElementOrder/containers": order(&["a", "b"]),
        "containers": [{"name": "z", "$patch": "delete"}, {"name": "b", "image": "2"}],
    });
    check_containers(&["x=1", "a=1", "z=1", "b=1"], patch, expect!["x=1 a=1 b=2"]);
}

#[test]
fn object_directives() {
    let volumes = |volume: Value| json!({"spec": {"volumes": [volume]}});
    let original = volumes(json!({"name": "v", "emptyDir": {"medium": "Memory"}}));
    let retain =
        json!({"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]});
    check(
        POD,
        original,
        volumes(retain),
        expect![[r#"{"spec":{"volumes":[{"hostPath":{"path":"/x"},"name":"v"}]}}"#]],
    );
    let strategy =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let recreate = json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}});
    check(
        DEPLOYMENT,
        strategy,
        recreate,
        expect![[r#"{"spec":{"strategy":{"type":"Recreate"}}}"#]],
    );
    let data = json!({"data": {"a": "1", "b": "2"}});
    check(
        CONFIG_MAP,
        data.clone(),
        json!({"data": {"$patch": "replace", "c": "3"}}),
        expect![[r#"{"data":{"c":"3"}}"#]],
    );
    check(
        CONFIG_MAP,
        data.clone(),
        json!({"data": {"$patch": "delete"}}),
        expect![[r#"{"data":{}}"#]],
    );
    check(
        CONFIG_MAP,
        data.clone(),
        json!({"data": {"a": null, "$patch": "merge"}}),
        expect![[r#"{"data":{"b":"2"}}"#]],
    );
    check(
        CONFIG_MAP,
        data,
        json!({"data": {"$patch": "jump"}}),
        expect![[r#"error: `"jump"` is not a value of directive `$patch`"#]],
    );
}

#[test]
fn lists_of_plain_values() {
    let with = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        POD,
        with(json!(["a", "b"])),
        with(json!(["b", "c"])),
        expect![[r#"{"metadata":{"finalizers":["a","b","c"]}}"#]],
    );
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a"],
        "$setElementOrder/finalizers": ["c", "b"],
        "finalizers": ["c"],
    }});
    check(
        POD,
        with(json!(["a", "b"])),
        patch,
        expect![[r#"{"metadata":{"finalizers":["c","b"]}}"#]],
    );
    // A list without a merge strategy is replaced.
    let arguments = |list: Value| json!({"spec": {"containers": [{"name": "a", "args": list}]}});
    check(
        POD,
        arguments(json!(["1", "2"])),
        arguments(json!(["3"])),
        expect![[r#"{"spec":{"containers":[{"args":["3"],"name":"a"}]}}"#]],
    );
}

#[test]
fn mistakes() {
    let patch = json!({"spec": {"containers": [{"image": "x"}]}});
    check(
        POD,
        pod(&["a=1"]),
        patch,
        expect![
            "error: unable to find merge key `name` in an item of the patch's list `containers`"
        ],
    );
    let patch = json!({"spec": {"containers": ["x", {"name": "a"}]}});
    check(
        POD,
        pod(&["a=1"]),
        patch,
        expect!["error: invalid patch format: list `containers` mixes objects and plain values"],
    );
    check(POD, json!({}), json!([]), expect!["error: the patch must be an object"]);
}

#[test]
fn what_meets_nothing_comes_without_directives() {
    let patch = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "env": null}]}});
    check(POD, json!({}), patch, expect![[r#"{"spec":{"containers":[{"name":"b"}]}}"#]]);
}

/// What the page about patches in place and the note about this language show, in our own objects.
#[test]
fn documented_examples() {
    // Tolerations have no key to merge by: what the patch has replaces them.
    let original = json!({"spec": {"tolerations": [{"key": "disk", "operator": "Exists"}]}});
    let patch = json!({"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}});
    check(
        POD,
        original,
        patch,
        expect![[r#"{"spec":{"tolerations":[{"key":"gpu","operator":"Exists"}]}}"#]],
    );
    // Another strategy, which may not have what the first one needs.
    let strategy = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "30%"}}}});
    let recreate =
        |keys: Value| json!({"spec": {"strategy": {"type": "Recreate", "$retainKeys": keys}}});
    check(
        DEPLOYMENT,
        strategy.clone(),
        recreate(json!(["type"])),
        expect![[r#"{"spec":{"strategy":{"type":"Recreate"}}}"#]],
    );
    check(
        DEPLOYMENT,
        strategy,
        recreate(json!(["type", "rollingUpdate"])),
        expect![[
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":"30%"},"type":"Recreate"}}}"#
        ]],
    );
    // A list in a list by key, two levels below a template.
    let template =
        |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let env = |name: &str, value: &str| json!({"name": name, "value": value});
    check(
        DEPLOYMENT,
        template(json!([{"name": "a", "env": [env("X", "1"), env("Y", "1")]}])),
        template(json!([{"name": "a", "env": [
            env("Y", "2"),
            {"name": "X", "$patch": "delete"},
            env("Z", "3"),
        ], "$setElementOrder/env": [{"name": "Z"}, {"name": "Y"}]}])),
        expect![[
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"Z","value":"3"},{"name":"Y","value":"2"}],"name":"a"}]}}}}"#
        ]],
    );
    // Plain values are merged as a set, and told where to stand.
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    check(
        POD,
        finalizers(json!(["a", "b", "live"])),
        json!({"metadata": {
            "$deleteFromPrimitiveList/finalizers": ["a"],
            "$setElementOrder/finalizers": ["c", "b"],
            "finalizers": ["c"],
        }}),
        expect![[r#"{"metadata":{"finalizers":["c","b","live"]}}"#]],
    );
    // A map and a list that are replaced whole, and an object that is deleted by its key.
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    check(
        POD,
        labels(json!({"a": "1", "b": "1"})),
        labels(json!({"$patch": "replace", "c": "1"})),
        expect![[r#"{"metadata":{"labels":{"c":"1"}}}"#]],
    );
    check(
        POD,
        labels(json!({"a": "1", "b": "1"})),
        labels(json!({"a": null, "c": "1"})),
        expect![[r#"{"metadata":{"labels":{"b":"1","c":"1"}}}"#]],
    );
}

#[test]
fn merge_patch_cases_of_rfc_7396() {
    // Appendix A, those whose result is an object.
    let cases = [
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ];
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (original, patch, expected) in cases {
        let result = Patch::Merge(read(patch)).apply(POD, &read(original)).unwrap();
        assert_eq!(result, read(expected), "{original} {patch}");
    }
    // The others: by the RFC the patch itself is what comes of it, and that is no object of the API.
    let cases = [
        (r#"["a","b"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null"),
        (r#"{"a":"foo"}"#, r#""bar""#),
    ];
    for (original, patch) in cases {
        let mut merged = read(original);
        json_patch::merge(&mut merged, &read(patch));
        assert_eq!(merged, read(patch));
        assert!(Patch::Merge(read(patch)).apply(POD, &read(original)).is_err(), "{patch}");
    }
}

#[test]
fn json_patch_cases_of_rfc_6902() {
    // Appendix A; an empty result is a failure.
    let cases = [
        (
            r#"{"foo":"bar"}"#,
            r#"[{"op":"add","path":"/baz","value":"qux"}]"#,
            r#"{"baz":"qux","foo":"bar"}"#,
        ),
        (
            r#"{"foo":["bar","baz"]}"#,
            r#"[{"op":"add","path":"/foo/1","value":"qux"}]"#,
            r#"{"foo":["bar","qux","baz"]}"#,
        ),
        (r#"{"baz":"qux","foo":"bar"}"#, r#"[{"op":"remove","path":"/baz"}]"#, r#"{"foo":"bar"}"#),
        (
            r#"{"foo":["bar","qux","baz"]}"#,
            r#"[{"op":"remove","path":"/foo/1"}]"#,
            r#"{"foo":["bar","baz"]}"#,
        ),
        (
            r#"{"baz":"qux","foo":"bar"}"#,
            r#"[{"op":"replace","path":"/baz","value":"boo"}]"#,
            r#"{"baz":"boo","foo":"bar"}"#,
        ),
        (
            r#"{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}"#,
            r#"[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]"#,
            r#"{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}"#,
        ),
        (
            r#"{"foo":["all","grass","cows","eat"]}"#,
            r#"[{"op":"move","from":"/foo/1","path":"/foo/3"}]"#,
            r#"{"foo":["all","cows","eat","grass"]}"#,
        ),
        (
            r#"{"baz":"qux","foo":["a",2,"c"]}"#,
            r#"[{"op":"test","path":"/baz","value":"qux"},{"op":"test","path":"/foo/1","value":2}]"#,
            r#"{"baz":"qux","foo":["a",2,"c"]}"#,
        ),
        (r#"{"baz":"qux"}"#, r#"[{"op":"test","path":"/baz","value":"bar"}]"#, ""),
        (
            r#"{"foo":"bar"}"#,
            r#"[{"op":"add","path":"/child","value":{"grandchild":{}}}]"#,
            r#"{"foo":"bar","child":{"grandchild":{}}}"#,
        ),
        (
            r#"{"foo":"bar"}"#,
            r#"[{"op":"add","path":"/baz","value":"qux","xyz":123}]"#,
            r#"{"foo":"bar","baz":"qux"}"#,
        ),
        (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz/bat","value":"qux"}]"#, ""),
        // What it says twice it cannot mean.
        (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz","value":"qux","op":"remove"}]"#, ""),
        (r#"{"/":9,"~1":10}"#, r#"[{"op":"test","path":"/~01","value":10}]"#, r#"{"/":9,"~1":10}"#),
        (r#"{"/":9,"~1":10}"#, r#"[{"op":"test","path":"/~01","value":"10"}]"#, ""),
        (
            r#"{"foo":["bar"]}"#,
            r#"[{"op":"add","path":"/foo/-","value":["abc","def"]}]"#,
            r#"{"foo":["bar",["abc","def"]]}"#,
        ),
    ];
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    for (original, patch, expected) in cases {
        let original = read(original).unwrap();
        let headers =
            [(http::header::CONTENT_TYPE, "application/json-patch+json".parse().unwrap())];
        let read_patch = Patch::read(&headers.into_iter().collect(), patch.as_bytes());
        let result = read_patch.and_then(|it| it.apply(POD, &original)).ok();
        assert_eq!(result, read(expected), "{original} {patch}");
    }
}

/// Objects of few names, so that original and patch meet; `leaf` is what stands at the ends.
fn object(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    let leaf = leaf.boxed();
    let inner = leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|it| json!(it)),
        ]
    });
    prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|it| json!(it))
}

fn plain() -> impl Strategy<Value = Value> {
    prop_oneof![(0..3).prop_map(|it| json!(it)), "[xy]".prop_map(Value::String)]
}

fn nullable() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::Null), plain()]
}

proptest! {
    #[test]
    fn merge_patch_is_idempotent(original in object(plain()), patch in object(nullable())) {
        let patch = Patch::Merge(patch);
        let once = patch.apply(POD, &original).unwrap();
        prop_assert_eq!(patch.apply(POD, &once).unwrap(), once);
    }

    /// Where nothing is known about lists, strategic merge is merge patch.
    #[test]
    fn strategic_without_schema_is_merge_patch(
        original in object(plain()),
        patch in object(plain()),
    ) {
        let merged = Patch::Merge(patch.clone()).apply(POD, &original).unwrap();
        prop_assert_eq!(strategic(POD, &original, &patch).unwrap(), merged);
    }

    #[test]
    fn strategic_is_idempotent(
        names in prop::collection::btree_set("[a-e]", 0..5),
        changed in prop::collection::btree_set("[a-g]", 0..4),
        deleted in prop::collection::btree_set("[a-e]", 0..3),
    ) {
        let containers: Vec<String> = names.iter().map(|it| format!("{it}=1")).collect();
        let original = pod(&containers.iter().map(String::as_str).collect::<Vec<_>>());
        let changes = changed.difference(&deleted).map(|it| json!({"name": it, "image": "2"}));
        let deletes = deleted.iter().map(|it| json!({"name": it, "$patch": "delete"}));
        let items: Vec<Value> = changes.chain(deletes).collect();
        let patch = json!({"spec": {"containers": items}});
        let once = strategic(POD, &original, &patch).unwrap();
        prop_assert_eq!(&strategic(POD, &once, &patch).unwrap(), &once);
        let mut expected: Vec<&String> =
            names.union(&changed).filter(|it| !deleted.contains(*it)).collect();
        let list = once["spec"]["containers"].as_array().unwrap();
        let mut found: Vec<&str> = list.iter().map(|it| it["name"].as_str().unwrap()).collect();
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn order_is_obeyed(names in Just(vec!["a", "b", "c", "d"]).prop_shuffle(), extra in any::<bool>()) {
        let order: Vec<Value> = names.iter().map(|it| json!({"name": it})).collect();
        let mut containers = vec!["a=1", "b=1", "c=1", "d=1"];
        if extra {
            containers.insert(2, "x=1");
        }
        let patch = json!({"spec": {"$setElementOrder/containers": order}});
        let after = strategic(POD, &pod(&containers), &patch).unwrap();
        let list = after["spec"]["containers"].as_array().unwrap();
        let found: Vec<&str> = list.iter().map(|it| it["name"].as_str().unwrap())
            .filter(|it| *it != "x").collect();
        prop_assert_eq!(found, names);
        prop_assert_eq!(list.len(), containers.len());
    }

    #[test]
    fn nothing_panics(original in object(nullable()), patch in object(nullable()), directive in "[$a-z/]{0,12}") {
        let mut patch = patch;
        patch["spec"] = json!({"containers": [patch.clone()], "volumes": patch.clone()});
        patch[directive] = json!("delete");
        let mut original = original;
        original["spec"] = json!({"containers": [original.clone()], "volumes": [1]});
        drop(strategic(POD, &original, &patch));
    }
}
