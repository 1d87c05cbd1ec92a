//! The IP families of a Service, and the addresses that go with them: what is filled in, taken over and
//! refused (KEP-563). Which addresses are free is known elsewhere.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    super::{
        Causes,
        path::Path,
        rules,
        value::{Read, keep, remove, set},
    },
    HEADLESS,
};

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// As objects name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|it| it.as_str() == name)
    }

    const fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";
/// In the order in which errors list them.
const POLICIES: &[&str] = &[PREFER, REQUIRE, SINGLE];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
/// One address of each family.
const ADDRESSES_MAX: usize = 2;
const ONCE_SET: &str = "may not change once set";

pub(super) fn is_external(spec: &Value) -> bool {
    spec.text("type") == "ExternalName"
}

fn is_headless(spec: &Value) -> bool {
    matches!(spec.items("clusterIPs"), [only] if *only == HEADLESS)
}

fn selects(spec: &Value) -> bool {
    spec.members("selector").next().is_some()
}

/// A new Service may name its address in the older field alone.
pub(super) fn complete(spec: &mut Value) {
    let address = spec.text("clusterIP").to_owned();
    if !address.is_empty() && spec.items("clusterIPs").is_empty() {
        set(spec, "clusterIPs", json!([address]));
    }
}

/// Takes over what an update leaves out: it may be the manifest of which the Service was once made, or
/// come from a client that knows the older field alone. What a Service had that becomes an ExternalName
/// goes, unless it was changed as well.
pub(super) fn take_over(spec: &mut Value, old: &Value) {
    if is_external(old) {
        complete(spec);
        return;
    }
    if is_external(spec) {
        if ["clusterIP", "clusterIPs"].iter().all(|it| spec.field(it) == old.field(it)) {
            remove(spec, "clusterIP");
            remove(spec, "clusterIPs");
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.field(name) == old.field(name) {
                remove(spec, name);
            }
        }
        return;
    }
    if spec.text("clusterIP").is_empty() {
        keep(spec, "clusterIP", old);
    }
    if spec.items("clusterIPs").is_empty() {
        keep(spec, "clusterIPs", old);
    }
    if spec.text("clusterIP") != old.text("clusterIP")
        && spec.field("clusterIPs") == old.field("clusterIPs")
    {
        set(spec, "clusterIPs", json!([spec.text("clusterIP")]));
    }
}

/// Fills in policy and families as the cluster's ranges allow. `configured` are the families that it
/// has ranges of, the usual one first.
pub(crate) fn settle(
    spec: &mut Value,
    old: Option<&Value>,
    configured: &[Family],
    causes: &mut Causes,
) {
    if is_external(spec) || old.is_some_and(|it| prefers_as_before(spec, it)) {
        return;
    }
    if !spec.has("ipFamilyPolicy") {
        let before = old.map(|it| it.text("ipFamilyPolicy")).filter(|it| !it.is_empty());
        let free = spec.text("clusterIP") == HEADLESS && !selects(spec);
        let policy = before.unwrap_or(if free { REQUIRE } else { SINGLE }).to_owned();
        set(spec, "ipFamilyPolicy", policy);
    }
    validate(spec, Path::new("spec"), causes);
    if !causes.is_empty() {
        return;
    }
    match old {
        Some(old) if spec.text("ipFamilyPolicy") == SINGLE => reduce(spec, old),
        Some(old) => not_reduced(spec, old, causes),
        None => {}
    }
    not_both(spec, causes);
    let mut families = of_addresses(spec, configured, causes);
    if causes.is_empty() {
        complement(spec, &mut families, configured, causes);
    }
    if causes.is_empty() {
        let names: Vec<&str> = families.into_iter().map(Family::as_str).collect();
        set(spec, "ipFamilies", names);
    }
}

/// Whether a Service that takes what there is stays as it is: a cluster that got or lost a family since
/// changes none.
fn prefers_as_before(spec: &Value, old: &Value) -> bool {
    let list = |it: &Value, name: &str| it.items(name).to_vec();
    [spec, old].iter().all(|it| it.text("ipFamilyPolicy") == PREFER)
        && ["clusterIPs", "ipFamilies"].iter().all(|it| list(spec, it) == list(old, it))
}

