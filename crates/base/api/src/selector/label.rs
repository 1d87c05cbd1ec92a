//! Label selectors: `app=web,tier in (a,b),!canary`.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use super::ParseError;
use crate::names;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOperator {
    /// One of the values; also `=` and `==`.
    In,
    /// None of the values, or no such label; also `!=`.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer greater than the value.
    GreaterThan,
    /// The label is an integer less than the value.
    LessThan,
}

/// One condition of a [`LabelSelector`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// Label.
    pub key: String,
    /// Comparison.
    pub operator: LabelOperator,
    /// Sorted, each once. One for the two orders, none for the two existences.
    pub values: Vec<String>,
}

/// Conditions that must all hold. The default one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<LabelRequirement>);

impl LabelSelector {
    /// Reads kubectl's `--selector`; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        parser.skip_space();
        while !parser.rest.is_empty() {
            requirements.push(parser.requirement()?);
            parser.skip_space();
            if !parser.rest.is_empty() {
                parser.expect(",", "',' or 'end of string'")?;
                parser.skip_space();
                if parser.rest.is_empty() {
                    return Err(parser.found("identifier after ','"));
                }
            }
        }
        Ok(Self::new(requirements))
    }

    /// From the `selector` of an object. An empty object selects everything.
    pub fn from_object(selector: &v1::LabelSelector) -> Result<Self, ParseError> {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<_> =
            labels.map(|(key, value)| LabelRequirement::equal(key, value)).collect();
        for it in selector.match_expressions.iter().flatten() {
            let operator = match it.operator.as_str() {
                "In" => LabelOperator::In,
                "NotIn" => LabelOperator::NotIn,
                "Exists" => LabelOperator::Exists,
                "DoesNotExist" => LabelOperator::DoesNotExist,
                other => {
                    let message = format!("\"{other}\" is not a valid label selector operator");
                    return Err(ParseError(message));
                }
            };
            let values = it.values.clone().unwrap_or_default();
            requirements.push(LabelRequirement::new(&it.key, operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// Every one of these labels, as the `selector` of a Service has them.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        Self::new(labels.iter().map(|(k, v)| LabelRequirement::equal(k, v)).collect())
    }

    fn new(mut requirements: Vec<LabelRequirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self(requirements)
    }

    /// The conditions, by label.
    #[must_use]
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.0
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected whose labels are `value_of(key)`.
    pub fn matches_with<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|it| it.matches(value_of(&it.key)))
    }
}

impl LabelRequirement {
    fn equal(key: &str, value: &str) -> Self {
        let values = vec![value.to_owned()];
        Self { key: key.to_owned(), operator: LabelOperator::In, values }
    }

