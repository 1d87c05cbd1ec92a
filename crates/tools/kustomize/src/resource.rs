//! An object on its way through a build: what it is called, and what it was called before.

use serde_json::{Value, json};

/// Kinds that are in no namespace. All that are not here are taken for namespaced.
const CLUSTER_SCOPED: &[&str] = &[
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ComponentStatus",
    "CustomResourceDefinition",
    "FlowSchema",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "NodeProxyOptions",
    "PersistentVolume",
    "PodSecurityPolicy",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];

/// Groups whose kinds of those names are meant.
const GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "certificates.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];

/// What tells an object from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    /// `default` for none; empty for what is in no namespace.
    pub(crate) namespace: String,
}

impl Id {
    pub(crate) fn cluster_scoped(&self) -> bool {
        cluster_scoped(&self.group, &self.kind)
    }

    /// For messages.
    pub(crate) fn describe(&self) -> String {
        match self.namespace.as_str() {
            "" | "default" => format!("{} `{}`", self.kind, self.name),
            namespace => format!("{} `{namespace}/{}`", self.kind, self.name),
        }
    }
}

fn cluster_scoped(group: &str, kind: &str) -> bool {
    CLUSTER_SCOPED.contains(&kind) && GROUPS.contains(&group)
}

/// What a generated object does where there is one of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behavior {
    #[default]
    Create,
    Merge,
    Replace,
}

#[derive(Clone, Debug)]
struct Previous {
    kind: String,
    name: String,
    namespace: String,
}

/// An object and its past.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) value: Value,
    /// The file it came from.
    pub(crate) file: String,
    previous: Vec<Previous>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) suffixes: Vec<String>,
    /// Whether its name is to end in its hash.
    pub(crate) hash: bool,
    pub(crate) behavior: Behavior,
}

impl Resource {
    pub(crate) fn new(value: Value, file: &str) -> Self {
        Self {
            value,
            file: file.to_owned(),
            previous: Vec::new(),
            prefixes: Vec::new(),
            suffixes: Vec::new(),
            hash: false,
            behavior: Behavior::Create,
        }
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(crate) fn group_version(&self) -> (&str, &str) {
        let api_version = self.text("/apiVersion");
        api_version.split_once('/').unwrap_or(("", api_version))
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn set_name(&mut self, name: &str) {
        if let Some(metadata) = self.metadata() {
            metadata.insert("name".to_owned(), json!(name));
        }
    }

    /// Empty takes it away.
    pub(crate) fn set_namespace(&mut self, namespace: &str) {
        if let Some(metadata) = self.metadata() {
            if namespace.is_empty() {
                metadata.remove("namespace");
            } else {
                metadata.insert("namespace".to_owned(), json!(namespace));
            }
        }
    }

    fn metadata(&mut self) -> Option<&mut serde_json::Map<String, Value>> {
        let object = self.value.as_object_mut()?;
        object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()
    }

    /// What it is called now.
    pub(crate) fn id(&self) -> Id {
        self.id_of(self.kind(), self.name(), self.namespace())
    }

    fn id_of(&self, kind: &str, name: &str, namespace: &str) -> Id {
        let (group, version) = self.group_version();
        let namespace = match namespace {
            _ if cluster_scoped(group, kind) => "",
            "" => "default",
            namespace => namespace,
        };
        Id {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// What it was called, the oldest first.
    pub(crate) fn previous_ids(&self) -> Vec<Id> {
        self.previous.iter().map(|it| self.id_of(&it.kind, &it.name, &it.namespace)).collect()
    }

    /// What it was called at first.
    pub(crate) fn original_id(&self) -> Id {
        let first = self.previous.first();
        first.map_or_else(|| self.id(), |it| self.id_of(&it.kind, &it.name, &it.namespace))
    }

    /// Everything it is or was called.
    pub(crate) fn ids(&self) -> Vec<Id> {
        let mut ids = self.previous_ids();
        ids.push(self.id());
        ids
    }

    /// To be called before a change of name, kind or namespace.
    pub(crate) fn remember(&mut self) {
        let Id { kind, name, namespace, .. } = self.id();
        self.previous.push(Previous { kind, name, namespace });
    }

    /// Takes the past of what it stands in for.
    pub(crate) fn inherit(&mut self, old: &Self) {
        self.previous.clone_from(&old.previous);
        self.prefixes.clone_from(&old.prefixes);
        self.suffixes.clone_from(&old.suffixes);
        self.behavior = old.behavior;
        self.hash &= old.hash;
    }
}