/// To ask for a single family gives the second one back.
fn reduce(spec: &mut Value, old: &Value) {
    let same_addresses =
        ["clusterIP", "clusterIPs"].iter().all(|it| spec.field(it) == old.field(it));
    if same_addresses {
        shorten(spec, "clusterIPs");
    }
    if spec.field("ipFamilies") == old.field("ipFamilies") {
        shorten(spec, "ipFamilies");
    }
}

fn shorten(spec: &mut Value, name: &str) {
    if let Some(list) = spec.get_mut(name).and_then(Value::as_array_mut) {
        list.truncate(1);
    }
}

/// Under any other policy nothing is given back by leaving it out of a list.
fn not_reduced(spec: &Value, old: &Value, causes: &mut Causes) {
    for (name, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let count = spec.items(name).len();
        if count != 0 && count < old.items(name).len() {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            causes.invalid("spec.ipFamilyPolicy", spec.field("ipFamilyPolicy"), &detail);
        }
    }
}

fn not_both(spec: &Value, causes: &mut Causes) {
    if spec.text("ipFamilyPolicy") != SINGLE {
        return;
    }
    for (name, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if spec.items(name).len() == ADDRESSES_MAX {
            let detail = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            causes.invalid("spec.ipFamilyPolicy", spec.field("ipFamilyPolicy"), &detail);
        }
    }
}

/// The families that are named, and those of the addresses that have none named.
fn of_addresses(spec: &Value, configured: &[Family], causes: &mut Causes) -> Vec<Family> {
    let mut families = named(spec);
    let unnamed = spec.items("clusterIPs").iter().enumerate().skip(families.len());
    for (index, address) in unnamed {
        let Some(family) = address.as_str().and_then(|it| it.parse().ok()).map(Family::of) else {
            continue;
        };
        if configured.contains(&family) {
            families.push(family);
        } else {
            let detail = format!("{} is not configured on this cluster", family.as_str());
            let path = format!("spec.clusterIPs[{index}]");
            causes.invalid(path, spec.field("clusterIPs"), &detail);
        }
    }
    families
}

fn named(spec: &Value) -> Vec<Family> {
    let names = spec.items("ipFamilies").iter().filter_map(Value::as_str);
    names.filter_map(Family::named).collect()
}

/// Adds the families that the policy is about. A headless Service without selector has its addresses from
/// whoever writes its endpoints, so it may have families that the cluster has not.
fn complement(
    spec: &Value,
    families: &mut Vec<Family>,
    configured: &[Family],
    causes: &mut Causes,
) {
    let free = spec.text("clusterIP") == HEADLESS && !selects(spec);
    let policy = spec.text("ipFamilyPolicy");
    let dual = configured.len() == ADDRESSES_MAX;
    if !free {
        if policy == REQUIRE && !dual {
            let detail = "this cluster is not configured for dual-stack services";
            causes.invalid("spec.ipFamilyPolicy", spec.field("ipFamilyPolicy"), detail);
        }
        for (index, family) in families.iter().enumerate() {
            if !configured.contains(family) {
                let path = format!("spec.ipFamilies[{index}]");
                causes.invalid(path, &json!(family.as_str()), "not configured on this cluster");
            }
        }
    }
    if families.is_empty() {
        families.extend(configured.first());
    }
    if let [only] = *families.as_slice()
        && policy != SINGLE
        && (free || dual)
    {
        families.push(only.other());
    }
}

/// The form of the fields, whatever the cluster has.
pub(super) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    if is_external(spec) {
        for name in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let empty = spec.items(name).is_empty() && spec.text(name).is_empty();
            if !empty {
                causes.forbidden(path.child(name), "may not be set for ExternalName services");
            }
        }
        return;
    }
    let list = path.child("clusterIPs");
    let addresses = spec.items("clusterIPs");
    match (spec.text("clusterIP"), addresses.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            causes.invalid(list, spec.field("clusterIPs"), detail);
        }
        (_, None) => causes.required(list, ""),
        (address, Some(first)) if first != address => {
            let detail = "first value must match `clusterIP`";
            causes.invalid(list, spec.field("clusterIPs"), detail);
        }
        _ => {}
    }
    families(spec, path, causes);
    if spec.has("ipFamilyPolicy") {
        rules::one_of(spec, "ipFamilyPolicy", POLICIES, path, causes);
    }
    self::addresses(spec, list, causes);
}

