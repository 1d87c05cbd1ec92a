//! The words of the store: revisions, entries, events, preconditions, ranges.
//!
//! Plain data; nothing here reads or writes.

use std::fmt;

use bytes::Bytes;

/// A point in the store's history. Each write has one of its own, greater than all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The one before it; zero stays zero.
    pub(crate) const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A key and what stands under it. Cloning copies two reference counts, not the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key; keys are ordered bytewise.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The write since which the key has existed without interruption.
    pub created: Revision,
    /// The last write of this key; of the entry in a deletion event, the deletion.
    pub modified: Revision,
}

impl Entry {
    /// Bytes of key and value together.
    pub(crate) fn len(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key was created (then [`Event::previous`] is none) or its value replaced.
    Put,
    /// The key is gone.
    Delete,
}

/// One write, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// After a put, the entry as it now stands; after a delete, what the deleter left to be shown.
    pub entry: Entry,
    /// The entry as it stood before.
    pub previous: Option<Entry>,
}

impl Event {
    /// The revision of the write.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.entry.modified
    }

    /// The entry that stands after this event, if any.
    pub(crate) fn standing(&self) -> Option<&Entry> {
        match self.kind {
            EventKind::Put => Some(&self.entry),
            EventKind::Delete => None,
        }
    }

    /// Bytes it keeps alive.
    pub(crate) fn len(&self) -> usize {
        self.entry.len() + self.previous.as_ref().map_or(0, |it| it.value.len())
    }
}

/// What must be true of a key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// The key is not there.
    Absent,
    /// The key is there and was last written at this revision.
    Modified(Revision),
}

impl Expect {
    /// Whether the key's entry is as expected.
    pub(crate) fn holds(self, current: Option<&Entry>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Modified(revision) => current.is_some_and(|it| it.modified == revision),
        }
    }
}

/// Which entries to read, in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a [u8],
    /// Only keys greater than this one: the last key of the page before.
    pub after: Option<&'a [u8]>,
    /// At most so many.
    pub limit: Option<usize>,
}

impl<'a> Range<'a> {
    /// Everything under `prefix`.
    #[must_use]
    pub const fn prefix(prefix: &'a [u8]) -> Self {
        Self { prefix, after: None, limit: None }
    }
}

/// The answer to a [`Range`]: one consistent moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The moment. A watch after this revision misses nothing and repeats nothing.
    pub revision: Revision,
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
    /// How many more there are after the last of `entries`.
    pub remaining: usize,
}
