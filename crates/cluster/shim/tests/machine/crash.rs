//! Processes that are killed.
//!
//! The scenario stays on the host's side; what it kills runs as a stage, a process of its own.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
};

use coracle_shim::{
    Client,
    wire::{ExecSpec, State},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal},
};

use crate::place::{Place, Pod, sh};

/// What runs until the file `go` is in its source folder, and then ends with a code of its own.
const WORK: &str = "echo working; while [ ! -e go ]; do sleep 0.01; done; echo done; exit 7";

type Stage = fn(&Place);

const STAGES: [(&str, Stage); 6] = [
    ("begin", begin),
    ("begin_on_host", begin_on_host),
    ("adopt", adopt),
    ("adopt_on_host", adopt_on_host),
    ("wait_for_end", wait_for_end),
    ("wait", wait),
];

/// A stage that runs.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// Runs one stage: `NAME DIR`.
pub(crate) fn stage(arguments: &[OsString]) -> ExitCode {
    let [name, dir] = arguments else { return ExitCode::FAILURE };
    let (_, stage) = STAGES.iter().find(|it| name == it.0).unwrap();
    stage(&Place::new(dir.as_ref()));
    ExitCode::SUCCESS
}

fn start(place: &Place, name: &str) -> Running {
    let mut command = Command::new(&place.executable);
    command.args(["stage", name]).arg(&place.dir).stdout(Stdio::piped()).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    Running { child, lines }
}

