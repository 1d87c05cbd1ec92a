//! What the proxy writes into the API: the classes that it serves, and where Ingresses are reached and
//! routes lead.

mod gateway;

use std::collections::{BTreeMap, BTreeSet};

use api::annotation::LISTENS;
use client::{Api, Client, EventType, Events, Key, Patch, PatchParams, PostParams, Resource as _};
use k8s_openapi::api::networking::v1::{
    Ingress, IngressClass, IngressLoadBalancerIngress, IngressPortStatus,
};
use runtime::Clock;
use serde_json::json;

use crate::decide::{CONTROLLER, Decision, IS_DEFAULT, Problem, Seen};

/// Name of the IngressClass that is always there.
const CLASS: &str = "coracle";

/// Writes what is not as it should be.
pub(crate) struct Writer {
    client: Client,
    events: Events,
    clock: Clock,
    /// What was said of each Ingress.
    said: BTreeMap<Key, BTreeSet<Problem>>,
}

impl Writer {
    pub(crate) const fn new(client: Client, events: Events, clock: Clock) -> Self {
        Self { client, events, clock, said: BTreeMap::new() }
    }

    /// Makes the class if it is not there, and notes the ports (`http=80`) on it.
    pub(crate) async fn class(&self, seen: &Seen, listens: &str) -> Result<(), client::Error> {
        let classes: Api<IngressClass> = Api::all(self.client.clone());
        let found = seen.classes.iter().find(|it| it.metadata.name.as_deref() == Some(CLASS));
        let annotations = found.map(|it| it.metadata.annotations.clone().unwrap_or_default());
        match annotations {
            Some(it) if it.get(LISTENS).map_or("", String::as_str) == listens => Ok(()),
            Some(_) => {
                let patch = json!({"metadata": {"annotations": {LISTENS: listens}}});
                let (patch, usual) = (Patch::Merge(patch), PatchParams::default());
                let patched = classes.patch_metadata(CLASS, &usual, &patch).await;
                patched.map(drop).or_else(unless_gone)
            }
            None => {
                let others = seen.classes.iter().filter_map(|it| it.metadata.annotations.as_ref());
                let is_default = |it: &BTreeMap<String, String>| {
                    it.get(IS_DEFAULT).is_some_and(|it| it == "true")
                };
                let mut annotations = BTreeMap::from([(LISTENS.to_owned(), listens.to_owned())]);
                if !others.into_iter().any(is_default) {
                    annotations.insert(IS_DEFAULT.to_owned(), "true".to_owned());
                }
                let mut class = IngressClass::default();
                class.metadata.name = Some(CLASS.to_owned());
                class.metadata.annotations = Some(annotations);
                class.spec.get_or_insert_default().controller = Some(CONTROLLER.to_owned());
                match classes.create(&PostParams::default(), &class).await {
                    Err(error) if !client::is_already_exists(&error) => Err(error),
                    Ok(_) | Err(_) => Ok(()),
                }
            }
        }
    }

    /// Says in each Ingress where it is reached, and what of it is not honoured.
    pub(crate) async fn ingresses(
        &mut self,
        seen: &Seen,
        decision: &Decision,
        ports: &[u16],
    ) -> Result<(), client::Error> {
        self.said.retain(|key, _| decision.ingresses.contains_key(key));
        let wanted = (!ports.is_empty()).then(|| reached(ports));
        let mut result = Ok(());
        for ingress in &seen.ingresses {
            let key = Key::of(&**ingress);
            let Some(problems) = decision.ingresses.get(&key) else { continue };
            self.say(&key, ingress, problems);
            let status = ingress.status.as_ref().and_then(|it| it.load_balancer.as_ref());
            let written = status.and_then(|it| it.ingress.clone()).unwrap_or_default();
            let wanted: Vec<_> = wanted.iter().cloned().collect();
            if wanted == written {
                continue;
            }
            let list = if wanted.is_empty() { json!(null) } else { json!(wanted) };
            let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": list}}}));
            let ingresses: Api<Ingress> =
                Api::namespaced(self.client.clone(), key.namespace_or_empty());
            let patched = ingresses.patch_status(&key.name, &PatchParams::default(), &patch).await;
            if let Err(error) = patched.map(drop).or_else(unless_gone) {
                result = Err(error);
            }
        }
        result
    }

    fn say(&mut self, key: &Key, ingress: &Ingress, problems: &[Problem]) {
        let said = self.said.entry(key.clone()).or_default();
        let problems: BTreeSet<Problem> = problems.iter().cloned().collect();
        for problem in problems.difference(said) {
            tracing::info!(ingress = %key, problem = problem.text, "not honoured");
            let about = ingress.object_ref(&());
            self.events.record(about, EventType::Warning, problem.reason, problem.text.as_str());
        }
        *said = problems;
    }
}

fn unless_gone(error: client::Error) -> Result<(), client::Error> {
    if client::is_not_found(&error) { Ok(()) } else { Err(error) }
}

fn reached(ports: &[u16]) -> IngressLoadBalancerIngress {
    let port = |it: &u16| IngressPortStatus {
        port: i32::from(*it),
        protocol: "TCP".to_owned(),
        error: None,
    };
    IngressLoadBalancerIngress {
        ip: Some("127.0.0.1".to_owned()),
        ports: Some(ports.iter().map(port).collect()),
        ..IngressLoadBalancerIngress::default()
    }
}
