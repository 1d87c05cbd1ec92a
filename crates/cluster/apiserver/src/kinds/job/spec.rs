//! The specification of a job: its defaults and its rules, but for the selector, which only a job
//! itself has.

use std::collections::BTreeSet;

use api::names;
use serde_json::Value;

use crate::kinds::{
    Causes,
    path::Path,
    pod_spec, pods_by_template, rules,
    value::{Read, items_mut, set_default},
};

/// How often a failed pod is tried again.
const BACKOFF_LIMIT: i64 = 6;
/// Most pods at once of a job whose pods have numbers, and most numbers that may fail.
const INDEXED_MAX: i64 = 100_000;
/// The same where there are more numbers than that and each is tried again on its own.
const INDEXED_MAX_OF_MANY: i64 = 10_000;
/// Rules of a policy.
const RULES_MAX: usize = 20;
/// Exit codes or conditions in one rule.
const EXIT_CODES_MAX: usize = 255;
/// Bytes of the name of who looks after a job.
const MANAGED_BY_MAX: usize = 63;
/// Bytes of a list of numbers.
const INDEXES_BYTES_MAX: usize = 64 * 1024;

/// Fills in what is not given.
pub(in crate::kinds) fn default(spec: &mut Value) {
    if !spec.has("parallelism") {
        set_default(spec, "completions", 1);
        set_default(spec, "parallelism", 1);
    }
    let limit = if spec.has("backoffLimitPerIndex") { i64::from(i32::MAX) } else { BACKOFF_LIMIT };
    set_default(spec, "backoffLimit", limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let replacement = if spec.has("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_default(spec, "podReplacementPolicy", replacement);
    default_template(spec);
}

/// Fills in what a template of jobs gets: that of pods, and nothing of the job itself.
pub(in crate::kinds) fn default_template(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|it| set_default(it, "status", "True"));
        }
    }
    pods_by_template::default(spec);
}

/// Checks everything but the selector.
pub(in crate::kinds) fn validate(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        rules::not_negative(spec, name, path, causes);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        let detail = "when maxFailedIndexes is specified";
        causes.required(path.child("backoffLimitPerIndex"), detail);
    }
    if let Some(manager) = spec.field("managedBy").as_str() {
        rules::domain_prefixed_path(manager, path.child("managedBy"), causes);
        if MANAGED_BY_MAX < manager.len() {
            rules::too_long(path.child("managedBy"), MANAGED_BY_MAX, causes);
        }
    }
    completion(spec, path, causes);
    failure_policy(spec, path.child("podFailurePolicy"), causes);
    success_policy(spec, path.child("successPolicy"), causes);
    replacement_policy(spec, path.child("podReplacementPolicy"), causes);
    pod_spec::any_template(spec.field("template"), path.child("template"), causes);
    restart_policy(spec, path, causes);
}

fn completion(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    rules::optional_one_of(spec, "completionMode", &["NonIndexed", "Indexed"], path, causes);
    if spec.text("completionMode") != "Indexed" {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.has(name) {
                let detail = "requires indexed completion mode";
                causes.invalid(path.child(name), spec.field(name), detail);
            }
        }
        return;
    }
    let completions = spec.int("completions");
    if completions.is_none() {
        causes.required(path.child("completions"), "when completion mode is Indexed");
    }
    let mut at_most = |name: &str, max: i64, when: &str| {
        if spec.int(name).is_some_and(|it| max < it) {
            let detail = format!("must be less than or equal to {max}{when}");
            causes.invalid(path.child(name), spec.field(name), &detail);
        }
    };
    at_most("parallelism", INDEXED_MAX, " when completion mode is Indexed");
    at_most("maxFailedIndexes", INDEXED_MAX, "");
    let many = completions.is_some_and(|it| INDEXED_MAX < it) && spec.has("backoffLimitPerIndex");
    if many {
        let when = format!(
            " when completions are above {INDEXED_MAX} and used with backoff limit per index"
        );
        at_most("parallelism", INDEXED_MAX_OF_MANY, &when);
        at_most("maxFailedIndexes", INDEXED_MAX_OF_MANY, &when);
    }
    if many && !spec.has("maxFailedIndexes") {
        let detail = format!("must be specified when completions is above {INDEXED_MAX}");
        causes.required(path.child("maxFailedIndexes"), &detail);
    }
    if let (Some(all), Some(failed)) = (completions, spec.int("maxFailedIndexes"))
        && all < failed
    {
        let detail = "must be less than or equal to completions";
        causes.invalid(path.child("maxFailedIndexes"), &failed.into(), detail);
    }
}

