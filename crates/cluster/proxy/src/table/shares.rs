//! Backends that have parts of a rule's requests.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Filters, Target};

/// Several backends and their parts. They are chosen in turn: of as many requests as the weights' sum each
/// has exactly its part, spread as evenly as goes without looking back.
#[derive(Debug)]
pub(crate) struct Shares {
    all: Vec<Share>,
    total: u64,
    step: u64,
    turn: AtomicU64,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) weight: u32,
    pub(crate) target: Target,
    /// What is done on this way only.
    pub(crate) filters: Option<Arc<Filters>>,
}

impl Shares {
    /// None if no request would go anywhere.
    pub(crate) fn new(all: Vec<Share>) -> Option<Self> {
        let total: u64 = all.iter().map(|it| u64::from(it.weight)).sum();
        // About a golden section of the whole; without a common divisor every place has its turn.
        let step = (total * 618 / 1000..=total).find(|it| divisor(*it, total) == 1)?;
        Some(Self { all, total, step, turn: AtomicU64::new(0) })
    }

    /// The one that has the next request.
    #[expect(clippy::expect_used, reason = "the place is below the sum of the weights")]
    pub(crate) fn next(&self) -> &Share {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.total;
        let mut place = (turn * self.step) % self.total;
        let found = self.all.iter().find(|it| {
            let weight = u64::from(it.weight);
            let here = place < weight;
            place = place.saturating_sub(weight);
            here
        });
        found.expect("one of them has the place")
    }

    pub(super) fn go_on_after(&self, last: &Self) {
        self.turn.store(last.turn.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn shares(weights: &[u32]) -> Option<Shares> {
        let all = weights.iter().enumerate().map(|(index, weight)| {
            let why = index.to_string().into();
            Share { weight: *weight, target: Target::Refuse(StatusCode::OK, why), filters: None }
        });
        Shares::new(all.collect())
    }

    fn next(shares: &Shares) -> usize {
        match &shares.next().target {
            Target::Refuse(_, index) => index.parse().unwrap(),
            Target::Forward(_) => panic!("none was made"),
        }
    }

    #[test]
    fn turns_are_spread() {
        let shares = shares(&[1, 3, 0, 4]).unwrap();
        let turns: Vec<usize> = (0..16).map(|_| next(&shares)).collect();
        assert_eq!(turns, [0, 3, 1, 3, 3, 1, 3, 1, 0, 3, 1, 3, 3, 1, 3, 1]);
    }

    #[test]
    fn what_weighs_nothing_goes_nowhere() {
        assert!(shares(&[]).is_none());
        assert!(shares(&[0, 0]).is_none());
        assert_eq!(next(&shares(&[0, 1]).unwrap()), 1);
    }

    proptest! {
        #[test]
        fn each_has_its_part(weights in vec(0_u32..50, 1..6)) {
            let total: u32 = weights.iter().sum();
            let Some(shares) = shares(&weights) else {
                prop_assert_eq!(total, 0);
                return Ok(());
            };
            let mut had = vec![0; weights.len()];
            for _ in 0..total {
                had[next(&shares)] += 1;
            }
            prop_assert_eq!(had, weights);
        }
    }
}
