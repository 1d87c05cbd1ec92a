//! How far a transfer is, told to whoever shows it.

use std::fmt;

/// What happens to a part of an image: a layer, a configuration, a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is known what an image is made of: its layers are looked for, and those that are not here are
    /// transferred.
    Layers {
        /// Digest and bytes of each.
        parts: Vec<(String, u64)>,
    },
    /// The part is here already.
    Present {
        /// Its digest, or its path in an archive.
        part: String,
    },
    /// So much of it has been transferred, counting what was there from an earlier try.
    Advanced {
        /// Its digest, or its path in an archive.
        part: String,
        /// Bytes until now.
        done: u64,
        /// Bytes in all, where that is known.
        total: Option<u64>,
    },
    /// The part is here, verified.
    Finished {
        /// Its digest, or its path in an archive.
        part: String,
    },
    /// The connection broke or was refused, and is tried again.
    Retried {
        /// Its digest.
        part: String,
        /// Why.
        reason: String,
    },
}

/// Takes events. Called often, from any thread: be quick.
pub type Progress<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// A number of bytes for people, in units of a thousand, as Docker has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
        let mut whole = u128::from(self.0) * 10;
        let mut shown = format!("{} B", self.0);
        for unit in UNITS {
            if whole < 10_000 {
                break;
            }
            whole = (whole + 500) / 1000;
            shown = format!("{}.{} {unit}", whole / 10, whole % 10);
        }
        f.write_str(&shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let shown = [0, 999, 1000, 1_234_567, 99_950_000, 1 << 40].map(|it| Bytes(it).to_string());
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "1.2 MB", "100.0 MB", "1.1 TB"]);
    }
}
