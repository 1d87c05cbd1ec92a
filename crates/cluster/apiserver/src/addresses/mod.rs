//! Cluster IPs and node ports of Services: given out on create, kept over updates, taken back on
//! delete. In memory; at start they are read from the stored Services.

mod pool;

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::status::Status;
use serde_json::{Value, json};

use self::pool::Pool;
use crate::{
    bootstrap,
    kinds::{Causes, KINDS, Kind},
    object::{self, at, meta, text},
    registry::keys,
};

/// Ports for NodePort Services. Kubernetes' default.
const NODE_PORTS: std::ops::RangeInclusive<u32> = 30_000..=32_767;

/// The first addresses of the range are given out only on request, so that well-known ones (the
/// API's, DNS's, those in manifests) do not clash with given ones (KEP-3070).
const STATIC_BAND: u32 = 256;

/// The IPv4 range of cluster IPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    /// First address of the range, which is not given out.
    pub network: Ipv4Addr,
    /// Length of the prefix, at most 24.
    pub prefix: u8,
}

impl Default for ServiceRange {
    /// `10.96.0.0/16`.
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 }
    }
}

impl ServiceRange {
    /// The range that a store's Services have their addresses from, if a cluster was ever made of it.
    #[must_use]
    pub fn of(store: &store::Store) -> Option<Self> {
        let kind = KINDS.iter().find(|it| it.kind == "ServiceCIDR")?;
        let entry = store.get(&keys::object(kind, "", bootstrap::NAME))?;
        let object = object::parse(&entry.value).ok()?;
        let cidr = at(&object, &["spec", "cidrs"])?.get(0)?.as_str()?;
        let (network, prefix) = cidr.split_once('/')?;
        Some(Self { network: network.parse().ok()?, prefix: prefix.parse().ok()? })
    }

    /// The address `offset` after the network's own: 1 is the API's, 10 DNS's.
    #[must_use]
    pub fn address(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().wrapping_add(offset))
    }
}

/// What is given out.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: ServiceRange,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ips: Pool,
    ports: Pool,
}

/// What one Service has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owned {
    ips: BTreeSet<u32>,
    ports: BTreeSet<u32>,
}

/// Addresses taken for a write that is not done yet. Dropped without [`Reserved::keep`], they are
/// given back.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    addresses: &'a Addresses,
    /// Taken for this write.
    taken: Owned,
    /// No longer needed after it.
    left: Owned,
}

impl Reserved<'_> {
    /// The write is done.
    pub(crate) fn keep(mut self) {
        self.taken = Owned::default();
        let left = std::mem::take(&mut self.left);
        self.addresses.give_back(&left);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.addresses.give_back(&self.taken);
    }
}

impl Addresses {
    pub(crate) fn new(range: ServiceRange) -> Self {
        let first = range.network.to_bits();
        let size = 1_u32 << 32_u32.saturating_sub(u32::from(range.prefix)).min(31);
        // Neither the network's own address nor the broadcast address is given out.
        let ips = Pool::new(first + 1..=first + size - 2, STATIC_BAND.min(size / 2) - 1);
        Self { range, state: Mutex::new(State { ips, ports: Pool::new(NODE_PORTS, 0) }) }
    }

    /// Learns what a stored Service has.
    pub(crate) fn adopt(&self, service: &Value) {
        let owned = owned(service);
        let mut state = self.lock();
        for ip in owned.ips {
            state.ips.take(ip);
        }
        for port in owned.ports {
            state.ports.take(port);
        }
    }

    /// Gives a Service what it needs and does not have; anything else needs nothing.
    pub(crate) fn reserve(
        &self,
        kind: &Kind,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<Reserved<'_>, Status> {
        let mut reserved =
            Reserved { addresses: self, taken: Owned::default(), left: Owned::default() };
        if !is_service(kind) {
            return Ok(reserved);
        }
        let before = old.map(owned).unwrap_or_default();
        let mut causes = Causes::default();
        self.reserve_ip(new, &before, &mut reserved.taken, &mut causes);
        self.reserve_ports(new, &before, &mut reserved.taken, &mut causes);
        kind.refuse(meta(new, "name"), &causes)?;
        let after = owned(new);
        reserved.left = Owned {
            ips: before.ips.difference(&after.ips).copied().collect(),
            ports: before.ports.difference(&after.ports).copied().collect(),
        };
        Ok(reserved)
    }

    /// Takes back what a deleted Service had.
    pub(crate) fn release(&self, kind: &Kind, object: &Value) {
        if is_service(kind) {
            self.give_back(&owned(object));
        }
    }

    fn give_back(&self, owned: &Owned) {
        let mut state = self.lock();
        for ip in &owned.ips {
            state.ips.give_back(*ip);
        }
        for port in &owned.ports {
            state.ports.give_back(*port);
        }
    }

