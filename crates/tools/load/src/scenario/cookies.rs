//! A user's cookies: the parts of RFC 6265 that a server under load can tell. No list of public
//! suffixes: a scenario only ever visits the servers that it names.
//!
//! Expiry counts on the user's own clock, which is what it has thought and waited so far; an
//! absolute date counts from the `Date` of the answer that brought it.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time},
    tz::TimeZone,
};

use crate::exchange::Origin;

/// Cookies that a user keeps, as RFC 6265 asks of a client at least; the oldest goes.
const COOKIES_MAX: usize = 50;
/// Longest cookie, name, value and attributes together; a longer one is not kept. RFC 6265 asks for
/// as much.
const COOKIE_BYTES_MAX: usize = 4096;

/// The cookies of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct Jar {
    /// Oldest first.
    cookies: Vec<Cookie>,
}

#[derive(Clone, Debug)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    /// Only for the host that set it, and not for those below.
    host_only: bool,
    path: String,
    secure: bool,
    /// On the user's clock.
    expires: Option<Duration>,
}

/// Where and when a request or an answer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit<'a> {
    pub(super) origin: &'a Origin,
    /// Path and query of the request.
    pub(super) path: &'a str,
    /// The user's clock.
    pub(super) now: Duration,
    /// The time of day when that clock was 0, as far as is known: for answers without a `Date`.
    pub(super) began: Timestamp,
}

impl Jar {
    /// Takes over the cookies of an answer.
    pub(super) fn receive(&mut self, visit: Visit<'_>, headers: &HeaderMap) {
        if !headers.contains_key(header::SET_COOKIE) {
            return;
        }
        let date = headers.get(header::DATE).and_then(|it| it.to_str().ok()).and_then(parse_date);
        for value in headers.get_all(header::SET_COOKIE) {
            let text = String::from_utf8_lossy(value.as_bytes());
            if text.len() <= COOKIE_BYTES_MAX
                && let Some(cookie) = parse(&text, visit, date)
            {
                self.store(cookie, visit.now);
            }
        }
    }

    fn store(&mut self, cookie: Cookie, now: Duration) {
        let same = |it: &Cookie| {
            it.name == cookie.name && it.domain == cookie.domain && it.path == cookie.path
        };
        let place = self.cookies.iter().position(same);
        let expired = cookie.is_expired(now);
        match (place.and_then(|it| self.cookies.get_mut(it)), expired) {
            // A cookie that is set again keeps its age: RFC 6265, 5.3, step 11.
            (Some(old), false) => *old = cookie,
            (Some(_), true) => self.cookies.retain(|it| !same(it)),
            (None, false) => {
                self.cookies.retain(|it| !it.is_expired(now));
                if self.cookies.len() >= COOKIES_MAX {
                    self.cookies.remove(0);
                }
                self.cookies.push(cookie);
            }
            (None, true) => {}
        }
    }

    /// The `Cookie` header of a request, if there is anything to say.
    pub(super) fn header(&self, visit: Visit<'_>) -> Option<HeaderValue> {
        let mut fitting: Vec<&Cookie> = self.cookies.iter().filter(|it| it.fits(visit)).collect();
        // Longer paths first; the sort is stable, so older ones before younger.
        fitting.sort_by_key(|it| std::cmp::Reverse(it.path.len()));
        let mut text = String::new();
        for cookie in fitting {
            let between = if text.is_empty() { "" } else { "; " };
            write!(text, "{between}{}={}", cookie.name, cookie.value).unwrap_or_default();
        }
        if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
    }

    /// The value of a cookie that a request would carry.
    pub(super) fn value(&self, name: &str, visit: Visit<'_>) -> Option<&str> {
        let fitting = self.cookies.iter().filter(|it| it.name == name && it.fits(visit));
        fitting.max_by_key(|it| it.path.len()).map(|it| it.value.as_str())
    }
}

impl Cookie {
    fn is_expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|it| it <= now)
    }

    fn fits(&self, visit: Visit<'_>) -> bool {
        let host = &visit.origin.host;
        let domain = *host == self.domain || !self.host_only && is_below(host, &self.domain);
        let path = visit.path.split('?').next().unwrap_or_default();
        let below = path.strip_prefix(self.path.as_str()).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
        });
        domain && below && (visit.origin.tls || !self.secure) && !self.is_expired(visit.now)
    }
}

