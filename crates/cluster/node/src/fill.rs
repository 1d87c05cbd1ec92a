//! Fills a volume of a pod on purpose, and takes away what it wrote.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::Volume;
use rustix::{
    fs::{FallocateFlags, OFlags},
    io::Errno,
};

use crate::{handle::Handle, volumes};

/// Name of the file that fills a volume.
const FILE: &str = ".coracle-chaos-fill";

/// How much of a disk is left free whatever is asked for: the machine is somebody's own. A volume in
/// memory has a limit of its own and may be filled to the last byte.
const LEFT_FREE_MIN: u64 = 1 << 30;

/// Why a volume was not filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// No such volume, or no such pod here.
    #[error("the pod has no volume `{0}` on this node")]
    Absent(String),
    /// A volume that is not the pod's own.
    #[error(
        "volume `{0}` is no emptyDir: only those are filled, as others hold what is not the pod's"
    )]
    NotItsOwn(String),
    /// The disk has not enough room.
    #[error(
        "that would leave {left} bytes of the machine's disk: at least {LEFT_FREE_MIN} stay free"
    )]
    Disk {
        /// What would be left.
        left: u64,
    },
    /// The kernel refused.
    #[error("write the file `{file}`")]
    File {
        /// Which one.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Handle {
    /// Fills the emptyDir `volume` of the pod `uid` with a file of `bytes`, or with as many as there is
    /// room for in memory. May be repeated.
    pub fn fill(&self, uid: &str, volume: &str, bytes: u64) -> Result<(), FillError> {
        let folder = self.empty_dir(uid, volume)?;
        let file = folder.join(FILE);
        let done = write(&file, bytes);
        done.map_err(|source| match source {
            Refusal::Disk { left } => FillError::Disk { left },
            Refusal::Kernel(source) => FillError::File { file, source },
        })
    }

    /// Takes away what [`Self::fill`] wrote. Fine if there is nothing, or no such pod any more.
    pub fn empty(&self, uid: &str, volume: &str) -> Result<(), FillError> {
        let Ok(folder) = self.empty_dir(uid, volume) else { return Ok(()) };
        let file = folder.join(FILE);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| FillError::File { file, source }),
        }
    }

    fn empty_dir(&self, uid: &str, volume: &str) -> Result<PathBuf, FillError> {
        let all = self.registry.list();
        let pod = all.iter().map(|(_, it)| it).find(|it| it.folders.uid == uid);
        let volumes = pod.and_then(|it| it.pod.spec.as_ref()?.volumes.as_deref());
        let named = |it: &&Volume| it.name == volume;
        let found = volumes.unwrap_or_default().iter().find(named);
        match (pod, found) {
            (Some(pod), Some(it)) if it.empty_dir.is_some() => {
                Ok(volumes::folder(&pod.folders.state).join(volume))
            }
            (_, Some(_)) => Err(FillError::NotItsOwn(volume.to_owned())),
            _ => Err(FillError::Absent(volume.to_owned())),
        }
    }
}

enum Refusal {
    Disk { left: u64 },
    Kernel(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self::Kernel(error.into())
    }
}

/// The folder is the containers' to write in: nothing in it is followed.
fn write(path: &Path, bytes: u64) -> Result<(), Refusal> {
    let folder = path.parent().unwrap_or(path);
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() && there.len() == bytes => return Ok(()),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let system = rustix::fs::statvfs(folder)?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let in_memory = rustix::fs::statfs(folder)?.f_type == TMPFS;
    let bytes = if in_memory { bytes.min(free) } else { bytes };
    let left = free.saturating_sub(bytes);
    if !in_memory && left < LEFT_FREE_MIN {
        return Err(Refusal::Disk { left });
    }
    let flags = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
    let file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(path)?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Somebody else wrote meanwhile: it is full.
        Err(Errno::NOSPC) if in_memory => Ok(()),
        other => Ok(other?),
    }
}

/// Magic number of a file system in memory, see statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        let file = dir.path().join(FILE);
        std::os::unix::fs::symlink(&outside, &file).unwrap();
        assert!(write(&file, 4096).is_ok());
        assert_eq!(fs::symlink_metadata(&file).unwrap().len(), 4096);
        assert_eq!(fs::read_to_string(outside).unwrap(), "kept");
    }

    #[test]
    fn the_disk_keeps_room() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let file = dir.path().join(FILE);
        assert!(matches!(write(&file, u64::MAX), Err(Refusal::Disk { left: 0 })));
        assert!(!file.exists());
    }
}
