//! Opening a log: finds its segments, cuts a torn end, and notes what is not there.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    commit::add_segment,
    format::{self, HEADER_BYTES, Header, HeaderError, TEMPORARY},
    limits::{LOST_MAX, Sizes},
    scan::{self, Scanned, Walk},
    state::{Opened, Segment, State},
    types::{Damage, LogConfig, OpenError, Recovered, Why},
    writer::{self, Writer},
};
use crate::{
    Durability,
    disk::{Disk, DiskFile, Mode},
    message::{Nanos, Sequence},
};

/// What was opened.
pub(super) struct Opening {
    pub(super) state: State,
    pub(super) salt: u32,
    pub(super) recovered: Recovered,
}

/// Where and how to open a log.
#[derive(Clone, Copy)]
pub(super) struct Opener<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) dir: &'a Path,
    pub(super) config: LogConfig,
    pub(super) sizes: Sizes,
    pub(super) now: Nanos,
}

/// A segment as it was found.
struct Found {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    header: Option<Header>,
}

impl Opener<'_> {
    pub(super) fn open(self) -> Result<Opening, OpenError> {
        self.disk.create_folder(self.dir).map_err(failed("make", self.dir))?;
        let found = self.find()?;
        let Some(salt) = found.values().find_map(|it| Some(it.header?.salt)) else {
            return self.begin(&found);
        };
        let mut recovered = Recovered::default();
        let mut state = State::new(Sequence(0));
        let mut tail = None;
        let last = found.keys().next_back().copied();
        for (first, it) in found {
            check_gap(first, &it, &state, &mut recovered)?;
            let is_last = Some(first) == last;
            let scanned = self.read(first, &it, is_last, salt)?;
            let why = Why::Corrupt;
            let holes = scanned.holes.iter();
            recovered.damage.extend(holes.map(|(from, until)| Damage {
                from: *from,
                until: *until,
                why,
            }));
            if it.header.is_none() && scanned.marks.is_empty() && !is_last {
                // Nothing in it can be read; the gap to the next one tells.
                tracing::error!(file = %it.path.display(), "a file of messages is unreadable");
            }
            let time_max = scanned.marks.iter().map(|it| it.time_max).max().unwrap_or_default();
            let (end, bytes) = (scanned.end, scanned.bytes);
            state.segments.insert(first, Segment { end, bytes, time_max, opened: None });
            (state.next, state.committed, state.written) = (end, end, end);
            tail = Some((first, it, scanned));
        }
        if let Some((first, it, scanned)) = tail {
            self.resume(&mut state, &mut recovered, salt, (first, it, scanned))?;
        }
        state.holes = recovered.damage.iter().map(|it| (it.from, it.clone())).collect();
        Ok(Opening { state, salt, recovered })
    }

    /// The segments, and no files that are not finished.
    fn find(self) -> Result<BTreeMap<Sequence, Found>, OpenError> {
        let mut found = BTreeMap::new();
        for name in self.disk.list(self.dir).map_err(failed("read", self.dir))? {
            let path = self.dir.join(&name);
            if name.strip_suffix(TEMPORARY).and_then(format::parse_name).is_some() {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
            let Some(first) = format::parse_name(&name) else { continue };
            let file = self.disk.open(&path, Mode::Write).map_err(failed("open", &path))?;
            let mut bytes = [0; 64];
            file.read_at(0, &mut bytes).map_err(failed("read", &path))?;
            let header = match Header::decode(&bytes) {
                Ok(header) => Some(header).filter(|it| it.first == first),
                Err(HeaderError::Damaged) => None,
                Err(HeaderError::Newer(version)) => {
                    let supported = format::VERSION;
                    return Err(OpenError::Newer { path, version, supported });
                }
            };
            if header.is_none() {
                tracing::error!(file = %path.display(), "the header of a file is damaged");
            }
            found.insert(first, Found { path, file, header });
        }
        Ok(found)
    }

    /// A log that has not been there.
    fn begin(self, found: &BTreeMap<Sequence, Found>) -> Result<Opening, OpenError> {
        if let Some(it) = found.values().next() {
            let reason = "no file of this topic has a header that can be read";
            return Err(OpenError::Corrupt { path: it.path.clone(), reason });
        }
        let first = micros(self.now);
        // Nobody but this disk may know it; it need not be more random than that.
        let [salt, ..] = RandomState::new().hash_one(self.now.0).to_le_bytes().map(u32::from);
        let salt =
            salt | u32::try_from(RandomState::new().hash_one(first.0) >> 40).unwrap_or(0) << 8;
        let mut state = State::new(first);
        let header = self.header(salt, first, first);
        self.create(&mut state, header)?;
        Ok(Opening { state, salt, recovered: Recovered::default() })
    }

    fn read(
        self,
        first: Sequence,
        found: &Found,
        last: bool,
        salt: u32,
    ) -> Result<Scanned, OpenError> {
        let read = || {
            let file = &*found.file;
            if !last && let Some(scanned) = scan::read_index(file, salt, first)? {
                return Ok(scanned);
            }
            let walk = Walk::new(file, salt, HEADER_BYTES, file.size()?);
            scan::scan(walk, first, last, self.sizes.index_bytes)
        };
        read().map_err(failed("read", &found.path))
    }

    /// Makes the last segment ready for writing, or begins the next one.
    fn resume(
        self,
        state: &mut State,
        recovered: &mut Recovered,
        salt: u32,
        (first, found, scanned): (Sequence, Found, Scanned),
    ) -> Result<(), OpenError> {
        let Found { path, file, header } = found;
        let boot = self.disk.boot();
        let same_boot = header.is_some_and(|it| it.boot == boot && boot != 0);
        let whole = match header.map(|it| it.durability) {
            Some(Durability::Disk) => true,
            Some(Durability::Process) => scanned.closed || same_boot,
            Some(Durability::Memory) => scanned.closed,
            None => false,
        } && !scanned.indexed;
        let size = file.size().map_err(failed("read", &path))?;
        if size > scanned.bytes {
            let expected = scanned.closed || scanned.indexed;
            recovered.cut_bytes = if expected { 0 } else { size - scanned.bytes };
            file.set_len(scanned.bytes).map_err(failed("cut", &path))?;
        }
        // What has been read is about to be shown, so it must be durable, also if it was written
        // by a process that died between writing and flushing.
        file.sync().map_err(failed("flush", &path))?;
        self.disk.sync_folder(self.dir).map_err(failed("flush", self.dir))?;
        let end = scanned.end;
        if whole && header.is_some_and(|it| self.continues(&it, same_boot)) {
            let Some(header) = header else { return Ok(()) };
            let file: Arc<dyn DiskFile> = Arc::from(file);
            let marks = Arc::new(scanned.marks);
            let opened = Opened { file: Arc::clone(&file), marks };
            state.keep_opened(first, opened);
            state.writer = Some(Writer { file, used: scanned.bytes, header });
            return Ok(());
        }
        let next = if whole { end } else { end.after(LOST_MAX).max(micros(self.now)) };
        if next > end {
            let why = if scanned.indexed { Why::Missing } else { Why::Unflushed };
            recovered.damage.push(Damage { from: end, until: next, why });
        }
        let previous_end = match header {
            // The segment is replaced by one of the same name.
            Some(it) if next == first => it.previous_end,
            Some(_) | None => end,
        };
        (state.next, state.committed, state.written) = (next, next, next);
        self.create(state, self.header(salt, next, previous_end))
    }

    /// Whether a segment that was begun like this may be continued.
    fn continues(self, header: &Header, same_boot: bool) -> bool {
        header.durability == self.config.durability
            && (same_boot || self.config.durability != Durability::Process)
    }

    fn header(self, salt: u32, first: Sequence, previous_end: Sequence) -> Header {
        let (boot, durability) = (self.disk.boot(), self.config.durability);
        Header { salt, first, previous_end, boot, durability }
    }

    fn create(self, state: &mut State, header: Header) -> Result<(), OpenError> {
        let writer = writer::create(self.disk, self.dir, header)
            .map_err(failed("make a file in", self.dir))?;
        add_segment(state, &writer);
        state.writer = Some(writer);
        Ok(())
    }
}

/// The sequence of a topic that is made now.
pub(super) fn micros(now: Nanos) -> Sequence {
    Sequence(u64::try_from(now.0 / 1_000).unwrap_or(0).max(1))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

/// Notes what is missing between the segment before and this one.
fn check_gap(
    first: Sequence,
    found: &Found,
    state: &State,
    recovered: &mut Recovered,
) -> Result<(), OpenError> {
    if state.segments.is_empty() || first == state.next {
        return Ok(());
    }
    let from = state.next;
    if first < from {
        let reason = "it has messages that the file before it has too";
        return Err(OpenError::Corrupt { path: found.path.clone(), reason });
    }
    let intended = found.header.is_some_and(|it| it.previous_end == from);
    let why = if intended { Why::Unflushed } else { Why::Missing };
    recovered.damage.push(Damage { from, until: first, why });
    Ok(())
}
