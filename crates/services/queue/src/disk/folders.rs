//! The machine's files.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use super::{Disk, DiskFile, Held, Mode};

/// Changes whenever the kernel starts: proc_sys_kernel(5).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The folders of this machine. Paths are as the process sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folders;

impl Disk for Folders {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = parent(folder) {
            self.create_folder(above)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            // Somebody else may have made it meanwhile, and not have flushed it yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            other => other?,
        }
        self.sync_folder(parent(folder).unwrap_or(Path::new(".")))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in folder.read_dir()? {
            names.extend(file?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, file: &Path, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let create = mode == Mode::Create;
        let file = OpenOptions::new()
            .read(true)
            .write(mode != Mode::Read)
            .create(create)
            .truncate(create)
            .mode(0o600)
            .open(file)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fine_if_gone(std::fs::remove_file(file))
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        let names = match folder.read_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for file in names {
            self.remove(&file?.path())?;
        }
        fine_if_gone(std::fs::remove_dir(folder))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn Held>>> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let answer = rustix::fs::statvfs(folder)?;
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    fn boot(&self) -> u64 {
        let Ok(id) = std::fs::read(BOOT_ID) else { return 0 };
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        hasher.finish()
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = bytes.get_mut(read..).filter(|it| !it.is_empty()) {
            match FileExt::read_at(self, rest, offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Held for File {}

/// The folder above, if the path names one.
fn parent(folder: &Path) -> Option<&Path> {
    folder.parent().filter(|it| !it.as_os_str().is_empty())
}

fn fine_if_gone(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keeps_what_it_is_given() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("a/b");
        Folders.create_folder(&folder).unwrap();
        Folders.create_folder(&folder).unwrap();
        let (first, second) = (folder.join("1"), folder.join("2"));
        let file = Folders.open(&first, Mode::Create).unwrap();
        file.write_at(2, b"cde").unwrap();
        file.sync().unwrap();
        let mut read = [9; 8];
        assert_eq!((file.read_at(1, &mut read).unwrap(), file.size().unwrap()), (4, 5));
        assert_eq!(&read, b"\0cde\x09\x09\x09\x09");
        Folders.rename(&first, &second).unwrap();
        Folders.sync_folder(&folder).unwrap();
        assert_eq!(Folders.list(&folder).unwrap(), ["2"]);
        assert_eq!(Folders.read(&second).unwrap(), b"\0\0cde");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&second)), (0o700, 0o600));
        Folders.remove_folder(&folder).unwrap();
        Folders.remove_folder(&folder).unwrap();
        Folders.remove(&second).unwrap();
        let gone = Folders.open(&second, Mode::Write).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_process_holds_a_lock() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("lock");
        let held = Folders.lock(&path).unwrap();
        assert!(held.is_some() && Folders.lock(&path).unwrap().is_none());
        drop(held);
        assert!(Folders.lock(&path).unwrap().is_some());
    }

    #[test]
    fn knows_the_machine() {
        assert_eq!(Folders.boot(), Folders.boot());
        assert!(Folders.free_bytes(Path::new("/")).is_ok());
    }
}
