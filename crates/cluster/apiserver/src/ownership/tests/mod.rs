//! What owners come of a write, and what an apply does: examples, and properties against a model.

mod examples;
mod many;
mod model;

use serde_json::Value;

use super::{Claims, Draft, Live, Writer};
use crate::kinds::{KINDS, Kind, Subresource};

/// The writer `manager` of a kind, at second `second`.
fn writer(kind: &str, subresource: Option<Subresource>, manager: &'static str) -> Writer<'static> {
    let kind: &'static Kind = KINDS.iter().copied().find(|it| it.kind == kind).unwrap();
    let noon = "2026-01-01T12:00:00Z".parse().unwrap();
    Writer::new(kind, subresource, (Some(manager), "", "PatchOptions"), noon).unwrap()
}

/// An object as it would be stored.
#[derive(Clone, Debug, PartialEq)]
struct Stored {
    object: Value,
    owners: Option<String>,
}

impl Stored {
    fn live(&self) -> Live<'_> {
        Live { object: &self.object, owners: self.owners.as_deref() }
    }
}

/// Applies, without what the request path does besides (defaults, rules).
fn apply(
    writer: &Writer<'_>,
    live: Option<&Stored>,
    wanted: &Value,
    force: bool,
) -> Result<Stored, String> {
    let draft = writer.apply(live.map(Stored::live), wanted, force);
    let Draft { mut object, owners } = draft.map_err(|it| it.message().to_owned())?;
    let Claims::Known(owners) = owners else { panic!("an apply knows its owners") };
    crate::schema::prune(writer.kind.schema, &mut object);
    Ok(Stored { object, owners })
}

/// Who owns what, a line an owner.
fn shown(owners: Option<&str>) -> String {
    let owners = super::owners::parse(owners.unwrap_or("[]")).unwrap();
    let line = |it: &super::owners::Owner<'_>| {
        let time = it.time.as_deref().map_or("", |it| it.get(11..).unwrap());
        let paths = it.fields.paths().join(" ");
        format!("{} {:?} {time}: {paths}", it.shown(), it.operation)
    };
    owners.iter().map(line).collect::<Vec<_>>().join("\n")
}
