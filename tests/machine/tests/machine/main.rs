//! What needs a real machine: namespaces, signals, and what is left on the host afterwards. Runs the
//! built binary (`CORACLE`) and kubectl (`KUBECTL`) as whoever runs the test, root or not.
//!
//! This program is also what the tests' pods run: `machine probe …`.
#![expect(clippy::print_stdout, reason = "a test program, and a program in a pod")]

mod apparmor;
mod chaos;
mod clean;
mod cluster;
mod copies;
mod delegated;
mod host;
mod hostile;
mod images;
mod limits;
mod nodes;
mod policies;
mod private;
mod probe;
mod procfile;
mod programs;
mod ranges;
mod refuse;
mod rehearsal;
mod routes;
mod run;
mod sensors;
mod spy;
mod survive;
mod users;
mod within;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

type Test = fn() -> anyhow::Result<()>;

/// Every test, by the name it is reported under.
const TESTS: &[(&str, Test)] = &[
    ("sensors_run_and_answer_on_the_host", run::sensors_run_and_answer_on_the_host),
    ("pods_reach_services_dns_and_the_host", run::pods_reach_services_dns_and_the_host),
    ("faults_come_and_go", chaos::faults_come_and_go),
    ("nodes_keep_their_pods_until_they_are_lost", nodes::nodes_keep_their_pods_until_they_are_lost),
    ("traffic_stays_on_its_node", nodes::traffic_stays_on_its_node),
    ("nodes_are_lost_under_load", rehearsal::nodes_are_lost_under_load),
    ("policies_are_enforced", policies::policies_are_enforced),
    ("container_sees_what_it_should", run::container_sees_what_it_should),
    ("unlinked_image_says_so", run::unlinked_image_says_so),
    ("rolling_restart_fails_no_request", run::rolling_restart_fails_no_request),
    ("two_clusters_live_side_by_side", run::two_clusters_live_side_by_side),
    ("pods_outlive_the_cluster_process", survive::pods_outlive_the_cluster_process),
    ("killed_clusters_start_at_once", survive::killed_clusters_start_at_once),
    ("pods_outlive_the_keeper", survive::pods_outlive_the_keeper),
    ("up_replaces_keepers_that_all_died", survive::up_replaces_keepers_that_all_died),
    ("killed_container_is_restarted", survive::killed_container_is_restarted),
    ("limits_are_enforced_or_said_not_to_be", limits::limits_are_enforced_or_said_not_to_be),
    ("usage_is_told", limits::usage_is_told),
    ("killed_shim_is_replaced", survive::killed_shim_is_replaced),
    ("down_keeps_state_and_up_brings_it_back", survive::down_keeps_state_and_up_brings_it_back),
    ("nothing_is_left_after_down", clean::nothing_is_left_after_down),
    ("nothing_is_left_after_killing_everything", clean::nothing_is_left_after_killing_everything),
    ("nothing_is_left_of_a_pod_deleted_by_force", clean::nothing_is_left_of_a_pod_deleted_by_force),
    ("routing_needs_no_bridge_netfilter", clean::routing_needs_no_bridge_netfilter),
    ("processes_share_the_network_of_the_host", procfile::processes_share_the_network_of_the_host),
    ("processes_outlive_everything_but_shims", procfile::processes_outlive_everything_but_shims),
    (
        "pods_on_the_host_are_probed_and_routed_to",
        procfile::pods_on_the_host_are_probed_and_routed_to,
    ),
    ("bad_procfiles_are_named", procfile::bad_procfiles_are_named),
    ("image_containers_see_their_image_only", images::image_containers_see_their_image_only),
    ("images_come_from_a_registry_on_loopback", images::images_come_from_a_registry_on_loopback),
    ("image_of_a_pod_outlives_its_name", images::image_of_a_pod_outlives_its_name),
    (
        "nothing_of_images_is_left_after_killing_everything",
        images::nothing_of_images_is_left_after_killing_everything,
    ),
    ("sensors_run_from_images", sensors::sensors_run_from_images),
    ("sensors_run_from_images_by_a_queue", sensors::sensors_run_from_images_by_a_queue),
    ("nginx_serves_a_config_map", programs::nginx_serves_a_config_map),
    ("network_is_as_tools_expect", programs::network_is_as_tools_expect),
    ("postgresql_keeps_its_data", programs::postgresql_keeps_its_data),
    ("python_service_runs", programs::python_service_runs),
    ("what_pods_may_is_what_they_ask_for", hostile::what_pods_may_is_what_they_ask_for),
    ("image_pods_find_nothing_of_others", hostile::image_pods_find_nothing_of_others),
    ("containers_that_take_all_are_bounded", hostile::containers_that_take_all_are_bounded),
    ("pull_secrets_and_certificates_are_used", private::pull_secrets_and_certificates_are_used),
    ("full_disk_is_named_and_survived", hostile::full_disk_is_named_and_survived),
    ("ranges_are_chosen_by_hand", routes::ranges_are_chosen_by_hand),
    ("used_port_is_named", refuse::used_port_is_named),
    ("unwritable_state_folder_is_named", refuse::unwritable_state_folder_is_named),
    ("full_state_folder_is_named", refuse::full_state_folder_is_named),
    ("folder_of_another_user_is_named", refuse::folder_of_another_user_is_named),
    ("forbidden_namespaces_are_named", refuse::forbidden_namespaces_are_named),
    ("bad_manifests_are_named", refuse::bad_manifests_are_named),
];

