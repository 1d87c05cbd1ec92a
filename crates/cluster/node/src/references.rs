//! Which ConfigMaps and Secrets a pod refers to, so that only those who care are woken.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use crate::pod::seen::containers;

/// An object a pod may refer to, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Referred<'a> {
    ConfigMap(&'a str),
    Secret(&'a str),
}

/// Whether `pod` refers to the object of `namespace`.
pub(crate) fn refers(pod: &Pod, namespace: &str, object: Referred<'_>) -> bool {
    if pod.metadata.namespace.as_deref() != Some(namespace) {
        return false;
    }
    let volumes = pod.spec.as_ref().and_then(|it| it.volumes.as_deref()).unwrap_or_default();
    volumes.iter().any(|it| in_volume(it, object))
        || containers(pod).any(|(_, it)| in_container(it, object))
}

fn in_volume(volume: &Volume, object: Referred<'_>) -> bool {
    match object {
        Referred::ConfigMap(name) => volume.config_map.as_ref().is_some_and(|it| it.name == name),
        Referred::Secret(name) => {
            volume.secret.as_ref().is_some_and(|it| it.secret_name.as_deref() == Some(name))
        }
    }
}

fn in_container(container: &Container, object: Referred<'_>) -> bool {
    let sources = container.env_from.as_deref().unwrap_or_default();
    let variables = container.env.as_deref().unwrap_or_default();
    let mut values = variables.iter().filter_map(|it| it.value_from.as_ref());
    match object {
        Referred::ConfigMap(name) => {
            sources.iter().any(|it| it.config_map_ref.as_ref().is_some_and(|it| it.name == name))
                || values.any(|it| it.config_map_key_ref.as_ref().is_some_and(|it| it.name == name))
        }
        Referred::Secret(name) => {
            sources.iter().any(|it| it.secret_ref.as_ref().is_some_and(|it| it.name == name))
                || values.any(|it| it.secret_key_ref.as_ref().is_some_and(|it| it.name == name))
        }
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
                "containers": [{ "name": "c",
                    "envFrom": [{ "configMapRef": { "name": "b" } }, { "secretRef": { "name": "t" } }],
                    "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } },
                        { "name": "Y", "valueFrom": { "secretKeyRef": { "name": "u", "key": "k" } } }] }] },
        }))
        .unwrap();
        for name in ["a", "b", "c"] {
            assert!(refers(&pod, "shop", Referred::ConfigMap(name)));
            assert!(!refers(&pod, "other", Referred::ConfigMap(name)));
            assert!(!refers(&pod, "shop", Referred::Secret(name)));
        }
        for name in ["s", "t", "u"] {
            assert!(refers(&pod, "shop", Referred::Secret(name)));
        }
    }
}
