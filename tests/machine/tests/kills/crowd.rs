//! Very many clients and channels at one real nsqd: each client gets what it should, what is too much
//! is refused with the original's kind of error, and somebody else notices nothing.

use std::{collections::BTreeSet, fs, io};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    nsqd::{Addresses, Nsqd, now},
    wire::{Connection, Frame, Message, batch, command},
};

/// Clients at once.
const CLIENTS: usize = 10_000;
/// Files that the test and nsqd need beside the connections; nsqd keeps 256 free.
const FILES_BESIDE: u64 = 1_000;
/// Most memory that nsqd may use for each client, when it is built for debugging: three times what it
/// was measured to be.
const CLIENT_BYTES_MAX: u64 = 30 << 10;
/// Channels that are asked for, twice as many as there may be.
const CHANNELS: usize = 100_000;
/// How many there may be.
const CHANNELS_MAX: usize = 50_000;
/// Connections that ask for channels at once, each for one of another topic: what happens to a topic
/// costs by its channels.
const ASKING: usize = 100;

/// Ten thousand consumers of one channel: each gets one message, as it asked for, and finishes it.
pub(crate) fn clients() -> anyhow::Result<String> {
    allow_files()?;
    let folder = tempfile::Builder::new().prefix("coracle-crowd-").tempdir()?;
    let mut nsqd = Nsqd::spawn(folder.path(), &[])?;
    let addresses = nsqd.ready()?;
    let before = nsqd.resident()?;
    let begun = now();
    let mut crowd = (0..CLIENTS)
        .map(|_| Connection::open(addresses.tcp))
        .collect::<io::Result<Vec<_>>>()
        .context("connect the clients")?;
    for client in &mut crowd {
        client.say(b"SUB crowd all\n")?;
    }
    for client in &mut crowd {
        ensure!(client.frame()? == Frame::Response(b"OK".to_vec()), "SUB was refused");
        client.say(b"RDY 1\n")?;
    }
    let connected = begun.elapsed();
    let each = nsqd.resident()?.saturating_sub(before) / u64::try_from(CLIENTS)?;
    let mut neighbour = Neighbour::new(addresses)?;
    neighbour.is_undisturbed()?;
    let mut publisher = Connection::open(addresses.tcp)?;
    let numbers: Vec<Vec<u8>> = (0..CLIENTS).map(|it| it.to_string().into_bytes()).collect();
    for some in numbers.chunks(1_000) {
        publisher.say(&command("MPUB crowd", &batch(some)))?;
        ensure!(publisher.frame()? == Frame::Response(b"OK".to_vec()), "MPUB was refused");
    }
    let mut seen = BTreeSet::new();
    for client in &mut crowd {
        let Frame::Message(Message { id, attempts: 1, body }) = client.frame()? else {
            anyhow::bail!("a client got something else than a message");
        };
        ensure!(seen.insert(body), "a message came twice");
        // No more for this one: it would be the only one of another.
        client.say(&[b"RDY 0\nFIN ", id.as_slice(), b"\n"].concat())?;
    }
    ensure!(seen == numbers.into_iter().collect(), "other messages than were published");
    neighbour.is_undisturbed()?;
    let took = begun.elapsed();
    drop(crowd);
    neighbour.is_undisturbed()?;
    end(&mut nsqd)?;
    ensure!(each <= CLIENT_BYTES_MAX, "a client costs {each} bytes");
    Ok(format!(
        "{CLIENTS} clients connected and subscribed in {:.1} s, all served in {:.1} s, {each} bytes each",
        connected.as_secs_f64(),
        took.as_secs_f64(),
    ))
}

