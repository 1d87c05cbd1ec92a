//! [`Server`]: the server's side. What to do with a message before and after its handler.

use std::time::Duration;

use bytes::Bytes;

use super::envelope::{Dialect, Envelope};
use crate::{message::Nanos, name::Name};

/// How long svckit lets a request rest that is to be tried again.
const SVCKIT_REQUEUE_DELAY: Duration = Duration::from_secs(2);

/// And nsqm.
const NSQM_REQUEUE_DELAY: Duration = Duration::from_secs(1);

/// The text by which a handler of nsqm puts a request off.
const NSQM_CANCELED: &str = "canceled";

/// Which errors of a handler mean that the request should be tried again, rather than told to the
/// caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequeueOn {
    /// All: the caller never learns of errors.
    Any,
    /// The one with this text.
    Text(String),
    /// None.
    Never,
}

/// How requests are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whose programs ask.
    pub dialect: Dialect,
    /// Which errors are not told.
    pub requeue_on: RequeueOn,
    /// How long a request rests that is to be tried again, by this or another instance.
    pub requeue_delay: Duration,
}

/// What is to be done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Handle it, and then ask [`Server::answer`].
    Handle(Request),
    /// It expired: log it and finish it.
    Expired,
    /// It cannot be read: log it, and finish it (nsqm).
    Unreadable(String),
    /// It cannot be read: log it, and requeue it, for an instance that can (svckit).
    RequeueUnreadable(String, Duration),
}

/// A request that somebody waits for, or nobody if it is one-way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: String,
    /// With what.
    pub body: Bytes,
    /// After this second nobody waits any more.
    pub expires: Option<i64>,
    reply_to: Option<Name>,
    correlation: Option<String>,
}

/// What a handler made of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// The body of the reply.
    Done(Bytes),
    /// An error, by its text.
    Failed(String),
    /// It was interrupted because this instance stops: another should do it.
    Interrupted,
}

/// What is to be done with a message that was handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Finish it.
    Finish,
    /// Publish a reply and finish the request after that; if the reply cannot be published,
    /// requeue the request for `otherwise`.
    Reply {
        /// Where.
        topic: Name,
        /// What.
        message: Bytes,
        /// How long the request rests if that fails.
        otherwise: Duration,
    },
    /// Requeue it for so long, without slowing down (no backoff): it is not the server's fault.
    Requeue(Duration),
}

impl Server {
    /// As svckit's `RrSub`: a handler's error is not told, the request is tried again.
    #[must_use]
    pub const fn svckit() -> Self {
        let (dialect, requeue_on) = (Dialect::Svckit, RequeueOn::Any);
        Self { dialect, requeue_on, requeue_delay: SVCKIT_REQUEUE_DELAY }
    }

    /// As svckit's `RpcServe`: a handler's error goes to the caller.
    #[must_use]
    pub const fn svckit_rpc() -> Self {
        let (dialect, requeue_on) = (Dialect::Svckit, RequeueOn::Never);
        Self { dialect, requeue_on, requeue_delay: SVCKIT_REQUEUE_DELAY }
    }

    /// As nsqm: an error goes to the caller, unless the handler puts the request off.
    #[must_use]
    pub fn nsqm() -> Self {
        let requeue_on = RequeueOn::Text(NSQM_CANCELED.to_owned());
        Self { dialect: Dialect::Nsqm, requeue_on, requeue_delay: NSQM_REQUEUE_DELAY }
    }

    /// Looks at a message from the topic of requests.
    #[must_use]
    pub fn receive(&self, now: Nanos, message: &Bytes) -> Received {
        let envelope = match Envelope::decode(self.dialect, message) {
            Ok(envelope) => envelope,
            Err(error) => {
                return match self.dialect {
                    Dialect::Nsqm => Received::Unreadable(error.to_string()),
                    Dialect::Svckit => {
                        Received::RequeueUnreadable(error.to_string(), self.requeue_delay)
                    }
                };
            }
        };
        if envelope.is_expired(now) {
            return Received::Expired;
        }
        let Envelope { method, reply_to, correlation, expires, error: _, body } = envelope;
        let method = method.unwrap_or_default();
        Received::Handle(Request { method, body, expires, reply_to, correlation })
    }

    /// What becomes of a request that was handled.
    #[must_use]
    pub fn answer(&self, request: Request, handled: Handled) -> Action {
        let outcome = match handled {
            Handled::Interrupted => return Action::Requeue(self.requeue_delay),
            Handled::Failed(text) if self.requeues(&text) => {
                return Action::Requeue(self.requeue_delay);
            }
            Handled::Failed(text) => Err(text),
            Handled::Done(body) => Ok(body),
        };
        let Some(topic) = request.reply_to else { return Action::Finish };
        let method = match self.dialect {
            Dialect::Svckit => Some(request.method.replacen(".req", ".rsp", 1)),
            Dialect::Nsqm => None,
        };
        let mut reply =
            Envelope { method, correlation: request.correlation, ..Envelope::default() };
        match outcome {
            Ok(body) => reply.body = body,
            // An error without a text would be read as a reply without a body.
            Err(text) if text.is_empty() => reply.error = Some("error".to_owned()),
            Err(text) => reply.error = Some(text),
        }
        let message = reply.encode(self.dialect);
        Action::Reply { topic, message, otherwise: self.requeue_delay }
    }

    fn requeues(&self, text: &str) -> bool {
        match &self.requeue_on {
            RequeueOn::Any => true,
            RequeueOn::Text(it) => it == text,
            RequeueOn::Never => false,
        }
    }
}
