//! Where labels, annotations, replicas and names stand in the objects of Kubernetes. The places are
//! those of kustomize's own configuration, so that the same is changed and the same left alone.

/// A place in objects of some kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) create: bool,
}

impl Spec {
    /// Whether an object of that group, version and kind has the place. Empty means any.
    pub(crate) fn selects(&self, group: &str, version: &str, kind: &str) -> bool {
        (self.group.is_empty() || self.group == group)
            && (self.version.is_empty() || self.version == version)
            && (self.kind.is_empty() || self.kind == kind)
    }
}

fn spec(group: &str, kind: &str, path: &str, create: bool) -> Spec {
    Spec {
        group: group.to_owned(),
        version: String::new(),
        kind: kind.to_owned(),
        path: path.to_owned(),
        create,
    }
}

/// Workloads with a template, by group as they are selected, and where its metadata is.
const TEMPLATES: &[(&str, &str, &str)] = &[
    ("", "ReplicationController", "spec/template/metadata"),
    ("", "Deployment", "spec/template/metadata"),
    ("", "ReplicaSet", "spec/template/metadata"),
    ("", "DaemonSet", "spec/template/metadata"),
    ("apps", "StatefulSet", "spec/template/metadata"),
    ("batch", "Job", "spec/template/metadata"),
    ("batch", "CronJob", "spec/jobTemplate/metadata"),
    ("batch", "CronJob", "spec/jobTemplate/spec/template/metadata"),
];

/// Selectors that are made where they are missing, and those that are only added to.
const SELECTORS: &[(&str, &str, &str, bool)] = &[
    ("", "Service", "spec/selector", true),
    ("", "ReplicationController", "spec/selector", true),
    ("", "Deployment", "spec/selector/matchLabels", true),
    ("", "ReplicaSet", "spec/selector/matchLabels", true),
    ("", "DaemonSet", "spec/selector/matchLabels", true),
    ("apps", "StatefulSet", "spec/selector/matchLabels", true),
    ("batch", "Job", "spec/selector/matchLabels", false),
    ("batch", "CronJob", "spec/jobTemplate/spec/selector/matchLabels", false),
    ("policy", "PodDisruptionBudget", "spec/selector/matchLabels", false),
    ("networking.k8s.io", "NetworkPolicy", "spec/podSelector/matchLabels", false),
    ("networking.k8s.io", "NetworkPolicy", "spec/ingress/from/podSelector/matchLabels", false),
    ("networking.k8s.io", "NetworkPolicy", "spec/egress/to/podSelector/matchLabels", false),
];

/// Selectors inside the template of a Deployment or a StatefulSet.
const INNER_SELECTORS: &[&str] = &[
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/\
     labelSelector/matchLabels",
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/\
     labelSelector/matchLabels",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/\
     matchLabels",
    "topologySpreadConstraints/labelSelector/matchLabels",
];

fn metadata(field: &str) -> Vec<Spec> {
    let mut specs = vec![spec("", "", &format!("metadata/{field}"), true)];
    specs.extend(templates(field));
    specs
}

fn templates(field: &str) -> impl Iterator<Item = Spec> {
    TEMPLATES.iter().map(move |(group, kind, path)| {
        let mut spec = spec(group, kind, &format!("{path}/{field}"), true);
        if *kind == "ReplicationController" {
            "v1".clone_into(&mut spec.version);
        }
        spec
    })
}

/// Where `commonAnnotations` go.
pub(crate) fn annotations() -> Vec<Spec> {
    metadata("annotations")
}

/// Where labels go that no selector names.
pub(crate) fn labels() -> Vec<Spec> {
    vec![spec("", "", "metadata/labels", true)]
}

/// Where labels go with `includeTemplates`.
pub(crate) fn template_labels() -> Vec<Spec> {
    let mut specs = metadata("labels");
    specs.push(spec("apps", "StatefulSet", "spec/volumeClaimTemplates[]/metadata/labels", true));
    specs
}