/// A hundred thousand channels: as many are made as there may be, all others refused.
pub(crate) fn channels() -> anyhow::Result<String> {
    let folder = tempfile::Builder::new().prefix("coracle-crowd-").tempdir()?;
    let mut nsqd = Nsqd::spawn(folder.path(), &["-durability=process"])?;
    let addresses = nsqd.ready()?;
    let begun = now();
    let mut neighbour = Neighbour::new(addresses)?;
    let (mut made, mut refused) = (0, 0);
    let mut asked = 0;
    while asked < CHANNELS {
        let mut asking = Vec::new();
        for topic in 0..ASKING {
            let mut client = Connection::open(addresses.tcp)?;
            client.say(format!("SUB crowd{topic} channel{asked}\n").as_bytes())?;
            asked += 1;
            asking.push(client);
        }
        for mut client in asking {
            match client.frame()? {
                Frame::Response(it) if it == b"OK" => made += 1,
                Frame::Error(it) if it.starts_with("E_SUB_FAILED SUB failed ") => refused += 1,
                other => anyhow::bail!("SUB was answered with {other:?}"),
            }
        }
        neighbour.is_undisturbed()?;
    }
    // The neighbour has one of them.
    ensure!((made, refused) == (CHANNELS_MAX - 1, CHANNELS - CHANNELS_MAX + 1), "{made} made");
    let resident = nsqd.resident()? >> 20;
    nsqd.kill()?;
    let mut again = Nsqd::spawn(folder.path(), &["-durability=process"])?;
    let mut client = Connection::open(again.ready()?.tcp)?;
    client.say(b"SUB crowd0 channel0\n")?;
    ensure!(client.frame()? == Frame::Response(b"OK".to_vec()), "a channel is gone");
    client = Connection::open(again.ready()?.tcp)?;
    client.say(b"SUB crowd0 another\n")?;
    ensure!(matches!(client.frame()?, Frame::Error(_)), "there is room after a kill");
    end(&mut again)?;
    Ok(format!(
        "{made} channels made, {refused} refused in {:.1} s, {resident} MiB",
        begun.elapsed().as_secs_f64(),
    ))
}

fn end(nsqd: &mut Nsqd) -> anyhow::Result<()> {
    nsqd.end()?;
    let complaints = nsqd.complaints();
    ensure!(complaints.is_empty(), "nsqd says:\n{}", complaints.join("\n"));
    Ok(())
}

/// Somebody who publishes and consumes as if alone.
struct Neighbour {
    publisher: Connection,
    consumer: Connection,
    count: u64,
}

impl Neighbour {
    fn new(addresses: Addresses) -> anyhow::Result<Self> {
        Ok(Self {
            publisher: Connection::open(addresses.tcp)?,
            consumer: Connection::consume(addresses.tcp, "neighbour", "own", 1)?,
            count: 0,
        })
    }

    fn is_undisturbed(&mut self) -> anyhow::Result<()> {
        self.count += 1;
        let number = self.count.to_string().into_bytes();
        self.publisher.say(&command("PUB neighbour", &number))?;
        ensure!(self.publisher.frame()? == Frame::Response(b"OK".to_vec()), "PUB was refused");
        let Frame::Message(Message { id, attempts: 1, body }) = self.consumer.frame()? else {
            anyhow::bail!("the neighbour got something else than its message");
        };
        ensure!(body == number, "the neighbour got another message");
        Ok(self.consumer.say(&[b"FIN ", id.as_slice(), b"\n"].concat())?)
    }
}

/// So that this process and nsqd, which inherits it, may have so many connections.
fn allow_files() -> anyhow::Result<()> {
    let needed = u64::try_from(CLIENTS)? + FILES_BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|it| it >= needed) {
        return Ok(());
    }
    let enough = maximum.is_none_or(|it| it >= needed);
    ensure!(enough, "{CLIENTS} clients need {needed} files; raise `ulimit -Hn`");
    let limit = Rlimit { current: Some(needed), maximum };
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

impl Nsqd {
    /// Bytes of memory that it uses.
    fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let kilobytes = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
        let kilobytes = kilobytes.and_then(|it| it.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes.context("no VmRSS")?.parse()?;
        Ok(kilobytes << 10)
    }
}
