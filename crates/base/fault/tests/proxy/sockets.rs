//! The proxy over real sockets: what a client and a server see of each fault. Times are checked from
//! below only; exact ones are checked on a clock of their own, beside the code.

use std::{io, time::Duration};

use crate::support::{self, Rig, fault, route};
use coracle_fault::{
    BuildError, Change, Config, Direction, Effect, Entry, Fault, How, Mode, RouteConfig,
    RouteError, Trigger,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn carries_bytes_and_ends() {
    let rig = Rig::start().await;
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"question").await.unwrap();
    assert_eq!(support::read(&mut server, 8).await, b"question");
    client.shutdown().await.unwrap();
    // Half a connection goes on.
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"answer");
    rig.until(|it| it.open == 0).await;
    let seen = rig.statistics();
    assert_eq!((seen.accepted, seen.resets), (1, 0));
    assert_eq!((seen.upstream.received_bytes, seen.upstream.delivered_bytes), (8, 8));
    assert_eq!((seen.downstream.received_bytes, seen.downstream.delivered_bytes), (6, 6));
    rig.stop().await;
}

#[tokio::test]
async fn resets_are_passed_on() {
    let rig = Rig::start().await;
    let (mut client, mut server) = rig.connect().await;
    client.write_all(b"x").await.unwrap();
    support::read(&mut server, 1).await;
    server.set_zero_linger().unwrap();
    drop(server);
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    rig.until(|it| it.resets == 1).await;
    rig.stop().await;
}

#[tokio::test]
async fn latency_never_delivers_early() {
    let rig = Rig::start().await;
    rig.set("latency client->server delay=100ms");
    rig.set("latency server->client delay=50ms");
    let (mut client, mut server) = rig.connect().await;
    let start = Instant::now();
    client.write_all(b"x").await.unwrap();
    support::read(&mut server, 1).await;
    assert!(start.elapsed() >= 100 * MS, "{:?}", start.elapsed());
    server.write_all(b"y").await.unwrap();
    support::read(&mut client, 1).await;
    assert!(start.elapsed() >= 150 * MS, "{:?}", start.elapsed());
    assert_eq!(rig.statistics().upstream.faults.get("latency"), Some(&1));
    rig.stop().await;
}

#[tokio::test]
async fn rate_is_not_exceeded() {
    let rig = Rig::start().await;
    rig.set("bandwidth server->client rate=200kB/s");
    let (mut client, mut server) = rig.connect().await;
    let start = Instant::now();
    server.write_all(&[1; 40_000]).await.unwrap();
    support::read(&mut client, 40_000).await;
    // 40 kB at 200 kB/s, less the burst of 5 ms.
    assert!(start.elapsed() >= 195 * MS, "{:?}", start.elapsed());
    rig.stop().await;
}

