//! One channel: its queues at every nsqd, and its consumers.

use maud::{Markup, html};

use super::{
    Page, View,
    parts::{actions, age, commas, latency_cells, latency_heads, notice, paused, warnings},
};
use crate::admin::{
    cluster::{Cluster, Unanswered},
    data,
    wire::{ChannelStats, ClientStats, Latency},
};

pub(super) async fn part(
    cluster: &Cluster,
    view: View<'_>,
    topic: &str,
    name: &str,
) -> Result<Markup, Unanswered> {
    let head = |is_paused| {
        html! {
            p.trail {
                a href=(view.link(&Page::Streams)) { "Streams" } " / "
                a href=(view.link(&Page::Topic(topic.to_owned()))) { (topic) } " / "
            }
            h1 { (name) (paused(is_paused)) }
        }
    };
    let asked = data::channel(cluster, topic, name).await?;
    let Some(channel) = asked.value else {
        return Ok(html! {
            (head(false))
            (warnings(&asked.warnings))
            (notice("No nsqd has this channel."))
        });
    };
    let here = view.link(&Page::Channel(topic.to_owned(), name.to_owned()));
    Ok(html! {
        (head(channel.paused))
        (warnings(&asked.warnings))
        @if view.may_change { (actions(&here, "Channel", channel.paused)) }
        h2 { "Channel message queues" }
        (nodes(&channel, view))
        h2 { "Client connections" }
        @if channel.clients.as_ref().is_none_or(Vec::is_empty) {
            (notice("No consumer is connected to this channel."))
        } @else {
            (clients(&channel, view))
        }
    })
}

/// The cells that a channel has wherever it is shown.
pub(super) fn numbers(channel: &ChannelStats, columns: Option<&Latency>) -> Markup {
    html! {
        td.number { (commas(channel.depth)) }
        td.number { (commas(channel.memory_depth)) " + " (commas(channel.backend_depth)) }
        td.number { (commas(channel.in_flight_count)) }
        td.number { (commas(channel.deferred_count)) }
        td.number { (commas(channel.requeue_count)) }
        td.number { (commas(channel.timeout_count)) }
        td.number { (commas(channel.message_count)) }
        td.number { (commas(channel.client_count)) }
        (latency_cells(columns, channel.e2e_processing_latency.as_ref()))
    }
}

fn nodes(channel: &ChannelStats, view: View<'_>) -> Markup {
    let latency = channel.e2e_processing_latency.as_ref();
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "NSQd host" }
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
                    @for it in channel.nodes.iter().flatten() {
                        tr {
                            th scope="row" {
                                a href=(view.link(&Page::Node(it.node.clone()))) { (it.node) }
                                (paused(it.paused))
                            }
                            (numbers(it, latency))
                        }
                    }
                }
                tfoot { tr { th scope="row" { "Total" } (numbers(channel, latency)) } }
            }
        }
    }
}

fn clients(channel: &ChannelStats, view: View<'_>) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th { "Client host" }
                        th { "User agent" }
                        th { "Attributes" }
                        th { "NSQd host" }
                        th.number { "In-flight" }
                        th.number { "Ready" }
                        th.number { "Finished" }
                        th.number { "Requeued" }
                        th.number { "Messages" }
                        th.number { "Connected" }
                    }
                }
                tbody {
                    @for it in channel.clients.iter().flatten() {
                        tr {
                            th scope="row" title=(it.remote_address) {
                                (it.hostname)
                                @if it.client_id != it.hostname && !it.client_id.is_empty() {
                                    " " span.quiet { (it.client_id) }
                                }
                            }
                            td { (it.user_agent) }
                            td { (attributes(it)) }
                            td { a href=(view.link(&Page::Node(it.node.clone()))) { (it.node) } }
                            td.number { (commas(it.in_flight_count)) }
                            td.number { (commas(it.ready_count)) }
                            td.number { (commas(it.finish_count)) }
                            td.number { (commas(it.requeue_count)) }
                            td.number { (commas(it.message_count)) }
                            td.number { (age(it.connected)) }
                        }
                    }
                }
            }
        }
    }
}

/// What is special about a consumer's connection.
fn attributes(client: &ClientStats) -> Markup {
    let tls = format!("{} {}", client.tls_version, client.tls_cipher_suite);
    let near = |theirs: &str, ours: &str| !ours.is_empty() && theirs == ours;
    let zone = near(&client.topology_zone, &client.node_topology_zone);
    let region = near(&client.topology_region, &client.node_topology_region);
    html! {
        @if 0 < client.sample_rate { span.tag { "sampled " (client.sample_rate) "%" } " " }
        @if client.tls { span.tag title=(tls) { "TLS" } " " }
        @if client.deflate { span.tag { "deflate" } " " }
        @if client.snappy { span.tag { "snappy" } " " }
        @if client.authed { span.tag title=(client.auth_identity) { "authenticated" } " " }
        @if !client.topology_region.is_empty() { span.tag { (client.topology_region) } " " }
        @if !client.topology_zone.is_empty() { span.tag { (client.topology_zone) } " " }
        @if zone { span.tag { "same zone" } } @else if region { span.tag { "same region" } }
    }
}
