//! One user walking through its scenario. Does no IO: says what it does next and is told what came
//! of it. Its choices depend on its own seed and answers only.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, header};
use jiff::Timestamp;

use super::{
    answer::Answer,
    cookies::{Jar, Visit},
    data,
    program::{self, Binding, Instruction, Program, Step, redirected},
    target::resolve,
    template::Value,
};
use crate::{
    exchange::{Exchange, Request, Response},
    plan::{Behaviour, Next, StepId, User},
};

/// A scenario as its users see it.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) program: Arc<Program>,
    /// How many users there are at once in a closed loop; each of their places keeps its row of a
    /// data file whose rows are unique.
    pub(super) places: Option<u64>,
    /// The time of day when the plan was made, for cookies.
    pub(super) began: Timestamp,
}

/// [`Scripted`], shared with its users.
#[derive(Debug)]
pub(super) struct Shared(pub(super) Arc<Scripted>);

impl Behaviour for Shared {
    fn steps(&self) -> &[String] {
        &self.0.program.steps
    }

    fn arrive(&self, number: u64, seed: u64) -> Box<dyn User> {
        Box::new(Walker::new(&self.0, number, seed))
    }
}

/// One user.
#[derive(Debug)]
struct Walker {
    scripted: Arc<Scripted>,
    /// The next instruction.
    position: usize,
    /// Rounds that are left of each loop.
    counters: Box<[u64]>,
    values: Box<[Value]>,
    rng: fastrand::Rng,
    /// What it thought and waited so far.
    clock: Duration,
    jar: Jar,
    /// The last request, while its answer is awaited.
    sent: Option<Sent>,
    /// A redirect to be followed.
    redirect: Option<(StepId, Request)>,
    leaving: bool,
}

#[derive(Debug)]
struct Sent {
    /// Index of the step.
    step: usize,
    /// Redirects followed so far.
    redirects: u64,
    /// The request, if cookies or redirects need to know where it went.
    request: Option<Request>,
}

impl Walker {
    fn new(scripted: &Arc<Scripted>, number: u64, seed: u64) -> Self {
        let program = &scripted.program;
        let mut user = Self {
            scripted: Arc::clone(scripted),
            position: 0,
            counters: vec![0; program.counters].into(),
            values: program::empty(&program.slots),
            rng: fastrand::Rng::with_seed(seed),
            clock: Duration::ZERO,
            jar: Jar::default(),
            sent: None,
            redirect: None,
            leaving: false,
        };
        for binding in &program.bindings {
            user.take_row(binding, number, scripted.places);
        }
        user
    }

    fn take_row(&mut self, binding: &Binding, number: u64, places: Option<u64>) {
        let rows = binding.table.rows.len();
        let count = u64::try_from(rows).unwrap_or(u64::MAX);
        let index = match binding.table.pick {
            data::Pick::Sequential => number % count.max(1),
            data::Pick::Random => self.rng.u64(..count.max(1)),
            data::Pick::Unique => places.map_or(number, |it| number % it.max(1)),
        };
        let row = usize::try_from(index).ok().and_then(|it| binding.table.rows.get(it));
        // Only unique rows can run out, and only of a Poisson process that the plan's check found
        // all but impossible: rather one user fewer than two with one row.
        let Some(row) = row else {
            self.leaving = true;
            return;
        };
        for (column, slot) in &binding.columns {
            if let (Some(slot), Some(value)) = (self.values.get_mut(*slot), row.values.get(*column))
            {
                *slot = value.clone();
            }
        }
    }

