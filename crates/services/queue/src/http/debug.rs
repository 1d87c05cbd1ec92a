//! `/debug/…`: the original's profiles are those of Go's runtime, which is not here.

use http::{Response, StatusCode};

use crate::web::{Body, Failure, plain};

/// Says what is not there, and what there is instead.
pub(super) fn answer() -> Response<Body> {
    let message = "there are no Go profiles here: this nsqd is not written in Go and collects no \
                   garbage; see /metrics for its memory and processor time, and profile it with \
                   perf\n";
    plain(Err(Failure::new(StatusCode::NOT_IMPLEMENTED, message)))
}
