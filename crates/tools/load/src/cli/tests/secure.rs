//! TLS from the command line to the report: whom the generator believes, who it says it is, which
//! protocol is agreed on, and how each way in which that fails is counted.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use serde_json::json;
use tempfile::TempDir;

use super::{OK, http2, report_of, run_words, serve};
use crate::judge::server::{Certificate, Options, Server};

/// An authority, and a folder with what clients need of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A certificate for a name, valid until a year.
    fn issue(&self, name: &str, year: i32) -> (CertificateDer<'static>, KeyPair) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key)
    }

    /// Arguments of a client that has a certificate of this authority.
    fn identity(&self) -> [String; 4] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = date_time_ymd(VALID, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [to_certificate, to_key] = ["client.pem", "client.key"].map(|it| self.file(it));
        fs::write(&to_certificate, certificate.pem()).unwrap();
        fs::write(&to_key, key.serialize_pem()).unwrap();
        ["--cert".to_owned(), to_certificate, "--key".to_owned(), to_key]
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

/// A year that is far away.
const VALID: i32 = 2100;
/// Where servers are.
const HERE: &str = "127.0.0.1";

/// What a server shows and asks for.
struct Shown<'a> {
    by: &'a Authority,
    name: &'a str,
    year: i32,
    /// Whose certificates clients must have.
    asks: Option<&'a Authority>,
    protocols: &'a [&'a [u8]],
    version: &'static SupportedProtocolVersion,
}

impl<'a> Shown<'a> {
    fn new(by: &'a Authority) -> Self {
        let protocols: &[&[u8]] = &[b"h2", b"http/1.1"];
        Self { by, name: HERE, year: VALID, asks: None, protocols, version: &TLS13 }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let (certificate, key) = self.by.issue(self.name, self.year);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[self.version])
            .unwrap();
        let builder = match self.asks {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let roots = Arc::new(authority.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = self.protocols.iter().map(|it| it.to_vec()).collect();
        Arc::new(config)
    }
}

/// Answers every request over HTTP/1.1, and notes what was agreed on by ALPN.
fn http1(config: Arc<ServerConfig>, answer: &'static str) -> SocketAddr {
    serve(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut reader = BufReader::new(StreamOwned::new(connection, stream));
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|it| it > 0) {
            if line == "\r\n" && reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    })
}

const TEN: [&str; 4] = ["--rate", "100/s", "--for", "100ms"];

/// Ten requests of a client with these arguments: exit code, and the total of the report.
fn loaded(address: SocketAddr, words: &[&str]) -> (ExitCode, serde_json::Value) {
    let url = format!("https://{address}/");
    let (code, report) = report_of(&[&[&url[..]], &TEN[..], words].concat());
    (code, report["total"].clone())
}

/// Why a run does not begin: a server that cannot be spoken to is said at once.
fn refused(address: SocketAddr, words: &[&str]) -> String {
    let url = format!("https://{address}/");
    let error = run_words(&[&[&url[..]], words].concat()).unwrap_err().to_string();
    let prefix = format!("cannot reach https://{address}: tls: ");
    error.strip_prefix(&prefix).unwrap_or_else(|| panic!("{error}")).to_owned()
}

fn judge(listen: [u8; 4]) -> (Server, String, TempDir) {
    let certificate = Certificate::new().unwrap();
    let folder = TempDir::new().unwrap();
    let file: PathBuf = folder.path().join("ca.pem");
    fs::write(&file, certificate.pem()).unwrap();
    let listen = SocketAddr::from((listen, 0));
    let law = "constant:0s".parse().unwrap();
    let server = Server::start(Options { listen, law, seed: 1, tls: Some(certificate) }).unwrap();
    (server, file.to_str().unwrap().to_owned(), folder)
}

#[test]
fn server_of_a_known_authority_is_believed() {
    for protocol in [&[][..], &["--http2"]] {
        let (server, file, _folder) = judge([127, 0, 0, 1]);
        for trust in [&["--ca", &file[..]][..], &["--insecure"]] {
            let (code, total) = loaded(server.address(), &[protocol, trust].concat());
            assert_eq!(code, ExitCode::SUCCESS);
            assert_eq!(total["succeeded"], 10, "{total:#}");
            assert_eq!(total["failures"], json!({}));
            // Each connection has one handshake, and the first request on it says so.
            let handshakes = total["tls"]["count"].as_u64().unwrap();
            assert!((1..=10).contains(&handshakes), "{total:#}");
            assert_eq!(total["connect"]["count"], handshakes);
            assert_eq!(total["first_byte"]["count"], 10);
        }
        assert_eq!(server.stop().unwrap().entries.len(), 20);
    }
}

#[test]
fn strangers_are_not_believed() {
    let (server, ..) = judge([127, 0, 0, 1]);
    let other = Authority::new();
    let other_file = other.file("ca.pem");
    for protocol in [&[][..], &["--http2"]] {
        let words = [protocol, &["--ca", &other_file]].concat();
        let error = refused(server.address(), &words);
        assert_eq!(error, "invalid peer certificate: UnknownIssuer");
    }
    assert_eq!(server.stop().unwrap().entries, [], "nothing was asked of it");
}

#[test]
fn another_name_is_not_believed() {
    // The certificate is for 127.0.0.1.
    let (server, file, _folder) = judge([127, 0, 0, 2]);
    let error = refused(server.address(), &["--ca", &file]);
    assert!(error.contains("certificate not valid for name \"127.0.0.2\""), "{error}");
    let (_, total) = loaded(server.address(), &["--insecure"]);
    assert_eq!(total["succeeded"], 10, "{total:#}");
    drop(server.stop().unwrap());
}

