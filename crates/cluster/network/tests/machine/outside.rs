//! The way to the host and the world, names, and published ports.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    str::FromStr as _,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use serde_json::json;

use crate::{
    Test,
    api::CONFIG_MAPS,
    namespace::{self, OUTSIDE, ask, exchange, host, ping, udp},
    world::{World, eventually, resolv_conf, until},
};

pub(crate) const TESTS: &[Test] = &[
    ("tcp_leaves_through_the_host", tcp_leaves_through_the_host),
    ("udp_leaves_through_the_host", udp_leaves_through_the_host),
    ("udp_reaches_services_on_the_host", udp_reaches_services_on_the_host),
    ("services_lead_to_the_world", services_lead_to_the_world),
    ("pings_leave_through_the_host", pings_leave_through_the_host),
    ("what_cannot_leave_fails_at_once", what_cannot_leave_fails_at_once),
    ("names_of_the_cluster", names_of_the_cluster),
    ("names_outside_are_asked_of_the_host", names_outside_are_asked_of_the_host),
    ("name_servers_of_the_host_are_followed", name_servers_of_the_host_are_followed),
    ("name_servers_are_chosen", name_servers_are_chosen),
    ("ports_are_published_on_the_host", ports_are_published_on_the_host),
];

fn tcp_leaves_through_the_host() {
    let world = World::start();
    let a = world.pod("a");
    namespace::serve(host(), 8080, "host");
    // The host sees its own addresses: the connection is made on its side.
    assert_eq!(ask(&a.netns, "10.244.0.1:8080").unwrap(), "host 127.0.0.1");
    assert_eq!(ask(&a.netns, &format!("{OUTSIDE}:8080")).unwrap(), format!("host {OUTSIDE}"));
    // Nobody answers there: accepted by the proxy, then reset.
    let error = ask(&a.netns, &format!("{OUTSIDE}:8081")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    echo_much(&a.netns, OUTSIDE);
}

/// Half-closed connections and more bytes than any buffer holds.
pub(crate) fn echo_much(netns: &OwnedFd, outside: &str) {
    const BYTES: usize = 8 << 20;
    let listener = namespace::inside(host(), || TcpListener::bind((outside, 8082)).unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        client.write_all(&received.len().to_be_bytes()).unwrap();
    });
    let counted = namespace::inside(netns, || {
        let mut stream = TcpStream::connect((outside, 8082)).unwrap();
        stream.write_all(&vec![7; BYTES]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut count = [0; size_of::<usize>()];
        stream.read_exact(&mut count).unwrap();
        usize::from_be_bytes(count)
    });
    assert_eq!(counted, BYTES);
}

fn udp_leaves_through_the_host() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    namespace::serve_udp(host(), 9090, "host");
    namespace::serve_udp(host(), 9091, "other");
    let outside = format!("{OUTSIDE}:9090");
    // Answers come from whom the pod asked: the sockets are connected.
    for pod in [&a, &b] {
        let socket = udp(&pod.netns, &outside);
        for _ in 0..3 {
            assert_eq!(exchange(&socket, b"?").unwrap(), b"host");
        }
    }
    assert_eq!(exchange(&udp(&a.netns, "10.244.0.1:9090"), b"?").unwrap(), b"host");
    // One port of the pod's, several targets.
    let socket = namespace::inside(&a.netns, || UdpSocket::bind("0.0.0.0:5000").unwrap());
    socket.set_read_timeout(Some(namespace::PATIENCE)).unwrap();
    let targets =
        [(&*outside, "host"), ("198.51.100.7:9091", "other"), ("10.244.0.1:9091", "other")];
    for (target, name) in targets {
        socket.send_to(b"?", target).unwrap();
        let mut answer = [0; 64];
        let (length, from) = socket.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..length], from.to_string()), (name.as_bytes(), target.to_owned()));
    }
    // The largest packet there is.
    let echo = namespace::inside(host(), || UdpSocket::bind("0.0.0.0:9092").unwrap());
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_535];
        let (length, from) = echo.recv_from(&mut buffer).unwrap();
        echo.send_to(&buffer[..length], from).unwrap();
    });
    let socket = udp(&a.netns, &format!("{OUTSIDE}:9092"));
    let large = vec![7; 65_507];
    socket.send(&large).unwrap();
    let mut answer = vec![0; 65_535];
    assert_eq!(socket.recv(&mut answer).unwrap(), large.len());
    // Services lead to pods as before, and pods to each other.
    world.service("web", "10.96.0.7");
    world.endpoints("web", &[&b]);
    until(|| exchange(&udp(&a.netns, "10.96.0.7:80"), b"?").ok(), |it| it.as_deref() == Some(b"b"));
    assert_eq!(exchange(&udp(&a.netns, &format!("{}:80", b.address)), b"?").unwrap(), b"b");
}

