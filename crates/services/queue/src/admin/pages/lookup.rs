//! What nsqlookupds know that no nsqd has, and where topics and channels are created before anybody
//! publishes.

use maud::{Markup, html};

use super::{
    Page, View,
    parts::{notice, sure, warnings},
};
use crate::admin::{
    cluster::{Cluster, Partial, Unanswered},
    data,
};

pub(super) async fn part(cluster: &Cluster, view: View<'_>) -> Result<Markup, Unanswered> {
    if cluster.lookupds.is_empty() {
        return Ok(html! {
            h1 { "Lookup" }
            (notice("This nsqadmin asks nsqds directly: no nsqlookupd is configured."))
        });
    }
    let Partial { value: topics, warnings: told } = data::inactive(cluster).await?;
    let here = view.link(&Page::Lookup);
    Ok(html! {
        h1 { "Lookup" }
        (warnings(&told))
        h2 { "nsqlookupd hosts" }
        ul.plain { @for it in &cluster.lookupds { li { (it) } } }
        h2 { "Inactive topics" }
        @if topics.is_empty() {
            (notice("Every topic that is known is on some nsqd."))
        } @else {
            p.quiet { "Known to nsqlookupd, but on no nsqd." }
            ul.tree {
                @for (topic, channels) in &topics {
                    li {
                        a href=(view.link(&Page::Topic(topic.clone()))) { (topic) }
                        @if view.may_change { (forget(&here, topic, None)) }
                        ul {
                            @for channel in channels.iter().flatten() {
                                li {
                                    (channel)
                                    @if view.may_change { (forget(&here, topic, Some(channel))) }
                                }
                            }
                        }
                    }
                }
            }
        }
        @if view.may_change {
            h2 { "Create topic or channel" }
            form.create method="post" action=(here) {
                label { "Topic name" input name="topic" required maxlength="64" autocomplete="off"; }
                label {
                    "Channel name, if any"
                    input name="channel" maxlength="64" autocomplete="off";
                }
                button name="action" value="create" { "Create" }
            }
        }
    })
}

/// A button that makes nsqlookupds forget.
fn forget(here: &str, topic: &str, channel: Option<&str>) -> Markup {
    html! {
        form method="post" action=(here) {
            input type="hidden" name="topic" value=(topic);
            @if let Some(channel) = channel { input type="hidden" name="channel" value=(channel); }
            (sure("Delete", "delete", "Delete it everywhere?", "Yes, delete it"))
        }
    }
}
