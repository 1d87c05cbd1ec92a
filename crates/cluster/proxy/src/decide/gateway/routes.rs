//! Routes: which listeners each uses, and where its requests go.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    gateway::{BackendRef, GROUP, Gateway, HttpRoute, Listener, ParentReference, Rule, common},
    selector::LabelSelector,
};
use client::Key;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    super::{
        Backends, Decision, Problem, Seen,
        rules::{Age, Rules},
    },
    FoundGateway, FoundParent, filters,
    grants::{From, allows},
    matches,
};
use crate::table::{Action, PathMatch, Route, RouteOf, Share, Shares, Target, Wants};

/// Adds the rules of all routes.
pub(super) fn add(
    seen: &Seen,
    gateways: &[&Gateway],
    backends: &mut Backends<'_>,
    rules: &mut Rules,
    decision: &mut Decision,
) {
    let gateways: BTreeMap<Key, &Gateway> = gateways.iter().map(|it| (Key::of(*it), *it)).collect();
    for route in &seen.routes {
        let key = Key::of(&**route);
        let mut parents = Vec::new();
        let of = |parent: &ParentReference| {
            let namespace = parent.namespace.clone().or_else(|| key.namespace.clone());
            Key { namespace, name: parent.name.clone() }
        };
        let refs = route.spec.parent_refs.iter();
        let refs: Vec<_> =
            refs.filter(|it| is_gateway(it)).filter(|it| gateways.contains_key(&of(it))).collect();
        if refs.is_empty() {
            decision.routes.insert(key, parents);
            continue;
        }
        let age = Age::of(&route.metadata, &key, "HTTPRoute");
        let mut one = One { key: &key, seen, backends, unresolved: None, decision };
        let read = one.rules(route);
        let unresolved = one.unresolved;
        for parent in refs {
            let of = of(parent);
            let (Some(gateway), Some(found)) = (gateways.get(&of), decision.gateways.get_mut(&of))
            else {
                continue;
            };
            let attached = match &read {
                Ok(_) => attach(route, parent, gateway, found, seen),
                Err(problem) => Err(problem.clone()),
            };
            for (host, port) in attached.iter().flatten() {
                for (wants, route) in read.iter().flatten() {
                    let wants = Wants { at: Some(*port), deep: true, ..wants.clone() };
                    rules.add(host.clone(), (wants, route.clone()), &age);
                }
            }
            parents.push(FoundParent {
                parent: parent.clone(),
                refused: attached.err(),
                unresolved: unresolved.clone(),
            });
        }
        decision.routes.insert(key, parents);
    }
}

fn is_gateway(parent: &ParentReference) -> bool {
    parent.group.as_deref().unwrap_or(GROUP) == GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway"
}

/// Has a route use the listeners that it names and may use. Returns the hosts and ports that are served.
fn attach(
    route: &HttpRoute,
    parent: &ParentReference,
    gateway: &Gateway,
    found: &mut FoundGateway,
    seen: &Seen,
) -> Result<Vec<(String, u16)>, Problem> {
    let (mut places, mut attached) = (Vec::new(), false);
    let (mut named, mut allowed) = (false, false);
    for (listener, found) in gateway.spec.listeners.iter().zip(&mut found.listeners) {
        let other_name = parent.section_name.as_ref().is_some_and(|it| *it != listener.name);
        if other_name || parent.port.is_some_and(|it| it != listener.port) {
            continue;
        }
        named = true;
        if found.kinds.is_empty() || !allows_namespace(listener, gateway, route, seen) {
            continue;
        }
        allowed = true;
        let hosts = common(listener.hostname.as_deref(), &route.spec.hostnames);
        if hosts.is_empty() {
            continue;
        }
        attached = true;
        found.attached += 1;
        if found.serves() {
            places.extend(hosts.into_iter().map(|it| (it, found.port)));
        }
    }
    let problem = |reason, text: &str| Err(Problem { reason, text: text.to_owned() });
    match (named, allowed, attached) {
        (_, _, true) => Ok(places),
        (_, true, _) => {
            problem("NoMatchingListenerHostname", "no listener has a host of this route")
        }
        (true, ..) => {
            problem("NotAllowedByListeners", "no listener takes HTTPRoutes of this namespace")
        }
        (false, ..) => {
            problem("NoMatchingParent", "the Gateway has no listener of this name and port")
        }
    }
}

