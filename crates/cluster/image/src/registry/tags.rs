//! Lists: the tags of a repository, and the repositories.

use std::collections::BTreeSet;

use http::{
    Method, StatusCode,
    header::{CONTENT_TYPE, LINK},
};
use serde_json::json;

use super::{
    Registry,
    answer::{self, Answer, Failure},
    route::Query,
};

/// Entries of a page at most, and if nothing is said.
const PAGE_MAX: usize = 10_000;

impl Registry {
    /// The tags of a repository, in order.
    pub(super) fn tags(
        &self,
        method: &Method,
        repository: &str,
        query: &Query,
    ) -> Result<Answer, Failure> {
        only_get(method)?;
        let targets = self.targets(repository)?;
        if targets.is_empty() {
            return Err(Failure::not_found("NAME_UNKNOWN", format!("repository `{repository}`")));
        }
        let prefix = format!("{}/{repository}:", self.shared.host);
        // A name may have both a tag and a digest; then only the digest is its own.
        let tags = targets.iter().filter_map(|it| it.name.strip_prefix(&prefix));
        let tags: BTreeSet<&str> = tags.filter(|it| !it.contains('@')).collect();
        let (page, next) = page(&tags, query)?;
        let path = format!("/v2/{repository}/tags/list");
        Ok(list(&json!({"name": repository, "tags": page}), &path, next))
    }

    /// The repositories, in order.
    pub(super) fn catalog(&self, method: &Method, query: &Query) -> Result<Answer, Failure> {
        only_get(method)?;
        let prefix = format!("{}/", self.shared.host);
        let names = self.shared.store.list()?;
        let repositories: BTreeSet<&str> = names
            .iter()
            .filter_map(|it| it.name.strip_prefix(&prefix))
            .filter_map(|it| it.split([':', '@']).next())
            .collect();
        let (page, next) = page(&repositories, query)?;
        Ok(list(&json!({"repositories": page}), "/v2/_catalog", next))
    }
}

fn only_get(method: &Method) -> Result<(), Failure> {
    if *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    Err(Failure::method("GET, HEAD"))
}

/// The entries after `last`, `n` of them, and the query of the next page.
fn page<'a>(
    all: &BTreeSet<&'a str>,
    query: &Query,
) -> Result<(Vec<&'a str>, Option<String>), Failure> {
    let count = match query.get("n").map(str::parse::<usize>) {
        None => PAGE_MAX,
        Some(Ok(count)) => count.min(PAGE_MAX),
        Some(Err(_)) => {
            return Err(Failure::bad("PAGINATION_NUMBER_INVALID", "`n` is not a number"));
        }
    };
    let last = query.get("last").unwrap_or_default();
    let mut rest = all.iter().copied().filter(|it| last.is_empty() || *it > last);
    let page: Vec<&str> = rest.by_ref().take(count).collect();
    let more = rest.next().is_some();
    // Nothing was asked for with `n=0`, and nothing follows it.
    let next = page.last().filter(|_| more).map(|it| format!("n={count}&last={it}"));
    Ok((page, next))
}

fn list(value: &serde_json::Value, path: &str, next: Option<String>) -> Answer {
    let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
    headers.extend(next.map(|it| (LINK, format!("<{path}?{it}>; rel=\"next\""))));
    answer::bytes(StatusCode::OK, &headers, value.to_string().into_bytes())
}