fn udp_reaches_services_on_the_host() {
    let mut world = World::start();
    let (a, b) = (world.pod("a"), world.pod_on(1, "b"));
    namespace::serve_udp(host(), 9090, "host");
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [
        {"name": "udp", "port": 80, "nodePort": 30080, "protocol": "UDP"}]});
    world.service_with("web", spec, json!({}));
    // A program of the host, by the addresses of two nodes.
    let on_host = ["10.244.0.1", "10.244.16.1"].map(|it| it.parse().unwrap());
    world.endpoints_with("web", "host", 9090, &on_host);
    let answered = |from: &OwnedFd, at: &str| exchange(&udp(from, at), b"?").ok();
    until(|| answered(&a.netns, "10.96.0.7:80"), |it| it.as_deref() == Some(b"host"));
    // The answers come from whom the pod asked: the sockets are connected.
    let socket = udp(&a.netns, "10.96.0.7:80");
    for _ in 0..3 {
        assert_eq!(exchange(&socket, b"?").unwrap(), b"host");
    }
    // One port of the pod's, several targets.
    namespace::serve_udp(host(), 9091, "host");
    let socket = namespace::inside(&a.netns, || UdpSocket::bind("0.0.0.0:5000").unwrap());
    socket.set_read_timeout(Some(namespace::PATIENCE)).unwrap();
    for target in ["10.96.0.7:80", "10.244.0.1:9091"] {
        socket.send_to(b"?", target).unwrap();
        let (length, from) = socket.recv_from(&mut [0; 64]).unwrap();
        assert_eq!((length, from.to_string()), (4, target.to_owned()));
    }
    assert_eq!(answered(&a.netns, "10.244.0.1:30080").as_deref(), Some(&b"host"[..]));
    // From the host, by the port that is open there.
    for _ in 0..8 {
        assert_eq!(answered(host(), "127.0.0.1:30080").as_deref(), Some(&b"host"[..]));
    }
    // It is in the kernel, and is found there.
    world.stop();
    world.resume();
    assert_eq!(answered(&a.netns, "10.96.0.7:80").as_deref(), Some(&b"host"[..]));
    // A client that stays is led on, and hears when nobody is left.
    let socket = udp(&a.netns, "10.96.0.7:80");
    assert_eq!(exchange(&socket, b"?").unwrap(), b"host");
    world.endpoints_with("web", "host", 80, &[b.address]);
    until(|| exchange(&socket, b"?").ok(), |it| it.as_deref() == Some(b"b"));
    world.endpoints_with("web", "host", 9092, &on_host);
    let refused = |it: &io::Result<_>| {
        it.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
    };
    until(|| exchange(&socket, b"?"), refused);
}