fn allows_namespace(
    listener: &Listener,
    gateway: &Gateway,
    route: &HttpRoute,
    seen: &Seen,
) -> bool {
    let of = &listener.allowed_routes.namespaces;
    let namespace = route.metadata.namespace.as_deref();
    match of.from.as_deref() {
        None | Some("Same") => namespace == gateway.metadata.namespace.as_deref(),
        Some("All") => true,
        Some("Selector") => {
            let selector = of.selector.as_ref().map(LabelSelector::from_object);
            let found = seen.namespaces.iter().find(|it| it.metadata.name.as_deref() == namespace);
            let labels = found.map(|it| it.metadata.labels.clone().unwrap_or_default());
            // One that is not there selects nothing.
            selector
                .and_then(Result::ok)
                .zip(labels)
                .is_some_and(|(it, labels)| it.matches(&labels))
        }
        Some(_) => false,
    }
}

/// A route on its way into the table.
struct One<'a, 'b> {
    key: &'a Key,
    seen: &'a Seen,
    backends: &'a mut Backends<'b>,
    unresolved: Option<Problem>,
    decision: &'a mut Decision,
}

impl One<'_, '_> {
    /// What each rule wants and where that goes, for any host and port.
    fn rules(&mut self, route: &HttpRoute) -> Result<Vec<(Wants, Route)>, Problem> {
        let mut all = Vec::new();
        for (place, rule) in route.spec.rules.iter().enumerate() {
            let matches = rule.matches.iter().map(matches::read).collect::<Result<Vec<_>, _>>()?;
            let matches = match matches.is_empty() {
                true => vec![Wants::path(PathMatch::prefix("/"))],
                false => matches,
            };
            let prefix = match matches.first().map(|it| &it.path) {
                Some(PathMatch::Prefix(prefix)) => prefix.clone(),
                _ => String::new(),
            };
            let route = self.route(rule, place, &prefix)?;
            all.extend(matches.into_iter().map(|it| (it, route.clone())));
        }
        Ok(all)
    }

    fn route(&mut self, rule: &Rule, place: usize, prefix: &str) -> Result<Route, Problem> {
        let read = filters::read(&rule.filters, prefix)?;
        let of = RouteOf { kind: "HTTPRoute", key: self.key.clone() };
        let action = match read.redirect {
            Some(redirect) => Action::Redirect(redirect),
            None => self.action(rule, (of.clone(), place), prefix)?,
        };
        let timeouts = filters::timeouts(&rule.timeouts)?;
        Ok(Route { of: Arc::new(of), filters: read.filters, timeouts, action })
    }

    fn action(
        &mut self,
        rule: &Rule,
        place: (RouteOf, usize),
        prefix: &str,
    ) -> Result<Action, Problem> {
        let mut shares = Vec::new();
        for reference in &rule.backend_refs {
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or_default();
            let read = filters::read(&reference.filters, prefix)?;
            if read.redirect.is_some() {
                return Err(matches::unsupported("a redirection of one backend only".to_owned()));
            }
            let target = self.backend(reference).unwrap_or_else(|problem| {
                let why = problem.text.as_str().into();
                self.unresolved.get_or_insert(problem);
                Target::Refuse(StatusCode::INTERNAL_SERVER_ERROR, why)
            });
            shares.push(Share { weight, target, filters: read.filters });
        }
        if let [Share { weight: 1.., target, filters: None }] = shares.as_slice() {
            return Ok(Action::To(target.clone()));
        }
        let none = "no backend takes these requests";
        let Some(shares) = Shares::new(shares).map(Arc::new) else {
            let refused = Target::Refuse(StatusCode::INTERNAL_SERVER_ERROR, none.into());
            return Ok(Action::To(refused));
        };
        self.decision.table.shares.insert(place, Arc::clone(&shares));
        Ok(Action::Share(shares))
    }

    fn backend(&mut self, reference: &BackendRef) -> Result<Target, Problem> {
        let BackendRef { group, kind, name, namespace, port, .. } = reference;
        let kind = kind.as_deref().unwrap_or("Service");
        if !group.as_deref().unwrap_or_default().is_empty() || kind != "Service" {
            let text =
                format!("a backend that is {kind} {name} is not supported, only Services are");
            return Err(Problem { reason: "InvalidKind", text });
        }
        let own = self.key.namespace_or_empty();
        let key = Key::namespaced(namespace.as_deref().unwrap_or(own), name.as_str());
        let from = From { kind: "HTTPRoute", namespace: own };
        if !allows(self.seen, from, "Service", key.namespace_or_empty(), name) {
            let text = format!("no ReferenceGrant lets this HTTPRoute use Service {key}");
            return Err(Problem { reason: "RefNotPermitted", text });
        }
        let found = match port {
            Some(port) => self.backends.of(&key, &IntOrString::Int(*port)),
            None => Err(format!("no port of Service {key} is named")),
        };
        found.map(Target::Forward).map_err(|text| Problem { reason: "BackendNotFound", text })
    }
}
