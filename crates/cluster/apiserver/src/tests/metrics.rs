//! Metrics: what some requests give, the format, the page about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use expect_test::{Expect, expect};
use http_body_util::BodyExt as _;
use proptest::prelude::*;

use super::{Api, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn page(api: &Api) -> String {
    let response = api.send("GET /metrics", "").await;
    assert_eq!(
        response.headers()["content-type"].to_str().unwrap(),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let (code, text) = text(response).await;
    assert_eq!(code, 200);
    text
}

/// The lines that have all of `words` and are no comments.
async fn check(api: &Api, words: &[&str], expect: Expect) {
    let page = page(api).await;
    let lines = page.lines().filter(|it| !it.starts_with('#'));
    let lines = lines.filter(|it| words.iter().all(|word| it.contains(word)));
    expect.assert_eq(&lines.collect::<Vec<_>>().join("\n"));
}

#[tokio::test(start_paused = true)]
async fn requests_for_objects() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    for request in [
        format!("GET {MAPS}/a"),
        format!("HEAD {MAPS}/a"),
        format!("GET {MAPS}/b"),
        format!("GET {MAPS}?limit=1"),
        "GET /api/v1/configmaps".to_owned(),
        format!("OPTIONS {MAPS}/a"),
    ] {
        api.send(&request, "").await;
    }
    let patch = r#"{"data":{"a":"b"}}"#;
    let apply = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#;
    for (request, body) in [
        (format!("PATCH+merge {MAPS}/a"), patch),
        (format!("PATCH+merge {MAPS}/a?dryRun=All"), patch),
        (format!("PATCH+merge {MAPS}/a?dryRun=Some"), patch),
        (format!("PATCH+apply {MAPS}/c?fieldManager=x"), apply),
        (format!("PUT {MAPS}/c"), apply),
        (format!("DELETE {MAPS}/c"), ""),
        (format!("DELETE {MAPS}?labelSelector=x"), ""),
    ] {
        api.send(&request, body).await;
    }
    check(&api, &["request_total", "configmaps"], expect![[r#"
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="cluster",subresource="",verb="LIST",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="DELETE",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="namespace",subresource="",verb="LIST",version="v1"} 1
        apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="APPLY",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="DELETE",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 2
        apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PATCH",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="All",group="",resource="configmaps",scope="resource",subresource="",verb="PATCH",version="v1"} 1
        apiserver_request_total{code="400",component="apiserver",dry_run="invalid",group="",resource="configmaps",scope="resource",subresource="",verb="PATCH",version="v1"} 1
        apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"} 1
        apiserver_request_total{code="405",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="other",version="v1"} 1"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn parts_of_objects() {
    let api = Api::new().await;
    api.pod("p", Some("n1")).await;
    let pod = "/api/v1/namespaces/default/pods/p";
    for request in [format!("GET {pod}/status"), format!("GET {pod}/log"), format!("GET {pod}/x")] {
        drop(text(api.send(&request, "").await).await);
    }
    check(&api, &["request_total", "pods"], expect![[r#"
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 1
        apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="status",verb="GET",version="v1"} 1
        apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="log",verb="CONNECT",version="v1"} 1
        apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="binding",verb="POST",version="v1"} 1"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_for_nothing_of_the_kind() {
    let api = Api::new().await;
    for request in [
        "GET /healthz/ping",
        "GET /version",
        "GET /apis/apps/v1",
        "GET /api/v1",
        "POST /api",
        "GET /apis/nonsense/v1/namespaces/a/b/c",
        "DELETE /x/y",
        "BREW /x",
    ] {
        api.send(request, "").await;
    }
    check(&api, &["request_total", "component=\"\""], expect![[r#"
        apiserver_request_total{code="405",component="",dry_run="",group="",resource="",scope="",subresource="",verb="DELETE",version=""} 1
        apiserver_request_total{code="404",component="",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version=""} 1
        apiserver_request_total{code="405",component="",dry_run="",group="",resource="",scope="",subresource="",verb="other",version=""} 1
        apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/api",verb="GET",version=""} 1
        apiserver_request_total{code="405",component="",dry_run="",group="",resource="",scope="",subresource="/api",verb="POST",version=""} 1
        apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/apis",verb="GET",version=""} 1
        apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/healthz",verb="GET",version=""} 1
        apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/metrics",verb="GET",version=""} 1
        apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/version",verb="GET",version=""} 1"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn durations() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    for _ in 0..3 {
        api.send(&format!("GET {MAPS}/a"), "").await;
    }
    check(&api, &["duration", "configmaps", "GET"], expect![[r#"
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.005"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.025"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.05"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.1"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.2"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.4"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.6"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="0.8"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="1"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="1.25"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="1.5"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="2"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="3"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="4"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="5"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="6"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="8"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="10"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="15"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="20"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="30"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="45"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="60"} 3
        apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1",le="+Inf"} 3
        apiserver_request_duration_seconds_sum{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 0
        apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 3"#]]).await;
}

/// A watch is counted when it ends, with the time that it took.
#[tokio::test(start_paused = true)]
async fn watches() {
    let api = Api::new().await;
    check(&api, &["WATCH"], expect![""]).await;
    let request = format!("GET {MAPS}?watch=1&dryRun=All");
    let mut watch = api.send(&request, "").await.into_body();
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    let mut events = 0;
    while events < 2 {
        let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        events += frame.iter().filter(|it| **it == b'\n').count();
    }
    check(&api, &["WATCH"], expect![[r#"apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 1"#]]).await;
    check(
        &api,
        &["watch_events"],
        expect![[r#"apiserver_watch_events_total{group="",resource="configmaps",version="v1"} 2"#]],
    )
    .await;
    tokio::time::advance(Duration::from_secs(7)).await;
    drop(watch);
    check(&api, &["requests", "WATCH"], expect![[r#"apiserver_longrunning_requests{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1"} 0"#]]).await;
    check(&api, &["duration", "WATCH", "le=\"5\""], expect![[r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="All",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1",le="5"} 0"#]]).await;
    check(&api, &["duration", "WATCH", "le=\"+Inf\""], expect![[r#"apiserver_request_duration_seconds_bucket{component="apiserver",dry_run="All",group="",resource="configmaps",scope="namespace",subresource="",verb="WATCH",version="v1",le="+Inf"} 1"#]]).await;
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight() {
    let api = Api::new().await;
    let (sender, body) = tokio::sync::oneshot::channel::<()>();
    let body = http_body_util::StreamBody::new(futures_util::stream::once(async move {
        drop(body.await);
        Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes::Bytes::from("{}")))
    }));
    let request = http::Request::post(MAPS).body(body).unwrap();
    let mut answer = tower::Service::call(&mut api.server.service(), request);
    assert!(futures_util::poll!(&mut answer).is_pending());
    check(
        &api,
        &["inflight"],
        expect![[r#"
        apiserver_current_inflight_requests{request_kind="mutating"} 1
        apiserver_current_inflight_requests{request_kind="readOnly"} 0"#]],
    )
    .await;
    drop((answer, sender));
    check(
        &api,
        &["inflight"],
        expect![[r#"
        apiserver_current_inflight_requests{request_kind="mutating"} 0
        apiserver_current_inflight_requests{request_kind="readOnly"} 0"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn objects() {
    let api = Api::new().await;
    api.config_map("a", "").await;
    api.config_map("b", "").await;
    check(
        &api,
        &["_objects", "configmaps"],
        expect![[r#"
        apiserver_resource_objects{group="",resource="configmaps"} 2
        apiserver_storage_objects{resource="configmaps"} 2"#]],
    )
    .await;
    check(
        &api,
        &["_objects", "deployments"],
        expect![[r#"
        apiserver_resource_objects{group="apps",resource="deployments"} 0
        apiserver_storage_objects{resource="deployments.apps"} 0"#]],
    )
    .await;
    // Stored once, whatever they are asked for as.
    check(
        &api,
        &["resource_objects", "\"events\""],
        expect![[r#"apiserver_resource_objects{group="",resource="events"} 0"#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn this_program() {
    let api = Api::new().await;
    let page = page(&api).await;
    let build = page.lines().find(|it| it.starts_with("kubernetes_build_info{")).unwrap();
    assert!(build.contains(",major=\"1\",minor=\"36\","), "{build}");
    for name in [
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    ] {
        let line = page.lines().find_map(|it| it.strip_prefix(name)).unwrap();
        assert!(line.trim().parse::<f64>().unwrap() >= 0.0, "{name}{line}");
    }
    api.check(
        "POST /metrics",
        "",
        expect![
            "405 MethodNotAllowed the server does not allow this method on the requested resource"
        ],
    )
    .await;
}

/// What Prometheus' parser insists on: every line is a comment or a sample, a metric's lines stand
/// together under its type, and no sample comes twice.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    let mut metric = String::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').unwrap().0.clone_into(&mut metric);
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, metric);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series
            .split_once('{')
            .map_or((series, ""), |(name, labels)| (name, labels.strip_suffix('}').unwrap()));
        let ends =
            if types[&metric] == "histogram" { &["_bucket", "_sum", "_count"][..] } else { &[""] };
        assert!(ends.iter().any(|it| name == format!("{metric}{it}")), "{line}");
        assert_labels(labels, line);
        let value: f64 = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    samples
}

fn assert_labels(labels: &str, line: &str) {
    let mut names = BTreeSet::new();
    for label in labels.split("\",").filter(|it| !it.is_empty()) {
        let (name, value) = label.split_once("=\"").unwrap();
        assert!(name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{line}");
        assert!(!value.trim_end_matches('"').contains(['"', '\\']), "{line}");
        assert!(names.insert(name), "{line}");
    }
}

/// In a histogram no bucket has less than the one before, and the last has all.
fn assert_histograms(samples: &BTreeMap<String, f64>) {
    for (count, all) in samples.iter().filter(|it| it.0.contains("_count{")) {
        let bucket = |bound: &str| {
            let name = count.replacen("_count{", "_bucket{", 1);
            samples[&name.replace('}', &format!(",le=\"{bound}\"}}"))]
        };
        let bounds: Vec<_> = crate::metrics::BUCKETS.iter().map(|it| bucket(it.1)).collect();
        assert!(bounds.is_sorted() && bounds.last() <= Some(all), "{count}");
        assert!((bucket("+Inf") - all).abs() < 0.5, "{count}");
    }
}

fn method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "PATCH+apply",
        "DELETE",
        "OPTIONS",
        "X",
    ])
}

fn path() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "",
        "api",
        "apis",
        "apps",
        "v1",
        "v2",
        "namespaces",
        "pods",
        "deployments",
        "a",
        "status",
        "log",
        "scale",
        "healthz",
        "openapi",
        "v3",
        "metrics",
        "%22",
        "x\"y",
        "watch",
    ]);
    let query = prop::sample::select(vec![
        "",
        "?watch=1",
        "?watch=1&dryRun=All",
        "?dryRun=All",
        "?dryRun=%22&watch=x",
    ]);
    (prop::collection::vec(word, 0..8), query).prop_filter_map("no URI", |(words, query)| {
        let path = format!("/{}{query}", words.join("/"));
        path.parse::<http::Uri>().is_ok().then_some(path)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is asked, it is counted once, and the page stays one that can be read.
    #[test]
    fn any_request_is_counted_once(requests in prop::collection::vec((method(), path()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let api = Api::new().await;
            let total = |samples: &BTreeMap<String, f64>| -> f64 {
                samples.iter().filter(|it| it.0.contains("_request_total{")).map(|it| it.1).sum()
            };
            let before = total(&parse(&page(&api).await));
            for (method, path) in &requests {
                drop(api.send(&format!("{method} {path}"), "{}").await);
            }
            let samples = parse(&page(&api).await);
            assert_histograms(&samples);
            // The page itself is counted when it has been made.
            let asked = f64::from(u32::try_from(requests.len()).unwrap()) + 1.0;
            assert!((total(&samples) - before - asked).abs() < 0.5, "{requests:?}");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn all_are_documented() {
    let api = Api::new().await;
    drop(api.send("GET /api/v1/pods?watch=1", "").await);
    let page = page(&api).await;
    parse(&page);
    let told: BTreeSet<_> = page.lines().filter_map(|it| it.strip_prefix("# TYPE ")).collect();
    let documented = include_str!("../../../../../docs/api-metrics.md").lines();
    let documented = documented.filter_map(|it| {
        let mut cells = it.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`');
        Some(format!("{name} {}", cells.next()?))
    });
    assert_eq!(
        told.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<_>>(),
        documented.collect()
    );
}
