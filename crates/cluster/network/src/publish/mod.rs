//! Ports of Services and pods on the host. Connections to them there lead to the Service in here: what
//! the annotation [`api::annotation::PUBLISH`] says and node ports at `127.0.0.1`, load balancers at an
//! address of their own, which is written into their status. Those to a `hostPort` lead to the pod.

mod balancer;
mod relay;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use api::annotation::PUBLISH;
use client::{Change, Client, EventType, Events, Key, Subscription};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use kube::Resource as _;
use runtime::{Backoff, OnExit, Tasks};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{addresses::Addresses, host::HostSockets, nft::Transport, services::describe};
use wanted::{Asker, At, Lead, Wanted, wanted};

/// Waits before a port that was in use is tried again: whoever has it may go.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// Reason of the events about load balancers, which Kubernetes' own controller of them uses.
const REASON_BALANCER: &str = "SyncLoadBalancerFailed";
/// Reason of the others.
const REASON: &str = "PublishFailed";

/// Reason of events about ports of pods.
const REASON_POD: &str = "HostPortNotOpen";

/// Whose port it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Service(Key),
    Pod(Key),
}

/// A port that is listened at.
#[derive(Debug)]
struct Listening {
    owner: Owner,
    lead: Lead,
    end: CancellationToken,
    /// Ends once the socket is closed.
    closed: oneshot::Receiver<()>,
}

/// Why a port is not listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    InUse,
    NotPermitted,
    NotHere,
    Other,
}

/// A port that is not listened at, and for people why and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    obstacle: Obstacle,
    text: String,
}

/// The loop and the listeners it holds.
pub(crate) struct Publisher {
    addresses: Addresses,
    sockets: Arc<dyn HostSockets>,
    client: Client,
    events: Events,
    tasks: Tasks,
    services: BTreeMap<Key, Arc<Service>>,
    /// Those with ports of the host.
    pods: BTreeMap<Key, Arc<Pod>>,
    listening: BTreeMap<At, Listening>,
    /// Who lacks a port, and what was said about it.
    failed: BTreeMap<Owner, BTreeSet<String>>,
}

