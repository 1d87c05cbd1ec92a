//! Talk with one registry about one repository, as one user: which scheme it speaks, tokens, redirects,
//! and what its refusals mean.

use std::sync::{Mutex, PoisonError};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION, USER_AGENT},
};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{
    auth::{self, Challenge, Wanted},
    error::Kind,
    keyring::Credential,
    registries::Endpoint,
    transport::{Body, Transport, empty},
};

/// Redirects in a row; registries need one, to where their content lies.
const REDIRECTS_MAX: usize = 5;

/// Longest message of a registry that is passed on.
const MESSAGE_LENGTH_MAX: usize = 400;

/// What this program calls itself.
const AGENT: HeaderValue = HeaderValue::from_static("coracle");

/// A repository of a registry. Several requests may be under way at once.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    transport: &'a Transport,
    endpoint: Endpoint,
    /// `https` or `http`.
    scheme: &'static str,
    credential: Option<Credential>,
    scopes: Vec<String>,
    authorization: Mutex<Option<HeaderValue>>,
}

/// A request that can be sent again.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// Below `/v2/REPOSITORY/`, or an address that the registry gave.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(http::header::HeaderName, String)],
    /// Makes the body, once for each time it is sent.
    pub(crate) body: &'a (dyn Fn() -> Body + Sync),
}

impl<'a> Ask<'a> {
    /// One without a body.
    pub(crate) const fn of(
        method: Method,
        path: &'a str,
        headers: &'a [(http::header::HeaderName, String)],
    ) -> Self {
        Self { method, path, headers, body: &empty }
    }
}

impl<'a> Session<'a> {
    /// Finds out how the registry speaks. `actions` are `pull` or `pull,push`.
    pub(crate) async fn open(
        transport: &'a Transport,
        endpoint: Endpoint,
        credential: Option<Credential>,
        actions: &str,
    ) -> Result<Self, Kind> {
        let scopes = vec![format!("repository:{}:{actions}", endpoint.repository)];
        let authorization = Mutex::default();
        let mut this =
            Self { transport, endpoint, scheme: "https", credential, scopes, authorization };
        if this.endpoint.insecure {
            let ping = |scheme| this.build(&Method::GET, &this.address_of("/v2/", scheme), &[]);
            let request = ping("https")?.body(empty()).map_err(|it| this.no_request(&it))?;
            // What does not speak TLS, or not this TLS, is asked without; what is not there at all says
            // so the second time.
            if transport.send(request, true).await.is_err() {
                this.scheme = "http";
            }
        }
        Ok(this)
    }

