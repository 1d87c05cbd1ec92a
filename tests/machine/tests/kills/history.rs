//! One history: an nsqd on one folder that is killed again and again under load, and what is there at
//! the end. The seed decides what is done; the machine, when exactly.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use fastrand::Rng;
use fault::history::Duplicates;
use serde_json::Value;

use crate::{
    book::{Book, Key, PUBLISHERS, TOPICS},
    load::{EAGER, HOARD, IDLE, Life, lock},
    nsqd::{Addresses, Nsqd, now},
    wire::ask,
};

/// Longest life of a process under load.
const LIFE_MAX: Duration = Duration::from_millis(300);
/// Longest life of one that is killed while it starts.
const START_MAX: Duration = Duration::from_millis(60);
/// Channels that are made while the process is under load.
const LATE_MAX: usize = 3;
/// Longest wait for all messages to be consumed at the end.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at the statistics.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The channel that is made at the end and begins at the first message.
const REPLAY: &str = "replay";

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGKILL.
    Killed,
    /// SIGTERM.
    Asked,
}

/// What a history is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) durability: &'static str,
    pub(crate) end: End,
    /// How often.
    pub(crate) ends: u32,
}

/// A history in the making.
struct History {
    plan: Plan,
    random: Rng,
    folder: tempfile::TempDir,
    book: Mutex<Book>,
    late: usize,
    /// Torn ends that were made, and cut.
    torn: u32,
}

/// What was appended to a file as a torn write would have left it.
struct Torn {
    path: PathBuf,
    length: u64,
}

/// Runs one; what was seen in it, in a line.
pub(crate) fn run(plan: Plan) -> anyhow::Result<String> {
    let begun = now();
    let mut history = History {
        plan,
        random: Rng::with_seed(plan.seed),
        folder: tempfile::Builder::new().prefix("coracle-kills-").tempdir()?,
        book: Mutex::new(Book::new()),
        late: 0,
        torn: 0,
    };
    let whole = history.whole();
    let History { book, folder, torn, .. } = history;
    let book = book.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (deliveries, kept) = (book.deliveries, book.attempts_kept);
    let (complaints, operations) = book.judge();
    if let Err(error) = whole.and_then(|()| {
        ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
        ensure!(operations > 0 && deliveries > 0, "nothing happened");
        Ok(())
    }) {
        let kept = folder.keep();
        return Err(error.context(format!("{plan:?}; the folder is {}", kept.display())));
    }
    Ok(format!(
        "{} ends, {operations} operations judged, {deliveries} deliveries, {kept} of them with attempts kept, {torn} torn ends cut, {:.1} s",
        plan.ends,
        begun.elapsed().as_secs_f64(),
    ))
}

impl History {
    fn whole(&mut self) -> anyhow::Result<()> {
        self.make()?;
        let mut torn = None;
        for _ in 0..self.plan.ends {
            if self.plan.end == End::Killed && self.random.u8(..6) == 0 {
                self.kill_while_it_starts()?;
                torn = None;
            }
            self.live(torn.take())?;
            if self.plan.end == End::Killed && self.random.u8(..3) == 0 {
                torn = self.tear()?;
            }
        }
        self.drain(torn)?;
        self.nothing_is_left()
    }

    fn spawn(&self) -> anyhow::Result<Nsqd> {
        let durability = format!("-durability={}", self.plan.durability);
        Nsqd::spawn(self.folder.path(), &[&durability, "-node-id=1"])
    }

    /// The topics and channels.
    fn make(&mut self) -> anyhow::Result<()> {
        let nsqd = self.spawn()?;
        let addresses = nsqd.ready()?;
        for topic in TOPICS {
            post(addresses, &format!("/topic/create?topic={topic}"))?;
            for channel in [EAGER, HOARD, IDLE] {
                post(addresses, &format!("/channel/create?topic={topic}&channel={channel}"))?;
                lock(&self.book).made(topic, channel, Duplicates::Allowed);
            }
            lock(&self.book).replayed(topic, REPLAY);
        }
        end(nsqd)
    }

