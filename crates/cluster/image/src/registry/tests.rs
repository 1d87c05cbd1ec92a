//! The registry as its clients see it: our own, and requests written by hand.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    Descriptor, Image, Platform,
    remote::{Client, Keyring, Patience, Proxies, Registries},
    spec::media,
};

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    address: SocketAddr,
    tasks: Tasks,
}

/// What came back.
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> String {
        let lines = self.head.lines().filter_map(|it| it.split_once(": "));
        let found = lines.into_iter().find(|it| it.0.eq_ignore_ascii_case(name));
        found.map(|it| it.1.to_owned()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("registry")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::new(store.clone(), &address.to_string()).unwrap();
        let tasks = Tasks::default();
        let connections = tasks.clone();
        tasks.spawn("registry", OnExit::StopProcess, |stop| async move {
            Ok(registry.serve(listener, connections, stop).await?)
        });
        Self { _folder: folder, store, address, tasks }
    }

    async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> Got {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let text = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Got { status, head, body: answer[end + 4..].to_vec() }
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(&format!("GET {path}"), "", b"").await
    }

    async fn put_blob(&self, bytes: &[u8]) -> Descriptor {
        let line = format!("POST /v2/a/b/blobs/uploads/?digest={}", Digest::of(bytes));
        assert_eq!(self.ask(&line, "", bytes).await.status, 201);
        Descriptor::of(media::LAYER, bytes)
    }

    async fn put_manifest(&self, name: &str, manifest: &Value) -> Got {
        let media_type = manifest["mediaType"].as_str().unwrap();
        let headers = format!("content-type: {media_type}\r\n");
        let bytes = manifest.to_string();
        self.ask(&format!("PUT /v2/a/b/manifests/{name}"), &headers, bytes.as_bytes()).await
    }
}

fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Value {
    json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers})
}

fn image(store: &Store) -> Image {
    let layer: Vec<u8> = (0..600_000_u32).map(|it| it.to_le_bytes()[1]).collect();
    let blob = store.put(&layer).unwrap();
    let Platform { architecture, os, .. } = Platform::host();
    let config = json!({"architecture": architecture, "os": os,
        "rootfs": {"type": "layers", "diff_ids": [blob.digest]}});
    let config = config.to_string().into_bytes();
    store.put(&config).unwrap();
    let config = Descriptor::of(media::CONFIG, &config);
    let manifest = manifest(&config, &[Descriptor::of(media::LAYER, &layer)]).to_string();
    store.put(manifest.as_bytes()).unwrap();
    let target = Descriptor::of(media::MANIFEST, manifest.as_bytes());
    Image::read(store, &target, &Platform::host()).unwrap()
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|it| Store::open(folder.path().join(it)).unwrap());
    let image = image(&here);
    let client =
        Client::new(Registries::default(), Proxies::default(), Patience::default()).unwrap();
    let name: Reference = format!("{}/team/web:1", world.address).parse().unwrap();
    let keyring = Keyring::default();
    let pushed = client.push(&here, &image, &name, &keyring, &drop).await.unwrap();
    assert_eq!(pushed, image.target.digest);
    // What the registry has, the same store could run.
    assert_eq!(world.store.resolve(&name).unwrap().unwrap().id, image.id);
    let pulled = client.pull(&there, &name, &keyring, &drop).await.unwrap();
    // That it was pulled stands beside its target.
    let target = pulled.target.clone();
    assert_eq!(Image { target: image.target.clone(), ..pulled }, image);
    assert_eq!(target.digest, image.target.digest);
    let events = Mutex::new(Vec::new());
    let note = |it| events.lock().unwrap().push(it);
    client.push(&here, &image, &name, &keyring, &note).await.unwrap();
    let all = events.lock().unwrap().clone();
    assert!(all.iter().all(|it| matches!(it, crate::Event::Present { .. })), "{all:?}");
    assert!(world.tasks.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn uploads_in_pieces() {
    let world = World::start().await;
    let content = b"0123456789";
    let begun = world.ask("POST /v2/a/b/blobs/uploads/", "", b"").await;
    assert_eq!((begun.status, begun.header("range")), (202, "0-0".to_owned()));
    let place = begun.header("location");
    let patch = format!("PATCH {place}");
    let one = world.ask(&patch, "content-range: 0-3\r\n", &content[..4]).await;
    assert_eq!((one.status, one.header("range")), (202, "0-3".to_owned()));
    // Out of order.
    let wrong = world.ask(&patch, "content-range: 7-9\r\n", &content[7..]).await;
    assert_eq!((wrong.status, wrong.header("range")), (416, "0-3".to_owned()));
    let state = world.get(&place).await;
    assert_eq!((state.status, state.header("range")), (204, "0-3".to_owned()));
    let digest = Digest::of(content);
    let end = format!("PUT {place}?digest={digest}");
    let done = world.ask(&end, "content-range: 4-9\r\n", &content[4..]).await;
    assert_eq!((done.status, done.header("docker-content-digest")), (201, digest.to_string()));
    assert_eq!(world.get(&place).await.status, 404);
    let range = world.ask(&format!("GET /v2/x/blobs/{digest}"), "range: bytes=2-4\r\n", b"").await;
    assert_eq!((range.status, range.body.as_slice()), (206, &b"234"[..]));
    let head = world.ask(&format!("HEAD /v2/x/blobs/{digest}"), "", b"").await;
    assert_eq!((head.status, head.header("content-length")), (200, "10".to_owned()));
    let mount = format!("POST /v2/c/blobs/uploads/?mount={digest}&from=a/b");
    assert_eq!(world.ask(&mount, "", b"").await.status, 201);
    let wrong = format!("POST /v2/a/b/blobs/uploads/?digest={digest}");
    assert_eq!(world.ask(&wrong, "", b"other").await.status, 400);
    let unknown = format!("/v2/a/b/blobs/{}", Digest::of(b"other"));
    assert_eq!(world.get(&unknown).await.status, 404);
}

#[tokio::test]
async fn a_manifest_has_what_it_refers_to() {
    let world = World::start().await;
    let config = Descriptor::of(media::CONFIG, b"{}");
    let early = world.put_manifest("1", &manifest(&config, &[])).await;
    assert_eq!(
        (early.status, early.json()["errors"][0]["code"].clone()),
        (400, json!("MANIFEST_BLOB_UNKNOWN"))
    );
    world.put_blob(b"{}").await;
    let document = manifest(&config, &[]);
    let digest = Digest::of(document.to_string().as_bytes());
    for name in ["1", "2", "b", &digest.to_string()] {
        assert_eq!(world.put_manifest(name, &document).await.status, 201, "{name}");
    }
    assert_eq!(world.put_manifest(&Digest::of(b"").to_string(), &document).await.status, 400);
    let got = world.get("/v2/a/b/manifests/2").await;
    assert_eq!((got.status, got.header("content-type")), (200, media::MANIFEST.to_owned()));
    assert_eq!(got.json(), document);
    assert_eq!(world.get(&format!("/v2/other/manifests/{digest}")).await.status, 404);
    // Nobody's content goes while a client may still name it.
    let collected = world.store.collect(&BTreeSet::new(), store::Policy::Nameless).unwrap();
    assert_eq!(collected.blobs, 0);
    let page = world.get("/v2/a/b/tags/list?n=2").await;
    assert_eq!(page.json(), json!({"name": "a/b", "tags": ["1", "2"]}));
    assert_eq!(page.header("link"), "</v2/a/b/tags/list?n=2&last=2>; rel=\"next\"");
    let page = world.get("/v2/a/b/tags/list?n=2&last=2").await;
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["b"]), String::new()));
    assert_eq!(world.get("/v2/_catalog").await.json(), json!({"repositories": ["a/b"]}));
    assert_eq!(world.ask("DELETE /v2/a/b/manifests/b", "", b"").await.status, 202);
    assert_eq!(world.get("/v2/a/b/manifests/b").await.status, 404);
    let all = format!("DELETE /v2/a/b/manifests/{digest}");
    assert_eq!(world.ask(&all, "", b"").await.status, 202);
    assert_eq!(world.get("/v2/a/b/manifests/1").await.status, 404);
    assert_eq!(world.get("/v2/a/b/tags/list").await.status, 404);
}

