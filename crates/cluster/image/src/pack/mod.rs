//! Images out of files of this machine, with the shared libraries and interpreters that they need:
//! `coracle image pack`.
//!
//! Nothing is executed to find these. What a program opens by itself while it runs (plugins, data,
//! locales) nobody can know: it is added by hand.

mod closure;
mod elf;
mod place;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use crate::{
    Config, Descriptor, ImageConfig, Platform, Store,
    assemble::{self, Item, Plan, date},
    spec::{Empty, History},
    store::Lease,
    tarball::Time,
};

use place::{planned, relative};

/// Most files of one image: far more than a program with its libraries has.
const FILES_MAX: usize = 1_000_000;

/// Where a program goes, below the root.
const PROGRAMS: &str = "bin";

/// Where what is run is looked for when the image has no `PATH`, as by whoever runs it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// What to pack, and how the image runs.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is run. Empty: the program that is packed; nothing for a folder.
    pub entrypoint: Vec<String>,
    /// Its arguments.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Where it begins.
    pub workdir: String,
    /// Whom it runs as.
    pub user: String,
    /// `80` or `80/tcp`.
    pub expose: Vec<String>,
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// More files or folders, each with its path in the image.
    pub add: Vec<(PathBuf, String)>,
    /// When the image and its files are said to be from, in seconds since 1970.
    pub time: i64,
}

/// What was packed.
#[derive(Debug)]
pub struct Packed {
    /// The manifest of the image.
    pub target: Descriptor,
    /// What files of folders need and what is nowhere, and entry points that are not there.
    pub warnings: Vec<Error>,
}

/// Why nothing was packed, or what is missing in what was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer or the image.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
    /// A file of the machine.
    #[error("cannot read `{path}`", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A library or an interpreter that is not there.
    #[error(
        "`{file}` needs `{needed}`, which is not where the loader looks: install it, or give it with \
         --add",
        file = file.display()
    )]
    Missing {
        /// What needs it.
        file: PathBuf,
        /// Its name.
        needed: String,
    },
    /// Something that an image cannot have: a socket, a device.
    #[error("`{path}` is no file, no folder and no symbolic link", path = .0.display())]
    Kind(PathBuf),
    /// What is to be run is not in the image.
    #[error("the entry point `{0}` is not in the image")]
    EntryPoint(String),
    /// A path in the image that is not one.
    #[error("`{0}` is not a path in an image")]
    Path(String),
    /// Too many files.
    #[error("more than {FILES_MAX} files")]
    Many,
}

/// Packs the program or the folder `source`. The same files and options give the same image: owners are
/// root's, times are `options.time`, modes are 0755 or, for files that cannot be executed, 0644; folders
/// where everybody may write are 1777. `lease` holds what is made until it has a name.
///
/// What is run, and each file that is named by itself, must find all that it needs. What is in a folder
/// need not: nobody knows which of it is used.
///
/// # Errors
/// [`Error`].
pub fn pack(
    store: &Store,
    lease: &Lease,
    source: &Path,
    options: &Options,
) -> Result<Packed, Error> {
    let time = Time { seconds: options.time, nanoseconds: 0 };
    let read = |source: &Path| {
        let path = source.to_owned();
        move |source| Error::Read { path: path.clone(), source }
    };
    let mut plan = Plan::default();
    let mut entrypoint = options.entrypoint.clone();
    // What must find all that it needs.
    let mut run = Vec::new();
    if fs::metadata(source).map_err(read(source))?.is_dir() {
        add(&mut plan, source, Vec::new(), time)?;
    } else {
        let name = source.file_name().unwrap_or(OsStr::new("program"));
        let path = Path::new("/").join(PROGRAMS).join(name);
        if entrypoint.is_empty() {
            entrypoint = vec![path.to_string_lossy().into_owned()];
        }
        add(&mut plan, source, relative(&path).to_vec(), time)?;
        run.push(path);
    }
    for (from, to) in &options.add {
        let path = place_of(from, to)?;
        add(&mut plan, from, path.clone(), time)?;
        if !from.is_dir() {
            run.push(Path::new("/").join(OsStr::from_bytes(&path)));
        }
    }
    let first = entrypoint.first().or(options.cmd.first());
    let found = first.and_then(|it| what_is_run(&plan, it, options));
    let lost = if found.is_none() { first.cloned().map(Error::EntryPoint) } else { None };
    run.extend(found);
    let (has_libc, mut warnings) = closure::Closure::new(&mut plan, time).run(&run)?;
    warnings.extend(lost);
    let mut offer = |path: &str, text: &str| {
        if has_libc && plan.get(path.as_bytes()).is_none() {
            plan.put(Item::bytes(path, text.as_bytes().to_vec(), 0o644, time));
        }
    };
    offer("etc/passwd", PASSWD);
    offer("etc/group", GROUP);
    offer("etc/nsswitch.conf", NSSWITCH);
    if plan.get(b"tmp").is_none() {
        plan.put(Item::folder(b"tmp".to_vec(), 0o1777, time));
    }
    plan.fill_folders(time);
    let layer = plan.write(store, lease)?;
    let platform = Platform::host();
    let created = Some(date(options.time));
    let config = ImageConfig {
        created: created.clone(),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config: config(options, entrypoint),
        history: vec![History {
            created,
            created_by: Some("coracle image pack".to_owned()),
            ..History::default()
        }],
        ..ImageConfig::default()
    };
    Ok(Packed { target: assemble::image(store, lease, config, &[layer])?, warnings })
}