/// Endpoints that somebody wrote, as for a database outside: alone, and beside a pod.
fn services_lead_to_the_world() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    namespace::serve(host(), 9090, "world");
    namespace::serve_udp(host(), 9090, "world");
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.7", "ports": [
        {"name": "tcp", "port": 80, "nodePort": 30080},
        {"name": "udp", "port": 80, "protocol": "UDP"}]});
    world.service_with("web", spec, json!({}));
    let outside = OUTSIDE.parse().unwrap();
    world.endpoints_with("web", "world", 9090, &[outside]);
    let answer = format!("world {OUTSIDE}");
    until(|| ask(&a.netns, "10.96.0.7:80").unwrap_or_default(), |it| *it == answer);
    let socket = udp(&a.netns, "10.96.0.7:80");
    assert_eq!(exchange(&socket, b"?").unwrap(), b"world");
    // From the host, by the port that is open there.
    assert_eq!(ask(host(), "127.0.0.1:30080").unwrap(), answer);
    world.endpoints_with("web", "pod", 80, &[b.address]);
    let who = || ask(&a.netns, "10.96.0.7:80").unwrap();
    let both = |it: &BTreeSet<String>| it.len() == 2;
    eventually(|| (0..20).map(|_| who()).collect(), both);
    world.endpoints_with("web", "pod", 80, &[]);
    world.endpoints_with("web", "world", 9091, &[outside]);
    until(|| ask(&a.netns, "10.96.0.7:80"), Result::is_err);
}

fn pings_leave_through_the_host() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    let pod = b.address.to_string();
    // The world, the host's name, the name server, a pod.
    for to in [OUTSIDE, "10.244.0.1", "10.96.0.10", &pod] {
        for (sequence, data) in [(1, &b"x"[..]), (2, b""), (9, &[7; 1400])] {
            assert_eq!(ping(&a.netns, to, sequence, data).unwrap(), data, "{to}");
        }
    }
    assert_eq!(ping(&b.netns, OUTSIDE, 1, b"b").unwrap(), b"b");
    // Where the host has no way, the pod hears of it.
    let error = ping(&a.netns, "203.0.113.1", 1, b"").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    // Nobody answers for who does not.
    let answers = |it: &str| {
        let file = "/proc/sys/net/ipv4/icmp_echo_ignore_all";
        namespace::inside(host(), || std::fs::write(file, it)).unwrap();
    };
    answers("1");
    let error = ping(&a.netns, OUTSIDE, 1, b"").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    answers("0");
    assert_eq!(ping(&a.netns, OUTSIDE, 1, b"again").unwrap(), b"again");
}

fn what_cannot_leave_fails_at_once() {
    let world = World::start();
    let a = world.pod("a");
    let started = Instant::now();
    // Nobody is there: the host says so, and the pod hears it.
    for nobody in [format!("{OUTSIDE}:123"), "10.244.0.1:123".to_owned()] {
        let error = exchange(&udp(&a.netns, &nobody), b"?").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{nobody}");
    }
    // The host has no way there.
    let error = exchange(&udp(&a.netns, "203.0.113.1:123"), b"?").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
    assert!(started.elapsed() < Duration::from_millis(500));
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn look_up(netns: &OwnedFd, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let answer = exchange(&udp(netns, "10.96.0.10:53"), &question(name, kind)).unwrap();
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, 4711);
    let records = answer.answers.iter().map(|it| it.data.to_string()).collect();
    (answer.metadata.response_code, records)
}

