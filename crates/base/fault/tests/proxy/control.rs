//! The HTTP API: what Toxiproxy's clients send, and what they are answered.

use expect_test::{Expect, expect};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{self, Rig};

/// Sends `METHOD PATH [BODY]`; returns status and body.
async fn ask(rig: &Rig, request: &str) -> (u16, String) {
    let mut words = request.splitn(3, ' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let body = words.next().unwrap_or_default();
    let agent = if path == "/browser" { "Mozilla/5.0" } else { "test" };
    let mut stream = TcpStream::connect(rig.control).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Asks, and compares status and body; addresses are replaced by what they are.
async fn check(rig: &Rig, request: &str, expected: Expect) {
    let (status, body) = ask(rig, request).await;
    let body = body
        .replace(&rig.address.to_string(), "LISTEN")
        .replace(&rig.upstream(), "UPSTREAM")
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    expected.assert_eq(format!("{status} {body}").trim_end());
}

#[tokio::test]
async fn proxies() {
    let rig = Rig::start().await;
    check(&rig, "GET /version", expect![[r#"200 {"coracle":"VERSION","version":"2.12.0"}"#]]).await;
    check(&rig, "GET /proxies", expect![[r#"200 {"test":{"connections_max":0,"enabled":true,"listen":"LISTEN","mode":"forward","name":"test","toxics":[],"upstream":"UPSTREAM"}}"#]]).await;
    check(&rig, "GET /proxies/test", expect![[r#"200 {"connections_max":0,"enabled":true,"listen":"LISTEN","mode":"forward","name":"test","toxics":[],"upstream":"UPSTREAM"}"#]]).await;
    check(&rig, "GET /proxies/other", expect![[r#"404 {"error":"proxy not found","status":404}"#]])
        .await;
    check(
        &rig,
        "POST /proxies {}",
        expect![[r#"400 {"error":"missing required field: name","status":400}"#]],
    )
    .await;
    check(
        &rig,
        r#"POST /proxies {"name":"a"}"#,
        expect![[r#"400 {"error":"missing required field: upstream","status":400}"#]],
    )
    .await;
    check(
        &rig,
        r#"POST /proxies {"name":"test","upstream":"127.0.0.1:1"}"#,
        expect![[r#"409 {"error":"proxy already exists","status":409}"#]],
    )
    .await;
    check(&rig, r#"POST /proxies {"name":"a b","upstream":"127.0.0.1:1"}"#, expect![[r#"400 {"error":"name `a b`: 1 to 128 letters, digits, `-`, `_`, `.` and `:` are allowed","status":400}"#]]).await;
    check(&rig, r#"POST /proxies {"#, expect![[r#"400 {"error":"bad request body: EOF while parsing an object at line 1 column 1","status":400}"#]]).await;
    check(
        &rig,
        r#"POST /proxies {"name":"off","listen":"127.0.0.1:0","upstream":"localhost:1","enabled":false}"#,
        expect![[r#"201 {"connections_max":0,"enabled":false,"listen":"127.0.0.1:0","mode":"forward","name":"off","toxics":[],"upstream":"localhost:1"}"#]],
    )
    .await;
    check(&rig, r#"POST /proxies/test {"enabled":false}"#, expect![[r#"200 {"connections_max":0,"enabled":false,"listen":"LISTEN","mode":"forward","name":"test","toxics":[],"upstream":"UPSTREAM"}"#]]).await;
    check(&rig, r#"PATCH /proxies/test {"mode":"hold","connections_max":5}"#, expect![[r#"200 {"connections_max":5,"enabled":false,"listen":"LISTEN","mode":"hold","name":"test","toxics":[],"upstream":"UPSTREAM"}"#]]).await;
    check(&rig, r#"PUT /proxies/off {"upstream":"127.0.0.1:2","enabled":false}"#, expect![[r#"200 {"connections_max":0,"enabled":false,"listen":"127.0.0.1:0","mode":"forward","name":"off","toxics":[],"upstream":"127.0.0.1:2"}"#]])
        .await;
    check(&rig, "POST /reset", expect!["204"]).await;
    let (_, proxies) = ask(&rig, "GET /proxies").await;
    let proxies: Value = serde_json::from_str(&proxies).unwrap();
    for name in ["test", "off"] {
        assert_eq!(proxies[name]["enabled"], true);
        assert_eq!(proxies[name]["mode"], "forward");
    }
    check(&rig, "DELETE /proxies/off", expect!["204"]).await;
    check(
        &rig,
        "DELETE /proxies/off",
        expect![[r#"404 {"error":"proxy not found","status":404}"#]],
    )
    .await;
    check(&rig, "PUT /proxies", expect![[r#"405 {"error":"method not allowed","status":405}"#]])
        .await;
    check(&rig, "GET /nowhere", expect![[r#"404 {"error":"404 page not found","status":404}"#]])
        .await;
    check(
        &rig,
        "GET /browser",
        expect![[r#"403 {"error":"User agent not allowed","status":403}"#]],
    )
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn populate() {
    let rig = Rig::start().await;
    rig.set("blackhole upstream");
    let same =
        format!(r#"{{"name":"test","listen":"{}","upstream":"{}"}}"#, rig.address, rig.upstream());
    check(&rig, &format!("POST /populate [{same}]"), expect![[r#"201 {"proxies":[{"connections_max":0,"enabled":true,"listen":"LISTEN","mode":"forward","name":"test","toxics":[{"attributes":{},"name":"blackhole_upstream","stream":"upstream","toxicity":1.0,"type":"blackhole"}],"upstream":"UPSTREAM"}]}"#]]).await;
    let moved =
        r#"[{"name":"test","listen":"127.0.0.1:0","upstream":"127.0.0.1:1","enabled":false}]"#;
    check(&rig, &format!("POST /populate {moved}"), expect![[r#"201 {"proxies":[{"connections_max":0,"enabled":false,"listen":"127.0.0.1:0","mode":"forward","name":"test","toxics":[],"upstream":"127.0.0.1:1"}]}"#]]).await;
    check(
        &rig,
        r#"POST /populate [{"name":"x"}]"#,
        expect![[r#"400 {"error":"missing required field: upstream at proxy 1","status":400}"#]],
    )
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn toxics() {
    let rig = Rig::start().await;
    let toxics = "/proxies/test/toxics";
    for body in [
        r#"{"type":"latency","attributes":{"latency":1000,"jitter":50}}"#,
        r#"{"type":"bandwidth","stream":"upstream","toxicity":0.5,"attributes":{"rate":10}}"#,
        r#"{"type":"slow_close","name":"slow","attributes":{"delay":7}}"#,
        r#"{"type":"timeout","attributes":{"timeout":0}}"#,
        r#"{"type":"reset_peer","attributes":{"timeout":3}}"#,
        r#"{"type":"slicer","attributes":{"average_size":64,"size_variation":32,"delay":10}}"#,
        r#"{"type":"limit_data","attributes":{"bytes":100}}"#,
        r#"{"type":"blackhole","stream":"upstream"}"#,
        r#"{"type":"half_open"}"#,
    ] {
        let (status, created) = ask(&rig, &format!("POST {toxics} {body}")).await;
        assert_eq!(status, 200, "{created}");
        let created: Value = serde_json::from_str(&created).unwrap();
        let path = format!("{toxics}/{}", created["name"].as_str().unwrap());
        let (_, shown) = ask(&rig, &format!("GET {path}")).await;
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), created);
        // What is shown can be sent back.
        let (_, again) = ask(&rig, &format!("PUT {path} {shown}")).await;
        assert_eq!(serde_json::from_str::<Value>(&again).unwrap(), created);
    }
    check(&rig, &format!("GET {toxics}"), expect![[r#"200 [{"attributes":{"rate":10},"name":"bandwidth_upstream","stream":"upstream","toxicity":0.5,"type":"bandwidth"},{"attributes":{},"name":"blackhole_upstream","stream":"upstream","toxicity":1.0,"type":"blackhole"},{"attributes":{"distribution":"uniform","jitter":50,"latency":1000},"name":"latency_downstream","stream":"downstream","toxicity":1.0,"type":"latency"},{"attributes":{"delay":7},"name":"slow","stream":"downstream","toxicity":1.0,"type":"slow_close"},{"attributes":{"timeout":0},"name":"timeout_downstream","stream":"downstream","toxicity":1.0,"type":"timeout"},{"attributes":{"on":"data","timeout":3},"name":"reset_peer_downstream","stream":"downstream","toxicity":1.0,"type":"reset_peer"},{"attributes":{"average_size":64,"delay":10,"size_variation":32},"name":"slicer_downstream","stream":"downstream","toxicity":1.0,"type":"slicer"},{"attributes":{"bytes":100},"name":"limit_data_downstream","stream":"downstream","toxicity":1.0,"type":"limit_data"},{"attributes":{},"name":"half_open_downstream","stream":"downstream","toxicity":1.0,"type":"half_open"}]"#]]).await;
    check(
        &rig,
        &format!(r#"POST {toxics} {{"type":"latency"}}"#),
        expect![[r#"409 {"error":"toxic already exists","status":409}"#]],
    )
    .await;
    check(
        &rig,
        &format!(r#"POST {toxics} {{"type":"lateness"}}"#),
        expect![[r#"400 {"error":"invalid toxic type","status":400}"#]],
    )
    .await;
    check(&rig, &format!(r#"POST {toxics} {{"type":"timeout","stream":"up"}}"#), expect![[r#"400 {"error":"stream was invalid, can be either upstream or downstream","status":400}"#]])
        .await;
    check(
        &rig,
        &format!(r#"POST {toxics} {{"type":"latency","name":"x","attributes":{{"latency":-1}}}}"#),
        expect![[
            r#"400 {"error":"bad request body: latency: -1 is no number from 0","status":400}"#
        ]],
    )
    .await;
    check(
        &rig,
        &format!(r#"POST {toxics} {{"type":"latency","name":"x","toxicity":2}}"#),
        expect![[r#"400 {"error":"probability 2: it goes from 0 to 1","status":400}"#]],
    )
    .await;
    let changed = r#"{"attributes":{"jitter":5}}"#;
    check(&rig, &format!("PATCH {toxics}/latency_downstream {changed}"), expect![[r#"200 {"attributes":{"distribution":"uniform","jitter":5,"latency":1000},"name":"latency_downstream","stream":"downstream","toxicity":1.0,"type":"latency"}"#]]).await;
    check(&rig, &format!("DELETE {toxics}/slow"), expect!["204"]).await;
    check(
        &rig,
        &format!("DELETE {toxics}/slow"),
        expect![[r#"404 {"error":"toxic not found","status":404}"#]],
    )
    .await;
    let all = r#"[{"type":"timeout","attributes":{"timeout":5}},{"type":"half_open"}]"#;
    check(&rig, &format!("PUT {toxics} {all}"), expect![[r#"200 [{"attributes":{"timeout":5},"name":"timeout_downstream","stream":"downstream","toxicity":1.0,"type":"timeout"},{"attributes":{},"name":"half_open_downstream","stream":"downstream","toxicity":1.0,"type":"half_open"}]"#]]).await;
    check(&rig, &format!("DELETE {toxics}"), expect!["204"]).await;
    check(&rig, &format!("GET {toxics}"), expect!["200 []"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_and_statistics() {
    let rig = Rig::start().await;
    rig.set("slicer server->client size=1kB");
    let (mut client, mut server) = rig.connect().await;
    server.write_all(b"hello").await.unwrap();
    support::read(&mut client, 5).await;
    let (_, open) = ask(&rig, "GET /proxies/test/connections").await;
    let open: Value = serde_json::from_str(&open).unwrap();
    assert_eq!(open[0]["client"], client.local_addr().unwrap().to_string());
    check(
        &rig,
        "GET /proxies/test/connections/2",
        expect![[r#"404 {"error":"connection not found","status":404}"#]],
    )
    .await;
    check(
        &rig,
        "DELETE /proxies/test/connections?how=rudely",
        expect![[r#"400 {"error":"how: close or reset","status":400}"#]],
    )
    .await;
    check(&rig, "DELETE /proxies/test/connections/1?how=reset", expect![[r#"200 {"ended":1}"#]])
        .await;
    assert!(client.read(&mut [0; 1]).await.is_err());
    rig.until(|it| it.open == 0).await;
    check(&rig, "DELETE /proxies/test/connections", expect![[r#"200 {"ended":0}"#]]).await;
    check(&rig, "GET /proxies/test/statistics", expect![[r#"200 {"connections":{"accepted":1,"last_upstream_failure":null,"open":0,"over_limit":0,"resets":1,"upstream_failures":0},"downstream":{"delivered_bytes":5,"faults":{"slicer":1},"received_bytes":5,"swallowed_bytes":0},"upstream":{"delivered_bytes":0,"faults":{},"received_bytes":0,"swallowed_bytes":0}}"#]]).await;
    check(
        &rig,
        "POST /proxies/test/statistics",
        expect![[r#"405 {"error":"method not allowed","status":405}"#]],
    )
    .await;
    rig.stop().await;
}
