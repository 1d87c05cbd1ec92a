//! A target as people write it.

use std::collections::BTreeMap;

use ::chaos::{Target, TargetKind};
use anyhow::{Context as _, bail};
use client::Client;
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::LabelSelector};
use kube::Api;

/// What is meant by `kind/name,name` or `key=value,key=value`. A Deployment is asked for its selector.
pub(super) async fn read(client: &Client, text: &str, namespace: &str) -> anyhow::Result<Target> {
    let Some((kind, names)) = text.split_once('/') else {
        return labelled(text, namespace);
    };
    let target = |kind: TargetKind| Target {
        kind,
        namespace: (kind != TargetKind::Node).then(|| namespace.to_owned()),
        names: names.split(',').map(str::to_owned).collect(),
        selector: None,
    };
    match kind {
        "pod" | "pods" | "po" => Ok(target(TargetKind::Pod)),
        "service" | "services" | "svc" => Ok(target(TargetKind::Service)),
        "node" | "nodes" | "no" => Ok(target(TargetKind::Node)),
        "deployment" | "deployments" | "deploy" => {
            let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            let found = deployments.get(names).await;
            let found = found.with_context(|| format!("find Deployment `{names}`"))?;
            let selector = found.spec.map(|it| it.selector).unwrap_or_default();
            Ok(Target { names: Vec::new(), selector: Some(selector), ..target(TargetKind::Pod) })
        }
        _ => bail!("`{kind}` in `{text}` is no target: pod, deployment, service and node are"),
    }
}

fn labelled(text: &str, namespace: &str) -> anyhow::Result<Target> {
    let mut labels = BTreeMap::new();
    for one in text.split(',') {
        let Some((key, value)) = one.split_once('=') else {
            bail!(
                "`{text}` is no target: pod/NAME, deployment/NAME, service/NAME, node/NAME and labels \
                 such as app=web are"
            );
        };
        labels.insert(key.to_owned(), value.trim_start_matches('=').to_owned());
    }
    let selector = LabelSelector { match_labels: Some(labels), ..LabelSelector::default() };
    Ok(Target {
        kind: TargetKind::Pod,
        namespace: Some(namespace.to_owned()),
        names: Vec::new(),
        selector: Some(selector),
    })
}
