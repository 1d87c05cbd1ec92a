//! A proxy with one route to a server of the test's own.

use std::{net::SocketAddr, time::Duration};

use coracle_fault::{
    Change, Config, Direction, Effect, Entry, Fault, Handle, Mode, RouteConfig, Statistics,
};
use runtime::Tasks;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

/// Name of the route.
pub(crate) const NAME: &str = "test";

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The proxy and its surroundings.
pub(crate) struct Rig {
    pub(crate) tasks: Tasks,
    pub(crate) handle: Handle,
    /// Where the route listens.
    pub(crate) address: SocketAddr,
    /// Where the API listens.
    pub(crate) control: SocketAddr,
    /// Where it leads to.
    pub(crate) server: TcpListener,
}

/// A route of the usual name.
pub(crate) fn route(listen: &str, upstream: &str) -> RouteConfig {
    RouteConfig {
        name: NAME.to_owned(),
        listen: listen.to_owned(),
        upstream: upstream.to_owned(),
        enabled: true,
        mode: Mode::Forward,
        connections_max: 0,
        faults: Vec::new(),
    }
}

/// A fault named after its kind.
pub(crate) fn fault(direction: Direction, effect: Effect) -> Fault {
    let name = format!("{}_{direction}", effect.kind());
    Fault { name, direction, probability: 1.0, effect }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(route("127.0.0.1:0", ""), Vec::new()).await
    }

    /// Starts with this route, whose upstream is filled in.
    pub(crate) async fn with(mut route: RouteConfig, schedule: Vec<Entry>) -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        route.upstream = server.local_addr().unwrap().to_string();
        let tasks = Tasks::default();
        let control = Some("127.0.0.1:0".to_owned());
        let config = Config { routes: vec![route], schedule, control, seed: 1 };
        let proxy = coracle_fault::build(config, &tasks).unwrap();
        let (handle, control) = (proxy.handle(), proxy.control().unwrap());
        proxy.run();
        let address = handle.get(NAME).unwrap().listen.parse().unwrap();
        Self { tasks, handle, address, control, server }
    }

    pub(crate) fn upstream(&self) -> String {
        self.server.local_addr().unwrap().to_string()
    }

    /// A client and its server's end.
    pub(crate) async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.address).await.unwrap();
        let (server, _) = self.server.accept().await.unwrap();
        (client, server)
    }

    /// Sets what a line says.
    pub(crate) fn set(&self, line: &str) {
        let Change::Faults(faults) = coracle_fault::text::change(line).unwrap() else {
            panic!("no fault: {line}")
        };
        for fault in faults {
            self.handle.set_fault(NAME, fault).unwrap();
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.handle.statistics(NAME).unwrap()
    }

    /// Waits until the statistics are so.
    pub(crate) async fn until(&self, is_so: impl Fn(&Statistics) -> bool) {
        let waiting = async {
            while !is_so(&self.statistics()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "never so: {:?}", self.statistics());
    }

    pub(crate) async fn stop(self) {
        assert!(self.tasks.shutdown(PATIENCE).await, "tasks are left");
    }
}

/// Reads exactly so many bytes.
pub(crate) async fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await.unwrap().unwrap();
    read
}
