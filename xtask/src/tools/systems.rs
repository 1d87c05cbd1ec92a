//! Programs of Debian for images: each in a folder that is a whole system with all that it needs, so that
//! nothing in it is of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::libraries;
use crate::{check::as_user, process};

/// A folder and the packages whose programs it is for.
struct System {
    name: &'static str,
    packages: &'static [&'static str],
}

/// Those without a shell in them are images without one.
const SYSTEMS: [System; 5] = [
    System { name: "busybox", packages: &["busybox-static"] },
    System { name: "nginx", packages: &["nginx"] },
    System { name: "postgresql", packages: &["postgresql", "dash"] },
    System { name: "python", packages: &["python3"] },
    System { name: "tools", packages: &["bind9-dnsutils", "curl", "wrk", "iputils-ping", "dash"] },
];

/// How the names of packages begin that are large, and of use only while packages are set up on a machine,
/// or to compile queries.
const UNUSED: [&str; 7] =
    ["perl", "libperl", "locales", "libc-l10n", "libllvm", "libz3", "iproute2"];

/// How the paths of files and folders end that nothing needs which is run here, or that need what is left
/// out.
const UNREAD: [&str; 5] =
    ["share/doc", "share/man", "share/locale", "lib/bitcode", "lib/llvmjit.so"];

/// The file of a system's folder that says what it is made of.
const CONTENTS: &str = "packages";

/// The folder with one folder for each program. What is there stays as it is: the packages are those of the
/// day of their download, which apt has checked.
pub(crate) fn systems(root: &Path) -> anyhow::Result<PathBuf> {
    let systems = libraries::folder(root)?.join("systems");
    fs::create_dir_all(&systems).with_context(|| format!("create {}", systems.display()))?;
    for System { name, packages } in &SYSTEMS {
        let folder = systems.join(name);
        let wanted = format!("{}\n", packages.join(" "));
        let contents = fs::read_to_string(folder.join(CONTENTS)).unwrap_or_default();
        if !contents.starts_with(&wanted) {
            println!("unpacking {} of Debian", packages.join(" "));
            make(&systems, &folder, &wanted, packages)
                .with_context(|| format!("make the system of {name}"))?;
        }
    }
    Ok(systems)
}

fn make(systems: &Path, folder: &Path, wanted: &str, packages: &[&str]) -> anyhow::Result<()> {
    let work = tempfile::tempdir_in(systems).context("create a folder in target/tools")?;
    let (downloads, unpacked) = (work.path().join("downloads"), work.path().join("unpacked"));
    for it in [&downloads, &unpacked] {
        fs::create_dir(it).with_context(|| format!("create {}", it.display()))?;
    }
    let found = match needed(work.path(), packages) {
        // A machine that has never looked for packages knows none.
        Err(_) if as_user::is_root()? => {
            process::run(Command::new("apt-get").args(["--quiet=2", "update"]))?;
            needed(work.path(), packages)?
        }
        other => other.context("on Debian, as root: apt-get update")?,
    };
    let mut download = Command::new("apt-get");
    // Without a user of its own, who could not write into this folder.
    download.args(["--quiet=2", "--option=APT::Sandbox::User=root", "download"]);
    process::run(download.current_dir(&downloads).args(&found))?;
    for entry in fs::read_dir(&downloads).context("list the packages")? {
        let package = entry.context("list the packages")?.path();
        process::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
    }
    let mut walk = walkdir::WalkDir::new(&unpacked).into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.context("look into the packages")?;
        if !UNREAD.iter().any(|it| entry.path().ends_with(it)) {
            continue;
        }
        if entry.file_type().is_dir() {
            walk.skip_current_dir();
            remove(entry.path())?;
        } else {
            fs::remove_file(entry.path())
                .with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    fs::write(unpacked.join(CONTENTS), format!("{wanted}{}\n", found.join("\n")))
        .context("write down what is there")?;
    remove(folder)?;
    // Only what is whole gets its name.
    fs::rename(&unpacked, folder).with_context(|| format!("create {}", folder.display()))
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// What would be installed into a machine that has nothing, each as `NAME=VERSION`.
fn needed(work: &Path, packages: &[&str]) -> anyhow::Result<Vec<String>> {
    let nothing = work.join("status");
    fs::write(&nothing, "").context("write an empty list of packages")?;
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet=2", "--simulate", "--no-install-recommends"]);
    apt.arg(format!("--option=Dir::State::status={}", nothing.display()));
    let said = process::read(apt.arg("install").args(packages))?;
    let found: Vec<String> = said.lines().filter_map(package).collect();
    if found.is_empty() {
        bail!("apt-get names no package");
    }
    Ok(found)
}

/// The package of a line such as `Inst dash (0.5.12-2 Debian:12.0/oldstable [amd64])`.
fn package(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
    let version = rest.split(' ').next()?;
    let is_unused = UNUSED.iter().any(|it| name.starts_with(it));
    (!is_unused).then(|| format!("{name}={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_what_apt_says() {
        let line = "Inst dash (0.5.12-2 Debian:12.0/oldstable [amd64])";
        assert_eq!(package(line).as_deref(), Some("dash=0.5.12-2"));
        assert_eq!(package("Conf dash (0.5.12-2 Debian:12.0/oldstable [amd64])"), None);
        assert_eq!(package("Inst libllvm14 (1:14.0.6-12 Debian [amd64])"), None);
    }
}
