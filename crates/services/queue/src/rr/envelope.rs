//! [`Envelope`]: one line of JSON, a line feed, and the body as it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{message::Nanos, name::Name};

/// Whose programs are spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Keys `t`, `r`, `c` (a text, mostly of digits), `e` (expiry), `error`.
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
    /// By which the caller knows the reply: any text in svckit, a number above 0 in nsqm.
    pub correlation: Option<String>,
    /// Seconds since 1970 after which nobody waits any more; never, unless it is above 0.
    pub expires: Option<i64>,
    /// Of a reply: the server could not, and why.
    pub error: Option<String>,
    /// What is asked or answered, usually JSON.
    pub body: Bytes,
}

/// Why a message is not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The first line is not the JSON that is expected.
    #[error("the header is not as the dialect has it")]
    Header(#[source] serde_json::Error),
    /// The topic for the reply cannot be one.
    #[error("`{0}` is no name of a topic")]
    ReplyTo(String),
}

/// svckit's header; the order of keys is its own. A value that is zero is left out.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct SvckitHeader {
    #[serde(skip_serializing_if = "Option::is_none")]
    t: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// nsqm's header, in the same way.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct NsqmHeader {
    #[serde(skip_serializing_if = "Option::is_none")]
    m: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
}

fn text(it: &Option<String>) -> Option<String> {
    it.clone().filter(|it| !it.is_empty())
}

/// As Go writes it: what might mean something in HTML is escaped, and two ends of lines.
fn line(header: &impl Serialize) -> String {
    // Texts and numbers always have a JSON, and it has no line feed outside of an escape.
    let json = serde_json::to_string(header).unwrap_or_default();
    let mut line = String::with_capacity(json.len() + 1);
    for letter in json.chars() {
        match letter {
            '<' => line.push_str("\\u003c"),
            '>' => line.push_str("\\u003e"),
            '&' => line.push_str("\\u0026"),
            '\u{2028}' => line.push_str("\\u2028"),
            '\u{2029}' => line.push_str("\\u2029"),
            other => line.push(other),
        }
    }
    line.push('\n');
    line
}

/// The header; `null`, for it or for a value in it, is as good as nothing.
fn header<T: DeserializeOwned + Default>(line: &[u8]) -> Result<T, DecodeError> {
    let header: Option<T> = serde_json::from_slice(line).map_err(DecodeError::Header)?;
    Ok(header.unwrap_or_default())
}

impl Envelope {
    /// The envelope as a message. A correlation that the dialect cannot say (nsqm: 32 bits) is left
    /// out, as no caller of it can have asked with that.
    #[must_use]
    pub fn encode(&self, dialect: Dialect) -> Bytes {
        let r = self.reply_to.as_ref().map(ToString::to_string);
        let expires = self.expires.filter(|it| *it != 0);
        let line = match dialect {
            Dialect::Svckit => line(&SvckitHeader {
                t: text(&self.method),
                r,
                c: text(&self.correlation),
                e: expires,
                error: text(&self.error),
            }),
            Dialect::Nsqm => {
                let number = self.correlation.as_ref().and_then(|it| it.parse().ok());
                line(&NsqmHeader {
                    m: text(&self.method),
                    r,
                    c: number.filter(|it| *it != 0),
                    x: expires,
                    e: text(&self.error),
                })
            }
        };
        [line.as_bytes(), &self.body].concat().into()
    }

    /// Reads a message; only the first line feed separates, and without one there is no body. Keys
    /// that are not known are ignored.
    ///
    /// # Errors
    /// The message is none of the dialect's.
    pub fn decode(dialect: Dialect, message: &Bytes) -> Result<Self, DecodeError> {
        let end = message.iter().position(|it| *it == b'\n').unwrap_or(message.len());
        let line = message.slice(..end);
        let body = message.slice(message.len().min(end + 1)..);
        let number = |it: Option<i64>| it.filter(|it| *it != 0);
        Ok(match dialect {
            Dialect::Svckit => {
                let SvckitHeader { t, r, c, e, error } = header(&line)?;
                Self {
                    method: text(&t),
                    reply_to: reply_to(text(&r))?,
                    correlation: text(&c),
                    expires: number(e),
                    error: text(&error),
                    body,
                }
            }
            Dialect::Nsqm => {
                let NsqmHeader { m, r, c, x, e } = header(&line)?;
                Self {
                    method: text(&m),
                    reply_to: reply_to(text(&r))?,
                    correlation: c.filter(|it| *it != 0).map(|it| it.to_string()),
                    expires: number(x),
                    error: text(&e),
                    body,
                }
            }
        })
    }

    /// Whether nobody waits any more. In the last second of its life it is still alive.
    #[must_use]
    pub fn is_expired(&self, now: Nanos) -> bool {
        let second = now.0.div_euclid(1_000_000_000);
        self.expires.is_some_and(|it| 0 < it && it < second)
    }
}

