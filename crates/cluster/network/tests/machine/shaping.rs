//! Faults that have packets come late, twice, broken, slowly or not at all.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::LazyLock,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use coracle_network::{Disturbance, Impairment};

use crate::{
    Test,
    cuts::{addresses, at, connection, connection_at, does_not_connect, is_not_answered},
    holder::Holder,
    namespace::{self, PATIENCE, ask, exchange, udp},
    world::{Pod, Traffic, World, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("packets_come_late", packets_come_late),
    ("those_of_some_come_late_also_through_services", those_of_some_come_late),
    ("delays_add", delays_add),
    ("all_packets_are_lost", all_packets_are_lost),
    ("a_rate_is_kept", a_rate_is_kept),
    ("bulk_arrives_intact_whatever_happens_to_packets", bulk_arrives_intact),
    ("datagrams_come_twice_or_not_at_all", datagrams_come_twice_or_not_at_all),
    ("a_shaped_pod_comes_and_goes", a_shaped_pod_comes_and_goes),
    ("a_killed_process_shapes_nothing", a_killed_process_shapes_nothing),
    ("faults_come_and_go_beside_traffic", faults_come_and_go),
    ("what_waits_is_sent_when_it_is_undone", what_waits_is_sent_when_it_is_undone),
];

/// What nothing without a fault takes here, but every packet with one does.
pub(crate) const DELAY: Duration = Duration::from_millis(50);

/// Nothing wrong, to be changed.
pub(crate) const NOTHING: Shape = Shape {
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    loss: 0.0,
    duplicate: 0.0,
    corrupt: 0.0,
    bytes_per_second: None,
};

#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) corrupt: f64,
    pub(crate) bytes_per_second: Option<u64>,
}

impl From<Shape> for Impairment {
    fn from(it: Shape) -> Self {
        let Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second } = it;
        Self::Shape { delay, jitter, loss, duplicate, corrupt, bytes_per_second }
    }
}

pub(crate) fn shaped(to: &[&Pod], from: Option<&[&Pod]>, shape: Shape) -> Disturbance {
    let (to, from) = (addresses(to), from.map(addresses));
    Disturbance { to, from, impairment: shape.into() }
}

fn late(to: &[&Pod], from: Option<&[&Pod]>) -> Disturbance {
    shaped(to, from, Shape { delay: DELAY, ..NOTHING })
}

/// How long a datagram and its answer take.
pub(crate) fn round_trip(from: &Pod, address: &str) -> Duration {
    let socket = udp(&from.netns, address);
    let started = Instant::now();
    exchange(&socket, b"?").unwrap();
    started.elapsed()
}

/// Links of the cluster, and what says which way packets go.
fn kernel() -> Vec<String> {
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let links = links.lines().filter_map(|it| Some(it.split_once(':')?.0.trim().to_owned()));
    let routes = fs::read_to_string("/proc/thread-self/net/route").unwrap();
    links.chain(routes.lines().map(str::to_owned)).collect()
}

/// Threads that shape.
pub(crate) fn shapers() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = threads.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
    names.filter(|it| it.starts_with("shaper")).count()
}

fn packets_come_late() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let (before, quick) = (kernel(), round_trip(&a, &at(&b, 80)));
    world.disturb(vec![late(&[&b], None)]);
    until(shapers, |it| *it == 1);
    let (there, back) = (round_trip(&a, &at(&b, 80)), round_trip(&b, &at(&a, 80)));
    println!("round trip: {quick:?}, late {there:?}, its answer late {back:?}");
    assert!(there >= DELAY && back >= DELAY);
    // In several packets, which are put together again.
    assert_eq!(exchange(&udp(&a.netns, &at(&b, 80)), &[0; 4000]).unwrap(), b"b");
    // From here, over TCP: what begins and what is asked are late both.
    let started = Instant::now();
    namespace::read(at(&b, 80).parse().unwrap()).unwrap();
    assert!(started.elapsed() >= 2 * DELAY);
    // Others do not even come to the shaper.
    let mut others: Vec<Duration> = (0..20).map(|_| round_trip(&a, &at(&c, 80))).collect();
    others.sort();
    assert!(others[0] < DELAY, "{others:?}");
    world.disturb(Vec::new());
    assert_eq!(kernel(), before);
    until(shapers, |it| *it == 0);
    let mut healed: Vec<Duration> = (0..20).map(|_| round_trip(&a, &at(&b, 80))).collect();
    healed.sort();
    assert!(healed[0] < DELAY, "{healed:?}");
}

