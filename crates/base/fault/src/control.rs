//! The HTTP API: Toxiproxy's, as its clients speak it, and beside it what that does not have. Says
//! who answers what; bodies are in `wire`, and what happens is the [`Handle`]'s affair.

mod answer;
mod wire;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{OnExit, Tasks};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{Handle, resolve};

/// Clients of the API at once; more wait. It serves tests, not the public.
const CLIENTS_MAX: usize = 64;

/// How long a client may take to send a request's head, or be silent between two.
const HEAD_MAX: Duration = Duration::from_secs(60);

/// Pause after an error of accept, such as no descriptor left: it cannot go better at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The API's socket.
#[derive(Debug)]
pub(crate) struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        let addresses = resolve::addresses(address)?;
        let listener = std::net::TcpListener::bind(addresses.as_slice())?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves in `tasks`.
    pub(crate) fn run(self, handle: &Handle, tasks: &Tasks) {
        let (handle, of_connections) = (handle.clone(), tasks.clone());
        tasks.spawn("fault-control", OnExit::StopProcess, |stop| async move {
            let listener = TcpListener::from_std(self.listener)?;
            let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
            loop {
                let client = async {
                    let place = Arc::clone(&clients).acquire_owned().await?;
                    anyhow::Ok((place, listener.accept().await))
                };
                let (place, accepted) = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    client = client => client?,
                };
                match accepted {
                    Ok((client, _)) => serve(client, place, &handle, &of_connections),
                    Err(error) => {
                        tracing::warn!(%error, "accept a client of the API");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}

fn serve(
    client: tokio::net::TcpStream,
    place: tokio::sync::OwnedSemaphorePermit,
    handle: &Handle,
    tasks: &Tasks,
) {
    let handle = handle.clone();
    tasks.spawn("fault-control-client", OnExit::Log, |stop| async move {
        let service = service_fn(move |request| {
            let handle = handle.clone();
            async move { Ok::<_, std::convert::Infallible>(answer::answer(&handle, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_MAX)
            .serve_connection(TokioIo::new(client), service);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            served = connection => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a client of the API");
                }
            }
        }
        drop(place);
        Ok(())
    });
}
