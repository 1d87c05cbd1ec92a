//! What the server kept of each request, and whether it was itself quick enough to be a judge. In
//! memory and as a file; computes nothing of a client.

use std::{fmt, io, time::Duration};

use serde::{Deserialize, Serialize};

use crate::judge::law::{Law, Outcome};

/// Most requests in one record: 40 bytes each in memory. What comes after is answered and counted,
/// but no longer written down, and nobody is judged by such a record.
pub const ENTRIES_MAX: usize = 4_000_000;
/// An answer given this much after it was due is late.
pub const LATE_AFTER: Duration = Duration::from_millis(1);
/// Share of late answers above which the server did not do what its law says.
pub const LATE_SHARE_MAX: f64 = 0.01;
/// The same where what is expected comes from what the server did, so that its lag is in it.
pub const RECORDED_LATE_SHARE_MAX: f64 = 0.1;
/// A core on which nothing ran for this long more than it should, in nanoseconds, stood still. Well
/// above what waking a thread takes, and below what 2 % of the times judged here are.
pub const PAUSE_MIN: u64 = 250_000;
/// Share of the run in which some core may have stood still: what was seen of the server is then known
/// too badly.
pub const PAUSED_SHARE_MAX: f64 = 0.1;
/// Answers that a stall held are due all at once; giving them out may take this share of the stall.
pub const THAW_SHARE_MAX: f64 = 0.05;

/// All that a server saw and did.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What it obeyed.
    pub law: Law,
    /// The seed of its law.
    pub seed: u64,
    /// Every request, in the order of arrival.
    pub entries: Vec<Entry>,
    /// How the server itself did.
    pub own: Own,
    /// When the machine, or one of its cores, stood still during the run: by time, not overlapping.
    pub pauses: Vec<Pause>,
}

/// A while in which nothing ran on one of the cores, as far as one of its threads could see: the
/// machine's host had other things to do, or other programs did not let go of it. Moments are those
/// of [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When it was last seen to run.
    pub from: u64,
    /// When it was again.
    pub to: u64,
}

/// One request. Moments are nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When its head had been read.
    pub arrival: u64,
    /// When the last byte of its answer was due.
    pub due: u64,
    /// When the last byte of its answer was handed to the kernel; `None` if the client had gone.
    pub answer: Option<u64>,
    /// Connections are numbered in the order in which they were accepted, from 0.
    pub connection: u32,
    /// What the answer was.
    pub outcome: Outcome,
}

/// How the server itself did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// Times that it looked at the clock by a timer of its own.
    pub beats: u64,
    /// Those of them that were late by more than [`LATE_AFTER`], outside of the moments after a stall.
    pub late_beats: u64,
    /// Requests beyond [`ENTRIES_MAX`].
    pub unrecorded: u64,
    /// Connections that it could not accept for want of descriptors.
    pub refused: u64,
}

/// Why a record judges nobody.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unfit {
    /// Nothing arrived.
    Empty,
    /// It is not whole.
    Unrecorded(u64),
    /// The server had no descriptors left.
    Refused(u64),
    /// Share of answers that came more than [`LATE_AFTER`] after they were due.
    LateAnswers(f64),
    /// Share of beats.
    LateBeats(f64),
    /// After a stall its answers took this long.
    SlowThaw(Duration),
    /// Share of the run in which the machine stood still.
    Paused(f64),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no request arrived"),
            Self::Unrecorded(count) => write!(f, "{count} requests were not recorded"),
            Self::Refused(count) => {
                write!(f, "the server had no descriptors for {count} connections")
            }
            Self::LateAnswers(share) => write!(
                f,
                "the server gave {:.1} % of its answers more than 1 ms late",
                share * 100.0
            ),
            Self::LateBeats(share) => {
                write!(
                    f,
                    "the server's timer was more than 1 ms late {:.1} % of the time",
                    share * 100.0
                )
            }
            Self::Paused(share) => {
                write!(f, "the machine itself stood still {:.1} % of the time", share * 100.0)
            }
            Self::SlowThaw(took) => {
                write!(f, "the server took {took:.0?} to give the answers that a stall had held")
            }
        }
    }
}

