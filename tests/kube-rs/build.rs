//! Takes the tests that need a cluster out of the sources of `kube-client` and `kube`, as they were
//! published: they come with the crates, and Cargo has held their checksums against `Cargo.lock`.
//!
//! Compiling the crates themselves for their tests would take minutes: all that they need would be built once
//! more, with other features than the rest of this workspace has.

#![expect(clippy::disallowed_methods, reason = "this is how Cargo speaks to a build script")]

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Files of `kube-client`, and the module in each that has such tests.
const MODULES: [(&str, &str); 2] = [("src/lib.rs", "test"), ("src/api/entry.rs", "tests")];

/// What the tests call crates that are known here by other names.
const NAMES: &str = "use {futures_util as futures, kube::core as kube_core};\n";

/// A field that only the crate itself may read, and how everybody reads it.
const PRIVATE: (&str, &str) = ("api.namespace.clone()", "api.namespace().map(str::to_owned)");

/// The tests of `kube`, in one module of its `src/lib.rs`, that want neither a custom resource, nor
/// kube-derive, nor kube-runtime.
const OF_KUBE: [&str; 2] =
    ["custom_serialized_objects_are_queryable_and_iterable", "api_get_opt_handles_404"];

/// What that module has besides.
const OF_KUBE_HEAD: &str = "use {crate::*, serde::Deserialize};\n\
    use k8s_openapi::api::core::v1::ConfigMap;\n";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    let metadata = metadata()?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    fs::write(out.join("kube_client.rs"), of_kube_client(&sources(&metadata, "kube-client")?)?)?;
    fs::write(out.join("kube.rs"), of_kube(&sources(&metadata, "kube")?)?)
}

fn of_kube_client(sources: &Path) -> io::Result<String> {
    let mut text = String::new();
    for (file, name) in MODULES {
        let source = fs::read_to_string(sources.join(file))?;
        let module = module(&source, name);
        let module = module.ok_or_else(|| io::Error::other(format!("no `{name}` in {file}")))?;
        let (head, body) = module;
        let body = body.replace(PRIVATE.0, PRIVATE.1);
        text.push_str(&format!("{head}{NAMES}{body}"));
    }
    Ok(text)
}

fn of_kube(sources: &Path) -> io::Result<String> {
    let source = fs::read_to_string(sources.join("src/lib.rs"))?;
    let module = module(&source, "test").map(|(_, body)| body);
    let mut text = OF_KUBE_HEAD.to_owned();
    for name in OF_KUBE {
        let test = module.and_then(|it| test(it, name));
        let test = test.ok_or_else(|| io::Error::other(format!("no test `{name}` in kube")))?;
        text.push_str(test);
    }
    Ok(text)
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

/// A test of a module, with its attributes. As rustfmt writes it, it ends where a line has nothing but a brace
/// that is indented once.
fn test<'a>(module: &'a str, name: &str) -> Option<&'a str> {
    let signature = module.find(&format!("\n    async fn {name}("))?;
    let start = module.get(..signature)?.rfind("    #[tokio::test]\n")?;
    let end = signature + module.get(signature..)?.find("\n    }\n")? + "\n    }\n".len();
    module.get(start..end)
}

fn variable(name: &str) -> io::Result<String> {
    env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// All packages of this workspace, and where they are; Cargo alone knows.
fn metadata() -> io::Result<String> {
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
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where the source of a package is.
fn sources(metadata: &str, package: &str) -> io::Result<PathBuf> {
    // With its version it is the package; without, some package's dependency.
    let head = format!("{{\"name\":\"{package}\",\"version\":");
    let path = metadata.split_once(&head).map(|(_, after)| after);
    let path = path.and_then(|it| it.split_once("\"manifest_path\":\"")).map(|(_, after)| after);
    let path = path.and_then(|it| it.split_once('"')).map(|(path, _)| Path::new(path));
    let folder = path.and_then(Path::parent).map(Path::to_owned);
    folder.ok_or_else(|| io::Error::other(format!("{package} is no dependency")))
}
