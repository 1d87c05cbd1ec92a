//! What the API says about Services and their endpoints, indexed for who routes and who resolves.
//!
//! Kept current by the `services` loop; read by the name server. Decides nothing.

mod frontends;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use client::{Change, Key};
use k8s_openapi::api::{
    core::v1::{Node, Pod, Service, ServicePort},
    discovery::v1::{Endpoint, EndpointSlice},
};

use crate::{
    addresses::{Addresses, Subnet},
    family::IpFamily,
    host_ports,
    nft::Frontend,
};
pub(crate) use frontends::{frontends, transport};

/// On an EndpointSlice: the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// On a Node: where it stands.
const ZONE: &str = "topology.kubernetes.io/zone";
/// `spec.clusterIP` of a Service without a cluster address.
const HEADLESS: &str = "None";

/// Services, their EndpointSlices, and who has which address.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// The family of which addresses are indexed.
    family: IpFamily,
    addresses: Addresses,
    services: BTreeMap<Key, Arc<Service>>,
    slices: BTreeMap<Key, BTreeMap<String, Arc<EndpointSlice>>>,
    by_address: BTreeMap<Ipv4Addr, Key>,
    /// The Services that want to be reached there. The first by name is: only addresses from outside
    /// can be wanted by several.
    by_frontend: BTreeMap<Frontend, BTreeSet<Key>>,
    by_endpoint: BTreeMap<Ipv4Addr, BTreeMap<Key, usize>>,
    /// Pods by the ports of the host that lead to them. The first by name is: the scheduler lets no two
    /// have the same.
    host_ports: BTreeMap<Frontend, BTreeMap<Key, SocketAddrV4>>,
    /// Nodes by the part of the range that their pods have. One that was deleted is kept: its pods run
    /// still, and it may come back.
    nodes: BTreeMap<u8, Place>,
}

/// Where pods run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name of the Node.
    pub(crate) name: String,
    pub(crate) zone: Option<String>,
}

/// A directory with one writer and many readers, none of which waits while holding it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(Arc<RwLock<Directory>>);