impl Record {
    /// When the first request arrived; stalls are counted from then.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.entries.first().map_or(0, |it| it.arrival)
    }

    /// When each request arrived, in seconds from the first.
    #[must_use]
    pub fn arrivals(&self) -> Vec<f64> {
        let seconds = |it: &Entry| Duration::from_nanos(it.arrival - self.began()).as_secs_f64();
        self.entries.iter().map(seconds).collect()
    }

    /// Why nobody can be judged by it; empty if one can. At most `late_share_max` of the answers, and
    /// of the server's own timers, may have been late.
    #[must_use]
    pub fn unfit(&self, late_share_max: f64) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        if self.entries.is_empty() {
            unfit.push(Unfit::Empty);
        }
        if self.own.unrecorded > 0 {
            unfit.push(Unfit::Unrecorded(self.own.unrecorded));
        }
        if self.own.refused > 0 {
            unfit.push(Unfit::Refused(self.own.refused));
        }
        let (mut late, mut thaw) = (0, None);
        for (entry, index) in self.entries.iter().zip(0..) {
            let Some(answer) = entry.answer else { continue };
            let lag = Duration::from_nanos(answer.saturating_sub(entry.due));
            let arrival = Duration::from_nanos(entry.arrival - self.began());
            let delay = self.law.fate(self.seed, index).delay;
            match self.law.due(arrival, delay).held {
                None => late += u64::from(lag > LATE_AFTER),
                Some(stall) if lag > stall.length.mul_f64(THAW_SHARE_MAX).max(LATE_AFTER) => {
                    thaw = thaw.max(Some(lag));
                }
                Some(_) => {}
            }
        }
        let share = share(late, self.entries.len() as u64);
        if share > late_share_max {
            unfit.push(Unfit::LateAnswers(share));
        }
        let beats = self.late_beats();
        if beats > late_share_max {
            unfit.push(Unfit::LateBeats(beats));
        }
        unfit.extend(thaw.map(Unfit::SlowThaw));
        let paused = self.paused_share();
        if paused > PAUSED_SHARE_MAX {
            unfit.push(Unfit::Paused(paused));
        }
        unfit
    }

    /// Notes when the machine stood still, as far as it did between the first arrival and the last
    /// answer.
    pub fn paused(&mut self, pauses: &[Pause]) {
        let (began, ended) = (self.began(), self.ended());
        let during = |it: &&Pause| began < it.to && it.from < ended;
        self.pauses = pauses.iter().filter(during).copied().collect();
    }

    /// Share of the run, 0 to 1, in which one of the cores stood still.
    #[must_use]
    pub fn paused_share(&self) -> f64 {
        let (began, ended) = (self.began(), self.ended());
        let within = |it: &Pause| it.to.min(ended).saturating_sub(it.from.max(began));
        share(self.pauses.iter().map(within).sum(), ended - began)
    }

    /// The pause in which a moment is.
    #[must_use]
    pub fn pause(&self, moment: u64) -> Option<Pause> {
        let index = self.pauses.partition_point(|it| it.to < moment);
        self.pauses.get(index).copied().filter(|it| it.from <= moment)
    }

    /// The last that happened.
    fn ended(&self) -> u64 {
        let last = |it: &Entry| it.answer.unwrap_or(it.arrival);
        self.entries.iter().map(last).max().unwrap_or_default()
    }

    /// Share of its own timers that were late, 0 to 1.
    #[must_use]
    pub fn late_beats(&self) -> f64 {
        share(self.own.late_beats, self.own.beats)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    law: String,
    seed: u64,
    #[serde(flatten)]
    own: Own,
    /// Pairs of beginning and end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pauses_ns: Vec<(u64, u64)>,
}

