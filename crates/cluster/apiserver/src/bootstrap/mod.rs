//! The objects that every cluster has from its first moment: the system namespaces and priority classes,
//! flow control, the range of Services' addresses, and the Service by which pods find the API.

mod flow_control;

use api::status::{Reason, Status};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::{
    config::Config,
    http::{content::Wanted, query::Query},
    kinds::{KINDS, Kind, SYSTEM_PRIORITIES, Subresource},
    ownership::Draft,
    registry::{Call, Registry},
};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Name of the Service, the EndpointSlice and the Endpoints by which pods find the API.
pub(crate) const NAME: &str = "kubernetes";

/// Who owns these objects' fields. As in Kubernetes.
const MANAGER: &str = "kube-apiserver";

/// Offset of the API's own address in the range of cluster IPs.
const API_OFFSET: u32 = 1;

/// Name of the manager of Services' addresses, in labels.
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// An object that this server makes.
struct Own {
    kind: &'static str,
    namespace: Option<&'static str>,
    /// Who owns its fields.
    manager: &'static str,
    /// Without `apiVersion` and `kind`.
    object: Value,
}

impl Own {
    fn new(kind: &'static str, namespace: Option<&'static str>, object: Value) -> Self {
        Self { kind, namespace, manager: MANAGER, object }
    }
}

/// Makes what is missing; what is there stays as it is, but for the address of the API.
pub(crate) async fn run(registry: &Registry, config: &Config) -> Result<(), Status> {
    let namespace = |name: &&str| Own::new("Namespace", None, json!({"metadata": {"name": name}}));
    ensure_all(registry, NAMESPACES.iter().map(namespace)).await?;
    let classes = SYSTEM_PRIORITIES.iter().map(|(name, value, description)| {
        let metadata = json!({"name": name});
        let class = json!({"metadata": metadata, "value": value, "description": description});
        Own::new("PriorityClass", None, class)
    });
    let cidrs = config.service_range.cidrs();
    let range = json!({"metadata": {"name": NAME}, "spec": {"cidrs": cidrs}});
    let range = [Own::new("ServiceCIDR", None, range), address(config)];
    ensure_all(registry, classes.chain(range).chain(flow_control::objects())).await?;
    add_family(registry, config).await?;
    make_ready(registry).await?;
    publish(registry, config).await
}

/// The API's own address, as an object.
fn address(config: &Config) -> Own {
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": ALLOCATOR,
    });
    let ip = config.service_range.address(API_OFFSET).to_string();
    let parent = json!({"resource": "services", "namespace": "default", "name": NAME});
    let metadata = json!({"name": ip, "labels": labels});
    Own::new("IPAddress", None, json!({"metadata": metadata, "spec": {"parentRef": parent}}))
}

/// Adds the IPv6 range to that of a cluster which was made without one.
async fn add_family(registry: &Registry, config: &Config) -> Result<(), Status> {
    let Some(call) = call("ServiceCIDR", None, NAME) else { return Ok(()) };
    let cidrs = config.service_range.cidrs();
    let writer = call.writer("UpdateOptions", registry.clock.now())?;
    registry
        .change(&call, &writer, false, |live| {
            let mut new = live.object.clone();
            let path = &["spec", "cidrs"];
            let listed = crate::object::at(&new, path).and_then(Value::as_array);
            if listed.is_some_and(|it| it.len() < cidrs.len()) {
                crate::object::set(&mut new, path, json!(cidrs));
            }
            Ok(Draft::compared(new))
        })
        .await?;
    Ok(())
}

/// Says that addresses can be had from the range, unless something has been said of it before.
async fn make_ready(registry: &Registry) -> Result<(), Status> {
    let Some(mut call) = call("ServiceCIDR", None, NAME) else { return Ok(()) };
    call.subresource = Some(Subresource::Status);
    let now = registry.clock.now();
    let ready = json!({
        "type": "Ready",
        "status": "True",
        "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": crate::object::time(now),
    });
    let writer = call.writer("UpdateOptions", now)?;
    registry
        .change(&call, &writer, false, |live| {
            let mut new = live.object.clone();
            if crate::object::at(&new, &["status", "conditions"]).is_none() {
                crate::object::set(&mut new, &["status", "conditions"], json!([ready.clone()]));
            }
            Ok(Draft::compared(new))
        })
        .await?;
    Ok(())
}

