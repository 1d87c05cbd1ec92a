//! From host names to addresses: literals, `/etc/hosts`, and DNS as `/etc/resolv.conf` says. Not
//! through the C library, which in a static binary cannot.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{net::UdpSocket, time::timeout};

/// Wait for an answer before the next server is asked.
const TRY: Duration = Duration::from_secs(1);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// Servers that are asked; the C library stops at as many.
const SERVERS_MAX: usize = 3;
/// The largest answer over UDP: what fits one packet on any network, plus some. What was cut off is
/// only more addresses.
const ANSWER_MAX: usize = 4096;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// The text cannot be one.
    #[error("not a host name")]
    NotAName,
    /// Nobody knows it.
    #[error("no such host")]
    NotFound,
    /// There is nobody to ask.
    #[error("no name server in /etc/resolv.conf")]
    NoServer,
    /// Nobody said anything of use.
    #[error("no name server answered: {0}")]
    NoAnswer(io::Error),
}

/// Knows names. Each is resolved once; a run does not follow changes.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<BTreeMap<String, Vec<IpAddr>>>,
}

impl Names {
    /// Addresses of a host; at least one.
    ///
    /// # Errors
    ///
    /// [`NamesError`].
    pub async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, NamesError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned();
        if let Some(addresses) = known {
            return Ok(addresses);
        }
        let addresses = look_up(host).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(host.to_owned(), addresses.clone());
        Ok(addresses)
    }
}

async fn look_up(host: &str) -> Result<Vec<IpAddr>, NamesError> {
    // A machine without one of the files has no such names, and nothing is wrong with that.
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let addresses = in_hosts(&hosts, host);
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    if is_loopback(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let resolver = Resolver::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut found = Err(NamesError::NotFound);
    for name in resolver.candidates(host)? {
        found = resolver.ask(&name).await;
        if !matches!(found, Err(NamesError::NotFound)) {
            break;
        }
    }
    found
}

/// Whether a name is of this machine and never asked for: `localhost`, and all below it (RFC 6761,
/// section 6.3).
fn is_loopback(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.rsplit('.').next().is_some_and(|it| it.eq_ignore_ascii_case("localhost"))
}

/// Addresses that `/etc/hosts` has for a name.
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|it| it.parse().ok());
        if let Some(address) = address
            && words.any(|it| it.eq_ignore_ascii_case(host))
        {
            found.push(address);
        }
    }
    found
}

/// What `/etc/resolv.conf` says.
#[derive(Debug, PartialEq, Eq)]
struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        const PORT: u16 = 53;
        let mut this = Self { servers: Vec::new(), search: Vec::new() };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|it| it.parse::<IpAddr>().ok());
                    this.servers.extend(address.map(|it| SocketAddr::new(it, PORT)));
                }
                Some("search" | "domain") => this.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        this.servers.truncate(SERVERS_MAX);
        this
    }

    /// The names to ask for, in order: one with a dot is tried as it is first.
    fn candidates(&self, host: &str) -> Result<Vec<Name>, NamesError> {
        let absolute = format!("{}.", host.trim_end_matches('.'));
        let searched = self.search.iter().map(|it| format!("{host}.{}.", it.trim_end_matches('.')));
        let names: Vec<String> = if host.ends_with('.') {
            vec![absolute]
        } else if host.contains('.') {
            [absolute].into_iter().chain(searched).collect()
        } else {
            searched.chain([absolute]).collect()
        };
        names.iter().map(|it| Name::from_str(it).map_err(|_| NamesError::NotAName)).collect()
    }

    /// Asks for addresses of both kinds; IPv4 first.
    async fn ask(&self, name: &Name) -> Result<Vec<IpAddr>, NamesError> {
        let (four, six) =
            tokio::join!(self.ask_for(name, RecordType::A), self.ask_for(name, RecordType::AAAA));
        match (four, six) {
            (Ok(mut four), six) => {
                four.extend(six.unwrap_or_default());
                if four.is_empty() { Err(NamesError::NotFound) } else { Ok(four) }
            }
            (Err(_), Ok(six)) if !six.is_empty() => Ok(six),
            (Err(error), _) => Err(error),
        }
    }

    async fn ask_for(&self, name: &Name, kind: RecordType) -> Result<Vec<IpAddr>, NamesError> {
        let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        let mut last = NamesError::NoServer;
        for server in std::iter::repeat_n(&self.servers, ROUNDS).flatten() {
            let answer = timeout(TRY, ask_server(*server, &message));
            match answer.await.map_err(io::Error::from).flatten() {
                Ok(answer) => match answer.metadata.response_code {
                    ResponseCode::NoError => return Ok(addresses(&answer)),
                    ResponseCode::NXDomain => return Ok(Vec::new()),
                    other => last = NamesError::NoAnswer(io::Error::other(other.to_string())),
                },
                Err(error) => last = NamesError::NoAnswer(error),
            }
        }
        Err(last)
    }
}

