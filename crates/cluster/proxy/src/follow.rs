//! The loop: whenever an object changes, a new table is decided and takes the last one's place; then what
//! the API and the host should know follows.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use client::{Caches, Client, Events};
use runtime::Backoff;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    act::Writer,
    decide::{Decision, Seen, decide},
    host::HostSockets,
    limits::IDLE_TIME_MAX,
    listen::{self, Scheme},
    observe::Objects,
    serve::Proxy,
    table::Table,
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
}

/// Where the proxy listens.
struct Open {
    scheme: Scheme,
    port: u16,
    end: CancellationToken,
}

impl Follower {
    pub(crate) fn new(
        ports_file: PathBuf,
        caches: &Caches,
        (client, events): (Client, Events),
        sockets: Arc<dyn HostSockets>,
        proxy: Arc<Proxy>,
        table: watch::Sender<Arc<Table>>,
    ) -> Self {
        let (objects, writer) = (Objects::new(caches), Writer::new(client, events));
        Self { ports_file, objects, writer, sockets, proxy, table, open: Vec::new() }
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
            tracing::warn!(%error, "status of Ingresses not written");
        }
        listening.is_ok() && written.is_ok()
    }

    async fn write(&mut self, seen: &Seen, decision: &Decision) -> Result<(), client::Error> {
        self.open.sort_by_key(|it| it.scheme);
        let listens: Vec<String> =
            self.open.iter().map(|it| format!("{}={}", it.scheme.word(), it.port)).collect();
        self.writer.class(seen, &listens.join(",")).await?;
        let ports: Vec<u16> = self.open.iter().map(|it| it.port).collect();
        self.writer.ingresses(seen, decision, &ports).await
    }

    /// Listens once there is something to ask for. A port that others ask for is theirs.
    async fn listen(&mut self, decision: &Decision) -> io::Result<()> {
        let taken = &decision.taken;
        self.open.retain(|it| {
            let keep = !taken.contains(&it.port);
            if !keep {
                it.end.cancel();
            }
            keep
        });
        if !decision.needed {
            return Ok(());
        }
        let mut result = Ok(());
        for scheme in [Scheme::Http, Scheme::Https] {
            if self.open.iter().any(|it| it.scheme == scheme) {
                continue;
            }
            if let Err(error) = self.open(scheme, taken).await {
                result = Err(error);
            }
        }
        result
    }

    async fn open(&mut self, scheme: Scheme, taken: &BTreeSet<u16>) -> io::Result<()> {
        let remembered = listen::remembered(&self.ports_file, scheme);
        let opened = listen::open(&*self.sockets, scheme, remembered, taken).await?;
        let (port, end) = (opened.port, CancellationToken::new());
        for listener in opened.listeners {
            self.proxy.serve(listener, port, scheme == Scheme::Https, end.clone());
        }
        tracing::info!(port, scheme = scheme.word(), "the HTTP proxy listens on the host");
        self.open.push(Open { scheme, port, end });
        let ports: Vec<(Scheme, u16)> = self.open.iter().map(|it| (it.scheme, it.port)).collect();
        if let Err(error) = listen::remember(&self.ports_file, &ports) {
            tracing::warn!(%error, file = %self.ports_file.display(), "ports not remembered");
        }
        Ok(())
    }
}
