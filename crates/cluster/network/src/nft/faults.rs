//! The table of faults: which packets are dropped on purpose, and which are marked to be routed through the
//! shaper. It is there only while something is wrong.
//!
//! It belongs to the socket that made it, so the kernel removes it when this process ends, however
//! that happens (Linux 5.12). An older kernel gets an ordinary table, which the next process removes.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{
    batch::{Batch, Element, GETTABLE, Hook, NEWSET, NLM_F_ACK, NLM_F_CREATE, Owner},
    expressions::{Field, Register},
    table,
};
use crate::family::IpFamily;
use crate::netlink::{Doing, Error, Family, Socket, modules};

const NAME: &str = "coracle-faults";
const COMMENT: &str = "faults that were asked for";

/// The chains and the hooks they hang on: every packet meets one of them, between pods the first.
const CHAINS: [(&str, u32); 3] = [("forward", 2), ("input", 1), ("output", 3)];
/// After a Service's address was exchanged for a pod's, or exchanged back for the answer to it, and before
/// anything is refused: who is cut off is not told so.
const PRIORITY: i32 = -50;
/// Chains that mark packets, before they are routed and after a Service's address was exchanged; one of
/// type `route` has them routed again.
const MARKING: [(&str, Hook); 2] = [
    ("mark-forwarded", Hook { kind: "filter", number: 0, priority: MARK_PRIORITY }),
    ("mark-own", Hook { kind: "route", number: 3, priority: MARK_PRIORITY }),
];
const MARK_PRIORITY: i32 = -90;
/// Addresses of pods that nobody reaches.
const ISOLATED: &str = "isolated";
/// Type of the keys of sets: addresses, as `nft` numbers them.
const ADDRESS: u32 = 7;

/// Who does not reach whom, in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Those whom nobody reaches.
    pub(crate) isolated: BTreeSet<Ipv4Addr>,
    /// Pairs of sides that do not reach each other.
    pub(crate) parted: Vec<(BTreeSet<Ipv4Addr>, BTreeSet<Ipv4Addr>)>,
    /// Whose packets are marked.
    pub(crate) marked: Vec<Marked>,
}

/// Packets that get a mark, for routes to choose by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The bits that are added to it.
    pub(crate) bits: u32,
    /// Where they come from; none: anywhere.
    pub(crate) from: Option<BTreeSet<Ipv4Addr>>,
    /// Where they go.
    pub(crate) to: BTreeSet<Ipv4Addr>,
}

/// The tables `ip coracle-faults` and `ip6 coracle-faults` of the network namespace in which they were opened:
/// the same of both families, whose addresses are told by the same four bytes.
#[derive(Debug)]
pub(crate) struct FaultTable {
    /// Kept open: the tables belong to it.
    socket: Mutex<Socket>,
    families: Vec<IpFamily>,
}

impl FaultTable {
    /// Removes what an earlier process may have left.
    pub(crate) fn open(families: Vec<IpFamily>) -> Result<Self, Error> {
        let socket = Socket::open(Family::Netfilter);
        let mut socket =
            socket.doing_with(modules::NETFILTER, || "open a netfilter socket".to_owned())?;
        let found = table::read(&mut socket, IpFamily::V4, GETTABLE, NLM_F_ACK, |body| {
            body.text(1, NAME);
        });
        let found = match found {
            Err(error) if table::is_not_found(&error) => false,
            other => other
                .doing_with(modules::NFTABLES, || format!("read the nftables table `{NAME}`"))
                .map(|_| true)?,
        };
        let table = Self { socket: Mutex::new(socket), families };
        if found {
            table.replace(&Faults::default())?;
        }
        Ok(table)
    }