fn families(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("ipFamilies");
    let families = spec.items("ipFamilies");
    for (index, family) in families.iter().enumerate() {
        if !FAMILIES.iter().any(|it| family == it) {
            causes.not_supported(list.index(index), family, FAMILIES);
        }
        if families.iter().take(index).any(|it| it == family) {
            causes.duplicate(list.index(index), family);
        }
    }
}

fn addresses(spec: &Value, list: Path<'_>, causes: &mut Causes) {
    let addresses = spec.items("clusterIPs");
    let mut parsed: Vec<Family> = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        if index == 0 && address == HEADLESS {
            if addresses.len() > 1 {
                let detail = "'None' must be the first and only value";
                causes.invalid(list, spec.field("clusterIPs"), detail);
            }
            continue;
        }
        let text = address.as_str().unwrap_or_default();
        rules::ip(text, list.index(index), causes);
        parsed.extend(text.parse().ok().map(Family::of));
    }
    if addresses.len() > ADDRESSES_MAX {
        let detail = "may only hold up to 2 values";
        causes.invalid(list, spec.field("clusterIPs"), detail);
    }
    // The rest would speak of the wrong ones.
    if parsed.len() != addresses.len() {
        return;
    }
    if parsed.len() > 1 && (parsed.len() > ADDRESSES_MAX || parsed.first() == parsed.last()) {
        let detail = "may specify no more than one IP for each IP family";
        causes.invalid(list, spec.field("clusterIPs"), detail);
    }
    for (index, (address, family)) in addresses.iter().zip(spec.items("ipFamilies")).enumerate() {
        let Some(wanted) = family.as_str().and_then(Family::named) else { continue };
        if parsed.get(index) != Some(&wanted) {
            let detail = format!(
                "expected an {} value as indicated by `ipFamilies[{index}]`",
                wanted.as_str()
            );
            causes.invalid(list.index(index), address, &detail);
        }
    }
}

/// The first address and family stay; a second one comes and goes with the policy.
pub(super) fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    if is_external(new) || is_external(old) {
        return;
    }
    let headless = (is_headless(old), is_headless(new));
    if headless != (true, true) {
        addresses_update(new, old, causes);
    }
    // Whose headless state changes is told so above.
    if headless == (false, false) {
        families_update(new, old, causes);
    }
}

fn addresses_update(new: &Value, old: &Value, causes: &mut Causes) {
    let (addresses, before) = (new.items("clusterIPs"), old.items("clusterIPs"));
    let list = Path::new("spec");
    let list = list.child("clusterIPs");
    let mut changed = |index: usize| {
        causes.invalid(list.index(index), new.field("clusterIPs"), ONCE_SET);
    };
    if addresses.len() == before.len() {
        for index in 0..before.len() {
            if addresses.get(index) != before.get(index) {
                changed(index);
            }
        }
        return;
    }
    if let (Some(first), Some(was)) = (addresses.first(), before.first())
        && first != was
    {
        changed(0);
    }
    released(new, old, "clusterIPs", "clusterIP", causes);
}

fn families_update(new: &Value, old: &Value, causes: &mut Causes) {
    let (families, before) = (new.items("ipFamilies"), old.items("ipFamilies"));
    let differ = if families.len() == before.len() {
        families != before
    } else {
        matches!((families.first(), before.first()), (Some(first), Some(was)) if first != was)
    };
    if differ {
        causes.invalid("spec.ipFamilies[0]", new.field("ipFamilies"), ONCE_SET);
    }
    released(new, old, "ipFamilies", "ipFamily", causes);
}

fn released(new: &Value, old: &Value, name: &str, what: &str, causes: &mut Causes) {
    let (count, before) = (new.items(name).len(), old.items(name).len());
    if count >= before {
        return;
    }
    if count == 0 {
        let path = format!("spec.{name}[0]");
        causes.invalid(path, new.field(name), &format!("primary {what} can not be unset"));
    }
    if count == 1 && new.text("ipFamilyPolicy") != SINGLE {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        causes.invalid("spec.ipFamilyPolicy", new.field("ipFamilyPolicy"), &detail);
    }
}
