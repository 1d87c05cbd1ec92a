//! The kind `Fault` of `coracle.dev/v1alpha1`, as programs read and write it. What its fields may say is
//! the API's business.

use api::{duration, quantity::Quantity};
use jiff::Timestamp;
use k8s_openapi::{
    ClusterResourceScope,
    apimachinery::pkg::{
        api::resource,
        apis::meta::v1::{LabelSelector, MicroTime, ObjectMeta},
    },
};
use serde::{Deserialize, Serialize};

const API_VERSION: &str = "coracle.dev/v1alpha1";
const KIND: &str = "Fault";

/// Something that goes wrong on purpose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Its name, and the rest that all objects have.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What goes wrong, with whom, and for how long.
    #[serde(default)]
    pub spec: Spec,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl Fault {
    /// A fault that is to be made, named by the API if `name` is none.
    #[must_use]
    pub fn new(name: Option<String>, spec: Spec) -> Self {
        let generate_name = match name {
            Some(_) => None,
            None => Some(format!("{}-", format!("{:?}", spec.action).to_lowercase())),
        };
        let metadata = ObjectMeta { name, generate_name, ..ObjectMeta::default() };
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata,
            spec,
            status: None,
        }
    }
}

impl k8s_openapi::Resource for Fault {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = "coracle.dev";
    const KIND: &'static str = KIND;
    const VERSION: &'static str = "v1alpha1";
    const URL_PATH_SEGMENT: &'static str = "faults";
    type Scope = ClusterResourceScope;
}

impl k8s_openapi::Metadata for Fault {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What goes wrong, with whom, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// What goes wrong.
    pub action: Action,
    /// Who suffers.
    pub target: Target,
    /// Who the target is disturbed with; everybody if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Target>,
    /// How many of the target's pods, taken by chance; all of them if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i32>,
    /// How long, as [`duration::parse`] reads it; until it is deleted if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Ends it when whoever asked for it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// What becomes of packets, for [`Action::Network`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What is filled, for [`Action::Fill`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Processes are killed: a pod's once, a node's with the node, which is away until the fault ends.
    Kill,
    /// Processes are stopped, and go on when the fault ends.
    #[default]
    Pause,
    /// Nothing passes between target and `from`.
    Partition,
    /// Packets to the target are late, lost, slowed or spoiled.
    Network,
    /// A volume is filled.
    Fill,
}

impl Action {
    /// What became of whoever suffered from it, for messages.
    pub(crate) fn done(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Pause => "paused",
            Self::Partition => "cut off",
            Self::Network => "disturbed",
            Self::Fill => "filled",
        }
    }
}

/// Nodes, pods, or the pods behind Services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// What the names are of.
    pub kind: TargetKind,
    /// Where pods and Services are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Names; all that the selector selects if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What the names of a target are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// Nodes, with all of their pods.
    Node,
    /// Pods.
    #[default]
    Pod,
    /// Services: the pods behind them.
    Service,
}

/// Ends a fault when whoever asked for it is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Who that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// When it was last heard of.
    pub renew_time: MicroTime,
    /// Seconds for which it may then be silent.
    pub seconds: i32,
}

/// What becomes of packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// How late they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// By how much the delay differs at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// How many of them never arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<f64>,
    /// How many of them arrive twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_percent: Option<f64>,
    /// How many of them arrive with a wrong byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt_percent: Option<f64>,
    /// How many bytes of them arrive a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<resource::Quantity>,
}

/// A volume that is filled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fill {
    /// Its name in the pod.
    pub volume: String,
    /// How much of it.
    pub size: resource::Quantity,
}

impl Fill {
    /// Its size in bytes; none if it is no size.
    pub(crate) fn bytes(&self) -> Option<u64> {
        bytes(&self.size)
    }
}

pub(crate) fn bytes(quantity: &resource::Quantity) -> Option<u64> {
    u64::try_from(quantity.0.parse::<Quantity>().ok()?.value()).ok()
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Of which generation this tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<MicroTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<MicroTime>,
    /// The pods that suffer, or did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodId>,
    /// The nodes that suffer, or did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// What was done, or why it could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Whether a fault goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Whom it is about is written down; it is not done yet, or cannot be.
    Beginning,
    /// It does.
    Active,
    /// It is undone, or was over at once.
    Ended,
}

/// A pod, and no later one of its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Spec {
    /// When a fault that began at `start` is over because of its duration.
    pub(crate) fn ends(&self, start: Timestamp) -> Option<Timestamp> {
        start.checked_add(duration::parse(self.duration.as_deref()?)?).ok()
    }
}

impl Lease {
    /// When whoever asked for the fault is taken for gone.
    pub(crate) fn ends(&self) -> Option<Timestamp> {
        let seconds = jiff::SignedDuration::from_secs(self.seconds.into());
        self.renew_time.0.checked_add(seconds).ok()
    }
}
