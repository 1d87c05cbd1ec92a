//! An HTTP/1.1 answer, byte by byte as it comes: head, body by its length, in chunks or until the
//! end of the connection. Does no IO (RFC 9112).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::exchange::{BODY_MAX, Keep, Response};

/// How long a head may be: what common servers and proxies send at most, with room.
const HEAD_MAX: usize = 64 * 1024;
/// Headers of one answer.
const HEADERS_MAX: usize = 128;
/// A chunk's size line with its extensions, or a line of the trailer.
const LINE_MAX: usize = 8 * 1024;

/// What the protocol does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("malformed head: {0}")]
    Head(httparse::Error),
    #[error("a head of more than {HEAD_MAX} bytes")]
    HeadTooLong,
    #[error("malformed content-length")]
    Length,
    #[error("a transfer-encoding other than chunked")]
    Encoding,
    #[error("malformed chunk")]
    Chunk,
    #[error("status 101, which nobody asked for")]
    Upgrade,
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Answer {
    state: State,
    is_head_request: bool,
    keep: Keep,
    /// The beginning of a head that came in pieces.
    partial: Vec<u8>,
    response: Response,
    body: BytesMut,
    persistent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of body are left.
    Length(u64),
    /// Digits of a chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// The rest of a size line of so many bytes so far.
    Extension {
        size: u64,
        length: usize,
    },
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Lines after the last chunk; how long this one is so far.
    Trailer(usize),
    /// All until the connection ends.
    UntilEnd,
    Whole,
}

impl Answer {
    pub(super) fn new(method: &Method, keep: Keep) -> Self {
        Self {
            state: State::Head,
            is_head_request: *method == Method::HEAD,
            keep,
            partial: Vec::new(),
            response: Response::default(),
            body: BytesMut::new(),
            persistent: false,
        }
    }

