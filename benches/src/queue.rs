//! The queue beside `nats-server -js`: publishing and consuming over TCP at each durability. What a
//! backlog and ten thousand clients take is in `backlog`.
//!
//! Both get the same messages from as many connections, which have as much unanswered at once. A batch
//! is one MPUB and one answer to nsqd; NATS has no such thing, so it gets as many PUBs in one write,
//! and the batch is through when all of them are acknowledged. Consumers of either may have
//! [`consume::UNANSWERED`] messages unanswered and answer every one; what they answer goes out together
//! with all else that had arrived.

mod backlog;
mod consume;
mod nats;
mod nsq;
mod publish;
mod server;
mod wire;

use std::{collections::BTreeMap, path::Path, time::Duration};

pub(crate) use backlog::measure as measure_backlog;

use self::{
    consume::consumed,
    publish::{Load, published},
    server::{Kind, Server, Spent},
};
use crate::{
    peers::find,
    report::{Aim, Figure},
};

/// How often each server has its turn, with an empty folder each time; the median counts.
const TURNS: usize = 3;
/// How long each load runs.
const PERIOD: Duration = Duration::from_secs(2);
/// Sizes of messages, in bytes.
const SIZES: [usize; 2] = [100, 200];
/// Publishers of batches, and messages in each.
const BATCHES: (usize, usize) = (2, 200);
/// Publishers of single messages.
const SINGLES: (usize, usize) = (64, 1);
/// Who is compared, in the order of the turns.
const KINDS: [Kind; 5] =
    [Kind::Memory, Kind::Process, Kind::Disk, Kind::NatsMemory, Kind::NatsFile];

/// All turns' values of each figure, in the order in which they were measured first.
#[derive(Default)]
struct Turns {
    order: Vec<String>,
    values: BTreeMap<String, (Vec<f64>, &'static str, Option<Aim>)>,
}

impl Turns {
    fn add(&mut self, figure: Figure) {
        let Figure { what, value, unit, aim } = figure;
        let turns = self.values.entry(what.clone()).or_insert_with(|| {
            self.order.push(what);
            (Vec::new(), unit, aim)
        });
        turns.0.push(value);
    }

    /// Of each figure the middle one.
    fn medians(mut self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for what in self.order {
            let Some((mut values, unit, aim)) = self.values.remove(&what) else { continue };
            values.sort_by(f64::total_cmp);
            let Some(value) = values.get(values.len() / 2).copied() else { continue };
            figures.push(Figure { what, value, unit, aim });
        }
        figures
    }
}

/// Measures the queue of `coracle`, and NATS if it is installed, in turns.
pub(crate) async fn measure(coracle: &Path) -> anyhow::Result<Vec<Figure>> {
    let nats = find("nats-server");
    if nats.is_none() {
        eprintln!(
            "nats-server is not installed (apt-get install nats-server): nothing beside ours"
        );
    }
    let mut turns = Turns::default();
    for _ in 0..TURNS {
        for kind in KINDS {
            let program = if kind.is_nats() { nats.as_deref() } else { Some(coracle) };
            if let Some(program) = program {
                turn(program, kind, &mut turns).await?;
            }
        }
    }
    Ok(turns.medians())
}

/// One server's turn.
async fn turn(program: &Path, kind: Kind, turns: &mut Turns) -> anyhow::Result<()> {
    let server = Server::start(program, kind).await?;
    for bytes in SIZES {
        let topic = format!("batch-{bytes}");
        let batch = Load { topic: &topic, connections: BATCHES.0, batch: BATCHES.1, bytes };
        let (there, spent, _) = published(&server, &batch, PERIOD).await?;
        add(turns, &batch, kind, "in", &spent);
        let (topic, single) = (format!("single-{bytes}"), Load { batch: SINGLES.1, ..batch });
        let single = Load { topic: &topic, connections: SINGLES.0, ..single };
        let (_, spent, latencies) = published(&server, &single, PERIOD).await?;
        add(turns, &single, kind, "in", &spent);
        for percent in [50, 99] {
            let what = format!("{}, in, p{percent}", single.name(kind));
            let figure = Figure::time(what, latencies.percentile(percent));
            let aimed = kind == Kind::Disk && percent == 99;
            turns.add(if aimed { figure.aim(Aim::AtMost(8.0)) } else { figure });
        }
        let spent = consumed(&server, batch.topic, there, PERIOD).await?;
        add(turns, &batch, kind, "out", &spent);
    }
    Ok(())
}

/// What a load came to, and what each message took of either side's processor.
fn add(turns: &mut Turns, load: &Load<'_>, kind: Kind, way: &str, spent: &Spent) {
    let name = format!("{}, {way}", load.name(kind));
    let aim = match (kind, load.batch, way) {
        (Kind::Memory, 200, "in") => Some(1_500_000.0),
        (Kind::Memory, 200, "out") => Some(900_000.0),
        (Kind::Disk, 200, "in") => Some(300_000.0),
        (Kind::Disk, 1, "in") => Some(20_000.0),
        _ => None,
    };
    let rate = Figure::new(&name, spent.rate(), "1/s");
    turns.add(aim.map_or(rate.clone(), |it| rate.aim(Aim::AtLeast(it))));
    turns.add(Figure::new(format!("{name}, server's processor"), spent.server_each(), "µs"));
    turns.add(Figure::new(format!("{name}, clients' processor"), spent.clients_each(), "µs"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_each_figure_in_their_order() {
        let mut turns = Turns::default();
        for (what, value) in
            [("b", 3.0), ("a", 7.0), ("b", 1.0), ("a", 9.0), ("b", 2.0), ("a", 8.0)]
        {
            turns.add(Figure::new(what, value, "1/s"));
        }
        let medians = turns.medians();
        let shown: Vec<_> = medians.iter().map(|it| (it.what.as_str(), it.value)).collect();
        assert_eq!(shown, [("b", 2.0), ("a", 8.0)]);
    }
}
