//! Tests over real sockets: our nsqlookupd, and nsqds that say what a test wants and note what they
//! are asked to do.

use std::sync::Mutex;

use ::http::{HeaderMap, Method, Request, header};
use bytes::Bytes;
use expect_test::{Expect, expect};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;

use super::*;
use crate::{
    cli::{self, OneOf},
    peers,
    protocol::ClientAuth,
    web::{ClientError, Reply, v1},
};

const STATS: &str = r#"{"version":"1.3.0","topics":[{"topic_name":"t","channels":[{"channel_name":"c#ephemeral",
    "depth":3,"backend_depth":1,"message_count":5,"client_count":1,"paused":true,"clients":[
    {"client_id":"<i>","hostname":"<script>","remote_address":"10.0.0.2:9","connect_ts":1700000000}]}],
    "depth":4,"backend_depth":4,"message_count":1234,"paused":false}]}"#;

/// A cluster with one nsqd, and an nsqadmin in front of it.
struct World {
    admin: Handle,
    lookupd: crate::lookupd::Handle,
    nsqd: String,
    asked: Arc<Mutex<Vec<String>>>,
    tasks: Tasks,
}

/// Topics for an nsqlookupd.
struct Topics(watch::Sender<u64>);

impl peers::Topics for Topics {
    fn topology(&self) -> peers::Topology {
        let name = |it| crate::name::Name::parse(it).unwrap();
        [(name("t"), [name("c#ephemeral")].into())].into()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    fn create(
        &self,
        _topic: &crate::name::Name,
        _channels: &std::collections::BTreeSet<crate::name::Name>,
    ) {
    }

    fn hold_new(&self, _hold: bool) {}

    fn held(&self) -> std::collections::BTreeSet<crate::name::Name> {
        [].into()
    }

    fn exists(&self, topic: &crate::name::Name) -> bool {
        self.topology().contains_key(topic)
    }

    fn release(&self, _topic: &crate::name::Name) {}
}

impl World {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let tasks = Tasks::default();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nsqd = listener.local_addr().unwrap();
        let notes = Arc::clone(&asked);
        let how = Serve { name: "nsqd", clients_max: 64, answers_half_closed: true };
        web::serve(listener, how, &tasks, move |request, _| {
            let path = request.uri().path_and_query().unwrap().to_string();
            let answer = match request.uri().path() {
                "/stats" => Ok(Reply::Json(STATS.to_owned())),
                _ if request.method() == Method::POST => {
                    notes.lock().unwrap().push(path);
                    Ok(Reply::Empty)
                }
                _ => Err(web::Failure::no_path()),
            };
            async move { v1(answer) }
        });
        let mut config = crate::lookupd::Config::new("127.0.0.1");
        config.tcp_address = "127.0.0.1:0".to_owned();
        config.http_address = "127.0.0.1:0".to_owned();
        let lookupd = crate::lookupd::build(config, Clock::system()).await.unwrap();
        let handle = lookupd.handle();
        lookupd.run(&tasks);
        let identity = peers::Identity {
            broadcast_address: "127.0.0.1".to_owned(),
            hostname: "h".to_owned(),
            http_port: nsqd.port(),
            tcp_port: 4150,
            topology_region: String::new(),
            topology_zone: String::new(),
        };
        let lookupds = vec![handle.tcp_address().to_string()];
        let topics = Arc::new(Topics(watch::Sender::default()));
        let (connect_timeout, request_timeout) = (Duration::from_secs(2), Duration::from_secs(5));
        let config = peers::Config { lookupds, identity, connect_timeout, request_timeout };
        peers::build(config, topics).unwrap().run(&tasks);
        let mut config = Config::new("host");
        config.http_address = "127.0.0.1:0".to_owned();
        config.lookupd_http_addresses = vec![handle.http_address().to_string()];
        change(&mut config);
        let admin = build(config, Clock::system()).await.unwrap();
        let world = Self {
            admin: admin.handle(),
            lookupd: handle,
            nsqd: nsqd.to_string(),
            asked,
            tasks: tasks.clone(),
        };
        admin.run(&tasks);
        // The nsqd registers soon.
        for _ in 0..1_000 {
            let cluster = world.admin.shared.cluster();
            if cluster.producers_of("t").await.is_ok_and(|it| !it.value.is_empty()) {
                return world;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the nsqd never registered");
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, HeaderMap, String) {
        let socket = TcpStream::connect(self.admin.http_address()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
        let exchange = async {
            let answer = sender.send_request(request).await.unwrap();
            let (head, body) = answer.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(body.to_vec()).unwrap();
            (head.status.as_u16(), head.headers, text)
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            it = &mut exchange => it,
            ended = &mut connection => {
                ended.unwrap();
                exchange.await
            }
        }
    }

    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "a");
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (status, _, text) = self.send(request).await;
        (status, text.replace(&self.nsqd, "NSQD"))
    }

