//! The whole policy, as a function of what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use api::duration;
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::MicroTime};

use crate::{
    Disturbance, Impairment, Loss, Shape,
    fault::{Action, Fault, Network, Phase, PodId, Status, TargetKind, bytes},
    target::{World, choose, id_of},
};

/// How long a fault that has ended is kept, so that people can read what it did.
pub(crate) const HISTORY: Duration = Duration::from_secs(600);

/// Names of pods that a message has before it only counts them.
const NAMES_MAX: usize = 5;

/// Everything one decision depends on.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) now: Timestamp,
    pub(crate) faults: Vec<Arc<Fault>>,
    pub(crate) world: World,
}

/// What to do, in this order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decision {
    /// Written before anything is done, so that whoever comes next knows what to undo.
    pub(crate) before: Vec<(Arc<Fault>, Status)>,
    pub(crate) kill: BTreeSet<PodId>,
    /// The pods that are to be stopped, also those that are.
    pub(crate) pause: BTreeSet<PodId>,
    pub(crate) resume: BTreeSet<PodId>,
    /// All disturbances there are to be.
    pub(crate) disturb: Vec<Disturbance>,
    /// All nodes that are to be lost.
    pub(crate) lose: BTreeMap<String, Loss>,
    /// The volumes that are to be full: pod, name, bytes.
    pub(crate) fill: BTreeMap<(PodId, String), u64>,
    pub(crate) empty: BTreeSet<(PodId, String)>,
    /// Written when all is done.
    pub(crate) after: Vec<(Arc<Fault>, Status)>,
    /// Those that may be gone now.
    pub(crate) release: Vec<Arc<Fault>>,
    /// Those that nobody has to remember any longer.
    pub(crate) forget: Vec<Arc<Fault>>,
    /// When the passing of time alone changes something.
    pub(crate) wake: Option<Duration>,
}

impl Decision {
    fn wake_at(&mut self, now: Timestamp, then: Option<Timestamp>) {
        let left = then.map(|it| Duration::try_from(it.duration_since(now)).unwrap_or_default());
        self.wake = [self.wake, left].into_iter().flatten().min();
    }
}

/// What has to be done about all faults.
pub(crate) fn decide(seen: &Seen) -> Decision {
    let mut decision = Decision::default();
    for fault in &seen.faults {
        let status = fault.status.clone().unwrap_or_default();
        let deleting = fault.metadata.deletion_timestamp.is_some();
        if status.phase == Some(Phase::Ended) {
            let end = status.end_time.as_ref().map_or(seen.now, |it| it.0);
            match end.checked_add(HISTORY) {
                _ if deleting => decision.release.push(Arc::clone(fault)),
                Ok(then) if seen.now < then => decision.wake_at(seen.now, Some(then)),
                _ => decision.forget.push(Arc::clone(fault)),
            }
            continue;
        }
        match over(fault, &status, seen.now) {
            Some(why) => end(fault, status, why, seen, &mut decision),
            None => go_on(fault, &status, seen, &mut decision),
        }
    }
    // What another fault stops stays stopped, and what another one fills full.
    let Decision { pause, resume, fill, empty, .. } = &mut decision;
    resume.retain(|it| !pause.contains(it));
    empty.retain(|it| !fill.contains_key(it));
    decision
}

/// Why a fault is over, if it is.
fn over(fault: &Fault, status: &Status, now: Timestamp) -> Option<&'static str> {
    let start = status.start_time.as_ref().map_or(now, |it| it.0);
    let lease = fault.spec.lease.as_ref().and_then(|it| it.ends());
    if fault.metadata.deletion_timestamp.is_some() {
        Some("it was taken back")
    } else if fault.spec.ends(start).is_some_and(|it| it <= now) {
        Some("its time is over")
    } else if lease.is_some_and(|it| it <= now) {
        Some("whoever asked for it is gone")
    } else {
        None
    }
}

fn end(fault: &Arc<Fault>, mut status: Status, why: &str, seen: &Seen, decision: &mut Decision) {
    let pods = status.pods.iter().cloned();
    match (fault.spec.action, &fault.spec.fill) {
        (Action::Pause, _) => decision.resume.extend(pods),
        (Action::Fill, Some(fill)) => {
            decision.empty.extend(pods.map(|it| (it, fill.volume.clone())));
        }
        _ => {}
    }
    status.message = Some(match status.phase {
        Some(Phase::Active) => format!("undone: {why}"),
        Some(Phase::Beginning | Phase::Ended) | None => format!("never began: {why}"),
    });
    status.phase = Some(Phase::Ended);
    status.end_time = Some(MicroTime(seen.now));
    decision.after.push((Arc::clone(fault), status));
    if fault.metadata.deletion_timestamp.is_some() {
        decision.release.push(Arc::clone(fault));
    } else {
        decision.wake_at(seen.now, seen.now.checked_add(HISTORY).ok());
    }
}

