//! Which objects belong together, as Kubernetes' ApplySets say it (KEP-3659): every object of a set has a
//! label with the set's id, and a ConfigMap, the set's parent, says which kinds and namespaces to look in.
//!
//! The parent is widened before anything is applied and narrowed when all that is to go has gone. So it
//! never says too little, wherever in between this program was killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};
use api::link;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use client::Client;
use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{ListParams, PostParams},
    core::ApiResource,
    discovery,
    error::DiscoveryError,
};
use ring::digest;
use serde_json::{Value, json};

use crate::{
    apply::{self, FIELD_MANAGER, Target},
    manifest::Object,
    procfile,
    prune::{self, GroupKind, Named, Present},
};

/// On a member: the id of its set.
pub(crate) const PART_OF: &str = "applyset.kubernetes.io/part-of";

/// On a parent: the id of its set.
const ID: &str = "applyset.kubernetes.io/id";

/// On a parent: which program may change it, as `NAME/VERSION`.
const TOOLING: &str = "applyset.kubernetes.io/tooling";

/// On a parent: the kinds that its members may be of.
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";

/// On a parent: the namespaces besides its own that its members may be in.
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";

/// How `TOOLING` begins on ours.
const TOOL: &str = "coracle/";

/// Where our parents are: it is always there, and nobody's to delete.
const NAMESPACE: &str = "kube-system";

/// How the names of our parents begin.
const PREFIX: &str = "coracle-up-";

/// In the parent: what the set was made from, for people.
const ORIGIN: &str = "origin";

/// In the parent: the names of the links that came with the objects.
const LINKS: &str = "links";

/// So much of the name of a folder is in the name of its set: it tells them apart for people.
const STEM_MAX: usize = 30;

/// So many digits of a path's hash are in the name of its set: two of a million paths are the same with a
/// probability of one in two million.
const HASH_DIGITS: usize = 15;

/// How often a write is tried when somebody else always writes in between.
const TRIES_MAX: usize = 5;

/// What belongs together: what one path, or one name that the user gave, means to one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set {
    /// Name of its parent.
    name: String,
    /// What it was made from.
    origin: String,
}

impl Set {
    /// The set of what `path` holds; that of `name`, if there is one. None for standard input without a name:
    /// nothing says what came from there before.
    pub(crate) fn of(path: &Path, name: Option<&str>) -> anyhow::Result<Option<Self>> {
        if let Some(name) = name {
            return Ok(Some(Self { name: format!("{PREFIX}{name}"), origin: name.to_owned() }));
        }
        if path == Path::new("-") {
            return Ok(None);
        }
        let mut path = path.canonicalize().with_context(|| format!("find `{}`", path.display()))?;
        // A folder and the Procfile that it means are one thing.
        if let Some(folder) = path.parent().filter(|_| path.is_file())
            && procfile::find(folder)?.is_some_and(|it| it == path)
        {
            path = folder.to_owned();
        }
        let hash = digest::digest(&digest::SHA256, path.as_os_str().as_bytes());
        let hash: String = hash.as_ref().iter().map(|it| format!("{it:02x}")).collect();
        let hash = hash.get(..HASH_DIGITS).unwrap_or_default();
        let stem = stem(&path);
        // No name that a user may give has a dot.
        Ok(Some(Self {
            name: format!("{PREFIX}{stem}.{hash}"),
            origin: path.display().to_string(),
        }))
    }

    /// The id of the set, as the KEP computes it of the parent.
    pub(crate) fn id(&self) -> String {
        let parent = format!("{}.{NAMESPACE}.ConfigMap.", self.name);
        let hash = digest::digest(&digest::SHA256, parent.as_bytes());
        format!("applyset-{}-v1", BASE64_URL_SAFE_NO_PAD.encode(hash))
    }

