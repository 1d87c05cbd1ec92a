//! The ServiceAccount `default` of every namespace, which pods that name none run under.

use std::sync::Arc;

use client::{Api, Cache, Key, Loop, Next, PostParams};
use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{Controller, owner::is_deleting};

/// The name that admission gives to pods without one.
const NAME: &str = "default";

/// Starts the controller. Its key is the namespace.
pub(crate) fn start(controller: &Controller) {
    let namespaces = controller.caches.of::<Namespace>();
    let accounts = controller.caches.of::<ServiceAccount>();
    let state = Arc::new((controller.clone(), namespaces.clone(), accounts.clone()));
    Loop::new("service-account")
        .triggered_by(&namespaces, |change| vec![change.key.clone()])
        .triggered_by(&accounts, |change| match &change.key {
            Key { namespace: Some(namespace), name } if name == NAME && change.new.is_none() => {
                vec![Key::cluster(namespace)]
            }
            _ => Vec::new(),
        })
        .run(&controller.tasks, move |key| {
            let state = Arc::clone(&state);
            async move {
                let (controller, namespaces, accounts) = &*state;
                reconcile(controller, namespaces, accounts, &key).await
            }
        });
}

async fn reconcile(
    controller: &Controller,
    namespaces: &Cache<Namespace>,
    accounts: &Cache<ServiceAccount>,
    key: &Key,
) -> anyhow::Result<Next> {
    let wanted = namespaces.get(key).is_some_and(|it| !is_deleting(&it.metadata));
    if !wanted || accounts.get(&Key::namespaced(&key.name, NAME)).is_some() {
        return Ok(Next::AwaitChange);
    }
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..Default::default() };
    let account = ServiceAccount { metadata, ..Default::default() };
    let api: Api<ServiceAccount> = Api::namespaced(controller.client.clone(), &key.name);
    match api.create(&PostParams::default(), &account).await {
        Err(error)
            if !client::is_already_exists(&error) && !client::is_namespace_terminating(&error) =>
        {
            Err(error.into())
        }
        _ => Ok(Next::AwaitChange),
    }
}
