//! The worker: squares the numbers of every message and publishes the result, `[1,2,3]` gives
//! `[1,4,9]`. A message is finished only when its result is in the queue. It does not know where the
//! numbers come from, nor who wants the squares.

use std::{io, time::Duration};

use sensors_2_queue::{
    SENSOR_DATA, WORKER_RESULT,
    nsq::{Message, Outcome, Producer, Subscription, consume},
    nsqd, nsqlookupds, stop_requested,
};

/// The channel that all workers share: each message is for one of them.
const CHANNEL: &str = "worker";
/// How many messages are worked on at the same time.
const MAX_IN_FLIGHT: u32 = 10;
/// How long a message waits after its first attempt; after the second twice as long, and so on.
const REQUEUE: Duration = Duration::from_secs(1);
/// How long it waits at most.
const REQUEUE_MAX: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let stop = stop_requested()?;
    let (nsqd, nsqlookupds) = (nsqd(), nsqlookupds());
    println!("Started worker with nsqlookupd at {}, nsqd at {nsqd}.", nsqlookupds.join(","));
    let producer = Producer::new(nsqd);
    let subscription = Subscription {
        nsqlookupds,
        topic: SENSOR_DATA.to_owned(),
        channel: CHANNEL.to_owned(),
        max_in_flight: MAX_IN_FLIGHT,
    };
    consume(subscription, move |message| work(producer.clone(), message), stop).await;
    println!("Stopped worker.");
    Ok(())
}

async fn work(producer: Producer, message: Message) -> Outcome {
    let numbers = match serde_json::from_slice::<Vec<i64>>(&message.body) {
        Ok(numbers) => numbers,
        Err(error) => {
            // It would not get better by trying again.
            println!("Dropped a message that is no JSON array of integers: {error}");
            return Outcome::Finish;
        }
    };
    println!("Got values {numbers:?}, attempt {}", message.attempts);
    let squares = squares(&numbers);
    let body = serde_json::to_vec(&squares).expect("an array of integers is JSON");
    match producer.publish(WORKER_RESULT, body).await {
        Ok(()) => {
            println!("Sent result {squares:?}");
            Outcome::Finish
        }
        Err(error) => {
            println!("Cannot publish {squares:?}: {error}; the values go back into the queue");
            Outcome::Requeue((REQUEUE * message.attempts.into()).min(REQUEUE_MAX))
        }
    }
}

/// The squares of `numbers`. That of any 64-bit integer fits into 128 bits.
fn squares(numbers: &[i64]) -> Vec<u128> {
    numbers.iter().map(|it| u128::from(it.unsigned_abs()).pow(2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_every_number() {
        for (numbers, expected) in [
            (&[1, 2, 3][..], "[1,4,9]"),
            (&[], "[]"),
            (&[-3], "[9]"),
            (&[4_294_967_295], "[18446744065119617025]"),
            (&[i64::MIN], "[85070591730234615865843651857942052864]"),
        ] {
            assert_eq!(serde_json::to_string(&squares(numbers)).unwrap(), expected);
        }
    }
}
