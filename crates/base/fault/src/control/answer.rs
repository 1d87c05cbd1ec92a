//! Which request means what, and with which status it is answered.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::wire::{self, ProxyInput, Refusal, ToxicInput};
use crate::{Fault, Handle, How, Mode, RouteConfig, RouteError, resolve};

/// Longest body: room for a thousand routes.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The version of Toxiproxy whose API this is.
const VERSION: &str = "2.12.0";

type Answer = Result<(StatusCode, Option<Value>), Refusal>;

/// Answers `request`.
pub(super) async fn answer(handle: &Handle, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match decide(handle, request).await {
        Ok(answered) => answered,
        Err(refusal) => (refusal.status, Some(refusal.body())),
    };
    let bytes = body.map_or_else(Bytes::new, |it| Bytes::from(it.to_string()));
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn decide(handle: &Handle, request: Request<Incoming>) -> Answer {
    // A web page must not be able to change anything here, whatever name it found for this address.
    let agent = request.headers().get(header::USER_AGENT);
    if agent.is_some_and(|it| it.as_bytes().starts_with(b"Mozilla/")) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "User agent not allowed"));
    }
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("bad request body: {error}"))
    })?;
    let body = body.to_bytes();
    let path = head.uri.path().trim_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').collect();
    let (name, rest) = match segments.as_slice() {
        ["proxies", name, rest @ ..] => (*name, rest),
        other => return top(handle, &head.method, other, &body),
    };
    match rest {
        [] => proxy(handle, &head.method, name, &body),
        ["toxics", rest @ ..] => toxics(handle, &head.method, name, rest, &body),
        ["connections"] => connections(handle, &head.method, name, None, &query),
        ["connections", id] => {
            let id = id.parse().map_err(|_| Refusal::not_found("connection not found"))?;
            connections(handle, &head.method, name, Some(id), &query)
        }
        ["statistics"] if head.method == Method::GET => {
            Ok((StatusCode::OK, Some(wire::statistics(&handle.statistics(name)?))))
        }
        ["statistics"] => Err(Refusal::method()),
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

fn top(handle: &Handle, method: &Method, segments: &[&str], body: &[u8]) -> Answer {
    match (segments, method) {
        (["proxies"], &Method::GET) => {
            let all = handle.list();
            let all = all.iter().map(|it| (it.name.clone(), wire::proxy(it))).collect();
            Ok((StatusCode::OK, Some(Value::Object(all))))
        }
        (["proxies"], &Method::POST) => {
            let config = wire::parse::<ProxyInput>(body)?.create()?;
            handle.add(config.clone())?;
            Ok((StatusCode::CREATED, Some(wire::proxy(&handle.get(&config.name)?))))
        }
        (["populate"], &Method::POST) => populate(handle, body),
        (["reset"], &Method::POST) => {
            for mut config in handle.list() {
                handle.clear_faults(&config.name)?;
                config.enabled = true;
                config.mode = Mode::Forward;
                handle.update(&config)?;
            }
            Ok((StatusCode::NO_CONTENT, None))
        }
        (["version"], &Method::GET) => {
            let coracle = env!("CARGO_PKG_VERSION");
            Ok((StatusCode::OK, Some(json!({ "version": VERSION, "coracle": coracle }))))
        }
        (["proxies" | "populate" | "reset" | "version"], _) => Err(Refusal::method()),
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

/// Creates routes and replaces those that are elsewhere; what was done before an error stays.
fn populate(handle: &Handle, body: &[u8]) -> Answer {
    let inputs: Vec<ProxyInput> = wire::parse(body)?;
    let mut configs = Vec::new();
    for (index, input) in (1..).zip(inputs) {
        configs.push(input.create().map_err(|refusal| refusal.at(index))?);
    }
    let mut done = Vec::new();
    let mut refused = None;
    for config in configs {
        match replace(handle, config) {
            Ok(config) => done.push(wire::proxy(&config)),
            Err(error) => {
                refused = Some(Refusal::from(error));
                break;
            }
        }
    }
    let mut answer = json!({ "proxies": done });
    let Some(refusal) = refused else { return Ok((StatusCode::CREATED, Some(answer))) };
    if let (Some(answer), Value::Object(error)) = (answer.as_object_mut(), refusal.body()) {
        answer.extend(error);
    }
    Ok((refusal.status, Some(answer)))
}

/// Makes a route what `config` says. One that is there already at these addresses keeps its faults.
fn replace(handle: &Handle, config: RouteConfig) -> Result<RouteConfig, RouteError> {
    let name = config.name.clone();
    match handle.get(&name) {
        Ok(known)
            if resolve::is_same(&known.listen, &config.listen)
                && known.upstream == config.upstream =>
        {
            handle.update(&config)?;
        }
        Ok(_) => {
            handle.remove(&name)?;
            handle.add(config)?;
        }
        Err(_) => handle.add(config)?,
    }
    handle.get(&name)
}

fn proxy(handle: &Handle, method: &Method, name: &str, body: &[u8]) -> Answer {
    match *method {
        Method::GET => Ok((StatusCode::OK, Some(wire::proxy(&handle.get(name)?)))),
        Method::POST | Method::PATCH => {
            let config = wire::parse::<ProxyInput>(body)?.change(handle.get(name)?);
            handle.update(&config)?;
            Ok((StatusCode::OK, Some(wire::proxy(&handle.get(name)?))))
        }
        Method::PUT => {
            let known = handle.get(name).ok().map(|it| it.listen);
            let status = if known.is_none() { StatusCode::CREATED } else { StatusCode::OK };
            let input = wire::parse::<ProxyInput>(body)?.with(name, known);
            let config = replace(handle, input.create()?)?;
            Ok((status, Some(wire::proxy(&config))))
        }
        Method::DELETE => {
            handle.remove(name)?;
            Ok((StatusCode::NO_CONTENT, None))
        }
        _ => Err(Refusal::method()),
    }
}

fn toxics(handle: &Handle, method: &Method, name: &str, rest: &[&str], body: &[u8]) -> Answer {
    let faults = handle.get(name)?.faults;
    let find = |toxic: &str| {
        let found = faults.iter().find(|it| it.name == toxic).cloned();
        found.ok_or_else(|| Refusal::not_found("toxic not found"))
    };
    let shown = |fault: &Fault| Ok((StatusCode::OK, Some(wire::toxic(fault))));
    match (rest, method) {
        ([], &Method::GET) => {
            let all = faults.iter().map(wire::toxic).collect();
            Ok((StatusCode::OK, Some(Value::Array(all))))
        }
        ([], &Method::POST) => {
            let fault = wire::parse::<ToxicInput>(body)?.create()?;
            if faults.iter().any(|it| it.name == fault.name) {
                return Err(Refusal::new(StatusCode::CONFLICT, "toxic already exists"));
            }
            handle.set_fault(name, fault.clone())?;
            shown(&fault)
        }
        ([], &Method::PUT) => {
            let inputs: Vec<ToxicInput> = wire::parse(body)?;
            let wanted: Vec<Fault> =
                inputs.into_iter().map(ToxicInput::create).collect::<Result<_, _>>()?;
            wanted.iter().try_for_each(Fault::check).map_err(RouteError::from)?;
            for gone in faults.iter().filter(|it| wanted.iter().all(|new| new.name != it.name)) {
                handle.clear_fault(name, &gone.name)?;
            }
            for fault in &wanted {
                handle.set_fault(name, fault.clone())?;
            }
            let all = handle.get(name)?.faults.iter().map(wire::toxic).collect();
            Ok((StatusCode::OK, Some(Value::Array(all))))
        }
        ([], &Method::DELETE) => {
            handle.clear_faults(name)?;
            Ok((StatusCode::NO_CONTENT, None))
        }
        ([toxic], &Method::GET) => shown(&find(toxic)?),
        ([toxic], &Method::POST | &Method::PATCH) => {
            let fault = wire::parse::<ToxicInput>(body)?.change(find(toxic)?)?;
            handle.set_fault(name, fault.clone())?;
            shown(&fault)
        }
        ([toxic], &Method::PUT) => {
            let mut input: ToxicInput = wire::parse(body)?;
            (*toxic).clone_into(&mut input.name);
            let fault = input.create()?;
            handle.set_fault(name, fault.clone())?;
            shown(&fault)
        }
        ([toxic], &Method::DELETE) => {
            let fault = find(toxic)?;
            handle.clear_fault(name, &fault.name)?;
            Ok((StatusCode::NO_CONTENT, None))
        }
        ([] | [_], _) => Err(Refusal::method()),
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

fn connections(
    handle: &Handle,
    method: &Method,
    name: &str,
    id: Option<u64>,
    query: &str,
) -> Answer {
    match *method {
        Method::GET => {
            let open = handle.connections(name)?;
            let mut open = open.iter().filter(|it| id.is_none_or(|id| it.id == id));
            if id.is_none() {
                let all = open.map(wire::connection).collect();
                return Ok((StatusCode::OK, Some(Value::Array(all))));
            }
            let one = open.next().ok_or_else(|| Refusal::not_found("connection not found"))?;
            Ok((StatusCode::OK, Some(wire::connection(one))))
        }
        Method::DELETE => {
            let how = match query {
                "" | "how=close" => How::Close,
                "how=reset" => How::Reset,
                _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, "how: close or reset")),
            };
            let ended = handle.end_connections(name, id, how)?;
            if id.is_some() && ended == 0 {
                return Err(Refusal::not_found("connection not found"));
            }
            Ok((StatusCode::OK, Some(json!({ "ended": ended }))))
        }
        _ => Err(Refusal::method()),
    }
}
