//! NATS' text protocol and JetStream's requests, as far as the benchmark needs them.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Buf as _;
use serde_json::{Value, json};

use super::wire::Wire;

/// The line that ends a message's body.
const END: &[u8] = b"\r\n";
/// The group of the consumers, among whom the server shares the messages.
const GROUP: &str = "bench";

/// Publishes the same batch again and again.
pub(super) struct Publisher {
    wire: Wire,
    commands: Vec<u8>,
    batch: usize,
}

impl Publisher {
    pub(super) async fn connect(
        to: SocketAddr,
        subject: &str,
        batch: usize,
        bytes: usize,
    ) -> anyhow::Result<Self> {
        let mut wire = connect(to).await?;
        let inbox = inbox(&wire)?;
        wire.send(format!("SUB {inbox} 1\r\n").as_bytes()).await?;
        let head = format!("PUB {subject} {inbox} {bytes}\r\n");
        let command = [head.as_bytes(), &vec![b'm'; bytes], END].concat();
        Ok(Self { wire, commands: command.repeat(batch), batch })
    }

    /// Publishes once, and waits until every message is acknowledged.
    pub(super) async fn publish(&mut self) -> anyhow::Result<()> {
        self.wire.send(&self.commands).await?;
        let mut missing = self.batch;
        while missing > 0 {
            let Some((said, length)) = next(&self.wire.input)? else {
                self.wire.more().await?;
                continue;
            };
            let ping = said == Said::Ping;
            if let Said::Message { body, .. } = said {
                acknowledged(body)?;
                missing -= 1;
            }
            self.wire.input.advance(length);
            if ping {
                self.wire.send(b"PONG\r\n").await?;
            }
        }
        Ok(())
    }
}

/// An acknowledgement names the message's place in the stream; anything else is a refusal.
fn acknowledged(body: &[u8]) -> anyhow::Result<()> {
    let sequence = br#""seq":"#;
    let there = body.windows(sequence.len()).any(|it| it == sequence);
    ensure!(there, "not acknowledged: {}", String::from_utf8_lossy(body));
    Ok(())
}

/// Consumes a stream, together with all others of it.
pub(super) struct Consumer {
    wire: Wire,
    answers: Vec<u8>,
}

impl Consumer {
    pub(super) async fn connect(to: SocketAddr, stream: &str) -> anyhow::Result<Self> {
        let mut wire = connect(to).await?;
        let subscribe = format!("SUB {} {GROUP} 1\r\nPING\r\n", deliveries(stream));
        wire.send(subscribe.as_bytes()).await?;
        Ok(Self { wire, answers: Vec::new() })
    }

    /// Waits for messages and acknowledges all that have arrived; how many.
    pub(super) async fn consume(&mut self) -> anyhow::Result<u64> {
        let (mut count, mut done) = (0, 0);
        self.wire.more().await?;
        while let Some((said, length)) = next(self.wire.input.get(done..).unwrap_or_default())? {
            match said {
                Said::Message { reply, .. } => {
                    self.answers.extend_from_slice(b"PUB ");
                    self.answers.extend_from_slice(reply);
                    self.answers.extend_from_slice(b" 0\r\n\r\n");
                    count += 1;
                }
                Said::Ping => self.answers.extend_from_slice(b"PONG\r\n"),
                Said::Other => {}
            }
            done += length;
        }
        self.wire.input.advance(done);
        self.wire.send(&self.answers).await?;
        self.answers.clear();
        Ok(count)
    }
}

/// Where a stream's messages go.
fn deliveries(stream: &str) -> String {
    format!("deliver.{stream}")
}

/// Makes a stream of the subject that has its name.
pub(super) async fn make_stream(to: SocketAddr, name: &str, storage: &str) -> anyhow::Result<()> {
    let config = json!({ "name": name, "subjects": [name], "storage": storage });
    request(to, &format!("$JS.API.STREAM.CREATE.{name}"), &config).await
}

