//! Finds keys that a JSON text has twice in one object, which a parsed value no longer shows.

use std::{cell::RefCell, collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most findings reported about one text, as in the original.
const FINDINGS_MAX: usize = 100;

/// Keys that occur twice in one object of a JSON text: `duplicate field "spec.replicas"`.
/// Empty if `body` is not JSON.
#[must_use]
pub fn duplicates(body: &[u8]) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let walk = Walk { path: None, found: &found };
    match deserializer.deserialize_any(walk).and_then(|()| deserializer.end()) {
        Ok(()) => found.into_inner(),
        Err(_) => Vec::new(),
    }
}

/// Where in the text the walk is; the path is only written out for a finding.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => write!(f, "{key}"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

struct Walk<'a> {
    path: Option<&'a Path<'a>>,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = Path { parent: self.path, step: Step::Key(&key) };
            map.next_value_seed(Walk { path: Some(&path), found: self.found })?;
            if seen.contains(&key) {
                let text = format!("duplicate field {:?}", path.to_string());
                let mut found = self.found.borrow_mut();
                if found.len() < FINDINGS_MAX && !found.contains(&text) {
                    found.push(text);
                }
            } else {
                seen.insert(key);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = Path { parent: self.path, step: Step::Index(index) };
            let item = Walk { path: Some(&path), found: self.found };
            if items.next_element_seed(item)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_newtype_struct<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_ignored_any(IgnoredAny).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn check(body: &str, expected: Expect) {
        expected.assert_eq(&duplicates(body.as_bytes()).join("\n"));
    }

    #[test]
    fn names_the_second_key_once() {
        check(
            r#"{"a":1,"b":{"c":[{"d":1,"d":2,"d":3}]},"a":2}"#,
            expect![[r#"
            duplicate field "b.c[0].d"
            duplicate field "a""#]],
        );
        check(r#"{"a":{"b":1},"c":{"b":1}}"#, expect![""]);
        check("nonsense", expect![""]);
    }
}
