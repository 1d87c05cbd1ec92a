//! Whom a registry's certificate may be signed by beside those that the machine trusts, and who asks it:
//! the folders `certs.d/HOST[:PORT]` of Podman, Skopeo and Docker.
//!
//! Ref: containers-certs.d(5).

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Largest file: hundreds of certificates.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is set up for one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// HOST or HOST:PORT.
    pub(crate) host: String,
    path: PathBuf,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    /// The system refused it.
    #[error("read `{path}`: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Not what its name says.
    #[error("`{path}` {why}", path = path.display())]
    Form { path: PathBuf, why: String },
}

/// The folders in `certs.d`; none if that is not there.
pub(crate) fn folders(certs_d: &Path) -> io::Result<Vec<Folder>> {
    let entries = match fs::read_dir(certs_d) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let host = path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        if let Some(host) = host.filter(|_| path.is_dir()) {
            found.push(Folder { host, path });
        }
    }
    found.sort_by(|a, b| a.host.cmp(&b.host));
    Ok(found)
}

impl Folder {
    /// TLS with this registry: `*.crt` are authorities beside those of the machine, `NAME.cert` with
    /// `NAME.key` is who asks.
    pub(crate) fn config(
        &self,
        provider: Arc<CryptoProvider>,
        machine: &RootCertStore,
    ) -> Result<ClientConfig, CertificatesError> {
        let form = |path: &Path, why: &dyn std::fmt::Display| CertificatesError::Form {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let mut roots = machine.clone();
        for path in self.files("crt")? {
            for certificate in certificates(&path)? {
                let added = roots.add(certificate);
                added.map_err(|it| form(&path, &format!("has no authority in it: {it}")))?;
            }
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|it| form(&self.path, &it))?
            .with_root_certificates(roots);
        let Some(path) = self.files("cert")?.into_iter().next() else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(&path)?;
        let key_path = path.with_extension("key");
        let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
            .map_err(|it| form(&key_path, &format!("has no private key in it: {it}")))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|it| form(&path, &format!("cannot be used: {it}")))
    }

    /// The files of this extension, by name.
    fn files(&self, extension: &str) -> Result<Vec<PathBuf>, CertificatesError> {
        let failed = |source| CertificatesError::Read { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(failed)?;
        let paths: io::Result<Vec<PathBuf>> = entries.map(|it| Ok(it?.path())).collect();
        let mut paths = paths.map_err(failed)?;
        paths.retain(|it| it.extension() == Some(OsStr::new(extension)));
        paths.sort();
        Ok(paths)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let form = |why| CertificatesError::Form { path: path.to_owned(), why };
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|it| form(format!("is not PEM: {it}")))?;
    if found.is_empty() {
        return Err(form("has no certificate in it".to_owned()));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificatesError> {
    let failed = |source| CertificatesError::Read { path: path.to_owned(), source };
    if FILE_BYTES_MAX < fs::metadata(path).map_err(failed)?.len() {
        return Err(failed(io::Error::other(format!("more than {FILE_BYTES_MAX} bytes"))));
    }
    fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let certs_d = tempfile::tempdir().unwrap();
        assert_eq!(folders(&certs_d.path().join("none")).unwrap(), []);
        fs::write(certs_d.path().join("file.crt"), "").unwrap();
        for host in ["b.test", "a.test:5000"] {
            fs::create_dir(certs_d.path().join(host)).unwrap();
        }
        let found = folders(certs_d.path()).unwrap();
        let hosts: Vec<&str> = found.iter().map(|it| it.host.as_str()).collect();
        assert_eq!(hosts, ["a.test:5000", "b.test"]);
        let folder = found.into_iter().next().unwrap();
        let config = || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            folder.config(provider, &RootCertStore::empty()).map(drop)
        };
        config().unwrap();
        let check = |file: &str, text: &str, expected: &str| {
            fs::write(folder.path.join(file), text).unwrap();
            let error = config().unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
            fs::remove_file(folder.path.join(file)).unwrap();
        };
        check("ca.crt", "no PEM", "/a.test:5000/ca.crt` has no certificate in it");
        let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        check(
            "ca.crt",
            bad,
            "/ca.crt` has no authority in it: invalid peer certificate: BadEncoding",
        );
        check("me.cert", bad, "/me.key`: No such file or directory (os error 2)");
    }
}
