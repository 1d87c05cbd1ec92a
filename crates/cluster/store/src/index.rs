//! The live entries, in memory and in order. What is here is acknowledged.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use crate::{Entry, Event, EventKind, Range};

/// All entries by key.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<Bytes, Entry>,
    bytes: usize,
}

impl Index {
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All of these entries: much faster than one by one, above all if they are in order.
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let entries: BTreeMap<_, _> = entries.into_iter().map(|it| (it.key.clone(), it)).collect();
        let bytes = entries.values().map(Entry::len).sum();
        Self { entries, bytes }
    }

    /// Bytes of all keys and values.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next `count` entries after a key, or the first ones.
    pub(crate) fn piece(&self, after: Option<&[u8]>, count: usize) -> Vec<Entry> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        found.map(|(_, entry)| entry.clone()).take(count).collect()
    }

    /// Puts an entry in; returns the one it replaces.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<Entry> {
        self.bytes += entry.len();
        let replaced = self.entries.insert(entry.key.clone(), entry);
        self.bytes -= replaced.as_ref().map_or(0, Entry::len);
        replaced
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let removed = self.entries.remove(key);
        self.bytes -= removed.as_ref().map_or(0, Entry::len);
        removed
    }

    pub(crate) fn apply(&mut self, event: &Event) {
        match event.kind {
            EventKind::Put => drop(self.insert(event.entry.clone())),
            EventKind::Delete => drop(self.remove(&event.entry.key)),
        }
    }

    /// The entries of a range, and how many more there are behind its limit.
    pub(crate) fn range(&self, range: &Range<'_>) -> (Vec<Entry>, usize) {
        let start = match range.after {
            Some(after) if after >= range.prefix => Bound::Excluded(after),
            _ => Bound::Included(range.prefix),
        };
        let mut found = self
            .entries
            .range::<[u8], _>((start, Bound::Unbounded))
            .map(|(_, entry)| entry)
            .take_while(|it| it.key.starts_with(range.prefix));
        let limit = range.limit.unwrap_or(usize::MAX);
        let entries = found.by_ref().take(limit).cloned().collect();
        (entries, found.count())
    }
}