    /// Makes the parent, or widens it to what `objects` and `links` are, and finds out what is there.
    pub(crate) async fn open(
        self,
        client: &Client,
        objects: &[Object],
        links: BTreeSet<String>,
    ) -> anyhow::Result<Open> {
        let mut wanted = Contents { links, ..Contents::default() };
        for object in objects {
            let group = object.api_version().split_once('/').map_or("", |it| it.0).to_owned();
            wanted.kinds.insert(GroupKind { kind: object.kind().to_owned(), group });
            wanted.namespaces.insert(object.namespace().unwrap_or("default").to_owned());
        }
        let before = self.widen(client, &wanted).await?;
        let mut open = Open {
            id: self.id(),
            set: self,
            resources: BTreeMap::new(),
            present: Vec::new(),
            gone: Vec::new(),
            stale: before.links.difference(&wanted.links).cloned().collect(),
            links: wanted.links,
        };
        for kind in before.kinds {
            open.look(client, kind).await?;
        }
        Ok(open)
    }

    /// Has the parent say no less than `wanted`. Gives what it said before.
    async fn widen(&self, client: &Client, wanted: &Contents) -> anyhow::Result<Contents> {
        let what = || format!("keep what belongs together in {self}");
        for _ in 0..TRIES_MAX {
            let parent = self.parent(client).await?;
            let before = parent.as_ref().map(Contents::of).unwrap_or_default();
            let wider = before.with(wanted);
            if parent.is_some() && wider == before {
                return Ok(before);
            }
            match self.write(client, parent, &wider).await {
                Err(error) if is_code(&error, StatusCode::CONFLICT) => {}
                done => return done.map(|()| before).with_context(what),
            }
        }
        bail!("{}: another `coracle up` changes it all the time: run it again", what())
    }

    /// Has the parent say `contents` and no more, unless somebody else widens it meanwhile.
    async fn narrow(&self, client: &Client, contents: &Contents) -> anyhow::Result<()> {
        let Some(parent) = self.parent(client).await? else {
            return self.widen(client, contents).await.map(drop);
        };
        if Contents::of(&parent) == *contents {
            return Ok(());
        }
        match self.write(client, Some(parent), contents).await {
            Err(error) if is_code(&error, StatusCode::CONFLICT) => {
                self.widen(client, contents).await.map(drop)
            }
            done => done.with_context(|| format!("say what belongs together in {self}")),
        }
    }

    async fn parent(&self, client: &Client) -> anyhow::Result<Option<ConfigMap>> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let parent = api.get_opt(&self.name).await.with_context(|| format!("read {self}"))?;
        let Some(parent) = parent else { return Ok(None) };
        let none = BTreeMap::new();
        let tooling = parent.metadata.annotations.as_ref().unwrap_or(&none).get(TOOLING);
        if !tooling.is_some_and(|it| it.starts_with(TOOL)) {
            let tooling = tooling.map_or("nobody", String::as_str);
            bail!("{self} is kept by {tooling}, not by coracle: delete it, or give --part-of");
        }
        Ok(Some(parent))
    }

    /// Writes the parent, with the version of the one that was read.
    async fn write(
        &self,
        client: &Client,
        parent: Option<ConfigMap>,
        contents: &Contents,
    ) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let is_new = parent.is_none();
        let mut parent = parent.unwrap_or_default();
        let metadata = &mut parent.metadata;
        metadata.name = Some(self.name.clone());
        metadata.labels.get_or_insert_default().insert(ID.to_owned(), self.id());
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(TOOLING.to_owned(), format!("{TOOL}{}", env!("CARGO_PKG_VERSION")));
        annotations.insert(KINDS.to_owned(), contents.kinds_text());
        annotations.insert(NAMESPACES.to_owned(), contents.namespaces_text());
        let data = parent.data.get_or_insert_default();
        data.insert(ORIGIN.to_owned(), self.origin.clone());
        data.insert(LINKS.to_owned(), contents.links_text());
        if is_new {
            api.create(&parameters, &parent).await.map(drop)
        } else {
            api.replace(&self.name, &parameters, &parent).await.map(drop)
        }
    }

    /// What other sets say, with the names of their parents.
    async fn others(&self, client: &Client) -> anyhow::Result<Vec<(String, Contents)>> {
        let api: Api<ConfigMap> = Api::all(client.clone());
        let parents = api.list(&ListParams::default().labels(ID)).await;
        let parents = parents.context("list the other sets")?.items.into_iter();
        let named = parents.map(|it| (it.metadata.name.clone().unwrap_or_default(), it));
        let others = named.filter(|(name, _)| *name != self.name);
        Ok(others.map(|(name, it)| (name, Contents::of(&it))).collect())
    }
}