    /// Goes on to the next thing that is seen from outside.
    fn walk(&mut self) -> Next {
        let program = Arc::clone(&self.scripted);
        let program = &program.program;
        while let Some(instruction) = program.instructions.get(self.position) {
            self.position += 1;
            match instruction {
                Instruction::Send(index) => {
                    if let Some(step) = program.requests.get(*index) {
                        return self.send(*index, step);
                    }
                }
                Instruction::Think(think) => {
                    let duration = think.draw(&mut self.rng);
                    self.clock += duration;
                    return Next::Think(duration);
                }
                Instruction::Choose(branches) => {
                    let total: f64 = branches.iter().map(|(weight, _)| weight).sum();
                    let mut at = self.rng.f64() * total;
                    for (weight, position) in branches {
                        self.position = *position;
                        at -= weight;
                        if at < 0.0 {
                            break;
                        }
                    }
                }
                Instruction::Jump(position) => self.position = *position,
                Instruction::Begin { counter, least, most, end } => {
                    let rounds = self.rng.u64(*least..=*most);
                    if rounds == 0 {
                        self.position = *end;
                    }
                    if let Some(counter) = self.counters.get_mut(*counter) {
                        *counter = rounds;
                    }
                }
                Instruction::Again { counter, start } => {
                    if let Some(counter) = self.counters.get_mut(*counter) {
                        *counter -= 1;
                        if *counter > 0 {
                            self.position = *start;
                        }
                    }
                }
                Instruction::Leave => break,
            }
        }
        self.leaving = true;
        Next::Leave
    }

    fn send(&mut self, index: usize, step: &Step) -> Next {
        let mut request = step.base.clone();
        if let Some(path) = &step.path {
            let mut text = String::new();
            path.render(&self.values, &mut self.rng, &mut text);
            if !text.starts_with('/') {
                text.insert(0, '/');
            }
            request.path = text.into();
        }
        if let Some(body) = &step.body {
            let mut text = String::new();
            body.render(&self.values, &mut self.rng, &mut text);
            request.body = text.into();
        }
        if !step.headers.is_empty() || step.authorization.is_some() {
            let headers = Arc::make_mut(&mut request.headers);
            for (name, template) in &step.headers {
                let mut text = String::new();
                template.render(&self.values, &mut self.rng, &mut text);
                // Whatever a variable holds was found fit for a header before it was set.
                if let Ok(value) = HeaderValue::from_str(&text) {
                    headers.append(name, value);
                }
            }
            if let Some(credentials) = &step.authorization {
                let mut text = String::new();
                credentials.user.render(&self.values, &mut self.rng, &mut text);
                text.push(':');
                credentials.password.render(&self.values, &mut self.rng, &mut text);
                headers.insert(header::AUTHORIZATION, basic(&text));
            }
        }
        self.add_cookies(&mut request);
        self.remember(index, 0, step, &request);
        Next::Send(step.id, request)
    }

    fn remember(&mut self, index: usize, redirects: u64, step: &Step, request: &Request) {
        let needed = self.scripted.program.cookies || step.redirects > 0;
        let request = needed.then(|| request.clone());
        self.sent = Some(Sent { step: index, redirects, request });
    }

    fn add_cookies(&self, request: &mut Request) {
        if !self.scripted.program.cookies {
            return;
        }
        if let Some(value) = self.jar.header(self.visit(request)) {
            Arc::make_mut(&mut request.headers).insert(header::COOKIE, value);
        }
    }

