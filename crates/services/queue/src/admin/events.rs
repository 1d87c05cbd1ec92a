//! Pages that renew themselves: the part of a page that changes, sent whenever it has changed
//! (server-sent events).

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    Shared,
    pages::{self, Pace, Page},
    route,
};
use crate::web::{Body, Failure, v1};

/// Pages that renew themselves at once. Each asks every nsqd it shows at every turn; one more is not
/// renewed, and its browser tries again later.
pub(super) const WATCHERS_MAX: usize = 64;

/// How often a page is made anew.
const TURN: Duration = Duration::from_secs(2);

/// After so long without a change something is sent all the same, so that a browser that has gone is
/// noticed.
const SILENCE_MAX: Duration = Duration::from_secs(15);

struct Watch {
    shared: Arc<Shared>,
    page: Page,
    may_change: bool,
    turns: Interval,
    pace: Pace,
    shown: String,
    sent: Instant,
    _place: OwnedSemaphorePermit,
}

/// Renews `page` for as long as the browser shows it.
pub(super) fn answer(shared: &Arc<Shared>, page: Page, may_change: bool) -> Response<Body> {
    let Ok(place) = Arc::clone(&shared.watchers).try_acquire_owned() else {
        return v1(Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "TOO_MANY_WATCHERS")));
    };
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch = Watch {
        shared: Arc::clone(shared),
        page,
        may_change,
        turns,
        pace: Pace::default(),
        shown: String::new(),
        sent: Instant::now(),
        _place: place,
    };
    let events = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(event)), watch))
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    route::secure(response.headers_mut(), "text/event-stream");
    // A proxy must not gather events.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().remove(header::CONTENT_SECURITY_POLICY);
    response
}

impl Watch {
    /// The next event; `None` when the program ends.
    async fn next(&mut self) -> Option<Bytes> {
        let ending = self.shared.ending.clone();
        ending.run_until_cancelled(self.change()).await
    }

    async fn change(&mut self) -> Bytes {
        loop {
            self.turns.tick().await;
            let part = pages::part(&self.shared, &self.page, self.may_change, &mut self.pace);
            let (_, part) = part.await;
            let part = part.into_string();
            if part != self.shown {
                self.shown = part;
                self.sent = Instant::now();
                return event(&self.shown);
            }
            if SILENCE_MAX < self.sent.elapsed() {
                self.sent = Instant::now();
                return Bytes::from_static(b": still here\n\n");
            }
        }
    }
}

/// `text` as an event: each of its lines is one of the event's.
fn event(text: &str) -> Bytes {
    let lines = text.split(['\n', '\r']).map(|it| format!("data: {it}\n"));
    Bytes::from(lines.chain(["\n".to_owned()]).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_does_not_end_an_event() {
        assert_eq!(event("a\r\nb"), "data: a\ndata: \ndata: b\n\n");
    }
}
