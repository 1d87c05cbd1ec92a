//! Images on the node: which can be run, and the work that makes them so. One piece of work per image
//! and credentials, however many pods wait for it.
//!
//! Decides by [`availability`]; fetches and unpacks nothing itself: that does a process of its own
//! ([`job`]), on the host's network, so that neither its memory nor its end is this process's.

mod availability;
mod entry;
mod job;
mod listed;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use image::{
    Digest, Image, Owners, Reference, Store,
    worker::{self, Credentials},
};
use runtime::{OnExit, Tasks};
use serde_json::Value;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};

pub(crate) use availability::Policy;

use crate::context::HostProcesses;
use availability::{Local, Seen, Verdict, Work, decide};
use entry::{Entry, Outcome, forget};

/// Images that are fetched or unpacked at once: enough that a small one does not wait for a large
/// one, few enough that they do not take each other's bandwidth.
const JOBS_AT_ONCE: usize = 3;

/// The node's images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images(Arc<Shared>);

struct Shared {
    /// Opened when the first image is wanted: who runs linked source only needs none.
    store: OnceLock<Store>,
    folder: PathBuf,
    /// The cluster's name, with which its claims begin.
    cluster: String,
    /// What this process has claimed, by the uid of the pod.
    claims: Mutex<BTreeMap<String, BTreeSet<Digest>>>,
    environment: Vec<(String, String)>,
    owners: Owners,
    host: Arc<dyn HostProcesses>,
    tasks: Tasks,
    begun: Instant,
    jobs: Semaphore,
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// Told when an image has come.
    come: watch::Sender<()>,
}

/// An image by name, with who asks for it: one's failure is not the other's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reference: String,
    credentials: Vec<String>,
}

/// An image that a container waits for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// As the pod has it.
    pub(crate) image: &'a str,
    pub(crate) policy: Policy,
    /// Since when the container waits to run, on the clock of [`Images::uptime`].
    pub(crate) since: Duration,
    /// What the pod's pull secrets hold.
    pub(crate) credentials: &'a [Credentials],
    /// Told when it should look again.
    pub(crate) nudge: &'a Arc<Notify>,
}

/// What there is of an image.
#[derive(Clone, Debug)]
pub(crate) enum Looked {
    /// It can be run.
    Ready {
        /// The image.
        image: Box<Present>,
        /// How it came here, for an Event.
        note: String,
    },
    /// It is fetched or unpacked: how far that is, if it is known.
    Pulling(Option<worker::Advance>),
    /// That failed: why.
    Error(String),
    /// That failed, and is tried again later: why it failed.
    BackOff(String),
    /// It is not there, and the policy is to fetch nothing.
    Never,
    /// It is there for others, and the policy is to ask nobody.
    Forbidden,
    /// Its name is none: why.
    Invalid(String),
}

/// An image that can be run.
#[derive(Clone, Debug)]
pub(crate) struct Present {
    /// The name that it was found by.
    pub(crate) reference: Reference,
    pub(crate) image: Image,
    /// Unpacked layers, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// Files whose owner or group is the user's own instead of what the image says.
    pub(crate) owners_lost: u64,
}

impl Present {
    /// What containers show as their `imageID`: the digest under which registries have it, or, of an
    /// image that no registry knows, that of its configuration.
    pub(crate) fn id(&self) -> String {
        if self.image.target.annotations.contains_key(image::ANNOTATION_PULLED) {
            format!("{}@{}", self.reference.name(), self.image.target.digest)
        } else {
            self.image.id.to_string()
        }
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("folder", &self.0.folder).finish_non_exhaustive()
    }
}

impl Images {
    /// The images in the store at `folder`, for pods of the cluster of this name. `environment` is the invoking user's, for credentials and
    /// proxies.
    pub(crate) fn new(
        (folder, cluster): (PathBuf, String),
        environment: Vec<(String, String)>,
        owners: Owners,
        host: Arc<dyn HostProcesses>,
        tasks: &Tasks,
    ) -> Self {
        Self(Arc::new(Shared {
            store: OnceLock::new(),
            folder,
            cluster,
            claims: Mutex::default(),
            environment,
            owners,
            host,
            tasks: tasks.clone(),
            begun: Instant::now(),
            jobs: Semaphore::new(JOBS_AT_ONCE),
            entries: Mutex::default(),
            come: watch::Sender::new(()),
        }))
    }

