//! What a write that is no apply does to the owners: who changes a field owns it.

use std::borrow::Cow;

use super::{
    compare::Comparison,
    owners::{Owner, cap},
    set::Set,
};

/// The owners after `writer`, whose `fields` are empty, made the changes of `comparison`.
pub(super) fn update<'a>(
    owners: Vec<Owner<'a>>,
    comparison: Comparison<'a>,
    mut writer: Owner<'a>,
    unowned: &Set<'_>,
) -> Vec<Owner<'a>> {
    let Comparison { removed, modified, added } = comparison;
    let set = modified.union(added);
    let mut owners = let_go(owners, &set, &removed);
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

/// The owners without what somebody else has set or removed.
pub(super) fn let_go<'a>(
    owners: Vec<Owner<'a>>,
    set: &Set<'_>,
    removed: &Set<'_>,
) -> Vec<Owner<'a>> {
    let less = |mut owner: Owner<'a>| {
        owner.fields = owner.fields.difference(set).difference(removed);
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
