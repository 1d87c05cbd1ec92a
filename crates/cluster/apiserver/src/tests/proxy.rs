//! Requests that are passed on to pods. What stands for all of them is a server of the machine that answers
//! with what it was asked.

use std::net::SocketAddr;

use expect_test::{Expect, expect};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt as _;

use super::{Api, text};
use crate::Body;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Says what it was asked, unless the path wants something else.
async fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        head.push(line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let first = head.remove(0);
    head.sort();
    let said = format!("{first}\n{}\n\n{}", head.join("\n"), String::from_utf8_lossy(&body));
    let path = first.split(' ').nth(1).unwrap();
    let answer = match path {
        "/moved" => {
            "HTTP/1.1 302 Found\r\nlocation: /login?from=/\r\ncontent-length: 0\r\n\r\n".to_owned()
        }
        "/away" => {
            "HTTP/1.1 302 Found\r\nlocation: https://example.com/a\r\ncontent-length: 0\r\n\r\n"
                .to_owned()
        }
        "/broken" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome".to_owned(),
        "/nothing" => String::new(),
        _ => format!(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\nx-pod: yes\r\ncontent-length: {}\r\n\r\n{said}",
            said.len()
        ),
    };
    stream.write_all(answer.as_bytes()).await
}

async fn serve(tasks: &runtime::Tasks) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn("pods", runtime::OnExit::Log, |_| async move {
        loop {
            answer(listener.accept().await?.0).await?;
        }
    });
    address
}

