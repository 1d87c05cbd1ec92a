//! Faults that cut pods off: silence, also of connections that there are, until it is undone.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use coracle_network::{Disturbance, Impairment};

use crate::{
    Test,
    holder::Holder,
    namespace::{self, PATIENCE, ask, exchange, udp},
    world::{Pod, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_cut_is_silent_and_connections_survive_it", a_cut_is_silent),
    ("a_cut_between_some_concerns_nobody_else", a_cut_between_some),
    ("a_cut_pod_is_not_reached_through_services", a_cut_pod_behind_a_service),
    ("a_detached_pod_takes_its_cut_with_it", a_detached_pod_takes_its_cut_with_it),
    ("a_killed_process_cuts_nobody_off", a_killed_process_cuts_nobody_off),
    ("a_restart_begins_undisturbed", a_restart_begins_undisturbed),
];

/// As long as this nothing must come; what is slow cannot fail such a test.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

pub(crate) fn addresses(pods: &[&Pod]) -> BTreeSet<Ipv4Addr> {
    pods.iter().map(|it| it.address).collect()
}

pub(crate) fn cut(to: &[&Pod], from: Option<&[&Pod]>) -> Disturbance {
    let (to, from) = (addresses(to), from.map(addresses));
    Disturbance { to, from, impairment: Impairment::Cut }
}

pub(crate) fn at(pod: &Pod, port: u16) -> String {
    format!("{}:{port}", pod.address)
}

/// Both ends of a connection between two pods.
pub(crate) fn connection(from: &Pod, to: &Pod, port: u16) -> (TcpStream, TcpStream) {
    connection_at(from, to, (to.address, port).into())
}

/// The same of a connection to an address of the other.
pub(crate) fn connection_at(from: &Pod, to: &Pod, address: SocketAddr) -> (TcpStream, TcpStream) {
    let listener = namespace::inside(&to.netns, || TcpListener::bind(address).unwrap());
    let client = namespace::inside(&from.netns, || TcpStream::connect(address).unwrap());
    let (server, _) = listener.accept().unwrap();
    for side in [&client, &server] {
        side.set_read_timeout(Some(PATIENCE)).unwrap();
        side.set_nodelay(true).unwrap();
    }
    (client, server)
}

pub(crate) fn is_silent<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.unwrap_err();
    let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind());
    assert!(silent, "{error:?}");
}

/// Nobody takes a connection from here.
pub(crate) fn does_not_connect(from: &Pod, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    is_silent(namespace::inside(&from.netns, || TcpStream::connect_timeout(&address, SILENCE)));
}

/// A datagram is not answered.
pub(crate) fn is_not_answered(from: &Pod, address: &str) {
    let socket = udp(&from.netns, address);
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    is_silent(exchange(&socket, b"?"));
}

fn a_cut_is_silent() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let (mut client, mut server) = connection(&a, &b, 90);
    let mut byte = [0];
    client.write_all(b"1").unwrap();
    server.read_exact(&mut byte).unwrap();
    world.disturb(vec![cut(&[&b], None)]);
    client.write_all(b"2").unwrap();
    server.write_all(b"3").unwrap();
    for side in [&mut client, &mut server] {
        side.set_read_timeout(Some(SILENCE)).unwrap();
        is_silent(side.read(&mut byte));
        side.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    does_not_connect(&a, &at(&b, 80));
    does_not_connect(&b, &at(&a, 80));
    does_not_connect(&b, "10.96.0.10:53");
    is_not_answered(&a, &at(&b, 80));
    // Nor from the cluster's own process.
    is_silent(TcpStream::connect_timeout(&at(&b, 80).parse().unwrap(), SILENCE));
    ask(&c.netns, &at(&a, 80)).unwrap();
    world.disturb(Vec::new());
    server.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"2");
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"3");
    ask(&a.netns, &at(&b, 80)).unwrap();
    assert_eq!(exchange(&udp(&a.netns, &at(&b, 80)), b"?").unwrap(), b"b");
}

fn a_cut_between_some() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.disturb(vec![cut(&[&b], Some(&[&a]))]);
    does_not_connect(&a, &at(&b, 80));
    does_not_connect(&b, &at(&a, 80));
    for (from, to) in [(&c, &b), (&b, &c), (&a, &c), (&c, &a)] {
        ask(&from.netns, &at(to, 80)).unwrap();
        exchange(&udp(&from.netns, &at(to, 80)), b"?").unwrap();
    }
    namespace::read(at(&b, 80).parse().unwrap()).unwrap();
    // Another set takes the place of the first, at once and wholly.
    world.disturb(vec![cut(&[&b], Some(&[&c])), cut(&[&c], Some(&[&a]))]);
    ask(&a.netns, &at(&b, 80)).unwrap();
    does_not_connect(&c, &at(&b, 80));
    does_not_connect(&a, &at(&c, 80));
}

fn a_cut_pod_behind_a_service() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_ok);
    for from in [None, Some([&a].as_slice())] {
        world.disturb(vec![cut(&[&b], from)]);
        does_not_connect(&a, "10.96.0.7:80");
        is_not_answered(&a, "10.96.0.7:80");
        world.disturb(Vec::new());
        ask(&a.netns, "10.96.0.7:80").unwrap();
    }
}

fn a_detached_pod_takes_its_cut_with_it() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.disturb(vec![cut(&[&b], None), cut(&[&c], Some(&[&a, &b]))]);
    world.detach("b");
    let again = world.pod("b");
    assert_eq!(again.address, b.address);
    ask(&again.netns, &at(&c, 80)).unwrap();
    ask(&a.netns, &at(&again, 80)).unwrap();
    does_not_connect(&a, &at(&c, 80));
    // Nor can a caller that knows no better cut off whoever comes.
    world.detach("b");
    world.disturb(vec![cut(&[&b], None)]);
    let again = world.pod("b");
    assert_eq!(again.address, b.address);
    ask(&a.netns, &at(&again, 80)).unwrap();
}

fn a_killed_process_cuts_nobody_off() {
    let mut holder = Holder::new(Impairment::Cut);
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.stop();
    holder.disturb(&[b.address]);
    does_not_connect(&a, &at(&b, 80));
    holder.kill();
    ask(&a.netns, &at(&b, 80)).unwrap();
    world.resume();
    world.disturb(vec![cut(&[&b], None)]);
    does_not_connect(&a, &at(&b, 80));
}

fn a_restart_begins_undisturbed() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.disturb(vec![cut(&[&b], None)]);
    does_not_connect(&a, &at(&b, 80));
    world.stop();
    world.resume();
    ask(&a.netns, &at(&b, 80)).unwrap();
}
