//! All topics.

use maud::{Markup, html};

use super::{
    Page, View,
    parts::{commas, count, notice, paused, warnings},
};
use crate::admin::{
    cluster::{Cluster, Partial, Unanswered},
    data,
};

pub(super) async fn part(cluster: &Cluster, view: View<'_>) -> Result<Markup, Unanswered> {
    let Partial { value: topics, warnings: told } = data::topics(cluster).await?;
    Ok(html! {
        h1 { "Topics" @if !topics.is_empty() { " " span.count { (topics.len()) } } }
        (warnings(&told))
        @if topics.is_empty() {
            (notice("There is no topic yet. The first message published to one makes it."))
        } @else {
            div.scroll {
                table {
                    thead {
                        tr {
                            th { "Topic" }
                            th.number { "Depth" }
                            th.number { "In channels" }
                            th.number { "Messages" }
                            th.number { "Channels" }
                            th.number { "Nodes" }
                        }
                    }
                    tbody {
                        @for (name, sum) in &topics {
                            tr {
                                th scope="row" {
                                    a href=(view.link(&Page::Topic(name.clone()))) { (name) }
                                    (paused(sum.as_ref().is_some_and(|it| it.paused)))
                                }
                                @match sum {
                                    Some(sum) => {
                                        td.number { (commas(sum.depth)) }
                                        td.number { (commas(
                                            sum.channels.iter().flatten()
                                                .fold(0, |all, it| it.depth.saturating_add(all))
                                        )) }
                                        td.number { (commas(sum.message_count)) }
                                        td.number { (commas(count(sum.channels.as_ref()))) }
                                        td.number { (commas(count(sum.nodes.as_ref()))) }
                                    }
                                    None => td.number.quiet colspan="5" { "no nsqd has it" }
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}
