//! A registry that does what a test says, byte by byte: a server of HTTP/1.1 that can also break off,
//! hang and lie.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use serde_json::json;

use crate::{Descriptor, Digest, Platform, spec::media};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Announced instead of the body's own length.
    pub(super) length: Option<usize>,
    pub(super) then: Then,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Close,
    Hang,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), body, length: None, then: Then::GoOn }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Announces all of the body, sends `count` bytes and then does something else.
    pub(super) fn cut(mut self, count: usize, then: Then) -> Self {
        self.length = Some(self.body.len());
        self.body.truncate(count);
        self.then = then;
        self
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// The server. Its threads end with the test's process.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub(super) fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(handler, Ok)
    }

    /// One that speaks TLS, with a certificate of its own for `name`.
    pub(super) fn start_tls(
        name: &str,
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key.into());
        let config = Arc::new(config.unwrap());
        Self::start_with(handler, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config));
            Ok(StreamOwned::new(connection.map_err(io::Error::other)?, stream))
        })
    }

    fn start_with<S: Read + Write>(
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        open: impl Fn(TcpStream) -> io::Result<S> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), Arc::clone(&asked));
        let open = Arc::new(open);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&log));
                let open = Arc::clone(&open);
                thread::spawn(move || drop(open(stream).and_then(|it| serve(it, &*handler, &log))));
            }
        });
        Self { address, asked }
    }

    /// What was asked, but for the first look whether somebody is there.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|it| it.path != "/v2/").cloned().collect()
    }

    /// How many requests began so.
    pub(super) fn count(&self, begin: &str) -> usize {
        let line = |it: &Asked| format!("{} {}", it.method, it.path);
        self.asked().iter().filter(|it| line(it).starts_with(begin)).count()
    }
}

fn serve(
    mut stream: impl Read + Write,
    handler: &Handler,
    log: &Mutex<Vec<Asked>>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            // TLS is not spoken here; and who asks no more has gone.
            if stream.read(&mut byte)? == 0 || (head.is_empty() && byte[0] == 0x16) {
                return Ok(());
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let mut words = lines.next().unwrap().split(' ').map(str::to_owned);
        let headers = lines.filter_map(|it| it.split_once(": "));
        let asked = Asked {
            method: words.next().unwrap(),
            path: words.next().unwrap(),
            headers: headers.map(|it| (it.0.to_ascii_lowercase(), it.1.to_owned())).collect(),
        };
        let body = asked.headers.get("content-length").map_or(0, |it| it.parse().unwrap());
        stream.read_exact(&mut vec![0; body])?;
        log.lock().unwrap().push(asked.clone());
        let reply = handler(&asked);
        let length = reply.length.unwrap_or(reply.body.len());
        let mut text = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        if asked.method != "HEAD" {
            stream.write_all(&reply.body)?;
        }
        match reply.then {
            Then::GoOn => {}
            Then::Close => return Ok(()),
            // Until the client has gone.
            Then::Hang => return io::copy(&mut stream, &mut io::sink()).map(drop),
        }
    }
}

/// An image with two layers of random-looking bytes, and the contents of its registry by path.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) layers: [Vec<u8>; 2],
    pub(super) manifest: Vec<u8>,
    pub(super) paths: BTreeMap<String, (String, Vec<u8>)>,
}

impl Content {
    pub(super) fn new() -> Self {
        let layer = |seed: u8, length: usize| -> Vec<u8> {
            let mix =
                |it: usize| (it / 251).to_le_bytes()[0] ^ it.to_le_bytes()[0].wrapping_mul(seed);
            (0..length).map(mix).collect()
        };
        let layers = [layer(7, 300_000), layer(13, 70_000)];
        let Platform { architecture, os, .. } = Platform::host();
        let ids = [Digest::of(&layers[0]), Digest::of(&layers[1])];
        let config = json!({"architecture": architecture, "os": os, "config": {"Cmd": ["x"]},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = config.to_string().into_bytes();
        let descriptors = [&layers[0], &layers[1]].map(|it| Descriptor::of(media::LAYER, it));
        let mut this = Self { layers, manifest: Vec::new(), paths: BTreeMap::new() };
        this.set_manifest(&Descriptor::of(media::CONFIG, &config), &descriptors);
        for blob in [&this.layers[0].clone(), &this.layers[1].clone(), &config] {
            let path = format!("/v2/team/web/blobs/{}", Digest::of(blob));
            this.paths.insert(path, ("application/octet-stream".to_owned(), blob.clone()));
        }
        this
    }

    fn set_manifest(&mut self, config: &Descriptor, layers: &[Descriptor]) {
        let manifest = json!({"schemaVersion": 2, "mediaType": media::MANIFEST,
            "config": config, "layers": layers});
        self.manifest = manifest.to_string().into_bytes();
        self.add_manifest("1", media::MANIFEST, &self.manifest.clone());
    }

    /// Puts a manifest or index there, under a tag and its digest.
    pub(super) fn add_manifest(&mut self, tag: &str, media_type: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            let path = format!("/v2/team/web/manifests/{name}");
            self.paths.insert(path, (media_type.to_owned(), bytes.to_vec()));
        }
    }

    /// What an honest registry answers.
    pub(super) fn reply(&self, asked: &Asked) -> Reply {
        let Some((media_type, bytes)) = self.paths.get(&asked.path) else {
            return Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
        };
        let range = asked.headers.get("range").and_then(|it| it.strip_prefix("bytes="));
        let from = range.and_then(|it| it.strip_suffix('-')).map(|it| it.parse().unwrap());
        let reply = match from {
            Some(from) => {
                let last = bytes.len() - 1;
                let range = format!("bytes {from}-{last}/{}", bytes.len());
                Reply::new(206, &bytes[from..]).with("content-range", range)
            }
            None => Reply::new(200, bytes.as_slice()),
        };
        let reply = reply.with("content-type", media_type);
        if asked.path.contains("/manifests/") {
            return reply.with("docker-content-digest", Digest::of(bytes));
        }
        reply
    }

    /// Whether a request is for the first layer.
    pub(super) fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.ends_with(&format!("blobs/{}", Digest::of(&self.layers[0])))
    }
}
