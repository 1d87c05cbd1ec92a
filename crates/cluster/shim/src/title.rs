//! What `ps` shows of a shim: the pod's name and folder, though the process was started before it had
//! one.

use std::{ffi::OsStr, fs::File, io, os::unix::ffi::OsStrExt as _, os::unix::fs::FileExt as _};

use crate::process;

/// Fields of /proc/self/stat, see proc(5): where the arguments begin and end in memory.
const ARG_START: usize = 48;
const ARG_END: usize = 49;

/// Puts these words in place of the arguments that the process was started with. What does not fit
/// is cut off.
pub(crate) fn set(words: &[&OsStr]) -> io::Result<()> {
    let stat = process::stat(std::process::id()).ok_or(io::ErrorKind::NotFound)?;
    let field = |number| process::field(&stat, number).ok_or(io::ErrorKind::InvalidData);
    let (start, end) = (field(ARG_START)?, field(ARG_END)?);
    let mut title: Vec<u8> = words.iter().flat_map(|it| [it.as_bytes(), b"\0"].concat()).collect();
    // A last byte that is not NUL would let readers go on into what follows.
    let room = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
    title.truncate(room.saturating_sub(1));
    title.resize(room, 0);
    File::options().write(true).open("/proc/self/mem")?.write_all_at(&title, start)
}
