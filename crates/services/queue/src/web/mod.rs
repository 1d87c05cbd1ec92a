//! What the HTTP APIs of the three programs have in common: serving, reading a query and a body,
//! and answering in the original's form. Which path means what is each program's own affair.

mod body;
mod chain;
mod client;
mod query;
mod reply;
mod routes;
mod server;

pub(crate) use body::{ReadError, piece, read};
pub(crate) use chain::Chain;
pub(crate) use client::{Client, ClientError};
pub(crate) use query::{Query, decode, encode};
pub(crate) use reply::{Body, Failure, Reply, plain, v1};
pub(crate) use routes::{Found, Route, find};
pub(crate) use server::{Serve, serve, serve_at};

/// The release of the original whose behaviour this is. Clients and `nsqadmin` compare it, so it is
/// theirs to understand and not ours to number.
pub(crate) const VERSION: &str = "1.3.0";
