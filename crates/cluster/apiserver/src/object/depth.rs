//! How deep objects are nested.

use serde_json::Value;

/// Whether something in a value is nested deeper than `max`; a value alone has depth 1. Looks no
/// deeper than that.
pub(crate) fn exceeds(value: &Value, max: usize) -> bool {
    let Some(below) = max.checked_sub(1) else { return true };
    match value {
        Value::Array(values) => values.iter().any(|it| exceeds(it, below)),
        Value::Object(members) => members.values().any(|it| exceeds(it, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_what_is_inside() {
        assert!(exceeds(&json!(1), 0));
        assert!(!exceeds(&json!(1), 1));
        assert!(exceeds(&json!([{"a": 1}, 2]), 2));
        assert!(!exceeds(&json!([{"a": 1}, 2]), 3));
    }
}
