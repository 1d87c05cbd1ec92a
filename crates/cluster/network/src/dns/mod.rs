//! The name server of the cluster, on UDP and TCP. Names of the cluster are answered from the
//! directory, all others by the host's name servers or those that somebody has chosen. Keeps no cache
//! of its own.

mod chosen;
mod resolv_conf;
mod upstream;
mod zone;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
};
use runtime::{OnExit, Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{addresses::Addresses, directory, services::describe};
pub(crate) use chosen::follow;
pub(crate) use resolv_conf::{Current, Follower};
pub use resolv_conf::{ResolvConf, name_servers};
use upstream::Over;
pub(crate) use upstream::Upstream;
use zone::{Answer, Holders, Question, Zone};

/// Port of the name server.
pub(crate) const PORT: u16 = 53;
/// The largest UDP message that crosses any network in one piece (DNS flag day 2020).
const UDP_MAX: u16 = 1232;
/// The largest question we read.
const QUESTION_MAX: usize = 4096;
/// TCP connections at a time; the next one waits in the backlog.
const CONNECTIONS_MAX: usize = 128;
/// How long a TCP client may be silent (RFC 7766, 6.2.3: in the order of seconds).
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Aliases of aliases that are followed.
const ALIASES_MAX: usize = 8;

/// What every answer needs.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub(crate) directory: directory::Shared,
    /// That of IPv6, if there is one.
    pub(crate) six: Option<directory::Shared>,
    pub(crate) addresses: Addresses,
    pub(crate) upstream: Upstream,
}

/// What comes of a question.
enum Outcome {
    /// The answer.
    Reply(Message),
    /// The answer begins with these, and goes on with what the host's servers say of the name.
    Follow(Message, Name),
    /// The host's servers answer.
    Forward(Message, Name),
}

/// Answers UDP questions until `stop`.
pub(crate) async fn serve_udp(
    socket: UdpSocket,
    resolver: Arc<Resolver>,
    tasks: Tasks,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error belongs to an answer sent before: its client is gone.
        let Ok((length, client)) = received else { continue };
        let question = buffer.get(..length).unwrap_or_default();
        match resolver.look_up(question) {
            None => {}
            Some(Outcome::Reply(reply)) => send(&socket, client, &encode_udp(&reply)).await,
            Some(outcome) => {
                let (resolver, socket) = (Arc::clone(&resolver), Arc::clone(&socket));
                let question = question.to_vec();
                tasks.spawn("dns-question", OnExit::Log, |_| async move {
                    let answer = resolver.finish(outcome, &question, Over::Udp).await;
                    send(&socket, client, &answer).await;
                    Ok(())
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, answer: &[u8]) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "dns answer not sent");
    }
}

/// Answers questions over TCP until `stop`.
pub(crate) async fn serve_tcp(
    listener: TcpListener,
    resolver: Arc<Resolver>,
    tasks: Tasks,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, client)) = accepted else { continue };
        let resolver = Arc::clone(&resolver);
        tasks.spawn("dns-connection", OnExit::Log, |stop| async move {
            let _slot = slot;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = resolver.converse(stream) => if let Err(error) = ended {
                    tracing::debug!(%client, %error, "dns connection ended");
                },
            }
            Ok(())
        });
    }
}

