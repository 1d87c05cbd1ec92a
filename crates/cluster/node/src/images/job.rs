//! One piece of work on an image, by a process of its own: `coracle image-worker`.
//!
//! It gets its order on standard input and reports on standard error. When this end is closed, be it
//! because this process dies, it ends; what it has by then is used the next time.

use std::{ffi::OsString, io, os::fd::OwnedFd};

use image::worker::{Advance, Fetched, Order, Report, SUBCOMMAND};
use shim::NurseryCommand;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use crate::context::HostProcesses;

/// Longest report. A message of a failure is a few hundred bytes.
const REPORT_MAX: u64 = 64 << 10;

/// Has an image made ready, and tells how far that is. What was fetched, if anything was; or why it is
/// not ready.
pub(super) async fn run(
    host: &dyn HostProcesses,
    order: &Order,
    told: impl Fn(Advance),
) -> Result<Option<Fetched>, String> {
    let failed = |error: io::Error| format!("cannot start the process that gets images: {error}");
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let theirs: OwnedFd = blocking(theirs).map_err(failed)?;
    let command = NurseryCommand {
        arguments: ["coracle", SUBCOMMAND].map(OsString::from).into(),
        stdin: theirs.try_clone().map_err(failed)?,
        stderr: theirs,
    };
    host.start(command).map_err(failed)?;
    let (read, mut write) = ours.into_split();
    let mut text = serde_json::to_string(order).map_err(|it| failed(it.into()))?;
    text.push('\n');
    write.write_all(text.as_bytes()).await.map_err(failed)?;
    let mut lines = BufReader::new(read);
    let mut said = String::new();
    loop {
        let mut line = String::new();
        match (&mut lines).take(REPORT_MAX).read_line(&mut line).await {
            Ok(0) => return Err(ended(said.trim())),
            Ok(_) => {}
            Err(error) => return Err(ended(&error.to_string())),
        }
        match serde_json::from_str(&line) {
            Ok(Report::Advance(advance)) => told(advance),
            Ok(Report::Ready { fetched }) => return Ok(fetched),
            Ok(Report::Failed { message }) => return Err(message),
            // A panic, in words.
            Err(_) => said = line,
        }
    }
}

fn ended(why: &str) -> String {
    format!("the process that gets images ended early: {why}")
}

/// The other process reads and writes as everybody does.
fn blocking(socket: UnixStream) -> io::Result<OwnedFd> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}
