//! `KIND [DIRECTION] [KEY=VALUE ...]`: one line that says what goes wrong.

use std::collections::BTreeMap;

use super::{Error, duration, number, rate, size};
use crate::{
    connection::How,
    effect::{Direction, Distribution, Effect, Fault, Trigger},
    route::Mode,
    schedule::Change,
};

/// Kinds of faults, for messages.
const KINDS: &str = "latency, bandwidth, slicer, slow_close, timeout, reset_peer, limit_data, \
                     blackhole, half_open, refuse, hold, disconnect";

/// What one line says is to happen.
///
/// # Errors
/// What is wrong with it.
pub fn change(text: &str) -> Result<Change, Error> {
    let mut words = text.split_whitespace();
    let kind = words.next().ok_or_else(|| Error(format!("which fault? {KINDS}")))?;
    let mut directions: Option<&[Direction]> = None;
    let mut values = Values { kind, map: BTreeMap::new() };
    for word in words {
        if let Some((key, value)) = word.split_once('=') {
            if values.map.insert(key, value).is_some() {
                return Err(Error(format!("`{key}` is given twice")));
            }
            continue;
        }
        let named = direction(word).ok_or_else(|| {
            let known = "client->server, server->client or both";
            Error(format!("`{word}`: a direction is {known}, all else is KEY=VALUE"))
        })?;
        if directions.replace(named).is_some() {
            return Err(Error(format!("`{word}`: only one direction")));
        }
    }
    let change = match kind {
        "refuse" => Change::Mode(Mode::Refuse),
        "hold" => Change::Mode(Mode::Hold),
        "disconnect" => Change::End(match values.take("how").unwrap_or("close") {
            "close" => How::Close,
            "reset" => How::Reset,
            other => return Err(Error(format!("how=`{other}`: close or reset"))),
        }),
        _ => return faults(values, directions),
    };
    if directions.is_some() {
        return Err(Error(format!("`{kind}` has no direction: it acts on whole connections")));
    }
    values.finish()?;
    Ok(change)
}

fn faults(mut values: Values<'_>, directions: Option<&[Direction]>) -> Result<Change, Error> {
    let effect = effect(&mut values)?;
    let kind = effect.kind();
    let directions = match (directions, &effect) {
        (Some(directions), _) => directions,
        // Whichever direction it watches, both ends are reset.
        (None, Effect::Reset { when: Trigger::Start(_) }) => &[Direction::Downstream],
        (None, _) => {
            let known = "client->server, server->client or both";
            return Err(Error(format!("`{}`: which bytes? {known}", values.kind)));
        }
    };
    let probability = values.take("probability").map_or(Ok(1.0), number)?;
    let name = values.take("name");
    values.finish()?;
    let mut faults = Vec::new();
    for direction in directions {
        let name = match name {
            Some(name) if directions.len() == 1 => name.to_owned(),
            Some(name) => format!("{name}_{direction}"),
            None => format!("{kind}_{direction}"),
        };
        let fault = Fault { name, direction: *direction, probability, effect: effect.clone() };
        fault.check().map_err(|error| Error(error.to_string()))?;
        faults.push(fault);
    }
    Ok(Change::Faults(faults))
}

fn effect(values: &mut Values<'_>) -> Result<Effect, Error> {
    Ok(match values.kind {
        "latency" => Effect::Latency {
            delay: duration(values.need("delay")?)?,
            jitter: values.take("jitter").map_or(Ok(std::time::Duration::ZERO), duration)?,
            distribution: match values.take("distribution").unwrap_or("uniform") {
                "uniform" => Distribution::Uniform,
                "normal" => Distribution::Normal,
                other => return Err(Error(format!("distribution=`{other}`: uniform or normal"))),
            },
        },
        "bandwidth" => Effect::Bandwidth { rate: rate(values.need("rate")?)? },
        "slicer" => Effect::Slicer {
            average: to_usize(size(values.need("size")?)?)?,
            variation: to_usize(values.take("variation").map_or(Ok(0), size)?)?,
            delay: values.take("delay").map_or(Ok(std::time::Duration::ZERO), duration)?,
        },
        "slow_close" => Effect::SlowClose { delay: duration(values.need("delay")?)? },
        "timeout" => Effect::Timeout { after: values.take("after").map(duration).transpose()? },
        "reset_peer" | "reset" => {
            let (after, bytes) = (values.take("after"), values.take("bytes"));
            let on = values.take("on").unwrap_or("start");
            let after = after.map_or(Ok(std::time::Duration::ZERO), duration)?;
            let when = match (on, bytes) {
                ("start", None) => Trigger::Start(after),
                ("data", None) => Trigger::Data(after),
                ("start", Some(bytes)) if after.is_zero() => Trigger::Bytes(size(bytes)?),
                _ => return Err(Error("reset: after=TIME [on=start|data], or bytes=SIZE".into())),
            };
            Effect::Reset { when }
        }
        "limit_data" => Effect::Truncate { bytes: size(values.need("bytes")?)? },
        "blackhole" => Effect::Blackhole,
        "half_open" => Effect::HalfOpen,
        other => return Err(Error(format!("`{other}` is no fault: {KINDS}"))),
    })
}

fn to_usize(size: u64) -> Result<usize, Error> {
    usize::try_from(size).map_err(|_| Error(format!("`{size}` is too large")))
}

