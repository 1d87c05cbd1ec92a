//! The Kolmogorov-Smirnov test against a fully known distribution, with the exact distribution of its
//! statistic, and what it says of a Poisson process. Numbers in, numbers out.

/// Widest matrix with which the exact distribution is computed (its cost grows with the cube);
/// beyond it the limit distribution is right to a few parts in ten thousand.
const WIDTH_MAX: usize = 300;
/// Above this value of n·d² the p-value is below 1e-15.
const CERTAIN: f64 = 18.0;

/// Outcome of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    /// Size of the sample.
    pub n: usize,
    /// The statistic: largest distance between what was found and what was expected, 0 to 1.
    pub d: f64,
    /// Probability that a sample of the expected distribution is at least this far from it.
    pub p: f64,
}

/// Tests whether a sample comes from the uniform distribution between 0 and 1. Other continuous
/// distributions are tested by handing in their distribution function of each value.
#[must_use]
pub fn uniform(mut sample: Vec<f64>) -> Test {
    sample.sort_by(f64::total_cmp);
    let n = sample.len();
    let d = sample.iter().enumerate().fold(0.0_f64, |most, (place, value)| {
        let (below, upto) = (place as f64 / n as f64, (place + 1) as f64 / n as f64);
        most.max(value - below).max(upto - value)
    });
    Test { n, d, p: p_value(n, d) }
}

/// What speaks against arrivals being a Poisson process of constant rate. The rate is not a parameter:
/// both tests are exact whatever it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poisson {
    /// The times: given first and last arrival, those between them are uniform. Sees a rate that
    /// changes.
    pub times: Test,
    /// The gaps: their normalised order spacings are again uniform (Durbin's transformation). Sees
    /// arrivals that are too regular or come in bursts.
    pub gaps: Test,
}

/// Tests arrivals, which must be sorted, in any unit. `None` if there are fewer than three or all
/// come at once.
#[must_use]
pub fn poisson(arrivals: &[f64]) -> Option<Poisson> {
    let [first, between @ .., last] = arrivals else { return None };
    let length = last - first;
    if between.is_empty() || length <= 0.0 {
        return None;
    }
    let times = between.iter().map(|it| (it - first) / length).collect();
    let mut gaps: Vec<f64> =
        arrivals.windows(2).filter_map(|it| Some(it.last()? - it.first()?)).collect();
    gaps.sort_by(f64::total_cmp);
    let (count, mut before, mut sum) = (gaps.len(), 0.0, 0.0);
    let mut spacings = Vec::with_capacity(count);
    for (place, gap) in gaps.iter().enumerate() {
        sum += (count - place) as f64 * (gap - before) / length;
        before = *gap;
        spacings.push(sum);
    }
    // The last is 1 by construction.
    spacings.pop();
    Some(Poisson { times: uniform(times), gaps: uniform(spacings) })
}

/// Probability that the statistic of `n` values from the expected distribution is `d` or more.
///
/// Exact (Marsaglia, Tsang and Wang, 2003) up to large samples, then by the limit distribution.
#[must_use]
pub fn p_value(n: usize, d: f64) -> f64 {
    let size = n as f64;
    if n == 0 || d <= 0.5 / size {
        return 1.0;
    }
    if d >= 1.0 {
        return 0.0;
    }
    let square = size * d * d;
    if square > CERTAIN {
        return 2.0 * (-2.0 * square).exp();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive, and smaller than n"
    )]
    let k = (size * d) as usize + 1;
    if 2 * k - 1 > WIDTH_MAX { limit(size, d) } else { (1.0 - exact(n, d, k)).clamp(0.0, 1.0) }
}

