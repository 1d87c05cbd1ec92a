//! Bodies of the HTTP API: what Toxiproxy's clients send and expect, with our own fields beside.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    Direction, Distribution, Effect, Fault, Flow, Mode, Open, RouteConfig, RouteError, Statistics,
    Trigger,
};

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub(super) fn not_found(text: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
    }

    fn bad(text: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("bad request body: {text}"))
    }

    /// Says which of several it was, counted from 1.
    pub(super) fn at(self, index: usize) -> Self {
        Self { text: format!("{} at proxy {index}", self.text), ..self }
    }

    pub(super) fn body(&self) -> Value {
        json!({ "error": self.text, "status": self.status.as_u16() })
    }
}

impl From<RouteError> for Refusal {
    fn from(error: RouteError) -> Self {
        let status = match &error {
            RouteError::NotFound => StatusCode::NOT_FOUND,
            RouteError::Exists => StatusCode::CONFLICT,
            RouteError::Listen { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            RouteError::Upstream { .. }
            | RouteError::Invalid(_)
            | RouteError::TooMany
            | RouteError::Descriptors { .. } => StatusCode::BAD_REQUEST,
        };
        let cause = std::error::Error::source(&error).map(|it| format!(": {it}"));
        Self::new(status, format!("{error}{}", cause.unwrap_or_default()))
    }
}

/// Reads a body.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(Refusal::bad)
}

/// A proxy as it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProxyInput {
    name: String,
    listen: Option<String>,
    upstream: Option<String>,
    enabled: Option<bool>,
    mode: Option<ModeName>,
    connections_max: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ModeName {
    Forward,
    Refuse,
    Hold,
}

impl From<ModeName> for Mode {
    fn from(name: ModeName) -> Self {
        match name {
            ModeName::Forward => Self::Forward,
            ModeName::Refuse => Self::Refuse,
            ModeName::Hold => Self::Hold,
        }
    }
}

impl ProxyInput {
    /// A new route.
    pub(super) fn create(self) -> Result<RouteConfig, Refusal> {
        let missing = |field: &str| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("missing required field: {field}"))
        };
        if self.name.is_empty() {
            return Err(missing("name"));
        }
        let upstream = self.upstream.filter(|it| !it.is_empty());
        Ok(RouteConfig {
            upstream: upstream.ok_or_else(|| missing("upstream"))?,
            name: self.name,
            listen: self
                .listen
                .filter(|it| !it.is_empty())
                .unwrap_or_else(|| "127.0.0.1:0".to_owned()),
            enabled: self.enabled.unwrap_or(true),
            mode: self.mode.map_or(Mode::Forward, Mode::from),
            connections_max: self.connections_max.unwrap_or(0),
            faults: Vec::new(),
        })
    }

    /// The same, where it is to listen if it does not say.
    pub(super) fn with(self, name: &str, listen: Option<String>) -> Self {
        Self { name: name.to_owned(), listen: self.listen.or(listen), ..self }
    }

    /// A route that is there, changed.
    pub(super) fn change(self, known: RouteConfig) -> RouteConfig {
        RouteConfig {
            listen: self.listen.unwrap_or(known.listen),
            upstream: self.upstream.unwrap_or(known.upstream),
            enabled: self.enabled.unwrap_or(known.enabled),
            mode: self.mode.map_or(known.mode, Mode::from),
            connections_max: self.connections_max.unwrap_or(known.connections_max),
            ..known
        }
    }
}

/// A proxy as it is shown.
pub(super) fn proxy(config: &RouteConfig) -> Value {
    let mode = match config.mode {
        Mode::Forward => "forward",
        Mode::Refuse => "refuse",
        Mode::Hold => "hold",
    };
    json!({
        "name": config.name,
        "listen": config.listen,
        "upstream": config.upstream,
        "enabled": config.enabled,
        "toxics": config.faults.iter().map(toxic).collect::<Vec<_>>(),
        "mode": mode,
        "connections_max": config.connections_max,
    })
}

