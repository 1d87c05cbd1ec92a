//! A route: a listening socket, where its connections go, the faults they suffer, and the books.

mod listener;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use runtime::{OnExit, Tasks};
use tokio::{net::TcpStream, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Connection, How, reset},
    effect::{Direction, Fault},
    line::Listed,
    pump::Common,
    resolve,
    statistics::{Counters, Flow, Statistics},
};
use listener::Listener;

/// What a route does with new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Connects them to the server.
    #[default]
    Forward,
    /// Refuses them: nobody listens. Open connections go on.
    Refuse,
    /// Accepts them and connects them to nobody, until the mode is another one.
    Hold,
}

/// A route as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Name, unique in the proxy.
    pub name: String,
    /// Where clients connect to, as `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Where the server is, as `host:port`. Looked up anew for every connection.
    pub upstream: String,
    /// Whether it is there at all; if not, nothing listens and all its connections are closed.
    pub enabled: bool,
    /// What it does with new connections.
    pub mode: Mode,
    /// Connections that may be open at once; what comes beyond is reset at once. 0: as many as there
    /// are descriptors.
    pub connections_max: usize,
    /// Faults from the start.
    pub faults: Vec<Fault>,
}

/// What all routes share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) seed: u64,
    pub(crate) tasks: Tasks,
    pub(crate) common: Common,
    /// Connections of all routes.
    pub(crate) open: Arc<AtomicUsize>,
    /// Connections that all routes may have open, as descriptors allow.
    pub(crate) open_max: usize,
}

/// An open connection, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its number: connections of a route are counted from 1.
    pub id: u64,
    /// The client's address.
    pub client: SocketAddr,
    /// Client to server.
    pub upstream: Flow,
    /// Server to client.
    pub downstream: Flow,
}

#[derive(Debug)]
struct Entry {
    client: SocketAddr,
    command: watch::Sender<Option<How>>,
    counters: [Arc<Counters>; 2],
}

/// A route at work.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    shared: Shared,
    state: Mutex<State>,
    mode: watch::Sender<Mode>,
    faults: [watch::Sender<Arc<[Listed]>>; 2],
    books: Arc<Books>,
}

#[derive(Debug)]
struct State {
    listen: String,
    upstream: String,
    enabled: bool,
    connections_max: usize,
    faults: Vec<Listed>,
    next_fault: u64,
    listener: Option<Listener>,
    /// Ends the task that accepts.
    accepting: Option<CancellationToken>,
}

/// What is counted of a route.
#[derive(Debug, Default)]
struct Books {
    accepted: AtomicU64,
    open: AtomicUsize,
    over_limit: AtomicU64,
    upstream_failures: AtomicU64,
    last_upstream_failure: Mutex<Option<String>>,
    resets: AtomicU64,
    counters: [Arc<Counters>; 2],
    connections: Mutex<BTreeMap<u64, Entry>>,
}

/// A connection's place in the books; it gives it up when dropped.
#[derive(Clone, Debug)]
pub(crate) struct Counted(Arc<Place>);

#[derive(Debug)]
struct Place {
    books: Arc<Books>,
    all: Arc<AtomicUsize>,
    id: u64,
}

