//! Watch: the events of a collection as a stream of values.
//!
//! The object in an event is the stored bytes; for plain JSON nothing is encoded per watcher. A
//! slow client holds no events of its own: they stay in the store's shared history, and when they
//! have left that, the watch ends with 410.

use std::{pin::Pin, sync::Arc, time::Duration};

use api::status::{Reason, Status};
use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use http::Response;
use serde_json::json;
use store::{Entry, Event, EventKind, Lagged, Revision, WatchError};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior, Sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Call, Registry,
    filter::Filter,
    options::{self, Begin, ListOptions},
    render::{Header, Renderer},
};
use crate::{
    http::{body::Body, content::Encoding, respond},
    kinds::Kind,
    limits::{BOOKMARK_PERIOD, WATCH_CHUNK_BYTES, WATCH_SECONDS},
    object,
};

impl Registry {
    /// `GET …?watch=1`.
    pub(crate) fn watch(self: &Arc<Self>, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let permit = Arc::clone(&self.watches).try_acquire_owned().map_err(|_| {
            Status::new(Reason::TooManyRequests, "too many watches are open").with_retry_after(1)
        })?;
        let options = ListOptions::read(&call.query)?;
        let filter = Filter::of(call.kind, &call.query, call.name)?;
        let seconds = match options.timeout_seconds {
            Some(0) | None => self.random(|it| it.u64(WATCH_SECONDS)),
            Some(seconds) => u64::try_from(seconds).unwrap_or(0),
        };
        let begin = options.begin()?;
        let encoding = call.wanted.streamed()?.encoding;
        let renderer = self.renderer(call)?;
        let prefix = filter.prefix(call.namespace);
        let (after, first, end) = match begin {
            Begin::After(revision) => (revision, Vec::new(), false),
            Begin::Now => (self.store.revision(), Vec::new(), false),
            Begin::State { not_older_than, end } => {
                let page = self.store.range(store::Range::prefix(&prefix));
                if let Err(status) = options::check_reached(not_older_than, page.revision) {
                    return Ok(failed(renderer, encoding, &status));
                }
                let selected = page.entries.into_iter().filter(|it| filter.selects(it));
                (page.revision, selected.collect(), end)
            }
        };
        let events = match self.store.watch(&prefix, after) {
            Ok(events) => events,
            Err(WatchError::Future { newest }) => {
                return Err(Status::too_large_resource_version(after.get(), newest.get()));
            }
            Err(WatchError::Compacted { oldest }) => {
                return Ok(failed(renderer, encoding, &too_old(after, oldest)));
            }
        };
        let mut bookmark =
            tokio::time::interval_at(Instant::now() + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
        bookmark.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let state = Watching {
            registry: Arc::clone(self),
            kind: call.kind,
            filter,
            renderer,
            header: Header::Shown,
            first: first.into_iter(),
            end: end.then_some(after),
            events,
            bookmarks: options.bookmarks,
            bookmark,
            deadline: Box::pin(tokio::time::sleep(Duration::from_secs(seconds))),
            stop: self.stop.clone(),
            ended: false,
            sent: 0,
            _permit: permit,
        };
        let chunks = stream::unfold(state, |mut state| async move {
            let chunk = state.chunk().await?;
            Some((chunk, state))
        });
        Ok(respond::stream(encoding, Body::chunks(chunks)))
    }
}

/// A watch that is being sent.
struct Watching {
    registry: Arc<Registry>,
    kind: &'static Kind,
    filter: Filter,
    renderer: Renderer,
    header: Header,
    first: std::vec::IntoIter<Entry>,
    /// Revision of the bookmark that ends the initial events, until it was sent.
    end: Option<Revision>,
    events: store::Watch,
    bookmarks: bool,
    bookmark: Interval,
    deadline: Pin<Box<Sleep>>,
    stop: CancellationToken,
    ended: bool,
    /// Events of the chunk that is being made.
    sent: u64,
    _permit: OwnedSemaphorePermit,
}

/// Why the watch woke up.
enum Woken {
    Event(Option<Result<Arc<Event>, Lagged>>),
    Bookmark,
    Deadline,
    Stopped,
}

impl Watching {
    /// The next piece of the body; `None` at its end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let mut chunk = Vec::new();
        self.initial(&mut chunk);
        while chunk.is_empty() {
            if self.ended {
                return None;
            }
            match self.woken().await {
                Woken::Event(event) => self.take(event, &mut chunk),
                Woken::Bookmark => self.put_bookmark(&mut chunk),
                Woken::Deadline => {
                    self.ended = true;
                    self.put_bookmark(&mut chunk);
                }
                Woken::Stopped => self.ended = true,
            }
        }
        // What else is there already goes with it, up to a limit.
        while chunk.len() < WATCH_CHUNK_BYTES && !self.ended && self.first.len() == 0 {
            match self.events.next().now_or_never() {
                Some(event) => self.take(event, &mut chunk),
                None => break,
            }
        }
        self.registry.metrics.sent(self.kind, std::mem::take(&mut self.sent));
        Some(chunk.into())
    }

