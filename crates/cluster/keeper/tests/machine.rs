//! The keeper with real namespaces: as the invoking user and, started by root, as an ordinary user
//! as well.
//!
//! This binary is also the keeper it starts.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test program, which clippy does not know for one without #[test]"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use coracle_keeper::{Client, Error, FailureKind, Namespaces, Process, Spawn, SpawnError};
use rustix::process::{Pid, Signal};

type Scenario = fn(&Place);

const SCENARIOS: [(&str, Scenario); 11] = [
    ("namespaces_are_entered_with_all_capabilities", entered),
    ("further_users_are_mapped", further_users),
    ("a_process_gets_namespaces_of_its_own", own),
    ("sockets_are_the_hosts", sockets),
    ("second_keeper_is_refused", second),
    ("standby_takes_over_after_kill", standby),
    ("standby_is_copied_before_it_takes_over", chain),
    ("standby_refuses_while_the_keeper_lives", early_standby),
    ("standby_ends_with_the_cluster", orphaned_standby),
    ("namespaces_are_found_through_a_live_process", adopted),
    ("exit_leaves_nothing_behind", exit),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|it| it.to_str()) {
        Some("keeper") => coracle_keeper::main(arguments),
        Some("stage") => stage(arguments.next().unwrap().as_ref()),
        _ => scenarios::main(&SCENARIOS.map(|it| it.0), scenario),
    }
}

/// Runs one scenario, and ends the keeper then: it outlives everybody, also a test that fails.
fn scenario(name: &str, folder: &Path) {
    let run_dir = folder.join("run");
    fs::DirBuilder::new().mode(0o700).create(&run_dir).unwrap();
    let place = Place { executable: std::env::current_exe().unwrap(), run_dir };
    let (_, scenario) = SCENARIOS.iter().find(|it| name == it.0).unwrap();
    let result = std::panic::catch_unwind(|| scenario(&place));
    if let Ok(client) = Client::connect(&place.run_dir) {
        client.exit().unwrap();
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

struct Place {
    executable: PathBuf,
    run_dir: PathBuf,
}

impl Place {
    fn command(&self) -> Spawn<'_> {
        let Self { executable, run_dir } = self;
        Spawn { executable, name: "test", run_dir, log: None, adopt: None }
    }

    fn keeper(&self) -> Client {
        coracle_keeper::spawn(&self.command()).unwrap()
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// Waits until the other side of a socket is gone.
fn await_end(socket: impl std::os::fd::AsFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(&socket, PollFlags::RDHUP)], None).unwrap();
}

fn entered(place: &Place) {
    let mut keeper = place.keeper();
    let outside = fs::read_link("/proc/self/ns/net").unwrap();
    fs::write(place.run_dir.join("marker"), "here").unwrap();
    std::env::set_current_dir(&place.run_dir).unwrap();
    let namespaces = keeper.namespaces().unwrap();
    let root = rustix::process::geteuid().is_root();
    assert_eq!(namespaces.user.is_none(), root);
    coracle_keeper::enter(&namespaces).unwrap();
    assert_ne!(fs::read_link("/proc/self/ns/net").unwrap(), outside);
    assert_eq!(fs::read_to_string("marker").unwrap(), "here");
    // What is started later keeps the capabilities, and can be looked into.
    let script = "grep CapEff /proc/self/status; id -u; ls /proc/self/fd >/dev/null && echo fd";
    let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|it| it.starts_with("CapEff")).unwrap();
    assert_ne!(own.trim_end_matches('0').len(), "CapEff:\t".len());
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(text, format!("{own}\n{uid}\nfd\n"));
    // A mount shows inside only: the host's table is compared outside.
    fs::create_dir("mounted").unwrap();
    fs::write("mounted/file", "").unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "none", "mounted"]).status().unwrap();
    assert!(mount.success());
    assert!(!fs::exists("mounted/file").unwrap());
}

/// As a build has them: files and users are its own, the network is the machine's, and a program that
/// it starts can be waited for.
fn own(_: &Place) {
    let name = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let (user, mount, net) = (name("user"), name("mnt"), name("net"));
    let uid = rustix::process::geteuid();
    coracle_keeper::enter_own().unwrap();
    assert_eq!(name("net"), net);
    assert_ne!(name("mnt"), mount);
    assert_eq!(name("user") == user, uid.is_root());
    assert_eq!(rustix::process::geteuid(), uid);
    // What is mounted here is seen by nobody else: the host is compared afterwards.
    let status = Command::new("mount").args(["-t", "tmpfs", "own", "/mnt"]).status().unwrap();
    assert!(status.success());
}