/// Where a file or folder of `--add` goes, below the root.
fn place_of(from: &Path, to: &str) -> Result<Vec<u8>, Error> {
    let refused = || Error::Path(to.to_owned());
    let is_folder = to.ends_with('/') && !from.is_dir();
    let to = to.trim_matches('/');
    if to.split('/').any(|it| matches!(it, "." | "..")) {
        return Err(refused());
    }
    let mut path = to.as_bytes().to_vec();
    if is_folder || path.is_empty() && !from.is_dir() {
        let name = from.file_name().ok_or_else(refused)?;
        let slash = if path.is_empty() { &[][..] } else { b"/" };
        path = [&path, slash, name.as_bytes()].concat();
    }
    Ok(path)
}

/// The path in the image of the program that a word of the entry point means.
fn what_is_run(plan: &Plan, word: &str, options: &Options) -> Option<PathBuf> {
    let there = |path: PathBuf| planned(plan, &path).is_some().then_some(path);
    if word.contains('/') {
        return there(Path::new("/").join(&options.workdir).join(word));
    }
    let path = options.env.iter().rev().find_map(|it| it.strip_prefix("PATH="));
    path.unwrap_or(PATH).split(':').find_map(|it| there(Path::new("/").join(it).join(word)))
}

fn config(options: &Options, entrypoint: Vec<String>) -> Config {
    let port = |it: &String| {
        let port = if it.contains('/') { it.clone() } else { format!("{it}/tcp") };
        (port, Empty {})
    };
    Config {
        user: options.user.clone(),
        exposed_ports: options.expose.iter().map(port).collect(),
        env: options.env.clone(),
        entrypoint,
        cmd: options.cmd.clone(),
        working_dir: options.workdir.clone(),
        labels: options.labels.clone(),
        ..Config::default()
    }
}

/// Plans the file or folder `from` at `to`, with all that is in it.
fn add(plan: &mut Plan, from: &Path, to: Vec<u8>, time: Time) -> Result<(), Error> {
    let failed = |source| Error::Read { path: from.to_owned(), source };
    // What is named is meant, not the link that leads there; in a folder a link is a link.
    let mut next = vec![(fs::canonicalize(from).map_err(failed)?, to)];
    let mut count = 0;
    while let Some((from, to)) = next.pop() {
        count += 1;
        if FILES_MAX < count {
            return Err(Error::Many);
        }
        let failed = |source| Error::Read { path: from.clone(), source };
        let found = fs::symlink_metadata(&from).map_err(failed)?;
        let kind = found.file_type();
        if kind.is_dir() {
            for entry in fs::read_dir(&from).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let slash = if to.is_empty() { &[][..] } else { b"/" };
                let to = [&to, slash, entry.file_name().as_bytes()].concat();
                next.push((entry.path(), to));
            }
            if !to.is_empty() {
                let mode =
                    if found.permissions().mode() & 0o1777 == 0o1777 { 0o1777 } else { 0o755 };
                plan.put(Item::folder(to, mode, time));
            }
        } else if kind.is_symlink() {
            let target = fs::read_link(&from).map_err(failed)?;
            plan.put(Item::link(to, target.as_os_str().as_bytes().to_vec(), time));
        } else if kind.is_file() {
            let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
            plan.put(Item::file(to, &from, found.len(), mode, time));
        } else {
            return Err(Error::Kind(from));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