/// Whether `host` is a name below `domain`.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|it| it.ends_with('.'))
        && host.parse::<std::net::IpAddr>().is_err()
}

/// RFC 6265, 5.2 and 5.3. A cookie that must not be kept is none.
fn parse(text: &str, visit: Visit<'_>, date: Option<Timestamp>) -> Option<Cookie> {
    let mut parts = text.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() || text.chars().any(|it| it.is_control() && it != '\t') {
        return None;
    }
    let mut cookie = Cookie {
        name: name.to_owned(),
        value: value.to_owned(),
        domain: visit.origin.host.clone(),
        host_only: true,
        path: default_path(visit.path).to_owned(),
        secure: false,
        expires: None,
    };
    let mut max_age = None;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "secure" => cookie.secure = true,
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "domain" if !value.is_empty() => {
                let domain = value.strip_prefix('.').unwrap_or(value).to_ascii_lowercase();
                if domain != visit.origin.host && !is_below(&visit.origin.host, &domain) {
                    return None;
                }
                cookie.host_only = false;
                cookie.domain = domain;
            }
            "max-age" => {
                if let Ok(seconds) = value.parse::<i64>() {
                    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                    max_age = Some(visit.now.saturating_add(seconds));
                }
            }
            "expires" => {
                if let Some(expires) = parse_date(value) {
                    let now = date.unwrap_or_else(|| {
                        visit.began.checked_add(visit.now).unwrap_or(Timestamp::MAX)
                    });
                    let left = Duration::try_from(expires.duration_since(now));
                    let left = left.unwrap_or(Duration::ZERO);
                    cookie.expires = Some(visit.now.saturating_add(left));
                }
            }
            _ => {}
        }
    }
    // Max-Age has precedence over Expires, wherever it stands.
    cookie.expires = max_age.or(cookie.expires);
    Some(cookie)
}

/// The folder of a path. RFC 6265, 5.1.4.
fn default_path(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(end) => path.get(..end).unwrap_or("/"),
    }
}

