//! A blob from a registry into the store: gone on with where it broke off, in this process or a former
//! one, and verified.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE},
};
use runtime::Backoff;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    error::Kind,
    session::{Ask, Session},
    transport::{Patience, local},
};
use crate::{
    Descriptor, Event, Store,
    progress::Progress,
    store::{self, Blob, Writer},
};

/// Pieces on their way to the disk, of 8 to 400 KiB each.
const PIECES: usize = 32;

/// Most connections for one blob, however far each one comes.
const CONNECTIONS_MAX: u32 = 200;

/// Longest wait between two tries.
const PAUSE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Gets a blob that is not there, and verifies it.
pub(crate) async fn download(
    session: &Session<'_>,
    store: &Store,
    blob: &Descriptor,
    progress: Progress<'_>,
) -> Result<(), Kind> {
    let part = blob.digest.to_string();
    let Some(mut sink) = Sink::open(store, blob).await? else {
        progress(Event::Present { part });
        return Ok(());
    };
    let resumed = sink.offset > 0;
    get(session, blob, &mut sink, progress).await?;
    match sink.commit().await {
        Ok(_) => {}
        // The rest that was here may have been the wrong part.
        Err(Kind::Store(store::Error::Digest { .. })) if resumed => {
            let Some(mut sink) = Sink::open(store, blob).await? else {
                return Ok(());
            };
            get(session, blob, &mut sink, progress).await?;
            sink.commit().await.map_err(|it| lied(session, it))?;
        }
        Err(error) => return Err(lied(session, error)),
    }
    progress(Event::Finished { part });
    Ok(())
}

/// Gets all of a blob, over as many connections as it takes while each one brings something.
async fn get(
    session: &Session<'_>,
    blob: &Descriptor,
    sink: &mut Sink,
    progress: Progress<'_>,
) -> Result<(), Kind> {
    let Patience { attempts, pause, .. } = session.transport().patience;
    let backoff = Backoff { base: pause, max: PAUSE_MAX };
    let mut failures = 0;
    for connection in 0.. {
        let before = sink.offset;
        let Err(error) = attempt(session, blob, sink, progress).await else {
            return Ok(());
        };
        failures = if sink.offset > before { 1 } else { failures + 1 };
        if !is_passing(&error) || failures >= attempts || connection >= CONNECTIONS_MAX {
            return Err(after(error, failures));
        }
        let reason = error.to_string();
        progress(Event::Retried { part: blob.digest.to_string(), reason });
        tokio::time::sleep(backoff.delay(failures)).await;
    }
    Ok(())
}

/// Whether the next try may do better.
pub(crate) const fn is_passing(error: &Kind) -> bool {
    match error {
        Kind::Stalled { .. }
        | Kind::BrokenOff { .. }
        | Kind::Unreachable { .. }
        | Kind::TooManyRequests { .. } => true,
        Kind::Refused { status, .. } => *status >= 500,
        _ => false,
    }
}

/// Puts into an error how often it happened.
pub(crate) fn after(error: Kind, times: u32) -> Kind {
    match error {
        Kind::Stalled { registry, after, .. } => Kind::Stalled { registry, after, attempts: times },
        Kind::BrokenOff { registry, cause, .. } => {
            Kind::BrokenOff { registry, cause, attempts: times }
        }
        other => other,
    }
}

async fn attempt(
    session: &Session<'_>,
    blob: &Descriptor,
    sink: &mut Sink,
    progress: Progress<'_>,
) -> Result<(), Kind> {
    if sink.offset >= blob.size {
        return Ok(());
    }
    let path = format!("blobs/{}", blob.digest);
    let mut headers = vec![(ACCEPT_ENCODING, "identity".to_owned())];
    if sink.offset > 0 {
        headers.push((RANGE, format!("bytes={}-", sink.offset)));
    }
    let ask = Ask::of(Method::GET, &path, &headers);
    let answer = session.send(&ask).await?;
    match answer.status() {
        StatusCode::OK => {
            sink.restart().await?;
            check_length(session, blob, answer.headers())?;
        }
        StatusCode::PARTIAL_CONTENT => {
            if !continues(answer.headers(), sink.offset) {
                sink.restart().await?;
                let cause = "it sent another part than it was asked for".to_owned();
                return Err(broken_off(session, cause));
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            sink.restart().await?;
            return Err(broken_off(session, "it has less than is here already".to_owned()));
        }
        _ => return Err(session.refusal(&ask, answer).await),
    }
    let mut body = answer.into_body();
    while let Some(piece) = session.transport().piece(session.registry(), &mut body).await? {
        if sink.offset + piece.len() as u64 > blob.size {
            let cause =
                format!("{} has more than the {} bytes that were said", blob.digest, blob.size);
            sink.restart().await?;
            return Err(Kind::Lied { registry: session.registry().to_owned(), cause });
        }
        sink.write(piece).await?;
        let (part, done) = (blob.digest.to_string(), sink.offset);
        progress(Event::Advanced { part, done, total: Some(blob.size) });
    }
    if sink.offset < blob.size {
        let cause = format!("after {} of {} bytes", sink.offset, blob.size);
        return Err(broken_off(session, cause));
    }
    Ok(())
}

fn broken_off(session: &Session<'_>, cause: String) -> Kind {
    Kind::BrokenOff { registry: session.registry().to_owned(), cause, attempts: 1 }
}

/// A registry that announces another length need not be listened to.
fn check_length(session: &Session<'_>, blob: &Descriptor, headers: &HeaderMap) -> Result<(), Kind> {
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(found) if found != blob.size => {
            let cause = format!("{} has {found} bytes, not {}", blob.digest, blob.size);
            Err(Kind::Lied { registry: session.registry().to_owned(), cause })
        }
        _ => Ok(()),
    }
}

