//! `IDENTIFY`: what a client tells of itself, asks for, and gets. Does no IO.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{clients::About, fault::Fault, frame, options::Options};

/// The output buffer of a client that asks for no other, in bytes. The original's.
const OUTPUT_BUFFER_DEFAULT: usize = 16 * 1024;
/// The smallest output buffer a client may ask for. The original's.
const OUTPUT_BUFFER_MIN: i64 = 64;
/// The shortest heartbeat interval and message timeout a client may ask for, in milliseconds.
const INTERVAL_MIN: i64 = 1000;
/// The level of deflate of a client that asks for no other.
const DEFLATE_LEVEL_DEFAULT: i64 = 6;

/// How a connection is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// How often it is sent a heartbeat; `None`: never, then it may not consume.
    pub(super) heartbeat: Option<Duration>,
    /// Messages are sent when there are this many bytes of them.
    pub(super) buffer_size: usize,
    /// When messages are sent although there are fewer.
    pub(super) buffering: Buffering,
    /// How many messages of a hundred it gets; 0: all.
    pub(super) sample_rate: u8,
    /// Until a message it did not answer is delivered again.
    pub(super) msg_timeout: Duration,
}

/// When messages leave a buffer that is not full. They always do when the client may get no more
/// before it has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffering {
    /// When there is nothing more to send: the client did not say that it would rather wait. The
    /// original makes it wait for its default time.
    Idle,
    /// At the next multiple of this time, as the client asked.
    Every(Duration),
    /// Not at all: the client asked for that.
    Full,
}

/// A compression of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// The framing format of snappy.
    Snappy,
    /// Deflate without header, at this level.
    Deflate(u8),
}

/// What follows from an `IDENTIFY`.
#[derive(Debug)]
pub(super) struct Identified {
    pub(super) settings: Settings,
    pub(super) about: About,
    /// What the client is told.
    pub(super) answer: Bytes,
    /// TLS begins after the answer.
    pub(super) tls: bool,
    /// Compression begins after that.
    pub(super) compression: Option<Compression>,
}

/// The answer to a client that can negotiate.
#[derive(Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the original's keys")]
struct Answer<'a> {
    max_rdy_count: u32,
    version: &'a str,
    max_msg_timeout: u128,
    msg_timeout: u128,
    tls_v1: bool,
    deflate: bool,
    deflate_level: i64,
    max_deflate_level: u8,
    snappy: bool,
    sample_rate: u8,
    auth_required: bool,
    output_buffer_size: usize,
    output_buffer_timeout: u128,
    topology_region: &'a str,
    topology_zone: &'a str,
}

impl Settings {
    /// Those of a client that asked for nothing.
    #[must_use]
    pub(super) const fn new(options: &Options) -> Self {
        Self {
            heartbeat: options.client_timeout.checked_div(2),
            buffer_size: OUTPUT_BUFFER_DEFAULT,
            buffering: Buffering::Idle,
            sample_rate: 0,
            msg_timeout: options.msg_timeout,
        }
    }

    /// How long messages are buffered at most, as the client is told.
    fn buffer_timeout(&self, options: &Options) -> Duration {
        match self.buffering {
            Buffering::Idle => options.output_buffer_timeout,
            Buffering::Every(time) => time,
            Buffering::Full => Duration::ZERO,
        }
    }

    /// Takes over what the client wants, in the order in which the original refuses it.
    fn want(&mut self, wants: &Wants, options: &Options) -> Result<(), String> {
        self.heartbeat = match wants.heartbeat_interval {
            -1 => None,
            0 => self.heartbeat,
            given if (INTERVAL_MIN..=millis(options.max_heartbeat_interval)).contains(&given) => {
                Some(of_millis(given))
            }
            given => return Err(format!("heartbeat interval ({given}) is invalid")),
        };
        let allowed =
            millis(options.min_output_buffer_timeout)..=millis(options.max_output_buffer_timeout);
        self.buffering = match wants.output_buffer_timeout {
            -1 => Buffering::Full,
            0 => self.buffering,
            given if allowed.contains(&given) => Buffering::Every(of_millis(given)),
            given => return Err(format!("output buffer timeout ({given}) is invalid")),
        };
        let allowed = OUTPUT_BUFFER_MIN..=i64::from(options.max_output_buffer_size);
        match wants.output_buffer_size {
            -1 => (self.buffer_size, self.buffering) = (1, Buffering::Full),
            0 => {}
            given if allowed.contains(&given) => {
                self.buffer_size = usize::try_from(given).unwrap_or(OUTPUT_BUFFER_DEFAULT);
            }
            given => return Err(format!("output buffer size ({given}) is invalid")),
        }
        let given = wants.sample_rate;
        self.sample_rate = u8::try_from(given)
            .ok()
            .filter(|it| *it <= 99)
            .ok_or_else(|| format!("sample rate ({given}) is invalid"))?;
        self.msg_timeout = match wants.msg_timeout {
            0 => self.msg_timeout,
            given if (INTERVAL_MIN..=millis(options.max_msg_timeout)).contains(&given) => {
                of_millis(given)
            }
            given => return Err(format!("msg timeout ({given}) is invalid")),
        };
        Ok(())
    }
}

