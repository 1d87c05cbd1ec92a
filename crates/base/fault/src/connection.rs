//! One connection from its acceptance to its end: it reaches the server, lets two pumps carry the
//! bytes, and ends both sockets as the pumps, a command or the end of the process say.

use std::{io, net::SocketAddr, os::fd::AsFd as _, sync::Arc, time::Duration};

use rustix::net::Shutdown;
use tokio::{io::Interest, net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    effect::Direction,
    line::{End, Line, Listed},
    pump::{Common, Ended, Gone, Pump},
    resolve,
    route::{Counted, Mode},
    statistics::Counters,
};

/// How long the server's end is waited for. Linux itself would try for two minutes; a test would
/// rather know.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// How connections are ended on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In order (FIN).
    Close,
    /// At once (RST).
    Reset,
}

/// What a connection needs.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: TcpStream,
    /// Where the server is, as `host:port`.
    pub(crate) upstream: String,
    pub(crate) seed: u64,
    pub(crate) mode: watch::Receiver<Mode>,
    pub(crate) command: watch::Receiver<Option<How>>,
    /// Per direction, in the order of [`Direction::ALL`].
    pub(crate) faults: [watch::Receiver<Arc<[Listed]>>; 2],
    pub(crate) counters: [[Arc<Counters>; 2]; 2],
    pub(crate) common: Common,
    pub(crate) counted: Counted,
}

/// How a connection ended, as its sockets are to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Close,
    ResetClient,
    ResetServer,
    ResetBoth,
}

impl Connection {
    /// Serves it to its end.
    pub(crate) async fn serve(mut self, stop: CancellationToken) {
        tokio::select! {
            biased;
            // Dropped sockets close in order.
            () = stop.cancelled() => {}
            () = self.relay() => {}
        }
    }

    async fn relay(&mut self) {
        let mut command = self.command.clone();
        let opened = tokio::select! {
            biased;
            how = commanded(&mut command) => Err(how),
            opened = self.open() => Ok(opened),
        };
        let server = match opened {
            Ok(Some(server)) => server,
            Ok(None) => return,
            Err(How::Close) => return finish(&self.client),
            Err(How::Reset) => return self.reset(&[&self.client]),
        };
        let verdict = tokio::select! {
            biased;
            how = commanded(&mut command) => match how {
                How::Close => Verdict::Close,
                How::Reset => Verdict::ResetBoth,
            },
            verdict = self.carry(&server) => verdict,
        };
        match verdict {
            Verdict::Close => {
                // The last bytes are on their way; the end follows them.
                finish(&self.client);
                finish(&server);
            }
            Verdict::ResetClient => self.reset(&[&self.client]),
            Verdict::ResetServer => self.reset(&[&server]),
            Verdict::ResetBoth => self.reset(&[&self.client, &server]),
        }
    }

    fn reset(&self, sockets: &[&TcpStream]) {
        self.counted.reset();
        sockets.iter().for_each(|it| reset(it));
    }

    /// Reaches the server; None if the client is gone or has been told that it cannot be reached.
    async fn open(&mut self) -> Option<TcpStream> {
        if !self.held().await {
            return None;
        }
        let server = match connect(&self.upstream).await {
            Ok(server) => server,
            Err(error) => {
                self.counted.upstream_failed(&self.upstream, &error);
                // Nobody answered the client; an orderly end would look as if somebody had.
                reset(&self.client);
                return None;
            }
        };
        // Faults decide when bytes go out, not the kernel.
        for socket in [&self.client, &server] {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "set TCP_NODELAY");
            }
        }
        Some(server)
    }

    /// Waits while the route holds connections. Returns whether the client is still there.
    async fn held(&mut self) -> bool {
        while *self.mode.borrow_and_update() == Mode::Hold {
            tokio::select! {
                changed = self.mode.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                }
                over = left(&self.client) => {
                    if let Err(error) = over {
                        tracing::warn!(%error, "watch a held connection");
                    }
                    return false;
                }
            }
        }
        true
    }

    async fn carry(&self, server: &TcpStream) -> Verdict {
        let (client_gone, server_gone) = (Gone::default(), Gone::default());
        let mut up = self.pump(Direction::Upstream, &self.client, server, &client_gone);
        let mut down = self.pump(Direction::Downstream, server, &self.client, &server_gone);
        let (up, down) = (up.run(), down.run());
        tokio::pin!(up, down);
        let (mut up_runs, mut down_runs) = (true, true);
        loop {
            let (direction, ended) = tokio::select! {
                ended = &mut up, if up_runs => (Direction::Upstream, ended),
                ended = &mut down, if down_runs => (Direction::Downstream, ended),
                else => return Verdict::Close,
            };
            let (sink, other_gone, reset_sink, reset_source) = match direction {
                Direction::Upstream => {
                    up_runs = false;
                    (server, &server_gone, Verdict::ResetServer, Verdict::ResetClient)
                }
                Direction::Downstream => {
                    down_runs = false;
                    (&self.client, &client_gone, Verdict::ResetClient, Verdict::ResetServer)
                }
            };
            match ended {
                Ended::Line(End::Finish) => finish(sink),
                Ended::Line(End::Reset) => return reset_sink,
                Ended::Line(End::Close) => return Verdict::Close,
                Ended::Line(End::Abort) => return Verdict::ResetBoth,
                // The sink is the other direction's source: that direction tells, if it may.
                Ended::SinkGone if up_runs || down_runs => other_gone.set(),
                Ended::SinkGone => return reset_source,
            }
        }
    }

    fn pump<'a>(
        &self,
        direction: Direction,
        source: &'a TcpStream,
        sink: &'a TcpStream,
        source_gone: &'a Gone,
    ) -> Pump<'a> {
        let ([up, down], [up_counters, down_counters]) = (&self.faults, &self.counters);
        let (faults, counters, seed) = match direction {
            Direction::Upstream => (up, up_counters, self.seed),
            Direction::Downstream => (down, down_counters, !self.seed),
        };
        Pump {
            source,
            sink,
            line: Line::new(seed),
            faults: faults.clone(),
            common: self.common.clone(),
            counters: counters.clone(),
            source_gone,
            counted: 0,
        }
    }
}

/// Waits until the other end has closed its side. What it says meanwhile stays unread.
async fn left(socket: &TcpStream) -> io::Result<()> {
    // Watched apart, so that the socket's own readiness is still there for who will read.
    let watched =
        runtime::watch_descriptor(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)?;
    loop {
        let mut ready = watched.readable().await?;
        if ready.ready().is_read_closed() {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Waits for the command to end; for ever if none comes.
async fn commanded(command: &mut watch::Receiver<Option<How>>) -> How {
    match command.wait_for(Option::is_some).await.map(|it| *it) {
        Ok(Some(how)) => how,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

async fn connect(upstream: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = resolve::addresses(upstream)?;
    let attempt = async {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match tokio::time::timeout(CONNECT_MAX, attempt).await {
        Ok(connected) => connected,
        Err(_) => {
            let text = format!("no answer within {CONNECT_MAX:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// Makes the coming close of `socket` a reset.
pub(crate) fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "set SO_LINGER");
    }
}

/// Says that nothing more comes. A socket whose other end is gone needs no telling.
fn finish(socket: &TcpStream) {
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Write) {
        tracing::debug!(%error, "end a connection");
    }
}
