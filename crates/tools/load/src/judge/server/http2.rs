//! HTTP/2: many requests at once on a connection. One task serves all of them, so that an answer
//! goes out the moment it is due.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::{
    Reason, SendStream,
    server::{Connection, SendResponse},
};
use http::{Response, StatusCode, header::CONTENT_TYPE};

use crate::judge::{
    law::Outcome,
    server::{
        Wire,
        alarm::now,
        desk::{Desk, Ticket},
        frames::{Seen, Watched},
    },
};

/// Requests that a client may have under way on one connection: a stall of two seconds at 5 000/s
/// holds ten thousand, and a limit here would make the client wait.
const STREAMS_MAX: u32 = 1_000_000;
/// What a client may send before it must wait, for all streams and for one.
const WINDOW: u32 = 16 << 20;

/// Serves a connection to its end.
pub(super) async fn serve(stream: impl Wire, desk: &Desk, number: u32) -> anyhow::Result<()> {
    let (watched, seen) = Watched::new(stream);
    let connection = h2::server::Builder::new()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(WINDOW)
        .initial_window_size(WINDOW)
        .handshake(watched)
        .await?;
    let mut serving = Serving {
        connection,
        desk,
        number,
        seen,
        begun: HashMap::new(),
        under_way: HashMap::new(),
        waiting: BinaryHeap::new(),
        asked: u64::MAX,
    };
    poll_fn(|context| serving.poll(context)).await
}

/// A connection, and what is under way on it.
struct Serving<'a, S: Wire> {
    connection: Connection<Watched<S>, Bytes>,
    desk: &'a Desk,
    number: u32,
    seen: Rc<RefCell<Seen>>,
    /// When the first frame of a stream was read that is not accepted yet.
    begun: HashMap<u32, u64>,
    /// Streams whose last frame was not written yet, and their place in the record.
    under_way: HashMap<u32, Option<usize>>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// The earliest moment for which the alarm is set.
    asked: u64,
}

/// Something to be sent.
struct Waiting {
    due: u64,
    ticket: Ticket,
    what: What,
}

enum What {
    /// The head of an answer.
    Head(SendResponse<Bytes>),
    /// A piece of a body, counted from 1.
    Piece(SendStream<Bytes>, usize),
}

impl<S: Wire> Serving<'_, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        loop {
            self.send_due();
            // Reads what has come and writes what `send_due` has left.
            let accepted = self.connection.poll_accept(context);
            self.note();
            match accepted {
                Poll::Ready(Some(Ok((_, respond)))) => self.arrive(respond)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => match self.waiting.peek() {
                    Some(Reverse(next)) if next.due <= now() => {}
                    Some(Reverse(next)) => {
                        self.sleep(next.due, context)?;
                        return Poll::Pending;
                    }
                    None => return Poll::Pending,
                },
            }
        }
    }

    fn sleep(&mut self, due: u64, context: &Context<'_>) -> io::Result<()> {
        if due < self.asked || self.asked <= now() {
            self.asked = due;
            self.desk.alarm.wake(due, context.waker())?;
        }
        Ok(())
    }

    /// Takes over what was seen on the wire.
    fn note(&mut self) {
        let mut seen = self.seen.borrow_mut();
        // In fast mode nobody asks for it.
        if self.desk.records() {
            self.begun.extend(seen.begun.drain(..));
        }
        seen.begun.clear();
        for (stream, moment) in seen.ended.drain(..) {
            if let Some(ticket) = self.under_way.remove(&stream) {
                self.desk.answered(ticket, moment);
            }
        }
    }

    fn arrive(&mut self, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
        if !self.desk.records() {
            let mut stream = respond.send_response(good(), self.desk.body() == 0)?;
            return if self.desk.body() == 0 {
                Ok(())
            } else {
                stream.send_data(dots(self.desk.body()), true)
            };
        }
        let stream = respond.stream_id().as_u32();
        let moment = self.begun.remove(&stream).unwrap_or_else(now);
        let ticket = self.desk.arrive(moment, self.number);
        self.under_way.insert(stream, ticket.index);
        self.waiting.push(Reverse(Waiting { due: ticket.head, ticket, what: What::Head(respond) }));
        Ok(())
    }

    /// Sends all that is due.
    fn send_due(&mut self) {
        while self.waiting.peek().is_some_and(|Reverse(it)| it.due <= now()) {
            let Some(Reverse(Waiting { ticket, what, .. })) = self.waiting.pop() else { break };
            let sent = match what {
                What::Head(respond) => self.send_head(ticket, respond),
                What::Piece(stream, piece) => self.send_piece(ticket, stream, piece),
            };
            // What fails here is one stream, which the client has cancelled: its request stays
            // unanswered. That the connection is broken is for `poll_accept` to say.
            sent.ok();
        }
    }

    fn send_head(
        &mut self,
        ticket: Ticket,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let (body, pieces) = (self.desk.body(), self.desk.pieces());
        match ticket.outcome {
            Outcome::Reset => {
                self.desk.answered(ticket.index, now());
                respond.send_reset(Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Outcome::Error => {
                let mut answer = Response::new(());
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                respond.send_response(answer, true)?;
            }
            Outcome::Good if body == 0 => drop(respond.send_response(good(), true)?),
            Outcome::Good if pieces == 0 => {
                respond.send_response(good(), false)?.send_data(dots(body), true)?;
            }
            Outcome::Good => {
                let stream = respond.send_response(good(), false)?;
                self.wait_for_piece(ticket, stream, 1);
            }
        }
        Ok(())
    }

    fn send_piece(
        &mut self,
        ticket: Ticket,
        mut stream: SendStream<Bytes>,
        piece: usize,
    ) -> Result<(), h2::Error> {
        let (body, pieces) = (self.desk.body(), self.desk.pieces());
        let bytes = body * piece / pieces - body * (piece - 1) / pieces;
        stream.send_data(dots(bytes), piece == pieces)?;
        if piece < pieces {
            self.wait_for_piece(ticket, stream, piece + 1);
        }
        Ok(())
    }

    fn wait_for_piece(&mut self, ticket: Ticket, stream: SendStream<Bytes>, piece: usize) {
        let due = self.desk.piece(ticket.head, piece);
        self.waiting.push(Reverse(Waiting { due, ticket, what: What::Piece(stream, piece) }));
    }
}

fn good() -> Response<()> {
    let mut answer = Response::new(());
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    answer
}

fn dots(bytes: usize) -> Bytes {
    Bytes::from(vec![b'.'; bytes])
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// By time, then in the order of arrival.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.ticket.index).cmp(&(other.due, other.ticket.index))
    }
}
