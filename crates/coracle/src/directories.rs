//! Where a cluster keeps its things: the state folder and the runtime folder, one pair per user and
//! cluster name. Makes them, and refuses what is not ours.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::removal;

/// Version of the layout of the state folder. A newer one is refused, an older one migrated.
const FORMAT_VERSION: u32 = 1;

/// Longest cluster name. It becomes part of socket paths (108 bytes in all, unix(7)) and of a
/// kubeconfig context.
const NAME_LENGTH_MAX: usize = 32;

/// How much of a path goes into a link's text, in bytes: the kernel takes 255 (`IFALIASZ`).
const LINK_ALIAS_MAX: usize = 200;

/// Name of the folder of images, beside the clusters' state folders.
const IMAGES: &str = "images";

/// What of the process environment decides where folders are. Read once, in `cli`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `XDG_DATA_HOME`.
    pub(crate) data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(crate) runtime_dir: Option<PathBuf>,
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `KUBECONFIG`: a list of files, as kubectl reads it.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// What linked programs inherit, by name.
    pub(crate) inherited: Vec<(String, String)>,
    /// What says how registries are reached, by name.
    pub(crate) registries: Vec<(String, String)>,
    /// `SOURCE_DATE_EPOCH`: when what is built is said to be from, in seconds since 1970.
    pub(crate) time: Option<i64>,
    /// Effective user id.
    pub(crate) uid: u32,
}

impl Environment {
    /// The kubeconfig file that kubectl would change: the first of `KUBECONFIG`, else the one in
    /// the home folder.
    pub(crate) fn user_kubeconfig(&self) -> Option<PathBuf> {
        let listed = self.kubeconfig.as_deref().and_then(|it| std::env::split_paths(it).next());
        listed.or_else(|| self.home.as_ref().map(|it| it.join(".kube/config")))
    }
}

/// The folders of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    /// Name of the cluster.
    pub(crate) name: String,
    /// What must survive a reboot: store, keys, volumes, logs.
    pub(crate) state: PathBuf,
    /// What need not: sockets, locks, process ids.
    pub(crate) run: PathBuf,
    /// The store of images, which all clusters of a user share.
    pub(crate) images: PathBuf,
    /// Beside it, where linked programs can look: commands for them.
    pub(crate) commands: PathBuf,
    uid: u32,
}

impl Directories {
    /// Decides the folders of cluster `name`; touches nothing.
    pub(crate) fn resolve(name: &str, environment: &Environment) -> anyhow::Result<Self> {
        check_name(name)?;
        let uid = environment.uid;
        let (state, run) = if uid == 0 {
            (PathBuf::from("/var/lib/coracle"), PathBuf::from("/run/coracle"))
        } else {
            (data_home(environment)?.join("coracle"), runtime_home(environment))
        };
        let (state, run) = match (uid, &environment.data_home, &environment.runtime_dir) {
            // Root, too, may move its clusters elsewhere, by naming both folders.
            (0, Some(data), Some(runtime)) => (data.join("coracle"), runtime.join("coracle")),
            _ => (state, run),
        };
        // No name of a cluster begins so.
        let commands = run.join(format!(".{name}"));
        let images = state.join(IMAGES);
        let (state, run) = (state.join(name), run.join(name));
        Ok(Self { name: name.to_owned(), state, run, images, commands, uid })
    }

    /// Makes the folders with mode 0700 and checks that they are this user's and of a format that
    /// this program knows.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for (what, folder) in self.folders() {
            make(folder).map_err(|error| explain(what, folder, error))?;
            self.check_owner(what, folder)?;
        }
        self.check_format()
    }

    /// Whether a state folder is there.
    pub(crate) fn exists(&self) -> bool {
        self.state.exists()
    }

    /// Removes the folders with all that is in them.
    pub(crate) fn delete(&self) -> anyhow::Result<()> {
        for (what, folder) in self.folders() {
            if folder.exists() {
                self.check_owner(what, folder)?;
                removal::remove(folder)
                    .with_context(|| format!("remove {what} folder `{}`", folder.display()))?;
            }
        }
        self.release_images()?;
        for parent in [self.state.parent(), self.run.parent()].into_iter().flatten() {
            match fs::remove_dir(parent) {
                Ok(()) => {}
                // Other clusters live there, or somebody else made it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::debug!(folder = %parent.display(), %error, "folder kept"),
            }
        }
        Ok(())
    }

    /// What the cluster's pods needed of the images is needed no more; a store without images goes.
    fn release_images(&self) -> anyhow::Result<()> {
        if !self.images.exists() {
            return Ok(());
        }
        let store = image::Store::open(&self.images).context("open the store of images")?;
        store.release_all(&format!("{}.", self.name)).context("let go of images")?;
        if store.is_unused().context("look for images")? {
            fs::remove_dir_all(&self.images)
                .with_context(|| format!("remove `{}`", self.images.display()))?;
        }
        Ok(())
    }

    fn folders(&self) -> [(&'static str, &Path); 3] {
        [("state", &self.state), ("runtime", &self.run), ("commands", &self.commands)]
    }

    /// The text that the cluster's link on the host has: the folder that is no other cluster's, or the
    /// end of its path.
    pub(crate) fn link_alias(&self) -> String {
        let path = self.run.display().to_string();
        let cut = path.len().saturating_sub(LINK_ALIAS_MAX);
        let end = path.get(path.ceil_char_boundary(cut)..).unwrap_or_default();
        format!("coracle {end}")
    }

    /// The kubeconfig file of the cluster's administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// What the keeper has to complain of.
    pub(crate) fn keeper_log(&self) -> PathBuf {
        self.state.join("keeper.log")
    }

    /// The name of the kubeconfig context: `coracle`, or `coracle-NAME`.
    pub(crate) fn context(&self) -> String {
        if self.name == crate::cli::DEFAULT_NAME {
            "coracle".to_owned()
        } else {
            format!("coracle-{}", self.name)
        }
    }

    fn check_owner(&self, what: &str, folder: &Path) -> anyhow::Result<()> {
        let owner = fs::metadata(folder)
            .with_context(|| format!("look at {what} folder `{}`", folder.display()))?
            .uid();
        if owner != self.uid {
            bail!(
                "{what} folder `{}` belongs to user {owner}, and this is user {}: run as that \
                 user, choose another --name, or set XDG_DATA_HOME and XDG_RUNTIME_DIR to folders \
                 of your own",
                folder.display(),
                self.uid
            );
        }
        Ok(())
    }

    fn check_format(&self) -> anyhow::Result<()> {
        let path = self.state.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(version) if version <= FORMAT_VERSION => Ok(()),
                Ok(version) => bail!(
                    "state folder `{}` has format {version}, and this program knows formats up to \
                     {FORMAT_VERSION}: use the newer coracle that wrote it, or another --name",
                    self.state.display()
                ),
                Err(_) => bail!("`{}` holds no format version: `{}`", path.display(), text.trim()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_private(&path, format!("{FORMAT_VERSION}\n").as_bytes())
                    .map_err(|error| explain("state", &self.state, error))
            }
            Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
        }
    }
}

