//! What a container of an image may not do, and the ways in which others have been left.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use coracle_shim::wire::{
    ContainerSpec, ExecSpec, IdMap, IdRange, PidNamespace, ProcessSpec, Root, Stage, User,
};
use expect_test::expect;

use crate::{
    image::{container, layers, sh},
    place::{Place, Pod, bind, process},
};

fn exec(pod: &mut Pod, id: &str, process: ProcessSpec) -> Result<String, coracle_shim::Error> {
    let exec = ExecSpec { id: id.to_owned(), process, output_max: None, timeout_ms: Some(20_000) };
    Ok(pod.shim.client.exec_captured(exec, 8192)?.output.unwrap())
}

/// A seccomp program that lets mkdir(2) and mkdirat(2) fail with EPERM, and allows all else.
fn seccomp(place: &Place) -> PathBuf {
    #[cfg(target_arch = "x86_64")]
    const CALLS: [u32; 2] = [83, 258];
    #[cfg(target_arch = "aarch64")]
    const CALLS: [u32; 2] = [34, 34];
    let mut program = Vec::new();
    let mut add = |code: u16, jump_true: u8, jump_false: u8, k: u32| {
        program.extend(code.to_ne_bytes());
        program.extend([jump_true, jump_false]);
        program.extend(k.to_ne_bytes());
    };
    add(0x20, 0, 0, 0);
    add(0x15, 1, 0, CALLS[0]);
    add(0x15, 0, 1, CALLS[1]);
    add(0x06, 0, 0, 0x0005_0001);
    add(0x06, 0, 0, 0x7fff_0000);
    let path = place.run_dir.join("program.bpf");
    fs::write(&path, program).unwrap();
    path
}

