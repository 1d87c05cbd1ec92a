//! What is written down of each request: the access log, and the counts of its route. The line is written
//! by a task of its own; a disk that is too slow costs lines, not time.

use std::{
    fs, io,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{StatusCode, header, request::Parts};
use jiff::{Timestamp, tz::TimeZone};
use runtime::{Clock, OnExit, Tasks};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    limits::{LOG_BYTES_MAX, LOG_LINES_MAX, LOG_PAUSE},
    metrics::{Metrics, Series},
    serve::Arrival,
    table::RouteOf,
};

/// What nginx calls a request whose client went before there was an answer.
const CLIENT_GONE: u16 = 499;

/// Writes down requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    pub(crate) metrics: Arc<Metrics>,
    clock: Clock,
    lines: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
}

impl Recorder {
    /// The log is at `path`, and what was before it at the same with `.1`.
    pub(crate) fn new(path: PathBuf, clock: Clock, tasks: &Tasks) -> Self {
        let (lines, mut waiting) = mpsc::channel::<String>(LOG_LINES_MAX);
        let lost: Arc<AtomicU64> = Arc::default();
        let missing = Arc::clone(&lost);
        // Ends with the last request, when nobody can write any more.
        tasks.spawn("access-log", OnExit::Log, |_| async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, LOG_LINES_MAX).await != 0 {
                let lost = missing.swap(0, Relaxed);
                let (to, text) = (path.clone(), batch.concat());
                batch.clear();
                let written = tokio::task::spawn_blocking(move || append(&to, &text)).await?;
                if let Err(error) = written {
                    tracing::warn!(%error, file = %path.display(), "access log not written");
                }
                if lost != 0 {
                    tracing::warn!(lost, "access log too slow, lines lost");
                }
                tokio::time::sleep(LOG_PAUSE).await;
            }
            Ok(())
        });
        Self { metrics: Arc::default(), clock, lines, lost }
    }

    /// A request has come.
    pub(crate) fn begin(&self, parts: &Parts, host: &str, arrival: Arrival) -> Box<Exchange> {
        let field = |name| parts.headers.get(name).map_or(&b"-"[..], |it| it.as_bytes());
        let target = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        Box::new(Exchange {
            recorder: self.clone(),
            began: Instant::now(),
            client: arrival.client.to_string(),
            line: format!("{} {} {:?}", parts.method, target, parts.version),
            referer: quoted(field(header::REFERER)),
            agent: quoted(field(header::USER_AGENT)),
            host: quoted(host.as_bytes()),
            status: None,
            bytes: 0,
            route: None,
            endpoint: None,
        })
    }
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(path)?;
    if LOG_BYTES_MAX < file.metadata()?.len() {
        let mut before = path.as_os_str().to_owned();
        before.push(".1");
        fs::rename(path, before)?;
        file = fs::OpenOptions::new().append(true).create(true).open(path)?;
    }
    file.write_all(text.as_bytes())
}

/// A request until its answer has been sent, or nobody waits for it any more: then it is written down.
#[derive(Debug)]
pub(crate) struct Exchange {
    recorder: Recorder,
    began: Instant,
    client: String,
    line: String,
    referer: String,
    agent: String,
    host: String,
    pub(crate) status: Option<StatusCode>,
    pub(crate) bytes: u64,
    route: Option<(Arc<RouteOf>, Arc<Series>)>,
    pub(crate) endpoint: Option<SocketAddr>,
}

impl Exchange {
    /// It takes this route.
    pub(crate) fn takes(&mut self, route: Arc<RouteOf>, series: Arc<Series>) {
        series.begin();
        self.route = Some((route, series));
    }

    pub(crate) fn series(&self) -> Option<&Series> {
        self.route.as_ref().map(|(_, it)| &**it)
    }

    /// The combined format of nginx and Apache, then the host, the route, the endpoint and the seconds.
    fn text(&self, now: Timestamp) -> String {
        let time = now.to_zoned(TimeZone::UTC).strftime("%d/%b/%Y:%H:%M:%S %z");
        let status = self.status.map_or(CLIENT_GONE, |it| it.as_u16());
        let route = self.route.as_ref().map(|(it, _)| format!("{}/{}", it.kind, it.key));
        let endpoint = self.endpoint.map(|it| it.to_string());
        let dash = || "-".to_owned();
        let Self { client, line, referer, agent, host, bytes, .. } = self;
        format!(
            "{client} - - [{time}] \"{}\" {status} {bytes} \"{referer}\" \"{agent}\" \"{host}\" {} {} {:.3}\n",
            quoted(line.as_bytes()),
            route.unwrap_or_else(dash),
            endpoint.unwrap_or_else(dash),
            self.began.elapsed().as_secs_f64(),
        )
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((_, series)) = &self.route {
            let gone = || StatusCode::from_u16(CLIENT_GONE).unwrap_or_default();
            series.end(self.status.unwrap_or_else(gone), self.began.elapsed());
        }
        let text = self.text(self.recorder.clock.now());
        if self.recorder.lines.try_send(text).is_err() {
            self.recorder.lost.fetch_add(1, Relaxed);
        }
    }
}

/// As nginx writes what clients send: no line ends before its end.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => text.push_str(&format!("\\x{byte:02X}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}
