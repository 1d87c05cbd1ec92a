//! Pods that come among many NetworkPolicies: when they are restricted, and what that costs them.

use anyhow::Context as _;
use serde_json::json;

use super::{
    agent::now,
    lab::{Lab, pod},
    percentiles,
    watch::Watch,
};
use crate::{pods::PODS, report::Figure};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
/// How many policies there are. Each is about a tenth as many groups of pods.
const COUNT: usize = 500;
/// How many pods come, one after the other.
const COMING: usize = 30;

/// Pods without a policy, then among many, then such as change their labels.
pub(super) async fn measure(lab: &mut Lab, watch: &mut Watch) -> anyhow::Result<Vec<Figure>> {
    let mut alone = Vec::new();
    for number in 0..COMING {
        alone.push(comes(lab, &format!("alone-{number}"), number).await?);
    }
    for number in 0..COUNT {
        let group = |number: usize| json!({"matchLabels": {"group": format!("group-{number}")}});
        let rule = json!({
            "from": [{"podSelector": group(number + 1)}],
            "ports": [{"protocol": "TCP", "port": 8000 + number}],
        });
        let spec = json!({
            "podSelector": group(number % (COUNT / 10)), "policyTypes": ["Ingress"], "ingress": [rule],
        });
        let policy = json!({"metadata": {"name": format!("policy-{number}")}, "spec": spec});
        lab.create(POLICIES, &policy).await?;
    }
    let (mut among, mut isolated) = (Vec::new(), Vec::new());
    for number in 0..COMING {
        watch.forget().await?;
        let name = format!("among-{number}");
        let began = now()?;
        among.push(comes(lab, &name, number).await?);
        let address = lab.address(&name).await?;
        let there = watch.first(&address.octets()).await;
        isolated.push(there.with_context(|| format!("`{name}` is not restricted"))? - began);
    }
    let mut relabelled = Vec::new();
    for number in 0..COMING {
        watch.forget().await?;
        let address = lab.address(&format!("alone-{number}")).await?;
        let path = format!("{PODS}/alone-{number}");
        lab.replace(&path, "/metadata/labels/group", &json!(format!("group-{}", number + 10)))
            .await?;
        let ended = now()?;
        relabelled.push(watch.first(&address.octets()).await? - ended);
    }
    let mut figures = percentiles("pod created to running, without policies", alone, None);
    let name = |what: &str| format!("{what}, among {COUNT} policies");
    figures.extend(percentiles(&name("pod created to running"), among, None));
    figures.extend(percentiles(&name("pod created to restricted in the kernel"), isolated, None));
    let label = "label written, until the kernel restricts by it";
    figures.extend(percentiles(&name(label), relabelled, None));
    Ok(figures)
}

/// Seconds until a new pod runs.
async fn comes(lab: &mut Lab, name: &str, number: usize) -> anyhow::Result<f64> {
    let labels = json!({"group": format!("group-{number}")});
    let began = now()?;
    lab.create(PODS, &pod(name, &labels, ("idle", &[]))).await?;
    lab.events.running(name).await?;
    Ok(now()? - began)
}
