//! Names of Services on this machine, as [`api::localhost`] has them.

use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::Service;

use super::Backends;
use crate::table::{Route, RouteOf, Table, Target};

/// Adds the names of all Services that have a port for HTTP.
pub(super) fn add(services: &[Arc<Service>], backends: &mut Backends<'_>, table: &mut Table) {
    for service in services {
        let key = Key::of(&**service);
        let Some(port) = api::localhost::port(service) else { continue };
        let of = RouteOf { kind: "Service", key: key.clone() };
        let route = Route::new(of, Target::Forward(backends.of_port(&key, port)));
        for name in api::localhost::names(&key.name, key.namespace_or_empty()) {
            table.names.insert(name, route.clone());
        }
    }
}
