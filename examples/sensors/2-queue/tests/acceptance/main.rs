//! What this stage promises, tried with its three programs and the real queue. Needs `coracle` in
//! `PATH`, or its path in `CORACLE`.

mod system;

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
};

use system::{Program, System, eventually, free_port};

const SENT: &str = "Sent values ";
const RESULT: &str = "Got worker result ";
const GOT: &str = "Got values ";
const LISTENING: &str = "Listening to ";

/// The squares of an array, as the app says them.
fn squares(array: &str) -> String {
    let numbers: Vec<u128> = serde_json::from_str(array).unwrap();
    serde_json::to_string(&numbers.iter().map(|it| it * it).collect::<Vec<_>>()).unwrap()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Different arrays.
fn arrays(count: usize) -> Vec<String> {
    (0..count).map(|it| format!("[{it},{},3]", it + 1000)).collect()
}

fn results_of(arrays: &[String]) -> Vec<String> {
    sorted(arrays.iter().map(|it| squares(it)).collect())
}

#[test]
fn each_array_gives_one_result() {
    let (system, _queue) = System::running("each");
    let (mut sensor, _worker, app) = (system.sensor(), system.worker(), system.app());
    app.says(RESULT, 3);
    assert!(sensor.stop().success());
    let sent = sensor.said(SENT);
    assert_eq!(sorted(app.says(RESULT, sent.len())), results_of(&sent));
    // No message went round twice.
    eventually("all is finished", || {
        system.channel("worker_result", "app")["in_flight_count"] == 0
    });
    assert_eq!(app.said(RESULT).len(), sent.len());
}

#[test]
fn a_stopped_worker_loses_nothing() {
    let (system, _queue) = System::running("stopped");
    assert!(system.post("/topic/create?topic=sensor_data", ""));
    let (mut worker, app) = (system.worker(), system.app());
    worker.says(LISTENING, 1);
    assert!(worker.stop().success());
    let arrays = arrays(10);
    for array in &arrays {
        system.publish("sensor_data", array);
    }
    eventually("ten wait", || system.channel("sensor_data", "worker")["depth"] == 10);
    let _worker = system.worker();
    assert_eq!(sorted(app.says(RESULT, 10)), results_of(&arrays));
}

#[test]
fn two_workers_share() {
    let (system, _queue) = System::running("share");
    assert!(system.post("/topic/create?topic=sensor_data", ""));
    let workers = [system.worker(), system.worker()];
    for worker in &workers {
        worker.says(LISTENING, 1);
    }
    let got = |worker: &Program| worker.said(GOT);
    let mut published = 0;
    eventually("both have a share", || {
        system.publish("sensor_data", &format!("[{published}]"));
        published += 1;
        published >= 40 && workers.iter().all(|it| !got(it).is_empty())
    });
    eventually("all is done", || system.channel("sensor_data", "worker")["depth"] == 0);
    eventually("all is said", || {
        workers.iter().map(|it| got(it).len()).sum::<usize>() >= published
    });
    // Each message once: all are there, and no two are the same.
    let mut all: Vec<String> = workers.iter().flat_map(got).collect();
    assert_eq!(all.len(), published);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), published);
}

#[test]
fn a_second_channel_sees_every_message() {
    let (system, _queue) = System::running("second");
    assert!(system.post("/topic/create?topic=sensor_data", ""));
    let (worker, second) = (system.worker(), system.app_of("sensor_data", "second"));
    worker.says(LISTENING, 1);
    second.says(LISTENING, 1);
    let arrays = arrays(10);
    for array in &arrays {
        system.publish("sensor_data", array);
    }
    assert_eq!(sorted(second.says(RESULT, 10)), sorted(arrays));
    assert_eq!(worker.says("Sent result ", 10).len(), 10);
}

#[test]
fn services_may_start_before_the_queue() {
    let system = System::new("before");
    let (sensor, worker, app) = (system.sensor(), system.worker(), system.app());
    sensor.says("Cannot publish ", 2);
    worker.says("No answer from nsqlookupd", 2);
    app.says("No answer from nsqlookupd", 2);
    let _queue = [system.nsqlookupd(), system.nsqd(&[])];
    let sent = sensor.says(SENT, 3);
    let results = app.says(RESULT, 3);
    // What was measured before there was a queue is there as well.
    assert!(
        sent.iter().all(|it| app.says(RESULT, 3).contains(&squares(it))),
        "{sent:?} {results:?}"
    );
}

