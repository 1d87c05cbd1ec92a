//! The files of one run's log, read from oldest to newest and on, across rotations.
//!
//! The shim renames `LOG` to `LOG.1`, `LOG.1` to `LOG.2`, … and begins a new `LOG`. A file that is
//! open is found again by its inode, whatever its name is by then.
//!
//! Reads block, but only on the page cache: these files were just written by this machine.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// Rotated files beside the current one.
const ROTATED_MAX: u32 = 4;
/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// A place in a run's log.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    open: Option<File>,
    /// Bytes from here to what was the end when this was opened.
    written: u64,
}

impl Files {
    /// At the oldest record, or, with `tail`, so many records before the newest.
    pub(super) fn open(path: PathBuf, tail: Option<u64>) -> io::Result<Self> {
        let mut files = Self { path, open: None, written: 0 };
        let mut older: Vec<File> = Vec::new();
        let (mut wanted, mut seen) = (tail, Vec::new());
        // From the newest to the oldest, until there are enough lines.
        for index in 0..=ROTATED_MAX {
            let Some(mut file) = open(&files.name(index))? else { continue };
            let metadata = file.metadata()?;
            // Rotated since it was looked at under the name before.
            if seen.contains(&metadata.ino()) {
                continue;
            }
            seen.push(metadata.ino());
            let end = end_of_lines(&file, metadata.len())?;
            let enough = match wanted {
                None => false,
                Some(lines) => {
                    let found = seek_to_tail(&mut file, end, lines)?;
                    wanted = Some(lines - found);
                    found == lines
                }
            };
            files.written += end.saturating_sub(file.stream_position()?);
            older.push(file);
            if enough {
                break;
            }
        }
        files.open = older.pop();
        Ok(files)
    }

    /// As [`Self::read`], up to what was the end when this was opened: a container that writes faster than
    /// somebody reads would be read for ever.
    pub(super) fn read_written(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        if self.written == 0 {
            return Ok(false);
        }
        let before = buffer.len();
        let more = self.read(buffer)?;
        let room = usize::try_from(self.written).unwrap_or(usize::MAX);
        buffer.truncate(before.saturating_add(room));
        self.written -= u64::try_from(buffer.len() - before).unwrap_or(self.written);
        Ok(more)
    }

