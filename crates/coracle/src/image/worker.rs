//! `coracle image-worker`: the process that makes an image ready for a cluster, see [`image::worker`].

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    process::ExitCode,
    sync::mpsc,
};

use anyhow::Context as _;
use image::{
    unpack::Layers,
    worker::{Fetched, Order, Report},
};
use rustix::fs::Mode;

use crate::output;

/// What is made is the user's alone. The keeper, from which this process has it otherwise, makes only
/// files, and folders that nobody can enter could not be removed by hand.
const UMASK: Mode = Mode::RWXG.union(Mode::RWXO);

/// Longest order: credentials of a few registries.
const ORDER_MAX: u64 = 1 << 20;

/// Reads the order, carries it out and reports.
pub(crate) fn run() -> ExitCode {
    match try_run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error),
    }
}

fn try_run() -> anyhow::Result<()> {
    rustix::process::umask(UMASK);
    let mut line = String::new();
    let mut input = BufReader::new(io::stdin().take(ORDER_MAX));
    input.read_line(&mut line).context("read the order")?;
    let order: Order = serde_json::from_str(&line).context("understand the order")?;
    let (sender, ends) = mpsc::sync_channel(1);
    let of_input = sender.clone();
    thread("input", move || {
        // An error is an end as well: nobody waits for the image any more.
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        drop(of_input.send(None));
    })?;
    // What it holds when this process ends are files, which the next one goes on with.
    thread("work", move || drop(sender.send(Some(carry_out(&order)))))?;
    match ends.recv().context("wait for the work")? {
        Some(Ok((fetched, layers))) => {
            say(&Report::Ready { fetched })?;
            // Nobody waits for this.
            layers.settle().context("flush the layers to the disk")
        }
        Some(Err(error)) => say(&Report::Failed { message: format!("{error:#}") }),
        None => Ok(()),
    }
}

fn carry_out(order: &Order) -> anyhow::Result<(Option<Fetched>, Layers)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let told = |advance| {
        // Who hears no more of it, closes standard input too.
        say(&Report::Advance(advance)).unwrap_or_default();
    };
    Ok(runtime.block_on(order.carry_out(&told))?)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map(drop).context("start a thread")
}

fn say(report: &Report) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(report).context("print a report")?;
    text.push('\n');
    io::stderr().write_all(text.as_bytes()).context("report")
}
