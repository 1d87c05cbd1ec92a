//! Images from Dockerfiles: `coracle image build`.
//!
//! A step's layer depends on the layers below it and on what the step is made of, never on times or
//! on names of files that it does not use: the same inputs give the same digest, and what was made
//! before is found by digest. Nothing here runs anything or fetches anything: that is the [`Host`]'s.
//!
//! ```text
//! text --parse--> lines --instruction--> instructions --stages--> what is needed --stage--> layers
//! ```

mod archive;
mod cache;
mod copy;
mod diff;
mod ignore;
mod instruction;
mod parse;
mod places;
mod scratch;
mod stage;
mod stages;
mod state;
mod users;
mod words;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Descriptor, Image, Owners, Reference, Store, assemble, store, unpack};

/// What to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder whose files COPY and ADD take.
    pub context: PathBuf,
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// Values of ARGs.
    pub arguments: BTreeMap<String, String>,
    /// The stage that is wanted, by name or number; the last one without.
    pub target: Option<String>,
    /// What was built before is used again.
    pub is_cached: bool,
    /// When the image is said to be from, in seconds since 1970: `SOURCE_DATE_EPOCH`. Without, it is
    /// from 1970, and what commands wrote has its own times.
    pub time: Option<i64>,
}

/// What a build needs of the program that it is part of.
pub trait Host {
    /// The image of this name; got from elsewhere where it is not in the store.
    ///
    /// # Errors
    /// Why there is none.
    fn image(&mut self, name: &Reference) -> Result<Image, Cause>;

    /// Runs a command in a container, shows what it prints, and gives its exit code.
    ///
    /// # Errors
    /// Why it could not be run.
    fn run(&mut self, step: &Step<'_>) -> Result<i32, Cause>;

    /// Told of every step.
    fn event(&mut self, event: Event<'_>);
}

/// An error of the host's.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A step begins.
    Step {
        /// Which, from 1.
        number: usize,
        /// Of how many.
        of: usize,
        /// The instruction.
        text: &'a str,
    },
    /// Its layer was made before.
    Cached,
    /// Values were given for an ARG that nothing declares.
    Unused {
        /// Its name.
        argument: &'a str,
    },
}

/// A command that is to be run.
#[derive(Debug)]
pub struct Step<'a> {
    /// The image until now: folders for an overlay, topmost first.
    pub layers: &'a [PathBuf],
    /// An empty folder: what the command changes is in `upper` in it afterwards, in the form of an
    /// overlay's upper folder.
    pub writable: &'a Path,
    /// What is run, and its arguments.
    pub arguments: &'a [String],
    /// `NAME=VALUE`.
    pub env: &'a [String],
    /// Where it begins.
    pub workdir: &'a str,
    /// Whom it runs as.
    pub user: &'a User,
}

/// A user as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
    /// Where it lives.
    pub home: String,
}

/// What is wrong with a Dockerfile, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {reason}")]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Problem {
    fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something in the Dockerfile, or something that it names.
    #[error("{file}:{problem}", file = file.display())]
    Dockerfile {
        /// The file.
        file: PathBuf,
        /// What and where.
        problem: Problem,
    },
    /// A file of the build.
    #[error("cannot {what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A command has failed.
    #[error("{file}:{line}: `{command}` has ended with {code}", file = file.display())]
    Failed {
        /// The Dockerfile.
        file: PathBuf,
        /// Where.
        line: usize,
        /// What.
        command: String,
        /// Its exit code.
        code: i32,
    },
    /// A command could not be run, or an image could not be had.
    #[error("{file}:{line}: {what}", file = file.display())]
    Host {
        /// The Dockerfile.
        file: PathBuf,
        /// Where.
        line: usize,
        /// What was to be done.
        what: String,
        /// Why not.
        source: Cause,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A layer.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// A layer or the image.
    #[error(transparent)]
    Assemble(#[from] assemble::Error),
}

/// Builds an image and gives its manifest, which the store has and nothing names yet. `lease` is held
/// for all that is made.
///
/// # Errors
/// [`Error`]: with the file and the line, where it is the Dockerfile's.
pub fn build(
    store: &Store,
    lease: &store::Lease,
    options: &Options,
    host: &mut dyn Host,
) -> Result<Descriptor, Error> {
    let file = || options.dockerfile.clone();
    let said = |problem| Error::Dockerfile { file: file(), problem };
    let text = read(&options.dockerfile, parse::DOCKERFILE_BYTES_MAX)?;
    let parsed = parse::parse(&text).map_err(said)?;
    let plan = stages::Stages::new(parsed, options).map_err(said)?;
    let ignore = read_ignore(options)?;
    let folder = fs::canonicalize(&options.context).map_err(|source| Error::Io {
        what: format!("use the context `{}`", options.context.display()),
        source,
    })?;
    let cached = |source| Error::Io { what: "use the steps of the store".to_owned(), source };
    let cache = cache::Cache::open(store, options.is_cached).map_err(cached)?;
    let owners = Owners::of_process()
        .map_err(|source| Error::Io { what: "read the map of ids".to_owned(), source })?;
    let scratch = scratch::Scratch::new(store)
        .map_err(|source| Error::Io { what: "make a folder to work in".to_owned(), source })?;
    let (context, done) = (folder, Vec::new());
    let mut builder = stage::Builder {
        store,
        lease,
        options,
        host,
        folder: context,
        ignore,
        cache,
        owners,
        scratch,
        done,
    };
    let built = builder.run(&plan)?;
    builder.cache.tidy().map_err(cached)?;
    for argument in plan.unused(options) {
        builder.host.event(Event::Unused { argument });
    }
    Ok(built)
}

/// The patterns of what is not in the context: beside the Dockerfile, or in the context.
fn read_ignore(options: &Options) -> Result<ignore::Ignore, Error> {
    let mut own = options.dockerfile.clone().into_os_string();
    own.push(".dockerignore");
    for path in [PathBuf::from(own), options.context.join(".dockerignore")] {
        match read(&path, parse::DOCKERFILE_BYTES_MAX) {
            Ok(text) => {
                return ignore::Ignore::parse(&text).map_err(|(line, reason)| Error::Dockerfile {
                    file: path,
                    problem: Problem::new(line, reason),
                });
            }
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ignore::Ignore::default())
}

fn read(path: &Path, bytes_max: u64) -> Result<String, Error> {
    let failed = |source| Error::Io { what: format!("read `{}`", path.display()), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    io::Read::read_to_string(&mut io::Read::take(file, bytes_max + 1), &mut text)
        .map_err(failed)?;
    if bytes_max < text.len() as u64 {
        return Err(failed(io::Error::other(format!("it has more than {bytes_max} bytes"))));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
