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
    netlink::{Doing, Error, Family, Socket, modules},
    nft::batch::Batch,
};

const NAMES: [&str; 2] = ["coracle-policy-a", "coracle-policy-b"];

/// The table `ip coracle-policy-…` of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct PolicyTable {
    kernel: Mutex<Kernel>,
    /// Port of the proxy to the world.
    egress_port: u16,
    /// The host itself, which may always reach its pods.
    host: Ipv4Addr,
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
    pub(crate) fn open(egress_port: u16, host: Ipv4Addr) -> Result<Self, Error> {
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
        Ok(Self { kernel: Mutex::new(Kernel { socket, current }), egress_port, host })
    }

    /// Makes changes, all at once. `false`: they are too many for one transaction, and none is made.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<bool, Error> {
        let mut kernel = self.kernel();
        let Kernel { socket, current } = &mut *kernel;
        let Some(name) = *current else { return Ok(false) };
        let max = socket.datagram_max() / SPARE;
        let mut batch = Batch::new(name, socket);
        for change in changes {
            messages::write(&mut batch, change);
            if batch.len() > max {
                return Ok(false);
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
        let mut batch = Batch::new(name, socket);
        batch.clear();
        batch.table("NetworkPolicies");
        messages::write_maps(&mut batch);
        for change in changes {
            if batch.len() > max {
                batch.commit(socket).doing_with(modules::RULES, doing)?;
                batch = Batch::new(name, socket);
            }
            messages::write(&mut batch, change);
        }
        batch.commit(socket).doing_with(modules::RULES, doing)?;
        let mut batch = Batch::new(name, socket);
        messages::write_hooks(&mut batch, self.egress_port, self.host);
        batch.commit(socket).doing_with(modules::RULES, doing)?;
        let Some(other) = current.replace(name) else { return Ok(()) };
        let mut batch = Batch::new(other, socket);
        batch.delete_table();
        batch.commit(socket).doing(|| format!("remove the nftables table `{other}`"))
    }

    /// Removes whatever is there: everything passes.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let mut kernel = self.kernel();
        let Kernel { socket, current } = &mut *kernel;
        let [first, second] = NAMES;
        let mut batch = Batch::new(first, socket);
        batch.clear();
        let mut batch = batch.on(second);
        batch.clear();
        batch.commit(socket).doing(|| "remove the nftables table of policies".to_owned())?;
        *current = None;
        Ok(())
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        // What an exchange that panicked left unread is passed over by the next.
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