    /// Takes what came; says how much of it belongs to this answer, which is all unless it is whole.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Whole {
            let used = match self.state {
                State::Head => self.head(rest)?,
                State::Length(left) => {
                    let (used, left) = self.take(rest, left);
                    self.state = if left == 0 { State::Whole } else { State::Length(left) };
                    used
                }
                State::Chunk(left) => {
                    let (used, left) = self.take(rest, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    used
                }
                State::UntilEnd => self.take(rest, u64::MAX).0,
                State::Size { .. }
                | State::Extension { .. }
                | State::ChunkEnd
                | State::Trailer(_) => {
                    self.state = between(self.state, rest.first().copied().unwrap_or_default())?;
                    1
                }
                State::Whole => 0,
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Takes the end of the connection; says whether the answer is whole.
    pub(super) fn end(&mut self) -> bool {
        if self.state == State::UntilEnd {
            self.state = State::Whole;
        }
        self.state == State::Whole
    }

    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Whole
    }

    /// Whether the connection may be used again, once the answer is whole.
    pub(super) const fn is_persistent(&self) -> bool {
        self.persistent
    }

    pub(super) fn into_response(self) -> Response {
        Response { body: self.body.freeze(), ..self.response }
    }

    /// Takes a part of the body; says how much, and how much is left then.
    fn take(&mut self, bytes: &[u8], left: u64) -> (usize, u64) {
        let used = usize::try_from(left).map_or(bytes.len(), |it| it.min(bytes.len()));
        if self.keep.body {
            let room = BODY_MAX.saturating_sub(self.body.len());
            self.body.extend_from_slice(bytes.get(..used.min(room)).unwrap_or_default());
        }
        (used, left - used as u64)
    }

    /// Takes a head, whole or not.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if self.partial.is_empty() {
            let Some(length) = self.parse(bytes)? else {
                return self.keep_partial(bytes);
            };
            return Ok(length);
        }
        let before = self.partial.len();
        self.keep_partial(bytes)?;
        let whole = std::mem::take(&mut self.partial);
        if let Some(length) = self.parse(&whole)? {
            return Ok(length.saturating_sub(before));
        }
        self.partial = whole;
        Ok(bytes.len())
    }

    fn keep_partial(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if self.partial.len() + bytes.len() > HEAD_MAX {
            return Err(Error::HeadTooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Parses a head, and goes on to what follows it. `None`: it is not whole.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let parsed = config.parse_response_with_uninit_headers(&mut head, bytes, &mut headers);
        let httparse::Status::Complete(length) = parsed.map_err(Error::Head)? else {
            return Ok(None);
        };
        let status = head.code.unwrap_or_default();
        if status == 101 {
            return Err(Error::Upgrade);
        }
        if (100..200).contains(&status) {
            // Not the answer yet, only word that it will come.
            return Ok(Some(length));
        }
        let framing = Framing::read(head.headers, head.version == Some(1))?;
        self.persistent = framing.persistent;
        self.state = self.after_head(status, &framing);
        if self.state == State::UntilEnd {
            self.persistent = false;
        }
        self.response.status = status;
        if self.keep.headers {
            self.response.headers = map(head.headers);
        }
        Ok(Some(length))
    }

    /// What follows a head (RFC 9112, 6.3).
    const fn after_head(&self, status: u16, framing: &Framing) -> State {
        if self.is_head_request || status == 204 || status == 304 {
            return State::Whole;
        }
        match (framing.chunked, framing.length) {
            (true, _) => State::Size { size: 0, digits: 0 },
            (false, Some(0)) => State::Whole,
            (false, Some(length)) => State::Length(length),
            (false, None) => State::UntilEnd,
        }
    }
}

/// The byte after which comes what, between chunks.
fn between(state: State, byte: u8) -> Result<State, Error> {
    /// More digits do not fit 64 bits.
    const DIGITS_MAX: u8 = 16;
    match (state, byte) {
        (State::Size { size, digits: 1.. }, b'\n') | (State::Extension { size, .. }, b'\n') => {
            Ok(if size == 0 { State::Trailer(0) } else { State::Chunk(size) })
        }
        (State::Size { size, digits: 1.. }, b'\r' | b';' | b' ' | b'\t') => {
            Ok(State::Extension { size, length: 0 })
        }
        (State::Size { size, digits: digits @ ..DIGITS_MAX }, _) => {
            let digit = char::from(byte).to_digit(16).ok_or(Error::Chunk)?;
            Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
        }
        (State::Extension { size, length: length @ ..LINE_MAX }, _) => {
            Ok(State::Extension { size, length: length + 1 })
        }
        (State::ChunkEnd | State::Trailer(_), b'\r') => Ok(state),
        (State::ChunkEnd, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
        (State::Trailer(0), b'\n') => Ok(State::Whole),
        (State::Trailer(_), b'\n') => Ok(State::Trailer(0)),
        (State::Trailer(length @ ..LINE_MAX), _) => Ok(State::Trailer(length + 1)),
        _ => Err(Error::Chunk),
    }
}

/// What a head says about the body and the connection.
struct Framing {
    length: Option<u64>,
    chunked: bool,
    persistent: bool,
}

impl Framing {
    fn read(headers: &[httparse::Header<'_>], is_version_11: bool) -> Result<Self, Error> {
        let mut this = Self { length: None, chunked: false, persistent: is_version_11 };
        for header in headers {
            let name = header.name;
            // The length of the name rules out most headers without comparing.
            match name.len() {
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let length = length(header.value)?;
                    if this.length.is_some_and(|it| it != length) {
                        return Err(Error::Length);
                    }
                    this.length = Some(length);
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Error::Encoding);
                    }
                    this.chunked = true;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    let has = |word: &[u8]| {
                        let mut words = header.value.split(|it| *it == b',');
                        words.any(|it| it.trim_ascii().eq_ignore_ascii_case(word))
                    };
                    this.persistent = !has(b"close") && (is_version_11 || has(b"keep-alive"));
                }
                _ => {}
            }
        }
        Ok(this)
    }
}

fn length(value: &[u8]) -> Result<u64, Error> {
    let digits = value.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(Error::Length);
    }
    str::from_utf8(digits).ok().and_then(|it| it.parse().ok()).ok_or(Error::Length)
}

