//! What a request is about, in the words of Kubernetes' metrics.

use http::{HeaderMap, Method, header::CONTENT_TYPE};

use crate::{
    http::{path::ResourcePath, query::Query},
    kinds::Subresource,
};

/// What is done. Kubernetes derives it from the method, so that a collection that is deleted is a
/// DELETE whose scope is no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Apply,
    Connect,
    Delete,
    Get,
    List,
    Patch,
    Post,
    Put,
    Watch,
    Other,
}

impl Verb {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Apply => "APPLY",
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Watch => "WATCH",
            Self::Other => "other",
        }
    }

    /// Of a request that is not about objects.
    pub(super) fn of_method(method: &Method) -> Self {
        match *method {
            Method::GET | Method::HEAD => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Of a request for objects.
    fn of_resource(asked: &Asked<'_>, path: &ResourcePath<'_>, part: Option<Subresource>) -> Self {
        if matches!(part, Some(Subresource::Log | Subresource::Proxy)) {
            return Self::Connect;
        }
        match Self::of_method(asked.method) {
            Self::Get if path.watch => Self::Watch,
            Self::Get if path.name.is_some() => Self::Get,
            Self::Get if asked.query.flag("watch") => Self::Watch,
            Self::Get => Self::List,
            Self::Patch if is_apply(asked.headers) => Self::Apply,
            verb => verb,
        }
    }
}

fn is_apply(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/apply-patch+yaml")
}

/// How much a request may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// Not about objects.
    None,
    /// Objects of all namespaces, or of a kind without namespaces.
    Cluster,
    /// Objects of one namespace.
    Namespace,
    /// One object.
    Resource,
}

impl Scope {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Cluster => "cluster",
            Self::Namespace => "namespace",
            Self::Resource => "resource",
        }
    }
}

/// What `dryRun` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DryRun {
    None,
    All,
    Invalid,
}

impl DryRun {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::None => "",
            Self::All => "All",
            Self::Invalid => "invalid",
        }
    }

    pub(super) fn of(query: &Query<'_>) -> Self {
        match query.get("dryRun") {
            None => Self::None,
            Some("All") => Self::All,
            Some(_) => Self::Invalid,
        }
    }
}

/// What requests to one path are told apart by: at most 120 of a path, a handful in practice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(super) scope: Scope,
    pub(super) verb: Verb,
    pub(super) dry_run: DryRun,
}

impl Key {
    pub(crate) const fn scope_label(self) -> &'static str {
        self.scope.label()
    }

    pub(crate) const fn verb_label(self) -> &'static str {
        self.verb.label()
    }

    pub(crate) const fn dry_run_label(self) -> &'static str {
        self.dry_run.label()
    }

    /// The same, as far as the gauge of answers that go on tells it apart.
    pub(crate) const fn of_open(self) -> Self {
        Self { dry_run: DryRun::None, ..self }
    }

    /// Whether an answer may go on for as long as the client reads.
    pub(crate) const fn may_go_on(self) -> bool {
        matches!(self.verb, Verb::Watch | Verb::Connect)
    }

    pub(super) fn of_endpoint(asked: &Asked<'_>) -> Self {
        let verb = Verb::of_method(asked.method);
        Self { scope: Scope::None, verb, dry_run: DryRun::of(asked.query) }
    }

    pub(super) fn of_resource(
        asked: &Asked<'_>,
        path: &ResourcePath<'_>,
        part: Option<Subresource>,
    ) -> Self {
        let scope = if path.name.is_some() || *asked.method == Method::POST {
            Scope::Resource
        } else if path.namespace.is_some() {
            Scope::Namespace
        } else {
            Scope::Cluster
        };
        let verb = Verb::of_resource(asked, path, part);
        Self { scope, verb, dry_run: DryRun::of(asked.query) }
    }
}

/// What of a request, besides its path, says what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: &'a Query<'a>,
}
