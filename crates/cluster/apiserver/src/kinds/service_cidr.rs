//! ServiceCIDRs: ranges that addresses of Services come from.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Causes, Column, Kind,
    network_policy::cidr,
    path::Path,
    print::{self, AGE, NAME, column},
    rules,
    value::Read,
};

pub(super) static SERVICE_CIDR: Kind = Kind {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    namespaced: false,
    schema: "io.k8s.api.networking.v1.ServiceCIDR",
    validate,
    validate_update,
    columns: COLUMNS,
    row: |it, now| {
        let ranges = it.field("spec").items("cidrs").iter().filter_map(Value::as_str);
        let ranges = ranges.collect::<Vec<_>>().join(",");
        vec![print::name(it), ranges.into(), print::age(it, now)]
    },
    unattended: true,
    ..Kind::WITH_STATUS
};

const COLUMNS: &[Column] = &[NAME, column("CIDRs", "The ranges."), AGE];

/// One range of each family.
const RANGES_MAX: usize = 2;

fn validate(range: &Value, causes: &mut Causes) {
    let (spec, path) = (range.field("spec"), Path::new("spec"));
    let list = path.child("cidrs");
    let ranges = spec.items("cidrs");
    if ranges.is_empty() {
        causes.required(list, "at least one CIDR required");
        return;
    }
    if RANGES_MAX < ranges.len() {
        causes.invalid(list, spec, "may only hold up to 2 values");
        return;
    }
    for (index, it) in ranges.iter().enumerate() {
        if cidr(it.as_str().unwrap_or_default()).is_none() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.invalid(list.index(index), it, detail);
        }
    }
    let families: Vec<bool> = ranges
        .iter()
        .filter_map(|it| cidr(it.as_str().unwrap_or_default()))
        .map(|(address, _): (IpAddr, _)| address.is_ipv4())
        .collect();
    if matches!(families.as_slice(), [one, other] if one == other) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                      2001:db8::/64";
        causes.invalid(list, spec.field("cidrs"), detail);
    }
}

/// The second family may be added; all else stays.
fn validate_update(new: &Value, old: &Value, causes: &mut Causes) {
    let path = Path::new("spec");
    let list = path.child("cidrs");
    let (ranges, before) = (new.field("spec").items("cidrs"), old.field("spec").items("cidrs"));
    let added = before.len() == 1 && ranges.len() == RANGES_MAX;
    if ranges.len() != before.len() && !added {
        causes.invalid(list, &json!(ranges), rules::IMMUTABLE);
        return;
    }
    for (index, (range, _)) in ranges.iter().zip(before).enumerate().filter(|it| it.1.0 != it.1.1) {
        causes.invalid(list.index(index), range, rules::IMMUTABLE);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{
        super::testing::{check, check_row, check_update},
        *,
    };

    fn cidrs(it: Value) -> Value {
        json!({"spec": {"cidrs": it}})
    }

    #[test]
    fn one_range_of_each_family() {
        check(
            &SERVICE_CIDR,
            cidrs(json!(null)),
            expect!["spec.cidrs: Required value: at least one CIDR required"],
        );
        check(
            &SERVICE_CIDR,
            cidrs(json!(["10.0.0.0/8", "x"])),
            expect![[
                r#"spec.cidrs[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#
            ]],
        );
        check(
            &SERVICE_CIDR,
            cidrs(json!(["10.0.0.0/8", "11.0.0.0/8"])),
            expect![[
                r#"spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#
            ]],
        );
        check_update(&SERVICE_CIDR, cidrs(json!(["10.96.0.0/16", "fd00::/64"])), expect![""]);
        check_update(
            &SERVICE_CIDR,
            cidrs(json!(["11.0.0.0/8"])),
            expect![[r#"spec.cidrs[0]: Invalid value: "11.0.0.0/8": field is immutable"#]],
        );
        check_row(&SERVICE_CIDR, json!({}), expect!["a | 10.96.0.0/16 | 60m"]);
    }
}
