//! How a container is to be run: its link, environment and command line, or why not yet.
//!
//! Pure but for looking into caches; the stages add mounts and start it.

use std::{net::Ipv4Addr, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use shim::wire;

use super::{facts::run_id, seen::Waiting, stage::Launch};
use crate::{
    context::{Context, Folders},
    environment::{Place, command_line, environment},
    files::host_name,
    links::{Links, entry_point, not_linked},
};

/// Size of /dev/shm: the default of container runtimes.
const SHM_BYTES: u64 = 64 << 20;

/// A container that can be started.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) launch: Launch,
    /// What it runs, as its `imageID`.
    pub(crate) image_id: String,
}

/// Composes the next run of `container`, or says what it has to wait for.
///
/// Linked source runs as the invoking user: `runAsUser` and the like are for images.
pub(crate) fn recipe(
    context: &Context,
    links: &Links,
    (pod, folders): (&Pod, &Folders),
    (container, attempt): (&Container, u32),
    address: Ipv4Addr,
) -> Result<Recipe, Waiting> {
    let wait = |reason: &str, message: String| Waiting {
        reason: reason.to_owned(),
        message: Some(message),
    };
    let image = container.image.as_deref().unwrap_or_default();
    let Some(link) = links.find(image) else {
        return Err(wait("ErrImageNeverPull", not_linked(image)));
    };
    let place = Place {
        pod_ip: address,
        host_ip: context.address,
        cpu_millis: context.machine.cpu_millis,
        memory_bytes: context.machine.memory_bytes,
    };
    let mut base = context.inherited.clone();
    base.push(("HOSTNAME".to_owned(), host_name(pod, &context.machine.name)));
    let environment = environment(pod, container, &place, &base, &context.objects)
        .map_err(|error| wait("CreateContainerConfigError", error.to_string()))?;
    let argv = command_line(container, &entry_point(link), &environment);
    if argv.is_empty() {
        let message = format!(
            "no command specified: neither the link of image `{image}` nor the container has one"
        );
        return Err(wait("CreateContainerError", message));
    }
    let cwd = container.working_dir.as_deref().filter(|it| !it.is_empty());
    let process = wire::ProcessSpec {
        argv,
        env: environment.clone().into_variables().into_iter().map(variable).collect(),
        cwd: Some(cwd.map_or_else(|| link.directory.clone(), PathBuf::from)),
        no_new_privs: no_new_privileges(container),
        ..wire::ProcessSpec::default()
    };
    let spec = wire::ContainerSpec {
        id: run_id(&container.name, attempt),
        root: wire::Root::Host,
        shm_bytes: SHM_BYTES,
        log: folders.log(&container.name, attempt),
        ..wire::ContainerSpec::default()
    };
    let image_id = format!("link://{}", link.directory.display());
    let container = container.clone();
    let launch = Launch { container, attempt, environment, process, spec, started_at: None };
    Ok(Recipe { launch, image_id })
}

fn variable((name, value): (String, String)) -> String {
    format!("{name}={value}")
}

fn no_new_privileges(container: &Container) -> bool {
    let context = container.security_context.as_ref();
    context.and_then(|it| it.allow_privilege_escalation) == Some(false)
}
