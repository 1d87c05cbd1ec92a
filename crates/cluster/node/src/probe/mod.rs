//! Probes: what is asked of a container, how, and what the answer means.
//!
//! Does not decide about the container: a value goes to its worker, and [`crate::pod::decide`]
//! does the rest.

mod http;
mod state;
mod tls;

use std::{io, net::Ipv4Addr, time::Duration};

use futures_util::future::BoxFuture;
use k8s_openapi::{
    api::core::v1::{Container, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

pub(crate) use http::Request;
pub(crate) use state::{Effect, Kind, Outcome, ProbeState};

/// How much of a probe's output is kept for its event, as with the kubelet.
pub(crate) const OUTPUT_BYTES_MAX: usize = 10 * 1024;

/// What one try does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// GET.
    Http(Request),
    /// Connect.
    Tcp {
        /// Where to; a name is resolved as any other.
        host: String,
        /// Port.
        port: u16,
    },
    /// Run a program in the container.
    Exec(Vec<String>),
    /// Cannot be tried; the words say why.
    Refused(String),
}

/// What a try of `probe` does to `container`, whose pod has `address`.
#[must_use]
pub(crate) fn check(probe: &Probe, container: &Container, address: Ipv4Addr) -> Check {
    if let Some(action) = &probe.exec {
        return Check::Exec(action.command.clone().unwrap_or_default());
    }
    if let Some(action) = &probe.http_get {
        let host = action.host.clone().filter(|it| !it.is_empty());
        let host = host.unwrap_or_else(|| address.to_string());
        return match port(&action.port, container) {
            Ok(port) => Check::Http(Request::new(action, host, port)),
            Err(reason) => Check::Refused(reason),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action.host.clone().filter(|it| !it.is_empty());
        let host = host.unwrap_or_else(|| address.to_string());
        return match port(&action.port, container) {
            Ok(port) => Check::Tcp { host, port },
            Err(reason) => Check::Refused(reason),
        };
    }
    if probe.grpc.is_some() {
        return Check::Refused("grpc probes are not supported yet".to_owned());
    }
    Check::Refused("missing probe handler".to_owned())
}

/// A port by number or by the name of one of the container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|it| it.name.as_ref() == Some(name));
            named.map(|it| it.container_port).or_else(|| name.parse().ok())
        }
    };
    match (number.and_then(|it| u16::try_from(it).ok()), port) {
        (Some(port), _) if port != 0 => Ok(port),
        (_, IntOrString::Int(number)) => Err(format!("invalid port number: {number}")),
        (_, IntOrString::String(name)) => {
            Err(format!("couldn't find port: {name} in container: {}", container.name))
        }
    }
}

/// How long one try may take.
#[must_use]
pub(crate) fn timeout(probe: &Probe) -> Duration {
    let seconds = probe.timeout_seconds.and_then(|it| u64::try_from(it).ok()).unwrap_or(1);
    Duration::from_secs(seconds.max(1))
}

/// A connection on its way.
pub(crate) type Dialed<'a> = BoxFuture<'a, io::Result<TcpStream>>;

/// How a probe connects to a port of a host.
pub(crate) type Dial<'a> = &'a (dyn Fn(&str, u16) -> Dialed<'a> + Send + Sync);

/// Connects from where this process is.
pub(crate) fn dial<'a>(host: &str, port: u16) -> Dialed<'a> {
    let host = host.to_owned();
    Box::pin(async move { TcpStream::connect((host, port)).await })
}

/// Connects, and that is all.
pub(crate) async fn tcp(dial: Dial<'_>, (host, port): (&str, u16), timeout: Duration) -> Outcome {
    match tokio::time::timeout(timeout, dial(host, port)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(dial_error(host, port, &error)),
        Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: i/o timeout")),
    }
}

/// A failed connection in the words of Go's net package, which people know from the kubelet.
fn dial_error(host: &str, port: u16, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {host}:{port}: connect: {cause}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Check {
        let container = json!({ "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] });
        check(
            &serde_json::from_value(spec).unwrap(),
            &serde_json::from_value(container).unwrap(),
            Ipv4Addr::new(10, 244, 0, 9),
        )
    }

    #[test]
    fn ports_by_number_and_by_name() {
        let tcp = |port: Value| of(json!({ "tcpSocket": { "port": port } }));
        let expected = Check::Tcp { host: "10.244.0.9".to_owned(), port: 8080 };
        assert_eq!(tcp(json!("web")), expected);
        assert_eq!(tcp(json!(8080)), expected);
        assert_eq!(tcp(json!("8080")), expected);
        assert_eq!(tcp(json!(0)), Check::Refused("invalid port number: 0".to_owned()));
        let refused = "couldn't find port: other in container: c".to_owned();
        assert_eq!(tcp(json!("other")), Check::Refused(refused));
    }

    #[test]
    fn grpc_is_refused_by_name() {
        let refused = "grpc probes are not supported yet".to_owned();
        assert_eq!(of(json!({ "grpc": { "port": 1 } })), Check::Refused(refused));
    }

    #[tokio::test]
    async fn tcp_tells_open_from_closed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let timeout = Duration::from_secs(5);
        let to = ("127.0.0.1", port);
        assert_eq!(tcp(&dial, to, timeout).await, Outcome::Success);
        drop(listener);
        let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(tcp(&dial, to, timeout).await, Outcome::Failure(refused));
    }
}
