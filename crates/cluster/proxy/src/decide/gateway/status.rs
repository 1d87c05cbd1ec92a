//! What the API is told about classes, Gateways and routes.

use std::collections::BTreeMap;

use api::gateway::{
    Address, CONTROLLER, Gateway, GatewayClass, GatewayClassStatus, GatewayStatus, HttpRoute,
    HttpRouteStatus, ListenerStatus, ParentStatus, SupportedFeature,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{FoundGateway, FoundListener, FoundParent, Problem};

/// What the proxy can beyond what every implementation can, by the API's names, in their order.
const FEATURES: [&str; 18] = [
    "Gateway",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
];

/// Ports as listeners name them, and which of this machine each is, or why it is none.
pub(crate) type Reached = BTreeMap<u16, Result<u16, String>>;

/// Conditions on their way: what is as it was keeps its time.
struct Conditions<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: Timestamp,
    all: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    const fn new(before: &'a [Condition], generation: Option<i64>, now: Timestamp) -> Self {
        Self { before, generation, now, all: Vec::new() }
    }

    fn set(&mut self, type_: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let before = self.before.iter().find(|it| it.type_ == type_ && it.status == status);
        self.all.push(Condition {
            last_transition_time: before
                .map_or(Time(self.now), |it| it.last_transition_time.clone()),
            message: message.to_owned(),
            observed_generation: self.generation,
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: type_.to_owned(),
        });
    }

    /// True for `reason`, unless there is a problem.
    fn unless(&mut self, type_: &str, problem: Option<&Problem>, reason: &str) {
        match problem {
            Some(problem) => self.set(type_, false, problem.reason, &problem.text),
            None => self.set(type_, true, reason, ""),
        }
    }
}

/// What is to be said about a class of ours.
pub(crate) fn of_class(class: &GatewayClass, now: Timestamp) -> GatewayClassStatus {
    let (before, generation) = (&class.status.conditions, class.metadata.generation);
    let mut conditions = Conditions::new(before, generation, now);
    let parameters = class.spec.parameters_ref.as_ref().map(|_| Problem {
        reason: "InvalidParameters",
        text: "there are no parameters".to_owned(),
    });
    conditions.unless("Accepted", parameters.as_ref(), "Accepted");
    let features = FEATURES.map(|it| SupportedFeature { name: it.to_owned() });
    GatewayClassStatus { conditions: conditions.all, supported_features: features.to_vec() }
}

/// What is to be said about a Gateway.
pub(crate) fn of_gateway(
    gateway: &Gateway,
    found: &FoundGateway,
    reached: &Reached,
    now: Timestamp,
) -> GatewayStatus {
    let generation = gateway.metadata.generation;
    let listeners = found.listeners.iter().map(|listener| {
        let before = gateway.status.listeners.iter().find(|it| it.name == listener.name);
        let before = before.map_or(&[][..], |it| &it.conditions);
        of_listener(listener, reached, Conditions::new(before, generation, now))
    });
    let listeners: Vec<ListenerStatus> = listeners.collect();
    let is = |listener: &ListenerStatus, type_: &str| {
        listener.conditions.iter().any(|it| it.type_ == type_ && it.status == "True")
    };
    let all = |type_| listeners.iter().all(|it| is(it, type_));
    let some = |type_| listeners.iter().any(|it| is(it, type_));
    let mut conditions = Conditions::new(&gateway.status.conditions, generation, now);
    let unsupported = found.address.as_ref().filter(|it| it.reason == "UnsupportedAddress");
    let not_all = "not all listeners are as they should be";
    match unsupported {
        Some(problem) => conditions.set("Accepted", false, problem.reason, &problem.text),
        None if all("Accepted") && all("ResolvedRefs") => {
            conditions.set("Accepted", true, "Accepted", "");
        }
        None => conditions.set("Accepted", some("Accepted"), "ListenersNotValid", not_all),
    }
    let programmed = found.address.is_none() && some("Programmed");
    match &found.address {
        Some(problem) => conditions.set("Programmed", false, problem.reason, &problem.text),
        None if programmed => conditions.set("Programmed", true, "Programmed", ""),
        None => conditions.set("Programmed", false, "Invalid", "no listener is served"),
    }
    let address =
        Address { type_: Some("IPAddress".to_owned()), value: Some("127.0.0.1".to_owned()) };
    let addresses = if programmed { vec![address] } else { Vec::new() };
    GatewayStatus { addresses, conditions: conditions.all, listeners }
}

fn of_listener(
    listener: &FoundListener,
    reached: &Reached,
    mut conditions: Conditions<'_>,
) -> ListenerStatus {
    let unavailable = match reached.get(&listener.port) {
        Some(Err(text)) => Some(Problem { reason: "PortUnavailable", text: text.clone() }),
        _ => None,
    };
    let refused = listener.refused.as_ref().or(unavailable.as_ref());
    conditions.unless("Accepted", refused, "Accepted");
    match &listener.conflict {
        Some(problem) => conditions.set("Conflicted", true, problem.reason, &problem.text),
        None => conditions.set("Conflicted", false, "NoConflicts", ""),
    }
    conditions.unless("ResolvedRefs", listener.unresolved.as_ref(), "ResolvedRefs");
    match reached.get(&listener.port) {
        Some(Ok(port)) if listener.serves() => {
            let text = format!("port {port} of this machine's loopback addresses");
            conditions.set("Programmed", true, "Programmed", &text);
        }
        None if listener.serves() => {
            conditions.set("Programmed", false, "Pending", "not yet listening");
        }
        _ => conditions.set("Programmed", false, "Invalid", "not served"),
    }
    ListenerStatus {
        name: listener.name.clone(),
        supported_kinds: listener.kinds.clone(),
        attached_routes: listener.attached,
        conditions: conditions.all,
    }
}

/// What is to be said about a route; what others say about it stays.
pub(crate) fn of_route(
    route: &HttpRoute,
    found: &[FoundParent],
    now: Timestamp,
) -> HttpRouteStatus {
    let before = &route.status.parents;
    let mut parents: Vec<ParentStatus> =
        before.iter().filter(|it| it.controller_name != CONTROLLER).cloned().collect();
    for FoundParent { parent, refused, unresolved } in found {
        let ours =
            |it: &&ParentStatus| it.controller_name == CONTROLLER && it.parent_ref == *parent;
        let before = before.iter().find(ours).map_or(&[][..], |it| &it.conditions);
        let mut conditions = Conditions::new(before, route.metadata.generation, now);
        conditions.unless("Accepted", refused.as_ref(), "Accepted");
        conditions.unless("ResolvedRefs", unresolved.as_ref(), "ResolvedRefs");
        parents.push(ParentStatus {
            parent_ref: parent.clone(),
            controller_name: CONTROLLER.to_owned(),
            conditions: conditions.all,
        });
    }
    HttpRouteStatus { parents }
}
