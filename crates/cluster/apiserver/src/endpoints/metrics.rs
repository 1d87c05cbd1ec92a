//! `GET /metrics`: what the server counts, in the text format of Prometheus (version 0.0.4), with
//! the names and labels of Kubernetes 1.36. Each metric is documented in `docs/api-metrics.md`; a
//! test compares.
//!
//! Written by hand and piece by piece, as the client reads: the format wants all lines of a metric
//! together, and after every kind was asked for in every way the page would be some megabytes.

use std::{
    fmt::{self, Display, Write as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode};
use store::{Range, Store};

use super::version;
use crate::{
    connector::NodeConnector,
    http::{body::Body, respond},
    kinds::{KINDS, Kind},
    metrics::{BUCKETS, Key, Metrics, Of, Process, Row, Series},
    registry::{Registry, keys},
};

const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A piece ends with the row that reaches this: the client takes it, and others have their turn.
const PIECE_BYTES: usize = 32 << 10;

/// The answer, whose figures are those of when they are written.
pub(crate) fn answer(registry: &Registry) -> Response<Body> {
    let mut page = Page {
        metrics: Arc::clone(&registry.metrics),
        store: registry.store.clone(),
        connector: Arc::clone(&registry.connector),
        part: 0,
        row: 0,
    };
    let pieces = stream::iter(std::iter::from_fn(move || page.next_piece()));
    respond::with(StatusCode::OK, FORMAT, Body::chunks(pieces))
}

/// The page, being written. It has no figures.
struct Page {
    metrics: Arc<Metrics>,
    store: Store,
    connector: Arc<dyn NodeConnector>,
    part: usize,
    /// Of the part, how many rows have been.
    row: usize,
}

/// A part of the page: one metric, or some without rows.
enum Part {
    Once(fn(&Page, &mut Text)),
    /// With the metric's name, type and help.
    Rows([&'static str; 3], fn(&Row, &mut Text)),
}

const LONG_RUNNING: &str = "apiserver_longrunning_requests";
const DURATION: &str = "apiserver_request_duration_seconds";
const TOTAL: &str = "apiserver_request_total";
const WATCH_EVENTS: &str = "apiserver_watch_events_total";

/// In the order of the page.
const PARTS: [Part; 8] = [
    Part::Once(in_flight),
    Part::Rows([LONG_RUNNING, "gauge", "Watches and logs that go on."], long_running),
    Part::Rows([DURATION, "histogram", "How long requests took."], durations),
    Part::Rows([TOTAL, "counter", "Requests that were answered."], totals),
    Part::Once(objects),
    Part::Rows([WATCH_EVENTS, "counter", "Events sent to watchers."], watch_events),
    Part::Once(process),
    Part::Once(others),
];

impl Page {
    /// What comes next; `None` at the end.
    fn next_piece(&mut self) -> Option<Bytes> {
        let mut text = Text(String::new());
        while text.0.len() < PIECE_BYTES
            && let Some(part) = PARTS.get(self.part)
        {
            match part {
                Part::Once(write) => write(self, &mut text),
                Part::Rows([name, kind, help], write) => {
                    if self.row == 0 {
                        text.head(name, kind, help);
                    }
                    if let Some(row) = self.metrics.rows().get(self.row) {
                        write(row, &mut text);
                        self.row += 1;
                        continue;
                    }
                }
            }
            self.part += 1;
            self.row = 0;
        }
        (!text.0.is_empty()).then(|| text.0.into())
    }
}

fn in_flight(page: &Page, text: &mut Text) {
    const NAME: &str = "apiserver_current_inflight_requests";
    let (reading, writing) = page.metrics.in_flight();
    text.head(NAME, "gauge", "Requests that are being answered.");
    text.line(NAME, "request_kind=\"mutating\"", writing);
    text.line(NAME, "request_kind=\"readOnly\"", reading);
}

fn long_running(row: &Row, text: &mut Text) {
    for (key, series) in row.series() {
        if key.may_go_on() && key == key.of_open() {
            text.line(
                LONG_RUNNING,
                Labels { dry_run: false, ..Labels::of(row, key) },
                series.open(),
            );
        }
    }
}

fn durations(row: &Row, text: &mut Text) {
    for (key, series) in row.series() {
        duration(Labels::of(row, key), series, text);
    }
}

fn duration(labels: Labels<'_>, series: &Series, text: &mut Text) {
    let nanos = series.nanos();
    let (mut bounds, mut sum) = (BUCKETS.iter(), 0);
    let counts: Vec<u64> = series.buckets().collect();
    // One that is open and of which none has ended.
    if counts.iter().all(|it| *it == 0) {
        return;
    }
    for count in counts {
        sum += count;
        let bound = bounds.next().map_or("+Inf", |(_, text)| text);
        text.line_of(DURATION, "_bucket", format_args!("{labels},le=\"{bound}\""), sum);
    }
    let seconds = Duration::from_nanos(nanos).as_secs_f64();
    text.line_of(DURATION, "_sum", labels, seconds);
    text.line_of(DURATION, "_count", labels, sum);
}

fn totals(row: &Row, text: &mut Text) {
    for (key, series) in row.series() {
        for (code, count) in series.codes() {
            let labels = Labels::of(row, key);
            text.line(TOTAL, format_args!("code=\"{code}\",{labels}"), count);
        }
    }
}

/// Two metrics: Kubernetes replaces the older one by the newer one, and 1.36 has both.
fn objects(page: &Page, text: &mut Text) {
    const NEW: &str = "apiserver_resource_objects";
    const OLD: &str = "apiserver_storage_objects";
    let stored = KINDS.iter().filter(|it| it.is_stored());
    let counts: Vec<(&Kind, usize)> = stored.map(|it| (*it, count(&page.store, it))).collect();
    text.head(NEW, "gauge", "Objects that are stored.");
    for (kind, count) in &counts {
        let labels = format_args!("group=\"{}\",resource=\"{}\"", kind.group, kind.plural);
        text.line(NEW, labels, count);
    }
    text.head(OLD, "gauge", "Objects that are stored; deprecated since 1.34.");
    for (kind, count) in &counts {
        let dot = if kind.group.is_empty() { "" } else { "." };
        let labels = format_args!("resource=\"{}{dot}{}\"", kind.plural, kind.group);
        text.line(OLD, labels, count);
    }
}

/// Walks over the keys of a kind, as every page of a list does.
fn count(store: &Store, kind: &Kind) -> usize {
    let prefix = keys::collection(kind, None);
    store.range(Range { limit: Some(0), ..Range::prefix(&prefix) }).remaining
}

fn watch_events(row: &Row, text: &mut Text) {
    if let (Of::Kind(kind), 1..) = (row.of, row.events()) {
        let Kind { group, version, plural, .. } = kind;
        let labels = format_args!("group=\"{group}\",resource=\"{plural}\",version=\"{version}\"");
        text.line(WATCH_EVENTS, labels, row.events());
    }
}

fn others(page: &Page, text: &mut Text) {
    text.0.push_str(&page.connector.metrics());
}

fn process(_: &Page, text: &mut Text) {
    const BUILD: &str = "kubernetes_build_info";
    text.head(BUILD, "gauge", "Always 1; what this is stands in the labels.");
    text.line(BUILD, version::labels(), 1);
    let it = Process::now();
    let names = ["process_cpu_seconds_total", "counter", "Processor time of user and system."];
    text.single(names, it.processor_seconds);
    text.single(["process_open_fds", "gauge", "Files open."], it.files);
    text.single(["process_resident_memory_bytes", "gauge", "Memory in use."], it.resident_bytes);
    let names = ["process_start_time_seconds", "gauge", "When it began, since 1970."];
    text.single(names, it.started_seconds);
}

/// The labels of requests. No value has a character that would have to be escaped.
#[derive(Clone, Copy)]
struct Labels<'a> {
    row: &'a Row,
    key: Key,
    /// Whether `dry_run` is one of them.
    dry_run: bool,
}

impl<'a> Labels<'a> {
    const fn of(row: &'a Row, key: Key) -> Self {
        Self { row, key, dry_run: true }
    }
}

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (component, kind, subresource) = match self.row.of {
            Of::Kind(kind) => ("apiserver", Some(kind), ""),
            Of::Part(kind, part) => ("apiserver", Some(kind), part.name()),
            Of::Endpoint(path) => ("", None, path),
        };
        let (group, version, resource) =
            kind.map_or(("", "", ""), |it| (it.group, it.version, it.plural));
        write!(f, "component=\"{component}\"")?;
        if self.dry_run {
            write!(f, ",dry_run=\"{}\"", self.key.dry_run_label())?;
        }
        let (scope, verb) = (self.key.scope_label(), self.key.verb_label());
        write!(
            f,
            ",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

/// Lines of the format. Writing to a string cannot fail.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: impl Display, value: impl Display) {
        self.line_of(name, "", labels, value);
    }

    fn line_of(&mut self, name: &str, end: &str, labels: impl Display, value: impl Display) {
        let _infallible = writeln!(self.0, "{name}{end}{{{labels}}} {value}");
    }

    /// A metric without labels, if there is a figure; name, type and help.
    fn single(&mut self, [name, kind, help]: [&str; 3], value: Option<impl Display>) {
        if let Some(value) = value {
            self.head(name, kind, help);
            let _infallible = writeln!(self.0, "{name} {value}");
        }
    }
}