async fn ask_server(server: SocketAddr, question: &Message) -> io::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec().map_err(io::Error::other)?).await?;
    let mut answer = vec![0; ANSWER_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        let message = answer.get(..length).map(Message::from_vec).transpose();
        // What is not an answer to this question came from someone else: the answer may still come.
        if let Ok(Some(message)) = message
            && message.metadata.id == question.metadata.id
            && message.queries == question.queries
        {
            return Ok(message);
        }
    }
}

/// Addresses in an answer. Aliases need no following: the server has put both ends in.
fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(it) => Some(IpAddr::V4(it.0)),
        RData::AAAA(it) => Some(IpAddr::V6(it.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(|it| address(&it.data)).collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Record, rdata};

    use super::*;

    #[test]
    fn hosts_file_is_read_as_the_c_library_reads_it() {
        let text = "127.0.0.1 localhost # not.this\n::1\tlocalhost ip6\nnonsense localhost\n\
                    10.0.0.7 Web web.example # x\n";
        let found = |host| in_hosts(text, host).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(found("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!(found("WEB.example"), ["10.0.0.7"]);
        assert_eq!(found("not.this"), Vec::<String>::new());
    }

    #[test]
    fn names_below_localhost_are_this_machine() {
        for host in ["localhost", "LocalHost.", "web.shop.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["mylocalhost", "localhost.example", "localhost..", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn names_without_a_dot_are_searched_first() {
        let resolver =
            Resolver::parse("# x\nsearch a.test b.test.\nnameserver 10.0.0.1\nnameserver ::5\n");
        assert_eq!(resolver.servers.len(), 2);
        let names = |host| {
            let names = resolver.candidates(host).unwrap();
            names.iter().map(Name::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names("web"), ["web.a.test.", "web.b.test.", "web."]);
        assert_eq!(names("web.test")[0], "web.test.");
        assert_eq!(names("web."), ["web."]);
        assert!(resolver.candidates("a..b").is_err());
    }

    /// A name server of one name, on a port of its own.
    async fn serve(socket: UdpSocket, known: Name) {
        let mut question = vec![0; ANSWER_MAX];
        loop {
            let (length, from) = socket.recv_from(&mut question).await.unwrap();
            let question = Message::from_vec(&question[..length]).unwrap();
            let query = question.queries[0].clone();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(query.clone());
            if *query.name() != known {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                let data = RData::A(rdata::A(Ipv4Addr::new(10, 1, 2, 3)));
                answer.add_answer(Record::from_rdata(known.clone(), 60, data));
            }
            // Something of somebody else's arrives first.
            socket.send_to(b"forged", from).await.unwrap();
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn name_server_is_asked() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![socket.local_addr().unwrap()];
        let known = Name::from_str("web.test.").unwrap();
        let resolver = Resolver { servers, search: Vec::new() };
        tokio::select! {
            () = serve(socket, known.clone()) => {}
            () = async {
                let found = resolver.ask(&known).await.unwrap();
                assert_eq!(found, [IpAddr::from([10, 1, 2, 3])]);
                let other = Name::from_str("other.test.").unwrap();
                assert!(matches!(resolver.ask(&other).await, Err(NamesError::NotFound)));
            } => {}
        }
        let nobody = Resolver { servers: Vec::new(), search: Vec::new() };
        assert!(matches!(nobody.ask(&known).await, Err(NamesError::NoServer)));
    }
}
