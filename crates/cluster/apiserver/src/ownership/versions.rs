//! The versions of one kind: who owns fields through one of them owns them in the shape that objects
//! have there. So what a write changes is looked at in every version that some owner knows.
//!
//! As in Kubernetes, an owner through a version that there is not owns nothing any more after the next
//! write.

use std::{borrow::Cow, collections::BTreeSet};

use api::status::Status;
use serde_json::Value;

use super::{compare::compare, owners::Owner, reset, scale, set::Set, shape::Shape, shape_of};
use crate::{
    kinds::{KINDS, Kind, Subresource},
    schema,
};

/// A version of a kind, written through one of its doors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) shape: Shape,
    /// `None` for Scale, which has one version.
    kind: Option<&'static Kind>,
    subresource: Option<Subresource>,
}

/// What a write changes, in a version that it did not come through.
#[derive(Debug)]
pub(super) struct Changes {
    /// Group and version.
    pub(super) api_version: String,
    /// What it sets.
    pub(super) set: Set<'static>,
    /// What it removes.
    pub(super) removed: Set<'static>,
}

impl Version {
    pub(super) fn of(
        kind: &'static Kind,
        subresource: Option<Subresource>,
    ) -> Result<Self, Status> {
        Ok(Self { shape: shape_of(kind.schema)?, kind: Some(kind), subresource })
    }

    pub(super) fn of_scale() -> Result<Self, Status> {
        Ok(Self { shape: shape_of(schema::SCALE)?, kind: None, subresource: None })
    }

    /// What a write cannot change.
    pub(super) fn reset(self) -> Set<'static> {
        self.kind.map(|it| reset::fields(it, self.subresource)).unwrap_or_default()
    }

    /// The version of the same kind that is called `api_version`, if there is one.
    pub(super) fn named(self, api_version: &str) -> Option<Self> {
        if self.is(api_version) {
            return Some(self);
        }
        let stored = |it: &Kind| (it.stored().group, it.stored().version, it.stored().kind);
        let own = stored(self.kind?);
        let mut others = KINDS.iter().copied().filter(|it| stored(it) == own);
        others.find_map(|it| Self::of(it, self.subresource).ok().filter(|it| it.is(api_version)))
    }

    /// An object of this version as one of another.
    pub(super) fn translate<'a>(self, object: &'a Value, to: Self) -> Cow<'a, Value> {
        match (self.kind, to.kind) {
            (Some(from), Some(to)) if (from.group, from.version) != (to.group, to.version) => {
                let mut object = object.clone();
                from.convert_to_stored(&mut object);
                to.convert_from_stored(&mut object);
                Cow::Owned(object)
            }
            _ => Cow::Borrowed(object),
        }
    }

    /// What makes `new` of `old`, in each version but this one that some of `owners` knows and that there
    /// is.
    pub(super) fn elsewhere(
        self,
        owners: &[Owner<'_>],
        (old, new): (&Value, &Value),
    ) -> Result<Vec<Changes>, String> {
        let names: BTreeSet<&str> = owners.iter().map(|it| it.api_version.as_ref()).collect();
        let mut changes = Vec::new();
        for api_version in names.into_iter().filter(|it| !self.is(it)) {
            let Some(there) = self.named(api_version) else { continue };
            let (old, new) = (self.translate(old, there), self.translate(new, there));
            let found = compare(there.shape, &old, &new)?.without(&there.reset());
            changes.push(Changes {
                api_version: api_version.to_owned(),
                set: found.modified.union(found.added).into_owned(),
                removed: found.removed.into_owned(),
            });
        }
        Ok(changes)
    }

    /// Whether this is the version called `api_version`.
    pub(super) fn is(self, api_version: &str) -> bool {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        match self.kind {
            Some(kind) => (kind.group, kind.version) == (group, version),
            None => api_version == scale::API_VERSION,
        }
    }
}
