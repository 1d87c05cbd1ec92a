//! Times as the original reads and writes them: what Go's `time.Parse` takes for RFC 3339, with its
//! words for what it does not, and the two ways in which `metav1.Time` and `metav1.MicroTime` are
//! printed.
//!
//! Not the times that this program works with: those are jiff's, which end on the last day but one of
//! the year 9999, and people write the very last second for what never ends.

/// Seconds of a day.
const DAY: i64 = 86_400;
/// Digits of a fraction that count: nanoseconds. More are read and say nothing.
const FRACTION_DIGITS: usize = 9;
/// Years that have four digits, and so can be read again.
const YEARS: std::ops::RangeInclusive<i64> = 0..=9999;

/// Which of the original's types a time is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// `metav1.Time`.
    Seconds,
    /// `metav1.MicroTime`.
    Micros,
}

impl Precision {
    /// How Go describes it.
    const fn layout(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// A moment between the years 0 and 9999 in UTC, without leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    /// Since 1970; before it, negative.
    seconds: i64,
    nanos: u32,
}

impl Moment {
    /// The moment so many seconds and nanoseconds after the beginning of 1970; none if its year has not
    /// four digits.
    pub(crate) fn new(seconds: i64, nanos: u32) -> Option<Self> {
        let (year, ..) = date(seconds.div_euclid(DAY));
        (YEARS.contains(&year) && nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// Seconds since 1970.
    pub(crate) const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Microseconds of the second.
    pub(crate) const fn micros(self) -> u32 {
        self.nanos / 1_000
    }

    /// Reads a time. Fails with Go's words, and where a time zone leads out of the years that can be
    /// written, with those of its encoder.
    pub(crate) fn parse(text: &str, precision: Precision) -> Result<Self, String> {
        let mut reader = Reader { text, rest: text.as_bytes(), layout: precision.layout() };
        let moment = reader.moment(precision)?;
        Self::new(moment.seconds, moment.nanos)
            .ok_or_else(|| "Time.MarshalJSON: year outside of range [0,9999]".to_owned())
    }

    /// Whether this is the zero of Go's type, which is written as `null`.
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == days(1, 1, 1) * DAY && self.nanos == 0
    }

    /// As JSON has it, in UTC.
    pub(crate) fn print(self, precision: Precision) -> String {
        let (year, month, day) = date(self.seconds.div_euclid(DAY));
        let second = self.seconds.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let fraction = match precision {
            Precision::Seconds => String::new(),
            Precision::Micros => format!(".{:06}", self.micros()),
        };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
    }
}

/// Days from the beginning of 1970 to a day of the Gregorian calendar, by its years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day - 719_468
}

/// Year, month and day of a day counted from the beginning of 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

const fn days_in(month: i64, year: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// What is left of a text, and what it is read by.
struct Reader<'a> {
    text: &'a str,
    rest: &'a [u8],
    layout: &'static str,
}

impl Reader<'_> {
    fn moment(&mut self, precision: Precision) -> Result<Moment, String> {
        let year = self.digits("2006", 4, 4)?;
        self.literal("-")?;
        let month = self.number("01", 2, 1..=12, "month")?;
        self.literal("-")?;
        let day = self.digits("02", 2, 2)?;
        self.literal("T")?;
        // Go takes an hour of one digit.
        let hour = self.number("15", 1, 0..=23, "hour")?;
        self.literal(":")?;
        let minute = self.number("04", 2, 0..=59, "minute")?;
        self.literal(":")?;
        let second = self.number("05", 2, 0..=59, "second")?;
        let nanos = match precision {
            Precision::Seconds => self.any_fraction(),
            Precision::Micros => self.micros()?,
        };
        let offset = self.zone()?;
        if !self.rest.is_empty() {
            return Err(self.wrong(&format!(": extra text: {}", self.quoted_rest())));
        }
        if !(1..=days_in(month, year)).contains(&day) {
            return Err(self.wrong(": day out of range"));
        }
        let seconds = days(year, month, day) * DAY + hour * 3_600 + minute * 60 + second;
        Ok(Moment { seconds: seconds - offset, nanos })
    }

    fn wrong(&self, what: &str) -> String {
        format!("parsing time {}{what}", quote(self.text.as_bytes()))
    }

    /// What stands here is not what `element` of the layout asks for.
    fn unreadable(&self, element: &str) -> String {
        let (layout, rest) = (quote(self.layout.as_bytes()), self.quoted_rest());
        let element = quote(element.as_bytes());
        self.wrong(&format!(" as {layout}: cannot parse {rest} as {element}"))
    }

    fn quoted_rest(&self) -> String {
        quote(self.rest)
    }

