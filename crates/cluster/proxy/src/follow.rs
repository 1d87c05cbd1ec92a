//! The loop: whenever an object changes, a new table is decided and takes the last one's place; then what
//! the API and the host should know follows.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use client::{Caches, Client, Events};
use runtime::{Backoff, Clock};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    act::Writer,
    decide::{Decision, Seen, decide},
    host::HostSockets,
    limits::IDLE_TIME_MAX,
    listen::{self, Scheme},
    observe::Objects,
    serve::{Place, Proxy},
    table::{Table, USUAL},
};

/// Waits before what could not be listened at or written is tried again.
const RETRY: Backoff = Backoff { base: Duration::from_millis(500), max: Duration::from_secs(30) };

/// Follows the objects.
pub(crate) struct Follower {
    ports_file: PathBuf,
    objects: Objects,
    writer: Writer,
    sockets: Arc<dyn HostSockets>,
    proxy: Arc<Proxy>,
    table: watch::Sender<Arc<Table>>,
    open: Vec<Open>,
    /// Why ports that Gateways want are not listened at.
    refused: BTreeMap<u16, String>,
}

/// Where the proxy listens.
struct Open {
    place: Place,
    end: CancellationToken,
}

impl Follower {
    pub(crate) fn new(
        (ports_file, clock): (PathBuf, Clock),
        caches: &Caches,
        (client, events): (Client, Events),
        sockets: Arc<dyn HostSockets>,
        proxy: Arc<Proxy>,
        table: watch::Sender<Arc<Table>>,
    ) -> Self {
        let (objects, writer) = (Objects::new(caches), Writer::new(client, events, clock));
        let (open, refused) = (Vec::new(), BTreeMap::new());
        Self { ports_file, objects, writer, sockets, proxy, table, open, refused }
    }

    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = self.objects.synced() => {}
        }
        let mut failures = 0;
        let mut sweep = tokio::time::interval(IDLE_TIME_MAX);
        loop {
            if self.follow().await {
                failures = 0;
            } else {
                failures += 1;
            }
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {
                        // Connections to endpoints end with the requests on them.
                        self.proxy.pool.keep_to(HashSet::new());
                        return Ok(());
                    }
                    () = self.objects.changed() => break,
                    () = tokio::time::sleep(RETRY.delay(failures)), if failures != 0 => break,
                    _ = sweep.tick() => self.proxy.pool.close_idle(),
                }
            }
        }
    }

    /// Returns whether all was done.
    async fn follow(&mut self) -> bool {
        let seen = self.objects.seen().await;
        let mut decision = decide(&seen);
        let table = std::mem::take(&mut decision.table);
        table.go_on_after(&self.table.borrow());
        let endpoints = table.endpoints();
        // First nobody chooses an endpoint that has gone, then connections to it are closed.
        self.table.send_replace(Arc::new(table));
        self.proxy.pool.keep_to(endpoints);
        let listening = self.listen(&decision).await;
        if let Err(error) = &listening {
            tracing::warn!(%error, "the HTTP proxy does not listen on the host");
        }
        let written = self.write(&seen, &decision).await;
        if let Err(error) = &written {
            tracing::warn!(%error, "status of Ingresses, Gateways or HTTPRoutes not written");
        }
        listening.is_ok() && written.is_ok()
    }

    async fn write(&mut self, seen: &Seen, decision: &Decision) -> Result<(), client::Error> {
        let usual = self.usual();
        let listens: Vec<String> =
            usual.iter().map(|(scheme, port)| format!("{}={port}", scheme.word())).collect();
        self.writer.class(seen, &listens.join(",")).await?;
        let ports: Vec<u16> = usual.iter().map(|it| it.1).collect();
        self.writer.ingresses(seen, decision, &ports).await?;
        let refused = self.refused.iter().map(|(port, why)| (*port, Err(why.clone())));
        let open = self.open.iter().map(|it| (it.place.at, Ok(it.place.port)));
        self.writer.gateways(seen, decision, &refused.chain(open).collect()).await
    }

    /// Where the proxy listens anyway.
    fn usual(&self) -> Vec<(Scheme, u16)> {
        let schemes = [Scheme::Http, Scheme::Https].into_iter();
        let port = |it: Scheme| self.at(it.named()).map(|port| (it, port));
        schemes.filter_map(port).collect()
    }

    /// The port of this machine that listeners of Gateways call `named`, if it is listened at.
    fn at(&self, named: u16) -> Option<u16> {
        self.open.iter().find(|it| it.place.at == named).map(|it| it.place.port)
    }

    /// Listens once there is something to ask for, and where Gateways want it. A port that others ask for is
    /// theirs.
    async fn listen(&mut self, decision: &Decision) -> io::Result<()> {
        let mut taken = decision.taken.clone();
        taken.extend(decision.ports.keys());
        self.open.retain(|it| {
            let Place { port, at, tls } = it.place;
            let of_gateway = decision.ports.get(&at) == Some(&tls);
            let keep = of_gateway || (USUAL.contains(&at) && !taken.contains(&port));
            if !keep {
                it.end.cancel();
            }
            keep
        });
        self.refused.clear();
        if !decision.needed {
            return Ok(());
        }
        let mut result = Ok(());
        for scheme in [Scheme::Http, Scheme::Https] {
            if self.at(scheme.named()).is_some() {
                continue;
            }
            if let Err(error) = self.open(scheme, &taken).await {
                self.refused.insert(scheme.named(), error.to_string());
                result = Err(error);
            }
        }
        for (port, tls) in &decision.ports {
            if self.at(*port).is_some() {
                continue;
            }
            match listen::at(&*self.sockets, *port).await {
                Ok(listeners) => self.serve(listeners, Place { port: *port, at: *port, tls: *tls }),
                Err(error) => {
                    self.refused.insert(*port, format!("port {port} of this machine: {error}"));
                    result = Err(error);
                }
            }
        }
        result
    }

    async fn open(&mut self, scheme: Scheme, taken: &BTreeSet<u16>) -> io::Result<()> {
        let remembered = listen::remembered(&self.ports_file, scheme);
        let opened = listen::open(&*self.sockets, scheme, remembered, taken).await?;
        let (port, tls) = (opened.port, scheme == Scheme::Https);
        self.serve(opened.listeners, Place { port, at: scheme.named(), tls });
        if let Err(error) = listen::remember(&self.ports_file, &self.usual()) {
            tracing::warn!(%error, file = %self.ports_file.display(), "ports not remembered");
        }
        Ok(())
    }

    fn serve(&mut self, listeners: Vec<TcpListener>, place: Place) {
        let end = CancellationToken::new();
        for listener in listeners {
            self.proxy.serve(listener, place, end.clone());
        }
        let Place { port, tls, .. } = place;
        tracing::info!(port, tls, "the HTTP proxy listens on the host");
        self.open.push(Open { place, end });
    }
}
