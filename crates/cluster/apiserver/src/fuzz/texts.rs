//! What stands in the address and in the head of a request, and bodies before anybody knows what they
//! are.

use api::selector::{FieldSelector, LabelSelector};
use http::{HeaderMap, HeaderValue, header::ACCEPT};
use proptest::prelude::*;

use super::{corpus, hold};
use crate::{
    http::{content, path::Route, query::Query},
    kinds::KINDS,
    object::yaml,
    registry::filter::Filter,
    schema,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn label_selectors() {
    hold("labels", |input| {
        let text = text(input);
        if let Ok(selector) = LabelSelector::parse(text.trim_end_matches('\n')) {
            let printed = selector.to_string();
            let again = LabelSelector::parse(&printed);
            prop_assert_eq!(again.map_err(|it| it.to_string()), Ok(selector), "{}", printed);
        }
        Ok(())
    });
}

#[test]
fn field_selectors() {
    hold("fields", |input| {
        let text = text(input);
        if let Ok(selector) = FieldSelector::parse(text.trim_end_matches('\n')) {
            let printed = selector.to_string();
            let again = FieldSelector::parse(&printed);
            prop_assert_eq!(again.map_err(|it| it.to_string()), Ok(selector), "{}", printed);
        }
        Ok(())
    });
}

#[test]
fn addresses_and_heads() {
    hold("requests", |input| {
        let text = text(input);
        let (path, query) = text.split_once('?').unwrap_or((&text, ""));
        let route = format!("{:?}", Route::parse(path));
        prop_assert!(route.len() < 20 * (text.len() + 50), "{}", route);
        let query = Query::parse(Some(query));
        for kind in KINDS.iter().take(5) {
            drop(Filter::of(kind, &query, ""));
        }
        drop(query.number("limit"));
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(input) {
            headers.insert(ACCEPT, value);
        }
        drop(content::negotiate(&headers, true));
        drop(content::negotiate_discovery(&headers));
        drop(content::negotiate_encoding(&headers));
        Ok(())
    });
}

#[test]
fn yaml_bodies() {
    hold("yaml", |input| {
        if let Ok(read) = yaml::read(input) {
            // What was read can be kept: it is text that the JSON parser reads again.
            let text = read.value.to_string();
            let again: serde_json::Value =
                serde_json::from_str(&text).map_err(|it| TestCaseError::fail(it.to_string()))?;
            prop_assert_eq!(again.to_string(), text);
        }
        Ok(())
    });
}

#[test]
fn json_bodies() {
    hold("yaml", |input| {
        if serde_json::from_slice::<serde_json::Value>(input).is_err() {
            prop_assert!(schema::duplicates(input).is_empty());
        }
        Ok(())
    });
    assert!(corpus("yaml").iter().any(|it| it.0.ends_with(".json")));
}
