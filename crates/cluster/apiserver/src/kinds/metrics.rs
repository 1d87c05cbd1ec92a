//! NodeMetrics and PodMetrics: what nodes and pods use of CPU and memory, for `kubectl top`. They are
//! measured when somebody asks, and never stored. Who measures is [`crate::registry`]'s business.

use serde_json::Value;

use super::{
    Column, Kind, Measured, Source,
    print::{self, NAME, column},
    value::Read,
};

const METRICS: Kind = Kind {
    group: "metrics.k8s.io",
    version: "v1beta1",
    verbs: &["get", "list"],
    columns: COLUMNS,
    ..Kind::PLAIN
};

pub(super) static NODE_METRICS: Kind = Kind {
    kind: "NodeMetrics",
    plural: "nodes",
    singular: "",
    namespaced: false,
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics",
    source: Source::Measured(Measured::Nodes),
    row: |it, _| {
        let usage = |name| it.field("usage").text(name).to_owned();
        row(it, usage("cpu"), usage("memory"))
    },
    ..METRICS
};

pub(super) static POD_METRICS: Kind = Kind {
    kind: "PodMetrics",
    plural: "pods",
    singular: "",
    schema: "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics",
    source: Source::Measured(Measured::Pods),
    row: |it, _| {
        let sum = |name, factors: &[u64]| -> u64 {
            let all = it.items("containers").iter();
            all.filter_map(|it| read(it.field("usage").text(name), factors)).sum()
        };
        row(it, cpu(sum("cpu", &DECIMAL)), memory(sum("memory", &BINARY)))
    },
    ..METRICS
};

const COLUMNS: &[Column] = &[
    NAME,
    column("cpu", "CPU time a second."),
    column("memory", "The working set."),
    column("Window", "Over how long that was."),
];

fn row(object: &Value, cpu: String, memory: String) -> Vec<Value> {
    vec![print::name(object), cpu.into(), memory.into(), object.text("window").into()]
}

/// What the suffixes of an amount of CPU stand for, in nanoseconds, the least first; the last is none.
const DECIMAL: [u64; 4] = [1, 1000, 1_000_000, 1_000_000_000];
/// The same of bytes, from none.
const BINARY: [u64; 4] = [1, 1 << 10, 1 << 20, 1 << 30];

/// An amount of CPU as Kubernetes writes it.
pub(crate) fn cpu(nanos: u64) -> String {
    if nanos == 0 {
        return "0".to_owned();
    }
    shortest(nanos, 1000, ["n", "u", "m", ""])
}

/// Bytes as Kubernetes writes them.
pub(crate) fn memory(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    shortest(bytes, 1024, ["", "Ki", "Mi", "Gi"])
}

fn shortest(mut amount: u64, step: u64, suffixes: [&str; 4]) -> String {
    let mut suffixes = suffixes.into_iter();
    let mut suffix = suffixes.next().unwrap_or_default();
    while amount.is_multiple_of(step)
        && let Some(next) = suffixes.next()
    {
        amount /= step;
        suffix = next;
    }
    format!("{amount}{suffix}")
}

/// Reads what [`cpu`] and [`memory`] have written.
fn read(text: &str, factors: &[u64]) -> Option<u64> {
    let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, suffix) = text.split_at_checked(end)?;
    let place = match (suffix, factors == DECIMAL) {
        ("n", _) | ("", false) => 0,
        ("u", _) | ("Ki", _) => 1,
        ("m", _) | ("Mi", _) => 2,
        ("", true) | ("Gi", _) => 3,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(*factors.get(place)?)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::check_row;

    #[test]
    fn amounts_are_read_as_they_are_written() {
        for nanos in [0, 1, 999, 1000, 1500, 250_000_000, 1_000_000_000, 12_000_000_000] {
            assert_eq!(read(&cpu(nanos), &DECIMAL), Some(nanos), "{}", cpu(nanos));
        }
        for bytes in [0, 1, 1024, 1025, 5 << 20, 3 << 30, 4 << 40] {
            assert_eq!(read(&memory(bytes), &BINARY), Some(bytes), "{}", memory(bytes));
        }
        let texts = [cpu(250_000_000), cpu(1_234), cpu(2_000_000_000), memory(12 << 20)];
        assert_eq!(texts, ["250m", "1234n", "2", "12Mi"]);
    }

    #[test]
    fn rows_sum_up_containers() {
        let usage =
            |name, cpu, memory| json!({ "name": name, "usage": { "cpu": cpu, "memory": memory } });
        let containers = [usage("a", "250m", "1Mi"), usage("b", "1500n", "3Ki")];
        let change = json!({ "window": "15.1s", "containers": containers });
        check_row(&POD_METRICS, change, expect![["a | 250001500n | 1027Ki | 15.1s"]]);
        let usage = json!({ "cpu": "1", "memory": "2Gi" });
        let change = json!({ "window": "1s", "usage": usage });
        check_row(&NODE_METRICS, change, expect![["a | 1 | 2Gi | 1s"]]);
    }
}
