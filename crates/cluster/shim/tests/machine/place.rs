//! Where a scenario takes place: folders, a cluster's namespaces, pods.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use coracle_shim::{
    Client, Error, Nursery, NurseryCommand, Process,
    wire::{
        ContainerSpec, ExecSpec, Exit, IdMap, Mount, PodSpec, ProcessSpec, Source, SpareSpec,
        StartError,
    },
};
use keeper::Namespaces;

/// The folders of a cluster.
pub(crate) struct Place {
    pub(crate) executable: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) state_dir: PathBuf,
}

/// A pod with its shim.
pub(crate) struct Pod {
    pub(crate) dir: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) shim: Shim,
}

/// A shim that this process asked for.
pub(crate) struct Shim {
    pub(crate) client: Client,
    pub(crate) process: Process,
}

impl Place {
    pub(crate) fn new(dir: &Path) -> Self {
        let (run_dir, state_dir) = (dir.join("run"), dir.join("state"));
        Self {
            executable: std::env::current_exe().unwrap(),
            dir: dir.to_owned(),
            run_dir,
            state_dir,
        }
    }

    /// The keeper, started if there is none.
    pub(crate) fn keeper(&self) -> keeper::Client {
        let Self { executable, run_dir, .. } = self;
        keeper::Client::connect(run_dir).unwrap_or_else(|_| {
            let adopt = coracle_shim::live(run_dir).unwrap().first().map(|it| keeper::Process {
                pid: it.pid,
                start_time: it.start_time,
                cluster_net: it.cluster_net,
            });
            keeper::spawn(&keeper::Spawn { executable, name: "test", run_dir, log: None, adopt })
                .unwrap()
        })
    }

    /// Goes into the cluster's namespaces.
    pub(crate) fn enter(&self) -> Namespaces {
        let namespaces = self.keeper().namespaces().unwrap();
        keeper::enter(&namespaces).unwrap();
        namespaces
    }

    pub(crate) fn pod_dir(&self) -> PathBuf {
        self.run_dir.join("pods/11111111-2222-3333-4444-555555555555")
    }

    pub(crate) fn nursery(&self) -> Nursery {
        Nursery::start(&self.executable, &self.run_dir).unwrap()
    }

    /// A shim that has no pod yet.
    pub(crate) fn spare(&self, nursery: &Nursery) -> Shim {
        self.spare_in(nursery, Vec::new())
    }

    /// The same, whose first container begins in these control groups.
    pub(crate) fn spare_in(&self, nursery: &Nursery, cgroups: Vec<PathBuf>) -> Shim {
        Shim::spare(nursery, &self.spare_spec(cgroups)).unwrap()
    }

    fn spare_spec(&self, cgroups: Vec<PathBuf>) -> SpareSpec {
        let masked = vec![self.state_dir.clone(), self.run_dir.clone()];
        SpareSpec { masked, place: self.run_dir.clone(), cgroups, host_ipc: false, users: None }
    }

    pub(crate) fn pod_spec(&self) -> PodSpec {
        let (name, hostname) = ("default/web-1".to_owned(), "web-1".to_owned());
        PodSpec { name, dir: self.pod_dir(), hostname, sysctls: Vec::new() }
    }

    /// Starts a pod; the caller is inside.
    pub(crate) fn pod(&self) -> Pod {
        let nursery = self.nursery();
        let shim = self.spare(&nursery);
        nursery.end().unwrap();
        self.give(shim)
    }

    /// Starts a pod with users of its own; the caller is inside.
    pub(crate) fn pod_with_users(&self, users: IdMap) -> Result<Pod, Error> {
        let nursery = self.nursery();
        let spec = SpareSpec { users: Some(users), ..self.spare_spec(Vec::new()) };
        let shim = Shim::spare(&nursery, &spec);
        nursery.end().unwrap();
        Ok(self.give(shim?))
    }

    /// Starts a pod on the host's network; the caller is inside.
    pub(crate) fn pod_on_host(&self) -> Pod {
        let mut keeper = self.keeper();
        let program = fs::File::open(&self.executable).unwrap();
        let start = |command: NurseryCommand| {
            let NurseryCommand { arguments, stdin, stderr } = command;
            let arguments = arguments.into_iter().map(|it| it.into_string().unwrap()).collect();
            keeper
                .spawn(arguments, program.as_fd(), stdin.as_fd(), stderr.as_fd())
                .map_err(std::io::Error::other)
        };
        let nursery = Nursery::start_on_host(&self.run_dir, start).unwrap();
        let shim = self.spare(&nursery);
        nursery.end().unwrap();
        self.give(shim)
    }

