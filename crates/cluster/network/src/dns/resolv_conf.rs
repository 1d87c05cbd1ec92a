//! The host's `/etc/resolv.conf` (resolv.conf(5)): read, and followed when it changes.
//!
//! It may be a link to a link, written in place or replaced, and gone for a while. What is watched is
//! every folder through which it is reached, and the file itself, which somebody may have mounted there.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use runtime::watch_descriptor;
use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{io::Interest, sync::watch};
use tokio_util::sync::CancellationToken;

/// Links that are followed, as many as the kernel does (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Pause between a change and the look at it: who replaces a file may do so in steps, with an empty one
/// in between.
const SETTLE: Duration = Duration::from_millis(50);

/// Name servers that are used; the rest are ignored, as the resolver library does (`MAXNS`).
const SERVERS_MAX: usize = 3;

/// How often the file is looked at where the kernel does not watch it: a user may have only so many
/// watches (`fs.inotify.max_user_instances`).
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a resolv.conf says, as far as we use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, the first of which is asked first.
    pub servers: Vec<IpAddr>,
    /// Domains that names are tried in.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads what it understands; a name server with a scope (`fe80::1%eth0`) is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut read = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    read.servers.extend(words.next().and_then(|it| it.parse::<IpAddr>().ok()));
                }
                // The last line of either kind counts.
                Some("search" | "domain") => {
                    read.search = words.filter(|it| *it != ".").map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        read.servers.truncate(SERVERS_MAX);
        read
    }
}

/// The IPv4 name servers that a resolv.conf of this text has asked.
pub fn name_servers(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    ResolvConf::parse(text).servers.into_iter().filter_map(|it| match it {
        IpAddr::V4(it) => Some(it),
        IpAddr::V6(_) => None,
    })
}

/// What the host's file says now. Cheap to clone.
pub(crate) type Current = watch::Receiver<Arc<ResolvConf>>;

/// Keeps what is known of a file up to date.
#[derive(Debug)]
pub(crate) struct Follower {
    path: PathBuf,
    known: watch::Sender<Arc<ResolvConf>>,
}

impl Follower {
    /// Reads the file, which need not be there.
    pub(crate) fn new(path: PathBuf) -> (Self, Current) {
        let known = watch::Sender::new(Arc::default());
        let current = known.subscribe();
        let follower = Self { path, known };
        follower.read();
        (follower, current)
    }

    /// What cannot be read leaves what is known: it is on its way.
    fn read(&self) {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the host's name servers are not to be read");
                return;
            }
        };
        let read = ResolvConf::parse(&text);
        self.known.send_if_modified(|known| {
            let changed = **known != read;
            if changed {
                tracing::info!(servers = ?read.servers, search = ?read.search, "the host's name servers");
                *known = Arc::new(read);
            }
            changed
        });
    }

    /// Follows the file until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            // Before it is read: what changes after that is heard of.
            let changes = watch(&self.path);
            self.read();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = changed(changes) => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(SETTLE) => {}
            }
        }
    }
}

/// Waits until something has changed, or may have where the kernel does not tell.
async fn changed(changes: io::Result<OwnedFd>) {
    let changed = async {
        let changes = watch_descriptor(changes?, Interest::READABLE)?;
        changes.readable().await.map(drop)
    };
    if let Err(error) = changed.await {
        tracing::warn!(%error, "the kernel does not tell of changes of the host's name servers");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Watches everything through which `path` leads to a file.
fn watch(path: &Path) -> io::Result<OwnedFd> {
    let events = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let watch = |path: &Path| match inotify::add_watch(&notify, path, events) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(false),
        Err(error) => Err(io::Error::from(error)),
    };
    let mut at = path.to_owned();
    for _ in 0..LINKS_MAX {
        // Of a folder that is not there, the one in which it will appear.
        for folder in at.ancestors().skip(1) {
            if watch(folder)? {
                break;
            }
        }
        let Ok(target) = fs::read_link(&at) else { break };
        at = at.parent().unwrap_or(Path::new("/")).join(target);
    }
    watch(path)?;
    Ok(notify)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use runtime::{OnExit, Tasks};

    use super::*;

    #[test]
    fn reads_what_it_understands() {
        let host = ResolvConf::parse(
            "# written by hand\nnameserver 127.0.0.53 # local\nnameserver fe80::1%eth0\n\
             nameserver ::1\ndomain old\nsearch lan example.com\noptions edns0\n",
        );
        let servers: Vec<IpAddr> = vec!["127.0.0.53".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(host.servers, servers);
        assert_eq!(host.search, ["lan", "example.com"]);
    }

    /// Does something to the file, and waits until it is known.
    async fn heard(current: &mut Current, doing: impl FnOnce(), server: &str) {
        const PATIENCE: Duration = Duration::from_secs(10);
        doing();
        let server: IpAddr = server.parse().unwrap();
        let known = current.wait_for(|it| it.servers == [server]);
        tokio::time::timeout(PATIENCE, known).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn changes_are_heard_of_however_they_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, run) = (folder.path().join("etc"), folder.path().join("run"));
        fs::create_dir(&etc).unwrap();
        let path = etc.join("resolv.conf");
        let text = |server: &str| format!("nameserver {server}\n");
        let (follower, mut current) = Follower::new(path.clone());
        let tasks = Tasks::default();
        tasks.spawn("follower", OnExit::Log, |stop| follower.run(stop));
        // It appears, is written in place, and replaced.
        heard(&mut current, || fs::write(&path, text("192.0.2.1")).unwrap(), "192.0.2.1").await;
        heard(&mut current, || fs::write(&path, text("192.0.2.2")).unwrap(), "192.0.2.2").await;
        let replace = || {
            fs::write(etc.join("new"), text("192.0.2.3")).unwrap();
            fs::rename(etc.join("new"), &path).unwrap();
        };
        heard(&mut current, replace, "192.0.2.3").await;
        // It becomes a link to where nothing is yet.
        fs::remove_file(&path).unwrap();
        symlink("../run/resolve/stub.conf", &path).unwrap();
        let appear = || {
            fs::create_dir_all(run.join("resolve")).unwrap();
            fs::write(run.join("resolve/stub.conf"), text("192.0.2.4")).unwrap();
        };
        heard(&mut current, appear, "192.0.2.4").await;
        let replace = || {
            fs::write(run.join("resolve/new"), text("192.0.2.5")).unwrap();
            fs::rename(run.join("resolve/new"), run.join("resolve/stub.conf")).unwrap();
        };
        heard(&mut current, replace, "192.0.2.5").await;
        // While it is gone, what was known counts.
        fs::remove_dir_all(&run).unwrap();
        heard(&mut current, appear_again(&run, text("192.0.2.6")), "192.0.2.6").await;
        assert!(tasks.shutdown(Duration::from_secs(10)).await);
    }

    fn appear_again(run: &Path, text: String) -> impl FnOnce() {
        move || {
            fs::create_dir_all(run.join("resolve")).unwrap();
            fs::write(run.join("resolve/stub.conf"), text).unwrap();
        }
    }
}
