//! The sensor: once a second it publishes three random numbers as JSON, such as `[17,4,4294967295]`.
//! What cannot be published is kept and tried again; what is lost is said. It does not know who
//! listens.

use std::{io, time::Duration};

use sensors_2_queue::{SENSOR_DATA, nsq::Producer, nsqd, stop_requested};
use tokio::{
    sync::mpsc,
    time::{interval, sleep},
};

/// Time from one measurement to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// How long until a failed publish is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How many measurements wait for the queue at most: ten minutes of them. Then new ones are lost.
const KEPT_MAX: usize = 600;

/// What this sensor measures.
type Values = [u32; 3];

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let stop = stop_requested()?;
    let nsqd = nsqd();
    println!("Started sensor with nsqd at {nsqd}.");
    let (keep, kept) = mpsc::channel(KEPT_MAX);
    let publishing = tokio::spawn(publish(Producer::new(nsqd), kept));
    tokio::select! {
        () = stop => {}
        () = measure_for_ever(keep) => {}
    }
    let lost = publishing.await?;
    if lost > 0 {
        println!("Lost {lost} values that could not be published.");
    }
    println!("Stopped sensor.");
    Ok(())
}

async fn measure_for_ever(keep: mpsc::Sender<Values>) {
    let mut period = interval(PERIOD);
    loop {
        period.tick().await;
        let values = measure();
        if keep.try_send(values).is_err() {
            println!("Lost values {values:?}: {KEPT_MAX} others wait to be published.");
        }
    }
}

/// Publishes what is measured, each until it succeeds. When nothing more comes, those that wait are
/// tried until one fails. Returns how many are lost then.
async fn publish(producer: Producer, mut kept: mpsc::Receiver<Values>) -> usize {
    while let Some(values) = kept.recv().await {
        let body = serde_json::json!(values).to_string().into_bytes();
        while let Err(error) = producer.publish(SENSOR_DATA, body.clone()).await {
            if kept.is_closed() {
                println!("Cannot publish {values:?}: {error}");
                return 1 + kept.len();
            }
            println!("Cannot publish {values:?}: {error}; kept, and {} more", kept.len());
            sleep(RETRY).await;
        }
        println!("Sent values {values:?}");
    }
    0
}

/// Any three 32-bit numbers.
fn measure() -> Values {
    [(); 3].map(|()| fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_something_else_each_time() {
        let measured: std::collections::HashSet<_> = (0..100).map(|_| measure()).collect();
        assert_eq!(measured.len(), 100);
    }
}
