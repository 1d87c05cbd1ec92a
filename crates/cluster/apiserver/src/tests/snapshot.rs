//! Snapshots and forks.

use http_body_util::BodyExt as _;
use store::Backup;

use super::Api;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn config_map(name: &str) -> String {
    format!(r#"{{"metadata": {{"name": "{name}"}}, "data": {{"a": "b"}}}}"#)
}

/// The names in a collection.
async fn names(api: &Api, path: &str) -> Vec<String> {
    let list = api.value(&format!("GET {path}"), "").await;
    let items = list["items"].as_array().unwrap();
    items.iter().map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_everything_and_a_server_starts_from_it() {
    let api = Api::new().await;
    let one = api.value(&format!("POST {CONFIG_MAPS}"), &config_map("one")).await;
    let answer = api.send("GET /snapshot", "").await;
    assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let backup = Backup::read(&bytes).unwrap();
    assert_eq!(backup.revision().to_string(), one["metadata"]["resourceVersion"]);
    let restored = Api::on(backup.into_memory().unwrap()).await;
    assert_eq!(restored.value(&format!("GET {CONFIG_MAPS}/one"), "").await, one);
}

#[tokio::test(start_paused = true)]
async fn a_fork_begins_alike_and_goes_its_own_way() {
    let api = Api::new().await;
    let parent = api.value(&format!("POST {CONFIG_MAPS}"), &config_map("both")).await;
    let fork = api.fork().await;
    assert_eq!(fork.value(&format!("GET {CONFIG_MAPS}/both"), "").await, parent);
    assert_eq!(fork.server.authority(), api.server.authority());

    let here = api.value(&format!("POST {CONFIG_MAPS}"), &config_map("new")).await;
    let there = fork.value(&format!("POST {CONFIG_MAPS}"), &config_map("new")).await;
    assert_ne!(here["metadata"]["uid"], there["metadata"]["uid"]);
    fork.value(&format!("DELETE {CONFIG_MAPS}/both"), "").await;
    assert_eq!(names(&api, CONFIG_MAPS).await, ["both", "new"]);
    assert_eq!(names(&fork, CONFIG_MAPS).await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_fork_gives_no_address_out_twice() {
    let api = Api::new().await;
    let service = |name: &str| {
        format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {{"ports": [{{"port": 80}}]}}}}"#)
    };
    let one = api.value(&format!("POST {SERVICES}"), &service("one")).await;
    let fork = api.fork().await;
    let taken = one["spec"]["clusterIP"].as_str().unwrap();
    let body =
        service("two").replace(r#""spec": {"#, &format!(r#""spec": {{"clusterIP": "{taken}", "#));
    let (code, _) = super::text(fork.send(&format!("POST {SERVICES}"), &body).await).await;
    assert_eq!(code, 422);
}
