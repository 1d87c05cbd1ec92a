//! Log files to what a reader asked for: the CRI format
//! (`<RFC 3339 time> stdout|stderr F|P <text>`), since when, with time stamps or not, how much.
//! <https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md>
//!
//! Sans-IO: takes bytes of files in their order, gives bytes of the answer.

use jiff::Timestamp;

/// Longest record: the shim cuts longer lines into partial records of 16 KiB. A longer one is not
/// from it, and is passed on in pieces rather than kept.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// What to keep of each record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Format {
    /// Leave out what is older.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Reads records, writes lines.
#[derive(Debug)]
pub(crate) struct Formatter {
    format: Format,
    /// The beginning of a record whose end has not been read.
    rest: Vec<u8>,
    /// The last record was partial: the next one goes on with its line.
    within_line: bool,
    written: u64,
}

impl Formatter {
    /// At the beginning of a line.
    #[must_use]
    pub(crate) fn new(format: Format) -> Self {
        Self { format, rest: Vec::new(), within_line: false, written: 0 }
    }

    /// Whether the limit is reached: nothing more will come.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.format.limit_bytes.is_some_and(|it| it <= self.written)
    }

    /// Takes the next bytes of the files, appends to `output`.
    pub(crate) fn feed(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        let start = output.len();
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|it| *it == b'\n') {
            let (record, after) = bytes.split_at(end + 1);
            bytes = after;
            if self.rest.is_empty() {
                self.record(record, output);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(record);
                self.record(&whole, output);
            }
        }
        self.rest.extend_from_slice(bytes);
        if RECORD_BYTES_MAX < self.rest.len() {
            let piece = std::mem::take(&mut self.rest);
            output.extend_from_slice(&piece);
        }
        self.limit(start, output);
    }

    /// One record with its line end.
    fn record(&mut self, record: &[u8], output: &mut Vec<u8>) {
        let Some(record) = Record::parse(record) else {
            // Not from the shim; better shown than hidden.
            output.extend_from_slice(record);
            return;
        };
        let old = self.format.since.is_some_and(|since| record.is_before(since));
        if !old {
            if self.format.timestamps && !self.within_line {
                output.extend_from_slice(record.time);
                output.push(b' ');
            }
            let text = if record.partial { record.text } else { record.text_and_end };
            output.extend_from_slice(text);
        }
        self.within_line = record.partial && !old;
    }

    fn limit(&mut self, start: usize, output: &mut Vec<u8>) {
        let new = u64::try_from(output.len() - start).unwrap_or(u64::MAX);
        let left = self.format.limit_bytes.map_or(u64::MAX, |it| it.saturating_sub(self.written));
        if left < new {
            output.truncate(start + usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.written += new.min(left);
    }
}

struct Record<'a> {
    time: &'a [u8],
    partial: bool,
    text: &'a [u8],
    text_and_end: &'a [u8],
}

impl<'a> Record<'a> {
    /// `record` ends with a line feed.
    fn parse(record: &'a [u8]) -> Option<Self> {
        let (time, rest) = word(record)?;
        let (stream, rest) = word(rest)?;
        let (tags, text_and_end) = word(rest)?;
        if !matches!(stream, b"stdout" | b"stderr") {
            return None;
        }
        let partial = match tags.first()? {
            b'F' => false,
            b'P' => true,
            _ => return None,
        };
        let text = text_and_end.strip_suffix(b"\n").unwrap_or(text_and_end);
        Some(Self { time, partial, text, text_and_end })
    }

    fn is_before(&self, since: Timestamp) -> bool {
        let time = std::str::from_utf8(self.time).ok().and_then(|it| it.parse::<Timestamp>().ok());
        time.is_some_and(|it| it < since)
    }
}

fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|it| *it == b' ')?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "2026-11-21T15:00:00.000000001Z stdout F one\n\
        2026-11-21T15:00:01Z stderr P tw\n\
        2026-11-21T15:00:01.5Z stderr F o\n\
        2026-11-21T15:00:02Z stdout F \n\
        2026-11-21T15:00:03Z stdout F three words here\n";

    fn format(format: Format) -> String {
        let mut output = Vec::new();
        Formatter::new(format).feed(FILE.as_bytes(), &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn lines_without_their_marks() {
        assert_eq!(format(Format::default()), "one\ntwo\n\nthree words here\n");
    }

    #[test]
    fn timestamps_since_and_limit() {
        let timestamps = Format { timestamps: true, ..Format::default() };
        assert_eq!(
            format(timestamps),
            "2026-11-21T15:00:00.000000001Z one\n2026-11-21T15:00:01Z two\n\
             2026-11-21T15:00:02Z \n2026-11-21T15:00:03Z three words here\n"
        );
        let since = Some("2026-11-21T15:00:02Z".parse().unwrap());
        assert_eq!(format(Format { since, ..Format::default() }), "\nthree words here\n");
        let limited = Format { limit_bytes: Some(5), ..Format::default() };
        assert_eq!(format(limited), "one\nt");
        let mut formatter = Formatter::new(limited);
        formatter.feed(FILE.as_bytes(), &mut Vec::new());
        assert!(formatter.is_full());
    }

    #[test]
    fn what_is_no_record_is_shown() {
        let mut output = Vec::new();
        Formatter::new(Format::default()).feed(b"garbage\nx y z\n", &mut output);
        assert_eq!(output, b"garbage\nx y z\n");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in prop::collection::vec(0..FILE.len(), 0..6), limit in 0..40_u64) {
            let format = Format { timestamps: true, limit_bytes: Some(limit), ..Format::default() };
            let mut whole = Vec::new();
            Formatter::new(format).feed(FILE.as_bytes(), &mut whole);
            let mut cuts = cuts;
            cuts.extend([0, FILE.len()]);
            cuts.sort_unstable();
            let mut formatter = Formatter::new(format);
            let mut pieces = Vec::new();
            for pair in cuts.windows(2) {
                formatter.feed(&FILE.as_bytes()[pair[0]..pair[1]], &mut pieces);
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