impl Resolver {
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let question = async {
                let length = stream.read_u16().await?;
                let mut question = vec![0; usize::from(length)];
                stream.read_exact(&mut question).await.map(|_| question)
            };
            let question = tokio::time::timeout(IDLE_MAX, question).await??;
            let Some(outcome) = self.look_up(&question) else { return Ok(()) };
            let answer = self.finish(outcome, &question, Over::Tcp).await;
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
        }
    }

    /// What comes of a question; nothing, if it is none.
    fn look_up(&self, question: &[u8]) -> Option<Outcome> {
        let Ok(question) = Message::from_vec(question) else {
            return malformed(question).map(Outcome::Reply);
        };
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = reply_to(&question);
        let [query] = question.queries.as_slice() else {
            return Some(refuse(reply, ResponseCode::FormErr));
        };
        if question.metadata.op_code != OpCode::Query {
            return Some(refuse(reply, ResponseCode::NotImp));
        }
        if query.query_class() != DNSClass::IN {
            return Some(refuse(reply, ResponseCode::Refused));
        }
        reply.metadata.authoritative = true;
        Some(self.resolve(reply, query.name().clone(), query.query_type()))
    }

    /// Answers from the directory, along aliases.
    fn resolve(&self, mut reply: Message, mut name: Name, kind: RecordType) -> Outcome {
        for _ in 0..ALIASES_MAX {
            let six = self.six.as_ref();
            let holders = six.map(|it| Holders::find(it, &self.addresses, &name));
            let (holders, directory) = (holders.unwrap_or_default(), self.directory.read());
            let (directory, addresses) = (&*directory, &self.addresses);
            let zone = Zone { directory, addresses, holders: &holders };
            match zone.answer(Question { name: &name, kind }) {
                Answer::Records { answers, additionals } => {
                    reply.add_answers(answers).add_additionals(additionals);
                    return Outcome::Reply(reply);
                }
                Answer::Alias { target } => {
                    reply.add_answer(zone::alias(&name, &target));
                    if kind == RecordType::CNAME {
                        return Outcome::Reply(reply);
                    }
                    name = target;
                }
                Answer::NoData => return Outcome::Reply(negative(reply, ResponseCode::NoError)),
                Answer::NoName => return Outcome::Reply(negative(reply, ResponseCode::NXDomain)),
                Answer::Elsewhere if reply.answers.is_empty() => {
                    reply.metadata.authoritative = false;
                    return Outcome::Forward(reply, name);
                }
                Answer::Elsewhere => return Outcome::Follow(reply, name),
            }
        }
        refuse(reply, ResponseCode::ServFail)
    }

    /// Gets what the host's servers have to say; the encoded answer.
    async fn finish(&self, outcome: Outcome, question: &[u8], over: Over) -> Vec<u8> {
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Forward(mut reply, name) => {
                match self.upstream.ask(&name, question, over).await {
                    Ok(answer) => return answer,
                    Err(error) => {
                        tracing::debug!(error = describe(&error), "dns question not answered");
                        reply.metadata.response_code = ResponseCode::ServFail;
                        reply
                    }
                }
            }
            Outcome::Follow(reply, target) => self.follow(reply, target, over).await,
        };
        if over == Over::Udp {
            return encode_udp(&reply);
        }
        encode(&reply)
    }

    /// Adds what the host's servers say of the alias's target.
    async fn follow(&self, mut reply: Message, target: Name, over: Over) -> Message {
        let metadata = reply.metadata;
        let kind = reply.queries.first().map_or(RecordType::A, Query::query_type);
        let mut question = Message::new(metadata.id, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(target.clone(), kind));
        let answer = match question.to_vec() {
            Ok(question) => self.upstream.ask(&target, &question, over).await,
            Err(error) => Err(upstream::Error::NoAnswer(io::Error::other(error))),
        };
        let answer = answer.and_then(|it| {
            Message::from_vec(&it).map_err(|it| upstream::Error::NoAnswer(io::Error::other(it)))
        });
        match answer {
            Ok(answer) => {
                reply.metadata.response_code = answer.metadata.response_code;
                reply.metadata.truncation = answer.metadata.truncation;
                reply.add_answers(answer.answers).add_authorities(answer.authorities);
            }
            Err(error) => {
                tracing::debug!(error = describe(&error), "alias not followed");
                reply.metadata.response_code = ResponseCode::ServFail;
            }
        }
        reply
    }
}

fn reply_to(question: &Message) -> Message {
    let mut reply = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata = Metadata::response_from_request(&question.metadata);
    reply.metadata.recursion_available = true;
    reply.add_queries(question.queries.iter().cloned());
    if let Some(asked) = &question.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().clamp(512, UDP_MAX));
        reply.set_edns(edns);
    }
    reply
}

/// The answer to what cannot be read, if at least its number can.
fn malformed(question: &[u8]) -> Option<Message> {
    /// In the third byte: this is a response. It gets none, or two servers would talk for ever.
    const RESPONSE: u8 = 0x80;
    let id = u16::from_be_bytes(*question.first_chunk()?);
    let is_question = question.get(2)? & RESPONSE == 0;
    is_question.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}

