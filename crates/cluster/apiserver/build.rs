//! Takes the descriptions of types and fields out of the sources of `k8s-openapi`, which has them as
//! they are published, into one compressed file for the OpenAPI documents.
//!
//! Only the text of those sources is read: compiling them with their schemas would take a minute.

#![expect(clippy::disallowed_methods, reason = "this is how Cargo speaks to a build script")]

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::DeflateEncoder};

/// The release whose types are served.
const RELEASE: &str = "v1_36";
/// A release has more types than this; fewer mean that the sources look different now.
const TYPES_MIN: usize = 600;
/// Before each type, before each field of it, and between a name and its description.
const TYPE: char = '\x1e';
const FIELD: char = '\x1f';
const DESCRIPTION: char = '\x1d';

/// Descriptions of types that no release of Kubernetes publishes, a paragraph each: name, colon, what the
/// type is for, and a line a field.
const DESCRIBED: &str = "src/schema/described.txt";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DESCRIBED}");
    println!("cargo::rerun-if-changed=../../../Cargo.lock");
    let mut files = Vec::new();
    rust_files(&sources()?.join("src").join(RELEASE), &mut files)?;
    files.sort();
    let mut text = String::new();
    let mut types = 0;
    for file in files {
        if let Some(found) = descriptions(&fs::read_to_string(&file)?) {
            text.push_str(&found);
            types += 1;
        }
    }
    if types < TYPES_MIN {
        return Err(io::Error::other(format!("only {types} types found in k8s-openapi")));
    }
    for paragraph in fs::read_to_string(DESCRIBED)?.split("\n\n") {
        for line in paragraph.lines() {
            let (before, line) = match line.strip_prefix('\t') {
                Some(field) => (FIELD, field),
                None => (TYPE, line),
            };
            let (name, value) = line.split_once(": ").ok_or_else(|| {
                io::Error::other(format!("{DESCRIBED}: `{line}` says nothing of a name"))
            })?;
            text.push_str(&format!("{before}{name}{DESCRIPTION}{value}"));
        }
    }
    let out = PathBuf::from(variable("OUT_DIR")?).join("descriptions.deflate");
    let mut encoder = DeflateEncoder::new(fs::File::create(out)?, Compression::best());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()?;
    Ok(())
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Where the sources of `k8s-openapi` are; Cargo alone knows.
fn sources() -> io::Result<PathBuf> {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(variable("TARGET")?)
        .arg("--manifest-path")
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("cargo metadata: {why}")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // With its version it is the package; without, some package's dependency.
    let package = text.split_once("{\"name\":\"k8s-openapi\",\"version\":").map(|(_, after)| after);
    let path = package.and_then(|it| it.split_once("\"manifest_path\":\"")).map(|(_, after)| after);
    let path = path.and_then(|it| it.split_once('"')).map(|(path, _)| Path::new(path));
    let folder = path.and_then(Path::parent);
    folder.map(Path::to_owned).ok_or_else(|| io::Error::other("k8s-openapi is no dependency"))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The descriptions in one file, which has at most one type; `None` if it has none. The schema is
/// generated code: members of the type are indented by 12, its fields by 16.
fn descriptions(source: &str) -> Option<String> {
    let (_, schema) = source.split_once("fn schema_name()")?;
    let name = literal(schema)?;
    let (_, body) = schema.split_once("json_schema!({")?;
    let mut text = format!("{TYPE}{name}");
    let mut of_type = String::new();
    let mut field = None;
    for line in body.lines() {
        let inside = line.trim_start();
        let depth = line.len() - inside.len();
        let described = inside.split_once("\"description\": ");
        let inserted = inside.split_once(".insert(\"description\".into(), ");
        match (depth, described.or(inserted)) {
            (12, Some((_, value))) => of_type = literal(value)?,
            (16, None) if inside.starts_with('"') => field = literal(inside),
            (20, Some((_, value))) => {
                if let Some(field) = field.take() {
                    let value = literal(value)?;
                    text.push_str(&format!("{FIELD}{field}{DESCRIPTION}{value}"));
                }
            }
            _ => {}
        }
    }
    text.insert_str(TYPE.len_utf8() + name.len(), &format!("{DESCRIPTION}{of_type}"));
    Some(text)
}

/// The first string literal of a text.
fn literal(text: &str) -> Option<String> {
    let (_, text) = text.split_once('"')?;
    let mut value = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'u' => {
                    let hex: String =
                        characters.by_ref().skip(1).take_while(|it| *it != '}').collect();
                    char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?
                }
                other => other,
            }),
            other => value.push(other),
        }
    }
}
