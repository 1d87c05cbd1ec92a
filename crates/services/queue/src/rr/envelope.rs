//! [`Envelope`]: one line of JSON, a line feed, and the body as it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{message::Nanos, name::Name};

/// Whose programs are spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Keys `t`, `r`, `c` (a text of digits), `e` (expiry), `error`.
    Svckit,
    /// Keys `m`, `r`, `c` (a number of 32 bits), `x` (expiry), `e` (error).
    Nsqm,
}

/// A request or a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// What is asked for. In svckit replies have one too, in nsqm they have none.
    pub method: Option<String>,
    /// Where the reply is awaited; without it there is none.
    pub reply_to: Option<Name>,
    /// By which the caller knows the reply. 0 on the wire is none.
    pub correlation: Option<u64>,
    /// Seconds since 1970 after which nobody waits any more.
    pub expires: Option<i64>,
    /// Of a reply: the server could not, and why.
    pub error: Option<String>,
    /// What is asked or answered, usually JSON.
    pub body: Bytes,
}

/// Why a message is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is no line feed, so no header.
    #[error("the message has no header line")]
    NoHeader,
    /// The first line is not the JSON that is expected.
    #[error("the header is not as the dialect has it")]
    Header(#[source] serde_json::Error),
    /// The topic for the reply cannot be one.
    #[error("`{0}` is no name of a topic")]
    ReplyTo(String),
    /// The number of the reply is none.
    #[error("correlation `{0}` is no number")]
    Correlation(String),
}

/// svckit's header; the order of keys is its own. A value that is zero is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SvckitHeader {
    #[serde(skip_serializing_if = "String::is_empty")]
    t: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    r: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    c: String,
    #[serde(skip_serializing_if = "is_zero")]
    e: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

/// nsqm's header, in the same way.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct NsqmHeader {
    #[serde(skip_serializing_if = "String::is_empty")]
    m: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    r: String,
    #[serde(skip_serializing_if = "is_none")]
    c: u32,
    #[serde(skip_serializing_if = "is_zero")]
    x: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    e: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it a reference")]
const fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Envelope {
    /// The envelope as a message. A correlation too great for the dialect (nsqm: 32 bits) is left
    /// out, as no caller of it can have asked with that.
    #[must_use]
    pub fn encode(&self, dialect: Dialect) -> Bytes {
        let text = |it: &Option<String>| it.clone().unwrap_or_default();
        let r = self.reply_to.as_ref().map(ToString::to_string).unwrap_or_default();
        let expires = self.expires.unwrap_or(0);
        let header = match dialect {
            Dialect::Svckit => serde_json::to_vec(&SvckitHeader {
                t: text(&self.method),
                r,
                c: self.correlation.as_ref().map(ToString::to_string).unwrap_or_default(),
                e: expires,
                error: text(&self.error),
            }),
            Dialect::Nsqm => serde_json::to_vec(&NsqmHeader {
                m: text(&self.method),
                r,
                c: self.correlation.and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
                x: expires,
                e: text(&self.error),
            }),
        };
        // Texts and numbers always have a JSON, and it has no line feed outside of an escape.
        let mut message = header.unwrap_or_default();
        message.push(b'\n');
        message.extend_from_slice(&self.body);
        message.into()
    }

    /// Reads a message; only the first line feed separates. Keys that are not known are ignored.
    ///
    /// # Errors
    /// The message is none of the dialect's.
    pub fn decode(dialect: Dialect, message: &Bytes) -> Result<Self, DecodeError> {
        let end = message.iter().position(|it| *it == b'\n').ok_or(DecodeError::NoHeader)?;
        let (header, body) = (message.slice(..end), message.slice(end + 1..));
        let text = |it: String| Some(it).filter(|it| !it.is_empty());
        let number = |it: i64| Some(it).filter(|it| *it != 0);
        Ok(match dialect {
            Dialect::Svckit => {
                let SvckitHeader { t, r, c, e, error } =
                    serde_json::from_slice(&header).map_err(DecodeError::Header)?;
                let correlation = match c.as_str() {
                    "" => None,
                    digits => match digits.parse() {
                        Ok(it) => Some(it).filter(|it| *it != 0),
                        Err(_) => return Err(DecodeError::Correlation(c)),
                    },
                };
                Self {
                    method: text(t),
                    reply_to: reply_to(r)?,
                    correlation,
                    expires: number(e),
                    error: text(error),
                    body,
                }
            }
            Dialect::Nsqm => {
                let NsqmHeader { m, r, c, x, e } =
                    serde_json::from_slice(&header).map_err(DecodeError::Header)?;
                Self {
                    method: text(m),
                    reply_to: reply_to(r)?,
                    correlation: Some(u64::from(c)).filter(|it| *it != 0),
                    expires: number(x),
                    error: text(e),
                    body,
                }
            }
        })
    }

    /// Whether nobody waits any more. In the last second of its life it is still alive.
    #[must_use]
    pub fn is_expired(&self, now: Nanos) -> bool {
        self.expires.is_some_and(|it| now.0.div_euclid(1_000_000_000) > it)
    }
}

