//! Examples, most of them as the original's tests and documentation have them.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::{apply, shown, writer};
use crate::{
    kinds::{Kind, Subresource},
    ownership::merge::merge,
};

fn created(kind: &str, object: Value) -> String {
    let writer = writer(kind, None, "me");
    let kind: &'static Kind = writer.kind;
    let mut object = object;
    crate::object::set(&mut object, &["apiVersion"], json!(kind.api_version()));
    crate::object::set(&mut object, &["kind"], json!(kind.kind));
    (kind.default)(&mut object);
    writer.create(&object, None).unwrap()
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

#[test]
fn a_creator_owns_what_it_set_and_its_defaults() {
    // What `kubectl create` of this leaves behind in the original.
    expect![[r#"[{"apiVersion":"apps/v1","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:progressDeadlineSeconds":{},"f:replicas":{},"f:revisionHistoryLimit":{},"f:selector":{},"f:strategy":{"f:rollingUpdate":{".":{},"f:maxSurge":{},"f:maxUnavailable":{}},"f:type":{}},"f:template":{"f:metadata":{"f:labels":{".":{},"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:protocol":{}}},"f:resources":{},"f:terminationMessagePath":{},"f:terminationMessagePolicy":{}}},"f:dnsPolicy":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}}},"manager":"me","operation":"Update","time":"2026-01-01T12:00:00Z"}]"#]]
    .assert_eq(&created("Deployment", deployment()));
    expect![[r#"[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:reason":{},"f:source":{"f:component":{}},"f:type":{}},"manager":"me","operation":"Update","time":"2026-01-01T12:00:00Z"}]"#]]
    .assert_eq(&created("Event", json!({
        "metadata": {"name": "e"}, "count": 1, "reason": "r", "type": "Normal",
        "involvedObject": {"kind": "Pod"}, "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T12:00:00Z", "reportingComponent": "",
    })));
    let owned = json!({"metadata": {"name": "a", "finalizers": ["a/b"], "ownerReferences":
        [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}]}, "data": {"k": "v"}});
    expect![[r#"[{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{".":{},"f:k":{}},"f:metadata":{"f:finalizers":{".":{},"v:\"a/b\"":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"1\"}":{}}}},"manager":"me","operation":"Update","time":"2026-01-01T12:00:00Z"}]"#]]
    .assert_eq(&created("ConfigMap", owned));
}

/// Applies one after the other, each `(manager, force, object)`; shows data and owners.
#[track_caller]
fn check(applies: &[(&'static str, bool, Value)], expect: Expect) {
    let mut live = None;
    for (manager, force, data) in applies {
        let mut wanted =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        for (key, value) in data.as_object().unwrap() {
            wanted[key] = value.clone();
        }
        match apply(&writer("ConfigMap", None, manager), live.as_ref(), &wanted, *force) {
            Ok(new) => live = Some(new),
            Err(why) => return expect.assert_eq(&why),
        }
    }
    let live = live.unwrap();
    let data = live.object.get("data").cloned().unwrap_or_default();
    expect.assert_eq(&format!("{data}\n{}", shown(live.owners.as_deref())));
}

#[test]
fn what_an_applier_leaves_out_goes() {
    let data = |it: Value| json!({"data": it});
    check(
        &[("a", false, data(json!({"k": "1", "l": "2"}))), ("a", false, data(json!({"l": "2"})))],
        expect![[r#"
            {"l":"2"}
            "a" Apply 12:00:00Z: .data.l"#]],
    );
    check(
        &[("a", false, data(json!({"k": "1"}))), ("a", false, json!({}))],
        expect![[r#"
            null
        "#]],
    );
    // Somebody else wants it too.
    check(
        &[
            ("a", false, data(json!({"k": "1", "l": "2"}))),
            ("b", false, data(json!({"k": "1"}))),
            ("a", false, json!({})),
        ],
        expect![[r#"
            {"k":"1"}
            "b" Apply : .data.k"#]],
    );
}

#[test]
fn conflicts_are_refused_or_forced() {
    let data = |it: Value| json!({"data": it});
    let first = ("a", false, data(json!({"k": "1", "l": "2"})));
    check(
        &[first.clone(), ("b", false, data(json!({"k": "3"})))],
        expect![[r#"Apply failed with 1 conflict: conflict with "a": .data.k"#]],
    );
    check(
        &[first.clone(), ("b", false, data(json!({"k": "3", "l": "4"})))],
        expect![[r#"
            Apply failed with 2 conflicts: conflicts with "a":
            - .data.k
            - .data.l"#]],
    );
    check(
        &[first, ("b", true, data(json!({"k": "3"})))],
        expect![[r#"
            {"k":"3","l":"2"}
            "a" Apply 12:00:00Z: .data.l
            "b" Apply 12:00:00Z: .data.k"#]],
    );
}

#[track_caller]
fn refused(wanted: Value, expect: Expect) {
    let writer = writer("Deployment", None, "me");
    expect.assert_eq(&apply(&writer, None, &wanted, false).unwrap_err());
}

#[test]
fn what_does_not_fit_is_refused_in_the_originals_words() {
    let of = |key: &str, value: Value| {
        let mut wanted = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "w", "namespace": "n"}});
        wanted[key] = value;
        wanted
    };
    let containers = |it: Value| of("spec", json!({"template": {"spec": {"containers": it}}}));
    refused(json!({}), expect!["invalid object type: /, Kind="]);
    refused(
        json!({"apiVersion": "v1", "kind": "Pod"}),
        expect!["invalid object type: /v1, Kind=Pod"],
    );
    refused(
        of("metadata", json!({"managedFields": [{}]})),
        expect!["metadata.managedFields must be nil"],
    );
    refused(
        of("spec", json!({"foo": 1})),
        expect![[
            "failed to create typed patch object (n/w; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
        ]],
    );
    refused(
        containers(json!([{"name": "a"}, {"name": "a"}])),
        expect![[
            r#"failed to create typed patch object (n/w; apps/v1, Kind=Deployment): .spec.template.spec.containers: duplicate entries for key [name="a"]"#
        ]],
    );
    refused(
        containers(json!([{"image": "a"}])),
        expect![[
            r#"failed to create typed patch object (n/w; apps/v1, Kind=Deployment): .spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields ["name"] (and doesn't have default values for any key fields)"#
        ]],
    );
    refused(
        of("spec", json!({"replicas": "1", "template": [], "paused": {}})),
        expect![[r#"
            failed to create typed patch object (n/w; apps/v1, Kind=Deployment): errors:
              .spec.paused: expected boolean, got &{map[]}
              .spec.replicas: expected numeric (int or float), got string
              .spec.template: expected map, got &{[]}"#]],
    );
    refused(
        of("metadata", json!({"name": "w", "namespace": "n", "labels": {"a": 1}})),
        expect![[
            "failed to create typed patch object (n/w; apps/v1, Kind=Deployment): .metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}"
        ]],
    );
}

#[test]
fn a_list_keeps_its_order_and_takes_the_appliers() {
    let order = |live: &str, wanted: &str, merged: &str| {
        let pod = |letters: &str| {
            let letters: Vec<_> = letters.chars().map(String::from).collect();
            json!({"metadata": {"finalizers": letters}})
        };
        let shape = super::super::shape_of("io.k8s.api.core.v1.Pod").unwrap();
        let found = merge(shape, &pod(live), &pod(wanted));
        assert_eq!(found, pod(merged), "{live} {wanted}");
    };
    // The original's own cases.
    order("ab", "abc", "abc");
    order("abc", "", "abc");
    order("ab", "ba", "ba");
    order("abc", "cdef", "abcdef");
    order("abcgf", "cdef", "abcgdef");
    order("cdef", "ace", "acdef");
    order("abcxyz", "defxyz", "abcdefxyz");
    order("cagf", "cfag", "cfag");
    order("abcd", "defa", "bcdefa");
    order("cdefghij", "2h3e4kl", "cdfg2hij3e4kl");
    // Lists that have something twice.
    order("abb", "c", "abbc");
    order("abb", "b", "ab");
    order("abcdec", "1b2ed", "a1bc2ecd");
    order("aabb", "bcd", "aabcd");
    order("cagfca", "cfag", "cfag");
}

#[test]
fn ten_updaters_are_kept_apart() {
    let mut owners = None;
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    for index in 0..13 {
        let manager: &'static str = Box::leak(format!("m{index:02}").into_boxed_str());
        let writer = writer("ConfigMap", None, manager);
        let old = object.clone();
        object["data"][format!("k{index:02}")] = json!("v");
        owners = match index {
            0 => writer.create(&object, None),
            _ => writer.update(
                super::Live { object: &old, owners: owners.as_deref() },
                &object,
                None,
            ),
        };
    }
    expect![[r#"
        "ancient-changes" using v1 Update 12:00:00Z: .data .data.k00 .data.k01 .data.k02 .data.k03
        "m04" using v1 Update 12:00:00Z: .data.k04
        "m05" using v1 Update 12:00:00Z: .data.k05
        "m06" using v1 Update 12:00:00Z: .data.k06
        "m07" using v1 Update 12:00:00Z: .data.k07
        "m08" using v1 Update 12:00:00Z: .data.k08
        "m09" using v1 Update 12:00:00Z: .data.k09
        "m10" using v1 Update 12:00:00Z: .data.k10
        "m11" using v1 Update 12:00:00Z: .data.k11
        "m12" using v1 Update 12:00:00Z: .data.k12"#]]
    .assert_eq(&shown(owners.as_deref()));
}

#[test]
fn an_update_takes_what_it_changes() {
    let writer = |it| writer("Deployment", None, it);
    let old = json!({"spec": {"replicas": 1, "paused": true}});
    let owners = writer("a").create(&old, None);
    let new = json!({"spec": {"replicas": 2}, "status": {"replicas": 5}});
    let owners =
        writer("b").update(super::Live { object: &old, owners: owners.as_deref() }, &new, None);
    expect![[r#"
        "b" using apps/v1 Update 12:00:00Z: .spec.replicas"#]]
    .assert_eq(&shown(owners.as_deref()));
    let live = super::Live { object: &new, owners: owners.as_deref() };
    for cleared in [json!([]), json!([{}])] {
        assert_eq!(writer("b").update(live, &new, Some(&cleared)), None);
    }
    // Nonsense is as good as nothing.
    for nonsense in [json!([{"operation": "Dance"}]), json!({"a": 1}), json!([5])] {
        assert_eq!(writer("c").update(live, &new, Some(&nonsense)), owners);
    }
}

#[test]
fn a_status_belongs_to_who_writes_it() {
    let spec = writer("Deployment", None, "a");
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "w", "labels": {"a": "b"}},
        "spec": {"replicas": 1}, "status": {"replicas": 3}});
    let made = apply(&spec, None, &object, false).unwrap();
    expect![[r#"
        "a" Apply 12:00:00Z: .metadata.labels.a .spec.replicas"#]]
    .assert_eq(&shown(made.owners.as_deref()));
    let status = writer("Deployment", Some(Subresource::Status), "b");
    let made = apply(&status, Some(&made), &object, false).unwrap();
    expect![[r#"
        "b" with subresource "status" Apply : .status.replicas
        "a" Apply 12:00:00Z: .metadata.labels.a .spec.replicas"#]]
    .assert_eq(&shown(made.owners.as_deref()));
}
