//! One cluster of a test: its own folders, its own name, gone when dropped.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::within;

/// Longest wait for anything a test expects to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Time between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The image that the tests' pods name, linked to this program.
pub(crate) const IMAGE: &str = "test/probe";

pub(crate) struct Cluster {
    pub(crate) name: String,
    folder: tempfile::TempDir,
    /// In which control group it is started, and as which user, if not as this process is.
    within: Option<(String, String)>,
}

impl Cluster {
    /// Folders for a cluster; nothing runs yet. The process id keeps runs apart.
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("coracle-test-").tempdir()?;
        for name in ["data", "run", "work"] {
            fs::create_dir(folder.path().join(name))?;
        }
        Ok(Self { name: format!("{name}-{}", std::process::id()), folder, within: None })
    }

    /// Has it started in a control group by another user, who gets its folders.
    pub(crate) fn within(mut self, group: &Path, user: u32) -> anyhow::Result<Self> {
        for folder in ["", "data", "run", "work"] {
            chown(self.folder.path().join(folder), Some(user), Some(user))?;
        }
        self.within = Some((group.display().to_string(), user.to_string()));
        Ok(self)
    }

    /// A cluster that runs the manifests in `text`, with this program linked as [`IMAGE`].
    pub(crate) fn running(name: &str, text: &str) -> anyhow::Result<Self> {
        let cluster = Self::new(name)?;
        cluster.write("app.yaml", text)?;
        cluster.up()?;
        Ok(cluster)
    }

    /// `coracle up -d` of the work folder.
    pub(crate) fn up(&self) -> anyhow::Result<String> {
        let program = std::env::current_exe()?;
        self.write(
            "coracle.yaml",
            &format!("links:\n  probe: {{image: {IMAGE}, run: [{}, probe]}}\n", program.display()),
        )?;
        let work = self.work();
        self.coracle(&["up", "--detach", &work.display().to_string()])
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("data/coracle").join(&self.name)
    }

    pub(crate) fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run/coracle").join(&self.name)
    }

    /// Where containers find commands.
    pub(crate) fn commands(&self) -> PathBuf {
        self.folder.path().join("run/coracle").join(format!(".{}", self.name))
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        Ok(fs::write(self.work().join(name), text)?)
    }

    /// A `coracle` command on this cluster, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let program = program("CORACLE")?;
        let mut command = match &self.within {
            None => Command::new(program),
            Some((group, user)) => {
                // What only talks with the cluster is somewhere else.
                let group = if arguments.first() == Some(&"up") { group } else { within::ANY };
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["within", group, user]).arg(program);
                command.env("HOME", self.folder.path());
                command
            }
        };
        command.args(arguments).args(["--name", &self.name]);
        command.env("XDG_DATA_HOME", self.data());
        command.env("XDG_RUNTIME_DIR", self.folder.path().join("run"));
        command.env_remove("KUBECONFIG").stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `coracle`, which must succeed, and returns what it printed on both outputs.
    pub(crate) fn coracle(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments)?.output()?;
        succeeded(&format!("coracle {}", arguments.join(" ")), &output)
    }

    /// Runs `coracle`, which must fail, and returns what it printed.
    pub(crate) fn refused(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments)?.output()?;
        if output.status.success() {
            bail!("coracle {} did not fail: {}", arguments.join(" "), said(&output));
        }
        Ok(said(&output))
    }

    /// Runs kubectl, which must succeed.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.kubectl_command(arguments)?.output()?;
        succeeded(&format!("kubectl {}", arguments.join(" ")), &output)
    }

    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(program("KUBECTL")?);
        command.arg("--kubeconfig").arg(self.state().join("kubeconfig"));
        command.arg("--cache-dir").arg(self.folder.path().join("cache"));
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// `kubectl apply -f -`.
    pub(crate) fn apply(&self, text: &str) -> anyhow::Result<String> {
        let mut command = self.kubectl_command(&["apply", "-f", "-"])?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("standard input")?.write_all(text.as_bytes())?;
        succeeded("kubectl apply", &child.wait_with_output()?)
    }

    /// `coracle status -o json`.
    pub(crate) fn status(&self) -> anyhow::Result<Value> {
        let output = self.command(&["status", "--output", "json"])?.output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The process id of the cluster process.
    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        let status = self.status()?;
        let pid = status.get("pid").and_then(Value::as_i64).context("no cluster process")?;
        Ok(i32::try_from(pid)?)
    }

    /// The log of a deployment's or pod's containers.
    pub(crate) fn logs(&self, object: &str) -> anyhow::Result<String> {
        self.kubectl(&["logs", "--tail=-1", object])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match self.command(&["down", "--delete"]).map(|mut it| it.output()) {
            Ok(Ok(output)) if output.status.success() => {}
            Ok(Ok(output)) => println!("down --delete of {}: {}", self.name, said(&output)),
            Ok(Err(error)) => println!("down --delete of {}: {error}", self.name),
            Err(error) => println!("down --delete of {}: {error}", self.name),
        }
    }
}

/// Waits for a level that nobody announces.
pub(crate) fn eventually(
    what: &str,
    reached: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    wait(what, LOOK_AGAIN, reached)
}

/// The same for tests that must be there within microseconds.
pub(crate) fn at_once(
    what: &str,
    reached: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    wait(what, Duration::ZERO, reached)
}

fn wait(
    what: &str,
    look_again: Duration,
    mut reached: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "a test of the real machine in real time")]
    let start = Instant::now();
    loop {
        let error = match reached() {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() > PATIENCE {
            let error = error.unwrap_or_else(|| anyhow::anyhow!("it is not so"));
            return Err(error.context(format!("waited {PATIENCE:?} until {what}")));
        }
        std::thread::park_timeout(look_again);
    }
}

/// What a finished command printed.
pub(crate) fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

fn succeeded(what: &str, output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{what}: {}\n{}", output.status, said(output));
    }
    Ok(said(output))
}

/// The program that an environment variable names.
pub(crate) fn program(variable: &str) -> anyhow::Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "how the programs under test are handed over")]
    let path = std::env::var(variable);
    let path =
        path.with_context(|| format!("set {variable}, or run `cargo xtask test machine`"))?;
    Ok(Path::new(&path).to_owned())
}

/// The folder of the example's programs, built by whoever runs the tests.
pub(crate) fn example_programs() -> anyhow::Result<PathBuf> {
    program("SENSORS")
}

/// The folder with systems of Debian, one for each program that images are made for.
pub(crate) fn debian_systems() -> anyhow::Result<PathBuf> {
    program("SYSTEMS")
}

/// The folder with the examples, each with programs that need no library.
pub(crate) fn examples() -> anyhow::Result<PathBuf> {
    program("EXAMPLES")
}
