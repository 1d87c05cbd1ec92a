//! Reads of a kubeconfig what a client needs: where, whom to trust, who we are.

use std::{fs, path::Path};

use anyhow::Context as _;
use base64::Engine as _;
use serde::Deserialize;

/// Server and certificates, as PEM.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) server: String,
    pub(crate) authority: Vec<u8>,
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

/// Reads the first cluster and the first user of a file; ours has no others.
pub(crate) fn read(path: &Path) -> anyhow::Result<Credentials> {
    let text = fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))?;
    parse(&text).with_context(|| format!("read `{}`", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Credentials> {
    let config: Kubeconfig = serde_saphyr::from_str(text)?;
    let cluster = config.clusters.into_iter().next().context("no cluster")?.cluster;
    let user = config.users.into_iter().next().context("no user")?.user;
    let decode = |it: &str| base64::engine::general_purpose::STANDARD.decode(it);
    Ok(Credentials {
        server: cluster.server,
        authority: decode(&cluster.certificate_authority_data)?,
        certificate: decode(&user.client_certificate_data)?,
        key: decode(&user.client_key_data)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let text = "
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: YQ==}}]
users: [{name: b, user: {client-certificate-data: Yg==, client-key-data: Yw==}}]
";
        let it = parse(text).unwrap();
        let parts = (&it.server[..], &it.authority[..], &it.certificate[..], &it.key[..]);
        assert_eq!(parts, ("https://127.0.0.1:6443", &b"a"[..], &b"b"[..], &b"c"[..]));
        assert!(parse("clusters: []\nusers: []\n").is_err());
    }
}
