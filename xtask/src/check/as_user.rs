//! Running test programs as a user without privileges, from a folder which that user can read:
//! the work tree often lies in a home folder that is closed to others.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process::{self, Executable};

/// Whom the tests run as: Debian's `nobody`. No entry in /etc/passwd is needed.
const UID: u32 = 65534;
const GID: u32 = 65534;

/// Whether this program runs as root.
pub(crate) fn is_root() -> anyhow::Result<bool> {
    Ok(process::read(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Copies of what the user needs, and a home folder. Deleted when dropped.
pub(crate) struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    pub(crate) fn new(programs: &[PathBuf], tests: &[Executable]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("create a folder for the other user")?;
        let stage = Self { directory };
        set_mode(stage.path(), 0o755)?;
        for program in programs.iter().chain(tests.iter().map(|it| &it.path)) {
            let copy = stage.copy_of(program)?;
            fs::copy(program, &copy).with_context(|| format!("copy {}", program.display()))?;
            set_mode(&copy, 0o755)?;
        }
        for name in ["home", "run"] {
            let folder = stage.path().join(name);
            fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
            set_mode(&folder, 0o700)?;
            chown(&folder, Some(UID), Some(GID))
                .with_context(|| format!("give {} away", folder.display()))?;
        }
        Ok(stage)
    }

    /// The command that runs `test` as the user, with an environment made for it.
    pub(crate) fn command(&self, test: &Executable) -> anyhow::Result<Command> {
        let home = self.path().join("home");
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={UID}")).arg(format!("--regid={GID}"));
        command.args(["--clear-groups", "--"]).arg(self.copy_of(&test.path)?).arg("--quiet");
        command.env_clear().current_dir(&home).env("HOME", &home);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("XDG_RUNTIME_DIR", self.path().join("run"));
        for (variable, program) in [("CORACLE", "coracle"), ("KUBECTL", "kubectl")] {
            command.env(variable, self.path().join(program));
        }
        Ok(command)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn copy_of(&self, program: &Path) -> anyhow::Result<PathBuf> {
        let name = program.file_name().with_context(|| format!("{}", program.display()))?;
        Ok(self.path().join(name))
    }
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}
