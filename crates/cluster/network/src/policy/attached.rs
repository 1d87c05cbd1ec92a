//! Which pods have which address, as the links say: told by who connects them, read by the loop.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The addresses of the pods that are connected. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By uid.
    addresses: BTreeMap<String, Ipv4Addr>,
    /// The uids of those that changed since the loop last looked.
    changed: BTreeSet<String>,
}

impl Attached {
    /// With what is connected already.
    pub(crate) fn new(addresses: BTreeMap<String, Ipv4Addr>) -> Self {
        let changed = addresses.keys().cloned().collect();
        let state = Mutex::new(State { addresses, changed });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// A pod has an address, or none any more.
    pub(crate) fn set(&self, uid: &str, address: Option<Ipv4Addr>) {
        let mut state = self.state();
        let before = match address {
            Some(address) => state.addresses.insert(uid.to_owned(), address),
            None => state.addresses.remove(uid),
        };
        if before != address {
            state.changed.insert(uid.to_owned());
            self.0.changed.notify_one();
        }
    }

    pub(crate) fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.state().addresses.get(uid).copied()
    }

    /// The addresses of all of them.
    pub(crate) fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.state().addresses.values().copied().collect()
    }

    /// The uids of those that changed since this was last asked.
    pub(super) fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().changed)
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each of its changes is complete before anything can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
