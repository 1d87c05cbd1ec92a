//! The pages: what each shows, and the frame around them. Whatever others have written (names, hosts,
//! error texts) is escaped by the macro that makes the markup.

mod channel;
mod counter;
mod lookup;
mod nodes;
mod parts;
mod streams;
mod topic;

use http::StatusCode;
use maud::{DOCTYPE, Markup, html};

pub(super) use counter::Pace;

use self::parts::problem;
use super::{Shared, cluster::Unanswered};
use crate::web::{VERSION, encode};

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Streams,
    Topic(String),
    Channel(String, String),
    Nodes,
    Node(String),
    Counter,
    Lookup,
}

impl Page {
    /// The page at a path, given piece by piece.
    pub(super) fn find(path: &[&str]) -> Option<Self> {
        match path {
            [] | ["topics"] => Some(Self::Streams),
            ["topics", topic] => Some(Self::Topic((*topic).to_owned())),
            ["topics", topic, channel] => {
                Some(Self::Channel((*topic).to_owned(), (*channel).to_owned()))
            }
            ["nodes"] => Some(Self::Nodes),
            ["nodes", node] => Some(Self::Node((*node).to_owned())),
            ["counter"] => Some(Self::Counter),
            ["lookup"] => Some(Self::Lookup),
            _ => None,
        }
    }

    /// Its path, below the base.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Streams => "/".to_owned(),
            Self::Topic(topic) => format!("/topics/{}", encode(topic)),
            Self::Channel(topic, channel) => {
                format!("/topics/{}/{}", encode(topic), encode(channel))
            }
            Self::Nodes => "/nodes".to_owned(),
            Self::Node(node) => format!("/nodes/{}", encode(node)),
            Self::Counter => "/counter".to_owned(),
            Self::Lookup => "/lookup".to_owned(),
        }
    }

    fn title(&self) -> String {
        match self {
            Self::Streams => "Streams".to_owned(),
            Self::Topic(topic) => topic.clone(),
            Self::Channel(topic, channel) => format!("{topic} / {channel}"),
            Self::Nodes => "Nodes".to_owned(),
            Self::Node(node) => node.clone(),
            Self::Counter => "Counter".to_owned(),
            Self::Lookup => "Lookup".to_owned(),
        }
    }

    /// The page of the menu that it belongs to.
    const fn section(&self) -> &'static str {
        match self {
            Self::Streams | Self::Topic(_) | Self::Channel(..) => "/",
            Self::Nodes | Self::Node(_) => "/nodes",
            Self::Counter => "/counter",
            Self::Lookup => "/lookup",
        }
    }
}

/// Where pages are and for whom they are made.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    base: &'a str,
    /// Whether there are buttons.
    may_change: bool,
}

impl View<'_> {
    fn link(&self, page: &Page) -> String {
        format!("{}{}", self.base, page.path())
    }
}

/// The part of a page that changes, and with which status it is shown.
pub(super) async fn part(
    shared: &Shared,
    page: &Page,
    may_change: bool,
    pace: &mut Pace,
) -> (StatusCode, Markup) {
    let (cluster, view) = (shared.cluster(), View { base: &shared.base, may_change });
    let made = match page {
        Page::Streams => streams::part(&cluster, view).await,
        Page::Topic(topic) => topic::part(&cluster, view, topic).await,
        Page::Channel(topic, channel) => channel::part(&cluster, view, topic, channel).await,
        Page::Nodes => nodes::all(&cluster, view).await,
        Page::Node(node) => nodes::one(&cluster, view, node).await,
        Page::Counter => counter::part(&cluster, pace).await,
        Page::Lookup => lookup::part(&cluster, view).await,
    };
    match made {
        Ok(part) => (StatusCode::OK, part),
        Err(Unanswered(why)) => {
            (StatusCode::BAD_GATEWAY, html! { h1 { (page.title()) } (problem(&why)) })
        }
    }
}

/// A whole page, and with which status it is shown.
pub(super) async fn whole(shared: &Shared, page: &Page, may_change: bool) -> (StatusCode, String) {
    let (status, part) = part(shared, page, may_change, &mut Pace::default()).await;
    (status, frame(shared, page, Live::Yes, &part))
}

/// The page that tells that a form was not done.
pub(super) fn failed(shared: &Shared, page: &Page, why: &str, may_change: bool) -> String {
    let view = View { base: &shared.base, may_change };
    let part = html! {
        h1 { (page.title()) }
        (problem(why))
        p { a href=(view.link(page)) { "Back" } }
    };
    frame(shared, page, Live::No, &part)
}

/// Whether a page renews itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Live {
    Yes,
    No,
}

/// The markup around the part that changes.
fn frame(shared: &Shared, page: &Page, live: Live, part: &Markup) -> String {
    let base = shared.base.as_str();
    let menu =
        [("/", "Streams"), ("/nodes", "Nodes"), ("/counter", "Counter"), ("/lookup", "Lookup")];
    let events = (live == Live::Yes).then(|| format!("{base}/events{}", page.path()));
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title()) " · nsqadmin" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href={ (base) "/static/nsqadmin.css" };
                script src={ (base) "/static/nsqadmin.js" } defer {}
            }
            body {
                header {
                    a.brand href={ (base) "/" } { "nsqadmin" }
                    nav {
                        @for (path, name) in menu {
                            @let here = (path == page.section()).then_some("page");
                            a href={ (base) (path) } aria-current=[here] { (name) }
                        }
                    }
                    span #state role="status" {}
                }
                main data-events=[events] { (part) }
                footer { "NSQ " (VERSION) " protocol · Coracle " (env!("CARGO_PKG_VERSION")) }
            }
        }
    };
    text.into_string()
}
