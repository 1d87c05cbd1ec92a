//! What cannot work is refused with a message that names the object, the cause and what to do.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
};

use anyhow::ensure;

use crate::{
    cluster::{Cluster, eventually, said},
    host::processes,
};

#[track_caller]
fn names(text: &str, words: &[&str]) -> anyhow::Result<()> {
    for word in words {
        ensure!(text.contains(word), "no `{word}` in:\n{text}");
    }
    Ok(())
}

fn nothing_runs(cluster: &Cluster) -> anyhow::Result<()> {
    // What a failed start had begun has been told to end.
    eventually("nothing runs", || Ok(processes(&["coracle", &cluster.name])?.is_empty()))
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

pub(crate) fn used_port_is_named() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port().to_string();
    let cluster = Cluster::new("port")?;
    let text = cluster.refused(&["up", "--detach", "--port", &port])?;
    names(&text, &[&port, "in use", "--port"])?;
    nothing_runs(&cluster)?;
    // Without a wish there is always a next free one.
    drop(listener);
    cluster.coracle(&["up", "--detach"]).map(drop)
}

pub(crate) fn unwritable_state_folder_is_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("unwritable")?;
    let data = cluster.data().display().to_string();
    let refused = if is_root() {
        // Root may write anywhere but on a read-only file system.
        let mut shell = Command::new("unshare");
        let up = cluster.command(&["up", "--detach"])?;
        let script = format!(
            "mount -t tmpfs -o ro none {data} && exec \"$0\" up -d --name {}",
            cluster.name
        );
        shell.args(["--mount", "sh", "-c", &script]).arg(up.get_program());
        shell.envs(up.get_envs().filter_map(|(key, value)| Some((key, value?))));
        said(&shell.output()?)
    } else {
        fs::set_permissions(cluster.data(), fs::Permissions::from_mode(0o500))?;
        let text = cluster.refused(&["up", "--detach"])?;
        fs::set_permissions(cluster.data(), fs::Permissions::from_mode(0o700))?;
        text
    };
    names(&refused, &["state folder", &data, "XDG_DATA_HOME"])?;
    nothing_runs(&cluster)
}

pub(crate) fn full_state_folder_is_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("full")?;
    let data = cluster.data().display().to_string();
    let up = cluster.command(&["up", "--detach"])?;
    let script = format!(
        "mount -t tmpfs -o size=64k none {data} && exec \"$0\" up -d --name {}",
        cluster.name
    );
    let mut shell = Command::new("unshare");
    if !is_root() {
        shell.args(["--user", "--map-root-user"]);
    }
    shell.args(["--mount", "sh", "-c", &script]).arg(up.get_program());
    shell.envs(up.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = shell.output()?;
    ensure!(!output.status.success(), "it started: {}", said(&output));
    names(&said(&output), &[&data, "space"])?;
    nothing_runs(&cluster)
}

pub(crate) fn folder_of_another_user_is_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("another")?;
    if is_root() {
        fs::create_dir_all(cluster.state())?;
        chown(cluster.state(), Some(1234), Some(1234))?;
        let text = cluster.refused(&["up", "--detach"])?;
        names(&text, &["belongs to user 1234", "--name"])?;
        chown(cluster.state(), Some(0), Some(0))?;
    } else {
        // A folder of root's that this user may see.
        let mut command = cluster.command(&["up", "--detach"])?;
        let output = command.env("XDG_DATA_HOME", "/usr").output()?;
        ensure!(!output.status.success(), "it started");
        names(&said(&output), &["state folder", "/usr", "XDG_DATA_HOME"])?;
    }
    nothing_runs(&cluster)
}

/// Only an ordinary user needs user namespaces; root is asked nothing.
pub(crate) fn forbidden_namespaces_are_named() -> anyhow::Result<()> {
    if is_root() {
        return Ok(());
    }
    let cluster = Cluster::new("forbidden")?;
    let up = cluster.command(&["up", "--detach"])?;
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all \
         --inh-caps=-all \"$0\" up -d --name {}",
        cluster.name
    );
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-current-user", "--keep-caps", "sh", "-c", &script]);
    shell.arg(up.get_program());
    shell.envs(up.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = shell.output()?;
    ensure!(!output.status.success(), "it started: {}", said(&output));
    names(&said(&output), &["user namespace", "max_user_namespaces"])?;
    nothing_runs(&cluster)
}

pub(crate) fn bad_manifests_are_named() -> anyhow::Result<()> {
    let cluster = Cluster::new("bad")?;
    cluster.coracle(&["up", "--detach"])?;
    let cases: &[(&str, &[&str])] = &[
        ("a: [", &["app.yaml:1"]),
        ("apiVersion: v1\nkind: Pud\nmetadata: {name: a}\n", &["app.yaml:2", "v1 Pud"]),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndate: {}\n",
            &["app.yaml:4", "unknown field", "date"],
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: A_b\n",
            &["app.yaml:4", "metadata.name", "RFC 1123", "422"],
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: gone}\n",
            &["app.yaml", "namespaces \"gone\" not found", "404"],
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: c\n    \
             image: i\n    resources:\n      requests: {cpu: lots}\n",
            &["app.yaml:", "quantit"],
        ),
    ];
    for (text, words) in cases {
        cluster.write("app.yaml", text)?;
        let work = cluster.work().display().to_string();
        names(&cluster.refused(&["up", "--detach", &work])?, words)?;
    }
    Ok(())
}
