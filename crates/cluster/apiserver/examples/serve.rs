//! A bare API server without nodes or controllers, to try clients on:
//! `cargo run -p coracle-apiserver --example serve -- FOLDER [PORT]` keeps everything in FOLDER and
//! writes FOLDER/kubeconfig.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use coracle_apiserver::{Config, Server};
use runtime::Tasks;
use store::Store;

const GRACE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().context("usage: serve FOLDER [PORT]")?);
    let port: u16 = arguments.next().as_deref().unwrap_or("6443").parse().context("read PORT")?;
    let store = Store::open(&store::Config::new(folder.join("store"))).context("open the store")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("listen")?;
    let tasks = Tasks::default();
    let mut config = Config::new(folder.join("pki"), fastrand::u64(..));
    config.advertised = listener.local_addr()?;
    let server = Server::build(config, store, &tasks).await?;
    let kubeconfig = server.kubeconfig("coracle", &format!("https://{}", listener.local_addr()?));
    let path = folder.join("kubeconfig");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(kubeconfig.as_bytes())?;
    server.serve(listener, &tasks);
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        () = tasks.failed() => {}
    }
    tasks.shutdown(GRACE).await;
    Ok(())
}
