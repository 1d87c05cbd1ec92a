//! Server-side apply: an object as an applier wants it, laid over the object as it is.
//!
//! The rules are those of structured-merge-diff (`merge.Updater`) and of Kubernetes' field managers
//! around it.

use serde_json::Value;

use super::{
    compare::compare,
    conflict::Conflict,
    fields::{fields, with_named},
    last_applied,
    merge::merge,
    owners::Owner,
    remove::remove,
    set::Set,
    shape::Shape,
    update::let_go,
};

/// One apply, all of it valid.
pub(super) struct Apply<'a> {
    pub(super) shape: Shape,
    pub(super) live: &'a Value,
    pub(super) wanted: &'a Value,
    pub(super) owners: Vec<Owner<'a>>,
    /// Who applies; owns nothing yet.
    pub(super) applier: Owner<'a>,
    /// What the applier cannot set.
    pub(super) reset: &'a Set<'static>,
    pub(super) unowned: &'a Set<'static>,
    pub(super) force: bool,
}

/// What an apply comes to.
pub(super) struct Applied<'a> {
    /// The new object; `None` if it is the live one.
    pub(super) object: Option<Value>,
    pub(super) owners: Vec<Owner<'a>>,
}

/// Why an apply did not happen.
pub(super) enum Refused {
    /// Others own what the applier wants to change.
    Conflicts(Vec<Conflict>),
    /// A list of the live object cannot be owned item by item.
    Broken(String),
}

impl<'a> Apply<'a> {
    pub(super) fn run(self) -> Result<Applied<'a>, Refused> {
        let merged = merge(self.shape, self.live, self.wanted);
        let mut applier = self.applier.clone();
        applier.fields = fields(self.shape, self.wanted).without(self.reset);
        let before = self.owners.iter().find(|it| it.is(&applier));
        let last = before.map(|it| it.fields.clone()).unwrap_or_default();
        let others: Vec<Owner<'a>> =
            self.owners.iter().filter(|it| !it.is(&applier)).cloned().collect();
        let new = prune(self.shape, merged, &last, &others, &applier.fields);
        let comparison = compare(self.shape, self.live, &new).map_err(Refused::Broken)?;
        let comparison = comparison.without(self.reset);
        let set = comparison.modified.clone().union(comparison.added.clone());
        if !self.force {
            self.refuse_conflicts(&others, &set)?;
        }
        let mut owners = let_go(others, &set, &comparison.removed);
        // The applier keeps what it wants, whatever the comparison says.
        let same = super::element::same(self.live, &new);
        applier.fields = applier.fields.difference(self.unowned);
        if same {
            applier.time = before.and_then(|it| it.time.clone());
        }
        if !applier.fields.is_empty() {
            owners.push(applier);
        }
        Ok(Applied { object: (!same).then_some(new), owners })
    }

    fn refuse_conflicts(&self, others: &[Owner<'a>], set: &Set<'_>) -> Result<(), Refused> {
        let mut conflicts = Vec::new();
        for owner in others {
            let taken = owner.fields.clone().intersection(set);
            if !taken.is_empty() {
                conflicts.push((owner, taken));
            }
        }
        if self.applier.manager == last_applied::MANAGER && !conflicts.is_empty() {
            // What kubectl's client-side apply had set, its server-side apply may take over.
            let before = last_applied::allowed(self.shape, self.live, &self.applier.api_version);
            if let Some(allowed) = before {
                for (_, taken) in &mut conflicts {
                    *taken = std::mem::take(taken).difference(&allowed);
                }
                conflicts.retain(|(_, taken)| !taken.is_empty());
            }
        }
        let conflicts: Vec<_> =
            conflicts.iter().flat_map(|(owner, taken)| Conflict::all(owner, taken)).collect();
        if conflicts.is_empty() { Ok(()) } else { Err(Refused::Conflicts(conflicts)) }
    }
}

/// `merged` without what the applier has set before, no longer sets, and nobody else owns.
fn prune(
    shape: Shape,
    merged: Value,
    last: &Set<'_>,
    others: &[Owner<'_>],
    wanted: &Set<'_>,
) -> Value {
    if last.is_empty() {
        return merged;
    }
    let last = with_named(Some(shape), last);
    let all = with_named(Some(shape), &fields(shape, &merged));
    // First everything that was the applier's goes, then what has an owner comes back, and then what
    // the first step took along although it never was the applier's.
    let pruned = remove(shape, &merged, &last);
    let left = with_named(Some(shape), &fields(shape, &pruned));
    let owned = others.iter().map(|it| &it.fields).chain([wanted]);
    let owned = Set::union_all(owned.map(|it| with_named(Some(shape), it)).collect());
    let gone = all.clone().difference(&left).difference(&owned);
    let pruned = remove(shape, &merged, &gone);
    let left = with_named(Some(shape), &fields(shape, &pruned));
    let gone = all.difference(&left).intersection(&last);
    remove(shape, &merged, &gone)
}
