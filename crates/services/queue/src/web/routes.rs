//! A table of resources and how a request finds one: as the original's router does it, with its
//! redirects, its `OPTIONS`, and the difference between 404 and 405.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};

use super::{Body, Failure, decode, v1};

/// One resource. A `path` may end in `:`, which stands for one piece that is not empty, or in `*`,
/// which stands for any rest, even none.
#[derive(Clone, Debug)]
pub(crate) struct Route<T> {
    /// The method it is for.
    pub(crate) method: Method,
    /// Where it is.
    pub(crate) path: &'static str,
    /// What the owner of the table does there.
    pub(crate) to: T,
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// A resource, and what stood at the end of its path.
    Resource(T, String),
    /// None; this is the answer.
    Answer(Response<Body>),
}

/// Finds the resource of a request in a table.
#[must_use]
pub(crate) fn find<T: Copy>(table: &[Route<T>], method: &Method, uri: &Uri) -> Found<T> {
    let Ok(path) = decode(uri.path()) else {
        return Found::Answer(v1(Err(Failure::no_path())));
    };
    let mine = || table.iter().filter(|route| route.method == *method);
    if let Some((to, rest)) = mine().find_map(|it| Some((it.to, matched(it.path, &path)?))) {
        return Found::Resource(to, rest.to_owned());
    }
    if path != "/" && *method != Method::CONNECT {
        let wanted = clean(&path);
        if let Some(fixed) = mine().find_map(|it| fixed(it.path, &wanted)) {
            return Found::Answer(redirect(method, uri.query(), fixed));
        }
    }
    let allow = allowed(table, &path, method);
    if allow.is_empty() {
        return Found::Answer(v1(Err(Failure::no_path())));
    }
    let mut answer = match *method {
        Method::OPTIONS => Response::new(Full::new(Bytes::new()).boxed_unsync()),
        _ => v1(Err(Failure::method())),
    };
    set(&mut answer, header::ALLOW, &allow);
    Found::Answer(answer)
}

/// A value that cannot stand in a header is left out.
fn set(answer: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// What of `path` stands for the end of `pattern`.
fn matched<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    if let Some(stem) = pattern.strip_suffix('*') {
        return path.strip_prefix(stem);
    }
    let Some(stem) = pattern.strip_suffix(':') else { return (pattern == path).then_some("") };
    path.strip_prefix(stem).filter(|rest| !rest.is_empty() && !rest.contains('/'))
}

/// The path that a client meant who wrote `wanted`: without regard to case and to a `/` at the end.
fn fixed(pattern: &str, wanted: &str) -> Option<String> {
    let wanted = wanted.strip_suffix('/').unwrap_or(wanted);
    if pattern.ends_with('*') {
        return pattern
            .trim_end_matches(['*', '/'])
            .eq_ignore_ascii_case(wanted)
            .then(|| pattern.trim_end_matches('*').to_owned());
    }
    let Some(stem) = pattern.strip_suffix(':') else {
        return pattern.eq_ignore_ascii_case(wanted).then(|| pattern.to_owned());
    };
    let (start, rest) = wanted.split_at_checked(stem.len())?;
    let meant = start.eq_ignore_ascii_case(stem) && !rest.is_empty() && !rest.contains('/');
    meant.then(|| format!("{stem}{rest}"))
}

/// A path without `//`, `.` and `..`.
fn clean(path: &str) -> String {
    let mut pieces: Vec<&str> = Vec::new();
    for piece in path.split('/') {
        match piece {
            "" | "." => {}
            ".." => drop(pieces.pop()),
            piece => pieces.push(piece),
        }
    }
    format!("/{}", pieces.join("/"))
}

fn redirect(method: &Method, query: Option<&str>, mut path: String) -> Response<Body> {
    if let Some(query) = query {
        path = format!("{path}?{query}");
    }
    let (status, page) = if method == Method::GET {
        let shown = path.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
        let page = format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n");
        (StatusCode::MOVED_PERMANENTLY, page)
    } else {
        (StatusCode::TEMPORARY_REDIRECT, String::new())
    };
    let mut answer = Response::new(Full::new(Bytes::from(page)).boxed_unsync());
    *answer.status_mut() = status;
    if status == StatusCode::MOVED_PERMANENTLY {
        set(&mut answer, header::CONTENT_TYPE, "text/html; charset=utf-8");
    }
    set(&mut answer, header::LOCATION, &path);
    answer
}