    fn reserve_ip(&self, new: &mut Value, before: &Owned, taken: &mut Owned, causes: &mut Causes) {
        if text(new, &["spec", "type"]) == "ExternalName" {
            return;
        }
        let listed = at(new, &["spec", "clusterIPs"]).and_then(|it| it.get(0));
        let listed = listed.and_then(Value::as_str);
        let wanted = match text(new, &["spec", "clusterIP"]) {
            "" => listed.unwrap_or_default().to_owned(),
            given => given.to_owned(),
        };
        let ip = match wanted.as_str() {
            "None" => wanted,
            "" => match self.lock().ips.take_any() {
                Some(bits) => {
                    taken.ips.insert(bits);
                    Ipv4Addr::from_bits(bits).to_string()
                }
                None => {
                    causes.invalid(
                        "spec.clusterIPs",
                        &json!([]),
                        "failed to allocate a serviceIP: range is full",
                    );
                    return;
                }
            },
            given => {
                self.reserve_given_ip(given, before, taken, causes);
                wanted
            }
        };
        object::set(new, &["spec", "clusterIP"], json!(ip));
        object::set(new, &["spec", "clusterIPs"], json!([ip]));
        for (key, value) in
            [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))]
        {
            if at(new, &["spec", key]).is_none() {
                object::set(new, &["spec", key], value);
            }
        }
    }

    fn reserve_given_ip(
        &self,
        given: &str,
        before: &Owned,
        taken: &mut Owned,
        causes: &mut Causes,
    ) {
        let mut refuse = |why: &str| {
            let detail = format!("failed to allocate IP {given}: {why}");
            causes.invalid("spec.clusterIPs", &json!([given]), &detail);
        };
        let Ok(ip) = given.parse::<Ipv4Addr>() else {
            refuse("only IPv4 is supported yet");
            return;
        };
        let bits = ip.to_bits();
        if before.ips.contains(&bits) {
            return;
        }
        let mut state = self.lock();
        if !state.ips.contains(bits) {
            let ServiceRange { network, prefix } = self.range;
            refuse(&format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is \
                 {network}/{prefix}"
            ));
        } else if state.ips.take(bits) {
            taken.ips.insert(bits);
        } else {
            refuse("provided IP is already allocated");
        }
    }

    fn reserve_ports(
        &self,
        new: &mut Value,
        before: &Owned,
        taken: &mut Owned,
        causes: &mut Causes,
    ) {
        if !has_node_ports(new) {
            return;
        }
        let ports = new.get_mut("spec").and_then(|it| it.get_mut("ports"));
        let ports = ports.and_then(Value::as_array_mut);
        let mut state = self.lock();
        for (index, port) in ports.into_iter().flatten().enumerate() {
            let path = || format!("spec.ports[{index}].nodePort");
            match node_port(port) {
                None => match state.ports.take_any() {
                    Some(number) => {
                        taken.ports.insert(number);
                        object::set(port, &["nodePort"], json!(number));
                    }
                    None => causes.invalid(
                        path(),
                        &json!(0),
                        "failed to allocate a nodePort: range is full",
                    ),
                },
                // Two protocols of one Service may share a number.
                Some(number) if before.ports.contains(&number) || taken.ports.contains(&number) => {
                }
                Some(number) if !state.ports.contains(number) => {
                    let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
                    let detail = format!(
                        "provided port is not in the valid range. The range of valid ports is \
                         {first}-{last}"
                    );
                    causes.invalid(path(), &json!(number), &detail);
                }
                Some(number) if state.ports.take(number) => drop(taken.ports.insert(number)),
                Some(number) => {
                    causes.invalid(path(), &json!(number), "provided port is already allocated");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes over what the client left out of an update but the Service has, and drops what its new
/// type does not have. Comes before validation, as in Kubernetes (`patchAllocatedValues`,
/// `dropTypeDependentFields`).
pub(crate) fn carry_over(kind: &Kind, new: &mut Value, old: &Value) {
    if !is_service(kind) {
        return;
    }
    let needs_ip = |it: &Value| text(it, &["spec", "type"]) != "ExternalName";
    if needs_ip(new) && needs_ip(old) && text(new, &["spec", "clusterIP"]).is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            object::copy(new, old, &["spec", key]);
        }
    }
    if needs_ip(old) && !needs_ip(new) {
        let unchanged = at(new, &["spec", "clusterIP"]) == at(old, &["spec", "clusterIP"]);
        if unchanged {
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                drop(object::remove(new, &["spec", key]));
            }
        }
    }
    let (keeps, had) = (has_node_ports(new), has_node_ports(old));
    if !had {
        return;
    }
    let before = at(old, &["spec", "ports"]).and_then(Value::as_array).cloned();
    let before = before.unwrap_or_default();
    let ports = new.get_mut("spec").and_then(|it| it.get_mut("ports"));
    for port in ports.and_then(Value::as_array_mut).into_iter().flatten() {
        let own =
            |it: &&Value| ["port", "protocol"].iter().all(|key| it.get(*key) == port.get(*key));
        let was = before.iter().find(own).and_then(node_port);
        match (keeps, node_port(port)) {
            (true, None) => {
                if let Some(number) = was {
                    object::set(port, &["nodePort"], json!(number));
                }
            }
            (false, Some(number)) if was == Some(number) => {
                drop(object::remove(port, &["nodePort"]));
            }
            _ => {}
        }
    }
}

fn is_service(kind: &Kind) -> bool {
    (kind.group, kind.kind) == ("", "Service")
}

fn has_node_ports(service: &Value) -> bool {
    match text(service, &["spec", "type"]) {
        "NodePort" => true,
        "LoadBalancer" => {
            at(service, &["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

fn node_port(port: &Value) -> Option<u32> {
    let number = port.get("nodePort").and_then(Value::as_u64).filter(|it| *it != 0)?;
    u32::try_from(number).ok()
}

fn owned(service: &Value) -> Owned {
    let ips = at(service, &["spec", "clusterIPs"]).and_then(Value::as_array);
    let ips = ips.into_iter().flatten().filter_map(Value::as_str);
    let ips = ips.filter_map(|it| it.parse().ok()).map(Ipv4Addr::to_bits);
    let ports = at(service, &["spec", "ports"]).and_then(Value::as_array);
    let ports = ports.into_iter().flatten().filter_map(node_port);
    Owned { ips: ips.collect(), ports: ports.collect() }
}

#[cfg(test)]
mod tests;
