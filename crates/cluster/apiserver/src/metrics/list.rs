//! A map of few keys that only grows, read and written without a lock and without hashing.

use std::{iter, sync::OnceLock};

/// Keys in the order in which they came, each found by walking past those before it. A key is
/// allocated when it comes for the first time; finding it again takes a few nanoseconds as long as
/// there are few, which is for the user of the list to see to.
#[derive(Debug)]
pub(super) struct List<K, V>(OnceLock<Box<Link<K, V>>>);

#[derive(Debug)]
struct Link<K, V> {
    key: K,
    value: V,
    rest: List<K, V>,
}

impl<K, V> Default for List<K, V> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<K: Copy + PartialEq, V: Default> List<K, V> {
    /// The value of a key, which is made if the key is new.
    pub(super) fn get(&self, key: K) -> &V {
        let mut list = self;
        loop {
            // When two come with new keys at once, the second walks on past the first.
            let link = list
                .0
                .get_or_init(|| Box::new(Link { key, value: V::default(), rest: Self::default() }));
            if link.key == key {
                return &link.value;
            }
            list = &link.rest;
        }
    }

    /// What is there so far.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let links = iter::successors(self.0.get(), |it| it.rest.0.get());
        links.map(|it| (it.key, &it.value))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        thread,
    };

    use super::*;

    #[test]
    fn nothing_is_lost_or_doubled_by_threads() {
        let list = List::<u64, AtomicU64>::default();
        thread::scope(|scope| {
            for first in 0..4 {
                let list = &list;
                scope.spawn(move || {
                    for round in 0..1_000 {
                        list.get((first + round) % 7).fetch_add(1, Relaxed);
                    }
                });
            }
        });
        let mut counts: Vec<_> = list.iter().map(|(key, it)| (key, it.load(Relaxed))).collect();
        counts.sort_unstable();
        assert_eq!(counts.iter().map(|it| it.0).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        assert_eq!(counts.iter().map(|it| it.1).sum::<u64>(), 4_000);
    }
}
