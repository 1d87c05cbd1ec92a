//! Requests and replies (`rr`) between programs that are clients of nsqd: two connections each, one
//! that consumes and one that publishes.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use coracle_queue::{
    message::Nanos,
    protocol::Options,
    rr::{Action, Calls, Dialect, Dropped, Handled, Outcome, Received, Request, Server},
};
use tokio::net::TcpStream;

use crate::client::{Client, Nsqd, name};

const REQUESTS: &str = "service.req";
const REPLIES: &str = "z...rsp.app.node";
const NOW: Nanos = Nanos(1_000_000_000_000);
const PATIENCE: Duration = Duration::from_secs(60);

/// Who calls, and what became of whose calls.
struct Caller {
    calls: Calls<String>,
    requests: Client<TcpStream>,
    replies: Client<TcpStream>,
}

impl Caller {
    async fn start(nsqd: &Nsqd, calls_max: usize) -> Self {
        let calls = Calls::new(Dialect::Svckit, name(REPLIES), calls_max, 1);
        let replies = nsqd.consume(REPLIES, "app", 10).await;
        Self { calls, requests: nsqd.connect().await, replies }
    }

    async fn call(&mut self, who: &str, body: &str, patience: Duration) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let call = self.calls.call(NOW, "Double.req", body, patience, who.to_owned()).unwrap();
        self.requests.publish(REQUESTS, call.message).await;
    }

    /// The next message at the topic for replies.
    async fn reply(&mut self) -> Result<(String, Outcome), Dropped> {
        let (id, _, message) = self.replies.message().await;
        self.replies.say(format!("FIN {id}\n")).await;
        self.calls.reply(NOW, &Bytes::from(message))
    }

    async fn replied(&mut self) -> (String, String) {
        match self.reply().await.unwrap() {
            (who, Outcome::Reply(body)) => (who, String::from_utf8(body.to_vec()).unwrap()),
            (who, Outcome::Failed(why)) => (who, format!("error: {why}")),
        }
    }
}

/// One instance of the service.
struct Instance {
    server: Server,
    requests: Client<TcpStream>,
    replies: Client<TcpStream>,
}

impl Instance {
    async fn start(nsqd: &Nsqd, server: Server) -> Self {
        let requests = nsqd.consume(REQUESTS, "service", 1).await;
        Self { server, requests, replies: nsqd.connect().await }
    }

    /// Deals with the next request; which attempt it was.
    async fn serve(&mut self, now: Nanos, handler: fn(&Request) -> Handled) -> u16 {
        let (id, attempts, message) = self.requests.message().await;
        let action = match self.server.receive(now, &Bytes::from(message)) {
            Received::Handle(request) => {
                let handled = handler(&request);
                self.server.answer(request, handled)
            }
            Received::Expired | Received::Unreadable(_) => Action::Finish,
            Received::RequeueUnreadable(_, delay) => Action::Requeue(delay),
        };
        let done = match action {
            Action::Finish => format!("FIN {id}\n"),
            Action::Reply { topic, message, .. } => {
                self.replies.publish(topic.as_str(), message).await;
                format!("FIN {id}\n")
            }
            Action::Requeue(delay) => format!("REQ {id} {}\n", delay.as_millis()),
        };
        self.requests.say(done).await;
        attempts
    }
}

fn double(request: &Request) -> Handled {
    let number = String::from_utf8_lossy(&request.body).parse::<u64>();
    number.map_or_else(
        |it| Handled::Failed(it.to_string()),
        |it| Handled::Done((2 * it).to_string().into()),
    )
}

fn stops(_: &Request) -> Handled {
    Handled::Interrupted
}

#[tokio::test]
async fn many_calls_at_once_get_their_own_replies() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut one = Instance::start(&nsqd, Server::svckit_rpc()).await;
    let mut two = Instance::start(&nsqd, Server::svckit_rpc()).await;
    let mut caller = Caller::start(&nsqd, 100).await;
    let calling = async {
        for number in 0..100 {
            caller.call(&number.to_string(), &number.to_string(), PATIENCE).await;
        }
        let more = caller.calls.call(NOW, "Double.req", Bytes::new(), PATIENCE, String::new());
        assert_eq!(more.unwrap_err().to_string(), "100 calls wait for their replies already");
        let mut replied = BTreeMap::new();
        while replied.len() < 100 {
            let (who, reply) = caller.replied().await;
            assert_eq!(replied.insert(who, reply), None);
        }
        replied
    };
    let first = async {
        loop {
            one.serve(NOW, double).await;
        }
    };
    let second = async {
        loop {
            two.serve(NOW, double).await;
        }
    };
    let replied = tokio::select! {
        it = calling => it,
        () = first => BTreeMap::new(),
        () = second => BTreeMap::new(),
    };
    let expected = (0..100_u64).map(|it| (it.to_string(), (2 * it).to_string()));
    assert_eq!(replied, expected.collect());
}

#[tokio::test]
async fn a_late_reply_and_an_expired_request_reach_nobody() {
    let nsqd = Nsqd::start(Options::default()).await;
    let mut instance = Instance::start(&nsqd, Server::svckit_rpc()).await;
    let mut caller = Caller::start(&nsqd, 1).await;
    let second = Duration::from_secs(1);
    caller.call("late", "1", second).await;
    assert_eq!(caller.calls.expire(NOW.after(second)), ["late"]);
    instance.serve(NOW, double).await;
    assert_eq!(caller.reply().await, Err(Dropped::Unknown));
    // Nobody waits, and the server knows: it does not begin, and says nothing.
    caller.call("expired", "2", second).await;
    assert_eq!(caller.calls.expire(NOW.after(second)), ["expired"]);
    instance.serve(NOW.after(2 * second), |_| panic!("it is handled")).await;
    caller.call("in time", "3", PATIENCE).await;
    instance.serve(NOW, double).await;
    assert_eq!(caller.replied().await, ("in time".to_owned(), "6".to_owned()));
    assert_eq!(caller.calls.waiting(), 0);
}

#[tokio::test]
async fn an_error_is_told_and_an_interrupted_request_comes_again() {
    let nsqd = Nsqd::start(Options::default()).await;
    let soon = Server { requeue_delay: Duration::from_millis(10), ..Server::svckit_rpc() };
    let mut instance = Instance::start(&nsqd, soon.clone()).await;
    let mut caller = Caller::start(&nsqd, 10).await;
    caller.call("wrong", "x", PATIENCE).await;
    instance.serve(NOW, double).await;
    let why = "error: invalid digit found in string".to_owned();
    assert_eq!(caller.replied().await, ("wrong".to_owned(), why));
    caller.call("again", "4", PATIENCE).await;
    assert_eq!(instance.serve(NOW, stops).await, 1);
    drop(instance);
    let mut other = Instance::start(&nsqd, soon).await;
    assert_eq!(other.serve(NOW, double).await, 2);
    assert_eq!(caller.replied().await, ("again".to_owned(), "8".to_owned()));
}