/// A pod and a Service with two ports, of which one has endpoints.
async fn api() -> (Api, SocketAddr) {
    let api = Api::new().await;
    let address = serve(&api.tasks).await;
    api.value(
        &format!("POST {PODS}"),
        &json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"containerPort": address.port()}]}]}})
        .to_string(),
    )
    .await;
    let status = json!({"status": {"podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}]}});
    api.value(&format!("PATCH+merge {PODS}/web/status"), &status.to_string()).await;
    api.pod("new", None).await;
    let ports = json!([{"name": "http", "port": 80}, {"name": "other", "port": 81}]);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": ports}});
    api.value(&format!("POST {SERVICES}"), &service.to_string()).await;
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": address.port()}],
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": false}},
            {"addresses": ["10.244.0.7"]}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    api.value(&format!("POST {slices}"), &slice.to_string()).await;
    (api, address)
}

async fn check((api, address): &(Api, SocketAddr), request: &str, expect: Expect) {
    let (method, path) = request.split_once(' ').unwrap();
    let body = if method == "POST" { "a=1" } else { "" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "api.example:6443")
        .header("accept", "text/html")
        .header("authorization", "Bearer secret")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("x-asked", "yes")
        .header("content-length", body.len())
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answer = api.outside().oneshot(request).await.unwrap();
    let shown = show(answer).await;
    // It is another each time.
    expect.assert_eq(&shown.replace(&address.port().to_string(), "PORT"));
}

async fn show(answer: Response<Body>) -> String {
    let mut headers: Vec<String> = answer
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-") || *name == "location")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let (code, body) = text(answer).await;
    match serde_json::from_str::<serde_json::Value>(&body) {
        Ok(status) => format!("{code} {} {}", status["reason"], status["message"]),
        Err(_) => format!("{code} {}\n{body}", headers.join(", ")),
    }
}

#[tokio::test]
async fn a_request_comes_to_the_pod_and_its_answer_back() {
    let api = api().await;
    let port = api.1.port();
    check(
        &api,
        &format!("GET {PODS}/web/proxy/a//b/?c=%2f"),
        expect![[r#"
            200 x-pod: yes
            GET /a//b/?c=%2f HTTP/1.1
            accept: text/html
            content-length: 0
            host: 10.244.0.7:PORT
            x-asked: yes
            x-forwarded-host: api.example:6443
            x-forwarded-proto: https
            x-forwarded-uri: /api/v1/namespaces/default/pods/web/proxy/a//b/

        "#]],
    )
    .await;
    check(
        &api,
        &format!("POST {PODS}/http:web:{port}/proxy"),
        expect![[r#"
            200 x-pod: yes
            POST / HTTP/1.1
            accept: text/html
            content-length: 3
            host: 10.244.0.7:PORT
            x-asked: yes
            x-forwarded-host: api.example:6443
            x-forwarded-proto: https
            x-forwarded-uri: /api/v1/namespaces/default/pods/http:web:PORT/proxy/

            a=1"#]],
    )
    .await;
    check(
        &api,
        &format!("DELETE {SERVICES}/web:80/proxy/a"),
        expect![[r#"
            200 x-pod: yes
            DELETE /a HTTP/1.1
            accept: text/html
            content-length: 0
            host: 10.244.0.7:PORT
            x-asked: yes
            x-forwarded-host: api.example:6443
            x-forwarded-proto: https
            x-forwarded-uri: /api/v1/namespaces/default/services/web:80/proxy/a

        "#]],
    )
    .await;
    check(
        &api,
        &format!("OPTIONS {SERVICES}/http:web:http/proxy/a"),
        expect![[r#"
            200 x-pod: yes
            OPTIONS /a HTTP/1.1
            accept: text/html
            content-length: 0
            host: 10.244.0.7:PORT
            x-asked: yes
            x-forwarded-host: api.example:6443
            x-forwarded-proto: https
            x-forwarded-uri: /api/v1/namespaces/default/services/http:web:http/proxy/a

        "#]],
    )
    .await;
}

#[tokio::test]
async fn who_is_sent_elsewhere_stays_with_the_pod() {
    let api = api().await;
    check(
        &api,
        &format!("GET {PODS}/web/proxy?a=b"),
        expect![[r#"
        301 location: /api/v1/namespaces/default/pods/web/proxy/?a=b
    "#]],
    )
    .await;
    check(
        &api,
        &format!("GET {PODS}/web/proxy/moved"),
        expect![[r#"
        302 location: /api/v1/namespaces/default/pods/web/proxy/login?from=/
    "#]],
    )
    .await;
    check(
        &api,
        &format!("GET {SERVICES}/web:http/proxy/away"),
        expect![[r#"
        302 location: https://example.com/a
    "#]],
    )
    .await;
}

#[tokio::test]
async fn what_leads_nowhere_is_said() {
    let api = api().await;
    check(
        &api,
        &format!("GET {PODS}/nobody/proxy/"),
        expect![[r#"404 "NotFound" "pods \"nobody\" not found""#]],
    )
    .await;
    check(
        &api,
        &format!("GET {PODS}/new/proxy/"),
        expect![[r#"503 "ServiceUnavailable" "pod \"new\" has no address yet""#]],
    )
    .await;
    check(
        &api,
        &format!("GET {PODS}/web:http/proxy/"),
        expect![[r#"400 "BadRequest" "invalid port \"http\" of pod \"web\"""#]],
    )
    .await;
    check(
        &api,
        &format!("GET {PODS}/ftp:web:80/proxy/"),
        expect![[r#"400 "BadRequest" "invalid proxy target \"ftp:web:80\"""#]],
    )
    .await;
    check(
        &api,
        &format!("GET {SERVICES}/web/proxy/"),
        expect![[r#"503 "ServiceUnavailable" "no service port \"\" found for service \"web\"""#]],
    )
    .await;
    check(
        &api,
        &format!("GET {SERVICES}/web:81/proxy/"),
        expect![[r#"503 "ServiceUnavailable" "no endpoints available for service \"web\"""#]],
    )
    .await;
    check(&api, &format!("GET {PODS}/web/proxy/nothing"), expect![[r#"503 "ServiceUnavailable" "error trying to reach service: connection closed before message completed""#]]).await;
    check(
        &api,
        &format!("GET {PODS}/web/log/nothing"),
        expect![[r#"404 "NotFound" "the server could not find the requested resource""#]],
    )
    .await;
    // Where this process itself may listen.
    let status = r#"{"status":{"podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}"#;
    api.0.value(&format!("PATCH+merge {PODS}/web/status"), status).await;
    check(
        &api,
        &format!("GET {PODS}/web/proxy/"),
        expect![[r#"400 "BadRequest" "address not allowed""#]],
    )
    .await;
}

/// An answer that breaks off is none that is complete.
#[tokio::test]
async fn an_answer_that_breaks_off_does_so_here() {
    let (api, _) = api().await;
    let request = Request::get(format!("{PODS}/web/proxy/broken"));
    let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
    let answer = api.outside().oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap_err();
}
