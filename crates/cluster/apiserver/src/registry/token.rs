//! Where the next page of a list begins (`metadata.continue`): encoded as Kubernetes does it, and
//! refused in its words.

use api::status::Status;
use base64::{
    DecodeError, Engine as _, alphabet,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Revision;

use super::{Call, keys, options::At};
use crate::limits::CONTINUE_TIME_MAX;

/// As Go reads it: bits that are left over at the end are ignored.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

const VERSION: &str = "meta.k8s.io/v1";

/// What follows the last key of a page, so that the next one begins behind it.
const BEHIND: char = '\0';

/// The moment of a token that goes on with whatever is newest.
const NEWEST: i64 = -1;

/// What a client hears whose moment is no longer known.
const LOST_MOMENT: &str = "The provided continue parameter is too old to display a consistent \
    list result. You can start a new list without the continue parameter, or use the continue \
    token in this response to retrieve the remainder of the results. Continuing with the provided \
    token results in an inconsistent list - objects that were created, modified, or deleted \
    between the time the first chunk was returned and now may show up in the list.";

/// The token as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    v: String,
    /// Revision of the first page; negative means "whatever is newest".
    rv: i64,
    /// Last key of the page before, without the prefix of the collection, and [`BEHIND`].
    start: String,
    /// When the first page was made, in seconds since 1970; the original has no need for it, as its
    /// store forgets by itself.
    #[serde(skip_serializing_if = "is_zero")]
    at: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Which page comes next.
#[derive(Clone, Debug)]
pub(super) struct Resume {
    /// The key after which it begins.
    pub(super) after: Bytes,
    pub(super) at: At,
    /// When the first page was made.
    since: Timestamp,
}

impl Resume {
    /// Reads the token of a request.
    pub(super) fn read(call: &Call<'_>, token: &str, now: Timestamp) -> Result<Self, Status> {
        let written = decode(token)
            .map_err(|problem| Status::bad_request(format!("invalid continue token: {problem}")))?;
        let start = written.start.strip_suffix(BEHIND).unwrap_or(&written.start);
        let prefix = keys::collection(call.kind, call.namespace);
        let since = match written.at {
            0 => now,
            seconds => Timestamp::from_second(seconds).unwrap_or(now),
        };
        let resume = Self {
            after: [&prefix, start.as_bytes()].concat().into(),
            at: u64::try_from(written.rv).map_or(At::Newest, |it| At::Exactly(Revision::new(it))),
            since,
        };
        if resume.at != At::Newest && now.duration_since(since) > CONTINUE_TIME_MAX {
            return Err(resume.lost(call));
        }
        Ok(resume)
    }

    /// 410, with a token that goes on all the same.
    pub(super) fn lost(&self, call: &Call<'_>) -> Status {
        Status::expired(LOST_MOMENT).with_continue(&encode(call, &self.after, NEWEST, 0))
    }
}

/// The token of the page behind `after`, of the list that `resume` belongs to or that begins `now`.
pub(super) fn of_next_page(
    call: &Call<'_>,
    after: &[u8],
    moment: Revision,
    resume: Option<&Resume>,
    now: Timestamp,
) -> String {
    let since = resume.filter(|it| it.at != At::Newest).map_or(now, |it| it.since);
    let moment = i64::try_from(moment.get()).unwrap_or(i64::MAX);
    encode(call, after, moment, since.as_second())
}

fn encode(call: &Call<'_>, after: &[u8], rv: i64, at: i64) -> String {
    let prefix = keys::collection(call.kind, call.namespace);
    let start = after.get(prefix.len()..).unwrap_or_default();
    let start = format!("{}{BEHIND}", String::from_utf8_lossy(start));
    let written = Written { v: VERSION.to_owned(), rv, start, at };
    BASE64.encode(json!(written).to_string())
}

fn decode(token: &str) -> Result<Written, String> {
    const INVALID: &str = "continue key is not valid";
    let bytes = BASE64.decode(token).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) => at,
            DecodeError::InvalidLastSymbol { offset, .. } => offset,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => {
                token.len().saturating_sub(1)
            }
        };
        format!("{INVALID}: illegal base64 data at input byte {at}")
    })?;
    let written: Written =
        serde_json::from_slice(&bytes).map_err(|error| match first_illegal(&bytes) {
            Some(it) => {
                format!("{INVALID}: invalid character {it:?} looking for beginning of value")
            }
            None => format!("{INVALID}: {error}"),
        })?;
    if written.v != VERSION {
        let problem = "server does not recognize this encoded version";
        return Err(format!("{INVALID}: {problem} {}", written.v));
    }
    if written.rv == 0 {
        let problem = "incorrect encoded start resourceVersion";
        return Err(format!("{INVALID}: {problem} (version {VERSION})"));
    }
    if written.start.is_empty() {
        return Err(format!("{INVALID}: encoded start key empty (version {VERSION})"));
    }
    if !is_clean(&written.start) {
        return Err(format!("{INVALID}: {}", written.start));
    }
    Ok(written)
}

/// The first character of a text that begins no JSON value.
fn first_illegal(bytes: &[u8]) -> Option<char> {
    let first = *bytes.iter().find(|it| !it.is_ascii_whitespace())?;
    let begins = first.is_ascii_digit() || b"{[\"-tfn".contains(&first);
    if begins { None } else { Some(char::from(first)) }
}

/// Whether no part of a path is empty or leads elsewhere, so that it stays in its collection.
fn is_clean(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').all(|it| !matches!(it, "" | "." | ".."))
}
