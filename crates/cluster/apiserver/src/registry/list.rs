//! Get and list.

use api::status::{Reason, Status};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use store::{Entry, Page, Range, Revision};

use super::{
    Call, Registry,
    filter::Filter,
    options::{self, At, ListOptions},
    past,
    render::{Header, Renderer},
    token::{self, Resume},
};
use crate::http::{
    body::Body,
    content::{Encoding, Form},
    respond,
};

/// Entries looked at together while a page is filled through selectors.
const SCAN_ENTRIES: usize = 1_000;

/// What was found, and where to go on.
pub(crate) struct Found {
    pub(crate) revision: Revision,
    pub(crate) entries: Vec<Entry>,
    /// Last key looked at, if there is more after it.
    more_after: Option<Bytes>,
    /// How many more there are; not known when selectors are at work.
    remaining: Option<usize>,
    /// The token that led here, if one did.
    resume: Option<Resume>,
}

impl Registry {
    /// `GET …/NAME`. The bytes in the store are the answer.
    pub(crate) fn get(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        options::check_reached(options::get_version(&call.query)?, self.store.revision())?;
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
        let metadata = self.list_metadata(call, &found);
        let renderer = self.renderer(call)?;
        if call.wanted.encoding == Encoding::Json && Renderer::is_long(&found.entries) {
            let head = renderer.head(&metadata, Header::Shown)?;
            return Ok(respond::long(renderer.in_pieces(head, found.entries)));
        }
        let values = found.entries.iter().map(|it| &it.value);
        renderer.list(&metadata, values)
    }

    /// What a list says of itself.
    pub(crate) fn list_metadata(&self, call: &Call<'_>, found: &Found) -> Value {
        let mut metadata = json!({"resourceVersion": found.revision.to_string()});
        if let Some(after) = &found.more_after {
            let (resume, now) = (found.resume.as_ref(), self.clock.now());
            let token = token::of_next_page(call, after, found.revision, resume, now);
            crate::object::set(&mut metadata, &["continue"], json!(token));
            if let Some(remaining) = found.remaining {
                crate::object::set(&mut metadata, &["remainingItemCount"], json!(remaining));
            }
        }
        metadata
    }

    /// The objects a list is about.
    pub(crate) fn find(&self, call: &Call<'_>) -> Result<Found, Status> {
        let options = ListOptions::read(&call.query)?;
        let filter = Filter::of(call.kind, &call.query, call.name)?;
        let limit = options.limit();
        let prefix = filter.prefix(call.namespace);
        let resume = options.resume.map(|it| Resume::read(call, it, self.clock.now()));
        let resume = resume.transpose()?;
        if resume.is_some() && options.has_version() {
            return Err(Status::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let at = match &resume {
            None => options.at(filter.is_one_name())?,
            Some(resume) => resume.at,
        };
        if let At::NotOlderThan(it) = at {
            options::check_reached(it, self.store.revision())?;
        }
        let start =
            Start { prefix: &prefix, after: resume.as_ref().map(|it| it.after.clone()), at };
        let found = if filter.is_everything() {
            self.page(&start, limit).map(Found::from)
        } else {
            self.scan(start, &filter, limit)
        };
        match (found, resume) {
            (Err(status), Some(resume)) if status.reason() == Reason::Expired => {
                Err(resume.lost(call))
            }
            (found, resume) => Ok(Found { resume, ..found? }),
        }
    }

    fn page(&self, start: &Start<'_>, limit: Option<usize>) -> Result<Page, Status> {
        let range = Range { prefix: start.prefix, after: start.after.as_deref(), limit };
        match start.at {
            At::Exactly(revision) => past::range(&self.store, range, revision),
            At::Newest | At::NotOlderThan(_) => Ok(self.store.range(range)),
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
            if full || exhausted {
                let more = more_here || !exhausted;
                let more_after = entries.last().filter(|_| more).map(|it| it.key.clone());
                let revision = page.revision;
                return Ok(Found { revision, entries, more_after, remaining: None, resume: None });
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
            resume: None,
        }
    }
}
