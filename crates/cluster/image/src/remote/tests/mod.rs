//! Registries that behave, and such as do not.

mod fake;
mod given;
mod proxies;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fake::{Asked, Content, Fake, Reply, Then};
use serde_json::json;

use super::*;
use crate::{Descriptor, Digest, Event, Image, Store, spec::media};

/// So short that a test of what never comes is short too, and long enough for a busy machine.
const STALL: Duration = Duration::from_millis(400);

struct World {
    _folder: tempfile::TempDir,
    store: Store,
    events: Mutex<Vec<Event>>,
    keyring: Keyring,
    registries: Registries,
    proxies: Proxies,
    attempts: u32,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("images")).unwrap();
        Self {
            _folder: folder,
            store,
            events: Mutex::default(),
            keyring: Keyring::default(),
            registries: Registries::default(),
            proxies: Proxies::default(),
            attempts: 3,
        }
    }

    fn client(&self) -> Client {
        let patience = Patience {
            connect: Duration::from_secs(5),
            stall: STALL,
            attempts: self.attempts,
            pause: Duration::from_millis(1),
        };
        Client::new(self.registries.clone(), self.proxies.clone(), patience).unwrap()
    }

    async fn pull(&self, image: &str) -> Result<Image, Error> {
        let progress = |it| self.events.lock().unwrap().push(it);
        let reference = image.parse().unwrap();
        self.client().pull(&self.store, &reference, &self.keyring, &progress).await
    }

    async fn refused(&self, image: &str) -> Kind {
        let error = self.pull(image).await.unwrap_err();
        assert!(error.to_string().starts_with(image), "{error}");
        assert!(self.store.list().unwrap().is_empty());
        *error.kind
    }
}

fn name(fake: &Fake) -> String {
    format!("{}/team/web:1", fake.address)
}

fn honest(content: &Content) -> Fake {
    let content = content.clone();
    Fake::start(move |asked| content.reply(asked))
}

#[tokio::test]
async fn an_image_comes_once() {
    let content = Content::new();
    let (world, fake) = (World::new(), honest(&content));
    let image = world.pull(&name(&fake)).await.unwrap();
    assert_eq!(image.target.digest, Digest::of(&content.manifest));
    assert_eq!(world.store.list().unwrap()[0].name, name(&fake));
    assert_eq!(world.store.document(&image.layers[0].digest).unwrap(), content.layers[0]);
    let asked = fake.asked().len();
    // The tag still stands for it: one question, no transfer.
    assert_eq!(world.pull(&name(&fake)).await.unwrap(), image);
    assert_eq!(fake.asked().len(), asked + 1);
    assert_eq!(fake.asked().last().unwrap().method, "HEAD");
    // By its digest, under a name of its own.
    let by_digest = format!("{}/team/web@{}", fake.address, image.target.digest);
    world.pull(&by_digest).await.unwrap();
    assert_eq!(world.store.list().unwrap().len(), 2);
    assert_eq!(fake.count("GET /v2/team/web/blobs/"), 3);
}

#[tokio::test]
async fn what_is_here_is_not_transferred() {
    let content = Content::new();
    let (world, fake) = (World::new(), honest(&content));
    world.store.put(&content.layers[0]).unwrap();
    world.pull(&name(&fake)).await.unwrap();
    assert_eq!(fake.count("GET /v2/team/web/blobs/"), 2);
    let events = world.events.lock().unwrap();
    assert!(events.iter().any(|it| matches!(it, Event::Present { .. })));
}

#[tokio::test]
async fn two_pulls_share_what_comes() {
    let content = Content::new();
    let (world, fake) = (World::new(), honest(&content));
    let name = name(&fake);
    let (one, two) = tokio::join!(world.pull(&name), world.pull(&name));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(fake.count("GET /v2/team/web/blobs/"), 3);
}

#[tokio::test]
async fn a_broken_connection_is_gone_on_with() {
    let content = Content::new();
    let count = AtomicUsize::new(0);
    let served = content.clone();
    let fake = Fake::start(move |asked| {
        let reply = served.reply(asked);
        if served.is_layer(asked) && count.fetch_add(1, Ordering::Relaxed) < 5 {
            return reply.cut(50_000, Then::Close);
        }
        reply
    });
    let world = World::new();
    world.pull(&name(&fake)).await.unwrap();
    let layers: Vec<Asked> = fake.asked().into_iter().filter(|it| content.is_layer(it)).collect();
    // More often than failures in a row are borne, as each brought something.
    assert_eq!(layers.len(), 6);
    assert_eq!(layers[1].headers["range"], "bytes=50000-");
    assert_eq!(layers[5].headers["range"], "bytes=250000-");
}

