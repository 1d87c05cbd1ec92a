//! Links as last seen in the cluster: which containers run local source, and what is run for them.
//!
//! Reads the ConfigMap that [`api::link`] describes; does not watch it.

use std::{collections::BTreeMap, path::Path};

use api::link::Link;
use k8s_openapi::api::core::v1::ConfigMap;

/// Every link, by its key in the ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links(BTreeMap<String, Link>);

impl Links {
    /// Reads the ConfigMap. A value that is no link is logged and left out: it must not take the
    /// other links away.
    #[must_use]
    pub(crate) fn read(object: Option<&ConfigMap>) -> Self {
        let mut links = BTreeMap::new();
        for (key, value) in object.and_then(|it| it.data.as_ref()).into_iter().flatten() {
            match serde_json::from_str::<Link>(value) {
                Ok(link) if link.directory.is_absolute() => {
                    links.insert(key.clone(), link);
                }
                Ok(_) => tracing::warn!(link = key, "directory of a link is not absolute"),
                Err(error) => tracing::warn!(link = key, %error, "malformed link"),
            }
        }
        Self(links)
    }

    /// The link that stands in for `image`; the first by key if there are several.
    #[must_use]
    pub(crate) fn find(&self, image: &str) -> Option<&Link> {
        self.0.values().find(|it| it.applies_to(image))
    }
}

/// The link's entry point, its program's path made absolute if it is relative and not looked up in
/// `PATH`.
#[must_use]
pub(crate) fn entry_point(link: &Link) -> Vec<String> {
    let mut run = link.run.clone();
    if let Some(program) = run.first_mut()
        && program.contains('/')
        && !Path::new(program).is_absolute()
    {
        *program = link.directory.join(program.trim_start_matches("./")).display().to_string();
    }
    run
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn links(data: &serde_json::Value) -> Links {
        Links::read(Some(&serde_json::from_value(json!({ "data": data })).unwrap()))
    }

    #[test]
    fn finds_by_image_whatever_the_tag() {
        let links = links(&json!({
            "sensor": r#"{"image":"registry/sensor","directory":"/src","run":["./target/sensor","-v"]}"#,
            "broken": "{",
            "relative": r#"{"image":"relative","directory":"src"}"#,
        }));
        let link = links.find("registry/sensor:v2").unwrap();
        assert_eq!(entry_point(link), ["/src/target/sensor", "-v"]);
        assert_eq!(links.find("sensor"), None);
        assert_eq!(links.find("relative"), None);
        assert_eq!(Links::read(None), Links::default());
    }

    #[test]
    fn programs_in_path_stay() {
        let links =
            links(&json!({ "x": r#"{"image":"x","directory":"/src","run":["python3","a.py"]}"# }));
        assert_eq!(entry_point(links.find("x").unwrap()), ["python3", "a.py"]);
    }
}