/// What a client asks for.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the original's keys")]
struct Wants {
    heartbeat_interval: i64,
    output_buffer_size: i64,
    output_buffer_timeout: i64,
    sample_rate: i64,
    msg_timeout: i64,
    deflate_level: i64,
    feature_negotiation: bool,
    tls_v1: bool,
    deflate: bool,
    snappy: bool,
}

/// Reads the body of an `IDENTIFY` for a connection that is served by `settings` until now.
///
/// # Errors
/// What the client is told; the connection ends.
pub(super) fn identify(
    body: &[u8],
    mut settings: Settings,
    options: &Options,
) -> Result<Identified, Fault> {
    let (wants, about) = decode(body)
        .ok_or_else(|| Fault::fatal("E_BAD_BODY IDENTIFY failed to decode JSON body"))?;
    settings
        .want(&wants, options)
        .map_err(|why| Fault::fatal(format!("E_BAD_BODY IDENTIFY {why}")))?;
    let about = About { sample_rate: settings.sample_rate, ..about };
    if !wants.feature_negotiation {
        let answer = Bytes::from_static(frame::OK);
        return Ok(Identified { settings, about, answer, tls: false, compression: None });
    }
    let tls = options.tls.is_some() && wants.tls_v1;
    let deflate = options.deflate && wants.deflate;
    let snappy = options.snappy && wants.snappy;
    if deflate && snappy {
        return Err(Fault::fatal(
            "E_IDENTIFY_FAILED cannot enable both deflate and snappy compression",
        ));
    }
    let asked = if deflate && 0 < wants.deflate_level {
        wants.deflate_level
    } else {
        DEFLATE_LEVEL_DEFAULT
    };
    let level = asked.min(i64::from(options.max_deflate_level));
    let answer = Answer {
        max_rdy_count: options.max_rdy_count,
        version: &options.version,
        max_msg_timeout: options.max_msg_timeout.as_millis(),
        msg_timeout: settings.msg_timeout.as_millis(),
        tls_v1: tls,
        deflate,
        deflate_level: level,
        max_deflate_level: options.max_deflate_level,
        snappy,
        sample_rate: settings.sample_rate,
        auth_required: !options.auth.addresses.is_empty(),
        output_buffer_size: settings.buffer_size,
        output_buffer_timeout: settings.buffer_timeout(options).as_millis(),
        topology_region: &options.topology_region,
        topology_zone: &options.topology_zone,
    };
    let answer = serde_json::to_vec(&answer)
        .map_err(|error| Fault::fatal(format!("E_IDENTIFY_FAILED IDENTIFY failed {error}")))?;
    let level = u8::try_from(level).unwrap_or_default();
    let compression = match (snappy, deflate) {
        (true, _) => Some(Compression::Snappy),
        (_, true) => Some(Compression::Deflate(level)),
        _ => None,
    };
    Ok(Identified { settings, about, answer: answer.into(), tls, compression })
}

/// Reads JSON as Go does: unknown keys are ignored, the case of known ones too, `null` is nothing.
fn decode(body: &[u8]) -> Option<(Wants, About)> {
    let text = String::from_utf8_lossy(body);
    let given: Option<Map<String, Value>> = serde_json::from_str(&text).ok()?;
    let mut all: Map<String, Value> = Map::new();
    for (key, value) in given.unwrap_or_default() {
        let key = key.to_ascii_lowercase();
        if !value.is_null() {
            all.insert(key, value);
        }
    }
    let mut text = |key| taken(&mut all, key, |it| it.as_str().map(str::to_owned));
    let about = About {
        client_id: text("client_id")?,
        hostname: text("hostname")?,
        user_agent: text("user_agent")?,
        topology_zone: text("topology_zone")?,
        topology_region: text("topology_region")?,
        ..About::default()
    };
    let mut number = |key| taken(&mut all, key, Value::as_i64);
    let mut wants = Wants {
        heartbeat_interval: number("heartbeat_interval")?,
        output_buffer_size: number("output_buffer_size")?,
        output_buffer_timeout: number("output_buffer_timeout")?,
        sample_rate: number("sample_rate").filter(|it| i32::try_from(*it).is_ok())?,
        msg_timeout: number("msg_timeout")?,
        deflate_level: number("deflate_level")?,
        ..Wants::default()
    };
    let mut flag = |key| taken(&mut all, key, Value::as_bool);
    wants.feature_negotiation = flag("feature_negotiation")?;
    wants.tls_v1 = flag("tls_v1")?;
    wants.deflate = flag("deflate")?;
    wants.snappy = flag("snappy")?;
    Some((wants, about))
}