pub(crate) fn privileges(place: &Place) {
    let program = seccomp(place);
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let script = "grep -E '^(NoNewPrivs|Seccomp):|^Cap(Inh|Eff|Bnd|Amb)' /proc/self/status
        mkdir /tmp/x 2>&1; cat /proc/self/oom_score_adj";
    let mut count = 0;
    let mut run = |process: ProcessSpec| {
        count += 1;
        let id = format!("web.{count}");
        let script = format!("{script}; sleep 1000");
        let first = ProcessSpec {
            argv: ["/bin/sh", "-c", &script].map(str::to_owned).into(),
            ..process.clone()
        };
        pod.start(container(place, &pod, &layers, &id), first).unwrap();
        while !pod.log(&id).ends_with("200\n") {
            std::thread::yield_now();
        }
        let log = pod.log(&id).replace("stdout F ", "");
        assert_eq!(exec(&mut pod, &id, process).unwrap(), log);
        log
    };
    let asked = ProcessSpec { seccomp: Some(program), oom_score_adj: Some(200), ..sh(script) };
    let with = |no_new_privs: bool, capabilities: &[&str], user: u32| ProcessSpec {
        no_new_privs,
        capabilities: Some(capabilities.iter().map(|it| (*it).to_owned()).collect()),
        user: Some(User::Ids { uid: user, gid: user, groups: Vec::new() }),
        ..asked.clone()
    };
    expect![[r#"
        CapInh:	0000000000000000
        CapEff:	0000000000000021
        CapBnd:	0000000000000021
        CapAmb:	0000000000000000
        NoNewPrivs:	1
        Seccomp:	2
        mkdir: can't create directory '/tmp/x': Operation not permitted
        200
    "#]]
    .assert_eq(&run(with(true, &["CHOWN", "CAP_KILL"], 0)));
    expect![[r#"
        CapInh:	0000000000000000
        CapEff:	0000000000000000
        CapBnd:	0000000000000000
        CapAmb:	0000000000000000
        NoNewPrivs:	0
        Seccomp:	2
        mkdir: can't create directory '/tmp/x': Operation not permitted
        200
    "#]]
    .assert_eq(&run(with(false, &[], 1000)));
    let spec = container(place, &pod, &layers, "bad.0");
    let error = pod.start(spec, with(true, &["FLY"], 0)).unwrap_err();
    expect!["unknown capability `FLY`"].assert_eq(&error.message);
    let spec = container(place, &pod, &layers, "bad.1");
    let profile = ProcessSpec { apparmor: Some("web".to_owned()), ..sh("") };
    let confined = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let error = pod.start(spec, profile).unwrap_err();
    assert!(error.message.contains("AppArmor profile `web`"), "{error}");
    assert_eq!(error.message.contains("not enabled"), !confined.is_ok_and(|it| it.trim() == "Y"));
}

/// No descriptor of a shim, and no folder outside, is there in a container (CVE-2024-21626).
pub(crate) fn held(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let spec = container(place, &pod, &layers, "web.0");
    pod.start(spec, sh("sleep 1000")).unwrap();
    let script =
        "for it in /proc/1/fd/* /proc/self/fd/*; do readlink $it; done; readlink /proc/1/cwd
        ls /proc/1/root/";
    let output = exec(&mut pod, "web.0", sh(script)).unwrap();
    let odd = |it: &&str| {
        let known = ["pipe:[", "/dev/null", "/proc/", "/"];
        !known.iter().any(|known| it.starts_with(known)) && it.contains('/')
    };
    assert_eq!(output.lines().filter(odd).collect::<Vec<_>>(), [""; 0], "{output}");
    assert!(!output.contains("socket:") && !output.contains("mnt:"), "{output}");
    for number in 3..16 {
        let cwd: PathBuf = format!("/proc/self/fd/{number}").into();
        let process = ProcessSpec { cwd: Some(cwd), ..sh("ls") };
        let spec = container(place, &pod, &layers, &format!("cwd.{number}"));
        let error = pod.start(spec, process.clone()).unwrap_err();
        assert_eq!(error.stage, Stage::Cwd, "{error}");
        exec(&mut pod, "web.0", process).unwrap_err();
    }
}

/// An image that runs `/proc/self/exe` runs the shim's program, and cannot write it (CVE-2019-5736).
pub(crate) fn own_program(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    symlink("/proc/self/exe", layers[1].join("entry")).unwrap();
    let spec = container(place, &pod, &layers, "web.0");
    pod.start(spec, process(&["/entry", "hold"])).unwrap();
    // With truncation the mount is looked at before whether somebody runs the file.
    let script =
        "(: > /proc/1/exe) 2>&1; (: >> /proc/1/exe) 2>&1; head -c 4 /proc/1/exe | grep -c ELF";
    let output = exec(&mut pod, "web.0", sh(script)).unwrap();
    assert!(output.contains("can't create /proc/1/exe: Read-only file system"), "{output}");
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(0 < size(&place.executable));
    // The shim itself, seen from outside.
    let shim = format!("/proc/{}/exe", pod.shim.process.id());
    let flags = rustix::fs::statvfs(shim).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

/// What an image's program is when it names this one.
pub(crate) fn hold() -> ExitCode {
    loop {
        std::thread::park();
    }
}

pub(crate) fn machine(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let spec = ContainerSpec {
        mounts: vec![bind(&volume, "/data")],
        ..container(place, &pod, &layers, "web.0")
    };
    let script = r#"
        for it in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger \
            /proc/irq/default_smp_affinity /sys/kernel/uevent_helper; do
            (echo x > $it) 2>/dev/null && echo $it can be written
        done
        for dir in /tmp /data /dev /dev/shm; do
            mknod $dir/probe c 1 5 2>/dev/null; (head -c 1 $dir/probe) >/dev/null 2>&1 && echo $dir has devices
        done
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        mount -o remount,rw /proc/sys 2>/dev/null && echo remounted
        (hostname other) 2>/dev/null && echo renamed
        (echo 1 > /proc/1/oom_score_adj) 2>/dev/null; cat /proc/keys 2>/dev/null
        ls /proc/1/map_files >/dev/null 2>&1; echo end
    "#;
    pod.start(spec, sh(script)).unwrap();
    pod.await_exit("web.0");
    expect![[r#"
        stdout F end
    "#]]
    .assert_eq(&pod.log("web.0"));
}

/// Containers that share their processes see each other, and end alone, with all that is theirs.
pub(crate) fn shared(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let layers = layers(place);
    let count = |pod: &mut Pod, id: &str, name: &str| {
        let script = format!("ps -o comm | grep -c '^{name}$'");
        exec(pod, id, sh(&script)).unwrap()
    };
    for (id, pid) in [("a.0", PidNamespace::Pod), ("b.0", PidNamespace::Pod)] {
        let spec = ContainerSpec { pid, ..container(place, &pod, &layers, id) };
        let script = "sleep 1001 & (sleep 1002 &) ; exec sleep 1003";
        pod.start(spec, sh(script)).unwrap();
    }
    let until = |pod: &mut Pod, id: &str, name: &str, number: &str| {
        while count(pod, id, name) != number {
            std::thread::yield_now();
        }
    };
    until(&mut pod, "a.0", "sleep", "6\n");
    let first = exec(&mut pod, "b.0", sh("ps -o comm,pid | grep ' 1$'")).unwrap();
    assert!(first.starts_with("coracle pause"), "{first}");
    pod.shim.client.stop("a.0", 9, 0).unwrap();
    assert_eq!(pod.await_exit("a.0").signal, Some(9));
    until(&mut pod, "b.0", "sleep", "3\n");
    // And the machine's: nothing is left of it either.
    let spec = ContainerSpec { pid: PidNamespace::Host, ..container(place, &pod, &layers, "c.0") };
    // A number that nothing else on the machine has.
    let this = std::process::id();
    let seconds = format!("{this}000000");
    pod.start(spec, sh(&format!("sleep {seconds} & exec sleep 1005"))).unwrap();
    let seen = exec(&mut pod, "c.0", sh(&format!("cat /proc/{this}/comm; ls /proc/1/root 2>&1")));
    let seen = seen.unwrap();
    assert!(seen.contains("program") && !seen.contains("usr"), "{seen}");
    let of_container = || {
        let found = fs::read_dir("/proc").unwrap().flatten().filter(|it| {
            let line = fs::read(it.path().join("cmdline")).unwrap_or_default();
            line.starts_with(format!("sleep\0{seconds}\0").as_bytes())
        });
        found.count()
    };
    while of_container() != 1 {
        std::thread::yield_now();
    }
    pod.shim.client.stop("c.0", 9, 0).unwrap();
    pod.await_exit("c.0");
    while of_container() != 0 {
        std::thread::yield_now();
    }
}

/// User and group `nobody`, and the ids that it is given.
const USER: u32 = 65_534;
const START: u32 = 100_000;
const COUNT: u32 = 65_536;

/// Root lets an ordinary user have ranges of ids, in a mount namespace of its own.
pub(crate) fn ranges(place: &Place) {
    if !rustix::process::geteuid().is_root() {
        // Whatever the machine gives to this user, containers run, which the others show.
        return;
    }
    let range = place.dir.join("range");
    fs::write(&range, format!("nobody:{START}:{COUNT}\n")).unwrap();
    for path in [&place.dir, &place.run_dir, &place.state_dir] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    let script = format!(
        r#"mount --bind "$1" /etc/subuid && mount --bind "$1" /etc/subgid &&
        exec setpriv --reuid={USER} --regid={USER} --clear-groups "$2" ranges "$3""#
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script, "sh"])
        .args([&range, &place.executable, &place.dir])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// What the user does.
pub(crate) fn with_ranges(arguments: &[OsString]) -> ExitCode {
    let place = Place::new(Path::new(&arguments[0]));
    let result = std::panic::catch_unwind(|| mapped(&place));
    place.clean();
    ExitCode::from(u8::from(result.is_err()))
}

fn mapped(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let mapped = fs::read_to_string("/proc/self/uid_map").unwrap().lines().count() == 2;
    let installed =
        ["newuidmap", "newgidmap"].iter().all(|it| Path::new("/usr/bin").join(it).exists());
    assert_eq!(mapped, installed);
    if !mapped {
        return;
    }
    let layers = layers(place);
    std::os::unix::fs::chown(layers[1].join("srv/web"), Some(START + 999), Some(START + 1000))
        .unwrap();
    let ranges = vec![
        IdRange { inside: 0, outside: USER, count: 1 },
        IdRange { inside: 1, outside: START, count: COUNT - 1 },
    ];
    let map = IdMap { uids: ranges.clone(), gids: ranges };
    let spec =
        ContainerSpec { user_namespace: Some(map), ..container(place, &pod, &layers, "web.0") };
    let user = User::Named { text: "web".to_owned(), gid: None, groups: vec![99], strict: false };
    let script =
        "id; touch /srv/web/x; stat -c '%u:%g' /srv/web/x /bin/busybox /srv/web; sleep 1000";
    let process = ProcessSpec { user: Some(user), ..sh(script) };
    pod.start(spec.clone(), process).unwrap();
    while pod.log("web.0").lines().count() < 4 {
        std::thread::yield_now();
    }
    expect![[r#"
        stdout F uid=1000(web) gid=1001(web) groups=7(logs),99,1001(web)
        stdout F 1000:1001
        stdout F 0:0
        stdout F 1000:1001
    "#]]
    .assert_eq(&pod.log("web.0"));
    let script =
        "id; chown 5:6 /srv/web/x && stat -c '%u:%g' /srv/web/x; chown 70000 /srv/web/x 2>&1";
    let output = exec(&mut pod, "web.0", sh(script)).unwrap();
    expect![[r#"
        uid=0(root) gid=0(root)
        5:6
        chown: /srv/web/x: Invalid argument
    "#]]
    .assert_eq(&output);
    let upper = place.state_dir.join("writable/web.0/upper/srv/web/x");
    let owner = fs::metadata(upper).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((owner.uid(), owner.gid()), (START + 4, START + 5));
    let Root::Layers { layers, .. } = spec.root else { panic!() };
    let writable = place.state_dir.join("writable/web.1");
    fs::create_dir(&writable).unwrap();
    let root = Root::Layers { layers, writable, read_only: false };
    let user = Some(User::Ids { uid: 70_000, gid: 0, groups: Vec::new() });
    let spec = ContainerSpec { id: "web.1".to_owned(), root, ..spec };
    let error = pod.start(spec, ProcessSpec { user, ..sh("") }).unwrap_err();
    expect!["cannot run as user 70000, group 0: the container's user namespace has no such id: invalid argument"].assert_eq(&error.message);
}
