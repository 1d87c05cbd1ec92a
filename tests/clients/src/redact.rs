//! Takes out of what is seen all that differs from run to run: times, ages, identifiers, random
//! names, addresses, and what belongs to the machine.

use anyhow::Context as _;
use regex::Regex;

use crate::cluster::Cluster;

/// Patterns with what takes their place. Each shows what it stands for, so that a script still says
/// that something is there.
const PATTERNS: &[(&str, &str)] = &[
    // A run of blanks inside a line: columns are as wide as their widest cell.
    (r"(?m)(\S) {3,}", "$1   "),
    // What belongs together has an id of the folder's path, and so has the name of what says so.
    (r"\bapplyset-[A-Za-z0-9_-]{43}-v1\b", "applyset-ID-v1"),
    (r"\b(coracle-up-[a-z0-9-]+)\.[0-9a-f]{15}\b", "$1.HASH"),
    // The name of a ReplicaSet's pod, of the ReplicaSet, of what generateName made.
    (r"-[4-9bcdf]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-HASH-RANDOM"),
    (r"-[4-9bcdf]{8,10}\b", "-HASH"),
    (r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-RANDOM"),
    (r"(pod-template-hash[=:] ?)[4-9bcdf]{8,10}\b", "${1}HASH"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UID"),
    (r"\b\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})", "TIME"),
    (r"\b[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}", "TIME"),
    (r#"("?resourceVersion"?: )"\d+""#, r#"$1"VERSION""#),
    (r"(?m)(^|[\s(])(?:<invalid>|\d+[smhd](?:\d+[smh])?)($|[\s)])", "${1}AGE$2"),
    (r"AGE \(x\d+ over AGE\)", "AGE (xN over AGE)"),
    // Beside another cluster of root's, and tests run beside each other, the ranges are the next ones.
    (r"\b10\.24[0-7]\.(\d+\.\d+)\b", "10.244.$1"),
    (r"\b10\.(?:9[6-9]|10[0-3])\.(\d+\.\d+)\b", "10.96.$1"),
    (r"\b10\.244\.\d+\.\d+\b", "POD-IP"),
    (r"\b10\.96\.(\d{2,3}\.\d+|\d\.\d{2,3}|[1-9]\.\d)\b", "CLUSTER-IP"),
    // What IPv6 addresses begin with is random. The rest of a pod's is its IPv4 address.
    (r"\bfd[0-9a-f]{2}:(?:[0-9a-f]{1,4}:){0,2}:", "PREFIX::"),
    (r"PREFIX::af[0-7]:[0-9a-f]{1,4}\b", "POD-IPV6"),
    (r"PREFIX::[1-9a-f][0-9a-f]{2,3}\b", "CLUSTER-IPV6"),
    (r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:PORT"),
    // The proxy's port is 80 where it is allowed and free.
    (r"(\.localhost):\d{2,5}\b", "$1"),
    (r"coracle://\S+", "coracle://ID"),
    (r"\(process \d+, version [0-9.]+\)", "(process ID, version VERSION)"),
    // kubectl's own log lines.
    (r"(?m)^[EIW]\d{4} \d{2}:\d{2}:\d{2}\.\d+ +\d+ ", "KLOG "),
];

/// Replaces by pattern: what the machine and the cluster are called, then the rest.
#[derive(Debug)]
pub(crate) struct Redactor {
    patterns: Vec<(Regex, String)>,
}

impl Redactor {
    pub(crate) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        Self::with(&[
            (cluster.directory().display().to_string(), "DIRECTORY"),
            (cluster.name().to_owned(), "CLUSTER"),
            (host_name()?, "NODE"),
        ])
    }

    fn with(literals: &[(String, &str)]) -> anyhow::Result<Self> {
        let mut patterns = Vec::new();
        // Whole words only: a short host name may well stand inside a random one.
        for (literal, with) in literals.iter().filter(|(it, _)| !it.is_empty()) {
            let pattern = format!(r"(?m)(^|\W){}\b", regex::escape(literal));
            let pattern = Regex::new(&pattern).with_context(|| literal.clone())?;
            patterns.push((pattern, format!("${{1}}{with}")));
        }
        for (pattern, with) in PATTERNS {
            let pattern = Regex::new(pattern).with_context(|| (*pattern).to_owned())?;
            patterns.push((pattern, (*with).to_owned()));
        }
        Ok(Self { patterns })
    }

    /// The text without what differs from run to run, and without blanks at the end of lines.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (pattern, with) in &self.patterns {
            text = pattern.replace_all(&text, with.as_str()).into_owned();
        }
        let lines: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        lines.join("\n")
    }
}

/// What the node is called: the machine's name.
fn host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the host name")?;
    Ok(name.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let redactor = Redactor::with(&[("castle".to_owned(), "NODE")]).unwrap();
        expected.assert_eq(&redactor.redact(text));
    }

    #[test]
    fn tables() {
        check(
            "NAME                      READY   STATUS    RESTARTS     AGE   IP            NODE\n\
             worker-7d5b4c9f8d-x7k2p   1/1     Running   1 (5s ago)   12s   10.244.0.17   castle",
            expect![[r"
                NAME   READY   STATUS   RESTARTS   AGE   IP   NODE
                worker-HASH-RANDOM   1/1   Running   1 (AGE ago)   AGE   POD-IP   NODE"]],
        );
        check("worker-7d5b4c9f8d   1   1   1   2m5s", expect!["worker-HASH   1   1   1   AGE"]);
        check("one-step   1   web-2", expect!["one-step   1   web-2"]);
    }

    #[test]
    fn addresses() {
        check(
            "fd12:3456:789a::/112 fd12:0:789a::1, fd12:3456::10f [fd12:3456:789a::af6:1002]:80 \
             10.245.1.2/20 fd12:3456:789a::af4:0/116 abcd::1",
            expect![[
                r"PREFIX::/112 PREFIX::1, CLUSTER-IPV6 [POD-IPV6]:80 POD-IP/20 POD-IPV6/116 abcd::1"
            ]],
        );
    }

    #[test]
    fn objects() {
        check(
            "resourceVersion: \"42\"\nuid: 9ac3b2d5-1111-2222-3333-444455556666\n\
             creationTimestamp: \"2026-01-02T03:04:05Z\"\nclusterIP: 10.96.13.2 10.96.0.1",
            expect![[r#"
                resourceVersion: "VERSION"
                uid: UID
                creationTimestamp: "TIME"
                clusterIP: CLUSTER-IP 10.96.0.1"#]],
        );
    }
}
