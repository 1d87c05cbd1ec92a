//! What a rule of a route does to requests and answers.

use std::sync::Arc;

use api::gateway::{Filter, Header, HeaderFilter, PathModifier, RedirectFilter, Timeouts};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{Problem, matches::unsupported};
use crate::table::{self, Filters, HeaderEdits, PathEdit, Redirect, Rewrite};

/// Fields that say where a message begins and ends, or are about one connection: what is done to them would
/// not be meant.
const FIXED: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What filters come to.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) filters: Option<Arc<Filters>>,
    pub(super) redirect: Option<Arc<Redirect>>,
}

/// Reads filters of a rule whose path begins with `prefix`.
pub(super) fn read(all: &[Filter], prefix: &str) -> Result<Read, Problem> {
    let (mut filters, mut redirect) = (Filters::default(), None);
    for filter in all {
        let Filter { request_header_modifier, response_header_modifier, .. } = filter;
        match filter.type_.as_str() {
            "RequestHeaderModifier" => {
                filters.request = edits(request_header_modifier.as_ref())?;
            }
            "ResponseHeaderModifier" => {
                filters.response = edits(response_header_modifier.as_ref())?;
            }
            "RequestRedirect" => {
                let it = filter.request_redirect.clone().unwrap_or_default();
                redirect = Some(Arc::new(redirected(&it, prefix)?));
            }
            "URLRewrite" => {
                let it = filter.url_rewrite.clone().unwrap_or_default();
                let path = it.path.map(|it| path(&it, prefix)).transpose()?;
                let host = it.hostname.map(|it| {
                    HeaderValue::try_from(&it)
                        .map_err(|_| unsupported(format!("`{it}` is not a host")))
                });
                filters.rewrite = Some(Rewrite { host: host.transpose()?, path });
            }
            other => return Err(unsupported(format!("the filter {other} is not supported"))),
        }
    }
    let nothing = all.is_empty();
    Ok(Read { filters: (!nothing).then(|| Arc::new(filters)), redirect })
}

fn edits(of: Option<&HeaderFilter>) -> Result<HeaderEdits, Problem> {
    let Some(HeaderFilter { set, add, remove }) = of else { return Ok(HeaderEdits::default()) };
    let name = |name: &str| {
        let bad = |_| unsupported(format!("{name} is not a header field"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(bad)?;
        if FIXED.contains(&name) {
            return Err(unsupported(format!(
                "{name} is about the connection and cannot be changed"
            )));
        }
        Ok(name)
    };
    let field = |it: &Header| {
        let bad = |_| unsupported(format!("the value of {} is not one of a header field", it.name));
        Ok((name(&it.name)?, HeaderValue::try_from(&it.value).map_err(bad)?))
    };
    Ok(HeaderEdits {
        set: set.iter().map(field).collect::<Result<_, _>>()?,
        add: add.iter().map(field).collect::<Result<_, _>>()?,
        remove: remove.iter().map(|it| name(it)).collect::<Result<_, _>>()?,
    })
}

fn redirected(of: &RedirectFilter, prefix: &str) -> Result<Redirect, Problem> {
    let scheme = match of.scheme.as_deref() {
        None => None,
        Some("http") => Some("http"),
        Some("https") => Some("https"),
        Some(other) => return Err(unsupported(format!("the scheme {other} is not supported"))),
    };
    let code = of.status_code.unwrap_or(302);
    let status = u16::try_from(code).ok().and_then(|it| StatusCode::from_u16(it).ok());
    Ok(Redirect {
        scheme,
        host: of.hostname.clone(),
        port: of.port.and_then(|it| u16::try_from(it).ok()),
        path: of.path.as_ref().map(|it| path(it, prefix)).transpose()?,
        status: status.ok_or_else(|| unsupported(format!("{code} is not a status")))?,
    })
}

fn path(of: &PathModifier, prefix: &str) -> Result<PathEdit, Problem> {
    let edit = match of.type_.as_str() {
        "ReplaceFullPath" => PathEdit::Full(of.replace_full_path.clone().unwrap_or_default()),
        "ReplacePrefixMatch" => {
            let new = of.replace_prefix_match.as_deref().unwrap_or_default();
            PathEdit::Prefix(prefix.to_owned(), new.trim_end_matches('/').to_owned())
        }
        other => return Err(unsupported(format!("changing a path by {other} is not supported"))),
    };
    let new = match &edit {
        PathEdit::Full(new) | PathEdit::Prefix(_, new) => new,
    };
    let sent = format!("/{}", new.trim_start_matches('/'));
    if new.contains('#') || http::uri::PathAndQuery::try_from(sent).is_err() {
        return Err(unsupported(format!("`{new}` is not a path")));
    }
    Ok(edit)
}

/// How long things may take.
pub(super) fn timeouts(of: &Timeouts) -> Result<table::Timeouts, Problem> {
    let read = |text: &Option<String>| {
        let text = text.as_deref();
        let bad = |it| unsupported(format!("`{it}` is not a duration"));
        text.map(|it| api::duration::parse(it).ok_or_else(|| bad(it))).transpose()
    };
    Ok(table::Timeouts { request: read(&of.request)?, one_try: read(&of.backend_request)? })
}