    fn literal(&mut self, text: &str) -> Result<(), String> {
        match self.rest.strip_prefix(text.as_bytes()) {
            Some(rest) => self.rest = rest,
            None => return Err(self.unreadable(text)),
        }
        Ok(())
    }

    /// A number of at least so many digits and at most so many.
    fn digits(&mut self, element: &str, least: usize, most: usize) -> Result<i64, String> {
        let digits = self.rest.iter().take(most).take_while(|it| it.is_ascii_digit()).count();
        if digits < least {
            return Err(self.unreadable(element));
        }
        Ok(self.take(digits))
    }

    fn number(
        &mut self,
        element: &str,
        least: usize,
        range: std::ops::RangeInclusive<i64>,
        name: &str,
    ) -> Result<i64, String> {
        let number = self.digits(element, least, 2)?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(self.wrong(&format!(": {name} out of range")))
        }
    }

    /// Takes digits that are there.
    fn take(&mut self, count: usize) -> i64 {
        let (digits, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        digits.iter().fold(0, |number, it| number * 10 + i64::from(it.wrapping_sub(b'0')))
    }

    /// How many digits stand behind a point or comma here; none if there is no such thing.
    fn fraction_digits(&self) -> usize {
        match self.rest {
            [b'.' | b',', digits @ ..] => {
                digits.iter().take_while(|it| it.is_ascii_digit()).count()
            }
            _ => 0,
        }
    }

    /// A fraction that the layout does not ask for.
    fn any_fraction(&mut self) -> u32 {
        match self.fraction_digits() {
            0 => 0,
            digits => self.fraction(digits),
        }
    }

    /// Six digits, no more and no less.
    fn micros(&mut self) -> Result<u32, String> {
        const DIGITS: usize = 6;
        if self.fraction_digits() < DIGITS {
            return Err(self.unreadable(".000000"));
        }
        Ok(self.fraction(DIGITS))
    }

    /// Nanoseconds of a point and so many digits behind it.
    fn fraction(&mut self, digits: usize) -> u32 {
        let counted = digits.min(FRACTION_DIGITS);
        let (_, rest) = self.rest.split_at(1);
        self.rest = rest;
        let value = (counted..FRACTION_DIGITS).fold(self.take(counted), |value, _| value * 10);
        self.take(digits - counted);
        u32::try_from(value).unwrap_or_default()
    }

    /// Seconds east of Greenwich.
    fn zone(&mut self) -> Result<i64, String> {
        const ELEMENT: &str = "Z07:00";
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Ok(0);
        }
        let (sign, [a, b], [c, d], rest) = match self.rest {
            [sign, a, b, b':', c, d, rest @ ..] => (*sign, [a, b], [c, d], rest),
            _ => return Err(self.unreadable(ELEMENT)),
        };
        let number = |[a, b]: [&u8; 2]| {
            let digits = a.is_ascii_digit() && b.is_ascii_digit();
            digits.then(|| i64::from(a - b'0') * 10 + i64::from(b - b'0'))
        };
        let (hours, minutes) = (number([a, b]), number([c, d]));
        // So far Go goes, as some people write so.
        if hours.is_some_and(|it| it > 24) {
            self.rest = rest;
            return Err(self.wrong(": time zone offset hour out of range"));
        }
        if minutes.is_some_and(|it| it > 60) {
            self.rest = rest;
            return Err(self.wrong(": time zone offset minute out of range"));
        }
        let sign = match sign {
            b'+' => 1,
            b'-' => -1,
            _ => return Err(self.unreadable(ELEMENT)),
        };
        let (Some(hours), Some(minutes)) = (hours, minutes) else {
            return Err(self.unreadable(ELEMENT));
        };
        self.rest = rest;
        Ok(sign * (hours * 60 + minutes) * 60)
    }
}

