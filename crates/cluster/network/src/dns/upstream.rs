//! Questions about names outside the cluster: passed on to the host's name servers, or those that
//! somebody has chosen, over sockets on the host's side, or to such as are in the cluster themselves.
//!
//! Each question has a socket, and so a port, of its own: together with the client's number it is
//! what a forger would have to guess.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::rr::Name;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
};

use super::{PORT, chosen::Choice, resolv_conf::Current};
use crate::{
    addresses::Addresses,
    host::{self, HostSockets, Outside},
};

/// Wait for an answer before the next server is asked. Clients wait 5 s in all.
const TRY: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// Questions on their way; further ones are refused with SERVFAIL.
const IN_FLIGHT_MAX: usize = 256;
/// The largest UDP answer that a client may have announced.
const ANSWER_MAX: usize = 4096;

/// How a question came, and so how it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no name server in the host's resolv.conf")]
    NoServer,
    #[error("`{IN_FLIGHT_MAX}` questions are on their way")]
    Busy,
    #[error("no name server answered")]
    NoAnswer(#[source] io::Error),
}

/// Whom to ask.
#[derive(Debug)]
pub(crate) struct Upstream {
    host: Current,
    choice: Choice,
    sockets: Arc<dyn HostSockets>,
    addresses: Addresses,
    in_flight: Semaphore,
}

impl Upstream {
    pub(crate) fn new(
        (host, choice): (Current, Choice),
        sockets: Arc<dyn HostSockets>,
        addresses: Addresses,
    ) -> Self {
        Self { host, choice, sockets, addresses, in_flight: Semaphore::new(IN_FLIGHT_MAX) }
    }

    /// Who is asked for a name.
    async fn servers(&self, name: &Name) -> Vec<SocketAddr> {
        if let Some(chosen) = self.choice.of(name).await {
            return chosen;
        }
        self.host.borrow().servers.iter().map(|it| SocketAddr::new(*it, PORT)).collect()
    }

    /// Asks the servers one after the other; the answer is as they sent it. One that cannot answer is
    /// passed over, as the resolver library does, and its word counts only if no other's does.
    pub(crate) async fn ask(
        &self,
        name: &Name,
        question: &[u8],
        over: Over,
    ) -> Result<Vec<u8>, Error> {
        let _slot = self.in_flight.try_acquire().map_err(|_| Error::Busy)?;
        let servers = self.servers(name).await;
        let (mut last, mut unable) = (None, None);
        for server in std::iter::repeat_n(&servers, ROUNDS).flatten() {
            let answer = async {
                match over {
                    Over::Udp => self.ask_udp(question, *server).await,
                    Over::Tcp => self.ask_tcp(question, *server).await,
                }
            };
            match tokio::time::timeout(TRY, answer).await.map_err(io::Error::from).flatten() {
                Ok(answer) if is_unable(&answer) => unable = Some(answer),
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
            // It will not be able to a moment later.
            if servers.len() == 1 && unable.is_some() {
                break;
            }
        }
        if let Some(answer) = unable {
            return Ok(answer);
        }
        Err(last.map_or(Error::NoServer, Error::NoAnswer))
    }

    /// Whether a server is a pod or a Service.
    fn is_inside(&self, server: SocketAddr) -> bool {
        let IpAddr::V4(address) = server.ip() else { return false };
        self.addresses.pods.contains(address) || self.addresses.services.contains(address)
    }

    async fn ask_udp(&self, question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
        let socket = if self.is_inside(server) {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
            socket.connect(server).await?;
            socket
        } else {
            let socket = std::net::UdpSocket::from(self.sockets.connect_udp(server).await?);
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)?
        };
        socket.send(question).await?;
        let mut answer = vec![0; ANSWER_MAX];
        loop {
            host::heard(&socket).await?;
            let length = match socket.try_recv(&mut answer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                other => other?,
            };
            answer.truncate(length);
            if belongs(&answer, question) {
                return Ok(answer);
            }
            answer.resize(ANSWER_MAX, 0);
        }
    }

    async fn ask_tcp(&self, question: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
        let mut stream = if self.is_inside(server) {
            TcpStream::connect(server).await?
        } else {
            host::connect(&*self.sockets, Outside::World(server)).await?
        };
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), question].concat()).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        if belongs(&answer, question) {
            return Ok(answer);
        }
        Err(io::Error::other("answer to another question"))
    }
}

/// Whether a server says that it cannot answer: SERVFAIL, NOTIMP or REFUSED.
fn is_unable(answer: &[u8]) -> bool {
    const CODE: u8 = 0x0f;
    answer.get(3).is_some_and(|it| matches!(it & CODE, 2 | 4 | 5))
}

/// Whether `answer` is a response with the number and the question of `question`.
fn belongs(answer: &[u8], question: &[u8]) -> bool {
    const HEADER: usize = 12;
    const RESPONSE: u8 = 0x80;
    let is_response = answer.get(2).is_some_and(|it| it & RESPONSE != 0);
    let asked = question.get(HEADER..).and_then(|it| it.get(..question_length(it)?));
    let echoed = asked.and_then(|it| answer.get(HEADER..HEADER + it.len()));
    is_response
        && answer.get(..2) == question.get(..2)
        && asked.zip(echoed).is_some_and(|(asked, echoed)| asked.eq_ignore_ascii_case(echoed))
}

/// Bytes of the question section with its one name, type and class.
fn question_length(section: &[u8]) -> Option<usize> {
    const TYPE_AND_CLASS: usize = 4;
    let mut at = 0;
    loop {
        match *section.get(at)? {
            0 => return Some(at + 1 + TYPE_AND_CLASS),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use hickory_proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RecordType},
    };

    use super::*;

    fn message(id: u16, kind: MessageType, name: &str) -> Vec<u8> {
        let mut message = Message::new(id, kind, OpCode::Query);
        message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
        message.to_vec().unwrap()
    }

    #[test]
    fn an_answer_has_the_number_and_the_question() {
        let question = message(7, MessageType::Query, "example.com.");
        for (id, kind, name, expected) in [
            (7, MessageType::Response, "example.com.", true),
            (7, MessageType::Response, "eXample.com.", true),
            (8, MessageType::Response, "example.com.", false),
            (7, MessageType::Query, "example.com.", false),
            (7, MessageType::Response, "example.org.", false),
        ] {
            assert_eq!(belongs(&message(id, kind, name), &question), expected);
        }
        assert!(!belongs(&[], &question));
    }
}
