//! New topics and the questions about them: whom to ask next, and which topic has waited for long
//! enough. No input or output, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::Peer;
use crate::name::Name;

/// Questions to one nsqlookupd at the same time, when many topics are new.
const ASKED_AT_ONCE: usize = 8;

/// Wait before those that were asked in vain are asked again, if nothing else happens before.
const AGAIN: Duration = Duration::from_secs(5);

/// What is known of the nsqlookupds, by address: all that are to be used. `None` was not tried yet.
pub(super) type Lookupds = BTreeMap<String, Option<Peer>>;

/// Topics for which there are questions.
#[derive(Debug)]
pub(super) struct Waiting {
    /// How long a topic is held at most.
    held_max: Duration,
    topics: BTreeMap<Name, About>,
}

/// What is known of one topic.
#[derive(Debug)]
struct About {
    /// Since when it is held; `None` if it no longer is, and only nobody has answered yet.
    held: Option<Instant>,
    /// Whether somebody has answered.
    answered: bool,
    /// Who is being asked.
    asked: BTreeSet<String>,
    /// Who has answered or could not be asked, and when.
    done: BTreeMap<String, Instant>,
}

impl About {
    const fn new(now: Instant) -> Self {
        Self { held: Some(now), answered: false, asked: BTreeSet::new(), done: BTreeMap::new() }
    }
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// To ask: about a topic, an nsqlookupd, which has HTTP there.
    pub(super) ask: Vec<Question>,
    /// Topics to be held no longer, and whether somebody has answered.
    pub(super) release: Vec<(Name, bool)>,
    /// When to decide again, if nothing happens before.
    pub(super) wake: Option<Instant>,
}

/// One topic, one nsqlookupd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) topic: Name,
    /// The nsqlookupd as configured.
    pub(super) lookupd: String,
    /// Where its HTTP is.
    pub(super) http: String,
}

impl Waiting {
    pub(super) const fn new(held_max: Duration) -> Self {
        Self { held_max, topics: BTreeMap::new() }
    }

    /// These topics are held. Those that were made anew begin anew.
    pub(super) fn see(&mut self, held: BTreeSet<Name>, now: Instant) {
        for topic in held {
            let about = self.topics.entry(topic).or_insert_with(|| About::new(now));
            if about.held.is_none() {
                let asked = std::mem::take(&mut about.asked);
                *about = About { asked, ..About::new(now) };
            }
        }
    }

    /// Forgets those topics for which `stays` does not hold.
    pub(super) fn retain(&mut self, stays: impl Fn(&Name) -> bool) {
        self.topics.retain(|topic, _| stays(topic));
    }

    /// Says what to do, and takes it as done.
    pub(super) fn decide(&mut self, lookupds: &Lookupds, now: Instant) -> Decision {
        let mut decision = Decision::default();
        let mut asking: BTreeMap<String, usize> = BTreeMap::new();
        for lookupd in self.topics.values().flat_map(|it| &it.asked) {
            *asking.entry(lookupd.clone()).or_default() += 1;
        }
        let held_max = self.held_max;
        self.topics.retain(|topic, about| {
            let mut open = about.asked.iter().any(|it| lookupds.contains_key(it));
            for (lookupd, peer) in lookupds {
                let http = match peer {
                    Some(Peer::Connected(Some(http))) => http,
                    // There is nobody to be asked, or nowhere.
                    Some(Peer::Connected(None) | Peer::Away) => continue,
                    None => {
                        open = true;
                        continue;
                    }
                };
                if about.asked.contains(lookupd) || !about.may_ask(lookupd, now) {
                    continue;
                }
                open = true;
                let count = asking.entry(lookupd.clone()).or_default();
                if *count < ASKED_AT_ONCE {
                    *count += 1;
                    about.asked.insert(lookupd.clone());
                    let (topic, lookupd, http) = (topic.clone(), lookupd.clone(), http.clone());
                    decision.ask.push(Question { topic, lookupd, http });
                }
            }
            if let Some(until) = about.held.map(|it| it + held_max) {
                if open && now < until {
                    decision.wake_at(until);
                } else {
                    about.held = None;
                    decision.release.push((topic.clone(), about.answered));
                }
            }
            // Of the others, either an answer is awaited, or whoever is away comes back.
            let again = about.done.values().map(|it| *it + AGAIN).filter(|it| now < *it).min();
            if let (None, false, Some(again)) = (about.held, about.answered, again) {
                decision.wake_at(again);
            }
            // Without any, nobody will ever say.
            about.held.is_some() || open || !(about.answered || lookupds.is_empty())
        });
        decision
    }

    /// An nsqlookupd was asked about a topic, and answered or did not.
    pub(super) fn take(&mut self, question: &Question, answered: bool, now: Instant) {
        // It may be gone.
        if let Some(about) = self.topics.get_mut(&question.topic) {
            about.asked.remove(&question.lookupd);
            about.done.insert(question.lookupd.clone(), now);
            about.answered |= answered;
        }
    }
}

impl About {
    /// Whether an nsqlookupd is to be asked: it was not, or it was in vain, the topic no longer waits
    /// for it, and some time has passed.
    fn may_ask(&self, lookupd: &str, now: Instant) -> bool {
        let Some(done) = self.done.get(lookupd) else { return true };
        self.held.is_none() && !self.answered && *done + AGAIN <= now
    }
}

impl Decision {
    fn wake_at(&mut self, time: Instant) {
        self.wake = Some(self.wake.map_or(time, |it| it.min(time)));
    }
}

#[cfg(test)]
mod tests;
