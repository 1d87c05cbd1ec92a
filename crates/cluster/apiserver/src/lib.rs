//! The Kubernetes API over HTTP: routing, defaulting, validation, patch, watch, discovery.
//!
//! Only this crate opens the store. It does not know what a controller is: nothing here reacts to
//! an object, it only keeps them.

mod server;

mod config;
mod connector;
mod limits;

mod authorization;
mod identity;
mod impersonation;
mod router;
mod tls;

mod endpoints;
mod flow;
mod http;

mod addresses;
mod admission;
mod bootstrap;
mod metrics;
mod object;
mod openapi;
mod ownership;
mod patch;
mod protobuf;
mod registry;
mod reviews;
mod subresources;

pub mod kinds;
pub mod schema;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use self::{
    addresses::ServiceRange,
    config::Config,
    connector::{
        Answer, LogOptions, LogRequest, LogStream, NoNode, NodeConnector, PodUsage, Usage, Used,
    },
    http::body::Body,
    router::Router,
    server::{BuildError, ForkError, Server},
    tls::{listener::TlsError, pki::PkiError},
};
