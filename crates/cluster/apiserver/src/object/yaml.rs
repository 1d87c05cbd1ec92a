//! YAML bodies: the value, and which keys it says twice, in the words of the original's parser
//! (`sigs.k8s.io/yaml`).

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use serde_saphyr::{Error, Options, Spanned, budget::BudgetBreach, options::DuplicateKeyPolicy};

use crate::limits::{
    FINDINGS_MAX, YAML_ALIASES_MAX, YAML_DEPTH_MAX, YAML_NODES_MAX, YAML_SCALAR_BYTES_MAX,
};

/// A text, read.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Yaml {
    /// Of a key that occurs twice, the last value.
    pub(crate) value: Value,
    /// The other ones: `line 7: key "a" already set in map`.
    pub(crate) duplicates: Vec<String>,
}

/// Reads a body.
pub(crate) fn read(body: &[u8]) -> Result<Yaml, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("yaml: {error}"))?;
    match serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::Error)) {
        Ok(value) => return Ok(Yaml { value, duplicates: Vec::new() }),
        // Where keys occur is looked at only then: it costs a multiple.
        Err(error) if matches!(error.without_snippet(), Error::DuplicateMappingKey { .. }) => {}
        Err(error) => return Err(said(&error)),
    }
    let options = options(DuplicateKeyPolicy::PassThrough);
    let Node { value, duplicates } =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| said(&error))?;
    Ok(Yaml { value, duplicates })
}

/// What the original's strict parser says of duplicates.
pub(crate) fn strict(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: YAML_DEPTH_MAX,
            flow_nesting_limit: YAML_DEPTH_MAX,
            max_nodes: YAML_NODES_MAX,
            // Each node but a text has an end.
            max_events: 2 * YAML_NODES_MAX,
            max_recorded_anchor_events: 2 * YAML_NODES_MAX,
            max_aliases: YAML_ALIASES_MAX,
            max_anchors: YAML_ALIASES_MAX,
            max_merge_keys: YAML_ALIASES_MAX,
            enforce_alias_anchor_ratio: false,
            max_total_scalar_bytes: YAML_SCALAR_BYTES_MAX,
            max_recorded_anchor_bytes: YAML_SCALAR_BYTES_MAX,
        },
        duplicate_keys: duplicate_keys,
        emit_comments: false,
        // As for the original: `defaultMode: 0400` is 256.
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// The words for a text that cannot be read, without what surrounds the place.
fn said(error: &Error) -> String {
    let error = error.without_snippet();
    if is_by_aliases(error) {
        return "yaml: document contains excessive aliasing".to_owned();
    }
    let text = error.to_string().replace('\n', " ");
    let Some(place) = error.location() else { return format!("yaml: {text}") };
    let (line, column) = (place.line(), place.column());
    let text = text.strip_suffix(&format!(" at line {line}, column {column}")).unwrap_or(&text);
    let text = match error {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(),
        _ if text == "recursion limit exceeded" => too_deep(),
        Error::Budget {
            breach: BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. }, ..
        } => {
            format!("document has more than {YAML_NODES_MAX} values")
        }
        _ => text.to_owned(),
    };
    format!("yaml: line {line}: {text}")
}

fn too_deep() -> String {
    format!("exceeded max depth of {YAML_DEPTH_MAX}")
}

/// Whether it is aliases that make a document too much.
fn is_by_aliases(error: &Error) -> bool {
    match error {
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. } => true,
        Error::AliasError { error, .. } => matches!(**error, Error::Budget { .. }),
        Error::Budget { breach, .. } => matches!(
            breach,
            BudgetBreach::Aliases { .. }
                | BudgetBreach::RecordedAnchorEvents { .. }
                | BudgetBreach::RecordedAnchorBytes { .. }
        ),
        _ => false,
    }
}

/// A value that remembers which of its keys occurred twice.
#[derive(Default)]
struct Node {
    value: Value,
    duplicates: Vec<String>,
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, duplicates: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let (mut list, mut duplicates) = (Vec::new(), Vec::new());
        while let Some(item) = items.next_element::<Node>()? {
            list.push(item.value);
            duplicates.extend(item.duplicates);
        }
        duplicates.truncate(FINDINGS_MAX);
        Ok(Node { value: Value::Array(list), duplicates })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let (mut members, mut duplicates) = (Map::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let Spanned { value: node, referenced, .. } = map.next_value::<Spanned<Node>>()?;
            duplicates.extend(node.duplicates);
            let shown = shown(&key);
            if members.insert(key, node.value).is_some() && duplicates.len() < FINDINGS_MAX {
                duplicates
                    .push(format!("line {}: key {shown} already set in map", referenced.line()));
            }
        }
        duplicates.truncate(FINDINGS_MAX);
        Ok(Node { value: Value::Object(members), duplicates })
    }
}

