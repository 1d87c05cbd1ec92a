//! What a user of a scenario does, compiled: a list of instructions that a user walks through, the
//! requests in it, and where its variables come from. Plain data; `user` walks, `flow` compiles.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::{HeaderName, Method};

use super::{
    answer::{Check, Extraction},
    data::Table,
    template::{Template, Value},
};
use crate::{
    exchange::{Origin, Request},
    plan::StepId,
};

/// Everything that the users of one scenario share.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Names of steps, in the order of [`StepId`].
    pub(super) steps: Vec<String>,
    pub(super) instructions: Vec<Instruction>,
    pub(super) requests: Vec<Step>,
    /// Names of variables, by slot.
    pub(super) slots: Vec<Slot>,
    /// Data files that users take a row of.
    pub(super) bindings: Vec<Binding>,
    /// How many loops there are; each has a counter of its own.
    pub(super) counters: usize,
    /// Whether users keep cookies.
    pub(super) cookies: bool,
    /// Where redirects may lead: nobody else asked for the load.
    pub(super) origins: BTreeSet<Arc<Origin>>,
}

/// A variable.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    /// Whether a header has it, which may not hold everything.
    pub(super) in_header: bool,
}

/// The row that a user takes of a data file, and where its values go.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) table: Arc<Table>,
    /// Column and slot.
    pub(super) columns: Vec<(usize, usize)>,
}

/// One instruction. Positions are indices of [`Program::instructions`]; behind the last one, the
/// user leaves.
#[derive(Debug)]
pub(super) enum Instruction {
    /// Sends a request, an index of [`Program::requests`].
    Send(usize),
    /// Waits.
    Think(Think),
    /// Goes on at one of several places, chosen by weight.
    Choose(Vec<(f64, usize)>),
    /// Goes on elsewhere.
    Jump(usize),
    /// Begins a loop: draws how often, and goes behind its end if that is 0.
    Begin { counter: usize, least: u64, most: u64, end: usize },
    /// Ends one round of a loop.
    Again { counter: usize, start: usize },
    /// Leaves.
    Leave,
}

/// How long a user waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Think {
    Constant(Duration),
    Uniform(Duration, Duration),
    /// By its mean.
    Exponential(Duration),
}

/// A request of a scenario, and what is to become of its answer.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) id: StepId,
    /// The request with all that is known beforehand; a request without variables is only this.
    pub(super) base: Request,
    pub(super) path: Option<Template>,
    pub(super) headers: Vec<(HeaderName, Template)>,
    pub(super) authorization: Option<Credentials>,
    pub(super) body: Option<Template>,
    pub(super) checks: Vec<Check>,
    pub(super) extractions: Vec<Extraction>,
    /// Whether its user leaves when it fails.
    pub(super) leave_on_failure: bool,
    /// How many redirects are followed.
    pub(super) redirects: u64,
    /// Whether a check says which statuses are right.
    pub(super) checks_status: bool,
}

/// User and password for HTTP's basic authentication.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) user: Template,
    pub(super) password: Template,
}

impl Think {
    pub(super) fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        match self {
            Self::Constant(it) => it,
            Self::Uniform(from, to) => from + to.saturating_sub(from).mul_f64(rng.f64()),
            // The random number is below 1, so its logarithm is finite: at most 37 times the mean.
            Self::Exponential(mean) => mean.mul_f64(-(1.0 - rng.f64()).ln()),
        }
    }
}

/// What a redirect turns the method into. RFC 9110, 15.4, as browsers do it.
pub(super) fn redirected(status: u16, method: &Method) -> Option<Method> {
    match status {
        303 if *method == Method::HEAD => Some(Method::HEAD),
        303 => Some(Method::GET),
        301 | 302 if *method == Method::POST => Some(Method::GET),
        301 | 302 | 307 | 308 => Some(method.clone()),
        _ => None,
    }
}

/// A slot's value for each variable, empty at first.
pub(super) fn empty(slots: &[Slot]) -> Box<[Value]> {
    slots.iter().map(|_| Value::default()).collect()
}