/// A toxic as it is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ToxicInput {
    pub(super) name: String,
    #[serde(rename = "type")]
    kind: String,
    stream: Option<String>,
    toxicity: Option<f64>,
    attributes: Attributes,
}

type Attributes = Map<String, Value>;

impl ToxicInput {
    /// A new fault.
    pub(super) fn create(self) -> Result<Fault, Refusal> {
        let stream = self.stream.as_deref().unwrap_or("downstream");
        let direction = Direction::ALL.into_iter().find(|it| it.name() == stream);
        let direction = direction.ok_or_else(|| {
            let text = "stream was invalid, can be either upstream or downstream";
            Refusal::new(StatusCode::BAD_REQUEST, text)
        })?;
        let effect = effect(&self.kind, &self.attributes)?;
        let name = if self.name.is_empty() { format!("{}_{stream}", self.kind) } else { self.name };
        Ok(Fault { name, direction, probability: self.toxicity.unwrap_or(1.0), effect })
    }

    /// A fault that is there, changed: what is not said stays.
    pub(super) fn change(self, known: Fault) -> Result<Fault, Refusal> {
        let mut merged = attributes(&known.effect);
        merged.extend(self.attributes);
        Ok(Fault {
            effect: effect(known.effect.kind(), &merged)?,
            probability: self.toxicity.unwrap_or(known.probability),
            ..known
        })
    }
}

/// A toxic as it is shown.
pub(super) fn toxic(fault: &Fault) -> Value {
    json!({
        "name": fault.name,
        "type": fault.effect.kind(),
        "stream": fault.direction.name(),
        "toxicity": fault.probability,
        "attributes": attributes(&fault.effect),
    })
}

/// A number of an attribute; 0 if it is not there.
fn number(attributes: &Attributes, key: &str) -> Result<f64, Refusal> {
    let Some(value) = attributes.get(key) else { return Ok(0.0) };
    let number = value.as_f64().filter(|it| *it >= 0.0);
    number.ok_or_else(|| Refusal::bad(format!("{key}: {value} is no number from 0")))
}

fn whole(attributes: &Attributes, key: &str) -> Result<u64, Refusal> {
    let Some(value) = attributes.get(key) else { return Ok(0) };
    let number = value.as_u64();
    number.ok_or_else(|| Refusal::bad(format!("{key}: {value} is no whole number from 0")))
}

fn size(attributes: &Attributes, key: &str) -> Result<usize, Refusal> {
    let whole = whole(attributes, key)?;
    usize::try_from(whole).map_err(|error| Refusal::bad(format!("{key}: {error}")))
}

/// A duration given in units of `per_second` a second.
fn time(attributes: &Attributes, key: &str, per_second: f64) -> Result<Duration, Refusal> {
    let seconds = number(attributes, key)? / per_second;
    Duration::try_from_secs_f64(seconds).map_err(|error| Refusal::bad(format!("{key}: {error}")))
}

const MILLIS: f64 = 1e3;
const MICROS: f64 = 1e6;

fn effect(kind: &str, attributes: &Attributes) -> Result<Effect, Refusal> {
    let word = |key: &str, default: &'static str| match attributes.get(key) {
        None => Ok(default.to_owned()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(Refusal::bad(format!("{key}: {other} is no word"))),
    };
    Ok(match kind {
        "latency" => Effect::Latency {
            delay: time(attributes, "latency", MILLIS)?,
            jitter: time(attributes, "jitter", MILLIS)?,
            distribution: match word("distribution", "uniform")?.as_str() {
                "uniform" => Distribution::Uniform,
                "normal" => Distribution::Normal,
                other => return Err(Refusal::bad(format!("distribution: {other}"))),
            },
        },
        "bandwidth" => Effect::Bandwidth { rate: kilobytes(number(attributes, "rate")?) },
        "slow_close" => Effect::SlowClose { delay: time(attributes, "delay", MILLIS)? },
        "timeout" => {
            let after = time(attributes, "timeout", MILLIS)?;
            Effect::Timeout { after: (!after.is_zero()).then_some(after) }
        }
        "reset_peer" => {
            let after = time(attributes, "timeout", MILLIS)?;
            let when = match word("on", "data")?.as_str() {
                "data" => Trigger::Data(after),
                "start" => Trigger::Start(after),
                "bytes" => Trigger::Bytes(whole(attributes, "bytes")?),
                other => return Err(Refusal::bad(format!("on: {other}"))),
            };
            Effect::Reset { when }
        }
        "slicer" => Effect::Slicer {
            average: size(attributes, "average_size")?,
            variation: size(attributes, "size_variation")?,
            delay: time(attributes, "delay", MICROS)?,
        },
        "limit_data" => Effect::Truncate { bytes: whole(attributes, "bytes")? },
        "blackhole" => Effect::Blackhole,
        "half_open" => Effect::HalfOpen,
        _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid toxic type")),
    })
}