/// Text as Go's package `time` quotes it in errors.
fn quote(text: &[u8]) -> String {
    let mut quoted = "\"".to_owned();
    for byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(*byte)]),
            b' '..=0x7f => quoted.push(char::from(*byte)),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: Expect, micros: Expect) {
        for (precision, expect) in [(Precision::Seconds, seconds), (Precision::Micros, micros)] {
            let shown = match Moment::parse(text, precision) {
                Ok(moment) => moment.print(precision),
                Err(why) => why.strip_prefix("parsing time ").unwrap_or(&why).to_owned(),
            };
            expect.assert_eq(&shown);
        }
    }

    #[test]
    fn what_go_takes() {
        check(
            "9999-12-31T23:59:59Z",
            expect!["9999-12-31T23:59:59Z"],
            expect![[
                r#""9999-12-31T23:59:59Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#
            ]],
        );
        check(
            "2024-02-29T03:04:05.123456+02:00",
            expect!["2024-02-29T01:04:05Z"],
            expect!["2024-02-29T01:04:05.123456Z"],
        );
        // What many take for RFC 3339 it is not, but Go takes it: a short hour, a comma, a day's offset.
        check(
            "2024-01-02T3:04:05,000001-24:60",
            expect!["2024-01-03T04:04:05Z"],
            expect!["2024-01-03T04:04:05.000001Z"],
        );
        check(
            "0000-01-01T00:00:00.999999999999Z",
            expect!["0000-01-01T00:00:00Z"],
            expect![[
                r#""0000-01-01T00:00:00.999999999999Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "999999Z" as "Z07:00""#
            ]],
        );
    }

    #[test]
    fn what_go_refuses() {
        let refused = |text: &str, expect: Expect| {
            expect.assert_eq(&Moment::parse(text, Precision::Seconds).unwrap_err());
        };
        refused(
            "2024-01-02 03:04:05Z",
            expect![[
                r#"parsing time "2024-01-02 03:04:05Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 03:04:05Z" as "T""#
            ]],
        );
        refused(
            "",
            expect![[
                r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#
            ]],
        );
        refused(
            "20é4",
            expect![[
                r#"parsing time "20\xc3\xa94" as "2006-01-02T15:04:05Z07:00": cannot parse "20\xc3\xa94" as "2006""#
            ]],
        );
        refused(
            "2024-13-02T03:04:05Z",
            expect![[r#"parsing time "2024-13-02T03:04:05Z": month out of range"#]],
        );
        refused(
            "2023-02-29T03:04:05Z",
            expect![[r#"parsing time "2023-02-29T03:04:05Z": day out of range"#]],
        );
        refused(
            "2024-01-02T24:04:05Z",
            expect![[r#"parsing time "2024-01-02T24:04:05Z": hour out of range"#]],
        );
        refused(
            "2024-01-02T03:04:60Z",
            expect![[r#"parsing time "2024-01-02T03:04:60Z": second out of range"#]],
        );
        refused(
            "2024-01-02T03:04:05",
            expect![[
                r#"parsing time "2024-01-02T03:04:05" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#
            ]],
        );
        refused(
            "2024-01-02T03:04:05+25:00",
            expect![[
                r#"parsing time "2024-01-02T03:04:05+25:00": time zone offset hour out of range"#
            ]],
        );
        refused(
            "2024-01-02t03:04:05z",
            expect![[
                r#"parsing time "2024-01-02t03:04:05z" as "2006-01-02T15:04:05Z07:00": cannot parse "t03:04:05z" as "T""#
            ]],
        );
        refused(
            "2024-01-02T03:04:05Z[UTC]",
            expect![[r#"parsing time "2024-01-02T03:04:05Z[UTC]": extra text: "[UTC]""#]],
        );
        refused(
            "9999-12-31T23:59:59-00:01",
            expect!["Time.MarshalJSON: year outside of range [0,9999]"],
        );
    }

    #[test]
    fn the_zero_of_go_is_known() {
        let zero = |text| Moment::parse(text, Precision::Seconds).unwrap().is_zero();
        assert!(zero("0001-01-01T00:00:00Z") && zero("0001-01-01T02:00:00+02:00"));
        assert!(!zero("1970-01-01T00:00:00Z") && !zero("0001-01-01T00:00:00.1Z"));
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(seconds in -62_167_219_200..253_402_207_200_i64, nanos in 0..1_000_000_000_u32) {
            let moment = Moment::new(seconds, nanos).unwrap();
            let jiff = Timestamp::new(seconds, i32::try_from(nanos).unwrap()).unwrap();
            let text = moment.print(Precision::Micros);
            prop_assert_eq!(&text, &jiff.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
            let again = Moment::parse(&text, Precision::Micros).unwrap();
            prop_assert_eq!((again.seconds, again.micros()), (seconds, moment.micros()));
            prop_assert_eq!(again.print(Precision::Micros), text);
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in "([0-9]{3,4}-[0-9]{1,2}-[0-9]{1,2}[Tt ][0-9]{1,2}:[0-9]{2}:[0-9]{2}([.,][0-9]{0,12})?(Z|[+-][0-9]{1,2}:?[0-9]{2})?)|.{0,30}",
        ) {
            for precision in [Precision::Seconds, Precision::Micros] {
                if let Ok(moment) = Moment::parse(&text, precision) {
                    let printed = moment.print(precision);
                    prop_assert_eq!(Moment::parse(&printed, precision).unwrap().print(precision), printed);
                }
            }
        }

        #[test]
        fn any_number_is_a_moment_or_none(seconds in any::<i64>(), nanos in any::<u32>()) {
            if let Some(moment) = Moment::new(seconds, nanos) {
                prop_assert!(Moment::parse(&moment.print(Precision::Seconds), Precision::Seconds).is_ok());
            }
        }
    }
}
