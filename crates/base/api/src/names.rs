//! Which names, labels, keys and ports Kubernetes accepts, with the words it refuses others in.
//!
//! Every check returns what is wrong, one sentence each, empty when nothing is. Clients show these
//! sentences to people and some tools match on them, so they are interface. The rules are those of
//! Kubernetes' API conventions, RFC 1035, RFC 1123 and RFC 6335 (port names).

/// Longest DNS label, in bytes (RFC 1123).
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes (RFC 1123, less the trailing dot and the length bytes).
pub const DNS_SUBDOMAIN_MAX: usize = 253;
/// Longest name part of a label key and longest label value, in bytes.
pub const LABEL_MAX: usize = 63;
/// Longest key of a ConfigMap or Secret, in bytes.
pub const CONFIG_KEY_MAX: usize = 253;
/// Longest service name of RFC 6335, in bytes.
pub const PORT_NAME_MAX: usize = 15;
/// Most bytes that the keys and values of all annotations of an object may have together.
pub const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
    '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case \
    alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character \
    (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS1035_LABEL: &str = "a DNS-1035 label must consist of lower case alphanumeric characters \
    or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. \
    'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
    regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const ENV_VAR_NAME: &str = "a valid environment variable name must consist only of printable ASCII characters other than \
    '='";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or \
    '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";
const HTTP_HEADER_NAME: &str = "a valid HTTP header must consist of alphanumeric characters or \
    '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' \
    (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const EMPTY: &str = "must be non-empty";

/// A DNS label, such as a container's or a namespace's name.
#[must_use]
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut problems = too_long(text, DNS_LABEL_MAX);
    if !is_label(text) {
        let dns1123_subdomain = is_subdomain(text);
        // Dots are what most people trip over here.
        problems.push(if dns1123_subdomain {
            "must not contain dots".to_owned()
        } else {
            DNS1123_LABEL.to_owned()
        });
    }
    problems
}

/// A DNS subdomain, which is what most objects are named by.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut problems = too_long(text, DNS_SUBDOMAIN_MAX);
    if !is_subdomain(text) {
        problems.push(DNS1123_SUBDOMAIN.to_owned());
    }
    problems
}

/// A DNS label that begins with a letter.
#[must_use]
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems = too_long(text, DNS_LABEL_MAX);
    if !is_label(text) || !text.starts_with(|it: char| it.is_ascii_lowercase()) {
        problems.push(DNS1035_LABEL.to_owned());
    }
    problems
}

/// A key of a label or a taint, a finalizer: `name` or `prefix/name`.
#[must_use]
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut parts = text.split('/');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    if parts.next().is_some() {
        return vec![format!(
            "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. \
             'example.com/MyName')"
        )];
    }
    let name = second.unwrap_or(first);
    if second.is_some() {
        if first.is_empty() {
            problems.push(format!("prefix part {EMPTY}"));
        } else {
            problems.extend(dns1123_subdomain(first).iter().map(|it| format!("prefix part {it}")));
        }
    }
    if name.is_empty() {
        problems.push(format!("name part {EMPTY}"));
    }
    problems.extend(too_long(name, LABEL_MAX).iter().map(|it| format!("name part {it}")));
    if !is_qualified(name) {
        problems.push(format!("name part {QUALIFIED_NAME}"));
    }
    problems
}

/// The value of a label; may be empty.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut problems = too_long(text, LABEL_MAX);
    if !text.is_empty() && !is_qualified(text) {
        problems.push(LABEL_VALUE.to_owned());
    }
    problems
}

/// The name of an environment variable. Anything a process can be given is accepted.
#[must_use]
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec![format!("environment variable name {EMPTY}")];
    }
    if text.bytes().all(|it| matches!(it, b' '..=b'~') && it != b'=') {
        Vec::new()
    } else {
        vec![ENV_VAR_NAME.to_owned()]
    }
}

/// A key in a ConfigMap or Secret: it may become a file name.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut problems = too_long(text, CONFIG_KEY_MAX);
    if text.is_empty() || !text.bytes().all(is_config_key_byte) {
        problems.push(CONFIG_KEY.to_owned());
    }
    problems.extend(directory_name(text));
    problems
}

/// A port's name in a container: a service name of RFC 6335.
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut problems = too_long(text, PORT_NAME_MAX);
    if !text.bytes().all(|it| is_lower_alphanumeric(it) || it == b'-') {
        problems
            .push("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|it| it.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        problems.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        problems.push("must not begin or end with a hyphen".into());
    }
    problems
}

/// A port's number.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