    fn visit<'a>(&self, request: &'a Request) -> Visit<'a> {
        Visit {
            origin: &request.origin,
            path: std::str::from_utf8(&request.path).unwrap_or("/"),
            now: self.clock,
            began: self.scripted.began,
        }
    }

    /// The redirect that an answer asks for, if the step follows any.
    ///
    /// # Errors
    ///
    /// Name of the check that says why it is not followed.
    fn follow(
        &self,
        step: &Step,
        sent: &Sent,
        response: &Response,
    ) -> Result<Option<Request>, String> {
        let Some(request) = sent.request.as_ref().filter(|_| step.redirects > 0) else {
            return Ok(None);
        };
        let Some(method) = redirected(response.status, &request.method) else { return Ok(None) };
        let Some(location) = response.headers.get(header::LOCATION) else { return Ok(None) };
        if sent.redirects >= step.redirects {
            return Err(format!("at most {} redirects", step.redirects));
        }
        let path = std::str::from_utf8(&request.path).unwrap_or("/");
        let location = String::from_utf8_lossy(location.as_bytes());
        let target = resolve(&request.origin, path, &location)
            .map_err(|_| "redirect leads to a URL".to_owned())?;
        let Some(origin) = self.scripted.program.origins.get(&target.origin) else {
            return Err("redirect stays at the scenario's servers".to_owned());
        };
        let mut next = request.clone();
        if method != request.method {
            next.body = Bytes::new();
            Arc::make_mut(&mut next.headers).remove(header::CONTENT_TYPE);
        }
        next.method = method;
        next.path = target.path.into();
        let headers = Arc::make_mut(&mut next.headers);
        headers.remove(header::COOKIE);
        if target.origin != *request.origin {
            headers.remove(header::AUTHORIZATION);
            next.origin = Arc::clone(origin);
        }
        self.add_cookies(&mut next);
        Ok(Some(next))
    }

    /// Checks an answer and takes its values.
    ///
    /// # Errors
    ///
    /// Name of the first check that failed.
    fn examine(&mut self, step: &Step, sent: &Sent, response: &Response) -> Result<(), String> {
        let answer = Answer::new(response.status, &response.headers, &response.body);
        let mut failed = None;
        for check in &step.checks {
            if !check.holds(&answer, &self.values, &mut self.rng) {
                failed.get_or_insert_with(|| check.name.clone());
            }
        }
        for extraction in &step.extractions {
            let visit = sent.request.as_ref().map(|it| self.visit(it));
            let cookie = |name: &str| visit.and_then(|it| self.jar.value(name, it));
            let found = extraction.find(&answer, cookie, &mut self.rng);
            let in_header =
                self.scripted.program.slots.get(extraction.slot).is_some_and(|it| it.in_header);
            let fit = |it: &Value| !in_header || HeaderValue::from_str(&it.text).is_ok();
            let value = found.filter(fit).or_else(|| extraction.default.clone());
            match (value, self.values.get_mut(extraction.slot)) {
                (Some(value), Some(slot)) => *slot = value,
                (None, _) | (_, None) => {
                    // Without the value it cannot go on.
                    self.leaving = true;
                    failed.get_or_insert_with(|| format!("extract {}", extraction.name));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// What a user does that got no answer: values that it has defaults for take those.
    fn unanswered(&mut self, step: &Step) {
        for extraction in &step.extractions {
            match (extraction.default.clone(), self.values.get_mut(extraction.slot)) {
                (Some(value), Some(slot)) => *slot = value,
                (None, _) | (_, None) => self.leaving = true,
            }
        }
        self.leaving |= step.leave_on_failure;
    }
}

impl User for Walker {
    fn next(&mut self) -> Next {
        if self.leaving {
            return Next::Leave;
        }
        match self.redirect.take() {
            Some((step, request)) => Next::Send(step, request),
            None => self.walk(),
        }
    }

    fn expects(&self, status: u16) -> bool {
        let program = &self.scripted.program;
        let step = self.sent.as_ref().and_then(|it| program.requests.get(it.step));
        status < 400 || step.is_some_and(|it| it.checks_status)
    }

    fn receive(&mut self, exchange: &Exchange) -> Result<(), String> {
        let scripted = Arc::clone(&self.scripted);
        let phases = &exchange.phases;
        for phase in [phases.connect, phases.tls, phases.first_byte, phases.body] {
            self.clock += phase.unwrap_or_default();
        }
        let Some(sent) = self.sent.take() else { return Ok(()) };
        let Some(step) = scripted.program.requests.get(sent.step) else { return Ok(()) };
        let Ok(response) = &exchange.outcome else {
            self.unanswered(step);
            return Ok(());
        };
        if let Some(request) = sent.request.as_ref().filter(|_| scripted.program.cookies) {
            let visit = self.visit(request);
            self.jar.receive(visit, &response.headers);
        }
        let result = match self.follow(step, &sent, response) {
            Ok(Some(request)) => {
                self.remember(sent.step, sent.redirects + 1, step, &request);
                self.redirect = Some((step.id, request));
                return Ok(());
            }
            Ok(None) => self.examine(step, &sent, response),
            Err(check) => {
                self.unanswered(step);
                Err(check)
            }
        };
        let failed = result.is_err() || !(response.status < 400 || step.checks_status);
        self.leaving |= failed && step.leave_on_failure;
        result
    }
}

/// The header of HTTP's basic authentication. RFC 7617.
pub(super) fn basic(credentials: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(credentials));
    // Base 64 is fit for a header.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("Basic"))
}
