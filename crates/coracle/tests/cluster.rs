//! The cluster inside a test, used as its documentation says.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::ConfigMap,
};
use kube::{
    Api,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

/// Longest wait for a controller.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// How often is looked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until there is a ReplicaSet, and returns how many replicas it is to have.
async fn replicas(client: kube::Client) -> anyhow::Result<Option<i32>> {
    let sets: Api<ReplicaSet> = Api::default_namespaced(client);
    let found = async {
        loop {
            let list = sets.list(&Default::default()).await?;
            if let Some(spec) = list.items.into_iter().find_map(|it| it.spec) {
                return Ok(spec.replicas);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, found).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_work_in_a_cluster_and_in_its_forks() {
    let cluster = coracle::Cluster::start().await.unwrap();
    let fork = cluster.fork().await.unwrap();
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
        },
    }))
    .unwrap();
    for client in [cluster.client(), fork.client()] {
        let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
        deployments.create(&PostParams::default(), &deployment).await.unwrap();
        assert_eq!(replicas(client).await.unwrap(), Some(3));
    }
    assert!(fork.stop().await);
    assert!(cluster.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_processes_get_a_kubeconfig() {
    let cluster = coracle::Cluster::start().await.unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&cluster.listen().unwrap()).unwrap();
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let config_map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "over-tls"}})).unwrap();
    let there: Api<ConfigMap> = Api::default_namespaced(client);
    there.create(&PostParams::default(), &config_map).await.unwrap();
    let here: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    assert!(here.get_opt("over-tls").await.unwrap().is_some());
}