fn reply_to(name: String) -> Result<Option<Name>, DecodeError> {
    if name.is_empty() {
        return Ok(None);
    }
    Name::parse(&name).map(Some).ok_or(DecodeError::ReplyTo(name))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn check(dialect: Dialect, envelope: &Envelope, expected: &Expect) {
        let message = envelope.encode(dialect);
        expected.assert_eq(&String::from_utf8_lossy(&message));
        assert_eq!(&Envelope::decode(dialect, &message).unwrap(), envelope);
    }

    /// RR-1, and the example of nsqm's README.
    #[test]
    fn headers_are_those_of_the_programs() {
        let request = Envelope {
            method: Some("Add".into()),
            reply_to: Name::parse("response"),
            correlation: Some(470_217_093),
            expires: Some(1_515_589_846),
            error: None,
            body: r#"{"X":2,"Y":3}"#.into(),
        };
        let nsqm = expect![[r#"
            {"m":"Add","r":"response","c":470217093,"x":1515589846}
            {"X":2,"Y":3}"#]];
        check(Dialect::Nsqm, &request, &nsqm);
        let svckit = expect![[r#"
            {"t":"Add","r":"response","c":"470217093","e":1515589846}
            {"X":2,"Y":3}"#]];
        check(Dialect::Svckit, &request, &svckit);
        let reply = Envelope {
            correlation: Some(7),
            error: Some("overflow".into()),
            body: "a\nb\n\nc".into(),
            ..Envelope::default()
        };
        check(Dialect::Nsqm, &reply, &expect![["{\"c\":7,\"e\":\"overflow\"}\na\nb\n\nc"]]);
        check(
            Dialect::Svckit,
            &reply,
            &expect![["{\"c\":\"7\",\"error\":\"overflow\"}\na\nb\n\nc"]],
        );
    }

    #[test]
    fn what_is_none_is_told() {
        let check = |dialect, message: &'static str, expected: Expect| {
            let error = Envelope::decode(dialect, &Bytes::from(message)).unwrap_err();
            expected.assert_eq(&error.to_string());
        };
        check(Dialect::Nsqm, "{}", expect!["the message has no header line"]);
        check(Dialect::Nsqm, "x\n", expect!["the header is not as the dialect has it"]);
        check(Dialect::Nsqm, "{\"c\":\"1\"}\n", expect!["the header is not as the dialect has it"]);
        check(Dialect::Nsqm, "{\"r\":\"a b\"}\n", expect!["`a b` is no name of a topic"]);
        check(Dialect::Svckit, "{\"c\":\"x\"}\n", expect!["correlation `x` is no number"]);
    }

    #[test]
    fn the_last_second_counts() {
        let envelope = Envelope { expires: Some(10), ..Envelope::default() };
        assert!(!envelope.is_expired(Nanos(10_999_999_999)));
        assert!(envelope.is_expired(Nanos(11_000_000_000)));
        assert!(!Envelope::default().is_expired(Nanos(i64::MAX)));
    }

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let text = || proptest::option::of("[^\\x00]{1,12}");
        let reply_to = proptest::option::of("[a-z.]{1,9}");
        let body = proptest::collection::vec(any::<u8>(), 0..30);
        (text(), reply_to, proptest::option::of(1..u32::MAX), any::<i64>(), text(), body).prop_map(
            |(method, reply_to, correlation, expires, error, body)| Envelope {
                method,
                reply_to: reply_to.map(|it| Name::parse(&it).unwrap()),
                correlation: correlation.map(u64::from),
                expires: Some(expires).filter(|it| *it != 0),
                error,
                body: body.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn envelopes_come_back(envelope in envelopes(), svckit in any::<bool>()) {
            let dialect = if svckit { Dialect::Svckit } else { Dialect::Nsqm };
            let back = Envelope::decode(dialect, &envelope.encode(dialect)).unwrap();
            prop_assert_eq!(back, envelope);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            for dialect in [Dialect::Svckit, Dialect::Nsqm] {
                if let Ok(envelope) = Envelope::decode(dialect, &bytes) {
                    let again = Envelope::decode(dialect, &envelope.encode(dialect)).unwrap();
                    prop_assert_eq!(again, envelope);
                }
            }
        }
    }
}
