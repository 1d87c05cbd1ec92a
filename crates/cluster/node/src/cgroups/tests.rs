//! Control groups as plain folders: what is found, written and removed.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

/// A machine's control groups as plain folders.
struct Machine {
    dir: tempfile::TempDir,
    mounts: String,
    own: String,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir, mounts: String::new(), own: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Mounts a hierarchy of version 1 with these controllers.
    fn one(mut self, controllers: &str) -> Self {
        let point = self.group(controllers, "");
        let number = self.mounts.lines().count();
        writeln!(
            self.mounts,
            "3{number} 20 0:2{number} / {} rw,relatime - cgroup cgroup rw,{controllers}",
            point.display()
        )
        .unwrap();
        writeln!(self.own, "{number}:{controllers}:/").unwrap();
        self
    }

    /// Mounts that of version 2, in which this process is in the group `own`.
    fn two(mut self, controllers: &str, own: &str) -> Self {
        let point = self.group("unified", controllers);
        writeln!(self.mounts, "40 20 0:30 / {} rw - cgroup2 cgroup2 rw", point.display()).unwrap();
        writeln!(self.own, "0::{own}").unwrap();
        let mut path = "unified".to_owned();
        for part in own.split('/').filter(|it| !it.is_empty()) {
            path += "/";
            path += part;
            self.group(&path, controllers);
        }
        self
    }

    fn group(&self, name: &str, controllers: &str) -> PathBuf {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in [
            ("cgroup.procs", ""),
            ("tasks", ""),
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", ""),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    fn find(&self) -> Found {
        detect::find(&self.mounts, &self.own)
    }

    fn cgroups(&self) -> Cgroups {
        Cgroups::make(self.find(), &self.path("run"), 2000)
    }

    /// Every file below the mounts, but for those that the kernel makes, with its content.
    fn tree(&self) -> String {
        let mut lines = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.dir.path()).unwrap().display().to_string();
                if path.is_dir() {
                    folders.push(path);
                } else if !name.starts_with("run/") {
                    let text = fs::read_to_string(&path).unwrap();
                    if !text.is_empty() && !name.ends_with("cgroup.controllers") {
                        lines.push(format!("{name} = {text}\n"));
                    }
                }
            }
        }
        lines.sort();
        let name = name(&self.path("run"));
        lines.concat().replace(&name, "CLUSTER")
    }
}

fn check(machine: &Machine, expected: Expect) {
    let found = machine.find();
    let mut text = String::new();
    for it in &found.hierarchies {
        let folder = it.folder.strip_prefix(machine.dir.path()).unwrap().display();
        writeln!(text, "{:?} {:?} in {folder}", it.version, it.controllers).unwrap();
    }
    for it in &found.lacks {
        writeln!(text, "no {:?}: {}", it.controller, it.reason).unwrap();
    }
    let dir = machine.dir.path().display().to_string();
    expected.assert_eq(&text.replace(&dir, "DIR"));
}

