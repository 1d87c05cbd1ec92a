//! What is graded: a law for the server, arguments for the generator, and what it is meant to do.

use std::time::Duration;

use anyhow::{bail, ensure};
use load::judge::{
    grade::{TOLERANCE, Verdict},
    ks,
    law::Outcome,
};
use serde_json::Value;

use crate::run::Graded;

/// One graded run.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What the server does.
    pub(crate) law: &'static str,
    /// What the generator is told beside the target, separated by blanks; or a scenario, in which
    /// `TARGET` stands for the target.
    pub(crate) load: Load,
    /// What must arrive.
    pub(crate) course: Course,
    /// Whether it needs the machine for itself.
    pub(crate) alone: bool,
    /// What must come of it: the right figures, or none.
    pub(crate) verdict: Verdict,
    /// What else must hold.
    pub(crate) also: fn(&Graded) -> anyhow::Result<()>,
}

/// When requests must arrive.
pub(crate) enum Course {
    /// Evenly spaced: pieces of seconds, rate at the beginning and at the end.
    Even(&'static [(f64, f64, f64)]),
    /// At the moments of a Poisson process that follow from the seed, so that the generator's own lag
    /// is in what is expected of it. That they are a Poisson process is tested apart.
    Poisson { seconds: f64, rate: f64 },
    /// Only the generator knows: closed loop.
    Unknown,
}

/// How the generator is told what to do.
pub(crate) enum Load {
    /// By arguments; over HTTP/1.1.
    Plain(&'static str),
    /// The same over TLS.
    Tls(&'static str),
    /// By a file.
    Scenario(&'static str),
    /// By arguments; and once it is stopped (SIGSTOP) for so long.
    Stopped(&'static str, Duration),
}

const fn nothing(_: &Graded) -> anyhow::Result<()> {
    Ok(())
}

/// Times are chosen so that 2 % of them are more than what the machine itself adds, and stalls so
/// that no percentile falls where two kinds of answers meet.
pub(crate) const CASES: &[Case] = &[
    Case {
        name: "stall_at_100",
        law: "constant:40ms,stall:2s@3s",
        load: Load::Plain("--rate 100/s --for 10s"),
        course: Course::Even(&[(10.0, 100.0, 100.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: all_came,
    },
    Case {
        name: "stall_at_1000",
        law: "constant:40ms,stall:2s@3s",
        load: Load::Plain("--rate 1000/s --for 8s"),
        course: Course::Even(&[(8.0, 1_000.0, 1_000.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: all_came,
    },
    Case {
        name: "stall_at_5000_over_http2",
        law: "constant:40ms,stall:2s@3s",
        load: Load::Plain("--rate 5000/s --for 8s --http2"),
        course: Course::Even(&[(8.0, 5_000.0, 5_000.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: all_came,
    },
    Case {
        name: "two_stalls",
        law: "constant:30ms,stall:1s@1500ms,stall:700ms@4s",
        load: Load::Plain("--rate 200/s --for 7s"),
        course: Course::Even(&[(7.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: all_came,
    },
    Case {
        name: "constant",
        law: "constant:300ms",
        load: Load::Plain("--rate 500/s --for 5s"),
        course: Course::Even(&[(5.0, 500.0, 500.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: nothing,
    },
    // The generator itself stands still: then its figures are not the server's.
    Case {
        name: "stopped",
        law: "constant:200ms",
        load: Load::Stopped("--rate 100/s --for 5s --http2", Duration::from_millis(500)),
        course: Course::Even(&[(5.0, 100.0, 100.0)]),
        alone: false,
        verdict: Verdict::Withheld,
        also: withheld_as_late,
    },
    Case {
        name: "bimodal",
        law: "bimodal:40ms/300ms@5%",
        load: Load::Plain("--rate 250/s --for 6s"),
        course: Course::Even(&[(6.0, 250.0, 250.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "lognormal",
        law: "lognormal:60ms/0.5",
        load: Load::Plain("--rate 250/s --for 6s"),
        course: Course::Even(&[(6.0, 250.0, 250.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "lognormal_over_http2",
        law: "lognormal:60ms/0.5",
        load: Load::Plain("--rate 1000/s --for 5s --http2"),
        course: Course::Even(&[(5.0, 1_000.0, 1_000.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "exponential",
        law: "exponential:80ms",
        load: Load::Plain("--rate 250/s --for 6s"),
        course: Course::Even(&[(6.0, 250.0, 250.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "uniform",
        law: "uniform:30ms..150ms",
        load: Load::Plain("--rate 250/s --for 6s"),
        course: Course::Even(&[(6.0, 250.0, 250.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "poisson_arrivals",
        law: "constant:300ms",
        load: Load::Plain("--rate 200/s --for 8s --poisson"),
        course: Course::Poisson { seconds: 8.0, rate: 200.0 },
        alone: true,
        verdict: Verdict::Right,
        also: poisson,
    },
    Case {
        name: "ramp",
        law: "lognormal:60ms/0.3",
        load: Load::Scenario(
            "target: TARGET\nramp: {from: 50/s, to: 450/s}\nfor: 6s\nsteps: [GET /]\n",
        ),
        course: Course::Even(&[(6.0, 50.0, 450.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "steps",
        law: "lognormal:60ms/0.3",
        load: Load::Scenario(
            "target: TARGET\nsteps: [GET /]\nstages:\n- {rate: 100/s, for: 2s}\n\
             - {rate: 400/s, for: 2s}\n- {rate: 200/s, for: 2s}\n",
        ),
        course: Course::Even(&[(2.0, 100.0, 100.0), (2.0, 400.0, 400.0), (2.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "replay_of_a_record",
        law: "uniform:40ms..120ms",
        load: Load::Scenario(
            "target: TARGET\nreplay: {file: rates.txt, every: 1s}\nsteps: [GET /]\n",
        ),
        course: Course::Even(&[
            (1.0, 100.0, 100.0),
            (1.0, 300.0, 300.0),
            (1.0, 200.0, 200.0),
            (1.0, 400.0, 400.0),
            (1.0, 50.0, 50.0),
            (1.0, 250.0, 250.0),
        ]),
        alone: false,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "tls",
        law: "lognormal:60ms/0.3",
        load: Load::Tls("--rate 300/s --for 5s"),
        course: Course::Even(&[(5.0, 300.0, 300.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "http2_over_tls",
        law: "bimodal:40ms/300ms@5%",
        load: Load::Tls("--rate 300/s --for 5s --http2"),
        course: Course::Even(&[(5.0, 300.0, 300.0)]),
        alone: true,
        verdict: Verdict::Right,
        also: nothing,
    },
    Case {
        name: "slow_bodies",
        law: "constant:20ms,body:20000/100ms",
        load: Load::Plain("--rate 200/s --for 5s"),
        course: Course::Even(&[(5.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: slow_bodies,
    },
    Case {
        name: "errors",
        law: "exponential:80ms,errors:5%",
        load: Load::Plain("--rate 200/s --for 6s"),
        course: Course::Even(&[(6.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: errors,
    },
    Case {
        name: "resets",
        law: "exponential:80ms,resets:5%",
        // What is safe to repeat would be sent again.
        load: Load::Plain("--rate 200/s --for 6s -X POST"),
        course: Course::Even(&[(6.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: resets,
    },
    Case {
        name: "connection_close",
        law: "lognormal:60ms/0.3",
        load: Load::Plain("--rate 200/s --for 6s -H Connection:close"),
        course: Course::Even(&[(6.0, 200.0, 200.0)]),
        alone: false,
        verdict: Verdict::Right,
        also: one_connection_each,
    },
    Case {
        name: "closed_loop_is_labelled",
        law: "lognormal:60ms/0.3,stall:1s@2s",
        load: Load::Plain("--closed 20 --for 5s"),
        course: Course::Unknown,
        alone: false,
        verdict: Verdict::Right,
        also: labelled,
    },
];

/// The generator waited for nobody: every request that was meant while the server was frozen came.
fn all_came(graded: &Graded) -> anyhow::Result<()> {
    let arrivals = graded.grade.arrivals;
    ensure!(arrivals.kept() && !arrivals.omitted(), "{}", graded.grade.text());
    Ok(())
}

/// What the server answered with an error is counted as one, and has its latency like any answer.
fn errors(graded: &Graded) -> anyhow::Result<()> {
    let errors = graded.count_of(Outcome::Error);
    ensure!(errors > 30, "the law has errors");
    ensure!(graded.count("/total/statuses/503")? == errors, "{}", graded.said);
    ensure!(graded.count("/total/failures/status")? == errors, "{}", graded.said);
    Ok(())
}

/// What the server reset is counted, and nothing is sent twice for it.
fn resets(graded: &Graded) -> anyhow::Result<()> {
    let resets = graded.count_of(Outcome::Reset);
    ensure!(resets > 30, "the law has resets");
    ensure!(graded.count("/total/failures/closed")? == resets, "{}", graded.said);
    all_came(graded)
}

/// The body's time is told apart.
fn slow_bodies(graded: &Graded) -> anyhow::Result<()> {
    let median = graded.said.pointer("/total/body/p50_seconds").and_then(Value::as_f64);
    let Some(median) = median else { bail!("no time of bodies: {}", graded.said) };
    ensure!((median / 0.1 - 1.0).abs() < TOLERANCE, "bodies took {median} s, not 0.1");
    Ok(())
}

/// No connection was used twice.
fn one_connection_each(graded: &Graded) -> anyhow::Result<()> {
    let mut connections: Vec<u32> = graded.record.entries.iter().map(|it| it.connection).collect();
    connections.sort_unstable();
    ensure!(
        connections.windows(2).all(|it| it.first() != it.last()),
        "a connection was used twice"
    );
    Ok(())
}

/// It withholds because it was late itself.
fn withheld_as_late(graded: &Graded) -> anyhow::Result<()> {
    let reasons = graded.said.get("withheld").and_then(Value::as_array);
    let is_late = |it: &Value| it.get("reason").and_then(Value::as_str) == Some("late");
    ensure!(reasons.is_some_and(|it| it.iter().any(is_late)), "{}", graded.said);
    Ok(())
}

/// It says that it is closed loop; and the judge sees that it waited.
fn labelled(graded: &Graded) -> anyhow::Result<()> {
    ensure!(graded.report.closed, "not labelled: {}", graded.said);
    let stalls = &graded.record.law.stalls;
    let is_stalled =
        |it: &f64| stalls.iter().any(|stall| stall.contains(Duration::from_secs_f64(*it)));
    let stalled = graded.record.arrivals().into_iter().filter(is_stalled).count();
    ensure!(stalled <= 20, "{stalled} requests of twenty users while the server was frozen");
    Ok(())
}

/// Arrivals at the server are a Poisson process.
fn poisson(graded: &Graded) -> anyhow::Result<()> {
    let arrivals = graded.record.arrivals();
    let Some(test) = ks::poisson(&arrivals) else { bail!("hardly anybody came") };
    for (name, test) in [("times", test.times), ("gaps", test.gaps)] {
        ensure!(
            test.p > P_MIN,
            "the {name} of arrivals are not those of a Poisson process: {test:?}"
        );
    }
    Ok(())
}

/// Smallest p-value that passes. The seed is fixed, so a run that passes does so always, but for what
/// the machine adds to the arrivals.
pub(crate) const P_MIN: f64 = 0.01;
