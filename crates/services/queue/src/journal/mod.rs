//! What one nsqd must remember of its topics and channels: which there are, how far each channel
//! is, what it has not finished.
//!
//! Knows nothing of messages' bodies (they are in `log`) and decides nothing: the core tells it
//! [`Change`]s, and gets them back as [`TopicState`]s when it starts. Ephemeral topics and channels
//! are none of its business.
//!
//! # Files
//! One file, `<number>.journal`: a snapshot of everything, then frames of changes. When the changes
//! are more than the snapshot, the next file is written aside, flushed and given its name; the one
//! before stays until the one after the next, in case the snapshot becomes unreadable.
//!
//! # What may be lost
//! The rule: the state that is read may be older than what was, but only so that a message is
//! delivered again, never so that one is not delivered. By kind of harm:
//! * *Killed*: what [`Journal::flush`] wrote is there. A frame written in part is cut.
//! * *Power cut*: what was flushed with `sync` is there. Of the rest, all behind the first frame
//!   that is missing is cut, and nothing in it was promised: creations, deletions, pauses and
//!   placements are acknowledged only after a `sync`. An older cursor, or fewer finished, means
//!   that more is delivered again.
//! * *Newer or older than a topic's log*, which is another file: [`TopicState::reconcile`].
//! * *Damage* (bytes that had been flushed and are wrong now): reported; the frames behind it are
//!   read all the same. To stop there would be to forget channels made since, and lose what they
//!   were owed. A lost frame is noticed where it matters: every progress carries the number of its
//!   channel's life, which is a new one after each creation and placement. A channel
//!   of which there is progress in a life that is not known owes all that its topic's log has.
//!   If the damage is in the snapshot, the previous file stands in for it, and nothing is lost.
//! * *What remains*: damage in a creation or placement, and nothing was written of the channel
//!   since. Then a new channel is not known until a consumer asks for it, and one that was rewound
//!   is where it was before. The operator is told of the damage, and the messages can be replayed
//!   as long as the retention has them. A lost pause, deletion or option is told in the same way.
//!
//! # Cost
//! A flush costs by what changed: a consumer that finishes nearly in order costs a cursor and a few
//! ranges, however many the messages. Memory: the state itself, once.

mod codec;
mod frame;
mod load;
mod progress;
mod runs;
mod state;
#[cfg(test)]
mod tests;

use std::{
    io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use load::{Damage, Loaded, OpenError, Started};
pub use progress::Progress;
pub use runs::{Runs, Unfinished};
pub use state::{Change, ChannelState, TopicState};

use self::{
    frame::{FRAME_TARGET, FrameKind, Place},
    state::State,
};
use crate::disk::{Disk, DiskFile, Mode};

/// Changes of fewer bytes than this do not make it worth writing a new snapshot.
const COMPACT_MIN: u64 = 4 << 20;

/// The state of all topics and channels, being written. For one task at a time; its calls block on
/// the disk.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    state: State,
    /// The greatest number that a file may have.
    number: u64,
    /// The file; `None` after a failure: nobody knows what is in it, the next flush writes another.
    file: Option<Current>,
    /// Records of the frame that is not closed.
    records: Vec<u8>,
    /// Frames that are not written.
    frames: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    file: Box<dyn DiskFile>,
    /// What was written.
    len: u64,
    /// What is safe from a power cut.
    flushed: u64,
    /// Where it is time for a new snapshot.
    compact_at: u64,
}

impl Journal {
    /// Reads the journal in a folder, which is made if it is not there. The folder must be held
    /// against other processes.
    ///
    /// # Errors
    /// The disk has failed, or a later release wrote it. Damage is not an error: see
    /// [`Loaded::damage`].
    pub fn load(disk: Arc<dyn Disk>, folder: &Path) -> Result<Loaded, OpenError> {
        Loaded::read(disk, folder)
    }

    /// Begins a new file with this state.
    fn begin(disk: Arc<dyn Disk>, folder: PathBuf, state: State, number: u64) -> io::Result<Self> {
        let (records, frames) = (Vec::new(), Vec::new());
        let mut journal = Self { disk, folder, state, number, file: None, records, frames };
        journal.rewrite(number)?;
        Ok(journal)
    }