fn direction(word: &str) -> Option<&'static [Direction]> {
    match word {
        "client->server" | "upstream" => Some(&[Direction::Upstream]),
        "server->client" | "downstream" => Some(&[Direction::Downstream]),
        "client<->server" | "both" => Some(&Direction::ALL),
        _ => None,
    }
}

/// What is given, until it is asked for.
struct Values<'a> {
    kind: &'a str,
    map: BTreeMap<&'a str, &'a str>,
}

impl<'a> Values<'a> {
    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.map.remove(key)
    }

    fn need(&mut self, key: &str) -> Result<&'a str, Error> {
        self.take(key).ok_or_else(|| Error(format!("`{}` needs {key}=VALUE", self.kind)))
    }

    fn finish(&self) -> Result<(), Error> {
        match self.map.keys().next() {
            Some(key) => Err(Error(format!("`{}` has no `{key}`", self.kind))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let seen = match change(text) {
            Err(error) => error.to_string(),
            Ok(Change::Faults(faults)) => {
                let of = |it: &Fault| format!("{} {:?} {}", it.name, it.effect, it.probability);
                faults.iter().map(of).collect::<Vec<_>>().join("\n")
            }
            Ok(other) => format!("{other:?}"),
        };
        expected.assert_eq(&seen);
    }

    #[test]
    fn every_kind() {
        check(
            "latency both delay=100ms jitter=20ms distribution=normal",
            expect![[r#"
                latency_upstream Latency { delay: 100ms, jitter: 20ms, distribution: Normal } 1
                latency_downstream Latency { delay: 100ms, jitter: 20ms, distribution: Normal } 1"#]],
        );
        check(
            "bandwidth server->client rate=100kB/s name=slow",
            expect!["slow Bandwidth { rate: 100000 } 1"],
        );
        check(
            "slicer upstream size=100 variation=10 delay=1ms",
            expect!["slicer_upstream Slicer { average: 100, variation: 10, delay: 1ms } 1"],
        );
        check(
            "slow_close both delay=1s name=x",
            expect![[r#"
                x_upstream SlowClose { delay: 1s } 1
                x_downstream SlowClose { delay: 1s } 1"#]],
        );
        check("timeout downstream", expect!["timeout_downstream Timeout { after: None } 1"]);
        check(
            "timeout downstream after=1s",
            expect!["timeout_downstream Timeout { after: Some(1s) } 1"],
        );
        check(
            "reset probability=0.1",
            expect!["reset_peer_downstream Reset { when: Start(0ns) } 0.1"],
        );
        check(
            "reset upstream on=data after=5ms",
            expect!["reset_peer_upstream Reset { when: Data(5ms) } 1"],
        );
        check(
            "reset upstream bytes=10kB",
            expect!["reset_peer_upstream Reset { when: Bytes(10000) } 1"],
        );
        check(
            "limit_data downstream bytes=5",
            expect!["limit_data_downstream Truncate { bytes: 5 } 1"],
        );
        check("blackhole client->server", expect!["blackhole_upstream Blackhole 1"]);
        check("half_open server->client", expect!["half_open_downstream HalfOpen 1"]);
        check("refuse", expect!["Mode(Refuse)"]);
        check("hold", expect!["Mode(Hold)"]);
        check("disconnect how=reset", expect!["End(Reset)"]);
    }

    #[test]
    fn what_is_wrong() {
        check(
            "",
            expect![
                "which fault? latency, bandwidth, slicer, slow_close, timeout, reset_peer, limit_data, blackhole, half_open, refuse, hold, disconnect"
            ],
        );
        check(
            "slowness both",
            expect![
                "`slowness` is no fault: latency, bandwidth, slicer, slow_close, timeout, reset_peer, limit_data, blackhole, half_open, refuse, hold, disconnect"
            ],
        );
        check(
            "latency delay=1s",
            expect!["`latency`: which bytes? client->server, server->client or both"],
        );
        check("latency both", expect!["`latency` needs delay=VALUE"]);
        check("latency both delay=1s delay=2s", expect!["`delay` is given twice"]);
        check("latency both delay=1s speed=2", expect!["`latency` has no `speed`"]);
        check(
            "latency both up delay=1s",
            expect![
                "`up`: a direction is client->server, server->client or both, all else is KEY=VALUE"
            ],
        );
        check("latency both upstream delay=1s", expect!["`upstream`: only one direction"]);
        check("latency both delay=2000m", expect!["delay of 120000s: at most a day is allowed"]);
        check("blackhole both probability=2", expect!["probability 2: it goes from 0 to 1"]);
        check(
            "blackhole upstream name=a/b",
            expect!["name `a/b`: 1 to 128 letters, digits, `-`, `_`, `.` and `:` are allowed"],
        );
        check(
            "slicer both size=5 variation=5",
            expect![
                "slicer with average size 5 and variation 5: the average must be the larger one and not 0"
            ],
        );
        check("reset bytes=5 on=data", expect!["reset: after=TIME [on=start|data], or bytes=SIZE"]);
        check("refuse both", expect!["`refuse` has no direction: it acts on whole connections"]);
        check("refuse after=5s", expect!["`refuse` has no `after`"]);
        check("disconnect how=rudely", expect!["how=`rudely`: close or reset"]);
    }
}
