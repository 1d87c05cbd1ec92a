//! A run under way: on a terminal a view that is drawn over itself, elsewhere a plain line now and
//! then. It goes to standard error, so that a report can be piped on.
//!
//! The view is written in place with a few escape sequences, each frame in one write. It needs no other
//! screen, no raw mode and no hidden cursor, so nothing has to be restored however the process ends,
//! and what a library for whole screens would bring is not needed.

mod chart;
mod history;
mod lines;
mod plot;
mod screen;

use std::{
    io::{self, IsTerminal as _, Write as _},
    mem,
};

use crate::results::Progress;

use history::History;
use screen::Screen;

/// Size of a terminal that does not tell: the smallest that is common.
const SIZE: (usize, usize) = (80, 24);

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// In colour, if there is a terminal.
    Colour,
    /// Without colour: what `NO_COLOR` asks for.
    Plain,
}

/// Shows a run under way on standard error.
#[derive(Debug)]
pub struct Live {
    history: History,
    form: Form,
    /// Nobody reads any more.
    closed: bool,
}

/// Where it goes decides how it looks.
#[derive(Debug)]
enum Form {
    /// Drawn over itself.
    Screen {
        screen: Screen,
        /// Lines of the last frame, and the size of the terminal then.
        drawn: usize,
        size: (usize, usize),
    },
    /// A line now and then; after this many seconds the next.
    Lines { next: u64 },
}

impl Live {
    /// Begins; prints nothing yet. `targets` are shown as the user wrote them.
    #[must_use]
    pub fn new(targets: &[String], style: Style) -> Self {
        let form = if io::stderr().is_terminal() {
            let screen = Screen::new(targets.join(", "), style);
            Form::Screen { screen, drawn: 0, size: size() }
        } else {
            Form::Lines { next: 1 }
        };
        Self { history: History::default(), form, closed: false }
    }

    /// Shows how the run is doing.
    pub fn show(&mut self, progress: &Progress<'_>) {
        self.history.update(progress.seconds);
        let text = match &mut self.form {
            Form::Screen { screen, drawn, size: known } => {
                let now = size();
                let lines = screen.lines(progress, &self.history, now);
                let resized = mem::replace(known, now) != now;
                let text = frame(&lines, *drawn, resized);
                *drawn = lines.len();
                text
            }
            Form::Lines { next } => match lines::line(progress, &self.history, next) {
                Some(line) => line + "\n",
                None => return,
            },
        };
        self.write(&text);
    }

    /// Takes the view away, so that the report stands where it was. Lines stay.
    pub fn end(&mut self) {
        if let Form::Screen { drawn, .. } = &mut self.form {
            let text = frame(&[], mem::take(drawn), false);
            self.write(&text);
        }
    }

    /// Writes all at once: half a frame would flicker. When standard error is closed, nobody is left
    /// to be told, and the run goes on.
    fn write(&mut self, text: &str) {
        if !self.closed {
            let mut error = io::stderr().lock();
            self.closed = error.write_all(text.as_bytes()).and_then(|()| error.flush()).is_err();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let size = size.map(|it| (usize::from(it.ws_col), usize::from(it.ws_row)));
    size.ok().filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(SIZE)
}

/// Escape sequences and lines that replace the last frame. A terminal that was resized may have
/// broken lines anew, so that nobody knows where the last frame began: then all of it is cleared.
fn frame(lines: &[String], drawn: usize, resized: bool) -> String {
    // Synchronised output: a terminal that knows it shows the frame at once; others ignore it. No
    // automatic wrap: a name with wide letters must not add a line.
    let mut frame = "\x1b[?2026h\x1b[?7l".to_owned();
    if resized {
        frame.push_str("\x1b[2J\x1b[H");
    } else if drawn > 0 {
        frame.push_str(&format!("\x1b[{drawn}F"));
    }
    for line in lines {
        frame.push_str(line);
        frame.push_str("\x1b[K\n");
    }
    frame.push_str("\x1b[J\x1b[?7h\x1b[?2026l");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn frames_replace_each_other() {
        let lines = ["one".to_owned(), "two".to_owned()];
        let frames = [
            frame(&lines, 0, false),
            frame(&lines, 2, false),
            frame(&lines, 2, true),
            frame(&[], 2, false),
        ];
        expect![[r#"
            "\u{1b}[?2026h\u{1b}[?7lone\u{1b}[K\ntwo\u{1b}[K\n\u{1b}[J\u{1b}[?7h\u{1b}[?2026l"
            "\u{1b}[?2026h\u{1b}[?7l\u{1b}[2Fone\u{1b}[K\ntwo\u{1b}[K\n\u{1b}[J\u{1b}[?7h\u{1b}[?2026l"
            "\u{1b}[?2026h\u{1b}[?7l\u{1b}[2J\u{1b}[Hone\u{1b}[K\ntwo\u{1b}[K\n\u{1b}[J\u{1b}[?7h\u{1b}[?2026l"
            "\u{1b}[?2026h\u{1b}[?7l\u{1b}[2F\u{1b}[J\u{1b}[?7h\u{1b}[?2026l""#]].assert_eq(&frames.map(|it| format!("{it:?}")).join("\n"));
    }
}