    /// Notes changes, in the order in which they happened. A change of a topic or channel that is
    /// not there changes nothing: what was collected of it came after its end.
    ///
    /// Nothing is written before [`flush`](Self::flush).
    pub fn append(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let Some(record) = self.state.number(change) else { continue };
            for record in record.pieces() {
                self.state.apply(&record);
                codec::encode(&record, &mut self.records);
                if self.records.len() >= FRAME_TARGET {
                    self.close_frame();
                }
            }
        }
    }

    /// Writes what was appended, so that it survives the end of this process; with `sync`, of the
    /// machine as well. Without changes it costs nothing, unless what was written earlier has still
    /// to be flushed.
    ///
    /// # Errors
    /// The disk is full or has failed. What was appended may or may not be safe, and is not
    /// forgotten: the next call writes everything anew, into another file.
    pub fn flush(&mut self, sync: bool) -> io::Result<()> {
        self.close_frame();
        let frames = mem::take(&mut self.frames);
        let Some(file) = &mut self.file else { return self.rewrite(u64::MAX) };
        if let Err(error) = file.write(&frames, sync) {
            self.file = None;
            return Err(error);
        }
        if file.len < file.compact_at {
            return Ok(());
        }
        // What was asked for is done, and the file that has it is there even if this fails.
        let current = file.number;
        if let Err(error) = self.rewrite(current) {
            tracing::warn!(%error, "the journal could not be compacted");
            if let Some(file) = &mut self.file {
                file.compact_at = file.len.saturating_add(COMPACT_MIN);
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many bytes its file has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.file.as_ref().map_or(0, |it| it.len)
    }

    fn close_frame(&mut self) {
        let records = mem::take(&mut self.records);
        // Without a file there will be a snapshot, which has it all.
        if let Some(file) = &self.file
            && !records.is_empty()
        {
            file.put_frame(&mut self.frames, FrameKind::Changes, &records);
        }
    }

    /// Writes everything into a new file; of the older ones, those from the number `keep` on stay.
    /// If this fails before the new file has its name, the old one goes on.
    fn rewrite(&mut self, keep: u64) -> io::Result<()> {
        // Never the same number twice: of a file whose writing failed, nobody knows what there is.
        self.number = self.number.saturating_add(1);
        let path = self.folder.join(frame::file_name(self.number));
        let aside = self.folder.join(frame::file_name(self.number) + frame::TEMPORARY);
        let file = match self.write_aside(&aside) {
            Ok(file) => file,
            Err(error) => {
                // It takes room that others need; if it stays, the next start removes it.
                if let Err(error) = self.disk.remove(&aside) {
                    tracing::warn!(%error, "what was prepared could not be removed");
                }
                return Err(error);
            }
        };
        self.file = None;
        self.disk.rename(&aside, &path)?;
        self.disk.sync_folder(&self.folder)?;
        self.file = Some(file);
        self.records.clear();
        self.frames.clear();
        self.remove_before(keep.min(self.number));
        Ok(())
    }

    fn write_aside(&self, aside: &Path) -> io::Result<Current> {
        let file = self.disk.open(aside, Mode::Create)?;
        let mut current = Current { number: self.number, file, len: 0, flushed: 0, compact_at: 0 };
        let mut bytes = frame::header(self.number);
        let mut records = Vec::new();
        for record in self.state.records() {
            codec::encode(&record, &mut records);
            if records.len() >= FRAME_TARGET {
                current.put_frame(&mut bytes, FrameKind::Snapshot, &records);
                current.write(&bytes, false)?;
                records.clear();
                bytes.clear();
            }
        }
        current.put_frame(&mut bytes, FrameKind::Snapshot, &records);
        current.put_frame(&mut bytes, FrameKind::SnapshotEnd, &[]);
        current.write(&bytes, true)?;
        current.compact_at = current.len.saturating_add(current.len.max(COMPACT_MIN));
        Ok(current)
    }

    /// Removes the files before one. What cannot be removed now will be after the next snapshot.
    fn remove_before(&self, first: u64) {
        let names = self.disk.list(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "the journal's folder cannot be listed");
            Vec::new()
        });
        for name in names.iter().filter(|it| frame::file_number(it).is_some_and(|it| it < first)) {
            if let Err(error) = self.disk.remove(&self.folder.join(name)) {
                tracing::warn!(file = %name, %error, "an old file of the journal stays");
            }
        }
    }
}

impl Current {
    /// Appends a frame to bytes that will be written at the end of the file.
    fn put_frame(&self, bytes: &mut Vec<u8>, kind: FrameKind, records: &[u8]) {
        let place = Place { number: self.number, offset: self.len + bytes.len() as u64 };
        frame::put_frame(bytes, place, self.flushed, kind, records);
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> io::Result<()> {
        if !bytes.is_empty() {
            self.file.write_at(self.len, bytes)?;
            self.len += bytes.len() as u64;
        }
        if sync && self.flushed < self.len {
            self.file.sync()?;
            self.flushed = self.len;
        }
        Ok(())
    }
}
