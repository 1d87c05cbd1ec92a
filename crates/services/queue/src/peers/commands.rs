//! What an nsqlookupd has to be told so that it knows what is here. Pure.

use std::collections::BTreeSet;

use super::Topology;
use crate::name::Name;

/// What one was told: topics without channels, and channels.
pub(super) type Told = BTreeSet<(Name, Option<Name>)>;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// This is here.
    Register(Name, Option<Name>),
    /// This no longer is.
    Unregister(Name, Option<Name>),
}

impl Command {
    /// As it is on the wire.
    pub(super) fn line(&self) -> String {
        let (word, topic, channel) = match self {
            Self::Register(topic, channel) => ("REGISTER", topic, channel),
            Self::Unregister(topic, channel) => ("UNREGISTER", topic, channel),
        };
        match channel {
            Some(channel) => format!("{word} {topic} {channel}\n"),
            None => format!("{word} {topic}\n"),
        }
    }

    /// What one has been told once this was said.
    pub(super) fn note(self, told: &mut Told) {
        match self {
            Self::Register(topic, channel) => {
                if channel.is_some() {
                    told.insert((topic.clone(), None));
                }
                told.insert((topic, channel));
            }
            Self::Unregister(topic, None) => told.retain(|(it, _)| *it != topic),
            Self::Unregister(topic, channel) => {
                told.remove(&(topic, channel));
            }
        }
    }
}

/// What is to be said, in order: what is gone before what is new, a channel before its topic.
pub(super) fn decide(told: &Told, here: &Topology) -> Vec<Command> {
    let mut channels = Vec::new();
    let mut topics = Vec::new();
    for (topic, channel) in told {
        match (here.get(topic), channel) {
            (None, None) => topics.push(Command::Unregister(topic.clone(), None)),
            (Some(has), Some(channel)) if has.contains(channel) => {}
            (Some(_), None) => {}
            (_, Some(channel)) => {
                channels.push(Command::Unregister(topic.clone(), Some(channel.clone())));
            }
        }
    }
    channels.append(&mut topics);
    for (topic, has) in here {
        // To register a channel is to register its topic.
        if has.is_empty() && !told.contains(&(topic.clone(), None)) {
            channels.push(Command::Register(topic.clone(), None));
        }
        let new = has.iter().map(|it| (topic.clone(), Some(it.clone())));
        let new = new.filter(|it| !told.contains(it));
        channels.extend(new.map(|(topic, channel)| Command::Register(topic, channel)));
    }
    channels
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn topology(text: &str) -> Topology {
        let mut all = Topology::new();
        for word in text.split_whitespace() {
            let (topic, channel) = word.split_once('/').unwrap_or((word, ""));
            let channels = all.entry(Name::parse(topic).unwrap()).or_default();
            channels.extend(Name::parse(channel));
        }
        all
    }

    /// What is said when `after` is here instead of `before`.
    fn check(before: &str, after: &str, expected: Expect) {
        let mut told = Told::new();
        for command in decide(&told, &topology(before)) {
            command.note(&mut told);
        }
        let commands = decide(&told, &topology(after));
        expected.assert_eq(&commands.iter().map(Command::line).collect::<String>());
    }

    #[test]
    fn all_is_said_at_first() {
        check(
            "",
            "a b/x b/y",
            expect![[r"
            REGISTER a
            REGISTER b x
            REGISTER b y
        "]],
        );
    }

    #[test]
    fn only_changes_are_said_later() {
        check(
            "a b/x c/x",
            "a/x b/y c/x",
            expect![[r"
            UNREGISTER b x
            REGISTER a x
            REGISTER b y
        "]],
        );
        check(
            "a/x",
            "a",
            expect![[r"
            UNREGISTER a x
        "]],
        );
    }

    #[test]
    fn a_topic_goes_after_its_channels() {
        check(
            "a/x b/x b/y",
            "a/x",
            expect![[r"
            UNREGISTER b x
            UNREGISTER b y
            UNREGISTER b
        "]],
        );
    }

    fn any_topology() -> impl Strategy<Value = String> {
        let words = ["a", "b", "c", "a/x", "a/y", "b/x", "c/z"].map(str::to_owned).to_vec();
        proptest::sample::subsequence(words, 0..=7).prop_map(|it| it.join(" "))
    }

    proptest! {
        #[test]
        fn once_said_nothing_is_left(steps in proptest::collection::vec(any_topology(), 1..6)) {
            let mut told = Told::new();
            for step in steps {
                let here = topology(&step);
                for command in decide(&told, &here) {
                    command.note(&mut told);
                }
                prop_assert_eq!(decide(&told, &here), vec![]);
                let mut knows = Topology::new();
                for (topic, channel) in &told {
                    knows.entry(topic.clone()).or_default().extend(channel.clone());
                }
                prop_assert_eq!(knows, here);
            }
        }
    }
}
