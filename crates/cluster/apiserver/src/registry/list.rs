//! Get and list.

use api::status::{Reason, Status};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::{Entry, Page, Range, Revision};

use super::{
    Call, Registry,
    filter::Filter,
    keys, past,
    render::Header,
    revision::{self, At},
};
use crate::http::{
    body::Body,
    content::{Encoding, Form},
    respond,
};

/// Entries looked at together while a page is filled through selectors.
const SCAN_ENTRIES: usize = 1_000;

/// Where the next page begins (`metadata.continue`), as Kubernetes encodes it.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// Revision of the first page; negative means "whatever is newest".
    rv: i64,
    /// Last key of the page before, without the prefix of the collection.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The moment of a token that goes on with whatever is newest.
const NEWEST: i64 = -1;

/// What a client hears whose moment is no longer known; Kubernetes' words.
const LOST_MOMENT: &str = "The provided continue parameter is too old to display a consistent \
    list result. You can start a new list without the continue parameter, or use the continue \
    token in this response to retrieve the remainder of the results. Continuing with the provided \
    token results in an inconsistent list - objects that were created, modified, or deleted \
    between the time the first chunk was returned and now may show up in the list.";

/// What was found, and where to go on.
pub(crate) struct Found {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
    /// Last key looked at, if there is more after it.
    more_after: Option<Bytes>,
    /// How many more there are; not known when selectors are at work.
    remaining: Option<usize>,
}

impl Registry {
    /// `GET …/NAME`. The bytes in the store are the answer.
    pub(crate) fn get(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        if let At::NotOlderThan(at) | At::Exactly(at) = revision::at(&call.query)? {
            revision::check_reached(at, self.store.revision())?;
        }
        let entry = self.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let stored = call.kind.conversion.is_none();
        if stored && call.wanted.form == Form::Object && call.wanted.encoding == Encoding::Json {
            return Ok(respond::json(StatusCode::OK, entry.value));
        }
        let text = self.renderer(call)?.object(&entry.value, Header::Shown)?;
        respond::encoded(StatusCode::OK, call.wanted.encoding, text)
    }

    /// `GET` of a collection.
    pub(crate) fn list(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let found = self.find(call)?;
        let mut metadata = json!({"resourceVersion": found.revision.to_string()});
        if let Some(after) = &found.more_after {
            let moment = i64::try_from(found.revision.get()).unwrap_or(i64::MAX);
            let token = token(call, after, moment);
            crate::object::set(&mut metadata, &["continue"], json!(token));
            if let Some(remaining) = found.remaining {
                crate::object::set(&mut metadata, &["remainingItemCount"], json!(remaining));
            }
        }
        let values = found.entries.iter().map(|it| &it.value);
        let text = self.renderer(call)?.list(&metadata, values)?;
        respond::encoded(StatusCode::OK, call.wanted.encoding, text)
    }

    /// The objects a list is about.
    pub(crate) fn find(&self, call: &Call<'_>) -> Result<Found, Status> {
        let filter = Filter::of(call.kind, &call.query, call.name)?;
        let limit = call.query.number::<i64>("limit")?.unwrap_or(0);
        let limit = usize::try_from(limit).ok().filter(|it| *it > 0);
        let prefix = filter.prefix(call.namespace);
        let (at, after) = match call.query.get("continue") {
            None => (revision::at(&call.query)?, None),
            Some(token) => continued(call, token)?,
        };
        match at {
            At::NotOlderThan(it) => revision::check_reached(it, self.store.revision())?,
            At::Newest | At::Any | At::Exactly(_) => {}
        }
        let start = Start { prefix: &prefix, after: after.clone(), at };
        let found = if filter.is_everything() {
            self.page(&start, limit).map(Found::from)
        } else {
            self.scan(start, &filter, limit)
        };
        found.map_err(|status| match after {
            Some(after) if status.reason() == Reason::Expired => {
                Status::expired(LOST_MOMENT).with_continue(&token(call, &after, NEWEST))
            }
            _ => status,
        })
    }

    fn page(&self, start: &Start<'_>, limit: Option<usize>) -> Result<Page, Status> {
        let range = Range { prefix: start.prefix, after: start.after.as_deref(), limit };
        match start.at {
            At::Exactly(revision) => past::range(&self.store, range, revision),
            At::Newest | At::Any | At::NotOlderThan(_) => Ok(self.store.range(range)),
        }
    }

    /// Fills a page with what the filter selects.
    fn scan(
        &self,
        mut start: Start<'_>,
        filter: &Filter,
        limit: Option<usize>,
    ) -> Result<Found, Status> {
        let mut entries = Vec::new();
        let wanted = limit.unwrap_or(usize::MAX);
        loop {
            let page = self.page(&start, limit.map(|_| SCAN_ENTRIES))?;
            let last = page.entries.last().map(|it| it.key.clone());
            let exhausted = page.remaining == 0;
            let mut selected = page.entries.into_iter().filter(|it| filter.selects(it));
            entries.extend(selected.by_ref().take(wanted - entries.len()));
            let full = entries.len() == wanted;
            // A token that leads to an empty page is allowed, so nothing is looked at ahead.
            let more_here = full && selected.next().is_some();
            if full && (more_here || !exhausted) {
                let more_after = entries.last().map(|it| it.key.clone());
                return Ok(Found { revision: page.revision, entries, more_after, remaining: None });
            }
            if exhausted {
                return Ok(Found {
                    revision: page.revision,
                    entries,
                    more_after: None,
                    remaining: None,
                });
            }
            // The scan goes on at the revision at which it began.
            start = Start { after: last, at: At::Exactly(page.revision), ..start };
        }
    }
}

struct Start<'a> {
    prefix: &'a [u8],
    after: Option<Bytes>,
    at: At,
}

impl From<Page> for Found {
    fn from(page: Page) -> Self {
        let more = page.remaining > 0;
        let last = page.entries.last().map(|it| it.key.clone());
        Self {
            revision: page.revision,
            entries: page.entries,
            more_after: last.filter(|_| more),
            remaining: Some(page.remaining),
        }
    }
}

/// A token that goes on after a key, as of a moment.
fn token(call: &Call<'_>, after: &[u8], moment: i64) -> String {
    let prefix = keys::collection(call.kind, call.namespace);
    let start = after.get(prefix.len()..).unwrap_or_default();
    let token = Token {
        v: TOKEN_VERSION.to_owned(),
        rv: moment,
        start: String::from_utf8_lossy(start).into_owned(),
    };
    BASE64_URL_SAFE_NO_PAD.encode(json!(token).to_string())
}

/// Reads a token: the moment and the key to go on after.
fn continued(call: &Call<'_>, token: &str) -> Result<(At, Option<Bytes>), Status> {
    let prefix = keys::collection(call.kind, call.namespace);
    if call.query.get("resourceVersion").is_some_and(|it| it != "0") {
        return Err(Status::bad_request(
            "specifying resource version is not allowed when using continue",
        ));
    }
    let invalid = || Status::bad_request("continue key is not valid");
    let token = token.trim_end_matches('=');
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
    let token: Token = serde_json::from_slice(&decoded).map_err(|_| invalid())?;
    if token.v != TOKEN_VERSION || token.start.contains("..") || token.start.starts_with('/') {
        return Err(invalid());
    }
    let at = u64::try_from(token.rv).map_or(At::Newest, |it| At::Exactly(Revision::new(it)));
    Ok((at, Some([&prefix, token.start.as_bytes()].concat().into())))
}