fn names_of_the_cluster() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    world.service("web", "10.96.0.7");
    world.service("db", "None");
    world.endpoints("db", &[&b]);
    let db = "db.shop.svc.cluster.local.";
    let found = eventually(|| look_up(&a.netns, db, RecordType::A), |it| !it.1.is_empty());
    assert_eq!(found, (ResponseCode::NoError, vec![b.address.to_string()]));
    let web = "web.shop.svc.cluster.local.";
    assert_eq!(look_up(&a.netns, web, RecordType::A).1, ["10.96.0.7"]);
    assert_eq!(look_up(&a.netns, web, RecordType::AAAA), (ResponseCode::NoError, vec![]));
    let nothing = look_up(&a.netns, "nope.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(nothing, (ResponseCode::NXDomain, vec![]));
    let own = |kind| look_up(&a.netns, "host.coracle.internal.", kind).1;
    assert_eq!(own(RecordType::A), ["10.244.0.1"]);
    assert_eq!(own(RecordType::AAAA), ["fd12:3456:789a::af4:1"]);
    // Over TCP, two questions on one connection.
    let question = question(web, RecordType::A);
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    namespace::inside(&a.netns, || {
        let mut stream = TcpStream::connect("10.96.0.10:53").unwrap();
        for _ in 0..2 {
            stream.write_all(&[&length, question.as_slice()].concat()).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
        }
    });
    // An endpoint that goes is gone from the names too.
    world.endpoints("db", &[]);
    eventually(|| look_up(&a.netns, db, RecordType::A), |it| it.1.is_empty());
}

/// A name server of the host: every name is 192.0.2.1, answers of a forger come first. It may be one
/// that cannot answer.
fn serve_names(at: &str, code: ResponseCode) {
    let socket = namespace::inside(host(), || UdpSocket::bind((at, 53)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut answer = Message::from_vec(&buffer[..length]).unwrap();
            answer.metadata.message_type = MessageType::Response;
            answer.metadata.response_code = code;
            let name = answer.queries[0].name().clone();
            let mut forged = answer.clone();
            forged.metadata.id ^= 1;
            let address = |it: [u8; 4]| RData::A(A(it.into()));
            forged.add_answer(Record::from_rdata(name.clone(), 60, address([203, 0, 113, 66])));
            answer.add_answer(Record::from_rdata(name, 60, address([192, 0, 2, 1])));
            for message in [forged, answer] {
                socket.send_to(&message.to_vec().unwrap(), client).unwrap();
            }
        }
    });
}

fn names_outside_are_asked_of_the_host() {
    let world = World::start();
    let a = world.pod("a");
    let refused = look_up(&a.netns, "example.com.", RecordType::A);
    assert_eq!(refused, (ResponseCode::ServFail, vec![]));
    serve_names("127.0.0.1", ResponseCode::NoError);
    let found = look_up(&a.netns, "example.com.", RecordType::A);
    assert_eq!(found, (ResponseCode::NoError, vec!["192.0.2.1".to_owned()]));
    let spec = json!({"type": "ExternalName", "externalName": "db.example.com"});
    world.service_with("outside", spec, json!({}));
    let name = "outside.shop.svc.cluster.local.";
    let found = eventually(|| look_up(&a.netns, name, RecordType::A), |it| !it.1.is_empty());
    assert_eq!(found.1, ["db.example.com.", "192.0.2.1"]);
}

fn name_servers_of_the_host_are_followed() {
    let world = World::start();
    let a = world.pod("a");
    let ask = || look_up(&a.netns, "example.com.", RecordType::A);
    assert_eq!(ask(), (ResponseCode::ServFail, vec![]));
    // As somebody's resolver does it: a link to a file that is replaced.
    serve_names("127.0.0.53", ResponseCode::NoError);
    let (file, new) = (resolv_conf().with_extension("real"), resolv_conf().with_extension("new"));
    std::fs::write(&file, "nameserver 127.0.0.53\n").unwrap();
    std::fs::remove_file(resolv_conf()).unwrap();
    std::os::unix::fs::symlink("resolv.real", resolv_conf()).unwrap();
    let found = (ResponseCode::NoError, vec!["192.0.2.1".to_owned()]);
    until(ask, |it| *it == found);
    // A server that cannot answer, and one that is not there, are passed over.
    serve_names("127.0.0.54", ResponseCode::ServFail);
    std::fs::write(&new, "nameserver 127.0.0.54\nnameserver 127.0.0.55\n").unwrap();
    std::fs::rename(&new, &file).unwrap();
    until(ask, |it| it.0 == ResponseCode::ServFail);
    let all = "nameserver 127.0.0.55\nnameserver 127.0.0.54\nnameserver 127.0.0.53\n";
    std::fs::write(&new, all).unwrap();
    std::fs::rename(&new, &file).unwrap();
    until(ask, |it| *it == found);
}

