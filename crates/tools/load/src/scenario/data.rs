//! Data files: rows that users take their values from. CSV with a header, or JSON lines.

use std::{path::Path, sync::Arc};

use super::{Files, document::Node, error::Error, template::Value};

/// Largest data file, in bytes: it is held in memory.
const FILE_BYTES_MAX: usize = 256 << 20;

/// A data file in memory.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Row>,
    pub(super) pick: Pick,
    file: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Row {
    line: u64,
    pub(super) values: Vec<Value>,
}

/// Which row a user takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// The next one, and the first again after the last.
    Sequential,
    /// Any.
    Random,
    /// One that no other user has.
    Unique,
}

impl Table {
    /// Reads the file that `node` describes: its path, or a map with `file` and `pick`.
    pub(super) fn read(node: &Node, files: &Files<'_>) -> Result<Self, Error> {
        let (path, pick) = match node.text() {
            Ok(path) => (path, Pick::Sequential),
            Err(_) => {
                let mut fields = node.fields()?;
                let path = fields.require("file")?.text()?;
                let pick = match fields.take("pick") {
                    None => Pick::Sequential,
                    Some(node) => match node.text()? {
                        "sequential" => Pick::Sequential,
                        "random" => Pick::Random,
                        "unique" => Pick::Unique,
                        other => {
                            let known = "`sequential`, `random` or `unique`";
                            return Err(node.wrong(format!("`{other}` is not {known}")));
                        }
                    },
                };
                fields.finish()?;
                (path, pick)
            }
        };
        let text = files.text(node, path, FILE_BYTES_MAX)?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let file: Arc<str> = path.into();
        let table = match Path::new(path).extension().and_then(|it| it.to_str()) {
            Some("csv") => csv(&file, text)?,
            Some("jsonl" | "ndjson") => json_lines(&file, text)?,
            _ => {
                return Err(node.wrong(format!(
                    "`{path}` is neither CSV (.csv) nor JSON lines (.jsonl, .ndjson)"
                )));
            }
        };
        if table.rows.is_empty() {
            return Err(mistake(&file, 0, format!("no rows: `{}` needs at least one", node.key)));
        }
        Ok(Self { pick, ..table })
    }

    /// Fails if a value of `column` holds what no header may.
    pub(super) fn check_header(&self, column: usize) -> Result<(), Error> {
        for row in &self.rows {
            let value = row.values.get(column);
            if value.is_some_and(|it| http::HeaderValue::from_str(&it.text).is_err()) {
                let name = self.columns.get(column).map_or("", String::as_str);
                let what = format!("`{name}` goes into a header and has a control character");
                return Err(mistake(&self.file, row.line, what));
            }
        }
        Ok(())
    }
}

fn mistake(file: &Arc<str>, line: u64, what: impl Into<String>) -> Error {
    Error { file: Arc::clone(file), line, key: String::new(), what: what.into() }
}

fn csv(file: &Arc<str>, text: &str) -> Result<Table, Error> {
    let mut records = Records { rest: text, line: 1 };
    let columns = match records.next() {
        None => Vec::new(),
        Some(Ok((_, header))) => header,
        Some(Err((line, what))) => return Err(mistake(file, line, what)),
    };
    for (index, column) in columns.iter().enumerate() {
        if column.is_empty() {
            return Err(mistake(file, 1, format!("column {} has no name", index + 1)));
        }
        if columns.iter().take(index).any(|it| it == column) {
            return Err(mistake(file, 1, format!("column `{column}` is there twice")));
        }
    }
    let mut rows = Vec::new();
    for record in records {
        let (line, fields) = record.map_err(|(line, what)| mistake(file, line, what))?;
        if fields.len() != columns.len() {
            let (found, expected) = (fields.len(), columns.len());
            let what = format!("{found} fields, where the header has {expected}");
            return Err(mistake(file, line, what));
        }
        rows.push(Row { line, values: fields.iter().map(|it| Value::text(it)).collect() });
    }
    Ok(Table { columns, rows, pick: Pick::Sequential, file: Arc::clone(file) })
}

/// Records of a CSV file after RFC 4180, with their lines. Empty lines are none.
struct Records<'a> {
    rest: &'a str,
    line: u64,
}

impl Iterator for Records<'_> {
    type Item = Result<(u64, Vec<String>), (u64, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let trimmed = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
            match trimmed {
                Some(rest) => (self.rest, self.line) = (rest, self.line + 1),
                None => break,
            }
        }
        if self.rest.is_empty() {
            return None;
        }
        let begin = self.line;
        let mut fields = Vec::new();
        loop {
            let field = if self.rest.starts_with('"') { self.quoted() } else { Ok(self.plain()) };
            match field {
                Ok(field) => fields.push(field),
                Err(what) => {
                    self.rest = "";
                    return Some(Err((begin, what)));
                }
            }
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return Some(Ok((begin, fields))),
            }
        }
    }
}