impl std::fmt::Display for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "configmap/{} in {NAMESPACE}", self.name)
    }
}

/// The last part of a path, as part of an object's name.
fn stem(path: &Path) -> String {
    let last = path.file_name().map(|it| it.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain = last.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' });
    let plain: String = plain.take(STEM_MAX).collect();
    match plain.trim_matches('-') {
        "" => "root".to_owned(),
        stem => stem.to_owned(),
    }
}

/// What a parent says of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    kinds: BTreeSet<GroupKind>,
    namespaces: BTreeSet<String>,
    /// Names of links, which are no objects.
    links: BTreeSet<String>,
}

impl Contents {
    fn of(parent: &ConfigMap) -> Self {
        let none = BTreeMap::new();
        let annotations = parent.metadata.annotations.as_ref().unwrap_or(&none);
        let data = parent.data.as_ref().unwrap_or(&none);
        let words = |text: Option<&String>| {
            let words = text.map_or("", String::as_str).split(',');
            words.filter(|it| !it.is_empty()).map(str::to_owned).collect::<BTreeSet<String>>()
        };
        let kinds = words(annotations.get(KINDS));
        Self {
            kinds: kinds.iter().map(|it| GroupKind::parse(it)).collect(),
            namespaces: words(annotations.get(NAMESPACES)),
            links: words(data.get(LINKS)),
        }
    }

    fn with(&self, more: &Self) -> Self {
        let own = |it: &&String| *it != NAMESPACE;
        Self {
            kinds: self.kinds.union(&more.kinds).cloned().collect(),
            namespaces: self.namespaces.union(&more.namespaces).filter(own).cloned().collect(),
            links: self.links.union(&more.links).cloned().collect(),
        }
    }

    fn kinds_text(&self) -> String {
        let mut kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        kinds.sort();
        kinds.join(",")
    }

    fn links_text(&self) -> String {
        self.links.iter().map(String::as_str).collect::<Vec<&str>>().join(",")
    }

    fn namespaces_text(&self) -> String {
        self.namespaces.iter().map(String::as_str).collect::<Vec<&str>>().join(",")
    }
}

/// A set that is being applied.
#[derive(Debug)]
pub(crate) struct Open {
    set: Set,
    /// What the label of its members says.
    pub(crate) id: String,
    /// What was there before.
    present: Vec<Present>,
    resources: BTreeMap<GroupKind, ApiResource>,
    /// Kinds of earlier members that the API no longer has.
    gone: Vec<GroupKind>,
    /// Names of its links.
    links: BTreeSet<String>,
    /// Names of links that it had and has no more.
    stale: BTreeSet<String>,
}

impl Open {
    /// Finds out what of a kind is there.
    async fn look(&mut self, client: &Client, kind: GroupKind) -> anyhow::Result<()> {
        let Some(resource) = resource(client, &kind).await? else {
            self.gone.push(kind);
            return Ok(());
        };
        let all = Target::new(resource.clone(), None, String::new());
        let url = format!("{}?labelSelector={PART_OF}%3D{}", all.collection(), self.id);
        let list = apply::send(client, Method::GET, &url, None).await;
        let list = list.with_context(|| format!("list each {kind} of {}", self.set))?;
        let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
        self.present.extend(items.map(|it| present(&kind, it)));
        self.resources.insert(kind, resource);
        Ok(())
    }

