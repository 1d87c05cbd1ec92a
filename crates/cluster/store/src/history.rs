//! The last events, each stored once, and who waits for the next.
//!
//! A watcher is a cursor into the history: however slow it is, it costs no memory of its own, and
//! when the history has moved past it, it is told so. One that has caught up is not looked at
//! again before an event of its own: then the history remembers for it where that one stands.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::Bytes;

use crate::{Event, Lagged, Revision, WatchError};

/// A bounded history and its watchers.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Every event after this one is in `events`.
    floor: Revision,
    newest: Revision,
    events_max: usize,
    bytes_max: usize,
    watchers: BTreeMap<WatcherId, Watcher>,
    next_id: u64,
}

/// Names a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatcherId(u64);

#[derive(Debug)]
struct Watcher {
    prefix: Bytes,
    /// It has seen everything up to here.
    cursor: Revision,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// There may be events of its own after the cursor.
    Behind,
    /// There was none when it last looked, nor since.
    CaughtUp(Waker),
}

impl History {
    /// An empty history that begins after `floor`.
    pub(crate) const fn new(floor: Revision, events_max: usize, bytes_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            floor,
            newest: floor,
            events_max,
            bytes_max,
            watchers: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// Adds an event newer than all others, and collects the watchers that wait for it.
    pub(crate) fn push(&mut self, event: Arc<Event>, wake: &mut Vec<Waker>) {
        let revision = event.revision();
        for watcher in self.watchers.values_mut() {
            let caught_up = matches!(watcher.place, Place::CaughtUp(_));
            if !caught_up || !event.entry.key.starts_with(&watcher.prefix) {
                continue;
            }
            watcher.cursor = revision.previous();
            if let Place::CaughtUp(waker) = mem::replace(&mut watcher.place, Place::Behind) {
                wake.push(waker);
            }
        }
        self.newest = revision;
        self.bytes += event.len();
        self.events.push_back(event);
        while self.events.len() > self.events_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.len();
            self.floor = oldest.revision();
        }
    }

    /// Forgets all events: what comes next does not follow from what was.
    pub(crate) fn restart(&mut self, floor: Revision) {
        self.events.clear();
        self.bytes = 0;
        (self.floor, self.newest) = (floor, floor);
    }

    /// Adds a watcher of keys under `prefix`.
    pub(crate) fn watch(
        &mut self,
        prefix: Bytes,
        after: Revision,
    ) -> Result<WatcherId, WatchError> {
        if after < self.floor {
            return Err(WatchError::Compacted { oldest: self.floor });
        }
        if after > self.newest {
            return Err(WatchError::Future { newest: self.newest });
        }
        let id = WatcherId(self.next_id);
        self.next_id += 1;
        let watcher = Watcher { prefix, cursor: after, place: Place::Behind };
        self.watchers.insert(id, watcher);
        Ok(id)
    }

    /// Removes a watcher.
    pub(crate) fn forget(&mut self, id: WatcherId) {
        self.watchers.remove(&id);
    }

    /// Removes all watchers: their watches end.
    pub(crate) fn close(&mut self) -> Vec<Waker> {
        let watchers = mem::take(&mut self.watchers);
        let wakers = watchers.into_values().filter_map(|it| match it.place {
            Place::CaughtUp(waker) => Some(waker),
            Place::Behind => None,
        });
        wakers.collect()
    }

    /// The next event of a watcher, or none if the history is closed.
    pub(crate) fn poll(
        &mut self,
        id: WatcherId,
        waker: &Waker,
    ) -> Poll<Option<Result<Arc<Event>, Lagged>>> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Poll::Ready(None) };
        if let Place::CaughtUp(known) = &mut watcher.place {
            known.clone_from(waker);
            return Poll::Pending;
        }
        if watcher.cursor < self.floor {
            self.watchers.remove(&id);
            return Poll::Ready(Some(Err(Lagged { oldest: self.floor })));
        }
        match next_of(&self.events, watcher) {
            Some(event) => {
                watcher.cursor = event.revision();
                Poll::Ready(Some(Ok(Arc::clone(event))))
            }
            None => {
                watcher.cursor = self.newest;
                watcher.place = Place::CaughtUp(waker.clone());
                Poll::Pending
            }
        }
    }

    /// The revision up to which a watcher has seen everything that is for it; none if its next
    /// event may be lost, or if the history is closed.
    pub(crate) fn progress(&self, id: WatcherId) -> Option<Revision> {
        let watcher = self.watchers.get(&id)?;
        match watcher.place {
            Place::CaughtUp(_) => Some(self.newest),
            Place::Behind if watcher.cursor < self.floor => None,
            Place::Behind => {
                let next = next_of(&self.events, watcher);
                Some(next.map_or(self.newest, |it| it.revision().previous()))
            }
        }
    }
}

fn next_of<'a>(events: &'a VecDeque<Arc<Event>>, watcher: &Watcher) -> Option<&'a Arc<Event>> {
    let start = match events.back() {
        // Most have seen all but the newest.
        Some(newest) if newest.revision().previous() == watcher.cursor => events.len() - 1,
        _ => events.partition_point(|it| it.revision() <= watcher.cursor),
    };
    events.range(start..).find(|it| it.entry.key.starts_with(&watcher.prefix))
}
