//! Profiles of one's own (`Localhost`): JSON as the OCI runtime specification has it, which containerd reads
//! as well. What it ignores is ignored here: names that this architecture has no call for, and conditions
//! of Docker's format.

use serde::Deserialize;

use super::{
    compile::{ALLOW, Comparison, Condition, ERRNO, KILL_PROCESS, Rule, Rules},
    names,
};

/// SECCOMP_RET_KILL_THREAD, _TRAP, _TRACE and _LOG of linux/seccomp.h.
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;

/// Highest error number, and highest argument: MAX_ERRNO of linux/err.h, and six arguments.
const ERRNO_MAX: u32 = 4095;
const INDEX_MAX: u8 = 5;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// The rules of a profile.
///
/// # Errors
/// What cannot be understood or done, for people.
pub(super) fn rules(text: &str) -> Result<Rules, String> {
    let profile: Profile = serde_json::from_str(text).map_err(|it| it.to_string())?;
    if profile.listener_path.is_some() {
        return Err("`listenerPath` is not supported".to_owned());
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules = Rules { default, calls: std::collections::BTreeMap::new() };
    for calls in profile.syscalls {
        let action = action(&calls.action, calls.errno_ret)?;
        let alternatives = alternatives(action, calls.args.unwrap_or_default())?;
        for number in calls.names.iter().filter_map(|it| names::number(it)) {
            rules.calls.entry(number).or_default().extend(alternatives.iter().cloned());
        }
    }
    for rules in rules.calls.values_mut() {
        // One without conditions is for all that no other one is about.
        rules.sort_by_key(|it| it.conditions.is_empty());
    }
    Ok(rules)
}

/// All conditions must hold, but of several on one argument any will do: so runc reads them.
fn alternatives(action: u32, arguments: Vec<Argument>) -> Result<Vec<Rule>, String> {
    let conditions: Vec<Condition> =
        arguments.into_iter().map(condition).collect::<Result<_, String>>()?;
    let repeated = conditions
        .iter()
        .enumerate()
        .any(|(at, one)| conditions.iter().skip(at + 1).any(|other| one.index == other.index));
    Ok(if repeated {
        conditions.into_iter().map(|it| Rule { action, conditions: vec![it] }).collect()
    } else {
        vec![Rule { action, conditions }]
    })
}

fn condition(argument: Argument) -> Result<Condition, String> {
    let Argument { index, value, value_two, op } = argument;
    if INDEX_MAX < index {
        return Err(format!("a system call has no argument {index}"));
    }
    let (comparison, value) = match op.as_str() {
        "SCMP_CMP_NE" => (Comparison::NotEqual, value),
        "SCMP_CMP_LT" => (Comparison::Less, value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, value),
        "SCMP_CMP_EQ" => (Comparison::Equal, value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, value),
        "SCMP_CMP_GT" => (Comparison::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(value), value_two),
        op => return Err(format!("unknown comparison `{op}`")),
    };
    Ok(Condition { index, comparison, value })
}

fn action(name: &str, number: Option<u32>) -> Result<u32, String> {
    let number = number.unwrap_or(libc::EPERM.cast_unsigned());
    if ERRNO_MAX < number {
        return Err(format!("there is no error number {number}"));
    }
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO | number,
        "SCMP_ACT_TRACE" => TRACE | number,
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_LOG" => LOG,
        name => return Err(format!("action `{name}` is unknown or not supported")),
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::{
        super::compile::{compile, tests::call},
        *,
    };

    fn check(text: &str, calls: &[(&str, &[u64])], expected: Expect) {
        let shown = match rules(text) {
            Ok(rules) => {
                let program = compile(&rules).unwrap();
                let call = |(name, arguments): &(&str, &[u64])| {
                    let action = call(&program, names::number(name).unwrap(), arguments);
                    format!("{name}{arguments:?}: {action:x}\n")
                };
                calls.iter().map(call).collect()
            }
            Err(why) => why,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn profiles_are_read() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": null},
                {"names": ["kill"], "action": "SCMP_ACT_LOG"},
                {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
                    {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 15, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 2, "op": "SCMP_CMP_LE"},
                    {"index": 1, "value": 15, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}
            ]
        }"#;
        check(
            text,
            &[
                ("read", &[]),
                ("write", &[]),
                ("mkdirat", &[]),
                ("kill", &[7, 1]),
                ("kill", &[7, 9]),
                ("kill", &[7, 15]),
                ("socket", &[1, 0x801]),
                ("socket", &[1, 2]),
                ("socket", &[3, 1]),
            ],
            expect![[r#"
                read[]: 7fff0000
                write[]: 50026
                mkdirat[]: 5000d
                kill[7, 1]: 7ffc0000
                kill[7, 9]: 80000000
                kill[7, 15]: 80000000
                socket[1, 2049]: 7fff0000
                socket[1, 2]: 50026
                socket[3, 1]: 50026
            "#]],
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let syscalls =
            |it: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{it}]}}"#);
        check("{}", &[], expect!["missing field `defaultAction` at line 1 column 2"]);
        check(
            r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#,
            &[],
            expect!["action `SCMP_ACT_NOTIFY` is unknown or not supported"],
        );
        check(
            &syscalls(r#"{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}"#),
            &[],
            expect!["there is no error number 5000"],
        );
        check(
            &syscalls(
                r#"{"names": ["kill"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            &[],
            expect!["a system call has no argument 6"],
        );
        check(
            &syscalls(
                r#"{"names": ["kill"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 0, "op": "="}]}"#,
            ),
            &[],
            expect!["unknown comparison `=`"],
        );
    }
}