/// Writes `bytes` to a file of mode 0600, by way of a temporary file and a rename.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    fs::rename(&temporary, path)
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn explain(what: &str, folder: &Path, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        io::ErrorKind::StorageFull => "the file system is full",
        io::ErrorKind::PermissionDenied => "this user may not write there",
        io::ErrorKind::NotADirectory => "a part of the path is a file",
        _ => "the system refused",
    };
    let path = folder.display();
    anyhow::Error::new(error).context(format!(
        "make {what} folder `{path}`: {advice}; free or mend it, or set XDG_DATA_HOME and \
         XDG_RUNTIME_DIR to folders that can be written"
    ))
}

fn data_home(environment: &Environment) -> anyhow::Result<PathBuf> {
    if let Some(path) = environment.data_home.as_ref().filter(|it| it.is_absolute()) {
        return Ok(path.clone());
    }
    match &environment.home {
        Some(home) if home.is_absolute() => Ok(home.join(".local/share")),
        _ => bail!("neither XDG_DATA_HOME nor HOME is set: set one, so that state has a place"),
    }
}

fn runtime_home(environment: &Environment) -> PathBuf {
    match environment.runtime_dir.as_ref().filter(|it| it.is_absolute()) {
        Some(path) => path.join("coracle"),
        None => PathBuf::from(format!("/tmp/coracle-{}", environment.uid)),
    }
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let allowed = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
    let edge = |it: Option<char>| it.is_some_and(|it| it.is_ascii_alphanumeric());
    let fits = name.chars().all(allowed) && edge(name.chars().next()) && edge(name.chars().last());
    if !fits || name.len() > NAME_LENGTH_MAX {
        bail!(
            "cluster name `{name}`: use at most {NAME_LENGTH_MAX} lower-case letters, digits and \
             `-`, beginning and ending with a letter or digit"
        );
    }
    if name == IMAGES {
        bail!("cluster name `{name}`: the images of all clusters lie there; use another name");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Environment {
        Environment { home: Some("/home/ann".into()), uid: 1000, ..Environment::default() }
    }

    #[test]
    fn ordinary_user_follows_xdg() {
        let plain = Directories::resolve("default", &user()).unwrap();
        assert_eq!(plain.state, Path::new("/home/ann/.local/share/coracle/default"));
        assert_eq!(plain.run, Path::new("/tmp/coracle-1000/default"));
        assert_eq!(plain.context(), "coracle");
        let environment = Environment {
            data_home: Some("/data".into()),
            runtime_dir: Some("/run/user/1000".into()),
            ..user()
        };
        let moved = Directories::resolve("shop", &environment).unwrap();
        assert_eq!(moved.state, Path::new("/data/coracle/shop"));
        assert_eq!(moved.run, Path::new("/run/user/1000/coracle/shop"));
        assert_eq!(moved.commands, Path::new("/run/user/1000/coracle/.shop"));
        assert_eq!(moved.context(), "coracle-shop");
    }

    #[test]
    fn root_lives_in_var_and_run() {
        let root = Directories::resolve("default", &Environment::default()).unwrap();
        assert_eq!(root.state, Path::new("/var/lib/coracle/default"));
        assert_eq!(root.run, Path::new("/run/coracle/default"));
    }

    #[test]
    fn names_are_checked() {
        for name in ["", "A", "-a", "a-", "a/b", "..", &"a".repeat(33)] {
            assert!(Directories::resolve(name, &user()).is_err(), "{name}");
        }
    }

    #[test]
    fn folders_are_private_and_newer_formats_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let directories = Directories {
            name: "default".to_owned(),
            state: temporary.path().join("state"),
            run: temporary.path().join("run"),
            images: temporary.path().join("images"),
            commands: temporary.path().join(".run"),
            uid: fs::metadata(temporary.path()).unwrap().uid(),
        };
        directories.create().unwrap();
        assert_eq!(fs::metadata(&directories.state).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(directories.state.join("format")).unwrap().mode() & 0o777, 0o600);
        fs::write(directories.state.join("format"), "2\n").unwrap();
        assert!(directories.create().unwrap_err().to_string().contains("has format 2"));
    }
}