/// Where `commonLabels` go: selectors too.
pub(crate) fn selector_labels() -> Vec<Spec> {
    let mut specs = Vec::new();
    for (group, kind, path, create) in SELECTORS {
        let mut spec = spec(group, kind, path, *create);
        if ["Service", "ReplicationController"].contains(kind) {
            "v1".clone_into(&mut spec.version);
        }
        specs.push(spec);
    }
    for kind in ["Deployment", "StatefulSet"] {
        for path in INNER_SELECTORS {
            specs.push(spec("apps", kind, &format!("spec/template/spec/{path}"), false));
        }
    }
    specs.extend(template_labels());
    specs
}

/// Where `replicas` goes.
pub(crate) fn replicas() -> Vec<Spec> {
    let kinds = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"];
    kinds.iter().map(|kind| spec("", kind, "spec/replicas", true)).collect()
}

/// Where `namespace` goes besides `metadata.namespace`.
pub(crate) fn namespaces() -> Vec<Spec> {
    vec![
        spec("apiregistration.k8s.io", "APIService", "spec/service/namespace", true),
        spec(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "spec/conversion/webhook/clientConfig/service/namespace",
            false,
        ),
    ]
}

/// Who is referred to, and the places where.
pub(crate) struct References {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) places: Vec<Spec>,
}

/// Where the pod is, in kinds that may refer to ConfigMaps and Secrets.
const PODS: &[(&str, &str)] = &[
    ("Pod", "spec"),
    ("PodTemplate", "template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicaSet", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
];

/// The same, in kinds that may refer to what else a pod names.
const OTHER_PODS: &[(&str, &str)] = &[
    ("Pod", "spec"),
    ("StatefulSet", "spec/template/spec"),
    ("Deployment", "spec/template/spec"),
    ("ReplicationController", "spec/template/spec"),
    ("CronJob", "spec/jobTemplate/spec/template/spec"),
    ("Job", "spec/template/spec"),
    ("DaemonSet", "spec/template/spec"),
];

const CONFIG_MAPS: &[&str] = &[
    "volumes/configMap/name",
    "containers/env/valueFrom/configMapKeyRef/name",
    "initContainers/env/valueFrom/configMapKeyRef/name",
    "containers/envFrom/configMapRef/name",
    "initContainers/envFrom/configMapRef/name",
    "volumes/projected/sources/configMap/name",
];

const SECRETS: &[&str] = &[
    "volumes/secret/secretName",
    "containers/env/valueFrom/secretKeyRef/name",
    "initContainers/env/valueFrom/secretKeyRef/name",
    "containers/envFrom/secretRef/name",
    "initContainers/envFrom/secretRef/name",
    "imagePullSecrets/name",
    "volumes/projected/sources/secret/name",
];

/// Group, kind and path of places outside pods.
type Places = &'static [(&'static str, &'static str, &'static str)];

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

const OF_CONFIG_MAPS: Places = &[
    ("", "Node", "spec/configSource/configMap"),
    ("", "Role", "rules/resourceNames"),
    ("", "ClusterRole", "rules/resourceNames"),
    ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap"),
];

const OF_SECRETS: Places = &[
    ("", "Ingress", "spec/tls/secretName"),
    ("", "Ingress", "metadata/annotations/ingress.kubernetes.io\\/auth-secret"),
    ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-secret"),
    ("", "Ingress", "metadata/annotations/nginx.ingress.kubernetes.io\\/auth-tls-secret"),
    ("", "ServiceAccount", "imagePullSecrets/name"),
    ("", "StorageClass", "parameters/secretName"),
    ("", "StorageClass", "parameters/adminSecretName"),
    ("", "StorageClass", "parameters/userSecretName"),
    ("", "StorageClass", "parameters/secretRef"),
    ("", "Role", "rules/resourceNames"),
    ("", "ClusterRole", "rules/resourceNames"),
    (
        "serving.knative.dev",
        "Service",
        "spec/template/spec/containers/env/valueFrom/secretKeyRef/name",
    ),
    ("", "PersistentVolume", "spec/azureFile/secretName"),
];

