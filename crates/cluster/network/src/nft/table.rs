//! The table in the kernel: taken over or made at start, then changed by transactions.
//!
//! There are two names for it. Where another layout is found, the new table is put together under the
//! name that is not in use, gets its hooks when it has everything, and only then does the old one go.
//! The kernel asks each chain as of the moment at which it comes to it, so in one transaction for both a
//! packet could come to the new chain too early and to the old one too late.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{
    batch::{self, Batch, COMMENT, GETSETELEM, GETTABLE},
    elements::{self, Change, Contents, OLDER_SLOTS, WRITTEN},
    layout::{self, Layout},
};
use crate::netlink::{
    Doing, Error, Family, Reply, Socket, modules,
    wire::{self, Body, Datagram, GENERIC_LEN, Header},
};
use crate::{addresses::Addresses, family::IpFamily};

/// Names of the table: one of them is in use.
const NAMES: [&str; 2] = ["coracle", "coracle-other"];
/// At most this many bytes does an element take in a message.
const ELEMENT_LEN: usize = 44;
/// A transaction is one datagram. Half of what the socket takes is left for headers.
const SPARE: usize = 2;

/// The table `ip coracle` or `ip6 coracle` of the network namespace in which it was opened, or its other
/// name.
#[derive(Debug)]
pub(crate) struct Table {
    family: IpFamily,
    name: &'static str,
    addresses: Addresses,
    /// Kept open: closing such a socket waits until the kernel has freed what earlier transactions
    /// removed (`nft_rcv_nl_event`), which takes from milliseconds to seconds.
    socket: Mutex<Socket>,
}

impl Table {
    /// Takes over the table that is there, with what is in it, if it is of this layout. Otherwise
    /// makes another one with what the old one had and puts it in its place, so that services are
    /// routed all the time. Also returns what it has.
    pub(crate) fn open(layout: &Layout) -> Result<(Self, Contents), Error> {
        let socket = Socket::open(Family::Netfilter);
        let mut socket =
            socket.doing_with(modules::NETFILTER, || "open a netfilter socket".to_owned())?;
        // A process that was killed when it exchanged them has left both, with the same in them, or one
        // that is asked nothing yet.
        let ([first, second], family, addresses) = (NAMES, layout.family, layout.addresses);
        let mut asked = Vec::new();
        for name in NAMES {
            if layout::is_asked(&mut socket, (family, name))
                .doing_with(modules::NFTABLES, || format!("read the nftables table `{name}`"))?
            {
                asked.push(name);
            }
        }
        let Some(&found) = asked.first() else {
            let table = Self { family, name: first, addresses, socket: Mutex::new(socket) };
            table.make(layout, &Contents::default())?;
            table.remove(second)?;
            return Ok((table, Contents::default()));
        };
        let other = if found == first { second } else { first };
        let comment = comment(&mut socket, (family, found))
            .doing(|| format!("read the comment of the nftables table `{found}`"))?;
        let old = Self { family, name: found, addresses, socket: Mutex::new(socket) };
        let contents = old.load()?;
        if comment == layout.fingerprint() {
            old.remove(other)?;
            return Ok((old, contents));
        }
        let new = Self { name: other, ..old };
        new.make(layout, &contents)?;
        new.remove(found)?;
        Ok((new, contents))
    }

    /// What is in the table now.
    pub(crate) fn load(&self) -> Result<Contents, Error> {
        let mut socket = self.socket();
        let mut contents = Contents::default();
        for set in WRITTEN.iter().map(|it| it.name).chain(OLDER_SLOTS) {
            let replies = read(&mut socket, self.family, GETSETELEM, batch::NLM_F_DUMP, |body| {
                body.text(1, self.name).text(2, set);
            });
            let replies = match replies {
                // A table of another layout may lack a set.
                Err(error) if is_not_found(&error) => continue,
                other => other.doing(|| format!("read the nftables set `{set}`"))?,
            };
            for reply in replies {
                if let Some(attributes) = reply.payload.get(GENERIC_LEN..) {
                    elements::read(set, attributes, &self.addresses, &mut contents);
                }
            }
        }
        contents.complete();
        Ok(contents)
    }

    /// Makes the table, and gives it its hooks once everything is in it. What there is of this name is
    /// removed first.
    fn make(&self, layout: &Layout, contents: &Contents) -> Result<(), Error> {
        let doing = || format!("make the nftables table `{}`", self.name);
        let mut socket = self.socket();
        let mut batch = self.batch(self.name, &mut socket);
        batch.clear();
        layout.write_sets(&mut batch);
        batch.commit(&mut socket).doing_with(modules::RULES, doing)?;
        drop(socket);
        self.apply(contents.units())?;
        let mut socket = self.socket();
        let mut batch = self.batch(self.name, &mut socket);
        layout.write_chains(&mut batch);
        batch.commit(&mut socket).doing_with(modules::RULES, doing)
    }

