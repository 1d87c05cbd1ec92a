//! Containers of an image, which here is a folder with busybox.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use coracle_shim::wire::{ContainerSpec, ExecSpec, IdMap, ProcessSpec, Root, Stage, Stdin, User};
use expect_test::{Expect, expect};

use crate::place::{Place, Pod, bind, process};

/// Programs of busybox that the scripts use.
const PROGRAMS: [&str; 24] = [
    "cat", "chmod", "cp", "dd", "echo", "env", "grep", "head", "hostname", "id", "ln", "ls",
    "mkdir", "mknod", "mount", "mv", "ps", "readlink", "rm", "sh", "sleep", "stat", "touch", "wc",
];

/// Makes the layers of an image; the topmost first.
pub(crate) fn layers(place: &Place) -> Vec<PathBuf> {
    let (base, top) = (place.state_dir.join("layers/base"), place.state_dir.join("layers/top"));
    for dir in ["bin", "etc", "tmp", "srv/web"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    for name in PROGRAMS {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/srv/web:\n")
        .unwrap();
    fs::write(base.join("etc/group"), "root:x:0:\nweb:x:1001:\nlogs:x:7:web\n").unwrap();
    fs::write(base.join("etc/base"), "base\n").unwrap();
    fs::write(base.join("etc/both"), "base\n").unwrap();
    fs::create_dir_all(top.join("etc")).unwrap();
    fs::write(top.join("etc/both"), "top\n").unwrap();
    for (dir, mode) in [(&base, 0o755), (&top, 0o755), (&base.join("tmp"), 0o1777)] {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).unwrap();
    }
    vec![top, base]
}

/// A container of an image, as the node asks for it.
pub(crate) fn container(place: &Place, pod: &Pod, layers: &[PathBuf], id: &str) -> ContainerSpec {
    let writable = place.state_dir.join("writable").join(id);
    fs::create_dir_all(&writable).unwrap();
    let root = rustix::process::geteuid().is_root();
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
    ContainerSpec {
        root: Root::Layers { layers: layers.to_vec(), writable, read_only: false },
        user_namespace: (!root).then(IdMap::default),
        masked_paths: paths(&["/proc/kcore", "/proc/keys", "/sys/firmware", "/proc/no-such"]),
        read_only_paths: paths(&["/proc/bus", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..pod.container(id)
    }
}

pub(crate) fn sh(script: &str) -> ProcessSpec {
    process(&["/bin/sh", "-c", script])
}

/// Runs a script in a plain container of the image; returns the log.
fn output(place: &Place, pod: &mut Pod, script: &str) -> String {
    let layers = layers(place);
    let spec = container(place, pod, &layers, "web.0");
    pod.start(spec, sh(script)).unwrap();
    let exit = pod.await_exit("web.0");
    let log = pod.log("web.0");
    assert_eq!(exit.code, 0, "{log}");
    log
}

pub(crate) fn root(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let script = r#"
        ls / | grep -v : ; cat /etc/base /etc/both; id; ls /bin | wc -l
        hostname; cat /etc/hostname; ls /dev; readlink /dev/fd; readlink /dev/ptmx
        echo hello > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c
        set -- /proc/[0-9]*; echo $#
        touch /sys/x 2>&1 | grep -o 'Read-only file system'
        head -c 1 /proc/keys | wc -c; ls /sys/firmware | wc -l
        (echo 1 > /proc/sys/kernel/ctrl-alt-del) 2>&1 | grep -o 'Read-only file system'
        ls /proc/self/fd | wc -l
        grep -c ' / ' /proc/mounts; grep -c -E ' /(data|state|usr|srv|run)' /proc/mounts; true
    "#;
    expect![[r#"
        stdout F bin
        stdout F dev
        stdout F etc
        stdout F proc
        stdout F srv
        stdout F sys
        stdout F tmp
        stdout F base
        stdout F top
        stdout F uid=0(root) gid=0(root)
        stdout F 25
        stdout F web-1
        stdout F web-1
        stdout F fd
        stdout F full
        stdout F mqueue
        stdout F null
        stdout F ptmx
        stdout F pts
        stdout F random
        stdout F shm
        stdout F stderr
        stdout F stdin
        stdout F stdout
        stdout F tty
        stdout F urandom
        stdout F zero
        stdout F /proc/self/fd
        stdout F pts/ptmx
        stdout F 3
        stdout F 3
        stdout F 1
        stdout F Read-only file system
        stdout F 0
        stdout F 0
        stdout F Read-only file system
        stdout F 4
        stdout F 1
        stdout F 0
    "#]]
    .assert_eq(&output(place, &mut pod, script));
}

pub(crate) fn changes(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    fs::write(place.state_dir.join("hosts"), "10.244.0.5 web-1\n").unwrap();
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let spec = ContainerSpec {
        mounts: vec![
            bind(&volume, "/data/one"),
            bind(&volume.join("file"), "/etc/app/file"),
            bind(&volume.join("file"), "/dev/termination-log"),
            bind(&volume.join("file"), "/etc/base"),
        ],
        hosts: Some(place.state_dir.join("hosts")),
        resolv_conf: Some(place.state_dir.join("hosts")),
        ..container(place, &pod, &layers, "web.0")
    };
    let script = "cat /data/one/file /etc/app/file /dev/termination-log /etc/base /etc/hosts /etc/resolv.conf
        echo new > /etc/new && rm /etc/both && echo changed > /data/one/changed && ls /etc && pwd";
    let process = ProcessSpec { cwd: Some("/srv/app".into()), ..sh(script) };
    pod.start(spec.clone(), process).unwrap();
    pod.await_exit("web.0");
    expect![[r#"
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F 10.244.0.5 web-1
        stdout F 10.244.0.5 web-1
        stdout F app
        stdout F base
        stdout F group
        stdout F hostname
        stdout F hosts
        stdout F new
        stdout F passwd
        stdout F resolv.conf
        stdout F /srv/app
    "#]]
    .assert_eq(&pod.log("web.0"));
    assert_eq!(fs::read_to_string(volume.join("changed")).unwrap(), "changed\n");
    assert!(!layers[1].join("etc/new").exists() && !layers[1].join("data").exists());
    let upper = place.state_dir.join("writable/web.0/upper");
    assert_eq!(fs::read_to_string(upper.join("etc/new")).unwrap(), "new\n");
    // The same, read-only: only volumes can be written.
    let writable = place.state_dir.join("writable/read-only");
    fs::create_dir(&writable).unwrap();
    let root = Root::Layers { layers, writable, read_only: true };
    let (id, log) = ("web.1".to_owned(), pod.log_path("web.1"));
    let spec = ContainerSpec { id, log, root, ..spec };
    let script = "touch /x /etc/x /data/one/x /dev/shm/x 2>&1; ls /data/one /dev/shm";
    pod.start(spec, sh(script)).unwrap();
    pod.await_exit("web.1");
    expect![[r#"
        stdout F touch: /x: Read-only file system
        stdout F touch: /etc/x: Read-only file system
        stdout F /data/one:
        stdout F changed
        stdout F file
        stdout F x
        stdout F 
        stdout F /dev/shm:
        stdout F x
    "#]]
    .assert_eq(&pod.log("web.1"));
}

/// The same without an overlay.
pub(crate) fn copied(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let path = place.state_dir.join("copy");
    let copied = std::process::Command::new("cp").arg("-a").args([&layers[1], &path]).status();
    assert!(copied.unwrap().success());
    let spec = container(place, &pod, &layers, "web.0");
    let root = Root::Folder { path: path.clone(), read_only: false };
    let spec = ContainerSpec { root, mounts: vec![bind(&volume, "/data/two")], ..spec };
    pod.start(spec, sh("cat /etc/both /data/two/file; echo new > /new; ls /")).unwrap();
    pod.await_exit("web.0");
    expect![[r#"
        stdout F base
        stdout F volume
        stdout F bin
        stdout F data
        stdout F dev
        stdout F etc
        stdout F new
        stdout F proc
        stdout F srv
        stdout F sys
        stdout F tmp
    "#]]
    .assert_eq(&pod.log("web.0"));
    assert!(path.join("new").exists());
}

pub(crate) fn users(place: &Place) {
    let root = rustix::process::geteuid().is_root();
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let mut count = 0;
    let mut check = |user: User, as_root: Expect, as_user: Expect| {
        count += 1;
        let id = format!("web.{count}");
        let script = "set -- $(grep -E 'Cap(Eff|Bnd)' /proc/self/status)
            rm -f /tmp/x; touch /tmp/x; echo $(id), ${2#00000000} ${4#00000000}, $(stat -c %u:%g /tmp/x)";
        let process = ProcessSpec { user: Some(user), ..sh(&format!("{script}; sleep 1000")) };
        let shown = match pod.start(container(place, &pod, &layers, &id), process.clone()) {
            Ok(_) => {
                while pod.log(&id).is_empty() {
                    std::thread::yield_now();
                }
                // What runs there later has the same privileges.
                let log = pod.log(&id).replace("stdout F ", "");
                let process = ProcessSpec { user: process.user, ..sh(script) };
                let exec = ExecSpec { id, process, output_max: None, timeout_ms: None };
                let exec = pod.shim.client.exec_captured(exec, 4096).unwrap();
                assert_eq!(exec.output.unwrap(), log);
                log.trim_end().to_owned()
            }
            Err(error) => format!("{:?}: {error}", error.stage),
        };
        if root { as_root } else { as_user }.assert_eq(&shown);
    };
    let named = |text: &str, groups: &[u32]| User::Named {
        text: text.to_owned(),
        gid: None,
        groups: groups.to_vec(),
        strict: false,
    };
    check(
        named("", &[]),
        expect!["uid=0(root) gid=0(root) groups=0(root), a80425fb a80425fb, 0:0"],
        expect!["uid=0(root) gid=0(root), a80425fb a80425fb, 0:0"],
    );
    check(
        named("web", &[99]),
        expect![
            "uid=1000(web) gid=1001(web) groups=7(logs),99,1001(web), 00000000 a80425fb, 1000:1001"
        ],
        expect!["uid=1000(web) gid=1001(web), 00000000 a80425fb, 1000:1001"],
    );
    check(
        named("1000:5", &[]),
        expect!["uid=1000(web) gid=5 groups=5,7(logs), 00000000 a80425fb, 1000:5"],
        expect!["uid=1000(web) gid=5, 00000000 a80425fb, 1000:5"],
    );
    check(
        named("nobody", &[]),
        expect!["Privileges: user `nobody`: no users found"],
        expect!["Privileges: user `nobody`: no users found"],
    );
    check(
        User::Ids { uid: 4321, gid: 1234, groups: vec![5678] },
        expect!["uid=4321 gid=1234 groups=5678, 00000000 a80425fb, 4321:1234"],
        expect!["uid=4321 gid=1234, 00000000 a80425fb, 4321:1234"],
    );
}

/// Terminals, open standard inputs, and streams that another user than root opens anew.
pub(crate) fn streams(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let user = |uid| Some(User::Ids { uid, gid: uid, groups: Vec::new() });
    let spec = ContainerSpec { tty: true, ..container(place, &pod, &layers, "tty.0") };
    let script = "tty() { readlink /proc/self/fd/$1; }; tty 0; tty 2; echo out > /dev/stdout
        echo console > /dev/console; stat -c %F /dev/console; echo err >&2; echo own > /dev/tty";
    pod.start(spec, ProcessSpec { user: user(1000), ..sh(script) }).unwrap();
    assert_eq!(pod.await_exit("tty.0").code, 0, "{}", pod.log("tty.0"));
    expect![[r#"
        stdout F /dev/pts/0
        stdout F /dev/pts/0
        stdout F out
        stdout F console
        stdout F character special file
        stdout F err
        stdout F own
    "#]]
    .assert_eq(&pod.log("tty.0"));
    let spec = container(place, &pod, &layers, "pipe.0");
    let script = "cat; echo out > /dev/stdout; echo end";
    pod.start(spec, ProcessSpec { user: user(1000), ..sh(script) }).unwrap();
    assert_eq!(pod.await_exit("pipe.0").code, 0, "{}", pod.log("pipe.0"));
    assert_eq!(pod.log("pipe.0"), "stdout F out\nstdout F end\n");
    let spec = ContainerSpec { stdin: Stdin::Open, ..container(place, &pod, &layers, "in.0") };
    pod.start(spec, sh("echo begun; cat; echo end")).unwrap();
    while pod.log("in.0").is_empty() {
        std::thread::yield_now();
    }
    let script = "readlink /proc/1/fd/0 | grep -c pipe; grep -c ^State:.S /proc/1/status";
    let exec = |pod: &mut Pod| {
        let (id, process) = ("in.0".to_owned(), sh(script));
        let exec = ExecSpec { id, process, output_max: None, timeout_ms: None };
        pod.shim.client.exec_captured(exec, 4096).unwrap().output.unwrap()
    };
    while exec(&mut pod) != "1\n1\n" {
        std::thread::yield_now();
    }
    assert_eq!(pod.log("in.0"), "stdout F begun\n");
}

/// Measures, and holds only against what would be a fault: a loaded machine is slow.
pub(crate) fn fast(place: &Place) {
    place.enter();
    let layers = layers(place);
    let mut times = Vec::new();
    for number in 0..20 {
        let shim = place.spare(&place.nursery());
        let begin = Instant::now();
        let mut pod = place.give(shim);
        let spec = container(place, &pod, &layers, &format!("web.{number}"));
        let id = spec.id.clone();
        pod.shim.client.create(spec).unwrap();
        let created = begin.elapsed();
        pod.shim.client.start(&id, sh("sleep 1000")).unwrap();
        times.push((begin.elapsed(), created));
        pod.shim.client.stop(&id, 9, 0).unwrap();
        pod.await_exit(&id);
        let process = pod.shim.process;
        pod.shim.client.exit().unwrap();
        process.wait().unwrap();
        fs::remove_dir_all(&pod.dir).unwrap();
    }
    times.sort();
    let (started, created) = times[times.len() / 2];
    println!("with a spare: created {created:?}, started {started:?}");
    assert!(started < Duration::from_secs(1));
}

/// What an image has in the places where something is mounted leads nowhere but into the image.
pub(crate) fn astray(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let outside = place.state_dir.join("outside");
    fs::create_dir(&outside).unwrap();
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let base = &layers[1];
    symlink(&outside, base.join("data")).unwrap();
    symlink("../../../../../run/made/hosts", base.join("etc/hosts")).unwrap();
    symlink("/proc/self/cwd", base.join("cwd")).unwrap();
    symlink("/proc/sys", base.join("sysctl")).unwrap();
    let mounts = vec![bind(&volume, "/data"), bind(&volume, "/data/deeper")];
    let hosts = Some(volume.join("file"));
    let spec = ContainerSpec { mounts, hosts, ..container(place, &pod, &layers, "web.0") };
    let script = format!(
        "cat {0}/file /run/made/hosts /data/deeper/file; readlink /data",
        outside.display()
    );
    pod.start(spec, sh(&script)).unwrap();
    pod.await_exit("web.0");
    let log = pod.log("web.0").replace(place.dir.to_str().unwrap(), "DIR");
    expect![[r#"
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F DIR/state/outside
    "#]]
    .assert_eq(&log);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    let mut count = 0;
    let mut check = |target: &str, expected: Expect| {
        count += 1;
        let spec = container(place, &pod, &layers, &format!("bad.{count}"));
        let spec = ContainerSpec { mounts: vec![bind(&volume, target)], ..spec };
        let error = pod.start(spec, sh("")).unwrap_err();
        expected.assert_eq(&format!("{:?} {}: {}", error.stage, error.errno, error.message));
    };
    check("/cwd", expect!["Mount 18: cannot mount at `/cwd`: invalid cross-device link"]);
    check("/sysctl", expect!["Mount 0: cannot mount at `/sysctl`: it leads into `/proc`"]);
    check("/sysctl/new", expect!["Mount 0: cannot mount at `/sysctl/new`: it leads into `/proc`"]);
    check("/proc/1", expect!["Mount 0: cannot mount at `/proc/1`: it leads into `/proc`"]);
    for name in ["proc", "sys", "dev"] {
        fs::remove_dir(base.join(name)).ok();
        symlink(Path::new("/etc"), base.join(name)).unwrap();
        let spec = container(place, &pod, &layers, &format!("link.{name}"));
        let error = pod.start(spec, sh("")).unwrap_err();
        assert_eq!(error.stage, Stage::Root);
        assert!(error.message.contains(&format!("`/{name}` of the image")), "{error}");
        fs::remove_file(base.join(name)).unwrap();
    }
}