    /// What is here, as the Node's `status.images`.
    pub(crate) async fn listed(&self) -> anyhow::Result<Value> {
        // Who has none keeps no store either.
        if self.0.store.get().is_none() && !self.0.folder.exists() {
            return Ok(Value::Array(Vec::new()));
        }
        let this = self.clone();
        let list = move || Ok(listed::listed(this.0.store().map_err(anyhow::Error::msg)?)?);
        tokio::task::spawn_blocking(list).await.context("list the images")?
    }

    /// Changes whenever an image has come.
    pub(crate) fn coming(&self) -> watch::Receiver<()> {
        self.0.come.subscribe()
    }

    /// Time since this began.
    pub(crate) fn uptime(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Keeps an image from being removed until the pod is gone, whatever becomes of its name and of this
    /// process.
    pub(crate) async fn claim(&self, pod: &str, image: Digest) -> Result<(), String> {
        let images = {
            let mut claims = self.claims();
            let images = claims.entry(pod.to_owned()).or_default();
            if !images.insert(image) {
                return Ok(());
            }
            images.clone()
        };
        let written = self.write_claim(pod.to_owned(), images).await;
        if written.is_err() {
            // To be tried again with the next run.
            self.claims().get_mut(pod).map(|it| it.remove(&image));
        }
        written
    }

    /// The pod is gone. Also for one of which only the uid is known.
    pub(crate) async fn release(&self, pod: &str) -> Result<(), String> {
        self.claims().remove(pod);
        if !self.0.folder.join("claims").exists() {
            return Ok(());
        }
        self.write_claim(pod.to_owned(), BTreeSet::new()).await
    }

    async fn write_claim(&self, pod: String, images: BTreeSet<Digest>) -> Result<(), String> {
        let this = self.clone();
        let write = move || {
            let owner = format!("{}.{pod}", this.0.cluster);
            this.0.store()?.claim(&owner, &images).map_err(chain)
        };
        tokio::task::spawn_blocking(write).await.map_err(|it| it.to_string())?
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<Digest>>> {
        self.0.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image, if it can be run as it is here, whatever the policy.
    pub(crate) fn present(&self, image: &str) -> Option<Present> {
        let reference = image.parse().ok()?;
        self.0.local(&reference, &[]).ok()?.present
    }

    /// What there is of an image; begins to get it if it has to.
    pub(crate) fn look(&self, wanted: &Wanted<'_>) -> Looked {
        let reference: Reference = match wanted.image.parse() {
            Ok(reference) => reference,
            Err(error) => return Looked::Invalid(chain(error)),
        };
        let local = match self.0.local(&reference, wanted.credentials) {
            Ok(local) => local,
            Err(error) => return Looked::Error(error),
        };
        let credentials = wanted.credentials.iter().map(|it| it.text.clone()).collect();
        let key = Key { reference: reference.to_string(), credentials };
        let mut entries = self.0.entries();
        forget(&mut entries);
        let entry = entries.entry(key.clone()).or_insert_with(Entry::new);
        let seen = Seen {
            now: self.uptime(),
            policy: wanted.policy,
            wanted: wanted.since,
            local: local.state(),
            made_here: local.made_here,
            admitted: local.admitted,
            confirmed: entry.confirmed,
            work: entry.work,
        };
        match (decide(&seen), local.present) {
            (Verdict::Run, Some(present)) => {
                let note = entry.note(wanted);
                return Looked::Ready { image: Box::new(present), note };
            }
            // Cannot be: it runs only what is ready, which is present.
            (Verdict::Run, None) => return Looked::Never,
            (Verdict::Never, _) => return Looked::Never,
            (Verdict::Forbidden, _) => return Looked::Forbidden,
            (Verdict::Wait, _) => entry.wait(wanted.nudge),
            (Verdict::Begin { fresh }, _) => {
                entry.wait(wanted.nudge);
                entry.work = Work::Going;
                entry.advance = None;
                drop(entries);
                self.begin(key, wanted.credentials.to_vec(), fetch(wanted.policy, fresh));
                return Looked::Pulling(None);
            }
            (Verdict::Error(at), _) => {
                self.look_again(key, entry, at, wanted.nudge);
                return Looked::Error(entry.failure());
            }
            (Verdict::BackOff(at), _) => {
                self.look_again(key, entry, at, wanted.nudge);
                return Looked::BackOff(entry.failure());
            }
        }
        Looked::Pulling(entry.advance)
    }

    fn begin(&self, key: Key, credentials: Vec<Credentials>, fetch: worker::Fetch) {
        let (images, asked) = (self.clone(), self.uptime());
        self.0.tasks.spawn("image", OnExit::Log, move |stop| async move {
            // The semaphore is never closed.
            let permit = images.0.jobs.acquire().await;
            let begun = images.uptime();
            let order = worker::Order {
                store: images.0.folder.clone(),
                reference: key.reference.clone(),
                fetch,
                credentials,
                environment: images.0.environment.clone(),
            };
            let told = |advance| {
                if let Some(entry) = images.0.entries().get_mut(&key) {
                    entry.advance = Some(advance);
                    entry.nudge();
                }
            };
            let result = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                result = job::run(&*images.0.host, &order, told) => result,
            };
            drop(permit);
            images.end(&key, (asked, begun), fetch, result);
            Ok(())
        });
    }

    fn end(
        &self,
        key: &Key,
        (asked, begun): (Duration, Duration),
        fetch: worker::Fetch,
        result: Result<Option<worker::Fetched>, String>,
    ) {
        let now = self.uptime();
        let mut entries = self.0.entries();
        let Some(entry) = entries.get_mut(key) else { return };
        match result {
            Ok(fetched) => {
                if fetch == worker::Fetch::Always {
                    entry.confirmed = Some(begun);
                }
                entry.work = Work::Idle;
                entry.failures = 0;
                entry.ended = Some(now);
                let fetched = fetched.map(|it| Outcome::Fetched(it, now.saturating_sub(asked)));
                entry.outcome = fetched.unwrap_or(Outcome::Found);
                self.0.come.send_replace(());
            }
            Err(message) => {
                tracing::info!(image = key.reference, message, "image not available");
                entry.failures = entry.failures.saturating_add(1);
                entry.work = Work::Failed { at: now, failures: entry.failures };
                entry.outcome = Outcome::Failed(message);
            }
        }
        entry.nudge();
    }

    /// Has everybody who waits for an image look again at a time.
    fn look_again(&self, key: Key, entry: &mut Entry, at: Duration, nudge: &Arc<Notify>) {
        entry.wait(nudge);
        if entry.again == Some(at) {
            return;
        }
        entry.again = Some(at);
        let (images, at) = (self.clone(), self.0.begun + at);
        self.0.tasks.spawn("image-retry", OnExit::Log, move |stop| async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = tokio::time::sleep_until(at) => {
                    if let Some(entry) = images.0.entries().get_mut(&key) {
                        entry.nudge();
                    }
                }
            }
            Ok(())
        });
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> Result<&Store, String> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = Store::open(&self.folder).map_err(chain)?;
        Ok(self.store.get_or_init(|| store))
    }

