//! Ports of Services on the host: `127.0.0.1:HOSTPORT` there leads to the Service in here, as the
//! annotation [`api::annotation::PUBLISH`] says.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use api::annotation::{PUBLISH, Publish};
use client::{EventType, Events, Key, ResourceExt as _, Subscription};
use k8s_openapi::api::core::v1::Service;
use kube::Resource as _;
use runtime::{Backoff, OnExit, Tasks};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use crate::{directory, host::HostSockets, proxy, services::describe};

/// Connections of one published port at a time; the next one waits in the backlog.
const CONNECTIONS_MAX: usize = 1024;
/// Wait when no descriptor is left, which `accept` would report again at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Waits before a port that was in use is tried again: whoever has it may go.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(30) };
/// Reason of the events.
const REASON: &str = "PublishFailed";

/// A port on the host and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Published {
    host_port: u16,
    target: SocketAddrV4,
}

/// What a Service wants published, and what of it cannot be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    ports: BTreeSet<Published>,
    problems: Vec<String>,
}

/// The loop and the listeners it holds.
#[derive(Debug)]
pub(crate) struct Publisher {
    sockets: Arc<dyn HostSockets>,
    events: Events,
    tasks: Tasks,
    services: BTreeMap<Key, Arc<Service>>,
    /// By host port: whose it is, where it leads, and how to end it.
    listening: BTreeMap<u16, (Key, Published, CancellationToken)>,
    /// Services that lack a port, and what was said about it.
    failed: BTreeMap<Key, Vec<String>>,
}

impl Publisher {
    pub(crate) fn new(sockets: Arc<dyn HostSockets>, events: Events, tasks: Tasks) -> Self {
        let (services, listening) = (BTreeMap::new(), BTreeMap::new());
        Self { sockets, events, tasks, services, listening, failed: BTreeMap::new() }
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
                    let concerned = change.both().any(|it| it.annotations().contains_key(PUBLISH));
                    match change.new {
                        Some(service) => self.services.insert(change.key.clone(), service),
                        None => self.services.remove(&change.key),
                    };
                    if concerned {
                        self.failed.insert(change.key, Vec::new());
                        failures = 0;
                    }
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

    /// Brings the listeners of a Service to what it wants. If some do not listen that later may,
    /// returns the problems there are; only those that were not `said` become events.
    async fn reconcile(&mut self, key: &Key, said: Vec<String>) -> Option<Vec<String>> {
        let service = self.services.get(key).map(Arc::clone);
        let Wanted { ports, mut problems } = service.as_deref().map(wanted).unwrap_or_default();
        let given_up = self
            .listening
            .extract_if(.., |_, (owner, published, _)| owner == key && !ports.contains(published));
        for (_, (_, _, end)) in given_up {
            end.cancel();
        }
        let mut all = true;
        for published in ports {
            let problem = self.ensure(key, published).await.err();
            all &= problem.is_none();
            problems.extend(problem);
        }
        for problem in problems.iter().filter(|it| !said.contains(it)) {
            tracing::warn!(service = %key, problem, "port not published");
            if let Some(service) = &service {
                let about = service.object_ref(&());
                self.events.record(about, EventType::Warning, REASON, problem.as_str());
            }
        }
        (!all).then_some(problems)
    }

    /// Listens, unless it is done already; an error says what to do.
    async fn ensure(&mut self, key: &Key, published: Published) -> Result<(), String> {
        let port = published.host_port;
        match self.listening.get(&port) {
            Some((owner, _, _)) if owner == key => Ok(()),
            Some((owner, _, _)) => Err(format!(
                "port {port} of the host is published for Service {owner}: choose another host \
                 port in the annotation {PUBLISH}"
            )),
            None => self.listen(key, published).await.map_err(|error| explain(port, &error)),
        }
    }

    async fn listen(&mut self, key: &Key, published: Published) -> io::Result<()> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, published.host_port);
        let listener = into_listener(self.sockets.listen(address.into()).await?)?;
        let end = CancellationToken::new();
        let entry = (key.clone(), published, end.clone());
        self.listening.insert(published.host_port, entry);
        let tasks = self.tasks.clone();
        self.tasks.spawn("published-port", OnExit::Log, |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(()),
                () = end.cancelled() => Ok(()),
                ended = accept(listener, published.target, tasks) => ended,
            }
        });
        tracing::info!(service = %key, host = %address, "port published");
        Ok(())
    }
}

