//! Words of an instruction: where they end, what quotes and variables in them stand for.
//!
//! Ref: the Dockerfile reference of Docker, "Environment replacement".

/// Where variables have their values.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What quotes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They go away; no variable within single ones.
    Removed,
    /// Nothing, as in a here-document.
    Kept,
}

/// Most variables in the default values of variables.
const DEPTH_MAX: usize = 16;

/// The word with quotes removed and variables replaced; or why that cannot be done.
pub(super) fn expand(word: &str, escape: char, variables: Variables<'_>) -> Result<String, String> {
    expand_with(word, escape, variables, Quotes::Removed)
}

/// The same, for text in which quotes may mean nothing.
pub(super) fn expand_with(
    word: &str,
    escape: char,
    variables: Variables<'_>,
    quotes: Quotes,
) -> Result<String, String> {
    let mut reader = Reader { rest: word.chars().peekable(), escape, variables, quotes, depth: 0 };
    reader.until(None)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    variables: Variables<'a>,
    quotes: Quotes,
    depth: usize,
}

impl Reader<'_> {
    /// Up to the unquoted character, which is taken, or to the end.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        let mut text = String::new();
        while let Some(next) = self.rest.next() {
            match next {
                _ if Some(next) == end => return Ok(text),
                '\'' if self.quotes == Quotes::Removed => loop {
                    match self.rest.next() {
                        Some('\'') => break,
                        Some(other) => text.push(other),
                        None => return Err("a single quote has no end".to_owned()),
                    }
                },
                '"' if self.quotes == Quotes::Removed => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.variable()?),
                _ if next == self.escape => match self.rest.next() {
                    // In a here-document it means something before these only.
                    Some(other) if self.quotes == Quotes::Kept => {
                        if other != '$' && other != self.escape {
                            text.push(next);
                        }
                        text.push(other);
                    }
                    Some(other) => text.push(other),
                    None => text.push(next),
                },
                other => text.push(other),
            }
        }
        if end.is_some() { Err("a ${ has no }".to_owned()) } else { Ok(text) }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => text.push_str(&self.variable()?),
                Some(next) if next == self.escape => match self.rest.next() {
                    Some(other) if other == '"' || other == '$' || other == self.escape => {
                        text.push(other);
                    }
                    Some(other) => text.extend([next, other]),
                    None => return Err("a double quote has no end".to_owned()),
                },
                Some(other) => text.push(other),
                None => return Err("a double quote has no end".to_owned()),
            }
        }
    }

    /// What comes after a `$`.
    fn variable(&mut self) -> Result<String, String> {
        let is_first = |it: &char| it.is_ascii_alphabetic() || *it == '_';
        if self.rest.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        if self.rest.peek().is_none_or(|it| !is_first(it)) {
            return Ok("$".to_owned());
        }
        let name = self.name();
        Ok((self.variables)(&name).unwrap_or_default())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(it) = self.rest.next_if(|it| it.is_ascii_alphanumeric() || *it == '_') {
            name.push(it);
        }
        name
    }

    /// What comes after a `${`.
    fn braced(&mut self) -> Result<String, String> {
        let name = self.name();
        if name.is_empty() {
            return Err("a ${ without a name".to_owned());
        }
        self.depth += 1;
        if DEPTH_MAX < self.depth {
            return Err("too many ${ in each other".to_owned());
        }
        let value = (self.variables)(&name);
        let is_colon = self.rest.next_if_eq(&':').is_some();
        let set = value.clone().filter(|it| !is_colon || !it.is_empty());
        let found = match self.rest.next() {
            Some('}') if !is_colon => return Ok(value.unwrap_or_default()),
            Some('-') => {
                let word = self.until(Some('}'))?;
                set.or(Some(word))
            }
            Some('+') => {
                let word = self.until(Some('}'))?;
                set.map(|_| word)
            }
            Some('?') => {
                let word = self.until(Some('}'))?;
                return set.ok_or_else(|| format!("{name}: {word}"));
            }
            Some(other) => return Err(format!("${{{name}{other}…}} is not known here")),
            None => return Err("a ${ has no }".to_owned()),
        };
        self.depth -= 1;
        Ok(found.unwrap_or_default())
    }
}

/// Splits text at unquoted white space, and leaves quotes in the words.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match quote {
            None if next.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if next == '"' || next == '\'' => quote = Some(next),
            Some(open) if next == open => quote = None,
            _ => {}
        }
        word.push(next);
        if next == escape && quote != Some('\'') {
            word.extend(rest.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(word: &str, expected: Expect) {
        let variables = |name: &str| match name {
            "a" => Some("A B".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        };
        expected.assert_eq(&match expand(word, '\\', &variables) {
            Ok(text) => text,
            Err(error) => format!("! {error}"),
        });
    }

    #[test]
    fn variables_and_quotes() {
        check("$a/${a}x$none", expect!["A B/A Bx"]);
        check(r#"'$a' "$a" \$a"#, expect!["$a A B $a"]);
        check("${none:-x$a}${a:-y}${empty:-z}${empty-w}", expect!["xA BA Bz"]);
        check("${a:+x}${none:+y}${empty:+z}${empty+w}", expect!["xw"]);
        check("${none:?give it}", expect!["! none: give it"]);
        check("$ $1 a$", expect!["$ $1 a$"]);
        check("${a", expect!["! a ${ has no }"]);
        check("${a#x}", expect!["! ${a#…} is not known here"]);
        check("'a", expect!["! a single quote has no end"]);
        check(r#""a\b\"c""#, expect![[r#"a\b"c"#]]);
    }

    #[test]
    fn words() {
        assert_eq!(
            split(r#"a=1 b="2 3" c='4 5'6 d=7\ 8"#, '\\'),
            ["a=1", r#"b="2 3""#, "c='4 5'6", r"d=7\ 8"]
        );
    }

    #[test]
    fn here_documents_keep_their_quotes() {
        let variables = |_: &str| Some("x".to_owned());
        let text = expand_with(r#"'$a' "\$b" \n"#, '\\', &variables, Quotes::Kept).unwrap();
        assert_eq!(text, r#"'x' "$b" \n"#);
    }
}
