//! Takes the tests that need a cluster out of the source of `kube-client`, as it was published: they come
//! with the crate, and Cargo has held its checksum against `Cargo.lock`.
//!
//! Compiling the crate itself for its tests would take minutes: all that it needs would be built once more,
//! with other features than the rest of this workspace has.

#![expect(clippy::disallowed_methods, reason = "this is how Cargo speaks to a build script")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Files of the crate, and the module in each that has such tests.
const MODULES: [(&str, &str); 2] = [("src/lib.rs", "test"), ("src/api/entry.rs", "tests")];

/// What the tests call crates that are known here by other names.
const NAMES: &str = "use {futures_util as futures, kube::core as kube_core};\n";

/// A field that only the crate itself may read, and how everybody reads it.
const PRIVATE: (&str, &str) = ("api.namespace.clone()", "api.namespace().map(str::to_owned)");

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let sources = sources()?;
    let mut text = String::new();
    for (file, name) in MODULES {
        let source = fs::read_to_string(sources.join(file))?;
        let module = module(&source, name);
        let module = module.ok_or_else(|| io::Error::other(format!("no `{name}` in {file}")))?;
        let (head, body) = module;
        let body = body.replace(PRIVATE.0, PRIVATE.1);
        text.push_str(&format!("{head}{NAMES}{body}"));
    }
    fs::write(PathBuf::from(variable("OUT_DIR")?).join("tests.rs"), text)
}

/// The first line of a module and the rest of it. As rustfmt writes it, it ends where a line begins with a
/// brace.
fn module<'a>(source: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let head = format!("\nmod {name} {{\n");
    let start = source.find(&head)?;
    let body = start + head.len();
    let end = body + source.get(body..)?.find("\n}\n")? + "\n}\n".len();
    Some((source.get(start..body)?, source.get(body..end)?))
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// Where the source of `kube-client` is; Cargo alone knows.
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
    let package = text.split_once("{\"name\":\"kube-client\",\"version\":").map(|(_, after)| after);
    let path = package.and_then(|it| it.split_once("\"manifest_path\":\"")).map(|(_, after)| after);
    let path = path.and_then(|it| it.split_once('"')).map(|(path, _)| Path::new(path));
    let folder = path.and_then(Path::parent);
    folder.map(Path::to_owned).ok_or_else(|| io::Error::other("kube-client is no dependency"))
}
