//! Tells an HTTP endpoint of what people have done (`-notification-http-endpoint`). Best effort, as
//! in the original: nothing waits for it, and what cannot be told is logged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::web::{Chain, Client};

/// Notices that wait to be told; beyond, they are dropped. A person does not do so much.
const WAITING_MAX: usize = 256;

/// Who asked for something.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker {
    pub(super) user: String,
    pub(super) remote_ip: String,
    pub(super) user_agent: String,
    pub(super) url: String,
}

impl Asker {
    /// Who sent a request for `path`, with its query, from `remote`.
    pub(super) fn new(headers: &HeaderMap, remote: String, path: &str) -> Self {
        let text = |name: header::HeaderName| {
            headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default()
        };
        let secure = headers.get("x-scheme").is_some_and(|it| it == "https");
        let scheme = if secure { "https" } else { "http" };
        Self {
            user: user(text(header::AUTHORIZATION)).unwrap_or_default(),
            remote_ip: remote,
            user_agent: text(header::USER_AGENT).to_owned(),
            url: format!("{scheme}://{}{path}", text(header::HOST)),
        }
    }
}

/// The user of basic authentication.
fn user(authorization: &str) -> Option<String> {
    let decoded = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
    let pair = String::from_utf8(decoded).ok()?;
    Some(pair.split_once(':')?.0.to_owned())
}

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Notice {
    pub(super) action: String,
    pub(super) topic: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) channel: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) node: String,
    pub(super) timestamp: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user: String,
    pub(super) remote_ip: String,
    pub(super) user_agent: String,
    pub(super) url: String,
    pub(super) via: String,
}

/// Where notices go.
#[derive(Clone, Debug)]
pub(super) struct Notices(mpsc::Sender<Notice>);

/// Where they come from, for the task that tells them.
pub(super) type Told = mpsc::Receiver<Notice>;

impl Notices {
    /// A queue of notices.
    pub(super) fn new() -> (Self, Told) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has a notice told.
    pub(super) fn add(&self, notice: Notice) {
        if let Err(error) = self.0.try_send(notice) {
            tracing::error!(%error, "a notice is not told");
        }
    }
}

/// Where an endpoint is: `http://host[:port]/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    address: String,
    path: String,
}

impl Endpoint {
    /// The endpoint at `url`; `None` if it is not one of plain HTTP.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("http://")?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, path) = rest.split_at_checked(at)?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, it)| it.parse::<u16>().is_ok());
        if host.is_empty() {
            return None;
        }
        let address = if has_port { host.to_owned() } else { format!("{host}:80") };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Some(Self { address, path: format!("{slash}{path}") })
    }
}

/// Tells notices, one after the other, for as long as there can be any.
pub(super) async fn tell(mut notices: Told, endpoint: Endpoint, client: Client) {
    while let Some(notice) = notices.recv().await {
        let body = match serde_json::to_vec(&notice) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                tracing::error!(%error, "a notice cannot be written");
                continue;
            }
        };
        let Endpoint { address, path } = &endpoint;
        if let Err(error) = client.ask(Method::POST, address, path, body).await {
            tracing::error!(endpoint = address, error = %Chain(&error), "a notice is not told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let endpoint = |address: &str, path: &str| {
            Some(Endpoint { address: address.to_owned(), path: path.to_owned() })
        };
        assert_eq!(Endpoint::parse("http://h:81/a?b"), endpoint("h:81", "/a?b"));
        assert_eq!(Endpoint::parse("http://h"), endpoint("h:80", "/"));
        assert_eq!(Endpoint::parse("http://[::1]/x"), endpoint("[::1]:80", "/x"));
        assert_eq!(Endpoint::parse("https://h/"), None);
        assert_eq!(Endpoint::parse("h:81"), None);
    }

    #[test]
    fn the_user_is_who_signed_in() {
        assert_eq!(user("Basic YW5uOnNlY3JldA=="), Some("ann".to_owned()));
        assert_eq!(user("Bearer YW5uOnNlY3JldA=="), None);
        assert_eq!(user("Basic !"), None);
    }
}
