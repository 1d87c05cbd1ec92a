//! The state at an earlier revision, made by undoing the events since. This is what makes the
//! pages of a long list parts of one moment, as long as the history reaches back.

use std::collections::BTreeMap;

use api::status::Status;
use bytes::Bytes;
use futures_util::FutureExt as _;
use store::{Entry, Page, Range, Revision, Store, WatchError};

/// A page of `range` as of `at`. 410 if that is no longer known.
pub(crate) fn range(store: &Store, range: Range<'_>, at: Revision) -> Result<Page, Status> {
    let mut undo = changes(store, range, at)?;
    loop {
        // Without changes the limit holds as it is; with some, keys move in and out of the page.
        let limit = if undo.is_empty() { range.limit } else { None };
        let page = store.range(Range { limit, ..range });
        let again = changes(store, range, at)?;
        // Equal sizes mean that no key changed for the first time between the two reads of the
        // changes, so that `page` differs from the past only in these keys.
        if again.len() == undo.len() {
            return Ok(undone(page, again, range.limit, at));
        }
        undo = again;
    }
}

/// What keys were at a revision, if they changed since; `None` for a key that was not there.
type Undo = BTreeMap<Bytes, Option<Entry>>;

fn undone(page: Page, undo: Undo, limit: Option<usize>, at: Revision) -> Page {
    if undo.is_empty() {
        return Page { revision: at, ..page };
    }
    let entries = page.entries.into_iter();
    let mut entries: BTreeMap<Bytes, Entry> = entries.map(|it| (it.key.clone(), it)).collect();
    for (key, before) in undo {
        match before {
            Some(entry) => drop(entries.insert(key, entry)),
            None => drop(entries.remove(&key)),
        }
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    let limit = limit.unwrap_or(usize::MAX);
    let remaining = entries.len().saturating_sub(limit);
    entries.truncate(limit);
    Page { revision: at, entries, remaining }
}

fn changes(store: &Store, range: Range<'_>, at: Revision) -> Result<Undo, Status> {
    let mut watch = store.watch(range.prefix, at).map_err(|error| match error {
        WatchError::Compacted { .. } => expired(),
        WatchError::Future { newest } => Status::too_large_resource_version(at.get(), newest.get()),
    })?;
    let mut undo = BTreeMap::new();
    while watch.has_next() {
        let Some(Some(event)) = watch.next().now_or_never() else { break };
        let event = event.map_err(|_| expired())?;
        if range.after.is_none_or(|it| event.entry.key.as_ref() > it) {
            undo.entry(event.entry.key.clone()).or_insert_with(|| event.previous.clone());
        }
    }
    Ok(undo)
}

fn expired() -> Status {
    Status::expired("The resourceVersion for the provided list is too old.")
}
