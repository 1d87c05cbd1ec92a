//! From the command line to exit code and files, against small servers in this process.

mod http2;
mod secure;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use clap::Parser;
use expect_test::expect;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    let words = ["load"].iter().chain(words);
    Cli::try_parse_from(words).map(|it| it.arguments)
}

fn run_words(words: &[&str]) -> anyhow::Result<ExitCode> {
    run(&parse(words)?)
}

/// Runs, and gives what is printed.
fn said(words: &[&str]) -> (ExitCode, String) {
    let mut out = Vec::new();
    let code = load(&parse(words).unwrap().run, &mut out).unwrap();
    (code, String::from_utf8(out).unwrap())
}

/// Runs, and gives the JSON report.
fn report_of(words: &[&str]) -> (ExitCode, serde_json::Value) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("report.json");
    let words = [words, &["--json", path.to_str().unwrap()]].concat();
    let code = run_words(&words).unwrap();
    (code, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
}

/// A server that does something with each connection; it ends with the test's process.
fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let each = Arc::new(each);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let each = Arc::clone(&each);
            thread::spawn(move || each(stream));
        }
    });
    address
}

/// Reads a request without a body; `None` when the client is gone.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
        if &head[before..] == "\r\n" {
            return Some(head);
        }
    }
}

/// Answers everything so.
fn answering(answer: &'static str) -> SocketAddr {
    serve(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while request(&mut reader).is_some() && stream.write_all(answer.as_bytes()).is_ok() {}
    })
}

