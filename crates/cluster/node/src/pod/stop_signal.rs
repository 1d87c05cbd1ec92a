//! How a container is asked to stop: by the signal that it names, or its image, or SIGTERM.
//!
//! Ref: KEP-4960 (`lifecycle.stopSignal`); OCI image specification, `StopSignal`.

use k8s_openapi::api::core::v1::Container;

/// Names of signals, without `SIG`, see signal(7).
const NAMES: [(&str, i32); 30] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// Highest number of a signal: `SIGRTMAX`.
const NUMBER_MAX: i32 = 64;

/// The signal that asks a container to stop. `of_image` is what its image says, if anything; what is no
/// signal counts as nothing, as with container runtimes.
#[must_use]
pub(super) fn stop_signal(container: &Container, of_image: &str) -> i32 {
    let own = container.lifecycle.as_ref().and_then(|it| it.stop_signal.as_deref());
    own.and_then(parse).or_else(|| parse(of_image)).unwrap_or(libc::SIGTERM)
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`, `SIGRTMAX-2`.
fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return Some(number).filter(|it| (1..=NUMBER_MAX).contains(it));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |it: &str| if it.is_empty() { Some(0) } else { it.parse::<i32>().ok() };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        libc::SIGRTMIN() + offset(rest)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        libc::SIGRTMAX() + offset(rest)?
    } else {
        NAMES.iter().find(|(it, _)| *it == name)?.1
    };
    Some(number).filter(|it| (1..=NUMBER_MAX).contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("SIGQUIT", Some(3)),
            ("quit", Some(3)),
            ("15", Some(15)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMAX-2", Some(libc::SIGRTMAX() - 2)),
            ("SIGRTMAX+9", None),
            ("0", None),
            ("SIGNOTHING", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }

    #[test]
    fn a_container_goes_before_its_image() {
        let container =
            serde_json::json!({ "name": "c", "lifecycle": { "stopSignal": "SIGUSR1" } });
        let container: Container = serde_json::from_value(container).unwrap();
        assert_eq!(stop_signal(&container, "SIGINT"), libc::SIGUSR1);
        assert_eq!(stop_signal(&Container::default(), "SIGINT"), libc::SIGINT);
        assert_eq!(stop_signal(&Container::default(), "nonsense"), libc::SIGTERM);
    }
}
