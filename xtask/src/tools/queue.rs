//! NSQ's clients for Python and Node.js. Which ones, with all that they use and every file's hash, is told
//! beside the tests that use them, in the words of their registries.

use std::path::{Path, PathBuf};

use super::libraries;

const REQUIREMENTS: &str = include_str!("../../../tests/clients/queue/requirements.txt");
const REQUIREMENTS_BUILD: &str =
    include_str!("../../../tests/clients/queue/requirements-build.txt");
const PACKAGE: &str = include_str!("../../../tests/clients/queue/package.json");
const LOCK: &str = include_str!("../../../tests/clients/queue/package-lock.json");

/// Where the clients are.
#[derive(Debug)]
pub(crate) struct Queue {
    /// A Python that they work with.
    pub(crate) python: PathBuf,
    /// For `PYTHONPATH`.
    pub(crate) of_python: PathBuf,
    /// For `NODE_PATH`.
    pub(crate) of_node: PathBuf,
}

/// Installs what is missing.
pub(crate) fn queue(root: &Path) -> anyhow::Result<Queue> {
    let tools = libraries::folder(root)?;
    let python = super::python_with_pip()?;
    let requirements = [("requirements.txt", REQUIREMENTS_BUILD)];
    let pip = libraries::pip(&python);
    let build = libraries::install(&tools, "queue-python-build", &requirements, pip)?;
    // pynsq comes as source. It is built with what was just installed, not with what pip would fetch.
    let mut pip = libraries::pip(&python);
    pip.args(["--no-binary=pynsq", "--no-build-isolation", "--use-pep517"]);
    pip.env("PYTHONPATH", build);
    let requirements = [("requirements.txt", REQUIREMENTS)];
    let of_python = libraries::install(&tools, "queue-python", &requirements, pip)?;
    let files = [("package.json", PACKAGE), ("package-lock.json", LOCK)];
    let of_node = libraries::install(&tools, "queue-node", &files, libraries::npm()?)?;
    Ok(Queue { python, of_python, of_node: of_node.join("node_modules") })
}