#[test]
fn a_killed_nsqd_loses_nothing_that_it_took() {
    let (system, [_nsqlookupd, mut nsqd]) = System::running("killed");
    let (sensor, _worker, app) = (system.sensor(), system.worker(), system.app());
    app.says(RESULT, 1);
    let system = &system;
    let taken = thread::scope(|scope| {
        let publisher = scope.spawn(move || {
            let take = |array: &String| system.post("/pub?topic=sensor_data", array);
            arrays(5000).into_iter().take_while(take).collect::<Vec<String>>()
        });
        eventually("some are on their way", || app.said(RESULT).len() > 20);
        nsqd.kill();
        publisher.join().unwrap()
    });
    assert!(taken.len() < 5000, "it was not killed at work");
    let before = sensor.said(SENT).len();
    let _nsqd = system.nsqd(&[]);
    // The sensor goes on, and everything that was taken comes out, now or before.
    let sent = sensor.says(SENT, before + 2);
    eventually("every result is there", || {
        let results = app.said(RESULT);
        taken.iter().chain(&sent).all(|it| results.contains(&squares(it)))
    });
}

#[test]
fn without_nsqlookupd_what_was_found_goes_on() {
    let (system, [mut nsqlookupd, mut nsqd]) = System::running("without");
    system.publish("sensor_data", "[1]");
    let (_worker, app) = (system.worker(), system.app());
    app.says(RESULT, 1);
    nsqlookupd.kill();
    system.publish("sensor_data", "[2]");
    app.says(RESULT, 2);
    nsqd.kill();
    let _nsqd = system.nsqd(&[]);
    system.publish("sensor_data", "[3]");
    eventually("the third result is there", || app.said(RESULT).contains(&"[9]".to_owned()));
}

#[test]
fn a_result_that_cannot_be_published_goes_back() {
    let (system, _queue) = System::running("back");
    // The nsqd that the worker publishes to comes later, with the results.
    let results = System::new("back-results");
    let worker = system.worker_with(results.tcp);
    system.publish("sensor_data", "[1,2,3]");
    assert!(worker.says("Cannot publish ", 2)[0].ends_with("; the values go back into the queue"));
    let channel = system.channel("sensor_data", "worker");
    assert!(channel["requeue_count"].as_u64() >= Some(1), "{channel}");
    assert_eq!(channel["depth"].as_u64().unwrap_or(0) + waits(&channel), 1, "{channel}");
    let _nsqlookupd = results.nsqlookupd();
    let (_nsqd, app) = (results.nsqd(&[]), results.app());
    assert_eq!(app.says(RESULT, 1), ["[1,4,9]"]);
    eventually("the values are finished", || {
        let channel = system.channel("sensor_data", "worker");
        channel["depth"] == 0 && waits(&channel) == 0
    });
}

/// What a channel has handed out, or is to hand out later.
fn waits(channel: &serde_json::Value) -> u64 {
    let count = |key: &str| channel[key].as_u64().unwrap_or_default();
    count("in_flight_count") + count("deferred_count")
}

#[test]
fn a_worker_keeps_its_message_and_answers_before_it_stops() {
    let system = System::new("keeps");
    // Much less than the worker takes to give up publishing.
    let _queue = [system.nsqlookupd(), system.nsqd(&["--msg-timeout=1s"])];
    // Connections are accepted by the system, and nobody ever answers.
    let port = free_port();
    let _silent = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let mut worker = system.worker_with(port);
    system.publish("sensor_data", "[1,2,3]");
    worker.says(GOT, 1);
    assert!(worker.stop().success());
    assert_eq!(worker.says("Cannot publish ", 1).len(), 1);
    worker.says("Stopped worker.", 1);
    eventually("it is gone", || system.channel("sensor_data", "worker")["client_count"] == 0);
    let channel = system.channel("sensor_data", "worker");
    assert_eq!(channel["timeout_count"], 0, "{channel}");
    assert_eq!(channel["requeue_count"], 1, "{channel}");
}

#[test]
fn a_sensor_says_what_it_loses() {
    let system = System::new("loses");
    let mut sensor = system.sensor();
    let kept = sensor.says("Cannot publish ", 3);
    assert!(kept[2].ends_with("; kept, and 2 more"), "{kept:?}");
    assert!(sensor.stop().success());
    sensor.says("Stopped sensor.", 1);
    let lost = &sensor.said("Lost ")[0];
    assert!(lost.ends_with(" values that could not be published."), "{lost}");
}

#[test]
fn a_message_that_is_nonsense_is_dropped() {
    let (system, _queue) = System::running("nonsense");
    for body in ["nonsense", "[1.5]", "[2]"] {
        system.publish("sensor_data", body);
    }
    let (worker, app) = (system.worker(), system.app());
    assert_eq!(app.says(RESULT, 1), ["[4]"]);
    assert_eq!(worker.says("Dropped a message ", 2).len(), 2);
    eventually("all are finished", || {
        let channel = system.channel("sensor_data", "worker");
        channel["depth"] == 0 && waits(&channel) == 0
    });
}
