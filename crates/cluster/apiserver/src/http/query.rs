//! The query of a request: parameters by name, and percent-decoding.

use std::borrow::Cow;

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
        let found = self.0.iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value.as_ref()).filter(|it| !it.is_empty())
    }

    /// A parameter that is a boolean, as Go reads one; absent is false.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Status> {
        Ok(self.optional_flag(name)?.unwrap_or(false))
    }

    pub(crate) fn optional_flag(&self, name: &str) -> Result<Option<bool>, Status> {
        match self.get(name) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(malformed(name, other, "a boolean")),
        }
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        let parse = |it: &str| it.parse().map_err(|_| malformed(name, it, "a number"));
        self.get(name).map(parse).transpose()
    }
}

fn malformed(name: &str, value: &str, wanted: &str) -> Status {
    Status::bad_request(format!("`{value}` of parameter `{name}` is not {wanted}"))
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
    use super::*;

    #[test]
    fn decodes() {
        let query = Query::parse(Some("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch=1&x&y="));
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert!(query.flag("watch").unwrap());
        assert_eq!((query.get("x"), query.get("y"), query.get("z")), (None, None, None));
        assert_eq!(decode("a%zz%4", Plus::IsSpace), "a%zz%4");
        assert_eq!(decode("a+b", Plus::IsPlus), "a+b");
        assert!(query.flag("labelSelector").is_err());
    }
}
