//! ComponentStatuses: how the parts of a control plane are. There are none to ask here: the list is
//! empty, and `/readyz` says how the server is.

use serde_json::Value;

use super::{
    Column, Kind,
    print::{self, NAME, column},
    value::Read,
};

pub(super) static COMPONENT_STATUS: Kind = Kind {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    namespaced: false,
    verbs: &["get", "list"],
    schema: "io.k8s.api.core.v1.ComponentStatus",
    columns: COLUMNS,
    row: |it, _| {
        let mut conditions = it.items("conditions").iter();
        let health = conditions.find(|it| it.text("type") == "Healthy").unwrap_or(&Value::Null);
        let status = match health.text("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        let (message, error) = (health.text("message"), health.text("error"));
        vec![print::name(it), status.into(), message.into(), error.into()]
    },
    deprecation: "v1 ComponentStatus is deprecated in v1.19+",
    ..Kind::PLAIN
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether the part is well."),
    column("Message", "What it says."),
    column("Error", "What is wrong."),
];