    /// Deletes what was there before and is not among what was `applied`. Gives lines of what was done.
    pub(crate) async fn prune(
        &self,
        client: &Client,
        applied: &[Named],
    ) -> anyhow::Result<Vec<String>> {
        let none = BTreeMap::new();
        let mut decision = prune::decide(&self.id, &self.present, applied, &none);
        if !self.stale.is_empty() || decision.delete.iter().any(|it| it.kind.is_namespace()) {
            let others = self.set.others(client).await?;
            self.unlink(client, &others).await?;
            let namespaces = others.into_iter().flat_map(|(name, it)| {
                it.namespaces.into_iter().map(move |namespace| (namespace, name.clone()))
            });
            decision = prune::decide(&self.id, &self.present, applied, &namespaces.collect());
        }
        let gone = self.gone.iter();
        let mut lines: Vec<String> = gone
            .map(|it| format!("this cluster has no kind {it} any more: none is left to delete"))
            .collect();
        let mut errors = Vec::new();
        for object in &decision.delete {
            match self.delete(client, object).await {
                Ok(true) => lines.push(format!("{object} deleted")),
                Ok(false) => {}
                Err(error) => errors.push(format!("  {error:#}")),
            }
        }
        lines.extend(decision.keep.iter().map(|(it, why)| format!("{it} stays: {why}")));
        if !errors.is_empty() {
            lines.push("error: not all that is gone from the manifests was deleted:".to_owned());
            lines.append(&mut errors);
            bail!(lines.join("\n"));
        }
        let left = applied.iter().chain(decision.keep.iter().map(|(it, _)| it));
        let mut contents = Contents { links: self.links.clone(), ..Contents::default() };
        for it in left {
            contents.kinds.insert(it.kind.clone());
            contents.namespaces.extend(it.namespace.clone().filter(|it| it != NAMESPACE));
        }
        self.set.narrow(client, &contents).await?;
        Ok(lines)
    }

    /// Takes away the links that are gone, but for those that another set has, too.
    async fn unlink(&self, client: &Client, others: &[(String, Contents)]) -> anyhow::Result<()> {
        let mut stale = self.stale.clone();
        stale.retain(|name| !others.iter().any(|(_, it)| it.links.contains(name)));
        if stale.is_empty() {
            return Ok(());
        }
        let nothing: BTreeMap<&String, Value> = stale.iter().map(|it| (it, Value::Null)).collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": link::CONFIG_MAP, "namespace": link::NAMESPACE},
            "data": nothing,
        });
        apply::merge(client, &object).await.context("take away the links that are gone")
    }

    /// Deletes one object, unless it is gone or somebody else's by now: then gives false.
    async fn delete(&self, client: &Client, object: &Named) -> anyhow::Result<bool> {
        let resource = self.resources.get(&object.kind);
        let resource = resource.with_context(|| format!("a resource of {}", object.kind))?;
        let target = Target::new(resource.clone(), object.namespace.clone(), object.name.clone());
        let what = || format!("delete {object}, which is gone from the manifests");
        for _ in 0..TRIES_MAX {
            let now = match apply::send(client, Method::GET, &target.item(), None).await {
                Err(error) if is_code(&error, StatusCode::NOT_FOUND) => return Ok(false),
                now => now.with_context(what)?,
            };
            let version = now.pointer("/metadata/resourceVersion").cloned();
            let now = present(&object.kind, &now);
            if now.object != *object || !now.is_member(&self.id) {
                return Ok(false);
            }
            let options = json!({
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {"uid": object.uid, "resourceVersion": version},
                "propagationPolicy": "Background",
            });
            let body = Some(("application/json", &options));
            match apply::send(client, Method::DELETE, &target.item(), body).await {
                Err(error) if is_code(&error, StatusCode::NOT_FOUND) => return Ok(false),
                Err(error) if is_code(&error, StatusCode::CONFLICT) => {}
                done => return done.map(|_| true).with_context(what),
            }
        }
        bail!("{}: it changes all the time: run `coracle up` again", what())
    }
}

