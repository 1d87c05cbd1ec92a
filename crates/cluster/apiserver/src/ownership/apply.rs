//! Server-side apply: an object as an applier wants it, laid over the object as it is.
//!
//! The rules are those of structured-merge-diff (`merge.Updater`) and of Kubernetes' field managers
//! around it.

use std::collections::BTreeMap;

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
    update::let_go,
    versions::{Changes, Version},
};

/// One apply, all of it valid.
pub(super) struct Apply<'a> {
    /// The version that the applier speaks.
    pub(super) version: Version,
    pub(super) live: &'a Value,
    pub(super) wanted: &'a Value,
    pub(super) owners: Vec<Owner<'a>>,
    /// Who applies; owns nothing yet.
    pub(super) applier: Owner<'a>,
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
        let (shape, reset) = (self.version.shape, self.version.reset());
        let merged = merge(shape, self.live, self.wanted);
        let mut applier = self.applier.clone();
        applier.fields = fields(shape, self.wanted).without(&reset);
        let before = self.owners.iter().find(|it| it.is(&applier));
        let others: Vec<Owner<'a>> =
            self.owners.iter().filter(|it| !it.is(&applier)).cloned().collect();
        let new = match before {
            Some(last) => prune(self.version, merged, last, (&others, &applier)),
            None => merged,
        };
        let comparison = compare(shape, self.live, &new).map_err(Refused::Broken)?;
        let comparison = comparison.without(&reset);
        let set = comparison.modified.clone().union(comparison.added.clone());
        let elsewhere = self.version.elsewhere(&others, (self.live, &new));
        let elsewhere = elsewhere.map_err(Refused::Broken)?;
        if !self.force {
            self.refuse_conflicts(&others, &set, &elsewhere)?;
        }
        let here = &applier.api_version;
        let mut owners = let_go(others, here, (&set, &comparison.removed), &elsewhere);
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

    fn refuse_conflicts(
        &self,
        others: &[Owner<'a>],
        set: &Set<'_>,
        elsewhere: &[Changes],
    ) -> Result<(), Refused> {
        let mut conflicts = Vec::new();
        for owner in others {
            let there = elsewhere.iter().find(|it| it.api_version == owner.api_version);
            let set = match there {
                Some(there) => &there.set,
                None if self.version.is(&owner.api_version) => set,
                // There is no such version, so there is nothing left to own.
                None => continue,
            };
            let taken = owner.fields.clone().intersection(set);
            if !taken.is_empty() {
                conflicts.push((owner, taken));
            }
        }
        if self.applier.manager == last_applied::MANAGER && !conflicts.is_empty() {
            // What kubectl's client-side apply had set, its server-side apply may take over.
            let before =
                last_applied::allowed(self.version.shape, self.live, &self.applier.api_version);
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

/// `merged` without what the applier has set before, no longer sets, and nobody else owns. What it has
/// set before is known in the version of that time, what others own in theirs.
fn prune(
    version: Version,
    merged: Value,
    last: &Owner<'_>,
    (others, applier): (&[Owner<'_>], &Owner<'_>),
) -> Value {
    let Some(then) = version.named(&last.api_version).filter(|_| !last.fields.is_empty()) else {
        return merged;
    };
    let last = with_named(Some(then.shape), &last.fields);
    let all_then = version.translate(&merged, then);
    // First everything that was the applier's goes, then what has an owner comes back, and then what
    // the first step took along although it never was the applier's.
    let mut pruned = remove(then.shape, &all_then, &last);
    let mut at = then;
    let mut owners: BTreeMap<&str, Vec<&Owner<'_>>> = BTreeMap::new();
    for owner in others.iter().chain([applier]) {
        owners.entry(&owner.api_version).or_default().push(owner);
    }
    // That version first: an object may lack what a translation needs.
    let mut owners: Vec<_> = owners.into_iter().collect();
    owners.sort_by_key(|(name, _)| !then.is(name));
    for (name, owners) in owners {
        let Some(there) = version.named(name) else { continue };
        let shape = there.shape;
        let merged = then.translate(&all_then, there);
        let all = with_named(Some(shape), &fields(shape, &merged));
        let left = at.translate(&pruned, there);
        let left = with_named(Some(shape), &fields(shape, &left));
        let owned = owners.into_iter().map(|it| with_named(Some(shape), &it.fields)).collect();
        let gone = all.difference(&left).difference(&Set::union_all(owned));
        pruned = remove(shape, &merged, &gone);
        at = there;
    }
    let pruned = at.translate(&pruned, then);
    let all = with_named(Some(then.shape), &fields(then.shape, &all_then));
    let left = with_named(Some(then.shape), &fields(then.shape, &pruned));
    let gone = all.difference(&left).intersection(&last);
    let pruned = remove(then.shape, &all_then, &gone);
    then.translate(&pruned, version).into_owned()
}
