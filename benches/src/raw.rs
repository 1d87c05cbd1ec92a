//! The least HTTP/1.1 client that can ask a server for objects, for the loads: what it takes of the
//! cores, the server cannot have. Knows answers with a `Content-Length` only.

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Room for an answer: an object with its head is about 1 KiB.
const BUFFER_BYTES: usize = 16 << 10;

/// One open connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    authority: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: TlsStream<TcpStream>, authority: String) -> Self {
        Self { stream, authority, request: Vec::new(), answer: vec![0; BUFFER_BYTES] }
    }

    /// Sends a request, reads the answer and checks that it is a success.
    pub(crate) async fn succeed(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let (authority, length) = (&self.authority, body.len());
        self.request.clear();
        self.request.extend_from_slice(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\n\
                 Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            )
            .as_bytes(),
        );
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.read().await.with_context(|| format!("{method} {path}"))
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let mut filled = 0;
        loop {
            let free = self.answer.get_mut(filled..).unwrap_or_default();
            let count = self.stream.read(free).await?;
            ensure!(count > 0, "the connection has ended, or the answer is too long");
            filled += count;
            let answer = self.answer.get(..filled).unwrap_or_default();
            if let Some(whole) = Head::parse(answer)? {
                ensure!(whole.bytes >= filled, "more than one answer");
                if whole.bytes == filled {
                    return whole.check(answer);
                }
            }
        }
    }
}

/// What must be known of the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of head and body.
    bytes: usize,
}

impl Head {
    /// Reads the head, if all of it is there.
    fn parse(answer: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = answer.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(answer.get(..end).unwrap_or_default())?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|it| it.split(' ').nth(1)).context("no status")?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim())
        });
        let length: usize = length.context("an answer without Content-Length")?.parse()?;
        Ok(Some(Self { status: status.parse()?, bytes: end + 4 + length }))
    }

    fn check(self, answer: &[u8]) -> anyhow::Result<()> {
        if !(200..300).contains(&self.status) {
            bail!("{}", String::from_utf8_lossy(answer));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let parse = |text: &str| Head::parse(text.as_bytes());
        let whole = "HTTP/1.1 201 Created\r\ncontent-length: 2\r\na: b\r\n\r\n{}";
        assert_eq!(parse(whole).unwrap(), Some(Head { status: 201, bytes: whole.len() }));
        assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        assert!(parse("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        let refused = Head { status: 404, bytes: 0 };
        assert_eq!(refused.check(b"not found").unwrap_err().to_string(), "not found");
    }
}
