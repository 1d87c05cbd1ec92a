//! A restart of the process takes over what is in the kernel, and traffic notices nothing.

use crate::{
    Test,
    api::{SERVICES, SLICES},
    namespace::{self, ask},
    world::{Traffic, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_restart_interrupts_no_traffic", a_restart_interrupts_no_traffic),
    ("an_upgrade_of_the_rules_interrupts_no_traffic", an_upgrade_of_the_rules),
    ("what_changed_meanwhile_is_made_good", what_changed_meanwhile_is_made_good),
];

/// Restarts under traffic.
const RESTARTS: usize = 10;
/// Upgrades under traffic: both names of the table are left and found.
const UPGRADES: usize = 20;

fn a_restart_interrupts_no_traffic() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let traffic = Traffic::start(&a, "10.96.0.7:80");
    for _ in 0..RESTARTS {
        world.stop();
        world.resume();
        assert_eq!(world.attach("a", &a.netns), a.address);
        assert_eq!(world.attach("b", &b.netns), b.address);
    }
    assert!(traffic.finish() > RESTARTS);
    let other = namespace::new();
    let address = world.attach("other", &other);
    assert!(address != a.address && address != b.address);
}

fn an_upgrade_of_the_rules() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    let traffic = Traffic::start(&a, "10.96.0.7:80");
    for port in 0..u16::try_from(UPGRADES).unwrap() {
        world.stop();
        // Other rules make another table.
        world.config.local_ports = vec![7000 + port];
        world.resume();
    }
    assert!(traffic.finish() > UPGRADES);
}

fn what_changed_meanwhile_is_made_good() {
    let mut world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    for (name, address) in [("web", "10.96.0.7"), ("old", "10.96.0.8")] {
        world.service(name, address);
        world.endpoints(name, &[&b]);
        let address = format!("{address}:80");
        until(|| ask(&a.netns, &address), Result::is_ok);
    }
    world.stop();
    world.endpoints("web", &[&c]);
    world.api.delete(SERVICES, "old");
    world.api.delete(SLICES, "old");
    world.resume();
    assert_eq!(ask(&a.netns, "10.96.0.7:80").unwrap(), format!("c {}", a.address));
    let error = ask(&a.netns, "10.96.0.8:80").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
