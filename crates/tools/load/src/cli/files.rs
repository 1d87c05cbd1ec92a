//! The files that results go to. All of them are tried before a run: nobody wants to hear after half
//! an hour of load that a folder is not there. After the run each of them has this run's results, or
//! is not there any more.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::arguments::OutputArguments;
use crate::{report, results::Results};

/// Why results cannot be written where they are wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwritable {
    /// It cannot be opened.
    #[error("cannot write `{path}`")]
    Closed {
        /// As the user wrote it.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Two of the results would go to one file.
    #[error("`{first}` and `{second}` are one file, and each of the results needs its own")]
    Shared {
        /// As the user wrote them.
        first: PathBuf,
        second: PathBuf,
    },
}

/// The files of a run, open.
#[derive(Debug, Default)]
pub(super) struct Files {
    json: Option<Output>,
    html: Option<Output>,
    hdr: Option<Output>,
}

/// A file that is open and has not been changed yet.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    file: File,
    /// Whether opening it has made it.
    is_new: bool,
    /// Device and number of a regular file; none of a pipe or a device, which has no older content
    /// and may be given twice.
    regular: Option<(u64, u64)>,
}

impl Files {
    /// Opens what is wanted and changes nothing that is there: files that are missing are made,
    /// empty.
    ///
    /// # Errors
    ///
    /// One of them cannot be written. What was made is taken away again.
    pub(super) fn open(wanted: &OutputArguments) -> Result<Self, Unwritable> {
        let mut files = Self::default();
        let opened = files.open_all(wanted);
        match opened {
            Ok(()) => Ok(files),
            Err(error) => {
                files.discard();
                Err(error)
            }
        }
    }

    fn open_all(&mut self, wanted: &OutputArguments) -> Result<(), Unwritable> {
        self.json = wanted.json.as_deref().map(Output::open).transpose()?;
        self.html = wanted.html.as_deref().map(Output::open).transpose()?;
        self.hdr = wanted.hdr.as_deref().map(Output::open).transpose()?;
        let mut before: Vec<&Output> = Vec::new();
        for output in self.all().filter(|it| it.regular.is_some()) {
            if let Some(first) = before.iter().find(|it| it.regular == output.regular) {
                let (first, second) = (first.path.clone(), output.path.clone());
                return Err(Unwritable::Shared { first, second });
            }
            before.push(output);
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Output> {
        [&self.json, &self.html, &self.hdr].into_iter().flatten()
    }

    /// There was no run: takes away what was made for it. What was there before stays as it was.
    pub(super) fn discard(self) {
        for output in self.all().filter(|it| it.is_new) {
            // An empty file that stays does no harm, and why there was no run is more important.
            drop(fs::remove_file(&output.path));
        }
    }

    /// Writes what was measured. Gives what the user is to know of it, a sentence a line, and what
    /// went wrong: a file that cannot be written does not keep the others from being written.
    pub(super) fn write(self, results: &Results) -> (Vec<String>, Vec<anyhow::Error>) {
        let (mut notes, mut errors) = (Vec::new(), Vec::new());
        if let Some(output) = self.json {
            let written = report::json(results).map_err(Into::into);
            errors.extend(written.and_then(|it| output.put(it.as_bytes())).err());
        }
        if let Some(output) = self.html {
            errors.extend(output.put(report::html(results).as_bytes()).err());
        }
        if let Some(output) = self.hdr {
            match hdr(output, results) {
                Ok(note) => notes.extend(note),
                Err(error) => errors.push(error),
            }
        }
        (notes, errors)
    }
}

/// Writes the histogram log. When there is none, an older file of that name goes: it would pass for
/// this run's. Gives what the user is to know of that.
fn hdr(output: Output, results: &Results) -> anyhow::Result<Option<String>> {
    let mut log = Vec::new();
    match report::log(results, &mut log) {
        Ok(()) => output.put(&log).map(|()| None),
        Err(report::LogError::Withheld(_)) => {
            let path = output.path.display();
            let older = match (output.regular, output.is_new) {
                (Some(_), false) => "; the older file of that name was removed",
                (Some(_), true) | (None, _) => "",
            };
            let note = format!(
                "no histogram log: percentiles are withheld, so `{path}` was not written{older}"
            );
            output.remove()?;
            Ok(Some(note))
        }
        Err(error) => Err(error.into()),
    }
}

impl Output {
    fn open(path: &Path) -> Result<Self, Unwritable> {
        let open = || {
            let made = OpenOptions::new().write(true).create_new(true).open(path);
            let (file, is_new) = match made {
                Ok(file) => (file, true),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // Also a link to nothing yet.
                    let file =
                        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
                    (file, false)
                }
                Err(error) => return Err(error),
            };
            let known = file.metadata()?;
            let regular = known.is_file().then(|| (known.dev(), known.ino()));
            Ok(Self { path: path.to_owned(), file, is_new, regular })
        };
        open().map_err(|error| Unwritable::Closed { path: path.to_owned(), error })
    }

    /// Puts this in the place of what was there.
    fn put(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let emptied = if self.regular.is_some() { self.file.set_len(0) } else { Ok(()) };
        let written = emptied.and_then(|()| self.file.write_all(bytes));
        written.with_context(|| format!("write `{}`", self.path.display()))
    }

    /// Takes the file away. A link to it stays.
    fn remove(self) -> anyhow::Result<()> {
        if self.regular.is_none() {
            return Ok(());
        }
        let removed = fs::canonicalize(&self.path).and_then(fs::remove_file);
        removed.with_context(|| format!("remove `{}`", self.path.display()))
    }
}
