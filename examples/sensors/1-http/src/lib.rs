//! What the sensor and the worker have in common: being a small HTTP service that starts, says so,
//! and stops when it is told to. What they answer is in their own files.

use std::{env, io, net::Ipv4Addr};

use axum::{Router, routing::get};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Serves `router` and, for the probes, `/healthz`, until SIGTERM or Ctrl-C. Requests that are
/// being answered then are finished first.
pub async fn serve(name: &str, default_port: u16, router: Router) -> io::Result<()> {
    let port = port(default_port)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    println!("Started {name} at http://localhost:{port}.");
    let router = router.route("/healthz", get(async || "ok"));
    axum::serve(listener, router).with_graceful_shutdown(stop_requested()?).await?;
    println!("Stopped {name}.");
    Ok(())
}

/// The port to listen on: `PORT`, or else `default`.
fn port(default: u16) -> io::Result<u16> {
    let Ok(text) = env::var("PORT") else { return Ok(default) };
    text.parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("PORT: `{text}` is not a port"))
    })
}

/// Listens for both signals from now on, and completes when one arrives. A container's first
/// process ignores every signal it does not ask for, so this is what makes `kubectl delete` quick.
fn stop_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
