//! The shim with real namespaces: as the invoking user and, started by root, as an ordinary user as
//! well.
//!
//! This binary is also the keeper and the shims it starts.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test program, which clippy does not know for one without #[test]"
)]

mod crash;
mod groups;
mod image;
mod place;
mod running;
mod security;
mod users;
mod world;

use std::{ffi::OsString, fs, os::unix::fs::DirBuilderExt as _, path::Path, process::ExitCode};

use crate::place::Place;

type Scenario = fn(&Place);

/// What is run on the host's side; most go into a cluster at once.
const SCENARIOS: [(&str, Scenario); 45] = [
    ("process_gets_what_is_asked_for", world::process),
    ("container_is_alone", world::alone),
    ("network_of_the_host_is_shared", world::on_host),
    ("root_is_the_machines", world::root),
    ("mounts_are_made", world::mounts),
    ("missing_mount_points_are_not_made_on_the_host", world::missing),
    ("what_is_mounted_late_is_seen", world::changed),
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
    ("processes_are_in_their_control_groups", groups::members),
    ("control_groups_are_joined_ahead", groups::ahead),
    ("want_of_memory_is_told", groups::memory),
    ("processes_are_bounded", groups::processes),
    ("containers_outlive_the_cluster", crash::cluster_killed),
    ("containers_die_with_their_shim", crash::shim_killed),
    ("shims_without_a_pod_end_with_the_cluster", crash::spare_without_cluster),
    ("new_keeper_finds_the_namespaces", crash::all_killed_but_shims),
    ("new_keeper_finds_the_namespaces_from_the_hosts_network", crash::all_killed_on_host),
    ("image_is_all_that_is_seen", image::root),
    ("image_takes_changes_and_mounts", image::changes),
    ("image_can_be_a_copy", image::copied),
    ("image_says_who_its_users_are", image::users),
    ("image_cannot_lead_astray", image::astray),
    ("privileges_are_given_up", security::privileges),
    ("nothing_of_the_cluster_is_held", security::held),
    ("own_program_cannot_be_written", security::own_program),
    ("machine_cannot_be_changed", security::machine),
    ("further_users_are_mapped", security::ranges),
    ("standard_streams_are_as_asked_for", image::streams),
    ("processes_can_be_shared", security::shared),
    ("pods_have_users_of_their_own", users::owners),
    ("users_of_a_pod_are_many", users::others),
    ("users_of_a_pod_have_all_kinds_of_containers", users::kinds),
    ("users_of_a_pod_end_with_its_shim", users::killed),
    ("image_start_is_fast", image::fast),
    ("start_is_fast", running::fast),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|it| it.to_str()) {
        Some("keeper") => keeper::main(arguments),
        Some("shim") => coracle_shim::main(arguments),
        Some("hold") => security::hold(),
        Some("ranges") => security::with_ranges(&arguments.collect::<Vec<OsString>>()),
        Some("stage") => crash::stage(&arguments.collect::<Vec<OsString>>()),
        _ => scenarios::main(&SCENARIOS.map(|it| it.0), scenario),
    }
}

/// Runs one scenario, and ends what runs then: keeper and shims outlive everybody, also a test that
/// fails.
fn scenario(name: &str, folder: &Path) {
    let place = Place::new(folder);
    for dir in [&place.run_dir, &place.state_dir] {
        fs::DirBuilder::new().mode(0o700).create(dir).unwrap();
    }
    let (_, scenario) = SCENARIOS.iter().find(|it| name == it.0).unwrap();
    let result = std::panic::catch_unwind(|| scenario(&place));
    place.clean();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
