//! NSQ's protocol V2 as far as the benchmark needs it.

use std::net::SocketAddr;

use anyhow::{bail, ensure};
use bytes::{Buf as _, BytesMut};

use super::wire::Wire;

const RESPONSE: u32 = 0;
const MESSAGE: u32 = 2;
/// Of a message: when and how often, before its id.
const TIME_AND_ATTEMPTS: usize = 10;
const ID: usize = 16;
const HEARTBEAT: &[u8] = b"_heartbeat_";

/// Publishes the same batch again and again.
pub(super) struct Publisher {
    wire: Wire,
    command: Vec<u8>,
}

impl Publisher {
    pub(super) async fn connect(
        to: SocketAddr,
        topic: &str,
        batch: usize,
        bytes: usize,
    ) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(to).await?;
        wire.send(b"  V2").await?;
        Ok(Self { wire, command: publishing(topic, batch, bytes)? })
    }

    /// Publishes once, and waits until it is acknowledged.
    pub(super) async fn publish(&mut self) -> anyhow::Result<()> {
        self.wire.send(&self.command).await?;
        answered(&mut self.wire, b"OK").await
    }
}

/// `PUB` of one message, `MPUB` of more.
fn publishing(topic: &str, batch: usize, bytes: usize) -> anyhow::Result<Vec<u8>> {
    let size = u32::try_from(bytes)?.to_be_bytes();
    let message = [&size[..], &vec![b'm'; bytes]].concat();
    if batch == 1 {
        return Ok([format!("PUB {topic}\n").as_bytes(), &message].concat());
    }
    let body = u32::try_from(4 + batch * message.len())?.to_be_bytes();
    let count = u32::try_from(batch)?.to_be_bytes();
    let head = format!("MPUB {topic}\n");
    Ok([head.as_bytes(), &body, &count, &message.repeat(batch)].concat())
}

/// Waits for the next answer, which must be this one.
async fn answered(wire: &mut Wire, expected: &[u8]) -> anyhow::Result<()> {
    loop {
        if let Some((kind, data)) = frame(&mut wire.input) {
            if data == HEARTBEAT {
                wire.send(b"NOP\n").await?;
                continue;
            }
            let fits = kind == RESPONSE && data == expected;
            ensure!(fits, "answered {}", String::from_utf8_lossy(&data));
            return Ok(());
        }
        wire.more().await?;
    }
}

/// Takes the next frame, if it has arrived whole: its type, and what is in it.
fn frame(input: &mut BytesMut) -> Option<(u32, BytesMut)> {
    let length = usize::try_from(u32::from_be_bytes(*input.first_chunk()?)).ok()?;
    if input.len() < 4 + length {
        return None;
    }
    input.advance(4);
    let mut frame = input.split_to(length);
    Some((frame.get_u32(), frame))
}

/// Consumes a channel.
pub(super) struct Consumer {
    wire: Wire,
    answers: Vec<u8>,
}

impl Consumer {
    /// One that has subscribed and may have so many messages unanswered.
    pub(super) async fn connect(
        to: SocketAddr,
        topic: &str,
        channel: &str,
        unanswered: usize,
    ) -> anyhow::Result<Self> {
        let mut wire = Wire::connect(to).await?;
        let about = br#"{"client_id":"bench","user_agent":"bench"}"#;
        let size = u32::try_from(about.len())?.to_be_bytes();
        wire.send(&[b"  V2IDENTIFY\n", &size[..], about].concat()).await?;
        answered(&mut wire, b"OK").await?;
        wire.send(format!("SUB {topic} {channel}\n").as_bytes()).await?;
        answered(&mut wire, b"OK").await?;
        wire.send(format!("RDY {unanswered}\n").as_bytes()).await?;
        Ok(Self { wire, answers: Vec::new() })
    }

    /// Waits for messages and finishes all that have arrived; how many.
    pub(super) async fn consume(&mut self) -> anyhow::Result<u64> {
        self.wire.more().await?;
        let count = finish(&mut self.wire.input, &mut self.answers)?;
        self.wire.send(&self.answers).await?;
        self.answers.clear();
        Ok(count)
    }

    /// Keeps no memory for what may come.
    pub(super) fn rest(&mut self) {
        self.wire.rest();
    }
}

/// Takes all messages that have arrived whole and appends the commands that finish them.
fn finish(input: &mut BytesMut, answers: &mut Vec<u8>) -> anyhow::Result<u64> {
    let (mut count, mut done) = (0, 0);
    while let Some((size, rest)) = input.get(done..).and_then(|it| it.split_first_chunk::<4>()) {
        let length = usize::try_from(u32::from_be_bytes(*size))?;
        let Some(frame) = rest.get(..length) else { break };
        done += 4 + length;
        let Some((kind, data)) = frame.split_first_chunk::<4>() else { bail!("a short frame") };
        if u32::from_be_bytes(*kind) == MESSAGE {
            let id = data.get(TIME_AND_ATTEMPTS..TIME_AND_ATTEMPTS + ID);
            let Some(id) = id else { bail!("a short message") };
            answers.extend_from_slice(b"FIN ");
            answers.extend_from_slice(id);
            answers.push(b'\n');
            count += 1;
        } else if data == HEARTBEAT {
            answers.extend_from_slice(b"NOP\n");
        } else {
            bail!("said {}", String::from_utf8_lossy(data));
        }
    }
    input.advance(done);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u32, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(4 + data.len()).unwrap().to_be_bytes();
        [&size[..], &kind.to_be_bytes(), data].concat()
    }

    #[test]
    fn commands_of_a_publisher() {
        assert_eq!(publishing("t", 1, 2).unwrap(), b"PUB t\n\0\0\0\x02mm");
        let two = b"MPUB t\n\0\0\0\x0e\0\0\0\x02\0\0\0\x01m\0\0\0\x01m";
        assert_eq!(publishing("t", 2, 1).unwrap(), two);
    }

    #[test]
    fn finishes_what_is_there_whole() {
        let message = framed(MESSAGE, b"time....\0\x010123456789abcdefbody");
        let whole = [message.clone(), framed(RESPONSE, HEARTBEAT), message].concat();
        let mut answers = Vec::new();
        let mut input = BytesMut::from(&whole[..whole.len() - 1]);
        assert_eq!(finish(&mut input, &mut answers).unwrap(), 1);
        assert_eq!(answers, b"FIN 0123456789abcdef\nNOP\n");
        input.extend_from_slice(b"y");
        assert_eq!(finish(&mut input, &mut answers).unwrap(), 1);
        assert!(input.is_empty());
        let mut refused = BytesMut::from(&framed(1, b"E_INVALID")[..]);
        assert!(finish(&mut refused, &mut answers).is_err());
    }
}