/// Makes the one consumer of a stream: all of it from the beginning, each message acknowledged, so
/// many of them unanswered, to whoever is in the group.
pub(super) async fn make_consumer(
    to: SocketAddr,
    stream: &str,
    unanswered: usize,
) -> anyhow::Result<()> {
    let config = json!({ "stream_name": stream, "config": {
        "durable_name": GROUP, "deliver_subject": deliveries(stream), "deliver_group": GROUP,
        "ack_policy": "explicit", "deliver_policy": "all", "max_ack_pending": unanswered,
    }});
    request(to, &format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{GROUP}"), &config).await
}

/// Asks the server for something and waits until it says that it has done it.
async fn request(to: SocketAddr, subject: &str, body: &Value) -> anyhow::Result<()> {
    let mut wire = connect(to).await?;
    let (inbox, body) = (inbox(&wire)?, body.to_string());
    let length = body.len();
    let text = format!("SUB {inbox} 1\r\nPUB {subject} {inbox} {length}\r\n{body}\r\n");
    wire.send(text.as_bytes()).await?;
    loop {
        let Some((said, length)) = next(&wire.input)? else {
            wire.more().await?;
            continue;
        };
        if let Said::Message { body, .. } = said {
            let answer: Value = serde_json::from_slice(body)?;
            ensure!(answer.get("error").is_none(), "{subject}: {answer}");
            return Ok(());
        }
        wire.input.advance(length);
    }
}

/// A connection on which the server has answered.
async fn connect(to: SocketAddr) -> anyhow::Result<Wire> {
    let mut wire = Wire::connect(to).await?;
    wire.send(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n").await?;
    while !wire.input.ends_with(b"PONG\r\n") {
        wire.more().await?;
    }
    wire.input.clear();
    Ok(wire)
}

/// A subject for answers that no other connection has.
fn inbox(wire: &Wire) -> anyhow::Result<String> {
    Ok(format!("_INBOX.{}", wire.local()?.port()))
}

/// What a server says.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    Message { reply: &'a [u8], body: &'a [u8] },
    Ping,
    Other,
}

/// The first thing in `input` if it has arrived whole, and how many bytes it has.
fn next(input: &[u8]) -> anyhow::Result<Option<(Said<'_>, usize)>> {
    let Some(end) = input.iter().position(|it| *it == b'\n') else { return Ok(None) };
    let (line, rest) = input.split_at(end + 1);
    let line = line.trim_ascii_end();
    if !line.starts_with(b"MSG ") {
        ensure!(!line.starts_with(b"-ERR"), "said {}", String::from_utf8_lossy(line));
        let said = if line == b"PING" { Said::Ping } else { Said::Other };
        return Ok(Some((said, end + 1)));
    }
    // MSG subject subscription [reply] length
    let mut words = line.split(|it| *it == b' ').skip(3);
    let (third, fourth) = (words.next().unwrap_or_default(), words.next());
    let (reply, length) = fourth.map_or((&[][..], third), |length| (third, length));
    let length = str::from_utf8(length)?.parse::<usize>().context("the length of a message")?;
    let whole = length + END.len();
    if rest.len() < whole {
        return Ok(None);
    }
    let body = rest.get(..length).unwrap_or_default();
    Ok(Some((Said::Message { reply, body }, end + 1 + whole)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says() {
        let check = |text: &str, said: Option<(Said<'_>, usize)>| {
            assert_eq!(next(text.as_bytes()).unwrap(), said, "{text}");
        };
        let hi = Said::Message { reply: b"$JS.ACK.1", body: b"hi" };
        check("MSG a 1 $JS.ACK.1 2\r\nhi\r\nPING\r\n", Some((hi, 25)));
        check("MSG a 1 1\r\nh\r\n", Some((Said::Message { reply: b"", body: b"h" }, 14)));
        check("MSG a 1 1\r\nh\r", None);
        check("MSG a 1", None);
        check("PING\r\n", Some((Said::Ping, 6)));
        check("+OK\r\nPING\r\n", Some((Said::Other, 5)));
        assert!(next(b"-ERR 'no'\r\n").is_err());
        assert!(acknowledged(br#"{"stream":"a", "seq":1}"#).is_ok());
        assert!(acknowledged(br#"{"error":{"code":503}}"#).is_err());
    }
}
