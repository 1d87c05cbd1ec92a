//! The way of every request: who is it, may they, what is it about, which verb.
//!
//! authentication -> authorization -> a place (`flow`) -> route -> verb (decoding, admission, validation,
//! store). Audit would be around all of it.

use std::{
    borrow::Cow,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use api::status::Status;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, request::Parts};
use tokio::time::timeout;

use crate::{
    authorization::{self, Action},
    endpoints::{discovery::Discovery, health, metrics, openapi::OpenApi, snapshot, version},
    flow::{self, Flow},
    http::{
        body::{Body, Unread},
        compress, content,
        outgoing::{Held, Outgoing},
        path::{ResourcePath, Route},
        query::Query,
        respond,
    },
    identity::{self, Identity},
    impersonation,
    kinds::{Creation, KINDS, Kind, Source, Subresource},
    metrics::Asked,
    protobuf,
    registry::{Call, Registry},
};

/// Everything requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) flow: Flow,
}

/// The API as a `tower::Service`, for one identity. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Router {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    /// None of callers in this process.
    outgoing: Option<Arc<Outgoing>>,
}

impl Router {
    /// For callers in this process.
    pub(crate) const fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity, outgoing: None }
    }

    #[cfg(test)]
    pub(crate) fn of(self, identity: Identity) -> Self {
        Self { identity: Arc::new(identity), ..self }
    }

    /// For whoever is at the other end of a connection.
    pub(crate) fn over(self, outgoing: &Arc<Outgoing>) -> Self {
        Self { outgoing: Some(Arc::clone(outgoing)), ..self }
    }
}

impl<B> tower::Service<Request<B>> for Router
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let router = self.clone();
        let (parts, body) = request.into_parts();
        let body = Unread::new(body);
        Box::pin(async move {
            let metrics = &router.shared.registry.metrics;
            let (pending, about) = (metrics.begin(&parts.method), About::of(&parts));
            let Parts { method, headers, .. } = &parts;
            let asked = Asked { method, headers, query: &about.query };
            let target = metrics.target(&about.route, about.kind, &asked);
            let mut held = router.outgoing.as_ref().map(Outgoing::begin);
            let long = target.may_go_on();
            let answer = match router.enter(&parts, &about, held.as_mut().filter(|_| !long)) {
                Ok((who, None)) => router.answer(&who, &parts, about, body).await,
                Ok((who, Some(limit))) => {
                    let answer = timeout(limit, router.answer(&who, &parts, about, body)).await;
                    answer.unwrap_or_else(|_| Err(flow::timed_out()))
                }
                Err(status) => Err(status),
            };
            let answer = answer.map(|it| compress::response(headers, it));
            let answer = answer.and_then(|it| {
                let weighed = held.as_mut().map(|held| router.shared.flow.weigh(&it, held));
                weighed.unwrap_or(Ok(())).map(|()| it)
            });
            let answer = answer.unwrap_or_else(|status| respond::failure(&status, headers));
            let answer = pending.end(target, answer);
            Ok(match held {
                Some(held) => answer.map(|it| it.holding(held)),
                None => answer,
            })
        })
    }
}

/// What a request is about. Nothing is checked here.
struct About<'a> {
    route: Route<'a>,
    /// Its place in the table, if there is such a kind.
    kind: Option<usize>,
    query: Query<'a>,
}

impl<'a> About<'a> {
    fn of(parts: &'a Parts) -> Self {
        let route = Route::parse(parts.uri.path());
        let kind = if let Route::Resource(path) = &route {
            KINDS.iter().position(|it| {
                it.plural == path.resource && it.group == path.group && it.version == path.version
            })
        } else {
            None
        };
        Self { route, kind, query: Query::parse(parts.uri.query()) }
    }
}

impl Router {
    /// Lets a request in: whose it is and, if it is `held` (from outside, and not going on), how long it
    /// may take. Who may not do it takes no place from others.
    fn enter(
        &self,
        parts: &Parts,
        about: &About<'_>,
        held: Option<&mut Held>,
    ) -> Result<(Cow<'_, Identity>, Option<Duration>), Status> {
        let who = self.authenticate(parts)?;
        let action = Action::of(&parts.method, parts.uri.path(), &about.route, &about.query);
        authorization::authorize(&who, &action)?;
        let Some(held) = held else { return Ok((who, None)) };
        // Whoever asks whether the server is alive must not hear that it is busy.
        if !matches!(about.route, Route::Health(_)) {
            held.place = Some(self.shared.flow.admit(&parts.method)?);
        }
        Ok((who, Some(flow::time_limit(&about.query)?)))
    }

