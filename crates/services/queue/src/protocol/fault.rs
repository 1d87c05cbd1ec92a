//! What a client is told when its command cannot be done: the original's codes and texts.

use std::fmt::Write as _;

/// Why a command was refused, as the client reads it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// `E_…` and a sentence; what the client sent is quoted in it byte for byte.
    pub(super) text: Vec<u8>,
    /// Whether the connection ends with it.
    pub(super) fatal: bool,
}

impl Fault {
    /// One after which nothing the client sends can be trusted.
    #[must_use]
    pub(super) fn fatal(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), fatal: true }
    }

    /// One that concerns a single message only.
    #[must_use]
    pub(super) fn passing(text: impl Into<Vec<u8>>) -> Self {
        Self { text: text.into(), fatal: false }
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (fatal: {})", String::from_utf8_lossy(&self.text), self.fatal)
    }
}

/// What a client sent, in quotes, as Go's `%q` writes it.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            quote(letter, &mut text);
        }
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").unwrap_or_default();
        }
    }
    text.push('"');
    text
}

fn quote(letter: char, text: &mut String) {
    let number = u32::from(letter);
    let printable = letter == ' ' || letter == '\'' || letter.escape_debug().len() == 1;
    match letter {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        _ if printable => text.push(letter),
        '\0'..' ' | '\x7f' => write!(text, "\\x{number:02x}").unwrap_or_default(),
        '\u{80}'..'\u{10000}' => write!(text, "\\u{number:04x}").unwrap_or_default(),
        _ => write!(text, "\\U{number:08x}").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (bytes, expected) in [
            (&b"a b'c"[..], r#""a b'c""#),
            (b"\"\\\n\r\t\0\x7f", r#""\"\\\n\r\t\x00\x7f""#),
            ("ä\u{85}\u{200b}".as_bytes(), "\"ä\\u0085\\u200b\""),
            (b"\xff\xc3", r#""\xff\xc3""#),
        ] {
            assert_eq!(quoted(bytes), expected);
        }
    }
}