#[tokio::test]
async fn half_open_hides_the_death_of_the_server() {
    for reset in [false, true] {
        let rig = Rig::start().await;
        let (mut client, mut server) = rig.connect().await;
        rig.set("half_open server->client name=dead");
        // From here on the client hears nothing.
        server.write_all(b"late").await.unwrap();
        client.write_all(b"x").await.unwrap();
        support::read(&mut server, 1).await;
        if reset {
            server.set_zero_linger().unwrap();
        }
        drop(server);
        client.write_all(b"more").await.unwrap();
        let silence = tokio::time::timeout(200 * MS, client.read(&mut [0; 1])).await;
        assert!(silence.is_err(), "reset {reset}: the client heard {silence:?}");
        // When it is over, the client learns of it. A reset may take the bytes before it along.
        assert!(rig.handle.clear_fault(support::NAME, "dead").unwrap());
        let mut rest = Vec::new();
        match client.read_to_end(&mut rest).await {
            Ok(_) => assert_eq!(rest, b"late"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn resets_are_seen_by_both_ends() {
    for effect in ["reset", "reset client->server on=data", "reset client->server bytes=1"] {
        let rig = Rig::start().await;
        let (mut client, mut server) = rig.connect().await;
        rig.set(effect);
        // The reset may be there before the byte is.
        drop(client.write_all(b"x").await);
        for end in [&mut client, &mut server] {
            let error = end.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{effect}");
        }
        rig.until(|it| it.resets == 1).await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn blackhole_loses_bytes_and_keeps_the_connection() {
    let rig = Rig::start().await;
    let (mut client, mut server) = rig.connect().await;
    rig.set("blackhole client->server name=hole");
    client.write_all(b"lost").await.unwrap();
    rig.until(|it| it.upstream.swallowed_bytes == 4).await;
    assert!(rig.handle.clear_fault(support::NAME, "hole").unwrap());
    client.write_all(b"kept").await.unwrap();
    assert_eq!(support::read(&mut server, 4).await, b"kept");
    rig.stop().await;
}

#[tokio::test]
async fn truncation_closes_after_so_many_bytes() {
    let rig = Rig::start().await;
    rig.set("limit_data server->client bytes=1000");
    let (mut client, mut server) = rig.connect().await;
    server.write_all(&[1; 5000]).await.unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, [1; 1000]);
    rig.stop().await;
}

#[tokio::test]
async fn timeout_swallows_and_closes() {
    let rig = Rig::start().await;
    rig.set("timeout both after=100ms");
    let (mut client, mut server) = rig.connect().await;
    let start = Instant::now();
    client.write_all(b"lost").await.unwrap();
    // Closing with unread bytes may show as a reset.
    drop(server.read_to_end(&mut Vec::new()).await);
    drop(client.read_to_end(&mut Vec::new()).await);
    assert!(start.elapsed() >= 90 * MS, "{:?}", start.elapsed());
    assert_eq!(rig.statistics().upstream.delivered_bytes, 0);
    rig.stop().await;
}

#[tokio::test]
async fn refuse_hold_and_forward() {
    let rig = Rig::start().await;
    let (mut old, mut server) = rig.connect().await;
    rig.handle.set_mode(support::NAME, Mode::Refuse).unwrap();
    let error = TcpStream::connect(rig.address).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    old.write_all(b"x").await.unwrap();
    support::read(&mut server, 1).await;

    rig.handle.set_mode(support::NAME, Mode::Hold).unwrap();
    let mut held = TcpStream::connect(rig.address).await.unwrap();
    held.write_all(b"hello").await.unwrap();
    rig.until(|it| it.open == 2).await;
    let silence = tokio::time::timeout(100 * MS, rig.server.accept()).await;
    assert!(silence.is_err(), "connected although held");
    // One that gives up is forgotten.
    let gone = TcpStream::connect(rig.address).await.unwrap();
    rig.until(|it| it.open == 3).await;
    drop(gone);
    rig.until(|it| it.open == 2).await;

    rig.handle.set_mode(support::NAME, Mode::Forward).unwrap();
    let (mut server, _) = rig.server.accept().await.unwrap();
    assert_eq!(support::read(&mut server, 5).await, b"hello");
    rig.stop().await;
}

#[tokio::test]
async fn disabled_routes_drop_connections_and_come_back_on_the_same_port() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        let (mut client, _server) = rig.connect().await;
        let mut config = rig.handle.get(support::NAME).unwrap();
        config.enabled = false;
        rig.handle.update(&config).unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        let error = TcpStream::connect(rig.address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        config.enabled = true;
        rig.handle.update(&config).unwrap();
    }
    rig.handle.remove(support::NAME).unwrap();
    let again = route(&rig.address.to_string(), &rig.upstream());
    rig.handle.add(again).unwrap();
    rig.connect().await;
    rig.stop().await;
}

#[tokio::test]
async fn limits_on_connections() {
    let mut config = route("127.0.0.1:0", "");
    config.connections_max = 1;
    let rig = Rig::with(config, Vec::new()).await;
    let first = rig.connect().await;
    let mut second = TcpStream::connect(rig.address).await.unwrap();
    let error = second.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(first);
    rig.until(|it| it.open == 0 && it.over_limit == 1).await;
    rig.connect().await;
    rig.stop().await;
}

#[tokio::test]
async fn connections_are_listed_and_ended() {
    let rig = Rig::start().await;
    let (mut one, _one_server) = rig.connect().await;
    let (mut two, _two_server) = rig.connect().await;
    let open = rig.handle.connections(support::NAME).unwrap();
    assert_eq!(open.iter().map(|it| it.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(open[0].client, one.local_addr().unwrap());
    assert_eq!(rig.handle.end_connections(support::NAME, Some(1), How::Close).unwrap(), 1);
    assert_eq!(one.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(rig.handle.end_connections(support::NAME, None, How::Reset).unwrap(), 1);
    let error = two.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    rig.stop().await;
}

#[tokio::test]
async fn a_server_out_of_reach_is_counted_and_told() {
    let rig = Rig::start().await;
    let mut config = rig.handle.get(support::NAME).unwrap();
    // A port that nobody has: it was free a moment ago, and is bound by nobody who listens.
    let free = tokio::net::TcpSocket::new_v4().unwrap();
    free.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    config.upstream = free.local_addr().unwrap().to_string();
    rig.handle.update(&config).unwrap();
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    rig.until(|it| it.upstream_failures == 1).await;
    let reason = rig.statistics().last_upstream_failure.unwrap();
    assert!(reason.contains("refused") && reason.contains(&config.upstream), "{reason}");
    rig.stop().await;
}

#[tokio::test]
async fn schedule_begins_and_ends() {
    // Of the same name as one that is there all the time.
    let always = fault(Direction::Upstream, Effect::HalfOpen);
    let hole = Fault { effect: Effect::Blackhole, ..always.clone() };
    let entry = Entry {
        at: 50 * MS,
        duration: Some(100 * MS),
        route: support::NAME.to_owned(),
        change: Change::Faults(vec![hole.clone()]),
    };
    let start = Instant::now();
    let route = RouteConfig { faults: vec![always.clone()], ..route("127.0.0.1:0", "") };
    let rig = Rig::with(route, vec![entry]).await;
    for (fault, at) in [(hole, 50 * MS), (always, 150 * MS)] {
        while rig.handle.get(support::NAME).unwrap().faults != [fault.clone()] {
            tokio::time::sleep(MS).await;
        }
        assert!(start.elapsed() >= at);
    }
    rig.stop().await;
}

#[tokio::test]
async fn chance_is_per_connection_and_the_same_for_a_seed() {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let rig = Rig::start().await;
        rig.set("reset probability=0.5");
        let mut fates = Vec::new();
        for _ in 0..20 {
            let mut client = TcpStream::connect(rig.address).await.unwrap();
            let fate = tokio::select! {
                // A connection that is not reset goes through.
                accepted = rig.server.accept() => {
                    let (mut server, _) = accepted.unwrap();
                    drop(server.write_all(b"x").await);
                    client.read(&mut [0; 1]).await.is_ok()
                }
            };
            fates.push(fate);
        }
        rig.stop().await;
        seen.push(fates);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].contains(&true) && seen[0].contains(&false), "{seen:?}");
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let rig = Rig::start().await;
    let mut taken = route(&rig.address.to_string(), "127.0.0.1:1");
    taken.name = "second".to_owned();
    let error = rig.handle.add(taken).unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {} for route `second`", rig.address));

    let mut greedy = route("127.0.0.1:0", "127.0.0.1:1");
    greedy.name = "greedy".to_owned();
    greedy.connections_max = 100_000_000;
    let error = rig.handle.add(greedy).unwrap_err();
    assert!(matches!(error, RouteError::Descriptors { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -n"), "{error}");

    let mut nowhere = route("127.0.0.1:0", "nowhere");
    nowhere.name = "nowhere".to_owned();
    let error = rig.handle.add(nowhere).unwrap_err();
    assert_eq!(error.to_string(), "where does route `nowhere` lead?");

    let config = Config { control: Some(rig.address.to_string()), ..Config::default() };
    let error = coracle_fault::build(config, &rig.tasks).unwrap_err();
    assert!(matches!(error, BuildError::Control { .. }), "{error}");

    let trigger = Trigger::Start(Duration::from_secs(100_000));
    let long = fault(Direction::Upstream, Effect::Reset { when: trigger });
    let error = rig.handle.set_fault(support::NAME, long).unwrap_err();
    assert_eq!(error.to_string(), "delay of 100000s: at most a day is allowed");
    rig.stop().await;
}
