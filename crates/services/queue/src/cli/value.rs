//! What stands behind a flag: how its value is read from a command line and from a file, and how it
//! is shown. The forms are those of Go's `flag` package and of the original's configuration files.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::duration;

/// The value of one flag.
pub(crate) trait Value {
    /// Takes what stands on the command line. A list grows by it.
    ///
    /// # Errors
    /// Why it is not possible, in a few words.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// Takes what stands in a configuration file.
    ///
    /// # Errors
    /// Why it is not possible, in a few words.
    fn set_from_file(&mut self, value: &toml::Value) -> Result<(), String> {
        match value {
            toml::Value::String(text) => self.set(text),
            toml::Value::Integer(number) => self.set(&number.to_string()),
            toml::Value::Boolean(truth) => self.set(&truth.to_string()),
            other => Err(format!("is a {}", other.type_str())),
        }
    }

    /// As `/config/…` shows it.
    fn json(&self) -> Json;

    /// As the help shows a default; empty if there is nothing to show.
    fn shown(&self) -> String;

    /// Whether the flag may stand without a value, which then is `true`.
    fn is_bool(&self) -> bool {
        false
    }

    /// Forgets what a file said, before the first flag of a list.
    fn clear(&mut self) {}
}

impl Value for bool {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = parse_bool(text).ok_or("parse error")?;
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self)
    }

    fn shown(&self) -> String {
        if *self { "true".to_owned() } else { String::new() }
    }

    fn is_bool(&self) -> bool {
        true
    }
}

/// The words that Go takes for a truth value.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

impl Value for String {
    fn set(&mut self, text: &str) -> Result<(), String> {
        text.clone_into(self);
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self)
    }

    fn shown(&self) -> String {
        if self.is_empty() { Self::new() } else { format!("{self:?}") }
    }
}

impl Value for Duration {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = duration::parse(text).ok_or("parse error")?;
        Ok(())
    }

    fn set_from_file(&mut self, value: &toml::Value) -> Result<(), String> {
        match value {
            toml::Value::String(text) => self.set(text),
            // A bare number is milliseconds, as the original has it.
            toml::Value::Integer(millis) => {
                let millis = u64::try_from(*millis).map_err(|_| "is negative")?;
                *self = Self::from_millis(millis);
                Ok(())
            }
            other => Err(format!("is a {}", other.type_str())),
        }
    }

    fn json(&self) -> Json {
        json!(u64::try_from(self.as_nanos()).unwrap_or(u64::MAX))
    }

    fn shown(&self) -> String {
        if self.is_zero() { String::new() } else { duration::format(*self) }
    }
}

/// A whole number between two bounds, both possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Number<MIN, MAX> {
    /// As a number of a smaller type; its greatest if it does not fit, which `MAX` should exclude.
    pub(crate) fn get<T: TryFrom<u64> + Bounded>(self) -> T {
        T::try_from(self.0).unwrap_or(T::GREATEST)
    }
}

/// A type of numbers with a greatest.
pub(crate) trait Bounded {
    const GREATEST: Self;
}

impl Bounded for u8 {
    const GREATEST: Self = Self::MAX;
}
impl Bounded for u16 {
    const GREATEST: Self = Self::MAX;
}
impl Bounded for u32 {
    const GREATEST: Self = Self::MAX;
}
impl Bounded for usize {
    const GREATEST: Self = Self::MAX;
}

impl<const MIN: u64, const MAX: u64> Value for Number<MIN, MAX> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        // Go reads numbers as its source has them.
        let (digits, radix) = match text.get(..2) {
            Some("0x" | "0X") => (text.get(2..).unwrap_or_default(), 16),
            Some("0o" | "0O") => (text.get(2..).unwrap_or_default(), 8),
            Some("0b" | "0B") => (text.get(2..).unwrap_or_default(), 2),
            _ => (text, 10),
        };
        let number = u64::from_str_radix(digits, radix).map_err(|_| "parse error")?;
        if !(MIN..=MAX).contains(&number) {
            return Err(format!("must be from {MIN} to {MAX}"));
        }
        self.0 = number;
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self.0)
    }

    fn shown(&self) -> String {
        if self.0 == 0 { String::new() } else { self.0.to_string() }
    }
}

/// A number of bytes, perhaps with a unit: `500MiB`, `10GB`, `1073741824`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("", 1),
];

