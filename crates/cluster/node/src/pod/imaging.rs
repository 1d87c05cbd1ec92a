//! The images of one pod's containers: asks for what the next runs need, and tells what becomes of it
//! in the kubelet's words.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::EventType::{Normal, Warning};
use image::worker::Credentials;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::Notify;

use super::{events::Teller, seen::Waiting};
use crate::images::{Images, Looked, Policy, Present, Wanted};

/// What a pod's containers run that is not linked.
#[derive(Debug, Default)]
pub(super) struct Imaging(BTreeMap<String, Next>);

/// The image of a container's next run.
#[derive(Debug)]
struct Next {
    attempt: u32,
    /// On the clock of [`Images::uptime`].
    since: Duration,
    told: Option<Told>,
    present: Option<Present>,
}

/// What was told of an image last.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Pulling,
    Ready,
    Error(String),
    BackOff,
    Never,
    Forbidden,
    Invalid,
}

/// Whose image, and for which run.
pub(super) struct Run<'a> {
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) attempt: u32,
    /// What the pod's pull secrets hold.
    pub(super) credentials: &'a [Credentials],
    /// Told when there is something new.
    pub(super) nudge: &'a Arc<Notify>,
}

impl Imaging {
    /// The image of a container's next run, or why there is none yet.
    pub(super) fn next(
        &mut self,
        images: &Images,
        run: &Run<'_>,
        teller: &Teller,
    ) -> Result<&Present, Waiting> {
        let Run { pod, container, attempt, credentials, nudge } = *run;
        let name = container.name.as_str();
        let begun = || Next { attempt, since: images.uptime(), told: None, present: None };
        let next = self.0.entry(name.to_owned()).or_insert_with(begun);
        if next.attempt != attempt {
            *next = begun();
        }
        let image = container.image.as_deref().unwrap_or_default();
        let policy = policy(container);
        let looked = images.look(&Wanted { image, policy, since: next.since, credentials, nudge });
        let told = Told::of(&looked);
        if next.told.as_ref() != Some(&told) {
            tell(teller, pod, container, &looked);
            next.told = Some(told);
        }
        match looked {
            Looked::Ready { image, .. } => Ok(next.present.insert(*image)),
            other => Err(waiting(image, other)),
        }
    }

    /// Files of the images whose owners this machine could not give them.
    pub(super) fn owners_lost(&self) -> u64 {
        self.0.values().filter_map(|it| it.present.as_ref()).map(|it| it.owners_lost).sum()
    }

    /// The image that a container is to run with now.
    pub(super) fn of(&self, container: &str) -> Option<&Present> {
        self.0.get(container)?.present.as_ref()
    }
}

/// The API defaults it by the image's tag.
fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some(_) | None => Policy::IfNotPresent,
    }
}

/// Why a container waits for its image, as its status shows it.
fn waiting(image: &str, looked: Looked) -> Waiting {
    let (reason, message) = match looked {
        Looked::Ready { .. } | Looked::Pulling(None) => ("ContainerCreating", None),
        // A kubelet does not say how far it is.
        Looked::Pulling(Some(advance)) => {
            ("ContainerCreating", Some(format!("Pulling image \"{image}\": {advance}")))
        }
        Looked::Error(cause) => ("ErrImagePull", Some(with_hint(image, &cause))),
        Looked::BackOff(cause) => {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {cause}");
            ("ImagePullBackOff", Some(message))
        }
        Looked::Never => {
            let message =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            ("ErrImageNeverPull", Some(with_hint(image, &message)))
        }
        Looked::Forbidden => ("ErrImageNeverPull", Some(forbidden(image))),
        Looked::Invalid(cause) => {
            let message = format!("Failed to apply default image tag \"{image}\": {cause}");
            ("InvalidImageName", Some(message))
        }
    };
    Waiting { reason: reason.to_owned(), message }
}

/// An image that is here, for others.
fn forbidden(image: &str) -> String {
    format!(
        "Container image \"{image}\" is present with pull policy of Never but does not have the proper auth \
         (image secret) that was used to pull the image"
    )
}

/// What else can be done than to have the image somewhere.
fn with_hint(image: &str, cause: &str) -> String {
    let name = api::link::repository(image);
    format!(
        "{cause}. Build it (`coracle image build -t {image} .`), load it (`coracle image load`), or link \
         it to local source: `links: {{NAME: {{image: {name}, run: [./program]}}}}` in coracle.yaml"
    )
}

impl Told {
    fn of(looked: &Looked) -> Self {
        match looked {
            Looked::Ready { .. } => Self::Ready,
            Looked::Pulling(_) => Self::Pulling,
            Looked::Error(cause) => Self::Error(cause.clone()),
            Looked::BackOff(_) => Self::BackOff,
            Looked::Never => Self::Never,
            Looked::Forbidden => Self::Forbidden,
            Looked::Invalid(_) => Self::Invalid,
        }
    }
}

/// Tells what has changed.
fn tell(teller: &Teller, pod: &Pod, container: &Container, looked: &Looked) {
    let (name, image) = (Some(container.name.as_str()), container.image.as_deref());
    let image = image.unwrap_or_default();
    let normal = |reason, note: String| teller.tell(pod, name, (Normal, reason), note);
    let warn = |reason, note: String| teller.tell(pod, name, (Warning, reason), note);
    match looked {
        Looked::Ready { note, .. } => normal("Pulled", note.clone()),
        Looked::Pulling(_) => normal("Pulling", format!("Pulling image \"{image}\"")),
        Looked::Error(cause) => {
            warn("Failed", format!("Failed to pull image \"{image}\": {cause}"));
            warn("Failed", "Error: ErrImagePull".to_owned());
        }
        Looked::BackOff(_) => {
            normal("BackOff", format!("Back-off pulling image \"{image}\""));
            warn("Failed", "Error: ImagePullBackOff".to_owned());
        }
        Looked::Never => {
            let note =
                format!("Container image \"{image}\" is not present with pull policy of Never");
            warn("ErrImageNeverPull", note);
            warn("Failed", "Error: ErrImageNeverPull".to_owned());
        }
        Looked::Forbidden => {
            warn("ErrImageNeverPull", forbidden(image));
            warn("Failed", "Error: ErrImageNeverPull".to_owned());
        }
        Looked::Invalid(cause) => {
            let note = format!("Failed to apply default image tag \"{image}\": {cause}");
            warn("InspectFailed", note);
            warn("Failed", "Error: InvalidImageName".to_owned());
        }
    }
}
