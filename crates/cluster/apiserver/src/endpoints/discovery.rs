//! Which groups, versions and resources there are: aggregated (KEP-3352) and plain discovery, both
//! made from the table of kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use api::status::Status;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::{document::Document, health};
use crate::{
    http::{
        body::Body,
        content::{self, Encoding},
    },
    kinds::{KINDS, Kind, Subresource},
};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_BETA: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const PLAIN: &str = "application/json";

/// All discovery documents.
#[derive(Debug)]
pub(crate) struct Discovery {
    root: Document,
    core: Document,
    core_aggregated: Document,
    core_beta: Document,
    groups: Document,
    groups_aggregated: Document,
    groups_beta: Document,
    group: BTreeMap<&'static str, Document>,
    resources: BTreeMap<(&'static str, &'static str), Document>,
}

/// All that is served but objects, sorted.
fn paths(groups: &[&str]) -> BTreeSet<String> {
    let fixed =
        ["/api", "/apis", "/metrics", "/openapi/v2", "/openapi/v3", "/snapshot", "/version"];
    let groups = groups.iter().map(|it| format!("/apis/{it}"));
    let versions = group_versions().into_iter().map(|it| match it {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    });
    fixed
        .map(str::to_owned)
        .into_iter()
        .chain(groups)
        .chain(versions)
        .chain(health::paths())
        .collect()
}

/// A subresource as discovery lists it.
struct Listed {
    name: &'static str,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    verbs: &'static [&'static str],
}

impl Discovery {
    /// From the table of kinds; `address` is where clients find the server.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let groups = group_names().into_iter().filter(|it| !it.is_empty());
        let groups: Vec<&'static str> = groups.collect();
        let group = groups.iter().map(|it| (*it, Document::new(&group(it, true), PLAIN)));
        let resources = group_versions().into_iter().map(|(group, version)| {
            ((group, version), Document::new(&resources(group, version), PLAIN))
        });
        let list: Vec<Value> = groups.iter().map(|it| self::group(it, false)).collect();
        Self {
            root: Document::new(&json!({"paths": paths(&groups)}), PLAIN),
            core: Document::new(&core_versions(address), PLAIN),
            core_aggregated: Document::new(&aggregated(&[""], "v2"), AGGREGATED),
            core_beta: Document::new(&aggregated(&[""], "v2beta1"), AGGREGATED_BETA),
            groups: Document::new(
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}),
                PLAIN,
            ),
            groups_aggregated: Document::new(&aggregated(&groups, "v2"), AGGREGATED),
            groups_beta: Document::new(&aggregated(&groups, "v2beta1"), AGGREGATED_BETA),
            group: group.collect(),
            resources: resources.collect(),
        }
    }

    /// `/`
    pub(crate) fn root(
        &self,
        encoding: Encoding,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        self.root.encoded(encoding, headers)
    }

    /// `/api`
    pub(crate) fn core(
        &self,
        wanted: (content::Discovery, Encoding),
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let document = match wanted.0 {
            content::Discovery::Plain => &self.core,
            content::Discovery::V2 => &self.core_aggregated,
            content::Discovery::V2Beta1 => &self.core_beta,
        };
        document.encoded(wanted.1, headers)
    }

    /// `/apis`
    pub(crate) fn groups(
        &self,
        wanted: (content::Discovery, Encoding),
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let document = match wanted.0 {
            content::Discovery::Plain => &self.groups,
            content::Discovery::V2 => &self.groups_aggregated,
            content::Discovery::V2Beta1 => &self.groups_beta,
        };
        document.encoded(wanted.1, headers)
    }

    /// `/apis/GROUP`
    pub(crate) fn group(
        &self,
        name: &str,
        encoding: Encoding,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        self.group.get(name).ok_or_else(Status::no_such_path)?.encoded(encoding, headers)
    }

    /// `/api/VERSION`, `/apis/GROUP/VERSION`
    pub(crate) fn resources(
        &self,
        group: &str,
        version: &str,
        encoding: Encoding,
        headers: &HeaderMap,
    ) -> Result<Response<Body>, Status> {
        let found = self.resources.iter().find(|(it, _)| **it == (group, version));
        found.ok_or_else(Status::no_such_path)?.1.encoded(encoding, headers)
    }
}

