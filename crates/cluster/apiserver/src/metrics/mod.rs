//! What the server counts of itself. `endpoints::metrics` tells it.
//!
//! Every request is counted, so counting is a few atomic additions at places that are found by
//! number: no lock, no hashing of names, and nothing is allocated but for the first request of a
//! sort. What can be counted is bounded by the table of kinds, never by what clients send: a path
//! that does not exist is counted with all others of its sort.
//!
//! Registries of others (`prometheus-client`) find a counter by its labels, in a hash map behind a
//! lock, which costs more here than all the rest of a `get`.

mod list;
mod process;
mod target;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use http::{Method, Response};
use tokio::time::Instant;

use self::list::List;
pub(crate) use self::{
    process::Process,
    target::{Asked, Key},
};
use crate::{
    http::{body::Body, path::Route},
    kinds::{KINDS, Kind, Subresource},
};

/// Upper bounds of the buckets of a duration, in milliseconds, and as they are written in seconds;
/// one more has no bound. Those of Kubernetes.
pub(crate) const BUCKETS: [(u64, &str); 23] = [
    (5, "0.005"),
    (25, "0.025"),
    (50, "0.05"),
    (100, "0.1"),
    (200, "0.2"),
    (400, "0.4"),
    (600, "0.6"),
    (800, "0.8"),
    (1_000, "1"),
    (1_250, "1.25"),
    (1_500, "1.5"),
    (2_000, "2"),
    (3_000, "3"),
    (4_000, "4"),
    (5_000, "5"),
    (6_000, "6"),
    (8_000, "8"),
    (10_000, "10"),
    (15_000, "15"),
    (20_000, "20"),
    (30_000, "30"),
    (45_000, "45"),
    (60_000, "60"),
];

/// Paths that are not about objects, as they are told; what is below one counts with it. The first
/// stands for all that do not exist.
const ENDPOINTS: [&str; 12] = [
    "",
    "/",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/snapshot",
    "/version",
];

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Those of each kind, in the order of the table, then those of [`ENDPOINTS`].
    rows: Box<[Row]>,
    /// Where the rows of each kind begin: its own, then those of its subresources.
    kinds: Box<[usize]>,
    endpoints: usize,
    reading: AtomicU64,
    writing: AtomicU64,
}

/// Requests that have a path in common, but for names.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) of: Of,
    series: List<Key, Series>,
    /// Events sent to watchers of a kind.
    events: AtomicU64,
}

/// What a row is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    Kind(&'static Kind),
    Part(&'static Kind, Subresource),
    Endpoint(&'static str),
}

/// Requests that Kubernetes' metrics do not tell apart but for how they ended.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// By HTTP status.
    codes: List<u16, AtomicU64>,
    /// How many took how long, not added up.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
    /// Answers that go on now.
    open: AtomicU64,
}

/// Where a request is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    row: usize,
    key: Key,
}

impl Target {
    /// Whether an answer may go on for as long as the client reads.
    pub(crate) const fn may_go_on(self) -> bool {
        self.key.may_go_on()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let (mut rows, mut kinds) = (Vec::new(), Vec::with_capacity(KINDS.len()));
        for kind in KINDS {
            kinds.push(rows.len());
            rows.push(Row::new(Of::Kind(kind)));
            rows.extend(kind.subresources.iter().map(|it| Row::new(Of::Part(kind, *it))));
        }
        let endpoints = rows.len();
        rows.extend(ENDPOINTS.iter().map(|it| Row::new(Of::Endpoint(it))));
        let (reading, writing) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { rows: rows.into(), kinds: kinds.into(), endpoints, reading, writing }
    }
}

