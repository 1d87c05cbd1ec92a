//! Scenarios in a simulated world, with invariants that hold after every single change.

#![expect(clippy::unwrap_used, reason = "in a test, what is not as expected ends it")]

mod invariants;
mod scenarios;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};
use world::World;

/// A Deployment `web` in `default`.
fn deployment(replicas: i32, surge: i32, unavailable: i32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "web",
                    "ports": [{"name": "http", "containerPort": 8080}],
                }]},
            },
        },
    })
}

/// The Service in front of it.
fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": "http"}],
        },
    })
}

/// What `kubectl rollout restart` does.
fn restart(deployment: &mut Deployment) {
    let spec = deployment.spec.as_mut().unwrap();
    let metadata = spec.template.metadata.get_or_insert_default();
    let annotations = metadata.annotations.get_or_insert_default();
    let times = annotations.get("restarted").map_or(0, String::len);
    annotations.insert("restarted".to_owned(), "x".repeat(times + 1));
}

/// Lets everything that is still under way come to rest.
async fn rest(world: &World) {
    world.faults().happen_to(0.0);
    world.pass(Duration::from_secs(120)).await;
}
