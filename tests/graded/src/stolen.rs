//! The kernel's account of the time that a virtual machine's cores had work and its host did not run
//! them: steal, in the first line of `/proc/stat` (proc(5)).

use std::fs;

/// Place of steal among a line's numbers.
const STEAL: usize = 7;
/// How many of them are time that passed; what follows is counted in these already.
const TIMES: usize = 8;

/// All cores since the machine was started, in ticks of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    stolen: u64,
    all: u64,
}

impl Account {
    /// Up to now. Where the kernel does not say it, nothing was stolen.
    #[must_use]
    pub fn now() -> Self {
        fs::read_to_string("/proc/stat").map_or_else(|_| Self::default(), |it| Self::parse(&it))
    }

    fn parse(text: &str) -> Self {
        let line = text.lines().next().and_then(|it| it.strip_prefix("cpu "));
        let numbers = line.into_iter().flat_map(str::split_whitespace);
        let times: Vec<u64> = numbers.map_while(|it| it.parse().ok()).take(TIMES).collect();
        Self { stolen: times.get(STEAL).copied().unwrap_or(0), all: times.iter().sum() }
    }

    /// What share of the cores' time was stolen since `before`, 0 to 1.
    #[must_use]
    pub fn share_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let before = Account::parse("cpu  100 0 50 800 10 0 0 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!(before, Account { stolen: 40, all: 1_000 });
        let after = Account::parse("cpu  200 0 50 1600 10 0 0 140 7 0\n");
        assert!((after.share_since(before) - 0.1).abs() < 1e-9);
        assert!(before.share_since(before).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_stolen_where_it_is_not_said() {
        for text in ["", "cpu", "cpu  1 2 3\n", "cpu  1 x\n", "intr 1 2 3 4 5 6 7 8 9\n"] {
            assert_eq!(Account::parse(text).stolen, 0, "{text}");
        }
        assert!(Account::default().share_since(Account::default()).abs() < 1e-9);
    }

    #[test]
    fn this_machine_says_it() {
        assert_ne!(Account::now().all, 0);
    }
}
