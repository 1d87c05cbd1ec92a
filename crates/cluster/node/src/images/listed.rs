//! The images of this machine, as the Node's status lists them.

use std::{cmp::Reverse, collections::BTreeMap};

use image::{ANNOTATION_PULLED, Digest, Reference, Store, store::Named};
use serde_json::{Value, json};

/// Images that are listed at most, the largest: the kubelet's `nodeStatusMaxImages`.
const IMAGES_MAX: usize = 50;

/// Names of one image that are listed at most: the kubelet's `maxNamesPerImageInNodeStatus`.
const NAMES_MAX: usize = 5;

/// What the store has, as `status.images`. An image that cannot be read is left out.
pub(super) fn listed(store: &Store) -> Result<Value, image::store::Error> {
    let sized = |it: Named| Some((store.size_and_use(&it).ok()?.0, it));
    Ok(list(store.list()?.into_iter().filter_map(sized)))
}

/// Pure: bytes and names.
fn list(images: impl IntoIterator<Item = (u64, Named)>) -> Value {
    let mut found: BTreeMap<Digest, (u64, Vec<String>)> = BTreeMap::new();
    for (bytes, named) in images {
        let names = &mut found.entry(named.target.digest).or_insert((bytes, Vec::new())).1;
        if named.target.annotations.contains_key(ANNOTATION_PULLED)
            && let Ok(reference) = named.name.parse::<Reference>()
        {
            names.push(reference.with_digest(named.target.digest).to_string());
        }
        names.push(named.name);
    }
    let mut found: Vec<(u64, Vec<String>)> = found.into_values().collect();
    found.sort_by_key(|(bytes, _)| Reverse(*bytes));
    let row = |(bytes, mut names): (u64, Vec<String>)| {
        // As with a kubelet, digests come before tags.
        names.sort_by_key(|it| (!it.contains('@'), it.clone()));
        names.dedup();
        names.truncate(NAMES_MAX);
        json!({ "names": names, "sizeBytes": bytes })
    };
    found.into_iter().take(IMAGES_MAX).map(row).collect()
}

#[cfg(test)]
mod tests {
    use image::Descriptor;

    use super::*;

    fn named(name: &str, content: &str, is_pulled: bool) -> Named {
        let mut target = Descriptor::of("", content.as_bytes());
        if is_pulled {
            target.annotations.insert(ANNOTATION_PULLED.to_owned(), String::new());
        }
        Named { name: name.to_owned(), target }
    }

    #[test]
    fn names_and_sizes() {
        let images = [
            (5, named("docker.io/library/a:1", "a", true)),
            (5, named("docker.io/library/a:2", "a", true)),
            (9, named("localhost/b:1", "b", false)),
        ];
        expect_test::expect![[r#"
            [
              {
                "names": [
                  "localhost/b:1"
                ],
                "sizeBytes": 9
              },
              {
                "names": [
                  "docker.io/library/a@sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
                  "docker.io/library/a:1",
                  "docker.io/library/a:2"
                ],
                "sizeBytes": 5
              }
            ]"#]]
        .assert_eq(&serde_json::to_string_pretty(&list(images)).unwrap());
    }

    #[test]
    fn no_more_than_a_kubelet_lists() {
        let names = (0..7).map(|it| (1, named(&format!("localhost/a:{it}"), "a", false)));
        let listed = list(names);
        assert_eq!(listed[0]["names"].as_array().unwrap().len(), NAMES_MAX);
        let many = (0..60).map(|it| {
            let name = format!("localhost/a:{it}");
            (it, named(&name, &name, false))
        });
        let listed = list(many);
        assert_eq!(listed.as_array().unwrap().len(), IMAGES_MAX);
        assert_eq!(listed[0]["sizeBytes"], 59);
    }
}
