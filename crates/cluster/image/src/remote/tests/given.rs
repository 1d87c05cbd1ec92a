//! Whom an image was given to, and who may run it after that without asking.

use super::*;
use crate::{store::Policy, worker::Credentials};

const PASSWORD: &str = "a-word-of-theirs";

fn credentials(fake: &Fake, origin: &str, password: &str) -> Credentials {
    let address = fake.address.to_string();
    let text = json!({"auths": {address: {"username": "ann", "password": password}}});
    Credentials { origin: origin.to_owned(), text: text.to_string() }
}

impl World {
    async fn pull_for(&self, image: &str, list: &[Credentials]) -> Image {
        let mut keyring = self.keyring.clone();
        for it in list {
            keyring.add_config_of(&it.origin, it.text.as_bytes()).unwrap();
        }
        let reference = image.parse().unwrap();
        self.client().pull_for_others(&self.store, &reference, &keyring, &drop).await.unwrap()
    }

    async fn pull_refused(&self, image: &str) {
        let reference = image.parse().unwrap();
        let client = self.client();
        client.pull_for_others(&self.store, &reference, &self.keyring, &drop).await.unwrap_err();
    }

    fn admits(&self, image: &str, list: &[Credentials]) -> bool {
        let reference = image.parse().unwrap();
        let found = self.store.resolve(&reference).unwrap().unwrap();
        Credentials::admit(list, &self.store, &found, &reference).unwrap()
    }

    /// All that is written of whom images were given to.
    fn records(&self) -> Vec<String> {
        let records = std::fs::read_dir(self.store.folder().join("pulled")).unwrap();
        records.map(|it| std::fs::read_to_string(it.unwrap().path()).unwrap()).collect()
    }
}

#[tokio::test]
async fn to_whoever_has_the_credentials() {
    let content = Content::new();
    let (world, fake) = (World::new(), honest(&content));
    let image = name(&fake);
    let ann = [credentials(&fake, "a", PASSWORD)];
    let pulled = world.pull_for(&image, &ann).await;
    assert!(world.admits(&image, &ann));
    // The same elsewhere, and something new in the same place.
    assert!(world.admits(&image, &[credentials(&fake, "b", PASSWORD)]));
    assert!(world.admits(&image, &[credentials(&fake, "a", "new")]));
    assert!(!world.admits(&image, &[credentials(&fake, "b", "new")]));
    assert!(!world.admits(&image, &[]));
    // By whatever name it is found.
    let by_digest = format!("{}/team/web@{}", fake.address, pulled.manifest);
    assert!(world.admits(&by_digest, &ann) && !world.admits(&by_digest, &[]));
    assert!(!world.admits(&format!("other.test/web@{}", pulled.manifest), &ann));
    let records = world.records().concat();
    assert!(!records.is_empty() && !records.contains(PASSWORD) && !records.contains("ann"));
    // The registry gives it to nobody in particular as well.
    world.pull_for(&image, &[]).await;
    assert!(world.admits(&image, &[]));
    world.store.untag(&image.parse().unwrap()).unwrap();
    world.store.collect(&std::collections::BTreeSet::new(), Policy::Nameless).unwrap();
    assert_eq!(world.records().len(), 0);
}

#[tokio::test]
async fn not_by_a_registry_that_only_names_it() {
    let content = Content::new();
    let (world, fake) = (World::new(), honest(&content));
    let pulled = world.pull_for(&name(&fake), &[credentials(&fake, "a", PASSWORD)]).await;
    let digest = pulled.target.digest;
    let liar = Fake::start(move |asked| match asked.method.as_str() {
        "HEAD" => Reply::new(200, "").with("docker-content-digest", digest),
        _ => Reply::new(404, ""),
    });
    let image = format!("{}/other@{digest}", liar.address);
    world.pull_refused(&image).await;
    assert!(!world.admits(&image, &[]));
    // One that has it gives it.
    let other = honest(&content);
    let image = format!("{}/team/web@{digest}", other.address);
    world.pull_for(&image, &[]).await;
    assert!(world.admits(&image, &[]) && !world.admits(&name(&fake), &[]));
}

#[tokio::test]
async fn to_everybody_by_the_user() {
    let content = Content::new();
    let (mut world, fake) = (World::new(), honest(&content));
    let image = name(&fake);
    let ann = [credentials(&fake, "a", PASSWORD)];
    // Before: what others fetch then was there.
    world.pull(&image).await.unwrap();
    world.pull_for(&image, &ann).await;
    assert!(world.admits(&image, &[]));
    assert_eq!(world.records().len(), 0);

    // After.
    world = World::new();
    let target = world.pull_for(&image, &ann).await.target;
    world.store.tag(&"mine:1".parse().unwrap(), &target).unwrap();
    assert!(world.admits("mine:1", &[]) && !world.admits(&image, &[]));
    world.pull(&image).await.unwrap();
    assert!(world.admits(&image, &[]));

    // With the user's own credentials.
    world = World::new();
    world.keyring.add_config(ann[0].text.as_bytes()).unwrap();
    world.pull_for(&image, &ann).await;
    assert!(world.admits(&image, &[]));
}
