//! Tests of the conversation: a script of lines, and what is answered.

use std::time::Duration;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use tokio::time::Instant;

use super::{super::registry::Lifetimes, *};
use crate::message::Nanos;

const BODY: &str = r#"{"broadcast_address":"a","tcp_port":4150,"http_port":4151,"version":"1"}"#;

/// Says each line of `script`; `{…}` is the body after `IDENTIFY`.
fn check(script: &str, expected: Expect) {
    let lifetimes = Lifetimes { inactive: Duration::MAX, tombstone: Duration::ZERO };
    let mut registry = Registry::new(lifetimes);
    let identity = Identity {
        broadcast_address: "lookup".to_owned(),
        hostname: "host".to_owned(),
        tcp_port: 4160,
        http_port: 4161,
    };
    let now = Moment { instant: Instant::now(), wall: Nanos(0) };
    let mut session = Session::new("[::ffff:10.0.0.9]:5000".parse().unwrap());
    let mut said = String::new();
    for line in script.lines() {
        let body = line.strip_prefix("body ");
        let step = match body {
            Some(body) => {
                let body = match body {
                    "none" => Err(Missing::Body),
                    "no size" => Err(Missing::Size),
                    body => Ok(body.as_bytes()),
                };
                session.body(&mut registry, now, &identity, body)
            }
            None => session.line(&mut registry, now, line),
        };
        said.push_str(&match step {
            Step::Answer(bytes) => String::from_utf8(bytes).unwrap(),
            Step::Body => "(body)".to_owned(),
            Step::Fatal(error) => format!("{error} (closed)"),
        });
        said.push('\n');
    }
    for (key, producers) in registry.debug() {
        said.push_str(&format!("{key} {}\n", serde_json::to_string(&producers).unwrap()));
    }
    expected.assert_eq(&said);
}

#[test]
fn a_producer_registers() {
    let script =
        format!("PING\nIDENTIFY\nbody {BODY}\nREGISTER t c\nREGISTER u \r\nUNREGISTER t c\nPING\n");
    check(
        &script,
        expect![[r#"
            OK
            (body)
            {"broadcast_address":"lookup","hostname":"host","http_port":4161,"tcp_port":4160,"version":"1.3.0"}
            OK
            OK
            OK
            OK
            client:: [{"broadcast_address":"a","hostname":"","http_port":4151,"id":"10.0.0.9:5000","last_update":0,"tcp_port":4150,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"","topology_zone":"","version":"1"}]
            topic:t: [{"broadcast_address":"a","hostname":"","http_port":4151,"id":"10.0.0.9:5000","last_update":0,"tcp_port":4150,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"","topology_zone":"","version":"1"}]
            topic:u: [{"broadcast_address":"a","hostname":"","http_port":4151,"id":"10.0.0.9:5000","last_update":0,"tcp_port":4150,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"","topology_zone":"","version":"1"}]
        "#]],
    );
}

#[test]
fn mistakes_end_it() {
    check(
        "REGISTER t\nUNREGISTER t\nSUB a b\n\nping",
        expect![[r"
        E_INVALID client must IDENTIFY (closed)
        E_INVALID client must IDENTIFY (closed)
        E_INVALID invalid command SUB (closed)
        E_INVALID invalid command  (closed)
        E_INVALID invalid command ping (closed)
    "]],
    );
}

#[test]
fn names_are_checked() {
    let script = format!(
        "IDENTIFY\nbody {BODY}\nREGISTER\nREGISTER  t\nREGISTER t! c\nREGISTER t c!\nUNREGISTER\nUNREGISTER é\nIDENTIFY"
    );
    check(
        &script,
        expect![[r#"
        (body)
        {"broadcast_address":"lookup","hostname":"host","http_port":4161,"tcp_port":4160,"version":"1.3.0"}
        E_INVALID REGISTER insufficient number of params (closed)
        E_BAD_TOPIC REGISTER topic name '' is not valid (closed)
        E_BAD_TOPIC REGISTER topic name 't!' is not valid (closed)
        E_BAD_CHANNEL REGISTER channel name 'c!' is not valid (closed)
        E_INVALID UNREGISTER insufficient number of params (closed)
        E_BAD_TOPIC UNREGISTER topic name 'é' is not valid (closed)
        E_INVALID cannot IDENTIFY again (closed)
        client:: [{"broadcast_address":"a","hostname":"","http_port":4151,"id":"10.0.0.9:5000","last_update":0,"tcp_port":4150,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"","topology_zone":"","version":"1"}]
    "#]],
    );
}

#[test]
fn a_body_must_say_who_it_is() {
    check(
        "body none\nbody no size\nbody []\nbody nonsense\nbody {}\nbody null\nbody {\"tcp_port\":\"4150\"}\nbody {\"broadcast_address\":\"a\",\"tcp_port\":1,\"http_port\":0,\"version\":\"1\"}",
        expect![[r#"
            E_BAD_BODY IDENTIFY failed to read body (closed)
            E_BAD_BODY IDENTIFY failed to read body size (closed)
            E_BAD_BODY IDENTIFY failed to decode JSON body (closed)
            E_BAD_BODY IDENTIFY failed to decode JSON body (closed)
            E_BAD_BODY IDENTIFY missing fields (closed)
            E_BAD_BODY IDENTIFY missing fields (closed)
            E_BAD_BODY IDENTIFY failed to decode JSON body (closed)
            E_BAD_BODY IDENTIFY missing fields (closed)
        "#]],
    );
}

/// Words that mean something, and some that do not.
fn any_line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        proptest::sample::select(vec!["PING", "IDENTIFY", "REGISTER", "UNREGISTER", "t", "c", "#"])
            .prop_map(str::to_owned),
        any::<String>(),
    ];
    proptest::collection::vec(word, 0..5).prop_map(|it| it.join(" "))
}

proptest! {
    #[test]
    fn whatever_is_said_nothing_is_left_when_it_ends(
        lines in proptest::collection::vec(any_line(), 0..20),
        bodies in proptest::collection::vec(any::<Vec<u8>>(), 20),
        good in 0..20_usize,
    ) {
        let lifetimes = Lifetimes { inactive: Duration::MAX, tombstone: Duration::ZERO };
        let mut registry = Registry::new(lifetimes);
        let identity = Identity {
            broadcast_address: String::new(),
            hostname: String::new(),
            tcp_port: 1,
            http_port: 1,
        };
        let now = Moment { instant: Instant::now(), wall: Nanos(0) };
        let mut session = Session::new("10.0.0.9:5000".parse().unwrap());
        for (at, (line, body)) in lines.iter().zip(&bodies).enumerate() {
            let mut step = session.line(&mut registry, now, line);
            if step == Step::Body {
                let body = if at < good { BODY.as_bytes() } else { body };
                step = session.body(&mut registry, now, &identity, Ok(body));
            }
            match step {
                Step::Answer(_) => {}
                Step::Fatal(error) => prop_assert!(error.starts_with("E_"), "{error}"),
                Step::Body => prop_assert!(false, "a body after a body"),
            }
        }
        session.end(&mut registry);
        prop_assert!(registry.debug().is_empty());
    }
}
