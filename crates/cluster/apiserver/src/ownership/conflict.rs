//! Fields that two managers want to own, and how the original words that.

use std::collections::BTreeMap;

use api::status::{Cause, Reason, Status};

use super::{owners::Owner, set::Set};

/// One field, and who owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    owner: String,
    path: String,
}

impl Conflict {
    pub(super) fn all(owner: &Owner<'_>, fields: &Set<'_>) -> Vec<Self> {
        let owner = owner.shown();
        let conflict = |path| Self { owner: owner.clone(), path };
        fields.paths().into_iter().map(conflict).collect()
    }
}

/// 409 with a cause a field.
pub(super) fn status(conflicts: &[Conflict]) -> Status {
    let mut status = Status::new(Reason::Conflict, message(conflicts));
    for it in conflicts {
        status = status.with_cause(Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", it.owner),
            field: it.path.clone(),
        });
    }
    status
}

fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.owner, only.path
        );
    }
    let mut by_owner: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for it in conflicts {
        by_owner.entry(&it.owner).or_default().push(&it.path);
    }
    let mut lines = Vec::new();
    for (owner, paths) in by_owner {
        lines.push(format!("conflicts with {owner}:"));
        lines.extend(paths.iter().map(|it| format!("- {it}")));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
