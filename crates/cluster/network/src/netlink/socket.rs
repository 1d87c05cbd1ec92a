//! One netlink socket: a request out, its answers in. It belongs for ever to the network namespace
//! in which it was opened.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, send, socket_with, sockopt,
    },
};

use super::wire;

/// `NLMSG_ERROR`: the outcome of a request; errno 0 is success.
const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const DONE: u16 = 3;
/// The kernel fills no datagram of a dump beyond this (`netlink_dump`).
const RECEIVE_MAX: usize = 32 * 1024;
/// The kernel answers before `send` returns; only a bug of ours waits this long, and then fails.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Size of a transaction that the socket takes; the kernel cuts it to `net.core.wmem_max`.
const SEND_BUFFER: usize = 4 << 20;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    Route,
    Netfilter,
}

/// An answer that is neither an acknowledgement nor the end of a dump.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

/// A blocking netlink socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
        };
        let kind = SocketType::RAW;
        let fd = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
        // Beyond the limit of `net.core.wmem_max` only for who is privileged on the host.
        if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
            sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER)?;
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; RECEIVE_MAX] })
    }

    /// The largest datagram the kernel takes from this socket (`netlink_sendmsg` wants 32 spare).
    pub(crate) fn datagram_max(&self) -> usize {
        sockopt::socket_send_buffer_size(&self.fd).map_or(0, |it| it.saturating_sub(32))
    }

    /// Sequence numbers for `count` messages: the first of them.
    pub(crate) fn sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Sends `datagram` and reads until message `last` is acknowledged, refused or its dump ends.
    /// The first refusal of any message from `first` on is the error.
    pub(crate) fn exchange(
        &mut self,
        datagram: &[u8],
        first: u32,
        last: u32,
    ) -> io::Result<Vec<Reply>> {
        send(&self.fd, datagram, SendFlags::empty())?;
        let mut replies = Vec::new();
        let mut refused = None;
        loop {
            for message in wire::messages(receive(&self.fd, &mut self.buffer)?) {
                if message.sequence < first || message.sequence > last {
                    continue; // The answer to an exchange that was given up.
                }
                let outcome = match message.kind {
                    ERROR | DONE => errno(message.payload),
                    kind => {
                        replies.push(Reply { kind, payload: message.payload.to_vec() });
                        continue;
                    }
                };
                refused = refused.or(outcome);
                // A refused batch is answered under the number of its first message.
                let batch_refused = message.sequence == first && outcome.is_some();
                if message.sequence == last || batch_refused {
                    return refused.map_or(Ok(replies), |errno| Err(errno.into()));
                }
            }
        }
    }
}

fn receive<'a>(fd: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let length = loop {
        match recv(fd, &mut *buffer, RecvFlags::TRUNC) {
            Ok((_, length)) => break length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    buffer.get(..length).ok_or_else(|| io::Error::other(format!("answer of `{length}` bytes")))
}

/// The error number at the head of an answer; none for success.
fn errno(payload: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(*payload.first_chunk()?);
    (code != 0).then(|| Errno::from_raw_os_error(code.wrapping_neg()))
}