    /// Makes these the faults that there are, all at once.
    pub(crate) fn replace(&self, faults: &Faults) -> Result<(), Error> {
        let mut socket = self.socket();
        let mut made = self.commit(&mut socket, faults, Owner::Socket);
        // An older kernel knows no such table.
        let unknown = [Errno::INVAL, Errno::OPNOTSUPP].map(|it| Some(it.raw_os_error()));
        if made.as_ref().is_err_and(|error| unknown.contains(&error.raw_os_error())) {
            made = self.commit(&mut socket, faults, Owner::Nobody);
        }
        made.doing_with(modules::RULES, || format!("make the nftables table `{NAME}`"))
    }

    fn commit(&self, socket: &mut Socket, faults: &Faults, owner: Owner) -> std::io::Result<()> {
        let mut batch = Batch::new(NAME, socket);
        for family in &self.families {
            batch = batch.of(*family);
            batch.clear();
            if *faults != Faults::default() {
                faults.write(&mut batch, owner);
            }
        }
        batch.commit(socket)
    }

    fn socket(&self) -> MutexGuard<'_, Socket> {
        // What an exchange that panicked left unread is passed over by the next.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Faults {
    fn write(&self, batch: &mut Batch, owner: Owner) {
        batch.table_of(owner, COMMENT);
        for (name, number) in CHAINS {
            batch.chain(name, Hook { kind: "filter", number, priority: PRIORITY });
        }
        let mut sets = Sets::default();
        sets.add(batch, ISOLATED, &self.isolated);
        for (chain, _) in CHAINS {
            for field in [Field::SourceAddress, Field::DestinationAddress] {
                batch.rule(chain, "cut off", |it| {
                    it.load(field, Register(0)).look_up(ISOLATED, Register(0), None).discard();
                });
            }
        }
        for (name, hook) in MARKING.iter().filter(|_| !self.marked.is_empty()) {
            batch.chain(name, *hook);
        }
        for (number, marked) in self.marked.iter().enumerate() {
            marked.write(batch, &mut sets, number);
        }
        for (number, (one, other)) in self.parted.iter().enumerate() {
            let names = [format!("one-side-{number}"), format!("other-side-{number}")];
            let [first, second] = &names;
            sets.add(batch, first, one);
            sets.add(batch, second, other);
            for (chain, _) in CHAINS {
                for (source, destination) in [(first, second), (second, first)] {
                    batch.rule(chain, "cut off from some", |it| {
                        it.load(Field::SourceAddress, Register(0));
                        it.look_up(source, Register(0), None);
                        it.load(Field::DestinationAddress, Register(0));
                        it.look_up(destination, Register(0), None).discard();
                    });
                }
            }
        }
    }
}

impl Marked {
    fn write(&self, batch: &mut Batch, sets: &mut Sets, number: usize) {
        let (senders, receivers) = (format!("senders-{number}"), format!("receivers-{number}"));
        sets.add(batch, &receivers, &self.to);
        if let Some(from) = &self.from {
            sets.add(batch, &senders, from);
        }
        for (chain, _) in MARKING {
            batch.rule(chain, "shaped", |it| {
                it.load(Field::DestinationAddress, Register(0));
                it.look_up(&receivers, Register(0), None);
                if self.from.is_some() {
                    it.load(Field::SourceAddress, Register(0));
                    it.look_up(&senders, Register(0), None);
                }
                it.add_to_mark(self.bits);
            });
        }
    }
}

/// Counts the sets of a transaction, which each have a number.
#[derive(Debug, Default)]
struct Sets {
    count: u32,
}

impl Sets {
    fn add(&mut self, batch: &mut Batch, name: &str, addresses: &BTreeSet<Ipv4Addr>) {
        self.count += 1;
        let table = batch.table_name();
        batch.message(NEWSET, NLM_F_CREATE, |body| {
            body.text(1, table).text(2, name).number(10, self.count);
            body.number(4, ADDRESS).number(5, 4);
        });
        let element = |it: &Ipv4Addr| Element { key: it.octets().to_vec(), value: None };
        let elements: Vec<Element> = addresses.iter().map(element).collect();
        batch.add_elements(name, &elements);
    }
}