    /// Removes the table `name`, if it is there.
    fn remove(&self, name: &'static str) -> Result<(), Error> {
        let mut socket = self.socket();
        let mut batch = self.batch(name, &mut socket);
        batch.clear();
        batch.commit(&mut socket).doing(|| format!("remove the nftables table `{name}`"))
    }

    /// Makes changes. Those of one unit are made in the same transaction, and as many units as fit; only
    /// a unit that does not fit alone is made in several, in its order.
    pub(crate) fn apply(&self, mut units: Vec<Vec<Change>>) -> Result<(), Error> {
        let mut socket = self.socket();
        while !units.is_empty() {
            let mut batch = self.batch(self.name, &mut socket);
            let changes = take(&mut units, elements_max(&socket));
            elements::write(&mut batch, &self.addresses, &changes);
            batch
                .commit(&mut socket)
                .doing(|| format!("change the nftables table `{}`", self.name))?;
        }
        Ok(())
    }

    fn batch(&self, name: &'static str, socket: &mut Socket) -> Batch {
        Batch::new(name, socket).of(self.family)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        // What an exchange that panicked left unread is passed over by the next.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many elements a transaction may add and remove.
fn elements_max(socket: &Socket) -> usize {
    socket.datagram_max() / SPARE / ELEMENT_LEN
}

pub(super) fn is_not_found(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

/// The first units as far as they stay below `max` elements; of a first one that does not, its beginning.
fn take(units: &mut Vec<Vec<Change>>, max: usize) -> Vec<Change> {
    let mut elements = 0;
    let mut fits = |change: &Change| {
        elements += cost(change);
        elements <= max
    };
    let count = units.iter().take_while(|unit| unit.iter().all(&mut fits)).count();
    if count > 0 {
        return units.drain(..count).flatten().collect();
    }
    let Some(first) = units.first_mut() else { return Vec::new() };
    let mut elements = 0;
    let most = first.iter().take_while(|change| {
        elements += cost(change);
        elements <= max
    });
    let most = most.count().clamp(1, first.len());
    let beginning = first.drain(..most).collect();
    units.retain(|it| !it.is_empty());
    beginning
}

/// How many elements take as much room as a change at most.
fn cost(change: &Change) -> usize {
    match change {
        // A chain of some twelve rules, each of at most 500 bytes.
        Change::AddPicker(_) => 6_000 / ELEMENT_LEN,
        _ => 2,
    }
}

/// The comment of a table; empty if it has none.
fn comment(socket: &mut Socket, (family, name): (IpFamily, &str)) -> io::Result<String> {
    const USER_DATA: u16 = 6;
    let replies = read(socket, family, GETTABLE, batch::NLM_F_ACK, |body| {
        body.text(1, name);
    })?;
    let comment = replies.first().and_then(|reply| {
        let data = wire::attribute(reply.payload.get(GENERIC_LEN..)?, USER_DATA)?;
        let [COMMENT, _length, text @ .., 0] = data else { return None };
        String::from_utf8(text.to_vec()).ok()
    });
    Ok(comment.unwrap_or_default())
}

/// Whether a table has a chain.
pub(super) fn has_chain(
    socket: &mut Socket,
    (family, table): (IpFamily, &str),
    chain: &str,
) -> io::Result<bool> {
    const GETCHAIN: u16 = 10 << 8 | 4;
    let found = read(socket, family, GETCHAIN, batch::NLM_F_ACK, |body| {
        body.text(1, table).text(3, chain);
    });
    match found {
        Err(error) if is_not_found(&error) => Ok(false),
        other => other.map(|_| true),
    }
}

pub(super) fn read(
    socket: &mut Socket,
    family: IpFamily,
    kind: u16,
    flags: u16,
    body: impl FnOnce(&mut Body<'_>),
) -> io::Result<Vec<Reply>> {
    let sequence = socket.sequences(1);
    let mut datagram = Datagram::default();
    let flags = batch::NLM_F_REQUEST | flags;
    datagram.message(Header { kind, flags, sequence }, |it| body(it.fixed(&wire::generic(family))));
    socket.exchange(datagram.as_bytes(), sequence, sequence)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn units_stay_together_where_they_fit() {
        let unit = |count: u8| (0..count).map(|it| Change::AddHairpin(Ipv4Addr::new(0, 0, 0, it)));
        let mut units: Vec<Vec<Change>> =
            [2, 2, 9, 3, 1].map(|count| unit(count).collect()).to_vec();
        let taken: Vec<usize> =
            std::iter::from_fn(|| (!units.is_empty()).then(|| take(&mut units, 8).len())).collect();
        assert_eq!(taken, [4, 4, 4, 4, 1]);
    }
}
