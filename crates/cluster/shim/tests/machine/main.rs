//! The shim with real namespaces: as the invoking user and, started by root, as an ordinary user as
//! well.
//!
//! This binary is also the keeper and the shims it starts, and the process that runs one scenario:
//! entering namespaces needs a process with one thread.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test program, which clippy does not know for one without #[test]"
)]

mod crash;
mod place;
mod running;
mod world;

use std::{
    ffi::OsString,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt as _},
    process::{Command, ExitCode},
};

use libtest_mimic::{Failed, Trial};

use crate::place::Place;

/// An ordinary user without any rights: `nobody` on most machines.
const USER: u32 = 65_534;

type Scenario = fn(&Place);

/// What is run on the host's side; most go into a cluster at once.
const SCENARIOS: [(&str, Scenario); 21] = [
    ("process_gets_what_is_asked_for", world::process),
    ("container_is_alone", world::alone),
    ("root_is_the_machines", world::root),
    ("mounts_are_made", world::mounts),
    ("missing_mount_points_are_not_made_on_the_host", world::missing),
    ("nested_mounts_share_a_volume", world::nested),
    ("user_can_be_changed_by_root_only", world::user),
    ("reasons_are_given", world::reasons),
    ("bad_mounts_are_named", world::bad_mounts),
    ("exit_codes_and_logs_are_kept", running::exits),
    ("great_output_is_logged_completely", running::output),
    ("stop_waits_for_the_grace_period", running::stop),
    ("stop_kills_the_whole_container", running::stop_all),
    ("probe_gets_output_and_code", running::exec_captured),
    ("exec_has_its_own_streams", running::exec_streams),
    ("requests_out_of_place_are_refused", running::refused),
    ("containers_outlive_the_cluster", crash::cluster_killed),
    ("containers_die_with_their_shim", crash::shim_killed),
    ("shims_without_a_pod_end_with_the_cluster", crash::spare_without_cluster),
    ("new_keeper_finds_the_namespaces", crash::all_killed_but_shims),
    ("start_is_fast", running::fast),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|it| it.to_str()) {
        Some("keeper") => keeper::main(arguments),
        Some("shim") => coracle_shim::main(arguments),
        Some("scenario") => scenario(&arguments.collect::<Vec<OsString>>()),
        Some("stage") => crash::stage(&arguments.collect::<Vec<OsString>>()),
        _ => libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let root = rustix::process::geteuid().is_root();
    let users: &[Option<u32>] = if root { &[None, Some(USER)] } else { &[None] };
    let all = users.iter().flat_map(|user| SCENARIOS.iter().map(move |it| (*user, it.0)));
    all.map(|(user, name)| {
        let title = user.map_or_else(|| name.to_owned(), |_| format!("{name}::as_a_user"));
        Trial::test(title, move || run(name, user))
    })
    .collect()
}

/// Runs a scenario in a process of its own, with a folder of its own.
fn run(name: &str, user: Option<u32>) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755))?;
    // Build folders may lie where the user may not look.
    let executable = dir.path().join("coracle");
    // By another process: a descriptor that can write, inherited by what another test starts at the
    // same moment, would make the copy's execution fail with ETXTBSY.
    let copied = Command::new("cp").arg(std::env::current_exe()?).arg(&executable).status()?;
    assert!(copied.success(), "cp: {copied}");
    let place = dir.path().join("place");
    for path in [place.clone(), place.join("run"), place.join("state")] {
        fs::create_dir(&path)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
        std::os::unix::fs::chown(&path, user, user)?;
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", "60"]).arg(&executable).args(["scenario", name]).arg(&place);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let before = host();
    let output = command.output()?;
    if host() != before {
        return Err("the host's mounts, links or folders have changed".into());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{error}", output.status).into()) }
}

/// What no cluster may change: mounts, links, folders.
fn host() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap();
    let links = read("/proc/self/net/dev");
    let links = links.lines().filter_map(|it| it.split_once(':')).map(|it| it.0.to_owned());
    let folders = ["/", "/etc", "/opt", "/usr", "/dev"].into_iter().flat_map(|dir| {
        fs::read_dir(dir).unwrap().map(|it| it.unwrap().path().to_string_lossy().into_owned())
    });
    let mut all: Vec<String> = links.chain(folders).collect();
    all.sort();
    all.push(read("/proc/self/mountinfo"));
    all
}

fn scenario(arguments: &[OsString]) -> ExitCode {
    let [name, dir] = arguments else { return ExitCode::FAILURE };
    let place = Place::new(dir.as_ref());
    let (_, scenario) = SCENARIOS.iter().find(|it| name == it.0).unwrap();
    // A keeper outlives everybody, also a test that fails.
    let result = std::panic::catch_unwind(|| scenario(&place));
    place.clean();
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
