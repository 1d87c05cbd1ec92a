//! Finds nsqds for an nsqlookupd by the EndpointSlices of their Services: the flags that ask for it, the
//! way to the API, the watch. Which nsqds the slices name is decided in `slices`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use client::{Cache, Caches, Client, SERVICE_ACCOUNT_TOKEN, Subscription};
use futures_util::future::select_all;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use queue::{
    cli::{Given, Outside},
    lookupd::Found,
};
use runtime::{OnExit, Tasks};
use tokio::sync::watch;

use super::slices::producers;
use crate::directories::Environment;

const SERVICE: &str = "kubernetes-service";
const KUBECONFIG: &str = "kubeconfig";

/// The flags, beside those of the original.
pub(super) const FLAGS: &[Outside] = &[
    Outside {
        name: SERVICE,
        help: "[<namespace>/]<name> of a Service whose ready endpoints are nsqds, found without their registering; may be repeated",
    },
    Outside {
        name: KUBECONFIG,
        help: "path to the kubeconfig with which they are found (default: the pod's ServiceAccount, else $KUBECONFIG)",
    },
];

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services at most: each costs a watch.
const SERVICES_MAX: usize = 64;

/// If the API has not told of a Service's slices after this long, the log says so. What registers by
/// itself is given out meanwhile.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(10);

/// What the flags ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    services: Vec<Service>,
    kubeconfig: Option<PathBuf>,
}

/// A Service, in the client's own namespace if none is given.
#[derive(Debug, PartialEq, Eq)]
struct Service {
    namespace: Option<String>,
    name: String,
}

impl Asked {
    /// Reads the flags.
    pub(super) fn read(given: Given) -> anyhow::Result<Self> {
        let mut asked = Self::default();
        for (flag, value) in given {
            if flag == KUBECONFIG {
                asked.kubeconfig = Some(PathBuf::from(value));
            } else {
                let service = Service::parse(&value);
                asked.services.push(service.with_context(|| format!("--{flag}={value}"))?);
            }
        }
        if asked.services.is_empty() && asked.kubeconfig.is_some() {
            bail!("--{KUBECONFIG} is for --{SERVICE}, which is not given");
        }
        if SERVICES_MAX < asked.services.len() {
            bail!("--{SERVICE} is given {} times, at most {SERVICES_MAX}", asked.services.len());
        }
        Ok(asked)
    }
}

impl Service {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let problems = namespace.map_or_else(Vec::new, api::names::dns1123_label);
        if let Some(problem) = problems.first() {
            bail!("no name of a namespace: {problem}");
        }
        // What a Service may be called has become wider; what fits a label fits the selector.
        let problems = api::names::dns1123_label(name);
        if let Some(problem) = problems.first() {
            bail!("no name of a Service: {problem}");
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}

/// Begins to find the nsqds that the flags ask for, in `tasks`; `None` if they ask for none.
pub(super) async fn find(
    given: Given,
    environment: &Environment,
    tasks: &Tasks,
) -> anyhow::Result<Option<watch::Receiver<Vec<Found>>>> {
    let asked = Asked::read(given)?;
    if asked.services.is_empty() {
        return Ok(None);
    }
    let client = connect(asked.kubeconfig, environment).await?;
    Ok(Some(follow(asked.services, &client, tasks)))
}

/// The API: as a flag says, else as this pod's ServiceAccount, else as the user's kubeconfig says.
async fn connect(kubeconfig: Option<PathBuf>, environment: &Environment) -> anyhow::Result<Client> {
    let wanted = || format!("find nsqds by --{SERVICE}");
    if let Some(path) = kubeconfig {
        return client::connect(&path, None).await.with_context(wanted);
    }
    if let Some(client) = client::connect_as_pod().with_context(wanted)? {
        return Ok(client);
    }
    let users = environment.user_kubeconfig().filter(|it| it.exists());
    let Some(path) = users else {
        let no_token = format!(
            "no token of a ServiceAccount at {SERVICE_ACCOUNT_TOKEN} (a cluster of Coracle does not \
             put one into its pods yet)"
        );
        let users = environment.user_kubeconfig();
        let users = users.map_or_else(
            || "neither KUBECONFIG nor HOME is set".to_owned(),
            |it| format!("no kubeconfig at {}", it.display()),
        );
        bail!(
            "{}: no way to the API: {no_token}, {users}; --{KUBECONFIG}=FILE gives one",
            wanted()
        );
    };
    client::connect(&path, None).await.with_context(wanted)
}

/// Watches the slices of `services`.
fn follow(services: Vec<Service>, client: &Client, tasks: &Tasks) -> watch::Receiver<Vec<Found>> {
    let caches = Caches::new(client.clone(), tasks);
    let caches: Vec<Cache<EndpointSlice>> = services
        .iter()
        .map(|service| {
            let own = client.default_namespace();
            let namespace = service.namespace.as_deref().unwrap_or(own);
            tracing::info!(namespace, service = service.name, "finding nsqds by their Service");
            caches.selected(namespace, &format!("{SERVICE_NAME}={}", service.name))
        })
        .collect();
    let (found, receiver) = watch::channel(Vec::new());
    let of_answer = caches.clone();
    tasks.spawn("queue-slices-answer", OnExit::Log, move |stop| async move {
        stop.run_until_cancelled(tell_of_silence(&of_answer)).await;
        Ok(())
    });
    tasks.spawn("queue-slices", OnExit::StopProcess, move |stop| async move {
        stop.run_until_cancelled(tell(&caches, &found)).await;
        Ok(())
    });
    receiver
}

/// Says so if the API does not answer.
async fn tell_of_silence(caches: &[Cache<EndpointSlice>]) {
    let answered = async {
        for cache in caches {
            cache.synced().await;
        }
    };
    tokio::pin!(answered);
    if tokio::time::timeout(FIRST_ANSWER_MAX, &mut answered).await.is_err() {
        tracing::warn!("the API does not answer: nsqds are not found by their Services");
        answered.await;
        tracing::info!("the API has answered");
    }
}

/// Tells which nsqds there are, at every change.
async fn tell(caches: &[Cache<EndpointSlice>], found: &watch::Sender<Vec<Found>>) {
    let mut changes: Vec<Subscription<EndpointSlice>> =
        caches.iter().map(Cache::subscribe).collect();
    loop {
        // Nothing is lost of those that did not come first.
        select_all(changes.iter_mut().map(|it| Box::pin(it.next()))).await;
        for of_one in &mut changes {
            while of_one.try_next().is_some() {}
        }
        let slices: Vec<Arc<EndpointSlice>> = caches.iter().flat_map(Cache::list).collect();
        let now = producers(&slices);
        found.send_if_modified(|before| {
            let differs = *before != now;
            if differs {
                tracing::info!(nsqds = now.len(), before = before.len(), "found");
                *before = now;
            }
            differs
        });
    }
}

#[cfg(test)]
mod tests;
