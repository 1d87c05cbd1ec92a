//! The cluster process's way to the host: the keeper, and its replacement when it dies.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::future::select_all;
use keeper::{FailureKind, Namespaces, Standby};
use runtime::{Backoff, OnExit, Tasks, watch_descriptor};
use tokio::io::Interest;

/// How many stand by: any two of the three processes may be killed at the same moment. Should all
/// three be, only a command can start the next keeper, as this process cannot go back to the host's
/// side.
const STANDBYS: usize = 2;

/// How often it is looked for a keeper that such a command has started.
const MEND_AGAIN: Backoff =
    Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };

/// The keeper as this process holds it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    keeper: keeper::Client,
    standbys: Vec<Standby>,
    namespaces: Namespaces,
    /// Where keepers serve.
    run: PathBuf,
}

impl Host {
    /// Connects to the keeper, and has standbys ready for its death.
    pub(crate) fn connect(run: &Path) -> anyhow::Result<Self> {
        let mut keeper = keeper::Client::connect(run)
            .with_context(|| format!("connect to the keeper in `{}`", run.display()))?;
        let namespaces = keeper.namespaces().context("get the namespaces from the keeper")?;
        let mut held = Held { keeper, standbys: Vec::new(), namespaces, run: run.to_owned() };
        held.mend()?;
        Ok(Self(Arc::new(Mutex::new(held))))
    }

    /// Enters the namespaces. The process must have one thread only.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        self.with(|held| keeper::enter(&held.namespaces)).context("enter the cluster's namespaces")
    }

    /// A listener on the host's side.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper()?.listen(address))
    }

    /// A connection from the host's side that may still be in progress.
    pub(crate) fn connect_tcp(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper()?.connect_tcp(address))
    }

    /// A UDP socket on the host's side.
    pub(crate) fn connect_udp(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper()?.connect_udp(address))
    }

    /// A socket on the host's side for echo requests.
    pub(crate) fn connect_icmp(&self, address: IpAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper()?.connect_icmp(address))
    }

    /// A UDP socket on the host's side that hears what comes to an address.
    pub(crate) fn bind_udp(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper()?.bind_udp(address))
    }

    /// Starts this program with other arguments on the host's network, but in the cluster's user and
    /// mount namespaces.
    pub(crate) fn spawn(
        &self,
        arguments: Vec<String>,
        stdin: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> anyhow::Result<()> {
        let program = File::open("/proc/self/exe").context("open this program")?;
        self.with(|held| held.keeper()?.spawn(arguments, program.as_fd(), stdin, stderr))
            .context("start a process on the host's network")
    }

    /// Watches the keeper and its standbys, and replaces what dies.
    pub(crate) fn watch(&self, tasks: &Tasks) {
        let host = self.clone();
        tasks.spawn("keeper", OnExit::Log, |stop| async move {
            let mut failures = 0;
            loop {
                let done = match host.with(Held::mend) {
                    Ok(()) => tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        ended = host.ended() => ended,
                    },
                    Err(error) => Err(error),
                };
                let Err(error) = done else {
                    failures = 0;
                    continue;
                };
                failures += 1;
                if failures == 1 {
                    let error = format!("{error:#}");
                    tracing::error!(error, "the host is out of reach; pods and services run on");
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(MEND_AGAIN.delay(failures)) => {}
                }
            }
        });
    }

    /// Resolves when the keeper or a standby is gone.
    async fn ended(&self) -> anyhow::Result<()> {
        let sockets = self.with(|held| {
            let keeper = std::iter::once(held.keeper.as_fd());
            let all = keeper.chain(held.standbys.iter().map(AsFd::as_fd));
            all.map(|it| it.try_clone_to_owned()).collect::<std::io::Result<Vec<OwnedFd>>>()
        });
        let sockets = sockets.context("watch the keepers")?;
        select_all(sockets.into_iter().map(|it| Box::pin(gone(it)))).await.0
    }

    /// A call takes microseconds; a keeper that is stopped makes it longer, and then the other tasks
    /// of this thread must move elsewhere.
    fn with<T>(&self, work: impl FnOnce(&mut Held) -> T) -> T {
        let locked = || work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(locked),
            Err(_) => locked(),
        }
    }
}

impl Held {
    /// The keeper, or the one in its place.
    fn keeper(&mut self) -> Result<&mut keeper::Client, keeper::Error> {
        if self.keeper.closed()
            && let Err(error) = self.replace_keeper()
        {
            tracing::debug!(error = format!("{error:#}"), "no keeper to ask");
            return Err(keeper::Error::Closed);
        }
        Ok(&mut self.keeper)
    }

    /// Replaces whatever is gone. Fails when there is no keeper any more and none can be had.
    fn mend(&mut self) -> anyhow::Result<()> {
        loop {
            self.standbys.retain(|it| !it.closed());
            if self.keeper.closed() {
                self.replace_keeper()?;
            }
            match fill(&mut self.standbys, || self.keeper.standby()) {
                Err(_) if self.keeper.closed() => {}
                done => return done.context("start another standby keeper"),
            }
        }
    }

    /// Makes a standby the keeper, or connects to one that somebody else has started.
    fn replace_keeper(&mut self) -> anyhow::Result<()> {
        while let Some(standby) = self.standbys.pop() {
            match self.take_over(standby) {
                Ok(()) => return Ok(()),
                Err(error) if is_another_keeper(&error) => break,
                Err(error) => tracing::warn!(%error, "a standby did not take over"),
            }
        }
        self.reconnect()
    }

    fn take_over(&mut self, mut standby: Standby) -> Result<(), keeper::Error> {
        tracing::warn!("the keeper is gone; a standby takes over");
        // First its own successors: it may be killed from the moment it is the keeper.
        if let Err(error) = fill(&mut self.standbys, || standby.standby()) {
            tracing::warn!(%error, "a standby keeper has no successor");
        }
        self.keeper = standby.take_over(&self.namespaces)?;
        Ok(())
    }

    fn reconnect(&mut self) -> anyhow::Result<()> {
        let mut keeper = keeper::Client::connect(&self.run)
            .context("no keeper, and no standby for it: `coracle up` starts a keeper")?;
        let namespaces = keeper.namespaces().context("get the namespaces from the keeper")?;
        ensure!(
            namespaces.same(&self.namespaces).context("compare the namespaces")?,
            "the keeper in `{}` holds the namespaces of another cluster process",
            self.run.display()
        );
        tracing::info!("another keeper is there");
        self.keeper = keeper;
        Ok(())
    }
}

fn is_another_keeper(error: &keeper::Error) -> bool {
    error.failure().is_some_and(|it| it.kind == FailureKind::AnotherKeeper)
}

/// Adds what `make` makes until there are enough standbys.
fn fill(
    standbys: &mut Vec<Standby>,
    mut make: impl FnMut() -> Result<Standby, keeper::Error>,
) -> Result<(), keeper::Error> {
    if standbys.len() < STANDBYS {
        while standbys.len() < STANDBYS {
            standbys.push(make()?);
        }
        tracing::info!("standby keepers are ready");
    }
    Ok(())
}

/// Resolves when the other end of a socket is closed.
async fn gone(socket: OwnedFd) -> anyhow::Result<()> {
    let socket = watch_descriptor(socket, Interest::READABLE)?;
    loop {
        let mut ready = socket.readable().await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        // An answer to a call; whoever called reads it.
        ready.clear_ready();
    }
}
