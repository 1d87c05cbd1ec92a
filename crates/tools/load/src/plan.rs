//! What a run is to do: which users arrive when, what each does, when the run ends, what it must
//! reach. Made from a scenario file or from the command line; the engine carries it out.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use crate::exchange::{Exchange, Origin, Request};

/// A whole run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Same seed, same schedule and same choices.
    pub seed: u64,
    /// What arrives beside each other; at least one.
    pub flows: Vec<Flow>,
    /// After the last start: how long answers are waited for.
    pub grace: Duration,
    /// Connections that may be open at once, of all workers together. `None` is as many as
    /// descriptors and local ports allow.
    pub connections_max: Option<usize>,
    /// What must be reachable before anything is measured; each is connected to once, first.
    pub targets: Vec<Origin>,
    /// How connections are made.
    pub transport: Transport,
}

/// How connections are made.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// Which protocol is spoken.
    pub protocol: Protocol,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Who the client is, if the server wants to know.
    pub identity: Option<Identity>,
    /// What may be loaded.
    pub reach: Reach,
}

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time on a connection, connections are kept.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without it.
    Http2,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the system believes.
    #[default]
    System,
    /// Those signed by an authority of this PEM file, and no others.
    File(PathBuf),
    /// Anyone's.
    Anyone,
}

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What may be loaded. Load is harm to whoever did not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of this machine only.
    #[default]
    ThisMachine,
    /// Any: somebody said that they may.
    Anywhere,
}

/// Users of one kind, and when they arrive.
#[derive(Clone)]
pub struct Flow {
    /// Name in reports.
    pub name: String,
    /// When users arrive.
    pub arrival: Arrival,
    /// What each of them does.
    pub behaviour: Arc<dyn Behaviour>,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("name", &self.name)
            .field("arrival", &self.arrival)
            .finish_non_exhaustive()
    }
}

/// When users arrive.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// By a schedule, whatever became of those before: open loop.
    Open(Vec<Stage>),
    /// A fixed number of users, each of whom begins again when it has ended: closed loop. What it
    /// measures is labelled so, because it waits for the server before it sends more.
    Closed {
        /// How many.
        users: usize,
        /// How long.
        duration: Duration,
    },
}

/// A piece of an open schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// How long it lasts.
    pub duration: Duration,
    /// Arrivals per second at its beginning.
    pub from: f64,
    /// Arrivals per second at its end; between the two the rate changes linearly.
    pub to: f64,
    /// How arrivals are spaced.
    pub spacing: Spacing,
}

/// How arrivals of one rate are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Evenly.
    Even,
    /// At random, independent of each other: a Poisson process.
    Poisson,
}

/// What a kind of user does. Shared by all users of a flow.
pub trait Behaviour: Send + Sync {
    /// Names of its steps, in the order of [`StepId`]. Series of results are kept per step.
    fn steps(&self) -> &[String];
    /// A new user. The same `seed` gives the same choices. `number` says which of the flow's users
    /// it is: in an open loop the how-manieth arrival, from 0; in a closed loop the place among those
    /// who are there at once, plus the number of places times how often that place began again. It
    /// never depends on what other users met.
    fn arrive(&self, number: u64, seed: u64) -> Box<dyn User>;
}

/// Index of a step in [`Behaviour::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// One user under way: says what it does next and is told what came of it. Does no IO and knows no
/// clock.
pub trait User: Send {
    /// What it does next.
    fn next(&mut self) -> Next;
    /// Whether this HTTP status is an answer that the last request may get; asked before
    /// [`User::receive`]. Any other is a failure of kind
    /// [`Status`](crate::exchange::FailureKind::Status).
    fn expects(&self, status: u16) -> bool {
        status < 400
    }
    /// Takes what came of the request that the last [`Next::Send`] asked for. An error says which
    /// check failed; the exchange then counts as failed, and the user decides by itself whether it
    /// goes on.
    ///
    /// # Errors
    ///
    /// Name of the check that failed.
    fn receive(&mut self, exchange: &Exchange) -> Result<(), String>;
}

/// What a user does next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Sends a request.
    Send(StepId, Request),
    /// Does nothing for a while.
    Think(Duration),
    /// Leaves.
    Leave,
}
