//! What a line makes of bytes, on a clock that is handed in: every time is exact.

use std::sync::Arc;

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
};

use super::*;
use crate::effect::{Direction, Distribution, Fault};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn listed(id: u64, effect: Effect) -> Listed {
    let name = format!("f{id}");
    let fault = Fault { name, direction: Direction::Upstream, probability: 1.0, effect };
    Listed { id, fault: Arc::new(fault) }
}

fn latency(delay: Duration, jitter: Duration) -> Effect {
    Effect::Latency { delay, jitter, distribution: Distribution::Uniform }
}

/// A line with these faults, at a time.
fn line(start: Instant, effects: &[Effect]) -> Line {
    let mut line = Line::new(1);
    let listed: Vec<Listed> =
        (0..).zip(effects).map(|(id, effect)| listed(id, effect.clone())).collect();
    line.set(start, &listed);
    line
}

/// Lets time pass until nothing more comes out. Returns what came, each with its time from `start`,
/// and how the line ended.
fn drain(
    line: &mut Line,
    start: Instant,
    from: Duration,
) -> (Vec<(Duration, Vec<u8>)>, Option<End>) {
    let mut now = start + from;
    let mut out = Vec::new();
    loop {
        let bytes = match line.step(now) {
            Step::Write(bytes) => bytes.to_vec(),
            Step::Wait(None) => return (out, None),
            Step::Wait(Some(at)) => {
                assert!(at > now, "a wait for what is over");
                now = at;
                continue;
            }
            Step::End(end) => {
                out.push((now - start, Vec::new()));
                return (out, Some(end));
            }
        };
        line.wrote(now, bytes.len());
        out.push((now - start, bytes));
    }
}

fn bytes(out: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    out.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
}

#[test]
fn latency_is_exact_and_delays_the_end_too() {
    let start = Instant::now();
    let mut line = line(start, &[latency(ms(60), ms(0)), latency(ms(40), ms(0))]);
    line.push(start, b"a");
    line.push(start + ms(30), b"b");
    line.end(start + ms(31), End::Finish);
    assert_eq!(line.step(start + ms(99)), Step::Wait(Some(start + ms(100))));
    let (out, end) = drain(&mut line, start, ms(0));
    let expected = [(ms(100), b"a".to_vec()), (ms(130), b"b".to_vec()), (ms(131), Vec::new())];
    assert_eq!(out, expected);
    assert_eq!(end, Some(End::Finish));
}

#[test]
fn a_shortened_delay_also_shortens_what_waits() {
    let start = Instant::now();
    let mut line = line(start, &[latency(ms(10_000), ms(0))]);
    line.push(start, b"a");
    line.set(start + ms(5), &[]);
    assert_eq!(drain(&mut line, start, ms(5)).0, [(ms(5), b"a".to_vec())]);
}

#[test]
fn rate_is_exact() {
    let start = Instant::now();
    let mut line =
        line(start, &[Effect::Bandwidth { rate: 1000 }, Effect::Bandwidth { rate: 5000 }]);
    line.push(start, &[7; 100]);
    let (out, _) = drain(&mut line, start, ms(0));
    assert_eq!(out.last().unwrap().0, ms(100));
    assert_eq!(bytes(&out), [7; 100]);
    // After a pause only a burst of 5 ms is saved.
    line.push(start + ms(5000), &[7; 100]);
    let (out, _) = drain(&mut line, start, ms(5000));
    assert_eq!(out.last().unwrap().0, ms(5095));
    // Rate 0 lets nothing pass, and any other lets it go on.
    line.set(start + ms(6000), &[listed(9, Effect::Bandwidth { rate: 0 })]);
    line.push(start + ms(6000), b"held");
    assert_eq!(line.step(start + ms(9_999_000)), Step::Wait(None));
    line.set(start + ms(7000), &[]);
    assert_eq!(bytes(&drain(&mut line, start, ms(7000)).0), b"held");
}

#[test]
fn half_open_holds_all_and_gives_it_back() {
    let start = Instant::now();
    let mut line = line(start, &[]);
    line.push(start, b"before");
    line.end(start, End::Finish);
    line.set(start, &[listed(0, Effect::HalfOpen)]);
    assert_eq!((line.room(), line.step(start + ms(99_999))), (0, Step::Wait(None)));
    line.set(start + ms(100), &[]);
    let (out, end) = drain(&mut line, start, ms(100));
    assert_eq!((bytes(&out), end), (b"before".to_vec(), Some(End::Finish)));
}

#[test]
fn half_open_hides_that_the_source_was_reset() {
    let start = Instant::now();
    let mut line = line(start, &[Effect::HalfOpen]);
    line.end(start, End::Reset);
    assert_eq!(line.step(start + ms(99_999)), Step::Wait(None));
    line.set(start, &[]);
    assert_eq!(line.step(start), Step::End(End::Reset));
}