/// The tests of a user with subordinate ids, which are run alone.
const WITH_RANGE: &[(&str, Test)] =
    &[("users_of_an_image_are_users", ranges::users_of_an_image_are_users)];

/// Tests that need rights which an ordinary user has not.
const AS_ROOT: &[(&str, Test)] = &[
    (
        "pods_run_where_overlays_cannot_be_mounted",
        copies::pods_run_where_overlays_cannot_be_mounted,
    ),
    ("the_host_reaches_pods_and_services", routes::the_host_reaches_pods_and_services),
    ("pods_have_users_of_their_own", users::pods_have_users_of_their_own),
    ("users_that_cannot_be_had_are_refused", users::users_that_cannot_be_had_are_refused),
];

/// What one of those starts again, somewhere else.
const ON_OVERLAY: &[(&str, Test)] = &[
    ("on_an_overlay", copies::on_an_overlay),
    ("sharing_on_an_overlay", copies::sharing_on_an_overlay),
];

/// Those that root can run where files can share their bytes.
const WITH_REFLINKS: &[(&str, Test)] =
    &[("copies_share_their_bytes", copies::copies_share_their_bytes)];

/// Those that change what the whole machine has, and so need one of their own.
const IN_OWN_MACHINE: &[(&str, Test)] =
    &[("users_that_the_kernel_forbids_are_named", users::users_that_the_kernel_forbids_are_named)];

/// Those that root can run where control groups are of version 2 only.
const ON_VERSION_2: &[(&str, Test)] = &[
    ("processes_make_room_for_groups_of_pods", delegated::processes_make_room_for_groups_of_pods),
    ("only_delegated_controllers_are_used", delegated::only_delegated_controllers_are_used),
];

/// Those that need a profile of AppArmor in the kernel.
const UNDER_APPARMOR: &[(&str, Test)] =
    &[("profiles_confine_containers", apparmor::profiles_confine_containers)];

/// What is to be run here, and by this user.
fn tests() -> impl Iterator<Item = &'static (&'static str, Test)> {
    let is_root = rustix::process::geteuid().is_root();
    let as_root = if is_root { AS_ROOT } else { &[] };
    let on_version_2 = if delegated::can_be() { ON_VERSION_2 } else { &[] };
    let under_apparmor = if apparmor::can_be() { UNDER_APPARMOR } else { &[] };
    let with_reflinks = if is_root && copies::can_share() { WITH_REFLINKS } else { &[] };
    let in_own_machine =
        if std::env::var_os("OWN_MACHINE").is_some() { IN_OWN_MACHINE } else { &[] };
    let lists = if ranges::range().is_some() {
        vec![WITH_RANGE]
    } else if copies::is_on_overlay() {
        vec![ON_OVERLAY]
    } else {
        vec![TESTS, as_root, on_version_2, under_apparmor, with_reflinks, in_own_machine]
    };
    lists.into_iter().flatten()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(it, rest)| (it.as_str(), rest)) {
        Some(("probe", rest)) => {
            probe::main(rest);
            return ExitCode::SUCCESS;
        }
        Some(("within", rest)) => return within::main(rest),
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    // Two cores, and each test starts a cluster: side by side they would only wait for each other.
    arguments.test_threads = Some(1);
    let trials = tests().map(|(name, test)| {
        Trial::test(*name, move || test().map_err(|error| format!("{error:#}").into()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
