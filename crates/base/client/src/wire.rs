//! List and watch as the API speaks them: requests, the framing of a watch, objects that cannot be
//! read. Does not know what is done with the objects.

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Limited};
use kube::{
    Client,
    client::Body,
    core::{ObjectMeta, Status},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::Key;

/// Largest answer to a list. A cluster of one machine stays far below; what is larger is refused
/// instead of exhausting the memory of the process.
const LIST_BYTES_MAX: usize = 512 << 20;

/// Largest event of a watch: objects are at most 1.5 MiB in etcd and 3 MiB in a request to the
/// original's server. What is larger ends the watch.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// How long the server keeps one watch open. The original's clients ask for 5 to 10 minutes to
/// spread load over several servers; here a longer one spares wake-ups.
pub(crate) const WATCH_SECONDS: u64 = 30 * 60;

/// Why a list or a watch did not deliver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The history before the asked position is gone: list again.
    #[error("position is too old: {0}")]
    Expired(String),
    /// The server answered with an error.
    #[error("server refused with {code}: {message}")]
    Refused { code: u16, message: String },
    /// No answer, or the connection broke.
    #[error("request failed")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is no list or no watch event.
    #[error("answer cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// A watch event of more than `EVENT_BYTES_MAX`.
    #[error("watch event is longer than {EVENT_BYTES_MAX} bytes")]
    TooLong,
}

/// One object, or what could still be read of one that does not fit its type.
#[derive(Debug)]
pub(crate) enum Item<K> {
    Read(Box<K>),
    Unreadable { key: Option<Key>, error: serde_json::Error },
}

/// All objects of a kind at one revision.
#[derive(Debug)]
pub(crate) struct List<K> {
    pub(crate) revision: String,
    pub(crate) items: Vec<Item<K>>,
}

/// One event of a watch.
#[derive(Debug)]
pub(crate) enum Event<K> {
    Applied(Item<K>),
    Deleted(Item<K>),
    /// Nothing happened up to `revision`.
    Bookmark {
        revision: String,
    },
}

impl<K: DeserializeOwned> Item<K> {
    fn parse(text: &RawValue) -> Self {
        match serde_json::from_str(text.get()) {
            Ok(object) => Self::Read(Box::new(object)),
            Err(error) => Self::Unreadable { key: key_of(text), error },
        }
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: NamedMeta,
}

#[derive(Deserialize)]
struct NamedMeta {
    namespace: Option<String>,
    name: String,
}

fn key_of(text: &RawValue) -> Option<Key> {
    let Named { metadata } = serde_json::from_str(text.get()).ok()?;
    Some(Key { namespace: metadata.namespace, name: metadata.name })
}

/// Reads all objects under the collection `path`, in one piece, so that they are of one revision.
/// The path may have a query that selects some.
pub(crate) async fn list<K: DeserializeOwned>(
    client: &Client,
    path: &str,
) -> Result<List<K>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ListMeta {
        resource_version: String,
    }
    #[derive(Deserialize)]
    struct Raw<'a> {
        metadata: ListMeta,
        // Servers written in Go say `null` for an empty list.
        #[serde(borrow)]
        items: Option<Vec<&'a RawValue>>,
    }
    let body = collect(get(client, path).await?).await?;
    let raw: Raw<'_> = serde_json::from_slice(&body)?;
    let items = raw.items.unwrap_or_default().into_iter().map(Item::parse).collect();
    Ok(List { revision: raw.metadata.resource_version, items })
}

/// An open watch.
#[derive(Debug)]
pub(crate) struct Watch {
    body: Body,
    lines: Lines,
}

/// Opens a watch of the collection `path`, as in [`list`], for what happens after `revision`.
pub(crate) async fn watch(client: &Client, path: &str, revision: &str) -> Result<Watch, Error> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!(
        "{path}{joint}watch=true&allowWatchBookmarks=true&resourceVersion={revision}\
         &timeoutSeconds={WATCH_SECONDS}"
    );
    Ok(Watch { body: get(client, &path).await?.into_body(), lines: Lines::default() })
}

impl Watch {
    /// The next event; `None` when the server has ended the watch.
    pub(crate) async fn next<K: DeserializeOwned>(&mut self) -> Result<Option<Event<K>>, Error> {
        loop {
            if let Some(line) = self.lines.next() {
                return parse_event(&line).map(Some);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Transport(error.into())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.lines.push(&data)?;
                    }
                }
            }
        }
    }
}