    async fn woken(&mut self) -> Woken {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Stopped,
            () = &mut self.deadline => Woken::Deadline,
            event = self.events.next() => Woken::Event(event),
            _ = self.bookmark.tick(), if self.bookmarks => Woken::Bookmark,
        }
    }

    fn initial(&mut self, chunk: &mut Vec<u8>) {
        while chunk.len() < WATCH_CHUNK_BYTES {
            let Some(entry) = self.first.next() else {
                if let Some(revision) = self.end.take() {
                    let bookmark = self.renderer.bookmark(revision, true);
                    self.renderer.put_event(chunk, "BOOKMARK", bookmark.to_string().as_bytes());
                    self.sent += 1;
                }
                return;
            };
            self.put_object(chunk, "ADDED", &entry.value);
        }
    }

    fn put_bookmark(&mut self, chunk: &mut Vec<u8>) {
        if let (true, Some(revision)) = (self.bookmarks, self.events.progress()) {
            let bookmark = self.renderer.bookmark(revision, false);
            self.renderer.put_event(chunk, "BOOKMARK", bookmark.to_string().as_bytes());
            self.sent += 1;
        }
    }

    fn take(&mut self, event: Option<Result<Arc<Event>, Lagged>>, chunk: &mut Vec<u8>) {
        match event {
            None => self.ended = true,
            Some(Err(lagged)) => {
                self.ended = true;
                let message = format!("the watch has fallen behind; oldest is {}", lagged.oldest);
                put_failure(self.renderer, chunk, &Status::expired(message));
                self.sent += 1;
            }
            Some(Ok(event)) => self.put_event(chunk, &event),
        }
    }

    /// Writes an event as the watcher sees it: an object that begins or ceases to be selected is
    /// added or deleted for it.
    fn put_event(&mut self, chunk: &mut Vec<u8>, event: &Event) {
        let selects = |it: &Entry| self.filter.selects(it);
        let before = event.previous.as_ref().is_some_and(selects);
        match event.kind {
            EventKind::Delete if before => self.put_object(chunk, "DELETED", &event.entry.value),
            EventKind::Delete => {}
            EventKind::Put => match (before, selects(&event.entry)) {
                (false, true) => self.put_object(chunk, "ADDED", &event.entry.value),
                (true, true) => self.put_object(chunk, "MODIFIED", &event.entry.value),
                (true, false) => self.put_left(chunk, event),
                (false, false) => {}
            },
        }
    }

    /// The last selected state, at the revision of the event by which the object left.
    fn put_left(&mut self, chunk: &mut Vec<u8>, event: &Event) {
        let Some(previous) = &event.previous else { return };
        match object::parse_whole(&previous.value) {
            Ok(mut value) => {
                let version = json!(event.revision().to_string());
                object::set(&mut value, &["metadata", "resourceVersion"], version);
                self.put_object(chunk, "DELETED", &value.to_string().into());
            }
            Err(status) => {
                put_failure(self.renderer, chunk, &status);
                self.sent += 1;
            }
        }
    }

    fn put_object(&mut self, chunk: &mut Vec<u8>, kind: &str, value: &Bytes) {
        let renderer = self.renderer.at(self.registry.clock.now());
        match renderer.object(value, self.header) {
            Ok(text) => renderer.put_event(chunk, kind, &text),
            Err(status) => put_failure(renderer, chunk, &status),
        }
        self.header = Header::Left;
        self.sent += 1;
    }
}

/// A watch that is nothing but a failure: what is found wrong after the parameters were read is told
/// as an event.
fn failed(renderer: Renderer, encoding: Encoding, status: &Status) -> Response<Body> {
    let mut chunk = Vec::new();
    put_failure(renderer, &mut chunk, status);
    respond::stream(encoding, Body::whole(chunk.into()))
}

fn put_failure(renderer: Renderer, chunk: &mut Vec<u8>, status: &Status) {
    renderer.put_event(chunk, "ERROR", status.to_json().to_string().as_bytes());
}

fn too_old(asked: Revision, oldest: Revision) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}
