//! A cluster for one script: a name of its own, a home folder of its own, the fixtures in its working
//! folder; gone afterwards. The script itself starts it.

use std::{
    env, fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

/// Longest a command may take: a start, a roll-out, or the tests of a library, on a machine that does
/// other things as well.
const COMMAND_SECONDS_MAX: &str = "300";

/// What scripts may use besides commands: `await FILE TEXT` waits until a file holds a line that
/// matches, `fetch URL` prints what is there, once something is.
const PRELUDE: &str = r#"
await() {
    for _ in $(seq 600); do
        grep -q -e "$2" "$1" 2>/dev/null && return 0
        sleep 0.1
    done
    echo "never seen in $1: $2"
    cat "$1"
    return 1
}
fetch() {
    python3 - "$1" <<'EOF'
import sys, time, urllib.request
for attempt in range(300):
    try:
        print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode().strip())
        sys.exit(0)
    except OSError as it:
        error = it
        time.sleep(0.1)
sys.exit(f"{sys.argv[1]}: {error}")
EOF
}
"#;

/// The cluster of one script.
#[derive(Debug)]
pub(crate) struct Cluster {
    name: String,
    home: tempfile::TempDir,
}

impl Cluster {
    /// Prepares for the script `script`.
    pub(crate) fn new(script: &str) -> anyhow::Result<Self> {
        let home = tempfile::tempdir().context("make a home folder")?;
        let cluster =
            Self { name: format!("{}-{}", script.replace('_', "-"), std::process::id()), home };
        for folder in ["bin", "run", "work"] {
            fs::create_dir(cluster.directory().join(folder)).context("make a folder")?;
        }
        symlink(program("KUBECTL")?, cluster.directory().join("bin/kubectl")).context("kubectl")?;
        // What a user types is `coracle`; that it means this cluster is not part of the script.
        let script = format!(
            "#!/bin/sh\nexec '{}' --name '{}' \"$@\"\n",
            program("CORACLE")?.display(),
            cluster.name
        );
        let coracle = cluster.directory().join("bin/coracle");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(&coracle)
            .context("make bin/coracle")?;
        file.write_all(script.as_bytes()).context("write bin/coracle")?;
        cluster.copy_fixtures()?;
        Ok(cluster)
    }

    fn copy_fixtures(&self) -> anyhow::Result<()> {
        let status = Command::new("cp")
            .arg("-r")
            .arg(crate::folder("fixtures").join("."))
            .arg(self.directory().join("work"))
            .status()
            .context("copy the fixtures")?;
        if !status.success() {
            bail!("copy the fixtures: {status}");
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn directory(&self) -> &Path {
        self.home.path()
    }

    /// Types `command` into a shell and returns all that is seen.
    pub(crate) fn shell(&self, command: &str) -> anyhow::Result<String> {
        let Output { status, stdout, .. } = self
            .command(&format!("exec 2>&1\n{PRELUDE}\n{command}"))
            .output()
            .with_context(|| format!("start `{command}`"))?;
        let mut seen = String::from_utf8_lossy(&stdout).into_owned();
        if !status.success() {
            if !seen.is_empty() && !seen.ends_with('\n') {
                seen.push('\n');
            }
            match status.code() {
                Some(code) => seen.push_str(&format!("[exit {code}]")),
                None => seen.push_str(&format!("[{status}]")),
            }
        }
        Ok(seen)
    }

    fn command(&self, script: &str) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders = vec![self.directory().join("bin")];
        folders.extend(env::split_paths(&path));
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_SECONDS_MAX, "sh", "-c", script]);
        command.current_dir(self.directory().join("work")).stdin(Stdio::null());
        command.env("PATH", env::join_paths(folders).unwrap_or(path));
        // Rust's own tools keep their things in the real home folder.
        if let Some(home) = env::home_dir() {
            for (variable, folder) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
                if env::var_os(variable).is_none() && home.join(folder).exists() {
                    command.env(variable, home.join(folder));
                }
            }
        }
        command.env("HOME", self.directory());
        command.env("XDG_DATA_HOME", self.directory().join("data"));
        command.env("XDG_RUNTIME_DIR", self.directory().join("run"));
        command.env("KUBECONFIG", self.directory().join("kubeconfig"));
        // Programs that scripts run are where the scripts are.
        command.env("CLIENTS", crate::folder("api/clients"));
        // For a second cluster beside this one, whose name begins so.
        command.env("CLUSTER", &self.name);
        command.env("EXAMPLES", crate::folder("../../examples"));
        command.env("TZ", "UTC").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
        command
    }

    /// Removes the cluster, if it is there.
    pub(crate) fn delete(&self) -> anyhow::Result<()> {
        let seen = self.shell("coracle down --delete >/dev/null")?;
        if seen.contains("[exit") {
            bail!("coracle down --delete: {seen}");
        }
        Ok(())
    }

    /// The end of the cluster's own logs, for the report of a failure.
    pub(crate) fn log(&self) -> String {
        let tail = format!(
            "for log in $XDG_DATA_HOME/coracle/{}/*.log; do echo $log; tail -n 30 $log; done",
            self.name
        );
        self.shell(&tail).unwrap_or_else(|error| format!("no log: {error:#}"))
    }
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "shown with the test's own output")]
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("{error:#}");
        }
    }
}

/// The program that an environment variable names.
fn program(variable: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os(variable);
    path.map(PathBuf::from).with_context(|| {
        format!("{variable} names no program: run `cargo xtask test clients`, which sets it")
    })
}
