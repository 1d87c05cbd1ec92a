//! The scenarios.

use std::{collections::BTreeMap, time::Duration};

use client::{Api, DeleteParams, ListParams};
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, Namespace, Node, Pod, ServiceAccount},
    discovery::v1::EndpointSlice,
};
use serde_json::json;
use world::{Entry, World, run};

use crate::{
    deployment,
    invariants::{
        Bounds, invariant_pods_are_bound_once, invariant_ready_endpoints_are_ready_pods,
        invariant_rollout_stays_in_bounds,
    },
    rest, restart, service,
};

fn lines(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(Entry::to_string).collect()
}

/// A rollout while `share` of all requests of the controllers fail in some way, and the controllers
/// are restarted in the middle of it.
fn rollout(seed: u64, share: f64) -> Vec<Entry> {
    let mut from = 0;
    let entries = run(seed, async |world: &mut World| {
        world.create(service()).await?;
        world.create(deployment(8, 2, 1)).await?;
        world.until_rolled_out("web").await?;
        rest(world).await;
        from = world.diary().len();
        world.faults().happen_to(share);
        world.edit_deployment("web", restart).await?;
        world.pass(Duration::from_secs(2)).await;
        world.restart_parts().await;
        world.pass(Duration::from_secs(1)).await;
        world.edit_deployment("web", restart).await?;
        world.pass(Duration::from_secs(30)).await;
        world.faults().happen_to(0.0);
        world.until_rolled_out("web").await?;
        rest(world).await;
        if share > 0.0 {
            anyhow::ensure!(world.faults().happened() > 10, "there were faults");
        }
        let pods = world.pods("default").await?;
        anyhow::ensure!(pods.len() == 8, "{} pods are left", pods.len());
        let endpoints: Api<EndpointSlice> = Api::namespaced(world.client(), "default");
        let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = endpoints.list(&of_service).await?.items;
        let count: usize = slices.iter().map(|it| it.endpoints.iter().flatten().count()).sum();
        anyhow::ensure!(count == 8, "{count} endpoints are left");
        Ok(())
    })
    .unwrap();
    // A diary that saw nothing would prove nothing.
    assert!(0 < from && from + 100 < entries.len(), "{from} of {} entries", entries.len());
    let bounds = Bounds { pods_max: 10, available_min: 7 };
    invariant_rollout_stays_in_bounds(&entries, from, bounds);
    invariant_pods_are_bound_once(&entries);
    invariant_ready_endpoints_are_ready_pods(&entries);
    entries
}

#[test]
fn a_rollout_stays_in_bounds() {
    rollout(1, 0.0);
}

#[test]
fn a_rollout_survives_faults_and_restarts() {
    for seed in 2..5 {
        rollout(seed, 0.2);
    }
}

#[test]
fn the_same_seed_gives_the_same_diary() {
    let (one, other) = (lines(&rollout(9, 0.2)), lines(&rollout(9, 0.2)));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one, other);
    }
    assert_eq!(one.len(), other.len());
}

