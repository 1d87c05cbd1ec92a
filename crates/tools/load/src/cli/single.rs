//! Users who send one request and leave: what a plain URL means.

use crate::{
    exchange::{Exchange, Request},
    plan::{Behaviour, Next, StepId, User},
};

/// Sends one request, again and again the same.
#[derive(Debug)]
pub(super) struct Single {
    request: Request,
    steps: [String; 1],
}

impl Single {
    pub(super) fn new(request: Request) -> Self {
        Self { request, steps: ["request".to_owned()] }
    }
}

impl Behaviour for Single {
    fn steps(&self) -> &[String] {
        &self.steps
    }

    fn arrive(&self, _: u64, _: u64) -> Box<dyn User> {
        Box::new(Once(Some(self.request.clone())))
    }
}

struct Once(Option<Request>);

impl User for Once {
    fn next(&mut self) -> Next {
        self.0.take().map_or(Next::Leave, |request| Next::Send(StepId(0), request))
    }

    fn receive(&mut self, _: &Exchange) -> Result<(), String> {
        Ok(())
    }
}
