//! All nsqds, and what one of them has.

use maud::{Markup, html};

use super::{
    Page, View,
    channel::numbers,
    parts::{commas, count, notice, paused, warnings},
};
use crate::admin::{
    cluster::{Cluster, Partial, Unanswered},
    data,
    wire::{Node, Producer},
};

/// All nsqds.
pub(super) async fn all(cluster: &Cluster, view: View<'_>) -> Result<Markup, Unanswered> {
    let Partial { value: nodes, warnings: told } = data::nodes(cluster).await?;
    let lookupds = cluster.lookupds.len();
    Ok(html! {
        h1 { "NSQd nodes " span.count { (nodes.len()) } }
        (warnings(&told))
        @if nodes.is_empty() {
            (notice("No nsqd is known."))
        } @else {
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "Hostname" }
                            th { "Broadcast address" }
                            th.number { "TCP port" }
                            th.number { "HTTP port" }
                            th { "Version" }
                            th { "Region" }
                            th { "Zone" }
                            @if lookupds != 0 { th.number { "Lookupd conns." } }
                            th { "Topics" }
                        }
                    }
                    tbody { @for node in &nodes { (row(node, lookupds, view)) } }
                }
            }
        }
    })
}

fn row(node: &Producer, lookupds: usize, view: View<'_>) -> Markup {
    let known_by = node.remote_addresses.iter().flatten().cloned().collect::<Vec<_>>();
    html! {
        tr {
            th scope="row" { (node.hostname) }
            td { a href=(view.link(&Page::Node(node.http()))) { (node.broadcast_address) } }
            td.number { (node.tcp_port) }
            td.number { (node.http_port) }
            td {
                (node.version)
                @if node.out_of_date { " " span.tag.paused { "out of date" } }
            }
            td { (node.topology_region) }
            td { (node.topology_zone) }
            @if lookupds != 0 {
                td.number title=(known_by.join("\n")) {
                    (known_by.len())
                    @if known_by.len() != lookupds { " " span.tag.paused { "of " (lookupds) } }
                }
            }
            td {
                @for it in node.topics.iter().flatten() {
                    @let page = Page::Topic(it.topic.clone());
                    @let why = it.tombstoned.then_some("tombstoned on this node");
                    a.tag.gone[it.tombstoned] href=(view.link(&page)) title=[why] { (it.topic) }
                    " "
                }
            }
        }
    }
}

/// One nsqd.
pub(super) async fn one(
    cluster: &Cluster,
    view: View<'_>,
    name: &str,
) -> Result<Markup, Unanswered> {
    let node = data::node(cluster, name).await?;
    Ok(html! {
        p.trail { a href=(view.link(&Page::Nodes)) { "Nodes" } " / " }
        h1 { (name) }
        @match node {
            None => (notice("No such nsqd is known.")),
            Some(node) => (shown(&node, view)),
        }
    })
}

fn shown(node: &Node, view: View<'_>) -> Markup {
    html! {
        dl.sums {
            div { dt { "Topics" } dd { (commas(count(node.topics.as_ref()))) } }
            div { dt { "Messages" } dd { (commas(node.total_messages)) } }
            div { dt { "Clients" } dd { (commas(node.total_clients)) } }
        }
        @if !node.message.is_empty() { (warnings(std::slice::from_ref(&node.message))) }
        @for topic in node.topics.iter().flatten() {
            @let page = Page::Topic(topic.topic_name.clone());
            h2 {
                a href=(view.link(&page)) { (topic.topic_name) }
                (paused(topic.paused))
            }
            p.quiet {
                "depth " (commas(topic.depth)) " (" (commas(topic.memory_depth)) " + "
                (commas(topic.backend_depth)) ") · messages " (commas(topic.message_count))
            }
            @if topic.channels.as_ref().is_none_or(Vec::is_empty) {
                (notice("No channel."))
            } @else {
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
                                (super::parts::latency_heads(
                                    topic.e2e_processing_latency.as_ref()
                                ))
                            }
                        }
                        tbody {
                            @for it in topic.channels.iter().flatten() {
                                @let page = Page::Channel(
                                    topic.topic_name.clone(), it.channel_name.clone()
                                );
                                tr {
                                    th scope="row" {
                                        a href=(view.link(&page)) { (it.channel_name) }
                                        (paused(it.paused))
                                    }
                                    (numbers(it, topic.e2e_processing_latency.as_ref()))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