    /// Appends the next bytes to `buffer`; `false` if there are none now.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        if self.open.is_none() {
            self.open = open(&self.name(0))?;
        }
        while let Some(file) = &mut self.open {
            let mut chunk = file.take(CHUNK_BYTES.try_into().unwrap_or(u64::MAX));
            if chunk.read_to_end(buffer)? != 0 {
                return Ok(true);
            }
            match self.newer()? {
                Some(newer) => self.open = Some(newer),
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// The file after the open one, from its beginning, if there is one.
    fn newer(&self) -> io::Result<Option<File>> {
        let Some(file) = &self.open else { return Ok(None) };
        let inode = file.metadata()?.ino();
        // If rotation has removed the open file, what comes next is the oldest that is left.
        let mut oldest = None;
        for index in 0..=ROTATED_MAX {
            let Some(candidate) = open(&self.name(index))? else { continue };
            if candidate.metadata()?.ino() == inode {
                return match index.checked_sub(1) {
                    Some(newer) => open(&self.name(newer)),
                    None => Ok(None),
                };
            }
            oldest = Some(candidate);
        }
        Ok(oldest)
    }

    fn name(&self, index: u32) -> PathBuf {
        name(&self.path, index)
    }
}

/// The names that the files of the log `path` can have.
pub(crate) fn log_files(path: &Path) -> Vec<PathBuf> {
    (0..=ROTATED_MAX).map(|index| name(path, index)).collect()
}

fn name(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{index}"));
    name.into()
}

/// The last `lines` records of a log as they are in its files, for termination messages.
pub(crate) fn tail(path: &Path, lines: u64) -> io::Result<Vec<u8>> {
    let mut files = Files::open(path.to_owned(), Some(lines))?;
    let mut buffer = Vec::new();
    while files.read_written(&mut buffer)? {}
    Ok(buffer)
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the last line ends that is whole: one may just be being written.
fn end_of_lines(file: &File, size: u64) -> io::Result<u64> {
    let start = size.saturating_sub(u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX));
    let mut chunk = vec![0; usize::try_from(size - start).unwrap_or(CHUNK_BYTES)];
    file.read_exact_at(&mut chunk, start)?;
    let last = chunk.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
    Ok(start + u64::try_from(last).unwrap_or_default())
}

/// Moves to the beginning of the last `lines` lines before `size`. Returns how many there are, at most
/// `lines`.
fn seek_to_tail(file: &mut File, size: u64, lines: u64) -> io::Result<u64> {
    let mut end = size;
    let mut found = 0;
    let mut chunk = Vec::new();
    if lines == 0 {
        file.seek(SeekFrom::Start(size))?;
        return Ok(0);
    }
    // A line begins after the line feed of the one before it; the last line feed ends the last.
    let mut last = true;
    while end != 0 {
        let length = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX).min(end);
        let start = end - length;
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        file.take(length).read_to_end(&mut chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            if *byte != b'\n' {
                last = false;
                continue;
            }
            if std::mem::take(&mut last) {
                continue;
            }
            found += 1;
            if found == lines {
                let offset = u64::try_from(index).unwrap_or_default();
                file.seek(SeekFrom::Start(start + offset + 1))?;
                return Ok(lines);
            }
        }
        end = start;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found + u64::from(size != 0))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(files: &mut Files) -> String {
        let mut buffer = Vec::new();
        while files.read(&mut buffer).unwrap() {}
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn oldest_first_and_tail_across_files() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        fs::write(folder.path().join("0.log.2"), "a\nb\n").unwrap();
        fs::write(folder.path().join("0.log.1"), "c\nd\n").unwrap();
        fs::write(&log, "e\n").unwrap();
        for (tail, expected) in [
            (None, "a\nb\nc\nd\ne\n"),
            (Some(0), ""),
            (Some(1), "e\n"),
            (Some(2), "d\ne\n"),
            (Some(3), "c\nd\ne\n"),
            (Some(4), "b\nc\nd\ne\n"),
            (Some(5), "a\nb\nc\nd\ne\n"),
            (Some(99), "a\nb\nc\nd\ne\n"),
        ] {
            let mut files = Files::open(log.clone(), tail).unwrap();
            assert_eq!(read(&mut files), expected, "{tail:?}");
        }
    }

    #[test]
    fn tail_of_a_file_larger_than_one_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let line = format!("{}\n", "x".repeat(999));
        fs::write(&log, line.repeat(300)).unwrap();
        for lines in [1, 65, 66, 131, 299, 300] {
            let mut files = Files::open(log.clone(), Some(lines)).unwrap();
            assert_eq!(u64::try_from(read(&mut files).len()).unwrap(), lines * 1000);
        }
    }

    #[test]
    fn what_comes_later_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let rotated = folder.path().join("0.log.1");
        fs::write(&rotated, "a\nb\n").unwrap();
        fs::write(&log, "c\nbeg").unwrap();
        let mut files = Files::open(log.clone(), Some(2)).unwrap();
        fs::rename(&log, &rotated).unwrap();
        fs::write(&log, "d\n").unwrap();
        let mut buffer = Vec::new();
        while files.read_written(&mut buffer).unwrap() {}
        assert_eq!(String::from_utf8(buffer).unwrap(), "b\nc\n");
    }

    #[test]
    fn follows_through_rotations() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let rotated = |index: u32| folder.path().join(format!("0.log.{index}"));
        let mut files = Files::open(log.clone(), None).unwrap();
        assert_eq!(read(&mut files), "", "not there yet");
        fs::write(&log, "a\n").unwrap();
        assert_eq!(read(&mut files), "a\n");
        fs::rename(&log, rotated(1)).unwrap();
        fs::write(&log, "b\n").unwrap();
        assert_eq!(read(&mut files), "b\n");
        // Two rotations between two reads.
        fs::rename(rotated(1), rotated(3)).unwrap();
        fs::rename(&log, rotated(2)).unwrap();
        fs::write(rotated(1), "c\n").unwrap();
        fs::write(&log, "d\n").unwrap();
        assert_eq!(read(&mut files), "c\nd\n");
        // So many that the open file is gone: goes on with the oldest that is left.
        fs::rename(&log, folder.path().join("gone")).unwrap();
        fs::remove_file(folder.path().join("gone")).unwrap();
        for index in [1, 2, 3] {
            fs::remove_file(rotated(index)).unwrap_or_default();
        }
        fs::write(rotated(1), "x\n").unwrap();
        fs::write(&log, "y\n").unwrap();
        assert_eq!(read(&mut files), "x\ny\n");
    }
}
