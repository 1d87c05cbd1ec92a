//! Who is asking: what registries demand in `WWW-Authenticate`, and tokens from their token servers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{
    error::Kind,
    keyring::Credential,
    transport::{Transport, empty, full},
};

/// The name of this program to token servers.
const CLIENT_ID: &str = "coracle";

/// Longest demand that is read.
const CHALLENGE_LENGTH_MAX: usize = 8 << 10;

/// What a registry demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User and password.
    Basic,
    /// A token of this server.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The best of the demands in an answer: a token, where both would do.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|it| it.to_str().ok());
        let mut found: Vec<Self> = texts.filter_map(Self::parse).collect();
        found.sort_by_key(|it| *it == Self::Basic);
        found.into_iter().next()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > CHALLENGE_LENGTH_MAX {
            return None;
        }
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

/// `name="value", name=value`; a value in quotes may have commas.
fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let after = after.trim_start();
        let (value, next) = if let Some(quoted) = after.strip_prefix('"') {
            quoted.split_once('"').unwrap_or((quoted, ""))
        } else {
            after.split_once(',').unwrap_or((after, ""))
        };
        found.push((name, value.trim().to_owned()));
        rest = next;
    }
    found
}

/// What a token is wanted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The registry, for errors.
    pub(crate) registry: &'a str,
    /// `repository:NAME:pull`, one for each repository.
    pub(crate) scopes: &'a [String],
    /// Whether the registry itself was spoken to without TLS.
    pub(crate) plain: bool,
    /// Whether any certificate will do.
    pub(crate) insecure: bool,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets what satisfies a demand: the value of `Authorization`.
pub(crate) async fn satisfy(
    transport: &Transport,
    challenge: &Challenge,
    credential: Option<&Credential>,
    wanted: Wanted<'_>,
) -> Result<HeaderValue, Kind> {
    let (realm, service, scope) = match (challenge, credential) {
        (Challenge::Basic, Some(credential)) => return secret(&basic(credential)),
        (Challenge::Basic, None) => return Err(refused(wanted.registry, credential)),
        (Challenge::Bearer { realm, service, scope }, _) => (realm, service, scope),
    };
    let realm_uri = check_realm(realm, wanted)?;
    let scopes: Vec<&str> = if wanted.scopes.is_empty() {
        scope.as_deref().into_iter().collect()
    } else {
        wanted.scopes.iter().map(String::as_str).collect()
    };
    let request = match credential.and_then(|it| it.identity_token.as_ref()) {
        Some(token) => refresh(&realm_uri, service.as_deref(), &scopes, token),
        None => ask(realm, service.as_deref(), &scopes, credential),
    };
    let request =
        request.map_err(|error| lied(wanted, &format!("token server `{realm}`: {error}")))?;
    let insecure = wanted.insecure;
    let answer = transport.send(request, insecure).await?;
    let status = answer.status();
    let bytes = transport.answer(wanted.registry, answer.into_body()).await?;
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(refused(wanted.registry, credential));
        }
        other => {
            return Err(Kind::Refused {
                registry: wanted.registry.to_owned(),
                request: format!("GET {realm}"),
                status: other.as_u16(),
                message: super::session::message(&bytes),
            });
        }
    }
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|_| lied(wanted, &format!("no token from `{realm}`")))?;
    let token = answer.token.or(answer.access_token).filter(|it| !it.is_empty());
    let token = token.ok_or_else(|| lied(wanted, &format!("no token from `{realm}`")))?;
    secret(&format!("Bearer {token}"))
}

/// Credentials go to a token server only over TLS, unless the registry itself does without.
fn check_realm(realm: &str, wanted: Wanted<'_>) -> Result<Uri, Kind> {
    let uri: Uri = realm
        .parse()
        .map_err(|_| lied(wanted, &format!("its token server `{realm}` is no address")))?;
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if wanted.plain => Ok(uri),
        _ => Err(Kind::Redirected {
            registry: wanted.registry.to_owned(),
            to: realm.to_owned(),
            reason: "the token server is without TLS",
        }),
    }
}

fn ask(
    realm: &str,
    service: Option<&str>,
    scopes: &[&str],
    credential: Option<&Credential>,
) -> http::Result<Request<super::transport::Body>> {
    let mut query: Vec<(&str, &str)> = service.map(|it| ("service", it)).into_iter().collect();
    query.extend(scopes.iter().map(|it| ("scope", *it)));
    query.extend(credential.map(|it| ("account", it.user.as_str())));
    let joint = if realm.contains('?') { '&' } else { '?' };
    let mut request = Request::get(format!("{realm}{joint}{}", form(&query)));
    if let Some(credential) = credential {
        request = request.header(AUTHORIZATION, basic(credential));
    }
    request.body(empty())
}

fn refresh(
    realm: &Uri,
    service: Option<&str>,
    scopes: &[&str],
    token: &str,
) -> http::Result<Request<super::transport::Body>> {
    let scope = scopes.join(" ");
    let mut fields = vec![
        ("grant_type", "refresh_token"),
        ("client_id", CLIENT_ID),
        ("refresh_token", token),
        ("scope", &scope),
    ];
    fields.extend(service.map(|it| ("service", it)));
    Request::builder()
        .method(Method::POST)
        .uri(realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(full(Bytes::from(form(&fields))))
}

fn basic(credential: &Credential) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credential.user, credential.password)))
}

/// A header that is not shown in logs.
fn secret(text: &str) -> Result<HeaderValue, Kind> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let source = std::io::Error::other("a token or password has characters that no header has");
        super::transport::local("log in", source)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

pub(crate) fn refused(registry: &str, credential: Option<&Credential>) -> Kind {
    let (registry, hint) = (registry.to_owned(), String::new());
    Kind::Unauthorized { registry, who: who(credential), hint }
}

/// As whom was asked, for errors.
pub(crate) fn who(credential: Option<&Credential>) -> String {
    match credential {
        None => "who has no credentials".to_owned(),
        Some(it) if it.user.is_empty() => "the token that it was given".to_owned(),
        Some(it) => format!("user `{}`", it.user),
    }
}

fn lied(wanted: Wanted<'_>, cause: &str) -> Kind {
    Kind::Lied { registry: wanted.registry.to_owned(), cause: cause.to_owned() }
}

/// `name=value&name=value`.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", encode(value));
    fields.iter().map(pair).collect::<Vec<String>>().join("&")
}

/// All but what a query may have as it is.
fn encode(text: &str) -> String {
    let byte = |it: u8| {
        if it.is_ascii_alphanumeric() || b"-._~/".contains(&it) {
            char::from(it).to_string()
        } else {
            format!("%{it:02X}")
        }
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demands_are_read() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"x\""));
        let text = "bearer realm=\"https://a.test/token\", service=a.test,\
                    scope=\"repository:a/b:pull,push\",error=\"x\"";
        assert_eq!(Challenge::of(&headers), Some(Challenge::Basic));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        assert_eq!(
            Challenge::of(&headers),
            Some(Challenge::Bearer {
                realm: "https://a.test/token".to_owned(),
                service: Some("a.test".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        headers.clear();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Negotiate"));
        assert_eq!(Challenge::of(&headers), None);
        assert_eq!(
            form(&[("scope", "repository:a/b:pull,push")]),
            "scope=repository%3Aa/b%3Apull%2Cpush"
        );
    }
}
