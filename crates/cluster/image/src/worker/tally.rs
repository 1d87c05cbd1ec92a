//! How far a pull is as a whole, now and then.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{Bytes, Event};

/// Time between two reports: what people take for steady, and few writes of a pod's status.
const PERIOD: Duration = Duration::from_secs(2);

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Advance {
    /// Layers of the image.
    pub layers: usize,
    /// Of these, how many are here.
    pub layers_done: usize,
    /// Bytes of the layers.
    pub bytes: u64,
    /// Of these, how many are here.
    pub bytes_done: u64,
    /// How many came in a second lately.
    pub bytes_per_second: u64,
}

impl fmt::Display for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, layers_done, .. } = self;
        let (done, all) = (Bytes(self.bytes_done), Bytes(self.bytes));
        write!(f, "{layers_done} of {layers} layers, {done} of {all}")?;
        if layers_done == layers {
            return f.write_str(", unpacking");
        }
        write!(f, ", {}/s", Bytes(self.bytes_per_second))
    }
}

/// Sums up the parts of a pull.
pub(super) struct Tally<'a> {
    told: &'a (dyn Fn(Advance) + Send + Sync),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    layers: BTreeMap<String, Layer>,
    /// When the last report was, and how many bytes were here then.
    last: (Instant, u64),
}

#[derive(Debug)]
struct Layer {
    bytes: u64,
    done: u64,
    is_here: bool,
}

impl<'a> Tally<'a> {
    pub(super) fn new(told: &'a (dyn Fn(Advance) + Send + Sync)) -> Self {
        let state = State { layers: BTreeMap::new(), last: (Instant::now(), 0) };
        Self { told, state: Mutex::new(state) }
    }

    /// Takes what happened, and tells of it if it is time to.
    pub(super) fn note(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = state.note(event);
        let now = Instant::now();
        if !is_last && now - state.last.0 < PERIOD {
            return;
        }
        if let Some(advance) = state.advance(now) {
            drop(state);
            (self.told)(advance);
        }
    }
}

impl State {
    /// Whether with this all layers are here.
    fn note(&mut self, event: Event) -> bool {
        let (part, done, is_here) = match event {
            Event::Layers { parts } => {
                let layer = |bytes| Layer { bytes, done: 0, is_here: false };
                self.layers = parts.into_iter().map(|(part, it)| (part, layer(it))).collect();
                return false;
            }
            Event::Present { part } | Event::Finished { part } => (part, None, true),
            Event::Advanced { part, done, .. } => (part, Some(done), false),
            Event::Retried { .. } => return false,
        };
        // Manifests and configurations are too small to count.
        let Some(layer) = self.layers.get_mut(&part) else { return false };
        layer.done = done.unwrap_or(layer.bytes);
        layer.is_here = is_here;
        is_here && self.layers.values().all(|it| it.is_here)
    }

    fn advance(&mut self, now: Instant) -> Option<Advance> {
        if self.layers.is_empty() {
            return None;
        }
        let bytes_done = self.layers.values().map(|it| it.done).sum();
        let (then, before) = std::mem::replace(&mut self.last, (now, bytes_done));
        let millis = (now - then).as_millis().max(1);
        let rate = u128::from(bytes_done.saturating_sub(before)) * 1000 / millis;
        Some(Advance {
            layers: self.layers.len(),
            layers_done: self.layers.values().filter(|it| it.is_here).count(),
            bytes: self.layers.values().map(|it| it.bytes).sum(),
            bytes_done,
            bytes_per_second: u64::try_from(rate).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tells_now_and_then() {
        let said = Mutex::new(Vec::new());
        let told = |it: Advance| said.lock().unwrap().push(it.to_string());
        let tally = Tally::new(&told);
        let seconds = |it| tokio::time::advance(Duration::from_secs(it));
        let advanced = |part: &str, done| {
            tally.note(Event::Advanced { part: part.to_owned(), done, total: None });
        };
        // Before it is known what there is, nothing is said.
        seconds(3).await;
        advanced("config", 100);
        let parts = [("a", 4_000_000), ("b", 1_000_000), ("c", 50)];
        let parts = parts.map(|(part, bytes)| (part.to_owned(), bytes)).to_vec();
        tally.note(Event::Layers { parts });
        tally.note(Event::Present { part: "c".to_owned() });
        advanced("a", 1000);
        seconds(2).await;
        advanced("a", 2_000_000);
        advanced("b", 500_000);
        tally.note(Event::Finished { part: "b".to_owned() });
        seconds(4).await;
        advanced("a", 3_000_000);
        tally.note(Event::Retried { part: "a".to_owned(), reason: String::new() });
        tally.note(Event::Finished { part: "a".to_owned() });
        expect![[r#"
            0 of 3 layers, 0 B of 5.0 MB, 0 B/s
            1 of 3 layers, 2.0 MB of 5.0 MB, 1.0 MB/s
            2 of 3 layers, 4.0 MB of 5.0 MB, 500.0 kB/s
            3 of 3 layers, 5.0 MB of 5.0 MB, unpacking
        "#]]
        .assert_eq(&(said.lock().unwrap().join("\n") + "\n"));
    }
}
