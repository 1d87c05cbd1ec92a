//! Containers as they run, write, are asked and end.

use std::{
    fs,
    io::Write as _,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use coracle_shim::{
    Client, Error,
    wire::{ExecSpec, FailureKind, Request, State},
};
use expect_test::expect;

use crate::place::{Place, sh};

const SIGTERM: i32 = 15;

pub(crate) fn exits(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let (exit, log) = pod.run(pod.container("web.0"), "echo out; echo err >&2; printf end; exit 7");
    assert_eq!((exit.code, exit.signal), (7, None));
    // The two outputs are two pipes: only the order within one is certain.
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P end"]);
    // The first process of a PID namespace cannot kill itself.
    let (exit, _) = pod.run(pod.container("web.1"), "kill -9 $$; exit 4");
    assert_eq!((exit.code, exit.signal), (4, None));
    pod.start(pod.container("web.2"), sh("sleep 1000")).unwrap();
    pod.shim.client.signal("web.2", 9).unwrap();
    let exit = pod.await_exit("web.2");
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(exit.started_at.unwrap() < exit.finished_at);
    let known: Vec<_> =
        coracle_shim::exits(&pod.dir).unwrap().into_iter().map(|it| it.id).collect();
    assert_eq!(known, ["web.0", "web.1", "web.2"]);
    pod.shim.client.remove("web.0").unwrap();
    pod.shim.client.remove("web.0").unwrap();
    assert_eq!(coracle_shim::exits(&pod.dir).unwrap().len(), 2);
    assert_eq!(pod.shim.client.status().unwrap().containers.len(), 2);
    let process = pod.shim.process;
    pod.shim.client.exit().unwrap();
    assert_eq!(process.wait().unwrap(), Some(0));
    assert!(Client::connect(&pod.dir).is_err());
    assert_eq!(coracle_shim::live(&place.run_dir).unwrap(), []);
    assert_eq!(fs::read_to_string(pod.dir.join("shim.log")).unwrap(), "");
}

pub(crate) fn output(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let (exit, log) = pod.run(pod.container("web.0"), "seq 1 200000; seq 1 1000 >&2");
    assert_eq!(exit.code, 0);
    let numbers = |stream: &str| -> Vec<u32> {
        log.lines().filter_map(|it| it.strip_prefix(stream)?.parse().ok()).collect()
    };
    assert!(numbers("stderr F ").into_iter().eq(1..=1000));
    // The oldest of ten megabytes are in the rotated file.
    let stdout = numbers("stdout F ");
    let rotated = fs::read_to_string(pod.log_path("web.0").with_extension("log.1"));
    let in_rotated =
        rotated.map_or(0, |it| it.lines().filter(|it| it.contains(" stdout ")).count());
    assert_eq!(stdout.len() + in_rotated, 200_000);
}

pub(crate) fn stop(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done";
    pod.start(pod.container("web.0"), sh(script)).unwrap();
    await_log(&pod, "web.0", "ready");
    pod.shim.client.stop("web.0", SIGTERM, 60_000).unwrap();
    let exit = pod.await_exit("web.0");
    assert_eq!((exit.code, exit.signal), (3, None));
    assert!(pod.log("web.0").ends_with("stdout F bye\n"));
    // One that does not listen is killed.
    pod.start(pod.container("web.1"), sh("trap '' TERM; echo ready; sleep 1000")).unwrap();
    await_log(&pod, "web.1", "ready");
    let begin = Instant::now();
    pod.shim.client.stop("web.1", SIGTERM, 60_000).unwrap();
    pod.shim.client.stop("web.1", SIGTERM, 100).unwrap();
    pod.shim.client.stop("web.1", SIGTERM, 60_000).unwrap();
    assert_eq!(pod.await_exit("web.1").signal, Some(9));
    assert!(Duration::from_millis(100) <= begin.elapsed());
    pod.shim.client.stop("web.1", SIGTERM, 0).unwrap();
    // One that never began is killed at once.
    pod.shim.client.create(pod.container("web.2")).unwrap();
    pod.shim.client.stop("web.2", SIGTERM, 60_000).unwrap();
    let exit = pod.await_exit("web.2");
    assert_eq!((exit.signal, exit.started_at), (Some(9), None));
}

pub(crate) fn stop_all(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let script = "sleep 1000 & (trap '' TERM; setsid sleep 1001) & echo ready; wait";
    let pid = pod.start(pod.container("web.0"), sh(script)).unwrap();
    await_log(&pod, "web.0", "ready");
    let inside = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    pod.shim.client.stop("web.0", SIGTERM, 0).unwrap();
    pod.await_exit("web.0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let left = processes.filter_map(|it| fs::read_link(it.path().join("ns/pid")).ok());
    assert!(left.into_iter().all(|it| it != inside));
}

pub(crate) fn exec_captured(place: &Place) {
    let mut pod = place.cluster_with_pod();
    pod.start(pod.container("web.0"), sh("echo > /dev/shm/marker; echo ready; sleep 1000"))
        .unwrap();
    await_log(&pod, "web.0", "ready");
    let done = pod.exec("web.0", "ls /dev/shm; hostname >&2; echo $NAME; exit 5");
    assert_eq!((done.code, done.signal, done.timed_out), (5, None, false));
    expect![[r#"
        marker
        web-1
        web
    "#]]
    .assert_eq(&done.output.unwrap());
    let done = pod.exec("web.0", "head -c 1000000 /dev/zero; echo; cat");
    assert_eq!((done.code, done.output.unwrap().len()), (0, 4096));
    let spec = |script: &str| ExecSpec {
        id: "web.0".to_owned(),
        process: sh(script),
        output_max: None,
        timeout_ms: Some(1000),
    };
    let done = pod.shim.client.exec_captured(spec("echo begun; sleep 1000"), 100).unwrap();
    assert_eq!((done.code, done.signal, done.timed_out), (137, Some(9), true));
    assert_eq!(done.output.unwrap(), "begun\n");
    let mut missing = spec("");
    missing.process.argv = vec!["no-such-program".to_owned()];
    let error = pod.shim.client.exec_captured(missing, 100).unwrap_err();
    expect![[r#"exec: "no-such-program": executable file not found in $PATH"#]]
        .assert_eq(&error.to_string());
    // Nothing was logged, and no process is left.
    assert_eq!(pod.log("web.0"), "stdout F ready\n");
    // The container's shell, its sleep, and the shell that counts without starting another; the
    // kernel takes its time with what was killed.
    let count =
        |pod: &mut super::place::Pod| pod.exec("web.0", "set -- /proc/[0-9]*; echo $#").output;
    assert!((0..1000).any(|_| count(&mut pod).unwrap() == "3\n"));
}

pub(crate) fn exec_streams(place: &Place) {
    let mut pod = place.cluster_with_pod();
    pod.start(pod.container("web.0"), sh("echo ready; sleep 1000")).unwrap();
    await_log(&pod, "web.0", "ready");
    let (input, mut to) = std::io::pipe().unwrap();
    let (mut from, output) = std::io::pipe().unwrap();
    let exec = ExecSpec {
        id: "web.0".to_owned(),
        process: sh("tr a-z A-Z; echo done >&2"),
        output_max: None,
        timeout_ms: None,
    };
    let mut client = Client::connect(&pod.dir).unwrap();
    let streams = [input.as_fd(), output.as_fd(), output.as_fd()];
    let pid = client.exec(exec.clone(), streams).unwrap();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    to.write_all(b"hello\n").unwrap();
    drop((to, output, input));
    let text = std::io::read_to_string(&mut from).unwrap();
    assert_eq!(text, "HELLO\ndone\n");
    assert_eq!(client.finished().unwrap().code, 0);
    // Who closes its connection ends its process.
    let (from, output) = std::io::pipe().unwrap();
    let process = sh("sleep 1000");
    let streams = [output.as_fd(); 3];
    client.exec(ExecSpec { process, ..exec }, streams).unwrap();
    drop((client, output));
    assert_eq!(std::io::read_to_string(from).unwrap(), "");
}

pub(crate) fn refused(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let title = fs::read_to_string(format!("/proc/{}/cmdline", pod.shim.process.id())).unwrap();
    assert!(title.starts_with("coracle\0shim\0default/web-1\0"), "{title}");
    assert!(title.contains(&format!("\0--dir\0{}\0", pod.dir.display())), "{title}");
    let mut again = place.spare(&place.nursery());
    let error = again.client.pod(place.pod_spec()).unwrap_err();
    assert!(error.to_string().contains("the pod has one already"), "{error}");
    assert_eq!(again.process.wait().unwrap(), Some(1));
    assert!(matches!(
        coracle_shim::leftovers(&pod.dir),
        Err(coracle_shim::LeftoversError::ShimAlive)
    ));
    let kind = |error: Error| match error {
        Error::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    };
    let client = &mut pod.shim.client;
    assert_eq!(kind(client.signal("no", 9).unwrap_err()), FailureKind::NotFound);
    assert_eq!(kind(client.start("no", sh("")).unwrap_err()), FailureKind::NotFound);
    pod.start(pod.container("web.0"), sh("sleep 1000")).unwrap();
    let again = pod.container("web.0");
    let client = &mut pod.shim.client;
    assert_eq!(kind(client.create(again).unwrap_err()), FailureKind::AlreadyExists);
    assert_eq!(kind(client.start("web.0", sh("")).unwrap_err()), FailureKind::WrongState);
    assert_eq!(kind(client.remove("web.0").unwrap_err()), FailureKind::WrongState);
    assert_eq!(kind(client.signal("web.0", 999).unwrap_err()), FailureKind::BadRequest);
    let exit = Client::connect(&pod.dir).unwrap().exit().unwrap_err();
    expect!["cannot exit before container `web.0`: it is running"].assert_eq(&exit.to_string());
    // Requests sent at once are answered in order, also those that take their time.
    let mut client = Client::connect(&pod.dir).unwrap();
    let create = Request::Create(pod.container("web.1"));
    let start = Request::Start { id: "web.1".to_owned(), process: sh("exit 4") };
    for request in [create, start, Request::Status, Request::Netns] {
        client.send(&request, &[]).unwrap();
    }
    let replies: Vec<String> = (0..4)
        .map(|_| format!("{:?}", client.receive().unwrap().unwrap()))
        .map(|it| it.split([' ', '(']).next().unwrap().to_owned())
        .collect();
    assert_eq!(replies, ["Created", "Started", "Status", "Netns"]);
    assert!(client.take_fd().is_some());
    // Nonsense ends the connection, and only that.
    let socket = coracle_shim::connect(&pod.dir).unwrap();
    rustix::io::write(&socket, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rustix::io::read(&socket, &mut [0; 1]).unwrap(), 0);
    pod.shim.client.status().unwrap();
}

/// Measures, and holds only against what would be a fault: a loaded machine is slow.
pub(crate) fn fast(place: &Place) {
    place.enter();
    let mut times = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let mut pod = place.pod();
        let spawned = begin.elapsed();
        pod.shim.client.create(pod.container("web.0")).unwrap();
        let created = begin.elapsed();
        pod.shim.client.start("web.0", sh("sleep 1000")).unwrap();
        let started = begin.elapsed();
        times.push((started, spawned, created));
        let status = pod.shim.client.status().unwrap();
        assert!(matches!(status.containers[0].state, State::Running { .. }));
        pod.shim.client.stop("web.0", SIGTERM, 0).unwrap();
        pod.await_exit("web.0");
        if times.len() == 1 {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.shim.process.id()));
            let text = text.unwrap();
            let dirty = text.lines().filter(|it| it.starts_with("Private_Dirty"));
            dirty.for_each(|it| println!("shim {it}"));
        }
        let process = pod.shim.process;
        pod.shim.client.exit().unwrap();
        process.wait().unwrap();
        fs::remove_dir_all(&pod.dir).unwrap();
    }
    times.sort();
    let (started, spawned, created) = times[times.len() / 2];
    println!("spawned {spawned:?}, created {created:?}, started {started:?}");
    assert!(started < Duration::from_secs(1));
}

/// Waits until a container has written a line.
fn await_log(pod: &crate::place::Pod, id: &str, line: &str) {
    while !pod.log(id).contains(line) {
        std::thread::yield_now();
    }
}
