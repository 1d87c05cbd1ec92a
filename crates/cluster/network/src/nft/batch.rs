//! A transaction: messages that the kernel takes all or none of, without a packet seeing part of it.

use std::io;

use super::expressions::Expressions;
use crate::{
    family::IpFamily,
    netlink::{
        Socket,
        wire::{Body, Datagram, GENERIC_LEN, Header, generic},
    },
};

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES;
const DELTABLE: u16 = NFNL_SUBSYS_NFTABLES | 2;
const NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 3;
const NEWRULE: u16 = NFNL_SUBSYS_NFTABLES | 6;
pub(super) const NEWSET: u16 = NFNL_SUBSYS_NFTABLES | 9;
const NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 12;
const DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 14;
pub(super) const GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
pub(super) const GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 13;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;

/// `struct nfgenmsg` of the messages around a batch: any family, resource = the subsystem, in
/// network byte order.
const GENERIC_BATCH: [u8; 4] = [0, 0, 0, 10];

/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;
/// Elements in one message: the list is one attribute of at most 65 535 bytes, an element has 44.
const ELEMENTS_MAX: usize = 1_000;
/// `NFTNL_UDATA_*_COMMENT`: the kind of user data that `nft` shows as a comment.
pub(super) const COMMENT: u8 = 0;

/// Where in the kernel's path a base chain hangs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook {
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    /// `NF_INET_*`.
    pub(super) number: u32,
    pub(super) priority: i32,
}

/// Whose a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there until somebody removes it.
    Nobody,
    /// It is removed with the socket that makes it, and nobody else can change it.
    Socket,
}

/// A set, or a map if its values have a length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Set {
    pub(super) name: &'static str,
    /// Any number, different in one batch.
    pub(super) id: u32,
    /// Types of the key's fields, for `nft` to print; see `TYPE_*` in `elements`.
    pub(super) key_type: u32,
    pub(super) key_length: u32,
    pub(super) value_type: u32,
    /// 0: not a map.
    pub(super) value_length: u32,
    /// How many elements rules may add, which leave by themselves; none if rules only look.
    pub(super) dynamic_max: Option<u32>,
}

/// Key and value of an element, fields padded to four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

/// A transaction on one table that is being put together.
#[derive(Debug)]
pub(super) struct Batch {
    family: IpFamily,
    table: &'static str,
    datagram: Datagram,
    first: u32,
    next: u32,
}

impl Batch {
    /// An empty transaction on a table of IPv4, which is to be committed over `socket` before anything
    /// else is sent.
    pub(super) fn new(table: &'static str, socket: &mut Socket) -> Self {
        Self::numbered(table, socket.sequences(1))
    }

    /// The same transaction, going on with the table of this family.
    pub(super) fn of(self, family: IpFamily) -> Self {
        Self { family, ..self }
    }

    /// The family of the table that it goes on with.
    pub(super) fn family(&self) -> IpFamily {
        self.family
    }

    fn numbered(table: &'static str, first: u32) -> Self {
        let (family, datagram) = (IpFamily::V4, Datagram::default());
        let mut batch = Self { family, table, datagram, first, next: first };
        batch.message_about(GENERIC_BATCH, BATCH_BEGIN, 0, |_| {});
        batch
    }

