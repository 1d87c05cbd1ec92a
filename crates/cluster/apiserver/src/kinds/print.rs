//! Cells of tables: ages, lists, and columns that many kinds have.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, value::Read};
use crate::object::parts::Parts::{self, All, Of};

/// What a cell without a value shows.
pub(super) const NONE: &str = "<none>";

/// A text column that is always shown.
pub(super) const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

/// A text column that `-o wide` adds.
pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 1 }
}

/// A column of whole numbers.
pub(super) const fn number(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "integer", format: "", description, priority: 0 }
}

/// A column of flags.
pub(super) const fn flag(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "boolean", format: "", description, priority: 0 }
}

/// The column of names.
pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name of the object, unique among its kind in its namespace.",
    priority: 0,
};

/// The column of ages.
pub(super) const AGE: Column = column("Age", "Time since the object was created.");

/// What [`name`] and [`age`] read of an object's metadata, and who must know whether it is being
/// deleted.
pub(super) const METADATA: Parts =
    Of(&[("creationTimestamp", All), ("deletionTimestamp", All), ("name", All)]);

/// What a kind is printed with that has no columns of its own.
pub(super) const NAME_AND_CREATION: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        description: "When the object was created.",
        priority: 0,
    },
];

/// Cells of [`NAME_AND_CREATION`].
pub(super) fn name_and_creation(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), object.field("metadata").text("creationTimestamp").into()]
}

/// Cell of [`NAME`].
pub(super) fn name(object: &Value) -> Value {
    object.field("metadata").text("name").into()
}

/// Cell of [`NAME`] for kinds of which one object is taken where none is named.
pub(super) fn name_or_default(object: &Value, is_default: bool) -> Value {
    match object.field("metadata").text("name") {
        name if is_default => format!("{name} (default)").into(),
        name => name.into(),
    }
}

/// Cell of [`AGE`].
pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    since(object.field("metadata").text("creationTimestamp"), now).into()
}

/// How long ago a time stamp was, as kubectl shows it; `<unknown>` if it is none.
pub(super) fn since(timestamp: &str, now: Timestamp) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human_duration(now.duration_since(then).as_secs()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A duration in at most two units, coarser the longer it is.
pub(super) fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: (i64, &str), small: (i64, &str)| {
        let rest = seconds % big.0 / small.0;
        if rest == 0 {
            format!("{}{}", seconds / big.0, big.1)
        } else {
            format!("{}{}{rest}{}", seconds / big.0, big.1, small.1)
        }
    };
    match seconds {
        // Clocks of two machines may differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two((MINUTE, "m"), (1, "s")),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two((HOUR, "h"), (MINUTE, "m")),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two((DAY, "d"), (HOUR, "h")),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two((YEAR, "y"), (DAY, "d")),
        _ => format!("{}y", seconds / YEAR),
    }
}

/// Cell of a field that is a flag or absent.
pub(super) fn flag_or_unset(value: &Value) -> &'static str {
    match value.as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// The text, or `<unset>` if it is empty.
pub(super) fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// Texts joined by commas, `<none>` if there are none.
pub(super) fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.collect();
    if texts.is_empty() { NONE.to_owned() } else { texts.join(",") }
}

/// The text, or `<none>` if it is empty.
pub(super) fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

/// `a=b,c=d` of a map of texts, `<none>` if it is empty.
pub(super) fn labels(labels: &Value) -> String {
    let pairs = labels.as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    joined(pairs.iter().map(String::as_str))
}

/// A label selector as one line.
pub(super) fn selector(selector: &Value) -> String {
    let labels = selector.members("matchLabels");
    let mut terms: Vec<(&str, String)> = labels
        .map(|(key, value)| (key, format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    for expression in selector.items("matchExpressions") {
        let key = expression.text("key");
        let mut values: Vec<&str> =
            expression.items("values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let term = match expression.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        };
        terms.push((key, term));
    }
    terms.sort();
    joined(terms.iter().map(|(_, term)| term.as_str()))
}

/// Names and images of a pod template's containers.
pub(super) fn containers(spec: &Value) -> [String; 2] {
    let column = |name| spec.items("containers").iter().map(move |it| it.text(name));
    [column("name"), column("image")].map(|it| it.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_kubectls() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (700_000, "8d"),
            (63_072_000, "2y"),
            (64_000_000, "2y10d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn selectors_are_one_line() {
        let object = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]},
            {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&object), "a in (x,y),b=1,!c");
        assert_eq!(selector(&json!({})), "<none>");
    }
}