    /// What the store has, for who has these credentials.
    fn local(&self, reference: &Reference, credentials: &[Credentials]) -> Result<Here, String> {
        let store = self.store()?;
        let Some(image) = store.resolve(reference).map_err(chain)? else {
            return Ok(Here { known: false, made_here: false, admitted: false, present: None });
        };
        let admitted = Credentials::admit(credentials, store, &image, reference).map_err(chain)?;
        // What comes from a registry says so.
        let made_here = !image.target.annotations.contains_key(image::ANNOTATION_PULLED);
        let layers = image::unpack::find(store, &image, self.owners).map_err(chain)?;
        let reference = reference.clone();
        let present = layers.map(|it| {
            let owners_lost = it.lost.owners;
            Present { reference, image, layers: it.folders, owners_lost }
        });
        Ok(Here { known: true, made_here, admitted, present })
    }
}

/// What the store has of an image.
struct Here {
    known: bool,
    made_here: bool,
    admitted: bool,
    present: Option<Present>,
}

impl Here {
    fn state(&self) -> Local {
        match (self.known, &self.present) {
            (_, Some(_)) => Local::Ready,
            (true, None) => Local::Packed,
            (false, None) => Local::Absent,
        }
    }
}

/// Whether a registry is asked, by the policy, if it has to be (`fresh`).
fn fetch(policy: Policy, fresh: bool) -> worker::Fetch {
    match policy {
        Policy::Never => worker::Fetch::Never,
        Policy::Always | Policy::IfNotPresent if fresh => worker::Fetch::Always,
        Policy::Always | Policy::IfNotPresent => worker::Fetch::IfMissing,
    }
}

/// An error with its causes.
fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
