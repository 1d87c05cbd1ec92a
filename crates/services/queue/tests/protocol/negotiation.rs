//! Encryption, compression and authorisation.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use coracle_queue::protocol::{
    AuthMethod, AuthOptions, ClientAuth, Options, TlsOptions, TlsVersion,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::client::{Client, Frame, Nsqd, SOON, command};

/// Certificates: of a server, of a client that the root signed, and of one that signed its own.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
    root: CertificateDer<'static>,
    signed: (CertificateDer<'static>, Vec<u8>),
    own: (CertificateDer<'static>, Vec<u8>),
}

pub(crate) fn certificates() -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["nsqd.test".to_owned()]).unwrap();
    let server = server.signed_by(&key, &root).unwrap();
    std::fs::write(folder.path().join("server.pem"), server.pem()).unwrap();
    std::fs::write(folder.path().join("server.key"), key.serialize_pem()).unwrap();
    let client = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "test.local");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params, KeyPair::generate().unwrap())
    };
    let (params, key) = client();
    let signed = (params.signed_by(&key, &root).unwrap().der().clone(), key.serialize_der());
    let (params, key) = client();
    let own = (params.self_signed(&key).unwrap().der().clone(), key.serialize_der());
    Certificates { root: root.der().clone(), folder, signed, own }
}

impl Certificates {
    pub(crate) fn options(&self, client_auth: ClientAuth, required: bool) -> Options {
        let at = |name: &str| self.folder.path().join(Path::new(name));
        let tls = TlsOptions {
            cert: at("server.pem"),
            key: at("server.key"),
            client_auth,
            root_ca_file: Some(at("root.pem")),
            required,
            min_version: TlsVersion::V12,
        };
        Options { tls: Some(tls), ..Options::default() }
    }

    /// Does the client's part of the handshake.
    async fn encrypt(
        &self,
        client: Client<TcpStream>,
        shown: Option<&(CertificateDer<'static>, Vec<u8>)>,
    ) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        };
        let name = ServerName::try_from("nsqd.test").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Client(connector.connect(name, client.0).await?))
    }
}

/// A client that negotiated TLS, if it may.
async fn encrypted(
    nsqd: &Nsqd,
    certificates: &Certificates,
    shown: Option<&(CertificateDer<'static>, Vec<u8>)>,
) -> Option<Client<TlsStream<TcpStream>>> {
    let mut client = nsqd.connect().await;
    assert_eq!(client.identify(json!({ "tls_v1": true })).await["tls_v1"], true);
    let mut client = certificates.encrypt(client, shown).await.ok()?;
    match client.any_frame().await {
        Ok(frame) => assert_eq!(frame, Frame::Response("OK".to_owned())),
        Err(_) => return None,
    }
    Some(client)
}

#[tokio::test]
async fn tls_is_negotiated() {
    let certificates = certificates();
    let nsqd = Nsqd::start(certificates.options(ClientAuth::None, false)).await;
    let mut client = encrypted(&nsqd, &certificates, None).await.unwrap();
    client.publish("t", "a").await;
    client.say("SUB t c\nRDY 1\n").await;
    assert_eq!(client.frame().await, Frame::Response("OK".to_owned()));
    assert_eq!(client.message().await.2, "a");
    // More than fits into a record, both ways.
    let large = "x".repeat(200_000);
    nsqd.connect().await.publish("t", &large).await;
    client.say("RDY 2\n").await;
    assert_eq!(client.message().await.2, large);
    let told = nsqd.clients.snapshot();
    assert!(told[0].tls && told[0].tls_version == "TLS1.3", "{told:?}");
    assert!(told[0].tls_cipher_suite.starts_with("TLS_"), "{told:?}");
}

#[tokio::test]
async fn tls_may_be_required() {
    let certificates = certificates();
    let nsqd = Nsqd::start(certificates.options(ClientAuth::None, true)).await;
    let mut client = nsqd.connect().await;
    client.say("SUB t c\n").await;
    let refused = "E_INVALID cannot SUB in current state (TLS required)";
    assert_eq!(client.refused().await, refused);
    encrypted(&nsqd, &certificates, None).await.unwrap().publish("t", "a").await;
}

#[tokio::test]
async fn certificates_of_clients_may_be_required() {
    let certificates = certificates();
    let (signed, own) = (Some(&certificates.signed), Some(&certificates.own));
    let nsqd = Nsqd::start(certificates.options(ClientAuth::Require, false)).await;
    assert!(encrypted(&nsqd, &certificates, None).await.is_none());
    assert!(encrypted(&nsqd, &certificates, own).await.is_some());
    let nsqd = Nsqd::start(certificates.options(ClientAuth::RequireVerify, false)).await;
    assert!(encrypted(&nsqd, &certificates, None).await.is_none());
    assert!(encrypted(&nsqd, &certificates, own).await.is_none());
    assert!(encrypted(&nsqd, &certificates, signed).await.is_some());
}

#[tokio::test]
async fn who_speaks_no_tls_after_asking_for_it_is_dropped() {
    let certificates = certificates();
    let nsqd = Nsqd::start(certificates.options(ClientAuth::None, false)).await;
    let mut client = nsqd.connect().await;
    client.identify(json!({ "tls_v1": true })).await;
    client.say(command("PUB t", "a")).await;
    // What comes is an alert of TLS, if anything.
    let mut rest = Vec::new();
    let read = client.0.read_to_end(&mut rest);
    drop(tokio::time::timeout(SOON, read).await.expect("it was not dropped"));
    assert_eq!(nsqd.depth("t"), 0);
}

/// Publishes and consumes over a stream that blocks.
fn round_trip(stream: &mut (impl Read + Write), body: &[u8]) {
    fn frame(stream: &mut impl Read) -> Vec<u8> {
        let mut size = [0; 4];
        stream.read_exact(&mut size).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(size)).unwrap()];
        stream.read_exact(&mut frame).unwrap();
        frame
    }
    const OK: &[u8] = b"\0\0\0\0OK";
    assert_eq!(frame(stream), OK, "after negotiation");
    // In pieces: `flate2` forgets the end of a long one when it is flushed.
    for piece in command("PUB t", body).chunks(8 * 1024) {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    assert_eq!(frame(stream), OK);
    stream.write_all(b"SUB t c\nRDY 1\n").unwrap();
    stream.flush().unwrap();
    assert_eq!(frame(stream), OK);
    assert_eq!(frame(stream)[30..], *body);
}

