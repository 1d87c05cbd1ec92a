//! The same over TLS: who is let in, HTTP/1.1 and 2, slow clients.

use std::{net::TcpListener, sync::Arc, time::Duration};

use expect_test::expect;
use runtime::Clock;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Api;

pub(super) type Certificate = Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>;

async fn serve() -> (Api, u16) {
    let api = Api::with_clock(Clock::system()).await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    api.server.serve(listener, &api.tasks);
    (api, port)
}

/// The administrator's certificate out of the kubeconfig.
pub(super) fn admin(api: &Api) -> Certificate {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let text = api.server.kubeconfig("c", "https://localhost");
    let field = |name: &str| {
        let line = text.lines().find(|it| it.trim_start().starts_with(name)).unwrap();
        BASE64_STANDARD.decode(line.split_once(": ").unwrap().1).unwrap()
    };
    let certificate = CertificateDer::from_pem_slice(&field("client-certificate-data")).unwrap();
    Some((certificate, PrivateKeyDer::from_pem_slice(&field("client-key-data")).unwrap()))
}

/// A certificate that names itself administrator, signed by nobody we know.
fn impostor() -> Certificate {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    Some((certificate.der().clone(), key))
}

pub(super) async fn connect(
    api: &Api,
    port: u16,
    certificate: Certificate,
) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    secure(api, stream, certificate).await
}

/// TLS over a connection.
pub(super) async fn secure(
    api: &Api,
    stream: TcpStream,
    certificate: Certificate,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(api.server.authority().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// One HTTP/1.1 request; status line and body.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.lines().next().unwrap())
}

#[tokio::test]
async fn who_is_let_in() {
    let (api, port) = serve().await;
    let mut stream = connect(&api, port, admin(&api)).await;
    assert!(get(&mut stream, "/api/v1/namespaces/default").await.starts_with("HTTP/1.1 200 OK"));
    let refused = expect![[
        r#"HTTP/1.1 401 Unauthorized {"apiVersion":"v1","code":401,"kind":"Status","message":"Unauthorized","metadata":{},"reason":"Unauthorized","status":"Failure"}"#
    ]];
    for certificate in [None, impostor()] {
        let mut stream = connect(&api, port, certificate).await;
        refused.assert_eq(&get(&mut stream, "/api/v1/namespaces").await);
    }
    let mut stream = connect(&api, port, None).await;
    assert_eq!(get(&mut stream, "/healthz").await, "HTTP/1.1 200 OK ok");
}

#[tokio::test]
async fn stop_ends_open_watches() {
    let (api, port) = serve().await;
    let mut stream = connect(&api, port, admin(&api)).await;
    let request = "GET /api/v1/pods?watch=1 HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    assert!(api.tasks.shutdown(Duration::from_secs(2)).await);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.ok();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the body ends as it should");
}