/// Makes the API's own Service and endpoints again whenever they are deleted, as in Kubernetes.
/// Runs until the server stops.
pub(crate) async fn keep_published(registry: &Registry, config: &Config) -> anyhow::Result<()> {
    loop {
        let keys =
            ["Service", "EndpointSlice", "Endpoints"].map(|kind| call(kind, Some("default"), NAME));
        let mut watches = Vec::new();
        for call in keys.into_iter().flatten() {
            watches.push(registry.store.watch(&call.key(), registry.store.revision())?);
        }
        publish(registry, config).await?;
        let mut events = futures_util::stream::select_all(watches);
        let deleted = async {
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) if event.kind == store::EventKind::Put => {}
                    // Deleted, or so far behind that nobody knows: look again.
                    Ok(_) | Err(_) => return Again::Look,
                }
            }
            Again::StoreClosed
        };
        let again = tokio::select! {
            biased;
            () = registry.stop.cancelled() => return Ok(()),
            again = deleted => again,
        };
        match again {
            Again::Look => {}
            Again::StoreClosed => return Ok(()),
        }
    }
}

/// Why the watch over the API's own objects ended.
enum Again {
    Look,
    StoreClosed,
}

/// Service, EndpointSlice and Endpoints of the API.
async fn publish(registry: &Registry, config: &Config) -> Result<(), Status> {
    let ip = config.service_range.address(API_OFFSET).to_string();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": NAME, "namespace": "default", "labels": labels},
        "spec": {
            "clusterIP": ip,
            "ports": [{
                "name": "https",
                "port": 443,
                "protocol": "TCP",
                "targetPort": config.advertised.port(),
            }],
        },
    });
    ensure(registry, Own::new("Service", Some("default"), service)).await?;
    let slice = json!({
        "metadata": {
            "name": NAME,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": if config.advertised.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{
            "addresses": [config.advertised.ip().to_string()],
            "conditions": {"ready": true},
        }],
        "ports": [{"name": "https", "port": config.advertised.port(), "protocol": "TCP"}],
    });
    ensure(registry, Own::new("EndpointSlice", Some("default"), slice.clone())).await?;
    advertise(registry, "EndpointSlice", &["endpoints", "ports"], &slice).await?;
    // Such an address may not be in Endpoints; only a server in one process with its clients has one.
    if config.advertised.ip().is_loopback() {
        return Ok(());
    }
    let endpoints = json!({
        "metadata": {
            "name": NAME,
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": config.advertised.ip().to_string()}],
            "ports": [{"name": "https", "port": config.advertised.port(), "protocol": "TCP"}],
        }],
    });
    ensure(registry, Own::new("Endpoints", Some("default"), endpoints.clone())).await?;
    advertise(registry, "Endpoints", &["subsets"], &endpoints).await
}

/// Brings the address of the API up to date, which is in these fields.
async fn advertise(
    registry: &Registry,
    kind: &str,
    fields: &[&str],
    wanted: &Value,
) -> Result<(), Status> {
    let Some(call) = call(kind, Some("default"), NAME) else { return Ok(()) };
    let writer = call.writer("UpdateOptions", registry.clock.now())?;
    registry
        .change(&call, &writer, false, |live| {
            let mut new = live.object.clone();
            for key in fields {
                crate::object::copy(&mut new, wanted, &[key]);
            }
            Ok(Draft::compared(new))
        })
        .await?;
    Ok(())
}

/// Makes what is missing of them, all at once: they share the wait for the disk.
async fn ensure_all(registry: &Registry, all: impl Iterator<Item = Own>) -> Result<(), Status> {
    futures_util::future::try_join_all(all.map(|it| ensure(registry, it))).await.map(drop)
}

async fn ensure(registry: &Registry, own: Own) -> Result<(), Status> {
    let Own { kind, namespace, manager, mut object } = own;
    let name = crate::object::meta(&object, "name").to_owned();
    let Some(mut call) = call(kind, namespace, &name) else { return Ok(()) };
    call.agent = manager;
    if registry.store.get(&call.key()).is_some() {
        return Ok(());
    }
    crate::object::set(&mut object, &["apiVersion"], json!(call.kind.api_version()));
    crate::object::set(&mut object, &["kind"], json!(kind));
    let writer = call.writer("CreateOptions", registry.clock.now())?;
    match registry.create_object(&call, &writer, Draft::compared(object), false).await {
        Err(status) if status.reason() != Reason::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

fn call<'a>(kind: &str, namespace: Option<&'a str>, name: &'a str) -> Option<Call<'a>> {
    let kind: &'static Kind = KINDS.iter().copied().find(|it| it.kind == kind)?;
    Some(Call {
        kind,
        namespace,
        name,
        subresource: None,
        query: Query::default(),
        agent: MANAGER,
        wanted: Wanted::PLAIN,
        user: None,
    })
}
