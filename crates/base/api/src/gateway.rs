//! Objects of the Gateway API, as far as somebody here reads them. What `k8s-openapi` is for the other kinds.
//!
//! <https://gateway-api.sigs.k8s.io/reference/spec/>

mod hosts;
mod route;

use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta},
};
use serde::{Deserialize, Serialize};

pub use hosts::{common, takes};
pub use route::{
    BackendRef, Filter, Header, HeaderFilter, HttpRoute, HttpRouteSpec, HttpRouteStatus, Match,
    ParentReference, ParentStatus, PathModifier, RedirectFilter, RewriteFilter, Rule, Timeouts,
    ValueMatch,
};

/// The group of these kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// `spec.controllerName` of the classes whose Gateways the proxy serves.
pub const CONTROLLER: &str = "coracle.dev/gateway";

/// Says which resource a type is.
macro_rules! resource {
    ($kind:ident, $name:literal, $plural:literal, $scope:ty) => {
        impl k8s_openapi::Resource for $kind {
            const API_VERSION: &'static str = "gateway.networking.k8s.io/v1";
            const GROUP: &'static str = crate::gateway::GROUP;
            const KIND: &'static str = $name;
            const VERSION: &'static str = "v1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl k8s_openapi::Metadata for $kind {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
use resource;

resource!(GatewayClass, "GatewayClass", "gatewayclasses", ClusterResourceScope);
resource!(Gateway, "Gateway", "gateways", NamespaceResourceScope);
resource!(ReferenceGrant, "ReferenceGrant", "referencegrants", NamespaceResourceScope);

/// Who serves Gateways.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClass {
    /// Name and such.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: GatewayClassSpec,
    /// What is.
    pub status: GatewayClassStatus,
}

/// What of a class is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// Who serves Gateways of this class.
    pub controller_name: String,
    /// Settings of the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters_ref: Option<serde_json::Value>,
}

/// What the controller says about a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClassStatus {
    /// Whether it serves it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What it can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub supported_features: Vec<SupportedFeature>,
}

/// Something that a controller can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SupportedFeature {
    /// The API's name of it.
    pub name: String,
}

/// Where requests come in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// Name and such.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: GatewaySpec,
    /// What is.
    pub status: GatewayStatus,
}

/// What of a Gateway is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Name of its class.
    pub gateway_class_name: String,
    /// Where it is to listen.
    pub listeners: Vec<Listener>,
    /// At which addresses; any if there are none.
    pub addresses: Vec<Address>,
}

/// An address of a Gateway, wanted or had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Address {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A place of a Gateway to which requests come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Listener {
    /// Its name in the Gateway.
    pub name: String,
    /// The port.
    pub port: i32,
    /// `HTTP`, `HTTPS` and others.
    pub protocol: String,
    /// The only host, or `*.` and what hosts end in.
    pub hostname: Option<String>,
    /// Certificates.
    pub tls: Option<ListenerTls>,
    /// Which routes may use it.
    pub allowed_routes: AllowedRoutes,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerTls {
    /// `Terminate` or `Passthrough`.
    pub mode: Option<String>,
    /// Secrets with certificates.
    pub certificate_refs: Vec<SecretRef>,
}

/// A Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SecretRef {
    /// Group of the kind.
    pub group: Option<String>,
    /// `Secret`.
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace, if that is another one.
    pub namespace: Option<String>,
}

/// Which routes may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AllowedRoutes {
    /// Those of these namespaces.
    pub namespaces: RouteNamespaces,
    /// Those of these kinds; all that the protocol can have, if there are none.
    pub kinds: Vec<RouteKind>,
}

/// Namespaces whose routes may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteNamespaces {
    /// `Same`, `All` or `Selector`.
    pub from: Option<String>,
    /// Of the namespaces' labels.
    pub selector: Option<LabelSelector>,
}

/// A kind of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteKind {
    /// Group of the kind.
    pub group: Option<String>,
    /// The kind.
    pub kind: String,
}

/// What the controller says about a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Where it is reached.
    pub addresses: Vec<Address>,
    /// Whether it serves.
    pub conditions: Vec<Condition>,
    /// The same of each listener.
    pub listeners: Vec<ListenerStatus>,
}

/// What the controller says about a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name in the Gateway.
    pub name: String,
    /// The kinds of routes that it takes.
    pub supported_kinds: Vec<RouteKind>,
    /// How many routes use it.
    pub attached_routes: i32,
    /// Whether it serves.
    pub conditions: Vec<Condition>,
}

/// Lets objects of other namespaces name some of this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrant {
    /// Name and such.
    pub metadata: ObjectMeta,
    /// Who may name what.
    pub spec: ReferenceGrantSpec,
}

/// Who may name what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Whoever is one of these.
    pub from: Vec<GrantFrom>,
    /// May name each of these.
    pub to: Vec<GrantTo>,
}

/// Objects of a kind and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrantFrom {
    /// Group of the kind.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Objects of a kind, or one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrantTo {
    /// Group of the kind.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The only one.
    pub name: Option<String>,
}