#[tokio::test]
async fn another_process_goes_on() {
    let content = Content::new();
    let served = content.clone();
    let broken = Arc::new(AtomicUsize::new(1));
    let switch = Arc::clone(&broken);
    let fake = Fake::start(move |asked| {
        let reply = served.reply(asked);
        if served.is_layer(asked) && switch.load(Ordering::Relaxed) == 1 {
            return reply.cut(120_000, Then::Hang);
        }
        reply
    });
    let mut world = World::new();
    world.attempts = 1;
    let error = world.refused(&name(&fake)).await;
    assert!(matches!(error, Kind::Stalled { .. }), "{error}");
    broken.store(0, Ordering::Relaxed);
    world.pull(&name(&fake)).await.unwrap();
    let last = fake.asked().into_iter().rfind(|it| content.is_layer(it)).unwrap();
    assert_eq!(last.headers["range"], "bytes=120000-");
}

#[tokio::test]
async fn a_registry_without_ranges_starts_again() {
    let content = Content::new();
    let count = AtomicUsize::new(0);
    let served = content.clone();
    let fake = Fake::start(move |asked| {
        let mut asked = asked.clone();
        asked.headers.remove("range");
        let reply = served.reply(&asked);
        if served.is_layer(&asked) && count.fetch_add(1, Ordering::Relaxed) == 0 {
            return reply.cut(50_000, Then::Close);
        }
        reply
    });
    World::new().pull(&name(&fake)).await.unwrap();
}

