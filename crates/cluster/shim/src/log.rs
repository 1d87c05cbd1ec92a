//! A container's log: lines as the Container Runtime Interface defines them,
//! `TIME stdout|stderr F|P CONTENT`, in a file that is rotated.
//!
//! A disk that is full or gone never stops the container: what cannot be written is dropped and
//! counted, and the log says so as soon as it can be written again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A file that would become longer is rotated: as in a kubelet (containerLogMaxSize).
pub const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Files kept, with the one being written: as in a kubelet (containerLogMaxFiles).
pub const FILES_MAX: u32 = 5;

/// A longer line is written in parts, all but the last marked P: as in containerd.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which output a line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The file and those rotated from it: `PATH`, `PATH.1` (the newest) …
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
    lost: u64,
    error: Option<String>,
}

impl Log {
    /// Opens the file, and makes its folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = open(path)?;
        let size = file.metadata()?.len();
        let path = path.to_owned();
        Ok(Self { path, file, size, limit: FILE_BYTES_MAX, lost: 0, error: None })
    }

    /// Why some of the output is missing, if it is.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Writes whole lines, now.
    fn write(&mut self, lines: &[u8], now: &str) {
        if self.error.is_some() && 0 < self.lost {
            let cause = self.error.as_deref().unwrap_or_default();
            let text = format!("coracle: {} bytes of the log were lost: {cause}", self.lost);
            let mut notice = Vec::new();
            format_line(&mut notice, now, Stream::Stderr, End::Full, text.as_bytes());
            match self.append(&notice) {
                Ok(()) => self.lost = 0,
                Err(error) => return self.lose(lines, &error),
            }
        }
        if let Err(error) = self.append(lines) {
            self.lose(lines, &error);
        }
    }

    fn lose(&mut self, lines: &[u8], error: &io::Error) {
        self.lost += lines.len() as u64;
        self.error = Some(error.to_string());
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        if 0 < self.size && self.limit < self.size + length {
            self.rotate()?;
        }
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += length;
                Ok(())
            }
            Err(error) => {
                // Part of it may be there: no reader shall see half a line. If this fails as well,
                // the first error is the one to tell.
                self.file.set_len(self.size).ok();
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| match number {
            0 => self.path.clone(),
            number => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{number}"));
                PathBuf::from(name)
            }
        };
        for number in (0..FILES_MAX - 1).rev() {
            match fs::rename(name(number), name(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether a line ends where its part ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Full,
    Partial,
}

fn format_line(to: &mut Vec<u8>, now: &str, stream: Stream, end: End, content: &[u8]) {
    let tag = match end {
        End::Full => "F",
        End::Partial => "P",
    };
    for part in [now, " ", stream.name(), " ", tag, " "] {
        to.extend_from_slice(part.as_bytes());
    }
    to.extend_from_slice(content);
    to.push(b'\n');
}

/// Cuts one output into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    /// A line that has not ended.
    begun: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, begun: Vec::new() }
    }

    /// Takes output as it was read at `now`, and logs every line that is complete.
    pub(crate) fn push(&mut self, bytes: &[u8], now: &str, log: &mut Log) {
        let mut lines = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|it| *it == b'\n') {
            let (content, ended) = match piece.strip_suffix(b"\n") {
                Some(content) => (content, true),
                None => (piece, false),
            };
            self.begun.extend_from_slice(content);
            let mut rest = self.begun.as_slice();
            while let Some((part, more)) = rest.split_at_checked(LINE_BYTES_MAX)
                && !more.is_empty()
            {
                format_line(&mut lines, now, self.stream, End::Partial, part);
                rest = more;
            }
            if ended {
                format_line(&mut lines, now, self.stream, End::Full, rest);
                self.begun.clear();
            } else {
                let written = self.begun.len() - rest.len();
                self.begun.drain(..written);
            }
        }
        if self.begun.is_empty() {
            // Most programs write whole lines, then nothing for a long time.
            self.begun = Vec::new();
        }
        if !lines.is_empty() {
            log.write(&lines, now);
        }
    }

    /// The output is at its end: logs a line that was begun.
    pub(crate) fn end(&mut self, now: &str, log: &mut Log) {
        let begun = std::mem::take(&mut self.begun);
        if !begun.is_empty() {
            let mut lines = Vec::new();
            format_line(&mut lines, now, self.stream, End::Partial, &begun);
            log.write(&lines, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// Logs pieces of standard output as if read one by one, and shows the file.
    fn check(pieces: &[&[u8]], expected: Expect) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/0.log");
        let mut log = Log::open(&path).unwrap();
        let mut lines = Lines::new(Stream::Stdout);
        for piece in pieces {
            lines.push(piece, "T", &mut log);
        }
        lines.end("E", &mut log);
        let text = String::from_utf8(fs::read(path).unwrap()).unwrap();
        expected.assert_eq(&text);
    }

    #[test]
    fn whole_lines() {
        check(
            &[b"one\ntwo\n\n"],
            expect![[r#"
            T stdout F one
            T stdout F two
            T stdout F 
        "#]],
        );
    }

    #[test]
    fn line_in_pieces_is_one_line() {
        check(
            &[b"on", b"e\ntw", b"o\n"],
            expect![[r#"
            T stdout F one
            T stdout F two
        "#]],
        );
    }

    #[test]
    fn line_without_end_is_partial() {
        check(
            &[b"one\nprompt> "],
            expect![[r#"
            T stdout F one
            E stdout P prompt> 
        "#]],
        );
    }

    #[test]
    fn long_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        let mut lines = Lines::new(Stream::Stderr);
        for length in [LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 3 * LINE_BYTES_MAX] {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            for piece in line.chunks(1000) {
                lines.push(piece, "T", &mut log);
            }
        }
        let text = fs::read_to_string(path).unwrap();
        let shape: Vec<(String, usize)> = text
            .lines()
            .map(|it| it.split_at("T stderr F ".len()))
            .map(|(head, content)| (head.to_owned(), content.len()))
            .collect();
        expect![[r#"[("T stderr F ", 16384), ("T stderr P ", 16384), ("T stderr F ", 1), ("T stderr P ", 16384), ("T stderr P ", 16384), ("T stderr F ", 16384)]"#]].assert_eq(&format!("{shape:?}"));
    }

    #[test]
    fn file_is_rotated_and_the_oldest_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        log.limit = 40;
        let mut lines = Lines::new(Stream::Stdout);
        for number in 0..20 {
            lines.push(format!("number {number}\n").as_bytes(), "T", &mut log);
        }
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["0.log", "0.log.1", "0.log.2", "0.log.3", "0.log.4"]);
        let text = fs::read_to_string(dir.path().join("0.log.1")).unwrap();
        expect![[r#"
            T stdout F number 18
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn lost_output_is_told_when_the_disk_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path).unwrap();
        let writable = std::mem::replace(&mut log.file, File::open(&path).unwrap());
        let mut lines = Lines::new(Stream::Stdout);
        lines.push(b"lost\n", "T", &mut log);
        assert!(log.error().is_some());
        log.file = writable;
        lines.push(b"kept\n", "T", &mut log);
        expect![[r#"
            T stderr F coracle: 16 bytes of the log were lost: Bad file descriptor (os error 9)
            T stdout F kept
        "#]]
        .assert_eq(&fs::read_to_string(path).unwrap());
    }
}
