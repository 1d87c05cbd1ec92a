//! What stands before an entry and overrides its header: PAX records and GNU's long names.

use super::{Error, Time, sparse::Words};

/// Overrides of one entry. What is not set stands in the header.
#[derive(Debug, Default)]
pub(super) struct Extension {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) time: Option<Time>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Words,
}

impl Extension {
    /// PAX overrides GNU, which comes in entries of its own.
    pub(super) fn set_long_name(&mut self, name: Vec<u8>) {
        self.name.get_or_insert_with(|| until_nul(name));
    }

    pub(super) fn set_long_link(&mut self, link: Vec<u8>) {
        self.link.get_or_insert_with(|| until_nul(link));
    }

    /// Records are `LENGTH KEY=VALUE\n`, the length counting all of it.
    pub(super) fn read_pax(&mut self, mut records: &[u8]) -> Result<(), Error> {
        const BAD: Error = Error::Field("PAX record");
        while !records.is_empty() {
            let space = records.iter().position(|it| *it == b' ').ok_or(BAD)?;
            let length = records.get(..space).and_then(decimal).ok_or(BAD)?;
            let length = usize::try_from(length).map_err(|_| BAD)?;
            let record = records.get(space + 1..length).ok_or(BAD)?;
            let record = record.strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|it| *it == b'=').ok_or(BAD)?;
            let (key, value) = record.split_at(equals);
            self.set(key, value.get(1..).unwrap_or_default())?;
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let number = |what| decimal(value).ok_or(Error::Field(what));
        match key {
            // An empty value takes an override back.
            b"path" => self.name = Some(value.to_vec()).filter(|it| !it.is_empty()),
            b"linkpath" => self.link = Some(value.to_vec()).filter(|it| !it.is_empty()),
            b"size" => self.size = Some(number("size")?),
            b"uid" => self.uid = Some(number("owner")?),
            b"gid" => self.gid = Some(number("group")?),
            b"mtime" => self.time = Some(time(value).ok_or(Error::Field("time"))?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                } else if let Some(word) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.set(word, value)?;
                }
            }
        }
        Ok(())
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|it| *it == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

/// A number that fits a file's size.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: u64 = text.bytes().all(|it| it.is_ascii_digit()).then(|| text.parse().ok())??;
    i64::try_from(number).is_ok().then_some(number)
}

/// `-1.5` is half a second after -2: nanoseconds count upward.
fn time(text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds != 0 {
        let nanoseconds = 1_000_000_000 - nanoseconds;
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}
