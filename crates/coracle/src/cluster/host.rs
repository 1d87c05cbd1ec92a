//! The cluster process's way to the host: the keeper, and its replacement when it dies.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use keeper::{Namespaces, Spawn, Standby};
use runtime::{OnExit, Tasks, watch_descriptor};
use tokio::io::Interest;

/// The keeper as this process holds it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Host(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    keeper: keeper::Client,
    standby: Option<Standby>,
    namespaces: Namespaces,
}

impl Host {
    /// Connects to the keeper, and has a standby ready for its death. Before this process enters
    /// the namespaces: only outside of them can the standby be started.
    pub(crate) fn connect(name: &str, run: &Path, log: &Path) -> anyhow::Result<Self> {
        let mut keeper = keeper::Client::connect(run)
            .with_context(|| format!("connect to the keeper in `{}`", run.display()))?;
        let namespaces = keeper.namespaces().context("get the namespaces from the keeper")?;
        let executable = Path::new("/proc/self/exe");
        let spawn = Spawn { executable, name, run_dir: run, log: Some(log), adopt: None };
        let standby = Standby::spawn(&spawn).context("start the standby keeper")?;
        let held = Held { keeper, standby: Some(standby), namespaces };
        Ok(Self(Arc::new(Mutex::new(held))))
    }

    /// Enters the namespaces. The process must have one thread only.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        self.with(|held| keeper::enter(&held.namespaces)).context("enter the cluster's namespaces")
    }

    /// A listener on the host's side.
    pub(crate) fn listen(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper.listen(address))
    }

    /// A connection from the host's side that may still be in progress.
    pub(crate) fn connect_tcp(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper.connect_tcp(address))
    }

    /// A UDP socket on the host's side.
    pub(crate) fn connect_udp(&self, address: SocketAddr) -> Result<OwnedFd, keeper::Error> {
        self.with(|held| held.keeper.connect_udp(address))
    }

    /// Watches the keeper and its standby, and replaces whichever dies.
    pub(crate) fn watch(&self, tasks: &Tasks) {
        let host = self.clone();
        tasks.spawn("keeper", OnExit::Log, |stop| async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    ended = host.ended() => ended?,
                }
                host.mend()?;
            }
        });
    }

    /// Resolves when the keeper or the standby is gone.
    async fn ended(&self) -> anyhow::Result<()> {
        let (keeper, standby) = self.with(|held| {
            let keeper = held.keeper.as_fd().try_clone_to_owned();
            let standby = held.standby.as_ref().map(|it| it.as_fd().try_clone_to_owned());
            (keeper, standby)
        });
        let keeper = gone(keeper.context("watch the keeper")?);
        let standby = standby.transpose().context("watch the standby keeper")?;
        tokio::select! {
            done = keeper => done,
            done = async {
                match standby {
                    Some(standby) => gone(standby).await,
                    // There is none to lose: wait for the keeper alone.
                    None => std::future::pending().await,
                }
            } => done,
        }
    }

    /// Replaces whichever is gone. Fails when there is no keeper any more and none can be had.
    fn mend(&self) -> anyhow::Result<()> {
        self.with(|held| {
            if held.keeper.closed() {
                tracing::warn!("the keeper is gone; its standby takes over");
                let standby = held.standby.take();
                let standby =
                    standby.context("no keeper and no standby: the host is out of reach")?;
                held.keeper = standby.take_over(&held.namespaces).context("replace the keeper")?;
            }
            if held.standby.as_ref().is_none_or(Standby::closed) {
                held.standby = None;
                held.standby = Some(held.keeper.standby().context("start another standby")?);
                // From here on the next death is healed too. One that falls before, within the
                // millisecond in which a keeper is alone, is not.
                tracing::info!("a standby keeper is ready");
            }
            Ok(())
        })
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
