//! `metadata.managedFields`: who owns which fields, as JSON and as sets.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry as Place},
};

use serde::Deserialize;

use super::set::Set;

/// Most owners of operation `Update`; above it the oldest are merged. As in Kubernetes.
const UPDATERS_MAX: usize = 10;
/// Owner of what the merged ones owned.
const MERGED: &str = "ancient-changes";

/// How an owner came to own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One entry of the list. Who it is: manager, operation and subresource, and of an updater the API
/// version too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner<'a> {
    pub(super) manager: Cow<'a, str>,
    pub(super) operation: Operation,
    pub(super) api_version: Cow<'a, str>,
    pub(super) subresource: Cow<'a, str>,
    /// RFC 3339 in UTC with whole seconds: sorted as text, it is sorted by time.
    pub(super) time: Option<Cow<'a, str>>,
    pub(super) fields: Set<'a>,
}

/// What tells owners apart: manager, operation, subresource, and of an updater the API version.
pub(super) type Identity<'a> = (&'a str, Operation, &'a str, Option<&'a str>);

impl Owner<'_> {
    pub(super) fn identity(&self) -> Identity<'_> {
        let version = match self.operation {
            Operation::Apply => None,
            Operation::Update => Some(self.api_version.as_ref()),
        };
        (&self.manager, self.operation, &self.subresource, version)
    }

    pub(super) fn is(&self, other: &Owner<'_>) -> bool {
        self.identity() == other.identity()
    }

    fn age(&self) -> (Operation, &str) {
        (self.operation, self.time.as_deref().unwrap_or_default())
    }

    /// As messages show it.
    pub(super) fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Entry<'a> {
    #[serde(borrow)]
    manager: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    subresource: Cow<'a, str>,
    #[serde(borrow)]
    fields_type: Cow<'a, str>,
    time: Option<String>,
    #[serde(borrow)]
    fields_v1: Option<Set<'a>>,
}

/// Reads the list. Fails with the original's words.
pub(super) fn read<'de, D>(json: D) -> Result<Vec<Owner<'de>>, String>
where
    D: serde::Deserializer<'de>,
    D::Error: std::fmt::Display,
{
    let entries = Option::<Vec<Entry<'de>>>::deserialize(json).map_err(|it| it.to_string())?;
    let mut owners: Vec<Owner<'de>> = Vec::new();
    for (index, entry) in entries.unwrap_or_default().into_iter().enumerate() {
        let operation = match entry.operation.as_ref() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if entry.api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match entry.fields_type.as_ref() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => {
                return Err(format!(
                    "invalid fieldsType {other:?} in managed fields entry {index}"
                ));
            }
        }
        owners.push(Owner {
            manager: entry.manager,
            operation,
            api_version: entry.api_version,
            subresource: entry.subresource,
            time: entry.time.map(Cow::Owned),
            fields: entry.fields_v1.unwrap_or_default(),
        });
    }
    Ok(last_of_each(owners))
}

/// Of several entries for one owner, the last counts.
fn last_of_each(mut owners: Vec<Owner<'_>>) -> Vec<Owner<'_>> {
    let mut seen = BTreeSet::new();
    let is_last: Vec<bool> = owners.iter().rev().map(|it| seen.insert(it.identity())).collect();
    let mut is_last = is_last.into_iter().rev();
    owners.retain(|_| is_last.next().unwrap_or(true));
    owners
}

/// Reads the list from its JSON text.
pub(super) fn parse(text: &str) -> Result<Vec<Owner<'_>>, String> {
    read(&mut serde_json::Deserializer::from_str(text))
}

