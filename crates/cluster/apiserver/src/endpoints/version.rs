//! `/version`: which Kubernetes this speaks, and which program it is.

use http::{Response, StatusCode};
use serde_json::json;

use crate::http::{body::Body, respond};

/// The Kubernetes whose behaviour is followed.
const MAJOR: &str = "1";
/// See [`MAJOR`].
const MINOR: &str = "36";

/// Builds are reproducible: they do not know when they were made.
const BUILT: &str = "1970-01-01T00:00:00Z";
const TREE: &str = "clean";
const COMPILER: &str = "rustc";

/// `GET /version`.
pub(crate) fn answer() -> Response<Body> {
    let version = json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": release(),
        "gitCommit": "",
        "gitTreeState": TREE,
        "buildDate": BUILT,
        "goVersion": "",
        "compiler": COMPILER,
        "platform": platform(),
    });
    respond::value(StatusCode::OK, &version)
}

/// The same as labels of a metric, in their order.
pub(crate) fn labels() -> String {
    format!(
        "build_date=\"{BUILT}\",compiler=\"{COMPILER}\",git_commit=\"\",git_tree_state=\"{TREE}\",\
         git_version=\"{}\",go_version=\"\",major=\"{MAJOR}\",minor=\"{MINOR}\",platform=\"{}\"",
        release(),
        platform()
    )
}

fn release() -> String {
    format!("v{MAJOR}.{MINOR}.0+coracle-{}", env!("CARGO_PKG_VERSION"))
}

/// System and architecture in Go's words, as clients compare them.
fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{architecture}", std::env::consts::OS)
}