impl Counted {
    pub(crate) fn reset(&self) {
        self.0.books.resets.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn upstream_failed(&self, upstream: &str, error: &io::Error) {
        let books = &self.0.books;
        let text = format!("{upstream}: {error}");
        if books.upstream_failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(error = text, "the server cannot be reached; further ones are counted");
        }
        *lock(&books.last_upstream_failure) = Some(text);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.books.connections).remove(&self.id);
        self.books.open.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Route {
    /// Makes it, and opens it if it is enabled.
    pub(crate) fn new(config: RouteConfig, shared: Shared) -> io::Result<Arc<Self>> {
        let none = || watch::Sender::new(Arc::<[Listed]>::from([]));
        let route = Arc::new(Self {
            name: config.name,
            shared,
            state: Mutex::new(State {
                listen: config.listen,
                upstream: config.upstream,
                enabled: false,
                connections_max: config.connections_max,
                faults: Vec::new(),
                next_fault: 0,
                listener: None,
                accepting: None,
            }),
            mode: watch::Sender::new(config.mode),
            faults: [none(), none()],
            books: Arc::default(),
        });
        for fault in config.faults {
            route.set_fault(fault);
        }
        if config.enabled {
            route.enable()?;
        }
        Ok(route)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Opens the route. Harmless if it is open.
    pub(crate) fn enable(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state();
        if state.enabled {
            return Ok(());
        }
        if state.listener.is_none() {
            let listener = Listener::bind(&state.listen)?;
            state.listen = listener.address()?.to_string();
            state.listener = Some(listener);
        }
        if *self.mode.borrow() != Mode::Refuse {
            self.accept(&mut state)?;
        }
        state.enabled = true;
        Ok(())
    }

    /// Closes the route and all its connections.
    pub(crate) fn disable(&self) {
        let mut state = self.state();
        state.enabled = false;
        Self::refuse(&mut state);
        drop(state);
        self.end_connections(None, How::Close);
    }

    /// Changes what it does with new connections.
    pub(crate) fn set_mode(self: &Arc<Self>, mode: Mode) -> io::Result<()> {
        let mut state = self.state();
        if state.enabled && mode == Mode::Refuse {
            Self::refuse(&mut state);
        } else if state.enabled && state.accepting.is_none() {
            self.accept(&mut state)?;
        }
        self.mode.send_replace(mode);
        Ok(())
    }

    /// Moves the route. Open connections are closed.
    pub(crate) fn set_addresses(
        self: &Arc<Self>,
        listen: Option<&str>,
        upstream: Option<&str>,
    ) -> io::Result<()> {
        let mut state = self.state();
        let listen = listen.filter(|it| !resolve::is_same(it, &state.listen)).map(str::to_owned);
        let upstream = upstream.filter(|it| *it != state.upstream).map(str::to_owned);
        if listen.is_none() && upstream.is_none() {
            return Ok(());
        }
        let was_enabled = state.enabled;
        if let Some(listen) = listen {
            Self::refuse(&mut state);
            state.enabled = false;
            state.listener = None;
            state.listen = listen;
        }
        if let Some(upstream) = upstream {
            state.upstream = upstream;
        }
        drop(state);
        self.end_connections(None, How::Close);
        if was_enabled { self.enable() } else { Ok(()) }
    }

    pub(crate) fn set_connections_max(&self, connections_max: usize) {
        self.state().connections_max = connections_max;
    }

    fn refuse(state: &mut State) {
        if let Some(accepting) = state.accepting.take() {
            accepting.cancel();
        }
        if let Some(listener) = &state.listener {
            listener.refuse();
        }
    }

    fn accept(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let Some(listener) = &state.listener else { return Ok(()) };
        let mut accepted = listener.accept()?;
        let over = CancellationToken::new();
        state.accepting = Some(over.clone());
        let route = Arc::clone(self);
        self.shared.tasks.spawn("fault-route", OnExit::Log, |stop| async move {
            loop {
                let (client, address) = tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = over.cancelled() => return Ok(()),
                    accepted = accepted.next() => accepted?,
                };
                route.serve(client, address);
            }
        });
        Ok(())
    }

    fn serve(&self, client: TcpStream, address: SocketAddr) {
        let books = &self.books;
        let id = books.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        let (upstream, max) = {
            let state = self.state();
            (state.upstream.clone(), state.connections_max)
        };
        let open = books.open.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.shared.open.fetch_add(1, Ordering::Relaxed) + 1;
        let (command, commands) = watch::channel(None);
        let counters: [Arc<Counters>; 2] = Default::default();
        let entry = Entry { client: address, command, counters: counters.clone() };
        lock(&books.connections).insert(id, entry);
        let place = Place { books: Arc::clone(books), all: Arc::clone(&self.shared.open), id };
        let counted = Counted(Arc::new(place));
        if (max > 0 && open > max) || all > self.shared.open_max {
            if books.over_limit.fetch_add(1, Ordering::Relaxed) == 0 {
                let limit = if max > 0 && open > max { max } else { self.shared.open_max };
                tracing::warn!(route = self.name, limit, "too many connections; further are reset");
            }
            reset(&client);
            return;
        }
        let [of_up, of_down] = counters;
        let [route_up, route_down] = &books.counters;
        let [up, down] = &self.faults;
        let connection = Connection {
            client,
            upstream,
            seed: fastrand::Rng::with_seed(self.shared.seed ^ crate::line::hash(&self.name))
                .u64(..)
                .wrapping_add(id),
            mode: self.mode.subscribe(),
            command: commands,
            faults: [up.subscribe(), down.subscribe()],
            counters: [[Arc::clone(route_up), of_up], [Arc::clone(route_down), of_down]],
            common: self.shared.common.clone(),
            counted,
        };
        let tasks = &self.shared.tasks;
        tasks.spawn("fault-connection", OnExit::Log, |stop| async move {
            connection.serve(stop).await;
            Ok(())
        });
    }

    /// Takes `fault` in the place of the one of its name, or beside the others.
    pub(crate) fn set_fault(&self, fault: Fault) {
        let mut state = self.state();
        let known = state.faults.iter_mut().find(|it| it.fault.name == fault.name);
        match known {
            Some(listed) if listed.fault.direction == fault.direction => {
                listed.fault = Arc::new(fault);
            }
            _ => {
                state.faults.retain(|it| it.fault.name != fault.name);
                let id = state.next_fault;
                state.next_fault += 1;
                state.faults.push(Listed { id, fault: Arc::new(fault) });
            }
        }
        self.publish(&state);
    }

    /// Takes a fault away. Returns whether it was there.
    pub(crate) fn clear_fault(&self, name: &str) -> bool {
        let mut state = self.state();
        let before = state.faults.len();
        state.faults.retain(|it| it.fault.name != name);
        self.publish(&state);
        state.faults.len() < before
    }

    /// Takes every fault away.
    pub(crate) fn clear_faults(&self) {
        let mut state = self.state();
        state.faults.clear();
        self.publish(&state);
    }

    fn publish(&self, state: &State) {
        for (direction, sender) in Direction::ALL.into_iter().zip(&self.faults) {
            let of_direction = state.faults.iter().filter(|it| it.fault.direction == direction);
            sender.send_replace(of_direction.cloned().collect());
        }
    }

    /// The route as it is now.
    pub(crate) fn config(&self) -> RouteConfig {
        let state = self.state();
        let of = |direction| {
            let faults = state.faults.iter().map(move |it| &*it.fault);
            faults.filter(move |it| it.direction == direction).cloned()
        };
        RouteConfig {
            name: self.name.clone(),
            listen: state.listen.clone(),
            upstream: state.upstream.clone(),
            enabled: state.enabled,
            mode: *self.mode.borrow(),
            connections_max: state.connections_max,
            faults: Direction::ALL.into_iter().flat_map(of).collect(),
        }
    }

    /// What has passed.
    pub(crate) fn statistics(&self) -> Statistics {
        let books = &self.books;
        let [upstream, downstream] = &books.counters;
        Statistics {
            accepted: books.accepted.load(Ordering::Relaxed),
            open: books.open.load(Ordering::Relaxed) as u64,
            over_limit: books.over_limit.load(Ordering::Relaxed),
            upstream_failures: books.upstream_failures.load(Ordering::Relaxed),
            last_upstream_failure: lock(&books.last_upstream_failure).clone(),
            resets: books.resets.load(Ordering::Relaxed),
            upstream: upstream.read(),
            downstream: downstream.read(),
        }
    }

    /// Open connections, oldest first.
    pub(crate) fn connections(&self) -> Vec<Open> {
        let connections = lock(&self.books.connections);
        let open = |(id, entry): (&u64, &Entry)| {
            let [upstream, downstream] = &entry.counters;
            Open {
                id: *id,
                client: entry.client,
                upstream: upstream.read(),
                downstream: downstream.read(),
            }
        };
        connections.iter().map(open).collect()
    }

    /// Ends connection `id`, or all of them. Returns how many.
    pub(crate) fn end_connections(&self, id: Option<u64>, how: How) -> usize {
        let connections = lock(&self.books.connections);
        let mut ended = 0;
        for (_, entry) in connections.iter().filter(|(it, _)| id.is_none_or(|id| id == **it)) {
            entry.command.send_replace(Some(how));
            ended += 1;
        }
        ended
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
