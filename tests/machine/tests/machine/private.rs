//! Images of a registry that wants a password, over TLS with an authority that only the user knows.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

use crate::{
    cluster::{Cluster, eventually},
    host::kill,
    images::{PACKED, Registry, field, pack, pod, shown},
    run::{free_port, must},
};

/// This machine, by an address for which no client leaves out TLS.
const HERE: &str = "0.0.0.0";

/// `team` with the password `open`.
const RIGHT: &str = "Basic dGVhbTpvcGVu";

/// Longest head of a request.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// Stands before a registry: asks for the password, over TLS.
struct Gate {
    port: u16,
    /// The authority of its certificate, as a file has it.
    authority: String,
    /// Whether it lets nobody in any more.
    shut: Arc<AtomicBool>,
}

impl Gate {
    fn start(registry: u16) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&key)?.pem();
        let own = KeyPair::generate()?;
        let issuer = Issuer::new(authority, key);
        let certificate =
            CertificateParams::new(vec![HERE.to_owned()])?.signed_by(&own, &issuer)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(own.serialize_der()).into(),
            )?;
        let config = Arc::new(config);
        let listener = TcpListener::bind((HERE, 0))?;
        let port = listener.local_addr()?.port();
        let shut = Arc::new(AtomicBool::new(false));
        let is_shut = Arc::clone(&shut);
        // Ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let password = (!is_shut.load(Ordering::SeqCst)).then_some(RIGHT);
                let config = Arc::clone(&config);
                // Who does not like the certificate goes away.
                std::thread::spawn(move || drop(answer(stream, config, registry, password)));
            }
        });
        Ok(Self { port, authority: pem, shut })
    }

    fn image(&self, name: &str) -> String {
        format!("{HERE}:{}/team/{name}:1", self.port)
    }
}

/// Answers one request.
fn answer(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    registry: u16,
    password: Option<&str>,
) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut head = Vec::new();
    let mut reader = BufReader::new((&mut stream).take(HEAD_BYTES_MAX));
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let known = head
        .lines()
        .filter_map(|it| it.split_once(": "))
        .any(|(name, value)| name.eq_ignore_ascii_case("authorization") && Some(value) == password);
    if known {
        let mut inner = TcpStream::connect(("127.0.0.1", registry))?;
        inner.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
        io::copy(&mut inner, &mut stream)?;
    } else {
        let demand =
            "WWW-Authenticate: Basic realm=\"team\"\r\nContent-Length: 0\r\nConnection: close";
        write!(stream, "HTTP/1.1 401 Unauthorized\r\n{demand}\r\n\r\n")?;
    }
    stream.conn.send_close_notify();
    stream.flush()
}

/// A secret with a password for a registry.
fn secret(name: &str, gate: &Gate, password: &str) -> String {
    let host = format!("{HERE}:{}", gate.port);
    let auths = serde_json::json!({"auths": {host: {"username": "team", "password": password}}});
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/dockerconfigjson
stringData: {{.dockerconfigjson: '{auths}'}}
---
"
    )
}

/// The pod waits for its image, and says why.
fn waits(cluster: &Cluster, name: &str, words: &str) -> anyhow::Result<()> {
    let mut message = String::new();
    eventually("it waits for its image", || {
        let reason = field(cluster, name, "state.waiting.reason")?;
        message = field(cluster, name, "state.waiting.message")?;
        Ok(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()))
    })?;
    ensure!(message.contains(words), "no `{words}` in {message}");
    Ok(())
}

/// Where the user of the cluster keeps certificates.
fn config(cluster: &Cluster) -> PathBuf {
    cluster.data().join("config")
}

fn up(cluster: &Cluster) -> anyhow::Result<()> {
    let mut up = cluster.command(&["up", "--detach"])?;
    must(up.env("XDG_CONFIG_HOME", config(cluster))).map(drop)
}