    /// Makes a shim that has no pod the pod's.
    pub(crate) fn give(&self, mut shim: Shim) -> Pod {
        let dir = self.pod_dir();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).unwrap();
        shim.client.pod(self.pod_spec()).unwrap();
        Pod { dir, state_dir: self.state_dir.clone(), shim }
    }

    /// Goes inside and starts a pod.
    pub(crate) fn cluster_with_pod(&self) -> Pod {
        self.enter();
        self.pod()
    }

    /// Ends what runs.
    pub(crate) fn clean(&self) {
        for shim in coracle_shim::live(&self.run_dir).unwrap() {
            let pid = rustix::process::Pid::from_raw(shim.pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        coracle_shim::leftovers(&self.pod_dir()).ok();
        if let Ok(client) = keeper::Client::connect(&self.run_dir) {
            client.exit().unwrap();
        }
    }
}

impl Shim {
    fn spare(nursery: &Nursery, spec: &SpareSpec) -> Result<Self, Error> {
        let mut client = Client::from_socket(nursery.spare(spec, None)?);
        let (pid, _netns) = client.ready()?;
        Ok(Self { client, process: Process::open(pid)? })
    }
}

impl Pod {
    pub(crate) fn container(&self, id: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.to_owned(),
            shm_bytes: 1024 * 1024,
            log: self.log_path(id),
            ..ContainerSpec::default()
        }
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.state_dir.join("logs").join(id).join("0.log")
    }

    /// Creates and starts a container.
    pub(crate) fn start(
        &mut self,
        spec: ContainerSpec,
        process: ProcessSpec,
    ) -> Result<u32, StartError> {
        let id = spec.id.clone();
        let client = &mut self.shim.client;
        let started = client.create(spec).and_then(|_| client.start(&id, process));
        started.map(|it| it.pid).map_err(start_error)
    }

    /// Runs a script to its end; returns exit and log.
    pub(crate) fn run(&mut self, spec: ContainerSpec, script: &str) -> (Exit, String) {
        let id = spec.id.clone();
        self.start(spec, sh(script)).unwrap();
        (self.await_exit(&id), self.log(&id))
    }

    /// Runs a script to its end in a plain container; returns the log.
    pub(crate) fn output(&mut self, script: &str) -> String {
        let (exit, log) = self.run(self.container("web.0"), script);
        assert_eq!(exit.code, 0, "{log}");
        log
    }

    pub(crate) fn await_exit(&self, id: &str) -> Exit {
        let mut client = Client::connect(&self.dir).unwrap();
        client.subscribe().unwrap();
        loop {
            let exit = client.exited().unwrap();
            if exit.id == id {
                return exit;
            }
        }
    }

    /// The log without its times.
    pub(crate) fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap();
        let lines = text.lines().map(|it| it.split_once(' ').unwrap().1.to_owned() + "\n");
        lines.collect()
    }

    pub(crate) fn exec(&mut self, id: &str, script: &str) -> coracle_shim::wire::Finished {
        let exec =
            ExecSpec { id: id.to_owned(), process: sh(script), output_max: None, timeout_ms: None };
        self.shim.client.exec_captured(exec, 4096).unwrap()
    }
}

pub(crate) fn start_error(error: Error) -> StartError {
    match error {
        Error::Start(error) => error,
        other => panic!("{other:?}"),
    }
}

/// A process that runs a shell script.
pub(crate) fn sh(script: &str) -> ProcessSpec {
    process(&["/bin/sh", "-c", script])
}

pub(crate) fn process(argv: &[&str]) -> ProcessSpec {
    let argv = argv.iter().map(|it| (*it).to_owned()).collect();
    let env = vec!["PATH=/usr/bin:/bin".to_owned(), "NAME=web".to_owned()];
    ProcessSpec { argv, env, ..ProcessSpec::default() }
}

pub(crate) fn bind(path: &Path, target: &str) -> Mount {
    Mount {
        source: Source::Bind { path: path.to_owned() },
        target: target.into(),
        read_only: false,
    }
}
