//! Which request is for what: pages and their forms, events, the API, the configuration.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::{
    ADDRESSES_MAX, Shared,
    actions::{Target, Verb},
    api::{self, Call},
    events, guard,
    notify::Asker,
    pages::{self, Page},
};
use crate::cli::{Level, Word};
use crate::web::{Body, Failure, Query, ReadError, Reply, decode, plain, read, v1};

/// Longest body: an action, or a list of addresses. The original's limit.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What a page may do: show what came from here. Nobody may frame it, and nothing in it can run that
/// did not come from here.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Files that pages need: name, type, content.
const ASSETS: &[(&str, &str, &str)] = &[
    ("nsqadmin.css", "text/css; charset=utf-8", include_str!("pages/nsqadmin.css")),
    ("nsqadmin.js", "text/javascript; charset=utf-8", include_str!("pages/nsqadmin.js")),
];

/// Answers a request.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let response = match guard::is_foreign(&head.method, &head.headers) {
        true => v1(Err(Failure::new(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN"))),
        false => match read(body, BODY_BYTES_MAX).await {
            Ok(body) => answer_to(shared, &head, body, peer).await,
            Err(ReadError::TooLong { .. }) => {
                v1(Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_VALUE")))
            }
            Err(_) => v1(Err(Failure::bad("INVALID_BODY"))),
        },
    };
    let status = response.status().as_u16();
    tracing::debug!(%peer, method = %head.method, path = head.uri.path(), status, "answered");
    response
}

async fn answer_to(
    shared: &Arc<Shared>,
    head: &request::Parts,
    body: Bytes,
    peer: SocketAddr,
) -> Response<Body> {
    let path = head.uri.path().strip_prefix(shared.base.as_str());
    let path = path.filter(|it| it.is_empty() || it.starts_with('/'));
    let pieces = path.map(|it| it.trim_start_matches('/').split('/').map(decode));
    let Some(Ok(pieces)) = pieces.map(Iterator::collect::<Result<Vec<String>, _>>) else {
        return v1(Err(Failure::no_path()));
    };
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let pieces = match pieces.as_slice() {
        [before @ .., ""] => before,
        all => all,
    };
    let query = head.uri.query().unwrap_or_default();
    let whole = head.uri.path_and_query().map_or("", |it| it.as_str());
    let asker = Asker::new(&head.headers, peer.to_string(), whole);
    let may_change = shared.admins.allow(&head.headers);
    let get = head.method == Method::GET;
    match pieces {
        ["ping"] if get => plain(Ok(Reply::Text("OK".into()))),
        ["api", path @ ..] => {
            let call = Call { method: &head.method, path, query, body, asker, may_change };
            v1(api::answer(shared, call).await)
        }
        ["config", option] => v1(config(shared, head, &body, peer, option)),
        ["static", name] if get => asset(name),
        ["events", path @ ..] if get => match Page::find(path) {
            Some(page) => events::answer(shared, page, may_change),
            None => v1(Err(Failure::no_path())),
        },
        ["ping"] | ["static", _] | ["events", ..] => v1(Err(Failure::method())),
        path => match Page::find(path) {
            None => v1(Err(Failure::no_path())),
            Some(page) => match head.method {
                Method::GET => page_of(shared, &page, may_change).await,
                Method::POST => submitted(shared, &page, &body, &asker, may_change).await,
                _ => v1(Err(Failure::method())),
            },
        },
    }
}

async fn page_of(shared: &Shared, page: &Page, may_change: bool) -> Response<Body> {
    let (status, text) = pages::whole(shared, page, may_change).await;
    html(status, text)
}

/// A document of HTML.
fn html(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = status;
    secure(response.headers_mut(), "text/html; charset=utf-8");
    response
}

/// Adds what every answer to a browser has.
pub(super) fn secure(headers: &mut HeaderMap, kind: &'static str) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn asset(name: &str) -> Response<Body> {
    let Some((_, kind, text)) = ASSETS.iter().find(|(it, ..)| *it == name) else {
        return plain(Err(Failure::no_path()));
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync());
    secure(response.headers_mut(), kind);
    response
}

/// A form of a page was sent: does it, and leads back to the page.
async fn submitted(
    shared: &Shared,
    page: &Page,
    body: &[u8],
    asker: &Asker,
    may_change: bool,
) -> Response<Body> {
    let done = match std::str::from_utf8(body).ok().map(Query::parse) {
        _ if !may_change => Err(Failure::new(StatusCode::FORBIDDEN, "FORBIDDEN")),
        Some(Ok(form)) => act(shared, page, &form, asker).await,
        _ => Err(Failure::bad("INVALID_BODY")),
    };
    match done {
        Ok(next) => {
            let mut response = html(StatusCode::SEE_OTHER, String::new());
            let next = HeaderValue::from_str(&next);
            let next = next.unwrap_or_else(|_| HeaderValue::from_static("/"));
            response.headers_mut().insert(header::LOCATION, next);
            response
        }
        Err(failure) => {
            html(failure.status, pages::failed(shared, page, &failure.message, may_change))
        }
    }
}

/// Does what a form asks for; gives the path of the page that is shown next.
async fn act(shared: &Shared, page: &Page, form: &Query, asker: &Asker) -> Result<String, Failure> {
    let action = form.get("action").unwrap_or_default();
    let here = || format!("{}{}", shared.base, page.path());
    let verb = if action == "delete" { Some(Verb::Delete) } else { Verb::parse(action) };
    let topic = form.get("topic").unwrap_or_default();
    let named = form.get("channel").filter(|it| !it.is_empty());
    match (page, action, verb) {
        (Page::Topic(topic), "tombstone", _) => {
            let node = form.get("node").unwrap_or_default();
            api::tombstoned(shared, asker, topic, node).await.map(|_| here())
        }
        (Page::Topic(topic), _, Some(verb)) => {
            api::changed(shared, asker, verb, Target { topic, channel: None }).await?;
            let gone = verb == Verb::Delete;
            Ok(if gone { format!("{}/", shared.base) } else { here() })
        }
        (Page::Channel(topic, channel), _, Some(verb)) => {
            let target = Target { topic, channel: Some(channel) };
            api::changed(shared, asker, verb, target).await?;
            let of_topic = || format!("{}{}", shared.base, Page::Topic(topic.clone()).path());
            Ok(if verb == Verb::Delete { of_topic() } else { here() })
        }
        (Page::Lookup, "create", _) => {
            api::created(shared, asker, topic, named).await.map(|_| here())
        }
        (Page::Lookup, "delete", Some(verb)) => {
            let target = Target { topic, channel: named };
            api::changed(shared, asker, verb, target).await.map(|_| here())
        }
        _ => Err(Failure::bad("INVALID_ACTION")),
    }
}

/// Reads and changes options of the running program.
fn config(
    shared: &Shared,
    head: &request::Parts,
    body: &[u8],
    peer: SocketAddr,
    option: &str,
) -> Result<Reply, Failure> {
    if shared.config_from.is_some_and(|it| !it.contains(peer)) {
        return Err(Failure::new(StatusCode::FORBIDDEN, "FORBIDDEN"));
    }
    let put = head.method == Method::PUT;
    if put && body.is_empty() {
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_VALUE"));
    }
    match (&head.method, option) {
        (&Method::PUT, "log_level") => {
            let word = String::from_utf8_lossy(body).to_ascii_lowercase();
            let level = Level::WORDS.iter().find(|(it, ..)| *it == word);
            let (_, level, _) = level.ok_or_else(|| Failure::bad("INVALID_VALUE"))?;
            shared.log_level.send_replace(*level);
        }
        (&Method::PUT, "nsqlookupd_http_addresses") => {
            let addresses = serde_json::from_slice::<Vec<String>>(body).ok();
            let addresses = addresses.filter(|it| it.len() <= ADDRESSES_MAX);
            let addresses = addresses.ok_or_else(|| Failure::bad("INVALID_VALUE"))?;
            tracing::info!(?addresses, "asks these nsqlookupds from now on");
            shared.set_lookupds(addresses);
        }
        (&Method::PUT, _) => return Err(Failure::bad("INVALID_OPTION")),
        (&Method::GET, _) => {}
        _ => return Err(Failure::method()),
    }
    let text = |it: &str| Ok(Reply::Text(it.to_owned().into()));
    match option {
        "nsqlookupd_http_addresses" => Ok(Reply::json(&shared.lookupds())),
        "log_level" => {
            let level = *shared.log_level.borrow();
            let number = Level::WORDS.iter().find(|(_, it, _)| *it == level);
            Ok(Reply::json(&number.and_then(|(.., number)| *number)))
        }
        "nsqd_http_addresses" => Ok(Reply::json(&shared.nsqds)),
        "admin_users" => Ok(Reply::json(&shared.admins.users)),
        "http_address" => text(&shared.http_address),
        "base_path" => text(if shared.base.is_empty() { "/" } else { &shared.base }),
        "acl_http_header" => text(&shared.admins.header),
        "notification_http_endpoint" => text(&shared.notification_http_endpoint),
        _ => Err(Failure::bad("INVALID_OPTION")),
    }
}
