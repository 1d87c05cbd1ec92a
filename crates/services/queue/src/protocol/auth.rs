//! What a client may do, as an auth server says: who is asked, and what the answer means.

mod http;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use regex::Regex;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use self::http::{AskError, Endpoint};
use super::options::AuthOptions;

/// What a server is told of the client.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) remote_ip: IpAddr,
    pub(super) tls: bool,
    /// In its certificate; empty without one.
    pub(super) common_name: String,
    pub(super) secret: String,
}

/// The auth servers.
pub(super) struct Authority {
    options: AuthOptions,
    connector: TlsConnector,
    turn: AtomicUsize,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What a client may do, for a while.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) identity: String,
    pub(super) identity_url: String,
    rules: Vec<Rule>,
    expires: Instant,
}

#[derive(Debug)]
struct Rule {
    topic: Regex,
    channels: Vec<Regex>,
    subscribe: bool,
    publish: bool,
}

/// Why nobody says what a client may do.
#[derive(Debug, thiserror::Error)]
#[error("no auth server answers; {address} is the last that was asked")]
pub(super) struct AuthError {
    address: String,
    source: OneError,
}

/// Why one server does not.
#[derive(Debug, thiserror::Error)]
enum OneError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("the answer is not what it should be")]
    Json(#[from] serde_json::Error),
    #[error("unknown permission {0}")]
    Permission(String),
    #[error("unable to compile an expression")]
    Expression(#[from] regex::Error),
    #[error("invalid TTL {0} (must be >0)")]
    Ttl(i64),
}

/// The answer of a server.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    ttl: i64,
    #[serde(default)]
    authorizations: Option<Vec<Authorization>>,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    identity_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Authorization {
    topic: Option<String>,
    channels: Option<Vec<String>>,
    permissions: Option<Vec<String>>,
}

impl Authority {
    pub(super) fn new(options: AuthOptions, connector: TlsConnector) -> Self {
        Self { options, connector, turn: AtomicUsize::new(0) }
    }

    /// Asks one server after the other, beginning with another each time, until one answers.
    ///
    /// # Errors
    /// If none does.
    pub(super) async fn ask(&self, asking: &Asking) -> Result<Grant, AuthError> {
        let addresses = &self.options.addresses;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
        let (later, first) = addresses.split_at_checked(turn).unwrap_or_default();
        let mut last = AuthError { address: String::new(), source: AskError::Late.into() };
        for address in first.iter().chain(later) {
            match self.ask_one(address, asking).await {
                Ok(grant) => return Ok(grant),
                Err(source) => {
                    tracing::warn!(%address, error = %source, "an auth server does not answer");
                    last = AuthError { address: address.clone(), source };
                }
            }
        }
        Err(last)
    }

    async fn ask_one(&self, address: &str, asking: &Asking) -> Result<Grant, OneError> {
        let endpoint = Endpoint::parse(address)?;
        let parameters = [
            ("common_name", asking.common_name.clone()),
            ("remote_ip", remote_ip(asking.remote_ip)),
            ("secret", asking.secret.clone()),
            ("tls", asking.tls.to_string()),
        ];
        let body = http::ask(&endpoint, &parameters, &self.options, &self.connector).await?;
        Ok(Grant::read(&body, Instant::now())?)
    }
}

/// As the original has it: nothing for a client on a Unix socket.
fn remote_ip(ip: IpAddr) -> String {
    if ip.is_unspecified() { String::new() } else { ip.to_canonical().to_string() }
}

impl Grant {
    fn read(body: &[u8], now: Instant) -> Result<Self, AnswerError> {
        let answer: Answer = serde_json::from_slice(body)?;
        let rules = answer.authorizations.unwrap_or_default().into_iter().map(Rule::read);
        let rules = rules.collect::<Result<_, _>>()?;
        let ttl = u64::try_from(answer.ttl).ok().filter(|it| 0 < *it);
        let ttl = Duration::from_secs(ttl.ok_or(AnswerError::Ttl(answer.ttl))?);
        Ok(Self {
            identity: answer.identity.unwrap_or_default(),
            identity_url: answer.identity_url.unwrap_or_default(),
            rules,
            expires: now.checked_add(ttl).unwrap_or(now),
        })
    }

    /// Whether the server has to be asked again.
    pub(super) fn is_expired(&self) -> bool {
        self.expires < Instant::now()
    }

    /// How many rules there are.
    pub(super) const fn permissions(&self) -> usize {
        self.rules.len()
    }

    /// Whether it allows to consume a channel or, if that is empty, to publish.
    pub(super) fn allows(&self, topic: &str, channel: &str) -> bool {
        self.rules.iter().any(|rule| {
            let allowed = if channel.is_empty() { rule.publish } else { rule.subscribe };
            let mut channels = rule.channels.iter();
            allowed && rule.topic.is_match(topic) && channels.any(|it| it.is_match(channel))
        })
    }
}

impl Rule {
    fn read(given: Authorization) -> Result<Self, AnswerError> {
        let (mut subscribe, mut publish) = (false, false);
        for permission in given.permissions.unwrap_or_default() {
            match permission.as_str() {
                "subscribe" => subscribe = true,
                "publish" => publish = true,
                _ => return Err(AnswerError::Permission(permission)),
            }
        }
        let topic = Regex::new(&given.topic.unwrap_or_default())?;
        let channels = given.channels.unwrap_or_default();
        let channels = channels.iter().map(|it| Regex::new(it)).collect::<Result<_, _>>()?;
        Ok(Self { topic, channels, subscribe, publish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Grant, AnswerError> {
        Grant::read(body.as_bytes(), Instant::now())
    }

    #[test]
    fn an_answer_says_what_is_allowed() {
        let grant = read(
            r#"{"ttl":10,"identity":"i","authorizations":[
                {"topic":"^a","channels":[".*"],"permissions":["subscribe"]},
                {"topic":"^b$","channels":["^$"],"permissions":["publish","subscribe"]},
                {"topic":"c","channels":[],"permissions":["publish"]}]}"#,
        );
        let grant = grant.unwrap();
        assert_eq!(grant.permissions(), 3);
        assert!(grant.allows("ab", "any"));
        assert!(!grant.allows("ab", ""), "publishing was not permitted");
        assert!(grant.allows("b", ""));
        assert!(!grant.allows("b", "any"), "of another channel");
        assert!(!grant.allows("c", ""), "of no channel at all, not even the empty one");
        assert!(!grant.is_expired());
    }

    #[test]
    fn a_bad_answer_allows_nothing() {
        for body in [
            "",
            "[]",
            r#"{"ttl":0}"#,
            r#"{"ttl":-1}"#,
            r#"{"ttl":1,"authorizations":[{"permissions":["fly"]}]}"#,
            r#"{"ttl":1,"authorizations":[{"topic":"("}]}"#,
            r#"{"ttl":1,"authorizations":[{"channels":["("]}]}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        assert_eq!(read(r#"{"ttl":1,"authorizations":null}"#).unwrap().permissions(), 0);
    }
}
