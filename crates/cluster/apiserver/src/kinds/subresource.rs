//! What an object has below its own path.

/// A path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// `/status`: get, update and patch of the object with only the status changing.
    Status,
    /// `/scale` as `autoscaling/v1` Scale.
    Scale,
    /// `/log` of a pod.
    Log,
    /// `/proxy` of a pod or a Service: passes requests on.
    Proxy,
    /// `/binding` of a pod: sets the node.
    Binding,
    /// `/approval` of a request for a certificate: changes conditions.
    Approval,
    /// `/ephemeralcontainers` of a pod: adds containers to a running one.
    EphemeralContainers,
    /// `/resize` of a pod: changes what containers ask for.
    Resize,
    /// `/eviction` of a pod: deletes it if its budget allows that.
    Eviction,
    /// `/finalize` of a namespace: changes `spec.finalizers`.
    Finalize,
}

impl Subresource {
    /// The last part of its path.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Proxy => "proxy",
            Self::Binding => "binding",
            Self::Approval => "approval",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
            Self::Eviction => "eviction",
            Self::Finalize => "finalize",
        }
    }

    /// Whether it is the object itself, of which a write changes one part.
    #[must_use]
    pub const fn is_part(self) -> bool {
        match self {
            Self::Status | Self::Approval | Self::EphemeralContainers | Self::Resize => true,
            Self::Scale
            | Self::Log
            | Self::Proxy
            | Self::Binding
            | Self::Eviction
            | Self::Finalize => false,
        }
    }
}
