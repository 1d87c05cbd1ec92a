//! The table in the kernel: taken over or made at start, then changed by transactions.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{
    batch::{self, Batch, COMMENT, GENERIC, GETSETELEM, GETTABLE},
    elements::{self, Change, Contents, HAIRPIN, SERVICES, STICKY_SERVICES},
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
        for set in [SERVICES, STICKY_SERVICES, HAIRPIN] {
            let replies = read(&mut socket, GETSETELEM, batch::NLM_F_DUMP, |body| {
                body.text(1, NAME).text(2, set.name);
            });
            let replies = match replies {
                // A table of another layout may lack a set.
                Err(error) if is_not_found(&error) => continue,
                other => other.doing(|| format!("read the nftables set `{}`", set.name))?,
            };
            for reply in replies {
                if let Some(attributes) = reply.payload.get(GENERIC.len()..) {
                    elements::read(set.name, attributes, &mut contents);
                }
            }
        }
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

    /// Makes changes. Those of one unit are made in the same transaction, and as many units as fit.
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

/// The first unit and as many more as stay below `max` elements.
fn take(units: &mut Vec<Vec<Change>>, max: usize) -> Vec<Change> {
    let mut elements = 0;
    let fitting = units.iter().take_while(|unit| {
        elements += 2 * unit.len(); // A change removes an element and adds one.
        elements <= max
    });
    let count = fitting.count().max(1).min(units.len());
    units.drain(..count).flatten().collect()
}

impl Contents {
    /// The changes that make this out of nothing.
    fn units(&self) -> Vec<Vec<Change>> {
        let hairpin = self.hairpin.iter().map(|it| vec![Change::AddHairpin(*it)]);
        let services = self.services.iter().map(|(&(frontend, selection), slots)| {
            let slots = slots.iter().map(|(&slot, &endpoint)| {
                let to = Some(endpoint);
                Change::Slot { frontend, selection, slot, from: None, to }
            });
            slots.collect()
        });
        hairpin.chain(services).collect()
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
