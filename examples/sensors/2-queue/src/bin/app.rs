//! The app: logs every result of the worker, as it comes.
//!
//! `TOPIC` and `CHANNEL` let it listen to something else.

use std::io;

use sensors_2_queue::{
    WORKER_RESULT,
    nsq::{Message, Outcome, Subscription, consume},
    nsqlookupds, setting, stop_requested,
};

/// How many messages are on their way to be logged.
const MAX_IN_FLIGHT: u32 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let stop = stop_requested()?;
    let subscription = Subscription {
        nsqlookupds: nsqlookupds(),
        topic: setting("TOPIC", WORKER_RESULT),
        channel: setting("CHANNEL", "app"),
        max_in_flight: MAX_IN_FLIGHT,
    };
    println!("Started app with nsqlookupd at {}.", subscription.nsqlookupds.join(","));
    consume(subscription, log, stop).await;
    println!("Stopped app.");
    Ok(())
}

async fn log(message: Message) -> Outcome {
    println!("Got worker result {}", String::from_utf8_lossy(&message.body));
    Outcome::Finish
}
