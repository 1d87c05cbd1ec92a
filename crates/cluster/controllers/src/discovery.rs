//! Which kinds the server has, for the controllers that treat all kinds alike.

use client::{ApiResource, Client};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;

/// One kind of objects.
#[derive(Clone, Debug)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
}

/// All kinds whose objects can be listed, watched and deleted, each in one version: the first that
/// the server names for its group. By group and name.
pub(crate) async fn kinds(client: &Client) -> Result<Vec<Kind>, client::Error> {
    let mut kinds = of_version("", "v1", client.list_core_api_resources("v1").await?.resources);
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.as_ref().or(group.versions.first());
        let Some(version) = preferred else { continue };
        let found = client.list_api_group_resources(&version.group_version).await?;
        kinds.extend(of_version(&group.name, &version.version, found.resources));
    }
    kinds.sort_by(|one, other| {
        let key = |it: &Kind| (it.resource.group.clone(), it.resource.plural.clone());
        key(one).cmp(&key(other))
    });
    Ok(kinds)
}

fn of_version(group: &str, version: &str, resources: Vec<APIResource>) -> Vec<Kind> {
    let usable = resources.into_iter().filter(|it| {
        let can = |verb: &str| it.verbs.iter().any(|known| known == verb);
        !it.name.contains('/') && ["list", "watch", "delete"].into_iter().all(can)
    });
    let kind = |it: APIResource| Kind {
        resource: ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: match group {
                "" => version.to_owned(),
                group => format!("{group}/{version}"),
            },
            kind: it.kind,
            plural: it.name,
        },
        namespaced: it.namespaced,
    };
    usable.map(kind).collect()
}
