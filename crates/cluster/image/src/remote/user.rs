//! What a user's files say of registries: credentials, mirrors, hosts without TLS; and what the environment
//! says: proxies. The same, at the same places, as of Podman, Skopeo, Buildah and Docker.
//!
//! Ref: containers-auth.json(5), containers-registries.conf(5), `docker login`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Keyring, KeyringError, Proxies, ProxyError, Registries, RegistriesError, certificates,
};

/// The machine's own configuration of registries.
const REGISTRIES_OF_MACHINE: &str = "/etc/containers/registries.conf";

/// The machine's own certificates of registries.
const CERTIFICATES_OF_MACHINE: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// Why a file of the user cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The system refused it.
    #[error("read `{path}`", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not of the form of credentials.
    #[error("credentials in `{path}`", path = path.display())]
    Keyring {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyringError,
    },
    /// Not of the form of `registries.conf`.
    #[error("registries in `{path}`", path = path.display())]
    Registries {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: RegistriesError,
    },
    /// No proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// Where the user's files are, as far as variables of the environment say it.
#[derive(Debug)]
pub struct User<'a> {
    variables: &'a [(String, String)],
    uid: u32,
}

impl<'a> User<'a> {
    /// The user `uid` with these variables; of interest are `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `HOME`,
    /// `XDG_CONFIG_HOME` and `XDG_RUNTIME_DIR`, and those of [`Proxies::new`].
    #[must_use]
    pub const fn new(variables: &'a [(String, String)], uid: u32) -> Self {
        Self { variables, uid }
    }

    /// Adds the user's credentials to those that are there.
    ///
    /// # Errors
    /// [`UserError`]; a file that is not there is none.
    pub fn add_credentials(&self, keyring: &mut Keyring) -> Result<(), UserError> {
        for path in self.auth_files() {
            let Some(bytes) = read(&path)? else { continue };
            let added = keyring.add_config(&bytes);
            added.map_err(|source| UserError::Keyring { path, source })?;
        }
        Ok(())
    }

    /// What the user's, else the machine's, `registries.conf` says, and the files beside it in
    /// `registries.conf.d`, in the order of their names; and which certificates registries have (`certs.d`).
    ///
    /// # Errors
    /// [`UserError`]; a file that is not there is none.
    pub fn registries(&self) -> Result<Registries, UserError> {
        let mut registries = Registries::default();
        let own = self.config_home().map(|it| it.join("containers/registries.conf"));
        let main = own.filter(|it| it.exists());
        let main = main.unwrap_or_else(|| PathBuf::from(REGISTRIES_OF_MACHINE));
        let mut paths = vec![main.clone()];
        paths.extend(drop_ins(&main.with_extension("conf.d"))?);
        for path in paths {
            let Some(bytes) = read(&path)? else { continue };
            let added = registries.add_file(&String::from_utf8_lossy(&bytes));
            added.map_err(|source| UserError::Registries { path, source })?;
        }
        let own = self.config_home().map(|it| it.join("containers/certs.d"));
        for path in own.into_iter().chain(CERTIFICATES_OF_MACHINE.map(PathBuf::from)) {
            match certificates::folders(&path) {
                Ok(folders) => registries.add_certificates(folders),
                // Root's, for root: other registries than those do without.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(path = %path.display(), %error, "certificates are not read");
                }
                Err(source) => return Err(UserError::Read { path, source }),
            }
        }
        Ok(registries)
    }

    /// The proxies that the variables name.
    ///
    /// # Errors
    /// [`UserError::Proxy`].
    pub fn proxies(&self) -> Result<Proxies, UserError> {
        Ok(Proxies::new(self.variables)?)
    }

    fn variable(&self, name: &str) -> Option<PathBuf> {
        let found = self.variables.iter().find(|(it, value)| it == name && !value.is_empty());
        found.map(|(_, value)| PathBuf::from(value))
    }

    fn config_home(&self) -> Option<PathBuf> {
        let below_home = || self.variable("HOME").map(|it| it.join(".config"));
        self.variable("XDG_CONFIG_HOME").or_else(below_home)
    }

    /// Where credentials are, those first that go before others.
    fn auth_files(&self) -> Vec<PathBuf> {
        if let Some(only) = self.variable("REGISTRY_AUTH_FILE") {
            return vec![only];
        }
        let of_root = || PathBuf::from(format!("/run/containers/{}", self.uid));
        let runtime = self.variable("XDG_RUNTIME_DIR").map(|it| it.join("containers"));
        let of_docker = || self.variable("HOME").map(|it| it.join(".docker"));
        let docker = self.variable("DOCKER_CONFIG").or_else(of_docker);
        let folders = [Some(runtime.unwrap_or_else(of_root)), self.config_home()];
        let [runtime, config] = folders;
        [
            runtime.map(|it| it.join("auth.json")),
            config.map(|it| it.join("containers/auth.json")),
            docker.map(|it| it.join("config.json")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, UserError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        // Also below a file where a folder should be.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(source) => Err(UserError::Read { path: path.to_owned(), source }),
    }
}

fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>, UserError> {
    let failed = |source| UserError::Read { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|it| Ok(it?.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|it| it.extension().is_some_and(|it| it == "conf"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reference;

    #[test]
    fn files_are_found_where_others_look() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        // ann:secret, bob:word
        write("run/containers/auth.json", r#"{"auths":{"one.test":{"auth":"YW5uOnNlY3JldA=="}}}"#);
        write(".docker/config.json", r#"{"auths":{"two.test":{"auth":"Ym9iOndvcmQ="}}}"#);
        write(
            ".config/containers/registries.conf",
            "[[registry]]\nlocation = \"one.test\"\n[[registry.mirror]]\nlocation = \"mirror.test\"\n",
        );
        let path = |name: &str| home.path().join(name).display().to_string();
        let variables =
            [("HOME".to_owned(), path("")), ("XDG_RUNTIME_DIR".to_owned(), path("run"))];
        let user = User::new(&variables, 1000);
        let mut keyring = Keyring::default();
        user.add_credentials(&mut keyring).unwrap();
        let of = |name: &str| -> Vec<String> {
            let reference: Reference = name.parse().unwrap();
            keyring.of(&reference).into_iter().map(|it| it.user).collect()
        };
        assert_eq!(
            (of("one.test/a"), of("two.test/a")),
            (vec!["ann".to_owned()], vec!["bob".to_owned()])
        );
        let reference: Reference = "one.test/a:1".parse().unwrap();
        let endpoints = user.registries().unwrap().endpoints(&reference).unwrap();
        assert_eq!(endpoints.len(), 2);
        assert!(endpoints.first().unwrap().mirror);

        write(".docker/config.json", "no json");
        let error = user.add_credentials(&mut Keyring::default()).unwrap_err();
        assert!(error.to_string().ends_with("config.json`"), "{error}");
    }
}