/// Reads deflate from a stream that does not end. `flate2`'s own reader waits for more of it while
/// it has not yet told all that it has understood.
struct Inflate {
    stream: std::net::TcpStream,
    arrived: Vec<u8>,
    understands: flate2::Decompress,
}

impl Read for Inflate {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let (was_in, was_out) = (self.understands.total_in(), self.understands.total_out());
            let none = flate2::FlushDecompress::None;
            self.understands.decompress(&self.arrived, buffer, none).unwrap();
            let taken = usize::try_from(self.understands.total_in() - was_in).unwrap();
            self.arrived.drain(..taken);
            let given = usize::try_from(self.understands.total_out() - was_out).unwrap();
            if 0 < given {
                return Ok(given);
            }
            let mut piece = [0; 4096];
            let count = self.stream.read(&mut piece)?;
            assert!(0 < count, "nsqd hung up");
            self.arrived.extend(&piece[..count]);
        }
    }
}

struct Both<R, W>(R, W);

impl<R: Read, W> Read for Both<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R, W: Write> Write for Both<R, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.1.flush()
    }
}

/// A client that negotiated a compression, as a socket that blocks.
async fn compressed(nsqd: &Nsqd, wants: serde_json::Value) -> std::net::TcpStream {
    let mut client = nsqd.connect().await;
    let answer = client.identify(wants.clone()).await;
    for (key, wanted) in wants.as_object().unwrap() {
        assert_eq!(&answer[key], wanted, "{key}");
    }
    let stream = client.0.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Bodies that compress and that do not, small and larger than a chunk.
fn bodies() -> Vec<Vec<u8>> {
    let noise =
        |length: u32| (0..length).map(|it| (it.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]);
    vec![b"a".to_vec(), vec![b'x'; 300_000], noise(100).collect(), noise(300_000).collect()]
}

#[tokio::test(flavor = "multi_thread")]
async fn snappy_is_negotiated() {
    for body in bodies() {
        let nsqd = Nsqd::start(Options::default()).await;
        let stream = compressed(&nsqd, json!({ "snappy": true, "deflate": false })).await;
        tokio::task::block_in_place(|| {
            let reader = snap::read::FrameDecoder::new(stream.try_clone().unwrap());
            round_trip(&mut Both(reader, snap::write::FrameEncoder::new(stream)), &body);
        });
        assert!(nsqd.clients.snapshot().iter().all(|it| it.snappy && !it.deflate));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deflate_is_negotiated() {
    for body in bodies() {
        let nsqd = Nsqd::start(Options::default()).await;
        let stream = compressed(&nsqd, json!({ "deflate": true, "deflate_level": 3 })).await;
        tokio::task::block_in_place(|| {
            let level = flate2::Compression::fast();
            let reader = Inflate {
                stream: stream.try_clone().unwrap(),
                arrived: Vec::new(),
                understands: flate2::Decompress::new(false),
            };
            let writer = flate2::write::DeflateEncoder::new(stream, level);
            round_trip(&mut Both(reader, writer), &body);
        });
    }
}

#[tokio::test]
async fn a_stream_that_is_not_compressed_as_said_is_dropped() {
    for wants in [json!({ "snappy": true }), json!({ "deflate": true })] {
        let nsqd = Nsqd::start(Options::default()).await;
        let mut client = nsqd.connect().await;
        client.identify(wants).await;
        client.say([0xff; 100]).await;
        let mut rest = Vec::new();
        let read = client.0.read_to_end(&mut rest);
        drop(tokio::time::timeout(SOON, read).await.expect("it was not dropped"));
    }
}

/// An auth server that gives one answer, and tells what it was asked.
async fn authority(answer: &'static str) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::channel(10);
    let tasks = runtime::Tasks::default();
    tasks.spawn("authority", runtime::OnExit::Log, move |_| async move {
        loop {
            let (mut stream, _) = listener.accept().await?;
            let mut asked = Vec::new();
            // Until the body is there: it is the last line, of JSON, or there is none.
            while !asked.ends_with(b"\r\n\r\n") && !asked.ends_with(b"}") {
                let mut piece = [0; 4096];
                let count = stream.read(&mut piece).await?;
                anyhow::ensure!(0 < count, "half a request");
                asked.extend(&piece[..count]);
                if asked.starts_with(b"POST") && asked.ends_with(b"\r\n\r\n") {
                    let count = stream.read(&mut piece).await?;
                    asked.extend(&piece[..count]);
                }
            }
            tell.send(String::from_utf8(asked)?).await?;
            let length = answer.len();
            let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{answer}");
            stream.write_all(reply.as_bytes()).await?;
        }
    });
    (address, told)
}

fn asking(address: SocketAddr, method: AuthMethod) -> AuthOptions {
    // The first is nobody's: the second is asked then.
    let addresses = vec!["127.0.0.1:1".to_owned(), address.to_string()];
    AuthOptions { addresses, method, ..AuthOptions::default() }
}

const GRANTED: &str = r#"{"ttl":1,"identity":"me","identity_url":"http://me","authorizations":
    [{"topic":"^t$","channels":[".*"],"permissions":["subscribe","publish"]}]}"#;

#[tokio::test]
async fn what_is_allowed_is_asked() {
    let (address, mut told) = authority(GRANTED).await;
    let auth = asking(address, AuthMethod::Get);
    let nsqd = Nsqd::start(Options { auth, ..Options::default() }).await;
    let mut client = nsqd.connect().await;
    assert_eq!(client.identify(json!({})).await["auth_required"], true);
    client.say_with("AUTH", "my secret").await;
    let granted = r#"{"identity":"me","identity_url":"http://me","permission_count":1}"#;
    assert_eq!(client.frame().await, Frame::Response(granted.to_owned()));
    let asked = told.recv().await.unwrap();
    let line = "GET /auth?common_name=&remote_ip=127.0.0.1&secret=my+secret&tls=false HTTP/1.1\r\n";
    assert!(asked.starts_with(line), "{asked}");
    client.publish("t", "a").await;
    assert!(nsqd.clients.snapshot()[0].authed);
    // When the answer has expired, after a second, it is asked again.
    let again = async {
        while tokio::time::timeout(Duration::from_millis(50), told.recv()).await.is_err() {
            client.publish("t", "a").await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
    client.say("SUB u c\n").await;
    assert_eq!(client.refused().await, r#"E_UNAUTHORIZED AUTH failed for SUB on "u" "c""#);
}

#[tokio::test]
async fn an_auth_server_may_be_asked_by_post() {
    let (address, mut told) = authority(GRANTED).await;
    let auth = asking(address, AuthMethod::Post);
    let nsqd = Nsqd::start(Options { auth, ..Options::default() }).await;
    let mut client = nsqd.connect().await;
    client.say_with("AUTH", "s").await;
    assert!(matches!(client.frame().await, Frame::Response(_)));
    let asked = told.recv().await.unwrap();
    let body = r#"{"common_name":[""],"remote_ip":["127.0.0.1"],"secret":["s"],"tls":["false"]}"#;
    assert!(asked.starts_with("POST /auth HTTP/1.1\r\n") && asked.ends_with(body), "{asked}");
}

#[tokio::test]
async fn who_is_not_allowed_is_refused() {
    let (address, _told) = authority(r#"{"ttl":1,"authorizations":[]}"#).await;
    let auth = asking(address, AuthMethod::Get);
    let nsqd = Nsqd::start(Options { auth, ..Options::default() }).await;
    let mut client = nsqd.connect().await;
    client.say_with("AUTH", "s").await;
    assert_eq!(client.refused().await, "E_UNAUTHORIZED AUTH no authorizations found");
    let mut client = nsqd.connect().await;
    client.say_with("PUB t", "a").await;
    assert_eq!(client.refused().await, "E_AUTH_FIRST AUTH required before PUB");
    let nsqd = Nsqd::start(Options::default()).await;
    let mut client = nsqd.connect().await;
    client.say_with("AUTH", "s").await;
    assert_eq!(client.refused().await, "E_AUTH_DISABLED AUTH disabled");
    let addresses = vec!["127.0.0.1:1".to_owned()];
    let auth = AuthOptions { addresses, ..AuthOptions::default() };
    let nsqd = Nsqd::start(Options { auth, ..Options::default() }).await;
    let mut client = nsqd.connect().await;
    client.say_with("AUTH", "s").await;
    assert_eq!(client.refused().await, "E_AUTH_FAILED AUTH failed");
}
