//! Builds of small kustomizations: what they give, and how they are refused.

use std::{collections::BTreeMap, fmt::Write as _};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::Value;

use crate::{Error, Field, Schema, build, join};

/// Only what these tests merge.
struct Few;

impl Schema for Few {
    fn definition(&self, group: &str, _: &str, kind: &str) -> Option<&'static str> {
        (group == "apps" && kind == "Deployment").then_some("Deployment")
    }

    fn field(&self, definition: &str, name: &str) -> Option<Field> {
        match (definition, name) {
            ("Deployment", "spec") => Some(Field { definition: Some("Spec"), ..Field::default() }),
            ("Spec", "containers") => Some(Field {
                merge: true,
                keys: vec!["name"],
                definition: Some("Container"),
                map: false,
            }),
            ("Container", "ports") => {
                Some(Field { merge: true, keys: vec!["port", "protocol"], ..Field::default() })
            }
            ("Spec", "finalizers") => Some(Field { merge: true, ..Field::default() }),
            _ => None,
        }
    }
}

/// Reads `FILE:` lines, each with its text below it.
fn files(text: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for part in text.split("=== ").skip(1) {
        let (name, text) = part.split_once('\n').unwrap();
        files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    files
}

fn run(text: &str) -> Result<Vec<Value>, Error> {
    let built = build(&files(text), "app", &Few)?;
    Ok(built.into_iter().map(|it| it.value).collect())
}

fn check(text: &str, expected: Expect) {
    let seen = match run(text) {
        Ok(objects) => objects.iter().fold(String::new(), |mut all, it| {
            writeln!(all, "{it}").unwrap();
            all
        }),
        Err(error) => format!("error: {error}\n"),
    };
    expected.assert_eq(&seen);
}

const MAP: &str = "=== app/a.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

fn refused(kustomization: &str, expected: Expect) {
    check(
        &format!("{MAP}=== app/kustomization.yaml\nresources: [a.yaml]\n{kustomization}"),
        expected,
    );
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    refused(
        "vars: [{name: A}]\n",
        expect![[r#"
            error: app/kustomization.yaml: `vars`: this is not done here: use replacements
        "#]],
    );
    refused(
        "vars: []\n",
        expect![[r#"
        {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}
    "#]],
    );
    refused(
        "helmCharts: [{name: x}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `helmCharts`: this is not done here: render the chart with `helm template` into a file, and name that in resources
    "#]],
    );
    refused(
        "resourcez: []\n",
        expect![[r#"
        error: app/kustomization.yaml: `kustomization`: unknown field `resourcez`, expected one of apiVersion, kind, metadata, resources, bases, components, namespace, namePrefix, nameSuffix, commonLabels, labels, commonAnnotations, images, replicas, configMapGenerator, secretGenerator, generatorOptions, patches, patchesStrategicMerge, patchesJson6902, replacements, sortOptions, buildMetadata, configurations, crds, generators, helmChartInflationGenerator, helmCharts, helmGlobals, imageTags, openapi, transformers, validators, vars at line 2, column 1
    "#]],
    );
    refused(
        "images: [{name: a, tagSuffix: b}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `kustomization`: unknown field `tagSuffix`, expected one of name, newName, newTag, digest at line 2, column 20
    "#]],
    );
    refused(
        "kind: Deployment\n",
        expect![[r#"
        error: app/kustomization.yaml: `kind`: `Deployment` is neither Kustomization nor Component
    "#]],
    );
    refused(
        "apiVersion: v1\n",
        expect![[r#"
        error: app/kustomization.yaml: `apiVersion`: `v1` should be `kustomize.config.k8s.io/v1beta1`
    "#]],
    );
}

#[test]
fn what_is_not_there_is_refused() {
    refused(
        "components: [nowhere]\n",
        expect![[r#"
        error: app/kustomization.yaml: `components`: there is no folder `app/nowhere`
    "#]],
    );
    refused(
        "replicas: [{name: web, count: 2}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `replicas[0]`: no Deployment, ReplicationController, ReplicaSet or StatefulSet is called `web`
    "#]],
    );
    refused(
        "configMapGenerator: [{name: a}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `configMapGenerator[0]`: ConfigMap `a` is there already: give `behavior` merge or replace
    "#]],
    );
    refused(
        "configMapGenerator: [{name: b, behavior: merge}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `configMapGenerator[0]`: there is no ConfigMap `b` to merge into or replace
    "#]],
    );
    refused(
        "configMapGenerator: [{name: b, literals: [x]}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `configMapGenerator[0]`: literal `x` is not KEY=VALUE
    "#]],
    );
    refused(
        "configMapGenerator: [{name: b, files: [../x]}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `configMapGenerator[0]`: `x` is not below `app`, as kustomize wants of files
    "#]],
    );
    refused(
        "secretGenerator: [{name: b, envs: [x.env]}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `secretGenerator[0]`: there is no file `app/x.env`
    "#]],
    );
}

#[test]
fn patches_that_fit_nothing_are_refused() {
    refused(
        "patches: [{path: x.yaml}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: there is no file `app/x.yaml`
    "#]],
    );
    refused(
        "patches: [{patch: '- {op: remove, path: /x}'}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: operations need a `target`
    "#]],
    );
    refused(
        "patches: [{target: {kind: '('}, patch: 'a: b'}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: `kind` `(` is no regular expression: found open group without closing ')'
    "#]],
    );
    refused(
        "patches: [{target: {kind: ConfigMap}, patch: '- {op: remove, path: /x}'}]\n",
        expect![[r#"
            error: app/kustomization.yaml: `patches[0]`: ConfigMap `a`: operation '/0' failed at path '/x': path is invalid
        "#]],
    );
    refused(
        "patches: [{patch: '{apiVersion: v1, kind: ConfigMap, metadata: {name: z}}'}]\n",
        expect![[r#"
            error: app/kustomization.yaml: `patches[0]`: there is no ConfigMap `z` to patch
        "#]],
    );
    refused(
        "replacements: [{sourceValue: x}]\n",
        expect![[r#"
        error: app/kustomization.yaml: `replacements[0]`: `targets` is missing
    "#]],
    );
    refused(
        "replacements: [{sourceValue: x, targets: [{select: {name: a}, fieldPaths: [data.x]}]}]\n",
        expect![[r#"
            error: app/kustomization.yaml: `replacements[0]`: ConfigMap `a` has no field `data.x`; `create` would make it
        "#]],
    );
    check(
        "=== app/x\n",
        expect![[r#"
        error: app: `app`: the folder has no kustomization.yaml
    "#]],
    );
}

#[test]
fn nothing_is_fetched_and_nothing_goes_round() {
    for path in ["https://example.org/a.yaml", "github.com/a/b?ref=v1", "git@example.org:a/b"] {
        let text = format!("=== app/kustomization.yaml\nresources: ['{path}']\n");
        let error = run(&text).unwrap_err();
        assert!(error.problem.contains("another machine"), "{error}");
        assert!(error.problem.contains(path), "{error}");
    }
    check(
        "=== app/kustomization.yaml\nresources: [../app]\n",
        expect![[r#"
        error: app/kustomization.yaml: `resources`: `../app` is the folder itself or around it: a cycle
    "#]],
    );
    check(
        "=== app/kustomization.yaml\nresources: [../b]\n=== b/kustomization.yaml\nresources: [../app]\n",
        expect![[r#"
            error: b/kustomization.yaml: `resources`: `../app` is the folder itself or around it: a cycle
        "#]],
    );
    check(
        "=== app/kustomization.yaml\n=== app/Kustomization\n",
        expect![[r#"
        error: app: `app`: `app/kustomization.yaml` and `app/Kustomization` are there: remove one of them
    "#]],
    );
    check(
        "=== app/kustomization.yaml\nresources: [../b]\n=== b/kustomization.yaml\nkind: Component\n",
        expect![[r#"
            error: b/kustomization.yaml: `kind`: this is a Component: name it in `components`
        "#]],
    );
}

const DEPLOYMENT: &str = "=== app/a.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  finalizers: [x]
  containers:
  - {name: one, ports: [{port: 1}, {port: 2, protocol: UDP}]}
  - {name: two, image: i}
";

fn merged(patch: &str, expected: Expect) {
    let text = format!(
        "{DEPLOYMENT}=== app/kustomization.yaml\nresources: [a.yaml]\npatches: [{{path: p.yaml}}]\n\
         === app/p.yaml\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\n{patch}"
    );
    check(&text, expected);
}

#[test]
fn lists_are_merged_by_their_keys() {
    merged(
        "spec: {containers: [{name: two, image: j}, {name: new}]}\n",
        expect![[r#"
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"containers":[{"image":"j","name":"two"},{"name":"new"},{"name":"one","ports":[{"port":1},{"port":2,"protocol":"UDP"}]}],"finalizers":["x"]}}
    "#]],
    );
    merged(
        "spec: {containers: [{name: one, $patch: delete}], finalizers: [y, x]}\n",
        expect![[r#"
            {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"containers":[{"image":"i","name":"two"}],"finalizers":["y","x"]}}
        "#]],
    );
    merged(
        "spec: {containers: [{$patch: replace}, {name: only}]}\n",
        expect![[r#"
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"containers":[{"name":"only"}],"finalizers":["x"]}}
    "#]],
    );
    merged(
        "spec: {containers: [{name: two, $patch: replace, args: [a]}]}\n",
        expect![[r#"
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"containers":[{"args":["a"],"name":"two"},{"name":"one","ports":[{"port":1},{"port":2,"protocol":"UDP"}]}],"finalizers":["x"]}}
    "#]],
    );
    merged(
        "spec: {containers: [{name: one, ports: [{port: 1, protocol: TCP, name: p}]}]}\n",
        expect![[r#"
            {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"containers":[{"name":"one","ports":[{"name":"p","port":1,"protocol":"TCP"},{"port":2,"protocol":"UDP"}]},{"image":"i","name":"two"}],"finalizers":["x"]}}
        "#]],
    );
    merged(
        "spec: {containers: null}\n",
        expect![[r#"
        {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"finalizers":["x"]}}
    "#]],
    );
    merged(
        "spec: {containers: [{image: x}]}\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: Deployment `a`: spec: containers: an item has no `name` to be merged by
    "#]],
    );
    merged(
        "spec: {containers: {}}\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: Deployment `a`: spec: containers: a map cannot be merged into a list
    "#]],
    );
    merged(
        "spec: {$retainKeys: [a]}\n",
        expect![[r#"
        error: app/kustomization.yaml: `patches[0]`: Deployment `a`: spec: `$retainKeys` is a directive that kustomize has not
    "#]],
    );
}

#[test]
fn paths() {
    for (folder, path, expected) in [
        ("a/b", "../c", "a/c"),
        ("a", "../..", ".."),
        (".", "x", "x"),
        (".", "../x", "../x"),
        ("/a", "../../b", "/b"),
        ("a", "/b/./c", "/b/c"),
        ("a", "..", "."),
    ] {
        assert_eq!(join(folder, path), expected, "{folder} {path}");
    }
}

fn manifest(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: '{name}'}}\n")
}

proptest! {
    /// What is built does not depend on the order in which files are named.
    #[test]
    fn the_order_of_files_does_not_matter(
        names in proptest::collection::btree_set("[a-z]{1,6}", 1..8).prop_map(Vec::from_iter)
            .prop_flat_map(|names| (Just(names.clone()), Just(names).prop_shuffle())),
    ) {
        let text = |names: &[String]| {
            let list: Vec<String> = names.iter().map(|it| format!("'{it}.yaml'")).collect();
            let kustomization = format!("resources: [{}]\nnamePrefix: x-\n", list.join(", "));
            let manifests: String = names
                .iter()
                .map(|it| format!("=== app/{it}.yaml\n{}", manifest(it)))
                .collect();
            format!("=== app/kustomization.yaml\n{kustomization}{manifests}")
        };
        let (sorted, shuffled) = names;
        prop_assert_eq!(run(&text(&sorted)), run(&text(&shuffled)));
    }

    /// A name that stands for a generated object changes if, and only if, its content does.
    #[test]
    fn names_tell_contents_apart(a in "[a-z<&]{0,12}", b in "[a-z<&]{0,12}") {
        let name = |value: &str| {
            let text = format!(
                "=== app/kustomization.yaml\nconfigMapGenerator: [{{name: n, literals: ['k={value}']}}]\n"
            );
            run(&text).unwrap().remove(0).pointer("/metadata/name").cloned()
        };
        prop_assert_eq!(a == b, name(&a) == name(&b));
    }

    /// Whatever a kustomization says, it is built, or refused by a message that names a file.
    #[test]
    fn any_text_is_answered(text in "[ a-zA-Z:{}\\[\\],'\n-]{0,80}") {
        let answer = run(&format!("{MAP}=== app/kustomization.yaml\nresources: [a.yaml]\n{text}"));
        if let Err(error) = answer {
            prop_assert!(error.file.starts_with("app/"), "{error}");
        }
    }
}
