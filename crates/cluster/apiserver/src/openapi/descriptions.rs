//! What types and fields are for, as published. Compressed in the program; unpacked for the time
//! that a document is made.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    ops::Range,
};

use flate2::read::DeflateDecoder;

/// Written by the build script.
pub(super) static COMPRESSED: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));

/// Before each type, before each field of it, and between a name and its description.
const TYPE: char = '\x1e';
const FIELD: char = '\x1f';
const DESCRIPTION: char = '\x1d';

/// All descriptions.
pub(super) struct Descriptions {
    text: String,
    types: HashMap<String, Range<usize>>,
}

impl Descriptions {
    pub(super) fn read() -> io::Result<Self> {
        let mut text = String::new();
        DeflateDecoder::new(COMPRESSED).read_to_string(&mut text)?;
        let mut types = HashMap::new();
        let mut start = 0;
        for part in text.split(TYPE) {
            let end = start + part.len();
            let name = part.split(DESCRIPTION).next().unwrap_or_default();
            types.insert(name.to_owned(), start..end);
            start = end + TYPE.len_utf8();
        }
        Ok(Self { text, types })
    }

    /// What a type is for.
    pub(super) fn of_type(&self, name: &str) -> Option<&str> {
        self.parts(name)?.next().filter(|it| !it.is_empty())
    }

    /// What each field of a type is for that says so.
    pub(super) fn of_fields(&self, name: &str) -> HashMap<&str, &str> {
        let parts = self.parts(name).into_iter().flatten().skip(1);
        parts.filter_map(|it| it.split_once(DESCRIPTION)).collect()
    }

    /// The description of a type, then its fields.
    fn parts(&self, name: &str) -> Option<impl Iterator<Item = &str>> {
        let text = self.text.get(self.types.get(name)?.clone())?;
        let (_, text) = text.split_once(DESCRIPTION)?;
        Some(text.split(FIELD))
    }
}
