//! `.dockerignore`: which files of the context are not there. Also the patterns of COPY's sources.
//!
//! Ref: Docker's documentation, ".dockerignore files"; Go's `filepath.Match`.

/// Most patterns of one file.
const PATTERNS_MAX: usize = 10_000;

/// Longest pattern, in bytes: the longest path.
const PATTERN_BYTES_MAX: usize = 4096;

/// The patterns of a `.dockerignore`.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignore {
    patterns: Vec<(bool, Pattern)>,
}

impl Ignore {
    /// Reads the file; or says which line is wrong and why.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            // A comment begins at the first column.
            let line = if line.starts_with('#') { "" } else { line.trim() };
            let (is_exception, line) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if line.is_empty() {
                continue;
            }
            let line = clean(line);
            if line == "." || line.is_empty() {
                continue;
            }
            let pattern = Pattern::parse(&line).map_err(|it| (number, it))?;
            patterns.push((is_exception, pattern));
            if PATTERNS_MAX < patterns.len() {
                return Err((number, format!("more than {PATTERNS_MAX} patterns")));
            }
        }
        Ok(Self { patterns })
    }

    /// Whether the path is not there. The last pattern decides that matches it or a folder above it.
    pub(super) fn is_ignored(&self, path: &[u8]) -> bool {
        let slashes = path.iter().zip(0..).filter(|(it, _)| **it == b'/').map(|(_, at)| at);
        let ends: Vec<usize> = slashes.chain([path.len()]).collect();
        let matches =
            |it: &Pattern| ends.iter().any(|end| it.matches(path.get(..*end).unwrap_or_default()));
        self.patterns
            .iter()
            .rev()
            .find(|(_, it)| matches(it))
            .is_some_and(|(exception, _)| !exception)
    }

    /// Whether something in an ignored folder may be there nevertheless.
    pub(super) fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|(is_exception, _)| *is_exception)
    }
}

