//! Cluster IPs and node ports of Services: given out on create, kept over updates, taken back on
//! delete. In memory; at start they are read from the stored Services.

mod pool;
mod range;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::status::Status;
use serde_json::{Value, json};

use self::pool::Pool;
pub use self::range::ServiceRange;
use crate::{
    kinds::{
        Causes, Kind,
        service::families::{self, Family},
    },
    object::{self, at, meta, text},
};

/// Ports for NodePort Services. Kubernetes' default.
const NODE_PORTS: std::ops::RangeInclusive<u32> = 30_000..=32_767;

/// The first addresses of the range are given out only on request, so that well-known ones (the
/// API's, DNS's, those in manifests) do not clash with given ones (KEP-3070).
const STATIC_BAND: u32 = 256;

/// Where the API and DNS are in the IPv4 range. The same places in the IPv6 range are kept for them.
const WELL_KNOWN: [u32; 2] = [1, 10];

/// What is given out.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: ServiceRange,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Offsets in the range of each family that there is.
    v4: Pool,
    v6: Option<Pool>,
    ports: Pool,
}

impl State {
    fn ips(&mut self, family: Family) -> Option<&mut Pool> {
        match family {
            Family::V4 => Some(&mut self.v4),
            Family::V6 => self.v6.as_mut(),
        }
    }
}

/// What one Service has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owned {
    ips: BTreeSet<IpAddr>,
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
        let ips = |family| {
            let last = range.last(family);
            Pool::new(1..=last, STATIC_BAND.min(last / 2 + 1) - 1)
        };
        let v6 = range.v6.map(|_| {
            let mut ips = ips(Family::V6);
            for offset in WELL_KNOWN {
                ips.take(offset);
            }
            ips
        });
        let state = State { v4: ips(Family::V4), v6, ports: Pool::new(NODE_PORTS, 0) };
        Self { range, state: Mutex::new(state) }
    }

    /// Learns what a stored Service has.
    pub(crate) fn adopt(&self, service: &Value) {
        let owned = owned(service);
        let mut state = self.lock();
        for ip in owned.ips {
            self.with(&mut state, ip, Pool::take);
        }
        for port in owned.ports {
            state.ports.take(port);
        }
    }

    /// Fills in the families of a Service, and refuses those that the cluster has not. Comes before
    /// validation, as in Kubernetes.
    pub(crate) fn settle(
        &self,
        kind: &Kind,
        new: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let name = meta(new, "name").to_owned();
        let Some(spec) = new.get_mut("spec").filter(|_| is_service(kind)) else { return Ok(()) };
        let mut causes = Causes::default();
        let old = old.and_then(|it| it.get("spec"));
        families::settle(spec, old, self.range.families(), &mut causes);
        kind.refuse(&name, &causes)
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
        self.reserve_ips(new, &before, &mut reserved.taken, &mut causes);
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
            self.with(&mut state, *ip, Pool::give_back);
        }
        for port in &owned.ports {
            state.ports.give_back(*port);
        }
    }

    /// Does something with the place of an address in its pool; nothing if it is in no range.
    fn with<T>(
        &self,
        state: &mut State,
        ip: IpAddr,
        act: impl FnOnce(&mut Pool, u32) -> T,
    ) -> Option<T> {
        let offset = self.range.offset(ip)?;
        Some(act(state.ips(Family::of(ip))?, offset))
    }

    fn reserve_ips(&self, new: &mut Value, before: &Owned, taken: &mut Owned, causes: &mut Causes) {
        let list = |key: &str| {
            let list = at(new, &["spec", key]).and_then(Value::as_array);
            let texts = list.into_iter().flatten().filter_map(Value::as_str);
            texts.map(str::to_owned).collect::<Vec<_>>()
        };
        let (mut ips, names) = (list("clusterIPs"), list("ipFamilies"));
        if text(new, &["spec", "type"]) == "ExternalName"
            || text(new, &["spec", "clusterIP"]) == "None"
        {
            return;
        }
        for ip in &ips {
            if let Err(why) = self.reserve_given_ip(ip, before, taken) {
                let detail = format!("failed to allocate IP {ip}: {why}");
                causes.invalid("spec.clusterIPs", &json!(ips), &detail);
            }
        }
        for family in names.iter().skip(ips.len()).filter_map(|it| Family::named(it)) {
            let Some(ip) = self.take_any(family) else {
                let detail = "failed to allocate a serviceIP: range is full";
                causes.invalid("spec.clusterIPs", &json!(ips), detail);
                return;
            };
            taken.ips.insert(ip);
            ips.push(ip.to_string());
        }
        if let Some(first) = ips.first() {
            object::set(new, &["spec", "clusterIP"], json!(first));
            object::set(new, &["spec", "clusterIPs"], json!(ips));
        }
    }

    fn take_any(&self, family: Family) -> Option<IpAddr> {
        let offset = self.lock().ips(family)?.take_any()?;
        match family {
            Family::V4 => Some(self.range.address(offset).into()),
            Family::V6 => self.range.address_v6(offset).map(IpAddr::from),
        }
    }

    /// Takes an address that is asked for; why not, if it cannot be had.
    fn reserve_given_ip(
        &self,
        given: &str,
        before: &Owned,
        taken: &mut Owned,
    ) -> Result<(), String> {
        let ip: IpAddr = given.parse().map_err(|_| "it is no address".to_owned())?;
        if before.ips.contains(&ip) {
            return Ok(());
        }
        let family = Family::of(ip);
        let mut state = self.lock();
        let free = self
            .with(&mut state, ip, |pool, offset| pool.contains(offset).then(|| pool.take(offset)));
        match free.flatten() {
            Some(true) => {
                taken.ips.insert(ip);
                Ok(())
            }
            Some(false) => Err("provided IP is already allocated".to_owned()),
            None => {
                let range = self.range.cidr(family).unwrap_or_default();
                Err(format!(
                    "the provided IP ({ip}) is not in the valid range. The range of valid IPs is \
                     {range}"
                ))
            }
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

/// Takes over the node ports that the client left out of an update but the Service has, and drops those
/// that its new type does not have. Comes before validation, as in Kubernetes (`patchAllocatedValues`,
/// `dropTypeDependentFields`).
pub(crate) fn carry_over(kind: &Kind, new: &mut Value, old: &Value) {
    if !is_service(kind) {
        return;
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
    let ips = ips.filter_map(|it| it.parse().ok());
    let ports = at(service, &["spec", "ports"]).and_then(Value::as_array);
    let ports = ports.into_iter().flatten().filter_map(node_port);
    Owned { ips: ips.collect(), ports: ports.collect() }
}

#[cfg(test)]
mod tests;