/// From kB/s to bytes a second.
fn kilobytes(rate: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and what is too large becomes the largest there is"
    )]
    let bytes = (rate * 1e3).round() as u64;
    bytes
}

/// A number without a fraction where it has none, as clients expect it.
fn shown(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "compared with what it was")]
    let whole = number.round() as i64;
    #[expect(clippy::cast_precision_loss, reason = "compared with what it was")]
    let is_whole = (number - whole as f64).abs() < 1e-9;
    if is_whole { json!(whole) } else { json!(number) }
}

fn attributes(effect: &Effect) -> Attributes {
    let millis = |it: &Duration| shown(it.as_secs_f64() * MILLIS);
    #[expect(clippy::cast_precision_loss, reason = "rates beyond 2^53 do not exist")]
    let kilobytes = |it: u64| shown(it as f64 / 1e3);
    let value = match effect {
        Effect::Latency { delay, jitter, distribution } => {
            let distribution = match distribution {
                Distribution::Uniform => "uniform",
                Distribution::Normal => "normal",
            };
            json!({
                "latency": millis(delay),
                "jitter": millis(jitter),
                "distribution": distribution,
            })
        }
        Effect::Bandwidth { rate } => json!({ "rate": kilobytes(*rate) }),
        Effect::SlowClose { delay } => json!({ "delay": millis(delay) }),
        Effect::Timeout { after } => json!({ "timeout": millis(&after.unwrap_or_default()) }),
        Effect::Reset { when: Trigger::Data(after) } => {
            json!({ "timeout": millis(after), "on": "data" })
        }
        Effect::Reset { when: Trigger::Start(after) } => {
            json!({ "timeout": millis(after), "on": "start" })
        }
        Effect::Reset { when: Trigger::Bytes(bytes) } => json!({ "bytes": bytes, "on": "bytes" }),
        Effect::Slicer { average, variation, delay } => json!({
            "average_size": average,
            "size_variation": variation,
            "delay": shown(delay.as_secs_f64() * MICROS),
        }),
        Effect::Truncate { bytes } => json!({ "bytes": bytes }),
        Effect::Blackhole | Effect::HalfOpen => json!({}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn flow(flow: &Flow) -> Value {
    let Flow { received_bytes, delivered_bytes, swallowed_bytes, faults } = flow;
    let faults: BTreeMap<&str, u64> = faults.clone();
    json!({
        "received_bytes": received_bytes,
        "delivered_bytes": delivered_bytes,
        "swallowed_bytes": swallowed_bytes,
        "faults": faults,
    })
}

/// A route's statistics.
pub(super) fn statistics(it: &Statistics) -> Value {
    json!({
        "connections": {
            "accepted": it.accepted,
            "open": it.open,
            "over_limit": it.over_limit,
            "upstream_failures": it.upstream_failures,
            "last_upstream_failure": it.last_upstream_failure,
            "resets": it.resets,
        },
        "upstream": flow(&it.upstream),
        "downstream": flow(&it.downstream),
    })
}

/// A connection of a list.
pub(super) fn connection(it: &Open) -> Value {
    json!({
        "id": it.id,
        "client": it.client.to_string(),
        "upstream": flow(&it.upstream),
        "downstream": flow(&it.downstream),
    })
}
