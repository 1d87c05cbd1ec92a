//! The protocol as bytes: commands for nsqd, and the frames that it sends. Knows no socket.

use std::{fmt, io, time::Duration};

/// What a client says first.
pub(super) const MAGIC: &[u8] = b"  V2";
/// The answer to a heartbeat.
pub(super) const NOP: &[u8] = b"NOP\n";
/// "I want no more."
pub(super) const CLS: &[u8] = b"CLS\n";
/// The answer to [`CLS`], after the last message.
pub(super) const CLOSE_WAIT: &[u8] = b"CLOSE_WAIT";

/// Largest frame that is read, in bytes. nsqd's own limit of a message is 1 MiB.
const FRAME_MAX: usize = 5 << 20;
/// The size of a frame, which stands first.
const SIZE_BYTES: usize = 4;
/// The type of a frame, which its size includes.
const TYPE_BYTES: usize = 4;

/// The name that nsqd has given to a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id([u8; 16]);

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub id: Id,
    /// How often it was sent to some consumer, this time included.
    pub attempts: u16,
    pub body: Vec<u8>,
}

/// What nsqd sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// To be answered with [`NOP`], or else nsqd ends the connection.
    Heartbeat,
    /// The answer to a command.
    Response(Vec<u8>),
    /// The other answer to a command, such as `E_BAD_TOPIC PUB topic name …`.
    Error(String),
    Message(Message),
}

impl Frame {
    /// Takes the first frame off `bytes`, or nothing while it has not arrived completely.
    pub(super) fn take(bytes: &mut Vec<u8>) -> io::Result<Option<Self>> {
        let Some((size, rest)) = bytes.split_first_chunk::<SIZE_BYTES>() else { return Ok(None) };
        let size = u32::from_be_bytes(*size) as usize;
        if !(TYPE_BYTES..=FRAME_MAX).contains(&size) {
            return Err(invalid(format!("a frame of {size} bytes")));
        }
        let Some(content) = rest.get(..size) else { return Ok(None) };
        let frame = Self::read(content)?;
        bytes.drain(..SIZE_BYTES + size);
        Ok(Some(frame))
    }

    fn read(content: &[u8]) -> io::Result<Self> {
        match content.split_first_chunk::<TYPE_BYTES>() {
            Some(([0, 0, 0, 0], b"_heartbeat_")) => Ok(Self::Heartbeat),
            Some(([0, 0, 0, 0], data)) => Ok(Self::Response(data.to_vec())),
            Some(([0, 0, 0, 1], data)) => Ok(Self::Error(String::from_utf8_lossy(data).into())),
            Some(([0, 0, 0, 2], data)) => Message::read(data).map(Self::Message),
            _ => Err(invalid("a frame of an unknown type".to_owned())),
        }
    }
}

impl Message {
    /// After the time of publishing, which nobody here asks for, come attempts, name and body.
    fn read(data: &[u8]) -> io::Result<Self> {
        let parts = || {
            let (_published, data) = data.split_first_chunk::<8>()?;
            let (attempts, data) = data.split_first_chunk::<2>()?;
            let (id, body) = data.split_first_chunk::<16>()?;
            let attempts = u16::from_be_bytes(*attempts);
            Some(Self { id: Id(*id), attempts, body: body.to_vec() })
        };
        parts().ok_or_else(|| invalid("half a message".to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(super) fn identify(settings: &[u8]) -> Vec<u8> {
    with_body("IDENTIFY", settings)
}

pub(super) fn publish(topic: &str, body: &[u8]) -> Vec<u8> {
    with_body(&format!("PUB {topic}"), body)
}

pub(super) fn subscribe(topic: &str, channel: &str) -> Vec<u8> {
    format!("SUB {topic} {channel}\n").into_bytes()
}

/// "Send me messages, but not more than `count` that I have not answered."
pub(super) fn ready(count: u32) -> Vec<u8> {
    format!("RDY {count}\n").into_bytes()
}

/// "I am done with it."
pub(super) fn finish(id: Id) -> Vec<u8> {
    format!("FIN {id}\n").into_bytes()
}

/// "Send it again after `delay`, to me or to another."
pub(super) fn requeue(id: Id, delay: Duration) -> Vec<u8> {
    format!("REQ {id} {}\n", delay.as_millis()).into_bytes()
}

/// "I am still at it": without a word, nsqd takes a message for lost after a minute.
pub(super) fn touch(id: Id) -> Vec<u8> {
    format!("TOUCH {id}\n").into_bytes()
}

fn with_body(command: &str, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    [command.as_bytes(), b"\n", &length, body].concat()
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("nsqd sent {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &[u8] = b"0123456789abcdef";

    fn frame(kind: u8, data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(TYPE_BYTES + data.len()).unwrap();
        [&size.to_be_bytes()[..], &[0, 0, 0, kind], data].concat()
    }

    fn message(body: &[u8]) -> Vec<u8> {
        frame(2, &[&[0; 8][..], &[0, 3], ID, body].concat())
    }

    #[test]
    fn frames_arrive_in_pieces() {
        let all = [frame(0, b"OK"), frame(0, b"_heartbeat_"), message(b"[1]"), frame(1, b"E_X no")];
        let mut bytes = Vec::new();
        let mut seen = Vec::new();
        for byte in all.concat() {
            bytes.push(byte);
            seen.extend(Frame::take(&mut bytes).unwrap());
        }
        let id = Id(*ID.first_chunk().unwrap());
        let expected = [
            Frame::Response(b"OK".to_vec()),
            Frame::Heartbeat,
            Frame::Message(Message { id, attempts: 3, body: b"[1]".to_vec() }),
            Frame::Error("E_X no".to_owned()),
        ];
        assert_eq!(seen, expected);
        assert!(bytes.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        let half = frame(2, b"half");
        for bytes in [&[0, 0, 0, 3, 0, 0, 0][..], b"HTTP/1.1 400", &frame(7, b""), &half] {
            assert!(Frame::take(&mut bytes.to_vec()).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn commands() {
        let id = Id(*ID.first_chunk().unwrap());
        assert_eq!(publish("data", b"[1]"), b"PUB data\n\0\0\0\x03[1]");
        assert_eq!(subscribe("data", "worker"), b"SUB data worker\n");
        assert_eq!(ready(7), b"RDY 7\n");
        assert_eq!(finish(id), b"FIN 0123456789abcdef\n");
        assert_eq!(requeue(id, Duration::from_secs(2)), b"REQ 0123456789abcdef 2000\n");
        assert_eq!(touch(id), b"TOUCH 0123456789abcdef\n");
    }
}
