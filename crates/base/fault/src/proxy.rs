//! The proxy: its configuration, how it is built and run, and the handle through which everybody
//! (tests, the schedule, the HTTP API) changes it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use runtime::{OnExit, Tasks};

use crate::{
    alarm::Alarm,
    connection::How,
    control,
    effect::{self, Fault, Invalid},
    pump::Common,
    resolve,
    route::{Mode, Open, Route, RouteConfig, Shared},
    schedule::{self, Entry},
    statistics::Statistics,
};

/// Routes of one proxy. Each costs a descriptor and a task.
pub const ROUTES_MAX: usize = 1000;

/// Faults of one route: every connection looks at all of them at every step.
pub const FAULTS_MAX: usize = 64;

/// Descriptors that are not for connections: listeners, the API and its clients, the timer, the
/// runtime, standard streams, and what else the process has open.
const DESCRIPTORS_RESERVED: u64 = 128 + ROUTES_MAX as u64;

/// Descriptors of one connection: the client's and the server's.
const DESCRIPTORS_PER_CONNECTION: u64 = 2;

/// What a proxy is to be.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Routes from the start.
    pub routes: Vec<RouteConfig>,
    /// What happens by itself, counted from [`Proxy::run`].
    pub schedule: Vec<Entry>,
    /// Where the HTTP API listens, as `host:port`; nowhere if not given.
    pub control: Option<String>,
    /// Same seed, same choices.
    pub seed: u64,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The HTTP API cannot listen.
    #[error("listen on {address} for the HTTP API")]
    Control {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A route cannot be had.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The schedule names a route that is not there.
    #[error("the schedule names route `{0}`, which is not there")]
    Schedule(String),
    /// Something of the kernel's is missing.
    #[error("prepare the proxy")]
    System(#[source] io::Error),
}

/// Why a route or a fault cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// It is not there.
    #[error("proxy not found")]
    NotFound,
    /// There is one of that name.
    #[error("proxy already exists")]
    Exists,
    /// It cannot listen.
    #[error("listen on {address} for route `{route}`")]
    Listen {
        /// Which.
        route: String,
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Its server's address is none. A name that is not known is not wrong: it is looked up anew for
    /// every connection.
    #[error("where does route `{route}` lead?")]
    Upstream {
        /// Which.
        route: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A fault or a name is not possible.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There are as many as there may be.
    #[error("at most {ROUTES_MAX} routes with {FAULTS_MAX} faults each")]
    TooMany,
    /// More connections than there are descriptors for.
    #[error(
        "{wanted} connections need {needed} descriptors, and this process may have {have}: raise \
         the limit (`ulimit -n`) or ask for at most {most}"
    )]
    Descriptors {
        /// Connections asked for.
        wanted: usize,
        /// What they need.
        needed: u64,
        /// What there are.
        have: u64,
        /// Connections that are possible.
        most: usize,
    },
}

/// A proxy whose sockets are open. Nothing is carried before [`Proxy::run`].
#[derive(Debug)]
pub struct Proxy {
    handle: Handle,
    control: Option<control::Server>,
    schedule: Vec<Entry>,
}

/// Changes a proxy and looks at it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Shared,
    descriptors: u64,
    routes: Mutex<BTreeMap<String, Arc<Route>>>,
}

/// Opens the sockets of a proxy whose tasks `tasks` will own. Must be called in a runtime.
///
/// # Errors
/// If an address cannot be had, or something of the configuration is not possible.
pub fn build(config: Config, tasks: &Tasks) -> Result<Proxy, BuildError> {
    let descriptors = runtime::raise_files(u64::MAX);
    runtime::reserve_files(descriptors).map_err(BuildError::System)?;
    let most = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CONNECTION;
    let common =
        Common { alarm: Alarm::start(tasks).map_err(BuildError::System)?, held: Arc::default() };
    let shared = Shared {
        seed: config.seed,
        tasks: tasks.clone(),
        common,
        open: Arc::default(),
        open_max: usize::try_from(most).unwrap_or(usize::MAX),
    };
    let handle = Handle(Arc::new(Inner { shared, descriptors, routes: Mutex::default() }));
    for route in config.routes {
        handle.add(route)?;
    }
    for entry in &config.schedule {
        if handle.route(&entry.route).is_err() {
            return Err(BuildError::Schedule(entry.route.clone()));
        }
    }
    let control = config.control.map(|address| {
        control::Server::bind(&address).map_err(|source| BuildError::Control { address, source })
    });
    Ok(Proxy { handle, control: control.transpose()?, schedule: config.schedule })
}

impl Proxy {
    /// The handle.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Where the HTTP API listens.
    #[must_use]
    pub fn control(&self) -> Option<SocketAddr> {
        self.control.as_ref().map(control::Server::address)
    }

    /// Carries out the schedule and serves the HTTP API, in the tasks that the proxy was built with;
    /// these also stop it.
    pub fn run(self) {
        let Self { handle, control, schedule } = self;
        let tasks = handle.0.shared.tasks.clone();
        if let Some(server) = control {
            server.run(&handle, &tasks);
        }
        if !schedule.is_empty() {
            tasks.spawn("fault-schedule", OnExit::Log, |stop| async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = schedule::run(&schedule, &handle) => {}
                }
                Ok(())
            });
        }
    }
}

impl Handle {
    fn routes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Route>>> {
        self.0.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, name: &str) -> Result<Arc<Route>, RouteError> {
        self.routes().get(name).map(Arc::clone).ok_or(RouteError::NotFound)
    }