    /// Asks for the right to read these repositories too, with the next token.
    pub(crate) fn also_pull<'r>(&mut self, repositories: impl IntoIterator<Item = &'r String>) {
        for repository in repositories {
            let scope = format!("repository:{repository}:pull");
            if !self.scopes.contains(&scope) {
                self.scopes.push(scope);
            }
        }
    }

    /// The registry's name, for errors.
    pub(crate) fn registry(&self) -> &str {
        &self.endpoint.host
    }

    /// The credential in use.
    pub(crate) const fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    pub(crate) const fn transport(&self) -> &'a Transport {
        self.transport
    }

    /// Sends a request; whatever the answer is but a demand to log in, or to look elsewhere.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Kind> {
        let mut known = self.known();
        let mut answer = self.send_as(ask, known.as_ref()).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let Some(challenge) = Challenge::of(answer.headers()) else {
                return Err(auth::refused(self.registry(), self.credential()));
            };
            let wanted = Wanted {
                registry: self.registry(),
                scopes: &self.scopes,
                plain: self.scheme == "http",
                insecure: self.endpoint.insecure,
            };
            let credential = self.credential();
            let value = auth::satisfy(self.transport, &challenge, credential, wanted).await?;
            known = Some(value.clone());
            *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            answer = self.send_as(ask, known.as_ref()).await?;
        }
        Ok(answer)
    }

    /// As [`Session::send`]; an answer of another status than these is an error.
    pub(crate) async fn expect(
        &self,
        ask: &Ask<'_>,
        wanted: &[StatusCode],
    ) -> Result<Response<Incoming>, Kind> {
        let answer = self.send(ask).await?;
        if wanted.contains(&answer.status()) {
            return Ok(answer);
        }
        Err(self.refusal(ask, answer).await)
    }

    /// What an answer means that is not what was hoped for.
    pub(crate) async fn refusal(&self, ask: &Ask<'_>, answer: Response<Incoming>) -> Kind {
        let status = answer.status();
        let bytes = self.transport.answer(self.registry(), answer.into_body()).await;
        let message = message(&bytes.unwrap_or_default());
        let registry = self.registry().to_owned();
        match status {
            StatusCode::UNAUTHORIZED => auth::refused(&registry, self.credential()),
            StatusCode::FORBIDDEN => {
                Kind::Denied { registry, who: auth::who(self.credential()), message }
            }
            StatusCode::NOT_FOUND => Kind::NotFound { registry },
            StatusCode::TOO_MANY_REQUESTS => Kind::TooManyRequests { registry, message },
            other => Kind::Refused {
                registry,
                request: format!("{} {}", ask.method, ask.path),
                status: other.as_u16(),
                message,
            },
        }
    }

    fn known(&self) -> Option<HeaderValue> {
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request and follows redirects: those of a request without a body, a few, never from
    /// TLS to none, and without credentials to another host.
    async fn send_as(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Kind> {
        let first = self.address(ask.path)?;
        let mut uri = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let at_home = same_place(&first, &uri);
            let mut request = self.build(&ask.method, &uri.to_string(), ask.headers)?;
            if let Some(value) = authorization.filter(|_| at_home) {
                request = request.header(AUTHORIZATION, value);
            }
            let request = request.body((ask.body)()).map_err(|it| self.no_request(&it))?;
            let insecure = self.endpoint.insecure && at_home;
            let answer = self.transport.send(request, insecure).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            uri = self.follow(ask, &uri, answer.headers())?;
        }
        Err(self.redirected(&uri.to_string(), "there were too many in a row"))
    }

    fn follow(&self, ask: &Ask<'_>, from: &Uri, headers: &HeaderMap) -> Result<Uri, Kind> {
        let to = headers.get(LOCATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
        if ask.method != Method::GET && ask.method != Method::HEAD {
            return Err(self.redirected(to, "it was asked to take something, not to give"));
        }
        let next = join(from, to).ok_or_else(|| self.redirected(to, "it is no address"))?;
        match (from.scheme_str(), next.scheme_str()) {
            (_, Some("https")) | (Some("http"), Some("http")) => Ok(next),
            (_, Some("http")) => Err(self.redirected(to, "it is without TLS")),
            _ => Err(self.redirected(to, "it is neither https nor http")),
        }
    }

    fn redirected(&self, to: &str, reason: &'static str) -> Kind {
        let to = to.chars().take(MESSAGE_LENGTH_MAX).collect();
        Kind::Redirected { registry: self.registry().to_owned(), to, reason }
    }

    fn build(
        &self,
        method: &Method,
        address: &str,
        headers: &[(http::header::HeaderName, String)],
    ) -> Result<http::request::Builder, Kind> {
        let mut request = Request::builder().method(method).uri(address).header(USER_AGENT, AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match request.headers_ref() {
            Some(_) => Ok(request),
            None => Err(self.no_request(&"something of it is no text of HTTP")),
        }
    }

    fn no_request(&self, error: &dyn std::fmt::Display) -> Kind {
        let cause = format!("no request can be made of what it said: {error}");
        Kind::Lied { registry: self.registry().to_owned(), cause }
    }

    fn address_of(&self, path: &str, scheme: &str) -> String {
        format!("{scheme}://{}{path}", self.endpoint.host)
    }

    /// The address of a path: of the repository, or one that the registry gave, which must be of the
    /// same host, as things will be sent there.
    fn address(&self, path: &str) -> Result<Uri, Kind> {
        let text = if path.starts_with('/') || path.contains("://") {
            path.to_owned()
        } else {
            format!("/v2/{}/{path}", self.endpoint.repository)
        };
        let base: Uri = self
            .address_of("/", self.scheme)
            .parse()
            .map_err(|error: http::uri::InvalidUri| self.no_request(&error))?;
        let found = join(&base, &text).ok_or_else(|| self.redirected(path, "it is no address"))?;
        if found.host() != base.host() {
            return Err(self.redirected(path, "uploads go to the registry only"));
        }
        if base.scheme_str() == Some("https") && found.scheme_str() != Some("https") {
            return Err(self.redirected(path, "it is without TLS"));
        }
        Ok(found)
    }
}

/// What an address of a `Location` means.
fn join(base: &Uri, to: &str) -> Option<Uri> {
    if to.contains("://") {
        return to.parse().ok().filter(|it: &Uri| it.authority().is_some());
    }
    let text = match to.strip_prefix("//") {
        Some(rest) => format!("{}://{rest}", base.scheme_str()?),
        None if to.starts_with('/') => {
            format!("{}://{}{to}", base.scheme_str()?, base.authority()?)
        }
        None => return None,
    };
    text.parse().ok()
}

/// Whether two addresses are of one server: there credentials may go.
fn same_place(one: &Uri, other: &Uri) -> bool {
    let port = |it: &Uri| {
        it.port_u16().or(if it.scheme_str() == Some("https") { Some(443) } else { Some(80) })
    };
    one.scheme() == other.scheme() && one.host() == other.host() && port(one) == port(other)
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What a registry says of an error, in one line without anything that a terminal would obey.
pub(crate) fn message(bytes: &[u8]) -> String {
    let text = match serde_json::from_slice::<Errors>(bytes) {
        Ok(it) => {
            let one = |it: &OneError| format!("{} {}", it.code, it.message).trim().to_owned();
            it.errors.iter().map(one).collect::<Vec<String>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    };
    let shown = |it: char| if it.is_control() { ' ' } else { it };
    let text: String = text.trim().chars().map(shown).take(MESSAGE_LENGTH_MAX).collect();
    if text.is_empty() { "it says nothing more".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart() {
        let uri = |it: &str| -> Uri { it.parse().unwrap() };
        assert!(same_place(&uri("https://a.test/x"), &uri("https://a.test:443/y")));
        assert!(!same_place(&uri("https://a.test/x"), &uri("https://b.test/x")));
        assert!(!same_place(&uri("https://a.test/x"), &uri("https://a.test:444/x")));
        assert!(!same_place(&uri("https://a.test/x"), &uri("http://a.test:443/x")));
        let base = uri("https://a.test:5000/v2/x");
        assert_eq!(join(&base, "/y?z=1").unwrap(), "https://a.test:5000/y?z=1");
        assert_eq!(join(&base, "//b.test/y").unwrap(), "https://b.test/y");
        assert_eq!(join(&base, "y"), None);
        assert_eq!(join(&base, ""), None);
    }

    #[test]
    fn messages_are_harmless() {
        let json = br#"{"errors":[{"code":"DENIED","message":"no\u001b[2Jthing"}]}"#;
        assert_eq!(message(json), "DENIED no [2Jthing");
        assert_eq!(message(b"<html>\n"), "<html>");
        assert_eq!(message(b""), "it says nothing more");
    }
}
