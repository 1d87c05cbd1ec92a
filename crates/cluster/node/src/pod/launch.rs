//! How a container is to be run: its link or image, environment and command line, or why not yet.
//!
//! Pure but for looking into caches; the stages add mounts and start it.

use std::path::{Component, Path, PathBuf};

use api::link::Link;
use image::Owners;
use k8s_openapi::api::core::v1::{Container, Pod};
use shim::wire;

use super::{
    facts::run_id,
    privileges::{Privileges, Profile, privileges},
    seen::Waiting,
    stage::Launch,
};
use crate::{
    cgroups::{POD_PIDS_MAX, detect::Controller},
    context::{Context, Folders, PodAddress},
    environment::{Place, command_line, environment},
    files::host_name,
    images::Present,
    links::entry_point,
    machine::Machine,
    roots::Roots,
    seccomp,
};

/// Where programs are looked up in an image that does not say it, as in containerd.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container's root is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    /// Linked source, on the machine's own root.
    Link(&'a Link),
    /// An image.
    Image(&'a Present),
}

/// A container that can be started.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) launch: Launch,
    /// What it runs, as its `imageID`.
    pub(crate) image_id: String,
}

/// A container of a pod, and the number of its run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Of<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) folders: &'a Folders,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    /// The pod's addresses.
    pub(crate) address: PodAddress,
}

/// Composes the next run of a container, or says what it has to wait for.
///
/// Linked source runs as the invoking user: `runAsUser` and the like are for images.
pub(crate) fn recipe(
    context: &Context,
    of: Of<'_>,
    program: Program<'_>,
) -> Result<Recipe, Waiting> {
    let Of { pod, folders, container, attempt, address } = of;
    if matches!(program, Program::Link(_)) && context.has_own_users(pod) {
        let message = "linked source runs as the invoking user on the machine's own files, which \
                       hostUsers: false rules out: give the container an image";
        return Err(wait("CreateContainerConfigError", message.to_owned()));
    }
    let Machine { cpu_millis, memory_bytes, .. } = context.share();
    let host_ip = context.address;
    let place = Place { pod_ip: address, host_ip, cpu_millis, memory_bytes };
    let mut base = match program {
        Program::Link(_) => context.inherited.clone(),
        Program::Image(present) => image_environment(present, container),
    };
    base.push(("HOSTNAME".to_owned(), host_name(pod, &context.machine.name)));
    let environment = environment(pod, container, &place, &base, &context.objects)
        .map_err(|error| wait("CreateContainerConfigError", error.to_string()))?;
    let argv = command_line(container, &entry(program, container), &environment);
    if argv.is_empty() {
        let image = container.image.as_deref().unwrap_or_default();
        let message =
            format!("no command specified: neither image `{image}` nor the container has one");
        return Err(wait("CreateContainerError", message));
    }
    let env = environment.clone().into_variables().into_iter().map(variable).collect();
    let id = run_id(&container.name, attempt);
    let log = folders.log(&container.name, attempt);
    let (pid, shm_bytes) = (pid_namespace(pod), wire::SHM_BYTES);
    let spec = wire::ContainerSpec { id, log, shm_bytes, pid, ..Default::default() };
    let cwd = container.working_dir.as_deref().filter(|it| !it.is_empty()).map(PathBuf::from);
    let process = wire::ProcessSpec { argv, env, cwd, ..Default::default() };
    let (process, spec, image_id) = match program {
        Program::Link(link) => linked(link, container, process, spec),
        Program::Image(present) => imaged(context, of, present, process, spec)?,
    };
    let container = container.clone();
    let image = match program {
        Program::Link(_) => None,
        Program::Image(present) => Some(present.image.target.digest),
    };
    let copied = match (program, &spec.root) {
        (Program::Image(present), wire::Root::Folder { .. }) => present.layers.clone(),
        _ => Vec::new(),
    };
    let started_at = None;
    let launch =
        Launch { container, attempt, environment, image, copied, process, spec, started_at };
    Ok(Recipe { launch, image_id })
}

fn wait(reason: &str, message: String) -> Waiting {
    Waiting { reason: reason.to_owned(), message: Some(message) }
}

/// What `command` and `args` stand for or follow: an image's CMD gives way to either.
fn entry(program: Program<'_>, container: &Container) -> Vec<String> {
    match program {
        Program::Link(link) => entry_point(link),
        Program::Image(present) => {
            let config = &present.image.config.config;
            let mut entry = config.entrypoint.clone();
            if container.args.as_ref().is_none_or(Vec::is_empty) {
                entry.extend(config.cmd.iter().cloned());
            }
            entry
        }
    }
}

fn image_environment(present: &Present, container: &Container) -> Vec<(String, String)> {
    let mut base = vec![("PATH".to_owned(), PATH.to_owned())];
    if container.tty == Some(true) {
        base.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for variable in &present.image.config.config.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        base.retain(|(it, _)| it != name);
        base.push((name.to_owned(), value.to_owned()));
    }
    base
}

fn linked(
    link: &Link,
    container: &Container,
    process: wire::ProcessSpec,
    spec: wire::ContainerSpec,
) -> (wire::ProcessSpec, wire::ContainerSpec, String) {
    let context = container.security_context.as_ref();
    let forbidden = context.and_then(|it| it.allow_privilege_escalation) == Some(false);
    let cwd = process.cwd.or_else(|| Some(link.directory.clone()));
    let process = wire::ProcessSpec { cwd, no_new_privs: forbidden, ..process };
    (process, spec, format!("link://{}", link.directory.display()))
}

