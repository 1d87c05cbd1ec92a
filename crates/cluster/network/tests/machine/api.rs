//! As much of an API server as the caches and the recorder of events need.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use client::Client;
use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Events that a watcher may be behind.
const BACKLOG: usize = 4096;

/// Path of the collection of Services.
pub(crate) const SERVICES: &str = "/api/v1/services";
/// Path of the collection of EndpointSlices.
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// Path of the collection of NetworkPolicies.
pub(crate) const POLICIES: &str = "/apis/networking.k8s.io/v1/networkpolicies";
/// Path of the collection of Namespaces.
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
/// Path of the collection of one namespace's ConfigMaps.
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
/// Path of the collection of Pods.
pub(crate) const PODS: &str = "/api/v1/pods";

/// Path of the collection of Nodes.
pub(crate) const NODES: &str = "/api/v1/nodes";

const COLLECTIONS: [&str; 7] = [SERVICES, SLICES, POLICIES, NAMESPACES, PODS, CONFIG_MAPS, NODES];

/// Objects by collection and name.
#[derive(Clone)]
pub(crate) struct Api(Arc<Mutex<State>>);

struct State {
    revision: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    events: broadcast::Sender<(&'static str, Value)>,
    recorded: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        let events = broadcast::Sender::new(BACKLOG);
        let (objects, recorded) = (BTreeMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { revision: 1, objects, events, recorded })))
    }
}

impl Api {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        client::in_process(tower::service_fn(move |request| api.clone().answer(request)))
    }

    /// Creates or replaces an object; unless it says otherwise, in the namespace `shop`.
    pub(crate) fn put(&self, collection: &'static str, name: &str, mut object: Value) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        object["metadata"]["name"] = name.into();
        let defaults = [("namespace", "shop".to_owned()), ("uid", format!("uid-{name}"))];
        for (field, default) in defaults {
            if object["metadata"][field].is_null() {
                object["metadata"][field] = default.into();
            }
        }
        if [NAMESPACES, NODES].contains(&collection) {
            object["metadata"].as_object_mut().unwrap().remove("namespace");
        }
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        let known = state.objects.insert((collection, name.to_owned()), object.clone()).is_some();
        let kind = if known { "MODIFIED" } else { "ADDED" };
        drop(state.events.send((collection, json!({"type": kind, "object": object}))));
    }

    pub(crate) fn has(&self, collection: &'static str, name: &str) -> bool {
        self.0.lock().unwrap().objects.contains_key(&(collection, name.to_owned()))
    }

    /// An object as it is.
    pub(crate) fn get(&self, collection: &'static str, name: &str) -> Value {
        self.0.lock().unwrap().objects[&(collection, name.to_owned())].clone()
    }

    pub(crate) fn delete(&self, collection: &'static str, name: &str) {
        let mut state = self.0.lock().unwrap();
        state.revision += 1;
        let mut object = state.objects.remove(&(collection, name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = state.revision.to_string().into();
        drop(state.events.send((collection, json!({"type": "DELETED", "object": object}))));
    }

    /// Messages of the events that were recorded.
    pub(crate) fn recorded(&self) -> Vec<String> {
        self.0.lock().unwrap().recorded.clone()
    }

    async fn answer(self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        if parts.method == Method::PATCH {
            let body = body.collect_bytes().await.unwrap();
            return Ok(self.patch(parts.uri.path(), &serde_json::from_slice(&body).unwrap()));
        }
        if parts.method != Method::GET {
            let body = body.collect_bytes().await.unwrap();
            let event: Value = serde_json::from_slice(&body).unwrap();
            let message = event["message"].as_str().unwrap_or_default().to_owned();
            self.0.lock().unwrap().recorded.push(message);
            return Ok(whole(&event));
        }
        let path = parts.uri.path();
        let collection = COLLECTIONS.into_iter().find(|it| *it == path).unwrap();
        let query = parts.uri.query().unwrap_or_default();
        let since = query.split('&').find_map(|it| it.strip_prefix("resourceVersion="));
        Ok(match since.and_then(|it| it.parse().ok()) {
            Some(since) => self.watch(collection, since),
            None => self.list(collection),
        })
    }

    /// Merges what the network writes: where a Service's load balancer is, and a Node's annotations.
    fn patch(&self, path: &str, patch: &Value) -> Answer {
        if let Some(name) = path.strip_prefix(NODES).and_then(|it| it.strip_prefix('/')) {
            let mut node = patch.clone();
            let annotations = node["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.retain(|_, it| !it.is_null());
            self.put(NODES, name, node);
            return whole(&self.get(NODES, name));
        }
        let name = path.strip_suffix("/status").and_then(|it| it.rsplit('/').next()).unwrap();
        let mut object = self.get(SERVICES, name);
        let ingress = &patch["status"]["loadBalancer"]["ingress"];
        let status = if ingress.is_null() { Value::Null } else { json!({"ingress": ingress}) };
        object["status"]["loadBalancer"] = status;
        self.put(SERVICES, name, object.clone());
        whole(&object)
    }

    fn list(&self, collection: &str) -> Answer {
        let state = self.0.lock().unwrap();
        let objects = state.objects.iter().filter(|((it, _), _)| *it == collection);
        let items: Vec<&Value> = objects.map(|(_, object)| object).collect();
        let revision = state.revision.to_string();
        whole(&json!({"metadata": {"resourceVersion": revision}, "items": items}))
    }

    /// What changed between the list and the watch is sent again; deletions in that moment are
    /// lost, so tests delete only what a watcher has seen.
    fn watch(&self, collection: &'static str, since: u64) -> Answer {
        let state = self.0.lock().unwrap();
        let revision = |it: &Value| it["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
        let objects = state.objects.iter().filter(|((it, _), _)| *it == collection);
        let missed = objects.filter(|(_, it)| revision(it).is_some_and(|it| it > since));
        let missed: Vec<Value> =
            missed.map(|(_, it)| json!({"type": "MODIFIED", "object": it})).collect();
        let live = stream::unfold(state.events.subscribe(), move |mut events| async move {
            loop {
                let (of, event) = events.recv().await.ok()?;
                if of == collection {
                    return Some((event, events));
                }
            }
        });
        let events = stream::iter(missed).chain(live);
        let frames = events.map(|it| Ok(http_body::Frame::data(Bytes::from(format!("{it}\n")))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

fn whole(value: &Value) -> Answer {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync())
}
