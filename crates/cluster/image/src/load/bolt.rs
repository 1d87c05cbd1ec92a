//! Reads bolt databases: a tree of buckets of keys and values in one file, the format of bbolt (version
//! 2, <https://pkg.go.dev/go.etcd.io/bbolt>, files `page.go`, `meta.go` and `bucket.go`). Whoever owns
//! one holds a lock on it as long as it runs, so it is read beside that, as a copy in memory.
//!
//! A transaction writes pages that no earlier one uses, and then one of two meta pages, in turns. A copy
//! during which both stayed as they were has all that the newer of them refers to.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Largest database; containerd's has some kilobytes for each image.
const BYTES_MAX: u64 = 512 << 20;
/// How often a copy is begun anew because the database was written meanwhile.
const COPIES_MAX: usize = 10;
/// How deep a tree of pages is at most: with two children a page more than fit into a file.
const DEPTH_MAX: usize = 32;
/// Most entries of a bucket that are looked at.
const ENTRIES_MAX: usize = 1 << 20;

const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// What the checksum of a meta page is of, from its header on.
const META: usize = 56;
/// What a machine has whose first meta page is damaged.
const PAGE_SIZE_DEFAULT: usize = 4096;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// Of an entry: its value is a bucket.
const IS_BUCKET: u32 = 1;

/// A copy of a database.
#[derive(Debug)]
pub(super) struct Database {
    bytes: Vec<u8>,
    page_size: usize,
    root: u64,
}

/// The beginning of everything in a state of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    transaction: u64,
    page_size: usize,
    root: u64,
}

/// Keys and what they have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a> {
    database: &'a Database,
    /// The page that it begins with.
    page: &'a [u8],
}

/// What a key has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    Value(&'a [u8]),
    Bucket(Bucket<'a>),
}

impl Database {
    /// Copies a database.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or is written again and again meanwhile.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size > BYTES_MAX {
            return Err(damaged(&format!("has {size} bytes; {BYTES_MAX} are read")));
        }
        for _ in 0..COPIES_MAX {
            let mut bytes = Vec::new();
            (&mut file).take(BYTES_MAX).read_to_end(&mut bytes)?;
            let copied = newest(&bytes)?;
            // The meta pages are the first two.
            let mut begin = vec![0; bytes.len().min(2 * copied.page_size)];
            file.read_exact_at(&mut begin, 0)?;
            if newest(&begin)? == copied {
                let Meta { page_size, root, .. } = copied;
                return Ok(Self { bytes, page_size, root });
            }
            io::Seek::rewind(&mut file)?;
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is written all the time"))
    }

    /// The bucket that has all others.
    pub(super) fn root(&self) -> io::Result<Bucket<'_>> {
        Ok(Bucket { database: self, page: self.page(self.root)? })
    }

    fn page(&self, number: u64) -> io::Result<&[u8]> {
        let begin = usize::try_from(number).ok().and_then(|it| it.checked_mul(self.page_size));
        let page = begin.and_then(|it| self.bytes.get(it..));
        let page = page.ok_or_else(|| damaged("a page is beyond its end"))?;
        let further = usize::try_from(u32_at(page, 12)?).map_err(io::Error::other)?;
        let length = further.checked_add(1).and_then(|it| it.checked_mul(self.page_size));
        let page = length.and_then(|it| page.get(..it));
        page.ok_or_else(|| damaged("a page goes on beyond its end"))
    }
}

