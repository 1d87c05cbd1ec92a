//! Annotations that Coracle itself reads, with the format of each.

use std::str::FromStr;

/// On a Service: which of its ports are published on the host, as `HOSTPORT:PORT[,…]`
/// (see [`Publish`]). A tool sets it; manifests for production do not need it.
pub const PUBLISH: &str = "coracle.dev/publish";

/// On a Node: what its pods are limited to by control groups and what not, and why, in words. The node
/// writes it.
pub const CGROUPS: &str = "coracle.dev/cgroups";

/// On a Node: what the roots of containers of images are: `overlay`, or a copy and why, in words. The node
/// writes it.
pub const ROOTS: &str = "coracle.dev/image-roots";

/// On a Node: whether the host has routes to pods and Services, and why not, in words. The network writes
/// it.
pub const HOST_ROUTES: &str = "coracle.dev/host-routes";

/// On a Node: which of the host's routes leads to where pods or Services are, in words; absent if none
/// does. The network writes it.
pub const RANGE_CLASH: &str = "coracle.dev/range-clash";

/// On the IngressClass `coracle`: where the HTTP proxy listens on the host, as `http=PORT,https=PORT`. The
/// proxy writes it.
pub const LISTENS: &str = "coracle.dev/listens";

/// On a Node: it is being drained, and goes when it has no pods. The cluster writes it when there are to be
/// fewer nodes.
pub const LEAVING: &str = "coracle.dev/leaving";

/// One port published on the host: connections to `127.0.0.1:host_port` go to `service_port` of
/// the Service. Printed and parsed as `HOSTPORT:PORT`; `PORT` alone means the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publish {
    /// Port on the host, 1 to 65535.
    pub host_port: u16,
    /// Port of the Service (its `port`, not its `targetPort`), 1 to 65535.
    pub service_port: u16,
}

/// Why a value of [`PUBLISH`] could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not HOSTPORT:PORT with ports from 1 to 65535")]
pub struct PublishError(String);

impl Publish {
    /// Reads the whole annotation, a comma-separated list.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, PublishError> {
        text.split(',').map(str::trim).filter(|it| !it.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let port = |it: &str| it.parse::<u16>().ok().filter(|it| *it != 0);
        let (host, service) = text.split_once(':').unwrap_or((text, text));
        match (port(host), port(service)) {
            (Some(host_port), Some(service_port)) => Ok(Self { host_port, service_port }),
            _ => Err(PublishError(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Publish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host_port, self.service_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists() {
        let list = Publish::parse_list("8080:80, 9001").unwrap();
        let list: Vec<String> = list.iter().map(Publish::to_string).collect();
        assert_eq!(list, ["8080:80", "9001:9001"]);
        assert_eq!(Publish::parse_list("").unwrap(), []);
    }

    #[test]
    fn refuses_what_is_no_port() {
        for text in ["0:80", "80:0", "x", "80:", "70000", "1:2:3"] {
            assert_eq!(Publish::parse_list(text), Err(PublishError(text.to_owned())));
        }
    }
}