impl Running {
    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn number(&mut self) -> u32 {
        self.line().parse().unwrap()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// Starts a pod, says which processes there are, and stays.
fn begin(place: &Place) {
    begin_in(place, place.cluster_with_pod());
}

/// The same, with a pod on the host's network.
fn begin_on_host(place: &Place) {
    place.enter();
    begin_in(place, place.pod_on_host());
}

fn begin_in(place: &Place, mut pod: Pod) {
    let source = place.dir.join("source");
    fs::create_dir(&source).unwrap();
    let process = coracle_shim::wire::ProcessSpec { cwd: Some(source), ..sh(WORK) };
    let pid = pod.start(pod.container("web.0"), process).unwrap();
    println!("{}\n{pid}", pod.shim.process.id());
    // It never comes to its end, unless the scenario does.
    std::io::read_to_string(std::io::stdin()).unwrap();
}

/// Has a shim that waits for a pod, says which processes there are, and stays.
fn wait(place: &Place) {
    place.enter();
    let nursery = place.nursery();
    let shim = place.spare(&nursery);
    println!("{}", shim.process.id());
    // It never comes to its end, unless the scenario does.
    std::io::read_to_string(std::io::stdin()).unwrap();
}

/// Takes a running pod over, and lets it end.
fn adopt(place: &Place) {
    adopt_of(place, |netns, pid| {
        let of_container = fs::metadata(format!("/proc/{pid}/ns/net")).unwrap();
        let ino = std::os::unix::fs::MetadataExt::ino(&of_container);
        assert_eq!(rustix::fs::fstat(netns).unwrap().st_ino, ino);
    });
}

/// The same, of a pod on the host's network, whose shim holds the cluster's.
fn adopt_on_host(place: &Place) {
    adopt_of(place, |netns, _| {
        let own = rustix::fs::stat("/proc/self/ns/net").unwrap();
        assert_eq!(rustix::fs::fstat(netns).unwrap().st_ino, own.st_ino);
    });
}

fn adopt_of(place: &Place, check: impl FnOnce(OwnedFd, u32)) {
    place.enter();
    let mut client = Client::connect(&place.pod_dir()).unwrap();
    let status = client.status().unwrap();
    let State::Running { pid, .. } = &status.containers[0].state else { panic!("{status:?}") };
    check(client.netns().unwrap(), *pid);
    // A probe works as before.
    let exec = ExecSpec {
        id: "web.0".to_owned(),
        process: sh("exit 3"),
        output_max: None,
        timeout_ms: None,
    };
    assert_eq!(client.exec_captured(exec, 10).unwrap().code, 3);
    println!("{}\n{pid}", status.pid);
}

/// Lets the pod end, and reads how.
fn wait_for_end(place: &Place) {
    place.enter();
    let mut client = Client::connect(&place.pod_dir()).unwrap();
    client.subscribe().unwrap();
    let exit = client.exited().unwrap();
    assert_eq!((exit.id.as_str(), exit.code), ("web.0", 7));
    let log = fs::read_to_string(place.state_dir.join("logs/web.0/0.log")).unwrap();
    assert!(log.contains("stdout F working\n") && log.ends_with("stdout F done\n"), "{log}");
    assert_eq!(coracle_shim::exits(&place.pod_dir()).unwrap(), [exit]);
    Client::connect(&place.pod_dir()).unwrap().exit().unwrap();
}

pub(crate) fn cluster_killed(place: &Place) {
    let mut first = start(place, "begin");
    let processes = (first.number(), first.number());
    first.kill();
    let mut second = start(place, "adopt");
    assert_eq!((second.number(), second.number()), processes);
    second.end();
    // It ends while nobody listens; who comes later learns of it.
    fs::write(place.dir.join("source/go"), "").unwrap();
    start(place, "wait_for_end").end();
}

pub(crate) fn all_killed_but_shims(place: &Place) {
    all_killed(place, "begin", "adopt");
}

pub(crate) fn all_killed_on_host(place: &Place) {
    all_killed(place, "begin_on_host", "adopt_on_host");
}

fn all_killed(place: &Place, begin: &str, adopt: &str) {
    let mut first = start(place, begin);
    let processes = (first.number(), first.number());
    let mut keeper = keeper::Client::connect(&place.run_dir).unwrap();
    let before = keeper.namespaces().unwrap();
    kill(keeper.ping().unwrap());
    poll(&mut [PollFd::new(&keeper, PollFlags::RDHUP)], None).unwrap();
    first.kill();
    let live = coracle_shim::live(&place.run_dir).unwrap();
    assert_eq!((live[0].pid, live[0].pod.as_str()), (processes.0, "default/web-1"));
    // `Place::keeper` starts one with the namespaces of that shim.
    let after = place.keeper().namespaces().unwrap();
    assert!(before.same(&after).unwrap());
    let mut second = start(place, adopt);
    assert_eq!((second.number(), second.number()), processes);
    second.end();
    fs::write(place.dir.join("source/go"), "").unwrap();
    start(place, "wait_for_end").end();
}

pub(crate) fn spare_without_cluster(place: &Place) {
    let mut cluster = start(place, "wait");
    let spare = Pid::from_raw(cluster.number().cast_signed()).unwrap();
    let spare = rustix::process::pidfd_open(spare, rustix::process::PidfdFlags::empty()).unwrap();
    cluster.kill();
    poll(&mut [PollFd::new(&spare, PollFlags::IN)], None).unwrap();
    assert_eq!(coracle_shim::live(&place.run_dir).unwrap(), []);
}

pub(crate) fn shim_killed(place: &Place) {
    let mut cluster = start(place, "begin");
    let (shim, container) = (cluster.number(), cluster.number());
    let pid = Pid::from_raw(container.cast_signed()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let dir = place.pod_dir();
    assert!(dir.join("web.0.pid").exists());
    kill(shim);
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
    assert!(Client::connect(&dir).is_err());
    assert_eq!(coracle_shim::live(&place.run_dir).unwrap(), []);
    // Nothing is left to be killed; a record is no exit.
    assert_eq!(coracle_shim::leftovers(&dir).unwrap(), []);
    assert!(!dir.join("web.0.pid").exists());
    assert_eq!(coracle_shim::exits(&dir).unwrap(), []);
    cluster.kill();
}
