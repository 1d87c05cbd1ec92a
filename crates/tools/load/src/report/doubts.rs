//! Why percentiles are withheld, in words, and what the reader can do about it.

use crate::{
    exchange::FailureKind,
    report::numbers,
    results::{Doubt, LATE_AFTER, LATE_SHARE_MAX},
};

/// What stands above the reasons.
pub(crate) const WITHHELD: &str = "percentiles are withheld";

/// What helps a generator that is too slow.
const NOT_SO_FAST: &str =
    "send fewer per second, give the generator more cores, or let nothing else run on its machine";

/// A reason in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// Name of the reason, for machines.
    pub(crate) reason: &'static str,
    /// What happened. A sentence without a full stop.
    pub(crate) what: String,
    /// What to do about it. A sentence without a full stop.
    pub(crate) remedy: &'static str,
}

/// Puts a doubt into words.
pub(crate) fn words(doubt: &Doubt) -> Words {
    match doubt {
        Doubt::Late { share } => Words {
            reason: "late",
            what: format!(
                "{} of the starts came more than {} ms after they were meant, and {} is allowed: the \
                 generator could not keep its own schedule, so a part of every latency is its own",
                numbers::share(*share),
                LATE_AFTER.as_millis(),
                numbers::share(LATE_SHARE_MAX),
            ),
            remedy: NOT_SO_FAST,
        },
        Doubt::Dropped(times) => Words {
            reason: "dropped",
            what: format!(
                "{} meant and never made: the requests that would have waited longest are missing",
                numbers::counted(*times, "start"),
            ),
            remedy: NOT_SO_FAST,
        },
        Doubt::Limit { kind, times } => limit(*kind, *times),
        Doubt::NoSuccess => Words {
            reason: "no_success",
            what: "not one request succeeded".to_owned(),
            remedy: "look at the errors: they say whether the server was there, and what it answered",
        },
    }
}

/// Words for a limit of the generator itself.
fn limit(kind: FailureKind, times: u64) -> Words {
    let times = numbers::counted(times, "time");
    let (what, remedy) = match kind {
        FailureKind::Descriptors => (
            format!("the generator ran out of file descriptors {times}"),
            "raise its limit (`ulimit -n`), or hold fewer connections open",
        ),
        FailureKind::Ports => (
            format!("the generator ran out of local ports {times}"),
            "keep connections open between requests, send from or to more addresses, or widen \
             net.ipv4.ip_local_port_range",
        ),
        FailureKind::Connections => (
            format!("the generator's own limit of connections was reached {times}"),
            "allow it more connections, or send fewer per second",
        ),
        // Limits of the generator are the three above; another kind is told by its name.
        FailureKind::Dns
        | FailureKind::Foreign
        | FailureKind::Refused
        | FailureKind::Connect
        | FailureKind::Tls
        | FailureKind::Closed
        | FailureKind::Protocol
        | FailureKind::Timeout
        | FailureKind::Status
        | FailureKind::Check => {
            (format!("`{kind}` happened {times}"), "look at what limits the generator")
        }
    };
    Words { reason: kind.name(), what, remedy }
}

/// What a kind of failure means, for whoever sees its name for the first time.
pub(crate) fn meaning(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Dns => "the name has no address",
        FailureKind::Foreign => "not an address of this machine, and --i-may was not given",
        FailureKind::Refused => "nobody listens there",
        FailureKind::Connect => "the connection could not be opened",
        FailureKind::Tls => "TLS failed: the handshake, or an alert after it",
        FailureKind::Closed => "the server closed the connection before the answer was whole",
        FailureKind::Protocol => "the answer is not what the protocol allows",
        FailureKind::Timeout => "no whole answer in time",
        FailureKind::Descriptors => "the generator had no file descriptor left",
        FailureKind::Ports => "the generator had no local port left",
        FailureKind::Connections => "the generator may not open more connections",
        FailureKind::Status => "answered with status 400 or above",
        FailureKind::Check => "answered, but a check says that the answer is wrong",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn every_doubt_has_words() {
        let limits = FailureKind::ALL.into_iter().filter(|it| it.is_own_limit());
        let doubts = [Doubt::Late { share: 0.032 }, Doubt::Dropped(1200), Doubt::NoSuccess];
        let doubts =
            doubts.into_iter().chain(limits.map(|kind| Doubt::Limit { kind, times: 4000 }));
        let printed: Vec<_> = doubts
            .map(|it| words(&it))
            .map(|it| format!("{}: {}\n    {}", it.reason, it.what, it.remedy))
            .collect();
        expect![[r#"
            late: 3.20 % of the starts came more than 1 ms after they were meant, and 1.00 % is allowed: the generator could not keep its own schedule, so a part of every latency is its own
                send fewer per second, give the generator more cores, or let nothing else run on its machine
            dropped: 1 200 starts meant and never made: the requests that would have waited longest are missing
                send fewer per second, give the generator more cores, or let nothing else run on its machine
            no_success: not one request succeeded
                look at the errors: they say whether the server was there, and what it answered
            descriptors: the generator ran out of file descriptors 4 000 times
                raise its limit (`ulimit -n`), or hold fewer connections open
            ports: the generator ran out of local ports 4 000 times
                keep connections open between requests, send from or to more addresses, or widen net.ipv4.ip_local_port_range
            connections: the generator's own limit of connections was reached 4 000 times
                allow it more connections, or send fewer per second"#]].assert_eq(&printed.join("\n"));
    }
}
