//! The ConfigMap `kube-root-ca.crt` of every namespace, by which pods can trust the API server.

use std::{collections::BTreeMap, sync::Arc};

use client::{Api, ApiResource, Cache, Key, Loop, Metadata, Next, PostParams};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{Controller, owner::is_deleting};

/// The name that pods mount it by.
const NAME: &str = "kube-root-ca.crt";

/// The key inside it.
const FILE: &str = "ca.crt";

/// The original's description of it, which some tools show.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
     guaranteed across distributions of Kubernetes clusters.",
);

/// Starts the controller. Its key is the namespace.
pub(crate) fn start(controller: &Controller, root_ca: String) {
    let namespaces = controller.caches.of::<Namespace>();
    // What is in all the other ConfigMaps is of no interest, and of these it rarely is.
    let maps = controller.caches.metadata(&ApiResource::erase::<ConfigMap>(&()));
    let publisher = Arc::new(Publisher {
        controller: controller.clone(),
        namespaces: namespaces.clone(),
        root_ca,
    });
    let is_ours = |it: &Metadata| it.metadata.name.as_deref() == Some(NAME);
    Loop::new("root-ca")
        .triggered_by(&namespaces, |change| vec![change.key.clone()])
        .triggered_by_some(
            &maps,
            move |old, new| new.or(old).is_some_and(is_ours),
            |change| change.key.namespace.iter().map(Key::cluster).collect(),
        )
        .run(&controller.tasks, move |key| {
            let publisher = Arc::clone(&publisher);
            async move { publisher.reconcile(&key).await }
        });
}

struct Publisher {
    controller: Controller,
    namespaces: Cache<Namespace>,
    root_ca: String,
}

impl Publisher {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let wanted = self.namespaces.get(key).is_some_and(|it| !is_deleting(&it.metadata));
        if !wanted {
            return Ok(Next::AwaitChange);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.controller.client.clone(), &key.name);
        let result = match api.get_opt(NAME).await? {
            Some(map) if self.is_right(&map) => Ok(()),
            Some(map) => {
                let map = ConfigMap { data: Some(self.data()), ..map };
                api.replace(NAME, &PostParams::default(), &map).await.map(drop)
            }
            None => api.create(&PostParams::default(), &self.new_map()).await.map(drop),
        };
        match result {
            Err(error)
                if !client::is_already_exists(&error)
                    && !client::is_namespace_terminating(&error) =>
            {
                Err(error.into())
            }
            _ => Ok(Next::AwaitChange),
        }
    }

    fn is_right(&self, map: &ConfigMap) -> bool {
        map.data.as_ref() == Some(&self.data())
    }

    fn data(&self) -> BTreeMap<String, String> {
        [(FILE.to_owned(), self.root_ca.clone())].into()
    }

    fn new_map(&self) -> ConfigMap {
        let (key, text) = DESCRIPTION;
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            annotations: Some([(key.to_owned(), text.to_owned())].into()),
            ..Default::default()
        };
        ConfigMap { metadata, data: Some(self.data()), ..Default::default() }
    }
}