fn imaged(
    context: &Context,
    of: Of<'_>,
    present: &Present,
    process: wire::ProcessSpec,
    spec: wire::ContainerSpec,
) -> Result<(wire::ProcessSpec, wire::ContainerSpec, String), Waiting> {
    let Of { pod, folders, container, attempt, .. } = of;
    let config = &present.image.config.config;
    let refused = |message| wait("CreateContainerConfigError", message);
    let image_user = config.user.as_str();
    let may = privileges(pod, container, image_user).map_err(refused)?;
    let of_image = Some(config.working_dir.as_str()).filter(|it| !it.is_empty());
    let capabilities: Vec<String> = may.capabilities.iter().map(|it| (*it).to_owned()).collect();
    let seccomp = seccomp_profile(&context.state_dir, &may.seccomp)
        .and_then(|it| context.seccomp.program(&it, &capabilities).map_err(chain));
    let process = wire::ProcessSpec {
        cwd: process.cwd.or_else(|| of_image.map(PathBuf::from)),
        user: Some(user(&may, image_user)),
        no_new_privs: may.no_new_privileges,
        capabilities: Some(capabilities),
        seccomp: seccomp.map_err(|it| wait("CreateContainerError", it))?,
        rlimits: rlimits(context),
        apparmor: match &may.apparmor {
            Profile::Localhost(name) => Some(name.clone()),
            Profile::Unconfined => Some("unconfined".to_owned()),
            Profile::Default => None,
        },
        ..process
    };
    let own = folders.writable(&container.name, attempt);
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
    let (masked_paths, read_only_paths) = if may.masks_proc {
        (paths(&wire::MASKED_PATHS), paths(&wire::READ_ONLY_PATHS))
    } else {
        Default::default()
    };
    let spec = wire::ContainerSpec {
        root: root(&context.roots, present, (own, may.read_only_root)),
        user_namespace: user_namespace(&context.owners),
        masked_paths,
        read_only_paths,
        privileged: may.privileged,
        stdin: stdin(container),
        tty: container.tty == Some(true),
        ..spec
    };
    Ok((process, spec, present.id()))
}

/// Where no control group does it, the kernel limits the processes of a container by its user namespace: who
/// forks without end would have all that the user may have.
fn rlimits(context: &Context) -> Vec<wire::Rlimit> {
    if context.owners == Owners::Root || context.cgroups.lacks(Controller::Pids).is_none() {
        return Vec::new();
    }
    let own = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
    let most = Some(POD_PIDS_MAX.min(own.unwrap_or(POD_PIDS_MAX)));
    vec![wire::Rlimit { resource: wire::RlimitResource::Nproc, soft: most, hard: most }]
}

/// The root of a container, whose `own` folder takes its changes, or is all of it.
fn root(roots: &Roots, present: &Present, (own, read_only): (PathBuf, bool)) -> wire::Root {
    match roots {
        Roots::Overlay => {
            wire::Root::Layers { layers: present.layers.clone(), writable: own, read_only }
        }
        Roots::Copy(_) => wire::Root::Folder { path: own, read_only },
    }
}

/// The profile of seccomp: those of the machine lie in the folder `seccomp` of the state folder.
fn seccomp_profile(state: &Path, profile: &Profile) -> Result<seccomp::Profile, String> {
    Ok(match profile {
        Profile::Default => seccomp::Profile::RuntimeDefault,
        Profile::Unconfined => seccomp::Profile::Unconfined,
        Profile::Localhost(name) => {
            let path = Path::new(name);
            if !path.components().all(|it| matches!(it, Component::Normal(_))) {
                return Err(format!("seccomp profile `{name}` is not a path below `seccomp`"));
            }
            seccomp::Profile::Localhost(state.join("seccomp").join(path))
        }
    })
}

/// An error with its causes.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

fn user(may: &Privileges, image_user: &str) -> wire::User {
    wire::User::Named {
        text: may.user.map_or_else(|| image_user.to_owned(), |it| it.to_string()),
        gid: may.group,
        groups: may.groups.clone(),
        strict: !may.image_groups,
    }
}

fn stdin(container: &Container) -> wire::Stdin {
    match (container.stdin, container.stdin_once) {
        (Some(true), Some(true)) => wire::Stdin::Once,
        (Some(true), _) => wire::Stdin::Open,
        _ => wire::Stdin::Empty,
    }
}

/// The whole map where there is one; else the container has the one identity that it runs as.
fn user_namespace(owners: &Owners) -> Option<wire::IdMap> {
    match owners {
        Owners::Root => None,
        Owners::Single { .. } => Some(wire::IdMap::default()),
        Owners::Range { .. } => {
            let (uids, gids) = owners.nested(0, 0)?;
            let ranges = |it: Vec<image::IdMap>| it.into_iter().map(range).collect();
            Some(wire::IdMap { uids: ranges(uids), gids: ranges(gids) })
        }
    }
}

fn range(of: image::IdMap) -> wire::IdRange {
    let image::IdMap { inside, outside, count } = of;
    wire::IdRange { inside, outside, count }
}

fn pid_namespace(pod: &Pod) -> wire::PidNamespace {
    let spec = pod.spec.as_ref();
    if spec.and_then(|it| it.host_pid) == Some(true) {
        wire::PidNamespace::Host
    } else if spec.and_then(|it| it.share_process_namespace) == Some(true) {
        wire::PidNamespace::Pod
    } else {
        wire::PidNamespace::Own
    }
}

fn variable((name, value): (String, String)) -> String {
    format!("{name}={value}")
}
