//! One topic: where it is, and its channels.

use maud::{Markup, html};

use super::{
    Page, View,
    parts::{actions, commas, count, latency_cells, latency_heads, notice, paused, sure, warnings},
};
use crate::admin::{
    cluster::{Cluster, Partial, Unanswered},
    data,
    wire::{Latency, TopicStats},
};

pub(super) async fn part(
    cluster: &Cluster,
    view: View<'_>,
    name: &str,
) -> Result<Markup, Unanswered> {
    let page = Page::Topic(name.to_owned());
    let head = |is_paused| {
        html! {
            p.trail { a href=(view.link(&Page::Streams)) { "Streams" } " / " }
            h1 { (name) (paused(is_paused)) }
        }
    };
    // An nsqd that has it must be known; nsqlookupds may know a topic that no nsqd has.
    let producers = cluster.producers_of(name).await;
    if producers.as_ref().is_ok_and(|it| it.value.is_empty()) {
        return Ok(html! {
            (head(false))
            p.notice {
                "No nsqd has this topic. "
                a href=(view.link(&Page::Lookup)) { "Lookup" }
                " shows what nsqlookupds know of it."
            }
        });
    }
    let Partial { value: topic, warnings: told } = data::topic(cluster, name).await?;
    Ok(html! {
        (head(topic.paused))
        (warnings(&told))
        @if view.may_change { (actions(&view.link(&page), "Topic", topic.paused)) }
        h2 { "Topic message queue" }
        (nodes(&topic, view))
        h2 { "Channel message queues" }
        @if topic.channels.as_ref().is_none_or(Vec::is_empty) {
            (notice("This topic has no channel. Messages wait in the topic until there is one."))
        } @else {
            (channels(&topic, view))
        }
    })
}

fn nodes(topic: &TopicStats, view: View<'_>) -> Markup {
    let latency = topic.e2e_processing_latency.as_ref();
    let here = view.link(&Page::Topic(topic.topic_name.clone()));
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "NSQd host" }
                        th.number { "Depth" }
                        th.number { "Memory + disk" }
                        th.number { "Messages" }
                        th.number { "Channels" }
                        (latency_heads(latency))
                        @if view.may_change { th { span.hidden { "Actions" } } }
                    }
                }
                tbody {
                    @for it in topic.nodes.iter().flatten() {
                        tr {
                            th scope="row" {
                                a href=(view.link(&Page::Node(it.node.clone()))) { (it.node) }
                                @if !it.hostname.is_empty() && !it.node.starts_with(&it.hostname) {
                                    " " span.quiet { (it.hostname) }
                                }
                                (paused(it.paused))
                            }
                            (numbers(it, latency))
                            @if view.may_change {
                                td {
                                    form method="post" action=(here) {
                                        input type="hidden" name="node" value=(it.node);
                                        (sure(
                                            "Tombstone", "tombstone",
                                            "Hide this nsqd from consumers and delete the topic there?",
                                            "Yes",
                                        ))
                                    }
                                }
                            }
                        }
                    }
                }
                tfoot {
                    tr {
                        th scope="row" { "Total" }
                        (numbers(topic, latency))
                        @if view.may_change { td {} }
                    }
                }
            }
        }
    }
}

fn numbers(topic: &TopicStats, columns: Option<&Latency>) -> Markup {
    html! {
        td.number { (commas(topic.depth)) }
        td.number { (commas(topic.memory_depth)) " + " (commas(topic.backend_depth)) }
        td.number { (commas(topic.message_count)) }
        td.number { (commas(count(topic.channels.as_ref()))) }
        (latency_cells(columns, topic.e2e_processing_latency.as_ref()))
    }
}

fn channels(topic: &TopicStats, view: View<'_>) -> Markup {
    let mut channels: Vec<_> = topic.channels.iter().flatten().collect();
    channels.sort_by(|a, b| a.channel_name.cmp(&b.channel_name));
    let latency = topic.e2e_processing_latency.as_ref();
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Channel" }
                        th.number { "Depth" }
                        th.number { "Memory + disk" }
                        th.number { "In-flight" }
                        th.number { "Deferred" }
                        th.number { "Requeued" }
                        th.number { "Timed out" }
                        th.number { "Messages" }
                        th.number { "Connections" }
                        (latency_heads(latency))
                    }
                }
                tbody {
                    @for it in channels {
                        @let page = Page::Channel(topic.topic_name.clone(), it.channel_name.clone());
                        tr {
                            th scope="row" {
                                a href=(view.link(&page)) { (it.channel_name) }
                                (paused(it.paused))
                            }
                            (super::channel::numbers(it, latency))
                        }
                    }
                }
            }
        }
    }
}
