//! What is wrong on purpose: keeps the kernel as the caller wants traffic to be disturbed.
//!
//! Nothing of it outlasts this process, and it does not know who wants it: a restart begins
//! undisturbed, and whoever wants faults asks again.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    addresses::Addresses,
    netlink::Error,
    nft::{FaultTable, Faults},
    policy::Attached,
};

/// What is wrong, on purpose, with traffic towards some pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Disturbance {
    /// Addresses of pods. Those that no connected pod has are passed over.
    pub to: BTreeSet<Ipv4Addr>,
    /// Addresses of other pods, whose traffic alone is disturbed. None: whoever it is, also the host,
    /// the name server and the API.
    pub from: Option<BTreeSet<Ipv4Addr>>,
    /// What happens to it.
    pub impairment: Impairment,
}

/// How traffic is disturbed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Impairment {
    /// Nothing passes, in either direction, also of connections that there are. Nobody is told.
    Cut,
    /// Packets towards the pods are late, lost or slowed; what the pods send is not.
    Shape {
        /// How late each packet is.
        delay: Duration,
        /// How much more or less than that, at most.
        jitter: Duration,
        /// Share of packets that are lost, 0 to 1.
        loss: f64,
        /// Share of packets that come twice.
        duplicate: f64,
        /// Share of packets of which one bit is wrong.
        corrupt: f64,
        /// How much gets through to each of the pods in a second, headers included.
        bytes_per_second: Option<u64>,
    },
}

/// All faults of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Disturber {
    addresses: Addresses,
    attached: Attached,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: FaultTable,
    /// What there is.
    all: Vec<Disturbance>,
}

impl Disturber {
    /// Undoes what an earlier process may have left.
    pub(crate) fn open(addresses: Addresses, attached: Attached) -> Result<Self, Error> {
        let state = State { table: FaultTable::open()?, all: Vec::new() };
        Ok(Self { addresses, attached, state: Mutex::new(state) })
    }

    /// Makes this all that is wrong. Blocks for some milliseconds.
    pub(crate) fn disturb(&self, all: Vec<Disturbance>) -> Result<(), Error> {
        let mut state = self.state();
        // Under the lock, so that a pod which goes now is forgotten after this.
        let attached = self.attached.addresses();
        let (pods, gateway) = (self.addresses.pods, self.addresses.gateway());
        let mut wanted = Vec::new();
        for mut it in all {
            it.to.retain(|address| attached.contains(address));
            if let Some(from) = &mut it.from {
                let is_there =
                    |it: &Ipv4Addr| !pods.contains(*it) || *it == gateway || attached.contains(it);
                from.retain(is_there);
            }
            wanted.push(it);
        }
        state.apply(wanted)
    }

    /// An address has no pod any more: the next pod that gets it is not disturbed.
    pub(crate) fn forget(&self, address: Ipv4Addr) -> Result<(), Error> {
        let mut state = self.state();
        let mut wanted = state.all.clone();
        for it in &mut wanted {
            it.to.remove(&address);
            if let Some(from) = &mut it.from {
                from.remove(&address);
            }
        }
        if wanted == state.all {
            return Ok(());
        }
        state.apply(wanted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic the next change makes everything anew.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, mut wanted: Vec<Disturbance>) -> Result<(), Error> {
        wanted.retain(Disturbance::has_effect);
        if wanted.is_empty() && self.all.is_empty() {
            return Ok(());
        }
        if wanted.iter().any(|it| it.impairment != Impairment::Cut) {
            let cause = std::io::ErrorKind::Unsupported;
            return Err(Error::new("slow packets down or lose some", std::io::Error::from(cause)));
        }
        // What is wanted, even if the kernel refuses: then too an address that goes is looked for.
        self.all = wanted;
        self.table.replace(&cuts(&self.all))
    }
}

impl Disturbance {
    /// Whether it is about anybody.
    fn has_effect(&self) -> bool {
        !self.to.is_empty() && self.from.as_ref().is_none_or(|it| !it.is_empty())
    }
}

/// Who is to be cut off.
fn cuts(all: &[Disturbance]) -> Faults {
    let mut faults = Faults::default();
    for it in all.iter().filter(|it| it.impairment == Impairment::Cut) {
        match &it.from {
            None => faults.isolated.extend(&it.to),
            Some(from) => faults.parted.push((it.to.clone(), from.clone())),
        }
    }
    faults
}
