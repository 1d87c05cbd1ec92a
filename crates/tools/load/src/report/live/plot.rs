//! The charts of the view: latency and rate over time, with their axes. Pure.

use crate::{
    report::numbers::{self, as_f64, as_u64},
    results::{Mode, Progress},
};

use super::{
    chart::{Dots, above},
    history::{History, Point},
    screen::{Ink, Screen, cut, doubt},
};

/// Columns of the labels to the left of a chart, with the axis.
pub(super) const LABEL: usize = 11;

/// What a chart is drawn from, and how large.
pub(super) struct Chart<'of> {
    pub(super) progress: &'of Progress<'of>,
    pub(super) history: &'of History,
    pub(super) window: &'of Window,
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Which seconds the charts show, and how wide each is.
pub(super) struct Window {
    from: usize,
    to: usize,
    dots: usize,
}

impl Screen {
    /// Latency over time, on a logarithmic scale: of each second from the median to p99, and the
    /// maximum as a dot above.
    pub(super) fn latency(&self, chart: &Chart<'_>) -> Vec<String> {
        let Chart { progress, history, window, columns, rows } = *chart;
        let label = " latency of each second: median to p99, and the maximum as a dot";
        let mut lines = vec![self.ink(Ink::Faint, &cut(label, columns + LABEL))];
        let mut dots = Dots::new(columns, rows);
        let points: Vec<_> = match doubt(progress) {
            Some(_) => Vec::new(),
            None => {
                window.points(history).filter_map(|it| Some((it.second, it.latency?))).collect()
            }
        };
        let least = points.iter().map(|(_, [p50, ..])| *p50).min();
        let most = points.iter().map(|(_, [.., max])| *max).max();
        let (Some(least), Some(most)) = (least, most) else {
            lines.extend(self.framed(&dots, &vec![String::new(); rows], Ink::Data));
            return lines;
        };
        let low = numbers::round_below(as_f64(least.max(1)));
        let high = numbers::round_above(as_f64(most.max(2))).max(low * 2.0);
        let top = dots.height() - 1;
        let height = |nanoseconds: u64| {
            let share = (as_f64(nanoseconds.max(1)) / low).ln() / (high / low).ln();
            usize::try_from(as_u64(share * as_f64(top as u64))).unwrap_or(top).min(top)
        };
        for (second, [p50, _, p99, _, max]) in points {
            for x in window.dots_of(second) {
                dots.column(x, height(p50), height(p99));
                dots.set(x, height(max));
            }
        }
        let mut labels = vec![String::new(); rows];
        for (row, label) in labels.iter_mut().enumerate() {
            // The value at the middle of a row, named if it is the first, the last or on a line of its
            // own between two rows.
            let share = as_f64((rows - 1 - row) as u64) / as_f64((rows - 1).max(1) as u64);
            if row == 0 || row + 1 == rows || row.is_multiple_of(2) {
                *label = numbers::time(as_u64(low * (high / low).powf(share)));
            }
        }
        lines.extend(self.framed(&dots, &labels, Ink::Data));
        lines
    }

    /// Requests per second over time: done as a filled area, meant as a line of dots.
    pub(super) fn rate(&self, chart: &Chart<'_>) -> Vec<String> {
        let Chart { progress, history, window, columns, rows } = *chart;
        let label = match progress.mode {
            Mode::Open => " requests per second: done filled, meant as a line",
            Mode::Closed => " requests per second",
        };
        let mut lines = vec![self.ink(Ink::Faint, &cut(label, columns + LABEL))];
        let mut dots = Dots::new(columns, rows);
        let most = window.points(history).map(|it| it.meant.max(it.done)).max().unwrap_or(0);
        let high = above(as_f64(most.max(1)));
        let top = dots.height();
        let height = |count: u64| {
            usize::try_from(as_u64(as_f64(count) / high * as_f64(top as u64)))
                .unwrap_or(top)
                .min(top)
        };
        for point in window.points(history) {
            for x in window.dots_of(point.second) {
                if let Some(to) = height(point.done).checked_sub(1) {
                    dots.column(x, 0, to);
                }
                if let (Some(y), Mode::Open) = (height(point.meant).checked_sub(1), progress.mode) {
                    dots.set(x, y);
                }
            }
        }
        let mut labels = vec![String::new(); rows];
        if let Some(first) = labels.first_mut() {
            *first = numbers::count(as_u64(high));
        }
        if let Some(last) = labels.last_mut() {
            "0".clone_into(last);
        }
        lines.extend(self.framed(&dots, &labels, Ink::Good));
        lines
    }

    /// A chart with its labels and its axis.
    fn framed(&self, dots: &Dots, labels: &[String], ink: Ink) -> Vec<String> {
        let width = LABEL - 2;
        let rows = dots.rows().zip(labels).map(|(row, label)| {
            let tick = if label.is_empty() { '│' } else { '┤' };
            let label = self.ink(Ink::Faint, &format!("{label:>width$} {tick}"));
            format!("{label}{}", self.ink(ink, row.trim_end()))
        });
        rows.collect()
    }
}

impl Window {
    /// Points inside of it.
    fn points<'history>(
        &self,
        history: &'history History,
    ) -> impl Iterator<Item = &'history Point> {
        let (from, to) = (self.from, self.to);
        history.points().iter().filter(move |it| (from..to).contains(&it.second))
    }

    /// The columns of dots of a second.
    fn dots_of(&self, second: usize) -> std::ops::Range<usize> {
        let x = second.saturating_sub(self.from) * self.dots;
        x..x + self.dots
    }
}

/// The whole run if it fits, else the last seconds that do.
pub(super) fn window(progress: &Progress<'_>, columns: usize) -> Window {
    let dots = columns * 2;
    let planned = usize::try_from(progress.planned.as_secs()).unwrap_or(usize::MAX);
    let seconds = planned.max(progress.seconds.len()).max(1);
    if seconds <= dots {
        return Window { from: 0, to: seconds, dots: dots / seconds };
    }
    let to = progress.seconds.len().max(dots);
    Window { from: to - dots, to, dots: 1 }
}

/// The axis of time below the charts.
pub(super) fn axis(window: &Window, columns: usize) -> String {
    let width = ((window.to - window.from) * window.dots / 2).min(columns);
    let (from, to) = (format!("{} s", window.from), format!("{} s", window.to));
    let gap = width.saturating_sub(from.chars().count() + to.chars().count()).max(1);
    format!("{}{from}{}{to}", " ".repeat(LABEL), " ".repeat(gap))
}
