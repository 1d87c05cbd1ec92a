//! What the sensor, the worker and the app have in common: the names of what they exchange, where the
//! queue is, and stopping when told to. How one speaks to the queue is in `nsq`.

pub mod nsq;

use std::{env, io};

use tokio::signal::unix::{SignalKind, signal};

/// What the sensor publishes: JSON arrays of three numbers.
pub const SENSOR_DATA: &str = "sensor_data";
/// What the worker publishes: JSON arrays with the squares of what it got.
pub const WORKER_RESULT: &str = "worker_result";

/// Where to publish, as HOST:PORT: `NSQD_ADDRESS`. In the cluster a service's name is its address.
pub fn nsqd() -> String {
    setting("NSQD_ADDRESS", "nsqd:4150")
}

/// Where to ask for the nsqds that have a topic, as HOST:PORT of their HTTP, with commas between
/// them: `NSQLOOKUPD_ADDRESS`.
pub fn nsqlookupds() -> Vec<String> {
    setting("NSQLOOKUPD_ADDRESS", "nsqlookupd:4161").split(',').map(str::to_owned).collect()
}

/// A setting from the environment.
pub fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Listens for SIGTERM and Ctrl-C from now on, and completes when one arrives. A container's first
/// process ignores every signal it does not ask for, so this is what makes `kubectl delete` quick.
pub fn stop_requested() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