#[test]
fn blackhole_swallows_and_keeps_the_connection() {
    let start = Instant::now();
    let mut line = line(start, &[Effect::Blackhole]);
    line.push(start, b"lost");
    assert_eq!((line.held(), line.take_swallowed()), (0, 4));
    line.set(start, &[]);
    line.push(start, b"kept");
    line.set(start, &[listed(1, Effect::Blackhole)]);
    line.end(start, End::Finish);
    assert_eq!(drain(&mut line, start, ms(0)), (vec![(ms(0), b"kept".to_vec())], None));
    line.set(start, &[]);
    assert_eq!(line.step(start), Step::End(End::Finish));
}

#[test]
fn timeout_closes_when_it_is_over_or_taken_away() {
    let start = Instant::now();
    let timed = Effect::Timeout { after: Some(ms(50)) };
    let mut timed = line(start, &[timed]);
    timed.push(start, b"lost");
    assert_eq!(timed.step(start + ms(49)), Step::Wait(Some(start + ms(50))));
    assert_eq!(drain(&mut timed, start, ms(0)), (vec![(ms(50), Vec::new())], Some(End::Close)));
    let mut endless = line(start, &[Effect::Timeout { after: None }]);
    assert_eq!(endless.step(start), Step::Wait(None));
    endless.set(start, &[]);
    assert_eq!(endless.step(start), Step::End(End::Close));
}

#[test]
fn limits_and_resets() {
    let start = Instant::now();
    let mut cut = line(start, &[Effect::Truncate { bytes: 5 }]);
    cut.push(start, b"abc");
    cut.push(start, b"def");
    assert_eq!(cut.room(), 0);
    let (out, end) = drain(&mut cut, start, ms(0));
    assert_eq!((bytes(&out), end), (b"abcde".to_vec(), Some(End::Close)));
    assert_eq!(cut.take_swallowed(), 1);

    let mut cut = line(start, &[Effect::Reset { when: Trigger::Bytes(2) }]);
    cut.push(start, b"ab");
    let (out, end) = drain(&mut cut, start, ms(0));
    assert_eq!((bytes(&out), end), (b"ab".to_vec(), Some(End::Abort)));

    let mut cut = line(start, &[Effect::Reset { when: Trigger::Data(ms(3)) }]);
    assert_eq!(cut.step(start), Step::Wait(None));
    cut.push(start + ms(10), b"ab");
    assert_eq!(drain(&mut cut, start, ms(10)).1, Some(End::Abort));
    assert_eq!(cut.step(start + ms(13)), Step::End(End::Abort));

    let cut = line(start, &[Effect::Reset { when: Trigger::Start(ms(0)) }]);
    assert_eq!(cut.step(start), Step::End(End::Abort));
}

#[test]
fn slow_close() {
    let start = Instant::now();
    let mut line = line(start, &[Effect::SlowClose { delay: ms(70) }]);
    line.push(start, b"a");
    line.end(start + ms(10), End::Finish);
    let expected = vec![(ms(0), b"a".to_vec()), (ms(80), Vec::new())];
    assert_eq!(drain(&mut line, start, ms(0)), (expected, Some(End::Finish)));
}

#[test]
fn slices_go_out_one_by_one() {
    let start = Instant::now();
    let slicer = Effect::Slicer { average: 10, variation: 3, delay: ms(1) };
    let mut line = line(start, &[slicer]);
    let sent: Vec<u8> = (0..100).collect();
    line.push(start, &sent);
    let (out, _) = drain(&mut line, start, ms(0));
    assert_eq!(bytes(&out), sent);
    let (last, others) = out.split_last().unwrap();
    assert!(others.iter().all(|(_, bytes)| (7..=13).contains(&bytes.len())), "{out:?}");
    assert!(last.1.len() <= 13);
    assert!((0..).zip(&out).all(|(index, (at, _))| *at == ms(index)), "{out:?}");
}

#[test]
fn memory_is_bounded() {
    let start = Instant::now();
    for effect in [latency(ms(1000), ms(0)), Effect::Bandwidth { rate: 1 }] {
        let mut line = line(start, std::slice::from_ref(&effect));
        let mut taken = 0;
        // Tiny pieces are the worst case.
        while line.room() > 0 {
            line.push(start, b"x");
            taken += 1;
        }
        assert!(line.held() <= WAITING_BYTES_MAX + PIECE_BYTES, "{effect:?}: {}", line.held());
        assert!(taken > 1000, "{effect:?}: {taken}");
    }
}

#[test]
fn chance_is_seeded_and_fair() {
    let fault = Fault {
        name: "sometimes".to_owned(),
        direction: Direction::Upstream,
        probability: 0.3,
        effect: Effect::Blackhole,
    };
    let sometimes = Listed { id: 0, fault: Arc::new(fault) };
    let acts =
        |seed| !Line::new(seed).set(Instant::now(), std::slice::from_ref(&sometimes)).is_empty();
    let times = (0..1000).filter(|seed| acts(*seed)).count();
    assert!((240..360).contains(&times), "{times} of 1000 with probability 0.3");
    assert!((0..1000).all(|seed| acts(seed) == acts(seed)));
}

