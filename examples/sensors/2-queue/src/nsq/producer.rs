//! Publishing to one nsqd.

use std::{collections::VecDeque, fmt, io};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    connection::{ANSWER_WITHIN, Connection},
    wire::{self, Frame},
};

/// How many messages may be on their way; who publishes more waits.
const UNDER_WAY_MAX: usize = 256;

/// Publishes over one connection, which it makes when there is something to publish and there is
/// none. Clones share it.
#[derive(Clone, Debug)]
pub struct Producer {
    requests: mpsc::Sender<Request>,
}

/// Why a message was not published, or why nobody knows.
#[derive(Clone, Debug)]
pub struct PublishError(String);

#[derive(Debug)]
struct Request {
    topic: String,
    body: Vec<u8>,
    done: oneshot::Sender<Result<(), PublishError>>,
}

/// A message that was sent and not yet answered.
struct Sent {
    done: oneshot::Sender<Result<(), PublishError>>,
    late: Instant,
}

impl Producer {
    /// A producer for the nsqd at `address` (HOST:PORT). Does not connect yet.
    pub fn new(address: String) -> Self {
        let (requests, receiver) = mpsc::channel(UNDER_WAY_MAX);
        tokio::spawn(run(address, receiver));
        Self { requests }
    }

    /// Publishes a message; done when nsqd has it, safely. If this fails, nsqd may have it all the
    /// same: whoever then publishes it again may have published it twice.
    pub async fn publish(&self, topic: &str, body: Vec<u8>) -> Result<(), PublishError> {
        let (done, answer) = oneshot::channel();
        let request = Request { topic: topic.to_owned(), body, done };
        let ended = |_| PublishError("the producer has ended".to_owned());
        self.requests.send(request).await.map_err(|_| ended(()))?;
        answer.await.map_err(|_| ended(()))?
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PublishError {}

impl From<&io::Error> for PublishError {
    fn from(error: &io::Error) -> Self {
        Self(error.to_string())
    }
}

async fn run(address: String, mut requests: mpsc::Receiver<Request>) {
    while let Some(first) = requests.recv().await {
        match Connection::open(&address).await {
            Ok(connection) => serve(connection, first, &mut requests).await,
            Err(error) => answer(first.done, Err(PublishError::from(&error))),
        }
    }
}

/// Publishes until the connection breaks; then all that is under way has failed.
async fn serve(mut connection: Connection, first: Request, requests: &mut mpsc::Receiver<Request>) {
    // nsqd answers in the order of the commands.
    let mut sent = VecDeque::new();
    let error = match exchange(&mut connection, first, requests, &mut sent).await {
        Ok(()) => return,
        Err(error) => PublishError::from(&error),
    };
    for Sent { done, .. } in sent {
        answer(done, Err(error.clone()));
    }
}

/// Ends well when no producer is left, and so nobody waits for an answer.
async fn exchange(
    connection: &mut Connection,
    first: Request,
    requests: &mut mpsc::Receiver<Request>,
    sent: &mut VecDeque<Sent>,
) -> io::Result<()> {
    send(connection, first, sent).await?;
    loop {
        let late = sent.front().map_or_else(Instant::now, |it| it.late);
        tokio::select! {
            frame = connection.next() => match frame? {
                Frame::Heartbeat => connection.send(wire::NOP).await?,
                Frame::Response(_) => answer_first(sent, Ok(())),
                Frame::Error(error) => answer_first(sent, Err(PublishError(error))),
                Frame::Message(_) => return Err(io::Error::other("a message that nobody wants")),
            },
            request = requests.recv(), if sent.len() < UNDER_WAY_MAX => match request {
                Some(request) => send(connection, request, sent).await?,
                None => return Ok(()),
            },
            () = sleep_until(late), if !sent.is_empty() => {
                let message = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
    }
}

async fn send(
    connection: &mut Connection,
    Request { topic, body, done }: Request,
    sent: &mut VecDeque<Sent>,
) -> io::Result<()> {
    sent.push_back(Sent { done, late: Instant::now() + ANSWER_WITHIN });
    connection.send(&wire::publish(&topic, &body)).await
}

fn answer_first(sent: &mut VecDeque<Sent>, result: Result<(), PublishError>) {
    if let Some(first) = sent.pop_front() {
        answer(first.done, result);
    }
}

fn answer(done: oneshot::Sender<Result<(), PublishError>>, result: Result<(), PublishError>) {
    // Who does not wait any more does not want to know.
    drop(done.send(result));
}
