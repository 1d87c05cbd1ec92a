//! Finds all that the programs of a plan need, as the loader would, and plans it.
//!
//! Ref: ld.so(8), "DESCRIPTION" and "Dynamic string tokens".

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    Error,
    elf::{Elf, Needs, needs},
};
use crate::{
    assemble::{Item, Plan},
    tarball::{Kind, Time},
};

/// Where the loader looks at last, without those of the machine's own kind.
const FOLDERS: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// Where musl's loader looks when it has no `/etc/ld-musl-ARCH.path`.
const MUSL_FOLDERS: [&str; 3] = ["/lib", "/usr/local/lib", "/usr/lib"];

/// Where `env` and the user look for a program.
const PROGRAMS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"];

/// Most lines of the loader's configuration with all that it includes.
const CONFIGURATION_LINES_MAX: usize = 10_000;

/// A folder on the machine, and the same in the image.
type Folder = (PathBuf, PathBuf);

/// A file of the image whose needs are not looked at yet.
#[derive(Debug, Clone)]
struct File {
    /// On the machine.
    from: PathBuf,
    /// In the image.
    to: PathBuf,
    /// Where the files that need it look for what it needs.
    inherited: Vec<Folder>,
}

/// Adds to a plan what its files need.
#[derive(Debug)]
pub(super) struct Closure<'a> {
    plan: &'a mut Plan,
    time: Time,
    todo: Vec<File>,
    seen: BTreeSet<PathBuf>,
    /// Folders of the loader's configuration.
    configured: Vec<PathBuf>,
    /// Libraries that were found: the loader uses one of a name for all.
    found: BTreeMap<(bool, u16, String), PathBuf>,
}

impl<'a> Closure<'a> {
    pub(super) fn new(plan: &'a mut Plan, time: Time) -> Self {
        let mut configured = Vec::new();
        let mut lines = CONFIGURATION_LINES_MAX;
        read_configuration(Path::new("/etc/ld.so.conf"), &mut configured, &mut lines);
        let (todo, seen, found) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Self { plan, time, todo, seen, configured, found }
    }

    /// Plans all that the files of the plan need. Says whether the C library is among it.
    pub(super) fn run(mut self) -> Result<bool, Error> {
        let files = self.plan.items().filter_map(|(path, item)| {
            let crate::assemble::Source::Path(from) = &item.source else { return None };
            let is_file = matches!(item.entry.kind, Kind::File { .. });
            let to = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
            is_file.then(|| File { from: from.clone(), to, inherited: Vec::new() })
        });
        self.todo = files.collect();
        while let Some(file) = self.todo.pop() {
            if !self.seen.insert(file.to.clone()) {
                continue;
            }
            let failed = |source| Error::Read { path: file.from.clone(), source };
            match needs(&file.from).map_err(failed)? {
                Needs::Nothing => {}
                Needs::Elf(elf) => self.elf(&file, &elf)?,
                Needs::Script { interpreter, argument } => {
                    self.program(&file, &interpreter)?;
                    if interpreter.ends_with("/env")
                        && let Some(program) = argument
                    {
                        self.program(&file, program.split(' ').next_back().unwrap_or(&program))?;
                    }
                }
            }
        }
        Ok(self.found.keys().any(|(_, _, name)| name.starts_with("libc.")))
    }

    /// An interpreter of a script: by its path, or looked for.
    fn program(&mut self, by: &File, name: &str) -> Result<(), Error> {
        let path = match name.starts_with('/') {
            true => Some(PathBuf::from(name)).filter(|it| it.exists()),
            false => PROGRAMS.iter().map(|it| Path::new(it).join(name)).find(|it| it.exists()),
        };
        let missing = || Error::Missing { file: by.from.clone(), needed: name.to_owned() };
        let path = path.ok_or_else(missing)?;
        self.add(&path.clone(), path, Vec::new())
    }

    fn elf(&mut self, file: &File, elf: &Elf) -> Result<(), Error> {
        let missing =
            |needed: &str| Error::Missing { file: file.from.clone(), needed: needed.to_owned() };
        let is_musl = elf.loader.as_ref().is_some_and(|it| it.contains("ld-musl"));
        if let Some(loader) = &elf.loader {
            let loader = PathBuf::from(loader);
            if !loader.exists() {
                return Err(missing(&loader.to_string_lossy()));
            }
            self.add(&loader.clone(), loader, Vec::new())?;
        }
        let expand = |paths: &[String]| paths.iter().flat_map(|it| expanded(it, file)).collect();
        let rpath: Vec<Folder> = expand(&elf.rpath);
        let runpath: Vec<Folder> = expand(&elf.runpath);
        // RUNPATH makes the loader forget every RPATH, for this file.
        let own: Vec<Folder> = match runpath.is_empty() {
            true => rpath.iter().chain(&file.inherited).cloned().collect(),
            false => runpath,
        };
        let inherited: Vec<Folder> = rpath.iter().chain(&file.inherited).cloned().collect();
        for name in &elf.needed {
            let key = (elf.kind.0, elf.kind.1, name.clone());
            if name.contains('/') {
                let path = PathBuf::from(name);
                if !path.is_absolute() || !path.exists() {
                    return Err(missing(name));
                }
                self.add(&path.clone(), path, inherited.clone())?;
                continue;
            }
            if self.found.contains_key(&key) {
                continue;
            }
            let (from, to) = self.find(name, elf, &own, is_musl).ok_or_else(|| missing(name))?;
            self.found.insert(key, to.clone());
            self.add(&from, to, inherited.clone())?;
        }
        Ok(())
    }