/// The methods that a path has, as the header `Allow` lists them; empty if it has none.
fn allowed<T>(table: &[Route<T>], path: &str, asked: &Method) -> String {
    let everything = path == "*" && *asked == Method::OPTIONS;
    let here = table.iter().filter(|it| everything || matched(it.path, path).is_some());
    let mut methods: Vec<&str> = here.map(|it| it.method.as_str()).collect();
    if !methods.is_empty() {
        methods.push("OPTIONS");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;

    async fn check(asked: &[&str], expected: Expect) {
        let route = |method, path, to| Route { method, path, to };
        let table = [
            route(Method::GET, "/ping", 1),
            route(Method::POST, "/topic/create", 2),
            route(Method::GET, "/config/:", 3),
            route(Method::PUT, "/config/:", 4),
            route(Method::GET, "/debug/pprof/*", 5),
        ];
        let mut seen = String::new();
        for asked in asked {
            let (method, target) = asked.split_once(' ').unwrap();
            let found = find(&table, &method.parse().unwrap(), &target.parse().unwrap());
            match found {
                Found::Resource(to, rest) => writeln!(seen, "{asked}: {to} {rest:?}").unwrap(),
                Found::Answer(answer) => {
                    let (head, body) = answer.into_parts();
                    let header = |name| head.headers.get(name).map(|it| it.to_str().unwrap());
                    let extra = header("allow").or(header("location")).unwrap_or("-");
                    let code = head.status.as_u16();
                    let body = body.collect().await.unwrap().to_bytes();
                    writeln!(seen, "{asked}: {code} {extra} {body:?}").unwrap();
                }
            }
        }
        expected.assert_eq(&seen);
    }

    #[tokio::test]
    async fn finds_resources() {
        check(
            &["GET /ping", "POST /topic/create?topic=a", "GET /config/x", "GET /debug/pprof/heap"],
            expect![[r#"
                GET /ping: 1 ""
                POST /topic/create?topic=a: 2 ""
                GET /config/x: 3 "x"
                GET /debug/pprof/heap: 5 "heap"
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn mends_paths() {
        check(
            &[
                "GET /ping/",
                "GET //PING?a=1",
                "POST /Topic/./create/",
                "GET /config/x/",
                "GET /debug/pprof",
            ],
            expect![[r#"
                GET /ping/: 301 /ping b"<a href=\"/ping\">Moved Permanently</a>.\n\n"
                GET //PING?a=1: 301 /ping?a=1 b"<a href=\"/ping?a=1\">Moved Permanently</a>.\n\n"
                POST /Topic/./create/: 307 /topic/create b""
                GET /config/x/: 301 /config/x b"<a href=\"/config/x\">Moved Permanently</a>.\n\n"
                GET /debug/pprof: 301 /debug/pprof/ b"<a href=\"/debug/pprof/\">Moved Permanently</a>.\n\n"
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn tells_what_is_not_there() {
        check(
            &[
                "GET /",
                "GET /nope",
                "GET /config",
                "GET /config/",
                "HEAD /ping",
                "POST /config/x",
                "OPTIONS /config/x",
                "OPTIONS /nope",
                "GET /topic/create",
                "BREW /ping",
            ],
            expect![[r#"
                GET /: 404 - b"{\"message\":\"NOT_FOUND\"}"
                GET /nope: 404 - b"{\"message\":\"NOT_FOUND\"}"
                GET /config: 404 - b"{\"message\":\"NOT_FOUND\"}"
                GET /config/: 404 - b"{\"message\":\"NOT_FOUND\"}"
                HEAD /ping: 405 GET, OPTIONS b"{\"message\":\"METHOD_NOT_ALLOWED\"}"
                POST /config/x: 405 GET, OPTIONS, PUT b"{\"message\":\"METHOD_NOT_ALLOWED\"}"
                OPTIONS /config/x: 200 GET, OPTIONS, PUT b""
                OPTIONS /nope: 404 - b"{\"message\":\"NOT_FOUND\"}"
                GET /topic/create: 405 OPTIONS, POST b"{\"message\":\"METHOD_NOT_ALLOWED\"}"
                BREW /ping: 405 GET, OPTIONS b"{\"message\":\"METHOD_NOT_ALLOWED\"}"
            "#]],
        )
        .await;
    }
}
