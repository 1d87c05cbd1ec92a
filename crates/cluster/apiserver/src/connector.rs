//! The way to a node, for what only a node has. Given to the server from outside, so that this
//! crate depends on no node.

use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, time::Duration};

use api::status::Status;
use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};
use jiff::Timestamp;
use tokio::net::TcpStream;

/// A log as it is read: lines in chunks. Ends with the log, or with the container if followed.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What a [`NodeConnector`] answers later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send + 'a>>;

/// What nodes do for the API server.
pub trait NodeConnector: Send + Sync + fmt::Debug {
    /// The log of a container. Fails with the `Status` the client will see, such as `container
    /// "a" in pod "b" is waiting to start: ContainerCreating` (400).
    fn logs(&self, request: LogRequest) -> Answer<'_, LogStream>;

    /// More of the page `/metrics`, in the text format of Prometheus: whole lines, and names that the API
    /// server has none of.
    fn metrics(&self) -> String {
        String::new()
    }

    /// A TCP connection to an address of the cluster's network, where pods are.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;

    /// What the nodes and their pods use of CPU and memory. May take a second.
    fn usage(&self) -> Answer<'_, Vec<Usage>>;
}

/// What is used on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Name of the node.
    pub node: String,
    /// All of it.
    pub all: Used,
    /// Pods of which it is known, by namespace and name.
    pub pods: Vec<PodUsage>,
}

/// What a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its containers by name.
    pub containers: Vec<(String, Used)>,
}

/// What was used over some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The end of that time.
    pub at: Timestamp,
    /// How long it was.
    pub window: Duration,
    /// Nanoseconds of CPU time a second.
    pub cpu_nanos: u64,
    /// The working set at its end, in bytes.
    pub memory_bytes: u64,
}

/// Which log, and what of it (`PodLogOptions`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Node the pod is bound to.
    pub node: String,
    /// A container of the pod; it exists in the pod's spec.
    pub container: String,
    /// Which part of the log, and how.
    pub options: LogOptions,
}

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with new lines until the container ends.
    pub follow: bool,
    /// The container's previous run.
    pub previous: bool,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines from then on.
    pub since_time: Option<Timestamp>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Stands in where there is no node: everything is refused with 503.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNode;

impl NodeConnector for NoNode {
    fn logs(&self, request: LogRequest) -> Answer<'_, LogStream> {
        let message = format!("node `{}` is not connected", request.node);
        let status = Status::new(api::status::Reason::ServiceUnavailable, message);
        Box::pin(std::future::ready(Err(status)))
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        let error = io::Error::new(io::ErrorKind::NetworkUnreachable, "no node is connected");
        Box::pin(std::future::ready(Err(error)))
    }

    fn usage(&self) -> Answer<'_, Vec<Usage>> {
        let status = Status::new(api::status::Reason::ServiceUnavailable, "no node is connected");
        Box::pin(std::future::ready(Err(status)))
    }
}
