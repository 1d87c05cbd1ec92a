//! Which system calls the processes of a container may make: profiles, as programs that the shim installs.
//!
//! Compiles them without a C library (`compile`), and leaves them in files of the run folder; when they
//! are installed is the shim's business. Programs of another architecture than this binary's, such as 32-bit
//! ones on x86-64, are killed at their first system call under any profile.

mod compile;
mod default;
mod names;
mod oci;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use self::compile::Rules;
use crate::pod::privileges::CAPABILITIES;

/// Longest profile that is read, in bytes: Docker's own has 13 000.
const PROFILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the API calls the profile of container runtimes.
const DEFAULT: &str = "RuntimeDefault";

/// The folder in the run folder that has the programs.
const FOLDER: &str = "seccomp";

/// A seccomp profile, as a pod asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Profile {
    /// None: every call.
    Unconfined,
    /// That of container runtimes.
    RuntimeDefault,
    /// The file with one's own, in the OCI runtime specification's JSON.
    Localhost(PathBuf),
}

/// Why there is no program for a profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the seccomp profile `{}`", path.display())]
    Read {
        /// The profile.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says something that cannot be done.
    #[error("seccomp profile `{}`: {why}", path.display())]
    Profile {
        /// The profile.
        path: PathBuf,
        /// What.
        why: String,
    },
    /// The program cannot be written.
    #[error("cannot write the seccomp program `{}`", path.display())]
    Write {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The programs of a cluster: those that no file can change are compiled once.
#[derive(Debug)]
pub(crate) struct Programs {
    run_dir: PathBuf,
    /// Those of [`Profile::RuntimeDefault`], by capabilities. There are as many as pods think of.
    known: Mutex<BTreeMap<Vec<String>, PathBuf>>,
}

/// Sets of capabilities whose programs are remembered; others are compiled each time.
const KNOWN_MAX: usize = 100;

impl Programs {
    /// None yet. `run_dir` is the cluster's run folder.
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), known: Mutex::default() }
    }

    /// See [`program`].
    pub(crate) fn program(
        &self,
        profile: &Profile,
        capabilities: &[String],
    ) -> Result<Option<PathBuf>, Error> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *profile != Profile::RuntimeDefault {
            return program(&self.run_dir, profile, capabilities);
        }
        if let Some(path) = known().get(capabilities).filter(|it| it.exists()) {
            return Ok(Some(path.clone()));
        }
        let path = program(&self.run_dir, profile, capabilities)?;
        let mut known = known();
        if let Some(path) = path.as_ref().filter(|_| known.len() < KNOWN_MAX) {
            known.insert(capabilities.to_vec(), path.clone());
        }
        Ok(path)
    }
}

/// The file with the program of container runtimes' profile, for a process with the capabilities that
/// containers have unless they ask for others; to be named in [`shim::wire::ProcessSpec::seccomp`].
/// `run_dir` is a folder of one's own, in which the file stays.
///
/// # Errors
/// [`Error::Write`].
pub fn default_program(run_dir: &Path) -> Result<PathBuf, Error> {
    write_program(run_dir, &default::rules(&CAPABILITIES.map(str::to_owned)), Path::new(DEFAULT))
}

/// The file with the program of a profile for a process with these capabilities (names with or without
/// `CAP_`, or `ALL`), to be named in [`shim::wire::ProcessSpec::seccomp`]; `None` if it needs none.
/// `run_dir` is the cluster's run folder. The file stays, for others that ask for the same.
///
/// # Errors
/// See [`Error`].
fn program(
    run_dir: &Path,
    profile: &Profile,
    capabilities: &[String],
) -> Result<Option<PathBuf>, Error> {
    let (rules, shown) = match profile {
        Profile::Unconfined => return Ok(None),
        Profile::RuntimeDefault => (default::rules(capabilities), Path::new(DEFAULT)),
        Profile::Localhost(path) => {
            let read = |source| Error::Read { path: path.clone(), source };
            let text = read_profile(path).map_err(read)?;
            let wrong = |why| Error::Profile { path: path.clone(), why };
            (oci::rules(&text).map_err(wrong)?, path.as_path())
        }
    };
    write_program(run_dir, &rules, shown).map(Some)
}

/// `shown` is what errors call the rules.
fn write_program(run_dir: &Path, rules: &Rules, shown: &Path) -> Result<PathBuf, Error> {
    let program = compile::compile(rules).ok_or_else(|| Error::Profile {
        path: shown.to_owned(),
        why: "it has more rules than the kernel takes".to_owned(),
    })?;
    let folder = run_dir.join(FOLDER);
    let path = folder.join(format!("{:016x}.bpf", digest(&program)));
    write(&folder, &path, &program)
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    Ok(path)
}

fn read_profile(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if PROFILE_BYTES_MAX < length {
        return Err(io::Error::other(format!("it has {length} bytes")));
    }
    fs::read_to_string(path)
}

/// What names a program: FNV-1a, in 64 bits. Two programs of one name would be written over each other,
/// which is why what is there is compared as well.
fn digest(program: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    program.iter().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// Writes a program, unless it is there.
fn write(folder: &Path, path: &Path, program: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|it| it == program) {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // A name of its own, as others may write the same at this moment.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let beside = folder.join(format!(".{}-{write}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    io::Write::write_all(&mut file, program)?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_kept_by_what_they_do() {
        let dir = tempfile::tempdir().unwrap();
        let names = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let program = |profile: &Profile, capabilities: &[&str]| {
            program(dir.path(), profile, &names(capabilities)).unwrap()
        };
        let plain = program(&Profile::RuntimeDefault, &["CHOWN"]).unwrap();
        assert_eq!(program(&Profile::RuntimeDefault, &["KILL"]), Some(plain.clone()));
        assert_ne!(program(&Profile::RuntimeDefault, &["SYS_CHROOT"]), Some(plain.clone()));
        assert_eq!(program(&Profile::Unconfined, &[]), None);
        assert_eq!(fs::read(plain).unwrap().len() % 8, 0);
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 2);
    }

    #[test]
    fn profiles_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profile.json");
        let profile = Profile::Localhost(path.clone());
        let program = || program(dir.path(), &profile, &[]);
        assert!(matches!(program(), Err(Error::Read { .. })));
        fs::write(&path, "{").unwrap();
        assert!(matches!(program(), Err(Error::Profile { .. })));
        fs::write(&path, r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        assert!(program().unwrap().is_some());
    }
}
