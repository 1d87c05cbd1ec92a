//! URLs: taken apart, put together, escaped.

use std::{fmt::Write as _, str::FromStr};

use crate::exchange::Origin;

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Scheme, host and port.
    pub origin: Origin,
    /// Path and query as they go over the wire; begins with `/`.
    pub path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (tls, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, _)) => {
                return Err(format!("`{scheme}` in `{text}` is neither `http` nor `https`"));
            }
            None => return Err(format!("`{text}` is no URL; write it as `http://{text}`")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err("user and password are not written into the URL; use `auth`".to_owned());
        }
        let (host, port) = host_and_port(authority)
            .ok_or_else(|| format!("`{authority}` in `{text}` is no host, or no port"))?;
        let port = port.unwrap_or(if tls { 443 } else { 80 });
        let path = path.split('#').next().unwrap_or_default();
        let mut escaped = String::new();
        if !path.starts_with('/') {
            escaped.push('/');
        }
        escape_illegal(path, &mut escaped);
        Ok(Self { origin: Origin { tls, host, port }, path: escaped })
    }
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, rest) = if let Some(inside) = authority.strip_prefix('[') {
        let (host, rest) = inside.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
        let allowed = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_');
        if host.is_empty() || !host.bytes().all(allowed) {
            return None;
        }
        (host, rest)
    };
    let port = match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|it| it.is_ascii_digit()) => {
            Some(port.parse().ok().filter(|it| *it > 0)?)
        }
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// Where a `Location` leads that was answered by `path` of `origin`. RFC 3986, section 5.2.
pub(super) fn resolve(origin: &Origin, path: &str, location: &str) -> Result<Target, String> {
    let location = location.trim().split('#').next().unwrap_or_default();
    if location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?'])) {
        return location.parse();
    }
    if let Some(rest) = location.strip_prefix("//") {
        return format!("{}://{rest}", if origin.tls { "https" } else { "http" }).parse();
    }
    let here = path.split('?').next().unwrap_or_default();
    let joined = match location.as_bytes().first() {
        Some(b'/') => location.to_owned(),
        Some(b'?') => format!("{here}{location}"),
        Some(_) => {
            let folder = here.rfind('/').and_then(|it| here.get(..=it)).unwrap_or("/");
            format!("{folder}{location}")
        }
        None => path.to_owned(),
    };
    let mut escaped = String::new();
    escape_illegal(&without_dots(&joined), &mut escaped);
    Ok(Target { origin: origin.clone(), path: escaped })
}

fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

/// Appends `text` with everything escaped that is not unreserved: fit for one segment of a path, for
/// a name or a value of a query, and for a form.
pub(super) fn escape(text: &str, out: &mut String) {
    escape_unless(text, out, |it| {
        it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'~')
    });
}

/// Appends `text` with only that escaped which no path or query may have: what is escaped already
/// stays as it is.
pub(super) fn escape_illegal(text: &str, out: &mut String) {
    escape_unless(text, out, |it| {
        it.is_ascii_graphic()
            && !matches!(it, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    });
}

fn escape_unless(text: &str, out: &mut String, keep: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        if keep(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn show(target: Result<Target, String>) -> String {
        match target {
            Ok(it) => format!("{} {}", it.origin, it.path),
            Err(error) => format!("error: {error}"),
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&show(text.parse()));
    }

    #[test]
    fn takes_urls_apart() {
        check("http://127.0.0.1:8080", expect!["http://127.0.0.1:8080 /"]);
        check(
            "HTTPS://Example.org/a b?c=ü#part",
            expect!["https://example.org:443 /a%20b?c=%C3%BC"],
        );
        check("http://[::1]:9?x", expect!["http://[::1]:9 /?x"]);
        check("https://[::1]", expect!["https://[::1]:443 /"]);
    }

    #[test]
    fn says_what_is_no_url() {
        check(
            "localhost:8080",
            expect!["error: `localhost:8080` is no URL; write it as `http://localhost:8080`"],
        );
        check(
            "ftp://localhost",
            expect!["error: `ftp` in `ftp://localhost` is neither `http` nor `https`"],
        );
        check("http://", expect!["error: `` in `http://` is no host, or no port"]);
        check(
            "http://a:b@c/",
            expect!["error: user and password are not written into the URL; use `auth`"],
        );
        check(
            "http://a:99999",
            expect!["error: `a:99999` in `http://a:99999` is no host, or no port"],
        );
        check("http://a:0", expect!["error: `a:0` in `http://a:0` is no host, or no port"]);
        check("http://a b/", expect!["error: `a b` in `http://a b/` is no host, or no port"]);
        check("http://[::g]/", expect!["error: `[::g]` in `http://[::g]/` is no host, or no port"]);
    }

    #[test]
    fn follows_locations() {
        let here: Target = "http://a:1/b/c?d".parse().unwrap();
        let follow = |it: &&str| show(resolve(&here.origin, &here.path, it)) + "\n";
        let said: String =
            ["/x", "x", "../x/./y", "?q", "", "//h/x", "https://h", "..", "x?u=http://y"]
                .iter()
                .map(follow)
                .collect();
        expect![[r#"
            http://a:1 /x
            http://a:1 /b/x
            http://a:1 /x/y
            http://a:1 /b/c?q
            http://a:1 /b/c?d
            http://h:80 /x
            https://h:443 /
            http://a:1 /
            http://a:1 /b/x?u=http://y
        "#]]
        .assert_eq(&said);
    }

    proptest! {
        #[test]
        fn paths_are_fit_for_the_wire(text in ".{0,30}", location in ".{0,30}") {
            let targets = [format!("http://a/{text}").parse(), resolve(&"http://a".parse::<Target>().unwrap().origin, "/b", &location)];
            for target in targets.into_iter().flatten() {
                prop_assert!(target.path.starts_with('/'));
                prop_assert!(target.path.bytes().all(|it| it.is_ascii_graphic()));
            }
        }
    }
}