impl Shared {
    /// `addresses` as the family has them.
    pub(crate) fn new(family: IpFamily, addresses: Addresses) -> Self {
        Self(Arc::new(RwLock::new(Directory { family, addresses, ..Directory::default() })))
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Directory> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Directory> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    /// Takes a change in; adds where the Service was and is reached to `dirty`.
    pub(crate) fn service_changed(
        &mut self,
        change: Change<Service>,
        dirty: &mut BTreeSet<Frontend>,
    ) {
        let Change { key, new, .. } = change;
        let old = match &new {
            Some(service) => self.services.insert(key.clone(), Arc::clone(service)),
            None => self.services.remove(&key),
        };
        if let Some(old) = old {
            if let Some(address) =
                self.family.cluster_ip(&old).filter(|it| self.by_address.get(it) == Some(&key))
            {
                self.by_address.remove(&address);
            }
            for (frontend, _) in frontends(&old, self.family, &self.addresses) {
                dirty.insert(frontend);
                let wanting = self.by_frontend.entry(frontend).or_default();
                wanting.remove(&key);
                if wanting.is_empty() {
                    self.by_frontend.remove(&frontend);
                }
            }
        }
        if let Some(new) = new {
            for (frontend, _) in frontends(&new, self.family, &self.addresses) {
                dirty.insert(frontend);
                self.by_frontend.entry(frontend).or_default().insert(key.clone());
            }
            if let Some(address) = self.family.cluster_ip(&new) {
                self.by_address.insert(address, key);
            }
        }
    }

    /// Takes a change in; adds where Services are reached that it may concern to `dirty`.
    pub(crate) fn slice_changed(
        &mut self,
        change: &Change<EndpointSlice>,
        dirty: &mut BTreeSet<Frontend>,
    ) {
        for owner in change.both().filter_map(service_of) {
            if let Some(old) = self.remove_slice(&owner, &change.key.name) {
                self.count_endpoints(&owner, &old, Counting::Down);
            }
            let service = self.services.get(&owner).into_iter();
            dirty.extend(
                service
                    .flat_map(|it| frontends(it, self.family, &self.addresses))
                    .map(|(it, _)| it),
            );
        }
        let Some(slice) = &change.new else { return };
        let Some(owner) = service_of(slice) else { return };
        self.count_endpoints(&owner, slice, Counting::Up);
        let slices = self.slices.entry(owner).or_default();
        slices.insert(change.key.name.clone(), Arc::clone(slice));
    }

    fn remove_slice(&mut self, owner: &Key, name: &str) -> Option<Arc<EndpointSlice>> {
        let slices = self.slices.get_mut(owner)?;
        let removed = slices.remove(name);
        if slices.is_empty() {
            self.slices.remove(owner);
        }
        removed
    }

    fn count_endpoints(&mut self, owner: &Key, slice: &EndpointSlice, counting: Counting) {
        let family = self.family;
        let all = endpoints(slice).flat_map(|it| addresses_of(family, it));
        for address in all {
            let owners = self.by_endpoint.entry(address).or_default();
            let count = owners.entry(owner.clone()).or_default();
            *count = match counting {
                Counting::Up => *count + 1,
                Counting::Down => count.saturating_sub(1),
            };
            if *count == 0 {
                owners.remove(owner);
            }
            if owners.is_empty() {
                self.by_endpoint.remove(&address);
            }
        }
    }

    /// Takes a change in; adds where the pod was and is reached at the node's address to `dirty`.
    pub(crate) fn pod_changed(&mut self, change: &Change<Pod>, dirty: &mut BTreeSet<Frontend>) {
        self.host_ports.retain(|at, pods| {
            if pods.remove(&change.key).is_some() {
                dirty.insert(*at);
            }
            !pods.is_empty()
        });
        let Some(pod) = &change.new else { return };
        for (at, target) in host_ports::frontends(pod, self.addresses.gateway()) {
            dirty.insert(at);
            self.host_ports.entry(at).or_default().insert(change.key.clone(), target);
        }
    }

    /// Takes a change in; adds all where Services are reached to `dirty` if it may matter to some.
    pub(crate) fn node_changed(&mut self, change: &Change<Node>, dirty: &mut BTreeSet<Frontend>) {
        let Some((number, place)) = change.new.as_deref().and_then(|it| self.place_of(it)) else {
            return;
        };
        if self.nodes.insert(number, place.clone()) != Some(place) {
            dirty.extend(self.by_frontend.keys());
        }
    }

    fn place_of(&self, node: &Node) -> Option<(u8, Place)> {
        let part: Subnet = node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()?;
        let number = self.addresses.node_of_part(part.address)?;
        let zone = node.metadata.labels.as_ref().and_then(|it| it.get(ZONE)).cloned();
        Some((number, Place { name: node.metadata.name.clone()?, zone }))
    }

    /// The nodes, by the part of the range that their pods have.
    pub(crate) fn nodes(&self) -> &BTreeMap<u8, Place> {
        &self.nodes
    }

    /// The pod that is reached there by a port of the host.
    pub(crate) fn host_port_at(&self, at: Frontend) -> Option<SocketAddrV4> {
        self.host_ports.get(&at)?.values().next().copied()
    }

    pub(crate) fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key).map(|it| &**it)
    }

    /// The EndpointSlices of a Service, by name.
    pub(crate) fn slices(&self, key: &Key) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.get(key).into_iter().flat_map(BTreeMap::values).map(|it| &**it)
    }

    /// The Service whose cluster address this is.
    pub(crate) fn service_at(&self, address: Ipv4Addr) -> Option<(&Key, &Service)> {
        let key = self.by_address.get(&address)?;
        Some((key, self.service(key)?))
    }

    /// The Service, and its port, that is reached there.
    pub(crate) fn reached_at(&self, at: Frontend) -> Option<(&Key, &Service, &ServicePort)> {
        let key = self.by_frontend.get(&at)?.first()?;
        let service = self.service(key)?;
        let mut frontends = frontends(service, self.family, &self.addresses).into_iter();
        frontends.find_map(|(it, port)| (it == at).then_some((key, service, port)))
    }

    /// Where all Services and pods with ports of the host are reached.
    pub(crate) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.by_frontend.keys().chain(self.host_ports.keys()).copied()
    }

    /// The Services that have an endpoint with this address.
    pub(crate) fn services_with_endpoint(&self, address: Ipv4Addr) -> impl Iterator<Item = &Key> {
        self.by_endpoint.get(&address).into_iter().flat_map(BTreeMap::keys)
    }

    /// Whether a namespace has a Service.
    pub(crate) fn has_service_in(&self, namespace: &str) -> bool {
        let first = Key::namespaced(namespace, "");
        let next = self.services.range(first..).next();
        next.is_some_and(|(key, _)| key.namespace.as_deref() == Some(namespace))
    }
}

#[derive(Clone, Copy, Debug)]
enum Counting {
    Up,
    Down,
}

/// Whether a Service has no cluster address by its own wish.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|it| it.cluster_ip.as_deref()) == Some(HEADLESS)
}

/// The endpoints in a slice.
pub(crate) fn endpoints(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    slice.endpoints.iter().flatten()
}

/// The addresses of an endpoint that are of a family.
pub(crate) fn addresses_of(
    family: IpFamily,
    endpoint: &Endpoint,
) -> impl Iterator<Item = Ipv4Addr> {
    endpoint.addresses.iter().filter_map(move |it| family.parse(it))
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let namespace = slice.metadata.namespace.clone()?;
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(Key::namespaced(namespace, name))
}
