//! What a process may do: its user namespace, user, groups, capabilities, seccomp and AppArmor.
//!
//! In that order, each step needing what the next one takes away.

use std::{
    fmt::Display,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Gid, PROC_SUPER_MAGIC, Uid},
    io::Errno,
    process::{DumpableBehavior, Signal, WaitOptions},
    thread::{CapabilitySet, CapabilitySets, ThreadNameSpaceType, UnshareFlags},
};

use super::{failed, launch, refused, user::Identity};
use crate::{
    sys::{self, New},
    wire::{IdMap, IdRange, ProcessSpec, RlimitResource, Stage, StartError},
};

/// What root may do in a container: containerd's default set.
const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Longest seccomp program, in bytes: BPF_MAXINSNS instructions of 8.
const SECCOMP_BYTES_MAX: u64 = 4096 * 8;

/// Which user namespace a process comes to be in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Users<'a> {
    /// The one it is in: whether that is the machine's first.
    Cluster { initial: bool },
    /// A new one.
    New(&'a IdMap),
    /// That of a container, by its first process.
    Of(&'a OwnedFd),
    /// That of the pod, which it is in, as its root.
    Pod,
}

impl Users<'_> {
    /// Whether capabilities in it are of any use to a container, and no danger to others.
    const fn has_capabilities(self) -> bool {
        match self {
            Self::Cluster { initial } => initial,
            Self::New(_) | Self::Of(_) | Self::Pod => true,
        }
    }
}

/// Takes on a user, and gives up whatever the process is not to have. `None` is the invoking user.
pub(super) fn take_on(
    users: Users<'_>,
    identity: Option<&Identity>,
    process: &ProcessSpec,
    seccomp: Option<&[u8]>,
) -> Result<(), StartError> {
    let allowed = allowed(users, process)?;
    let single = enter(users, identity)?;
    // In its own user namespace only: there the kernel counts the processes of that namespace. A limit
    // that was there before would count what all others of this user run as well.
    launch::limit(process.rlimits.iter().filter(|it| it.resource == RlimitResource::Nproc))?;
    // From here on a process that is in the container already could otherwise look into this one,
    // which is still a copy of the shim, and take over what it holds.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed(Stage::Privileges, "cannot keep others from looking in"))?;
    drop_bounds(allowed).map_err(failed(Stage::Privileges, "cannot limit the capabilities"))?;
    if let Some(identity) = identity {
        become_user(identity, users, single)?;
    }
    if let Some(program) = seccomp.filter(|_| !process.no_new_privs) {
        // Without the promise below, only who may administrate can install one.
        install(program)?;
    }
    drop_capabilities(allowed).map_err(failed(Stage::Privileges, "cannot drop capabilities"))?;
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true)
            .map_err(failed(Stage::Privileges, "cannot forbid new privileges"))?;
    }
    Ok(())
}

/// The capabilities that programs in the container may have at most.
fn allowed(users: Users<'_>, process: &ProcessSpec) -> Result<CapabilitySet, StartError> {
    let wanted = match &process.capabilities {
        None => DEFAULT,
        Some(names) => names
            .iter()
            .try_fold(CapabilitySet::empty(), |set, name| Ok(set | capability(name)?))?,
    };
    Ok(if users.has_capabilities() { wanted } else { CapabilitySet::empty() })
}

fn capability(name: &str) -> Result<CapabilitySet, StartError> {
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    if short == "ALL" {
        return Ok(CapabilitySet::from_bits_retain(u64::MAX));
    }
    CapabilitySet::from_name(short)
        .ok_or_else(|| refused(Stage::Spec, format!("unknown capability `{name}`")))
}

/// Goes into the user namespace; returns whether there is one user only.
fn enter(users: Users<'_>, identity: Option<&Identity>) -> Result<bool, StartError> {
    match users {
        Users::Cluster { initial } => Ok(!initial),
        Users::Pod => Ok(false),
        Users::New(map) => {
            let (uid, gid) = identity.map_or((0, 0), |it| (it.uid, it.gid));
            let uids = lines(&map.uids, uid, rustix::process::geteuid().as_raw());
            let gids = lines(&map.gids, gid, rustix::process::getegid().as_raw());
            unshare(&uids, &gids)
                .map_err(failed(Stage::Namespaces, "cannot make the container's user namespace"))?;
            Ok(map.uids.is_empty())
        }
        Users::Of(process) => {
            let kind = ThreadNameSpaceType::USER;
            rustix::thread::move_into_thread_name_spaces(process.as_fd(), kind)
                .map_err(failed(Stage::Namespaces, "cannot join the container's user namespace"))?;
            let single = fs::read_to_string("/proc/self/uid_map").map_err(failed(
                Stage::Namespaces,
                "cannot read the map of the container's user namespace",
            ))?;
            Ok(single.split_ascii_whitespace().skip(2).eq(["1"]))
        }
    }
}

/// What is written to `uid_map` or `gid_map`.
fn lines(ranges: &[IdRange], inside: u32, outside: u32) -> String {
    if ranges.is_empty() {
        return format!("{inside} {outside} 1\n");
    }
    let line = |it: &IdRange| format!("{} {} {}\n", it.inside, it.outside, it.count);
    ranges.iter().map(line).collect()
}

