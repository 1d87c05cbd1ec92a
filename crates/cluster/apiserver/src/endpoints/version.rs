//! `/version`: which Kubernetes this speaks, and which program it is.

use http::{Response, StatusCode};
use serde_json::json;

use crate::http::{body::Body, respond};

/// The Kubernetes whose behaviour is followed.
const MAJOR: &str = "1";
/// See [`MAJOR`].
const MINOR: &str = "36";

/// `GET /version`.
pub(crate) fn answer() -> Response<Body> {
    let version = json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+coracle-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    });
    respond::value(StatusCode::OK, &version)
}

/// The architecture in Go's words, as clients compare it.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
