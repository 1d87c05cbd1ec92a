//! The next messages of a channel, at hand: from its cursor on, in order.

use std::collections::VecDeque;

use crate::{
    log::{ReadLimit, Run},
    message::Sequence,
};

/// Pieces of the log, one behind the other, without gaps but for what was damaged.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// None is empty.
    runs: VecDeque<Run>,
    messages: usize,
    bytes: usize,
}

impl Window {
    /// How many messages there are.
    pub(super) const fn len(&self) -> usize {
        self.messages
    }

    /// About how much memory of the log it has before it, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends what is behind all that is there.
    pub(super) fn push(&mut self, run: Run) {
        if !run.is_empty() {
            self.messages += run.len();
            self.bytes += run.bytes();
            self.runs.push_back(run);
        }
    }

    /// Takes messages from the beginning, as [`Run::take`] does; `None` if there is none.
    pub(super) fn take(&mut self, limit: &mut ReadLimit) -> Option<Run> {
        self.change_first(|first| first.take(limit))
    }

    /// Leaves out what is before `first`.
    pub(super) fn skip_to(&mut self, first: Sequence) {
        while self.runs.front().is_some_and(|it| it.first() < first) {
            self.change_first(|it| it.skip_to(first));
        }
    }

    fn change_first<T>(&mut self, change: impl FnOnce(&mut Run) -> T) -> Option<T> {
        let first = self.runs.front_mut()?;
        self.messages -= first.len();
        self.bytes -= first.bytes();
        let changed = change(first);
        if first.is_empty() {
            self.runs.pop_front();
        } else {
            self.messages += first.len();
            self.bytes += first.bytes();
        }
        Some(changed)
    }
}