    fn check(&self, config: &RouteConfig) -> Result<(), RouteError> {
        effect::check_name(&config.name)?;
        config.faults.iter().try_for_each(Fault::check)?;
        if config.faults.len() > FAULTS_MAX {
            return Err(RouteError::TooMany);
        }
        Self::check_upstream(config)?;
        self.check_connections(config.connections_max)
    }

    fn check_upstream(config: &RouteConfig) -> Result<(), RouteError> {
        let checked = resolve::split(&config.upstream);
        checked
            .map(drop)
            .map_err(|source| RouteError::Upstream { route: config.name.clone(), source })
    }

    fn check_connections(&self, wanted: usize) -> Result<(), RouteError> {
        let most = self.0.shared.open_max;
        if wanted <= most {
            return Ok(());
        }
        let needed = wanted as u64 * DESCRIPTORS_PER_CONNECTION + DESCRIPTORS_RESERVED;
        Err(RouteError::Descriptors { wanted, needed, have: self.0.descriptors, most })
    }

    /// Adds a route.
    ///
    /// # Errors
    /// If it cannot be had; then nothing is changed.
    pub fn add(&self, config: RouteConfig) -> Result<(), RouteError> {
        self.check(&config)?;
        let mut routes = self.routes();
        if routes.contains_key(&config.name) {
            return Err(RouteError::Exists);
        }
        if routes.len() >= ROUTES_MAX {
            return Err(RouteError::TooMany);
        }
        let (name, address) = (config.name.clone(), config.listen.clone());
        let route = Route::new(config, self.0.shared.clone())
            .map_err(|source| RouteError::Listen { route: name.clone(), address, source })?;
        routes.insert(name, route);
        Ok(())
    }

    /// Removes a route and closes its connections.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, name: &str) -> Result<(), RouteError> {
        let route = self.routes().remove(name).ok_or(RouteError::NotFound)?;
        route.disable();
        Ok(())
    }

    /// The routes as they are now, by name.
    #[must_use]
    pub fn list(&self) -> Vec<RouteConfig> {
        self.routes().values().map(|it| it.config()).collect()
    }

    /// A route as it is now; `listen` is where it does listen.
    ///
    /// # Errors
    /// If it is not there.
    pub fn get(&self, name: &str) -> Result<RouteConfig, RouteError> {
        Ok(self.route(name)?.config())
    }

    /// Brings an existing route to what `config` says of it, faults excepted. Its connections are
    /// closed if it moves or is no longer enabled.
    ///
    /// # Errors
    /// If it is not there or cannot be had so.
    pub fn update(&self, config: &RouteConfig) -> Result<(), RouteError> {
        let route = self.route(&config.name)?;
        Self::check_upstream(config)?;
        self.check_connections(config.connections_max)?;
        let failed = |source| RouteError::Listen {
            route: config.name.clone(),
            address: config.listen.clone(),
            source,
        };
        route.set_connections_max(config.connections_max);
        if !config.enabled {
            route.disable();
        }
        route.set_addresses(Some(&config.listen), Some(&config.upstream)).map_err(failed)?;
        route.set_mode(config.mode).map_err(failed)?;
        if config.enabled {
            route.enable().map_err(failed)?;
        }
        Ok(())
    }

    /// Changes what a route does with new connections.
    ///
    /// # Errors
    /// If it is not there, or cannot listen again.
    pub fn set_mode(&self, name: &str, mode: Mode) -> Result<(), RouteError> {
        let route = self.route(name)?;
        let failed = |source| {
            let (address, route) = (route.config().listen, name.to_owned());
            RouteError::Listen { route, address, source }
        };
        route.set_mode(mode).map_err(failed)
    }

    /// Sets a fault: in the place of the one of its name, or beside the others. It acts on open
    /// connections too.
    ///
    /// # Errors
    /// If the route is not there or the fault is not possible.
    pub fn set_fault(&self, route: &str, fault: Fault) -> Result<(), RouteError> {
        fault.check()?;
        let route = self.route(route)?;
        let faults = route.config().faults;
        let known = faults.iter().any(|it| it.name == fault.name);
        if !known && faults.len() >= FAULTS_MAX {
            return Err(RouteError::TooMany);
        }
        route.set_fault(fault);
        Ok(())
    }

    /// Takes a fault away. Returns whether it was there.
    ///
    /// # Errors
    /// If the route is not there.
    pub fn clear_fault(&self, route: &str, fault: &str) -> Result<bool, RouteError> {
        Ok(self.route(route)?.clear_fault(fault))
    }

    /// Takes all faults of a route away.
    ///
    /// # Errors
    /// If the route is not there.
    pub fn clear_faults(&self, route: &str) -> Result<(), RouteError> {
        self.route(route)?.clear_faults();
        Ok(())
    }

    /// Ends connection `id` of a route, or all of them. Returns how many.
    ///
    /// # Errors
    /// If the route is not there.
    pub fn end_connections(
        &self,
        route: &str,
        id: Option<u64>,
        how: How,
    ) -> Result<usize, RouteError> {
        Ok(self.route(route)?.end_connections(id, how))
    }

    /// Open connections of a route, oldest first.
    ///
    /// # Errors
    /// If the route is not there.
    pub fn connections(&self, route: &str) -> Result<Vec<Open>, RouteError> {
        Ok(self.route(route)?.connections())
    }

    /// What has passed through a route.
    ///
    /// # Errors
    /// If it is not there.
    pub fn statistics(&self, route: &str) -> Result<Statistics, RouteError> {
        Ok(self.route(route)?.statistics())
    }
}
