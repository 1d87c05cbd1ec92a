//! What may become of a file's bytes while nobody looks: flipped bits, lost, doubled and moved blocks,
//! foreign bytes, a missing end. For tests of what is read back.

use proptest::{collection::vec, prelude::*, sample::Index};

/// One thing that happened to a file.
#[derive(Clone, Debug)]
pub(crate) enum Rot {
    /// Bits of a byte changed.
    Flip(Index, u8),
    /// Bytes were overwritten.
    Overwrite(Index, Vec<u8>),
    /// Bytes became zero, as in a block that was never written.
    Zero(Index, usize),
    /// Bytes went, and the rest moved up.
    Remove(Index, usize),
    /// Bytes came between.
    Insert(Index, Vec<u8>),
    /// Bytes of one place are at another as well.
    Copy(Index, Index, usize),
    /// The end went.
    Cut(Index),
    /// The file is something else altogether.
    Replace(Vec<u8>),
}

impl Rot {
    pub(crate) fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let at = |it: &Index| it.index(length + 1);
        let until = |at: usize, count: usize| (at + count).min(length);
        match self {
            Self::Flip(place, with) => {
                let at = place.index(length.max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= with;
                }
            }
            Self::Overwrite(place, with) => {
                let at = at(place);
                let end = until(at, with.len());
                bytes.splice(at..end, with.iter().copied());
            }
            Self::Zero(place, count) => {
                let at = at(place);
                let end = until(at, *count);
                bytes[at..end].fill(0);
            }
            Self::Remove(place, count) => {
                let at = at(place);
                let end = until(at, *count);
                bytes.drain(at..end);
            }
            Self::Insert(place, what) => {
                let at = at(place);
                bytes.splice(at..at, what.iter().copied());
            }
            Self::Copy(from, to, count) => {
                let (from, to) = (at(from), at(to));
                let what = bytes[from..until(from, *count)].to_vec();
                let end = until(to, what.len());
                bytes.splice(to..end, what);
            }
            Self::Cut(place) => bytes.truncate(at(place)),
            Self::Replace(with) => bytes.clone_from(with),
        }
    }
}

pub(crate) fn rot() -> impl Strategy<Value = Rot> {
    let place = any::<Index>;
    let some = || vec(any::<u8>(), 1..100);
    prop_oneof![
        4 => (place(), 1..=255_u8).prop_map(|(place, with)| Rot::Flip(place, with)),
        2 => (place(), some()).prop_map(|(place, with)| Rot::Overwrite(place, with)),
        2 => (place(), 1..600_usize).prop_map(|(place, count)| Rot::Zero(place, count)),
        2 => (place(), 1..600_usize).prop_map(|(place, count)| Rot::Remove(place, count)),
        2 => (place(), some()).prop_map(|(place, with)| Rot::Insert(place, with)),
        2 => (place(), place(), 1..600_usize)
            .prop_map(|(from, to, count)| Rot::Copy(from, to, count)),
        2 => place().prop_map(Rot::Cut),
        1 => vec(any::<u8>(), 0..200).prop_map(Rot::Replace),
    ]
}