/// A date as cookies have it, in any order and with any separators. RFC 6265, 5.1.1.
fn parse_date(text: &str) -> Option<Timestamp> {
    const MONTHS: &str = "janfebmaraprmayjunjulaugsepoctnovdec";
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    let separators = |it: char| !(it.is_ascii_alphanumeric() || it == ':');
    for token in text.split(separators).filter(|it| !it.is_empty()) {
        let digits = token.bytes().take_while(u8::is_ascii_digit).count();
        let number = token.get(..digits).and_then(|it| it.parse::<i16>().ok());
        if time.is_none() && token.contains(':') {
            let parts: Vec<i8> = token.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [hour, minute, second] = parts.as_slice() else { return None };
            time = Some(Time::new(*hour, *minute, *second, 0).ok()?);
        } else if day.is_none() && (1..=2).contains(&digits) {
            day = number;
        } else if month.is_none() && digits == 0 {
            let name = token.get(..3).map(str::to_ascii_lowercase);
            let at = name.and_then(|it| MONTHS.find(&it)).filter(|it| it % 3 == 0);
            month = at.and_then(|it| i8::try_from(it / 3 + 1).ok());
        } else if year.is_none() && (2..=4).contains(&digits) {
            year = number.map(|it| match it {
                0..=69 => it + 2000,
                70..=99 => it + 1900,
                _ => it,
            });
        }
    }
    let date = Date::new(year.filter(|it| *it >= 1601)?, month?, i8::try_from(day?).ok()?).ok()?;
    let zoned = TimeZone::UTC.to_zoned(DateTime::from_parts(date, time?)).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;
    use crate::scenario::target::Target;

    /// Each line is `URL`, and what is done there: `< set-cookie`, `date < set-cookie`, or nothing to
    /// see what is sent. `+N` lets N seconds pass.
    #[track_caller]
    fn check(script: &str, expected: Expect) {
        let mut jar = Jar::default();
        let mut now = Duration::ZERO;
        let mut said = String::new();
        for line in script.lines().map(str::trim).filter(|it| !it.is_empty()) {
            if let Some(seconds) = line.strip_prefix('+') {
                now += Duration::from_secs(seconds.parse().unwrap());
                continue;
            }
            let (url, answer) = line.split_once(" < ").unwrap_or((line, ""));
            let target: Target = url.parse().unwrap();
            let began = "2026-11-21T12:00:00Z".parse().unwrap();
            let visit = Visit { origin: &target.origin, path: &target.path, now, began };
            if answer.is_empty() {
                let header = jar.header(visit);
                let header = header.as_ref().map_or("nothing", |it| it.to_str().unwrap());
                said += &format!("{url}: {header}\n");
            } else {
                let mut headers = HeaderMap::new();
                headers.append(header::SET_COOKIE, answer.parse().unwrap());
                jar.receive(visit, &headers);
            }
        }
        expected.assert_eq(&said);
    }

    #[test]
    fn keeps_replaces_and_deletes() {
        check(
            "http://a/ < sid=1
             http://a/ < theme=dark; HttpOnly; SameSite=Lax
             http://a/
             http://a/ < sid=2
             http://a/
             http://a/ < sid=; Max-Age=0
             http://a/
             http://a/ < broken
             http://a/ < =x
             http://a/",
            expect![[r#"
                http://a/: sid=1; theme=dark
                http://a/: sid=2; theme=dark
                http://a/: theme=dark
                http://a/: theme=dark
            "#]],
        );
    }

    #[test]
    fn minds_paths() {
        check(
            "http://a/shop/cart?x=1 < here=1
             http://a/ < all=1; Path=/
             http://a/ < deep=1; Path=/shop/cart/
             http://a/
             http://a/shop
             http://a/shopping
             http://a/shop/cart/1?y",
            expect![[r#"
                http://a/: all=1
                http://a/shop: here=1; all=1
                http://a/shopping: all=1
                http://a/shop/cart/1?y: deep=1; here=1; all=1
            "#]],
        );
    }

    #[test]
    fn minds_hosts_and_encryption() {
        check(
            "https://shop.example/ < safe=1; Secure
             https://shop.example/ < wide=1; Domain=.Shop.Example
             https://shop.example/ < foreign=1; Domain=other.example
             https://shop.example/
             http://shop.example/
             https://www.shop.example/
             https://127.0.0.1/ < ip=1; Domain=0.0.1
             https://127.0.0.1/",
            expect![[r#"
                https://shop.example/: safe=1; wide=1
                http://shop.example/: wide=1
                https://www.shop.example/: wide=1
                https://127.0.0.1/: nothing
            "#]],
        );
    }

    #[test]
    fn minds_time() {
        check(
            "http://a/ < short=1; Max-Age=10; Expires=Wed, 01 Jan 2031 00:00:00 GMT
             http://a/ < dated=1; Expires=Sat, 21-Nov-26 12:00:30 GMT
             http://a/ < gone=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT
             http://a/ < odd=1; Expires=whenever; Max-Age=soon
             http://a/
             +10
             http://a/
             +20
             http://a/",
            expect![[r#"
                http://a/: short=1; dated=1; odd=1
                http://a/: dated=1; odd=1
                http://a/: odd=1
            "#]],
        );
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let sets = (0..=COOKIES_MAX).map(|it| format!("http://a/ < c{it}={it}\n"));
        let script: String = sets.collect();
        let mut jar = Jar::default();
        for line in script.lines() {
            let target: Target = "http://a/".parse().unwrap();
            let visit = Visit {
                origin: &target.origin,
                path: "/",
                now: Duration::ZERO,
                began: Timestamp::UNIX_EPOCH,
            };
            let mut headers = HeaderMap::new();
            headers.append(header::SET_COOKIE, line.split(" < ").nth(1).unwrap().parse().unwrap());
            jar.receive(visit, &headers);
        }
        assert_eq!(jar.cookies.len(), COOKIES_MAX);
        assert_eq!(jar.cookies[0].name, "c1");
    }

    #[test]
    fn dates_are_read_in_every_old_form() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_date(text).unwrap().to_string(), "1994-11-06T08:49:37Z", "{text}");
        }
        for text in ["", "06 Nov 1994", "32 Nov 1994 08:49:37", "06 Foo 1994 08:49:37"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[a-zA-Z]{1,3}=[a-z0-9;= :,./-]{0,60}") {
            let target: Target = "http://a/".parse().unwrap();
            let visit = Visit {
                origin: &target.origin,
                path: "/",
                now: Duration::ZERO,
                began: Timestamp::UNIX_EPOCH,
            };
            drop(parse(&text, visit, None));
            drop(parse(&format!("{text}; expires={text}"), visit, None));
            let _date: Option<Timestamp> = parse_date(&text);
        }
    }
}