/// Names of the columns: the second line of a file.
const COLUMNS: &str = "arrival_ns\tdue_ns\tanswer_ns\tconnection\toutcome";

impl Record {
    /// Writes it as text: a line of JSON (law, seed, the server's own lag), a line of column names,
    /// and a line per request, separated by tabs.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let pauses_ns = self.pauses.iter().map(|it| (it.from, it.to)).collect();
        let head = Head { law: self.law.to_string(), seed: self.seed, own: self.own, pauses_ns };
        serde_json::to_writer(&mut *to, &head)?;
        writeln!(to, "\n{COLUMNS}")?;
        for Entry { arrival, due, answer, connection, outcome } in &self.entries {
            write!(to, "{arrival}\t{due}\t")?;
            match answer {
                Some(answer) => write!(to, "{answer}")?,
                None => write!(to, "-")?,
            }
            writeln!(to, "\t{connection}\t{}", name(*outcome))?;
        }
        Ok(())
    }

    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    ///
    /// Those of `from`, and lines that are not as expected, by number.
    pub fn read(from: impl io::BufRead) -> anyhow::Result<Self> {
        use anyhow::{Context as _, ensure};

        let mut lines = from.lines();
        let head = lines.next().context("the file is empty")??;
        let Head { law, seed, own, pauses_ns } = serde_json::from_str(&head).context("line 1")?;
        let law: Law = law.parse().context("line 1: law")?;
        let columns = lines.next().context("no line of column names")??;
        ensure!(columns == COLUMNS, "line 2: `{columns}`, not `{COLUMNS}`");
        let mut entries: Vec<Entry> = Vec::new();
        for (line, number) in lines.zip(3..) {
            let line = line?;
            let entry = entry(&line).with_context(|| format!("line {number}: `{line}`"))?;
            let sorted = entries.last().is_none_or(|it| it.arrival <= entry.arrival);
            ensure!(sorted, "line {number}: arrived before the request above it");
            ensure!(entries.len() < ENTRIES_MAX, "more than {ENTRIES_MAX} requests");
            entries.push(entry);
        }
        let mut pauses: Vec<Pause> = Vec::new();
        for (from, to) in pauses_ns {
            let sorted = from < to && pauses.last().is_none_or(|it| it.to < from);
            ensure!(sorted, "line 1: pause from {from} to {to} is not after the one before it");
            pauses.push(Pause { from, to });
        }
        Ok(Self { law, seed, entries, own, pauses })
    }
}

fn entry(line: &str) -> anyhow::Result<Entry> {
    let fields: Vec<&str> = line.split('\t').collect();
    let &[arrival, due, answer, connection, outcome] = fields.as_slice() else {
        anyhow::bail!("not five fields");
    };
    Ok(Entry {
        arrival: arrival.parse()?,
        due: due.parse()?,
        answer: if answer == "-" { None } else { Some(answer.parse()?) },
        connection: connection.parse()?,
        outcome: match outcome {
            "good" => Outcome::Good,
            "error" => Outcome::Error,
            "reset" => Outcome::Reset,
            _ => anyhow::bail!("`{outcome}` is no outcome"),
        },
    })
}

const fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Good => "good",
        Outcome::Error => "error",
        Outcome::Reset => "reset",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    /// A record of arrivals each millisecond whose answers are `lag` late.
    fn record(law: &str, lag: impl Fn(u64, &Entry) -> u64) -> Record {
        let law: Law = law.parse().unwrap();
        let entries = (0..1000).map(|index| {
            let arrival = Duration::from_millis(index);
            let due = law.due(arrival, law.fate(1, index).delay).last;
            let moment = |it: Duration| 7_000_000_000 + u64::try_from(it.as_nanos()).unwrap();
            let (arrival, due) = (moment(arrival), moment(due));
            let outcome = Outcome::Good;
            let mut entry = Entry { arrival, due, answer: None, connection: 0, outcome };
            entry.answer = Some(due + lag(index, &entry));
            entry
        });
        let own = Own { beats: 100, ..Own::default() };
        Record { entries: entries.collect(), law, seed: 1, own, pauses: Vec::new() }
    }

    #[test]
    fn quick_server_may_judge() {
        let law = "constant:10ms,stall:200ms@500ms";
        assert_eq!(record(law, |_, _| MILLISECOND / 2).unfit(LATE_SHARE_MAX), []);
        // The held ones come out one after the other.
        let thaw = |index: u64, _: &Entry| if index < 500 { 0 } else { 9 * MILLISECOND };
        assert_eq!(record("constant:10ms,stall:500ms@500ms", thaw).unfit(LATE_SHARE_MAX), []);
    }

    #[test]
    fn slow_server_may_not() {
        let late =
            |index: u64, _: &Entry| if index.is_multiple_of(50) { 2 * MILLISECOND } else { 0 };
        assert_eq!(record("constant:10ms", late).unfit(LATE_SHARE_MAX), [Unfit::LateAnswers(0.02)]);
        let thaw = |index: u64, _: &Entry| if index == 600 { 11 * MILLISECOND } else { 0 };
        assert_eq!(
            record("constant:10ms,stall:200ms@500ms", thaw).unfit(LATE_SHARE_MAX),
            [Unfit::SlowThaw(Duration::from_millis(11))]
        );
        let mut record = record("constant:10ms", |_, _| 0);
        record.own = Own { beats: 100, late_beats: 2, unrecorded: 3, refused: 4 };
        let said: Vec<String> =
            record.unfit(LATE_SHARE_MAX).iter().map(ToString::to_string).collect();
        expect![[r"
            3 requests were not recorded
            the server had no descriptors for 4 connections
            the server's timer was more than 1 ms late 2.0 % of the time"]]
        .assert_eq(&said.join("\n"));
        record.entries.clear();
        assert_eq!(record.unfit(LATE_SHARE_MAX).first(), Some(&Unfit::Empty));
    }

    #[test]
    fn reads_what_it_wrote() {
        let mut record = record("bimodal:1ms/9ms@10%,errors:1%,resets:1%", |index, _| index);
        record.entries.truncate(3);
        record.entries[1].answer = None;
        record.entries[2].outcome = Outcome::Reset;
        let mut file = Vec::new();
        record.write(&mut file).unwrap();
        expect![[r#"
            {"law":"bimodal:1ms/9ms@0.1,errors:0.01,resets:0.01","seed":1,"beats":100,"late_beats":0,"unrecorded":0,"refused":0}
            arrival_ns	due_ns	answer_ns	connection	outcome
            7000000000	7001000000	7001000000	0	good
            7001000000	7002000000	-	0	good
            7002000000	7003000000	7003000002	0	reset
        "#]]
        .assert_eq(str::from_utf8(&file).unwrap());
        assert_eq!(Record::read(file.as_slice()).unwrap(), record);
    }

    #[test]
    fn damaged_files() {
        let check = |text: &str| format!("{:#}", Record::read(text.as_bytes()).unwrap_err());
        let head = r#"{"law":"none","seed":1,"beats":0,"late_beats":0,"unrecorded":0,"refused":0}"#;
        let text = |line: &str| format!("{head}\n{COLUMNS}\n{line}\n");
        assert_eq!(check(""), "the file is empty");
        assert_eq!(check(&text("1\t2")), "line 3: `1\t2`: not five fields");
        assert_eq!(
            check(&text("1\t2\tx\t0\tgood")),
            "line 3: `1\t2\tx\t0\tgood`: invalid digit found in string"
        );
        assert_eq!(
            check(&text("2\t2\t-\t0\tgood\n1\t2\t-\t0\tgood")),
            "line 4: arrived before the request above it"
        );
    }
}
