//! What can go wrong between a client and the API: a service in front of the service.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tower::Service;

/// Longest delay of a request.
const DELAY_MAX: Duration = Duration::from_millis(200);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write is refused with 500 and does not happen.
    WriteFails,
    /// A write happens, but its answer is lost.
    AnswerLost,
    /// A request takes its time.
    Delay,
    /// A watch ends after its next events.
    WatchEnds,
    /// A watch is refused, because history is gone.
    WatchExpired,
}

const KINDS: [Kind; 5] =
    [Kind::WriteFails, Kind::AnswerLost, Kind::Delay, Kind::WatchEnds, Kind::WatchExpired];

/// The faults of a world. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    /// Share of requests that something happens to.
    share: f64,
    happened: usize,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { state: Arc::new(Mutex::new(State { random, share: 0.0, happened: 0 })) }
    }

    /// From now on something happens to this share of the requests: 0.0 is none, 1.0 all.
    pub fn happen_to(&self, share: f64) {
        self.lock().share = share;
    }

    /// How many faults there were.
    #[must_use]
    pub fn happened(&self) -> usize {
        self.lock().happened
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What happens to the next request, if anything.
    fn next(&self) -> Option<(Kind, f64)> {
        let mut state = self.lock();
        if state.share <= state.random.f64() {
            return None;
        }
        state.happened += 1;
        let kind = state.random.choice(KINDS)?;
        Some((kind, state.random.f64()))
    }

    /// `service` with these faults.
    pub(crate) fn before(&self, service: apiserver::Router) -> Faulty {
        Faulty { service, faults: self.clone() }
    }
}

/// A service whose requests do not always succeed.
#[derive(Clone, Debug)]
pub(crate) struct Faulty {
    service: apiserver::Router,
    faults: Faults,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

impl Service<Request<kube::client::Body>> for Faulty {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let fault = self.faults.next();
        let mut service = self.service.clone();
        Box::pin(async move {
            let writes = request.method() != Method::GET;
            let watches = request.uri().query().is_some_and(|it| it.contains("watch=true"));
            match fault {
                Some((Kind::WriteFails, _)) if writes => {
                    return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR));
                }
                Some((Kind::WatchExpired, _)) if watches => return Ok(refusal(StatusCode::GONE)),
                Some((Kind::Delay, share)) => tokio::time::sleep(DELAY_MAX.mul_f64(share)).await,
                _ => {}
            }
            let answer = service.call(request).await?;
            Ok(match fault {
                Some((Kind::AnswerLost, _)) if writes => refusal(StatusCode::INTERNAL_SERVER_ERROR),
                Some((Kind::WatchEnds, share)) if watches => {
                    // Truncation is meant: some small number.
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a share of ten is a small positive number"
                    )]
                    let frames = (share * 10.0) as usize;
                    answer.map(|body| Cut { body, frames }.boxed_unsync())
                }
                _ => answer.map(apiserver::Body::boxed_unsync),
            })
        })
    }
}

fn refusal(code: StatusCode) -> Response<Body> {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault", "reason": "InternalError", "code": code.as_u16(),
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code;
    response
}

/// A body that ends early.
struct Cut {
    body: apiserver::Body,
    frames: usize,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(left) = self.frames.checked_sub(1) else { return Poll::Ready(None) };
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.frames = left;
        }
        frame
    }
}
