//! The query of a request: parameters by name, and percent-decoding.

use std::{
    borrow::Cow,
    num::{IntErrorKind, ParseIntError},
};

use api::status::Status;

/// The parameters in the order of the request. Of a name that occurs twice the first counts.
#[derive(Debug, Default)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn parse(text: Option<&'a str>) -> Self {
        let pairs = text.unwrap_or_default().split('&').filter(|it| !it.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name, Plus::IsSpace), decode(value, Plus::IsSpace))
                })
                .collect(),
        )
    }

    /// Value of a parameter; `None` if absent or empty, which Kubernetes does not tell apart.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|it| !it.is_empty())
    }

    /// A parameter that is a boolean; absent is false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    /// A parameter that is a boolean. As in Kubernetes, everything means true, even the name alone,
    /// but for `false` and `0`.
    pub(crate) fn optional_flag(&self, name: &str) -> Option<bool> {
        self.first(name).map(|it| it != "0" && !it.eq_ignore_ascii_case("false"))
    }

    /// A parameter that is a number, or 400 in the words of Go, whose numbers they are.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let parse = |it: &str| {
            it.parse().map_err(|error: ParseIntError| {
                let problem = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                Status::bad_request(format!("strconv.ParseInt: parsing {it:?}: {problem}"))
            })
        };
        self.first(name).map(parse).transpose()
    }

    /// Value of a parameter, be it empty.
    fn first(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_ref())
    }
}

/// What `+` stands for: a space in queries, itself in paths.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    IsSpace,
    IsPlus,
}

/// Decodes `%41`; what is no such triple, or no UTF-8 afterwards, stays as it is.
pub(crate) fn decode(text: &str, plus: Plus) -> Cow<'_, str> {
    let special = |it: u8| it == b'%' || (it == b'+' && plus == Plus::IsSpace);
    if !text.bytes().any(special) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let hex = |it: &u8| char::from(*it).to_digit(16).and_then(|it| u8::try_from(it).ok());
        match (first, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                decoded.push(hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) if plus == Plus::IsSpace => decoded.push(b' '),
            _ => decoded.push(*first),
        }
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn decodes() {
        let query = Query::parse(Some("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch=1&x&y="));
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert!(query.flag("watch"));
        assert_eq!((query.get("x"), query.get("y"), query.get("z")), (None, None, None));
        assert_eq!(decode("a%zz%4", Plus::IsSpace), "a%zz%4");
        assert_eq!(decode("a+b", Plus::IsPlus), "a+b");
    }

    #[test]
    fn flags_and_numbers_are_read_as_in_go() {
        let query = Query::parse(Some("a&b=&c=FALSE&d=0&e=no&f=+7&g=x&h=99999999999999999999"));
        let flags = ["a", "b", "c", "d", "e", "z"].map(|it| query.optional_flag(it));
        assert_eq!(flags, [Some(true), Some(true), Some(false), Some(false), Some(true), None]);
        let check = |name: &str, expect: Expect| {
            expect.assert_eq(&match query.number(name) {
                Ok(number) => format!("{number:?}"),
                Err(status) => status.message().to_owned(),
            });
        };
        check("z", expect!["None"]);
        check("d", expect!["Some(0)"]);
        check("b", expect![[r#"strconv.ParseInt: parsing "": invalid syntax"#]]);
        check("f", expect![[r#"strconv.ParseInt: parsing " 7": invalid syntax"#]]);
        check("g", expect![[r#"strconv.ParseInt: parsing "x": invalid syntax"#]]);
        check(
            "h",
            expect![[r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#]],
        );
    }
}
