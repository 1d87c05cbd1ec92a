//! The text of a script: taken apart, and put together again unchanged.

use std::fmt;

/// A script.
#[derive(Debug)]
pub(crate) struct Script {
    /// What stands before the first command.
    head: String,
    pub(crate) steps: Vec<Step>,
}

/// One command with what is seen, and the comment that follows.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) command: String,
    /// Without the line break at the end.
    pub(crate) expected: String,
    comment: String,
}

impl Script {
    pub(crate) fn parse(text: &str) -> Self {
        let mut script = Self { head: String::new(), steps: Vec::new() };
        let mut is_open = false;
        for line in text.lines() {
            if let (Some(step), true) = (script.steps.last_mut(), is_open) {
                step.command.push('\n');
                step.command.push_str(line);
                is_open = self::is_open(&step.command);
            } else if let Some(command) = line.strip_prefix("$ ") {
                is_open = self::is_open(command);
                script.steps.push(Step {
                    command: command.to_owned(),
                    expected: String::new(),
                    comment: String::new(),
                });
            } else {
                script.push_other(line);
            }
        }
        for step in &mut script.steps {
            let length = step.expected.trim_end().len();
            step.expected.truncate(length);
        }
        script
    }

    fn push_other(&mut self, line: &str) {
        let target = match self.steps.last_mut() {
            None => &mut self.head,
            Some(step) if line.starts_with('#') || !step.comment.is_empty() => &mut step.comment,
            Some(step) => &mut step.expected,
        };
        if !target.is_empty() {
            target.push('\n');
        }
        target.push_str(line);
    }
}

/// Whether the shell would read another line: of a here-document, or after a backslash, or because a
/// quote is open.
fn is_open(command: &str) -> bool {
    let last = command.lines().last().unwrap_or_default();
    if let Some((_, rest)) = command.split_once("<<") {
        let end = rest.split_whitespace().next().unwrap_or_default();
        return last != end.trim_matches('\'');
    }
    last.ends_with('\\') || command.matches('\'').count() % 2 == 1
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.head.is_empty() {
            writeln!(f, "{}\n", self.head.trim_end())?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "$ {}", step.command)?;
            if !step.expected.is_empty() {
                writeln!(f, "{}", step.expected)?;
            }
            let last = index + 1 == self.steps.len();
            if !step.comment.is_empty() {
                writeln!(f, "\n{}", step.comment.trim_end())?;
            }
            if !last {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    const TEXT: &str = "\
# What this is about.

$ kubectl get pods
No resources found in default namespace.

$ kubectl apply -f - <<EOF
kind: Pod
$ not a command
EOF
[exit 1]

# Then:

$ kubectl get \\
  nodes -o 'jsonpath=
a'
NAME

EVENTS
";

    #[test]
    fn takes_apart() {
        let steps = Script::parse(TEXT).steps;
        let steps: Vec<_> = steps.iter().map(|it| (&it.command, &it.expected)).collect();
        expect![[r#"
            [
                (
                    "kubectl get pods",
                    "No resources found in default namespace.",
                ),
                (
                    "kubectl apply -f - <<EOF\nkind: Pod\n$ not a command\nEOF",
                    "[exit 1]",
                ),
                (
                    "kubectl get \\\n  nodes -o 'jsonpath=\na'",
                    "NAME\n\nEVENTS",
                ),
            ]
        "#]]
        .assert_debug_eq(&steps);
    }

    #[test]
    fn puts_together_again() {
        assert_eq!(Script::parse(TEXT).to_string(), TEXT);
    }
}