fn map(headers: &[httparse::Header<'_>]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(header.value));
        // The parser has let pass only what both types allow.
        if let (Ok(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const ALL: Keep = Keep { headers: true, body: true };

    /// Feeds pieces of `size` bytes.
    fn feed(method: &Method, text: &[u8], size: usize) -> String {
        let mut answer = Answer::new(method, ALL);
        let mut used = 0;
        for piece in text.chunks(size) {
            match answer.feed(piece) {
                Ok(it) => used += it,
                Err(error) => return format!("error: {error}"),
            }
            if answer.is_whole() {
                break;
            }
        }
        let ended = if answer.is_whole() { "whole" } else { "unfinished" };
        let at_end = answer.end();
        let persistent = answer.is_persistent();
        let response = answer.into_response();
        format!(
            "{} {:?} {ended}, at end: {at_end}, persistent: {persistent}, left: {}",
            response.status,
            String::from_utf8_lossy(&response.body),
            text.len() - used
        )
    }

    fn check(text: &str, expected: Expect) {
        let whole = feed(&Method::GET, text.as_bytes(), usize::MAX);
        for size in [1, 2, 7] {
            assert_eq!(feed(&Method::GET, text.as_bytes(), size), whole, "pieces of {size}");
        }
        expected.assert_eq(&whole);
    }

    #[test]
    fn body_ends_after_its_length() {
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            expect![[r#"200 "hello" whole, at end: true, persistent: true, left: 0"#]],
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: foo, Close\r\n\r\n",
            expect![[r#"200 "" whole, at end: true, persistent: false, left: 0"#]],
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            expect![[r#"200 "hello" unfinished, at end: false, persistent: true, left: 0"#]],
        );
    }

    #[test]
    fn what_follows_is_not_taken() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1";
        assert!(feed(&Method::GET, text, usize::MAX).ends_with("left: 8"));
    }

    #[test]
    fn chunks() {
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n\
             4;x=y\r\nwiki\r\n00A\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
            expect![[r#"200 "wiki0123456789" whole, at end: true, persistent: true, left: 0"#]],
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            expect!["error: malformed chunk"],
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11112222333344445\r\n",
            expect!["error: malformed chunk"],
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabX",
            expect!["error: malformed chunk"],
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            expect!["error: a transfer-encoding other than chunked"],
        );
    }

    #[test]
    fn without_a_length_the_end_is_the_end() {
        check(
            "HTTP/1.1 200 OK\r\n\r\nhello",
            expect![[r#"200 "hello" unfinished, at end: true, persistent: false, left: 0"#]],
        );
    }

    #[test]
    fn old_version_keeps_only_when_it_says_so() {
        check(
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            expect![[r#"200 "" whole, at end: true, persistent: false, left: 0"#]],
        );
        check(
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
            expect![[r#"200 "" whole, at end: true, persistent: true, left: 0"#]],
        );
    }

    #[test]
    fn no_body_after_some_statuses_and_methods() {
        check(
            "HTTP/1.1 204 No Content\r\n\r\n",
            expect![[r#"204 "" whole, at end: true, persistent: true, left: 0"#]],
        );
        check(
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            expect![[r#"304 "" whole, at end: true, persistent: true, left: 0"#]],
        );
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
        assert!(feed(&Method::HEAD, text, 3).starts_with("200 \"\" whole"));
    }

    #[test]
    fn informational_heads_are_passed_over() {
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n\
             HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx",
            expect![[r#"201 "x" whole, at end: true, persistent: true, left: 0"#]],
        );
        check(
            "HTTP/1.1 101 Switching\r\n\r\n",
            expect!["error: status 101, which nobody asked for"],
        );
    }

    #[test]
    fn nonsense_is_refused() {
        check("SSH-2.0-OpenSSH\r\n\r\n", expect!["error: malformed head: invalid HTTP version"]);
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            expect!["error: malformed content-length"],
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            expect!["error: malformed content-length"],
        );
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(HEAD_MAX));
        let mut answer = Answer::new(&Method::GET, ALL);
        assert_eq!(answer.feed(endless.as_bytes()), Err(Error::HeadTooLong));
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello";
        let mut answer = Answer::new(&Method::GET, Keep::default());
        assert_eq!(answer.feed(text), Ok(text.len()));
        let response = answer.into_response();
        assert_eq!((response.headers.len(), response.body.len()), (0, 0));

        let long = BODY_MAX + 10;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {long}\r\nA: b\r\n\r\n");
        let mut answer = Answer::new(&Method::GET, ALL);
        answer.feed(head.as_bytes()).unwrap();
        answer.feed(&vec![b'x'; long]).unwrap();
        assert!(answer.is_whole());
        let response = answer.into_response();
        assert_eq!((response.headers["a"].as_bytes(), response.body.len()), (&b"b"[..], BODY_MAX));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, size in 1usize..50) {
            feed(&Method::GET, &[b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat(), size);
        }

        #[test]
        fn any_chunks_come_back(chunks in prop::collection::vec("[a-z]{1,40}", 0..8), size in 1usize..50) {
            let mut text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
            for chunk in &chunks {
                text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
            }
            text.push_str("0\r\n\r\n");
            let read = feed(&Method::GET, text.as_bytes(), size);
            let expected = format!("200 {:?} whole", chunks.concat());
            prop_assert!(read.starts_with(&expected), "{read}");
        }
    }
}