    /// A library: where it is on the machine, and where the loader finds it in the image.
    fn find(
        &self,
        name: &str,
        elf: &Elf,
        own: &[Folder],
        is_musl: bool,
    ) -> Option<(PathBuf, PathBuf)> {
        let fits = |path: &Path| {
            let is_file = fs::metadata(path).is_ok_and(|it| it.is_file());
            is_file && matches!(needs(path), Ok(Needs::Elf(it)) if it.kind == elf.kind)
        };
        for (from, to) in own {
            // What the image has there itself is meant first.
            let to = to.join(name);
            if let Some(item) = self.plan.get(relative(&to))
                && let crate::assemble::Source::Path(path) = &item.source
            {
                return Some((path.clone(), to));
            }
            if fits(&from.join(name)) {
                return Some((from.join(name), to));
            }
        }
        let default = defaults(elf.kind.1, is_musl);
        let configured = if is_musl { &[][..] } else { &self.configured };
        // The image has no cache of the loader: what is elsewhere goes where it looks anyway.
        let place = default.first()?.join(name);
        if let Some(from) = configured.iter().map(|it| it.join(name)).find(|it| fits(it)) {
            let to = if default.iter().any(|it| from.parent() == Some(it)) {
                from.clone()
            } else {
                place
            };
            return Some((from, to));
        }
        default.iter().map(|it| it.join(name)).find(|it| fits(it)).map(|it| (it.clone(), it))
    }

    fn add(&mut self, from: &Path, to: PathBuf, inherited: Vec<Folder>) -> Result<(), Error> {
        let failed = |source| Error::Read { path: from.to_owned(), source };
        let from = fs::canonicalize(from).map_err(failed)?;
        let size = fs::metadata(&from).map_err(failed)?.len();
        if self.plan.get(relative(&to)).is_none() {
            let path = relative(&to).to_vec();
            self.plan.put(Item::file(path, &from, size, 0o755, self.time));
        }
        self.todo.push(File { from, to, inherited });
        Ok(())
    }
}

/// The path of the image without its first slash.
fn relative(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").unwrap_or(bytes)
}

/// One folder of an RPATH or RUNPATH, for the machine and for the image.
fn expanded(path: &str, file: &File) -> Option<Folder> {
    let origin = |of: &Path| of.parent().map(|it| it.to_string_lossy().into_owned());
    // On this machine, what a link leads to is what the loader takes as the origin.
    let real = fs::canonicalize(&file.from).unwrap_or_else(|_| file.from.clone());
    let replaced = |origin: &str| {
        let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
        let path = path.replace("${LIB}", "lib").replace("$LIB", "lib");
        normal(Path::new(&path))
    };
    let (from, to) = (replaced(&origin(&real)?), replaced(&origin(&file.to)?));
    (from.is_absolute() && to.is_absolute()).then_some((from, to))
}

/// Without `.` and `..`, by name.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(normal.pop()),
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Where the loader looks without being told.
fn defaults(machine: u16, is_musl: bool) -> Vec<PathBuf> {
    if is_musl {
        return MUSL_FOLDERS.iter().map(PathBuf::from).collect();
    }
    // Debian's loader looks into folders of the machine's kind first.
    let triplet = match machine {
        elf::abi::EM_X86_64 => "x86_64-linux-gnu",
        elf::abi::EM_AARCH64 => "aarch64-linux-gnu",
        elf::abi::EM_386 => "i386-linux-gnu",
        elf::abi::EM_ARM => "arm-linux-gnueabihf",
        _ => "",
    };
    let of_kind = ["/lib", "/usr/lib"].map(|it| Path::new(it).join(triplet));
    let of_kind = of_kind.into_iter().filter(|it| !triplet.is_empty() && it.is_dir());
    of_kind.chain(FOLDERS.iter().map(PathBuf::from)).collect()
}

/// The folders that `/etc/ld.so.conf` names, with what it includes.
fn read_configuration(path: &Path, folders: &mut Vec<PathBuf>, lines: &mut usize) {
    // A machine without it has no folders of its own.
    let Ok(text) = fs::read_to_string(path) else { return };
    for line in text.lines() {
        if *lines == 0 {
            return;
        }
        *lines -= 1;
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include ") {
            for path in included(Path::new(pattern.trim())) {
                read_configuration(&path, folders, lines);
            }
        } else if line.starts_with('/') {
            folders.push(PathBuf::from(line));
        }
    }
}

/// Files of a pattern with one star in its last part, as all such files have it.
fn included(pattern: &Path) -> Vec<PathBuf> {
    let pattern = Path::new("/etc").join(pattern);
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else { return vec![] };
    let name = name.to_string_lossy();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.clone()] };
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|it| Some(it.ok()?.path()))
        .filter(|it| {
            let name = it.file_name().map(|it| it.to_string_lossy().into_owned());
            name.is_some_and(|it| it.starts_with(before) && it.ends_with(after))
        })
        .collect();
    paths.sort();
    paths
}