/// A secret of the pod, of its account, a wrong one and none; the authority unknown, and known.
pub(crate) fn pull_secrets_and_certificates_are_used() -> anyhow::Result<()> {
    let cluster = Cluster::new("private")?;
    let port = free_port()?;
    pack(&cluster)?;
    let _registry = Registry::start(&cluster, port)?;
    for name in ["one", "two"] {
        let pushed = format!("localhost:{port}/team/{name}:1");
        cluster.coracle(&["image", "tag", PACKED, &pushed])?;
        cluster.coracle(&["image", "push", &pushed])?;
        cluster.coracle(&["image", "rm", &pushed])?;
    }
    cluster.coracle(&["image", "rm", PACKED])?;
    let gate = Gate::start(port)?;
    up(&cluster)?;

    let show: &[&str] = &["probe", "show"];
    let with = |name: &str, image: &str, secret: &str| {
        let field = format!("spec:\n  imagePullSecrets: [{{name: {secret}}}]\n");
        pod(name, &gate.image(image), show, "").replacen("spec:\n", &field, 1)
    };
    cluster.apply(&pod("unknown", &gate.image("zero"), show, ""))?;
    waits(&cluster, "unknown", &format!("certs.d/{HERE}:{}/ca.crt", gate.port))?;

    let folder = config(&cluster).join(format!("containers/certs.d/{HERE}:{}", gate.port));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("ca.crt"), &gate.authority)?;
    let secrets = secret("right", &gate, "open") + &secret("wrong", &gate, "sesame");
    let nobody = pod("nobody", &gate.image("one"), show, "");
    let text = secrets + &nobody + &with("wrong", "one", "wrong") + &with("right", "one", "right");
    cluster.apply(&text)?;
    waits(&cluster, "wrong", "refuses user `team`")?;
    waits(&cluster, "nobody", "refuses who has no credentials")?;
    shown(&cluster, "right")?;
    let id = field(&cluster, "right", "imageID")?;
    ensure!(id.starts_with(&format!("{HERE}:{}/team/one@sha256:", gate.port)), "{id}");

    let secrets = r#"{"imagePullSecrets": [{"name": "right"}]}"#;
    cluster.kubectl(&["patch", "serviceaccount", "default", "--patch", secrets])?;
    cluster.apply(&pod("account", &gate.image("two"), show, ""))?;
    shown(&cluster, "account").context("with the secret of its account")?;
    let secrets = r#"{"imagePullSecrets": []}"#;
    cluster.kubectl(&["patch", "serviceaccount", "default", "--patch", secrets])?;
    each_pod_shows_a_secret(&cluster, &gate, &with)
}

/// What was fetched with a secret is here now: who has that secret, or one with the same password, runs it,
/// and nobody else, also after everything was killed.
fn each_pod_shows_a_secret(
    cluster: &Cluster,
    gate: &Gate,
    with: &dyn Fn(&str, &str, &str) -> String,
) -> anyhow::Result<()> {
    let show: &[&str] = &["probe", "show"];
    let image = gate.image("one");
    cluster.apply(&pod("late", &image, show, ""))?;
    waits(cluster, "late", "refuses who has no credentials")?;
    kill(cluster.pid()?)?;
    up(cluster)?;
    let never = |name: &str, image: &str| pod(name, image, show, "imagePullPolicy: Never");
    cluster.apply(&(pod("later", &image, show, "") + &never("never", &image)))?;
    waits(cluster, "later", "refuses who has no credentials")?;
    eventually("no registry is asked for it", || {
        let message = field(cluster, "never", "state.waiting.message")?;
        Ok(message.contains("does not have the proper auth"))
    })?;

    gate.shut.store(true, Ordering::SeqCst);
    cluster.apply(&(secret("same", gate, "open") + &with("again", "one", "right")))?;
    cluster.apply(&with("equal", "one", "same"))?;
    shown(cluster, "again")?;
    shown(cluster, "equal")?;
    let secrets = fs::read_dir(cluster.data().join("coracle/images/pulled"))?;
    for record in secrets {
        let text = fs::read_to_string(record?.path())?;
        ensure!(text.contains("default/right/") && !text.contains("open"), "{text}");
    }

    // What the user names is everybody's.
    cluster.coracle(&["image", "tag", &image, "test/ours"])?;
    cluster.apply(&never("ours", "test/ours"))?;
    shown(cluster, "ours").map(drop)
}
