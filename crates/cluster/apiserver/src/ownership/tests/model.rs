//! Properties. The model of a pod is what is owned one by one: labels, finalizers, containers by
//! name with their environment, and a node selector that is owned as a whole.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Stored, apply, shown, writer};
use crate::ownership::{Live, owners, set::Set};

type Texts = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    labels: Texts,
    finalizers: BTreeSet<String>,
    containers: BTreeMap<String, (Option<String>, Texts)>,
    node_selector: Option<Texts>,
}

impl Model {
    fn object(&self) -> Value {
        let containers = self.containers.iter().map(|(name, (image, env))| {
            let env = env.iter().map(|(name, value)| json!({"name": name, "value": value}));
            let mut container = json!({"name": name, "env": env.collect::<Vec<_>>()});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            container
        });
        let mut spec = json!({"containers": containers.collect::<Vec<_>>()});
        if let Some(node_selector) = &self.node_selector {
            spec["nodeSelector"] = json!(node_selector);
        }
        let mut metadata = json!({"name": "p", "finalizers": self.finalizers});
        // An empty map would be owned itself.
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }

    fn of(pod: &Value) -> Self {
        let texts = |it: &Value| serde_json::from_value(it.clone()).unwrap_or_default();
        let items = |it: &Value| it.as_array().cloned().unwrap_or_default();
        let name = |it: &Value| it["name"].as_str().unwrap().to_owned();
        let container = |it: &Value| {
            let env = items(&it["env"]);
            let env = env.iter().map(|it| (name(it), it["value"].as_str().unwrap().to_owned()));
            (name(it), (it["image"].as_str().map(str::to_owned), env.collect()))
        };
        Self {
            labels: texts(&pod["metadata"]["labels"]),
            finalizers: serde_json::from_value(pod["metadata"]["finalizers"].clone())
                .unwrap_or_default(),
            containers: items(&pod["spec"]["containers"]).iter().map(container).collect(),
            node_selector: pod["spec"].get("nodeSelector").map(texts),
        }
    }

    /// What merging `other` over this gives.
    fn with(mut self, other: Self) -> Self {
        self.labels.extend(other.labels);
        self.finalizers.extend(other.finalizers);
        for (name, (image, env)) in other.containers {
            let container = self.containers.entry(name).or_default();
            container.0 = image.or(container.0.take());
            container.1.extend(env);
        }
        self.node_selector = other.node_selector.or(self.node_selector);
        self
    }

    /// A part of it: everything whose hash the seed likes.
    fn part(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut part = self.clone();
        part.labels.retain(|_, _| random.bool());
        part.finalizers.retain(|_| random.bool());
        part.containers.retain(|_, _| random.bool());
        for (image, env) in part.containers.values_mut() {
            *image = image.take().filter(|_| random.bool());
            env.retain(|_, _| random.bool());
        }
        part.node_selector = part.node_selector.filter(|_| random.bool());
        part
    }
}

fn texts() -> impl Strategy<Value = Texts> {
    prop::collection::btree_map("[ab]", "[12]", 0..3)
}

fn model() -> impl Strategy<Value = Model> {
    let container = (prop::option::of("[xy]"), texts());
    let node_selector = prop::option::of(prop::collection::btree_map("[ab]", "[12]", 1..3));
    (
        texts(),
        prop::collection::btree_set("x/[ab]", 0..3),
        prop::collection::btree_map("[ab]", container, 0..3),
        node_selector,
    )
        .prop_map(|(labels, finalizers, containers, node_selector)| Model {
            labels,
            finalizers,
            containers,
            node_selector,
        })
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z.:{}\"]{0,4}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("metadata".to_owned()),
        Just("spec".to_owned()),
        Just("containers".to_owned()),
        Just("name".to_owned()),
        Just("labels".to_owned()),
        Just("env".to_owned()),
        Just("ports".to_owned()),
        Just("finalizers".to_owned()),
        Just("managedFields".to_owned()),
        Just("fieldsV1".to_owned()),
        Just("f:spec".to_owned()),
        Just(".".to_owned()),
        Just("k:{\"name\":\"a\"}".to_owned()),
        Just("operation".to_owned()),
        "[a-z]{0,3}",
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..5)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