impl Metrics {
    /// Where a request to `route` is counted; `kind` is the place in the table of the kind it is
    /// about.
    pub(crate) fn target(
        &self,
        route: &Route<'_>,
        kind: Option<usize>,
        asked: &Asked<'_>,
    ) -> Target {
        let first = kind.and_then(|it| Some((*KINDS.get(it)?, *self.kinds.get(it)?)));
        if let (Route::Resource(path), Some((kind, row))) = (route, first) {
            let Some(name) = path.subresource else {
                return Target { row, key: Key::of_resource(asked, path, None) };
            };
            let parts = (row + 1..).zip(kind.subresources);
            if let Some((row, part)) = parts.into_iter().find(|(_, it)| it.name() == name) {
                return Target { row, key: Key::of_resource(asked, path, Some(*part)) };
            }
        }
        let name = endpoint(route);
        let place = ENDPOINTS.iter().position(|it| *it == name).unwrap_or(0);
        Target { row: self.endpoints + place, key: Key::of_endpoint(asked) }
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>, method: &Method) -> Pending<'_> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let in_flight = if reads { &self.reading } else { &self.writing };
        in_flight.fetch_add(1, Relaxed);
        Pending { metrics: self, in_flight, started: Instant::now() }
    }

    /// Events were sent to a watcher of a kind.
    pub(crate) fn sent(&self, kind: &Kind, events: u64) {
        let place = KINDS.iter().position(|it| std::ptr::eq(*it, kind));
        let row = place.and_then(|it| self.rows.get(*self.kinds.get(it)?));
        if let Some(row) = row {
            row.events.fetch_add(events, Relaxed);
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Requests that are being answered now, which read and which write.
    pub(crate) fn in_flight(&self) -> (u64, u64) {
        (self.reading.load(Relaxed), self.writing.load(Relaxed))
    }

    fn series(&self, target: Target) -> Option<&Series> {
        self.rows.get(target.row).map(|it| it.series.get(target.key))
    }

    fn count(&self, target: Target, code: u16, started: Instant) {
        let Some(series) = self.series(target) else { return };
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(millis, _)| nanos <= millis * 1_000_000);
        if let Some(bucket) = series.buckets.get(bucket.unwrap_or(BUCKETS.len())) {
            bucket.fetch_add(1, Relaxed);
        }
        series.nanos.fetch_add(nanos, Relaxed);
        series.codes.get(code).fetch_add(1, Relaxed);
    }
}

/// What is told of a route that is not about objects of ours.
fn endpoint(route: &Route<'_>) -> &'static str {
    match route {
        Route::Version => "/version",
        Route::Health(path) if path.starts_with("healthz") => "/healthz",
        Route::Health(path) if path.starts_with("livez") => "/livez",
        Route::Health(_) => "/readyz",
        Route::Metrics => "/metrics",
        Route::Snapshot => "/snapshot",
        Route::Root => "/",
        Route::Core | Route::GroupVersion { group: "", .. } => "/api",
        Route::Groups | Route::Group(_) | Route::GroupVersion { .. } => "/apis",
        Route::OpenApiV2 => "/openapi/v2",
        Route::OpenApiIndex | Route::OpenApi { .. } => "/openapi/v3",
        Route::Resource(_) | Route::Unknown => "",
    }
}

impl Row {
    fn new(of: Of) -> Self {
        Self { of, series: List::default(), events: AtomicU64::new(0) }
    }

    /// What was asked so far, in the order in which it is told.
    pub(crate) fn series(&self) -> Vec<(Key, &Series)> {
        let mut series: Vec<_> = self.series.iter().collect();
        series.sort_unstable_by_key(|(key, _)| *key);
        series
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }
}

impl Series {
    /// Requests by HTTP status, in its order.
    pub(crate) fn codes(&self) -> Vec<(u16, u64)> {
        let mut codes: Vec<_> =
            self.codes.iter().map(|(code, it)| (code, it.load(Relaxed))).collect();
        codes.sort_unstable();
        codes
    }

    /// How many fell into each bucket.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(|it| it.load(Relaxed))
    }

    pub(crate) fn nanos(&self) -> u64 {
        self.nanos.load(Relaxed)
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    metrics: &'a Arc<Metrics>,
    in_flight: &'a AtomicU64,
    started: Instant,
}

impl Pending<'_> {
    /// There is an answer. A watch or a log that goes on is counted when it ends.
    pub(crate) fn end(self, target: Target, answer: Response<Body>) -> Response<Body> {
        let code = answer.status().as_u16();
        if target.may_go_on() && answer.body().comes_in_chunks() {
            let metrics = Arc::clone(self.metrics);
            let running = LongRunning::new(metrics, target, code, self.started);
            return answer.map(|it| it.counted(running));
        }
        self.metrics.count(target, code, self.started);
        answer
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

/// An answer that goes on until this is dropped.
#[derive(Debug)]
pub(crate) struct LongRunning {
    metrics: Arc<Metrics>,
    target: Target,
    code: u16,
    started: Instant,
}

impl LongRunning {
    fn new(metrics: Arc<Metrics>, target: Target, code: u16, started: Instant) -> Self {
        let it = Self { metrics, target, code, started };
        if let Some(open) = it.open() {
            open.fetch_add(1, Relaxed);
        }
        it
    }

    fn open(&self) -> Option<&AtomicU64> {
        let key = self.target.key.of_open();
        self.metrics.series(Target { key, ..self.target }).map(|it| &it.open)
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        if let Some(open) = self.open() {
            open.fetch_sub(1, Relaxed);
        }
        self.metrics.count(self.target, self.code, self.started);
    }
}
