//! System calls that need `unsafe`, each behind a function that keeps its rules.
//!
//! Only for the shim's own process and its children before they run a program: both have one
//! thread.
#![expect(unsafe_code, reason = "clone3, execve, mount_setattr and signals have no safe form")]

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use rustix::{mount::MountAttrFlags, process::Pid, thread::UnshareFlags};

/// What a new process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum New {
    /// The first process of a container: with a PID and a mount namespace of its own.
    Container,
    /// The same in this process's PID namespace.
    ContainerHere,
    /// The same as a child of this process's parent, in the PID namespace that this process has joined.
    ContainerBeside,
    /// The same with a PID namespace of its own.
    ContainerApart,
    /// A plain child.
    Child,
    /// A child of this process's parent.
    Sibling,
}

/// A new process, seen from its parent.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

/// A copy of this process: `None` in the new one.
///
/// The caller has one thread, so the new process may allocate and take locks like any. It begins in
/// the control group of version 2 whose folder is given, else in the caller's.
pub(crate) fn fork(new: New, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<Child>> {
    /// CLONE_INTO_CGROUP of linux/sched.h, Linux 5.7.
    const INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: RawFd = -1;
    let (flags, exit_signal) = match new {
        New::Container => (libc::CLONE_NEWPID | libc::CLONE_NEWNS, libc::SIGCHLD),
        New::ContainerHere => (libc::CLONE_NEWNS, libc::SIGCHLD),
        New::ContainerBeside => (libc::CLONE_NEWNS | libc::CLONE_PARENT, 0),
        New::ContainerApart => (libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_PARENT, 0),
        New::Child => (0, libc::SIGCHLD),
        // The signal is the one that its sibling would send.
        New::Sibling => (libc::CLONE_PARENT, 0),
    };
    let mut flags = u64::from((flags | libc::CLONE_PIDFD).cast_unsigned());
    if cgroup.is_some() {
        flags |= INTO_CGROUP;
    }
    let cgroup = cgroup.map_or(0, |it| u64::from(it.as_raw_fd().cast_unsigned()));
    let arguments = [
        flags,
        // Where the kernel writes the pidfd.
        ptr::from_mut(&mut pidfd) as u64,
        0,
        0,
        u64::from(exit_signal.cast_unsigned()),
        0,
        0,
        0,
        0,
        0,
        cgroup,
    ];
    // SAFETY: `arguments` is a struct clone_args of version 2 (88 bytes: flags, pidfd, child_tid,
    // parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup). No memory is shared and no stack is given,
    // so this is a fork; the process has one thread, so no lock is held by a thread the new one
    // lacks.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match i32::try_from(pid) {
        Ok(0) => Ok(None),
        Ok(pid) if 0 < pid => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: the kernel made this descriptor for us, and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some(Child { pid, pidfd }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a forked child without the exit handlers of its parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

/// Moves this process into new namespaces.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: FILES is not among the flags, so nobody loses sight of a descriptor.
    unsafe { rustix::thread::unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// Closes every descriptor above standard error but these, in a child that will only use these.
pub(crate) fn close_others(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|it| it.as_raw_fd().cast_unsigned()).collect();
    keep.sort_unstable();
    let mut first: u32 = 3;
    for fd in keep {
        if first < fd {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

/// Closes what the caller's other files and locks were handed down as: a pod's whole life is too
/// long to hold them. To be called before this process opens anything.
pub(crate) fn close_inherited() -> io::Result<()> {
    close_range(3, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: nobody uses the descriptors: either nothing has been opened yet, or this is a child
    // whose copies of its parent's owners are never dropped, because it ends by execve or _exit.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks the signals and returns a descriptor that is readable when one is pending.
pub(crate) fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is an initialised set, and the old one is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is an initialised set; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets no child of this process have to be waited for, and takes no signal otherwise.
pub(crate) fn ignore_children() -> io::Result<()> {
    reset_signals()?;
    // SAFETY: SIG_IGN is no handler, so no code runs at a signal.
    if unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives a child the signal mask and dispositions that a program expects at its start.
pub(crate) fn reset_signals() -> io::Result<()> {
    /// struct sigaction as the kernel has it: handler, flags, restorer, mask. All zero is SIG_DFL.
    static DEFAULT: [usize; 4] = [0; 4];
    /// Bytes of the kernel's signal set.
    const SET: usize = 8;
    // Not libc::signal, which leaves out the two that threads use.
    for signal in 1..=libc::SIGRTMAX() {
        let none = ptr::null_mut::<usize>();
        // SAFETY: SIG_DFL is no handler. For signals that cannot be set this fails, as it may.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const DEFAULT, none, SET) };
    }
    let none = signal_set(&[]);
    // SAFETY: `none` is an initialised set, and the old one is not asked for.
    match unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn signal_set(signals: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises what it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialised by the line before.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: `set` is initialised; a number that is no signal leaves it as it is.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

/// Gives a detached mount and everything mounted in it attributes such as read-only.
pub(crate) fn set_mounts(tree: BorrowedFd<'_>, attributes: MountAttrFlags) -> io::Result<()> {
    set_mount(tree, libc::AT_RECURSIVE, [u64::from(attributes.bits()), 0, 0, 0])
}

/// Gives a mount attributes, and nothing that is mounted in it.
pub(crate) fn set_this_mount(mount: BorrowedFd<'_>, attributes: MountAttrFlags) -> io::Result<()> {
    set_mount(mount, 0, [u64::from(attributes.bits()), 0, 0, 0])
}

/// Lets nothing that is mounted in a detached mount show where it was copied from; the other way
/// round goes on.
pub(crate) fn make_slave(tree: BorrowedFd<'_>) -> io::Result<()> {
    /// MS_SLAVE of linux/mount.h.
    const SLAVE: u64 = 1 << 19;
    set_mount(tree, libc::AT_RECURSIVE, [0, 0, SLAVE, 0])
}

/// Which mounts a change concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One, and everything mounted in it.
    All,
    /// That one.
    This,
}

/// Shows the owners of files on a detached mount as a user namespace maps them: Linux 5.12, and a file
/// system that can do it.
pub(crate) fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, reach: Reach) -> io::Result<()> {
    /// MOUNT_ATTR_IDMAP of linux/mount.h.
    const IDMAP: u64 = 1 << 20;
    let reach = if reach == Reach::All { libc::AT_RECURSIVE } else { 0 };
    set_mount(tree, reach, [IDMAP, 0, 0, u64::from(users.as_raw_fd().cast_unsigned())])
}

/// Sets who owns what this process makes in file systems: setfsuid(2), setfsgid(2).
pub(crate) fn set_fs_ids(uid: u32, gid: u32) -> io::Result<()> {
    /// An id that nobody has: nothing is changed, and the present one is returned.
    const NOBODY: u32 = u32::MAX;
    let set = |call: libc::c_long, id: u32| -> libc::c_long {
        // SAFETY: takes and returns numbers only.
        unsafe { libc::syscall(call, id) }
    };
    for (call, id) in [(libc::SYS_setfsgid, gid), (libc::SYS_setfsuid, uid)] {
        set(call, id);
        // They tell of no failure.
        if set(call, NOBODY) != libc::c_long::from(id) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
    }
    Ok(())
}

/// mount_setattr(2), Linux 5.12.
fn set_mount(tree: BorrowedFd<'_>, reach: i32, attributes: [u64; 4]) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | reach;
    // SAFETY: `attributes` is a struct mount_attr of version 0 (32 bytes: attr_set, attr_clr,
    // propagation, userns_fd), and the path is an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal, by its number, to the process of a pidfd: pidfd_send_signal(2).
pub(crate) fn signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let no_info = ptr::null::<libc::siginfo_t>();
    // SAFETY: without siginfo the kernel fills in its own, as kill(2) does.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs the program that a descriptor names in place of this process; returns only if that fails.
pub(crate) fn execute_file(file: BorrowedFd<'_>, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all are C strings that live until the call is over, and both lists end with null.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Runs a program in place of this process; returns only if that fails.
pub(crate) fn execute(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|it| it.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: all are C strings that live until the call is over, and both lists end with null.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Filters the system calls of this process and of all it will start: seccomp(2). `program` is an array
/// of struct sock_filter, which the kernel checks.
pub(crate) fn seccomp(program: &[u8]) -> io::Result<()> {
    /// SECCOMP_SET_MODE_FILTER of linux/seccomp.h.
    const FILTER: libc::c_uint = 1;
    /// Bytes of struct sock_filter: code, jt, jf, k.
    const INSTRUCTION: usize = 8;
    let (instructions, []) = program.as_chunks::<INSTRUCTION>() else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|[code0, code1, jt, jf, k @ ..]| libc::sock_filter {
            code: u16::from_ne_bytes([*code0, *code1]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        })
        .collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` names `len` instructions, which live until the call is over.
    match unsafe { libc::syscall(libc::SYS_seccomp, FILTER, 0, &raw const program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