fn parse_event<K: DeserializeOwned>(line: &[u8]) -> Result<Event<K>, Error> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        r#type: String,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: ObjectMeta,
    }
    let raw: Raw<'_> = serde_json::from_slice(line)?;
    match raw.r#type.as_str() {
        "ADDED" | "MODIFIED" => Ok(Event::Applied(Item::parse(raw.object))),
        "DELETED" => Ok(Event::Deleted(Item::parse(raw.object))),
        "BOOKMARK" => {
            let bookmark: Bookmark = serde_json::from_str(raw.object.get())?;
            let revision = bookmark.metadata.resource_version.unwrap_or_default();
            Ok(Event::Bookmark { revision })
        }
        "ERROR" => {
            let status: Status = serde_json::from_str(raw.object.get())?;
            Err(refusal(status.code, status.message))
        }
        other => Err(Error::Refused { code: 0, message: format!("unknown watch event `{other}`") }),
    }
}

async fn get(client: &Client, path: &str) -> Result<Response<Body>, Error> {
    let request = Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| Error::Transport(error.into()))?;
    let response = client.send(request).await.map_err(|error| Error::Transport(Box::new(error)))?;
    if response.status().is_success() {
        return Ok(response);
    }
    let code = response.status().as_u16();
    let body = collect(response).await?;
    let message = match serde_json::from_slice::<Status>(&body) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    Err(refusal(code, message))
}

fn refusal(code: u16, message: String) -> Error {
    match code {
        410 => Error::Expired(message),
        code => Error::Refused { code, message },
    }
}

async fn collect(response: Response<Body>) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), LIST_BYTES_MAX).collect().await;
    Ok(body.map_err(Error::Transport)?.to_bytes())
}

/// Cuts a byte stream into lines.
#[derive(Debug, Default)]
struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Lines {
    fn push(&mut self, data: &[u8]) -> Result<(), Error> {
        if EVENT_BYTES_MAX < self.buffer.len() + data.len() && !data.contains(&b'\n') {
            return Err(Error::TooLong);
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let unsearched = self.buffer.get(self.searched..)?;
            let Some(found) = unsearched.iter().position(|it| *it == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + found + 1).freeze();
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    #[track_caller]
    fn check(chunks: &[&str], expect: Expect) {
        let mut lines = Lines::default();
        let mut shown = Vec::new();
        for chunk in chunks {
            lines.push(chunk.as_bytes()).unwrap();
            while let Some(line) = lines.next() {
                shown.push(match parse_event::<ConfigMap>(&line) {
                    Ok(Event::Applied(Item::Read(it))) => format!("applied {}", Key::of(&*it)),
                    Ok(Event::Deleted(Item::Read(it))) => format!("deleted {}", Key::of(&*it)),
                    Ok(Event::Applied(Item::Unreadable { key, .. })) => {
                        format!("unreadable {}", key.unwrap_or_default())
                    }
                    Ok(other) => format!("{other:?}"),
                    Err(error) => format!("error: {error}"),
                });
            }
        }
        expect.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn reads_events_cut_anywhere() {
        check(
            &[
                r#"{"type":"ADDED","object":{"metadata":{"namespace":"a","#,
                "\"name\":\"b\"}}}\n\n{\"type\":\"DELETED\",",
                "\"object\":{\"metadata\":{\"name\":\"c\"}}}\n",
                "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\"}}}\n",
            ],
            expect![[r#"
                applied a/b
                deleted c
                Bookmark { revision: "7" }"#]],
        );
    }

    #[test]
    fn one_malformed_object_is_one_event() {
        check(
            &["{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\"},\"data\":3}}\n"],
            expect!["unreadable x"],
        );
    }

    #[test]
    fn an_error_event_is_an_error() {
        check(
            &[
                "{\"type\":\"ERROR\",\"object\":{\"code\":410,\"message\":\"too old\"}}\n",
                "{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"oh\"}}\n",
                "nonsense\n",
            ],
            expect![[r#"
                error: position is too old: too old
                error: server refused with 500: oh
                error: answer cannot be read"#]],
        );
    }
}
