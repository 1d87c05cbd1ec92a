//! One plain request, and no scenario: what a URL on the command line means. A user of it is two
//! words, and its request a clone without an allocation.

use std::sync::Arc;

use crate::{
    exchange::{Exchange, Request},
    plan::{Behaviour, Next, StepId, User},
};

/// Users who send this request once and leave. `name` is the step's name in reports.
#[must_use]
pub fn single(name: impl Into<String>, request: Request) -> Arc<dyn Behaviour> {
    Arc::new(Single { steps: [name.into()], request: Arc::new(request) })
}

#[derive(Debug)]
struct Single {
    steps: [String; 1],
    request: Arc<Request>,
}

impl Behaviour for Single {
    fn steps(&self) -> &[String] {
        &self.steps
    }

    fn arrive(&self, _number: u64, _seed: u64) -> Box<dyn User> {
        Box::new(Once(Some(Arc::clone(&self.request))))
    }
}

#[derive(Debug)]
struct Once(Option<Arc<Request>>);

impl User for Once {
    fn next(&mut self) -> Next {
        self.0.take().map_or(Next::Leave, |it| Next::Send(StepId(0), Request::clone(&it)))
    }

    fn receive(&mut self, _exchange: &Exchange) -> Result<(), String> {
        Ok(())
    }
}
