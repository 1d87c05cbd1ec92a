//! Frames, which is what a client gets: a size, a type, and what is in it.

use bytes::{BufMut as _, BytesMut};

use crate::message::{MessageId, MessageRef};

/// What is sent again and again to see whether a client is there.
pub(super) const HEARTBEAT: &[u8] = b"_heartbeat_";
/// Done.
pub(super) const OK: &[u8] = b"OK";
/// The answer to `CLS`.
pub(super) const CLOSE_WAIT: &[u8] = b"CLOSE_WAIT";

const RESPONSE: u32 = 0;
const ERROR: u32 = 1;
const MESSAGE: u32 = 2;
/// The type, which counts into the size.
const TYPE: usize = 4;
/// When, how often and which, before the body of a message.
const MESSAGE_HEADER: usize = 8 + 2 + MessageId::LENGTH;

/// Appends the answer to a command.
pub(super) fn response(out: &mut BytesMut, data: &[u8]) {
    header(out, RESPONSE, data.len());
    out.put_slice(data);
}

/// Appends why a command was refused.
pub(super) fn error(out: &mut BytesMut, text: &[u8]) {
    header(out, ERROR, text.len());
    out.put_slice(text);
}

/// Appends a message that is delivered for the `attempts`-th time.
pub(super) fn message(out: &mut BytesMut, message: MessageRef<'_>, id: MessageId, attempts: u16) {
    out.reserve(2 * TYPE + MESSAGE_HEADER + message.body.len());
    header(out, MESSAGE, MESSAGE_HEADER + message.body.len());
    out.put_i64(message.timestamp.0);
    out.put_u16(attempts);
    out.put_slice(&id.0);
    out.put_slice(message.body);
}

fn header(out: &mut BytesMut, kind: u32, length: usize) {
    // Nothing that is sent comes near four gigabytes: the largest message has a limit of that type.
    out.put_u32(u32::try_from(TYPE + length).unwrap_or(u32::MAX));
    out.put_u32(kind);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Nanos, Sequence};

    #[test]
    fn as_the_protocol_has_them() {
        let mut out = BytesMut::new();
        response(&mut out, OK);
        error(&mut out, b"E");
        assert_eq!(&out[..], b"\0\0\0\x06\0\0\0\0OK\0\0\0\x05\0\0\0\x01E");
        out.clear();
        let told = MessageRef {
            sequence: Sequence(1),
            timestamp: Nanos(0x0102),
            due: None,
            key: None,
            body: b"body",
        };
        message(&mut out, told, MessageId(*b"0123456789abcdef"), 3);
        let expected = b"\0\0\0\x22\0\0\0\x02\0\0\0\0\0\0\x01\x02\0\x030123456789abcdefbody";
        assert_eq!(&out[..], expected);
    }
}
