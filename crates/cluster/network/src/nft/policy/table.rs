//! The table in the kernel: replaced as a whole at start, then changed by transactions.
//!
//! There are two names for it. A new table is put together under the one that is not in use, by as
//! many transactions as it takes, and is asked nothing yet; one more gives it its hooks, and the next
//! removes the other. For that moment both are asked: in one transaction a packet could come to the new
//! chain too early and to the old one too late, and would pass unasked. So every packet meets a whole
//! table, and what an earlier process left stays in force until this one knows better. Nothing is ever read from the kernel but which of the two is asked.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Change, messages};
use crate::{
    addresses::Addresses,
    family::IpFamily,
    netlink::{Doing, Error, Family, Socket, modules},
    nft::batch::Batch,
};

const NAMES: [&str; 2] = ["coracle-policy-a", "coracle-policy-b"];

/// The tables `ip coracle-policy-…` and `ip6` of the same name, of the network namespace in which they were
/// opened. Each transaction is about both.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    kernel: Mutex<Kernel>,
    /// Port of the proxy to the world.
    egress_port: u16,
    /// The host itself, which may always reach its pods.
    host: Ipv4Addr,
    families: Vec<IpFamily>,
}

#[derive(Debug)]
struct Kernel {
    /// Kept open, for the reason that the table of services keeps its own.
    socket: Socket,
    /// The table that is asked.
    current: Option<&'static str>,
}

/// A transaction is one datagram. Half of what the socket takes is left for the last change of it.
const SPARE: usize = 2;

impl PolicyTable {
    /// Finds what an earlier process left.
    pub(crate) fn open(egress_port: u16, addresses: &Addresses) -> Result<Self, Error> {
        let socket = Socket::open(Family::Netfilter);
        let mut socket =
            socket.doing_with(modules::NETFILTER, || "open a netfilter socket".to_owned())?;
        let mut current = None;
        for name in NAMES {
            let is_asked = messages::is_asked(&mut socket, name);
            if is_asked
                .doing_with(modules::NFTABLES, || format!("read the nftables table `{name}`"))?
            {
                current = Some(name);
            }
        }
        let families = IpFamily::all(addresses).into_iter().map(|it| it.0).collect();
        let kernel = Mutex::new(Kernel { socket, current });
        Ok(Self { kernel, egress_port, host: addresses.host(), families })
    }

    /// Makes changes, all at once. `false`: they are too many for one transaction, and none is made.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<bool, Error> {
        let mut kernel = self.kernel();
        let Kernel { socket, current } = &mut *kernel;
        let Some(name) = *current else { return Ok(false) };
        let max = socket.datagram_max() / SPARE;
        let mut batch = Batch::new(name, socket);
        for family in &self.families {
            batch = batch.of(*family);
            for change in changes {
                messages::write(&mut batch, change);
                if batch.len() > max {
                    return Ok(false);
                }
            }
        }
        batch.commit(socket).doing(|| format!("change the nftables table `{name}`"))?;
        Ok(true)
    }

    /// Puts a table of these contents in place of what is there.
    pub(crate) fn replace(&self, changes: &[Change]) -> Result<(), Error> {
        let mut kernel = self.kernel();
        let Kernel { socket, current } = &mut *kernel;
        let doing = || "make the nftables table of policies".to_owned();
        let [first, second] = NAMES;
        let name = if *current == Some(first) { second } else { first };
        let max = socket.datagram_max() / SPARE;
        for family in &self.families {
            let mut batch = Batch::new(name, socket).of(*family);
            batch.clear();
            batch.table("NetworkPolicies");
            messages::write_maps(&mut batch);
            for change in changes {
                if batch.len() > max {
                    batch.commit(socket).doing_with(modules::RULES, doing)?;
                    batch = Batch::new(name, socket).of(*family);
                }
                messages::write(&mut batch, change);
            }
            batch.commit(socket).doing_with(modules::RULES, doing)?;
        }
        let mut batch = Batch::new(name, socket);
        for family in &self.families {
            batch = batch.of(*family);
            messages::write_hooks(&mut batch, self.egress_port, self.host);
        }
        batch.commit(socket).doing_with(modules::RULES, doing)?;
        let Some(other) = current.replace(name) else { return Ok(()) };
        let mut batch = Batch::new(other, socket);
        for family in &self.families {
            batch = batch.of(*family);
            // An earlier version had none of IPv6.
            batch.clear();
        }
        batch.commit(socket).doing(|| format!("remove the nftables table `{other}`"))
    }

    /// Removes whatever is there: everything passes.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let mut kernel = self.kernel();
        let Kernel { socket, current } = &mut *kernel;
        let [first, second] = NAMES;
        let mut batch = Batch::new(first, socket);
        for family in &self.families {
            for name in [first, second] {
                batch = batch.on(name).of(*family);
                batch.clear();
            }
        }
        batch.commit(socket).doing(|| "remove the nftables table of policies".to_owned())?;
        *current = None;
        Ok(())
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // What an exchange that panicked left unread is passed over by the next.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
