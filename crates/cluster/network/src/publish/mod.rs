//! Ports of Services on the host. Connections to them there lead to the Service in here: what the
//! annotation [`api::annotation::PUBLISH`] says and node ports at `127.0.0.1`, load balancers at an
//! address of their own, which is written into their status.

mod balancer;
mod relay;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use api::annotation::PUBLISH;
use client::{Change, Client, EventType, Events, Key, Subscription};
use k8s_openapi::api::core::v1::Service;
use kube::Resource as _;
use runtime::{Backoff, OnExit, Tasks};
use tokio_util::sync::CancellationToken;

use crate::{addresses::Addresses, host::HostSockets, nft::Transport, services::describe};
use wanted::{Asker, At, Lead, Wanted, wanted};

/// Waits before a port that was in use is tried again: whoever has it may go.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// Reason of the events about load balancers, which Kubernetes' own controller of them uses.
const REASON_BALANCER: &str = "SyncLoadBalancerFailed";
/// Reason of the others.
const REASON: &str = "PublishFailed";

/// A port that is listened at.
#[derive(Debug)]
struct Listening {
    owner: Key,
    lead: Lead,
    end: CancellationToken,
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
    listening: BTreeMap<At, Listening>,
    /// Services that lack a port, and what was said about it.
    failed: BTreeMap<Key, BTreeSet<String>>,
}

impl Publisher {
    pub(crate) fn new(
        addresses: Addresses,
        sockets: Arc<dyn HostSockets>,
        (client, events): (Client, Events),
        tasks: Tasks,
    ) -> Self {
        let (services, listening) = (BTreeMap::new(), BTreeMap::new());
        let failed = BTreeMap::new();
        Self { addresses, sockets, client, events, tasks, services, listening, failed }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        mut self,
        mut services: Subscription<Service>,
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
                        self.failed.insert(change.key.clone(), BTreeSet::new());
                        failures = 0;
                    }
                    match change.new {
                        Some(service) => self.services.insert(change.key, service),
                        None => self.services.remove(&change.key),
                    };
                }
                () = retry, if !self.failed.is_empty() => {}
            }
            for (key, said) in std::mem::take(&mut self.failed) {
                if let Some(problems) = self.reconcile(&key, said).await {
                    self.failed.insert(key, problems);
                }
            }
            failures = if self.failed.is_empty() { 0 } else { failures.saturating_add(1) };
        }
    }

    /// Whether a change of a Service changes what is listened at, or may.
    fn concerns(&self, change: &Change<Service>) -> bool {
        let wants = |it: &Service| {
            let nothing = wanted(it, &self.addresses) == Wanted::default();
            !nothing || !wanted::balancers(it).is_empty() || wanted::balancer(it).is_some()
        };
        change.both().any(wants)
    }

    /// Brings the listeners of a Service to what it wants. If some do not listen that later may,
    /// returns the problems there are; only those that were not `said` become events.
    async fn reconcile(&mut self, key: &Key, said: BTreeSet<String>) -> Option<BTreeSet<String>> {
        let service = self.services.get(key).map(Arc::clone);
        let wish = service.as_deref().map(|it| wanted(it, &self.addresses));
        let Wanted { mut ports, problems } = wish.unwrap_or_default();
        let balancer = match &service {
            Some(service) => self.choose(key, service).await,
            None => None,
        };
        ports.extend(balancer.iter().flat_map(|(_, ports)| ports));
        self.give_up(key, |at, lead| ports.get(at) != Some(lead));
        let mut failed = BTreeMap::new();
        for (&at, &lead) in &ports {
            match self.ensure(key, at, lead).await {
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
            self.tell(key, service, texts.iter().filter(|(it, _)| !said.contains(*it)));
            let balancer = balancer.as_ref().map(|(address, ports)| (*address, ports));
            if let Err(error) = balancer::write(&self.client, key, service, balancer, &failed).await
            {
                tracing::warn!(service = %key, error = describe(&error), "status not written");
                all = false;
            }
        }
        (!all).then(|| texts.into_keys().collect())
    }

    /// Finds an address for a Service's load balancer at which all its ports are free, and listens at
    /// them; the first one if there is none. Nothing if it is not to have one.
    async fn choose(
        &mut self,
        key: &Key,
        service: &Service,
    ) -> Option<(Ipv4Addr, BTreeMap<At, Lead>)> {
        let candidates = wanted::balancers(service);
        for &candidate in &candidates {
            let ports = wanted::balanced(service, candidate);
            let mut free = true;
            for (&at, &lead) in &ports {
                let done = self.ensure(key, at, lead).await;
                free &= !done.is_err_and(|it| it.obstacle == Obstacle::InUse);
            }
            if free {
                return Some((candidate, ports));
            }
            self.give_up(key, |at, _| ports.contains_key(at));
        }
        candidates.first().map(|it| (*it, wanted::balanced(service, *it)))
    }

    /// Ends those listeners of a Service.
    fn give_up(&mut self, key: &Key, which: impl Fn(&At, &Lead) -> bool) {
        let given_up =
            self.listening.extract_if(.., |at, it| it.owner == *key && which(at, &it.lead));
        for (_, Listening { end, .. }) in given_up {
            end.cancel();
        }
    }

    fn tell<'a>(
        &self,
        key: &Key,
        service: &Service,
        texts: impl Iterator<Item = (&'a String, &'a &'static str)>,
    ) {
        for (text, reason) in texts {
            tracing::warn!(service = %key, problem = text, "port not published");
            let about = service.object_ref(&());
            self.events.record(about, EventType::Warning, reason, text.as_str());
        }
    }

    /// Listens, unless it is done already.
    async fn ensure(&mut self, key: &Key, at: At, lead: Lead) -> Result<(), Problem> {
        match self.listening.get(&at) {
            Some(it) if it.owner == *key && it.lead == lead => return Ok(()),
            // Another port of the same Service, or the same for another reason.
            Some(it) if it.owner == *key => self.give_up(key, |it, _| *it == at),
            Some(Listening { owner, .. }) => {
                let text = format!(
                    "{} of the host is published for Service {owner}: {}",
                    at.shown(),
                    lead.asker.other_port()
                );
                return Err(Problem { obstacle: Obstacle::InUse, text });
            }
            None => {}
        }
        self.listen(key, at, lead).await.map_err(|error| explain(at, lead, &error))
    }

    async fn listen(&mut self, key: &Key, at: At, lead: Lead) -> io::Result<()> {
        let address = at.address.into();
        let socket = match at.transport {
            Transport::Tcp => self.sockets.listen(address).await?,
            Transport::Udp => self.sockets.bind_udp(address).await?,
        };
        let end = CancellationToken::new();
        let entry = Listening { owner: key.clone(), lead, end: end.clone() };
        self.listening.insert(at, entry);
        let tasks = self.tasks.clone();
        self.tasks.spawn("published-port", OnExit::Log, move |stop| async move {
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
        tracing::info!(service = %key, host = at.shown(), "port published");
        Ok(())
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
