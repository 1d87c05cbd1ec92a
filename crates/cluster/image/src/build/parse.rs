//! Splits a Dockerfile into its instructions: directives, comments, continued lines, flags,
//! here-documents. What an instruction means is `instruction`'s business.
//!
//! Ref: the Dockerfile reference of Docker, "Format", "Parser directives" and "Here-Documents".

use super::Problem;

/// Longest Dockerfile, in bytes: as much as a manifest may have.
pub(super) const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;

/// One instruction as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Where it begins, from 1.
    pub(super) number: usize,
    /// In capitals.
    pub(super) keyword: String,
    /// `--NAME` and `--NAME=VALUE`.
    pub(super) flags: Vec<(String, Option<String>)>,
    /// The rest, with continued lines put together.
    pub(super) rest: String,
    pub(super) documents: Vec<Document>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The word that ends it.
    pub(super) name: String,
    pub(super) text: String,
    /// Its word was not quoted: variables in it are replaced.
    pub(super) is_expanded: bool,
    /// `<<-`: tabs at the beginnings of lines do not count.
    pub(super) is_chomped: bool,
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// What takes the meaning of the next character away: a backslash, or a backtick.
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
}

/// Instructions that may have here-documents.
const WITH_DOCUMENTS: [&str; 3] = ["ADD", "COPY", "RUN"];

/// Reads a Dockerfile.
pub(super) fn parse(text: &str) -> Result<File, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut file = File { escape: directives(text)?, lines: Vec::new() };
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut whole = line.to_owned();
        while let Some(begun) = continued(&whole, file.escape) {
            whole.truncate(begun);
            // Comments and empty lines within are no part of it.
            let is_nothing = |it: &str| it.trim().is_empty() || it.trim_start().starts_with('#');
            while lines.next_if(|(_, it)| is_nothing(it)).is_some() {}
            let Some((_, next)) = lines.next() else { break };
            whole.push_str(next.trim_end());
        }
        let mut parsed = split(number, &whole);
        if WITH_DOCUMENTS.contains(&parsed.keyword.as_str()) {
            for mut document in begun_documents(&parsed.rest) {
                loop {
                    let Some((_, line)) = lines.next() else {
                        let name = document.name;
                        return Err(Problem::new(
                            number,
                            format!("the here-document {name} has no end"),
                        ));
                    };
                    let line =
                        if document.is_chomped { line.trim_start_matches('\t') } else { line };
                    if line == document.name {
                        break;
                    }
                    document.text.push_str(line);
                    document.text.push('\n');
                }
                parsed.documents.push(document);
            }
        }
        file.lines.push(parsed);
    }
    Ok(file)
}

/// `# NAME=VALUE` at the beginning. Gives the escape character.
fn directives(text: &str) -> Result<char, Problem> {
    let mut escape = '\\';
    for (number, line) in (1..).zip(text.lines()) {
        let Some(comment) = line.trim().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        match (name.trim().to_lowercase().as_str(), value.trim()) {
            ("escape", "\\") => {}
            ("escape", "`") => escape = '`',
            ("escape", other) => {
                return Err(Problem::new(
                    number,
                    format!("escape={other}: only \\ and ` are known"),
                ));
            }
            ("syntax", front) => {
                // Docker's own, whatever its version: what of it is not done here is refused by name.
                let name = front.strip_prefix("docker.io/").unwrap_or(front);
                if !(name == "docker/dockerfile" || name.starts_with("docker/dockerfile:")) {
                    let reason =
                        format!("syntax={front}: other front ends than Docker's are not run");
                    return Err(Problem::new(number, reason));
                }
            }
            ("check", _) => {}
            _ => break,
        }
    }
    Ok(escape)
}

/// Where the escape character is that continues the line, if it is continued.
fn continued(line: &str, escape: char) -> Option<usize> {
    let line = line.trim_end();
    let begun = line.strip_suffix(escape)?;
    Some(begun.len())
}

fn split(number: usize, line: &str) -> Line {
    let (keyword, mut rest) = cut(line);
    let mut flags = Vec::new();
    let may_have = ["ADD", "COPY", "FROM", "HEALTHCHECK", "ONBUILD", "RUN"];
    let keyword = keyword.to_uppercase();
    while may_have.contains(&keyword.as_str())
        && let (word, after) = cut(rest)
        && let Some(flag) = word.strip_prefix("--")
    {
        rest = after;
        if flag.is_empty() {
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        flags.push((name.to_owned(), value));
    }
    Line { number, keyword, flags, rest: rest.trim().to_owned(), documents: Vec::new() }
}

/// The first word, and what comes after it.
pub(super) fn cut(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start())
}

/// The here-documents that a line begins: `<<NAME`, `<<-NAME`, `<<"NAME"`.
fn begun_documents(line: &str) -> Vec<Document> {
    let mut found = Vec::new();
    for word in line.split_whitespace() {
        let at = word.find("<<");
        let before = at.and_then(|it| word.get(..it));
        // A number is that of a descriptor; other text is not the beginning of one.
        if !before.is_some_and(|it| it.bytes().all(|it| it.is_ascii_digit())) {
            continue;
        }
        let rest = at.and_then(|it| word.get(it + 2..)).unwrap_or_default();
        let (is_chomped, rest) = rest.strip_prefix('-').map_or((false, rest), |it| (true, it));
        let unquoted = ['"', '\''].iter().find_map(|it| rest.strip_prefix(*it)?.strip_suffix(*it));
        let (is_expanded, name) = unquoted.map_or((true, rest), |it| (false, it));
        let is_word = |it: char| it.is_alphanumeric() || it == '_' || it == '.' || it == '-';
        if !name.is_empty() && name.chars().all(is_word) {
            let (name, text) = (name.to_owned(), String::new());
            found.push(Document { name, text, is_expanded, is_chomped });
        }
    }
    found
}