fn refuse(mut reply: Message, code: ResponseCode) -> Outcome {
    reply.metadata.response_code = code;
    Outcome::Reply(reply)
}

/// RFC 2308: the SOA record says how long there is nothing.
fn negative(mut reply: Message, code: ResponseCode) -> Message {
    reply.metadata.response_code = code;
    let soa: Option<Record> = zone::soa();
    reply.add_authorities(soa);
    reply
}

/// As UDP takes it: what is too long is cut, and the client asks again over TCP.
fn encode_udp(reply: &Message) -> Vec<u8> {
    // `reply_to` has put what the client takes into the reply's own EDNS record.
    let max = usize::from(reply.max_payload());
    let whole = encode(reply);
    if whole.len() <= max { whole } else { encode(&reply.truncate()) }
}

fn encode(reply: &Message) -> Vec<u8> {
    reply.to_vec().unwrap_or_else(|error| {
        tracing::warn!(%error, "dns answer not encoded");
        let failure = Message::error_msg(reply.metadata.id, OpCode::Query, ResponseCode::ServFail);
        failure.to_vec().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use futures_util::{FutureExt as _, future::BoxFuture};

    use super::*;
    use crate::host::HostSockets;

    #[derive(Debug)]
    struct NoSockets;

    impl HostSockets for NoSockets {
        fn connect_tcp(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<std::os::fd::OwnedFd>> {
            async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
        }
        fn connect_udp(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<std::os::fd::OwnedFd>> {
            self.connect_tcp(to)
        }
        fn connect_icmp(
            &self,
            to: std::net::IpAddr,
        ) -> BoxFuture<'_, io::Result<std::os::fd::OwnedFd>> {
            self.connect_tcp((to, 0).into())
        }
        fn bind_udp(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<std::os::fd::OwnedFd>> {
            self.connect_tcp(at)
        }
        fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<std::os::fd::OwnedFd>> {
            self.connect_tcp(at)
        }
    }

    fn answer(question: &[u8]) -> Option<Message> {
        let resolver = Resolver {
            directory: directory::Shared::default(),
            six: None,
            addresses: Addresses::default(),
            upstream: Upstream::new(
                (Follower::new("/nowhere".into()).1, chosen::Choice::none()),
                Arc::new(NoSockets),
                Addresses::default(),
            ),
        };
        let outcome = resolver.look_up(question)?;
        let answer = resolver.finish(outcome, question, Over::Udp).now_or_never().unwrap();
        Some(Message::from_vec(&answer).unwrap())
    }

    fn question(name: &str) -> Message {
        let mut question = Message::new(42, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
        question
    }

    #[test]
    fn says_what_is_wrong() {
        let ask = |question: &Message| {
            let answer = answer(&question.to_vec().unwrap())?;
            assert!(answer.metadata.id == 42 && answer.metadata.recursion_available);
            Some((answer.metadata.response_code, answer.authorities.len()))
        };
        let inside = question("web.shop.svc.cluster.local.");
        assert_eq!(ask(&inside), Some((ResponseCode::NXDomain, 1)));
        assert_eq!(ask(&question("example.com.")), Some((ResponseCode::ServFail, 0)));
        let mut two = inside.clone();
        two.add_query(inside.queries[0].clone());
        assert_eq!(ask(&two), Some((ResponseCode::FormErr, 0)));
        let mut notify = inside.clone();
        notify.metadata.op_code = OpCode::Notify;
        assert_eq!(ask(&notify), Some((ResponseCode::NotImp, 0)));
        let mut response = inside;
        response.metadata.message_type = MessageType::Response;
        assert_eq!(ask(&response), None);
    }

    #[test]
    fn answers_garbage_but_not_garbled_answers() {
        let refused = answer(&[0, 42, 1, 0, 0, 1]).unwrap();
        assert_eq!(refused.metadata.response_code, ResponseCode::FormErr);
        assert_eq!(answer(&[0, 42, 0x81, 0, 0, 1]), None);
        assert_eq!(answer(&[0]), None);
    }
}
