//! The most idle pods: as many as the node says that it takes, or until something gives out; and how the
//! cluster is then.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Context as _;
use hyper::Method;
use runtime::Tasks;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    IDLE, PATIENCE, pack, pod,
    pods::{Memory, create, crowd, delete},
    up, within,
};
use crate::{
    cluster::Cluster,
    http::Connection,
    pods::{Events, PODS},
    processes::Role,
    report::{Figure, Samples},
};

/// Pods that are created before anybody looks.
const STEP: usize = 100;

/// How often the pods are listed when all are there.
const LISTS: usize = 10;

/// The one that is too many.
const EXTRA: &str = "extra";

/// Between two looks at the machine's processes, which take some milliseconds.
const POLL: Duration = Duration::from_millis(50);

/// Longest wait for all of them to go.
const END: Duration = Duration::from_secs(600);

/// Fills a cluster of its own and empties it.
pub(crate) async fn measure(coracle: &Path, tasks: &Tasks) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::new(coracle)?;
    pack(&cluster).await?;
    let (endpoint, mut connection) = up(&cluster, tasks).await?;
    let mut events = Events::open(&endpoint, tasks).await?;
    let before = Memory::now(&cluster)?;
    let node = connection.get("/api/v1/nodes").await?;
    let most = node.pointer("/items/0/status/allocatable/pods").and_then(Value::as_str);
    let most = most.and_then(amount).context("how many pods the node takes")?;
    let (count, mut figures) = fill(&mut connection, &mut events, most).await?;
    figures.push(Figure::new("pods that the node says it takes", most as f64, ""));
    figures.extend(Memory::now(&cluster)?.since(&before, count.max(1)));
    connection.succeed(Method::POST, PODS, pod(EXTRA, IDLE, Some(0))).await?;
    tell(&mut connection, EXTRA).await?;
    delete(&mut connection, EXTRA).await?;
    figures.extend(lists(&mut connection).await?);
    figures.extend(empty(&cluster, &mut connection, &mut events, count).await?);
    cluster.delete().await?;
    Ok(figures)
}

/// A quantity without fractions, as the API writes it: 1000 is `1k`.
fn amount(text: &str) -> Option<usize> {
    match text.strip_suffix('k') {
        Some(thousands) => thousands.parse::<usize>().ok()?.checked_mul(1000),
        None => text.parse().ok(),
    }
}

/// Creates pods until there are so many, or one does not run in time.
async fn fill(
    connection: &mut Connection,
    events: &mut Events,
    most: usize,
) -> anyhow::Result<(usize, Vec<Figure>)> {
    let (mut count, mut steps) = (0, Vec::new());
    while count < most {
        let numbers = count..most.min(count + STEP);
        let (start, until) = (Instant::now(), numbers.end);
        create(connection, numbers.clone()).await?;
        for number in numbers {
            match tokio::time::timeout(PATIENCE, events.ready(&crowd(number))).await {
                Ok(ready) => ready?,
                Err(_) => break,
            }
            count += 1;
        }
        eprintln!("{count} pods, the last {STEP} in {:.1} s", start.elapsed().as_secs_f64());
        if count < until {
            tell(connection, &crowd(count)).await?;
            break;
        }
        steps.push(start.elapsed());
    }
    let mut figures = vec![Figure::new("idle pods that run", count as f64, "")];
    let ends = [("first", steps.first()), ("last", steps.last())];
    figures.extend(ends.into_iter().filter_map(|(which, it)| {
        Some(Figure::time(format!("the {which} {STEP}, created to all ready"), *it?))
    }));
    Ok((count, figures))
}

/// Deletes them all, also those that do not run.
async fn empty(
    cluster: &Cluster,
    connection: &mut Connection,
    events: &mut Events,
    count: usize,
) -> anyhow::Result<Vec<Figure>> {
    let start = Instant::now();
    let mut names: Vec<String> = Vec::new();
    for number in 0..count + STEP {
        let name = crowd(number);
        let path = format!("{PODS}/{name}");
        let (status, _) = connection.call(Method::DELETE, &path, bytes::Bytes::new()).await?;
        if status.is_success() {
            names.push(name);
        }
    }
    let answered = start.elapsed();
    let gone = async {
        for name in &names {
            events.gone(name).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(END, gone).await.context("the pods do not go")??;
    let objects = start.elapsed();
    let ended = async {
        while cluster.processes()?.iter().any(|it| it.role == Role::Shim) {
            tokio::time::sleep(POLL).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(END, ended).await.context("shims stay")??;
    Ok(vec![
        Figure::time("all deleted, requests answered", answered),
        Figure::time("all deleted to all objects gone", objects),
        Figure::time("all deleted to all processes gone", start.elapsed()),
    ])
}

async fn lists(connection: &mut Connection) -> anyhow::Result<Vec<Figure>> {
    let mut samples = Vec::new();
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for _ in 0..LISTS {
        let start = Instant::now();
        let answer = connection
            .send(Method::GET, PODS, ("application/json", table), bytes::Bytes::new())
            .await?;
        http_body_util::BodyExt::collect(answer.into_body()).await?;
        samples.push(start.elapsed());
    }
    Ok(vec![Figure::time("all of them as a table, p50", Samples::new(samples).percentile(50))])
}

/// Prints why a pod does not run: its conditions, its containers, its events.
async fn tell(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let events =
        format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name={name}");
    let reasons = async {
        loop {
            let found = connection.get(&events).await?;
            let list = found.get("items").and_then(Value::as_array).into_iter().flatten();
            let mut said: BTreeMap<String, u64> = BTreeMap::new();
            for event in list {
                let text = |it| event.get(it).and_then(Value::as_str).unwrap_or_default();
                let text = format!("{}: {}", text("reason"), text("message"));
                *said.entry(text).or_default() += 1;
            }
            if !said.is_empty() {
                return anyhow::Ok(said);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reasons = within(reasons).await?;
    let found = connection.get(&format!("{PODS}/{name}")).await?;
    let phase = found.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    eprintln!("pod {name} is {phase}");
    for (reason, count) in reasons {
        eprintln!("  {count} × {reason}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(
            ["110", "1k", "25k", "1.5", "k", ""].map(amount),
            [Some(110), Some(1_000), Some(25_000), None, None, None]
        );
    }
}
