//! Asking nsqlookupd which nsqds have a topic.

use std::{collections::BTreeSet, io, time::Duration};

use serde::Deserialize;

/// Longest wait for one nsqlookupd.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes: thousands of nsqds.
const ANSWER_MAX: u64 = 1 << 20;
/// The status with which nsqlookupd says that no nsqd has the topic.
const NOT_FOUND: u16 = 404;

#[derive(Deserialize)]
struct Answer {
    producers: Vec<Nsqd>,
}

#[derive(Deserialize)]
struct Nsqd {
    broadcast_address: String,
    tcp_port: u16,
}

/// Where the nsqds are that have `topic`, as HOST:PORT: all that any of `nsqlookupds` knows. Fails if
/// none of these answers.
pub(super) async fn nsqds(nsqlookupds: &[String], topic: &str) -> io::Result<BTreeSet<String>> {
    let (mut found, mut failed, mut answered) = (BTreeSet::new(), None, false);
    for nsqlookupd in nsqlookupds {
        let url = format!("http://{nsqlookupd}/lookup?topic={topic}");
        match tokio::task::spawn_blocking(move || ask(&url)).await? {
            Ok(nsqds) => {
                found.extend(nsqds);
                answered = true;
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if !answered => Err(io::Error::other(error)),
        _ => Ok(found),
    }
}

fn ask(url: &str) -> Result<BTreeSet<String>, ureq::Error> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER_WITHIN))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let response = agent.get(url).call()?;
    let status = response.status();
    if status == NOT_FOUND {
        return Ok(BTreeSet::new());
    }
    if !status.is_success() {
        return Err(ureq::Error::StatusCode(status.as_u16()));
    }
    let answer = response.into_body().into_with_config().limit(ANSWER_MAX).read_to_vec()?;
    let Answer { producers } =
        serde_json::from_slice(&answer).map_err(|it| ureq::Error::Io(it.into()))?;
    Ok(producers.iter().map(address).collect())
}

fn address(nsqd: &Nsqd) -> String {
    let Nsqd { broadcast_address: host, tcp_port: port } = nsqd;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