const OF_SERVICES: Places = &[
    ("apps", "StatefulSet", "spec/serviceName"),
    ("", "Ingress", "spec/rules/http/paths/backend/serviceName"),
    ("", "Ingress", "spec/backend/serviceName"),
    ("", "Ingress", "spec/rules/http/paths/backend/service/name"),
    ("", "Ingress", "spec/defaultBackend/service/name"),
    ("apiregistration.k8s.io", "APIService", "spec/service/name"),
    (ADMISSION, "ValidatingWebhookConfiguration", "webhooks/clientConfig/service"),
    (ADMISSION, "MutatingWebhookConfiguration", "webhooks/clientConfig/service"),
];

const OF_CLUSTER_ROLES: Places =
    &[(RBAC, "RoleBinding", "roleRef/name"), (RBAC, "ClusterRoleBinding", "roleRef/name")];

const OF_SERVICE_ACCOUNTS: Places =
    &[(RBAC, "RoleBinding", "subjects"), (RBAC, "ClusterRoleBinding", "subjects")];

const OF_VOLUMES: Places =
    &[("", "PersistentVolumeClaim", "spec/volumeName"), ("", "ClusterRole", "rules/resourceNames")];

const OF_STORAGE_CLASSES: Places = &[
    ("", "PersistentVolume", "spec/storageClassName"),
    ("", "PersistentVolumeClaim", "spec/storageClassName"),
    ("", "StatefulSet", "spec/volumeClaimTemplates/spec/storageClassName"),
];

const SCALED: Places = &[("", "HorizontalPodAutoscaler", "spec/scaleTargetRef/name")];

/// All places that name another object.
pub(crate) fn references() -> Vec<References> {
    let plain = |group, version, kind, places: Places| References {
        group,
        version,
        kind,
        places: places.iter().map(|(group, kind, path)| spec(group, kind, path, false)).collect(),
    };
    let in_pods = |group, kind, pods: &[(&str, &str)], paths: &[&str], others: Places| {
        let mut references = plain(group, "v1", kind, others);
        for (kind, pod) in pods {
            for path in paths {
                references.places.push(spec("", kind, &format!("{pod}/{path}"), false));
            }
        }
        references
    };
    vec![
        plain("", "", "Deployment", SCALED),
        plain("", "", "ReplicationController", SCALED),
        plain("", "", "ReplicaSet", SCALED),
        plain("", "", "StatefulSet", SCALED),
        in_pods("", "ConfigMap", PODS, CONFIG_MAPS, OF_CONFIG_MAPS),
        in_pods("", "Secret", PODS, SECRETS, OF_SECRETS),
        plain("", "v1", "Service", OF_SERVICES),
        plain(RBAC, "", "Role", &[(RBAC, "RoleBinding", "roleRef/name")]),
        plain(RBAC, "", "ClusterRole", OF_CLUSTER_ROLES),
        in_pods("", "ServiceAccount", OTHER_PODS, &["serviceAccountName"], OF_SERVICE_ACCOUNTS),
        in_pods(
            "",
            "PersistentVolumeClaim",
            OTHER_PODS,
            &["volumes/persistentVolumeClaim/claimName"],
            &[],
        ),
        plain("", "v1", "PersistentVolume", OF_VOLUMES),
        plain("storage.k8s.io", "v1", "StorageClass", OF_STORAGE_CLASSES),
        in_pods("scheduling.k8s.io", "PriorityClass", OTHER_PODS, &["priorityClassName"], &[]),
        plain(
            ADMISSION,
            "",
            "ValidatingAdmissionPolicy",
            &[(ADMISSION, "ValidatingAdmissionPolicyBinding", "spec/policyName")],
        ),
    ]
}