/// The groups of the table in its order, each once.
fn group_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for kind in KINDS {
        if !names.contains(&kind.group) {
            names.push(kind.group);
        }
    }
    names
}

/// The groups and versions of the table in its order, each once.
pub(super) fn group_versions() -> Vec<(&'static str, &'static str)> {
    let mut all = Vec::new();
    for kind in KINDS {
        if !all.contains(&(kind.group, kind.version)) {
            all.push((kind.group, kind.version));
        }
    }
    all
}

fn versions(group: &str) -> Vec<&'static str> {
    let of_group = group_versions().into_iter().filter(|(it, _)| *it == group);
    of_group.map(|(_, version)| version).collect()
}

fn kinds(group: &str, version: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().copied().filter(move |it| it.group == group && it.version == version)
}

fn core_versions(address: SocketAddr) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": versions(""),
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": address.to_string()},
        ],
    })
}

fn group(name: &str, alone: bool) -> Value {
    let entry =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions(name).into_iter().map(entry).collect();
    let mut group = json!({
        "name": name,
        "versions": versions,
        "preferredVersion": versions.first(),
    });
    if let (true, Some(group)) = (alone, group.as_object_mut()) {
        group.insert("kind".to_owned(), json!("APIGroup"));
        group.insert("apiVersion".to_owned(), json!("v1"));
    }
    group
}

fn listed(kind: &Kind, subresource: Subresource) -> Listed {
    let name = subresource.name();
    let of =
        |verbs| Listed { name, group: kind.group, version: kind.version, kind: kind.kind, verbs };
    match subresource {
        Subresource::Status
        | Subresource::Approval
        | Subresource::EphemeralContainers
        | Subresource::Resize => of(&["get", "patch", "update"]),
        Subresource::Finalize => of(&["update"]),
        Subresource::Log => of(&["get"]),
        Subresource::Proxy => Listed {
            kind: if kind.kind == "Pod" { "PodProxyOptions" } else { "ServiceProxyOptions" },
            ..of(&["create", "delete", "get", "patch", "update"])
        },
        Subresource::Binding => Listed { kind: "Binding", ..of(&["create"]) },
        Subresource::Eviction => Listed { group: "policy", kind: "Eviction", ..of(&["create"]) },
        Subresource::Scale => Listed {
            name,
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: &["get", "patch", "update"],
        },
    }
}

/// `APIResourceList`.
fn resources(group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in kinds(group, version) {
        let mut resource = json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs,
        });
        for (key, list) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
            if let (false, Some(map)) = (list.is_empty(), resource.as_object_mut()) {
                map.insert(key.to_owned(), json!(list));
            }
        }
        resources.push(resource);
        for it in kind.subresources.iter().map(|it| listed(kind, *it)) {
            let mut resource = json!({
                "name": format!("{}/{}", kind.plural, it.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": it.kind,
                "verbs": it.verbs,
            });
            if let (true, Some(map)) = (it.group != kind.group, resource.as_object_mut()) {
                map.insert("group".to_owned(), json!(it.group));
                map.insert("version".to_owned(), json!(it.version));
            }
            resources.push(resource);
        }
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    })
}

/// `APIGroupDiscoveryList`.
fn aggregated(groups: &[&str], version: &str) -> Value {
    let items = groups.iter().map(|group| {
        let versions = versions(group).into_iter().map(|version| {
            let resources: Vec<Value> = kinds(group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        });
        let versions: Vec<Value> = versions.collect();
        let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
        json!({"metadata": metadata, "versions": versions})
    });
    let items: Vec<Value> = items.collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let response = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    let subresources = kind.subresources.iter().map(|it| listed(kind, *it)).map(|it| {
        json!({
            "subresource": it.name,
            "responseKind": response(it.group, it.version, it.kind),
            "verbs": it.verbs,
        })
    });
    let lists = [
        ("shortNames", json!(kind.short_names)),
        ("categories", json!(kind.categories)),
        ("subresources", Value::Array(subresources.collect())),
    ];
    for (key, list) in lists {
        if let (true, Some(map)) = (list != json!([]), resource.as_object_mut()) {
            map.insert(key.to_owned(), list);
        }
    }
    resource
}
