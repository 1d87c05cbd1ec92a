//! Proxies of others, set up to do what ours does: connections to the server are kept, TLS has a key of the
//! same kind. They write no log of requests, which ours does.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Duration, Instant},
};

use crate::{
    network::find_server,
    peers::{find, run},
    processes::{self, Process},
};

/// A proxy that does not listen after so long will not.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// One of them, running; it ends when this is dropped.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) http: u16,
    pub(super) https: u16,
    pub(super) processes: Vec<Process>,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its workers end with it, which they do not if it is killed.
        let id = self.child.id().and_then(|it| rustix::process::Pid::from_raw(it.cast_signed()));
        if let Some(id) = id
            && let Err(error) = rustix::process::kill_process(id, rustix::process::Signal::TERM)
        {
            eprintln!("cannot end {}: {error}", self.name);
            return;
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
    }
}

/// Starts those that are installed. All have as many threads or workers as there are cores.
pub(super) async fn start(folder: &Path, upstream: &str) -> anyhow::Result<Vec<Peer>> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("an ordinary user's machine has no routes to pods: no proxies of others");
        return Ok(Vec::new());
    }
    fs::create_dir(folder)?;
    let Some(openssl) = find("openssl") else { bail!("openssl is needed, for a certificate") };
    let pem = certificate(&openssl, folder).await?;
    let cores = std::thread::available_parallelism()?.get();
    let mut started = Vec::new();
    for (name, arguments) in
        [("nginx", &["-p", "FOLDER", "-e", "stderr", "-c"][..]), ("haproxy", &["-db", "-f"])]
    {
        let Some(program) = find_server(name) else {
            eprintln!("{name} is not installed (apt-get install {name})");
            continue;
        };
        let (http, https) = (free_port()?, free_port()?);
        let text = match name {
            "nginx" => nginx((http, https), cores, upstream, &pem),
            _ => haproxy((http, https), cores, upstream, &pem),
        };
        let configuration = folder.join(format!("{name}.conf"));
        fs::write(&configuration, text)?;
        let errors = folder.join(format!("{name}.errors"));
        let folder = folder.display().to_string();
        let mut command = Command::new(program);
        command.args(arguments.iter().map(|it| if *it == "FOLDER" { &folder[..] } else { it }));
        command.arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(fs::File::create(&errors)?).spawn();
        let child = child.with_context(|| format!("start {name}"))?;
        let mut peer = Peer { name, http, https, processes: Vec::new(), child };
        listens(&mut peer, &errors).await?;
        started.push(peer);
    }
    Ok(started)
}

async fn listens(peer: &mut Peer, errors: &Path) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", peer.https)).await.is_err() {
        if peer.child.try_wait()?.is_some() || until < Instant::now() {
            let said = fs::read_to_string(errors).unwrap_or_default();
            bail!("{} does not listen: {said}", peer.name);
        }
        tokio::time::sleep(LOOK).await;
    }
    let first = Process::program(peer.child.id().context("it has ended")?);
    peer.processes = processes::children(&[first]);
    peer.processes.push(first);
    Ok(())
}

/// A certificate with its key, in one file. The key is of the kind that ours has.
async fn certificate(openssl: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let (key, pem) = (folder.join("key.pem"), folder.join("both.pem"));
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"]);
    command.arg(&key).arg("-out").arg(&pem);
    run(&mut command).await?;
    let both = fs::read_to_string(&pem)? + &fs::read_to_string(&key)?;
    fs::write(&pem, both)?;
    Ok(pem)
}

fn nginx((http, https): (u16, u16), workers: usize, upstream: &str, pem: &Path) -> String {
    let pem = pem.display();
    format!(
        "daemon off;\npid nginx.pid;\nworker_processes {workers};\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  \
         keepalive_requests 1000000000;\n  \
         upstream web {{ server {upstream}; keepalive 64; keepalive_requests 1000000000; }}\n  \
         server {{\n    listen 127.0.0.1:{http};\n    listen 127.0.0.1:{https} ssl;\n    \
         ssl_certificate {pem};\n    ssl_certificate_key {pem};\n    location / {{\n      \
         proxy_pass http://web;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n      proxy_set_header Host $host;\n      \
         proxy_set_header X-Forwarded-For $remote_addr;\n      \
         proxy_set_header X-Forwarded-Proto $scheme;\n    }}\n  }}\n}}\n"
    )
}

fn haproxy((http, https): (u16, u16), threads: usize, upstream: &str, pem: &Path) -> String {
    let pem = pem.display();
    format!(
        "global\n  nbthread {threads}\n  maxconn 8000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         http-reuse always\n  option forwardfor\n\
         frontend web\n  bind 127.0.0.1:{http}\n  bind 127.0.0.1:{https} ssl crt {pem}\n  \
         default_backend web\n\
         backend web\n  server web {upstream}\n"
    )
}

/// One that nobody had a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
