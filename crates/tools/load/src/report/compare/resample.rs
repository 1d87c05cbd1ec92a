//! The block bootstrap: figures of a run, computed again and again from blocks of its seconds drawn
//! at random. Pure: the same report and seed give the same figures.

use std::collections::BTreeSet;

use crate::report::{
    QUANTILES,
    numbers::{as_f64, as_u64},
    stretch::stretches,
    wire::{ReadError, Report},
};

/// Blocks that a run is cut into at most. More would neither narrow the interval nor fit long stalls
/// into one block.
pub const BLOCKS_MAX: usize = 60;
/// Blocks that a run must have: of fewer, too few different draws exist to speak of 99 %.
pub const BLOCKS_MIN: usize = 10;
/// How often figures are computed anew. The interval of 99 % then leaves out five on each side.
pub const RESAMPLES: usize = 1000;

/// The figures that are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Percentiles of latency in nanoseconds, in the order of [`QUANTILES`].
    pub(crate) quantiles: [f64; QUANTILES.len()],
    /// Requests ended per second.
    pub(crate) rate: f64,
    /// Share of them that failed, 0 to 1.
    pub(crate) failed: f64,
}

/// Consecutive seconds of a run.
#[derive(Clone, Debug, Default)]
struct Block {
    seconds: f64,
    done: u64,
    failed: u64,
    /// Index into [`Blocks::values`], and how often.
    latencies: Vec<(usize, u64)>,
}

/// A run, cut up.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    /// All latencies that occur, in nanoseconds, ascending.
    values: Vec<u64>,
    blocks: Vec<Block>,
}

impl Blocks {
    /// Cuts up a run.
    pub(crate) fn new(report: &Report) -> Result<Self, ReadError> {
        let mut histograms = Vec::with_capacity(report.seconds.len());
        for second in &report.seconds {
            let times = second.latency.times()?;
            let recorded = times.iter().flat_map(hdrhistogram::Histogram::iter_recorded);
            let recorded = recorded.map(|it| (it.value_iterated_to(), it.count_at_value()));
            histograms.push(recorded.collect::<Vec<_>>());
        }
        let values: BTreeSet<_> = histograms.iter().flatten().map(|(value, _)| *value).collect();
        let values: Vec<_> = values.into_iter().collect();
        let size = report.seconds.len().div_ceil(BLOCKS_MAX);
        let seconds: Vec<_> = report.seconds.iter().zip(&histograms).collect();
        let stretches = stretches(seconds.len(), size, report.took_seconds);
        let blocks = stretches.into_iter().map(|stretch| {
            let mut block = Block { seconds: stretch.length, ..Block::default() };
            for (second, recorded) in seconds.get(stretch.seconds).unwrap_or_default() {
                block.done += second.done;
                block.failed += second.failed;
                let known = recorded.iter().filter_map(|(value, count)| {
                    values.binary_search(value).ok().map(|index| (index, *count))
                });
                block.latencies.extend(known);
            }
            block
        });
        Ok(Self { blocks: blocks.collect(), values })
    }

    /// Whether there are enough to tell noise from change.
    pub(crate) fn are_enough(&self) -> bool {
        self.blocks.len() >= BLOCKS_MIN
    }

    /// The figures of the run as it was.
    pub(crate) fn figures(&self) -> Figures {
        self.of(self.blocks.iter())
    }

    /// The figures of one draw.
    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> Figures {
        let count = self.blocks.len();
        self.of((0..count).filter_map(|_| self.blocks.get(random.usize(..count))))
    }

    fn of<'run>(&'run self, blocks: impl Iterator<Item = &'run Block>) -> Figures {
        let mut counts = vec![0; self.values.len()];
        let (mut seconds, mut done, mut failed) = (0.0, 0, 0);
        for block in blocks {
            seconds += block.seconds;
            done += block.done;
            failed += block.failed;
            for (index, count) in &block.latencies {
                if let Some(sum) = counts.get_mut(*index) {
                    *sum += count;
                }
            }
        }
        Figures {
            quantiles: self.quantiles(&counts),
            rate: if seconds > 0.0 { as_f64(done) / seconds } else { 0.0 },
            failed: as_f64(failed) / as_f64(done.max(1)),
        }
    }

    /// Quantiles of values that occur so often: the least value that so many are not above.
    fn quantiles(&self, counts: &[u64]) -> [f64; QUANTILES.len()] {
        let total: u64 = counts.iter().sum();
        let mut values = self.values.iter().zip(counts);
        let (mut value, mut below) = (0, 0);
        // They ascend, so each goes on where the one before has stopped.
        QUANTILES.map(|(_, quantile)| {
            let rank = as_u64((quantile * as_f64(total)).ceil()).max(1);
            while below < rank {
                let Some((next, count)) = values.next() else {
                    break;
                };
                value = *next;
                below += count;
            }
            as_f64(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::sample;

    #[test]
    fn figures_of_the_run_are_the_reports() {
        let results = sample();
        let blocks = Blocks::new(&Report::new(&results).unwrap()).unwrap();
        let figures = blocks.figures();
        for ((_, quantile), figure) in QUANTILES.iter().zip(figures.quantiles) {
            let latency = &results.total.latency;
            let exact = latency.value_at_quantile(*quantile);
            assert!(latency.equivalent(as_u64(figure), exact), "{quantile}: {figure} {exact}");
        }
        assert!((figures.rate - 100.0).abs() < 1e-9, "{figures:?}");
        assert!((figures.failed - 0.027).abs() < 1e-9, "{figures:?}");
    }

    #[test]
    fn the_end_of_a_run_is_no_second_without_requests() {
        let mut report = Report::new(&sample()).unwrap();
        for second in &mut report.seconds {
            second.done = 100;
        }
        let mut last = report.seconds[0].clone();
        (last.second, last.done) = (10, 1);
        report.seconds.push(last);
        report.took_seconds = 10.01;
        let blocks = Blocks::new(&report).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..100 {
            let rate = blocks.draw(&mut random).rate;
            assert!((99.9..100.1).contains(&rate), "{rate}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let blocks = Blocks::new(&Report::new(&sample()).unwrap()).unwrap();
        let draws = |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            (0..20).map(|_| blocks.draw(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn a_long_run_is_cut_into_few_blocks() {
        let mut report = Report::new(&sample()).unwrap();
        let seconds = report.seconds.clone();
        report.seconds = seconds.iter().cycle().take(601).cloned().collect();
        report.took_seconds = 601.0;
        let blocks = Blocks::new(&report).unwrap();
        assert_eq!(blocks.blocks.len(), 55);
        let length: f64 = blocks.blocks.iter().map(|it| it.seconds).sum();
        assert!((length - 601.0).abs() < 1e-9, "{length}");
    }
}
