//! The name server, asked over UDP from a pod, beside servers of others in a pod.

use std::{fs, net::Ipv4Addr, path::Path};

use serde_json::json;

use super::{
    lab::{Client, Lab},
    middle,
};
use crate::{
    peers::find,
    processes::{self, Moment, Process},
    report::{Aim, Figure},
};

/// How often each has its turn; an odd number.
const ROUNDS: usize = 5;
/// Questions one after the other.
const QUESTIONS: usize = 5_000;
/// Questions that are under way together, and how many there are of them.
const WINDOW: usize = 32;
const FLOOD: usize = 40_000;
/// A name of the cluster that has one address.
const NAME: &str = "small.default.svc.cluster.local";
/// Port of the others, which an ordinary user may have.
const PORT: u16 = 5353;
/// How long a program may take to listen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// A name server of others, with the arguments that have it answer from its configuration.
struct Peer {
    program: &'static str,
    install: &'static str,
    arguments: &'static [&'static str],
    configuration: fn(&Path) -> String,
}

const PEERS: &[Peer] = &[
    Peer {
        program: "dnsmasq",
        install: "apt-get install dnsmasq-base",
        arguments: &["--keep-in-foreground", "--user=", "--conf-file=CONFIGURATION"],
        configuration: |folder| {
            format!(
                "port={PORT}\nno-resolv\nno-hosts\nbind-interfaces\npid-file={}/dnsmasq.pid\n\
                 host-record={NAME},10.96.0.77\n",
                folder.display()
            )
        },
    },
    Peer {
        program: "unbound",
        install: "apt-get install unbound",
        arguments: &["-d", "-c", "CONFIGURATION"],
        configuration: |folder| {
            format!(
                "server:\n  interface: 0.0.0.0@{PORT}\n  access-control: 0.0.0.0/0 allow\n  \
                 do-daemonize: no\n  use-syslog: no\n  chroot: \"\"\n  username: \"\"\n  \
                 directory: \"{0}\"\n  pidfile: \"{0}/unbound.pid\"\n  num-threads: 1\n  \
                 local-zone: \"cluster.local.\" static\n  local-data: \"{NAME}. 5 IN A 10.96.0.77\"\n\
                 remote-control:\n  control-enable: no\n",
                folder.display()
            )
        },
    },
];

/// Somebody who answers.
struct Server {
    name: &'static str,
    address: String,
    processes: Vec<Process>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
    processor: Vec<f64>,
}

/// Asks all of them in turns. The Service `small` must be there.
pub(super) async fn measure(
    lab: &mut Lab,
    client: &mut Client,
    own: Ipv4Addr,
) -> anyhow::Result<Vec<Figure>> {
    let mut servers = vec![server("coracle", format!("{own}:53"), lab.cluster.servers()?)];
    for peer in PEERS {
        match find_server(peer.program) {
            Some(program) => servers.push(start(lab, client, peer, &program).await?),
            None => eprintln!("{} is not installed ({})", peer.program, peer.install),
        }
    }
    for _ in 0..ROUNDS {
        for server in &mut servers {
            turn(client, server).await?;
        }
    }
    let mut figures = Vec::new();
    for Server { name, p50, p99, rate, processor, .. } in servers {
        let own = name == "coracle";
        let p50 = Figure::new(format!("names, {name}: p50"), middle(p50), "µs");
        figures.push(if own { p50.aim(Aim::AtMost(40.0)) } else { p50 });
        figures.push(Figure::new(format!("names, {name}: p99"), middle(p99), "µs"));
        figures.push(Figure::new(
            format!("names, {name}: {WINDOW} at a time"),
            middle(rate),
            "1/s",
        ));
        let each = Figure::new(format!("names, {name}: processor"), middle(processor), "µs");
        figures.push(each);
    }
    Ok(figures)
}

fn server(name: &'static str, address: String, processes: Vec<Process>) -> Server {
    let (p50, p99, rate, processor) = Default::default();
    Server { name, address, processes, p50, p99, rate, processor }
}

/// Servers are where root's programs are, which not everybody's `PATH` has.
pub(crate) fn find_server(program: &str) -> Option<std::path::PathBuf> {
    let usual = Path::new("/usr/sbin").join(program);
    find(program).or_else(|| usual.is_file().then_some(usual))
}

async fn start(
    lab: &mut Lab,
    client: &mut Client,
    peer: &Peer,
    program: &Path,
) -> anyhow::Result<Server> {
    let folder = lab.cluster.folder().join(peer.program);
    fs::create_dir(&folder)?;
    let configuration = folder.join("configuration");
    fs::write(&configuration, (peer.configuration)(&folder))?;
    let configuration = configuration.display().to_string();
    let program = program.display().to_string();
    let arguments = peer.arguments.iter().map(|it| it.replace("CONFIGURATION", &configuration));
    let words: Vec<String> = std::iter::once(program).chain(arguments).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    lab.start(peer.program, &json!({}), ("run", &words)).await?;
    let address = format!("{}:{PORT}", lab.address(peer.program).await?);
    let until = tokio::time::Instant::now() + PATIENCE;
    while let Err(error) = client.one(&format!("lookup {address} {NAME} 1")).await {
        if until < tokio::time::Instant::now() {
            return Err(error.context(format!("{} does not answer", peer.program)));
        }
    }
    let processes = processes::with_argument(&configuration)?;
    Ok(server(peer.program, address, processes))
}

async fn turn(client: &mut Client, server: &mut Server) -> anyhow::Result<()> {
    let address = &server.address;
    let (p50, p99) = client.both(&format!("lookup {address} {NAME} {QUESTIONS}")).await?;
    server.p50.push(p50 * 1e6);
    server.p99.push(p99 * 1e6);
    let before = Moment::now(&server.processes)?;
    let seconds = client.one(&format!("flood {address} {NAME} {WINDOW} {FLOOD}")).await?;
    let spent = Moment::now(&server.processes)?.since(&before);
    anyhow::ensure!(spent.cpu_nanoseconds > 0, "{} took no time", server.name);
    server.rate.push(FLOOD as f64 / seconds);
    server.processor.push(spent.cpu_nanoseconds as f64 / 1e3 / FLOOD as f64);
    Ok(())
}
