//! The class of Gateways that is always there, and the status of classes, Gateways and routes.

use api::gateway::{CONTROLLER, Gateway, GatewayClass, HttpRoute};
use client::{Api, Key, Patch, PatchParams, PostParams};
use k8s_openapi::serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Writer, unless_gone};
use crate::decide::{Decision, Reached, Seen, of_class, of_gateway, of_route};

/// Name of the GatewayClass that is always there.
const CLASS: &str = "coracle";

impl Writer {
    /// Makes the class if it is not there, and says of every object of ours what becomes of it.
    pub(crate) async fn gateways(
        &self,
        seen: &Seen,
        decision: &Decision,
        reached: &Reached,
    ) -> Result<(), client::Error> {
        let mut result = self.classes(seen).await;
        let now = self.clock.now();
        for gateway in &seen.gateways {
            let key = Key::of(&**gateway);
            let Some(found) = decision.gateways.get(&key) else { continue };
            let status = of_gateway(gateway, found, reached, now);
            if status == gateway.status {
                continue;
            }
            let api = Api::<Gateway>::namespaced(self.client.clone(), key.namespace_or_empty());
            let version = gateway.metadata.resource_version.as_deref();
            result = result.and(write(&api, &key.name, version, json!(status)).await);
        }
        for route in &seen.routes {
            let key = Key::of(&**route);
            let Some(found) = decision.routes.get(&key) else { continue };
            let status = of_route(route, found, now);
            if status == route.status {
                continue;
            }
            let api = Api::<HttpRoute>::namespaced(self.client.clone(), key.namespace_or_empty());
            let version = route.metadata.resource_version.as_deref();
            result = result.and(write(&api, &key.name, version, json!(status)).await);
        }
        result
    }

    async fn classes(&self, seen: &Seen) -> Result<(), client::Error> {
        let classes: Api<GatewayClass> = Api::all(self.client.clone());
        if !seen.gateway_classes.iter().any(|it| it.metadata.name.as_deref() == Some(CLASS)) {
            let mut class = GatewayClass::default();
            class.metadata.name = Some(CLASS.to_owned());
            class.spec.controller_name = CONTROLLER.to_owned();
            match classes.create(&PostParams::default(), &class).await {
                Err(error) if !client::is_already_exists(&error) => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        let now = self.clock.now();
        for class in seen.gateway_classes.iter().filter(|it| it.spec.controller_name == CONTROLLER)
        {
            let status = of_class(class, now);
            if status != class.status {
                let version = class.metadata.resource_version.as_deref();
                let name = class.metadata.name.as_deref().unwrap_or_default();
                write(&classes, name, version, json!(status)).await?;
            }
        }
        Ok(())
    }
}

/// Writes a status in the place of the one that was seen. If somebody wrote meanwhile, that is heard of, and
/// decided on again.
async fn write<K: DeserializeOwned>(
    api: &Api<K>,
    name: &str,
    version: Option<&str>,
    status: Value,
) -> Result<(), client::Error> {
    let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
    let written = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    match written.map(drop).or_else(unless_gone) {
        Err(error) if client::is_conflict(&error) => Ok(()),
        other => other,
    }
}