#[test]
fn a_deployment_tells_its_story() {
    run(10, async |world: &mut World| {
        world.create(deployment(2, 1, 0)).await?;
        world.until_rolled_out("web").await?;
        rest(world).await;
        let events: Api<Event> = Api::namespaced(world.client(), "default");
        let events = events.list(&ListParams::default()).await?.items;
        let reasons = ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"];
        let counts = reasons
            .map(|wanted| events.iter().filter(|it| it.reason.as_deref() == Some(wanted)).count());
        anyhow::ensure!(counts == [1, 2, 2], "events: {counts:?}");
        let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
        let deployment = deployments.get("web").await?;
        let conditions = deployment.status.and_then(|it| it.conditions).unwrap_or_default();
        let mut reasons: Vec<_> = conditions.iter().filter_map(|it| it.reason.clone()).collect();
        reasons.sort();
        anyhow::ensure!(reasons == ["MinimumReplicasAvailable", "NewReplicaSetAvailable"]);
        // What the controller writes down is no change of what is wanted.
        let Deployment { metadata, status, .. } = deployments.get("web").await?;
        let revision =
            &metadata.annotations.unwrap_or_default()["deployment.kubernetes.io/revision"];
        let seen = (metadata.generation, status.and_then(|it| it.observed_generation));
        anyhow::ensure!(revision == "1" && seen == (Some(1), Some(1)), "{revision}, {seen:?}");
        world.edit_deployment("web", restart).await?;
        world.until_rolled_out("web").await?;
        rest(world).await;
        let metadata = deployments.get("web").await?.metadata;
        let revision =
            &metadata.annotations.unwrap_or_default()["deployment.kubernetes.io/revision"];
        let generation = metadata.generation;
        anyhow::ensure!(revision == "2" && generation == Some(2), "{revision}, {generation:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn scaling_follows_and_history_is_kept() {
    run(11, async |world: &mut World| {
        world.create(deployment(3, 1, 0)).await?;
        world.until_rolled_out("web").await?;
        for replicas in [10, 0, 4] {
            world
                .edit_deployment("web", |it| it.spec.as_mut().unwrap().replicas = Some(replicas))
                .await?;
            world.until_rolled_out("web").await?;
        }
        world.edit_deployment("web", restart).await?;
        world.until_rolled_out("web").await?;
        rest(world).await;
        let sets: Api<ReplicaSet> = Api::namespaced(world.client(), "default");
        let sets = sets.list(&ListParams::default()).await?.items;
        let mut sizes: Vec<_> = sets.iter().map(|it| it.spec.as_ref().unwrap().replicas).collect();
        sizes.sort();
        anyhow::ensure!(sizes == [Some(0), Some(4)], "sizes: {sizes:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_lost_pod_is_replaced() {
    run(12, async |world: &mut World| {
        world.create(deployment(3, 1, 0)).await?;
        world.until_rolled_out("web").await?;
        let pods: Api<Pod> = Api::namespaced(world.client(), "default");
        let victim = world.pods("default").await?.remove(0).metadata.name.unwrap();
        pods.delete(&victim, &DeleteParams::default()).await?;
        world
            .until("the pod is replaced", async |world| {
                let pods = world.pods("default").await?;
                let names = pods.iter().filter_map(|it| it.metadata.name.as_ref());
                Ok(pods.len() == 3 && !names.into_iter().any(|it| *it == victim))
            })
            .await?;
        world.until_rolled_out("web").await
    })
    .unwrap();
}

#[test]
fn deletion_takes_the_dependents_along() {
    for (seed, params) in [(13, DeleteParams::background()), (14, DeleteParams::foreground())] {
        run(seed, async |world: &mut World| {
            world.create(deployment(3, 1, 0)).await?;
            world.until_rolled_out("web").await?;
            let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
            deployments.delete("web", &params).await?;
            world
                .until("all is gone", async |world| {
                    let sets: Api<ReplicaSet> = Api::namespaced(world.client(), "default");
                    let sets = sets.list(&ListParams::default()).await?.items;
                    let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
                    let deployment = deployments.get_opt("web").await?;
                    let pods = world.pods("default").await?;
                    Ok(deployment.is_none() && sets.is_empty() && pods.is_empty())
                })
                .await
        })
        .unwrap();
    }
}

#[test]
fn orphans_stay_and_are_adopted_again() {
    run(15, async |world: &mut World| {
        world.create(deployment(3, 1, 0)).await?;
        world.until_rolled_out("web").await?;
        let before = world.pods("default").await?;
        let deployments: Api<Deployment> = Api::namespaced(world.client(), "default");
        deployments.delete("web", &DeleteParams::orphan()).await?;
        rest(world).await;
        anyhow::ensure!(deployments.get_opt("web").await?.is_none(), "it is gone");
        world.create(deployment(3, 1, 0)).await?;
        world.until_rolled_out("web").await?;
        let names =
            |pods: Vec<Pod>| -> Vec<_> { pods.into_iter().map(|it| it.metadata.name).collect() };
        anyhow::ensure!(names(before) == names(world.pods("default").await?), "same pods");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_namespace_is_furnished_and_emptied() {
    run(16, async |world: &mut World| {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        world.create(namespace).await?;
        world
            .until("the namespace is furnished", async |world| {
                let accounts: Api<ServiceAccount> = Api::namespaced(world.client(), "a");
                let maps: Api<ConfigMap> = Api::namespaced(world.client(), "a");
                let map = maps.get_opt("kube-root-ca.crt").await?;
                Ok(accounts.get_opt("default").await?.is_some() && map.is_some())
            })
            .await?;
        let mut deployment = deployment(3, 1, 0);
        deployment["metadata"]["namespace"] = "a".into();
        world.create(deployment).await?;
        world.pass(Duration::from_secs(5)).await;
        anyhow::ensure!(world.pods("a").await?.len() == 3, "there are pods");
        let namespaces: Api<Namespace> = Api::all(world.client());
        namespaces.delete("a", &DeleteParams::default()).await?;
        world
            .until("the namespace is gone", async |world| {
                let namespaces: Api<Namespace> = Api::all(world.client());
                Ok(namespaces.get_opt("a").await?.is_none())
            })
            .await?;
        anyhow::ensure!(world.pods("a").await?.is_empty(), "its pods are gone");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_pod_that_fits_nowhere_says_so_and_waits() {
    run(17, async |world: &mut World| {
        world
            .create(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "big"},
                "spec": {"containers": [{
                    "name": "big",
                    "image": "big",
                    "resources": {"requests": {"cpu": "1000"}},
                }]},
            }))
            .await?;
        rest(world).await;
        let pod = world.pods("default").await?.remove(0);
        let conditions = pod.status.and_then(|it| it.conditions).unwrap_or_default();
        let condition = conditions.into_iter().find(|it| it.type_ == "PodScheduled").unwrap();
        let message = "0/1 nodes are available: 1 Insufficient cpu.".to_owned();
        anyhow::ensure!(condition.message == Some(message), "says {:?}", condition.message);
        anyhow::ensure!(condition.status == "False");
        Ok(())
    })
    .unwrap();
}

/// How many pods each node has, those aside that are on their way out.
async fn places(world: &World) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut places = BTreeMap::new();
    for pod in world.pods("default").await? {
        let node = pod.spec.and_then(|it| it.node_name).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_none() {
            *places.entry(node).or_default() += 1;
        }
    }
    Ok(places)
}

/// How many endpoints of `web` are ready.
async fn ready_endpoints(world: &World) -> anyhow::Result<usize> {
    let slices: Api<EndpointSlice> = Api::namespaced(world.client(), "default");
    let of_service = ListParams::default().labels("kubernetes.io/service-name=web");
    let slices = slices.list(&of_service).await?.items;
    let all = slices.iter().flat_map(|it| it.endpoints.iter().flatten());
    Ok(all.filter(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true)).count())
}

#[test]
fn a_lost_node_loses_its_pods_and_comes_back() {
    for (seed, share) in [(11, 0.0), (12, 0.1)] {
        let entries = run(seed, async |world: &mut World| {
            world.grow(3).await?;
            world.create(service()).await?;
            world.create(deployment(6, 1, 1)).await?;
            world.until_rolled_out("web").await?;
            let nodes: Vec<String> = places(world).await?.into_keys().collect();
            anyhow::ensure!(nodes.len() == 3, "pods are on {nodes:?} alone");
            let lost = nodes.last().cloned().unwrap_or_default();
            world
                .until("all are endpoints", async |it| Ok(ready_endpoints(it).await? == 6))
                .await?;

            world.faults().happen_to(share);
            world.lose(&lost);
            let at = world.now();
            world
                .until("traffic goes elsewhere", async |it| Ok(ready_endpoints(it).await? == 4))
                .await?;
            let passed = world.now().duration_since(at).as_secs();
            anyhow::ensure!((40..80).contains(&passed), "that took {passed} s");
            anyhow::ensure!(places(world).await?.contains_key(&lost), "pods left at once");
            world.restart_parts().await;
            world
                .until("other nodes have all pods", async |it| {
                    let places = places(it).await?;
                    Ok(!places.contains_key(&lost) && ready_endpoints(it).await? == 6)
                })
                .await?;
            let passed = world.now().duration_since(at).as_secs();
            anyhow::ensure!((340..460).contains(&passed), "that took {passed} s");
            // Nobody has ended those of the lost node.
            anyhow::ensure!(
                world.pods("default").await?.len() == 8,
                "pods went without their node"
            );

            world.find(&lost).await?;
            world
                .until("the node has ended them", async |it| {
                    Ok(it.pods("default").await?.len() == 6)
                })
                .await?;
            let nodes: Api<Node> = Api::all(world.client());
            world
                .until("the node is like the others", async |_| {
                    let node = nodes.get(&lost).await?;
                    let taints = node.spec.and_then(|it| it.taints).unwrap_or_default();
                    Ok(taints.is_empty())
                })
                .await?;
            world.faults().happen_to(0.0);
            world.edit_deployment("web", |it| it.spec.as_mut().unwrap().replicas = Some(9)).await?;
            world.until_rolled_out("web").await?;
            let places = places(world).await?;
            anyhow::ensure!(places.get(&lost) == Some(&3), "it has no part: {places:?}");
            Ok(())
        })
        .unwrap();
        invariant_pods_are_bound_once(&entries);
        invariant_ready_endpoints_are_ready_pods(&entries);
    }
}

#[test]
fn nobody_leaves_when_every_node_is_lost() {
    run(13, async |world: &mut World| {
        world.grow(2).await?;
        world.create(deployment(4, 1, 1)).await?;
        world.until_rolled_out("web").await?;
        let before = places(world).await?;
        for node in before.keys() {
            world.lose(node);
        }
        world.pass(Duration::from_secs(20 * 60)).await;
        // The first to be found lost was tainted while the other counted as ready, if at all.
        let gone = world.pods("default").await?;
        let gone = gone.iter().filter(|it| it.metadata.deletion_timestamp.is_some()).count();
        anyhow::ensure!(gone == 0, "{gone} pods were deleted");
        Ok(())
    })
    .unwrap();
}