/// A number from `low` to `high`.
#[must_use]
pub fn in_range(number: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&number) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header_name(text: &str) -> Vec<String> {
    let good = !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    if good { Vec::new() } else { vec![HTTP_HEADER_NAME.to_owned()] }
}

/// A percentage, such as `25%`.
#[must_use]
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    let good = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
    if good { Vec::new() } else { vec![PERCENT.to_owned()] }
}

/// `name` with the trailing dash of a `generateName` made into something that a suffix leaves valid,
/// so that the ordinary checks apply to it.
#[must_use]
pub fn without_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => name.to_owned(),
    }
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    if text.len() <= max {
        Vec::new()
    } else {
        vec![format!("must be no more than {max} characters")]
    }
}

/// Names that a file system gives a meaning to.
fn directory_name(text: &str) -> Option<String> {
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if text.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

fn is_label(text: &str) -> bool {
    ends_well(text, is_lower_alphanumeric)
        && text.bytes().all(|it| is_lower_alphanumeric(it) || it == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    ends_well(text, |it| it.is_ascii_alphanumeric()) && text.bytes().all(is_config_key_byte)
}

fn ends_well(text: &str, good: impl Fn(u8) -> bool) -> bool {
    matches!((text.bytes().next(), text.bytes().last()), (Some(a), Some(b)) if good(a) && good(b))
}

const fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

const fn is_config_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expect![] is written in place")]
    fn check(rule: impl Fn(&str) -> Vec<String>, text: &str, expected: Expect) {
        expected.assert_eq(&rule(text).join("\n"));
    }

    #[test]
    fn accepts_what_kubernetes_accepts() {
        type Rule = fn(&str) -> Vec<String>;
        let cases: &[(Rule, &[&str])] = &[
            (dns1123_label, &["a", "0", "my-name", "123-abc"]),
            (dns1123_subdomain, &["a", "example.com", "1.2-3.x"]),
            (dns1035_label, &["a", "abc-123"]),
            (qualified_name, &["a", "MyName", "example.com/My_name.1", "a/b"]),
            (label_value, &["", "MyValue", "12345", "a.b_c-d"]),
            (env_var_name, &["A", "a b", "1", "my.env-name"]),
            (config_key, &["a", ".profile", "KEY_NAME", "a..b"]),
            (port_name, &["http", "a1", "1-a"]),
            (http_header_name, &["X-Header-Name"]),
            (percent, &["25%", "0%", "250%"]),
        ];
        for (rule, texts) in cases {
            for text in *texts {
                assert_eq!(rule(text), Vec::<String>::new(), "{text}");
            }
        }
    }

    #[test]
    fn refuses_in_kubernetes_words() {
        check(
            dns1123_label,
            "My_name",
            expect![[
                r#"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#
            ]],
        );
        check(dns1123_label, "a.b", expect!["must not contain dots"]);
        check(
            dns1123_subdomain,
            "a..b",
            expect![[
                r#"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#
            ]],
        );
        check(
            dns1035_label,
            "1a",
            expect![[
                r#"a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"#
            ]],
        );
        check(
            qualified_name,
            "/",
            expect![[r#"
            prefix part must be non-empty
            name part must be non-empty
            name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#]],
        );
        check(
            qualified_name,
            "a/b/c",
            expect![[
                r#"a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"#
            ]],
        );
        check(
            label_value,
            "-",
            expect![[
                r#"a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"#
            ]],
        );
        check(label_value, &"a".repeat(64), expect!["must be no more than 63 characters"]);
        check(
            env_var_name,
            "A=B",
            expect![
                "a valid environment variable name must consist only of printable ASCII characters other than '='"
            ],
        );
        check(config_key, "..", expect!["must not be '..'"]);
        check(
            config_key,
            "a/b",
            expect![[
                r#"a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#
            ]],
        );
        check(
            port_name,
            "HTTP--",
            expect![[r#"
            must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)
            must contain at least one letter (a-z)
            must not contain consecutive hyphens
            must not begin or end with a hyphen"#]],
        );
    }

    proptest! {
        #[test]
        fn a_label_is_a_subdomain_and_a_label_value(text in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?") {
            prop_assert!(dns1123_label(&text).is_empty());
            prop_assert!(dns1123_subdomain(&text).is_empty());
            prop_assert!(label_value(&text).is_empty());
            prop_assert!(config_key(&text).is_empty());
        }

        #[test]
        fn no_check_panics(text in any::<String>()) {
            for rule in [dns1123_label, dns1123_subdomain, dns1035_label, qualified_name] {
                let _problems: Vec<String> = rule(&text);
            }
        }
    }
}
