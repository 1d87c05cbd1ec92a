//! Namespace deletion: empties a namespace that is going, then lets it go. What remains and what
//! the status says about it is decided in `decide`.

mod decide;

use std::{sync::Arc, time::Duration};

use client::{
    Api, Cache, Client, DeleteParams, Key, ListParams, Loop, Metadata, Next, PostParams, Trigger,
};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use runtime::OnExit;

use crate::{
    Controller,
    discovery::{Kind, kinds},
    owner::is_deleting,
};
use decide::{Content, Seen, decide};

/// How long until a namespace that still has content is looked at again, if no object that goes
/// wakes us before.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// How long until the server is asked again which kinds it has, if it did not answer.
const DISCOVER_AGAIN: Duration = Duration::from_secs(1);

/// Starts the controller.
pub(crate) fn start(controller: &Controller) {
    let namespaces = controller.caches.of::<Namespace>();
    let emptied = Trigger::new();
    watch_content(controller, &namespaces, &emptied);
    let (clock, client) = (controller.clock.clone(), controller.client.clone());
    let known = namespaces.clone();
    Loop::new("namespace")
        .triggered_by(&namespaces, |change| vec![change.key.clone()])
        .woken_by(&emptied)
        .run(&controller.tasks, move |key| {
            let namespace = known.get(&key).filter(|it| is_deleting(&it.metadata));
            let (clock, client) = (clock.clone(), client.clone());
            async move {
                match namespace {
                    Some(namespace) => reconcile(&client, &namespace, clock.now()).await,
                    None => Ok(Next::AwaitChange),
                }
            }
        });
}

/// Wakes the controller whenever an object has gone from a namespace that is going.
fn watch_content(controller: &Controller, namespaces: &Cache<Namespace>, emptied: &Trigger) {
    let (controller, namespaces, emptied) =
        (controller.clone(), namespaces.clone(), emptied.clone());
    let tasks = controller.tasks.clone();
    tasks.spawn("namespace-content", OnExit::Log, |stop| async move {
        let kinds = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            kinds = all_kinds(&controller.client) => kinds,
        };
        for kind in kinds.into_iter().filter(|it| it.namespaced) {
            let cache = controller.caches.metadata(&kind.resource);
            let (namespaces, emptied) = (namespaces.clone(), emptied.clone());
            let follow = follow(cache, namespaces, emptied);
            controller.tasks.spawn("namespace-content", OnExit::StopProcess, |stop| async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = follow => {}
                }
                Ok(())
            });
        }
        Ok(())
    });
}

async fn follow(cache: Cache<Metadata>, namespaces: Cache<Namespace>, emptied: Trigger) {
    let mut gone = cache.subscribe_to(|_, new| new.is_none());
    loop {
        let Some(namespace) = gone.next().await.key.namespace else { continue };
        let key = Key::cluster(namespace);
        if namespaces.get(&key).is_some_and(|it| is_deleting(&it.metadata)) {
            emptied.wake(key);
        }
    }
}

/// The kinds of the server, however long it takes to hear of them.
pub(crate) async fn all_kinds(client: &Client) -> Vec<Kind> {
    loop {
        match kinds(client).await {
            Ok(kinds) => return kinds,
            Err(error) => {
                tracing::info!(%error, "kinds of the server not known yet, asking again");
                tokio::time::sleep(DISCOVER_AGAIN).await;
            }
        }
    }
}

async fn reconcile(
    client: &Client,
    namespace: &Arc<Namespace>,
    now: jiff::Timestamp,
) -> anyhow::Result<Next> {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    // Asked for each time: a kind that was added since would keep its objects for ever.
    let found = kinds(client).await;
    let discovery_failure = found.as_ref().err().map(ToString::to_string);
    let kinds: Vec<Kind> =
        found.unwrap_or_default().into_iter().filter(|it| it.namespaced).collect();
    let contents = join_all(kinds.iter().map(|it| empty(client, it, name))).await;
    let seen = Seen { now, namespace: Arc::clone(namespace), discovery_failure, contents };
    let decision = decide(&seen);
    tracing::debug!(namespace = name, reason = decision.reason, "decided");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let params = PostParams::default();
    let mut live = Arc::clone(namespace);
    if let Some(status) = decision.status {
        let new = Namespace { status: Some(status), ..(**namespace).clone() };
        live = Arc::new(namespaces.replace_status(name, &params, &new).await?);
    }
    if let Some(spec) = decision.finalize {
        let new = Namespace { spec: Some(spec), ..(*live).clone() };
        let body = serde_json::to_vec(&new)?;
        finalize(client, name, body).await?;
        return Ok(Next::AwaitChange);
    }
    Ok(Next::RequeueAfter(LOOK_AGAIN))
}

/// Deletes all objects of one kind in the namespace, and says what is left.
async fn empty(client: &Client, kind: &Kind, namespace: &str) -> Content {
    let resource = kind.resource.clone();
    let objects: Api<Metadata> = Api::namespaced_with(client.clone(), namespace, &resource);
    let mut failure = None;
    let mut left = Vec::new();
    match objects.list(&ListParams::default()).await {
        Ok(list) if list.items.is_empty() => {}
        Ok(_) => {
            failure = delete_all(&objects).await.err().map(|it| it.to_string());
            match objects.list(&ListParams::default()).await {
                Ok(list) => left = list.items.into_iter().map(|it| it.metadata).collect(),
                Err(error) => failure = failure.or(Some(error.to_string())),
            }
        }
        Err(error) => failure = Some(error.to_string()),
    }
    Content { resource, left, failure }
}

/// Some kinds (Services) have no collection deletion: their objects are deleted one by one.
async fn delete_all(objects: &Api<Metadata>) -> Result<(), client::Error> {
    let params = DeleteParams::background();
    let all = ListParams::default();
    match objects.delete_collection(&params, &all).await {
        Err(error) if client::status_code(&error) == Some(405) => {}
        answer => return answer.map(drop),
    }
    for object in objects.list(&all).await?.items {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        match objects.delete(name, &params).await {
            Err(error) if !client::is_not_found(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

async fn finalize(client: &Client, name: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let request = http::Request::put(format!("/api/v1/namespaces/{name}/finalize"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)?;
    match client.request::<Namespace>(request).await {
        Err(error) if !client::is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}