    async fn answer(
        &self,
        who: &Identity,
        parts: &Parts,
        about: About<'_>,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        let About { route, kind, query } = about;
        if let Route::Resource(path) = &route {
            let kind = kind.and_then(|it| KINDS.get(it)).ok_or_else(Status::no_such_path)?;
            let call = call_of(parts, who, path, kind, query)?;
            if path.watch {
                return self.watch(parts, &call);
            }
            return self.resource(parts, &call, body).await;
        }
        if parts.method != Method::GET && parts.method != Method::HEAD {
            let of = api::status::GroupResource { group: "", resource: "" };
            return Err(Status::method_not_allowed(of));
        }
        self.endpoint(parts, &route, &query)
    }

    /// Authentication: whose request this is. A certificate counts before a token, and both before whom
    /// they want to act as.
    fn authenticate(&self, parts: &Parts) -> Result<Cow<'_, Identity>, Status> {
        let mut who = Cow::Borrowed(self.identity.as_ref());
        if let (true, Some(token)) = (who.is_anonymous(), bearer_token(parts)) {
            who = Cow::Owned(identity::of_token(token).map_err(|_| Status::unauthorized())?);
        }
        match impersonation::acting_as(&who, &parts.headers)? {
            Some(other) => Ok(Cow::Owned(other)),
            None => Ok(who),
        }
    }

    /// Everything that is not about objects.
    fn endpoint(
        &self,
        parts: &Parts,
        route: &Route<'_>,
        query: &Query<'_>,
    ) -> Result<Response<Body>, Status> {
        let Shared { registry, discovery, openapi, .. } = self.shared.as_ref();
        let headers = &parts.headers;
        let encoding = || content::negotiate_encoding(headers);
        let discovered = || content::negotiate_discovery(headers);
        match *route {
            Route::Version => Ok(version::answer()),
            Route::Health(path) => {
                let text = parts.uri.query().unwrap_or_default();
                let verbose = text.split('&').any(|it| it.split('=').next() == Some("verbose"));
                health::answer(registry, path, query, verbose)
            }
            Route::Metrics => Ok(metrics::answer(registry)),
            Route::Snapshot => snapshot::answer(registry),
            Route::Core => discovery.core(discovered()?, headers),
            Route::Groups => discovery.groups(discovered()?, headers),
            Route::Group(name) => discovery.group(name, encoding()?, headers),
            Route::GroupVersion { group, version } => {
                discovery.resources(group, version, encoding()?, headers)
            }
            Route::OpenApiIndex => openapi.index(headers),
            Route::OpenApi { group, version } => openapi.document(group, version, query, headers),
            Route::OpenApiV2 => openapi.v2(headers),
            Route::Root => discovery.root(encoding()?, headers),
            Route::Resource(_) | Route::Unknown => Err(Status::no_such_path()),
        }
    }

    /// Objects: finds the verb. The futures of all verbs but get are boxed, so that the one of a
    /// get, which is the most frequent, is small.
    async fn resource(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        let kind = call.kind;
        let answer = match (call.name.is_empty(), call.subresource) {
            (true, _) => Box::pin(self.collection(parts, call, body)).await,
            // An object in a namespace is not reached without naming the namespace.
            (false, _) if kind.namespaced && call.namespace.is_none() => {
                Err(Status::no_such_path())
            }
            (false, None) => self.object(parts, call, body).await,
            (false, Some(Subresource::Proxy)) => {
                Box::pin(self.shared.registry.proxy(call, parts, body)).await
            }
            (false, Some(subresource)) => Box::pin(self.part(parts, call, subresource, body)).await,
        };
        answer.map(|mut answer| {
            if !kind.deprecation.is_empty() {
                respond::warn(&mut answer, &[kind.deprecation]);
            }
            answer
        })
    }

    /// A watch by its path, of a collection or of one object.
    fn watch(&self, parts: &Parts, call: &Call<'_>) -> Result<Response<Body>, Status> {
        if call.subresource.is_some() {
            return Err(Status::no_such_path());
        }
        if parts.method != Method::GET {
            return Err(Status::method_not_allowed(call.kind.resource()));
        }
        allow(call.kind, "watch")?;
        self.shared.registry.watch(call)
    }

    async fn collection(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        let registry = &self.shared.registry;
        let allow = |verb: &str| allow(call.kind, verb);
        match parts.method {
            Method::GET | Method::HEAD if call.query.flag("watch") => {
                allow("watch")?;
                registry.watch(call)
            }
            Method::GET | Method::HEAD => {
                allow("list")?;
                match call.kind.source {
                    Source::Store => registry.list(call),
                    Source::Measured(what) => registry.list_measured(call, what).await,
                }
            }
            Method::POST if call.kind.namespaced && call.namespace.is_none() => {
                Err(Status::method_not_allowed(call.kind.resource()))
            }
            Method::POST => {
                allow("create")?;
                Box::pin(self.create(call, &parts.headers, body.read().await?)).await
            }
            Method::DELETE => {
                allow("deletecollection")?;
                Box::pin(registry.delete_collection(call, &parts.headers, body.read().await?)).await
            }
            _ => Err(Status::method_not_allowed(call.kind.resource())),
        }
    }

    async fn create(
        &self,
        call: &Call<'_>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let registry = &self.shared.registry;
        match call.kind.creation {
            Creation::Kept => registry.create(call, headers, body).await,
            Creation::Bound => registry.bind_by_name(call, headers, body).await,
            Creation::Answered(question) => registry.review(call, question, headers, &body),
        }
    }

    async fn object(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        let registry = &self.shared.registry;
        let allow = |verb: &str| allow(call.kind, verb);
        match parts.method {
            Method::GET | Method::HEAD => {
                allow("get")?;
                match call.kind.source {
                    Source::Store => registry.get(call),
                    Source::Measured(what) => Box::pin(registry.get_measured(call, what)).await,
                }
            }
            Method::PUT => {
                allow("update")?;
                Box::pin(registry.update(call, &parts.headers, body.read().await?)).await
            }
            Method::PATCH => {
                allow("patch")?;
                Box::pin(registry.patch(call, &parts.headers, body.read().await?)).await
            }
            Method::DELETE => {
                allow("delete")?;
                Box::pin(registry.delete(call, &parts.headers, body.read().await?)).await
            }
            _ => Err(Status::method_not_allowed(call.kind.resource())),
        }
    }

    async fn part(
        &self,
        parts: &Parts,
        call: &Call<'_>,
        subresource: Subresource,
        body: Unread,
    ) -> Result<Response<Body>, Status> {
        let (registry, headers) = (&self.shared.registry, &parts.headers);
        match (subresource, &parts.method) {
            (subresource, &Method::GET) if subresource.is_part() => registry.get(call),
            (subresource, &Method::PUT) if subresource.is_part() => {
                Box::pin(registry.update(call, headers, body.read().await?)).await
            }
            (subresource, &Method::PATCH) if subresource.is_part() => {
                Box::pin(registry.patch(call, headers, body.read().await?)).await
            }
            (Subresource::Scale, &Method::GET) => registry.get_scale(call),
            (Subresource::Scale, &Method::PUT) => {
                Box::pin(registry.update_scale(call, headers, body.read().await?)).await
            }
            (Subresource::Scale, &Method::PATCH) => {
                Box::pin(registry.patch_scale(call, headers, body.read().await?)).await
            }
            (Subresource::Log, &Method::GET) => registry.log(call).await,
            (Subresource::Binding, &Method::POST) => {
                Box::pin(registry.bind(call, headers, body.read().await?)).await
            }
            (Subresource::Eviction, &Method::POST) => {
                Box::pin(registry.evict(call, headers, body.read().await?)).await
            }
            (Subresource::Finalize, &Method::PUT) => {
                Box::pin(registry.finalize(call, headers, body.read().await?)).await
            }
            _ => Err(Status::method_not_allowed(call.kind.resource())),
        }
    }
}

