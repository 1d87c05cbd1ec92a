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
    place::{planned, relative, resolved},
};
use crate::{
    assemble::{Item, Plan, Source},
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
    /// Whether the image is of no use without what it needs.
    is_run: bool,
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
    warnings: Vec<Error>,
}

impl<'a> Closure<'a> {
    pub(super) fn new(plan: &'a mut Plan, time: Time) -> Self {
        let mut configured = Vec::new();
        let mut lines = CONFIGURATION_LINES_MAX;
        read_configuration(Path::new("/etc/ld.so.conf"), &mut configured, &mut lines);
        let (todo, seen, found) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        Self { plan, time, todo, seen, configured, found, warnings: Vec::new() }
    }

    /// Plans all that the files at the paths `run` need, which must be there, and all that the other files
    /// of the plan need, as far as it is there. Says whether the C library is among it, and what is not.
    pub(super) fn run(mut self, run: &[PathBuf]) -> Result<(bool, Vec<Error>), Error> {
        for path in run {
            if let Some((from, to)) = planned(self.plan, path) {
                self.all_of(File { from, to, inherited: Vec::new(), is_run: true })?;
            }
        }
        let files = self.plan.items().filter_map(|(path, item)| {
            let Source::Path(from) = &item.source else { return None };
            let is_file = matches!(item.entry.kind, Kind::File { .. });
            let to = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
            let file = File { from: from.clone(), to, inherited: Vec::new(), is_run: false };
            is_file.then_some(file)
        });
        for file in files.collect::<Vec<_>>() {
            self.all_of(file)?;
        }
        let has_libc = self.found.keys().any(|(_, _, name)| name.starts_with("libc."));
        Ok((has_libc, self.warnings))
    }

    /// What the file needs, and what that needs.
    fn all_of(&mut self, file: File) -> Result<(), Error> {
        self.todo.push(file);
        while let Some(file) = self.todo.pop() {
            if !self.seen.insert(file.to.clone()) {
                continue;
            }
            match needs(&file.from) {
                Ok(Needs::Nothing) => {}
                Ok(Needs::Elf(elf)) => self.elf(&file, &elf)?,
                // Text that the kernel does not run as a program has no interpreter of its own.
                Ok(Needs::Script { .. }) if !file.is_run && !self.is_executable(&file) => {}
                Ok(Needs::Script { interpreter, argument }) => {
                    self.program(&file, &interpreter)?;
                    if interpreter.ends_with("/env")
                        && let Some(program) = argument
                    {
                        self.program(&file, program.split(' ').next_back().unwrap_or(&program))?;
                    }
                }
                // An ELF file that is not one, as those who test with it have it.
                Err(source) if source.kind() == std::io::ErrorKind::InvalidData => {
                    self.lacks(&file, Error::Read { path: file.from.clone(), source })?;
                }
                Err(source) => return Err(Error::Read { path: file.from.clone(), source }),
            }
        }
        Ok(())
    }

    fn is_executable(&self, file: &File) -> bool {
        let item = self.plan.get(relative(&file.to));
        item.is_some_and(|it| it.entry.mode & 0o111 != 0)
    }

    /// Something is missing: that ends it for what is run, and is said of all else.
    fn lacks(&mut self, by: &File, error: Error) -> Result<(), Error> {
        if by.is_run {
            return Err(error);
        }
        self.warnings.push(error);
        Ok(())
    }

    fn misses(&mut self, by: &File, needed: &str) -> Result<(), Error> {
        self.lacks(by, Error::Missing { file: by.from.clone(), needed: needed.to_owned() })
    }

    /// What is at a path, in the image or else on the machine.
    fn at(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let to_same = || path.exists().then(|| (path.to_owned(), path.to_owned()));
        planned(self.plan, path).or_else(to_same)
    }

    /// An interpreter of a script: by its path, or looked for.
    fn program(&mut self, by: &File, name: &str) -> Result<(), Error> {
        let found = match name.starts_with('/') {
            true => self.at(Path::new(name)),
            false => PROGRAMS.iter().find_map(|it| self.at(&Path::new(it).join(name))),
        };
        match found {
            Some((from, to)) => self.add(&from, to, Vec::new(), by),
            None => self.misses(by, name),
        }
    }

    fn elf(&mut self, file: &File, elf: &Elf) -> Result<(), Error> {
        let is_musl = elf.loader.as_ref().is_some_and(|it| it.contains("ld-musl"));
        if let Some(loader) = &elf.loader {
            match self.at(Path::new(loader)) {
                Some((from, to)) => self.add(&from, to, Vec::new(), file)?,
                None => return self.misses(file, loader),
            }
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
            let is_path = name.contains('/');
            if !is_path && self.found.contains_key(&key) {
                continue;
            }
            let found = match is_path {
                true => {
                    Some(Path::new(name)).filter(|it| it.is_absolute()).and_then(|it| self.at(it))
                }
                false => self.find(name, elf, &own, is_musl),
            };
            let Some((from, to)) = found else {
                self.misses(file, name)?;
                continue;
            };
            if !is_path {
                self.found.insert(key, to.clone());
            }
            self.add(&from, to, inherited.clone(), file)?;
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
            if let Some(found) = planned(self.plan, &to) {
                return Some((found.0, to));
            }
            if fits(&from.join(name)) {
                return Some((from.join(name), to));
            }
        }
        let default = defaults(elf.kind.1, is_musl);
        let in_image = |it: &PathBuf| planned(self.plan, &it.join(name)).filter(|it| fits(&it.0));
        if let Some(found) = default.iter().find_map(in_image) {
            return Some(found);
        }
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

    /// Plans what `by` needs, unless it is planned, and what that needs.
    fn add(
        &mut self,
        from: &Path,
        to: PathBuf,
        inherited: Vec<Folder>,
        by: &File,
    ) -> Result<(), Error> {
        let failed = |source| Error::Read { path: from.to_owned(), source };
        let from = fs::canonicalize(from).map_err(failed)?;
        let size = fs::metadata(&from).map_err(failed)?.len();
        let Some(place) = resolved(self.plan, &to) else {
            return self.misses(by, &to.to_string_lossy());
        };
        if self.plan.get(relative(&place)).is_none() {
            let path = relative(&place).to_vec();
            self.plan.put(Item::file(path, &from, size, 0o755, self.time));
        }
        self.todo.push(File { from, to: place, inherited, is_run: by.is_run });
        Ok(())
    }
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