fn those_of_some_come_late() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    for (name, address, pod) in [("web", "10.96.0.7", &b), ("other", "10.96.0.8", &a)] {
        world.service(name, address);
        world.endpoints(name, &[pod]);
        until(|| ask(&c.netns, &format!("{address}:80")), Result::is_ok);
    }
    world.disturb(vec![late(&[&b], Some(&[&a]))]);
    let quickest = |from: &Pod, to: &str| (0..20).map(|_| round_trip(from, to)).min().unwrap();
    for to in [at(&b, 80), "10.96.0.7:80".to_owned()] {
        assert!(quickest(&a, &to) >= DELAY);
        assert!(quickest(&c, &to) < DELAY);
    }
    // What comes from it as an answer is late too, under whatever address.
    for to in [at(&a, 80), "10.96.0.8:80".to_owned()] {
        assert!(quickest(&b, &to) >= DELAY);
        assert!(quickest(&c, &to) < DELAY);
    }
    assert!(quickest(&b, &at(&c, 80)) < DELAY);
    // Another set takes its place.
    world.disturb(vec![late(&[&a], Some(&[&c]))]);
    assert!(quickest(&a, &at(&b, 80)) < DELAY);
    assert!(quickest(&c, &at(&a, 80)) >= DELAY);
}

fn delays_add() {
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    world.disturb(vec![late(&[&a, &b], None), late(&[&b], None), late(&[&b], Some(&[&a]))]);
    // There with three, back with one.
    assert!(round_trip(&a, &at(&b, 80)) >= 4 * DELAY);
    let others = (0..20).map(|_| round_trip(&c, &at(&b, 80)));
    let quickest = others.min().unwrap();
    assert!(quickest >= 2 * DELAY && quickest < 3 * DELAY, "{quickest:?}");
}

fn all_packets_are_lost() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.disturb(vec![shaped(&[&b], None, Shape { loss: 1.0, ..NOTHING })]);
    is_not_answered(&a, &at(&b, 80));
    does_not_connect(&a, &at(&b, 80));
    world.disturb(Vec::new());
    ask(&a.netns, &at(&b, 80)).unwrap();
}

/// What is sent, again and again: bytes that tell where they are.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let byte = |it: u32| u8::try_from((it ^ it >> 8 ^ it >> 16) & 0xff).unwrap();
    // No multiple of what packets carry, so that one which is missing or too many shows.
    (0..(1 << 20) - 3).map(byte).collect()
});

/// Writes so many bytes in the background.
fn write(mut to: TcpStream, total: usize) -> JoinHandle<()> {
    thread::spawn(move || {
        for start in (0..total).step_by(PATTERN.len()) {
            to.write_all(&PATTERN[..PATTERN.len().min(total - start)]).unwrap();
        }
    })
}

/// Reads to the end and compares; how many bytes.
fn read(mut from: TcpStream) -> usize {
    let mut buffer = vec![0; PATTERN.len()];
    let mut total = 0;
    loop {
        let place = total % PATTERN.len();
        let length = from.read(&mut buffer[..PATTERN.len() - place]).unwrap();
        if length == 0 {
            return total;
        }
        assert!(buffer[..length] == PATTERN[place..][..length], "at {total}");
        total += length;
    }
}

/// How long so many bytes take; they are what was sent.
fn bulk(from: &Pod, to: &Pod, port: u16, total: usize) -> Duration {
    bulk_at(from, to, (to.address, port).into(), total)
}

/// The same to an address of the receiver.
pub(crate) fn bulk_at(from: &Pod, to: &Pod, address: SocketAddr, total: usize) -> Duration {
    let (client, server) = connection_at(from, to, address);
    server.set_read_timeout(Some(4 * PATIENCE)).unwrap();
    LazyLock::force(&PATTERN);
    let started = Instant::now();
    let writer = write(client, total);
    assert_eq!(read(server), total);
    writer.join().unwrap();
    started.elapsed()
}

fn a_rate_is_kept() {
    const RATE: u64 = 1_000_000;
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let rate = Shape { bytes_per_second: Some(RATE), ..NOTHING };
    world.disturb(vec![shaped(&[&b], None, rate)]);
    let took = bulk(&a, &b, 90, 1_000_000);
    println!("1 MB at 1 MB/s: {took:?}");
    assert!(took >= Duration::from_millis(800));
    // To others, and from it, there is no limit.
    assert!(bulk(&a, &c, 90, 1_000_000) < took);
    assert!(bulk(&b, &c, 91, 1_000_000) < took);
}

fn bulk_arrives_intact() {
    const TOTAL: usize = 50_000_000;
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let straight = bulk(&a, &b, 90, TOTAL);
    world.disturb(vec![shaped(&[&b], None, NOTHING)]);
    let through = bulk(&a, &b, 91, TOTAL);
    println!("50 MB: {straight:?}, through the shaper {through:?}");
    let all = Shape {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(1),
        loss: 0.002,
        duplicate: 0.01,
        corrupt: 0.002,
        bytes_per_second: None,
    };
    world.disturb(vec![shaped(&[&a, &b], None, all)]);
    let disturbed = bulk(&a, &b, 92, TOTAL / 50);
    println!("1 MB with everything: {disturbed:?}");
}

