//! Who is asked when, and when a topic goes on.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const HELD_MAX: Duration = Duration::from_secs(5);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn up(lookupd: &str) -> (String, Option<Peer>) {
    (lookupd.to_owned(), Some(Peer::Connected(Some(format!("{lookupd}.http")))))
}

fn question(topic: &str, lookupd: &str) -> Question {
    let (topic, http) = (name(topic), format!("{lookupd}.http"));
    Question { topic, lookupd: lookupd.to_owned(), http }
}

struct Story {
    waiting: Waiting,
    start: Instant,
    told: String,
}

impl Story {
    fn new() -> Self {
        Self { waiting: Waiting::new(HELD_MAX), start: Instant::now(), told: String::new() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn held(&mut self, ms: u64, topics: &[&str]) {
        let at = self.at(ms);
        self.waiting.see(topics.iter().map(|it| name(it)).collect(), at);
    }

    /// `a` said something of `topic`, or nothing.
    fn said(&mut self, ms: u64, topic: &str, lookupd: &str, answered: bool) {
        let at = self.at(ms);
        self.waiting.take(&question(topic, lookupd), answered, at);
    }

    fn decide(&mut self, ms: u64, lookupds: &[(String, Option<Peer>)]) {
        let lookupds = lookupds.iter().cloned().collect();
        let decision = self.waiting.decide(&lookupds, self.at(ms));
        let ask: Vec<_> =
            decision.ask.iter().map(|it| format!("{}@{}", it.topic, it.http)).collect();
        let release: Vec<_> =
            decision.release.iter().map(|(it, answered)| format!("{it}:{answered}")).collect();
        let wake = decision.wake.map(|it| (it - self.start).as_millis());
        writeln!(self.told, "{ms}: ask {ask:?} release {release:?} wake {wake:?}").unwrap();
    }

    #[track_caller]
    fn check(&self, expected: &Expect) {
        expected.assert_eq(&self.told);
    }
}

#[test]
fn a_topic_waits_for_all_that_are_there() {
    let mut story = Story::new();
    let lookupds = [up("a"), up("b"), ("c".to_owned(), Some(Peer::Away))];
    story.held(0, &["t"]);
    story.decide(0, &lookupds);
    story.said(10, "t", "a", true);
    story.decide(10, &lookupds);
    story.said(20, "t", "b", false);
    story.held(20, &["t"]);
    story.decide(20, &lookupds);
    // It has been answered: nobody is asked any more, nor when one comes.
    story.decide(9_000, &[up("a"), up("b"), up("c")]);
    story.check(&expect![[r#"
        0: ask ["t@a.http", "t@b.http"] release [] wake Some(5000)
        10: ask [] release [] wake Some(5000)
        20: ask [] release ["t:true"] wake None
        9000: ask [] release [] wake None
    "#]]);
}

#[test]
fn a_topic_does_not_wait_for_long() {
    let mut story = Story::new();
    story.held(0, &["t"]);
    story.decide(0, &[up("a"), ("b".to_owned(), None)]);
    story.held(4_999, &["t"]);
    story.decide(4_999, &[up("a"), ("b".to_owned(), None)]);
    story.decide(5_000, &[up("a"), ("b".to_owned(), None)]);
    // It is asked on, until somebody answers.
    story.said(5_001, "t", "a", false);
    story.decide(5_001, &[up("a"), up("b")]);
    story.said(5_100, "t", "b", false);
    story.decide(5_100, &[up("a"), up("b")]);
    story.decide(10_001, &[up("a"), up("b")]);
    story.said(10_002, "t", "a", true);
    story.decide(20_000, &[up("a"), up("b")]);
    story.check(&expect![[r#"
        0: ask ["t@a.http"] release [] wake Some(5000)
        4999: ask [] release [] wake Some(5000)
        5000: ask [] release ["t:false"] wake None
        5001: ask ["t@b.http"] release [] wake Some(10001)
        5100: ask [] release [] wake Some(10001)
        10001: ask ["t@a.http"] release [] wake Some(10100)
        20000: ask [] release [] wake None
    "#]]);
}

#[test]
fn nobody_to_ask_is_nobody_to_wait_for() {
    let mut story = Story::new();
    let away = [("a".to_owned(), Some(Peer::Away)), ("b".to_owned(), Some(Peer::Connected(None)))];
    story.held(0, &["t"]);
    story.decide(0, &away);
    story.held(1, &["u"]);
    story.decide(1, &away);
    // One that comes is asked for what nobody has said.
    story.decide(60_000, &[up("a")]);
    // The topic was deleted and made again meanwhile.
    story.held(60_001, &["t"]);
    story.decide(60_001, &[up("a")]);
    story.waiting.retain(|_| false);
    story.said(60_002, "t", "a", true);
    story.decide(60_002, &[up("a")]);
    story.check(&expect![[r#"
        0: ask [] release ["t:false"] wake None
        1: ask [] release ["u:false"] wake None
        60000: ask ["t@a.http", "u@a.http"] release [] wake None
        60001: ask [] release [] wake Some(65001)
        60002: ask [] release [] wake None
    "#]]);
}

#[test]
fn one_that_is_no_longer_used_is_not_waited_for() {
    let mut story = Story::new();
    story.held(0, &["t"]);
    story.decide(0, &[up("a"), up("b")]);
    story.said(1, "t", "a", true);
    story.held(2, &["t", "u"]);
    story.decide(2, &[up("a")]);
    story.held(3, &["u"]);
    story.decide(3, &[]);
    story.said(4, "u", "a", false);
    story.decide(4, &[up("a")]);
    story.check(&expect![[r#"
        0: ask ["t@a.http", "t@b.http"] release [] wake Some(5000)
        2: ask ["u@a.http"] release ["t:true"] wake Some(5002)
        3: ask [] release ["u:false"] wake None
        4: ask [] release [] wake None
    "#]]);
}

#[test]
fn one_that_is_slow_is_not_asked_everything_at_once() {
    let mut story = Story::new();
    let names: Vec<String> = (0..=ASKED_AT_ONCE).map(|it| format!("t{it}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    story.held(0, &names);
    let lookupds = [up("a")].into();
    let asked = |story: &mut Story, ms| {
        let at = story.at(ms);
        story.waiting.decide(&lookupds, at).ask.len()
    };
    assert_eq!(asked(&mut story, 0), ASKED_AT_ONCE);
    assert_eq!(asked(&mut story, 1), 0);
    story.said(2, "t0", "a", true);
    assert_eq!(asked(&mut story, 2), 1);
}

proptest! {
    /// Whatever happens, no topic is held for longer than it may be, and none is asked about twice
    /// at the same time.
    #[test]
    fn nothing_holds_for_ever(steps in proptest::collection::vec((0..4_u8, 0..3_usize, 0..3_usize, 1..3_000_u64), 1..60)) {
        let (topics, lookupds) = (["t", "u", "v"], ["a", "b", "c"]);
        let mut story = Story::new();
        let mut now = 0;
        let mut peers: Lookupds = lookupds.iter().map(|it| ((*it).to_owned(), None)).collect();
        let mut held: BTreeMap<Name, u64> = BTreeMap::new();
        let mut asked: Vec<Question> = Vec::new();
        for (what, topic, lookupd, ms) in steps {
            now += ms;
            match what {
                0 => {
                    held.entry(name(topics[topic])).or_insert(now);
                }
                1 => {
                    peers.insert(lookupds[lookupd].to_owned(), Some(Peer::Away));
                }
                2 => peers.extend([up(lookupds[lookupd])]),
                _ => {
                    if let Some(question) = asked.pop() {
                        story.said(now, question.topic.as_str(), &question.lookupd, topic > 0);
                    }
                }
            }
            let at = story.at(now);
            story.waiting.see(held.keys().cloned().collect(), at);
            let decision = story.waiting.decide(&peers, at);
            for (topic, _) in decision.release {
                prop_assert!(held.remove(&topic).is_some());
            }
            for question in decision.ask {
                prop_assert!(!asked.contains(&question));
                asked.push(question);
            }
            prop_assert!(decision.wake.is_none_or(|it| at < it), "it would decide for ever");
            let held_max = u64::try_from(HELD_MAX.as_millis()).unwrap();
            prop_assert!(held.values().all(|since| now < since + held_max));
            let wake = decision.wake.map(|it| u64::try_from((it - story.start).as_millis()).unwrap());
            prop_assert!(held.values().all(|since| wake.is_some_and(|it| it <= since + held_max)));
        }
    }
}