fn name_servers_are_chosen() {
    let world = World::start();
    let (a, b) = (world.pod("a"), world.pod("b"));
    serve_names("127.0.0.1", ResponseCode::ServFail);
    serve_names("127.0.0.54", ResponseCode::NoError);
    let ask = |name: &str| look_up(&a.netns, name, RecordType::A);
    assert_eq!(ask("example.com.").0, ResponseCode::ServFail);
    // A Service of the cluster answers for one domain.
    let socket = namespace::inside(&b.netns, || UdpSocket::bind("0.0.0.0:5353").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let mut answer = Message::from_vec(&buffer[..length]).unwrap();
            answer.metadata.message_type = MessageType::Response;
            let name = answer.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 60, RData::A(A([203, 0, 113, 9].into()))));
            socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
    let port = json!({"name": "udp", "port": 8600, "protocol": "UDP"});
    world.service_with("consul", json!({"clusterIP": "10.96.0.8", "ports": [port]}), json!({}));
    world.endpoints_with("consul", "consul", 5353, &[b.address]);
    let stubs = r#"{"consul": ["10.96.0.8:8600"]}"#;
    let choose = |data| {
        let object = json!({"metadata": {"namespace": "kube-system"}, "data": data});
        world.api.put(CONFIG_MAPS, "kube-dns", object);
    };
    choose(json!({"stubDomains": stubs}));
    let found = |address: &str| (ResponseCode::NoError, vec![address.to_owned()]);
    until(|| ask("web.service.consul."), |it| *it == found("203.0.113.9"));
    assert_eq!(ask("example.com.").0, ResponseCode::ServFail);
    // Another server of the host's side has all the rest.
    choose(json!({"stubDomains": stubs, "upstreamNameservers": r#"["127.0.0.54", "x"]"#}));
    until(|| ask("example.com."), |it| *it == found("192.0.2.1"));
    assert_eq!(ask("web.service.consul."), found("203.0.113.9"));
    let events = eventually(|| world.api.recorded(), |it| !it.is_empty());
    assert!(events[0].contains("\"x\" of `upstreamNameservers` is no address"), "{events:?}");
    world.api.delete(CONFIG_MAPS, "kube-dns");
    until(|| ask("example.com."), |it| it.0 == ResponseCode::ServFail);
}

fn ports_are_published_on_the_host() {
    let world = World::start();
    let b = world.pod("b");
    let used = namespace::inside(host(), || TcpListener::bind("127.0.0.1:9001").unwrap());
    let annotations = |it: &str| json!({"coracle.dev/publish": it});
    let spec = json!({"clusterIP": "10.96.0.7"});
    world.service_with("web", spec.clone(), annotations("9000:80,9001:80"));
    world.endpoints("web", &[&b]);
    let from_host = |port: u16| ask(host(), &format!("127.0.0.1:{port}"));
    assert_eq!(eventually(|| from_host(9000), Result::is_ok).unwrap(), "b 10.244.0.1");
    let events = eventually(|| world.api.recorded(), |it| !it.is_empty());
    assert!(events[0].contains("port 9001 of the host is in use"), "{events:?}");
    drop(used);
    world.service_with("web", spec, annotations("9001:80"));
    assert_eq!(eventually(|| from_host(9001), Result::is_ok).unwrap(), "b 10.244.0.1");
    until(
        || from_host(9000).map_err(|it| it.kind()),
        |it| *it == Err(io::ErrorKind::ConnectionRefused),
    );
    // Without endpoints the client on the host is told so.
    world.endpoints("web", &[]);
    assert!(world.is_unrouted(b.address, namespace::PATIENCE));
    assert_eq!(from_host(9001).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
