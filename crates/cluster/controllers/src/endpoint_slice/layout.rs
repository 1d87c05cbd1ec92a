//! How endpoints are laid out in slices, and the slices written.
//!
//! Endpoints stay in the slice they are in, so that a change of one of them rewrites one slice.

use std::{collections::BTreeMap, sync::Arc};

use client::{Api, Cache, DeleteParams, PostParams, Preconditions};
use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

/// One step, safe to repeat.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(Arc<EndpointSlice>),
}

/// Slices of one kind hold endpoints of one address type with the same ports.
type Group = (&'static str, String);

/// All endpoints, by kind of slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups(BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)>);

impl Groups {
    pub(crate) fn add(&mut self, kind: &'static str, ports: Vec<EndpointPort>, of: Endpoint) {
        let group = self.0.entry((kind, group_key(&ports))).or_insert((ports, Vec::new()));
        group.1.push(of);
    }

    /// Without endpoints one empty slice shows that somebody cares.
    pub(crate) fn show(&mut self, kind: &'static str) {
        if !self.0.keys().any(|(of, _)| *of == kind) {
            self.0.insert((kind, group_key(&[])), (Vec::new(), Vec::new()));
        }
    }

    /// What makes `slices` have the endpoints, at most `endpoints_max` in each. They get the labels and
    /// owners in `metadata`, and the annotations if it has some.
    pub(crate) fn lay_out(
        &self,
        metadata: &ObjectMeta,
        slices: &[Arc<EndpointSlice>],
        endpoints_max: usize,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for (group, (ports, endpoints)) in &self.0 {
            let mine: Vec<_> =
                slices.iter().filter(|it| is_in(it, group)).map(Arc::clone).collect();
            let kind = Kind { metadata, address_type: group.0, ports };
            actions.extend(kind.lay_out(endpoints, &mine, endpoints_max));
        }
        let orphans = slices.iter().filter(|it| !self.0.keys().any(|group| is_in(it, group)));
        actions.extend(orphans.map(|it| Action::Delete(Arc::clone(it))));
        actions
    }
}

/// Writes a step, and waits until the cache has heard of it.
pub(crate) async fn act(
    slices: &Api<EndpointSlice>,
    cache: &Cache<EndpointSlice>,
    action: &Action,
) -> Result<(), client::Error> {
    let params = PostParams::default();
    let written = match action {
        Action::Create(slice) => slices.create(&params, slice).await?,
        Action::Update(slice) => {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            slices.replace(name, &params, slice).await?
        }
        Action::Delete(slice) => {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let preconditions = Some(Preconditions {
                uid: slice.metadata.uid.clone(),
                resource_version: slice.metadata.resource_version.clone(),
            });
            let params = DeleteParams { preconditions, ..Default::default() };
            match slices.delete(name, &params).await {
                Err(error) if !client::is_not_found(&error) => return Err(error),
                _ => return Ok(()),
            }
        }
    };
    let revision = written.metadata.resource_version.as_deref().unwrap_or_default();
    if let Err(error) = cache.reached(revision).await {
        tracing::warn!(%error, "going on without");
    }
    Ok(())
}

fn group_key(ports: &[EndpointPort]) -> String {
    serde_json::to_string(ports).unwrap_or_default()
}

fn is_in(slice: &EndpointSlice, (kind, ports): &Group) -> bool {
    slice.address_type == *kind && group_key(slice.ports.as_deref().unwrap_or_default()) == *ports
}

/// What slices of one kind have in common.
struct Kind<'a> {
    metadata: &'a ObjectMeta,
    address_type: &'static str,
    ports: &'a [EndpointPort],
}

impl Kind<'_> {
    fn lay_out(
        &self,
        endpoints: &[Endpoint],
        slices: &[Arc<EndpointSlice>],
        endpoints_max: usize,
    ) -> Vec<Action> {
        let mut wanted: BTreeMap<(&str, &str), &Endpoint> =
            endpoints.iter().map(|it| (identity(it), it)).collect();
        // What is in a slice already stays there, brought up to date.
        let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let old = slice.endpoints.iter().flatten();
            let stay = old.filter_map(|it| wanted.remove(&identity(it))).cloned().collect();
            kept.push((Arc::clone(slice), stay));
        }
        // The others go first where there is room, then into new slices.
        let mut rest = wanted.into_values().cloned();
        for (_, endpoints) in &mut kept {
            let room = endpoints_max.saturating_sub(endpoints.len());
            endpoints.extend(rest.by_ref().take(room));
        }
        let mut fresh: Vec<Vec<Endpoint>> = Vec::new();
        let rest: Vec<Endpoint> = rest.collect();
        fresh.extend(rest.chunks(endpoints_max.max(1)).map(<[_]>::to_vec));
        if kept.is_empty() && fresh.is_empty() {
            fresh.push(Vec::new());
        }
        let keep_one_empty = fresh.is_empty() && kept.iter().all(|(_, it)| it.is_empty());
        let mut actions = Vec::new();
        for (index, (old, endpoints)) in kept.into_iter().enumerate() {
            if endpoints.is_empty() && !(keep_one_empty && index == 0) {
                actions.push(Action::Delete(old));
                continue;
            }
            let new = self.filled((*old).clone(), endpoints);
            if !same(&new, &old) {
                actions.push(Action::Update(Box::new(new)));
            }
        }
        let create = |it| Action::Create(Box::new(self.filled(EndpointSlice::default(), it)));
        actions.extend(fresh.into_iter().map(create));
        actions
    }

    /// The slice as it should be.
    fn filled(&self, old: EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let ObjectMeta { generate_name, namespace, labels, annotations, owner_references, .. } =
            self.metadata.clone();
        let annotations = match annotations {
            Some(annotations) => Some(annotations).filter(|it| !it.is_empty()),
            None => old.metadata.annotations,
        };
        let generate_name = old.metadata.generate_name.or(generate_name);
        let metadata = ObjectMeta {
            generate_name,
            namespace,
            labels,
            annotations,
            owner_references,
            ..old.metadata
        };
        EndpointSlice {
            metadata,
            address_type: self.address_type.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(self.ports.to_vec()),
        }
    }
}

/// Whether writing `new` over `old` would change nothing. An empty list may come back as none.
fn same(new: &EndpointSlice, old: &EndpointSlice) -> bool {
    fn list<T>(it: Option<&Vec<T>>) -> &[T] {
        it.map_or(&[], Vec::as_slice)
    }
    new.metadata == old.metadata
        && list(new.endpoints.as_ref()) == list(old.endpoints.as_ref())
        && list(new.ports.as_ref()) == list(old.ports.as_ref())
}

/// What makes an endpoint the same one: its pod and its address.
fn identity(endpoint: &Endpoint) -> (&str, &str) {
    let uid = endpoint.target_ref.as_ref().and_then(|it| it.uid.as_deref());
    let address = endpoint.addresses.first().map(String::as_str);
    (uid.unwrap_or_default(), address.unwrap_or_default())
}