/// A key as Go prints it with `%#v`: of a number or a truth, what was written.
fn shown(key: &str) -> String {
    match serde_json::from_str::<Value>(key) {
        Ok(Value::Bool(_) | Value::Number(_)) => key.to_owned(),
        _ => format!("{key:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::limits::BODY_BYTES_MAX;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        expect.assert_eq(&match read(text.as_bytes()) {
            Ok(Yaml { value, duplicates }) => {
                [value.to_string()].into_iter().chain(duplicates).collect::<Vec<_>>().join("\n")
            }
            Err(error) => error,
        });
    }

    #[test]
    fn numbers_that_begin_with_a_zero_are_octal() {
        check("[0400, -0400, 0o644, 0, '0400', 0.5]", expect![[r#"[256,-256,420,0,"0400",0.5]"#]]);
        check(
            "a: 0400\na: 010\n",
            expect![[r#"
            {"a":8}
            line 2: key "a" already set in map"#]],
        );
    }

    #[test]
    fn keys_that_occur_twice() {
        check(
            "a: 1\nb:\n  c: {d: 1, d: 2}\n  1: x\n  1: y\nl:\n- e: 1\n  f: 2\n  e:\n    g: 3\na: 2\n",
            expect![[r#"
                {"a":2,"b":{"1":true,"c":{"d":2}},"l":[{"e":{"g":3},"f":2}]}
                line 3: key "d" already set in map
                line 5: key 1 already set in map
                line 10: key "e" already set in map
                line 11: key "a" already set in map"#]],
        );
        check("{a: 1, b: *x}", expect!["yaml: line 1: alias references unknown anchor"]);
        let many: String = (0..300).map(|_| "a: 1\n").collect();
        assert_eq!(read(many.as_bytes()).unwrap().duplicates.len(), FINDINGS_MAX);
    }

    #[test]
    fn both_ways_of_reading_are_the_same() {
        for text in [
            "a: [1, -2, 0x10, 1.5, 1e3, true, no, ~, '', \"x\", 2024-01-02, 01, .inf]\n? b\n: c\n",
            "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n1: a\ntrue: b\n",
            "- |\n  text\n- >-\n  folded\n  text\n- !!str 1\n- 18446744073709551615\n",
        ] {
            let plain = read(text.as_bytes());
            let options = options(DuplicateKeyPolicy::PassThrough);
            let node: Result<Node, _> = serde_saphyr::from_str_with_options(text, options);
            match (plain, node) {
                (Ok(plain), Ok(node)) => assert_eq!(plain.value, node.value, "{text}"),
                (Err(_), Err(_)) => {}
                (plain, node) => panic!("{plain:?} but {}", node.is_ok()),
            }
        }
    }

    /// A refusal, and within what time: far more than it takes, far less than what is refused would.
    #[track_caller]
    fn refused(text: &str, expect: Expect) {
        let start = Instant::now();
        let error = read(text.as_bytes()).unwrap_err();
        let time = start.elapsed();
        assert!(time < Duration::from_secs(20), "took {time:?}");
        expect.assert_eq(&error);
    }

    #[test]
    fn bombs_are_refused() {
        // A billion laughs: each level is ten of the one below.
        let list = |of: &str| [of; 10].join(",");
        let mut laughs = format!("a0: &a0 [{}]\n", list("lol"));
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", list(&below));
        }
        let aliasing = || expect!["yaml: document contains excessive aliasing"];
        let too_deep = || expect!["yaml: line 1: exceeded max depth of 64"];
        refused(&laughs, aliasing());
        // A long text, a hundred times.
        let text = "x".repeat(BODY_BYTES_MAX / 20);
        refused(&format!("a: &a {text}\nb: [{}]\n", ["*a"; 100].join(",")), aliasing());
        refused(
            "a: &a [*a]\n",
            expect!["yaml: line 1: recursive references require weak recursion types"],
        );
        refused(&"[".repeat(BODY_BYTES_MAX), too_deep());
        refused(&"{a: ".repeat(BODY_BYTES_MAX / 4), too_deep());
        refused(&"- ".repeat(10_000), too_deep());
        let nested: String = (0..1_000).map(|it| format!("{}a:\n", " ".repeat(it))).collect();
        refused(&nested, expect!["yaml: line 65: exceeded max depth of 64"]);
        refused(
            &format!("{}: 1", "k".repeat(10_000)),
            expect!["yaml: line 1: mapping values are not allowed in this context"],
        );
        refused(
            &format!("[{}]", vec!["1"; YAML_NODES_MAX].join(",")),
            expect!["yaml: line 1: document has more than 250000 values"],
        );
    }

    #[test]
    fn what_is_large_but_no_bomb_is_read() {
        let long = format!("a: {}\n", "x".repeat(BODY_BYTES_MAX / 10));
        let read_again = read(long.as_bytes()).unwrap().value;
        assert_eq!(read_again["a"].as_str().unwrap().len(), BODY_BYTES_MAX / 10);
        let many = format!("[{}]", vec!["1"; 20_000].join(","));
        assert_eq!(read(many.as_bytes()).unwrap().value.as_array().unwrap().len(), 20_000);
        let deep = |inside: &str| {
            "[".repeat(YAML_DEPTH_MAX - 1) + inside + &"]".repeat(YAML_DEPTH_MAX - 1)
        };
        assert_eq!(read(deep("{}").as_bytes()).unwrap().value.to_string(), deep("{}"));
        assert_eq!(read(deep("{a: 1, a: 2}").as_bytes()).unwrap().duplicates.len(), 1);
        let shared = format!("a: &a {{b: c}}\nd: [{}]\n", vec!["*a"; 1_000].join(","));
        assert_eq!(read(shared.as_bytes()).unwrap().value["d"][999], json!({"b": "c"}));
    }
}
