//! The pod's quality-of-service class.
//! <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub(crate) fn class(pod: &Pod) -> &'static str {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|it| it.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|it| it.containers.as_slice()).unwrap_or_default();
    let mut containers = init.iter().chain(main);
    if containers.clone().all(asks_nothing) {
        "BestEffort"
    } else if containers.all(|it| is_guaranteed(it, "cpu") && is_guaranteed(it, "memory")) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn amounts(container: &Container, resource: &str) -> (Option<i128>, Option<i128>) {
    let resources = container.resources.as_ref();
    let amount = |list: Option<&std::collections::BTreeMap<String, _>>| {
        let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity =
            list?.get(resource)?;
        quantity::millis(&quantity.0).filter(|it| *it != 0)
    };
    let request = amount(resources.and_then(|it| it.requests.as_ref()));
    (request, amount(resources.and_then(|it| it.limits.as_ref())))
}

fn asks_nothing(container: &Container) -> bool {
    ["cpu", "memory"].iter().all(|it| amounts(container, it) == (None, None))
}

fn is_guaranteed(container: &Container, resource: &str) -> bool {
    let (request, limit) = amounts(container, resource);
    limit.is_some() && request.is_none_or(|it| Some(it) == limit)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(resources: Value, expected: &str) {
        let pod = json!({ "spec": { "containers": [{ "name": "a", "resources": resources }] } });
        assert_eq!(class(&serde_json::from_value(pod).unwrap()), expected);
    }

    #[test]
    fn classes() {
        check(json!({}), "BestEffort");
        check(json!({ "requests": { "cpu": "0" } }), "BestEffort");
        check(json!({ "requests": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1" } }), "Burstable");
        check(json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed");
        let equal =
            json!({ "requests": { "cpu": "1000m" }, "limits": { "cpu": "1", "memory": "1" } });
        check(equal, "Guaranteed");
        let less = json!({ "requests": { "cpu": "1m" }, "limits": { "cpu": "1", "memory": "1" } });
        check(less, "Burstable");
    }
}
