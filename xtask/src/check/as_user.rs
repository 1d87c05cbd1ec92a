//! Running test programs as a user without privileges, from a folder which that user can read:
//! the work tree often lies in a home folder that is closed to others.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process;

/// Whom the tests run as: Debian's `nobody`. No entry in /etc/passwd is needed.
const UID: u32 = 65534;
const GID: u32 = 65534;

/// The subordinate ids of that user, where it has some: the first, and how many. As Debian's `useradd`
/// gives them.
const RANGE: (u32, u32) = (100_000, 65_536);

/// Whether this program runs as root.
pub(crate) fn is_root() -> anyhow::Result<bool> {
    Ok(process::read(Command::new("id").arg("-u"))?.trim() == "0")
}

/// A folder with copies of what the user needs, and a home folder. Deleted when dropped.
pub(crate) struct Stage {
    directory: tempfile::TempDir,
    test: PathBuf,
    /// The programs under test, by the variables that name them.
    programs: Vec<(&'static str, PathBuf)>,
}

impl Stage {
    /// With the program of the tests, and the programs under test by the variables that name them.
    pub(crate) fn new(test: &Path, programs: &[(&'static str, PathBuf)]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("create a folder for the other user")?;
        let mut stage = Self { directory, test: PathBuf::new(), programs: Vec::new() };
        set_mode(stage.path(), 0o755)?;
        for name in ["home", "run"] {
            let folder = stage.path().join(name);
            fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
            set_mode(&folder, 0o700)?;
            chown(&folder, Some(UID), Some(GID))
                .with_context(|| format!("give {} away", folder.display()))?;
        }
        stage.test = copy(test, stage.path())?;
        for (variable, program) in programs {
            let copied = copy(program, stage.path())?;
            stage.programs.push((*variable, copied));
        }
        Ok(stage)
    }

    /// A copy of the folder `source` and all that is in it.
    pub(crate) fn folder(&self, source: &Path) -> anyhow::Result<PathBuf> {
        let name = source.file_name().with_context(|| format!("{}", source.display()))?;
        let copy = self.path().join(name);
        process::run(Command::new("cp").arg("-r").arg(source).arg(&copy))?;
        process::run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy))?;
        Ok(copy)
    }

    /// A folder with the manifests of `example` and its programs.
    pub(crate) fn example(&self, example: &Path) -> anyhow::Result<PathBuf> {
        let name = example.file_name().context("name of the example")?;
        let folder = self.path().join(name);
        fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))?;
        set_mode(&folder, 0o755)?;
        for source in [example.to_owned(), example.join("target/bin")] {
            let entries = fs::read_dir(&source);
            for entry in entries.with_context(|| format!("list {}", source.display()))? {
                let path = entry.with_context(|| format!("list {}", source.display()))?.path();
                if path.is_file() {
                    copy(&path, &folder)?;
                }
            }
        }
        Ok(folder)
    }

    /// A folder with folders of all `examples`: what images are built of and run by.
    pub(crate) fn images(
        &self,
        examples: impl IntoIterator<Item = PathBuf>,
    ) -> anyhow::Result<PathBuf> {
        let images = self.path().join("images");
        for example in examples {
            let folder = images.join(example.file_name().context("name of the example")?);
            for part in ["", "target/static/bin"] {
                let (from, to) = (example.join(part), folder.join(part));
                fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
                let entries = fs::read_dir(&from);
                for entry in entries.with_context(|| format!("list {}", from.display()))? {
                    let path = entry.with_context(|| format!("list {}", from.display()))?.path();
                    if path.is_file() {
                        copy(&path, &to)?;
                    }
                }
            }
        }
        process::run(Command::new("chmod").args(["-R", "a+rX"]).arg(&images))?;
        Ok(images)
    }

    /// The command that runs the tests as the user, with an environment made for it.
    pub(crate) fn command(&self) -> Command {
        self.given(Command::new("setpriv"))
    }

    /// The same where the user has subordinate ids, [`RANGE`]: in a mount namespace whose `/etc/subuid` and
    /// `/etc/subgid` say so.
    pub(crate) fn command_with_range(&self) -> anyhow::Result<Command> {
        let file = self.path().join("range");
        let text = format!("{UID}:{}:{}\n", RANGE.0, RANGE.1);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let script = r#"for table in /etc/subuid /etc/subgid; do mount --bind "$1" $table || exit; done
            shift; exec setpriv "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, "sh"]).arg(file);
        let mut command = self.given(command);
        command.env("RANGE", format!("{} {}", RANGE.0, RANGE.1));
        Ok(command)
    }

    /// Completes a command whose further arguments are those of `setpriv`.
    fn given(&self, mut command: Command) -> Command {
        let home = self.path().join("home");
        command.arg(format!("--reuid={UID}")).arg(format!("--regid={GID}"));
        command.args(["--clear-groups", "--"]).arg(&self.test).arg("--quiet");
        command.env_clear().current_dir(&home).env("HOME", &home);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("XDG_RUNTIME_DIR", self.path().join("run"));
        command.envs(self.programs.iter().map(|(variable, program)| (variable, program)));
        command
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Copies the file `source` into `folder`, readable and executable by all.
fn copy(source: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let name = source.file_name().with_context(|| format!("{}", source.display()))?;
    let copy = folder.join(name);
    fs::copy(source, &copy).with_context(|| format!("copy {}", source.display()))?;
    set_mode(&copy, 0o755)?;
    Ok(copy)
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))
}
