//! Callers and servers over a queue that is a list: RR-1 to RR-7 and NSQM-1 to NSQM-4, as far as
//! they are not about one message.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{Action, Call, Calls, Dialect, Dropped, Handled, Outcome, Received, Request, Server};
use crate::{message::Nanos, name::Name};

const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
const REQUESTS: &str = "service.req";
const REPLIES: &str = "z...rsp-app-node";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Topics with one channel each, a clock, and what was seen.
struct World {
    now: Nanos,
    topics: BTreeMap<Name, VecDeque<(Nanos, Bytes)>>,
    /// Whether publishing works.
    up: bool,
    calls: Calls<&'static str>,
    seen: Vec<String>,
}

impl World {
    fn new(dialect: Dialect) -> Self {
        Self {
            now: Nanos(1_000_000_000_000),
            topics: BTreeMap::new(),
            up: true,
            calls: Calls::new(dialect, name(REPLIES), 3, u32::MAX),
            seen: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
        for waiter in self.calls.expire(self.now) {
            self.seen.push(format!("{waiter}: timeout"));
        }
    }

    fn publish(&mut self, topic: &Name, message: Bytes) {
        self.topics.entry(topic.clone()).or_default().push_back((self.now, message));
    }

    fn take(&mut self, topic: &str) -> Option<Bytes> {
        let now = self.now;
        let queue = self.topics.get_mut(&name(topic))?;
        let at = queue.iter().position(|it| it.0 <= now)?;
        queue.remove(at).map(|it| it.1)
    }

    fn call(&mut self, waiter: &'static str, method: &str, body: &'static str, patience: Duration) {
        let body = Bytes::from(body);
        let Call { message, .. } =
            self.calls.call(self.now, method, body, patience, waiter).unwrap();
        self.publish(&name(REQUESTS), message);
    }

    /// One instance takes one request. Whether there was one.
    fn serve(&mut self, instance: &str, server: &Server, handler: fn(&Request) -> Handled) -> bool {
        let Some(message) = self.take(REQUESTS) else { return false };
        let action = match server.receive(self.now, &message) {
            Received::Handle(request) => {
                self.seen.push(format!("{instance}: {}", request.method));
                let handled = handler(&request);
                server.answer(request, handled)
            }
            Received::Expired => {
                self.seen.push(format!("{instance}: expired"));
                Action::Finish
            }
            Received::Unreadable(why) => {
                self.seen.push(format!("{instance}: {why}"));
                Action::Finish
            }
            Received::RequeueUnreadable(why, delay) => {
                self.seen.push(format!("{instance}: {why}"));
                Action::Requeue(delay)
            }
        };
        match action {
            Action::Finish => {}
            Action::Reply { topic, message, .. } if self.up => self.publish(&topic, message),
            Action::Requeue(delay) | Action::Reply { otherwise: delay, .. } => {
                let due = self.now.after(delay);
                self.topics.get_mut(&name(REQUESTS)).unwrap().push_back((due, message));
            }
        }
        true
    }

    fn replies(&mut self) {
        while let Some(message) = self.take(REPLIES) {
            self.seen.push(match self.calls.reply(self.now, &message) {
                Ok((waiter, Outcome::Reply(body))) => {
                    format!("{waiter}: {}", String::from_utf8_lossy(&body))
                }
                Ok((waiter, Outcome::Failed(text))) => format!("{waiter}: error {text}"),
                Err(Dropped::Unknown) => "dropped".to_owned(),
                Err(Dropped::NotAReply) => "no reply".to_owned(),
            });
        }
    }

    /// Nothing is left anywhere; what was seen.
    fn end(mut self) -> Vec<String> {
        self.replies();
        assert!(self.topics.values().all(VecDeque::is_empty), "{:?}", self.topics);
        assert_eq!((self.calls.waiting(), self.calls.next_deadline()), (0, None));
        self.seen
    }
}

/// The service of nsqm's example: sums of up to 128.
fn calculator(request: &Request) -> Handled {
    let numbers = String::from_utf8_lossy(&request.body).into_owned();
    let sum: u32 = numbers.split('+').map(|it| it.parse::<u32>().unwrap()).sum();
    match request.method.as_str() {
        "Add" | "pkg.Add.req" if sum <= 128 => Handled::Done(sum.to_string().into()),
        _ => Handled::Failed("overflow".to_owned()),
    }
}

fn fails(_: &Request) -> Handled {
    Handled::Failed("not now".to_owned())
}

fn puts_off(_: &Request) -> Handled {
    Handled::Failed("canceled".to_owned())
}

fn stops(_: &Request) -> Handled {
    Handled::Interrupted
}

/// NSQM-1, NSQM-2.
#[test]
fn replies_and_errors_reach_their_callers() {
    let mut world = World::new(Dialect::Nsqm);
    world.call("a", "Add", "2+3", PATIENCE);
    world.call("b", "Add", "100+100", PATIENCE);
    while world.serve("one", &Server::nsqm(), calculator) {}
    world.replies();
    assert_eq!(world.end(), ["one: Add", "one: Add", "a: 5", "b: error overflow"]);
}

/// RR-2, NSQM-3: the caller is told, the server does not begin.
#[test]
fn an_expired_request_is_not_handled() {
    for (dialect, server) in [(Dialect::Nsqm, Server::nsqm()), (Dialect::Svckit, Server::svckit())]
    {
        let mut world = World::new(dialect);
        world.call("a", "Add", "2+3", SECOND);
        world.pass(SECOND);
        // The second in which it ends may be a whole one on the server's clock.
        world.pass(SECOND);
        assert!(world.serve("one", &server, calculator));
        assert_eq!(world.end(), ["a: timeout", "one: expired"]);
    }
}

/// RR-3: not before the delay, and then again.
#[test]
fn an_error_may_mean_again() {
    let mut world = World::new(Dialect::Svckit);
    world.call("a", "pkg.Add.req", "2+3", PATIENCE);
    assert!(world.serve("one", &Server::svckit(), fails));
    world.pass(Duration::from_millis(1999));
    assert!(!world.serve("one", &Server::svckit(), calculator));
    world.pass(Duration::from_millis(1));
    assert!(world.serve("one", &Server::svckit(), calculator));
    assert_eq!(world.end(), ["one: pkg.Add.req", "one: pkg.Add.req", "a: 5"]);
}

/// RR-4, and that the reply's type is the request's with `.rsp`.
#[test]
fn an_error_may_be_told() {
    let mut world = World::new(Dialect::Svckit);
    world.call("a", "pkg.Add.req", "100+100", PATIENCE);
    assert!(world.serve("one", &Server::svckit_rpc(), calculator));
    let reply = world.take(REPLIES).unwrap();
    assert!(reply.starts_with(br#"{"t":"pkg.Add.rsp","c":"4294967295","error":"overflow"}"#));
    world.publish(&name(REPLIES), reply);
    assert_eq!(world.end(), ["one: pkg.Add.req", "a: error overflow"]);
}

/// RR-5, RR-7: a call that timed out leaves nothing (`end` checks), and its reply is dropped, as is
/// one that comes twice, and what is none.
#[test]
fn late_and_unknown_replies_are_dropped() {
    let mut world = World::new(Dialect::Svckit);
    world.call("a", "Add", "2+3", SECOND);
    assert!(world.serve("one", &Server::svckit(), calculator));
    let reply = world.take(REPLIES).unwrap();
    // Late by the clock, though nobody has told the caller yet.
    let late = world.now.after(SECOND);
    assert_eq!(world.calls.reply(late, &reply), Err(Dropped::Unknown));
    world.pass(SECOND);
    world.publish(&name(REPLIES), reply);
    world.publish(&name(REPLIES), Bytes::from("{}\n"));
    world.publish(&name(REPLIES), Bytes::from("x"));
    world.call("b", "Add", "1+1", PATIENCE);
    assert!(world.serve("one", &Server::svckit(), calculator));
    assert_eq!(
        world.end(),
        ["one: Add", "a: timeout", "one: Add", "dropped", "no reply", "no reply", "b: 2"],
    );
}

/// RR-6: each request is handled once, whoever takes it.
#[test]
fn instances_share_requests() {
    let mut world = World::new(Dialect::Svckit);
    for (waiter, body) in [("a", "1+1"), ("b", "2+2"), ("c", "3+3")] {
        world.call(waiter, "Add", body, PATIENCE);
    }
    assert!(world.serve("one", &Server::svckit(), calculator));
    assert!(world.serve("two", &Server::svckit(), calculator));
    assert!(world.serve("one", &Server::svckit(), calculator));
    assert!(!world.serve("two", &Server::svckit(), calculator));
    assert_eq!(world.end(), ["one: Add", "two: Add", "one: Add", "a: 2", "b: 4", "c: 6"]);
}

/// NSQM-4: another instance does it after a second; a handler can ask for the same.
#[test]
fn a_server_that_stops_leaves_it_to_another() {
    for handler in [stops, puts_off] {
        let mut world = World::new(Dialect::Nsqm);
        world.call("a", "Add", "2+3", PATIENCE);
        assert!(world.serve("one", &Server::nsqm(), handler));
        assert!(!world.serve("two", &Server::nsqm(), calculator));
        world.pass(SECOND);
        assert!(world.serve("two", &Server::nsqm(), calculator));
        assert_eq!(world.end(), ["one: Add", "two: Add", "a: 5"]);
    }
}

#[test]
fn a_reply_that_cannot_be_published_brings_the_request_back() {
    let mut world = World::new(Dialect::Nsqm);
    world.call("a", "Add", "2+3", PATIENCE);
    world.up = false;
    assert!(world.serve("one", &Server::nsqm(), calculator));
    world.up = true;
    world.pass(SECOND);
    assert!(world.serve("one", &Server::nsqm(), calculator));
    assert_eq!(world.end(), ["one: Add", "one: Add", "a: 5"]);
}

#[test]
fn what_cannot_be_read_is_finished_or_left_to_others() {
    let mut world = World::new(Dialect::Nsqm);
    world.publish(&name(REQUESTS), Bytes::from("garbage"));
    assert!(world.serve("one", &Server::nsqm(), calculator));
    assert_eq!(world.end(), ["one: the header is not as the dialect has it"]);
    let received = Server::svckit().receive(Nanos(0), &Bytes::from("garbage"));
    let why = "the header is not as the dialect has it".to_owned();
    assert_eq!(received, Received::RequeueUnreadable(why, 2 * SECOND));
}

/// Callers may number as they like: the text comes back as it was.
#[test]
fn any_correlation_of_svckit_is_echoed() {
    let mut world = World::new(Dialect::Svckit);
    let request = "{\"t\":\"pkg.Add.req\",\"r\":\"other\",\"c\":\"007-ab|c\"}\n2+3";
    world.publish(&name(REQUESTS), Bytes::from(request));
    assert!(world.serve("one", &Server::svckit(), calculator));
    let reply = world.take("other").unwrap();
    assert_eq!(reply, "{\"t\":\"pkg.Add.rsp\",\"c\":\"007-ab|c\"}\n5");
    world.publish(&name(REPLIES), reply);
    assert_eq!(world.end(), ["one: pkg.Add.req", "dropped"]);
}

#[test]
fn a_one_way_request_has_no_reply() {
    let mut world = World::new(Dialect::Nsqm);
    world.publish(&name(REQUESTS), Bytes::from("{\"m\":\"Add\"}\n1+1"));
    assert!(world.serve("one", &Server::nsqm(), calculator));
    assert_eq!(world.end(), ["one: Add"]);
}

#[test]
fn calls_are_limited_and_given_up() {
    let mut world = World::new(Dialect::Nsqm);
    for waiter in ["a", "b", "c"] {
        world.call(waiter, "Add", "1+1", PATIENCE);
    }
    let more = world.calls.call(world.now, "Add", Bytes::new(), PATIENCE, "d");
    assert_eq!(more.unwrap_err().to_string(), "3 calls wait for their replies already");
    // Numbers began at the greatest and went on behind 0, which is none.
    assert_eq!(world.calls.forget(u64::from(u32::MAX)), Some("a"));
    assert_eq!(world.calls.forget(1), Some("b"));
    assert_eq!(world.calls.forget(1), None);
    assert_eq!(world.calls.next_deadline(), Some(world.now.after(PATIENCE)));
    while world.serve("one", &Server::nsqm(), calculator) {}
    assert_eq!(world.end(), ["one: Add", "one: Add", "one: Add", "dropped", "dropped", "c: 2"],);
}
