//! The files of a pod's run folder: socket, lock, the shim's own record, and for each container
//! where it runs (`ID.pid`) and how it ended (`ID.exit`).
//!
//! Every file is written beside and renamed, so that a reader sees all of it or nothing. The run
//! folder is in memory on most machines, and means nothing after a reboot: nothing is synced.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{process::Process, wire::Exit};

pub(crate) const SOCKET: &str = "shim.sock";
const LOCK: &str = "shim.lock";
const SELF: &str = "shim.json";
/// Standard error of the shim: empty unless something went very wrong.
const DIAGNOSTICS: &str = "shim.log";

/// The same of the nursery, in the cluster's run folder.
const NURSERY_DIAGNOSTICS: &str = "shims.log";

const PID: &str = "pid";
const EXIT: &str = "exit";

/// The folder in the run folder that has one folder per pod, named by its uid.
const PODS: &str = "pods";

/// Longest path that fits `sockaddr_un`, with its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// A shim that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// The pod's uid.
    pub uid: String,
    /// `NAMESPACE/NAME` of the pod.
    pub pod: String,
    /// The shim's process id.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, see proc(5).
    pub start_time: u64,
    /// The shim's descriptor of the cluster's network namespace, if it is not in that itself: its pod
    /// shares the host's.
    pub cluster_net: Option<i32>,
}

/// What a shim writes about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OwnRecord {
    pub(crate) pod: String,
    pub(crate) process: Process,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_net: Option<i32>,
}

/// The shims of a cluster that run, by the pods' uids: `run_dir` is the cluster's run folder.
///
/// # Errors
/// If the folder cannot be read; one that is not there has no shims.
pub fn live(run_dir: &Path) -> io::Result<Vec<Live>> {
    let mut found = Vec::new();
    for entry in entries(&run_dir.join(PODS))? {
        let Ok(record) = read::<OwnRecord>(&entry.path().join(SELF)) else { continue };
        let Process { pid, start_time, .. } = record.process;
        if record.process.is_alive() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            let OwnRecord { pod, cluster_net, .. } = record;
            found.push(Live { uid, pod, pid, start_time, cluster_net });
        }
    }
    found.sort_by(|left, right| left.uid.cmp(&right.uid));
    Ok(found)
}

/// How the containers of a pod ended that were not removed since, by id: what is known even when
/// the shim is gone. `dir` is the pod's run folder.
///
/// # Errors
/// If the folder or a file cannot be read; a folder that is not there has no exits.
pub fn exits(dir: &Path) -> io::Result<Vec<Exit>> {
    let mut found = with_extension(dir, EXIT)?
        .iter()
        .map(|it| read::<Exit>(it))
        .collect::<io::Result<Vec<Exit>>>()?;
    found.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(found)
}

/// The process id of the first process of a container that runs; `None` if it does not. `dir` is the
/// pod's run folder.
///
/// # Errors
/// If the record cannot be read.
pub fn first_process(dir: &Path, id: &str) -> io::Result<Option<u32>> {
    match read::<Process>(&dir.join(format!("{id}.{PID}"))) {
        Ok(process) => Ok(Some(process.pid).filter(|_| process.is_alive())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The processes recorded as containers, by id.
pub(crate) fn recorded(dir: &Path) -> io::Result<Vec<(String, Process)>> {
    let id = |it: &Path| it.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = with_extension(dir, PID)?
        .iter()
        .map(|it| Ok((id(it), read::<Process>(it)?)))
        .collect::<io::Result<Vec<_>>>()?;
    found.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(found)
}

pub(crate) fn write_own(dir: &Path, record: &OwnRecord) -> io::Result<()> {
    write(dir, SELF, record)
}

pub(crate) fn write_process(dir: &Path, id: &str, process: &Process) -> io::Result<()> {
    write(dir, &format!("{id}.{PID}"), process)
}

pub(crate) fn write_exit(dir: &Path, exit: &Exit) -> io::Result<()> {
    write(dir, &format!("{}.{EXIT}", exit.id), exit)
}

pub(crate) fn remove_process(dir: &Path, id: &str) -> io::Result<()> {
    remove(dir, &format!("{id}.{PID}"))
}

pub(crate) fn remove_exit(dir: &Path, id: &str) -> io::Result<()> {
    remove(dir, &format!("{id}.{EXIT}"))
}

/// Removes what only a running shim has. Exits stay: they are the pod's history.
pub(crate) fn remove_own(dir: &Path) -> io::Result<()> {
    remove(dir, SOCKET)?;
    remove(dir, SELF)
}

/// The lock that a shim holds as long as it lives; `None` if another process has it.
pub(crate) fn lock(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(dir.join(LOCK), flags, Mode::RUSR | Mode::WUSR)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The file for what a shim says when something goes very wrong.
pub(crate) fn diagnostics(dir: &Path) -> io::Result<fs::File> {
    append_to(&dir.join(DIAGNOSTICS))
}

/// The same for the nursery.
pub(crate) fn diagnostics_of_nursery(run_dir: &Path) -> io::Result<fs::File> {
    append_to(&run_dir.join(NURSERY_DIAGNOSTICS))
}

fn append_to(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The listening socket, in place of one that a dead shim left. The caller has the lock.
pub(crate) fn listen(dir: &Path, backlog: i32) -> io::Result<OwnedFd> {
    remove(dir, SOCKET)?;
    let socket = socket(SocketFlags::NONBLOCK)?;
    let (address, _dir) = address(dir)?;
    // It is 0600 from the first moment.
    let former = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(former);
    bound?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// An unconnected socket of the kind a shim speaks on.
pub(crate) fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// The address of a shim's socket, and what must stay open while it is used: a path too long for
/// `sockaddr_un` is reached through the folder's descriptor.
pub(crate) fn address(dir: &Path) -> io::Result<(SocketAddrUnix, Option<OwnedFd>)> {
    use std::os::fd::AsRawFd as _;
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((SocketAddrUnix::new(&path)?, None));
    }
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
    Ok((SocketAddrUnix::new(&path)?, Some(dir)))
}

fn write<T: Serialize>(dir: &Path, name: &str, value: &T) -> io::Result<()> {
    let (beside, path) = (dir.join(format!(".{name}")), dir.join(name));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&beside)?.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(beside, path)
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let named = |it: io::Error| io::Error::new(it.kind(), format!("`{}`: {it}", path.display()));
    let bytes = fs::read(path).map_err(named)?;
    serde_json::from_slice(&bytes).map_err(|it| named(it.into()))
}

fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_extension(dir: &Path, extension: &str) -> io::Result<Vec<std::path::PathBuf>> {
    let wanted = Some(OsStr::new(extension));
    let paths = entries(dir)?.into_iter().map(|it| it.path());
    // A name that begins with a dot is one that was not renamed.
    let whole =
        |it: &Path| it.file_name().is_some_and(|it| !it.as_encoded_bytes().starts_with(b"."));
    Ok(paths.filter(|it| it.extension() == wanted && whole(it)).collect())
}

fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
