//! What requests from outside may take of the server, and that others do not notice: places, time,
//! snapshots, watches.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use expect_test::expect;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use serde_json::Value;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::{Api, pass, pick, text};
use crate::{
    Body, Router,
    identity::Identity,
    limits::{READS_MAX, REQUEST_TIME_MAX, SNAPSHOTS_MAX, WATCHES_MAX, WRITES_MAX},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn get(router: &Router, path: &str) -> Response<Body> {
    let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

async fn post(router: &Router, path: &str, name: &str) -> Response<Body> {
    let body = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    router.clone().oneshot(request).await.unwrap()
}

/// Code, reason, message and when to come back.
async fn failure(response: Response<Body>) -> String {
    let retry = response.headers().get("retry-after").map_or("-", |it| it.to_str().unwrap());
    let retry = retry.to_owned();
    let (code, text) = text(response).await;
    let status: Value = serde_json::from_str(&text).unwrap();
    format!("{code} {} (retry after {retry})", pick(&status, &["/reason", "/message"]))
}

#[tokio::test(start_paused = true)]
async fn places_are_held_until_answers_are_taken() {
    let api = Api::new().await;
    let outside = api.outside();
    let mut answers = Vec::new();
    for _ in 0..READS_MAX {
        let answer = get(&outside, "/api/v1/namespaces/default").await;
        assert_eq!(answer.status(), 200);
        answers.push(answer);
    }
    // Another connection is no better off.
    let refused = get(&api.outside(), "/api/v1/namespaces/default").await;
    expect!["429 TooManyRequests Too many requests, please try again later. (retry after 1)"]
        .assert_eq(&failure(refused).await);
    // Who writes, watches, asks for health or is part of the server does not notice.
    assert_eq!(post(&outside, MAPS, "a").await.status(), 201);
    assert_eq!(get(&outside, &format!("{MAPS}?watch=1")).await.status(), 200);
    assert_eq!(get(&outside, "/livez").await.status(), 200);
    api.value(&format!("GET {MAPS}/a"), "").await;
    // An answer that was taken makes room; a piece that the connection has not let go of does not.
    let mut body = answers.pop().unwrap().into_body();
    let piece = body.frame().await.unwrap().unwrap();
    assert!(body.frame().await.is_none());
    drop(body);
    assert_eq!(get(&outside, "/api").await.status(), 429);
    drop(piece);
    assert_eq!(get(&outside, "/api").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn who_may_do_nothing_takes_no_place() {
    let api = Api::new().await;
    let nobody = api.outside_as(Identity::anonymous());
    let mut answers = Vec::new();
    for _ in 0..READS_MAX {
        answers.push(get(&nobody, MAPS).await);
    }
    assert!(answers.iter().all(|it| !it.status().is_success()));
    assert_eq!(get(&api.outside(), MAPS).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn writes_have_places_of_their_own() {
    let api = Api::new().await;
    let outside = api.outside();
    let mut answers = Vec::new();
    for index in 0..WRITES_MAX {
        answers.push(post(&outside, &format!("{MAPS}?dryRun=All"), &format!("m{index}")).await);
    }
    assert!(answers.iter().all(|it| it.status() == 201));
    assert_eq!(post(&outside, MAPS, "a").await.status(), 429);
    assert_eq!(get(&outside, MAPS).await.status(), 200);
    api.config_map("a", "").await;
    answers.clear();
    assert_eq!(post(&outside, MAPS, "b").await.status(), 201);
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_byte_a_second_is_not_waited_for() {
    let api = Api::new().await;
    let slow = async |query: &str| {
        let bytes = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b" ")))
        });
        let request = Request::post(format!("{MAPS}{query}")).body(StreamBody::new(bytes)).unwrap();
        let start = Instant::now();
        let told = failure(api.outside().oneshot(request).await.unwrap()).await;
        format!("{told} after {:?}", start.elapsed())
    };
    let others = async {
        pass(30).await;
        api.config_map("a", "").await;
        get(&api.outside(), MAPS).await.status()
    };
    let (told, status) = tokio::join!(slow(""), others);
    assert_eq!(status, 200);
    expect!["504 Timeout Timeout: request did not complete within the allotted timeout (retry after -) after 60s"].assert_eq(&told);
    expect!["504 Timeout Timeout: request did not complete within the allotted timeout (retry after -) after 5s"].assert_eq(&slow("?timeout=5s").await);
    // Neither nothing nor more than there is.
    expect!["504 Timeout Timeout: request did not complete within the allotted timeout (retry after -) after 60s"].assert_eq(&slow("?timeout=0").await);
    expect!["504 Timeout Timeout: request did not complete within the allotted timeout (retry after -) after 60s"].assert_eq(&slow("?timeout=1h").await);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_none() {
    let api = Api::new().await;
    let outside = api.outside();
    let told = async |path: &str| failure(get(&outside, path).await).await;
    expect![[r#"400 BadRequest invalid timeout specified in the request URL - time: missing unit in duration "5" (retry after -)"#]].assert_eq(&told(&format!("{MAPS}?timeout=5")).await);
    expect![[r#"400 BadRequest invalid timeout specified in the request URL - time: invalid duration "x" (retry after -)"#]].assert_eq(&told("/api/v1?timeout=x").await);
    assert_eq!(get(&outside, "/api/v1?timeout=32s").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn watches_take_their_time() {
    let api = Api::new().await;
    let watch = get(&api.outside(), &format!("{MAPS}?watch=1&timeout=1s")).await;
    let mut watch = watch.into_body();
    tokio::time::sleep(2 * REQUEST_TIME_MAX).await;
    assert!(watch.frame().now_or_never().is_none(), "goes on");
    api.config_map("a", "").await;
    assert!(watch.frame().await.unwrap().unwrap().is_data());
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_few_at_once() {
    let api = Api::new().await;
    let mut open = Vec::new();
    for _ in 0..SNAPSHOTS_MAX {
        open.push(get(&api.outside(), "/snapshot").await);
    }
    let refused = get(&api.outside(), "/snapshot").await;
    expect!["429 TooManyRequests too many snapshots are being sent (retry after 1)"]
        .assert_eq(&failure(refused).await);
    api.config_map("a", "").await;
    drop(open.pop().unwrap().into_body().collect().await.unwrap());
    assert_eq!(get(&api.outside(), "/snapshot").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_watchers_and_no_more_than_there_may_be() {
    let api = Api::new().await;
    let outside = api.outside();
    let now = api.value(&format!("GET {MAPS}"), "").await["metadata"]["resourceVersion"].clone();
    let watch = format!("{MAPS}?watch=1&resourceVersion={}", now.as_str().unwrap());
    let mut watches = Vec::new();
    for _ in 0..WATCHES_MAX {
        watches.push(get(&outside, &watch).await.into_body());
    }
    let refused = get(&outside, &watch).await;
    expect!["429 TooManyRequests too many watches are open (retry after 1)"]
        .assert_eq(&failure(refused).await);
    assert_eq!(get(&outside, MAPS).await.status(), 200);
    watches.truncate(1_000);
    let mut new = get(&outside, &watch).await.into_body();
    api.config_map("a", "").await;
    for watch in watches.iter_mut().chain([&mut new]) {
        let event = watch.frame().now_or_never().unwrap().unwrap().unwrap();
        assert!(event.into_data().unwrap().starts_with(br#"{"type":"ADDED""#));
    }
}
