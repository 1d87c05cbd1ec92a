//! Links and addresses of pods.

use std::{collections::BTreeSet, fs, io};

use crate::{
    Test,
    namespace::{self, ask},
    world::{World, eventually},
};

pub(crate) const TESTS: &[Test] = &[
    ("pods_reach_each_other", pods_reach_each_other),
    ("attach_may_be_repeated", attach_may_be_repeated),
    ("a_new_namespace_takes_the_place_of_the_old", a_new_namespace_takes_the_place_of_the_old),
    ("a_detached_pod_leaves_nothing", a_detached_pod_leaves_nothing),
    ("a_pod_comes_back_at_once", a_pod_comes_back_at_once),
    ("a_dead_namespace_leaves_nothing", a_dead_namespace_leaves_nothing),
    ("a_pod_takes_a_spare_over", a_pod_takes_a_spare_over),
    ("a_spare_does_not_outlive_its_process", a_spare_does_not_outlive_its_process),
];

fn links() -> BTreeSet<String> {
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    devices.lines().filter_map(|it| Some(it.split_once(':')?.0.trim().to_owned())).collect()
}

fn pods_reach_each_other() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    assert_eq!(ask(&a.netns, &format!("{}:80", b.address)).unwrap(), format!("b {}", a.address));
    assert_eq!(ask(&b.netns, &format!("{}:80", b.address)).unwrap(), format!("b {}", b.address));
    // The process of the cluster reaches pods too, for probes.
    let probe = namespace::read(format!("{}:80", a.address).parse().unwrap()).unwrap();
    assert_eq!(probe, "a 10.244.0.1");
    // An address that no pod has is unreachable, at once.
    let error = ask(&a.netns, "10.244.77.77:80").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
}

fn attach_may_be_repeated() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let before = links();
    assert_eq!(world.attach("a", &a.netns), a.address);
    assert_eq!(links(), before);
    assert_eq!(ask(&b.netns, &format!("{}:80", a.address)).unwrap(), format!("a {}", b.address));
}

fn a_new_namespace_takes_the_place_of_the_old() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let before = links();
    let again = world.pod("a");
    assert_eq!((again.address, links()), (a.address, before));
    assert_eq!(ask(&b.netns, &format!("{}:80", a.address)).unwrap(), format!("a {}", b.address));
}

fn a_detached_pod_leaves_nothing() {
    let world = World::start();
    let before = links();
    let a = world.pod("a");
    assert_ne!(links(), before);
    world.detach("a");
    eventually(links, |it| *it == before);
    assert!(!namespace::inside(&a.netns, links).contains("eth0"));
    world.detach("a");
    assert_ne!(world.pod("b").address, a.address);
}

/// Its link of before is about to be removed, or just being so.
fn a_pod_comes_back_at_once() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let before = links();
    for _ in 0..10 {
        world.detach("a");
        let address = world.attach("a", &a.netns);
        let answer = ask(&b.netns, &format!("{address}:80")).unwrap();
        assert_eq!(answer, format!("a {}", b.address));
        // Nobody else has got that.
        assert_ne!(world.pod("c").address, address);
        world.detach("c");
    }
    world.detach("a");
    world.stop();
    world.resume();
    assert_eq!(links().len(), before.len() - 1);
}

fn a_dead_namespace_leaves_nothing() {
    let world = World::start();
    let before = links();
    let netns = namespace::new();
    let address = world.attach("a", &netns);
    drop(netns);
    eventually(links, |it| *it == before);
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
    let address = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    assert!(!routes.contains(&address), "{routes}");
    world.detach("a");
}

fn a_pod_takes_a_spare_over() {
    let mut world = World::start();
    let (b, before) = (world.pod("b"), links());
    let old = world.pod("a").address;
    let netns = namespace::new();
    let (spare, address) = world.attach_spare(&netns);
    namespace::serve(&netns, 80, "a");
    world.take_over(&spare, "a");
    // What it had before goes.
    eventually(links, |it| it.len() == before.len() + 1);
    assert!(ask(&b.netns, &format!("{old}:80")).is_err());
    assert_eq!(ask(&b.netns, &format!("{address}:80")).unwrap(), format!("a {}", b.address));
    assert_eq!(world.attach("a", &netns), address);
    world.stop();
    world.resume();
    assert_eq!(world.attach("a", &netns), address);
    assert_eq!(ask(&b.netns, &format!("{address}:80")).unwrap(), format!("a {}", b.address));
    world.detach("a");
    eventually(links, |it| *it == before);
}

fn a_spare_does_not_outlive_its_process() {
    let mut world = World::start();
    let before = links();
    let netns = namespace::new();
    let (spare, _) = world.attach_spare(&netns);
    assert_ne!(links(), before);
    world.stop();
    world.resume();
    assert_eq!(links(), before);
    // A pod that was about to take it over gets another link.
    let address = world.attach("a", &netns);
    assert_eq!(links().len(), before.len() + 1);
    assert!(namespace::inside(&netns, links).contains("eth0"));
    world.detach(&spare);
    let b = world.pod("b");
    namespace::serve(&netns, 80, "a");
    assert_eq!(ask(&b.netns, &format!("{address}:80")).unwrap(), format!("a {}", b.address));
}
