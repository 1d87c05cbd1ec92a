//! Toxiproxy's clients for Python and Node.js.

use std::path::{Path, PathBuf};

use super::libraries;

/// Python's, with what it uses. The wheels are those without compiled parts, for any machine.
const REQUIREMENTS: &str = "\
toxiproxy-python==0.1.1 \
--hash=sha256:3d6abe341061253b4f25e5b1f3a10054fdafb700d017e2bd6ad33827b7a6ebfd
future==1.0.0 --hash=sha256:929292d34f5872e70396626ef385ec22355a1fae8ad29e1a734c3e43f9fbc216
requests==2.34.2 --hash=sha256:2a0d60c172f83ac6ab31e4554906c0f3b3588d37b5cb939b1c061f4907e278e0
certifi==2026.10.18 --hash=sha256:73191c47aaa79da394e8fee2dbc2ec827432cab56311122c9e47abf79e390f62
charset-normalizer==3.5.2 \
--hash=sha256:b6b751274acb69d77b3323d6b7dbaa3c7fdfc1eb829b7eb61d262f32e1af9685
idna==3.20 --hash=sha256:ab7ae7122974553370f0bdb919e1a960b2cd1bc1ef0276416d896db81c14582c
urllib3==2.8.0 --hash=sha256:0cf3cae568d36aa9576b28dfb35f11328f1cb974ca7647d9475ebb86c75ac6e3
";

/// Node's, which uses nothing but Node.js. Both files say the same; npm wants both.
const PACKAGE: &str = r#"{"private": true, "dependencies": {"toxiproxy-node-client": "4.1.0"}}"#;
const LOCK: &str = r#"{
  "lockfileVersion": 3,
  "packages": {
    "": {"dependencies": {"toxiproxy-node-client": "4.1.0"}},
    "node_modules/toxiproxy-node-client": {
      "version": "4.1.0",
      "integrity": "sha512-hdCvgbS6fUtzxPzrbvvE7MZ7dl5dt+c4c0d4T2G1I+clz3QEmjEvIpzObyojUY3WNdDuoYI7sT4kcTqgUVyXAQ=="
    }
  }
}"#;

/// Where the clients are.
#[derive(Debug)]
pub(crate) struct Toxiproxy {
    /// A Python that they work with.
    pub(crate) python: PathBuf,
    /// For `PYTHONPATH`.
    pub(crate) of_python: PathBuf,
    /// For `NODE_PATH`.
    pub(crate) of_node: PathBuf,
}

/// Installs what is missing.
pub(crate) fn toxiproxy(root: &Path) -> anyhow::Result<Toxiproxy> {
    let tools = libraries::folder(root)?;
    let python = super::python_with_pip()?;
    let requirements = [("requirements.txt", REQUIREMENTS)];
    let pip = libraries::pip(&python);
    let of_python = libraries::install(&tools, "toxiproxy-python", &requirements, pip)?;
    let files = [("package.json", PACKAGE), ("package-lock.json", LOCK)];
    let of_node = libraries::install(&tools, "toxiproxy-node", &files, libraries::npm()?)?;
    Ok(Toxiproxy { python, of_python, of_node: of_node.join("node_modules") })
}