fn into_listener(listener: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(listener: TcpListener, target: SocketAddrV4, tasks: Tasks) -> anyhow::Result<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "connection to a published port not accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        tasks.spawn("published-connection", OnExit::Log, |stop| async move {
            let _slot = slot;
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                ended = connect(stream, target) => if let Err(error) = ended {
                    tracing::debug!(%target, %error, "published connection ended");
                },
            }
            Ok(())
        });
    }
}

/// The rules lead a connection from here to an endpoint, or refuse it if there is none.
async fn connect(stream: TcpStream, target: SocketAddrV4) -> io::Result<()> {
    match TcpStream::connect(target).await {
        Ok(inside) => proxy::join(stream, inside).await,
        Err(error) => {
            proxy::reset(stream);
            Err(error)
        }
    }
}

fn explain(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {port} of the host is in use: stop the program that has it (`ss -ltnp 'sport = \
             :{port}'` names it) or choose another host port in the annotation {PUBLISH}"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "port {port} of the host is not open to this user: choose one from 1024 on in the \
             annotation {PUBLISH}"
        ),
        _ => format!("port {port} of the host cannot be listened at: {}", describe(error)),
    }
}

/// What the annotation of a Service asks for.
fn wanted(service: &Service) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(text) = service.annotations().get(PUBLISH) else { return wanted };
    let list = match Publish::parse_list(text) {
        Ok(list) => list,
        Err(error) => {
            wanted.problems.push(format!("annotation {PUBLISH}: {error}"));
            return wanted;
        }
    };
    let Some(address) = directory::cluster_ip(service) else {
        wanted.problems.push("a Service without a cluster address cannot be published".to_owned());
        return wanted;
    };
    let ports: BTreeSet<i32> = service
        .spec
        .iter()
        .flat_map(|it| it.ports.iter().flatten())
        .filter(|it| it.protocol.as_deref().unwrap_or("TCP") == "TCP")
        .map(|it| it.port)
        .collect();
    for Publish { host_port, service_port } in list {
        if ports.contains(&service_port.into()) {
            let target = SocketAddrV4::new(address, service_port);
            wanted.ports.insert(Published { host_port, target });
        } else {
            wanted.problems.push(format!("the Service has no TCP port {service_port} to publish"));
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(annotation: &str, cluster_ip: &str, expected: Expect) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"annotations": {PUBLISH: annotation}},
            "spec": {"clusterIP": cluster_ip, "ports": [
                {"port": 80}, {"port": 53, "protocol": "UDP"},
            ]},
        }))
        .unwrap();
        let Wanted { ports, problems } = wanted(&service);
        let ports = ports.iter().map(|it| format!("{} > {}", it.host_port, it.target));
        expected.assert_eq(&ports.chain(problems).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn publishes_tcp_ports_of_cluster_addresses() {
        check(
            "8080:80, 80",
            "10.96.0.7",
            expect![[r#"
            80 > 10.96.0.7:80
            8080 > 10.96.0.7:80"#]],
        );
        check(
            "8080:81,53",
            "10.96.0.7",
            expect![[r#"
            the Service has no TCP port 81 to publish
            the Service has no TCP port 53 to publish"#]],
        );
        check(
            "8080:80",
            "None",
            expect!["a Service without a cluster address cannot be published"],
        );
        check(
            "http",
            "10.96.0.7",
            expect![
                "annotation coracle.dev/publish: `http` is not HOSTPORT:PORT with ports from 1 to 65535"
            ],
        );
    }
}