    fn kill_while_it_starts(&mut self) -> anyhow::Result<()> {
        let mut nsqd = self.spawn()?;
        std::thread::sleep(START_MAX.mul_f32(self.random.f32()));
        nsqd.kill()?;
        heard(&mut nsqd)
    }

    /// One life under load.
    fn live(&mut self, torn: Option<Torn>) -> anyhow::Result<()> {
        let mut nsqd = self.spawn()?;
        let addresses = nsqd.ready()?;
        if let Some(torn) = torn {
            torn.is_cut(&nsqd)?;
            self.torn += 1;
        }
        let mut random = self.random.fork();
        let moment = LIFE_MAX.mul_f32(random.f32());
        let is_late = self.late < LATE_MAX && random.u8(..4) == 0;
        let life = Life::new(addresses, &self.book);
        let end = self.plan.end;
        std::thread::scope(|scope| {
            for publisher in 0..PUBLISHERS {
                let (life, random) = (&life, random.fork());
                scope.spawn(move || {
                    let publish = || life.publish(&TOPICS, publisher, random);
                    life.client("a publisher", publish);
                });
            }
            for topic in TOPICS {
                let (life, eager, hoard) = (&life, random.fork(), random.fork());
                let key = move |channel: &str| (topic, channel.to_owned());
                scope.spawn(move || {
                    life.client("a consumer", || life.consume(&key(EAGER), eager));
                });
                scope.spawn(move || {
                    life.client("a consumer", || life.consume(&key(HOARD), hoard));
                });
                scope.spawn(move || life.client("a hoarder", || life.hoard(&key(HOARD))));
            }
            std::thread::sleep(moment / 2);
            if is_late {
                self.late += 1;
                make_late(&life, self.late)?;
            }
            std::thread::sleep(moment / 2);
            life.is_over();
            match end {
                End::Killed => nsqd.kill(),
                End::Asked => nsqd.end(),
            }
        })?;
        lock(&self.book).killed();
        heard(&mut nsqd)
    }

    /// What a write leaves at the end of a file when the process is killed in the middle of it.
    fn tear(&mut self) -> anyhow::Result<Option<Torn>> {
        let folder = self.folder.path().join("topics");
        let topics = [TOPICS.map(|it| folder.join(format!("{it}.topic"))).to_vec()].concat();
        let mut files = vec![newest(&self.folder.path().join("journal"))?];
        for topic in topics {
            files.push(newest(&topic)?);
        }
        let Some(path) = self.random.choice(files) else { return Ok(None) };
        let length = fs::metadata(&path)?.len();
        let mut left = match self.random.u8(..3) {
            0 => Vec::new(),
            1 => b"CQFR\xff\0\0\0".to_vec(),
            _ => vec![0; self.random.usize(1..100)],
        };
        left.extend(std::iter::repeat_with(|| self.random.u8(..)).take(200));
        left.truncate(self.random.usize(1..=left.len()));
        let mut file = fs::OpenOptions::new().append(true).open(&path)?;
        file.write_all(&left)?;
        Ok(Some(Torn { path, length }))
    }

    /// Everything is consumed, and judged.
    fn drain(&mut self, torn: Option<Torn>) -> anyhow::Result<()> {
        let mut nsqd = self.spawn()?;
        let addresses = nsqd.ready()?;
        if let Some(torn) = torn {
            torn.is_cut(&nsqd)?;
            self.torn += 1;
        }
        for topic in TOPICS {
            post(addresses, &format!("/channel/unpause?topic={topic}&channel={IDLE}"))?;
            let replay = format!("topic={topic}&channel={REPLAY}&start=beginning");
            post(addresses, &format!("/channel/create?{replay}"))?;
        }
        let life = Life::new(addresses, &self.book);
        let keys = lock(&self.book).channels();
        std::thread::scope(|scope| {
            for key in &keys {
                let life = &life;
                scope.spawn(move || life.client("a drain", || life.drain(key)));
            }
            let drained = wait_until_empty(addresses, &keys);
            life.is_over();
            nsqd.end()?;
            drained
        })?;
        heard(&mut nsqd)
    }

