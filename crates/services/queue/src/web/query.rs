//! The part of an address after `?`, as strict as the original: what is not well formed is refused
//! rather than guessed.

/// The parameters of a request, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

/// The query cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("query is malformed")]
pub(crate) struct Malformed;

impl Query {
    /// Reads `text`, which does not begin with `?`.
    ///
    /// # Errors
    /// If an escape is not one, or what it stands for is not UTF-8, or there is a `;`.
    pub(crate) fn parse(text: &str) -> Result<Self, Malformed> {
        let parts = text.split('&').filter(|it| !it.is_empty());
        let pairs = parts.map(|part| {
            if part.contains(';') {
                return Err(Malformed);
            }
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Ok((unescape(key, Space::Plus)?, unescape(value, Space::Plus)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of `key`, which may be empty; `None` if it is not there.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == key).map(|(_, value)| value.as_str())
    }
}

/// How a space is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    /// As `+`, or escaped.
    Plus,
    /// Escaped; `+` is itself.
    Escaped,
}

/// One segment of a path, as it was before it was escaped.
///
/// # Errors
/// As [`Query::parse`].
pub(crate) fn decode(segment: &str) -> Result<String, Malformed> {
    unescape(segment, Space::Escaped)
}

/// `text` such that it can stand in a query or be a segment of a path.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn unescape(text: &str, space: Space) -> Result<String, Malformed> {
    let digit = |it: Option<u8>| it.and_then(|it| char::from(it).to_digit(16)).ok_or(Malformed);
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let value = digit(bytes.next())? << 4 | digit(bytes.next())?;
                u8::try_from(value).map_err(|_| Malformed)?
            }
            b'+' if space == Space::Plus => b' ',
            other => other,
        });
    }
    String::from_utf8(plain).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_value_counts_and_may_be_empty() {
        let query = Query::parse("topic=a%23b&topic=c&binary&&x=1+2").unwrap();
        assert_eq!(query.get("topic"), Some("a#b"));
        assert_eq!(query.get("binary"), Some(""));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.get("y"), None);
        assert_eq!(Query::parse("").unwrap(), Query::default());
    }

    #[test]
    fn refuses_what_is_malformed() {
        for bad in ["a=%", "a=%2", "a=%zz", "%=a", "a=1;b=2", "a=%ff"] {
            assert_eq!(Query::parse(bad), Err(Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, key: String) {
            if let Ok(query) = Query::parse(&text) {
                prop_assert!(query.get(&key).is_none_or(|it| it.len() <= text.len()));
            }
            prop_assert!(decode(&text).is_ok_and(|it| it.len() <= text.len()) || text.contains('%'));
        }

        #[test]
        fn what_is_encoded_comes_back(text: String) {
            prop_assert_eq!(&decode(&encode(&text)).unwrap(), &text);
            let query = Query::parse(&format!("key={}", encode(&text))).unwrap();
            prop_assert_eq!(query.get("key"), Some(text.as_str()));
        }
    }
}