#[test]
fn groups_of_both_versions_are_found() {
    check(
        &Machine::new().one("memory").one("cpu,cpuacct").one("cpuset").one("pids").two("", "/"),
        expect![[r#"
            One [Memory] in memory
            One [Cpu, Cpuacct] in cpu,cpuacct
            One [Pids] in pids
        "#]],
    );
    check(
        &Machine::new().two("cpuset cpu io memory pids", "/user.slice/session-1.scope"),
        expect![[r#"
            Two [Cpu, Memory, Pids, Cpuacct] in unified
        "#]],
    );
    // Some in this version, some in that.
    check(
        &Machine::new().two("pids", "/").one("memory"),
        expect![[r#"
            Two [Pids, Cpuacct] in unified
            One [Memory] in memory
            no Cpu: there is no `cpu` controller
        "#]],
    );
    check(
        &Machine::new(),
        expect![[r#"
            no Cpu: there is no `cpu` controller
            no Cpuacct: there is no `cpuacct` controller
            no Memory: there is no `memory` controller
            no Pids: there is no `pids` controller
        "#]],
    );
}

/// As an ordinary user, whose groups are those below one that was given to them.
#[test]
fn only_groups_that_may_be_written_are_used() {
    let machine = Machine::new().two("cpu memory pids", "/user.slice/user@1.service/app/it.scope");
    for path in ["unified", "unified/user.slice"] {
        // Also for root, who may write what nobody may: what is no folder with these files.
        fs::remove_file(machine.path(path).join("cgroup.procs")).unwrap();
    }
    check(
        &machine,
        expect![[r#"
            Two [Cpu, Memory, Pids, Cpuacct] in unified/user.slice/user@1.service
        "#]],
    );
    let machine = Machine::new().two("memory", "/user.slice").one("pids");
    for path in ["unified", "unified/user.slice", "pids"] {
        fs::remove_file(machine.path(path).join("cgroup.procs")).unwrap();
    }
    check(
        &machine,
        expect![[r#"
            no Cpu: there is no `cpu` controller
            no Cpuacct: control groups below `DIR/unified` may not be written
            no Memory: control groups below `DIR/unified` may not be written
            no Pids: control groups below `DIR/pids` may not be written
        "#]],
    );
    let described = machine.cgroups().describe();
    let dir = machine.dir.path().display().to_string();
    expect![[r#"not limited: cpu (there is no `cpu` controller); not limited: memory (control groups below `DIR/unified` may not be written); not limited: pids (control groups below `DIR/pids` may not be written)"#]]
        .assert_eq(&described.replace(&dir, "DIR"));
}

/// systemd gives a user's manager the controllers that its unit names, in some versions not that of CPUs.
#[test]
fn controllers_that_are_not_delegated_are_named() {
    let machine = Machine::new().two("cpu memory pids", "/user@1000.service/it.scope");
    fs::remove_file(machine.path("unified/cgroup.procs")).unwrap();
    machine.group("unified/user@1000.service", "memory pids");
    check(
        &machine,
        expect![[r#"
            Two [Memory, Pids, Cpuacct] in unified/user@1000.service
            no Cpu: `cpu` is not delegated to `DIR/unified/user@1000.service`
        "#]],
    );
}

/// The other controllers stay in use.
#[test]
fn controllers_that_cannot_be_had_are_named() {
    let machine = Machine::new().two("cpu memory", "/").one("pids");
    let mut of_two = machine.find().hierarchies.remove(0).controllers;
    let folder = machine.path("unified");
    assert_eq!(enable(&folder, &mut of_two), Ok(Vec::new()));
    assert_eq!(of_two, [Controller::Cpu, Controller::Memory, Controller::Cpuacct]);
    fs::remove_file(folder.join("cgroup.subtree_control")).unwrap();
    let reason = enable(&folder, &mut of_two).unwrap_err();
    assert!(reason.ends_with("unified` cannot be used: No such file or directory (os error 2)"));
    let described = machine.cgroups().describe();
    assert!(described.starts_with("version 1: pids; not limited: cpu, memory ("), "{described}");
}

/// A container runtime shows a container only its own group, as the root.
#[test]
fn mounted_parts_of_a_hierarchy_are_understood() {
    let mut machine = Machine::new();
    let point = machine.group("my memory", "");
    let point = point.display().to_string().replace(' ', "\\040");
    machine.mounts = format!("30 20 0:2 /docker/1 {point} rw shared:1 - cgroup cgroup rw,memory\n");
    machine.own = "4:memory:/docker/1/inner\n".to_owned();
    check(
        &machine,
        expect![[r#"
            One [Memory] in my memory
            no Cpu: there is no `cpu` controller
            no Cpuacct: there is no `cpuacct` controller
            no Pids: there is no `pids` controller
        "#]],
    );
}

fn amounts(cpu_request: u64, cpu_limit: u64, memory_limit: u64) -> Amounts {
    Amounts { cpu_request, cpu_limit, memory_limit, memory_request: memory_limit }
}

#[test]
fn limits_of_version_1_are_written() {
    let machine = Machine::new().one("memory").one("cpu").one("cpuacct").one("pids");
    let cgroups = machine.cgroups();
    let (spare, folders) = cgroups.spare().unwrap().unwrap();
    assert!(folders.iter().all(|it| it.is_dir()) && folders.len() == 4);
    cgroups.take_over(&spare, "u1").unwrap();
    let (pod, web) = (amounts(600, 0, 0), amounts(500, 1500, 1 << 30));
    let folders = cgroups.begin(("u1", "web.0"), &pod, &web).unwrap();
    assert!(folders.iter().all(|it| it.ends_with("podu1/web.0")));
    cgroups.begin(("u1", "log.0"), &pod, &amounts(100, 0, 0)).unwrap();
    let leaves = |it: &String| !it.contains("pids_limit");
    let tree: Vec<String> = machine.tree().lines().map(str::to_owned).filter(leaves).collect();
    let machines = pids_of_all().unwrap().to_string();
    expect![[r#"
        cpu/CLUSTER/cpu.cfs_period_us = 100000
        cpu/CLUSTER/cpu.cfs_quota_us = -1
        cpu/CLUSTER/cpu.shares = 2048
        cpu/CLUSTER/podu1/cpu.cfs_period_us = 100000
        cpu/CLUSTER/podu1/cpu.cfs_quota_us = -1
        cpu/CLUSTER/podu1/cpu.shares = 614
        cpu/CLUSTER/podu1/log.0/cpu.cfs_period_us = 100000
        cpu/CLUSTER/podu1/log.0/cpu.cfs_quota_us = -1
        cpu/CLUSTER/podu1/log.0/cpu.shares = 102
        cpu/CLUSTER/podu1/web.0/cpu.cfs_period_us = 100000
        cpu/CLUSTER/podu1/web.0/cpu.cfs_quota_us = 150000
        cpu/CLUSTER/podu1/web.0/cpu.shares = 512
        memory/CLUSTER/podu1/web.0/memory.limit_in_bytes = 1073741824
        memory/CLUSTER/podu1/web.0/memory.memsw.limit_in_bytes = 1073741824
        pids/CLUSTER/pids.max = MACHINE
        pids/CLUSTER/podu1/pids.max = 4096"#]]
    .assert_eq(&tree.join("\n").replace(&machines, "MACHINE"));
    assert_eq!(cgroups.found(), (vec!["u1".to_owned()], Vec::new()));
    assert_eq!(cgroups.describe(), "version 1: cpu, cpuacct, memory, pids");
}

#[test]
fn limits_of_version_2_are_written() {
    let machine = Machine::new().two("cpuset cpu memory pids", "/init.scope");
    // The kernel makes these with each group.
    let cgroups = Cgroups {
        hierarchies: machine
            .find()
            .hierarchies
            .into_iter()
            .map(|it| Hierarchy { folder: machine.group("unified/CLUSTER", ""), ..it })
            .collect(),
        ..Cgroups::default()
    };
    assert!(cgroups.spare().unwrap().is_none());
    machine.group("unified/CLUSTER/podu1", "");
    let (pod, web) = (amounts(500, 500, 1 << 20), amounts(0, 500, 1 << 20));
    cgroups.begin(("u1", "web.0"), &pod, &web).unwrap();
    expect![[r#"
        unified/CLUSTER/podu1/cgroup.subtree_control = +cpu +memory +pids
        unified/CLUSTER/podu1/cpu.max = 50000 100000
        unified/CLUSTER/podu1/cpu.weight = 59
        unified/CLUSTER/podu1/memory.max = 1048576
        unified/CLUSTER/podu1/memory.swap.max = 0
        unified/CLUSTER/podu1/pids.max = 4096
        unified/CLUSTER/podu1/web.0/cpu.max = 50000 100000
        unified/CLUSTER/podu1/web.0/cpu.weight = 1
        unified/CLUSTER/podu1/web.0/memory.max = 1048576
        unified/CLUSTER/podu1/web.0/memory.oom.group = 1
        unified/CLUSTER/podu1/web.0/memory.swap.max = 0
    "#]]
    .assert_eq(&machine.tree());
}

#[test]
fn without_groups_nothing_is_done() {
    let machine = Machine::new();
    let cgroups = machine.cgroups();
    let all = amounts(1, 1, 1);
    assert_eq!(cgroups.spare().unwrap(), None);
    assert_eq!(cgroups.begin(("u1", "web.0"), &all, &all).unwrap(), Vec::<PathBuf>::new());
    cgroups.end("u1", "web.0");
    cgroups.remove_pod("u1").unwrap();
    assert_eq!(cgroups.found(), (Vec::new(), Vec::new()));
    assert_eq!(cgroups.lacks(Controller::Memory), Some("there is no `memory` controller"));
    remove_cgroups(&machine.path("run")).unwrap();
}

#[test]
fn limits_that_are_not_enforced_are_told() {
    let told = |machine: &Machine, limits: serde_json::Value| {
        let container = serde_json::json!({ "name": "web", "resources": { "limits": limits } });
        machine.cgroups().unlimited(&serde_json::from_value(container).unwrap())
    };
    let both = serde_json::json!({ "cpu": "1", "memory": "1Mi" });
    let none = Machine::new();
    expect![
        "the cpu and memory limits of container web are not enforced: there is no `cpu` controller"
    ]
    .assert_eq(&told(&none, both.clone()).unwrap());
    expect!["the memory limits of container web are not enforced: there is no `memory` controller"]
        .assert_eq(&told(&none, serde_json::json!({ "memory": "1Mi" })).unwrap());
    assert_eq!(told(&none, serde_json::json!({})), None);
    let request = serde_json::json!({ "name": "web", "resources": { "requests": { "cpu": "1" } } });
    let request = serde_json::from_value(request).unwrap();
    assert_eq!(none.cgroups().unlimited(&request), None);
    assert_eq!(told(&Machine::new().one("memory").one("cpu"), both), None);
}

/// Folders of groups have no files that could be removed; here they are not made in the first place.
#[test]
fn everything_is_found_by_name_and_removed() {
    let machine = Machine::new().one("cpuacct");
    let cgroups = machine.cgroups();
    let none = Amounts::default();
    cgroups.begin(("u1", "web.0"), &none, &none).unwrap();
    cgroups.begin(("u1", "web.1"), &none, &none).unwrap();
    cgroups.begin(("u2", "web.0"), &none, &none).unwrap();
    cgroups.end("u1", "web.0");
    cgroups.end("u1", "web.0");
    let folder = machine.path("cpuacct").join(name(&machine.path("run")));
    assert!(!folder.join("podu1/web.0").exists() && folder.join("podu1/web.1").exists());
    fs::create_dir_all(folder.join("spare-1-0/draft")).unwrap();
    // Whatever the next process is, it finds them.
    let next = machine.cgroups();
    let (pods, spares) = next.found();
    assert_eq!((pods.join(" "), spares.join(" ")), ("u1 u2".to_owned(), "spare-1-0".to_owned()));
    next.remove_pod("u1").unwrap();
    next.remove_pod("u1").unwrap();
    next.remove_spare("spare-1-0").unwrap();
    assert_eq!(next.found(), (vec!["u2".to_owned()], Vec::new()));
    let record = fs::read_to_string(machine.path("run/cgroups")).unwrap();
    assert_eq!(record, format!("{}\n", folder.display()));
    remove_cgroups(&machine.path("run")).unwrap();
    assert!(!folder.exists() && machine.path("cpuacct").exists());
    remove_cgroups(&machine.path("run")).unwrap();
}

#[test]
fn clusters_of_one_name_have_groups_of_their_own() {
    for (run, expected) in [
        ("/run/coracle/default", "coracle-default"),
        ("/run/user/1000/coracle/default", "coracle-default"),
        ("/tmp/one/coracle/default", "coracle-default-c75c60be"),
        ("/tmp/two/coracle/default", "coracle-default-ba151080"),
    ] {
        assert_eq!(name(Path::new(run)), expected, "{run}");
    }
}
