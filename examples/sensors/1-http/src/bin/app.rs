//! The app: once a second it asks the sensor for values, has the worker square them and logs the
//! result. A cycle that fails is logged too; the next one tries again.

use std::{
    env,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Time from the start of one cycle to the start of the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Longest wait for one answer. With a silent worker a cycle then takes two seconds at most, so that
/// the app is back to work soon after the worker is.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// Longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 64 * 1024;

fn main() -> ExitCode {
    // In the cluster a service's name is its address.
    let sensor = env::var("SENSOR_URL").unwrap_or_else(|_| "http://sensor:9001".to_owned());
    let worker = env::var("WORKER_URL").unwrap_or_else(|_| "http://worker:9002".to_owned());
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        // A new connection each time: then each cycle may meet another worker, and none is lost
        // with the one that is replaced.
        .max_idle_connections(0)
        .build()
        .new_agent();

    // A container's first process ignores every signal that it does not ask for.
    let (stop, stopped) = mpsc::channel();
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("Cannot listen for signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    thread::spawn(move || signals.forever().next().map(|_| stop.send(())));

    println!("Started app with {sensor} and {worker}.");
    loop {
        let start = Instant::now();
        println!("---===---\nCycle start");
        match cycle(&agent, &sensor, &worker) {
            Ok(result) => println!("Cycle result: {result}"),
            Err(error) => println!("Cycle failed: {error}"),
        }
        // After a slow cycle the next one starts at once; two never overlap.
        match stopped.recv_timeout(PERIOD.saturating_sub(start.elapsed())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    println!("Stopped app.");
    ExitCode::SUCCESS
}

/// One cycle: the worker's answer to what the sensor said, which is passed on unread.
fn cycle(agent: &ureq::Agent, sensor: &str, worker: &str) -> Result<String, String> {
    let values = agent.get(sensor).call().and_then(text).map_err(|it| format!("sensor: {it}"))?;
    println!("Sensor values {values}");
    let request = agent.post(worker).content_type("application/json");
    request.send(&values).and_then(text).map_err(|it| format!("worker: {it}"))
}

fn text(response: ureq::http::Response<ureq::Body>) -> Result<String, ureq::Error> {
    response.into_body().into_with_config().limit(ANSWER_MAX).read_to_string()
}