impl Value for Size {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or("unknown unit")?;
        let number: u64 = digits.parse().map_err(|_| "parse error")?;
        self.0 = number.checked_mul(*factor).ok_or("too large")?;
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self.0)
    }

    fn shown(&self) -> String {
        match UNITS.iter().rev().find(|(_, unit)| *unit > 1 && self.0.is_multiple_of(*unit)) {
            _ if self.0 == 0 => String::new(),
            Some((name, unit)) => format!("{}{name}", self.0 / unit),
            None => self.0.to_string(),
        }
    }
}

impl Value for Vec<String> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.push(text.to_owned());
        Ok(())
    }

    fn set_from_file(&mut self, value: &toml::Value) -> Result<(), String> {
        *self = match value {
            toml::Value::String(text) => text.split(',').map(str::to_owned).collect(),
            toml::Value::Array(items) => items
                .iter()
                .map(|it| it.as_str().map(str::to_owned).ok_or("has an item that is no string"))
                .collect::<Result<_, _>>()?,
            other => return Err(format!("is a {}", other.type_str())),
        };
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self)
    }

    fn shown(&self) -> String {
        self.join(",")
    }

    fn clear(&mut self) {
        Self::clear(self);
    }
}

/// Parts of one, such as `0.99`, greatest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts(pub Vec<f64>);

impl Parts {
    fn add(&mut self, part: f64) -> Result<(), String> {
        if !(part > 0.0 && part <= 1.0) {
            return Err("must be above 0 and at most 1".to_owned());
        }
        self.0.push(part);
        self.0.sort_by(|a, b| b.total_cmp(a));
        Ok(())
    }
}

impl Value for Parts {
    fn set(&mut self, text: &str) -> Result<(), String> {
        for part in text.split(',') {
            self.add(part.trim().parse().map_err(|_| "parse error")?)?;
        }
        Ok(())
    }

    fn set_from_file(&mut self, value: &toml::Value) -> Result<(), String> {
        let toml::Value::Array(items) = value else {
            let text = value.as_str().ok_or_else(|| format!("is a {}", value.type_str()))?;
            return self.set(text);
        };
        for item in items {
            self.add(item.as_float().ok_or("has an item that is no number with a point")?)?;
        }
        Ok(())
    }

    fn json(&self) -> Json {
        json!(self.0)
    }

    fn shown(&self) -> String {
        self.0.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// One of a few words.
pub trait Word: Copy + PartialEq + 'static {
    /// Every word, what it stands for, and the number that `/config/…` shows for it, if that does
    /// not show the word.
    const WORDS: &'static [(&'static str, Self, Option<i64>)];
}

/// Lets a [`Word`] be the value of a flag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneOf<T>(pub T);

impl<T: Word> Value for OneOf<T> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let word = text.to_ascii_lowercase();
        let found = T::WORDS.iter().find(|(it, ..)| *it == word);
        let Some((_, value, _)) = found else {
            let words: Vec<_> =
                T::WORDS.iter().map(|(it, ..)| *it).filter(|it| !it.is_empty()).collect();
            return Err(format!("must be one of {}", words.join(", ")));
        };
        self.0 = *value;
        Ok(())
    }

    fn json(&self) -> Json {
        match T::WORDS.iter().find(|(_, it, _)| *it == self.0) {
            Some((.., Some(number))) => json!(number),
            Some((word, ..)) => json!(word),
            None => Json::Null,
        }
    }

    fn shown(&self) -> String {
        let word = T::WORDS.iter().find(|(_, it, _)| *it == self.0);
        word.map_or_else(String::new, |(word, ..)| (*word).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        let mut number = Number::<1, 1023>(5);
        assert_eq!(number.set("0x10"), Ok(()));
        assert_eq!(number.0, 16);
        assert_eq!(number.set("1024"), Err("must be from 1 to 1023".to_owned()));
        for bad in ["", "-1", "1.5", "x", "0"] {
            assert!(number.set(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        let mut size = Size::default();
        for (text, bytes) in [("5", 5), ("10GiB", 10 << 30), ("2KB", 2000), ("0", 0)] {
            assert_eq!(size.set(text), Ok(()), "{text}");
            assert_eq!(size.0, bytes, "{text}");
        }
        for bad in ["", "GiB", "1 GiB", "1gib", "99999999999TiB", "-1"] {
            assert!(size.set(bad).is_err(), "{bad}");
        }
        size.0 = 3 << 20;
        assert_eq!(size.shown(), "3MiB");
    }

    #[test]
    fn parts_come_in_order() {
        let mut parts = Parts::default();
        parts.set("0.95,1.0").unwrap();
        parts.set("0.99").unwrap();
        assert_eq!(parts.0, [1.0, 0.99, 0.95]);
        assert!(parts.set("1.5").is_err() && parts.set("0").is_err() && parts.set("NaN").is_err());
    }
}