/// Reads everything and says nothing.
fn silent() -> SocketAddr {
    serve(|mut stream| drop(stream.read_to_end(&mut Vec::new())))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn url_is_loaded_at_its_rate() {
    let url = format!("http://{}/x", answering(OK));
    let (code, report) = report_of(&[&url, "--rate", "100/s", "--for", "500ms"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(report["total"]["meant"], 50, "{report:#}");
    assert_eq!(report["total"]["succeeded"], 50);
    assert_eq!(report["mode"], "open");
}

#[test]
fn closed_loop_is_labelled() {
    let url = format!("http://{}/", answering(OK));
    let (code, report) = report_of(&[&url, "--closed", "3", "--for", "200ms"]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(report["mode"], "closed");
    assert!(report["total"]["succeeded"].as_u64().unwrap() >= 3);
}

#[test]
fn files_are_written() {
    let folder = TempDir::new().unwrap();
    let html = folder.path().join("report.html");
    let url = format!("http://{}/", answering(OK));
    let words = [&url, "--for", "1s", "--html", html.to_str().unwrap()];
    assert_eq!(run_words(&words).unwrap(), ExitCode::SUCCESS);
    assert!(fs::read_to_string(html).unwrap().contains("<svg"));
}

#[test]
fn json_ends_with_one_line_feed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("report.json");
    let url = format!("http://{}/", answering(OK));
    let file = ["--json", path.to_str().unwrap()];
    let (_, out) = said(&[&[&url, "--for", "300ms", "-o", "json"][..], &file].concat());
    assert!(out.ends_with("}\n"), "{out}");
    assert_eq!(fs::read_to_string(path).unwrap(), out);
}

/// What is in a folder, each file with its content up to the first space.
fn listed(folder: &TempDir) -> String {
    let mut listed: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().path())
        .map(|it| {
            let content = fs::read_to_string(&it).unwrap();
            let name = it.file_name().unwrap().to_string_lossy().into_owned();
            format!("{name}: {}", content.split(' ').next().unwrap())
        })
        .collect();
    listed.sort();
    listed.join("\n")
}

#[test]
fn files_are_tried_before_the_run() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let address = serve(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("older"), "older").unwrap();
    let url = format!("http://{address}/");
    for (option, file) in [("--html", "none/x"), ("--hdr", "none/x"), ("--html", "older")] {
        let json = path("older");
        let words = [&url, "--json", &json, "--hdr", &path("new"), option, &path(file)];
        // The histogram log is given once only.
        let words =
            if option == "--hdr" { [&words[..3], &words[5..]].concat() } else { words.into() };
        assert_eq!(run_words(&words).unwrap(), ExitCode::from(UNUSABLE), "{words:?}");
        expect!["older: older"].assert_eq(&listed(&folder));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn unwritable_files_are_named() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::os::unix::fs::symlink(path("new"), path("link")).unwrap();
    let error = |words: &[&str]| {
        let words = [&["http://localhost/"], words].concat();
        let error = Files::open(&parse(&words).unwrap().run.output).unwrap_err();
        format!("{:#}\n", anyhow::Error::from(error)).replace(folder.path().to_str().unwrap(), "…")
    };
    let mut errors = error(&["--json", &path("none/x.json")]);
    errors += &error(&["--json", &path("")]);
    errors += &error(&["--json", &path("new"), "--html", &path("link")]);
    expect![[r#"
        cannot write `…/none/x.json`: No such file or directory (os error 2)
        cannot write `…/`: Is a directory (os error 21)
        `…/new` and `…/link` are one file, and each of the results needs its own
    "#]]
    .assert_eq(&errors);
    // Devices have nothing older in them.
    let words = ["http://localhost/", "--json", "/dev/null", "--html", "/dev/null"];
    Files::open(&parse(&words).unwrap().run.output).unwrap();
}

#[test]
fn a_run_that_never_began_leaves_files_as_they_were() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("older"), "older").unwrap();
    let url = format!("http://{gone}/");
    run_words(&[&url, "--json", &path("older"), "--html", &path("new")]).unwrap_err();
    expect!["older: older"].assert_eq(&listed(&folder));
}

#[test]
fn withheld_percentiles_leave_no_older_log() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("run.hlog"), "older").unwrap();
    fs::write(path("run.json"), "older, and longer than a report is: ".repeat(1000)).unwrap();
    let url = format!("http://{}/", answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    let (log, json) = (path("run.hlog"), path("run.json"));
    let words = [&url, "--for", "300ms", "-q", "--hdr", &log, "--json", &json];
    let notes = || {
        let (code, out) = said(&words);
        assert_eq!(code, ExitCode::FAILURE);
        let note = out.lines().last().unwrap().replace(folder.path().to_str().unwrap(), "…");
        note + "\n"
    };
    let notes = notes() + &notes();
    expect![[r#"
        no histogram log: percentiles are withheld, so `…/run.hlog` was not written; the older file of that name was removed
        no histogram log: percentiles are withheld, so `…/run.hlog` was not written
    "#]].assert_eq(&notes);
    expect!["run.json: {\n"].assert_eq(&listed(&folder));
    let report: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let reasons = report["withheld"].as_array().unwrap().iter().map(|it| &it["reason"]);
    assert!(reasons.into_iter().any(|it| it == "no_success"), "{report:#}");
}

#[test]
fn reports_that_cannot_be_compared_are_unusable() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("report.json");
    let report = path.to_str().unwrap();
    let url = format!("http://{}/", answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    run_words(&[&url, "--for", "300ms", "-q", "--json", report]).unwrap();
    for words in [["compare", report, report], ["compare", report, "/nowhere.json"]] {
        assert_eq!(run_words(&words).unwrap(), ExitCode::from(UNUSABLE), "{words:?}");
    }
}

#[test]
fn verdicts_are_in_text_and_json() {
    let url = format!("http://{}/", answering(OK));
    let words = [&url, "--rate", "50/s", "--for", "200ms", "-q"];
    let thresholds = ["--threshold", "requests == 10", "--threshold", "errors > 0"];
    let words = [&words[..], &thresholds].concat();
    let (code, out) = said(&words);
    assert_eq!(code, ExitCode::FAILURE);
    let end: Vec<_> = out.lines().skip_while(|it| !it.starts_with("thresholds")).collect();
    expect![[r#"
        thresholds: 1 of 2 MISSED
          reached  requests == 10 (10)
          MISSED   errors > 0 (0)"#]]
    .assert_eq(&end.join("\n"));
    let (_, report) = report_of(&words);
    expect![[r#"[{"bound":10.0,"condition":"requests == 10","found":10.0,"message":"10","reached":true,"unit":"count"},{"bound":0.0,"condition":"errors > 0","found":0.0,"message":"0","reached":false,"unit":"count"}]"#]]
        .assert_eq(&report["thresholds"].to_string());
}

#[test]
fn missed_threshold_fails_the_run() {
    let url = format!("http://{}/", answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    let run = |threshold| run_words(&[&url, "--for", "300ms", "--threshold", threshold]).unwrap();
    assert_eq!(run("errors == 0"), ExitCode::FAILURE);
    // Nothing succeeded, so that a threshold is reached does not help.
    assert_eq!(run("errors > 0"), ExitCode::FAILURE);
    let url = format!("http://{}/", answering(OK));
    let words = [&url, "--for", "300ms", "--threshold", "errors == 0"];
    assert_eq!(run_words(&words).unwrap(), ExitCode::SUCCESS);
}

#[test]
fn nobody_there_is_said_at_once() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = run_words(&[&format!("http://{gone}/")]).unwrap_err().to_string();
    assert_eq!(error, format!("cannot reach http://{gone}: refused: nobody listens on {gone}"));
    let error = run_words(&["http://no..name/"]).map(|it| format!("{it:?}"));
    assert!(error.is_err() || error.is_ok_and(|it| it.contains('2')));
}

#[test]
fn others_may_not_be_loaded() {
    // 192.0.2.0/24 is nobody's (RFC 5737).
    assert_eq!(run_words(&["http://192.0.2.1/"]).unwrap(), ExitCode::from(UNUSABLE));
}

#[test]
fn server_that_speaks_no_tls_is_named() {
    let address = answering(OK);
    let error = run_words(&[&format!("https://{address}/"), "--insecure"]).unwrap_err();
    assert!(error.to_string().contains(": tls: "), "{error}");
    let words = ["https://127.0.0.1/", "--ca", "/nowhere.pem"];
    assert_eq!(run_words(&words).unwrap(), ExitCode::from(UNUSABLE));
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    for words in [
        &["http://localhost/", "--rate", "5"][..],
        &["http://localhost/", "--rate", "5/s", "--closed", "5"],
        &["http://localhost/", "--closed", "0"],
        &["http://localhost/", "--for", "0s"],
        &["http://localhost/", "--stages", "5/s"],
        &["http://localhost/", "--header", "no colon"],
        &["http://localhost/", "--cert", "a.pem"],
        &["http://localhost/", "--threshold", "p99 ~ 5"],
        &["http://localhost/", "--replay", "x", "--replay-speed", "0"],
        &[],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
    for words in [
        &["http://localhost:0x/"][..],
        &["localhost:80"],
        &["http://localhost/", "--replay", "/nowhere"],
        &["http://localhost/", "--body-file", "/nowhere"],
        &["http://localhost/", "--rate", "0.1/h"],
        &["http://localhost/", "--threshold", "other: p99 < 5s"],
        &["http://127.0.0.1/", "--connections", "4000000000"],
        &["http://127.0.0.1/", "--closed", "4000000000"],
    ] {
        assert_eq!(run_words(words).unwrap(), ExitCode::from(UNUSABLE), "{words:?}");
    }
}

#[test]
fn rates_ramp_and_step() {
    let url = format!("http://{}/", answering(OK));
    let (_, report) = report_of(&[&url, "--rate", "0/s..200/s", "--for", "500ms"]);
    assert_eq!(report["total"]["meant"], 50);
    let stages = ["--stages", "100/s:100ms,0/s:100ms,100/s..300/s:200ms"];
    let (_, report) = report_of(&[&[&url[..]], &stages[..]].concat());
    assert_eq!(report["total"]["meant"], 50);
}

#[test]
fn record_is_replayed() {
    let folder = TempDir::new().unwrap();
    let record = folder.path().join("record.txt");
    fs::write(&record, "9 9 10 20 30 9").unwrap();
    let url = format!("http://{}/", answering(OK));
    let words = [&url, "--replay", record.to_str().unwrap(), "--replay-skip", "2s"];
    let more = ["--for", "300ms", "--replay-speed", "10", "--replay-scale", "10"];
    let (_, report) = report_of(&[&words[..], &more[..]].concat());
    assert_eq!(report["total"]["meant"], 60);
    fs::write(&record, "1\nx\n").unwrap();
    assert_eq!(run_words(&words).unwrap(), ExitCode::from(UNUSABLE));
}

#[test]
fn kept_connection_that_was_closed_is_tried_again() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    // Answers one request, reads the next, and closes without a word.
    let address = serve(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        if request(&mut reader).is_some() {
            stream.write_all(OK.as_bytes()).unwrap();
            request(&mut reader);
        }
    });
    let url = format!("http://{address}/");
    let words = [&url, "--closed", "1", "--for", "300ms"];
    let (code, report) = report_of(&words);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(report["total"]["failures"], serde_json::json!({}), "{report:#}");
    assert!(connections.load(Ordering::SeqCst) > 2);
    // Every request but the first found its connection closed.
    let done = report["total"]["done"].as_u64().unwrap();
    assert_eq!(report["total"]["sent_again"].as_u64(), Some(done - 1), "{report:#}");
    // What may not be repeated is a failure instead.
    let (_, report) = report_of(&[&words[..], &["-X", "POST"]].concat());
    assert!(report["total"]["failures"]["closed"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn silence_is_a_timeout_and_nonsense_a_protocol_error() {
    let url = format!("http://{}/", silent());
    let words = [&url, "--rate", "20/s", "--for", "100ms", "--timeout", "100ms"];
    let (code, report) = report_of(&words);
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(report["total"]["failures"]["timeout"], 2, "{report:#}");
    let url = format!("http://{}/", answering("SSH-2.0\r\n\r\n"));
    let (code, report) = report_of(&[&url, "--rate", "20/s", "--for", "100ms"]);
    assert_eq!(code, ExitCode::FAILURE);
    assert_eq!(report["total"]["failures"]["protocol"], 2, "{report:#}");
}

#[test]
fn limit_of_connections_is_named_and_withholds() {
    let url = format!("http://{}/", silent());
    let words = [&url, "--rate", "50/s", "--for", "200ms", "--connections", "2"];
    let words = [&words[..], &["--timeout", "500ms"]].concat();
    let (_, report) = report_of(&words);
    assert_eq!(report["total"]["failures"]["connections"], 8, "{report:#}");
    let threshold = [&words[..], &["--threshold", "p50 < 10s"]].concat();
    assert_eq!(run_words(&threshold).unwrap(), ExitCode::FAILURE);
}

#[test]
fn scenario_file_is_run() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("scenario.yaml");
    let target = answering(OK);
    let text = format!("target: http://{target}\nrate: 50/s\nfor: 200ms\nsteps:\n- get: /a\n");
    fs::write(&path, text).unwrap();
    let (code, report) = report_of(&[path.to_str().unwrap()]);
    assert_eq!(code, ExitCode::SUCCESS);
    assert_eq!(report["total"]["meant"], 10, "{report:#}");
    let (_, report) = report_of(&[path.to_str().unwrap(), "--stages", "100/s:100ms,50/s:100ms"]);
    assert_eq!(report["total"]["meant"], 15);
    fs::write(&path, "target: 5\nnonsense: 1\n").unwrap();
    assert_eq!(run_words(&[path.to_str().unwrap()]).unwrap(), ExitCode::from(UNUSABLE));
    let words = [path.to_str().unwrap(), "--method", "PUT"];
    assert_eq!(run_words(&words).unwrap(), ExitCode::from(UNUSABLE));
}