/// Writes the list in the original's order; `None` if nobody owns anything.
pub(super) fn write(mut owners: Vec<Owner<'_>>) -> Option<String> {
    if owners.is_empty() {
        return None;
    }
    owners.sort_by(|a, b| {
        (a.age().cmp(&b.age()))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    let mut json = Vec::with_capacity(512);
    for owner in &owners {
        json.push(if json.is_empty() { b'[' } else { b',' });
        write_owner(owner, &mut json).ok()?;
    }
    json.push(b']');
    String::from_utf8(json).ok()
}

fn write_owner(owner: &Owner<'_>, json: &mut Vec<u8>) -> serde_json::Result<()> {
    json.extend_from_slice(br#"{"apiVersion":"#);
    serde_json::to_writer(&mut *json, &owner.api_version)?;
    json.extend_from_slice(br#","fieldsType":"FieldsV1","fieldsV1":"#);
    owner.fields.write(json)?;
    if !owner.manager.is_empty() {
        json.extend_from_slice(br#","manager":"#);
        serde_json::to_writer(&mut *json, &owner.manager)?;
    }
    json.extend_from_slice(match owner.operation {
        Operation::Apply => br#","operation":"Apply""#,
        Operation::Update => br#","operation":"Update""#,
    });
    if !owner.subresource.is_empty() {
        json.extend_from_slice(br#","subresource":"#);
        serde_json::to_writer(&mut *json, &owner.subresource)?;
    }
    if let Some(time) = &owner.time {
        json.extend_from_slice(br#","time":"#);
        serde_json::to_writer(&mut *json, time)?;
    }
    json.push(b'}');
    Ok(())
}

/// Whether two lists say the same but for the times.
pub(crate) fn same_but_times(a: &str, b: &str) -> bool {
    let timeless = |text| {
        let mut owners = parse(text).ok()?;
        for owner in &mut owners {
            owner.time = None;
        }
        owners.sort_by(|a, b| a.identity().cmp(&b.identity()));
        Some(owners)
    };
    let (Some(a), Some(b)) = (timeless(a), timeless(b)) else { return false };
    a == b
}

/// Merges the oldest updaters of each API version until there are few enough.
pub(super) fn cap(mut owners: Vec<Owner<'_>>) -> Vec<Owner<'_>> {
    let is_updater = |it: &&Owner<'_>| it.operation == Operation::Update;
    let count = owners.iter().filter(is_updater).count();
    let mut excess = count.saturating_sub(UPDATERS_MAX);
    if excess == 0 {
        return owners;
    }
    owners.sort_by(|a, b| a.age().cmp(&b.age()).then_with(|| a.manager.cmp(&b.manager)));
    let mut kept: Vec<Owner<'_>> = Vec::with_capacity(owners.len());
    let mut oldest: BTreeMap<Cow<'_, str>, (Owner<'_>, Vec<Set<'_>>)> = BTreeMap::new();
    for mut owner in owners {
        if owner.operation == Operation::Apply || excess == 0 {
            kept.push(owner);
            continue;
        }
        let fields = std::mem::take(&mut owner.fields);
        match oldest.entry(owner.api_version.clone()) {
            Place::Vacant(place) => {
                place.insert((owner, vec![fields]));
            }
            Place::Occupied(place) => {
                let (merged, all) = place.into_mut();
                all.push(fields);
                merged.manager = Cow::Borrowed(MERGED);
                merged.subresource = Cow::Borrowed("");
                merged.time = owner.time;
                excess -= 1;
            }
        }
    }
    let merged: Vec<Owner<'_>> = oldest
        .into_values()
        .map(|(owner, all)| Owner { fields: Set::union_all(all), ..owner })
        .collect();
    let places: BTreeMap<_, usize> = kept.iter().map(Owner::identity).zip(0..).collect();
    let places: Vec<_> = merged.iter().map(|it| places.get(&it.identity()).copied()).collect();
    for (owner, place) in merged.into_iter().zip(places) {
        match place.and_then(|it| kept.get_mut(it)) {
            Some(found) => found.fields = std::mem::take(&mut found.fields).union(owner.fields),
            None => kept.push(owner),
        }
    }
    kept
}
