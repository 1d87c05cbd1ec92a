//! Long lists, written while they are sent: no list is ever whole in memory, and its first items are
//! on their way while the last are not yet written.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _, future,
    stream::{self, BoxStream},
};
use store::Entry;

use super::render::Renderer;
use crate::{http::body::Body, limits::PIECE_BYTES};

/// Pieces that are being written at once, ahead of the one that is sent.
const AHEAD: usize = 2;

impl Renderer {
    /// Whether a list of these is long enough to be sent in pieces.
    pub(super) fn is_long(entries: &[Entry]) -> bool {
        entries.iter().map(|it| it.value.len()).sum::<usize>() > PIECE_BYTES
    }

    /// A list as a body: `head`, the entries as items, and the end.
    pub(super) fn in_pieces(self, head: String, entries: Vec<Entry>) -> Body {
        let head = stream::iter([Bytes::from(head)]);
        let end = stream::iter([Bytes::from_static(b"]}")]);
        Body::pieces(head.chain(without_first_comma(self.items(entries))).chain(end))
    }

    /// The items, each with a comma before it.
    fn items(self, entries: Vec<Entry>) -> BoxStream<'static, Bytes> {
        let entries: Arc<[Entry]> = entries.into();
        let pieces = stream::iter(ranges(&entries));
        let write = move |range: Range<usize>| {
            let mut text = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
            for Entry { value, .. } in entries.get(range).unwrap_or_default() {
                self.put_item(b",", value, &mut text);
            }
            Bytes::from(text)
        };
        if self.copies_items() {
            return pieces.map(write).boxed();
        }
        // What must be read to be written takes a processor a while: not one that serves others.
        let write = move |range| {
            let write = write.clone();
            tokio::task::spawn_blocking(move || write(range))
        };
        let written = pieces.map(write).buffered(AHEAD);
        // A piece is lost only by a panic, of which everybody has heard: the list ends there, and is no
        // list then.
        let whole = written.take_while(|it| future::ready(it.is_ok()));
        whole.filter_map(|it| future::ready(it.ok())).boxed()
    }
}

/// Where pieces of about the same size begin and end.
fn ranges(entries: &[Entry]) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, entry) in entries.iter().enumerate() {
        bytes += entry.value.len();
        if bytes >= PIECE_BYTES {
            ranges.push(start..index + 1);
            (start, bytes) = (index + 1, 0);
        }
    }
    ranges.push(start..entries.len());
    ranges
}

fn without_first_comma(
    pieces: impl Stream<Item = Bytes> + Send + 'static,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let mut begun = false;
    pieces.map(move |mut piece| {
        if !begun && !piece.is_empty() {
            begun = true;
            piece = piece.slice(1..);
        }
        piece
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use proptest::prelude::*;
    use store::{Entry, Revision};

    use super::*;

    fn entry(bytes: usize) -> Entry {
        let (key, revision) = (Bytes::from_static(b"k"), Revision::new(1));
        Entry { key, value: vec![0; bytes].into(), created: revision, modified: revision }
    }

    proptest! {
        #[test]
        fn pieces_are_everything_once(sizes in prop::collection::vec(0..3 * PIECE_BYTES, 0..12)) {
            let entries: Vec<Entry> = sizes.iter().map(|it| entry(*it)).collect();
            let ranges = ranges(&entries);
            let all: Vec<usize> = ranges.iter().flat_map(Clone::clone).collect();
            prop_assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            for range in ranges.iter().take(ranges.len() - 1) {
                let bytes: usize = entries[range.clone()].iter().map(|it| it.value.len()).sum();
                prop_assert!(bytes >= PIECE_BYTES);
            }
        }
    }

    #[tokio::test]
    async fn only_the_first_comma_goes() {
        let pieces = stream::iter(["", ",a,b", "", ",c"].map(Bytes::from));
        let pieces: Vec<Bytes> = without_first_comma(pieces).collect().await;
        assert_eq!(pieces.concat(), b"a,b,c");
    }
}
