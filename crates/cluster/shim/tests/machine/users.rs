//! Pods with a user namespace for all their containers.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use coracle_shim::{
    Process,
    wire::{
        ContainerSpec, ExecSpec, IdMap, IdRange, Mount, PidNamespace, ProcessSpec, Root, Source,
        User,
    },
};
use expect_test::expect;
use rustix::event::{PollFd, PollFlags};

use crate::{
    groups::Groups,
    image::{container, layers, sh},
    place::{Place, Pod, bind},
};

/// What the pod's ids are outside.
const START: u32 = 7 << 16;

fn map() -> IdMap {
    let range = vec![IdRange { inside: 0, outside: START, count: 1 << 16 }];
    IdMap { uids: range.clone(), gids: range }
}

/// A pod with users of its own, and what its containers are made of.
fn pod(place: &Place) -> (Pod, ContainerSpec) {
    place.enter();
    let layers = layers(place);
    chown(layers[1].join("srv/web"), Some(1000), Some(1001)).unwrap();
    let pod = place.pod_with_users(map()).unwrap();
    let spec = ContainerSpec { user_namespace: None, ..container(place, &pod, &layers, "web.0") };
    (pod, spec)
}

fn with_id(place: &Place, spec: &ContainerSpec, id: &str) -> ContainerSpec {
    let Root::Layers { layers, .. } = &spec.root else { panic!("{spec:?}") };
    let writable = place.state_dir.join("writable").join(id);
    fs::create_dir_all(&writable).unwrap();
    let root = Root::Layers { layers: layers.clone(), writable, read_only: false };
    let log = place.state_dir.join("logs").join(id).join("0.log");
    ContainerSpec { id: id.to_owned(), root, log, ..spec.clone() }
}

