//! Version 2 of NSQ's protocol and a little HTTP, as the clients of this test speak them: blocking,
//! one thread a connection. Knows nothing of what is published.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest silence of an nsqd that has something to say: a heartbeat comes every 30 s.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Longest frame that is read: more than any message of the test.
const FRAME_MAX: usize = 1 << 20;

/// What is read at once. There are ten thousand connections in one of the tests.
const READ_BYTES: usize = 4 << 10;

/// A client's connection.
pub(crate) struct Connection(BufReader<TcpStream>);

/// What nsqd says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Response(Vec<u8>),
    Error(String),
    Message(Message),
}

/// A message as a consumer gets it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: [u8; 16],
    pub(crate) attempts: u16,
    pub(crate) body: Vec<u8>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, attempts, body } = self;
        let (id, body) = (String::from_utf8_lossy(id), String::from_utf8_lossy(body));
        let begin: String = body.chars().take(40).collect();
        write!(f, "{id}, attempt {attempts}, {} bytes, {begin:?}", body.len())
    }
}

impl Connection {
    /// Connects and says which protocol it speaks.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self(BufReader::with_capacity(READ_BYTES, stream));
        connection.say(b"  V2")?;
        Ok(connection)
    }

    /// A consumer of a channel that takes up to `ready` messages at once.
    pub(crate) fn consume(
        address: SocketAddr,
        topic: &str,
        channel: &str,
        ready: u32,
    ) -> io::Result<Self> {
        let mut connection = Self::open(address)?;
        connection.say(format!("SUB {topic} {channel}\n").as_bytes())?;
        match connection.frame()? {
            Frame::Response(it) if it == b"OK" => {}
            other => return Err(io::Error::other(format!("SUB was answered with {other:?}"))),
        }
        connection.say(format!("RDY {ready}\n").as_bytes())?;
        Ok(connection)
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Whether another frame has begun to come, so that reading it does not wait for long.
    pub(crate) fn has_more(&self) -> bool {
        !self.0.buffer().is_empty()
    }

    /// The next frame that is no heartbeat; heartbeats are answered.
    pub(crate) fn frame(&mut self) -> io::Result<Frame> {
        loop {
            match self.any_frame()? {
                Frame::Response(it) if it == b"_heartbeat_" => self.say(b"NOP\n")?,
                other => return Ok(other),
            }
        }
    }

    fn any_frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 8];
        self.0.read_exact(&mut head)?;
        let [s0, s1, s2, s3, k0, k1, k2, k3] = head;
        let size = usize::try_from(u32::from_be_bytes([s0, s1, s2, s3])).unwrap_or(usize::MAX);
        let Some(size) = size.checked_sub(4).filter(|it| *it <= FRAME_MAX) else {
            return Err(io::Error::other(format!("a frame that begins with {head:?}")));
        };
        let mut data = vec![0; size];
        self.0.read_exact(&mut data)?;
        match u32::from_be_bytes([k0, k1, k2, k3]) {
            0 => Ok(Frame::Response(data)),
            1 => Ok(Frame::Error(String::from_utf8_lossy(&data).into_owned())),
            2 => message(&data).map(Frame::Message),
            kind => Err(io::Error::other(format!("a frame of type {kind}"))),
        }
    }
}

fn message(data: &[u8]) -> io::Result<Message> {
    let cut = || io::Error::other("a message without a head");
    // Eight bytes of time, two of attempts, sixteen of id.
    let (head, body) = data.split_at_checked(26).ok_or_else(cut)?;
    let (attempts, id) = head.get(8..).and_then(|it| it.split_at_checked(2)).ok_or_else(cut)?;
    Ok(Message {
        id: id.try_into().map_err(io::Error::other)?,
        attempts: u16::from_be_bytes(attempts.try_into().map_err(io::Error::other)?),
        body: body.to_vec(),
    })
}

/// A command with a body.
pub(crate) fn command(line: &str, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [line.as_bytes(), b"\n", &size, body].concat()
}

/// The body of `MPUB`.
pub(crate) fn batch(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut batch = u32::try_from(bodies.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    for body in bodies {
        batch.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        batch.extend(body);
    }
    batch
}

/// Asks over HTTP; the status and the body.
pub(crate) fn ask(address: SocketAddr, method: &str, target: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: nsqd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("an answer `{line}`")))?;
    let mut rest = String::new();
    reader.read_to_string(&mut rest)?;
    let (_, body) = rest.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status, body.to_owned()))
}
