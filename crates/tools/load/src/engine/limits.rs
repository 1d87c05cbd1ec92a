//! What this process may have: descriptors, local ports, cores, processor time. Foreseen before a
//! run, so that a limit of its own is not taken for one of the server.

use std::{fs, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    exchange::FailureKind,
    plan::{Arrival, Plan, Protocol},
};

/// Descriptors that are not connections: the runtimes', standard streams, files being read.
const DESCRIPTORS_RESERVED: u64 = 128;
/// Local ports where the kernel does not say which: its own default.
const PORTS_DEFAULT: u64 = 60_999 - 32_768 + 1;

/// More is wanted than there is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More connections than descriptors.
    #[error(
        "connections wanted: {wanted}; descriptors left for them: {available}; raise the hard limit \
         (`ulimit -Hn`) or take fewer"
    )]
    Descriptors {
        /// Connections wanted.
        wanted: usize,
        /// Connections that there can be.
        available: u64,
    },
}

/// How many connections may be open at once: as many as are wanted, or else as there are
/// descriptors. Raises the soft limit on descriptors to the hard one.
///
/// # Errors
///
/// More are wanted than there are descriptors, or there are none.
pub fn connections(wanted: Option<usize>) -> Result<usize, Error> {
    let available = runtime::raise_files(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED);
    match wanted {
        Some(wanted) if wanted as u64 > available => Err(Error::Descriptors { wanted, available }),
        Some(wanted) => Ok(wanted),
        None if available == 0 => Err(Error::Descriptors { wanted: 1, available }),
        None => Ok(usize::try_from(available).unwrap_or(usize::MAX)),
    }
}

/// What a plan may run into, in words. A server that answers nothing makes an open loop open one
/// connection after the other; how long that can go on is known before.
#[must_use]
pub fn foresee(plan: &Plan) -> Option<String> {
    if plan.transport.protocol != Protocol::Http1 {
        return None;
    }
    let peak: f64 = plan.flows.iter().map(|it| peak(&it.arrival)).sum();
    let of_ports = ports().saturating_mul(plan.targets.len().max(1) as u64);
    let own = FailureKind::Connections;
    let (most, what, kind) = match connections(plan.connections_max) {
        Ok(most) if of_ports < most as u64 => (of_ports, "local ports", FailureKind::Ports),
        Ok(most) if plan.connections_max.is_some() => (most as u64, "--connections", own),
        Ok(most) => (most as u64, "descriptors", own),
        // The run will be refused, and say why.
        Err(_) => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds in words need no 53 bits")]
    let seconds = most as f64 / peak;
    (seconds < plan.grace.as_secs_f64()).then(|| {
        format!(
            "if the server answers nothing for {seconds:.1} s at {peak:.0}/s, the limit of {most} \
             connections ({what}) is reached; further requests then fail as `{kind}`, and \
             percentiles are withheld"
        )
    })
}

/// The highest rate of arrivals.
fn peak(arrival: &Arrival) -> f64 {
    match arrival {
        Arrival::Open(stages) => stages.iter().map(|it| it.from.max(it.to)).fold(0.0, f64::max),
        Arrival::Closed { .. } => 0.0,
    }
}

/// Connections to one address and port that may be open at once: each needs a local port.
#[must_use]
pub fn ports() -> u64 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_ascii_whitespace().filter_map(|it| it.parse::<u64>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) if first <= last => last - first + 1,
        _ => PORTS_DEFAULT,
    }
}

/// Cores that this process may use.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time that this process has used, of all threads, in user and kernel.
#[must_use]
pub fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds)
        + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        let most = connections(None).unwrap();
        assert_eq!(connections(Some(1)).unwrap(), 1);
        assert_eq!(connections(Some(most)).unwrap(), most);
        let error = connections(Some(most + 1)).unwrap_err().to_string();
        assert!(error.contains("descriptors"), "{error}");
    }

    #[test]
    fn processor_time_passes_when_it_is_used() {
        let before = cpu();
        let mut sum = 0u64;
        while cpu() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(cpu() > before);
    }
}
