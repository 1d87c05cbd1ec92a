//! What passed, counted. Counters only grow; readers take them as they are.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::effect::Direction;

/// Counters of one direction, of a route or of a connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: AtomicU64,
    delivered: AtomicU64,
    swallowed: AtomicU64,
    faults: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(crate) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, bytes: u64) {
        self.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn swallowed(&self, bytes: u64) {
        if bytes > 0 {
            self.swallowed.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_fault(&self, kind: &'static str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        *faults.entry(kind).or_default() += 1;
    }

    pub(crate) fn read(&self) -> Flow {
        Flow {
            received_bytes: self.received.load(Ordering::Relaxed),
            delivered_bytes: self.delivered.load(Ordering::Relaxed),
            swallowed_bytes: self.swallowed.load(Ordering::Relaxed),
            faults: self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// What passed in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes read from the sender.
    pub received_bytes: u64,
    /// Bytes handed to the receiver's socket.
    pub delivered_bytes: u64,
    /// Bytes that faults took out. The rest of the difference is under way.
    pub swallowed_bytes: u64,
    /// How often a fault of each kind began to act on a connection.
    pub faults: BTreeMap<&'static str, u64>,
}

/// What passed through a route since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections that clients have opened.
    pub accepted: u64,
    /// Those that are open.
    pub open: u64,
    /// Connections that were reset at once because a limit was reached.
    pub over_limit: u64,
    /// Connections whose server could not be reached.
    pub upstream_failures: u64,
    /// The last reason for that.
    pub last_upstream_failure: Option<String>,
    /// Connections that ended in a reset, by a fault or by one of their ends.
    pub resets: u64,
    /// Client to server.
    pub upstream: Flow,
    /// Server to client.
    pub downstream: Flow,
}

impl Statistics {
    /// What passed in `direction`.
    #[must_use]
    pub const fn of(&self, direction: Direction) -> &Flow {
        match direction {
            Direction::Upstream => &self.upstream,
            Direction::Downstream => &self.downstream,
        }
    }
}
