//! OpenAPI documents, versions 2 and 3, made from the table of types, the table of kinds and the
//! published descriptions.
//!
//! They are written piece by piece, so that making one needs little memory; who asks keeps them.

mod descriptions;
mod gnostic;
mod operations;
mod schemas;

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde_json::{Value, json};

use self::{descriptions::Descriptions, schemas::SCALARS};
use crate::{
    kinds::{KINDS, Kind, Subresource},
    schema::{BINDING, DELETE_OPTIONS, EVICTION, SCALE, STATUS, definition},
};

/// Which specification a document follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    V2,
    V3,
}

/// The program that makes the documents, by its files: a changed one makes changed documents. None of
/// it is in the binary, only [`GENERATOR`].
const SOURCES: [(&str, &str); 7] = [
    ("openapi/descriptions.rs", include_str!("descriptions.rs")),
    ("openapi/gnostic.rs", include_str!("gnostic.rs")),
    ("openapi/mod.rs", include_str!("mod.rs")),
    ("openapi/operations.rs", include_str!("operations.rs")),
    ("openapi/schemas.rs", include_str!("schemas.rs")),
    ("kinds/mod.rs", include_str!("../kinds/mod.rs")),
    ("schema/table.rs", include_str!("../schema/table.rs")),
];

const GENERATOR: Fnv = {
    let mut hash = Fnv::START;
    let mut sources = SOURCES.as_slice();
    while let Some(((_, source), rest)) = sources.split_first() {
        hash = hash.with(source.as_bytes());
        sources = rest;
    }
    hash
};

/// A number that changes whenever a document does, without making one: documents are functions of
/// this program alone. Which document it is, is still to be added.
pub(crate) fn fingerprint() -> Fnv {
    let mut hash = GENERATOR;
    hash.add(crate::schema::TEXT.as_bytes());
    hash.add(descriptions::COMPRESSED);
    for kind in KINDS {
        let Kind { group, version, kind: name, plural, verbs, schema, subresources, .. } = kind;
        hash.add(format!("{group}/{version}/{name} {plural} {schema}").as_bytes());
        hash.add(format!("{verbs:?}{subresources:?}{}", kind.namespaced).as_bytes());
    }
    hash
}

/// FNV-1a of 128 bits: tells versions of our own documents apart, nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fnv(pub(crate) u128);

impl Default for Fnv {
    fn default() -> Self {
        Self::START
    }
}

impl Fnv {
    const START: Self = Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);

    pub(crate) const fn add(&mut self, bytes: &[u8]) {
        *self = self.with(bytes);
    }

    const fn with(mut self, mut bytes: &[u8]) -> Self {
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        while let Some((byte, rest)) = bytes.split_first() {
            self.0 = (self.0 ^ *byte as u128).wrapping_mul(PRIME);
            bytes = rest;
        }
        self
    }
}

/// Writes the document of one group and version (`group` empty for core): paths and schemas of the
/// served kinds.
pub(crate) fn write_v3(group: &str, version: &str, out: &mut impl Write) -> io::Result<()> {
    let kinds: Vec<&Kind> =
        KINDS.iter().copied().filter(|it| it.group == group && it.version == version).collect();
    let descriptions = Descriptions::read()?;
    out.write_all(
        br#"{"openapi":"3.0.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{"#,
    )?;
    write_members(out, kinds.iter().flat_map(|it| operations::paths(it, Flavour::V3)))?;
    out.write_all(br#"},"components":{"schemas":{"#)?;
    write_members(out, schemas_of(&kinds, Flavour::V3, &descriptions))?;
    out.write_all(br#"},"securitySchemes":{"BearerToken":{"description":"Bearer Token authentication","in":"header","name":"authorization","type":"apiKey"}}},"security":[{"BearerToken":[]}]}"#)
}

/// Writes the one document of version 2 as JSON.
pub(crate) fn write_v2(out: &mut impl Write) -> io::Result<()> {
    let descriptions = Descriptions::read()?;
    out.write_all(
        br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1.36.0"},"paths":{"#,
    )?;
    write_members(out, KINDS.iter().flat_map(|it| operations::paths(it, Flavour::V2)))?;
    out.write_all(br#"},"definitions":{"#)?;
    write_members(out, schemas_of(KINDS, Flavour::V2, &descriptions))?;
    out.write_all(b"},\"securityDefinitions\":")?;
    out.write_all(security().to_string().as_bytes())?;
    out.write_all(br#","security":[{"BearerToken":[]}]}"#)
}

fn security() -> Value {
    json!({"BearerToken": {"description": "Bearer Token authentication", "in": "header",
        "name": "authorization", "type": "apiKey"}})
}

/// The one document of version 2 as the messages of gnostic.
pub(crate) fn v2_protobuf() -> io::Result<Vec<u8>> {
    let descriptions = Descriptions::read()?;
    let paths = KINDS.iter().flat_map(|it| operations::paths(it, Flavour::V2));
    Ok(gnostic::document(paths, schemas_of(KINDS, Flavour::V2, &descriptions)))
}

fn write_members(
    out: &mut impl Write,
    members: impl Iterator<Item = (String, Value)>,
) -> io::Result<()> {
    for (index, (name, value)) in members.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(out, "{comma}{}:{value}", Value::String(name))?;
    }
    Ok(())
}

/// The schemas that kinds need, with all that they refer to.
fn schemas_of(
    kinds: &[&Kind],
    flavour: Flavour,
    descriptions: &Descriptions,
) -> impl Iterator<Item = (String, Value)> {
    let mut names: BTreeSet<String> =
        [DELETE_OPTIONS, STATUS, schemas::PATCH, schemas::WATCH_EVENT]
            .into_iter()
            .map(str::to_owned)
            .collect();
    for kind in kinds {
        names.extend([kind.schema.to_owned(), format!("{}List", kind.schema)]);
        if kind.subresources.contains(&Subresource::Scale) {
            names.insert(SCALE.to_owned());
        }
        if kind.subresources.contains(&Subresource::Binding) {
            names.insert(BINDING.to_owned());
        }
        if kind.subresources.contains(&Subresource::Eviction) {
            names.insert(EVICTION.to_owned());
        }
    }
    let mut found = std::collections::BTreeMap::new();
    let mut pending: Vec<_> = names.iter().filter_map(|it| definition(it)).collect();
    while let Some(definition) = pending.pop() {
        if found.insert(definition.name, definition).is_none() {
            pending.extend(definition.fields.iter().filter_map(|it| it.kind.below()));
        }
    }
    let scalars = SCALARS.iter().map(move |it| schemas::scalar(it, flavour, descriptions));
    let objects = found
        .into_values()
        .map(move |it| (it.name.to_owned(), schemas::object(it, flavour, descriptions)));
    scalars.chain(objects)
}

#[cfg(test)]
mod tests;
