//! What a step's command has changed, as a layer: from the upper folder of the overlay it ran in.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use super::places::{Place, join};
use crate::{
    Owners,
    assemble::{Item, Plan, Source},
    tarball::{Kind, Time},
    unpack::{OPAQUE, is_opaque},
};

/// What is mounted over while a command runs: what it is mounted upon is made for that, and goes
/// again if it is empty and the image does not have it.
const MOUNTED: [&str; 6] = ["dev", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "sys"];

/// Room for the names, or the value, of a file's attributes: the kernel's own limit.
const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// What is in `upper`, above `image`. Files are no newer than `latest`.
pub(super) fn plan(
    upper: &Path,
    image: &Place<'_>,
    owners: Owners,
    latest: Option<i64>,
) -> io::Result<Plan> {
    let mut plan = Plan::default();
    let mut links: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut next = vec![Vec::new()];
    while let Some(folder) = next.pop() {
        let mut names = Vec::new();
        for entry in fs::read_dir(upper.join(Path::new(OsStr::from_bytes(&folder))))? {
            names.push(entry?.file_name().as_bytes().to_vec());
        }
        names.sort();
        for name in names {
            let path = join(&folder, &name);
            let from = upper.join(Path::new(OsStr::from_bytes(&path)));
            let found = fs::symlink_metadata(&from)?;
            let kind = found.file_type();
            if is_scaffold(&path, &from, &found, image)? {
                continue;
            }
            if kind.is_char_device() && found.rdev() == 0 {
                let gone = join(&folder, &[b".wh.", name.as_slice()].concat());
                plan.put(marker(gone));
                continue;
            }
            let entry = if kind.is_dir() {
                next.push(path.clone());
                if is_opaque(&fs::File::open(&from)?.into())? {
                    plan.put(marker(join(&path, b".wh..wh..opq")));
                }
                Kind::Folder
            } else if let Some(first) = links.get(&found.ino()) {
                Kind::HardLink(first.clone())
            } else if kind.is_symlink() {
                Kind::SymbolicLink(fs::read_link(&from)?.as_os_str().as_bytes().to_vec())
            } else if kind.is_file() {
                Kind::File { size: found.len(), pieces: None }
            } else if kind.is_fifo() {
                Kind::Pipe
            } else {
                // A socket is of no use to anybody else; devices are not an image's to have.
                continue;
            };
            if !kind.is_dir() && 1 < found.nlink() {
                links.entry(found.ino()).or_insert_with(|| path.clone());
            }
            let seconds = latest.map_or(found.mtime(), |it| it.min(found.mtime()));
            let time = Time { seconds, nanoseconds: 0 };
            let mut item = Item::new(path, entry, found.mode() & 0o7777, time);
            (item.entry.uid, item.entry.gid) = owners.in_image(found.uid(), found.gid());
            if kind.is_file() || kind.is_dir() {
                item.entry.attributes = attributes(&from)?;
            }
            item.source = Source::Path(from);
            plan.put(item);
        }
    }
    Ok(plan)
}

/// An empty file whose name says something.
fn marker(path: Vec<u8>) -> Item {
    Item::new(path, Kind::File { size: 0, pieces: None }, 0o644, Time::default())
}

/// Whether it is there only to be mounted over.
fn is_scaffold(
    path: &[u8],
    from: &Path,
    found: &fs::Metadata,
    image: &Place<'_>,
) -> io::Result<bool> {
    if !MOUNTED.iter().any(|it| it.as_bytes() == path) {
        return Ok(false);
    }
    let is_empty = match found.is_dir() {
        true => fs::read_dir(from)?.next().is_none(),
        false => found.len() == 0,
    };
    Ok(is_empty && image.stat(path)?.is_none())
}

/// The attributes that belong into an image, in order.
fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; ATTRIBUTES_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path, names.as_mut_slice()) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = names.get(..length).unwrap_or_default();
    let mut found = Vec::new();
    for name in names.split(|it| *it == 0) {
        let is_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        let is_capability = name == b"security.capability";
        let os_name = OsStr::from_bytes(name);
        if OPAQUE.iter().any(|it| *it == os_name) || !(is_user || is_capability) {
            continue;
        }
        let mut value = vec![0; ATTRIBUTES_BYTES_MAX];
        let length = rustix::fs::lgetxattr(path, os_name, value.as_mut_slice())?;
        value.truncate(length);
        if is_capability {
            value = without_owner(value);
        }
        found.push((name.to_vec(), value));
    }
    found.sort();
    Ok(found)
}

/// Capabilities of a file without whose user namespace they hold in: version 3 becomes 2.
fn without_owner(mut value: Vec<u8>) -> Vec<u8> {
    if let [_, _, _, version @ 3, ..] = value.as_mut_slice() {
        *version = 2;
        value.truncate(20);
    }
    value
}
