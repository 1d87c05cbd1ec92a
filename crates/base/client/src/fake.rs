//! A server of a few lines for tests of this crate: objects by path, list, watch, faults on demand.
//! It validates and defaults nothing; what must behave like the API is tested against the real one.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Events that a watcher of the fake may be behind.
const BACKLOG: usize = 1024;

#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
}

struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    requests: Vec<String>,
    /// Answers to the next requests, instead of the right ones.
    refusals: Vec<u16>,
    events: broadcast::Sender<Option<Value>>,
}

impl Default for Server {
    fn default() -> Self {
        let state = State {
            revision: 0,
            objects: BTreeMap::new(),
            writes: Vec::new(),
            requests: Vec::new(),
            refusals: Vec::new(),
            events: broadcast::Sender::new(BACKLOG),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        crate::in_process(tower::service_fn(move |request| server.clone().answer(request)))
    }

    /// Sets the object at `path`, with the next revision.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let known = state.objects.insert(path.to_owned(), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        state.tell(json!({"type": kind, "object": object}));
    }

    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        let mut object = state.objects.remove(path).unwrap();
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        state.tell(json!({"type": "DELETED", "object": object}));
    }

    /// Sends one event as it is.
    pub(crate) fn tell(&self, event: Value) {
        self.state.lock().unwrap().tell(event);
    }

    /// Ends every watch.
    pub(crate) fn drop_watches(&self) {
        drop(self.state.lock().unwrap().events.send(None));
    }

    /// The next requests are answered with these codes.
    pub(crate) fn refuse(&self, codes: &[u16]) {
        self.state.lock().unwrap().refusals.extend(codes);
    }

    /// What was written, in order.
    pub(crate) fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// The lists (`list`) and watches (`watch REVISION`) that were asked for, in order; with the
    /// selector if there was one.
    pub(crate) fn reads(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    async fn answer(self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let revision = query.split('&').find_map(|it| it.strip_prefix("resourceVersion="));
        let selector = query.split('&').find(|it| it.contains("Selector="));
        let selector = selector.map(|it| format!("?{it}")).unwrap_or_default();
        Ok(match (parts.method, revision) {
            (Method::GET, Some(revision)) => self.watch(revision, &selector),
            (Method::GET, None) => self.list(path, &selector),
            (method, _) => self.write(&method, path, &body),
        })
    }

    fn list(&self, path: &str, selector: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("list{selector}"));
        if let Some(refusal) = state.refusal() {
            return refusal;
        }
        let prefix = format!("{path}/");
        let items = state.objects.iter().filter(|(path, _)| path.starts_with(&prefix));
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let revision = state.revision.to_string();
        whole(StatusCode::OK, &json!({"metadata": {"resourceVersion": revision}, "items": items}))
    }

    fn watch(&self, revision: &str, selector: &str) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.requests.push(format!("watch {revision}{selector}"));
        if let Some(refusal) = state.refusal() {
            return refusal;
        }
        let events = stream::unfold(state.events.subscribe(), |mut events| async move {
            let event = events.recv().await.ok()??;
            Some((Ok(http_body::Frame::data(Bytes::from(format!("{event}\n")))), events))
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }

    fn write(&self, method: &Method, path: &str, body: &[u8]) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap();
        let mut state = self.state.lock().unwrap();
        state.writes.push(format!("{method} {path} count={}", body["count"]));
        if method == Method::POST {
            let name = body["metadata"]["name"].as_str().unwrap();
            state.objects.insert(format!("{path}/{name}"), body.clone());
            return whole(StatusCode::CREATED, &body);
        }
        match state.objects.get(path) {
            Some(object) => whole(StatusCode::OK, object),
            None => refusal(404),
        }
    }
}

impl State {
    fn tell(&self, event: Value) {
        drop(self.events.send(Some(event)));
    }

    fn refusal(&mut self) -> Option<Answer> {
        if self.refusals.is_empty() { None } else { Some(refusal(self.refusals.remove(0))) }
    }
}

fn refusal(code: u16) -> Answer {
    let status = json!({"kind": "Status", "status": "Failure", "code": code, "message": "refused",
        "reason": "Refused"});
    whole(StatusCode::from_u16(code).unwrap(), &status)
}

fn whole(code: StatusCode, value: &Value) -> Answer {
    let body = http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}
