//! What a write that is no apply does to the owners: who changes a field owns it.

use std::borrow::Cow;

use super::{
    compare::Comparison,
    owners::{Owner, cap},
    set::Set,
    versions::Changes,
};

/// The owners after `writer`, whose `fields` are empty, made the changes of `comparison`, which are those of
/// `elsewhere` in other versions.
pub(super) fn update<'a>(
    owners: Vec<Owner<'a>>,
    comparison: Comparison<'a>,
    elsewhere: &[Changes],
    (mut writer, unowned): (Owner<'a>, &Set<'_>),
) -> Vec<Owner<'a>> {
    let Comparison { removed, modified, added } = comparison;
    let set = modified.union(added);
    let mut owners = let_go(owners, &writer.api_version, (&set, &removed), elsewhere);
    writer.fields = set.difference(unowned);
    if !writer.fields.is_empty() {
        match owners.iter_mut().find(|it| it.is(&writer)) {
            Some(found) => {
                found.fields = std::mem::take(&mut found.fields).union(writer.fields);
                found.time = writer.time;
            }
            None => owners.push(writer),
        }
    }
    cap(owners)
}

/// The owners without what somebody else has set or removed through the version `here`. Who owns through a
/// version that is neither this one nor one of `elsewhere` owns nothing any more.
pub(super) fn let_go<'a>(
    owners: Vec<Owner<'a>>,
    here: &str,
    (set, removed): (&Set<'_>, &Set<'_>),
    elsewhere: &[Changes],
) -> Vec<Owner<'a>> {
    let less = |mut owner: Owner<'a>| {
        owner.fields = if owner.api_version == here {
            owner.fields.difference(set).difference(removed)
        } else {
            let there = elsewhere.iter().find(|it| it.api_version == owner.api_version)?;
            owner.fields.difference(&there.set).difference(&there.removed)
        };
        (!owner.fields.is_empty()).then_some(owner)
    };
    owners.into_iter().filter_map(less).collect()
}

/// A writer that owns nothing yet.
pub(super) fn writer<'a>(
    manager: &'a str,
    operation: super::owners::Operation,
    api_version: Cow<'a, str>,
    subresource: &'a str,
    time: &'a str,
) -> Owner<'a> {
    let manager = if manager.is_empty() { "unknown" } else { manager };
    Owner {
        manager: Cow::Borrowed(manager),
        operation,
        api_version,
        subresource: Cow::Borrowed(subresource),
        time: Some(Cow::Borrowed(time)),
        fields: Set::default(),
    }
}
