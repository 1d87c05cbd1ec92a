//! Bindings: a pod goes to a node. Nothing is kept of one but what it changes in its pod, whose name it
//! has. The same is done by `pods/NAME/binding`.

use super::{Creation, Kind};

pub(super) static BINDING: Kind = Kind {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    verbs: &["create"],
    schema: "io.k8s.api.core.v1.Binding",
    creation: Creation::Bound,
    ..Kind::PLAIN
};