/// Makes a user namespace with these maps. They are written by a helper that stays outside: more than
/// one's own id may be mapped only by who has the right to become others there.
fn unshare(uids: &str, gids: &str) -> io::Result<()> {
    let own = format!("/proc/{}", std::process::id());
    let (reader, writer) = rustix::pipe::pipe()?;
    let Some(helper) = sys::fork(New::Child, None)? else {
        drop(writer);
        let mut go = [0; 1];
        // Without a byte the other one has failed.
        let written = match rustix::io::retry_on_intr(|| rustix::io::read(&reader, &mut go)) {
            Ok(1) => fs::write(format!("{own}/gid_map"), gids)
                .and_then(|()| fs::write(format!("{own}/uid_map"), uids)),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        };
        sys::exit(written.err().map_or(0, |it| it.raw_os_error().unwrap_or(libc::EIO)))
    };
    drop(reader);
    let unshared = sys::unshare(UnshareFlags::NEWUSER);
    if unshared.is_ok() {
        rustix::io::write(&writer, &[1])?;
    }
    drop(writer);
    let status = rustix::io::retry_on_intr(|| {
        rustix::process::waitpid(Some(helper.pid), WaitOptions::empty())
    })?;
    unshared?;
    match status.and_then(|(_, it)| it.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other("the process that should map its users was killed")),
    }
}

/// Takes all but these from the bounding set, which programs run as root get theirs from.
fn drop_bounds(allowed: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !allowed.contains(capability) => {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            // Beyond the last one this kernel knows.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn drop_capabilities(allowed: CapabilitySet) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let permitted = rustix::thread::capabilities(None)?.permitted & allowed;
    // The kernel itself takes them from another user than root when the program is run.
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: permitted, permitted, inheritable };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn become_user(identity: &Identity, users: Users<'_>, single: bool) -> Result<(), StartError> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let Identity { uid, gid, groups, .. } = identity;
    if single && own == (*uid, *gid) {
        // There is nothing to change, and no right to.
        return Ok(());
    }
    let changed = || -> io::Result<()> {
        let groups: Vec<Gid> = groups.iter().map(|it| Gid::from_raw(*it)).collect();
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        rustix::thread::set_thread_groups(&groups)?;
        own_stdio(uid)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        // What is left of the capabilities is dropped later.
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        let sets = rustix::thread::capabilities(None)?;
        let sets = CapabilitySets { effective: sets.permitted, ..sets };
        rustix::thread::set_capabilities(None, sets)?;
        // Changing the user made the kernel forget it.
        Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
    };
    let what = match users {
        Users::Cluster { .. } => format!(
            "cannot run as user {uid}, group {gid}: without root there is only user {}, group {}",
            own.0, own.1
        ),
        Users::New(_) | Users::Of(_) | Users::Pod => format!(
            "cannot run as user {uid}, group {gid}: the container's user namespace has no such id"
        ),
    };
    changed().map_err(failed(Stage::Privileges, what))
}

/// Lets the program run under an AppArmor profile.
pub(super) fn confine(profile: &str) -> Result<(), StartError> {
    /// Where it is said, since Linux 5.8, and before, where another security module may be asked.
    const FILES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
    /// Whether AppArmor is one of the machine's security modules.
    const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
    let quoted = format!("cannot use the AppArmor profile `{profile}`");
    if !fs::read_to_string(ENABLED).is_ok_and(|it| it.trim() == "Y") {
        if profile == "unconfined" {
            return Ok(());
        }
        let message = format!("{quoted}: AppArmor is not enabled on this machine");
        return Err(refused(Stage::Privileges, message));
    }
    let file = FILES.into_iter().find(|it| fs::exists(it).unwrap_or(false)).unwrap_or(FILES[0]);
    tell_kernel(file, &format!("exec {profile}")).map_err(failed(Stage::Privileges, quoted))
}

/// Writes to a file of /proc, and to none that a volume of the container has put in its place: what is
/// written there confines nobody.
fn tell_kernel(file: &str, text: &str) -> io::Result<()> {
    let mut opened = File::options().write(true).open(file)?;
    if rustix::fs::fstatfs(&opened)?.f_type != PROC_SUPER_MAGIC {
        return Err(io::Error::other(format!("{file} in the container is not the kernel's")));
    }
    opened.write_all(text.as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "the kernel has loaded none of this name; load it with apparmor_parser",
        ),
        _ => error,
    })
}

/// Says how soon the kernel is to end a process (a number, or `self`) for want of memory. Without the
/// right to lower it, it stays as it is.
pub(crate) fn set_oom_score_adj(process: impl Display, value: i32) -> io::Result<()> {
    match fs::write(format!("/proc/{process}/oom_score_adj"), value.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// Gives the user its standard streams, so that it can open `/dev/stdout`: pipes and terminals, but not
/// the machine's /dev/null.
fn own_stdio(user: Uid) -> io::Result<()> {
    let own = |fd: BorrowedFd<'_>| -> io::Result<()> {
        let is_pipe = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode).is_fifo();
        if is_pipe || rustix::termios::isatty(fd) {
            match rustix::fs::fchown(fd, Some(user), None) {
                // Somebody else's, handed in by a client.
                Err(Errno::PERM | Errno::INVAL) => {}
                result => result?,
            }
        }
        Ok(())
    };
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
        .into_iter()
        .try_for_each(own)
}

/// Reads a seccomp program.
pub(super) fn read_seccomp(file: OwnedFd) -> Result<Vec<u8>, StartError> {
    let mut bytes = Vec::new();
    File::from(file)
        .take(SECCOMP_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed(Stage::Privileges, "cannot read the seccomp program"))?;
    Ok(bytes)
}

/// Installs a seccomp program.
pub(super) fn install(program: &[u8]) -> Result<(), StartError> {
    sys::seccomp(program).map_err(failed(Stage::Privileges, "cannot install the seccomp program"))
}