/// Root lets an ordinary user have ranges of ids, in a mount namespace of its own.
fn further_users(place: &Place) {
    if !rustix::process::geteuid().is_root() {
        // Whatever the machine gives to this user, the keeper starts, which the others show.
        return;
    }
    let folder = place.run_dir.parent().unwrap();
    let range = folder.join("range");
    fs::write(&range, format!("nobody:{START}:{COUNT}\n")).unwrap();
    for path in [folder, &place.run_dir] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    let mount = r#"mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid"#;
    let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups");
    let broken = folder.join("broken");
    fs::create_dir(&broken).unwrap();
    for program in ["newuidmap", "newgidmap"] {
        let program = broken.join(program);
        fs::write(&program, "#!/bin/sh\necho no luck >&2; exit 3\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for path in ["/usr/bin:/bin", "/nowhere", broken.to_str().unwrap()] {
        let script = format!(r#"{mount} && PATH={path} exec /usr/bin/{user} "$2" stage "$3""#);
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh"])
            .args([&range, &place.executable, folder])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// User and group `nobody`, and the ids that it is given.
const USER: u32 = 65_534;
const START: u32 = 100_000;
const COUNT: u32 = 65_536;

/// What the user does.
fn stage(folder: &Path) -> ExitCode {
    let place = Place { executable: std::env::current_exe().unwrap(), run_dir: folder.join("run") };
    let log = folder.join("log");
    let command = Spawn { log: Some(&log), ..place.command() };
    let mut keeper = coracle_keeper::spawn(&command).unwrap();
    let namespaces = keeper.namespaces().unwrap();
    keeper.exit().unwrap();
    coracle_keeper::enter(&namespaces).unwrap();
    let words = |file: &str| -> Vec<u32> {
        let text = fs::read_to_string(format!("/proc/self/{file}")).unwrap();
        text.split_ascii_whitespace().map(|it| it.parse().unwrap()).collect()
    };
    let programs = ["newuidmap", "newgidmap"].map(|it| Path::new("/usr/bin").join(it));
    let mapped = std::env::var_os("PATH") == Some("/usr/bin:/bin".into())
        && programs.iter().all(|it| it.exists());
    let said = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    let own = vec![USER, USER, 1];
    if mapped {
        let both = [own, vec![START, START, COUNT]].concat();
        assert_eq!([words("uid_map"), words("gid_map")], [both.clone(), both]);
        std::os::unix::fs::chown(folder, Some(START), Some(START + COUNT - 1)).unwrap();
        std::os::unix::fs::chown(folder, Some(USER), Some(USER)).unwrap();
        assert_eq!(said, "");
    } else {
        assert_eq!([words("uid_map"), words("gid_map")], [own.clone(), own]);
        let why = ["there is no program `newuidmap`", "newgidmap`: exit status: 3: no luck\n"];
        assert!(why.iter().any(|it| said.contains(it)), "{said}");
    }
    ExitCode::SUCCESS
}

fn sockets(place: &Place) {
    let mut keeper = place.keeper();
    let namespaces = keeper.namespaces().unwrap();
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    coracle_keeper::enter(&namespaces).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = TcpListener::from(keeper.listen(any).unwrap());
    let address = listener.local_addr().unwrap();
    assert!(TcpStream::connect(address).is_err());
    for (address, listener) in [(address, &listener), (outside.local_addr().unwrap(), &outside)] {
        let mut ours = TcpStream::from(keeper.connect_tcp(address).unwrap());
        ours.set_nonblocking(false).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        theirs.write_all(b"hello").unwrap();
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }
    let error = keeper.listen(address).unwrap_err();
    assert_eq!(error.failure().unwrap().kind, FailureKind::AddressInUse);
    let refused = keeper.listen("203.0.113.1:1".parse().unwrap()).unwrap_err();
    assert_eq!(refused.failure().unwrap().kind, FailureKind::AddressNotAvailable);
}

fn second(place: &Place) {
    let mut first = place.keeper();
    let error = coracle_keeper::spawn(&place.command()).unwrap_err();
    let SpawnError::Keeper(Error::Failed(failure)) = error else { panic!("{error:?}") };
    assert_eq!(failure.kind, FailureKind::AnotherKeeper);
    let mut other = Client::connect(&place.run_dir).unwrap();
    assert_eq!(other.ping().unwrap(), first.ping().unwrap());
}

fn standby(place: &Place) {
    let mut keeper = place.keeper();
    let namespaces = keeper.namespaces().unwrap();
    let mut standby = keeper.standby().unwrap();
    coracle_keeper::enter(&namespaces).unwrap();
    for _ in 0..3 {
        let pid = keeper.ping().unwrap();
        kill(pid);
        await_end(&keeper);
        assert!(keeper.closed());
        assert!(matches!(keeper.ping().unwrap_err(), Error::Closed | Error::Io(_)));
        keeper = standby.take_over(&namespaces).unwrap();
        assert_ne!(keeper.ping().unwrap(), pid);
        standby = keeper.standby().unwrap();
        // Everybody else finds it where the former was, with the same namespaces.
        let mut other = Client::connect(&place.run_dir).unwrap();
        assert!(other.namespaces().unwrap().same(&namespaces).unwrap());
        // It lives on the host's side.
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = TcpListener::from(keeper.listen(any).unwrap());
        drop(keeper.connect_tcp(listener.local_addr().unwrap()).unwrap());
        listener.accept().unwrap();
    }
}

/// Keepers may die as fast as they like, the next standby is always there first.
fn chain(place: &Place) {
    let mut keeper = place.keeper();
    let namespaces = keeper.namespaces().unwrap();
    let mut standby = keeper.standby().unwrap();
    coracle_keeper::enter(&namespaces).unwrap();
    for _ in 0..20 {
        kill(keeper.ping().unwrap());
        let next = standby.standby().unwrap();
        keeper = standby.take_over(&namespaces).unwrap();
        standby = next;
    }
    assert!(!standby.closed());
    let mut other = Client::connect(&place.run_dir).unwrap();
    assert_eq!(other.ping().unwrap(), keeper.ping().unwrap());
    assert!(other.namespaces().unwrap().same(&namespaces).unwrap());
}

fn early_standby(place: &Place) {
    let mut keeper = place.keeper();
    let namespaces = keeper.namespaces().unwrap();
    let standby = keeper.standby().unwrap();
    let error = standby.take_over(&namespaces).unwrap_err();
    assert_eq!(error.failure().unwrap().kind, FailureKind::AnotherKeeper);
    keeper.ping().unwrap();
}

fn orphaned_standby(place: &Place) {
    let mut keeper = place.keeper();
    let standby = keeper.standby().unwrap();
    let pid = keeper.ping().unwrap();
    let children = format!("/proc/{pid}/task/{pid}/children");
    // The process that made the namespaces may still be on its way out.
    let child = loop {
        match fs::read_to_string(&children).unwrap().trim().parse() {
            Ok(only) => break only,
            Err(_) => std::thread::yield_now(),
        }
    };
    // Once it says what it is, it has let go of all that is the keeper's: lock, listener, namespaces.
    while fs::read_to_string(format!("/proc/{child}/comm")).unwrap() != "coracle standby\n" {
        std::thread::yield_now();
    }
    let held = fs::read_dir(format!("/proc/{child}/fd")).unwrap().map(|it| it.unwrap().path());
    let held: Vec<PathBuf> = held.map(|it| fs::read_link(it).unwrap()).collect();
    let sockets = held.iter().filter(|it| it.to_string_lossy().starts_with("socket:"));
    assert_eq!((held.len(), sockets.count()), (4, 1), "{held:?}");
    let pid = Pid::from_raw(child).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    drop(standby);
    await_process(&pidfd);
    // No zombie stays either.
    while !fs::read_to_string(&children).unwrap().is_empty() {
        std::thread::yield_now();
    }
}

fn await_process(pidfd: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).unwrap();
}

fn adopted(place: &Place) {
    let mut keeper = place.keeper();
    let namespaces = keeper.namespaces().unwrap();
    // What a shim is: a process that stays inside.
    let mut shim = inside(&namespaces);
    kill(keeper.ping().unwrap());
    await_end(&keeper);
    drop(namespaces);
    let process = Process::of(shim.id()).unwrap();
    let wrong = Process { start_time: process.start_time + 1, ..process };
    let error = coracle_keeper::spawn(&Spawn { adopt: Some(wrong), ..place.command() });
    assert!(error.unwrap_err().to_string().contains("it has ended"));
    let own = Process::of(std::process::id()).unwrap();
    let error = coracle_keeper::spawn(&Spawn { adopt: Some(own), ..place.command() });
    assert!(error.unwrap_err().to_string().contains("it is not inside a cluster"));
    let mut next =
        coracle_keeper::spawn(&Spawn { adopt: Some(process), ..place.command() }).unwrap();
    let of_shim = Namespaces::of(shim.id()).unwrap();
    let found = next.namespaces().unwrap();
    assert!(found.same(&of_shim).unwrap());
    shim.kill().unwrap();
    shim.wait().unwrap();
    // They can be entered although everybody who was inside is gone.
    coracle_keeper::enter(&found).unwrap();
}

/// Starts a process inside, which stays until it is killed.
fn inside(namespaces: &Namespaces) -> Child {
    let link = |fd: &OwnedFd| {
        use std::os::fd::AsRawFd as _;
        format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
    };
    let mut command = Command::new("nsenter");
    if let Some(user) = &namespaces.user {
        command.arg("--preserve-credentials").arg(format!("--user={}", link(user)));
    }
    command.arg(format!("--mount={}", link(&namespaces.mount)));
    command.arg(format!("--net={}", link(&namespaces.net)));
    command.args(["sh", "-c", "echo; exec sleep 1000"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It has something to say once it is inside.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn exit(place: &Place) {
    let mut keeper = place.keeper();
    let pid = keeper.ping().unwrap();
    // It holds nothing of whoever started it: this test's own standard streams are pipes.
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|it| it.unwrap().path());
    let held: Vec<_> = fds.map(|it| fs::read_link(it).unwrap()).collect();
    assert!(held.iter().all(|it| !it.to_string_lossy().starts_with("pipe:")), "{held:?}");
    let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(title.starts_with("coracle\0keeper\0test\0"), "{title}");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "coracle keeper\n");
    let mode = fs::metadata(place.run_dir.join("keeper.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    keeper.exit().unwrap();
    assert!(Client::connect(&place.run_dir).is_err());
    drop(place.keeper());
}
