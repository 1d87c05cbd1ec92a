//! The dependency graph as data: which crate of ours may use which. It says nothing of other
//! people's crates.

use anyhow::Context as _;
use toml::Value;

use Uses::{Everything, Only};

/// What a crate may use of ours.
#[derive(Clone, Copy)]
enum Uses {
    Only(&'static [&'static str]),
    /// For what wires or tests the whole; nothing may depend on it in turn.
    Everything,
}

/// The architecture. Changing it is a decision: a commit of its own, with the reason.
///
/// A client of the Kubernetes API gets `client`, `api`, `runtime` and nothing of the cluster. One
/// helper is reached directly because it is the process below, not a peer: `node` starts shims and
/// speaks their wire. `network` and `proxy` get sockets of the keeper from whoever builds them.
const MAY_USE: &[(&str, Uses)] = &[
    ("api", Only(&[])),
    ("runtime", Only(&[])),
    ("client", Only(&["api", "runtime"])),
    ("fault", Only(&["runtime"])),
    ("store", Only(&["runtime"])),
    ("apiserver", Only(&["store", "api", "runtime"])),
    ("controllers", Only(&["client", "api", "runtime"])),
    ("scheduler", Only(&["client", "api", "runtime"])),
    ("keeper", Only(&[])),
    ("shim", Only(&[])),
    ("image", Only(&["runtime"])),
    ("node", Only(&["image", "shim", "client", "api", "runtime"])),
    ("network", Only(&["client", "api", "runtime"])),
    ("proxy", Only(&["client", "api", "runtime"])),
    ("chaos", Only(&["client", "api", "runtime"])),
    ("queue", Only(&["runtime"])),
    ("compose", Only(&["api"])),
    ("kustomize", Only(&["api"])),
    ("load", Only(&["fault", "client", "api", "runtime"])),
    ("coracle", Everything),
    ("clients", Everything),
    ("graded", Everything),
    ("kube-rs", Only(&[])),
    ("machine", Everything),
    ("scenarios", Only(&[])),
    ("world", Everything),
    ("benches", Everything),
    ("xtask", Only(&[])),
];

/// Sections of a manifest whose crates end up in the product. What tests use is free.
const SECTIONS: &[&str] = &["dependencies", "build-dependencies"];

/// Checks one crate's manifest.
pub(crate) fn check(manifest: &str, workspace: &toml::Table) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = manifest.parse().context("read the manifest")?;
    let name = manifest.get("package").and_then(|it| it.get("name")).and_then(Value::as_str);
    let name = short(name.context("no package.name")?);
    let Some((_, uses)) = MAY_USE.iter().find(|(it, _)| *it == name) else {
        return Ok(vec![format!("`{name}` is not in MAY_USE of xtask/src/tidy/edges.rs")]);
    };
    let mut problems = Vec::new();
    for used in dependencies(&manifest, workspace) {
        let Some((_, of_used)) = MAY_USE.iter().find(|(it, _)| *it == short(&used)) else {
            continue;
        };
        let allowed = match uses {
            Everything => matches!(of_used, Only(_)),
            Only(names) => names.contains(&short(&used)),
        };
        if !allowed {
            problems.push(format!("`{name}` must not use `{}`", short(&used)));
        }
    }
    let lints = manifest.get("lints").and_then(|it| it.get("workspace"));
    if lints.and_then(Value::as_bool) != Some(true) {
        problems.push("no `lints.workspace = true`".to_owned());
    }
    Ok(problems)
}

/// Package names behind every dependency of the product, also those of one platform only.
fn dependencies(manifest: &toml::Table, workspace: &toml::Table) -> Vec<String> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets.into_iter().flat_map(toml::Table::values).filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| SECTIONS.iter().filter_map(|section| table.get(*section)))
        .filter_map(Value::as_table)
        .flatten()
        .map(|(key, value)| package(key, value, workspace))
        .collect()
}

/// The package that a dependency names: renamed here, or in the workspace, or not at all.
fn package(key: &str, dependency: &Value, workspace: &toml::Table) -> String {
    let renamed = |it: &Value| it.get("package").and_then(Value::as_str).map(str::to_owned);
    let of_workspace = || {
        let inherited = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
        inherited.then(|| workspace.get("workspace")?.get("dependencies")?.get(key)).flatten()
    };
    renamed(dependency).or_else(|| renamed(of_workspace()?)).unwrap_or_else(|| key.to_owned())
}

/// `store` for the package `coracle-store`; `coracle` itself stays.
fn short(package: &str) -> &str {
    package.strip_prefix("coracle-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    const WORKSPACE: &str = "[workspace.dependencies]
        store = { package = 'coracle-store', path = 'crates/cluster/store' }
        api = { package = 'coracle-api', path = 'crates/base/api' }";

    fn expect_problems(manifest: &str, expected: Expect) {
        let problems = check(manifest, &WORKSPACE.parse().unwrap()).unwrap();
        expected.assert_eq(&problems.join("\n"));
    }

    #[test]
    fn allowed_edge() {
        let manifest = "package.name = 'coracle-apiserver'
            dependencies.store.workspace = true
            dependencies.hyper.workspace = true
            lints.workspace = true";
        expect_problems(manifest, expect![[""]]);
    }

    #[test]
    fn forbidden_edge_under_another_name() {
        let manifest = "package.name = 'coracle-controllers'
            dependencies.shelf = { package = 'coracle-store', path = '../store' }
            lints.workspace = true";
        expect_problems(manifest, expect![[r"`controllers` must not use `store`"]]);
    }

    #[test]
    fn forbidden_edge_on_one_platform() {
        let manifest = "package.name = 'coracle-runtime'
            [target.'cfg(unix)'.build-dependencies]
            api.workspace = true
            [lints]
            workspace = true";
        expect_problems(manifest, expect![[r"`runtime` must not use `api`"]]);
    }

    #[test]
    fn tests_are_free() {
        let manifest = "package.name = 'coracle-client'
            dev-dependencies.store.workspace = true
            lints.workspace = true";
        expect_problems(manifest, expect![[""]]);
    }

    #[test]
    fn unknown_crate_without_lints() {
        let manifest = "package.name = 'coracle-new'";
        expect_problems(manifest, expect![[r"`new` is not in MAY_USE of xtask/src/tidy/edges.rs"]]);
        let manifest = "package.name = 'coracle-api'";
        expect_problems(manifest, expect![[r"no `lints.workspace = true`"]]);
    }

    #[test]
    fn nothing_uses_what_wires() {
        let manifest = "package.name = 'coracle-clients'
            dependencies.coracle = {}
            lints.workspace = true";
        expect_problems(manifest, expect![[r"`clients` must not use `coracle`"]]);
    }
}
