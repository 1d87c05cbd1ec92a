//! Bytes that no client should send: commands and requests that are changed on their way, and noise.
//!
//! `PROPTEST_CASES` asks for more cases. What stands a test's first case stands all of them, so that
//! what one leaves behind meets the next.

mod lookupd;
mod requests;
mod speech;

use std::{fmt, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{TestError, TestRunner},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use crate::client::SOON;

/// How bytes are changed on their way.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |it: &Index| it.index(bytes.len() + 1);
        match self {
            Self::Flip(place, with) if !bytes.is_empty() => {
                let at = place.index(bytes.len());
                bytes[at] ^= with;
            }
            Self::Flip(..) => {}
            Self::Cut(place) => bytes.truncate(at(place)),
            Self::Remove(place, count) => {
                let at = at(place);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Insert(place, what) => {
                let at = at(place);
                bytes.splice(at..at, what.iter().copied());
            }
            Self::Repeat(place, count) => {
                let at = at(place);
                let what = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, what);
            }
        }
    }
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), 1..=255_u8).prop_map(|(place, with)| Change::Flip(place, with)),
        1 => place().prop_map(Change::Cut),
        2 => (place(), 1..20_usize).prop_map(|(place, count)| Change::Remove(place, count)),
        2 => (place(), vec(any::<u8>(), 1..8)).prop_map(|(place, it)| Change::Insert(place, it)),
        1 => (place(), 1..40_usize).prop_map(|(place, count)| Change::Repeat(place, count)),
    ]
}

/// Says it all in pieces of `piece` bytes, and no more; what is answered until that ends.
pub(super) async fn exchange(stream: TcpStream, bytes: &[u8], piece: usize) -> Vec<u8> {
    exchange_after(stream, bytes, piece, Duration::ZERO).await
}

/// The same, but it may have more to say until the answer begins, for so long.
pub(super) async fn exchange_after(
    mut stream: TcpStream,
    bytes: &[u8],
    piece: usize,
    patience: Duration,
) -> Vec<u8> {
    let (mut reader, mut writer) = stream.split();
    let mut said = Vec::new();
    let talk = async {
        for it in bytes.chunks(piece) {
            // It may have hung up already.
            if timeout(SOON, writer.write_all(it)).await.expect("nobody reads").is_err() {
                break;
            }
        }
        if !patience.is_zero() {
            drop(timeout(patience, reader.read_buf(&mut said)).await);
        }
        drop(writer.shutdown().await);
        // The end may be rude: what was said too much makes the kernel say so.
        drop(reader.read_to_end(&mut said).await);
    };
    timeout(2 * SOON, talk).await.expect("neither an answer nor an end");
    said
}

/// Tries a property. The smallest input that breaks it is told.
pub(super) fn hold<S>(case: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: fmt::Debug,
{
    // Without a file of what failed: the input is printed.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match TestRunner::new(config).run(case, test) {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\nby {input:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
