//! How many messages the cluster has handed to channels, and how fast it goes.

use maud::{Markup, html};
use tokio::time::Instant;

use super::parts::{commas, warnings};
use crate::admin::{
    cluster::{Cluster, Partial, Unanswered},
    data,
};

/// What the counter showed last, so that it can tell how fast it goes.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::admin) struct Pace(Option<(Instant, i64)>);

impl Pace {
    /// Messages a second since `self`, which becomes what is now.
    fn next(&mut self, now: Instant, total: i64) -> Option<f64> {
        let before = self.0.replace((now, total));
        let (then, had) = before?;
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        // Counters begin anew with their nsqd.
        let more = u32::try_from(total.checked_sub(had)?).ok()?;
        (0.0 < seconds).then(|| f64::from(more) / seconds)
    }
}

pub(super) async fn part(cluster: &Cluster, pace: &mut Pace) -> Result<Markup, Unanswered> {
    let Partial { value: counts, warnings: told } = data::counter(cluster).await?;
    let total = counts.values().fold(0_i64, |sum, it| sum.saturating_add(it.message_count));
    let rate = pace.next(Instant::now(), total);
    Ok(html! {
        h1.hidden { "Counter" }
        (warnings(&told))
        div.counter {
            p.total { (commas(total)) }
            p { "messages processed" }
            p.rate {
                @match rate {
                    Some(rate) => { (format!("{rate:.0}")) " a second" }
                    None => { "" }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_pace_is_what_came_since() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.next(start, 100), None);
        assert_eq!(pace.next(start + Duration::from_secs(2), 300), Some(100.0));
        assert_eq!(pace.next(start + Duration::from_secs(4), 50), None, "an nsqd began anew");
        assert_eq!(pace.next(start + Duration::from_secs(5), 60), Some(10.0));
        assert_eq!(pace.next(start + Duration::from_secs(5), 60), None, "no time has passed");
    }
}
