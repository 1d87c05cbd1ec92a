//! What a container's process sees.

use std::{fs, path::Path};

use coracle_shim::wire::{
    ContainerSpec, Mount, ProcessSpec, Rlimit, RlimitResource, Source, Stage, User,
};
use expect_test::{Expect, expect};
use rustix::mount::MountFlags;

use crate::place::{Place, Pod, bind, process as program, sh};

pub(crate) fn process(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let script = r#"
        echo "$NAME $0 $1 $(pwd) $(umask) $(ulimit -n) $$ $(env | grep -c =)"
        cat <&0 | wc -c
        grep -E '^(NoNewPrivs|SigBlk|SigIgn|CapAmb|CapInh)' /proc/self/status
        tty >/dev/null || echo no terminal
        ls /proc/self/fd | tr '\n' ' '
    "#;
    let limit = Rlimit { resource: RlimitResource::Nofile, soft: Some(100), hard: Some(200) };
    let process = ProcessSpec {
        argv: ["/bin/sh", "-c", script, "zero", "one"].map(str::to_owned).to_vec(),
        cwd: Some("/usr/bin".into()),
        rlimits: vec![limit],
        umask: Some(0o027),
        no_new_privs: true,
        ..sh("")
    };
    pod.start(pod.container("web.0"), process).unwrap();
    pod.await_exit("web.0");
    // PWD, OLDPWD or _ are the shell's; and `ls` has its folder open as 3.
    expect![[r#"
        stdout F web zero one /usr/bin 0027 100 1 3
        stdout F 0
        stdout F SigBlk:	0000000000000000
        stdout F SigIgn:	0000000000000000
        stdout F CapInh:	0000000000000000
        stdout F CapAmb:	0000000000000000
        stdout F NoNewPrivs:	1
        stdout F no terminal
        stdout P 0 1 2 3 
    "#]]
    .assert_eq(&pod.log("web.0"));
}

pub(crate) fn alone(place: &Place) {
    let mut pod = place.cluster_with_pod();
    let script = r#"
        hostname; cat /etc/hostname
        set -- /proc/[0-9]*; echo $#
        ls /sys/class/net
        touch /sys/x 2>&1 | grep -o 'Read-only file system'
        readlink /proc/self/ns/net > /dev/shm/x && ls /dev/shm
        stat -fc %T /dev/shm /dev/pts
        echo hello > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start
        grep -c . /proc/sysvipc/shm
    "#;
    expect![[r#"
        stdout F web-1
        stdout F web-1
        stdout F 1
        stdout F lo
        stdout F Read-only file system
        stdout F x
        stdout F tmpfs
        stdout F devpts
        stdout F 3
        stdout F 3
        stdout F 0
        stdout F 1
    "#]]
    .assert_eq(&pod.output(script));
    let script = "grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status";
    let (_, capabilities) = pod.run(pod.container("web.1"), script);
    if rustix::process::geteuid().is_root() {
        // Root may not change the machine, and has what containerd gives it.
        expect![[r#"
        stdout F CapPrm:	00000000a80425fb
        stdout F CapEff:	00000000a80425fb
        stdout F CapBnd:	00000000a80425fb
    "#]]
        .assert_eq(&capabilities);
        let (_, log) = pod.run(pod.container("web.2"), "echo 1 > /proc/sys/kernel/ctrl-alt-del");
        assert!(log.contains("Read-only file system"), "{log}");
    } else {
        expect![[r#"
        stdout F CapPrm:	0000000000000000
        stdout F CapEff:	0000000000000000
        stdout F CapBnd:	0000000000000000
    "#]]
        .assert_eq(&capabilities);
    }
}

pub(crate) fn on_host(place: &Place) {
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    place.enter();
    let mut pod = place.pod_on_host();
    let script = format!(
        "readlink /proc/self/ns/net; hostname; set -- /proc/[0-9]*; echo $#; ls /sys/class/net | grep -c .
        touch /sys/x 2>&1 | grep -o 'Read-only file system'; exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected
        while [ ! -e /dev/shm/go ]; do sleep 0.01; done"
    );
    let process = program(&["/bin/bash", "-c", &script]);
    pod.start(pod.container("web.0"), process).unwrap();
    listener.accept().unwrap();
    // What runs there later is on the same network, and in the same container.
    let exec = pod.exec("web.0", "readlink /proc/self/ns/net");
    assert_eq!((exec.code, exec.output), (0, Some(format!("{}\n", host.display()))));
    // It may end with the container before it is done.
    pod.exec("web.0", "touch /dev/shm/go");
    pod.await_exit("web.0");
    let log = pod.log("web.0");
    let lines: Vec<&str> = log.lines().map(|it| it.strip_prefix("stdout F ").unwrap()).collect();
    assert_eq!((lines[0], &lines[1..3]), (&*host.to_string_lossy(), &["web-1", "1"][..]));
    assert_ne!(lines[3], "0");
    assert_eq!(lines[4..], ["Read-only file system", "connected"]);
}

pub(crate) fn root(place: &Place) {
    let secret = place.state_dir.join("secret");
    fs::write(&secret, "secret").unwrap();
    let source = place.dir.join("source");
    fs::create_dir(&source).unwrap();
    let mut pod = place.cluster_with_pod();
    let (dir, state, run) =
        (place.dir.display(), place.state_dir.display(), place.run_dir.display());
    let script = format!(
        "cd {dir} && ls; ls -A {state} {run} | grep -v :; touch {state}/x 2>/dev/null || echo masked
         echo made > source/made; echo own > /etc/own && cat /etc/own
         [ -e /proc/1/root/{state}/secret ] || echo not through proc
         ls / | sort > source/entries; head -c 12 /etc/passwd"
    );
    expect![[r#"
        stdout F run
        stdout F source
        stdout F state
        stdout F 
        stdout F masked
        stdout F own
        stdout F not through proc
        stdout P root:x:0:0:r
    "#]]
    .assert_eq(&pod.output(&script));
    // What the container writes to its source is there; what it writes to /etc is not.
    assert_eq!(fs::read_to_string(source.join("made")).unwrap(), "made\n");
    assert!(!Path::new("/etc/own").exists());
    let mut entries: Vec<String> = fs::read_dir("/")
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|it| !it.starts_with('.'))
        .collect();
    entries.sort();
    let seen = fs::read_to_string(source.join("entries")).unwrap();
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, entries);
}

pub(crate) fn mounts(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    for (name, text) in
        [("resolv.conf", "nameserver 10.96.0.10\n"), ("hosts", "10.244.0.5 web-1\n")]
    {
        fs::write(place.state_dir.join(name), text).unwrap();
    }
    let mut pod = place.cluster_with_pod();
    let spec = ContainerSpec {
        mounts: vec![
            bind(&volume, "/mnt"),
            Mount { read_only: true, ..bind(&volume, "/srv") },
            bind(&volume.join("file"), "/data/one/file"),
            Mount {
                source: Source::Tmpfs { size_bytes: 64 * 1024 },
                target: "/cache".into(),
                read_only: false,
            },
        ],
        resolv_conf: Some(place.state_dir.join("resolv.conf")),
        hosts: Some(place.state_dir.join("hosts")),
        ..pod.container("web.0")
    };
    let script = r"
        cat /mnt/file /srv/file /data/one/file /etc/resolv.conf /etc/hosts
        echo new > /mnt/new && cat /srv/new
        touch /srv/x 2>&1 | grep -o 'Read-only file system'
        head -c 100000 /dev/zero 2>&1 > /cache/x | grep -o 'No space left on device'
    ";
    let (_, log) = pod.run(spec, script);
    expect![[r#"
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F nameserver 10.96.0.10
        stdout F 10.244.0.5 web-1
        stdout F new
        stdout F Read-only file system
        stdout F No space left on device
    "#]]
    .assert_eq(&log);
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new\n");
}

/// Folders below which the scenario has missing mount points; `run` compares them.
pub(crate) fn missing(place: &Place) {
    let volume = place.state_dir.join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "volume\n").unwrap();
    let source = place.dir.join("source");
    fs::create_dir_all(source.join("kept")).unwrap();
    fs::write(source.join("main"), "main\n").unwrap();
    let inside = source.join("inside/data");
    let mut pod = place.cluster_with_pod();
    let targets =
        ["/data", "/etc/app/config", "/opt/x/y", "/usr/share/x", inside.to_str().unwrap()];
    let mut mounts: Vec<Mount> = targets.iter().map(|it| bind(&volume, it)).collect();
    mounts.push(bind(&volume.join("file"), "/etc/app/single"));
    mounts.push(bind(&volume.join("file"), "/opt/x/single"));
    let spec = ContainerSpec { mounts, ..pod.container("web.0") };
    let source_name = source.display();
    let script = format!(
        "for it in {}; do cat $it/file; done; cat /etc/app/single /opt/x/single
         ls {source_name}; cat {source_name}/main; echo through > {source_name}/kept/through
         [ $(ls /usr | wc -l) -gt 3 ] && [ -x /usr/bin/env ] && echo usr is whole",
        targets.join(" ")
    );
    let (exit, log) = pod.run(spec, &script);
    assert_eq!(exit.code, 0, "{log}");
    expect![[r#"
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F volume
        stdout F inside
        stdout F kept
        stdout F main
        stdout F main
        stdout F usr is whole
    "#]]
    .assert_eq(&log);
    for target in targets {
        assert!(!Path::new(target).exists(), "{target}");
    }
    assert!(!source.join("inside").exists());
    assert_eq!(fs::read_to_string(source.join("kept/through")).unwrap(), "through\n");
}

/// A root that was made ahead is of no use when the machine has changed.
pub(crate) fn changed(place: &Place) {
    let late = place.dir.join("late");
    fs::create_dir(&late).unwrap();
    place.enter();
    let shim = place.spare(&place.nursery());
    let pid = shim.process.id();
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    while children().is_empty() {
        std::thread::yield_now();
    }
    rustix::mount::mount("tmpfs", &late, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(late.join("file"), "late\n").unwrap();
    let mut pod = place.give(shim);
    expect![[r#"
        stdout F late
    "#]]
    .assert_eq(&pod.output(&format!("cat {}/file", late.display())));
}

pub(crate) fn nested(place: &Place) {
    let (outer, inner) = (place.state_dir.join("outer"), place.state_dir.join("inner"));
    fs::create_dir(&outer).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), "inner\n").unwrap();
    let mut pod = place.cluster_with_pod();
    let mounts = vec![bind(&outer, "/data"), bind(&inner, "/data/inner")];
    let spec = |id: &str, pod: &Pod| ContainerSpec { mounts: mounts.clone(), ..pod.container(id) };
    let (_, log) = pod.run(spec("a.0", &pod), "cat /data/inner/file; echo a > /data/shared");
    expect![[r#"
        stdout F inner
    "#]]
    .assert_eq(&log);
    let (_, log) = pod.run(spec("b.0", &pod), "cat /data/shared");
    expect![[r#"
        stdout F a
    "#]]
    .assert_eq(&log);
}

pub(crate) fn user(place: &Place) {
    let root = rustix::process::geteuid().is_root();
    let mut pod = place.cluster_with_pod();
    let user = User::Ids { uid: 1234, gid: 2345, groups: vec![3456] };
    let process = ProcessSpec { user: Some(user), ..sh("id; grep CapEff /proc/self/status") };
    let started = pod.start(pod.container("web.0"), process);
    if root {
        started.unwrap();
        pod.await_exit("web.0");
        expect![[r#"
        stdout F uid=1234 gid=2345 groups=2345,3456
        stdout F CapEff:	0000000000000000
    "#]]
        .assert_eq(&pod.log("web.0"));
    } else {
        let error = started.unwrap_err();
        assert_eq!(error.stage, Stage::Privileges);
        expect![[r#"cannot run as user 1234, group 2345: without root there is only user 65534, group 65534: operation not permitted"#]].assert_eq(&error.message);
    }
}

pub(crate) fn reasons(place: &Place) {
    let script = place.dir.join("script");
    fs::write(&script, "#!/no/such/shell\n").unwrap();
    let plain = place.dir.join("plain");
    fs::write(&plain, "plain").unwrap();
    let text = place.dir.join("text");
    fs::write(&text, "text").unwrap();
    for path in [&script, &text] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut pod = place.cluster_with_pod();
    let mut count = 0;
    let mut check = |process: ProcessSpec, expected: Expect| {
        count += 1;
        let error = pod.start(pod.container(&format!("web.{count}")), process).unwrap_err();
        let message = error.message.replace(place.dir.to_str().unwrap(), "DIR");
        expected.assert_eq(&format!("{:?} {}: {message}", error.stage, error.errno));
    };
    check(
        program(&["no-such-program"]),
        expect![[r#"Exec 2: exec: "no-such-program": executable file not found in $PATH"#]],
    );
    check(
        program(&["/no/such/program"]),
        expect![[
            r#"Exec 2: exec: "/no/such/program": stat /no/such/program: no such file or directory"#
        ]],
    );
    check(
        program(&["./relative"]),
        expect![[r#"Exec 2: exec: "./relative": stat ./relative: no such file or directory"#]],
    );
    check(program(&["/usr"]), expect![[r#"Exec 0: exec: "/usr": is a directory"#]]);
    check(
        program(&[plain.to_str().unwrap()]),
        expect![[r#"Exec 13: exec: "DIR/plain": permission denied"#]],
    );
    check(
        program(&[script.to_str().unwrap()]),
        expect![[
            r#"Exec 2: exec DIR/script: no such file or directory: `/no/such/shell` is missing"#
        ]],
    );
    check(
        program(&[text.to_str().unwrap()]),
        expect![[r#"Exec 8: exec DIR/text: exec format error"#]],
    );
    check(program(&[]), expect![[r#"Spec 0: no command"#]]);
    check(
        program(&["/bin/sh", "a\0b"]),
        expect![[r#"Spec 0: argument "a\0b" contains a NUL byte"#]],
    );
    check(
        ProcessSpec { cwd: Some("/no/such".into()), ..sh("") },
        expect![[
            r#"Cwd 2: cannot use the working directory "/no/such": no such file or directory"#
        ]],
    );
    check(
        program(&["/bin/sh", "-c", &"x".repeat(200_000)]),
        expect![[r#"Exec 7: exec /bin/sh: argument list too long"#]],
    );
    // Nothing of them is left.
    assert_eq!(pod.shim.client.status().unwrap().containers, []);
    let files = fs::read_dir(&pod.dir).unwrap().map(|it| it.unwrap().file_name());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert_eq!(files, ["shim.json", "shim.lock", "shim.log", "shim.sock"]);
}

pub(crate) fn bad_mounts(place: &Place) {
    let file = place.state_dir.join("file");
    fs::write(&file, "").unwrap();
    let mut pod = place.cluster_with_pod();
    let mut count = 0;
    let mut check = |mount: Mount, expected: Expect| {
        count += 1;
        let container = pod.container(&format!("web.{count}"));
        let spec = ContainerSpec { mounts: vec![mount], ..container };
        let error = pod.start(spec, sh("")).unwrap_err();
        expected.assert_eq(&format!("{:?} {}: {}", error.stage, error.errno, error.message));
    };
    check(
        bind(Path::new("/no/such/source"), "/data"),
        expect!["Mount 2: cannot mount `/no/such/source`: no such file or directory"],
    );
    check(
        bind(&file, "/usr"),
        expect![[r#"Mount 0: cannot mount a file at `/usr`: it is a folder"#]],
    );
    check(
        bind(&place.state_dir, "/etc/passwd"),
        expect![[r#"Mount 0: cannot mount a folder at `/etc/passwd`: it is a file"#]],
    );
    check(
        bind(&place.state_dir, "/etc/passwd/data"),
        expect![[r#"Mount 20: cannot mount at `/etc/passwd/data`: not a directory"#]],
    );
    check(
        bind(&place.state_dir, "data"),
        expect![[r#"Spec 0: mount point `data` is not an absolute path below `/`"#]],
    );
    check(
        bind(&place.state_dir, "/data/../data"),
        expect![[r#"Spec 0: mount point `/data/../data` contains `..`"#]],
    );
    let spec = ContainerSpec { id: "../x".to_owned(), ..pod.container("x") };
    let error = pod.start(spec, sh("")).unwrap_err();
    expect!["container id `../x` is not a name of letters, digits, `-`, `_` and `.`"]
        .assert_eq(&error.message);
    let spec = ContainerSpec { log: "/proc/no/log".into(), ..pod.container("x") };
    let error = pod.start(spec, sh("")).unwrap_err();
    assert_eq!(error.stage, Stage::Log);
}