    /// What was finished when the process ended in order stays finished.
    fn nothing_is_left(&self) -> anyhow::Result<()> {
        let nsqd = self.spawn()?;
        let left = left(nsqd.ready()?)?;
        for key in lock(&self.book).channels() {
            let of_channel = left.get(&(key.0.to_owned(), key.1.clone()));
            ensure!(of_channel == Some(&0), "{key:?} has {of_channel:?} messages after the end");
        }
        end(nsqd)
    }
}

/// Ends a process in order; what it logged must be in order as well.
fn end(mut nsqd: Nsqd) -> anyhow::Result<()> {
    nsqd.end()?;
    heard(&mut nsqd)
}

fn heard(nsqd: &mut Nsqd) -> anyhow::Result<()> {
    let complaints = nsqd.complaints();
    ensure!(complaints.is_empty(), "nsqd says:\n{}", complaints.join("\n"));
    Ok(())
}

impl Torn {
    /// Nothing of it is there when nsqd serves again.
    fn is_cut(&self, nsqd: &Nsqd) -> anyhow::Result<()> {
        let length = match fs::metadata(&self.path) {
            Ok(it) => it.len(),
            // The journal goes on in another file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).context("look at a torn file"),
        };
        let cut = length <= self.length || nsqd.said("cut the torn end");
        let Self { path, length: before } = self;
        ensure!(cut, "{}: {before} bytes, and {length} after a start", path.display());
        Ok(())
    }
}

/// Makes a channel. When that is acknowledged, it is there for good.
fn make_late(life: &Life<'_>, number: usize) -> anyhow::Result<()> {
    let [topic, ..] = TOPICS;
    let channel = format!("late{number}");
    post(life.addresses, &format!("/channel/create?topic={topic}&channel={channel}"))?;
    life.book().made(topic, &channel, Duplicates::Allowed);
    Ok(())
}

fn post(addresses: Addresses, target: &str) -> anyhow::Result<()> {
    let (status, body) = ask(addresses.http, "POST", target)?;
    ensure!(status == 200, "POST {target} was answered {status}: {body}");
    Ok(())
}

/// The file that is being written in a folder.
fn newest(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "log" || it == "journal") {
            names.push(path);
        }
    }
    names.into_iter().max().with_context(|| format!("{} is empty", folder.display()))
}

fn wait_until_empty(addresses: Addresses, keys: &[Key]) -> anyhow::Result<()> {
    let deadline = now() + DRAIN_MAX;
    loop {
        let left = left(addresses)?;
        let of = |key: &Key| left.get(&(key.0.to_owned(), key.1.clone())).copied();
        if keys.iter().all(|key| of(key) == Some(0)) {
            return Ok(());
        }
        if deadline < now() {
            bail!("not all was consumed: {left:?}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What each channel still has: waiting, in flight or deferred; and what its topic has not given to it.
fn left(addresses: Addresses) -> anyhow::Result<BTreeMap<(String, String), u64>> {
    let target = "/stats?format=json&include_clients=false&include_mem=false";
    let (_, body) = ask(addresses.http, "GET", target)?;
    let stats: Value = serde_json::from_str(&body).context("statistics")?;
    let mut left = BTreeMap::new();
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    for topic in list(&stats, "topics") {
        for channel in list(&topic, "channels") {
            let number = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
            let of_channel = ["depth", "in_flight_count", "deferred_count"];
            let sum = of_channel.iter().map(|it| number(&channel, it)).sum::<u64>();
            let name =
                |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let key = (name(&topic, "topic_name"), name(&channel, "channel_name"));
            left.insert(key, sum + number(&topic, "depth"));
        }
    }
    Ok(left)
}