impl<'a> Bucket<'a> {
    /// What a key has.
    pub(super) fn get(self, key: &str) -> io::Result<Option<Entry<'a>>> {
        let found = self.entries()?.into_iter().find(|(it, _)| *it == key.as_bytes());
        Ok(found.map(|(_, entry)| entry))
    }

    /// The bucket in this one.
    pub(super) fn bucket(self, key: &str) -> io::Result<Option<Self>> {
        Ok(match self.get(key)? {
            Some(Entry::Bucket(bucket)) => Some(bucket),
            Some(Entry::Value(_)) | None => None,
        })
    }

    /// All that is in it, in the order of keys.
    pub(super) fn entries(self) -> io::Result<Vec<(&'a [u8], Entry<'a>)>> {
        let mut entries = Vec::new();
        self.collect(self.page, 0, &mut entries)?;
        Ok(entries)
    }

    fn collect(
        self,
        page: &'a [u8],
        depth: usize,
        entries: &mut Vec<(&'a [u8], Entry<'a>)>,
    ) -> io::Result<()> {
        if depth > DEPTH_MAX || entries.len() > ENTRIES_MAX {
            return Err(damaged("its pages have no end"));
        }
        let (kind, count) = (u16_at(page, 8)?, usize::from(u16_at(page, 10)?));
        if kind != BRANCH && kind != LEAF {
            return Err(damaged("a page is of no known kind"));
        }
        for index in 0..count {
            let at = PAGE_HEADER + index * ELEMENT;
            let element = page.get(at..).ok_or_else(|| damaged("an entry is cut off"))?;
            if kind == LEAF {
                entries.push(self.entry(element)?);
            } else {
                let below = self.database.page(u64_at(element, 8)?)?;
                self.collect(below, depth + 1, entries)?;
            }
        }
        Ok(())
    }

    fn entry(self, element: &'a [u8]) -> io::Result<(&'a [u8], Entry<'a>)> {
        let number = |at| usize::try_from(u32_at(element, at)?).map_err(io::Error::other);
        let (begin, key, value) = (number(4)?, number(8)?, number(12)?);
        let middle = begin.checked_add(key);
        let end = middle.and_then(|it| it.checked_add(value));
        let parts = middle.zip(end).and_then(|(middle, end)| {
            Some((element.get(begin..middle)?, element.get(middle..end)?))
        });
        let (key, value) = parts.ok_or_else(|| damaged("an entry is cut off"))?;
        if u32_at(element, 0)? & IS_BUCKET == 0 {
            return Ok((key, Entry::Value(value)));
        }
        let page = match u64_at(value, 0)? {
            // A small bucket stands in the place of its value.
            0 => value.get(BUCKET_HEADER..).ok_or_else(|| damaged("a bucket is cut off"))?,
            number => self.database.page(number)?,
        };
        Ok((key, Entry::Bucket(Self { database: self.database, page })))
    }
}

/// The newer one of the two meta pages, or the one that is whole.
fn newest(bytes: &[u8]) -> io::Result<Meta> {
    let first = meta(bytes);
    let size = first.map_or(PAGE_SIZE_DEFAULT, |it| it.page_size);
    let second = bytes.get(size..).and_then(meta);
    let newest = first.into_iter().chain(second).max_by_key(|it| it.transaction);
    newest.ok_or_else(|| damaged("it is no bolt database"))
}

fn meta(page: &[u8]) -> Option<Meta> {
    let body = page.get(PAGE_HEADER..)?;
    let sum = u64_at(body, META).ok()?;
    let whole = fnv(body.get(..META)?) == sum;
    let known = u32_at(body, 0).ok()? == MAGIC && u32_at(body, 4).ok()? == VERSION;
    let page_size = usize::try_from(u32_at(body, 8).ok()?).ok()?;
    let meta =
        Meta { transaction: u64_at(body, 48).ok()?, page_size, root: u64_at(body, 16).ok()? };
    (whole && known && page_size > PAGE_HEADER).then_some(meta)
}

