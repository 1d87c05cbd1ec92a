//! Several nodes on one machine: pods stay on theirs, whatever process dies, and leave one that is lost.

use anyhow::{Context as _, ensure};

use crate::{
    cluster::{Cluster, eventually},
    host::{kill, processes},
    run::{pod, server},
};

/// Seconds for which Leases hold.
pub(crate) const LEASE: &str = "4";
/// How long pods stay on a lost node.
const TOLERATION: &str = "      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
";

/// Each pod with its uid, its node, its address and how often it was restarted.
const PLACES: &str = "jsonpath={range .items[*]}{.metadata.uid} {.spec.nodeName} {.status.podIP} \
                      {.status.containerStatuses[*].restartCount}{'\\n'}{end}";

pub(crate) fn places(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let said = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", PLACES])?;
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// How many pods a node has.
pub(crate) fn on(places: &[String], node: &str) -> usize {
    places.iter().filter(|it| it.split(' ').nth(1) == Some(node)).count()
}

/// What the Service leads to.
pub(crate) fn endpoints(cluster: &Cluster) -> anyhow::Result<usize> {
    let ready = "jsonpath={.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}";
    let of = "kubernetes.io/service-name=web";
    let said = cluster.kubectl(&["get", "endpointslices", "-l", of, "-o", ready])?;
    Ok(said.split_whitespace().count())
}

/// Six servers that leave a lost node soon.
pub(crate) fn servers() -> String {
    let containers = "      containers:\n";
    server("web", 6).replacen(containers, &format!("{TOLERATION}{containers}"), 1)
}

/// The nodes' names.
pub(crate) fn names(cluster: &Cluster) -> anyhow::Result<[String; 3]> {
    let said = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"])?;
    let names: Vec<String> = said.split(' ').map(str::to_owned).collect();
    names.try_into().map_err(|it| anyhow::anyhow!("not three nodes: {it:?}"))
}

/// Whether so many processes of pods are stopped.
fn stopped(count: usize) -> anyhow::Result<bool> {
    let program = std::env::current_exe()?.display().to_string();
    let mut found = 0;
    for process in processes(&[&program, " probe "])? {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid))?;
        found += usize::from(stat.rsplit(") ").next().is_some_and(|it| it.starts_with('T')));
    }
    Ok(found == count)
}

pub(crate) fn nodes_keep_their_pods_until_they_are_lost() -> anyhow::Result<()> {
    let cluster = Cluster::new("nodes")?;
    cluster.coracle(&["up", "--detach", "--nodes", "3", "--node-lease", LEASE])?;
    cluster.write("app.yaml", &servers())?;
    cluster.up()?;
    let [first, second, lost] = &names(&cluster)?;
    let before = places(&cluster)?;
    ensure!([first, second, lost].iter().all(|it| on(&before, it) == 2), "{before:?}");

    kill(cluster.pid()?)?;
    eventually("the cluster process is gone", || {
        Ok(cluster.status()?.get("running") == Some(&false.into()))
    })?;
    cluster.up()?;
    ensure!(places(&cluster)? == before, "{:?} instead of {before:?}", places(&cluster)?);

    // Pods that stop with their node go on with it, if it is not away for long.
    let target = format!("node/{first}");
    cluster.coracle(&["chaos", "pause", &target, "--as", "short", "--detach"])?;
    eventually("they stand still", || stopped(2))?;
    cluster.coracle(&["chaos", "stop", "short"])?;
    eventually("they go on", || stopped(0))?;

    // Nobody hears of the last one any more; its pods run on, and others take their place.
    let target = format!("node/{lost}");
    cluster.coracle(&["chaos", "pause", &target, "--as", "lost", "--detach"])?;
    eventually("traffic goes elsewhere", || Ok(endpoints(&cluster)? == 4))?;
    eventually("others have its pods", || {
        Ok(places(&cluster)?.len() == 8 && endpoints(&cluster)? == 6)
    })?;
    cluster.coracle(&["chaos", "stop", "lost"])?;
    eventually("it has ended what it had", || Ok(places(&cluster)?.len() == 6))?;
    let condition = ["wait", "--for=condition=Ready", &target, "--timeout=30s"];
    cluster.kubectl(&condition)?;
    ensure!(on(&places(&cluster)?, lost) == 0, "{:?}", places(&cluster)?);

    // It is like the others again, and then there are fewer.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=9"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    ensure!(on(&places(&cluster)?, lost) == 3, "{:?}", places(&cluster)?);
    cluster.coracle(&["up", "--detach", "--nodes", "1"])?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    let after = places(&cluster)?;
    ensure!(on(&after, first) == 9, "{after:?}");
    Ok(())
}

/// Who answers a pod on a node, by name.
fn answering(cluster: &Cluster, node: &str, service: &str) -> anyhow::Result<Vec<String>> {
    let selector = format!(
        "spec:\n  restartPolicy: Never\n  nodeSelector: {{kubernetes.io/hostname: {node}}}\n"
    );
    let asker = pod("asker", &["who", &format!("http://{service}/")]);
    cluster.apply(&asker.replacen("spec:\n", &selector, 1))?;
    let ended = "--for=jsonpath={.status.phase}=Succeeded";
    cluster.kubectl(&["wait", ended, "pod/asker", "--timeout=30s"])?;
    let said = cluster.logs("pod/asker")?;
    cluster.kubectl(&["delete", "pod/asker"])?;
    let names = said.lines().map(|it| it.strip_prefix("ok ").map(str::to_owned));
    names.collect::<Option<_>>().with_context(|| format!("not all were answered: {said}"))
}

/// As their Services say, by a policy or by a preference.
pub(crate) fn traffic_stays_on_its_node() -> anyhow::Result<()> {
    let cluster = Cluster::new("near")?;
    cluster.coracle(&["up", "--detach", "--nodes", "3"])?;
    let service = |name: &str, field: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  {field}\n  \
             selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080}}]\n---\n"
        )
    };
    let local = service("local", "internalTrafficPolicy: Local");
    let near = service("near", "trafficDistribution: PreferSameNode");
    cluster.write("app.yaml", &(servers() + &local + &near))?;
    cluster.up()?;
    let on_nodes = "jsonpath={range .items[*]}{.spec.nodeName} {.metadata.name}{'\\n'}{end}";
    let said = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", on_nodes])?;
    let mut all: Vec<&str> = said.lines().filter_map(|it| it.split(' ').nth(1)).collect();
    all.sort_unstable();
    let [first, second, third] = &names(&cluster)?;
    for node in [first, second] {
        let own = said.lines().filter_map(|it| it.strip_prefix(&format!("{node} ")));
        let mut own: Vec<&str> = own.collect();
        own.sort_unstable();
        ensure!(own.len() == 2, "{said}");
        for service in ["local", "near"] {
            let found = answering(&cluster, node, service)?;
            ensure!(found == own, "{service} leads {node} to {found:?} instead of {own:?}");
        }
        ensure!(answering(&cluster, node, "web")? == all, "not all answer {node}");
    }
    // Without any of its own, a node's pods are led elsewhere if that was a preference only.
    cluster.kubectl(&["cordon", third])?;
    let on_third = ["delete", "pod", "-l", "app=web", "--field-selector"];
    cluster.kubectl(&[&on_third[..], &[&format!("spec.nodeName={third}")]].concat())?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?;
    cluster.kubectl(&["uncordon", third])?;
    ensure!(answering(&cluster, third, "near")?.len() == 6, "not all answer {third}");
    let refused = answering(&cluster, third, "local");
    ensure!(refused.is_err_and(|it| it.to_string().contains("refused")), "{third} is answered");
    Ok(())
}