#[test]
fn expired_certificate_is_not_believed() {
    let authority = Authority::new();
    let address = http1(Shown { year: 2002, ..Shown::new(&authority) }.config(), OK);
    let ca = authority.file("ca.pem");
    let error = refused(address, &["--ca", &ca]);
    assert!(error.starts_with("invalid peer certificate: certificate expired"), "{error}");
    let address = http1(Shown::new(&authority).config(), OK);
    assert_eq!(loaded(address, &["--ca", &ca]).1["succeeded"], 10);
}

#[test]
fn protocol_is_agreed_on() {
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    let trust = ["--ca", &ca[..]];
    let shown = |protocols| Shown { protocols, ..Shown::new(&authority) }.config();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    // The servers speak one protocol each, whatever they agree to.
    let (address, seen) = http2::answers(Some(shown(both)));
    let (_, total) = loaded(address, &[&trust[..], &["--http2"]].concat());
    assert_eq!(total["succeeded"], 10, "{total:#}");
    assert_eq!(seen.requests(), 10);
    let (_, total) = loaded(http1(shown(both), OK), &trust);
    assert_eq!(total["succeeded"], 10, "{total:#}");
    // One that has no such protocol says so, or ignores the question.
    let http2 = [&trust[..], &["--http2"]].concat();
    let error = refused(http1(shown(&[b"http/1.1"]), OK), &http2);
    assert_eq!(error, "received fatal alert: NoApplicationProtocol");
    let error = refused(http1(shown(&[]), OK), &http2);
    assert_eq!(error, "the server does not speak HTTP/2 (ALPN `h2`)");
    let error = refused(http2::answers(Some(shown(&[b"h2"]))).0, &trust);
    assert_eq!(error, "received fatal alert: NoApplicationProtocol");
}

#[test]
fn client_certificate_is_shown_when_asked() {
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    let trust = ["--ca", &ca[..]];
    let identity = authority.identity();
    let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
    for version in [&TLS12, &TLS13] {
        let config = Shown { asks: Some(&authority), version, ..Shown::new(&authority) }.config();
        let (_, total) = loaded(http1(Arc::clone(&config), OK), &[&trust[..], &identity].concat());
        assert_eq!(total["succeeded"], 10, "{total:#}");
        let (address, seen) = http2::answers(Some(config));
        let words = [&trust[..], &identity, &["--http2"]].concat();
        assert_eq!(loaded(address, &words).1["succeeded"], 10);
        assert_eq!(seen.requests(), 10);
    }
    // Nobody asks: it is not shown, and nobody minds.
    let address = http1(Shown::new(&authority).config(), OK);
    assert_eq!(loaded(address, &[&trust[..], &identity].concat()).1["succeeded"], 10);
}

#[test]
fn client_that_shows_no_certificate_or_a_strangers_is_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.file("ca.pem");
    let trust = ["--ca", &ca[..]];
    let strangers = other.identity();
    let strangers: Vec<&str> = strangers.iter().map(String::as_str).collect();
    let asking =
        |version| Shown { asks: Some(&authority), version, ..Shown::new(&authority) }.config();
    // Up to TLS 1.2 the handshake fails; after it the client learns of it when it asks something.
    let error = refused(http1(asking(&TLS12), OK), &trust);
    assert!(error.starts_with("received fatal alert: "), "{error}");
    let error = refused(http1(asking(&TLS12), OK), &[&trust[..], &strangers].concat());
    assert!(error.starts_with("received fatal alert: "), "{error}");
    for words in [trust.to_vec(), [&trust[..], &strangers].concat()] {
        for (address, protocol) in [
            (http1(asking(&TLS13), OK), &[][..]),
            (http2::answers(Some(asking(&TLS13))).0, &["--http2"]),
        ] {
            let (code, total) = loaded(address, &[&words[..], protocol].concat());
            assert_eq!(code, ExitCode::FAILURE);
            assert_eq!(total["failures"], json!({ "tls": 10 }), "{protocol:?}: {total:#}");
            assert_eq!(total["first_byte"]["count"], 0);
        }
    }
}

#[test]
fn handshakes_that_fail_later_are_counted() {
    // The first connection, by which the generator tries it, is served; others are closed.
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    for protocol in [&[][..], &["--http2"]] {
        let connections = AtomicUsize::new(0);
        let config = Shown::new(&authority).config();
        let address = serve(move |stream| {
            if connections.fetch_add(1, Ordering::SeqCst) == 0 {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                // Until the client is content and goes.
                while stream.conn.complete_io(&mut stream.sock).is_ok_and(|(read, _)| read > 0) {}
            }
        });
        let (code, total) = loaded(address, &[&["--ca", &ca[..]][..], protocol].concat());
        assert_eq!(code, ExitCode::FAILURE);
        assert_eq!(total["failures"], json!({ "tls": 10 }), "{protocol:?}: {total:#}");
        assert_eq!(total["tls"]["count"], 0);
    }
}

#[test]
fn end_without_a_word_is_not_the_end_of_an_answer() {
    // Without a length the end of the connection ends the answer; but TLS has an end of its own, so
    // that nobody can cut an answer short (RFC 8446, 6.1).
    let authority = Authority::new();
    let ca = authority.file("ca.pem");
    for (is_said, succeeded) in [(true, 10), (false, 0)] {
        let config = Shown::new(&authority).config();
        let address = serve(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(connection, stream));
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).is_ok_and(|it| it > 0) {
                    continue;
                }
                return;
            }
            let stream = reader.get_mut();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
            if is_said {
                stream.conn.send_close_notify();
            }
            stream.flush().unwrap();
        });
        let (_, total) = loaded(address, &["--ca", &ca]);
        let failures = if is_said { json!({}) } else { json!({ "closed": 10 }) };
        assert_eq!(total["failures"], failures, "{total:#}");
        assert_eq!(total["succeeded"], succeeded);
    }
}
