//! What time it is, and how it is written.
//!
//! The shim depends on none of our crates, so it asks the kernel itself; nothing in it decides by
//! the wall clock.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

/// A moment of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        Self(duration(now))
    }

    /// The moment so many milliseconds later; the end of time if that is too far.
    pub(crate) fn after_ms(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(Duration::from_millis(milliseconds)))
    }

    /// How long to wait from `now` until this moment.
    pub(crate) fn since(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Wall-clock time now, RFC 3339 in UTC with nanoseconds, as in CRI logs.
pub(crate) fn now() -> String {
    format(duration(rustix::time::clock_gettime(ClockId::Realtime)))
}

/// A time after 1970-01-01.
fn format(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since_epoch.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The Gregorian date so many days after 1970-01-01: Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> (u64, u64, u64) {
    // Count from 0000-03-01, so that a leap day is the last of its year.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(seconds: u64, nanos: u32, expected: Expect) {
        expected.assert_eq(&format(Duration::new(seconds, nanos)));
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        check(0, 0, expect!["1970-01-01T00:00:00.000000000Z"]);
        check(951_782_400, 1, expect!["2000-02-29T00:00:00.000000001Z"]);
        check(1_709_251_199, 999_999_999, expect!["2024-02-29T23:59:59.999999999Z"]);
        check(4_107_542_399, 0, expect!["2100-02-28T23:59:59.000000000Z"]);
        check(4_107_542_400, 0, expect!["2100-03-01T00:00:00.000000000Z"]);
    }
}
