//! One try of a probe: over the network, or by the shim inside the container.

use std::{path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use shim::wire::{ExecSpec, ProcessSpec, Reply, Request};

use super::{
    facts::run_id,
    launch::{self, Program},
    probing::Due,
    seen::containers,
    shim::{Connection, unexpected},
};
use crate::{
    context::{Context, Folders, PodAddress},
    probe::{self, Check, Dialed, OUTPUT_BYTES_MAX, Outcome},
};

/// Tries.
pub(super) async fn attempt(
    context: &Context,
    (pod, folders): (&Pod, &Folders),
    due: &Due,
    address: PodAddress,
) -> Outcome {
    let Some((_, container)) = containers(pod).find(|(_, it)| it.name == due.container) else {
        return Outcome::Unknown("the container is not part of the pod".to_owned());
    };
    let timeout = probe::timeout(&due.probe);
    let dial = |host: &str, port: u16| dial(context, host, port);
    match probe::check(&due.probe, container, address.v4) {
        Check::Http(request) => request.send(&dial, timeout).await,
        Check::Tcp { host, port } => probe::tcp(&dial, (&host, port), timeout).await,
        Check::Refused(reason) => Outcome::Unknown(reason),
        Check::Exec(argv) => {
            // With the variables and in the folder that the container itself would start with.
            let attempt = due.attempt;
            let of = launch::Of { pod, folders, container, attempt, address };
            let links = context.links();
            let image = container.image.as_deref().unwrap_or_default();
            let present = context.images.present(image);
            let linked = links.find(image).map(Program::Link);
            let Some(program) = linked.or(present.as_ref().map(Program::Image)) else {
                return Outcome::Unknown(format!("image `{image}` is gone"));
            };
            let process = match launch::recipe(context, of, program) {
                Ok(recipe) => recipe.launch.process,
                Err(waiting) => return Outcome::Unknown(waiting.message.unwrap_or_default()),
            };
            match exec(due, ProcessSpec { argv, ..process }, &folders.run, timeout).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Unknown(error.to_string()),
            }
        }
    }
}

/// A connection; the node's address is the host's `127.0.0.1`.
fn dial<'a>(context: &'a Context, host: &str, port: u16) -> Dialed<'a> {
    if host.parse() == Ok(context.address) {
        context.network.connect_host(port)
    } else {
        probe::dial(host, port)
    }
}

async fn exec(
    due: &Due,
    process: ProcessSpec,
    run: &Path,
    timeout: Duration,
) -> Result<Outcome, shim::Error> {
    let argv = process.argv.join(" ");
    let spec = ExecSpec {
        id: run_id(&due.container, due.attempt),
        process,
        output_max: u32::try_from(OUTPUT_BYTES_MAX).ok(),
        timeout_ms: u64::try_from(timeout.as_millis()).ok(),
    };
    let mut connection = Connection::open(run)?;
    let executed = connection.call(&Request::Exec(spec)).await;
    match executed {
        Ok(Reply::Executed { .. }) => {}
        Ok(other) => return Err(unexpected("exec", other)),
        // No such program: the probe's, not the container's, words.
        Err(shim::Error::Start(error)) => return Ok(Outcome::Failure(error.message)),
        Err(error) => return Err(error),
    }
    match connection.answer().await? {
        Reply::Finished(it) if it.timed_out => Ok(Outcome::Failure(format!(
            "command timed out: \"{argv}\" timed out after {}s",
            timeout.as_secs()
        ))),
        Reply::Finished(it) if it.code == 0 => Ok(Outcome::Success),
        Reply::Finished(it) => Ok(Outcome::Failure(it.output.unwrap_or_default())),
        other => Err(unexpected("finished", other)),
    }
}
