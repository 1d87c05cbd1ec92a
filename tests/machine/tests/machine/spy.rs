//! What hostile containers run: one that looks for what is not its own, and some that take all they can.
//! Only in images, where nothing that is written is the machine's.

use std::{
    fs,
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Deepest folders that are searched.
const DEPTH_MAX: usize = 12;

/// Largest file that is read in a search.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Says what of the machine and of other pods is found; nothing, if all is well. `halves` are those of what
/// secrets have in them, so that this process itself does not.
pub(crate) fn spy(halves: [&str; 2], paths: &[&str]) {
    let secret = halves.concat();
    let ids = ids();
    let mut roots = vec![PathBuf::new()];
    for id in ids.iter().map(String::as_str).chain(["self", "thread-self"]) {
        let process = PathBuf::from("/proc").join(id);
        for link in ["root", "cwd", "exe/.."] {
            roots.push(process.join(link));
        }
        // Whatever was left open might lead out.
        for fd in names(process.join("fd")) {
            let fd = process.join("fd").join(fd);
            roots.push(fd.clone());
            roots.push(fd.join("../../../../../.."));
        }
        for file in ["environ", "cmdline", "maps"] {
            told(&secret, &process.join(file));
        }
        for folder in names(process.join("map_files")) {
            told(&secret, &process.join("map_files").join(folder));
        }
    }
    for root in roots {
        for path in paths {
            let path = PathBuf::from(format!("{}{path}", root.display()));
            if path.symlink_metadata().is_ok() {
                println!("found {}", path.display());
            }
        }
    }
    mounts();
    search(&secret, Path::new("/"), 0);
    write();
    sockets();
    println!("spied");
    park();
}

/// The processes that can be seen.
fn ids() -> Vec<String> {
    names("/proc").into_iter().filter(|it| it.parse::<u32>().is_ok()).collect()
}

/// Names in a folder; of one that cannot be read, none.
fn names(folder: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

fn told(secret: &str, path: &Path) {
    let mut content = Vec::new();
    let Ok(file) = fs::File::open(path) else { return };
    // What breaks off has told what it has.
    drop(file.take(FILE_BYTES_MAX).read_to_end(&mut content));
    if content.windows(secret.len()).any(|it| it == secret.as_bytes()) {
        println!("found a secret in {}", path.display());
    }
}

/// Where mounts come from is said; it must not be there as well.
fn mounts() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(3);
        let (Some(source), Some(target)) = (words.next(), words.next()) else { continue };
        let known = ["/", "/sys", "/bus", "/fs", "/irq"];
        if !known.contains(&source) && source != target && fs::exists(source).unwrap_or(true) {
            println!("found {source}, mounted at {target}");
        }
    }
}

/// Everything that a path leads to, but for the kernel's own files.
fn search(secret: &str, folder: &Path, depth: usize) {
    for name in names(folder) {
        let path = folder.join(name);
        let kernel = ["/proc", "/sys", "/dev"].iter().any(|it| Path::new(it) == path);
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let kind = metadata.file_type();
        if kind.is_socket() || kind.is_block_device() {
            println!("found {}", path.display());
        } else if kind.is_dir() && !kernel && depth < DEPTH_MAX {
            search(secret, &path, depth + 1);
        } else if kind.is_file() {
            told(secret, &path);
        }
    }
}

/// The kernel's files by which others have got out.
fn write() {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/1/exe",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/release_agent",
    ] {
        if fs::OpenOptions::new().append(true).open(path).is_ok() {
            println!("found {path} writable");
        }
    }
    for path in ["/proc/kcore", "/proc/keys", "/proc/1/mem", "/dev/mem", "/dev/kmsg"] {
        let mut byte = [0; 1];
        if matches!(fs::File::open(path).and_then(|mut it| it.read(&mut byte)), Ok(1)) {
            println!("found {path} readable");
        }
    }
    for folder in ["/", "/dev", "/dev/shm"] {
        if device(Path::new(folder)).is_ok() {
            println!("found devices usable in {folder}");
        }
    }
}

/// Sockets without a name in a folder are of the network namespace, which is the pod's alone.
fn sockets() {
    let all = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for line in all.lines().skip(1) {
        println!("found the socket {line}");
    }
}

/// Makes a device file in a folder, and reads it.
fn device(folder: &Path) -> std::io::Result<()> {
    let path = folder.join("device");
    let zero = makedev(1, 5);
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), zero)?;
    fs::File::open(path)?.read_exact(&mut [0; 1])
}

/// What this process may, one fact a line. `word` is looked for in what other processes are called.
pub(crate) fn rights(word: &str) {
    let device = device(Path::new("/")).map_or_else(|it| it.to_string(), |()| "ok".to_owned());
    println!("device {device}");
    let changed = fs::set_permissions("/scratch", fs::Permissions::from_mode(0o755));
    println!("chmod {}", changed.map_or_else(|it| it.to_string(), |()| "ok".to_owned()));
    println!("terminal {} {}", std::io::stdin().is_terminal(), std::io::stdout().is_terminal());
    for name in ["kernel/shm_rmid_forced", "net/ipv4/ip_local_port_range", "net/core/somaxconn"] {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        println!("sysctl {name} {}", value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let ipc = fs::read_link("/proc/self/ns/ipc").unwrap_or_default();
    println!("ipc {} {}", ipc.display(), Path::new("/dev/shm").exists());
    let own = std::process::id().to_string();
    let others = ids().into_iter().filter(|it| *it != own).filter(|it| {
        let read = |file: &str| fs::read(format!("/proc/{it}/{file}")).unwrap_or_default();
        let words = [read("comm"), read("cmdline")].concat();
        String::from_utf8_lossy(&words).replace('\0', " ").contains(word)
    });
    println!("others {}", others.count());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().for_each(|line| println!("status {line}"));
    println!("shown");
    park();
}

/// Begins threads until it is refused, and goes on trying.
pub(crate) fn fork() {
    let mut count = 1_u64;
    loop {
        let thread = std::thread::Builder::new().stack_size(0).spawn(park);
        match thread {
            Ok(_) => count += 1,
            Err(error) => {
                println!("refused after {count}: {error}");
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// Writes as fast as it can, until nobody reads.
pub(crate) fn shout() {
    let lines = "what nobody wants to know, again and again\n".repeat(1000);
    let mut output = std::io::stdout();
    while output.write_all(lines.as_bytes()).is_ok() {}
}

/// Leaves all that it was given to read and write.
pub(crate) fn mute() {
    println!("mute from now on");
    let null = fs::File::options().read(true).write(true).open("/dev/null");
    let closed = null.and_then(|null| {
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(rustix::stdio::dup2_stderr(&null)?)
    });
    // Then its log says why.
    if let Err(error) = closed {
        println!("not mute: {error}");
    }
    park();
}

fn park() {
    loop {
        std::thread::park();
    }
}
