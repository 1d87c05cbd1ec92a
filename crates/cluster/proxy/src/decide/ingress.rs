//! Ingresses: whose they are, and what their rules say.

use std::sync::Arc;

use client::Key;
use http::StatusCode;
use k8s_openapi::{
    api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    Backends, Decision, Problem, Seen, certificates,
    rules::{Age, Rules},
};
use crate::table::{PathMatch, Route, RouteOf, Target, Wants};

/// `spec.controller` of the IngressClasses that this proxy serves.
pub(crate) const CONTROLLER: &str = "coracle.dev/ingress";
/// Annotation that named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Annotation of the class that Ingresses without one have.
pub(crate) const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// Prefixes of annotations by which other controllers are told what to do.
const FOREIGN: [&str; 6] = [
    "nginx.ingress.kubernetes.io/",
    "nginx.org/",
    "haproxy.org/",
    "haproxy-ingress.github.io/",
    "traefik.ingress.kubernetes.io/",
    "alb.ingress.kubernetes.io/",
];

/// Reason of what is said about annotations.
const IGNORED: &str = "AnnotationIgnored";
/// Reason of what is said about a backend.
const NO_BACKEND: &str = "BackendNotFound";

/// Adds the rules of all Ingresses that are served here.
pub(super) fn add(
    seen: &Seen,
    backends: &mut Backends<'_>,
    rules: &mut Rules,
    decision: &mut Decision,
) {
    let mut ingresses: Vec<(Age, &Arc<Ingress>)> = seen
        .ingresses
        .iter()
        .filter(|it| is_ours(it, seen))
        .map(|it| (Age::of(&it.metadata, &Key::of(&**it), "Ingress"), it))
        .collect();
    ingresses.sort_by(|a, b| a.0.cmp(&b.0));
    for (age, ingress) in ingresses {
        let key = Key::of(&**ingress);
        let problems = ignored(ingress);
        let mut one = One { key: &key, age, backends, problems, rules };
        let fallback = one.add(ingress);
        let mut problems = one.problems;
        let certificates = &mut decision.table.certificates;
        certificates::add(ingress, &seen.secrets, certificates, &mut problems);
        if decision.table.fallback.is_none() {
            decision.table.fallback = fallback;
        }
        decision.ingresses.insert(key, problems);
    }
}

/// Whether an Ingress is served here: its class says so, it has none and no other class is the default,
/// or it has one that does not exist. Manifests are often made for a controller that is installed
/// elsewhere; when it comes, with its class, it gets them.
fn is_ours(ingress: &Ingress, seen: &Seen) -> bool {
    let of_spec = ingress.spec.as_ref().and_then(|it| it.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    let class = of_spec.or_else(|| annotations?.get(CLASS_ANNOTATION).map(String::as_str));
    let mut classes = seen.classes.iter();
    let found = match class {
        Some(class) => classes.find(|it| it.metadata.name.as_deref() == Some(class)),
        None => classes.find(|it| {
            let annotations = it.metadata.annotations.as_ref();
            annotations.and_then(|it| it.get(IS_DEFAULT)).is_some_and(|it| it == "true")
        }),
    };
    let controller = found.map(|it| it.spec.as_ref().and_then(|it| it.controller.as_deref()));
    controller.is_none_or(|it| it == Some(CONTROLLER))
}

/// The annotations of other controllers.
fn ignored(ingress: &Ingress) -> Vec<Problem> {
    let names = ingress.metadata.annotations.iter().flatten().map(|(name, _)| name.as_str());
    let names = names.filter(|name| FOREIGN.iter().any(|it| name.starts_with(it)));
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return Vec::new();
    }
    let text =
        format!("annotations of other controllers have no effect here: {}", names.join(", "));
    vec![Problem { reason: IGNORED, text }]
}

/// One Ingress on its way into the table.
struct One<'a, 'b> {
    key: &'a Key,
    age: Age,
    backends: &'a mut Backends<'b>,
    problems: Vec<Problem>,
    rules: &'a mut Rules,
}

impl One<'_, '_> {
    /// Returns the route of its default backend.
    fn add(&mut self, ingress: &Ingress) -> Option<Route> {
        let spec = ingress.spec.as_ref()?;
        let fallback = spec.default_backend.as_ref().map(|it| self.route(it));
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let paths = rule.http.iter().flat_map(|it| &it.paths);
            let mut found: Vec<(Wants, Route)> = paths.map(|it| self.path(it)).collect();
            // A host without paths sends everything to the default backend.
            if found.is_empty()
                && let Some(route) = &fallback
            {
                found.push((Wants::path(PathMatch::prefix("/")), route.clone()));
            }
            self.rules.touch(&host);
            for it in found {
                self.rules.add(host.clone(), it, &self.age);
            }
        }
        fallback
    }

    fn path(&mut self, path: &HTTPIngressPath) -> (Wants, Route) {
        let text = path.path.as_deref().unwrap_or("/");
        let matched = match path.path_type.as_str() {
            "Exact" => PathMatch::Exact(text.to_owned()),
            // What is left to the implementation is a prefix here.
            _ => PathMatch::prefix(text),
        };
        (Wants::path(matched), self.route(&path.backend))
    }

    fn route(&mut self, backend: &IngressBackend) -> Route {
        let target = match self.target(backend) {
            Ok(target) => target,
            Err(text) => {
                let problem = Problem { reason: NO_BACKEND, text: text.clone() };
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
                Target::Refuse(StatusCode::SERVICE_UNAVAILABLE, text.into())
            }
        };
        Route::new(RouteOf { kind: "Ingress", key: self.key.clone() }, target)
    }

    fn target(&mut self, backend: &IngressBackend) -> Result<Target, String> {
        let Some(service) = &backend.service else {
            let kind = backend.resource.as_ref().map_or("nothing", |it| it.kind.as_str());
            return Err(format!("a backend that is {kind} is not supported, only Services are"));
        };
        let key = Key { namespace: self.key.namespace.clone(), name: service.name.clone() };
        let port = service.port.as_ref();
        let number = port.and_then(|it| it.number).map(IntOrString::Int);
        let name = || port.and_then(|it| it.name.clone()).map(IntOrString::String);
        let port =
            number.or_else(name).ok_or_else(|| format!("no port of Service {key} is named"))?;
        self.backends.of(&key, &port).map(Target::Forward)
    }
}