/// As Go's `filepath.Clean`, without a slash at the beginning.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|it| *it != "..") => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`: anything but a slash.
    Any,
    /// `*`: any number of those.
    Star,
    /// `**` at the end: anything.
    All,
    /// `**/`, or `**` elsewhere: any number of folders, or none, which leads over the next token.
    Folders,
    /// The folders themselves, up to a slash.
    Within,
    /// `[a-z]`, `[^a-z]`: whether it is one of those, which a slash never is.
    Class {
        is_negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if PATTERN_BYTES_MAX < text.len() {
            return Err(format!("a pattern of more than {PATTERN_BYTES_MAX} bytes"));
        }
        let bad = |why: &str| format!("bad pattern `{text}`: {why}");
        let mut tokens = Vec::new();
        let mut rest = text.bytes().peekable();
        while let Some(next) = rest.next() {
            let token = match next {
                b'*' if rest.next_if_eq(&b'*').is_some() => {
                    rest.next_if_eq(&b'/');
                    if rest.peek().is_some() {
                        tokens.push(Token::Folders);
                        Token::Within
                    } else {
                        Token::All
                    }
                }
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'\\' => Token::Byte(rest.next().ok_or_else(|| bad("it ends with a backslash"))?),
                b'[' => {
                    let is_negated = rest.next_if_eq(&b'^').is_some();
                    let mut ranges = Vec::new();
                    let mut one = || match rest.next() {
                        Some(b'\\') => rest.next().map(|it| (it, true)),
                        other => other.map(|it| (it, false)),
                    };
                    let open = || bad("a [ without ]");
                    let mut next = one().ok_or_else(open)?;
                    while next != (b']', false) {
                        let from = next.0;
                        next = one().ok_or_else(open)?;
                        let mut to = from;
                        if next == (b'-', false) {
                            to = one().filter(|it| *it != (b']', false)).ok_or_else(open)?.0;
                            next = one().ok_or_else(open)?;
                        }
                        ranges.push((from, to));
                    }
                    if ranges.is_empty() {
                        return Err(bad("[] without anything in it"));
                    }
                    Token::Class { is_negated, ranges }
                }
                other => Token::Byte(other),
            };
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Whether there is anything in it that is not meant literally.
    pub(super) fn is_literal(&self) -> bool {
        self.0.iter().all(|it| matches!(it, Token::Byte(_)))
    }

    /// Whether the whole path is one that is meant. Takes time with the product of both lengths.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        // `at` has, for each token, whether the path up to here has come to before it.
        let mut at = vec![false; self.0.len() + 1];
        if let Some(first) = at.first_mut() {
            *first = true;
        }
        self.skip(&mut at);
        for byte in path {
            let mut next = vec![false; at.len()];
            for (number, token) in
                self.0.iter().enumerate().filter(|(it, _)| at.get(*it) == Some(&true))
            {
                let (stays, goes) = match token {
                    Token::Byte(it) => (false, it == byte),
                    Token::Any => (false, *byte != b'/'),
                    Token::Star => (*byte != b'/', false),
                    Token::All => (true, false),
                    Token::Folders => (false, false),
                    Token::Within => (true, *byte == b'/'),
                    Token::Class { is_negated, ranges } => {
                        let is_in = ranges.iter().any(|(from, to)| from <= byte && byte <= to);
                        (false, *byte != b'/' && is_in != *is_negated)
                    }
                };
                for (at, is_reached) in [(number, stays), (number + 1, goes)] {
                    if let Some(it) = next.get_mut(at).filter(|_| is_reached) {
                        *it = true;
                    }
                }
            }
            self.skip(&mut next);
            at = next;
        }
        at.last() == Some(&true)
    }

    /// What may be nothing is passed over.
    fn skip(&self, at: &mut [bool]) {
        for (number, token) in self.0.iter().enumerate() {
            let reached: &[usize] = match token {
                Token::Star | Token::All => &[1],
                Token::Folders => &[1, 2],
                Token::Byte(_) | Token::Any | Token::Within | Token::Class { .. } => &[],
            };
            for more in reached {
                if at.get(number) == Some(&true)
                    && let Some(next) = at.get_mut(number + more)
                {
                    *next = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ignored(text: &str, path: &str) -> bool {
        Ignore::parse(text).unwrap().is_ignored(path.as_bytes())
    }

    #[test]
    fn as_the_documentation_has_it() {
        assert!(ignored("*/temp*", "somedir/temporary.txt"));
        assert!(ignored("*/temp*", "somedir/temp/x"));
        assert!(!ignored("*/temp*", "temp"));
        assert!(ignored("*/*/temp*", "somedir/subdir/temporary.txt"));
        assert!(ignored("temp?", "tempa"));
        assert!(ignored("**/*.go", "a.go") && ignored("**/*.go", "b/c/a.go"));
        assert!(!ignored("*.md\n!README.md", "README.md"));
        assert!(ignored("*.md\n!README*.md\nREADME-secret.md", "README-secret.md"));
        assert!(!ignored("*.md\nREADME-secret.md\n!README*.md", "README-secret.md"));
        assert!(ignored("/foo/bar\n# no\n  \n", "foo/bar/x") && !ignored("#foo", "foo"));
        assert!(ignored("a/../b/", "b") && ignored("./c", "c") && !ignored(".", "c"));
        assert!(ignored("**", "a/b") && ignored("a/**", "a/b/c") && !ignored("a/**", "a"));
        assert!(ignored("[a-c]x", "bx") && ignored("[^a-c]x", "dx") && !ignored("[^a]x", "/x"));
        assert!(ignored(r"\*", "*") && !ignored(r"\*", "a"));
        assert_eq!(
            Ignore::parse("ok\n[a").unwrap_err(),
            (2, "bad pattern `[a`: a [ without ]".to_owned())
        );
    }

    /// The same pattern as a regular expression.
    fn expression(pattern: &str) -> regex::bytes::Regex {
        let text = regex::escape(pattern);
        let text = text.strip_suffix(r"\*\*").map_or(text.clone(), |it| format!("{it}(?s:.*)"));
        let text = text.replace(r"\*\*/", "(.*/)?").replace(r"\*\*", "(.*/)?");
        let text = text.replace(r"\*", "[^/]*").replace(r"\?", "[^/]");
        regex::bytes::Regex::new(&format!("^{text}$")).unwrap()
    }

    proptest! {
        #[test]
        fn patterns_are_regular_expressions(
            pattern in "([ab/.]|\\*|\\*\\*|\\*\\*/|\\?){1,8}",
            paths in proptest::collection::vec("[ab./]{0,10}", 1..20),
        ) {
            // Of three stars the two do not take the same ones first, nor what is before the end.
            prop_assume!(!pattern.contains("***") && !pattern.ends_with("**/"));
            let ours = Pattern::parse(&pattern).unwrap();
            let theirs = expression(&pattern);
            for path in paths {
                prop_assert_eq!(ours.matches(path.as_bytes()), theirs.is_match(path.as_bytes()), "{}", path);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ab*?\\[\\]^!#/\\\\.-]{0,20}", path in "[ab/.-]{0,9}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.is_ignored(path.as_bytes());
            }
        }
    }
}
