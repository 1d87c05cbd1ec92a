//! `$(NAME)` in a container's env, command and args. Kubernetes' own small language, not a shell's:
//! <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>.
//!
//! Does not know where values come from.

/// Replaces each `$(NAME)` that `value` knows. `$$` is a plain `$`, so `$$(NAME)` stays as text;
/// a name that is not known, or a reference that never ends, stays as it is written.
#[must_use]
pub(crate) fn expand<'a>(text: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|it| it.split_once(')'))
        {
            match value(name) {
                Some(value) => result.push_str(value),
                None => result.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            result.push('$');
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(name: &str) -> Option<&'static str> {
        match name {
            "A" => Some("a"),
            "B" => Some("$(A)"),
            "EMPTY" | "" => Some(""),
            _ => None,
        }
    }

    #[test]
    fn expands_as_kubernetes_does() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "a"),
            ("x$(A)y$(A)", "xaya"),
            ("$(B)", "$(A)"), // what was put in is not expanded again
            ("$(EMPTY)-$()", "-"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$(A", "$(A"),
            ("$(A$(A)", "$(A$(A)"),
            ("$A ${A} 5$", "$A ${A} 5$"),
            ("$é", "$é"),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn doubling_every_dollar_gives_the_text_itself(text in ".*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), value), text);
        }

        #[test]
        fn text_without_dollar_stays(text in "[^$]*") {
            prop_assert_eq!(expand(&text, value), text);
        }
    }
}