#[tokio::test]
async fn what_is_about_another_is_found() {
    let world = World::start().await;
    world.put_blob(b"{}").await;
    let config = Descriptor::of(media::CONFIG, b"{}");
    let about = manifest(&config, &[]);
    assert_eq!(world.put_manifest("1", &about).await.status, 201);
    let subject = Descriptor::of(media::MANIFEST, about.to_string().as_bytes());
    let mut signature = manifest(&Descriptor::of(media::EMPTY, b"{}"), &[]);
    signature["artifactType"] = json!("application/x.signature");
    signature["subject"] = json!(subject);
    let digest = Digest::of(signature.to_string().as_bytes());
    let put = world.put_manifest(&digest.to_string(), &signature).await;
    assert_eq!((put.status, put.header("oci-subject")), (201, subject.digest.to_string()));
    let path = format!("/v2/a/b/referrers/{}", subject.digest);
    let found = world.get(&path).await.json();
    assert_eq!(found["manifests"][0]["digest"], json!(digest));
    assert_eq!(found["manifests"][0]["artifactType"], "application/x.signature");
    let none = world.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(none.json()["manifests"], json!([]));
    assert_eq!(none.header("oci-filters-applied"), "artifactType");
}

#[tokio::test]
async fn other_requests_are_refused_with_a_code() {
    let world = World::start().await;
    let digest = Digest::of(b"");
    let cases = [
        ("GET /v2/".to_owned(), 200, ""),
        ("POST /v2/".to_owned(), 405, "UNSUPPORTED"),
        ("GET /v3/".to_owned(), 404, "UNSUPPORTED"),
        ("GET /v2/A/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("GET /v2/a/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET /v2/a/blobs/sha512:ab".to_owned(), 400, "DIGEST_INVALID"),
        (format!("DELETE /v2/a/blobs/{digest}"), 405, "UNSUPPORTED"),
        ("PATCH /v2/a/blobs/uploads/7".to_owned(), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET /v2/_catalog?n=x".to_owned(), 400, "PAGINATION_NUMBER_INVALID"),
        ("PUT /v2/a/manifests/1".to_owned(), 400, "MANIFEST_INVALID"),
        (format!("PUT /v2/a/manifests/{}", "x".repeat(200)), 400, "MANIFEST_INVALID"),
    ];
    for (line, status, code) in cases {
        let got = world.ask(&line, "", b"").await;
        assert_eq!(got.status, status, "{line}");
        if !code.is_empty() {
            assert_eq!(got.json()["errors"][0]["code"], code, "{line}");
        }
    }
}