fn datagrams_come_twice_or_not_at_all() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.disturb(vec![shaped(&[&a], None, Shape { duplicate: 1.0, ..NOTHING })]);
    let socket = udp(&a.netns, &at(&b, 80));
    for _ in 0..2 {
        assert_eq!(exchange(&socket, b"?").unwrap(), b"b");
        let mut again = [0; 8];
        assert_eq!(socket.recv(&mut again).unwrap(), 1);
    }
    // A datagram with a wrong bit is none: its checksum says so.
    world.disturb(vec![shaped(&[&b], None, Shape { corrupt: 1.0, ..NOTHING })]);
    is_not_answered(&a, &at(&b, 80));
}

fn a_shaped_pod_comes_and_goes() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let before = kernel();
    world.disturb(vec![late(&[&b], None)]);
    // A restart of the pod's namespace, of which the caller does not know.
    let again = world.pod("b");
    assert_eq!(again.address, b.address);
    assert!(round_trip(&a, &at(&again, 80)) >= DELAY);
    world.detach("b");
    until(kernel, |it| it.len() < before.len());
    let next = world.pod("b");
    let quickest = (0..20).map(|_| round_trip(&a, &at(&next, 80))).min().unwrap();
    assert!(quickest < DELAY, "{quickest:?}");
    until(kernel, |it| it.len() == before.len());
    until(shapers, |it| *it == 0);
}

fn a_killed_process_shapes_nothing() {
    let lost = Shape { loss: 1.0, ..NOTHING };
    let mut holder = Holder::new(lost.into());
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let listener = namespace::inside(&b.netns, || TcpListener::bind(("0.0.0.0", 90)).unwrap());
    world.stop();
    let before = kernel();
    holder.disturb(&[b.address]);
    assert!(kernel().len() > before.len());
    is_not_answered(&a, &at(&b, 80));
    holder.kill();
    ask(&a.netns, &at(&b, 80)).unwrap();
    let address: SocketAddr = at(&b, 90).parse().unwrap();
    namespace::inside(&a.netns, || TcpStream::connect(address).unwrap());
    listener.accept().unwrap();
    until(kernel, |it| *it == before);
    world.resume();
    let quickest = (0..20).map(|_| round_trip(&a, &at(&b, 80))).min().unwrap();
    world.disturb(vec![late(&[&b], None)]);
    assert!(round_trip(&a, &at(&b, 80)) >= DELAY.max(quickest));
}

fn faults_come_and_go() {
    const TIMES: usize = 8;
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let world = World::start();
    let (a, b, c) = (world.pod("a"), world.pod("b"), world.pod("c"));
    let round = |to: &Pod| {
        world.disturb(vec![late(&[to], Some(&[&b])), late(&[&b], None)]);
        world.disturb(vec![late(&[&b], None)]);
        world.disturb(Vec::new());
    };
    round(&c);
    let (before, files) = (kernel(), open());
    let mut took = Vec::new();
    // To a pod that is shaped for others.
    let traffic = Traffic::start(&a, &at(&c, 80));
    for _ in 0..TIMES {
        let started = Instant::now();
        round(&c);
        took.push(started.elapsed());
    }
    assert!(traffic.finish() > 0);
    took.sort();
    println!("three changes of faults: p50 {:?}, max {:?}", took[TIMES / 2], took[TIMES - 1]);
    assert_eq!(kernel(), before);
    until(shapers, |it| *it == 0);
    until(open, |it| *it <= files);
}

fn what_waits_is_sent_when_it_is_undone() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let ever = Shape { delay: Duration::MAX, ..NOTHING };
    let (mut client, mut server) = connection(&a, &b, 90);
    world.disturb(vec![shaped(&[&b], None, ever)]);
    client.write_all(b"1").unwrap();
    let socket = udp(&a.netns, &at(&b, 80));
    socket.send(b"?").unwrap();
    world.disturb(vec![shaped(&[&a], None, NOTHING)]);
    let mut byte = [0];
    assert_eq!(socket.recv(&mut byte).unwrap(), 1);
    server.read_exact(&mut byte).unwrap();
    world.disturb(vec![shaped(&[&b], None, ever)]);
    socket.send(b"?").unwrap();
    world.disturb(Vec::new());
    assert_eq!(socket.recv(&mut byte).unwrap(), 1);
    // But not to who is cut off by then.
    world.disturb(vec![shaped(&[&b], None, ever)]);
    socket.send(b"lost").unwrap();
    let cut = Disturbance { to: addresses(&[&b]), from: None, impairment: Impairment::Cut };
    world.disturb(vec![cut]);
    world.disturb(Vec::new());
    let seen = namespace::inside(&b.netns, || fs::read_to_string("/proc/thread-self/net/snmp"));
    let udp = |it: &str| it.lines().filter(|it| it.starts_with("Udp:")).nth(1).map(str::to_owned);
    let received = |it: &str| udp(it).and_then(|it| it.split(' ').nth(1).map(str::to_owned));
    assert_eq!(received(&seen.unwrap()).as_deref(), Some("2"));
}
