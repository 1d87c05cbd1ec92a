//! Ports of Services, with the endpoints that are behind them now.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use client::Key;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort},
        discovery::v1::{EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::table::{Backend, Protocol};

/// Label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Makes each backend once.
pub(super) struct Backends<'a> {
    services: BTreeMap<Key, &'a Service>,
    slices: BTreeMap<Key, Vec<&'a EndpointSlice>>,
    made: BTreeMap<(Key, u16), Arc<Backend>>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(services: &'a [Arc<Service>], slices: &'a [Arc<EndpointSlice>]) -> Self {
        let mut of_services: BTreeMap<Key, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            let Some(service) = labels.and_then(|it| it.get(SERVICE_NAME)) else { continue };
            let namespace = slice.metadata.namespace.clone();
            of_services.entry(Key { namespace, name: service.clone() }).or_default().push(slice);
        }
        let services = services.iter().map(|it| (Key::of(&**it), &**it)).collect();
        Self { services, slices: of_services, made: BTreeMap::new() }
    }

    /// The backend of a Service's port, or for people why there is none.
    pub(super) fn of(&mut self, key: &Key, port: &IntOrString) -> Result<Arc<Backend>, String> {
        let Some(&service) = self.services.get(key) else {
            return Err(format!("Service {key} does not exist"));
        };
        let spec = service.spec.as_ref();
        if spec.and_then(|it| it.type_.as_deref()) == Some("ExternalName") {
            return Err(format!(
                "Service {key} is of type ExternalName, which has no endpoints to forward to"
            ));
        }
        let ports = spec.and_then(|it| it.ports.as_deref()).unwrap_or_default();
        let found = ports.iter().find(|it| match port {
            IntOrString::Int(number) => it.port == *number,
            IntOrString::String(name) => it.name.as_deref() == Some(name),
        });
        match found {
            Some(port) if is_tcp(port) => Ok(self.of_port(key, port)),
            Some(port) => Err(format!("port {} of Service {key} is not TCP", port.port)),
            None => {
                let port = match port {
                    IntOrString::Int(number) => number.to_string(),
                    IntOrString::String(name) => format!("`{name}`"),
                };
                Err(format!("Service {key} has no port {port}"))
            }
        }
    }

    /// The backend of a port that the Service has.
    pub(super) fn of_port(&mut self, key: &Key, port: &ServicePort) -> Arc<Backend> {
        let number = u16::try_from(port.port).unwrap_or_default();
        let id = (key.clone(), number);
        if let Some(made) = self.made.get(&id) {
            return Arc::clone(made);
        }
        let mut backend = Backend {
            service: key.clone(),
            port: number,
            protocol: protocol(port),
            ..Backend::default()
        };
        // A pod of a dual-stack Service has an endpoint in a slice of each family: it is to be one.
        let all = self.slices.get(key).into_iter().flatten().copied();
        let (six, others): (Vec<_>, Vec<_>) = all.partition(|it| it.address_type == "IPv6");
        for slices in [others, six] {
            if backend.ready.is_empty() && backend.leaving.is_empty() {
                slices.iter().for_each(|it| add_endpoints(it, port, &mut backend));
            }
        }
        // One endpoint may be in two slices for a moment.
        for list in [&mut backend.ready, &mut backend.leaving] {
            list.sort_unstable();
            list.dedup();
        }
        let backend = Arc::new(backend);
        self.made.insert(id, Arc::clone(&backend));
        backend
    }

    pub(super) fn into_made(self) -> BTreeMap<(Key, u16), Arc<Backend>> {
        self.made
    }
}

fn add_endpoints(slice: &EndpointSlice, port: &ServicePort, backend: &mut Backend) {
    let name = port.name.as_deref().unwrap_or_default();
    let of_name = |it: &&EndpointPort| it.name.as_deref().unwrap_or_default() == name;
    let found = slice.ports.iter().flatten().find(of_name).and_then(|it| it.port);
    let Some(number) = found.and_then(|it| u16::try_from(it).ok()) else { return };
    for endpoint in slice.endpoints.iter().flatten() {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|it| it.ready).unwrap_or(true);
        let serving = conditions.and_then(|it| it.serving).unwrap_or(ready);
        let terminating = conditions.and_then(|it| it.terminating).unwrap_or(false);
        // Those of a slice of names cannot be parsed; all addresses of an endpoint are the same one.
        let address = endpoint.addresses.first().and_then(|it| it.parse::<IpAddr>().ok());
        let Some(address) = address.map(|it| SocketAddr::new(it, number)) else { continue };
        if ready {
            backend.ready.push(address);
        } else if serving && terminating {
            backend.leaving.push(address);
        }
    }
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().is_none_or(|it| it == "TCP")
}

/// By `appProtocol`; without one, by the port's name.
fn protocol(port: &ServicePort) -> Protocol {
    let name = port.name.as_deref().unwrap_or_default();
    match port.app_protocol.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("kubernetes.io/h2c" | "h2c" | "grpc") => Protocol::H2c,
        Some("https" | "kubernetes.io/wss") => Protocol::Https,
        Some(_) => Protocol::Http1,
        None if name == "https" || name.starts_with("https-") => Protocol::Https,
        None if name == "grpc" || name.starts_with("grpc-") => Protocol::H2c,
        None => Protocol::Http1,
    }
}
