//! Debian's kernel for virtual machines, with its modules: unpacked, not installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::process;

/// The package that depends on the newest one. Whichever that is, the tests hold with it.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// What a virtual machine boots.
    pub(crate) image: PathBuf,
    /// The folder of its modules; its name is the kernel's release.
    pub(crate) modules: PathBuf,
}

/// Gets it, if it is not there.
pub(crate) fn kernel(root: &Path) -> anyhow::Result<Kernel> {
    let folder = root.join("target/tools/kernel");
    if !folder.exists() {
        download(&folder)?;
    }
    let modules = ["lib/modules", "usr/lib/modules"].map(|it| folder.join(it));
    let modules = modules.iter().find_map(|it| only_entry(it).ok());
    Ok(Kernel {
        image: find_image(&folder)?,
        modules: modules.with_context(|| format!("no modules in {}", folder.display()))?,
    })
}

fn download(folder: &Path) -> anyhow::Result<()> {
    let beside = folder.with_extension("part");
    drop(fs::remove_dir_all(&beside));
    fs::create_dir_all(&beside).with_context(|| format!("create {}", beside.display()))?;
    let depends = process::read(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let name = depends.lines().find_map(|it| it.trim().strip_prefix("Depends: linux-image-"));
    let name = format!("linux-image-{}", name.with_context(|| format!("{PACKAGE}: {depends}"))?);
    println!("apt-get download {name}");
    let mut command = Command::new("apt-get");
    process::run(command.current_dir(&beside).args(["--quiet=2", "download", &name]))?;
    let package = only_entry(&beside)?;
    process::run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&beside))?;
    fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))?;
    fs::rename(&beside, folder).with_context(|| format!("make {}", folder.display()))
}

fn only_entry(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry?.path()),
        _ => bail!("not one entry in {}", folder.display()),
    }
}

fn find_image(folder: &Path) -> anyhow::Result<PathBuf> {
    let boot = folder.join("boot");
    for entry in fs::read_dir(&boot).with_context(|| format!("list {}", boot.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz") {
            return Ok(entry.path());
        }
    }
    bail!("no kernel in {}", boot.display())
}
