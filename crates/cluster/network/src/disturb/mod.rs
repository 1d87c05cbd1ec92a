//! What is wrong on purpose: keeps the kernel as the caller wants traffic to be disturbed.
//!
//! Nothing of it outlasts this process, and it does not know who wants it: a restart begins
//! undisturbed, and whoever wants faults asks again.

mod frame;
mod line;
mod plan;
mod queue;
mod shaper;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    addresses::Addresses,
    family::IpFamily,
    netlink::{Doing, Error, route::Routing},
    nft::FaultTable,
    pods,
    policy::Attached,
};
use plan::Plan;
use shaper::Shaper;

/// What is wrong, on purpose, with traffic towards some pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Disturbance {
    /// Addresses of pods, each with the IPv6 address that it has beside this one. Those that no connected pod has
    /// are passed over.
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
    /// There only while packets are shaped.
    shaper: Option<Shaper>,
    /// What there is.
    all: Vec<Disturbance>,
    plan: Plan,
}

impl Disturber {
    /// Undoes what an earlier process may have left.
    pub(crate) fn open(addresses: Addresses, attached: Attached) -> Result<Self, Error> {
        shaper::remove(&mut Routing::open()?)?;
        let families = IpFamily::all(&addresses).into_iter().map(|it| it.0).collect();
        let (table, all, plan) = (FaultTable::open(families)?, Vec::new(), Plan::default());
        let state = State { table, shaper: None, all, plan };
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
        state.apply(wanted, &self.sources())
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
        state.apply(wanted, &self.sources())
    }

    /// A pod has this address, perhaps at another link than before.
    pub(crate) fn attached(&self, address: Ipv4Addr) -> Result<(), Error> {
        let state = self.state();
        match &state.shaper {
            Some(shaper) if state.plan.effects.contains_key(&address) => {
                let shaped = state.plan.effects.keys().copied().collect();
                shaper.update(&state.plan.effects, pods::ends(&shaped)?)
            }
            _ => Ok(()),
        }
    }

    /// The gateway's addresses, one of each family.
    fn sources(&self) -> Vec<IpAddr> {
        let families = IpFamily::all(&self.addresses).into_iter();
        families.map(|(family, addresses)| family.at(addresses.gateway())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic the next change makes everything anew.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, mut wanted: Vec<Disturbance>, sources: &[IpAddr]) -> Result<(), Error> {
        wanted.retain(Disturbance::has_effect);
        if wanted.is_empty() && self.all.is_empty() {
            return Ok(());
        }
        let plan = Plan::of(&wanted).map_err(io::Error::other);
        let plan = plan.doing(|| "disturb pods".to_owned())?;
        let shaped = |it: &Plan| it.effects.keys().copied().collect::<BTreeSet<_>>();
        // What waits for somebody who is cut off now is lost.
        let ends = &(&shaped(&plan) | &shaped(&self.plan)) - &plan.faults.isolated;
        // What is wanted, even if the kernel refuses: then too an address that goes is looked for.
        (self.all, self.plan) = (wanted, plan);
        let Self { table, shaper, plan, .. } = self;
        // Before packets are marked there is where they go, and it ends after they are not.
        if !plan.effects.is_empty() && shaper.as_ref().is_none_or(Shaper::is_broken) {
            // The old one first: what it has is called the same.
            *shaper = None;
            *shaper = Some(Shaper::start()?);
        }
        if let Some(running) = shaper {
            running.update(&plan.effects, pods::ends(&ends)?)?;
            running.lead(&plan.classes, sources)?;
        }
        table.replace(&plan.faults)?;
        if let Some(running) = shaper {
            running.lead_no_others(&plan.classes)?;
        }
        if plan.effects.is_empty() {
            *shaper = None;
        }
        Ok(())
    }
}

impl Disturbance {
    /// Whether it is about anybody.
    fn has_effect(&self) -> bool {
        !self.to.is_empty() && self.from.as_ref().is_none_or(|it| !it.is_empty())
    }
}
