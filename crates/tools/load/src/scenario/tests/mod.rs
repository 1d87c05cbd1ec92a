//! Scenarios as a user sees them: what is sent after which answer, and what is said of a mistake.
//! Here: how a test reads a scenario and walks a user through it.

mod arrivals;
mod documents;
mod mistakes;
mod users;

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use expect_test::Expect;
use http::HeaderName;

use super::{Error, Overrides, Scenario, file::Files, file::parse, units::print_duration};
use crate::{
    exchange::{Exchange, Failure, FailureKind, Phases, Response},
    plan::{Behaviour, Next, User},
};

/// How much of a user that never ends is shown.
const ACTIONS_MAX: usize = 40;

fn environment(name: &str) -> Option<String> {
    (name == "SHOP_TOKEN").then(|| "secret".to_owned())
}

/// Files beside a scenario.
fn stored() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("users.csv", "name,password\nann,a&b\nbob,p:w\ncy,\u{fc}\n"),
        ("odd.csv", "name\n\"a\nb\"\n"),
        ("empty.csv", "name\n"),
        ("broken.csv", "name\na,b\n"),
        ("items.jsonl", "{\"id\": 7, \"tags\": [1]}\n{\"id\": 8, \"tags\": []}\n"),
        ("rates.txt", "1 2 2 0\n3\n"),
        ("rates.csv", "period,count\n2026-01-01 00:00,60\n2026-01-01 00:01,120\n"),
        ("bad.txt", "1 2\nmany\n"),
        ("body.bin", "bytes"),
    ])
}

fn read(yaml: &str) -> Result<Scenario, Error> {
    let stored = stored();
    let read = |name: &str, most: usize| {
        let text = stored.get(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(text.bytes().take(most + 1).collect())
    };
    parse(&"a.yaml".into(), yaml, &Files { read: &read, environment: &environment })
}

/// A flow of requests to `http://a`, as fast as users come.
fn flow(steps: &str) -> String {
    format!("target: http://a\nrate: 1/s\nfor: 10s\n{steps}")
}

fn behaviour(scenario: &Scenario) -> Arc<dyn Behaviour> {
    Arc::clone(&scenario.plan(&Overrides::default()).unwrap().flows[0].behaviour)
}

/// `200 | content-type: text/plain | body`, or `timeout`.
fn answer(line: &str) -> Exchange {
    let mut parts = line.split(" | ");
    let status = parts.next().unwrap_or_default().trim();
    let outcome = if status == "timeout" {
        Err(Failure { kind: FailureKind::Timeout, detail: "after 1 s".to_owned() })
    } else {
        let mut response = Response { status: status.parse().unwrap(), ..Response::default() };
        for part in parts {
            let header = part.split_once(": ").and_then(|(name, value)| {
                Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?))
            });
            match header {
                Some((name, value)) => {
                    response.headers.append(name, value);
                }
                None => response.body = part.to_owned().into(),
            }
        }
        Ok(response)
    };
    let phases = Phases { first_byte: Some(Duration::from_millis(100)), ..Phases::default() };
    Exchange { phases, sent: 0, received: 0, again: false, ended: None, outcome }
}

/// What a user does: one line each.
fn walk(behaviour: &dyn Behaviour, user: &mut dyn User, answers: &str) -> String {
    let mut answers = answers.lines().map(str::trim).filter(|it| !it.is_empty());
    let mut said = String::new();
    for _ in 0..ACTIONS_MAX {
        match user.next() {
            Next::Leave => return said + "leave",
            Next::Think(duration) => said += &format!("think {}\n", print_duration(duration)),
            Next::Send(step, request) => {
                let name = &behaviour.steps()[step.0];
                let path = std::str::from_utf8(&request.path).unwrap();
                said += &format!("[{name}] {} {}{path}", request.method, request.origin);
                for (name, value) in request.headers.iter() {
                    said += &format!(" {name}: {}", value.to_str().unwrap());
                }
                if !request.body.is_empty() {
                    said += &format!(" | {}", String::from_utf8_lossy(&request.body));
                }
                let exchange = answer(answers.next().unwrap_or("200"));
                if let Ok(response) = &exchange.outcome
                    && !user.expects(response.status)
                {
                    said += &format!(" -> status {}", response.status);
                }
                if let Err(check) = user.receive(&exchange) {
                    said += &format!(" -> {check}");
                }
                said += "\n";
            }
        }
    }
    said + "..."
}

#[track_caller]
fn check(yaml: &str, answers: &str, expected: Expect) {
    let said = match read(yaml) {
        Ok(scenario) => {
            let behaviour = behaviour(&scenario);
            walk(&*behaviour, &mut *behaviour.arrive(0, 1), answers)
        }
        Err(error) => format!("error: {error}"),
    };
    expected.assert_eq(&said);
}

/// The same for one answer after the other, each under the answer that the user got.
#[track_caller]
fn check_each(yaml: &str, answers: &[&str], expected: Expect) {
    let behaviour = behaviour(&read(yaml).unwrap());
    let each = answers.iter().map(|it| {
        let walked = walk(&*behaviour, &mut *behaviour.arrive(0, 1), it);
        format!("{}\n    {}\n", it.replace('\n', "; "), walked.replace('\n', "\n    "))
    });
    expected.assert_eq(&each.collect::<String>());
}

/// Only what is wrong with it.
#[track_caller]
fn wrong(yaml: &str, expected: Expect) {
    let said = match read(yaml).and_then(|it| it.plan(&Overrides::default())) {
        Ok(_) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&said);
}
