//! What goes on for long is told now and then, not each time that it is seen.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// Time between two events about one thing. An event lasts an hour.
const TELL_AGAIN: Duration = Duration::from_mins(10);

/// What was told, of what, and when.
#[derive(Debug)]
pub(crate) struct News<K>(BTreeMap<K, (u64, Instant)>);

impl<K: Ord> News<K> {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether to tell that `of` is at `state` now. It is told then.
    pub(crate) fn is_news(&mut self, of: K, state: u64, now: Instant) -> bool {
        let known = self.0.get(&of);
        // A state that is less than before, too: a container has gone, and its number with it.
        let news = known.is_none_or(|(last, at)| state != *last && TELL_AGAIN <= now - *at);
        if news {
            self.0.insert(of, (state, now));
        }
        news
    }

    /// Forgets all but these.
    pub(crate) fn retain(&mut self, mut is_there: impl FnMut(&K) -> bool) {
        self.0.retain(|of, _| is_there(of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_now_and_then_while_it_goes_on() {
        let mut told = News::new();
        let start = Instant::now();
        let mut news = |state, seconds| {
            told.is_news("u1".to_owned(), state, start + Duration::from_secs(seconds))
        };
        assert!(news(1, 0));
        assert!(!news(900, 1));
        assert!(news(5000, 600));
        // It has stopped.
        assert!(!news(5000, 6000));
        assert!(news(5001, 6001));
    }
}