    fn new(
        key: &str,
        operator: LabelOperator,
        mut values: Vec<String>,
    ) -> Result<Self, ParseError> {
        let refuse = |why: &str| Err(ParseError(format!("values: Invalid value: {why}")));
        match operator {
            LabelOperator::In | LabelOperator::NotIn if values.is_empty() => {
                return refuse("[]: for 'in', 'notin' operators, values set can't be empty");
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist if !values.is_empty() => {
                return refuse("values set must be empty for exists and does not exist");
            }
            LabelOperator::GreaterThan | LabelOperator::LessThan
                if values.iter().any(|it| it.parse::<i64>().is_err()) =>
            {
                return refuse("for 'Gt', 'Lt' operators, the value must be an integer");
            }
            _ => {}
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether a label of this value, or its absence, is what is wanted.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|it| it == value);
        let ordered = |than: fn(&i64, &i64) -> bool| {
            let limit = self.values.first().and_then(|it| it.parse().ok());
            let value = value.and_then(|it| it.parse().ok());
            value.zip(limit).is_some_and(|(value, limit)| than(&value, &limit))
        };
        match self.operator {
            LabelOperator::In => value.is_some_and(listed),
            LabelOperator::NotIn => !value.is_some_and(listed),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
            LabelOperator::GreaterThan => ordered(i64::gt),
            LabelOperator::LessThan => ordered(i64::lt),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, it) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{it}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LabelRequirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        let (first, list) = (values.first().map_or("", String::as_str), values.join(","));
        match operator {
            LabelOperator::In if values.len() == 1 => write!(f, "{key}={first}"),
            LabelOperator::NotIn if values.len() == 1 => write!(f, "{key}!={first}"),
            LabelOperator::In => write!(f, "{key} in ({list})"),
            LabelOperator::NotIn => write!(f, "{key} notin ({list})"),
            LabelOperator::Exists => write!(f, "{key}"),
            LabelOperator::DoesNotExist => write!(f, "!{key}"),
            LabelOperator::GreaterThan => write!(f, "{key}>{first}"),
            LabelOperator::LessThan => write!(f, "{key}<{first}"),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str, wanted: &str) -> Result<(), ParseError> {
        if self.take(token) { Ok(()) } else { Err(self.found(wanted)) }
    }

    fn found(&self, wanted: &str) -> ParseError {
        let found: String =
            self.rest.chars().take_while(|it| !it.is_whitespace() && *it != ',').collect();
        let found = if found.is_empty() { self.rest.chars().take(1).collect() } else { found };
        ParseError(format!("unable to parse requirement: found '{found}', expected: {wanted}"))
    }

    /// A key, value or word operator: everything up to space or punctuation of the grammar.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let stop = |it: char| it.is_whitespace() || "=!(),<>".contains(it);
        let (word, rest) = self.rest.split_at(self.rest.find(stop).unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<LabelRequirement, ParseError> {
        let absent = self.take("!");
        let key = self.word();
        if key.is_empty() {
            return Err(self.found("!, identifier, or 'end of string'"));
        }
        let findings = names::qualified_name(key);
        if !findings.is_empty() {
            return Err(ParseError(format!(
                "unable to parse requirement: key: Invalid value: \"{key}\": {}",
                findings.join("; ")
            )));
        }
        if absent {
            return LabelRequirement::new(key, LabelOperator::DoesNotExist, Vec::new());
        }
        self.skip_space();
        let (operator, values) = self.comparison()?;
        for value in &values {
            check_value(key, value)?;
        }
        LabelRequirement::new(key, operator, values)
    }

    fn comparison(&mut self) -> Result<(LabelOperator, Vec<String>), ParseError> {
        let symbols = [
            ("==", LabelOperator::In),
            ("=", LabelOperator::In),
            ("!=", LabelOperator::NotIn),
            (">", LabelOperator::GreaterThan),
            ("<", LabelOperator::LessThan),
        ];
        for (symbol, operator) in symbols {
            if self.take(symbol) {
                return Ok((operator, vec![self.word().to_owned()]));
            }
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok((LabelOperator::Exists, Vec::new()));
        }
        let before = self.rest;
        let operator = match self.word() {
            "in" => LabelOperator::In,
            "notin" => LabelOperator::NotIn,
            _ => {
                self.rest = before;
                return Err(self.found("in, notin, =, ==, !=, gt, lt"));
            }
        };
        Ok((operator, self.set()?))
    }

    fn set(&mut self) -> Result<Vec<String>, ParseError> {
        self.skip_space();
        self.expect("(", "'('")?;
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_owned());
            self.skip_space();
            if self.take(")") {
                return Ok(values);
            }
            self.expect(",", "',' or ')'")?;
        }
    }
}

fn check_value(key: &str, value: &str) -> Result<(), ParseError> {
    let findings = names::label_value(value);
    if findings.is_empty() {
        return Ok(());
    }
    Err(ParseError(format!(
        "unable to parse requirement: values[0][{key}]: Invalid value: \"{value}\": {}",
        findings.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Expect) {
        match LabelSelector::parse(text) {
            Ok(selector) => expect.assert_eq(&selector.to_string()),
            Err(error) => expect.assert_eq(&format!("error: {error}")),
        }
    }

    #[test]
    fn parses_and_prints() {
        check("", expect![""]);
        check(" a = b , c ", expect!["a=b,c"]);
        check("x==1,a!=b,!y", expect!["a!=b,x=1,!y"]);
        check("x in (b, a,a),y notin (c)", expect!["x in (a,b),y!=c"]);
        check("app.kubernetes.io/name=web", expect!["app.kubernetes.io/name=web"]);
        check("x in (,a)", expect!["x in (,a)"]);
        check("n>5,m<3", expect!["m<3,n>5"]);
        check("a=", expect!["a="]);
    }

    #[test]
    fn refuses() {
        check(
            "a b",
            expect![
                "error: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
            ],
        );
        check(
            "a,",
            expect!["error: unable to parse requirement: found '', expected: identifier after ','"],
        );
        check(
            "=b",
            expect![
                "error: unable to parse requirement: found '=b', expected: !, identifier, or 'end of string'"
            ],
        );
        check("a in b", expect!["error: unable to parse requirement: found 'b', expected: '('"]);
        check(
            "n>x",
            expect![
                "error: values: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer"
            ],
        );
        assert!(LabelSelector::parse("-a=b").is_err());
        assert!(LabelSelector::parse("a=-b").is_err());
    }

    #[track_caller]
    fn check_match(text: &str, labels: &[(&str, &str)], expected: bool) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), expected, "{text}");
    }