#[test]
fn jitter_has_the_asked_spread() {
    let start = Instant::now();
    for (distribution, deviation) in [(Distribution::Uniform, 0.577), (Distribution::Normal, 1.0)] {
        let latency = Effect::Latency { delay: ms(1000), jitter: ms(100), distribution };
        let acting = Acting::new(&listed(0, latency), 1, start);
        let mut random = fastrand::Rng::with_seed(7);
        let draws: Vec<f64> =
            (0..10_000).map(|_| acting.delay(&mut random).as_secs_f64() * 10.0 - 10.0).collect();
        let mean = draws.iter().sum::<f64>() / 10_000.0;
        let seen = (draws.iter().map(|it| it * it).sum::<f64>() / 10_000.0).sqrt();
        assert!(mean.abs() < 0.05, "{distribution:?}: {mean}");
        assert!((seen - deviation).abs() < 0.05, "{distribution:?}: {seen}");
    }
}

/// Faults that lose nothing.
fn harmless() -> impl Strategy<Value = Effect> {
    prop_oneof![
        (0..50_u64, 0..50_u64, any::<bool>()).prop_map(|(delay, jitter, normal)| {
            let distribution = if normal { Distribution::Normal } else { Distribution::Uniform };
            Effect::Latency { delay: ms(delay), jitter: ms(jitter), distribution }
        }),
        (1..100_000_u64).prop_map(|rate| Effect::Bandwidth { rate }),
        (1..100_usize, 0..3_u64).prop_map(|(average, delay)| {
            Effect::Slicer { average, variation: average - 1, delay: ms(delay) }
        }),
        (0..50_u64).prop_map(|delay| Effect::SlowClose { delay: ms(delay) }),
        Just(Effect::HalfOpen),
    ]
}

proptest! {
    /// Whatever harmless faults come and go, every byte arrives once, in order, and the end after it;
    /// nothing arrives before the shortest delay nor faster than the rate.
    #[test]
    fn nothing_is_lost_doubled_or_moved(
        steps in vec((0..30_u64, vec(any::<u8>(), 0..300), vec(harmless(), 0..4)), 1..20),
        partial in 1..400_usize,
    ) {
        let start = Instant::now();
        let mut now = start;
        let mut line = Line::new(3);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        let mut id = 0;
        for (wait, bytes, effects) in steps {
            now += ms(wait);
            let faults: Vec<Listed> = effects
                .into_iter()
                .map(|effect| { id += 1; listed(id, effect) })
                .collect();
            line.set(now, &faults);
            if line.room() >= bytes.len() && !bytes.is_empty() {
                line.push(now, &bytes);
                sent.extend(bytes);
            }
            while let Step::Write(bytes) = line.step(now) {
                prop_assert!(!bytes.is_empty());
                // A socket may take less than it is offered.
                let bytes = bytes[..bytes.len().min(partial)].to_vec();
                line.wrote(now, bytes.len());
                got.extend(bytes);
            }
        }
        line.end(now, End::Finish);
        line.set(now, &[]);
        let (out, end) = drain(&mut line, start, now - start);
        got.extend(bytes(&out));
        prop_assert_eq!(got, sent);
        prop_assert_eq!(end, Some(End::Finish));
        prop_assert_eq!(line.held(), 0);
    }

    /// One delay and one rate: exact bounds.
    #[test]
    fn never_early_and_never_faster(
        delay in 0..100_u64,
        rate in 100..1_000_000_u64,
        sizes in vec((0..20_u64, 1..2000_usize), 1..20),
    ) {
        let start = Instant::now();
        let mut line = line(start, &[latency(ms(delay), ms(0)), Effect::Bandwidth { rate }]);
        let mut arrivals = Vec::new();
        let mut at = 0;
        let mut total = 0;
        for (wait, size) in sizes {
            at += wait;
            total += size;
            line.push(start + ms(at), &vec![0; size]);
            arrivals.push((total, ms(at)));
        }
        let mut delivered = 0;
        let mut first = None;
        for (now, bytes) in drain(&mut line, start, ms(0)).0 {
            let first = *first.get_or_insert(now);
            delivered += bytes.len();
            let (_, arrived) = arrivals.iter().find(|(upto, _)| delivered <= *upto).unwrap();
            prop_assert!(now >= *arrived + ms(delay), "{now:?} before {arrived:?}");
            let allowed = (now - first + ms(5)).as_secs_f64() * rate as f64 + 1.0;
            prop_assert!(delivered as f64 <= allowed, "{delivered} by {now:?}");
        }
        prop_assert_eq!(delivered, total);
    }
}
