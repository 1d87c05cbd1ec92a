//! Bytes as JSON has them: base64 as Go's decoder takes it, which is more than its encoder writes.

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_STANDARD,
};

/// Takes bits behind the last byte, as Go does.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The bytes of a text; line breaks in it mean nothing.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    if text.bytes().any(is_break) {
        return LENIENT.decode(text.bytes().filter(|it| !is_break(*it)).collect::<Vec<u8>>());
    }
    LENIENT.decode(text)
}

const fn is_break(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// The text that an encoder writes for the same bytes; `None` if it is that already, or no base64.
pub(super) fn canonical(text: &str) -> Option<String> {
    let encoded = BASE64_STANDARD.encode(decode(text).ok()?);
    (encoded != text).then_some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_is_written_as_go_writes_it() {
        assert_eq!(canonical("aGVs\r\nbG8=\n"), Some("aGVsbG8=".to_owned()));
        assert_eq!(canonical("QR=="), Some("QQ==".to_owned()));
        for text in ["", "aGVsbG8=", "QQ", "?"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
