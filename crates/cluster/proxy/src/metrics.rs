//! What is counted of requests, per route and the Service behind it, and how Prometheus is told.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;

use crate::{
    limits::SERIES_MAX,
    table::{Backend, RouteOf},
};

/// Upper bounds of the buckets of a duration, in milliseconds, and as they are written in seconds; one
/// more has no bound. Those of Prometheus' own clients.
const BUCKETS: [(u64, &str); 11] = [
    (5, "0.005"),
    (10, "0.01"),
    (25, "0.025"),
    (50, "0.05"),
    (100, "0.1"),
    (250, "0.25"),
    (500, "0.5"),
    (1_000, "1"),
    (2_500, "2.5"),
    (5_000, "5"),
    (10_000, "10"),
];

/// All that is counted. What there is of it is bounded by the objects of the cluster, not by what clients
/// send.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<BTreeMap<String, Arc<Series>>>);

/// What is counted of one route to one Service.
#[derive(Debug, Default)]
pub(crate) struct Series {
    in_flight: AtomicU64,
    /// By bucket; the last one has no bound.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
    codes: Mutex<BTreeMap<u16, u64>>,
    failures: [AtomicU64; FAILURES.len()],
}

/// Why an endpoint gave no answer, in the order of [`Series::failures`].
const FAILURES: [&str; 4] = ["no_endpoints", "connect", "broken", "silent"];

/// Why an endpoint gave no answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failed {
    NoEndpoints,
    Connect,
    Broken,
    Silent,
}

impl Metrics {
    /// What is counted of a route; the Service is none where the answer is given here.
    pub(crate) fn of(&self, route: &RouteOf, backend: Option<&Backend>) -> Arc<Series> {
        let namespace = route.key.namespace_or_empty();
        let (kind, name) = (route.kind, &route.key.name);
        let service = backend.map_or("", |it| it.service.name.as_str());
        let port = backend.map(|it| it.port.to_string()).unwrap_or_default();
        // Names of objects have nothing in them that would have to be quoted.
        let labels = format!(
            "kind=\"{kind}\",namespace=\"{namespace}\",name=\"{name}\",service=\"{service}\",port=\"{port}\""
        );
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if SERIES_MAX <= all.len() && !all.contains_key(&labels) {
            all.retain(|_, it| it.in_flight.load(Relaxed) != 0);
        }
        Arc::clone(all.entry(labels).or_default())
    }

    /// The lines for Prometheus, in its text format.
    pub(crate) fn text(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = String::new();
        let mut head =
            |name: &str, kind: &str, help: &str, lines: &dyn Fn(&str, &Series) -> String| {
                // Writing to a string does not fail.
                let _ok = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
                for (labels, series) in &all {
                    text.push_str(&lines(labels, series));
                }
            };
        head(TOTAL, "counter", "Requests that were answered, by HTTP status.", &totals);
        head(
            DURATION,
            "histogram",
            "From the head of a request to the end of its answer.",
            &durations,
        );
        let in_flight = |labels: &str, it: &Series| {
            format!("{IN_FLIGHT}{{{labels}}} {}\n", it.in_flight.load(Relaxed))
        };
        head(IN_FLIGHT, "gauge", "Requests whose answers have not ended.", &in_flight);
        head(FAILURES_TOTAL, "counter", "Requests to which no endpoint gave an answer.", &failures);
        text
    }
}

const TOTAL: &str = "coracle_proxy_requests_total";
const DURATION: &str = "coracle_proxy_request_duration_seconds";
const IN_FLIGHT: &str = "coracle_proxy_requests_in_flight";
const FAILURES_TOTAL: &str = "coracle_proxy_upstream_failures_total";

fn totals(labels: &str, series: &Series) -> String {
    let codes = series.codes.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |(code, count)| format!("{TOTAL}{{{labels},code=\"{code}\"}} {count}\n");
    codes.iter().map(line).collect()
}

fn durations(labels: &str, series: &Series) -> String {
    let (mut text, mut sum) = (String::new(), 0);
    let bounds = BUCKETS.iter().map(|(_, it)| *it).chain(["+Inf"]);
    for (count, bound) in series.buckets.iter().zip(bounds) {
        sum += count.load(Relaxed);
        text.push_str(&format!("{DURATION}_bucket{{{labels},le=\"{bound}\"}} {sum}\n"));
    }
    let seconds = Duration::from_micros(series.micros.load(Relaxed)).as_secs_f64();
    text.push_str(&format!("{DURATION}_sum{{{labels}}} {seconds}\n"));
    text.push_str(&format!("{DURATION}_count{{{labels}}} {sum}\n"));
    text
}

fn failures(labels: &str, series: &Series) -> String {
    let counts = series.failures.iter().map(|it| it.load(Relaxed)).zip(FAILURES);
    let some = counts.filter(|(count, _)| *count != 0);
    some.map(|(count, why)| format!("{FAILURES_TOTAL}{{{labels},reason=\"{why}\"}} {count}\n"))
        .collect()
}

impl Series {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, status: StatusCode, took: Duration) {
        self.in_flight.fetch_sub(1, Relaxed);
        let millis = took.as_millis();
        let bucket = BUCKETS.iter().position(|(bound, _)| millis <= u128::from(*bound));
        if let Some(bucket) = self.buckets.get(bucket.unwrap_or(BUCKETS.len())) {
            bucket.fetch_add(1, Relaxed);
        }
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        *codes.entry(status.as_u16()).or_default() += 1;
    }

    pub(crate) fn failed(&self, why: Failed) {
        let place = match why {
            Failed::NoEndpoints => 0,
            Failed::Connect => 1,
            Failed::Broken => 2,
            Failed::Silent => 3,
        };
        if let Some(count) = self.failures.get(place) {
            count.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use client::Key;
    use expect_test::expect;

    use super::*;

    #[test]
    fn requests_are_counted_by_route() {
        let metrics = Metrics::default();
        let route = RouteOf { kind: "Ingress", key: Key::namespaced("shop", "web") };
        let service = Key::namespaced("shop", "front");
        let backend = Backend { service, port: 80, ..Backend::default() };
        let series = metrics.of(&route, Some(&backend));
        series.begin();
        series.end(StatusCode::OK, Duration::from_millis(7));
        series.begin();
        series.failed(Failed::Connect);
        series.end(StatusCode::BAD_GATEWAY, Duration::from_secs(60));
        metrics.of(&route, Some(&backend)).begin();
        let text = metrics.text();
        let told = text.lines().filter(|it| !it.starts_with('#') && !it.contains("_bucket"));
        let told: Vec<String> = told
            .map(|it| {
                it.replace(
                    r#"kind="Ingress",namespace="shop",name="web",service="front",port="80""#,
                    "…",
                )
            })
            .collect();
        expect![[r#"
            coracle_proxy_requests_total{…,code="200"} 1
            coracle_proxy_requests_total{…,code="502"} 1
            coracle_proxy_request_duration_seconds_sum{…} 60.007
            coracle_proxy_request_duration_seconds_count{…} 2
            coracle_proxy_requests_in_flight{…} 1
            coracle_proxy_upstream_failures_total{…,reason="connect"} 1"#]]
        .assert_eq(&told.join("\n"));
        let buckets = text.lines().filter_map(|it| it.split_once(",le=")).map(|(_, it)| it);
        let buckets: Vec<&str> = buckets.collect();
        assert_eq!(buckets[..3], ["\"0.005\"} 0", "\"0.01\"} 1", "\"0.025\"} 1"]);
        assert_eq!(buckets.last(), Some(&"\"+Inf\"} 2"));
    }
}