fn reply_to(name: Option<String>) -> Result<Option<Name>, DecodeError> {
    let Some(name) = name else { return Ok(None) };
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
            correlation: Some("470217093".into()),
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
            correlation: Some("7".into()),
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

    /// What the programs wrote of the same, with Go 1.19: svckit at b43222b, nsqm at its last.
    #[test]
    fn bytes_are_those_of_the_programs() {
        for (text, written) in [
            ("Add", "Add"),
            ("a<b>&c", r"a\u003cb\u003e\u0026c"),
            (r#""q"\"#, r#"\"q\"\\"#),
            ("tab\t nl\n cr\r nul\u{1} del\u{7f}", "tab\\t nl\\n cr\\r nul\\u0001 del\u{7f}"),
            ("žć \u{2028}\u{2029} 😀", r"žć \u2028\u2029 😀"),
        ] {
            let svckit = Envelope {
                method: Some(text.into()),
                reply_to: Name::parse("z...rsp.app.node"),
                correlation: Some("007-ab|c".into()),
                expires: Some(1_515_589_846),
                error: Some(text.into()),
                body: "a\nb".into(),
            };
            let rest = r#""r":"z...rsp.app.node","c":"007-ab|c","e":1515589846"#;
            let expected = format!("{{\"t\":\"{written}\",{rest},\"error\":\"{written}\"}}\na\nb");
            assert_eq!(svckit.encode(Dialect::Svckit), expected);
            assert_eq!(Envelope::decode(Dialect::Svckit, &expected.into()).unwrap(), svckit);
            let nsqm = Envelope {
                reply_to: Name::parse("r"),
                correlation: Some("4294967295".into()),
                expires: Some(-1),
                ..svckit
            };
            let rest = r#""r":"r","c":4294967295,"x":-1"#;
            let expected = format!("{{\"m\":\"{written}\",{rest},\"e\":\"{written}\"}}\na\nb");
            assert_eq!(nsqm.encode(Dialect::Nsqm), expected);
            assert_eq!(Envelope::decode(Dialect::Nsqm, &expected.into()).unwrap(), nsqm);
        }
        for dialect in [Dialect::Svckit, Dialect::Nsqm] {
            assert_eq!(Envelope::default().encode(dialect), "{}\n");
        }
    }

    /// What they read too: no line feed, `null`, keys of others, spaces.
    #[test]
    fn what_the_programs_read_is_read() {
        for (message, body) in [
            ("{}", ""),
            ("{\"r\":null,\"c\":null,\"error\":null}\nx", "x"),
            ("null\nx", "x"),
            (" {\"u\":[1]} \r\ny", "y"),
        ] {
            let expected = Envelope { body: body.into(), ..Envelope::default() };
            for dialect in [Dialect::Svckit, Dialect::Nsqm] {
                let read = Envelope::decode(dialect, &Bytes::from(message)).unwrap();
                assert_eq!(read, expected, "{message}");
            }
        }
    }

    #[test]
    fn what_is_none_is_told() {
        let check = |dialect, message: &'static str, expected: Expect| {
            let error = Envelope::decode(dialect, &Bytes::from(message)).unwrap_err();
            expected.assert_eq(&error.to_string());
        };
        check(Dialect::Nsqm, "", expect!["the header is not as the dialect has it"]);
        check(Dialect::Nsqm, "x\n", expect!["the header is not as the dialect has it"]);
        check(Dialect::Nsqm, "{\"c\":\"1\"}\n", expect!["the header is not as the dialect has it"]);
        check(Dialect::Nsqm, "{\"r\":\"a b\"}\n", expect!["`a b` is no name of a topic"]);
        check(Dialect::Svckit, "{\"c\":1}\n", expect!["the header is not as the dialect has it"]);
    }

    #[test]
    fn the_last_second_counts() {
        let envelope = Envelope { expires: Some(10), ..Envelope::default() };
        assert!(!envelope.is_expired(Nanos(10_999_999_999)));
        assert!(envelope.is_expired(Nanos(11_000_000_000)));
        assert!(!Envelope::default().is_expired(Nanos(i64::MAX)));
        let never = Envelope { expires: Some(-3), ..Envelope::default() };
        assert!(!never.is_expired(Nanos(i64::MAX)));
    }

    fn envelopes() -> impl Strategy<Value = Envelope> {
        let text = || proptest::option::of("[^\\x00]{1,12}");
        let reply_to = proptest::option::of("[a-z.]{1,9}");
        let body = proptest::collection::vec(any::<u8>(), 0..30);
        (text(), reply_to, proptest::option::of(1..u32::MAX), any::<i64>(), text(), body).prop_map(
            |(method, reply_to, correlation, expires, error, body)| Envelope {
                method,
                reply_to: reply_to.map(|it| Name::parse(&it).unwrap()),
                correlation: correlation.map(|it| it.to_string()),
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
