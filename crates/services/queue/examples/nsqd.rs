//! An nsqd without HTTP: `nsqd ADDRESS FOLDER [CERTIFICATE KEY]`. To try the protocol with.

use std::sync::Arc;

use anyhow::Context as _;
use coracle_queue::{
    broker::{Broker, Config},
    disk::Folders,
    listen::Listener,
    message::NodeId,
    protocol::{self, ClientAuth, Clients, Options, TlsOptions, TlsVersion},
};
use runtime::{Clock, Tasks};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("nsqd ADDRESS FOLDER [CERTIFICATE KEY]")?;
    let folder = arguments.next().context("a folder")?.into();
    let tls = arguments.next().zip(arguments.next()).map(|(cert, key)| TlsOptions {
        cert: cert.into(),
        key: key.into(),
        client_auth: ClientAuth::None,
        root_ca_file: None,
        required: false,
        min_version: TlsVersion::V12,
    });
    let (clock, tasks) = (Clock::system(), Tasks::default());
    let node = NodeId::new(1).context("a node id")?;
    let config = Config::new(node);
    let topics = tasks.component();
    let broker =
        Broker::open(config, Arc::new(Folders), folder, clock.clone(), topics.clone()).await?;
    let listener = Listener::bind(&address).await?;
    let options = Options { tls, ..Options::default() };
    protocol::build(listener, options, broker.clone(), Clients::default(), clock)?.run(&tasks);
    tokio::select! {
        () = tasks.failed() => anyhow::bail!("a task failed"),
        it = tokio::signal::ctrl_c() => it?,
    }
    tasks.shutdown(std::time::Duration::from_secs(5)).await;
    broker.close().await?;
    topics.shutdown(std::time::Duration::from_secs(5)).await;
    Ok(())
}