/// Finds out how the API calls a kind, in whichever version; None if it has no such kind.
async fn resource(client: &Client, kind: &GroupKind) -> anyhow::Result<Option<ApiResource>> {
    let group = match discovery::group(client, &kind.group).await {
        Err(kube::Error::Discovery(DiscoveryError::MissingApiGroup(_))) => return Ok(None),
        group => group.with_context(|| format!("look up kind {kind}"))?,
    };
    let resources = group.resources_by_stability().into_iter();
    Ok(resources.map(|(it, _)| it).find(|it| it.kind == kind.kind))
}

/// An object as the API gives it.
fn present(kind: &GroupKind, object: &Value) -> Present {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let metadata = |of: &str, key: &str| {
        let value = object.pointer("/metadata")?.get(of)?.get(key)?;
        value.as_str().map(str::to_owned)
    };
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut owners = owners.into_iter().flatten();
    Present {
        object: Named {
            kind: kind.clone(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name").unwrap_or_default(),
            uid: text("/metadata/uid").unwrap_or_default(),
        },
        part_of: metadata("labels", PART_OF),
        remembers: metadata("annotations", apply::LAST_APPLIED).is_some(),
        controlled: owners.any(|it| it.get("controller") == Some(&Value::Bool(true))),
        leaving: text("/metadata/deletionTimestamp").is_some(),
    }
}

fn is_code(error: &kube::Error, code: StatusCode) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code.as_u16())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn set(path: &Path) -> Set {
        Set::of(path, None).unwrap().unwrap()
    }

    /// As kubectl computes it of a parent of that name.
    #[test]
    fn the_id_is_the_hash_of_the_parent() {
        let set = Set::of(Path::new("-"), Some("shop")).unwrap().unwrap();
        assert_eq!(set.name, "coracle-up-shop");
        assert_eq!(set.id(), "applyset-1DfzFvNAq7qHGuBht0EGi0ACpoGrD--Eq3tSfz8JcD0-v1");
    }

    #[test]
    fn each_path_is_a_set_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("My App"), folder.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        assert!(set(&a).name.starts_with("coracle-up-my-app."), "{}", set(&a).name);
        assert_ne!(set(&a).id(), set(&b).id());
        assert_eq!(set(&a), set(&b.join("../My App/.")));
        assert_eq!(set(&a).origin, a.canonicalize().unwrap().display().to_string());
        assert_eq!(Set::of(Path::new("-"), None).unwrap(), None);
        fs::write(b.join("Procfile"), "web: node web.js\n").unwrap();
        assert_eq!(set(&b), set(&b.join("Procfile")));
        fs::write(b.join("web.yaml"), "").unwrap();
        assert_ne!(set(&b), set(&b.join("Procfile")));
        assert_ne!(set(&b), set(&b.join("web.yaml")));
    }

    #[test]
    fn a_parent_says_what_is_read_from_it() {
        let kinds = ["Secret", "Deployment.apps"].into_iter().map(GroupKind::parse).collect();
        let namespaces = ["b", "a"].into_iter().map(str::to_owned).collect();
        let links = ["web", "api"].into_iter().map(str::to_owned).collect();
        let contents = Contents { kinds, namespaces, links };
        let annotations =
            json!({KINDS: contents.kinds_text(), NAMESPACES: contents.namespaces_text()});
        let parent = json!({
            "metadata": {"annotations": annotations},
            "data": {LINKS: contents.links_text()},
        });
        assert_eq!(contents.kinds_text(), "Deployment.apps,Secret");
        assert_eq!(contents.namespaces_text(), "a,b");
        assert_eq!(contents.links_text(), "api,web");
        assert_eq!(Contents::of(&serde_json::from_value(parent).unwrap()), contents);
        assert_eq!(Contents::of(&ConfigMap::default()), Contents::default());
    }
}
