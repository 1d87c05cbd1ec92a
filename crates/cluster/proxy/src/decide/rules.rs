//! The rules of all objects, by host, in the order in which they are tried.

use std::{cmp::Reverse, collections::BTreeMap};

use client::Key;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::table::{PathMatch, Route, Rule, Table, Wants};

/// Rules by host, which is empty for every host.
#[derive(Default)]
pub(super) struct Rules(BTreeMap<String, Vec<(Rank, Rule)>>);

/// Of an object: who was first keeps what two want.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age(Option<Timestamp>, Key, &'static str);

impl Age {
    pub(super) fn of(metadata: &ObjectMeta, key: &Key, kind: &'static str) -> Self {
        Self(metadata.creation_timestamp.as_ref().map(|it| it.0), key.clone(), kind)
    }
}

/// The place of a rule, by what the Gateway API says: exact paths, then expressions, which it leaves to us,
/// then prefixes, the longest first; then a method, then the most fields, then the most parameters; then the
/// older object, then the place in it. Of paths that an Ingress can have, the longest comes first by this too,
/// since what an exact path takes is no shorter than any prefix of it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    path: (u8, Reverse<usize>),
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: Age,
    place: usize,
}

impl Rules {
    pub(super) fn add(&mut self, host: String, (wants, route): (Wants, Route), age: &Age) {
        let path = match &wants.path {
            PathMatch::Exact(it) => (0, Reverse(it.len())),
            PathMatch::Regex(it) => (1, Reverse(it.as_str().len())),
            PathMatch::Prefix(it) => (2, Reverse(it.len())),
        };
        let of_host = self.0.entry(host).or_default();
        let rank = Rank {
            path,
            method: Reverse(wants.method.is_some()),
            headers: Reverse(wants.headers.len()),
            query: Reverse(wants.query.len()),
            age: age.clone(),
            place: of_host.len(),
        };
        of_host.push((rank, Rule { wants, route }));
    }

    /// Makes sure that the host is known, even without rules.
    pub(super) fn touch(&mut self, host: &str) {
        self.0.entry(host.to_owned()).or_default();
    }

    pub(super) fn into_table(self, table: &mut Table) {
        for (host, mut rules) in self.0 {
            rules.sort_by(|a, b| a.0.cmp(&b.0));
            let rules: Vec<Rule> = rules.into_iter().map(|it| it.1).collect();
            match host.strip_prefix("*.") {
                _ if host.is_empty() => table.any = rules,
                Some(rest) => drop(table.wildcards.insert(rest.to_owned(), rules)),
                None => drop(table.hosts.insert(host, rules)),
            }
        }
    }
}
