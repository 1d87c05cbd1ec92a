//! How many nodes the cluster has on its machine, as it is kept in the cluster.
//!
//! It lives in a ConfigMap, so that a running cluster can be told, and a copy of its objects has as many.

use std::{collections::BTreeMap, time::Duration};

/// Namespace of the ConfigMap.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "coracle-nodes";

/// The key under which the ConfigMap says how many nodes there are.
pub const COUNT: &str = "nodes";
/// The key under which it says for how many seconds the nodes' Leases hold.
pub const LEASE_SECONDS: &str = "leaseSeconds";

/// What the ConfigMap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many nodes there are.
    pub nodes: u32,
    /// How long their Leases hold; if not said, as long as usual.
    pub lease: Option<Duration>,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { nodes: 1, lease: None }
    }
}

/// Why the ConfigMap cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}: {value}` of ConfigMap {NAMESPACE}/{CONFIG_MAP} is no number from 1 on")]
pub struct WantedError {
    key: &'static str,
    value: String,
}

impl Wanted {
    /// Reads `data` of the ConfigMap.
    ///
    /// # Errors
    /// A number is none, or 0.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, WantedError> {
        let number = |key| match data.get(key) {
            None => Ok(None),
            Some(value) => match value.parse::<u32>() {
                Ok(number) if 0 < number => Ok(Some(number)),
                _ => Err(WantedError { key, value: value.clone() }),
            },
        };
        let lease = number(LEASE_SECONDS)?.map(|it| Duration::from_secs(it.into()));
        Ok(Self { nodes: number(COUNT)?.unwrap_or(1), lease })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_may_write() {
        let parse = |data: &[(&str, &str)]| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Wanted::parse(&data.collect())
        };
        assert_eq!(parse(&[]), Ok(Wanted::default()));
        let lease = Some(Duration::from_secs(4));
        assert_eq!(parse(&[("nodes", "3"), ("leaseSeconds", "4")]), Ok(Wanted { nodes: 3, lease }));
        for data in [("nodes", "0"), ("nodes", "three"), ("leaseSeconds", "-1")] {
            assert!(parse(&[data]).unwrap_err().to_string().contains(data.0));
        }
    }
}
