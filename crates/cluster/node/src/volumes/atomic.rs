//! Writes a volume's files so that a reader sees all old or all new ones, in the kubelet's layout:
//!
//! ```text
//! volume/..2026_11_21_15_04_05.000000001/  the files
//! volume/..data -> ..2026_11_21_15_04_05.000000001   swapped by one rename
//! volume/key    -> ..data/key              one link for each first path component
//! ```
//!
//! Programs that watch their configuration watch `..data`, so the layout is an interface.
//! After a crash at any point the next write puts things right. No fsync: the files are made anew
//! from the API after a power loss.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use jiff::Timestamp;

use super::projection::Files;

/// The link that is swapped.
const DATA: &str = "..data";
/// Where the next [`DATA`] is made.
const DATA_NEXT: &str = "..data_tmp";
/// Mode of the volume's folders.
const FOLDER_MODE: u32 = 0o755;

/// Makes `volume` hold exactly `files`, all of them of `group` if it is given. Returns whether anything
/// had to change.
pub(super) fn write(
    volume: &Path,
    files: &Files,
    now: Timestamp,
    group: Option<u32>,
) -> io::Result<bool> {
    fs::DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(volume)?;
    let current = fs::read_link(volume.join(DATA)).ok();
    if let Some(current) = &current
        && holds(&volume.join(current), files)?
    {
        return Ok(false);
    }
    let folder = fresh_folder(volume, now)?;
    for (path, file) in files {
        let target = volume.join(&folder).join(path);
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new().mode(FOLDER_MODE).recursive(true).create(parent)?;
        }
        fs::write(&target, &file.bytes)?;
        if group.is_some() {
            chown(&target, None, group)?;
        }
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    let next = volume.join(DATA_NEXT);
    absent(fs::remove_file(&next))?;
    symlink(&folder, &next)?;
    fs::rename(&next, volume.join(DATA))?;
    link_names(volume, files)?;
    remove_old(volume, &folder)?;
    Ok(true)
}

/// Makes a folder named by the time, as `..2026_11_21_15_04_05.N` with the first N that is free.
fn fresh_folder(volume: &Path, now: Timestamp) -> io::Result<String> {
    let stamp: String = now.to_string().chars().take(19).collect();
    let stamp = stamp.replace(['-', ':', 'T'], "_");
    let mut attempt = 0_u32;
    loop {
        let name = format!("..{stamp}.{attempt:09}");
        match fs::DirBuilder::new().mode(FOLDER_MODE).create(volume.join(&name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => attempt += 1,
            Err(error) => return Err(error),
            Ok(()) => return Ok(name),
        }
    }
}

/// Whether `folder` has exactly `files`.
fn holds(folder: &Path, files: &Files) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    if !folder.is_dir() {
        return Ok(false);
    }
    list(folder, "", &mut found)?;
    if !found.iter().eq(files.keys()) {
        return Ok(false);
    }
    for (path, file) in files {
        let path = folder.join(path);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        if mode != file.mode || fs::read(&path)? != file.bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{path}/"), found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// Links each first path component to its place under [`DATA`] and removes links without one.
fn link_names(volume: &Path, files: &Files) -> io::Result<()> {
    let names: BTreeSet<&str> = files.keys().filter_map(|it| it.split('/').next()).collect();
    for name in &names {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !names.contains(name.as_ref()) {
            absent(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// Removes the folders of earlier writes.
fn remove_old(volume: &Path, folder: &str) -> io::Result<()> {
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = name.to_string_lossy().starts_with("..") && entry.file_type()?.is_dir();
        if own && name.to_str() != Some(folder) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Takes "it was not there" for success.
fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::projection::File, *};

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        list.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn names(volume: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(volume)
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn layout_and_update() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path().join("volume");
        let now = Timestamp::UNIX_EPOCH;
        assert!(write(&volume, &files(&[("a", "1"), ("etc/b", "2")]), now, None).unwrap());
        assert!(!write(&volume, &files(&[("a", "1"), ("etc/b", "2")]), now, None).unwrap());
        let first = "..1970_01_01_00_00_00.000000000";
        assert_eq!(names(&volume), [first, "..data", "a", "etc"]);
        assert_eq!(fs::read_to_string(volume.join("etc/b")).unwrap(), "2");

        let open = fs::read_link(volume.join("..data")).unwrap();
        assert!(write(&volume, &files(&[("a", "3"), ("c", "4")]), now, None).unwrap());
        assert_ne!(fs::read_link(volume.join("..data")).unwrap(), open);
        assert_eq!(names(&volume), ["..1970_01_01_00_00_00.000000001", "..data", "a", "c"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
    }

    #[test]
    fn a_write_that_was_cut_short_is_put_right() {
        let folder = tempfile::tempdir().unwrap();
        let volume = folder.path();
        write(volume, &files(&[("a", "1")]), Timestamp::UNIX_EPOCH, None).unwrap();
        fs::create_dir(volume.join("..1970_01_01_00_00_00.000000001")).unwrap();
        symlink("nowhere", volume.join(DATA_NEXT)).unwrap();
        assert!(write(volume, &files(&[("a", "2")]), Timestamp::UNIX_EPOCH, None).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "2");
        assert_eq!(names(volume).len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn holds_exactly_what_was_written_last(
            writes in prop::collection::vec(
                prop::collection::btree_map("[a-c](/[a-c])?", "[x-z]{0,2}", 0..4), 1..5),
        ) {
            let folder = tempfile::tempdir().unwrap();
            for write_ in writes {
                // A name cannot be a file and a folder at once.
                let plain: BTreeSet<String> =
                    write_.keys().filter(|it| !it.contains('/')).cloned().collect();
                let wanted: Files = write_
                    .iter()
                    .filter(|(path, _)| {
                        path.split_once('/').is_none_or(|(first, _)| !plain.contains(first))
                    })
                    .map(|(path, text)| {
                        (path.clone(), File { bytes: text.clone().into_bytes(), mode: 0o600 })
                    })
                    .collect();
                write(folder.path(), &wanted, Timestamp::UNIX_EPOCH, None).unwrap();
                let now = Timestamp::UNIX_EPOCH;
                prop_assert!(!write(folder.path(), &wanted, now, None).unwrap(), "not idempotent");
                for (path, file) in &wanted {
                    prop_assert_eq!(&fs::read(folder.path().join(path)).unwrap(), &file.bytes);
                }
                let first: BTreeSet<&str> =
                    wanted.keys().filter_map(|it| it.split('/').next()).collect();
                prop_assert_eq!(names(folder.path()).len(), first.len() + 2);
            }
        }
    }
}
