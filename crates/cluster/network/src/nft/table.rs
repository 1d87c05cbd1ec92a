//! The table in the kernel: taken over or made at start, then changed by transactions.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{
    batch::{self, Batch, COMMENT, GENERIC, GETSETELEM, GETTABLE},
    elements::{self, Change, Contents, OLDER_SLOTS, WRITTEN},
    layout::Layout,
};
use crate::netlink::{
    Doing, Error, Family, Reply, Socket, modules,
    wire::{self, Body, Datagram, Header},
};

/// Name of the table.
const NAME: &str = "coracle";
/// At most this many bytes does an element take in a message.
const ELEMENT_LEN: usize = 44;
/// A transaction is one datagram. Half of what the socket takes is left for headers.
const SPARE: usize = 2;

/// The table `ip coracle` of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Table {
    /// Kept open: closing such a socket waits until the kernel has freed what earlier transactions
    /// removed (`nft_rcv_nl_event`), which takes from milliseconds to seconds.
    socket: Mutex<Socket>,
}

impl Table {
    /// Takes over the table that is there, with what is in it, if it is of this layout. Otherwise
    /// makes it anew in one transaction, with what the old one had, so that services are routed all
    /// the time. Also returns what it has.
    pub(crate) fn open(layout: &Layout) -> Result<(Self, Contents), Error> {
        let socket = Socket::open(Family::Netfilter);
        let socket =
            socket.doing_with(modules::NETFILTER, || "open a netfilter socket".to_owned())?;
        let table = Self { socket: Mutex::new(socket) };
        let comment = comment(&mut table.socket());
        let comment = comment
            .doing_with(modules::NFTABLES, || format!("read the nftables table `{NAME}`"))?;
        let Some(comment) = comment else {
            table.make(layout, &Contents::default())?;
            return Ok((table, Contents::default()));
        };
        let contents = table.load()?;
        if comment != layout.fingerprint() {
            table.make(layout, &contents)?;
        }
        Ok((table, contents))
    }

    /// What is in the table now.
    pub(crate) fn load(&self) -> Result<Contents, Error> {
        let mut socket = self.socket();
        let mut contents = Contents::default();
        for set in WRITTEN.iter().map(|it| it.name).chain(OLDER_SLOTS) {
            let replies = read(&mut socket, GETSETELEM, batch::NLM_F_DUMP, |body| {
                body.text(1, NAME).text(2, set);
            });
            let replies = match replies {
                // A table of another layout may lack a set.
                Err(error) if is_not_found(&error) => continue,
                other => other.doing(|| format!("read the nftables set `{set}`"))?,
            };
            for reply in replies {
                if let Some(attributes) = reply.payload.get(GENERIC.len()..) {
                    elements::read(set, attributes, &mut contents);
                }
            }
        }
        contents.complete();
        Ok(contents)
    }

    /// Replaces whatever table there is, by one transaction as far as it holds everything. Only
    /// with some hundred service ports, and only after an upgrade that changed the rules, do the
    /// last of them follow in further transactions.
    fn make(&self, layout: &Layout, contents: &Contents) -> Result<(), Error> {
        let mut units = contents.units();
        let mut socket = self.socket();
        let mut batch = Batch::new(NAME, &mut socket);
        // Deleting a table that is not there is an error, adding one that is there is none.
        batch.table("");
        batch.delete_table();
        layout.write(&mut batch);
        elements::write(&mut batch, &take(&mut units, elements_max(&socket)));
        let made = batch.commit(&mut socket);
        made.doing_with(modules::RULES, || format!("make the nftables table `{NAME}`"))?;
        drop(socket);
        self.apply(units)
    }

    /// Makes changes. Those of one unit are made in the same transaction, and as many units as fit; only
    /// a unit that does not fit alone is made in several, in its order.
    pub(crate) fn apply(&self, mut units: Vec<Vec<Change>>) -> Result<(), Error> {
        let mut socket = self.socket();
        while !units.is_empty() {
            let mut batch = Batch::new(NAME, &mut socket);
            elements::write(&mut batch, &take(&mut units, elements_max(&socket)));
            batch.commit(&mut socket).doing(|| format!("change the nftables table `{NAME}`"))?;
        }
        Ok(())
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
        // A chain of some eleven rules, each of at most 500 bytes.
        Change::AddPicker(_) => 5_500 / ELEMENT_LEN,
        _ => 2,
    }
}

/// The comment of the table; none if there is no table.
fn comment(socket: &mut Socket) -> io::Result<Option<String>> {
    const USER_DATA: u16 = 6;
    let replies = read(socket, GETTABLE, batch::NLM_F_ACK, |body| {
        body.text(1, NAME);
    });
    let replies = match replies {
        Err(error) if is_not_found(&error) => return Ok(None),
        other => other?,
    };
    let comment = replies.first().and_then(|reply| {
        let data = wire::attribute(reply.payload.get(GENERIC.len()..)?, USER_DATA)?;
        let [COMMENT, _length, text @ .., 0] = data else { return None };
        String::from_utf8(text.to_vec()).ok()
    });
    Ok(Some(comment.unwrap_or_default()))
}

pub(super) fn read(
    socket: &mut Socket,
    kind: u16,
    flags: u16,
    body: impl FnOnce(&mut Body<'_>),
) -> io::Result<Vec<Reply>> {
    let sequence = socket.sequences(1);
    let mut datagram = Datagram::default();
    let flags = batch::NLM_F_REQUEST | flags;
    datagram.message(Header { kind, flags, sequence }, |it| body(it.fixed(&GENERIC)));
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