/// FNV-1a of 64 bits.
fn fnv(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes.iter().fold(BASIS, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(PRIME))
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let found = bytes.get(at..).and_then(|it| it.first_chunk());
    found.copied().ok_or_else(|| damaged("it is cut off"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged database: {why}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What is written into a database.
    #[derive(Clone, Debug)]
    pub(crate) enum Tree {
        Value(Vec<u8>),
        Bucket(BTreeMap<Vec<u8>, Self>),
    }

    /// A page with entries; those of a leaf have flags, those of a branch the number of a page.
    fn page(number: u64, kind: u16, entries: &[(u64, Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut head = Vec::new();
        head.extend(number.to_le_bytes());
        head.extend(kind.to_le_bytes());
        head.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
        head.extend(0_u32.to_le_bytes());
        let mut data = Vec::new();
        for (index, (word, key, value)) in entries.iter().enumerate() {
            let begin = (entries.len() - index) * ELEMENT + data.len();
            let [begin, key_size, value_size] =
                [begin, key.len(), value.len()].map(|it| u32::try_from(it).unwrap().to_le_bytes());
            if kind == BRANCH {
                head.extend([begin, key_size].concat());
                head.extend(word.to_le_bytes());
            } else {
                head.extend(u32::try_from(*word).unwrap().to_le_bytes());
                head.extend([begin, key_size, value_size].concat());
            }
            data.extend([key.as_slice(), value].concat());
        }
        [head, data].concat()
    }

    fn put(bytes: &mut Vec<u8>, mut page: Vec<u8>) -> u64 {
        let number = bytes.len() / PAGE_SIZE_DEFAULT;
        let pages = page.len().div_ceil(PAGE_SIZE_DEFAULT);
        page[..8].copy_from_slice(&(number as u64).to_le_bytes());
        page[12..16].copy_from_slice(&u32::try_from(pages - 1).unwrap().to_le_bytes());
        page.resize(pages * PAGE_SIZE_DEFAULT, 0);
        bytes.extend(page);
        number as u64
    }

    /// The page of a bucket whose own buckets are in `bytes` already: a leaf, or a branch of two.
    fn page_of(bytes: &mut Vec<u8>, tree: &BTreeMap<Vec<u8>, Tree>) -> Vec<u8> {
        const INLINE_MAX: usize = 200;
        let mut entries = Vec::new();
        for (key, entry) in tree {
            match entry {
                Tree::Value(value) => entries.push((0, key.clone(), value.clone())),
                Tree::Bucket(below) => {
                    let page = page_of(bytes, below);
                    let header = |root: u64| [root.to_le_bytes(), [0; 8]].concat();
                    let is_leaf = page[8] == LEAF.to_le_bytes()[0];
                    let value = if is_leaf && page.len() <= INLINE_MAX {
                        [header(0), page].concat()
                    } else {
                        header(put(bytes, page))
                    };
                    entries.push((u64::from(IS_BUCKET), key.clone(), value));
                }
            }
        }
        if entries.len() < 4 {
            return page(0, LEAF, &entries);
        }
        let (left, right) = entries.split_at(entries.len() / 2);
        let halves = [left, right].map(|it| {
            let number = put(bytes, page(0, LEAF, it));
            (number, it[0].1.clone(), Vec::new())
        });
        page(0, BRANCH, &halves)
    }

    /// A database with this in it.
    pub(crate) fn database(tree: &BTreeMap<Vec<u8>, Tree>) -> Vec<u8> {
        let mut bytes = vec![0; 2 * PAGE_SIZE_DEFAULT];
        let root = page_of(&mut bytes, tree);
        let root = put(&mut bytes, root);
        for (index, (transaction, root)) in [(7_u64, root), (6, 0)].into_iter().enumerate() {
            let mut body = Vec::new();
            for word in [MAGIC, VERSION, u32::try_from(PAGE_SIZE_DEFAULT).unwrap(), 0] {
                body.extend(word.to_le_bytes());
            }
            for word in [root, 0, 0, 0, transaction] {
                body.extend(word.to_le_bytes());
            }
            body.extend(fnv(&body).to_le_bytes());
            let at = index * PAGE_SIZE_DEFAULT + PAGE_HEADER;
            bytes[at..at + body.len()].copy_from_slice(&body);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Tree>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("meta.db");
        std::fs::write(&path, bytes)?;
        let database = Database::read(&path)?;
        all(database.root()?, 0)
    }

    fn all(bucket: Bucket<'_>, depth: usize) -> io::Result<BTreeMap<Vec<u8>, Tree>> {
        if depth > 8 {
            return Err(damaged("too deep for this test"));
        }
        let entries = bucket.entries()?.into_iter().map(|(key, entry)| {
            let tree = match entry {
                Entry::Value(value) => Tree::Value(value.to_vec()),
                Entry::Bucket(bucket) => Tree::Bucket(all(bucket, depth + 1)?),
            };
            Ok((key.to_vec(), tree))
        });
        entries.collect()
    }

    fn any_tree() -> impl Strategy<Value = BTreeMap<Vec<u8>, Tree>> {
        let key = || proptest::collection::vec(any::<u8>(), 1..20);
        let value = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Tree::Value);
        let tree = value.prop_recursive(3, 40, 8, move |inner| {
            proptest::collection::btree_map(key(), inner, 0..8).prop_map(Tree::Bucket)
        });
        proptest::collection::btree_map(key(), tree, 0..8)
    }

    proptest! {
        #[test]
        fn reads_what_was_written(tree in any_tree()) {
            let read = read(&database(&tree)).unwrap();
            prop_assert_eq!(format!("{read:?}"), format!("{tree:?}"));
        }

        #[test]
        fn damage_is_an_error(
            tree in any_tree(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = database(&tree);
            // Not in the meta pages, which have sums.
            let pages = bytes.len() - 2 * PAGE_SIZE_DEFAULT;
            for (at, byte) in changes {
                bytes[2 * PAGE_SIZE_DEFAULT + at.index(pages)] = byte;
            }
            // Whatever comes of it, it ends.
            drop(read(&bytes));
            bytes.truncate(length.index(bytes.len()));
            drop(read(&bytes));
        }
    }

    #[test]
    fn the_newer_whole_meta_page_counts() {
        let tree = BTreeMap::from([(b"key".to_vec(), Tree::Value(b"value".to_vec()))]);
        let mut bytes = database(&tree);
        assert_eq!(read(&bytes).unwrap().len(), 1);
        // The newer one was torn: what counts is the older one, which has nothing.
        bytes[PAGE_HEADER + 20] ^= 1;
        assert!(read(&bytes).is_err());
        bytes[PAGE_SIZE_DEFAULT + PAGE_HEADER] ^= 1;
        assert!(read(&bytes).unwrap_err().to_string().contains("no bolt database"));
    }
}
