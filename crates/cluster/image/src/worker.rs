//! Images made ready by a process of its own: what it is told, and what it says.
//!
//! Whoever wants an image (the node of a cluster) starts the process in the user and mount namespace
//! that its containers are mounted in, and on a network that reaches registries. The order is one line
//! of JSON on its standard input, each report one on its standard error, the last of which is that the
//! image is ready or cannot be had; when its standard input ends, it gives up. What was fetched by then is
//! gone on with the next time.

mod tally;

use std::{collections::BTreeSet, fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    Image, Owners, Reference, Store,
    remote::{self, Client, Keyring, Patience, User},
    store::Policy,
    unpack::{self, Layers},
};
pub use tally::Advance;
use tally::Tally;

/// When images are removed to make room: the kubelet's marks.
const WHEN_FULL: Policy = Policy::Pressure { high: 85, low: 80 };

/// The subcommand of the binary that is such a process.
pub const SUBCOMMAND: &str = "image-worker";

/// What is to be made ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The store.
    pub store: PathBuf,
    /// The image.
    pub reference: String,
    /// Whether a registry is asked.
    pub fetch: Fetch,
    /// What goes before the user's own.
    pub credentials: Vec<Credentials>,
    /// Variables of the user that say where credentials and proxies are.
    pub environment: Vec<(String, String)>,
}

/// Credentials of somebody who wants an image.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Where they were found, in words that stand for no other place.
    pub origin: String,
    /// A document in the form of Docker's `config.json`.
    pub text: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whether who has these may run an image that is here, found by this name, without asking its registry: it
    /// was given for them before, or to everybody.
    ///
    /// # Errors
    /// What the system says. Documents that cannot be read hold no credentials.
    pub fn admit(
        list: &[Self],
        store: &Store,
        image: &Image,
        reference: &Reference,
    ) -> Result<bool, crate::store::Error> {
        let mut keyring = Keyring::default();
        for it in list {
            // Who asks the registry hears what is wrong.
            keyring.add_config_of(&it.origin, it.text.as_bytes()).unwrap_or_default();
        }
        let repository = reference.name();
        store.admits(&image.id, &repository, &keyring.holders(&image.id, &repository))
    }
}

/// Whether a registry is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fetch {
    /// What is here is used, whatever a registry has.
    Never,
    /// Only for an image that is not here in full.
    IfMissing,
    /// What the name stands for now; only what is not here is fetched.
    Always,
}

/// What the process says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Report {
    /// It is being fetched: how far that is. Comes now and then.
    Advance(Advance),
    /// The image can be mounted.
    Ready {
        /// What was fetched, if a registry was asked.
        fetched: Option<Fetched>,
    },
    /// It cannot.
    Failed {
        /// Names the image, the cause and what can be done.
        message: String,
    },
}

/// An image that a registry was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetched {
    /// Bytes of its layers.
    pub bytes: u64,
    /// How long it took to get what was not here, and to unpack it.
    pub seconds: f64,
}

/// Why an image could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is none.
    #[error(transparent)]
    Name(#[from] crate::ReferenceError),
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// What is here cannot be run.
    #[error(transparent)]
    Image(#[from] crate::ImageError),
    /// It is not here, and no registry is asked.
    #[error("image `{0}` is not on this machine")]
    Absent(Reference),
    /// A registry does not give it.
    #[error(transparent)]
    Pull(#[from] remote::Error),
    /// No connection can be made to anybody.
    #[error("cannot speak with registries")]
    Client(#[source] Box<remote::Kind>),
    /// A file of the user says something else than where registries are.
    #[error(transparent)]
    User(#[from] remote::UserError),
    /// A pull secret holds something else than credentials.
    #[error("a pull secret of the pod cannot be used")]
    Secret(#[from] remote::KeyringError),
    /// Its layers cannot be unpacked.
    #[error("cannot unpack image `{reference}`")]
    Unpack {
        /// The image.
        reference: Reference,
        /// The layer, and what is wrong with it.
        source: Box<unpack::Error>,
    },
    /// The process's own identity.
    #[error("cannot read the map of users")]
    Owners(#[source] io::Error),
}

impl Order {
    /// Carries the order out, in the namespaces that the calling process is in, and tells how far a fetch
    /// is. The layers are to be settled when whoever waits for the image knows that it is ready.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn carry_out(
        &self,
        told: &(dyn Fn(Advance) + Send + Sync),
    ) -> Result<(Option<Fetched>, Layers), Error> {
        let begun = Instant::now();
        let reference: Reference = self.reference.parse()?;
        let store = Store::open(&self.store)?;
        // Nothing of it is collected meanwhile.
        let lease = store.lease()?;
        let here = match self.fetch {
            Fetch::Always => None,
            Fetch::IfMissing | Fetch::Never => store.resolve(&reference)?,
        };
        let (image, pulled) = match (here, self.fetch) {
            (Some(image), _) => (image, false),
            (None, Fetch::Never) => return Err(Error::Absent(reference)),
            (None, Fetch::IfMissing | Fetch::Always) => {
                make_room(&store).await;
                (self.pull(&store, &reference, told).await?, true)
            }
        };
        lease.hold([image.target.digest])?;
        let bytes = image.size();
        let unpacked = tokio::task::spawn_blocking(move || unpack(&store, &image, reference));
        let layers = unpacked.await.map_err(|it| Error::Owners(it.into()))??;
        let seconds = begun.elapsed().as_secs_f64();
        Ok((pulled.then_some(Fetched { bytes, seconds }), layers))
    }

    async fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        told: &(dyn Fn(Advance) + Send + Sync),
    ) -> Result<Image, Error> {
        let user = User::new(&self.environment, rustix::process::getuid().as_raw());
        let mut keyring = Keyring::default();
        for it in &self.credentials {
            keyring.add_config_of(&it.origin, it.text.as_bytes())?;
        }
        user.add_credentials(&mut keyring)?;
        let client = Client::new(user.registries()?, user.proxies()?, Patience::default());
        let client = client.map_err(|it| Error::Client(Box::new(it)))?;
        let tally = Tally::new(told);
        Ok(client.pull_for_others(store, reference, &keyring, &|it| tally.note(it)).await?)
    }
}

/// Removes images that nobody needs before more comes, if the disk is nearly full. Here, as only the
/// cluster's user namespace may remove files of subordinate users.
async fn make_room(store: &Store) {
    let store = store.clone();
    let collect = move || store.collect(&BTreeSet::new(), WHEN_FULL).map(drop);
    let collected = tokio::task::spawn_blocking(collect).await;
    // What is to come may still fit; if not, it says so itself.
    if let Err(error) =
        collected.map_err(io::Error::other).and_then(|it| it.map_err(io::Error::other))
    {
        tracing::warn!(%error, "images are not collected");
    }
}

fn unpack(store: &Store, image: &Image, reference: Reference) -> Result<Layers, Error> {
    let owners = Owners::of_process().map_err(Error::Owners)?;
    let layers = unpack::ensure(store, image, owners);
    layers.map_err(|it| Error::Unpack { reference, source: Box::new(it) })
}