impl Records<'_> {
    fn plain(&mut self) -> String {
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest;
        field.trim_end_matches('\r').to_owned()
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut field = String::new();
        let mut rest = self.rest.strip_prefix('"').unwrap_or(self.rest);
        loop {
            let Some((part, after)) = rest.split_once('"') else {
                return Err("a quoted field does not end".to_owned());
            };
            field.push_str(part);
            self.line += u64::try_from(part.matches('\n').count()).unwrap_or(0);
            match after.strip_prefix('"') {
                Some(after) => {
                    field.push('"');
                    rest = after;
                }
                None => {
                    rest = after;
                    break;
                }
            }
        }
        self.rest = rest.strip_prefix('\r').filter(|it| it.starts_with('\n')).unwrap_or(rest);
        if !self.rest.is_empty() && !self.rest.starts_with([',', '\n']) {
            return Err("text after a quoted field".to_owned());
        }
        Ok(field)
    }
}

fn json_lines(file: &Arc<str>, text: &str) -> Result<Table, Error> {
    let mut table =
        Table { columns: Vec::new(), rows: Vec::new(), pick: Pick::Sequential, file: file.clone() };
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| mistake(file, line, format!("no JSON: {error}")))?;
        let Some(object) = value.as_object() else {
            return Err(mistake(file, line, "no JSON object"));
        };
        if table.rows.is_empty() {
            table.columns = object.keys().cloned().collect();
        }
        let value = |column: &String| {
            let value = object.get(column).map(Value::of_json);
            value.ok_or_else(|| mistake(file, line, format!("`{column}` is missing")))
        };
        let values = table.columns.iter().map(value).collect::<Result<_, Error>>()?;
        table.rows.push(Row { line, values });
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn show(table: Result<Table, Error>) -> String {
        match table {
            Ok(table) => {
                let row = |row: &Row| {
                    let values = row.values.iter().map(|it| it.text.to_string());
                    format!("{}: {:?}", row.line, values.collect::<Vec<String>>())
                };
                let rows = table.rows.iter().map(row).collect::<Vec<String>>().join("\n");
                format!("{:?}\n{rows}", table.columns)
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[track_caller]
    fn check_csv(text: &str, expected: Expect) {
        expected.assert_eq(&show(csv(&"a.csv".into(), text)));
    }

    #[track_caller]
    fn check_json(text: &str, expected: Expect) {
        expected.assert_eq(&show(json_lines(&"a.jsonl".into(), text)));
    }

    #[test]
    fn reads_csv() {
        check_csv(
            "user,password\nann,1\r\nbob,\n\n",
            expect![[r#"
            ["user", "password"]
            2: ["ann", "1"]
            3: ["bob", ""]"#]],
        );
        check_csv(
            "a,b\n\"x, \"\"y\"\"\n2\",z\r\nlast,\"\"",
            expect![[r#"
            ["a", "b"]
            2: ["x, \"y\"\n2", "z"]
            4: ["last", ""]"#]],
        );
        check_csv(
            "",
            expect![[r#"
            []
        "#]],
        );
    }

    #[test]
    fn says_what_is_wrong_with_csv() {
        check_csv("a,b\n1,2\n3\n", expect!["error: a.csv:3: 1 fields, where the header has 2"]);
        check_csv("a,a\n", expect!["error: a.csv:1: column `a` is there twice"]);
        check_csv("a,\n", expect!["error: a.csv:1: column 2 has no name"]);
        check_csv("a\n\"x", expect!["error: a.csv:2: a quoted field does not end"]);
        check_csv("a\n\n\"x\"y\n", expect!["error: a.csv:3: text after a quoted field"]);
    }

    #[test]
    fn reads_json_lines() {
        check_json(
            "{\"a\": 1, \"b\": \"x\"}\n\n{\"b\": null, \"a\": [2], \"c\": 3}\n",
            expect![[r#"
                ["a", "b"]
                1: ["1", "x"]
                3: ["[2]", "null"]"#]],
        );
        check_json("{\"a\": 1}\n{\"b\": 1}\n", expect!["error: a.jsonl:2: `a` is missing"]);
        check_json("[1]\n", expect!["error: a.jsonl:1: no JSON object"]);
        check_json(
            "{\"a\": 1}\n{\n",
            expect!["error: a.jsonl:2: no JSON: EOF while parsing an object at line 1 column 1"],
        );
    }

    proptest! {
        #[test]
        fn csv_gives_back_what_was_written(rows in prop::collection::vec(prop::collection::vec("[a-z\",\r\n ]{0,5}", 2), 1..5)) {
            let quote = |it: &String| format!("\"{}\"", it.replace('"', "\"\""));
            let lines = rows.iter().map(|it| it.iter().map(quote).collect::<Vec<_>>().join(",") + "\n");
            let text = format!("a,b\n{}", lines.collect::<String>());
            let table = csv(&"a.csv".into(), &text).unwrap();
            let read = table.rows.iter().map(|row| row.values.iter().map(|it| it.text.to_string()).collect());
            prop_assert_eq!(read.collect::<Vec<Vec<String>>>(), rows);
        }

        #[test]
        fn nothing_panics(text in "[a-b\",\r\n{}:1]{0,40}|.{0,40}") {
            drop(csv(&"a.csv".into(), &text));
            drop(json_lines(&"a.jsonl".into(), &text));
        }
    }
}