    #[test]
    fn matches() {
        let labels = [("app", "web"), ("n", "7")];
        check_match("", &labels, true);
        check_match("app=web,n>6,n<8", &labels, true);
        check_match("n>7", &labels, false);
        check_match("app in (db,web)", &labels, true);
        check_match("app notin (db)", &labels, true);
        check_match("tier notin (db)", &labels, true);
        check_match("tier!=db,!tier,app", &labels, true);
        check_match("tier", &labels, false);
        check_match("app!=web", &labels, false);
    }

    #[test]
    fn from_the_object_of_a_workload() {
        let object = serde_json::json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["b", "a"]}],
        });
        let object: v1::LabelSelector = serde_json::from_value(object).unwrap();
        let selector = LabelSelector::from_object(&object).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (a,b)");
    }

    fn requirement() -> impl Strategy<Value = LabelRequirement> {
        use LabelOperator::{DoesNotExist, Exists, GreaterThan, In, LessThan, NotIn};
        let key = "([a-z]{1,3}\\.[a-z]{1,3}/)?[A-Za-z0-9]([-_.]?[a-z0-9]){0,3}";
        let words = prop::collection::vec("([a-z0-9]([-_.]?[a-z0-9]){0,3})?", 1..3);
        let compare = (prop_oneof![Just(In), Just(NotIn)], words);
        let exist = (prop_oneof![Just(Exists), Just(DoesNotExist)], Just(Vec::new()));
        let order = (prop_oneof![Just(GreaterThan), Just(LessThan)], "[0-9]{1,4}");
        let order = order.prop_map(|(operator, value)| (operator, vec![value]));
        (key, prop_oneof![compare, exist, order]).prop_map(|(key, (operator, values))| {
            LabelRequirement::new(&key, operator, values).unwrap()
        })
    }

    proptest! {
        #[test]
        fn printed_is_parsed_again(terms in prop::collection::vec(requirement(), 0..4)) {
            let selector = LabelSelector::new(terms);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn nothing_panics(text in ".{0,40}") {
            drop(LabelSelector::parse(&text));
        }

        #[test]
        fn not_in_is_the_opposite_of_in(value in prop::option::of("[a-c]"), set in prop::collection::vec("[a-c]", 1..3)) {
            let with = |operator| LabelRequirement::new("k", operator, set.clone()).unwrap();
            prop_assert_ne!(
                with(LabelOperator::In).matches(value.as_deref()),
                with(LabelOperator::NotIn).matches(value.as_deref())
            );
        }
    }
}
