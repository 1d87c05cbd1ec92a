//! How messages travel over a stream socket: frames of a length (4 bytes, big endian) and one JSON
//! message, answers in the order of requests, file descriptors beside the first byte of their
//! frame by `SCM_RIGHTS`.
//!
//! [`encode`] and [`Decoder`] are pure; [`send`] and [`receive`] work on blocking and non-blocking
//! sockets alike.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest message, in bytes. The kernel takes at most 6 MiB of arguments and environment for a
/// program; JSON may double a byte. A longer frame ends the connection.
pub const MESSAGE_MAX: usize = 16 * 1024 * 1024;

/// Most file descriptors beside one message: standard input, output and error.
pub const FDS_MAX: usize = 3;

/// Bytes of the length before each message.
const HEADER: usize = 4;

/// Bytes read at once: a page of the stack, as there are few longer messages and many shims.
const READ: usize = 4 * 1024;

/// The frame of a message.
///
/// # Errors
/// `MSGSIZE` if the message is longer than [`MESSAGE_MAX`].
pub fn encode<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - HEADER;
    let header = u32::try_from(length).ok().filter(|_| length <= MESSAGE_MAX);
    let header = header.ok_or(Errno::MSGSIZE)?.to_be_bytes();
    frame.iter_mut().zip(header).for_each(|(to, from)| *to = from);
    Ok(frame)
}

/// Puts frames together from what a socket delivers.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Decoder {
    /// Takes bytes, and descriptors that came beside them.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// The next message; `None` until there is a whole one.
    ///
    /// # Errors
    /// `InvalidData` for a frame that is too long or not a message: the connection is of no more
    /// use.
    pub fn message<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if MESSAGE_MAX < length {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..HEADER + length);
        if self.bytes.is_empty() {
            // A shim waits for days between two messages.
            self.bytes = Vec::new();
        }
        Ok(Some(message))
    }

    /// How many bytes have come that are no whole message yet, or were not asked for.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// The oldest descriptor not yet taken.
    pub fn take_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Reads from a socket once. `false` at its end.
    ///
    /// # Errors
    /// Those of `recvmsg`: `WouldBlock` on a non-blocking socket.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut bytes = [0; READ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            socket,
            &mut [io::IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let received = match received {
            Ok(it) => it,
            Err(Errno::CONNRESET) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        self.bytes.extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
        Ok(received.bytes != 0)
    }
}

/// Sends one message with descriptors beside it, all of it: on a non-blocking socket this is an
/// error when the other side does not read.
///
/// # Errors
/// Those of `sendmsg`; after `WouldBlock` part of the frame may be sent, so close the connection.
pub fn send<M: Serialize>(
    socket: impl AsFd,
    message: &M,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let frame = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE.into());
    }
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        let slices = [io::IoSlice::new(rest)];
        match rustix::net::sendmsg(&socket, &slices, &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        control.clear();
    }
    Ok(())
}

/// Receives one message; `None` when the other side is gone. Descriptors are in the decoder.
///
/// # Errors
/// Those of [`Decoder::fill`] and [`Decoder::message`]; after `WouldBlock`, call it again later.
pub fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
    decoder: &mut Decoder,
) -> io::Result<Option<M>> {
    loop {
        if let Some(message) = decoder.message()? {
            return Ok(Some(message));
        }
        match decoder.fill(&socket) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;
    use crate::wire::{ProcessSpec, Request};

    fn pair() -> (OwnedFd, OwnedFd) {
        let kind = SocketType::STREAM;
        rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn start(argument: &str) -> Request {
        let process = ProcessSpec { argv: vec![argument.to_owned()], ..ProcessSpec::default() };
        Request::Start { id: "web.0".to_owned(), process }
    }

    #[test]
    fn messages_are_put_together_from_single_bytes() {
        let sent = [start("one"), Request::Status, start("")];
        let bytes: Vec<u8> = sent.iter().flat_map(|it| encode(it).unwrap()).collect();
        let mut decoder = Decoder::default();
        let mut received: Vec<Request> = Vec::new();
        for byte in bytes {
            decoder.push(&[byte], []);
            received.extend(decoder.message().unwrap());
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn large_message_and_descriptors_arrive() {
        let (left, right) = pair();
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let sent = start(&"x".repeat(1024 * 1024));
        let expected = sent.clone();
        let sender = std::thread::spawn(move || send(&left, &sent, &[pipe.as_fd()]).unwrap());
        let mut decoder = Decoder::default();
        assert_eq!(receive::<Request>(&right, &mut decoder).unwrap(), Some(expected));
        assert!(decoder.take_fd().is_some());
        sender.join().unwrap();
        assert_eq!(receive::<Request>(&right, &mut decoder).unwrap(), None);
    }

    #[test]
    fn absurd_length_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff; HEADER], []);
        assert!(decoder.message::<Request>().is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut decoder = Decoder::default();
        decoder.push(&encode(&"hello").unwrap(), []);
        assert!(decoder.message::<Request>().is_err());
    }
}