fn failure_policy(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let list = path.child("rules");
    let policy_rules = spec.field("podFailurePolicy").items("rules");
    rules::not_too_many(policy_rules.len(), RULES_MAX, list, causes);
    for (index, rule) in policy_rules.iter().enumerate() {
        let path = list.index(index);
        match rule.text("action") {
            "" => causes
                .required(path.child("action"), &format!("valid values: {}", listed(&ACTIONS))),
            "FailIndex" if !spec.has("backoffLimitPerIndex") => {
                let detail = "requires the backoffLimitPerIndex to be set";
                causes.invalid(path.child("action"), rule.field("action"), detail);
            }
            _ => rules::one_of(rule, "action", &ACTIONS, path, causes),
        }
        if rule.has("onExitCodes") {
            exit_codes(rule.field("onExitCodes"), spec, path.child("onExitCodes"), causes);
        }
        conditions(rule, path, causes);
        let detail = match (rule.has("onExitCodes"), rule.items("onPodConditions").is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        causes.push(crate::kinds::Reason::Invalid, path, format!("Invalid value: {detail}"));
    }
}

/// `["a" "b"]`, as the original lists texts inside a sentence.
fn listed(texts: &[&str]) -> String {
    let quoted: Vec<String> = texts.iter().map(|it| format!("{it:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn conditions(rule: &Value, path: Path<'_>, causes: &mut Causes) {
    let list = path.child("onPodConditions");
    let patterns = rule.items("onPodConditions");
    rules::not_too_many(patterns.len(), RULES_MAX, list, causes);
    for (index, pattern) in patterns.iter().enumerate() {
        let path = list.index(index);
        let kind = pattern.text("type");
        rules::all(names::qualified_name(kind), path.child("type"), kind, causes);
        let statuses = ["False", "True", "Unknown"];
        rules::one_of(pattern, "status", &statuses, path, causes);
    }
}

fn exit_codes(codes: &Value, spec: &Value, path: Path<'_>, causes: &mut Causes) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    match codes.text("operator") {
        "" => causes
            .required(path.child("operator"), &format!("valid values: {}", listed(&OPERATORS))),
        _ => rules::one_of(codes, "operator", &OPERATORS, path, causes),
    }
    if let Some(name) = codes.field("containerName").as_str() {
        let pod = spec.at(&["template", "spec"]);
        let mut containers = pod.items("containers").iter().chain(pod.items("initContainers"));
        if !containers.any(|it| it.text("name") == name) {
            let detail = "must be one of the container or initContainer names in the pod template";
            causes.invalid(path.child("containerName"), &name.into(), detail);
        }
    }
    let list = path.child("values");
    let values = codes.items("values");
    if values.is_empty() {
        causes.invalid(list, &serde_json::json!([]), "at least one value is required");
    }
    rules::not_too_many(values.len(), EXIT_CODES_MAX, list, causes);
    let mut seen = BTreeSet::new();
    let numbers: Vec<i64> = values.iter().map(|it| it.as_i64().unwrap_or_default()).collect();
    for (index, number) in numbers.iter().enumerate() {
        if *number == 0 && codes.text("operator") == "In" {
            causes.invalid(list.index(index), &0.into(), "must not be 0 for the In operator");
        }
        if !seen.insert(*number) {
            causes.duplicate(list.index(index), &(*number).into());
        }
    }
    if !numbers.is_sorted() {
        causes.invalid(list, codes.field("values"), "must be ordered");
    }
}

fn success_policy(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    if !spec.has("successPolicy") {
        return;
    }
    let policy = spec.field("successPolicy");
    if spec.text("completionMode") != "Indexed" {
        causes.invalid(path, policy, "requires indexed completion mode");
        return;
    }
    let list = path.child("rules");
    let policy_rules = policy.items("rules");
    if policy_rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        causes.required(list, detail);
    }
    rules::not_too_many(policy_rules.len(), RULES_MAX, list, causes);
    let completions = spec.int("completions").unwrap_or_default();
    for (index, rule) in policy_rules.iter().enumerate() {
        let path = list.index(index);
        if !rule.has("succeededCount") && !rule.has("succeededIndexes") {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            causes.required(path, detail);
        }
        if INDEXES_BYTES_MAX < rule.text("succeededIndexes").len() {
            rules::too_long(path.child("succeededIndexes"), INDEXES_BYTES_MAX, causes);
        }
        rules::not_negative(rule, "succeededCount", path, causes);
        if rule.int("succeededCount").is_some_and(|it| completions < it) {
            let detail = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            let value = rule.field("succeededCount");
            causes.invalid(path.child("succeededCount"), value, &detail);
        }
    }
}

fn replacement_policy(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let policy = spec.field("podReplacementPolicy");
    let supported: &[&str] =
        if spec.has("podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if policy.as_str().is_some_and(|it| !supported.contains(&it)) {
        causes.not_supported(path, policy, supported);
    }
}

fn restart_policy(spec: &Value, path: Path<'_>, causes: &mut Causes) {
    let path = path.child("template");
    let path = path.child("spec");
    let path = path.child("restartPolicy");
    let policy = spec.at(&["template", "spec", "restartPolicy"]);
    match policy.as_str().unwrap_or_default() {
        "" | "Always" => causes.required(path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.has("podFailurePolicy") => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            causes.invalid(path, policy, detail);
        }
        "OnFailure" | "Never" => {}
        _ => causes.not_supported(path, policy, &["OnFailure", "Never"]),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use crate::kinds::{job::JOB, testing::check};

    use super::*;

    fn spec(it: Value) -> Value {
        json!({"spec": it})
    }

    #[test]
    fn numbers_go_together() {
        check(
            &JOB,
            spec(json!({"parallelism": -1, "maxFailedIndexes": 1, "managedBy": "me"})),
            expect![[r#"
                spec.parallelism: Invalid value: -1: must be greater than or equal to 0
                spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified
                spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")
                spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode"#]],
        );
        check(
            &JOB,
            spec(json!({"completionMode": "Indexed", "completions": 200_000,
                "parallelism": 100_001, "backoffLimitPerIndex": 1})),
            expect![[r#"
                spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed
                spec.parallelism: Invalid value: 100001: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index
                spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"#]],
        );
    }

    #[test]
    fn policies_are_checked() {
        let codes = json!({"operator": "In", "values": [0, 5, 3, 3], "containerName": "x"});
        let policy = json!({"rules": [{"onExitCodes": codes}, {"action": "FailIndex"},
            {"action": "Count", "onPodConditions": [{"type": "a b"}]}]});
        check(
            &JOB,
            spec(json!({"podFailurePolicy": policy, "podReplacementPolicy": "TerminatingOrFailed",
                "template": {"spec": {"restartPolicy": "OnFailure"}}})),
            expect![[r#"
                spec.podFailurePolicy.rules[0].action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]
                spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template
                spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator
                spec.podFailurePolicy.rules[0].onExitCodes.values[3]: Duplicate value: 3
                spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,5,3,3]: must be ordered
                spec.podFailurePolicy.rules[1].action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set
                spec.podFailurePolicy.rules[1]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required
                spec.podFailurePolicy.rules[2].onPodConditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
                spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"
                spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified"#]],
        );
        check(
            &JOB,
            spec(json!({"completionMode": "Indexed", "completions": 2,
                "successPolicy": {"rules": [{}, {"succeededCount": 3}]}})),
            expect![[r#"
                spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified
                spec.successPolicy.rules[1].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of specified completions)"#]],
        );
        check(
            &JOB,
            spec(json!({"successPolicy": {}})),
            expect!["spec.successPolicy: Invalid value: {}: requires indexed completion mode"],
        );
    }

    #[test]
    fn defaults_depend() {
        let defaulted = |mut it: Value| {
            default(&mut it);
            [it["completions"].clone(), it["parallelism"].clone(), it["backoffLimit"].clone()]
        };
        assert_eq!(defaulted(json!({})), [json!(1), json!(1), json!(6)]);
        assert_eq!(defaulted(json!({"parallelism": 3})), [json!(null), json!(3), json!(6)]);
        assert_eq!(defaulted(json!({"completions": 3})), [json!(3), json!(1), json!(6)]);
    }
}
