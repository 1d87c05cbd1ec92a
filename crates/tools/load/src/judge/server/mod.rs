//! The reference server: HTTP/1.1 and HTTP/2, with and without TLS, on one thread of its own. It does
//! to each request what the law says, exactly when it says it, and keeps a record.
//!
//! What a stall freezes are requests and answers. Connections are accepted and secured meanwhile, as
//! the kernel does for a server that hangs.

mod alarm;
mod desk;
mod frames;
mod http1;
mod http2;
mod tls;
mod witness;

use std::{
    fmt, io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
    task::{LocalSet, spawn_local},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{alarm::now, desk::Desk, witness::Witness};
use crate::judge::{law::Law, record::Record};

pub use self::tls::Certificate;

/// Connections that the kernel keeps until they are accepted; it allows no more by default.
const BACKLOG: u32 = 4096;
/// After an accept that failed for want of descriptors: long enough for some to be closed.
const PAUSE_NANOSECONDS: u64 = 10_000_000;
/// The bytes by which HTTP/2 without TLS begins, as far as they are looked at.
const PREFACE: &[u8] = b"PRI ";

/// What a server is to be.
#[derive(Debug)]
pub struct Options {
    /// Where it listens; port 0 for any.
    pub listen: SocketAddr,
    /// What it does to requests.
    pub law: Law,
    /// Seed of the law.
    pub seed: u64,
    /// Encrypted, with this certificate.
    pub tls: Option<Certificate>,
}

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    last: Arc<AtomicU64>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<anyhow::Result<Record>>,
}

impl Server {
    /// Starts a server on a thread of its own; it listens when this returns.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the certificate is none.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = mpsc::sync_channel(1);
        let last = Arc::new(AtomicU64::new(0));
        let seen = last.clone();
        let thread = std::thread::Builder::new()
            .name("judge".to_owned())
            .spawn(move || run(options, seen, stopped, &ready))
            .context("start a thread")?;
        let Ok(address) = listening.recv() else {
            return Err(ended(thread).err().unwrap_or_else(|| anyhow!("the server ended")));
        };
        Ok(Self { address, last, stop, thread })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long ago the last request arrived; `None` if none has.
    #[must_use]
    pub fn quiet(&self) -> Option<Duration> {
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| Duration::from_nanos(now().saturating_sub(last)))
    }

    /// Whether it has ended by itself, which only an error makes it do.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops it, whatever is under way, and returns its record.
    ///
    /// # Errors
    ///
    /// What made it end before.
    pub fn stop(self) -> anyhow::Result<Record> {
        // Nobody listens any more if it has ended by itself; then `ended` says why.
        drop(self.stop);
        ended(self.thread)
    }
}

fn ended(thread: JoinHandle<anyhow::Result<Record>>) -> anyhow::Result<Record> {
    thread.join().map_err(|_| anyhow!("the server's thread has panicked"))?
}

/// The whole life of a server.
fn run(
    options: Options,
    last: Arc<AtomicU64>,
    stop: oneshot::Receiver<()>,
    ready: &mpsc::SyncSender<SocketAddr>,
) -> anyhow::Result<Record> {
    runtime::reserve_files(runtime::raise_files(u64::MAX)).context("make room for connections")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let witness = Witness::start().context("start a thread")?;
    let served = LocalSet::new().block_on(&runtime, async {
        let acceptor = options.tls.as_ref().map(Certificate::acceptor).transpose()?;
        let listen = options.listen;
        let listener = bind(listen).with_context(|| format!("listen on {listen}"))?;
        let desk = Rc::new(Desk::new(options.law, options.seed, last)?);
        ready.send(listener.local_addr()?).context("nobody waits for the server")?;
        tokio::select! {
            // It is dropped, not sent, when the server is to stop.
            _ = stop => {}
            ended = desk.alarm.run() => ended.context("the timer")?,
            ended = desk.beat() => ended.context("the timer")?,
            ended = accept(&listener, &desk, acceptor.as_ref()) => ended.context("accept")?,
        }
        Ok::<_, anyhow::Error>(desk.record())
    });
    let mut record = served?;
    record.paused(&witness.stop());
    Ok(record)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(
    listener: &TcpListener,
    desk: &Rc<Desk>,
    acceptor: Option<&TlsAcceptor>,
) -> io::Result<()> {
    let mut number = 0;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // It has gone again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) if is_exhausted(&error) => {
                desk.refused();
                desk.alarm.until(now() + PAUSE_NANOSECONDS).await?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let (desk, acceptor) = (desk.clone(), acceptor.cloned());
        // How a connection ends is in the record: its last request has an answer, or has none.
        drop(spawn_local(async move { serve(stream, acceptor, desk, number).await.ok() }));
        number = number.wrapping_add(1);
    }
}

/// Whether there are no descriptors left.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let exhausted = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|it| exhausted.contains(&it))
}

/// One connection, in whatever protocol the client speaks.
async fn serve(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    desk: Rc<Desk>,
    number: u32,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        return if speaks_http2(&stream).await? {
            http2::serve(stream, &desk, number).await
        } else {
            http1::serve(stream, &desk, number).await
        };
    };
    let stream = acceptor.accept(stream).await?;
    if stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2) {
        http2::serve(stream, &desk, number).await
    } else {
        http1::serve(stream, &desk, number).await
    }
}

/// Whether a connection without TLS begins as HTTP/2 does.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut begin).await?;
        let begin = begin.get(..count).unwrap_or_default();
        if count == PREFACE.len() || !PREFACE.starts_with(begin) || count == 0 {
            return Ok(begin == PREFACE);
        }
        // Less than four bytes: peeking again returns at once until there are more.
        tokio::task::yield_now().await;
    }
}

/// A connection that can be reset.
trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