/// The limit of the distribution, with the correction for finite samples of Stephens.
fn limit(size: f64, d: f64) -> f64 {
    let lambda = (size.sqrt() + 0.12 + 0.11 / size.sqrt()) * d;
    let mut sum = 0.0;
    for (j, sign) in (1..=100).zip([1.0, -1.0].into_iter().cycle()) {
        let term = (-2.0 * lambda * lambda * f64::from(j * j)).exp();
        sum += sign * term;
        if term < 1e-17 {
            break;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

/// The distribution function at `d`: an element of the n-th power of a matrix, times n!/nⁿ.
fn exact(n: usize, d: f64, k: usize) -> f64 {
    let width = 2 * k - 1;
    let h = k as f64 - n as f64 * d;
    let power = Scaled { matrix: durbin(width, h), exponent: 0 }.power(n);
    let mut result = power.matrix.get(k - 1, k - 1);
    let mut exponent = power.exponent;
    for factor in 1..=n {
        result *= factor as f64 / n as f64;
        if result < SMALL {
            result *= BIG;
            exponent -= STEP;
        }
    }
    result * 10_f64.powi(exponent)
}

/// Numbers are kept near 1 by powers of ten, in these steps.
const STEP: i32 = 140;
const BIG: f64 = 1e140;
const SMALL: f64 = 1e-140;

/// Durbin's matrix: reciprocal factorials below the diagonal, corrected at the left and lower edges.
fn durbin(width: usize, h: f64) -> Matrix {
    let mut factorials = vec![1.0];
    for it in 1..=width {
        factorials.push(factorials.last().copied().unwrap_or(1.0) * it as f64);
    }
    let reciprocal = |it: usize| factorials.get(it).map_or(0.0, |it| 1.0 / it);
    let mut powers = vec![1.0];
    for _ in 0..width {
        powers.push(powers.last().copied().unwrap_or(1.0) * h);
    }
    let power = |it: usize| powers.get(it).copied().unwrap_or(0.0);
    Matrix::new(width, |row, column| {
        if column > row + 1 {
            return 0.0;
        }
        let mut element = 1.0;
        if column == 0 {
            element -= power(row + 1);
        }
        if row + 1 == width {
            element -= power(width - column);
        }
        if row + 1 == width && column == 0 && 2.0 * h > 1.0 {
            element += (2.0 * h - 1.0).powf(width as f64);
        }
        element * reciprocal(row + 1 - column)
    })
}

/// A square matrix.
#[derive(Clone)]
struct Matrix {
    width: usize,
    elements: Vec<f64>,
}

impl Matrix {
    fn new(width: usize, element: impl Fn(usize, usize) -> f64) -> Self {
        let places = (0..width).flat_map(|row| (0..width).map(move |column| (row, column)));
        Self { width, elements: places.map(|(row, column)| element(row, column)).collect() }
    }

    fn get(&self, row: usize, column: usize) -> f64 {
        self.elements.get(row * self.width + column).copied().unwrap_or(0.0)
    }

    fn times(&self, other: &Self) -> Self {
        let mut elements = Vec::with_capacity(self.elements.len());
        for row in self.elements.chunks_exact(self.width) {
            let mut sums = vec![0.0; self.width];
            for (factor, other) in row.iter().zip(other.elements.chunks_exact(self.width)) {
                for (sum, element) in sums.iter_mut().zip(other) {
                    *sum += factor * element;
                }
            }
            elements.extend(sums);
        }
        Self { width: self.width, elements }
    }
}

/// A matrix times a power of ten.
#[derive(Clone)]
struct Scaled {
    matrix: Matrix,
    exponent: i32,
}

impl Scaled {
    fn times(&self, other: &Self) -> Self {
        let mut product = Self {
            matrix: self.matrix.times(&other.matrix),
            exponent: self.exponent + other.exponent,
        };
        let middle = product.matrix.width / 2;
        if product.matrix.get(middle, middle) > BIG {
            for element in &mut product.matrix.elements {
                *element *= SMALL;
            }
            product.exponent += STEP;
        }
        product
    }

    /// By squaring.
    fn power(&self, n: usize) -> Self {
        let mut result: Option<Self> = None;
        let mut square = self.clone();
        let mut left = n;
        while left > 0 {
            if left % 2 == 1 {
                result = Some(result.map_or_else(|| square.clone(), |it| it.times(&square)));
            }
            left /= 2;
            if left > 0 {
                square = square.times(&square);
            }
        }
        result.unwrap_or_else(|| self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, error: f64) {
        assert!((found - expected).abs() <= error, "{found} is not {expected}");
    }

    #[test]
    fn p_values_of_small_samples() {
        // By hand: one value is d or more from the middle with probability 2 (1 - d).
        for d in [0.5, 0.6, 0.75, 0.99] {
            near(p_value(1, d), 2.0 * (1.0 - d), 1e-14);
            near(p_value(2, d), 2.0 * (1.0 - d) * (1.0 - d), 1e-14);
        }
        // The example of Marsaglia, Tsang and Wang.
        near(p_value(10, 0.274), 1.0 - 0.628_479_615_456_504_3, 1e-12);
    }

    #[test]
    fn p_values_of_large_samples() {
        // The same authors.
        near(p_value(2000, 0.04), 1.0 - 0.996_769_431_917_136_8, 1e-10);
        near(p_value(16_000, 0.016), 1.0 - 0.999_452_349_138_097_1, 2e-5);
        // The table's 5 % and 1 % points, 1.358 and 1.628 over √n.
        near(p_value(1000, 1.358 / 1000_f64.sqrt()), 0.0487, 2e-3);
        near(p_value(1000, 1.628 / 1000_f64.sqrt()), 0.0096, 5e-4);
        assert!(p_value(1000, 0.5) < 1e-15);
        near(p_value(1000, 0.000_1), 1.0, 0.0);
    }

    #[test]
    fn exact_and_limit_agree_where_they_meet() {
        for (d, k) in [(0.012, 37), (0.015, 46), (0.02, 61)] {
            near(limit(3000.0, d), 1.0 - exact(3000, d, k), 3e-3);
        }
    }

    #[test]
    fn statistic() {
        near(uniform(vec![0.5]).d, 0.5, 0.0);
        near(uniform(vec![0.9, 0.1]).d, 0.4, 1e-15);
        near(uniform(vec![0.1, 0.2, 0.3, 0.4]).d, 0.6, 1e-15);
    }

    /// Arrivals whose gaps are what `gap` makes of uniform draws.
    fn arrivals(seed: u64, gap: impl Fn(f64) -> f64) -> Vec<f64> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = 0.0;
        (0..500)
            .map(|_| {
                now += gap(random.f64());
                now
            })
            .collect()
    }

    #[test]
    fn poisson_processes_pass() {
        // Under the hypothesis p is uniform: of 40 processes about one is below 2.5 %.
        let low = (0..40).filter(|seed| {
            let test = poisson(&arrivals(*seed, |it| -(1.0 - it).ln())).unwrap();
            test.times.p < 0.025 || test.gaps.p < 0.025
        });
        assert!(low.count() <= 6);
    }

    #[test]
    fn others_do_not_pass() {
        let even = poisson(&arrivals(1, |_| 1.0)).unwrap();
        assert!(even.gaps.p < 1e-9, "{even:?}");
        let jittered = poisson(&arrivals(1, |it| 0.9 + 0.2 * it)).unwrap();
        assert!(jittered.gaps.p < 1e-9, "{jittered:?}");
        let mut bursts = arrivals(1, |it| -(1.0 - it).ln());
        bursts.iter_mut().for_each(|it| *it = (*it / 5.0).floor() * 5.0);
        let bursts = poisson(&bursts).unwrap();
        assert!(bursts.gaps.p < 1e-9, "{bursts:?}");
        let mut growing = arrivals(1, |it| -(1.0 - it).ln());
        growing.iter_mut().for_each(|it| *it = it.sqrt());
        let growing = poisson(&growing).unwrap();
        assert!(growing.times.p < 1e-9, "{growing:?}");
        assert_eq!(poisson(&[1.0, 2.0]), None);
        assert_eq!(poisson(&[1.0, 1.0, 1.0]), None);
    }
}