/// A request for objects of a kind, understood.
fn call_of<'a>(
    parts: &'a Parts,
    who: &'a Identity,
    path: &'a ResourcePath<'a>,
    kind: &'static Kind,
    query: Query<'a>,
) -> Result<Call<'a>, Status> {
    if path.namespace.is_some() && !kind.namespaced {
        return Err(Status::no_such_path());
    }
    let subresource = match path.subresource {
        None => None,
        Some(name) => Some(subresource(kind, name).ok_or_else(Status::no_such_path)?),
    };
    let agent = parts.headers.get(http::header::USER_AGENT);
    // What a pod answers is between the client and the pod.
    let own = HeaderMap::new();
    let headers = if subresource == Some(Subresource::Proxy) { &own } else { &parts.headers };
    let wanted = content::negotiate(headers, protobuf::has_message(kind.schema))?;
    Ok(Call {
        kind,
        namespace: path.namespace.as_deref(),
        name: path.name.as_deref().unwrap_or_default(),
        subresource,
        query,
        agent: agent.and_then(|it| it.to_str().ok()).unwrap_or_default(),
        wanted,
        user: Some(who),
    })
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer_token(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn allow(kind: &Kind, verb: &str) -> Result<(), Status> {
    if kind.verbs.contains(&verb) {
        Ok(())
    } else {
        Err(Status::method_not_allowed(kind.resource()))
    }
}

fn subresource(kind: &Kind, name: &str) -> Option<Subresource> {
    kind.subresources.iter().copied().find(|it| it.name() == name)
}