fn exec(pod: &mut Pod, id: &str, process: ProcessSpec) -> String {
    let exec = ExecSpec { id: id.to_owned(), process, output_max: None, timeout_ms: Some(20_000) };
    pod.shim.client.exec_captured(exec, 8192).unwrap().output.unwrap()
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> Option<User> {
    Some(User::Ids { uid, gid, groups: groups.to_vec() })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Only who may map ids makes such pods; others are told.
fn refused(place: &Place) {
    place.enter();
    let error = place.pod_with_users(map()).err().unwrap().to_string();
    assert!(error.contains("cannot make the pod's user namespace"), "{error}");
}

/// Who owns what in a container, and outside.
pub(crate) fn owners(place: &Place) {
    if !is_root() {
        return refused(place);
    }
    let volume = volume(place);
    let (mut pod, spec) = pod(place);
    let memory = Source::Tmpfs { size_bytes: 1 << 20 };
    let spec = ContainerSpec {
        mounts: vec![
            bind(&volume, "/data"),
            Mount { source: memory, target: "/memory/new".into(), read_only: false },
        ],
        hosts: Some(volume.join("root")),
        ..spec
    };
    let script = r#"
        set -- $(cat /proc/self/uid_map) $(cat /proc/self/gid_map); echo $*
        cd /data; stat -c '%n %u:%g' root web stranger /etc/hosts /bin/busybox /srv/web / /etc /etc/hostname
        stat -c '%n %u:%g %a' /dev /dev/shm /memory /memory/new /tmp
        cat root; echo; cat stranger 2>&1; touch made; chown 1000:7 made; ln -s x link
        echo changed > /etc/base; touch /srv/web/x /dev/shm/x /memory/new/x
        mknod /tmp/null c 1 3 2>&1; echo hello > /dev/null; echo out > /dev/stdout
        sleep 1000
    "#;
    let pid = pod.start(spec, sh(script)).unwrap();
    while !pod.log("web.0").ends_with("F out\n") {
        std::thread::yield_now();
    }
    expect![[r#"
        stdout F 0 458752 65536 0 458752 65536
        stdout F root 0:0
        stdout F web 1000:1000
        stdout F stranger 65534:65534
        stdout F /etc/hosts 0:0
        stdout F /bin/busybox 0:0
        stdout F /srv/web 1000:1001
        stdout F / 0:0
        stdout F /etc 0:0
        stdout F /etc/hostname 0:0
        stdout F /dev 0:0 755
        stdout F /dev/shm 0:0 1777
        stdout F /memory 0:0 755
        stdout F /memory/new 0:0 1777
        stdout F /tmp 0:0 1777
        stdout F root
        stdout F cat: can't open 'stranger': Permission denied
        stdout F mknod: /tmp/null: Operation not permitted
        stdout F out
    "#]]
    .assert_eq(&pod.log("web.0"));
    assert_eq!(fs::metadata(format!("/proc/{pid}/stat")).unwrap().uid(), START);
    assert_eq!(owner(&volume.join("made")), (1000, 7));
    assert_eq!(owner(&volume.join("link")), (0, 0));
    // What is the container's alone is nobody's on the machine.
    let upper = place.state_dir.join("writable/web.0/upper");
    assert_eq!(owner(&upper.join("srv/web/x")), (START, START));
}

/// Other users than root, of the same and of another container.
pub(crate) fn others(place: &Place) {
    if !is_root() {
        return refused(place);
    }
    let volume = volume(place);
    let (mut pod, spec) = pod(place);
    let spec = ContainerSpec { mounts: vec![bind(&volume, "/data")], ..spec };
    pod.start(spec.clone(), sh("touch /data/made; exec sleep 1000")).unwrap();
    while !volume.join("made").exists() {
        std::thread::yield_now();
    }
    let script = "id; cat /data/web; echo; echo out > /dev/stdout; stat -c %u:%g /data/made
        cat /data/root 2>&1; cd /srv/web; touch y; stat -c %u:%g y; readlink /proc/self/ns/user";
    let process = ProcessSpec { user: user(1000, 1001, &[7, 99]), ..sh(script) };
    let further = exec(&mut pod, "web.0", process.clone());
    let (shown, namespace) = further.trim_end().rsplit_once('\n').unwrap();
    expect![[r#"
        uid=1000(web) gid=1001(web) groups=7(logs),99
        web
        out
        0:0
        cat: can't open '/data/root': Permission denied
        1000:1001"#]]
    .assert_eq(shown);
    assert_ne!(fs::read_link("/proc/self/ns/user").unwrap(), Path::new(namespace));
    pod.start(with_id(place, &spec, "web.1"), process).unwrap();
    assert_eq!(pod.await_exit("web.1").code, 0, "{}", pod.log("web.1"));
    assert_eq!(pod.log("web.1").replace("stdout F ", ""), further);
    let nobody = ProcessSpec { user: user(70_000, 0, &[]), ..sh("") };
    let error = pod.start(with_id(place, &spec, "web.2"), nobody).unwrap_err();
    assert!(error.message.contains("has no such id"), "{error}");
    let linked = pod.container("web.3");
    let error = pod.start(linked, sh("")).unwrap_err();
    assert!(error.message.contains("a user namespace on the machine's root"), "{error}");
}

/// Processes that are shared, a terminal, and a root that is a copy.
pub(crate) fn kinds(place: &Place) {
    if !is_root() {
        return refused(place);
    }
    let (mut pod, spec) = pod(place);
    let shared = ContainerSpec { pid: PidNamespace::Pod, ..spec.clone() };
    pod.start(shared.clone(), sh("exec sleep 1001")).unwrap();
    pod.start(with_id(place, &shared, "web.1"), sh("exec sleep 1002")).unwrap();
    // All of them are the pod's, whoever watches.
    let script = "stat -c %u /proc/1/ /proc/self/; ps -o comm,args | grep -c 'sleep 100[12]$'
        kill -9 $(ps -o pid,args | grep 'sleep 1001$' | { read pid _; echo $pid; })";
    assert_eq!(exec(&mut pod, "web.1", sh(script)), "0\n0\n2\n");
    assert_eq!(pod.await_exit("web.0").signal, Some(9));

    let tty = ContainerSpec { tty: true, ..with_id(place, &spec, "web.2") };
    let process = ProcessSpec {
        user: user(1000, 1001, &[]),
        ..sh("[ -t 0 ] && stat -Lc '%u:%g' /dev/stdin && echo out > /dev/console")
    };
    pod.start(tty, process).unwrap();
    assert_eq!(pod.await_exit("web.2").code, 0, "{}", pod.log("web.2"));
    assert_eq!(pod.log("web.2"), "stdout F 1000:5\nstdout F out\n");

    let Root::Layers { layers, .. } = &spec.root else { panic!("{spec:?}") };
    let base = layers.last().unwrap().clone();
    let root = Root::Folder { path: base.clone(), read_only: false };
    let copy = ContainerSpec { root, ..with_id(place, &spec, "web.3") };
    pod.start(copy, sh("stat -c %u:%g /srv/web; touch /own")).unwrap();
    assert_eq!(pod.await_exit("web.3").code, 0, "{}", pod.log("web.3"));
    assert_eq!(pod.log("web.3"), "stdout F 1000:1001\n");
    assert_eq!(owner(&base.join("own")), (0, 0));
}

/// Control groups, and a shim that is killed.
pub(crate) fn killed(place: &Place) {
    if !is_root() {
        return refused(place);
    }
    let groups = Groups::of_all("users");
    let (mut pod, spec) = pod(place);
    let spec = ContainerSpec { cgroups: groups.0.clone(), ..spec };
    let pid = pod.start(spec, sh("cat /proc/self/cgroup; echo shown; exec sleep 1000")).unwrap();
    for members in groups.members() {
        assert!(members.lines().any(|it| it == pid.to_string()), "{members}");
    }
    while !pod.log("web.0").ends_with("F shown\n") {
        std::thread::yield_now();
    }
    let name = groups.0[0].file_name().unwrap().to_str().unwrap();
    let (log, seen) = (pod.log("web.0"), exec(&mut pod, "web.0", sh("cat /proc/self/cgroup")));
    assert!(!log.contains(name) && !seen.contains(name) && seen.contains(":/\n"), "{log}{seen}");
    let first = Process::open(pid).unwrap();
    let shim = rustix::process::Pid::from_raw(pod.shim.process.id().cast_signed()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let ended = first.ended();
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(ended, PollFlags::IN)], None).unwrap();
    // The process is gone from them when it has ended, a moment after it is said.
    while groups.members().iter().any(|it| !it.is_empty()) {
        std::thread::yield_now();
    }
}

/// A folder with files of root, of another user, and of one whom no pod has.
fn volume(place: &Place) -> PathBuf {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
    for (name, owner) in [("root", 0), ("web", 1000), ("stranger", 70_000)] {
        let path = volume.join(name);
        fs::write(&path, name).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(path, Some(owner), Some(owner)).unwrap();
    }
    volume
}

fn owner(path: &Path) -> (u32, u32) {
    let of = fs::symlink_metadata(path).unwrap();
    (of.uid(), of.gid())
}