impl Publisher {
    pub(crate) fn new(
        addresses: Addresses,
        sockets: Arc<dyn HostSockets>,
        (client, events): (Client, Events),
        tasks: Tasks,
    ) -> Self {
        let (services, pods) = (BTreeMap::new(), BTreeMap::new());
        let (listening, failed) = (BTreeMap::new(), BTreeMap::new());
        Self { addresses, sockets, client, events, tasks, services, pods, listening, failed }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        mut self,
        mut services: Subscription<Service>,
        mut pods: Subscription<Pod>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let retry = tokio::time::sleep(RETRY.delay(failures));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                change = services.next() => {
                    if self.concerns(&change) {
                        self.failed.insert(Owner::Service(change.key.clone()), BTreeSet::new());
                        failures = 0;
                    }
                    match change.new {
                        Some(service) => self.services.insert(change.key, service),
                        None => self.services.remove(&change.key),
                    };
                }
                change = pods.next() => {
                    self.failed.entry(Owner::Pod(change.key.clone())).or_default();
                    failures = 0;
                    match change.new {
                        Some(pod) => self.pods.insert(change.key, pod),
                        None => self.pods.remove(&change.key),
                    };
                }
                () = retry, if !self.failed.is_empty() => {}
            }
            for (owner, said) in std::mem::take(&mut self.failed) {
                let problems = match &owner {
                    Owner::Service(key) => self.reconcile(key, said).await,
                    Owner::Pod(key) => self.reconcile_pod(key, said).await,
                };
                if let Some(problems) = problems {
                    self.failed.insert(owner, problems);
                }
            }
            failures = if self.failed.is_empty() { 0 } else { failures.saturating_add(1) };
        }
    }

    /// Whether a change of a Service changes what is listened at, or may.
    fn concerns(&self, change: &Change<Service>) -> bool {
        let wants = |it: &Service| {
            let nothing = wanted(it, &self.addresses) == Wanted::default();
            !nothing
                || !wanted::balancers(it, &self.addresses).is_empty()
                || wanted::balancer(it).is_some()
        };
        change.both().any(wants)
    }

    /// Brings the listeners of a Service to what it wants. If some do not listen that later may,
    /// returns the problems there are; only those that were not `said` become events.
    async fn reconcile(&mut self, key: &Key, said: BTreeSet<String>) -> Option<BTreeSet<String>> {
        let service = self.services.get(key).map(Arc::clone);
        let owner = Owner::Service(key.clone());
        let wish = service.as_deref().map(|it| wanted(it, &self.addresses));
        let Wanted { mut ports, problems } = wish.unwrap_or_default();
        let balancer = match &service {
            Some(service) => self.choose(key, service).await,
            None => None,
        };
        ports.extend(balancer.iter().flat_map(|(_, ports)| ports));
        self.give_up(&owner, |at, lead| ports.get(at) != Some(lead)).await;
        let mut failed = BTreeMap::new();
        for (&at, &lead) in &ports {
            match self.ensure(&owner, at, lead).await {
                Err(problem) if problem.is_one_for(lead) => drop(failed.insert(at, problem)),
                Ok(()) | Err(_) => {}
            }
        }
        let texts = problems.into_iter().map(|it| (REASON, it));
        let texts =
            texts.chain(failed.iter().map(|(at, it)| (reason(ports.get(at)), it.text.clone())));
        let texts: BTreeMap<String, &str> = texts.map(|(reason, text)| (text, reason)).collect();
        let mut all = failed.is_empty();
        if let Some(service) = &service {
            let about = service.object_ref(&());
            self.tell(&owner, &about, texts.iter().filter(|(it, _)| !said.contains(*it)));
            let balancer = balancer.as_ref().map(|(address, ports)| (*address, ports));
            if let Err(error) = balancer::write(&self.client, key, service, balancer, &failed).await
            {
                tracing::warn!(service = %key, error = describe(&error), "status not written");
                all = false;
            }
        }
        (!all).then(|| texts.into_keys().collect())
    }

    /// The same of a pod.
    async fn reconcile_pod(
        &mut self,
        key: &Key,
        said: BTreeSet<String>,
    ) -> Option<BTreeSet<String>> {
        let pod = self.pods.get(key).map(Arc::clone);
        let owner = Owner::Pod(key.clone());
        let ports = pod.as_deref().map(|it| wanted::of_pod(it, &self.addresses));
        let ports = ports.unwrap_or_default();
        self.give_up(&owner, |at, lead| ports.get(at) != Some(lead)).await;
        let mut texts = BTreeMap::new();
        for (&at, &lead) in &ports {
            if let Err(problem) = self.ensure(&owner, at, lead).await {
                texts.insert(problem.text, REASON_POD);
            }
        }
        let about = pod?.object_ref(&());
        self.tell(&owner, &about, texts.iter().filter(|(it, _)| !said.contains(*it)));
        (!texts.is_empty()).then(|| texts.into_keys().collect())
    }

    /// Finds an address for a Service's load balancer at which all its ports are free, and listens at
    /// them; the first one if there is none. Nothing if it is not to have one.
    async fn choose(
        &mut self,
        key: &Key,
        service: &Service,
    ) -> Option<(Ipv4Addr, BTreeMap<At, Lead>)> {
        let candidates = wanted::balancers(service, &self.addresses);
        let owner = Owner::Service(key.clone());
        for &candidate in &candidates {
            let ports = wanted::balanced(service, candidate, &self.addresses);
            let mut free = true;
            for (&at, &lead) in &ports {
                let done = self.ensure(&owner, at, lead).await;
                free &= !done.is_err_and(|it| it.obstacle == Obstacle::InUse);
            }
            if free {
                return Some((candidate, ports));
            }
            self.give_up(&owner, |at, _| ports.contains_key(at)).await;
        }
        candidates.first().map(|it| (*it, wanted::balanced(service, *it, &self.addresses)))
    }

    /// Ends those listeners of an owner, and waits until their ports are free.
    async fn give_up(&mut self, owner: &Owner, which: impl Fn(&At, &Lead) -> bool) {
        let given_up =
            self.listening.extract_if(.., |at, it| it.owner == *owner && which(at, &it.lead));
        let given_up: Vec<Listening> = given_up.map(|(_, it)| it).collect();
        given_up.iter().for_each(|it| it.end.cancel());
        for Listening { closed, .. } in given_up {
            match closed.await {
                // Nothing is ever sent: the other end goes with the socket.
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn tell<'a>(
        &self,
        owner: &Owner,
        about: &ObjectReference,
        texts: impl Iterator<Item = (&'a String, &'a &'static str)>,
    ) {
        for (text, reason) in texts {
            tracing::warn!(%owner, problem = text, "port not published");
            self.events.record(about.clone(), EventType::Warning, reason, text.as_str());
        }
    }

    /// Listens, unless it is done already.
    async fn ensure(&mut self, owner: &Owner, at: At, lead: Lead) -> Result<(), Problem> {
        match self.listening.get(&at) {
            Some(it) if it.owner == *owner && it.lead == lead => return Ok(()),
            // Another port of the same owner, or the same for another reason.
            Some(it) if it.owner == *owner => self.give_up(owner, |it, _| *it == at).await,
            Some(Listening { owner: other, .. }) => {
                let text = format!(
                    "{} of the host is published for {other}: {}",
                    at.shown(),
                    lead.asker.other_port()
                );
                return Err(Problem { obstacle: Obstacle::InUse, text });
            }
            None => {}
        }
        self.listen(owner, at, lead).await.map_err(|error| explain(at, lead, &error))
    }

    async fn listen(&mut self, owner: &Owner, at: At, lead: Lead) -> io::Result<()> {
        let address = at.address.into();
        let socket = match at.transport {
            Transport::Tcp => self.sockets.listen(address).await?,
            Transport::Udp => self.sockets.bind_udp(address).await?,
        };
        let end = CancellationToken::new();
        let (closing, closed) = oneshot::channel::<()>();
        let entry = Listening { owner: owner.clone(), lead, end: end.clone(), closed };
        self.listening.insert(at, entry);
        let tasks = self.tasks.clone();
        self.tasks.spawn("published-port", OnExit::Log, move |stop| async move {
            // Goes after the socket, as locals go in reverse.
            let _closing = closing;
            let serve = async {
                match at.transport {
                    Transport::Tcp => relay::tcp(socket, lead.target, tasks).await,
                    Transport::Udp => relay::udp(socket, lead.target, end.clone(), tasks).await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                () = end.cancelled() => Ok(()),
                ended = serve => ended,
            }
        });
        tracing::info!(%owner, host = at.shown(), "port published");
        Ok(())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Pod(key) => write!(f, "pod {key}"),
        }
    }
}

impl At {
    /// For people.
    fn shown(&self) -> String {
        let Self { address, transport } = self;
        let protocol = match transport {
            Transport::Tcp => "",
            Transport::Udp => "/UDP",
        };
        if *address.ip() == Ipv4Addr::LOCALHOST {
            format!("port {}{protocol}", address.port())
        } else {
            format!("port {}{protocol} at {}", address.port(), address.ip())
        }
    }
}

impl Asker {
    /// What to do about a port that somebody else has.
    fn other_port(self) -> String {
        match self {
            Self::Annotation => format!("choose another host port in the annotation {PUBLISH}"),
            Self::NodePort => "choose another `nodePort`".to_owned(),
            Self::Balancer => "choose another `port`, or no `loadBalancerIP`".to_owned(),
            Self::ExternalAddress => {
                "choose another `port`, or another of `externalIPs`".to_owned()
            }
            Self::HostPort => "choose another `hostPort`".to_owned(),
        }
    }
}

impl Problem {
    /// Whether whoever asked for the port wants to hear of it: an address from outside need not be one
    /// of this host.
    fn is_one_for(&self, lead: Lead) -> bool {
        self.obstacle != Obstacle::NotHere || lead.asker != Asker::ExternalAddress
    }
}

/// Reason of an event about a port.
fn reason(lead: Option<&Lead>) -> &'static str {
    match lead.map(|it| it.asker) {
        Some(Asker::Balancer) => REASON_BALANCER,
        _ => REASON,
    }
}

fn explain(at: At, lead: Lead, error: &io::Error) -> Problem {
    let (shown, number, other) = (at.shown(), at.address.port(), lead.asker.other_port());
    let (obstacle, text) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            let flags = if at.transport == Transport::Tcp { "-ltnp" } else { "-lunp" };
            let text = format!(
                "{shown} of the host is in use: stop the program that has it (`ss {flags} 'sport = \
                 :{number}'` names it) or {other}"
            );
            (Obstacle::InUse, text)
        }
        io::ErrorKind::PermissionDenied => {
            let other = match lead.asker {
                Asker::Annotation => format!("choose one from 1024 on in the annotation {PUBLISH}"),
                Asker::HostPort => "choose a `hostPort` from 1024 on".to_owned(),
                Asker::NodePort | Asker::Balancer | Asker::ExternalAddress => format!(
                    "`sysctl -w net.ipv4.ip_unprivileged_port_start={number}` opens it, and node \
                     ports are open as they are"
                ),
            };
            (
                Obstacle::NotPermitted,
                format!("{shown} of the host is not open to this user: {other}"),
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            (Obstacle::NotHere, format!("this host has no address {}", at.address.ip()))
        }
        _ => {
            let text = format!("{shown} of the host cannot be listened at: {}", describe(error));
            (Obstacle::Other, text)
        }
    };
    Problem { obstacle, text }
}
