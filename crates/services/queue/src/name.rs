//! Names of topics and channels: what is valid, and which are ephemeral.
//!
//! The rule is the original's (nsq.io, "Topic and Channel Names"): `.`, letters, digits, `_` and
//! `-`, then perhaps `#ephemeral`; 1 to 64 characters in all.

use std::{fmt, sync::Arc};

/// The longest name, with its suffix. The original's limit; clients check it too.
pub const NAME_MAX: usize = 64;

/// Ends the name of a topic or channel that is kept in memory only and goes with its last client.
pub const EPHEMERAL: &str = "#ephemeral";

/// A valid name of a topic or of a channel. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Takes a name as a client wrote it; `None` if it is not valid.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_suffix(EPHEMERAL).unwrap_or(text);
        let allowed = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
        let valid = !stem.is_empty() && text.len() <= NAME_MAX && stem.bytes().all(allowed);
        valid.then(|| Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is kept in memory only.
    #[must_use]
    pub fn is_ephemeral(&self) -> bool {
        self.0.ends_with(EPHEMERAL)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rule_of_the_original() {
        for good in ["a", "sensor_data", "z...rsp-x", "a#ephemeral", &"x".repeat(64)] {
            assert!(Name::parse(good).is_some(), "{good}");
        }
        let long = format!("{}#ephemeral", "x".repeat(55));
        for bad in ["", "#ephemeral", "a b", "a#", "a#eph", "ä", "a/b", &"x".repeat(65), &long] {
            assert!(Name::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn knows_the_ephemeral() {
        assert!(Name::parse("a#ephemeral").unwrap().is_ephemeral());
        assert!(!Name::parse("ephemeral").unwrap().is_ephemeral());
    }
}