    async fn check(&self, method: Method, path: &str, body: &str, expected: Expect) {
        let (status, text) = self.ask(method, path, body).await;
        expected.assert_eq(&format!("{status} {text}"));
    }

    /// What nsqds were asked to do since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    async fn stop(self) {
        assert!(self.tasks.shutdown(Duration::from_secs(5)).await);
    }
}

#[tokio::test]
async fn the_api_answers_as_the_original() {
    let world = World::new(|_| ()).await;
    let get = |path, expected| world.check(Method::GET, path, "", expected);
    get("/ping", expect!["200 OK"]).await;
    get("/api/topics", expect![[r#"200 {"topics":["t"],"message":""}"#]]).await;
    get("/api/topics?inactive=true", expect![[r#"200 {"topics":{},"message":""}"#]]).await;
    get("/api/nodes/x:1", expect![[r#"404 {"message":"NODE_NOT_FOUND"}"#]]).await;
    get("/api/counter", expect![[r#"200 {"stats":{"t:c#ephemeral:NSQD":{"node":"NSQD","topic_name":"t","channel_name":"c#ephemeral","message_count":5}},"message":""}"#]]).await;
    get("/api/topics/no", expect![[r#"502 {"message":"UPSTREAM_ERROR: failed to query any nsqlookupd: got response 404 Not Found \"{\\\"message\\\":\\\"TOPIC_NOT_FOUND\\\"}\""}"#]]).await;
    get("/api/elsewhere", expect![[r#"404 {"message":"NOT_FOUND"}"#]]).await;
    let (status, topic) = world.ask(Method::GET, "/api/topics/t", "").await;
    assert_eq!(status, 200);
    assert!(topic.contains(r#""depth":4,"memory_depth":0,"backend_depth":4,"message_count":1234"#));
    let (status, channel) = world.ask(Method::GET, "/api/topics/t/c%23ephemeral", "").await;
    assert_eq!(status, 200);
    assert!(channel.contains(r#""hostname":"\u003cscript\u003e""#), "{channel}");
    let (_, node) = world.ask(Method::GET, &format!("/api/nodes/{}", world.nsqd), "").await;
    assert!(node.ends_with(r#""total_messages":1234,"total_clients":1,"message":""}"#), "{node}");
    world.stop().await;
}

#[tokio::test]
async fn actions_reach_whom_they_concern() {
    let world = World::new(|_| ()).await;
    let done = || expect![[r#"200 {"message":""}"#]];
    let post = |path, body, expected| world.check(Method::POST, path, body, expected);
    post("/api/topics/t", r#"{"action":"pause"}"#, done()).await;
    post("/api/topics/t/c%23ephemeral", r#"{"action":"empty"}"#, done()).await;
    post("/api/topics", r#"{"topic":"t","channel":"d"}"#, done()).await;
    assert_eq!(
        world.asked(),
        [
            "/topic/pause?topic=t",
            "/channel/empty?topic=t&channel=c%23ephemeral",
            "/channel/create?topic=t&channel=d"
        ]
    );
    post("/api/topics/t", "", expect![[r#"400 {"message":"EOF"}"#]]).await;
    post("/api/topics/t", r#"{"action":"x"}"#, expect![[r#"400 {"message":"INVALID_ACTION"}"#]])
        .await;
    post("/api/topics", r#"{"topic":"t!"}"#, expect![[r#"400 {"message":"INVALID_TOPIC"}"#]]).await;
    let node = format!("/api/nodes/{}", world.nsqd);
    let delete = |path, body, expected| world.check(Method::DELETE, path, body, expected);
    delete(&node, "x", expect![[r#"400 {"message":"INVALID_BODY"}"#]]).await;
    delete("/api/nodes/10.9.9.9:80", r#"{"topic":"t"}"#, expect![[r#"502 {"message":"UPSTREAM_ERROR: failed to query any nsqd: 10.9.9.9:80 is not known"}"#]]).await;
    assert!(world.asked().is_empty(), "refused is not done");
    delete(&node, r#"{"topic":"t"}"#, done()).await;
    assert_eq!(world.asked(), ["/topic/delete?topic=t"]);
    world.stop().await;
}

#[tokio::test]
async fn pages_show_and_forms_do() {
    let world = World::new(|it| it.base_path = "nsq/".to_owned()).await;
    for path in ["/nsq", "/nsq/", "/nsq/topics/t", "/nsq/nodes", "/nsq/counter", "/nsq/lookup"] {
        let (status, page) = world.ask(Method::GET, path, "").await;
        assert_eq!(status, 200, "{path}");
        assert!(page.starts_with("<!DOCTYPE html>"), "{path}");
        assert!(page.contains(r#"href="/nsq/lookup""#), "{path}");
    }
    let (_, page) = world.ask(Method::GET, "/nsq/topics/t/c%23ephemeral", "").await;
    assert!(page.contains("&lt;script&gt;") && !page.contains("<i>"), "{page}");
    assert!(page.contains("UnPause Channel"), "{page}");
    let (status, _) = world.ask(Method::GET, "/topics", "").await;
    assert_eq!(status, 404, "outside the base");
    let form = Request::post("/nsq/topics/t").header(header::HOST, "a");
    let form = form.body(Full::new(Bytes::from_static(b"action=delete"))).unwrap();
    let (status, headers, _) = world.send(form).await;
    assert_eq!((status, &headers[header::LOCATION]), (303, &"/nsq/".parse().unwrap()));
    assert_eq!(world.asked(), ["/topic/delete?topic=t"]);
    let (status, page) = world.ask(Method::POST, "/nsq/lookup", "action=create&topic=a+b").await;
    assert_eq!(status, 400);
    assert!(page.contains("INVALID_TOPIC"), "{page}");
    world.stop().await;
}

#[tokio::test]
async fn another_site_and_other_users_change_nothing() {
    let world = World::new(|it| it.admin_users = vec!["ann".to_owned()]).await;
    let send = async |path: &str, headers: &[(&str, &str)], body: &'static str| {
        let mut request = Request::post(path).header(header::HOST, "a");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.send(request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()).await.0
    };
    let ann = ("x-forwarded-user", "ann");
    let foreign = ("sec-fetch-site", "cross-site");
    let pause = r#"{"action":"pause"}"#;
    assert_eq!(send("/api/topics/t", &[ann, foreign], pause).await, 403);
    assert_eq!(send("/topics/t", &[ann, foreign], "action=pause").await, 403);
    assert_eq!(send("/api/topics/t", &[], pause).await, 403);
    assert_eq!(send("/topics/t", &[], "action=pause").await, 403);
    assert!(world.asked().is_empty());
    assert_eq!(send("/api/topics/t", &[ann], pause).await, 200);
    assert_eq!(send("/topics/t", &[ann], "action=pause").await, 303);
    assert_eq!(world.asked().len(), 2);
    let (_, page) = world.ask(Method::GET, "/topics/t", "").await;
    assert!(!page.contains("Pause Topic"), "no buttons for those who may not: {page}");
    world.stop().await;
}

#[tokio::test]
async fn pages_renew_themselves_and_end() {
    let world = World::new(|_| ()).await;
    let socket = TcpStream::connect(world.admin.http_address()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.unwrap();
    let watch = async {
        let request = Request::get("/events/topics/t").header(header::HOST, "a");
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let mut answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
        let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"data: <p class=\"trail\">"), "{first:?}");
        world.stop().await;
        assert!(answer.frame().await.is_none(), "the page ends with the program");
    };
    let (_, ended) = tokio::join!(watch, connection);
    ended.unwrap();
}

#[tokio::test]
async fn the_configuration_is_for_this_machine() {
    let world = World::new(|_| ()).await;
    let option = "/config/nsqlookupd_http_addresses";
    let known = format!("200 [\"{}\"]", world.lookupd.http_address());
    let (status, text) = world.ask(Method::GET, option, "").await;
    assert_eq!(format!("{status} {text}"), known);
    world.check(Method::PUT, option, "x", expect![[r#"400 {"message":"INVALID_VALUE"}"#]]).await;
    world.check(Method::PUT, option, r#"["h:1","h:2"]"#, expect![[r#"200 ["h:1","h:2"]"#]]).await;
    world
        .check(Method::PUT, "/config/x", "1", expect![[r#"400 {"message":"INVALID_OPTION"}"#]])
        .await;
    let level = "/config/log_level";
    world.check(Method::GET, level, "", expect!["200 2"]).await;
    world.check(Method::PUT, level, "Fatal", expect!["200 5"]).await;
    world.check(Method::PUT, level, "bad", expect![[r#"400 {"message":"INVALID_VALUE"}"#]]).await;
    assert_eq!(*world.admin.log_level().borrow(), Level::Fatal);
    world.stop().await;
    let world = World::new(|it| it.allow_config_from_cidr = "10.0.0.0/8".to_owned()).await;
    world.check(Method::GET, option, "", expect![[r#"403 {"message":"FORBIDDEN"}"#]]).await;
    world.stop().await;
}

#[tokio::test]
async fn what_was_done_is_told() {
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    let tasks = Tasks::default();
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/done?x", endpoint.local_addr().unwrap());
    web::serve(
        endpoint,
        Serve { name: "endpoint", clients_max: 4, answers_half_closed: true },
        &tasks,
        move |request, _| {
            let tell = tell.clone();
            async move {
                assert_eq!(request.uri(), "/done?x");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                tell.send(body).await.unwrap();
                v1(Ok(Reply::Empty))
            }
        },
    );
    let world = World::new(|it| it.notification_http_endpoint = url).await;
    world.ask(Method::POST, "/api/topics/t", r#"{"action":"pause"}"#).await;
    let notice: serde_json::Value = serde_json::from_slice(&told.recv().await.unwrap()).unwrap();
    assert_eq!(notice["action"], "pause_topic");
    assert_eq!(notice["topic"], "t");
    assert_eq!(notice["via"], "host");
    assert_eq!(notice["url"], "http://a/api/topics/t");
    world.stop().await;
    assert!(tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let refused = async |change: fn(&mut Config)| {
        let mut config = Config::new("host");
        config.http_address = "127.0.0.1:0".to_owned();
        config.lookupd_http_addresses = vec!["h:1".to_owned()];
        change(&mut config);
        build(config, Clock::system()).await.unwrap_err().to_string()
    };
    let nobody = refused(|it| it.lookupd_http_addresses.clear()).await;
    assert_eq!(nobody, "-nsqd-http-address or -lookupd-http-address is needed");
    let both = refused(|it| it.nsqd_http_addresses = vec!["h:2".to_owned()]).await;
    assert_eq!(both, "use -nsqd-http-address or -lookupd-http-address, not both");
    let range = refused(|it| it.allow_config_from_cidr = "x".to_owned()).await;
    assert_eq!(range, "-allow-config-from-cidr `x` is not a range of addresses");
    let endpoint = refused(|it| it.notification_http_endpoint = "https://h".to_owned()).await;
    assert!(endpoint.contains("`https://h` is not of the form"), "{endpoint}");
    let header = refused(|it| it.acl_http_header = "a b".to_owned()).await;
    assert_eq!(header, "-acl-http-header `a b` is not the name of a header");
}

#[tokio::test]
async fn nsqds_that_want_tls_are_asked_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(at("root.pem"), root.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &root).unwrap();
        std::fs::write(at(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(at(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let text = |name: &str| at(name).display().to_string();
    let nsqd = cli::nsqd::Options {
        data_path: folder.path().display().to_string(),
        tcp_address: "127.0.0.1:0".to_owned(),
        http_address: "127.0.0.1:0".to_owned(),
        https_address: "127.0.0.1:0".to_owned(),
        tls_cert: text("server.pem"),
        tls_key: text("server.key"),
        tls_root_ca_file: text("root.pem"),
        tls_client_auth_policy: OneOf(ClientAuth::RequireVerify),
        ..Default::default()
    };
    let nsqd = crate::nsqd::build(nsqd, Clock::system()).await.unwrap();
    let address = nsqd.http_address().unwrap().to_string();
    let tasks = Tasks::default();
    let running = nsqd.run(&tasks, |_| {});

    let client = async |tls: ClientOptions| {
        let config = Config {
            http_address: "127.0.0.1:0".to_owned(),
            nsqd_http_addresses: vec![address.clone()],
            http_client_tls: tls,
            ..Config::new("host")
        };
        build(config, Clock::system()).await.unwrap().handle().shared.client.clone()
    };
    let (root_ca_file, identity) =
        (Some(at("root.pem")), Some((at("client.pem"), at("client.key"))));
    let known = ClientOptions { root_ca_file, identity, ..ClientOptions::default() };
    let good = client(known.clone()).await;
    good.post(&address, "/topic/create?topic=t").await.unwrap();
    let unverified =
        ClientOptions { insecure_skip_verify: true, root_ca_file: None, ..known.clone() };
    for good in [good, client(unverified).await] {
        let stats: serde_json::Value = good.get(&address, "/stats?format=json").await.unwrap();
        assert_eq!(stats["topics"][0]["topic_name"], "t");
    }
    // One does not believe the nsqd, the nsqd does not believe the other.
    for bad in [
        ClientOptions { root_ca_file: None, ..known.clone() },
        ClientOptions { identity: None, ..known },
    ] {
        let refused = client(bad).await.get::<serde_json::Value>(&address, "/info").await;
        assert!(
            matches!(refused, Err(ClientError::Connect { .. } | ClientError::Exchange { .. })),
            "{refused:?}"
        );
    }
    running.end().await.unwrap();
}

#[tokio::test]
async fn certificates_that_are_not_there_are_named() {
    let config = Config {
        nsqd_http_addresses: vec!["h:2".to_owned()],
        http_client_tls: ClientOptions {
            root_ca_file: Some("/nowhere/root.pem".into()),
            ..ClientOptions::default()
        },
        ..Config::new("host")
    };
    let refused = build(config, Clock::system()).await.unwrap_err();
    let told = crate::chain(&refused);
    assert!(told.contains("-http-client-tls-…): read /nowhere/root.pem: "), "{told}");
}
