//! Sizes, ages and the progress of transfers, for people.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use ::image::{Bytes, Event};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

/// Digits of a digest that are shown, as Docker shows them.
pub(super) const HEX_DIGITS: usize = 12;

/// A number of bytes, in units of a thousand, as Docker has them.
pub(super) fn size(bytes: u64) -> String {
    Bytes(bytes).to_string()
}

/// How long ago something was.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// Shows parts of a transfer: a bar each on a terminal, else a line when one is done.
#[derive(Debug)]
pub(super) struct Parts {
    bars: Option<MultiProgress>,
    open: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Parts {
    /// On standard error.
    pub(super) fn start() -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, open: Mutex::default() }
    }

    /// Takes what happened.
    pub(super) fn note(&self, event: Event) {
        match event {
            // Each shows for itself.
            Event::Layers { .. } => {}
            Event::Present { part } => self.say(&format!("{}: here already", short(&part))),
            Event::Advanced { part, done, total } => self.advance(&part, done, total),
            Event::Finished { part } => {
                self.close(&part);
                self.say(&format!("{}: done", short(&part)));
            }
            Event::Retried { part, reason } => {
                self.say(&format!("{}: once more, as {reason}", short(&part)));
            }
        }
    }

    fn say(&self, text: &str) {
        match &self.bars {
            // A terminal that is gone needs no line.
            Some(bars) => bars.println(text).unwrap_or_default(),
            None => output::note(text),
        }
    }

    fn advance(&self, part: &str, done: u64, total: Option<u64>) {
        let Some(bars) = &self.bars else {
            return;
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = open.entry(part.to_owned()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total.unwrap_or_default()));
            let style = "{prefix} [{wide_bar}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(short(part));
            bar
        });
        bar.set_position(done);
    }

    fn close(&self, part: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = open.remove(part) {
            bar.finish_and_clear();
        }
    }
}

/// The beginning of a digest; a path as it is.
fn short(part: &str) -> String {
    let hex = part.strip_prefix("sha256:").or_else(|| part.strip_prefix("blobs/sha256/"));
    hex.map_or_else(|| part.to_owned(), |it| it.chars().take(HEX_DIGITS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_parts() {
        let ages = [5, 65, 7300, 200_000].map(|it| age(Duration::from_secs(it)));
        assert_eq!(ages, ["5s ago", "1m ago", "2h ago", "2d ago"]);
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("x/layer.tar"), "x/layer.tar");
    }
}
