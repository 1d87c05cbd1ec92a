//! The ConfigMaps and Secrets that pods refer to: which they are, and their content. Like a kubelet,
//! the node watches these and no others.

use std::{collections::BTreeSet, sync::Arc};

use client::{Cache, Caches, Key, Object, Single, Singles};
use futures_util::future::join_all;
use image::worker::Credentials;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use tokio::sync::Notify;

use crate::{environment::Objects, pod::seen::containers};

/// What pods refer to, as last heard of. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ReferredObjects {
    config_maps: Singles<ConfigMap>,
    secrets: Singles<Secret>,
    pub(crate) services: Cache<Service>,
}

impl ReferredObjects {
    pub(crate) fn new(caches: &Caches) -> Self {
        Self { config_maps: caches.singles(), secrets: caches.singles(), services: caches.of() }
    }

    /// Watches what `pod` refers to. A pod's references never change.
    pub(crate) fn hold(&self, pod: &Pod) -> Referred {
        let names = Names::of(pod);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let key = |name: &&str| Key::namespaced(namespace, *name);
        Referred {
            config_maps: names
                .config_maps
                .iter()
                .map(|it| self.config_maps.hold(&key(it)))
                .collect(),
            secrets: names.secrets.iter().map(|it| self.secrets.hold(&key(it))).collect(),
        }
    }

    /// What a pod's pull secrets hold, as text: `.dockerconfigjson`, or the older `.dockercfg` in its
    /// form. What is missing or malformed is left out: the registry will say that it misses it.
    pub(crate) fn pull_secrets(&self, pod: &Pod) -> Vec<Credentials> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let secrets = pull_secrets(pod).filter_map(|it| self.secret(namespace, it));
        secrets.filter_map(|it| credentials(&it)).collect()
    }

    /// Watches the object that holds the links, which every pod refers to.
    pub(crate) fn hold_links(&self) -> Arc<Single<ConfigMap>> {
        self.config_maps.hold(&links())
    }

    /// The object that holds the links.
    pub(crate) fn links(&self) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&links())
    }
}

fn credentials(secret: &Secret) -> Option<Credentials> {
    let text = docker_config(secret)?;
    let word = |it: &Option<String>| it.clone().unwrap_or_default();
    let metadata = &secret.metadata;
    let (namespace, name) = (word(&metadata.namespace), word(&metadata.name));
    // A secret that was made anew is another one, whatever its name.
    let origin = format!("{namespace}/{name}/{}", word(&metadata.uid));
    Some(Credentials { origin, text })
}

fn docker_config(secret: &Secret) -> Option<String> {
    let data = secret.data.as_ref()?;
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    let old = || text(".dockercfg").map(|it| format!("{{\"auths\":{it}}}"));
    text(".dockerconfigjson").or_else(old)
}

fn links() -> Key {
    Key::namespaced(api::link::NAMESPACE, api::link::CONFIG_MAP)
}

/// The names of the Secrets with which a pod's images are pulled.
fn pull_secrets(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.as_ref();
    let references = spec.and_then(|it| it.image_pull_secrets.as_deref()).unwrap_or_default();
    references.iter().map(|it| it.name.as_str())
}

impl Objects for ReferredObjects {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&Key::namespaced(namespace, name))
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&Key::namespaced(namespace, name))
    }

    fn services(&self) -> Vec<Arc<Service>> {
        self.services.list()
    }
}

/// What one pod refers to. It is watched until this is dropped.
#[derive(Debug)]
pub(crate) struct Referred {
    config_maps: Vec<Arc<Single<ConfigMap>>>,
    secrets: Vec<Arc<Single<Secret>>>,
}

impl Referred {
    /// Waits until all of it is known.
    pub(crate) async fn synced(&self) {
        join_all(self.config_maps.iter().map(|it| it.synced())).await;
        join_all(self.secrets.iter().map(|it| it.synced())).await;
    }

    /// Tells `changed` of every change, for ever.
    pub(crate) async fn tell(&self, changed: &Notify) {
        let config_maps = join_all(self.config_maps.iter().map(|it| tell(it, changed)));
        let secrets = join_all(self.secrets.iter().map(|it| tell(it, changed)));
        tokio::join!(config_maps, secrets, std::future::pending::<()>());
    }
}

async fn tell<K: Object>(single: &Single<K>, changed: &Notify) {
    let mut changes = single.subscribe();
    loop {
        changes.next().await;
        changed.notify_one();
    }
}

/// The names of what a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names<'a> {
    config_maps: BTreeSet<&'a str>,
    secrets: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn of(pod: &'a Pod) -> Self {
        let mut names = Self::default();
        let spec = pod.spec.as_ref();
        for volume in spec.and_then(|it| it.volumes.as_deref()).unwrap_or_default() {
            names.config_maps.extend(volume.config_map.iter().map(|it| it.name.as_str()));
            names.secrets.extend(volume.secret.iter().filter_map(|it| it.secret_name.as_deref()));
        }
        names.secrets.extend(pull_secrets(pod));
        for (_, container) in containers(pod) {
            for source in container.env_from.as_deref().unwrap_or_default() {
                names.config_maps.extend(source.config_map_ref.iter().map(|it| it.name.as_str()));
                names.secrets.extend(source.secret_ref.iter().map(|it| it.name.as_str()));
            }
            let variables = container.env.as_deref().unwrap_or_default();
            for source in variables.iter().filter_map(|it| it.value_from.as_ref()) {
                let (map, secret) = (&source.config_map_key_ref, &source.secret_key_ref);
                names.config_maps.extend(map.iter().map(|it| it.name.as_str()));
                names.secrets.extend(secret.iter().map(|it| it.name.as_str()));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_and_variables() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "namespace": "shop" },
            "spec": {
                "volumes": [{ "name": "v", "configMap": { "name": "a" } },
                    { "name": "w", "secret": { "secretName": "s" } }],
                "initContainers": [{ "name": "i", "envFrom": [{ "configMapRef": { "name": "d" } }] }],
                "containers": [{ "name": "c",
                    "envFrom": [{ "configMapRef": { "name": "b" } }, { "secretRef": { "name": "t" } }],
                    "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
                        { "name": "Y", "valueFrom": { "secretKeyRef": { "name": "u", "key": "k" } } },
                        { "name": "Z", "valueFrom": { "secretKeyRef": { "name": "u", "key": "l" } } }] }] },
        }))
        .unwrap();
        let (config_maps, secrets) = (["a", "b", "c", "d"].into(), ["s", "t", "u"].into());
        assert_eq!(Names::of(&pod), Names { config_maps, secrets });
        assert_eq!(Names::of(&Pod::default()), Names::default());
    }
}
