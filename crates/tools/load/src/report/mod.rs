//! What a run measured, for people and for machines: [`text`] and [`Live`] on a terminal, [`json`]
//! and [`log`](log()) for other programs, [`html`](html()) for
//! whoever was not there, [`compare`] for two runs.
//!
//! None of them prints a percentile that [`Results::doubts`] says to withhold. They measure nothing
//! and know no clock.
//!
//! [`Results::doubts`]: crate::results::Results::doubts

pub mod compare;
mod doubts;
mod html;
mod live;
mod log;
mod numbers;
mod stretch;
mod text;
pub mod wire;

pub use html::{comparison, html};
pub use live::{Live, Style};
pub use log::{LogError, log};
pub use text::{text, verdicts};
pub use wire::json;

use std::time::Duration;

use crate::results::Times;

/// The quantiles that every report shows, with the names that it gives them. The maximum stands
/// beside them: it is no estimate.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];

/// Quantiles and maximum in nanoseconds, as the histogram has them; none of an empty one.
fn quantiles(times: &Times) -> Option<[u64; 5]> {
    if times.is_empty() {
        return None;
    }
    let [p50, p90, p99, p999] = QUANTILES.map(|(_, quantile)| times.value_at_quantile(quantile));
    Some([p50, p90, p99, p999, times.max()])
}

/// So much per second, on average over a time.
fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { numbers::as_f64(count) / time.as_secs_f64() }
}