    pub(super) fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Body<'_>)) {
        self.message_about(generic(self.family), kind, flags, body);
    }

    fn message_about(
        &mut self,
        generic: [u8; GENERIC_LEN],
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Body<'_>),
    ) {
        let flags = NLM_F_REQUEST | flags;
        self.datagram.message(Header { kind, flags, sequence: self.next }, |it| {
            body(it.fixed(&generic));
        });
        self.next += 1;
    }

    /// The same transaction, going on with another table.
    pub(super) fn on(self, table: &'static str) -> Self {
        Self { table, ..self }
    }

    pub(super) fn table_name(&self) -> &'static str {
        self.table
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.datagram.as_bytes().len()
    }

    /// Adds the table, with a comment; fine if it is there.
    pub(super) fn table(&mut self, comment: &str) {
        self.table_of(Owner::Nobody, comment);
    }

    /// The same of a table that may be somebody's. Of one that is there that does not change.
    pub(super) fn table_of(&mut self, owner: Owner, comment: &str) {
        const FLAG_OWNER: u32 = 2;
        let table = self.table;
        self.message(NEWTABLE, NLM_F_CREATE, |body| {
            body.text(1, table);
            if owner == Owner::Socket {
                body.number(2, FLAG_OWNER);
            }
            body.attribute(6, &user_data(comment));
        });
    }

    /// Makes sure that the table is not there. Deleting one that is not there is an error, adding one
    /// that is there is none.
    pub(super) fn clear(&mut self) {
        self.table("");
        self.delete_table();
    }

    /// Removes the table and all that is in it.
    pub(super) fn delete_table(&mut self) {
        let table = self.table;
        self.message(DELTABLE, 0, |body| {
            body.text(1, table);
        });
    }

    pub(super) fn chain(&mut self, name: &str, hook: Hook) {
        let table = self.table;
        self.message(NEWCHAIN, NLM_F_CREATE, |body| {
            body.text(1, table).text(3, name).text(7, hook.kind).nested(4, |it| {
                it.number(1, hook.number).attribute(2, &hook.priority.to_be_bytes());
            });
        });
    }

    /// Appends a rule to a chain.
    pub(super) fn rule(
        &mut self,
        chain: &str,
        comment: &str,
        steps: impl FnOnce(&mut Expressions<'_, '_>),
    ) {
        let (table, family) = (self.table, self.family);
        self.message(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |body| {
            body.text(1, table).text(2, chain).attribute(7, &user_data(comment));
            body.nested(4, |it| steps(&mut Expressions { body: it, family }));
        });
    }

    pub(super) fn set(&mut self, set: Set) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVALUATED: u32 = 0x20;
        let flags = if set.value_length > 0 { MAP } else { 0 };
        let flags = flags | if set.dynamic_max.is_some() { TIMEOUT | EVALUATED } else { 0 };
        let table = self.table;
        self.message(NEWSET, NLM_F_CREATE, |body| {
            body.text(1, table).text(2, set.name).number(10, set.id);
            body.number(4, set.key_type).number(5, set.key_length);
            body.number(3, flags);
            if set.value_length > 0 {
                body.number(6, set.value_type).number(7, set.value_length);
            }
            if let Some(size) = set.dynamic_max {
                body.nested(9, |it| {
                    it.number(1, size);
                });
            }
        });
    }

    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    pub(super) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let table = self.table;
        for chunk in elements.chunks(ELEMENTS_MAX) {
            self.message(kind, flags, |body| {
                body.text(1, table).text(2, set).nested(3, |list| {
                    for element in chunk {
                        list.nested(LIST_ELEM, |it| element.write(it));
                    }
                });
            });
        }
    }

    /// Sends the transaction; on an error the kernel has changed nothing.
    pub(super) fn commit(mut self, socket: &mut Socket) -> io::Result<()> {
        let (first, last) = (self.first, self.next - 1);
        if first == last {
            return Ok(());
        }
        // The first number was taken when the batch was begun, the others and the end's now.
        socket.sequences(self.next - first);
        // Older kernels acknowledge only what is inside the batch; the last message suffices,
        // because a refusal of any other is reported before.
        self.datagram.add_flags(NLM_F_ACK);
        self.message_about(GENERIC_BATCH, BATCH_END, 0, |_| {});
        socket.exchange(self.datagram.as_bytes(), first, last).map(drop)
    }

    /// A transaction that is only looked at.
    #[cfg(test)]
    pub(super) fn unsent(table: &'static str) -> Self {
        Self::numbered(table, 1)
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.datagram.as_bytes()
    }
}

impl Element {
    fn write(&self, body: &mut Body<'_>) {
        const DATA_VALUE: u16 = 1;
        body.nested(1, |it| {
            it.attribute(DATA_VALUE, &self.key);
        });
        if let Some(value) = &self.value {
            body.nested(2, |it| {
                it.attribute(DATA_VALUE, value);
            });
        }
    }
}

/// A comment as `nft` writes it: kind, length, text with a zero.
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut data = vec![COMMENT, length];
    data.extend(comment.bytes().take(usize::from(length) - 1).chain([0]));
    data
}