fn go_on(fault: &Arc<Fault>, old: &Status, seen: &Seen, decision: &mut Decision) {
    let (spec, world) = (&fault.spec, &seen.world);
    let count = spec.count.and_then(|it| usize::try_from(it).ok());
    let uid = fault.metadata.uid.as_deref().unwrap_or_default();
    let chosen = choose(uid, world.pods_of(&spec.target), &old.pods, count);
    let nodes = world.nodes_of(&spec.target);
    let start = old.start_time.as_ref().map_or(seen.now, |it| it.0);
    let pods: Vec<PodId> = chosen.iter().map(|it| id_of(it)).collect();
    let mut status = Status {
        phase: Some(Phase::Active),
        observed_generation: fault.metadata.generation,
        start_time: Some(MicroTime(start)),
        end_time: None,
        pods: pods.clone(),
        nodes: nodes.iter().cloned().collect(),
        message: Some(message(fault, &pods, &nodes)),
    };
    let same = old.pods == status.pods && old.nodes == status.nodes;
    let written = same && matches!(old.phase, Some(Phase::Beginning | Phase::Active));
    if !written {
        let beginning = Status { phase: Some(Phase::Beginning), message: None, ..status.clone() };
        decision.before.push((Arc::clone(fault), beginning));
    }
    let of_node = spec.target.kind == TargetKind::Node;
    match spec.action {
        Action::Kill if of_node => {
            decision.lose.extend(nodes.into_iter().map(|it| (it, Loss::Dead)));
        }
        Action::Kill => {
            decision.kill.extend(pods);
            status.phase = Some(Phase::Ended);
            status.end_time = Some(MicroTime(seen.now));
            decision.after.push((Arc::clone(fault), status));
            decision.wake_at(seen.now, seen.now.checked_add(HISTORY).ok());
            return;
        }
        Action::Pause => {
            decision.pause.extend(pods);
            for node in nodes {
                decision.lose.entry(node).or_insert(Loss::Silent);
            }
        }
        Action::Partition => {
            decision.disturb.push(cut(fault, &chosen, &nodes, world));
            for node in nodes {
                decision.lose.entry(node).or_insert(Loss::Silent);
            }
        }
        Action::Network => decision.disturb.push(Disturbance {
            to: addresses(&chosen),
            from: spec.from.as_ref().map(|it| addresses(&world.pods_of(it))),
            impairment: Impairment::Shape(shape(spec.network.as_ref())),
        }),
        Action::Fill => {
            let fill = spec.fill.as_ref().and_then(|it| Some((it.volume.clone(), it.bytes()?)));
            if let Some((volume, bytes)) = fill {
                decision.fill.extend(pods.into_iter().map(|it| ((it, volume.clone()), bytes)));
            }
        }
    }
    decision.disturb.retain(|it| !it.to.is_empty());
    if status != *old {
        decision.after.push((Arc::clone(fault), status));
    }
    decision.wake_at(seen.now, spec.ends(start));
    decision.wake_at(seen.now, spec.lease.as_ref().and_then(|it| it.ends()));
}

/// A node that is cut off is so from the pods of all others, and nobody hears of it; its own pods still
/// reach each other.
fn cut(fault: &Fault, chosen: &[&Pod], nodes: &BTreeSet<String>, world: &World) -> Disturbance {
    let to = addresses(chosen);
    let from = match &fault.spec.from {
        Some(from) => Some(addresses(&world.pods_of(from))),
        None if nodes.is_empty() => None,
        None => {
            let all: Vec<&Pod> = world.pods.iter().map(|it| &**it).collect();
            Some(addresses(&all))
        }
    };
    let from = from.map(|it| it.difference(&to).copied().collect());
    Disturbance { to, from, impairment: Impairment::Cut }
}

/// Addresses of those pods that have one of their own.
fn addresses(pods: &[&Pod]) -> BTreeSet<Ipv4Addr> {
    let address = |pod: &&Pod| {
        let on_host = pod.spec.as_ref()?.host_network == Some(true);
        let address = pod.status.as_ref()?.pod_ip.as_deref()?;
        (!on_host).then(|| address.parse().ok()).flatten()
    };
    pods.iter().filter_map(address).collect()
}

fn shape(network: Option<&Network>) -> Shape {
    let Some(network) = network else { return Shape::default() };
    let time = |it: &Option<String>| it.as_deref().and_then(duration::parse).unwrap_or_default();
    let part = |percent: Option<f64>| percent.unwrap_or_default() / 100.0;
    Shape {
        delay: time(&network.delay),
        jitter: time(&network.jitter),
        loss: part(network.loss_percent),
        duplicate: part(network.duplicate_percent),
        corrupt: part(network.corrupt_percent),
        bytes_per_second: network.bytes_per_second.as_ref().and_then(bytes),
    }
}

fn message(fault: &Fault, pods: &[PodId], nodes: &BTreeSet<String>) -> String {
    let done = fault.spec.action.done();
    if pods.is_empty() && nodes.is_empty() {
        return "nothing there that the target means".to_owned();
    }
    let listed = |kind: &str, names: Vec<&str>| match names.len() {
        0 => None,
        1 => Some(format!("{kind} {}", names.join(", "))),
        2..=NAMES_MAX => Some(format!("{kind}s {}", names.join(", "))),
        many => Some(format!("{many} {kind}s")),
    };
    let nodes = listed("node", nodes.iter().map(String::as_str).collect());
    let pods = listed("pod", pods.iter().map(|it| it.name.as_str()).collect());
    let parts: Vec<String> = [nodes, pods].into_iter().flatten().collect();
    format!("{done} {}", parts.join(" with "))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