fn timeless(stored: &Stored) -> String {
    shown(stored.owners.as_deref()).replace("12:00:00Z", "")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merge_agrees_with_the_model(live in model(), wanted in model()) {
        let first = apply(&writer("Pod", None, "a"), None, &live.object(), false).unwrap();
        prop_assert_eq!(&Model::of(&first.object), &live);
        let second = apply(&writer("Pod", None, "b"), Some(&first), &wanted.object(), true).unwrap();
        prop_assert_eq!(Model::of(&second.object), live.with(wanted));
    }

    #[test]
    fn an_apply_twice_is_an_apply_once(live in model(), wanted in model()) {
        let first = apply(&writer("Pod", None, "a"), None, &live.object(), false).unwrap();
        let b = writer("Pod", None, "b");
        let once = apply(&b, Some(&first), &wanted.object(), true).unwrap();
        let twice = apply(&b, Some(&once), &wanted.object(), false).unwrap();
        prop_assert_eq!(timeless(&twice), timeless(&once));
        prop_assert_eq!(twice.object, once.object);
    }

    #[test]
    fn applying_a_part_removes_the_rest(wanted in model(), seed in any::<u64>()) {
        let a = writer("Pod", None, "a");
        let part = wanted.part(seed);
        let first = apply(&a, None, &wanted.object(), false).unwrap();
        let second = apply(&a, Some(&first), &part.object(), false).unwrap();
        let fresh = apply(&a, None, &part.object(), false).unwrap();
        prop_assert_eq!(Model::of(&second.object), part);
        prop_assert_eq!(timeless(&second), timeless(&fresh));
    }

    #[test]
    fn others_keep_what_they_own(mine in model(), theirs in model()) {
        let (a, b) = (writer("Pod", None, "a"), writer("Pod", None, "b"));
        let first = apply(&a, None, &mine.object(), false).unwrap();
        let second = apply(&b, Some(&first), &theirs.object(), true).unwrap();
        let third = apply(&a, Some(&second), &Model::default().object(), false).unwrap();
        prop_assert_eq!(Model::of(&third.object), theirs);
    }

    #[test]
    fn owners_are_read_as_they_were_written(mine in model(), theirs in model()) {
        let (a, b) = (writer("Pod", None, "a"), writer("Pod", None, "b"));
        let first = apply(&a, None, &mine.object(), false).unwrap();
        let second = apply(&b, Some(&first), &theirs.object(), true).unwrap();
        let text = second.owners.unwrap_or_else(|| "[]".to_owned());
        let read = owners::parse(&text).unwrap();
        prop_assert_eq!(owners::write(read.clone()).unwrap_or_else(|| "[]".to_owned()), text.clone());
        for owner in read {
            let all = owner.fields.clone();
            prop_assert_eq!(all.clone().union(all.clone()), all.clone());
            prop_assert_eq!(all.clone().intersection(&all), all.clone());
            prop_assert!(all.clone().difference(&all).is_empty());
            prop_assert!(all.clone().without(&all).is_empty());
        }
    }

    #[test]
    fn sets_are_read_as_they_were_written(json in json_value()) {
        if let Ok(set) = serde_json::from_str::<Set<'_>>(&json.to_string()) {
            let mut text = Vec::new();
            set.write(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let again: Set<'_> = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&again, &set, "{}", text);
        }
    }

    #[test]
    fn nothing_panics(live in json_value(), wanted in json_value(), given in json_value()) {
        let a = writer("Pod", None, "kubectl");
        let text = given.to_string();
        let live = Live { object: &live, owners: Some(&text) };
        let of_kind = |mut it: Value| {
            if let Value::Object(members) = &mut it {
                members.insert("apiVersion".to_owned(), json!("v1"));
                members.insert("kind".to_owned(), json!("Pod"));
            }
            it
        };
        let wanted = of_kind(wanted);
        drop(a.create(&wanted, Some(&given)));
        drop(a.update(live, &wanted, Some(&given)));
        drop(a.apply(Some(live), &wanted, true));
        drop(a.apply(None, &wanted, false));
        drop(a.scale(live, &wanted, live.object));
        drop(a.apply_scale(live, &wanted, live.object, true));
    }
}