/// Whether a part begins where it was asked to: `bytes 5-9/10`.
fn continues(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let begin = range.strip_prefix("bytes ").and_then(|it| it.split('-').next());
    begin.and_then(|it| it.trim().parse().ok()) == Some(offset)
}

/// What is not what its digest says, is the registry's fault; a full disk is not.
fn lied(session: &Session<'_>, error: Kind) -> Kind {
    match error {
        Kind::Store(error @ (store::Error::Digest { .. } | store::Error::Size { .. })) => {
            let registry = session.registry().to_owned();
            Kind::Lied { registry, cause: error.to_string() }
        }
        other => other,
    }
}

/// A writer in a thread of its own: the disk never holds up the network, nor the other way round.
struct Sink {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<Result<(), store::Error>>,
    offset: u64,
}

enum Command {
    Write(Bytes),
    Restart,
    Commit(oneshot::Sender<Result<Blob, store::Error>>),
}

impl Sink {
    async fn open(store: &Store, blob: &Descriptor) -> Result<Option<Self>, Kind> {
        let (commands, queue) = mpsc::channel(PIECES);
        let (opened, offset) = oneshot::channel();
        let (store, blob) = (store.clone(), blob.clone());
        let task = tokio::task::spawn_blocking(move || {
            let Some(writer) = store.writer_of(&blob)? else {
                return Ok(());
            };
            // Nobody waits any more if the whole pull was given up.
            opened.send(writer.offset()).unwrap_or_default();
            obey(writer, queue)
        });
        match offset.await {
            Ok(offset) => Ok(Some(Self { commands, task, offset })),
            Err(_) => match ended(task).await {
                Ok(()) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Kind> {
        let length = piece.len() as u64;
        self.send(Command::Write(piece)).await?;
        self.offset += length;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), Kind> {
        if self.offset == 0 {
            return Ok(());
        }
        self.send(Command::Restart).await?;
        self.offset = 0;
        Ok(())
    }

    async fn commit(mut self) -> Result<Blob, Kind> {
        let (done, committed) = oneshot::channel();
        self.send(Command::Commit(done)).await?;
        match committed.await {
            Ok(blob) => blob.map_err(Kind::from),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn send(&mut self, command: Command) -> Result<(), Kind> {
        match self.commands.send(command).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Why the writer does not listen any more.
    async fn failure(&mut self) -> Kind {
        match ended(&mut self.task).await {
            Err(error) => error,
            Ok(()) => local("write", std::io::Error::other("the writer ended too early")),
        }
    }
}

async fn ended(
    task: impl Future<Output = Result<Result<(), store::Error>, tokio::task::JoinError>>,
) -> Result<(), Kind> {
    match task.await {
        Ok(ended) => ended.map_err(Kind::from),
        Err(error) => Err(local("write", std::io::Error::other(error))),
    }
}

/// Does what the queue says until it is closed; what is written stays for the next time.
fn obey(mut writer: Writer, mut queue: mpsc::Receiver<Command>) -> Result<(), store::Error> {
    let mut step = |command| -> Result<ControlFlow<oneshot::Sender<_>>, store::Error> {
        match command {
            Command::Write(bytes) => writer.append(&bytes)?,
            Command::Restart => writer.restart()?,
            Command::Commit(done) => return Ok(ControlFlow::Break(done)),
        }
        Ok(ControlFlow::Continue(()))
    };
    let mut done = None;
    while let Some(command) = queue.blocking_recv() {
        if let ControlFlow::Break(asked) = step(command)? {
            done = Some(asked);
            break;
        }
    }
    if let Some(done) = done {
        // As above, nobody may be waiting.
        drop(done.send(writer.commit()));
    }
    Ok(())
}