#[tokio::test]
async fn stalls_and_breaks_end() {
    for (then, at) in [(Then::Hang, 0), (Then::Close, 0)] {
        let content = Content::new();
        let fake = Fake::start(move |asked| {
            let reply = content.reply(asked);
            if content.is_layer(asked) { reply.cut(at, then) } else { reply }
        });
        let error = World::new().refused(&name(&fake)).await;
        match then {
            Then::Hang => assert!(matches!(error, Kind::Stalled { attempts: 3, .. }), "{error}"),
            _ => assert!(matches!(error, Kind::BrokenOff { attempts: 3, .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn lies_about_content_are_refused() {
    type Lie = fn(&Content, &Asked, Reply) -> Reply;
    let lies: [Lie; 4] = [
        // Other content of the same length.
        |content, asked, mut reply| {
            if content.is_layer(asked) {
                reply.body[1000] ^= 1;
            }
            reply
        },
        // More than was said.
        |content, asked, mut reply| {
            if content.is_layer(asked) {
                reply.body.push(0);
            }
            reply
        },
        // A manifest that is not what its header says.
        |_, asked, mut reply| {
            if asked.path.contains("/manifests/") {
                reply.headers.retain(|it| it.0 != "docker-content-digest");
                return reply.with("docker-content-digest", Digest::of(b""));
            }
            reply
        },
        // A manifest without end.
        |_, asked, reply| {
            if asked.path.contains("/manifests/") {
                Reply::new(200, vec![b' '; 5 << 20])
            } else {
                reply
            }
        },
    ];
    for lie in lies {
        let content = Content::new();
        let fake = Fake::start(move |asked| lie(&content, asked, content.reply(asked)));
        let error = World::new().refused(&name(&fake)).await;
        assert!(matches!(error, Kind::Lied { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_digest_gets_what_was_asked_for_or_nothing() {
    let mut content = Content::new();
    let wanted = Digest::of(b"something else");
    let path = format!("/v2/team/web/manifests/{wanted}");
    content.paths.insert(path, (media::MANIFEST.to_owned(), content.manifest.clone()));
    let served = content.clone();
    let fake = Fake::start(move |asked| {
        let mut reply = served.reply(asked);
        reply.headers.retain(|it| it.0 != "docker-content-digest");
        reply
    });
    let error = World::new().refused(&format!("{}/team/web@{wanted}", fake.address)).await;
    assert!(matches!(error, Kind::Lied { .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_takes_no_credentials_along() {
    let content = Content::new();
    let storage = honest(&content);
    let elsewhere = storage.address;
    let served = content.clone();
    let fake = Fake::start(move |asked| {
        if !asked.headers.contains_key("authorization") {
            return Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\"");
        }
        if served.is_layer(asked) {
            let to = format!("http://{elsewhere}{}", asked.path);
            return Reply::new(307, "").with("location", to);
        }
        served.reply(asked)
    });
    let mut world = World::new();
    let credential =
        Credential { user: "ann".to_owned(), password: "secret".to_owned(), identity_token: None };
    world.keyring.add(&fake.address.to_string(), credential);
    world.pull(&name(&fake)).await.unwrap();
    assert_eq!(storage.asked().len(), 1);
    assert!(!storage.asked()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn redirects_in_a_ring_end() {
    let content = Content::new();
    let fake = Fake::start(move |asked| {
        if asked.path.contains("/blobs/") {
            return Reply::new(302, "").with("location", &asked.path);
        }
        content.reply(asked)
    });
    let error = World::new().refused(&name(&fake)).await;
    assert!(matches!(error, Kind::Redirected { .. }), "{error}");
    assert!(fake.count("GET /v2/team/web/blobs/") < 10);
}

#[tokio::test]
async fn tokens_are_fetched_and_credentials_tried_in_turn() {
    let content = Content::new();
    let address = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&address);
    let fake = Fake::start(move |asked| {
        let authorization = asked.headers.get("authorization").map_or("", String::as_str);
        if asked.path.starts_with("/token") {
            // bob:right
            let right = authorization == "Basic Ym9iOnJpZ2h0";
            let scoped = asked.path.contains("scope=repository%3Ateam/web%3Apull");
            if right && scoped {
                return Reply::new(200, r#"{"token": "t0ken"}"#);
            }
            return Reply::new(401, "");
        }
        if authorization == "Bearer t0ken" {
            return content.reply(asked);
        }
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"x\"", own.lock().unwrap());
        Reply::new(401, "").with("www-authenticate", realm)
    });
    *address.lock().unwrap() = fake.address.to_string();
    let mut world = World::new();
    let error = world.refused(&name(&fake)).await;
    assert!(matches!(error, Kind::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("no credentials"), "{error}");
    let registry = fake.address.to_string();
    for (user, password) in [("ann", "wrong"), ("bob", "right")] {
        let (user, password) = (user.to_owned(), password.to_owned());
        world.keyring.add(&registry, Credential { user, password, identity_token: None });
    }
    world.pull(&name(&fake)).await.unwrap();
    // One token for all requests.
    assert_eq!(fake.count("GET /token"), 3);
}

#[tokio::test]
async fn the_image_for_this_machine_is_chosen() {
    let mut content = Content::new();
    let entry = |architecture: &str, bytes: &[u8]| {
        let mut entry = Descriptor::of(media::MANIFEST, bytes);
        let os = "linux".to_owned();
        let architecture = architecture.to_owned();
        entry.platform = Some(crate::Platform { architecture, os, variant: None });
        entry
    };
    let own = crate::Platform::host().architecture;
    let index = crate::spec::Index::of(vec![entry("s390x", b"x"), entry(&own, &content.manifest)]);
    let index = serde_json::to_vec(&index).unwrap();
    content.add_manifest("both", media::INDEX, &index);
    let foreign = serde_json::to_vec(&crate::spec::Index::of(vec![entry("s390x", b"x")])).unwrap();
    content.add_manifest("foreign", media::INDEX, &foreign);
    let fake = honest(&content);
    let world = World::new();
    let error = world.refused(&format!("{}/team/web:foreign", fake.address)).await;
    assert!(error.to_string().contains("only for linux/s390x"), "{error}");
    let image = world.pull(&format!("{}/team/web:both", fake.address)).await.unwrap();
    assert_eq!(image.target.digest, Digest::of(&index));
    assert_eq!(image.manifest, Digest::of(&content.manifest));
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let mut content = Content::new();
    content.add_manifest(
        "old",
        media::DOCKER_SCHEMA_1_SIGNED,
        br#"{"schemaVersion": 1, "name": "team/web", "fsLayers": []}"#,
    );
    let config = Descriptor::of(media::CONFIG, b"{}");
    let mut foreign =
        Descriptor::of("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"x");
    foreign.urls = vec!["https://elsewhere.test/x".to_owned()];
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [foreign]}).to_string();
    content.add_manifest("windows", media::MANIFEST, manifest.as_bytes());
    let chart = Descriptor::of("application/vnd.cncf.helm.config.v1+json", b"{}");
    let path = format!("/v2/team/web/blobs/{}", chart.digest);
    content.paths.insert(path, (String::new(), b"{}".to_vec()));
    let manifest = json!({"schemaVersion": 2, "config": chart, "layers": []}).to_string();
    content.add_manifest("chart", media::MANIFEST, manifest.as_bytes());
    let fake = honest(&content);
    let tags = [
        ("old", "schema 1"),
        ("windows", "foreign layer"),
        ("chart", "artifact"),
        ("no", "no such image"),
    ];
    for (tag, expected) in tags {
        let error = World::new().refused(&format!("{}/team/web:{tag}", fake.address)).await;
        assert!(error.to_string().contains(expected), "{tag}: {error}");
    }
    assert_eq!(fake.count("GET /v2/team/web/blobs/"), 1);
}

#[tokio::test]
async fn other_answers_are_told() {
    let answers = [
        (403, "does not allow"),
        (429, "wants no more requests"),
        (500, "answered 500"),
        (418, "answered 418"),
    ];
    for (status, expected) in answers {
        let fake = Fake::start(move |_| {
            Reply::new(status, r#"{"errors":[{"code":"X","message":"because"}]}"#)
        });
        let error = World::new().refused(&name(&fake)).await.to_string();
        assert!(error.contains(expected) && error.contains("because"), "{error}");
        // What may pass is asked for again.
        let times = if matches!(status, 429 | 500) { 3 } else { 1 };
        assert_eq!(fake.asked().len(), times, "{status}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = World::new().refused(&format!("{nobody}/a:1")).await;
    assert!(matches!(error, Kind::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn mirrors_are_asked_first() {
    let content = Content::new();
    let (mirror, origin) = (Fake::start(|_| Reply::new(404, "")), honest(&content));
    let mut world = World::new();
    let (from, to) = (mirror.address, origin.address);
    let text = format!(
        "[[registry]]\nprefix = \"example.test\"\nlocation = \"{to}\"\n\
         [[registry.mirror]]\nlocation = \"{from}\"\n"
    );
    world.registries.add_file(&text).unwrap();
    let secret =
        Credential { user: "ann".to_owned(), password: "x".to_owned(), identity_token: None };
    world.keyring.add("example.test", secret);
    world.pull("example.test/team/web:1").await.unwrap();
    assert_eq!(world.store.list().unwrap()[0].name, "example.test/team/web:1");
    assert_eq!(mirror.asked().len(), 1);
    assert!(!mirror.asked()[0].headers.contains_key("authorization"));
    let mut blocked = World::new();
    blocked.registries.add_file("[[registry]]\nprefix = \"example.test\"\nblocked = true").unwrap();
    assert!(matches!(blocked.refused("example.test/a:1").await, Kind::Blocked));
}

/// An image of two layers that came from one repository goes to another: what the registry has is mounted,
/// and what it has not, though a name here says so, is sent.
#[tokio::test]
async fn what_another_repository_has_is_mounted() {
    let content = Content::new();
    let served = content.clone();
    let lost = Digest::of(&content.layers[1]).to_string();
    let fake = Fake::start(move |asked| {
        if !asked.path.contains("/team/other/") {
            return served.reply(asked);
        }
        match (asked.method.as_str(), &*asked.path) {
            ("HEAD", _) => Reply::new(404, ""),
            ("POST", path) if path.contains("from=team") && !path.contains(&lost[7..]) => {
                Reply::new(201, "")
            }
            ("POST", _) => Reply::new(202, "").with("location", "/v2/team/other/blobs/uploads/7"),
            _ => Reply::new(201, ""),
        }
    });
    let world = World::new();
    let image = world.pull(&name(&fake)).await.unwrap();
    let to = format!("{}/team/other:1", fake.address).parse().unwrap();
    world.client().push(&world.store, &image, &to, &world.keyring, &drop).await.unwrap();
    assert_eq!(fake.count("POST /v2/team/other/blobs/uploads/?mount=sha256%3A"), 3);
    assert_eq!(fake.count("PUT /v2/team/other/blobs/uploads/7?digest="), 1);
    assert_eq!(fake.count("PUT /v2/team/other/manifests/1"), 1);
    // Of an image that has no name there, nobody knows where else it could be.
    let world = World::new();
    let elsewhere = Store::open(world.store.folder().join("elsewhere")).unwrap();
    for bytes in content.paths.values().map(|(_, bytes)| bytes) {
        elsewhere.put(bytes).unwrap();
    }
    world.client().push(&elsewhere, &image, &to, &world.keyring, &drop).await.unwrap();
    assert_eq!(fake.count("POST /v2/team/other/blobs/uploads/?mount="), 3);
}
