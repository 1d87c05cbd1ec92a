//! Connections that are no longer HTTP, such as WebSockets: bytes are passed both ways until one side ends.

use http::Response;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use runtime::{OnExit, Tasks};

use super::Body;

/// Passes on the answer that switches the protocol, and joins the connections once both have switched.
pub(super) fn join(
    tasks: &Tasks,
    client: OnUpgrade,
    mut response: Response<Incoming>,
) -> Response<Body> {
    let endpoint = hyper::upgrade::on(&mut response);
    tasks.spawn("proxy-upgraded", OnExit::Log, |stop| async move {
        let joined = async {
            let (client, endpoint) = tokio::try_join!(client, endpoint)?;
            let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
            tokio::io::copy_bidirectional(&mut client, &mut endpoint).await?;
            anyhow::Ok(())
        };
        tokio::select! {
            biased;
            // What is spoken is unknown, so there is no polite end.
            () = stop.cancelled() => {}
            ended = joined => if let Err(error) = ended {
                tracing::debug!(error = format!("{error:#}"), "upgraded connection ended");
            },
        }
        Ok(())
    });
    response.map(|_| Body::made(""))
}
