//! HTTP/1.1 and HTTP/1.0: one request after the other on a connection. A request that is sent before
//! the answer to the one before it arrives when that has been given.

use std::io;

use anyhow::{bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::judge::{
    law::Outcome,
    server::{Wire, alarm::now, desk::Desk},
};

/// Largest head of a request; a larger one ends the connection.
const HEAD_MAX: usize = 16 << 10;
/// Most headers of a request; more end the connection.
const HEADERS_MAX: usize = 100;
/// How much is read at once.
const READ: usize = 4 << 10;

/// What must be known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    /// Bytes of the head.
    bytes: usize,
    /// Bytes of the body.
    body: u64,
    /// How the connection goes on.
    keep: Keep,
    /// Whether only the head of the answer is wanted.
    head_only: bool,
}

/// How a connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// It stays, as is usual.
    Open,
    /// It stays, and an old client must be told so.
    Told,
    /// It ends.
    Close,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    mut stream: impl Wire,
    desk: &Desk,
    connection: u32,
) -> anyhow::Result<()> {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    let mut arrival = now();
    loop {
        let Some(head) = Head::parse(&input)? else {
            ensure!(input.len() < HEAD_MAX, "the head of a request is too large");
            // All that was asked for so far, before waiting for more.
            write(&mut stream, &mut output).await?;
            input.reserve(READ);
            let count = stream.read_buf(&mut input).await?;
            arrival = now();
            if count == 0 {
                return Ok(());
            }
            continue;
        };
        input.advance(head.bytes);
        if !desk.records() {
            skip(&mut stream, &mut input, head.body).await?;
            put_head(&mut output, Outcome::Good, desk.body(), head.keep);
            put_body(&mut output, if head.head_only { 0 } else { desk.body() });
        } else if !answer(&mut stream, desk, (connection, arrival), (head, &mut input)).await? {
            return Ok(());
        }
        if head.keep == Keep::Close {
            write(&mut stream, &mut output).await?;
            return Ok(stream.shutdown().await?);
        }
    }
}

/// Does to one request what the law says. Returns whether the connection still stands.
async fn answer(
    stream: &mut impl Wire,
    desk: &Desk,
    (connection, arrival): (u32, u64),
    (head, input): (Head, &mut BytesMut),
) -> anyhow::Result<bool> {
    let ticket = desk.arrive(arrival, connection);
    skip(stream, input, head.body).await?;
    desk.alarm.until(ticket.head).await?;
    let mut output = BytesMut::new();
    let body = match ticket.outcome {
        Outcome::Good => desk.body(),
        Outcome::Error => 0,
        Outcome::Reset => {
            stream.tcp().set_zero_linger()?;
            desk.answered(ticket.index, now());
            return Ok(false);
        }
    };
    put_head(&mut output, ticket.outcome, body, head.keep);
    let sent = if head.head_only { 0 } else { body };
    let pieces = if sent == 0 { 0 } else { desk.pieces() };
    if pieces == 0 {
        put_body(&mut output, sent);
    }
    let mut answered = write(stream, &mut output).await?;
    for piece in 1..=pieces {
        desk.alarm.until(desk.piece(ticket.head, piece)).await?;
        put_body(&mut output, sent * piece / pieces - sent * (piece - 1) / pieces);
        answered = write(stream, &mut output).await?;
    }
    desk.answered(ticket.index, answered);
    Ok(true)
}

fn put_head(output: &mut BytesMut, outcome: Outcome, body: usize, keep: Keep) {
    output.extend_from_slice(match outcome {
        Outcome::Error => b"HTTP/1.1 503 Service Unavailable\r\n",
        Outcome::Good | Outcome::Reset => b"HTTP/1.1 200 OK\r\n".as_slice(),
    });
    output.extend_from_slice(match keep {
        Keep::Open => b"",
        Keep::Told => b"Connection: keep-alive\r\n".as_slice(),
        Keep::Close => b"Connection: close\r\n",
    });
    if body == 0 {
        output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    } else {
        let length = format!("Content-Type: text/plain\r\nContent-Length: {body}\r\n\r\n");
        output.extend_from_slice(length.as_bytes());
    }
}

fn put_body(output: &mut BytesMut, bytes: usize) {
    output.resize(output.len() + bytes, b'.');
}

/// Writes all and returns when the last of it was handed over: before the call, because what the
/// client does meanwhile may keep this thread from looking at the clock.
async fn write(stream: &mut impl Wire, output: &mut BytesMut) -> io::Result<u64> {
    let mut moment = now();
    while output.has_remaining() {
        moment = now();
        if stream.write_buf(output).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    stream.flush().await?;
    Ok(moment)
}

/// Reads a body and forgets it.
async fn skip(stream: &mut impl Wire, input: &mut BytesMut, mut body: u64) -> io::Result<()> {
    loop {
        let here = input.len().min(usize::try_from(body).unwrap_or(usize::MAX));
        input.advance(here);
        body -= here as u64;
        if body == 0 {
            return Ok(());
        }
        input.reserve(READ);
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Head {
    /// Reads a head, if all of it is there.
    fn parse(input: &[u8]) -> anyhow::Result<Option<Self>> {
        if input.is_empty() {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(bytes) = request.parse(input)? else { return Ok(None) };
        let old = request.version == Some(0);
        let head_only = request.method == Some("HEAD");
        let keep = if old { Keep::Close } else { Keep::Open };
        let mut head = Self { bytes, body: 0, keep, head_only };
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                head.body = str::from_utf8(header.value)?.trim().parse()?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("requests in chunks are not understood");
            } else if header.name.eq_ignore_ascii_case("connection") {
                if header.value.eq_ignore_ascii_case(b"close") {
                    head.keep = Keep::Close;
                } else if old && header.value.eq_ignore_ascii_case(b"keep-alive") {
                    head.keep = Keep::Told;
                }
            }
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let check = |text: &str| Head::parse(text.as_bytes());
        let head = |bytes, keep| Head { bytes, body: 0, keep, head_only: false };
        assert_eq!(check("").unwrap(), None);
        assert_eq!(check("GET / HTTP/1.1\r\nHost: a\r\n").unwrap(), None);
        assert_eq!(check("GET / HTTP/1.1\r\n\r\nGET").unwrap(), Some(head(18, Keep::Open)));
        assert_eq!(check("GET / HTTP/1.0\r\n\r\n").unwrap(), Some(head(18, Keep::Close)));
        let told = check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().unwrap();
        assert_eq!(told.keep, Keep::Told);
        let close = check("GET / HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap().unwrap();
        assert_eq!(close.keep, Keep::Close);
        let post = check("POST / HTTP/1.1\r\nContent-Length: 7\r\n\r\n").unwrap().unwrap();
        assert_eq!(post.body, 7);
        assert!(check("HEAD / HTTP/1.1\r\n\r\n").unwrap().unwrap().head_only);
        assert!(check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(check("hello\r\n\r\n").is_err());
    }
}
