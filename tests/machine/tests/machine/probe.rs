//! What the tests' pods run. Small and blunt: one thread per connection, plain HTTP/1.1.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket},
    time::Duration,
};

use crate::spy;

/// How long a request may take before it counts as failed.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// `serve PORT`, `ask URL` for ever, `once URL`, `who URL`, `datagram ADDRESS`, `watch URL…` for ever, `show` environment and surroundings; the others are of
/// hostile containers.
pub(crate) fn main(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", port, ..] => serve(port),
        ["ask", url, ..] => ask(url),
        ["once", url, ..] => println!("{}", outcome(url)),
        ["who", url, ..] => who(url),
        ["datagram", address, ..] => println!("{}", datagram(address)),
        ["watch", urls @ ..] => watch(urls),
        ["show", ..] => show(),
        ["spy", one, two, paths @ ..] => spy::spy([one, two], paths),
        ["rights", word, ..] => spy::rights(word),
        ["fork", ..] => spy::fork(),
        ["shout", ..] => spy::shout(),
        ["mute", ..] => spy::mute(),
        ["fail", ..] => fail(),
        other => println!("probe: what is {other:?}?"),
    }
}

#[expect(
    clippy::disallowed_methods,
    clippy::exit,
    reason = "a program in a pod, whose exit code is looked at"
)]
fn fail() {
    std::process::exit(3)
}

fn serve(port: &str) {
    let listener = match TcpListener::bind(format!("0.0.0.0:{port}")) {
        Ok(listener) => listener,
        Err(error) => {
            println!("listen on {port}: {error}");
            return;
        }
    };
    println!("serving");
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        std::thread::spawn(move || drop(answer(connection)));
    }
}

fn answer(mut connection: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let length = name.len();
    write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    write!(connection, "{name}")
}

/// Asks for ever, a new connection each time. Says every failure, and every hundredth success.
fn ask(url: &str) {
    let mut good = 0_u64;
    loop {
        let outcome = outcome(url);
        if outcome.starts_with("ok ") {
            good += 1;
            if good == 1 || good.is_multiple_of(100) {
                println!("good {good}");
            }
        } else {
            println!("{outcome}");
            // Whatever it is, a thousand lines a second of it help nobody.
            std::thread::park_timeout(PAUSE);
        }
    }
}

/// How often it is asked who answers: of six endpoints each is missed once in ten million times.
const TIMES: usize = 100;

/// Says who answers, each once.
fn who(url: &str) {
    let all: BTreeSet<String> = (0..TIMES).map(|_| outcome(url)).collect();
    println!("{}", all.into_iter().collect::<Vec<_>>().join("\n"));
}

/// What is answered by UDP.
fn datagram(address: &str) -> String {
    let asked = || -> std::io::Result<String> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send(b"?")?;
        let mut answer = [0; 1024];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned())
    };
    asked().map_or_else(|error| format!("failed {address}: {error}"), |it| format!("ok {it}"))
}

/// Asks each in turn for ever, and says when it begins to succeed or to fail.
fn watch(urls: &[&str]) {
    let mut last = vec![None; urls.len()];
    loop {
        for (url, last) in urls.iter().zip(&mut last) {
            let outcome = outcome(url);
            let good = outcome.starts_with("ok ");
            if *last != Some(good) {
                *last = Some(good);
                println!("{} {url}: {outcome}", if good { "reached" } else { "missed" });
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

fn outcome(url: &str) -> String {
    match get(url) {
        Ok(body) => format!("ok {body}"),
        Err(error) => format!("failed {url}: {error}"),
    }
}

fn get(url: &str) -> std::io::Result<String> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address = with_port.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut connection = TcpStream::connect_timeout(&address, TIMEOUT)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    write!(connection, "GET /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("answer `{text}`"))),
    }
}

/// Whether the root can be written; only in an image's, as another one is the machine's own.
fn show_root() {
    if std::env::vars().any(|(key, value)| key == "FROM" && value == "image") {
        let file = "/written";
        let written = std::fs::write(file, "x").map(|()| "written".to_owned());
        println!("root {}", written.unwrap_or_else(|error| error.to_string()));
    }
}

/// Everything about where this process finds itself, one fact a line.
fn show() {
    for (key, value) in std::env::vars() {
        println!("env {key}={value}");
    }
    let directory = std::env::current_dir().map(|it| it.display().to_string());
    println!("directory {}", directory.unwrap_or_default());
    println!("user {}", rustix::process::getuid().as_raw());
    println!("pid {}", std::process::id());
    println!("host {}", rustix::system::uname().nodename().to_string_lossy());
    for file in ["/etc/resolv.conf", "/etc/hosts", "/config/key", "/secret/password"] {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| error.to_string());
        for line in text.lines() {
            println!("{file} {line}");
        }
    }
    let scratch =
        std::fs::write("/scratch/file", "x").map_or_else(|it| it.to_string(), |()| "ok".into());
    println!("scratch {scratch}");
    for key in ["MASKED_STATE", "MASKED_RUN"] {
        let folder = std::env::vars().find(|(it, _)| it == key).map(|(_, it)| it);
        let entries = folder.map(std::fs::read_dir).map(|it| it.map(Iterator::count));
        println!("{key} {entries:?}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines() {
        println!("status {line}");
    }
    show_root();
    println!("shown");
    // Stays, so that the pod is not restarted.
    loop {
        std::thread::park();
    }
}
