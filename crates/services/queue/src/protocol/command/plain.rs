//! The short cut for a `FIN` as nearly all of them are, which is nearly all that a consumer sends.
//! Everything else, and whatever is wrong, goes the way of all commands.

use bytes::{Buf as _, BytesMut};

use super::Gate;
use crate::{message::MessageId, protocol::clients::State};

/// How many bytes it has with its id and a newline.
const LENGTH: usize = 4 + MessageId::LENGTH + 1;

/// Takes it from the beginning of `input`.
pub(super) fn fin(input: &mut BytesMut, gate: Gate) -> Option<MessageId> {
    let (id, end) = input.strip_prefix(b"FIN ")?.split_first_chunk::<{ MessageId::LENGTH }>()?;
    let plain = end.starts_with(b"\n") && id.iter().all(u8::is_ascii_alphanumeric);
    if !plain || gate.state == State::Init || gate.tls_missing {
        return None;
    }
    let id = MessageId(*id);
    input.advance(LENGTH);
    Some(id)
}
