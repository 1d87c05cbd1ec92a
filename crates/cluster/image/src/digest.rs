//! Digests: what content is named by. Only SHA-256, which is all that registries use.

use std::{fmt, io, str::FromStr};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};

/// What precedes the hexadecimal digits.
const ALGORITHM: &str = "sha256";

/// The SHA-256 of some content. Ordered and compared by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; SHA256_OUTPUT_LEN]);

/// Why a text is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no `ALGORITHM:HEX`.
    #[error("digest `{0}` is not of the form sha256:HEX")]
    Form(String),
    /// The algorithm is another one.
    #[error("digest algorithm `{0}` is not supported: only sha256 is")]
    Algorithm(String),
    /// Not 64 lower-case hexadecimal digits.
    #[error("digest `sha256:{0}` has not {len} lower-case hexadecimal digits", len = SHA256_OUTPUT_LEN * 2)]
    Hex(String),
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 64 hexadecimal digits, without the algorithm: a file's name in the store.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in self.0 {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }

    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`Error::Hex`] for anything else; upper case is refused, as by distribution's grammar.
    pub fn from_hex(hex: &str) -> Result<Self, Error> {
        let refused = || Error::Hex(hex.to_owned());
        let digit = |it: u8| match it {
            b'0'..=b'9' => Ok(it - b'0'),
            b'a'..=b'f' => Ok(it - b'a' + 10),
            _ => Err(refused()),
        };
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
        if !rest.is_empty() || pairs.len() != bytes.len() {
            return Err(refused());
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some((ALGORITHM, hex)) => Self::from_hex(hex),
            Some((other, hex)) if !other.is_empty() && !hex.is_empty() => {
                Err(Error::Algorithm(other.to_owned()))
            }
            _ => Err(Error::Form(text.to_owned())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Makes a digest of bytes that come piece by piece.
#[derive(Clone)]
pub struct Hasher(Context);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        let digest = self.0.finish();
        let mut bytes = [0; SHA256_OUTPUT_LEN];
        bytes.copy_from_slice(digest.as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Passes on what it reads, and knows its digest and length.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: io::Read> HashingReader<R> {
    /// Around a reader of which nothing was read.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default(), size: 0 }
    }

    /// The digest and the number of bytes read so far.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.size)
    }
}

impl<R: io::Read> io::Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_digest_there_and_back() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(Digest::of(b"")));
    }

    #[test]
    fn other_texts_are_refused_by_name() {
        let refused = |text: &str| text.parse::<Digest>().unwrap_err().to_string();
        assert_eq!(
            refused("sha512:ab"),
            "digest algorithm `sha512` is not supported: only sha256 is"
        );
        assert!(refused("nothing").contains("sha256:HEX"));
        assert!(refused(&EMPTY.to_uppercase()).contains("SHA256"));
        assert!(refused(&EMPTY.replace("e3", "E3")).contains("lower-case"));
        assert!(refused("sha256:ab").contains("64"));
    }
}