/// A value of the right type; nothing is its default, another type is an error.
fn taken<T: Default>(
    all: &mut Map<String, Value>,
    key: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Option<T> {
    all.remove(key).map_or_else(|| Some(T::default()), |it| read(&it))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn of_millis(given: i64) -> Duration {
    Duration::from_millis(u64::try_from(given).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(body: &str, expected: Expect) {
        let options = Options::default();
        let told = match identify(body.as_bytes(), Settings::new(&options), &options) {
            Ok(it) => {
                let answer = String::from_utf8_lossy(&it.answer).into_owned();
                format!("{answer}\n{:?}\ntls {}, {:?}", it.settings, it.tls, it.compression)
            }
            Err(fault) => format!("{fault:?}"),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn without_negotiation_the_answer_is_ok() {
        check(
            r#"{"client_id":"me","sample_rate":10,"snappy":true,"short_id":"x"}"#,
            expect![[r#"
                OK
                Settings { heartbeat: Some(30s), buffer_size: 16384, buffering: Idle, sample_rate: 10, msg_timeout: 60s }
                tls false, None"#]],
        );
        check(
            "null",
            expect![[r#"
            OK
            Settings { heartbeat: Some(30s), buffer_size: 16384, buffering: Idle, sample_rate: 0, msg_timeout: 60s }
            tls false, None"#]],
        );
    }

    #[test]
    fn everything_is_negotiated() {
        check(
            r#"{"feature_negotiation":true,"heartbeat_interval":1000,"output_buffer_size":64,"output_buffer_timeout":25,"msg_timeout":900000,"tls_v1":true,"deflate":true,"deflate_level":9}"#,
            expect![[r#"
                {"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":900000,"tls_v1":false,"deflate":true,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":false,"output_buffer_size":64,"output_buffer_timeout":25,"topology_region":"","topology_zone":""}
                Settings { heartbeat: Some(1s), buffer_size: 64, buffering: Every(25ms), sample_rate: 0, msg_timeout: 900s }
                tls false, Some(Deflate(6))"#]],
        );
        check(
            r#"{"FEATURE_negotiation":true,"heartbeat_interval":-1,"output_buffer_size":-1,"output_buffer_timeout":null,"snappy":true}"#,
            expect![[r#"
                {"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,"deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":true,"sample_rate":0,"auth_required":false,"output_buffer_size":1,"output_buffer_timeout":0,"topology_region":"","topology_zone":""}
                Settings { heartbeat: None, buffer_size: 1, buffering: Full, sample_rate: 0, msg_timeout: 60s }
                tls false, Some(Snappy)"#]],
        );
    }

    #[test]
    fn refusals_are_those_of_the_original() {
        let bodies = [
            "{",
            "[]",
            r#"{"client_id":1}"#,
            r#"{"heartbeat_interval":1.5}"#,
            r#"{"sample_rate":4294967296}"#,
            r#"{"heartbeat_interval":999}"#,
            r#"{"heartbeat_interval":60001}"#,
            r#"{"output_buffer_timeout":24}"#,
            r#"{"output_buffer_timeout":30001}"#,
            r#"{"output_buffer_size":63}"#,
            r#"{"output_buffer_size":65537}"#,
            r#"{"sample_rate":100}"#,
            r#"{"sample_rate":-1}"#,
            r#"{"msg_timeout":900001}"#,
            r#"{"msg_timeout":-1}"#,
            r#"{"feature_negotiation":true,"snappy":true,"deflate":true}"#,
        ];
        let options = Options::default();
        let told: String = bodies
            .iter()
            .map(|it| identify(it.as_bytes(), Settings::new(&options), &options).unwrap_err())
            .map(|it| format!("{it:?}\n"))
            .collect();
        expect![[r#"
            E_BAD_BODY IDENTIFY failed to decode JSON body (fatal: true)
            E_BAD_BODY IDENTIFY failed to decode JSON body (fatal: true)
            E_BAD_BODY IDENTIFY failed to decode JSON body (fatal: true)
            E_BAD_BODY IDENTIFY failed to decode JSON body (fatal: true)
            E_BAD_BODY IDENTIFY failed to decode JSON body (fatal: true)
            E_BAD_BODY IDENTIFY heartbeat interval (999) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY heartbeat interval (60001) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY output buffer timeout (24) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY output buffer timeout (30001) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY output buffer size (63) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY output buffer size (65537) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY sample rate (100) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY sample rate (-1) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY msg timeout (900001) is invalid (fatal: true)
            E_BAD_BODY IDENTIFY msg timeout (-1) is invalid (fatal: true)
            E_IDENTIFY_FAILED cannot enable both deflate and snappy compression (fatal: true)
        "#]]
        .assert_eq(&told);
    }

    #[test]
    fn any_body_gets_an_answer() {
        proptest::proptest!(|(body: Vec<u8>)| {
            let options = Options::default();
            drop(identify(&body, Settings::new(&options), &options));
        });
    }
}
